#include "nn/vae_bands.h"

#include "base/mem.h"

/* The autoencoder's large activations lie on the host and pass the device in bands of rows.
 * A convolution reads the rows that its window needs beyond a band; a group norm sees the
 * statistics of all bands before the first is normalised. So nothing is blended or guessed:
 * the result is that of the whole picture. */

/* An activation [h, w, c]: on the host (data is NULL in dry runs) or a picture that is on
 * the device. */
typedef struct {
    float *data;
    const dr_tensor *picture; /* NULL: on the host */
    int64_t h, w, c;
} tall;

static size_t bytes_of(const tall *t)
{
    return (size_t)(t->h * t->w * t->c) * sizeof(float);
}

static tall tall_new(dr_run *r, int64_t h, int64_t w, int64_t c)
{
    tall t = { .h = h, .w = w, .c = c };
    size_t bytes = bytes_of(&t);
    r->host_bytes += bytes;
    if (r->host_bytes > r->host_peak_bytes)
        r->host_peak_bytes = r->host_bytes;
    if (!r->dry && !r->err.code && !(t.data = dr_alloc(bytes)))
        dr_fail(&r->err, DR_ENOMEM, "out of memory: %zu bytes on the host", bytes);
    return t;
}

static void tall_free(dr_run *r, tall *t)
{
    r->host_bytes -= bytes_of(t);
    dr_free(t->data);
    t->data = NULL;
}

