#include "image/resample.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

/* --- weights --- */

/* For each output of an axis a run of source pixels and their weights. */
typedef struct {
    int64_t n, taps; /* outputs; the longest run */
    int64_t *first, *count;
    float *weight; /* [n, taps] */
} axis;

static double sinc(double x)
{
    return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x);
}

/* Weight of the source pixel i for the output whose centre is at `centre` and which covers
 * `scale` source pixels. */
static double lanczos(double i, double centre, double scale)
{
    double x = (i + 0.5 - centre) / fmax(scale, 1);
    return fabs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static double area(double i, double centre, double scale)
{
    double overlap = fmin(i + 1, centre + scale / 2) - fmax(i, centre - scale / 2);
    return fmax(overlap, 0);
}

static double gauss(double i, double centre, double sigma)
{
    double x = (i + 0.5 - centre) / sigma;
    return exp(-0.5 * x * x);
}

static const struct {
    double (*weight)(double i, double centre, double scale);
    double support; /* in scales, to both sides */
    double scale_min;
    bool edges; /* are repeated */
} filters[] = {
    [DR_FILTER_LANCZOS] = { lanczos, 3, 1, false },
    [DR_FILTER_AREA] = { area, 0.5, 0, false },
    [DR_FILTER_GAUSS] = { gauss, 4, 0, true },
};

static int64_t within(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Fill the run of output k: the pixels from..to-1, some of which may lie outside. */
static void fill_run(axis *a, int64_t k, int64_t n_in, dr_filter filter, double centre,
                     double scale)
{
    const double reach = filters[filter].support * fmax(scale, filters[filter].scale_min);
    int64_t from = (int64_t)floor(centre - reach), to = (int64_t)ceil(centre + reach);
    float *weight = a->weight + k * a->taps;
    double sum = 0;
    if (!filters[filter].edges) {
        from = from < 0 ? 0 : from;
        to = to > n_in ? n_in : to;
    }
    a->first[k] = within(from, n_in);
    a->count[k] = within(to - 1, n_in) - a->first[k] + 1;
    for (int64_t i = from; i < to; i++)
        sum += filters[filter].weight((double)i, centre, scale);
    for (int64_t i = from; i < to; i++)
        weight[within(i, n_in) - a->first[k]] +=
            (float)(filters[filter].weight((double)i, centre, scale) / sum);
}

static void axis_free(axis *a)
{
    dr_free(a->first);
    dr_free(a->count);
    dr_free(a->weight);
}

static dr_status axis_make(axis *a, int64_t n_in, int64_t n, dr_span s, dr_filter filter,
                           double sigma, dr_err *err)
{
    const double step = (s.hi - s.lo) / (double)s.inner;
    const bool copies = filter != DR_FILTER_GAUSS && step == 1 && s.lo == floor(s.lo);
    const double scale = filter == DR_FILTER_GAUSS ? sigma : step;
    const double reach = filters[filter].support * fmax(scale, filters[filter].scale_min);
    *a = (axis){ .n = n, .taps = copies ? 1 : (int64_t)fmin(2 * reach + 3, (double)n_in) };
    a->first = dr_alloc((size_t)n * sizeof *a->first);
    a->count = dr_alloc((size_t)n * sizeof *a->count);
    a->weight = dr_alloc((size_t)(n * a->taps) * sizeof *a->weight);
    if (!a->first || !a->count || !a->weight)
        return dr_fail(err, DR_ENOMEM, "resize: out of memory");
    for (int64_t k = 0; k < n; k++) {
        int64_t part = within(k - s.before, s.inner);
        if (!copies) {
            fill_run(a, k, n_in, filter, s.lo + ((double)part + 0.5) * step, scale);
            continue;
        }
        a->first[k] = within((int64_t)s.lo + part, n_in);
        a->count[k] = 1;
        a->weight[k] = 1;
    }
    return DR_OK;
}

/* --- the two passes --- */

typedef struct {
    axis across, down;
    float *source;  /* a row of the source */
    float *ring;    /* [down.taps] rows, filtered across; row y in slot y % taps */
    float *sum;     /* a row of the result */
    int64_t loaded; /* rows of the source that went into the ring */
} passes;

static float hold(float v, float max)
{
    return v < 0 ? 0 : v > max ? max : v;
}

/* out[x] = sum of weights x pixels along a row. It is held within 0..max, as where 8 bits
 * are kept between the passes: overshoot does not swing on into the other direction. */
static void filter_row(const axis *a, const float *in, float *out, int64_t channels,
                       float max)
{
    for (int64_t x = 0; x < a->n; x++)
        for (int64_t c = 0; c < channels; c++) {
            const float *p = in + a->first[x] * channels + c, *w = a->weight + x * a->taps;
            float even = 0, odd = 0; /* two chains of additions, which overlap */
            int64_t i = 0;
            for (; i + 1 < a->count[x]; i += 2) {
                even += w[i] * p[i * channels];
                odd += w[i + 1] * p[(i + 1) * channels];
            }
            if (i < a->count[x])
                even += w[i] * p[i * channels];
            *out++ = hold(even + odd, max);
        }
}

static void load_row(passes *p, const dr_resampling *r)
{
    const int64_t n = r->w * r->channels, y = p->loaded++;
    const float *row = r->f32 ? r->f32 + y * n : p->source;
    if (!r->f32)
        for (int64_t i = 0; i < n; i++)
            p->source[i] = r->u8[y * n + i];
    filter_row(&p->across, row, p->ring + y % p->down.taps * (r->to_w * r->channels),
               r->channels, r->max);
}

static void store_row(const dr_resampling *r, int64_t y, const float *sum)
{
    const int64_t n = r->to_w * r->channels;
    for (int64_t i = 0; i < n; i++) {
        float v = hold(sum[i], r->max);
        if (r->to_u8)
            r->to_u8[y * n + i] = (uint8_t)(v + 0.5f);
        else
            r->to_f32[y * n + i] = v * r->scale + r->shift;
    }
}

static void make_row(passes *p, const dr_resampling *r, int64_t y)
{
    const axis *a = &p->down;
    const int64_t n = r->to_w * r->channels;
    /* Rows in front of the first one needed (a crop) are not filtered. */
    if (p->loaded < a->first[y])
        p->loaded = a->first[y];
    while (p->loaded < a->first[y] + a->count[y])
        load_row(p, r);
    memset(p->sum, 0, (size_t)n * sizeof *p->sum);
    for (int64_t i = 0; i < a->count[y]; i++) {
        const float w = a->weight[y * a->taps + i];
        const float *row = p->ring + (a->first[y] + i) % a->taps * n;
        for (int64_t x = 0; x < n; x++)
            p->sum[x] += w * row[x];
    }
    store_row(r, y, p->sum);
}

dr_status dr_resample(const dr_resampling *r, dr_err *err)
{
    passes p = { 0 };
    const size_t row = (size_t)(r->to_w * r->channels) * sizeof(float);
    dr_status st = axis_make(&p.across, r->w, r->to_w, r->across, r->filter, r->sigma, err);
    if (!st)
        st = axis_make(&p.down, r->h, r->to_h, r->down, r->filter, r->sigma, err);
    if (st)
        goto done;
    p.source = dr_alloc((size_t)(r->w * r->channels) * sizeof(float));
    p.ring = dr_alloc((size_t)p.down.taps * row);
    p.sum = dr_alloc(row);
    if (!p.source || !p.ring || !p.sum) {
        st = dr_fail(err, DR_ENOMEM, "resize: out of memory");
        goto done;
    }
    for (int64_t y = 0; y < r->to_h; y++)
        make_row(&p, r, y);
done:
    axis_free(&p.across);
    axis_free(&p.down);
    dr_free(p.source);
    dr_free(p.ring);
    dr_free(p.sum);
    return st;
}

/* --- fits --- */

/* The middle n / scale of n_in source pixels, on whole pixels where nothing is scaled. */
static dr_span middle(int64_t n_in, int64_t n, double scale)
{
    double part = fmin((double)n / scale, (double)n_in), lo = ((double)n_in - part) / 2;
    lo = part == (double)n ? floor(lo) : lo;
    return (dr_span){ .lo = lo, .hi = lo + part, .inner = n };
}

/* All of n_in, with its edges repeated to both sides. */
static dr_span padded(int64_t n_in, int64_t n, double scale)
{
    int64_t inner = within(llround((double)n_in * scale) - 1, n) + 1;
    return (dr_span){ .hi = (double)n_in, .before = (n - inner) / 2, .inner = inner };
}

void dr_fit_spans(dr_fit fit, int64_t w, int64_t h, int64_t to_w, int64_t to_h,
                  dr_span *across, dr_span *down)
{
    const double x = (double)to_w / (double)w, y = (double)to_h / (double)h;
    *across = (dr_span){ .hi = (double)w, .inner = to_w };
    *down = (dr_span){ .hi = (double)h, .inner = to_h };
    if (fit == DR_FIT_CROP) {
        *across = middle(w, to_w, fmax(x, y));
        *down = middle(h, to_h, fmax(x, y));
    } else if (fit == DR_FIT_PAD) {
        *across = padded(w, to_w, fmin(x, y));
        *down = padded(h, to_h, fmin(x, y));
    }
}

static dr_resampling resampling(const dr_image *im, int64_t w, int64_t h, dr_fit fit)
{
    dr_resampling r = { .filter = DR_FILTER_LANCZOS,
                        .u8 = im->px,
                        .w = im->w,
                        .h = im->h,
                        .channels = im->channels,
                        .to_w = w,
                        .to_h = h,
                        .max = 255 };
    dr_fit_spans(fit, im->w, im->h, w, h, &r.across, &r.down);
    return r;
}

dr_status dr_image_resize(dr_image *im, int64_t w, int64_t h, dr_fit fit, dr_err *err)
{
    dr_image out;
    if (im->w == w && im->h == h)
        return DR_OK;
    dr_status st = dr_image_new(&out, w, h, im->channels, err);
    if (st)
        return st;
    dr_resampling r = resampling(im, w, h, fit);
    r.to_u8 = out.px;
    if ((st = dr_resample(&r, err))) {
        dr_image_free(&out);
        return st;
    }
    dr_image_free(im);
    *im = out;
    return DR_OK;
}

dr_status dr_image_to_floats(const dr_image *im, int64_t w, int64_t h, dr_fit fit, float lo,
                             float hi, float *out, dr_err *err)
{
    dr_resampling r = resampling(im, w, h, fit);
    r.to_f32 = out;
    r.scale = (hi - lo) / 255;
    r.shift = lo;
    return dr_resample(&r, err);
}