static float *row_of(const tall *t, int64_t row)
{
    return t->data ? t->data + row * t->w * t->c : NULL;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows [first, first + n) on the device; those beyond an edge are the opposite one's. */
static dr_tensor read_rows(dr_run *r, const tall *t, int64_t first, int64_t n)
{
    dr_tensor x = dr_new(r, 1, n, t->w, t->c);
    for (int64_t i = 0, len; i < n; i += len) {
        int64_t row = (first + i + t->h) % t->h;
        len = smaller(n - i, t->h - row);
        dr_upload(r, dr_rows(x, i, len), row_of(t, row));
    }
    return x;
}

/* Rows [first, first + x.h) come from the device. */
static void write_rows(dr_run *r, const tall *t, int64_t first, dr_tensor x)
{
    if (t->data)
        dr_download(r, x, row_of(t, first));
}

/* --- operations --- */

/* How group norm changes t: [1, 1, 3, c]. */
static dr_tensor norm_of(dr_run *r, const tall *t, const dr_weight_norm *w)
{
    dr_tensor coef = dr_new(r, 1, 1, 3, t->c);
    dr_mark mark = dr_push(r);
    dr_tensor part = dr_new(r, 1, t->h, 2, t->c);
    for (int64_t y = 0; y < t->h; y += r->band_rows) {
        dr_mark band = dr_push(r);
        op_group_norm_gather(r, read_rows(r, t, y, smaller(r->band_rows, t->h - y)), part,
                             y);
        dr_pop(r, band);
    }
    op_group_norm_combine(r, part, t->w, w, coef);
    dr_pop(r, mark);
    return coef;
}

/* A convolution with what stands before it. */
typedef struct {
    const dr_weight_mat *w;
    const dr_weight_norm *norm;    /* and SiLU; NULL: none */
    const dr_weight_mat *shortcut; /* of the residual, out 0: it is added as it is */
    int before, after;             /* zeros around the input */
    int stride, up;
} filter;

static filter filter_of(const dr_weight_mat *w, const dr_weight_norm *norm)
{
    return (filter){ .w = w, .norm = norm, .before = 1, .after = 1, .stride = 1, .up = 1 };
}

/* Rows [first, first + y.h) of the result, into y. */
static void filter_rows(dr_run *r, const filter *f, const dr_tensor *coef, const tall *in,
                        int64_t first, dr_tensor y, const dr_tensor *residual)
{
    /* in rows of the enlarged input: [lo, hi), of which some may lie outside */
    int64_t lo = first * f->stride - f->before, size = in->h * f->up;
    int64_t hi = lo + (y.h - 1) * f->stride + f->w->kh;
    int64_t top = r->wrap || lo >= 0 ? 0 : -lo,
            bottom = r->wrap || hi <= size ? 0 : hi - size;
    int64_t from = (lo + top - (lo + top < 0 ? f->up - 1 : 0)) / f->up;
    int64_t to = (hi - bottom + f->up - 1) / f->up, skip = lo + top - from * f->up;
    dr_conv_opts o = { .stride = f->stride,
                       .pad_top = (int)top,
                       .pad_bottom = (int)bottom,
                       .pad_left = f->before,
                       .pad_right = f->after,
                       .up_h = f->up > 1 ? (to - from) * f->up : 0,
                       .up_w = f->up > 1 ? in->w * f->up : 0,
                       .norm = coef,
                       .residual = residual };
    dr_mark mark = dr_push(r);
    dr_tensor x = read_rows(r, in, from, to - from);
    if (f->up == 1)
        op_conv2d_into(r, y, x, f->w, &o);
    else /* whole rows of the input make more than the band */
        op_scale(r, dr_rows(op_conv2d(r, x, f->w, &o), skip, y.h), y, 1, 0);
    dr_pop(r, mark);
}

/* All of it into `to`. residual may be `to`; NULL: none. */
static void filter_all(dr_run *r, const filter *f, const tall *in, const tall *to,
                       const tall *residual)
{
    dr_mark mark = dr_push(r);
    dr_tensor coef;
    if (f->norm)
        coef = norm_of(r, in, f->norm);
    for (int64_t first = 0; first < to->h && !r->err.code; first += r->band_rows) {
        int64_t n = smaller(r->band_rows, to->h - first);
        dr_mark band = dr_push(r);
        dr_tensor y =
            to->picture ? dr_rows(*to->picture, first, n) : dr_new(r, 1, n, to->w, to->c);
        dr_tensor add;
        if (residual)
            add = read_rows(r, residual, first, n);
        if (residual && f->shortcut->out)
            add = op_conv2d(r, add, f->shortcut, &(dr_conv_opts){ 0 });
        filter_rows(r, f, f->norm ? &coef : NULL, in, first, y, residual ? &add : NULL);
        write_rows(r, to, first, y);
        dr_pop(r, band);
    }
    dr_pop(r, mark);
}

static void resnet(dr_run *r, const dr_resnet *b, tall *x)
{
    filter first = filter_of(&b->conv1, &b->norm1),
           second = filter_of(&b->conv2, &b->norm2);
    second.shortcut = &b->shortcut;
    tall h = tall_new(r, x->h, x->w, b->conv1.out), y = *x;
    if (b->shortcut.out)
        y = tall_new(r, x->h, x->w, b->conv2.out);
    filter_all(r, &first, x, &h, NULL);
    filter_all(r, &second, &h, &y, x);
    tall_free(r, &h);
    if (b->shortcut.out)
        tall_free(r, x);
    *x = y;
}

static void level(dr_run *r, const dr_vae_level *v, tall *x, const filter *resize)
{
    for (int i = 0; i < v->n_resnets; i++)
        resnet(r, &v->resnets[i], x);
    if (!v->sampler.out)
        return;
    filter f = *resize;
    f.w = &v->sampler;
    tall y = tall_new(r, x->h * f.up / f.stride, x->w * f.up / f.stride, v->sampler.out);
    filter_all(r, &f, x, &y, NULL);
    tall_free(r, x);
    *x = y;
}

void dr_vae_decode_bands(dr_run *r, const dr_vae *m, dr_tensor z, dr_tensor out)
{
    const dr_vae_half *h = &m->decoder;
    const filter up = { .before = 1, .after = 1, .stride = 1, .up = 2 };
    const filter last = filter_of(&h->conv_out, &h->norm_out);
    for (int64_t i = 0; i < z.n; i++) {
        dr_mark mark = dr_push(r);
        dr_tensor small = dr_vae_expand(r, m, dr_slice(z, i, 1)),
                  picture = dr_slice(out, i, 1);
        const tall whole = { .picture = &picture, .h = out.h, .w = out.w, .c = out.c };
        tall x = tall_new(r, small.h, small.w, small.c);
        write_rows(r, &x, 0, small);
        dr_pop(r, mark);
        for (int k = 0; k < h->n_levels; k++)
            level(r, &h->levels[k], &x, &up);
        filter_all(r, &last, &x, &whole, NULL);
        tall_free(r, &x);
    }
}

void dr_vae_encode_bands(dr_run *r, const dr_vae *m, dr_tensor picture, dr_tensor out)
{
    const dr_vae_half *h = &m->encoder;
    const filter first = filter_of(&h->conv_in, NULL);
    const filter down = { .after = 1, .stride = 2, .up = 1 };
    for (int64_t i = 0; i < picture.n; i++) {
        tall p = tall_new(r, picture.h, picture.w, picture.c);
        tall x = tall_new(r, picture.h, picture.w, h->conv_in.out);
        write_rows(r, &p, 0, dr_slice(picture, i, 1));
        filter_all(r, &first, &p, &x, NULL);
        tall_free(r, &p);
        for (int k = 0; k < h->n_levels; k++)
            level(r, &h->levels[k], &x, &down);
        dr_mark mark = dr_push(r);
        dr_vae_condense(r, m, read_rows(r, &x, 0, x.h), dr_slice(out, i, 1));
        tall_free(r, &x);
        dr_pop(r, mark);
    }
}
