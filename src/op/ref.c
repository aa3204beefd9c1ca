#include "op/ref.h"

#include <math.h>
#include <string.h>

void ref_gemm(float *c, const float *a, const float *b, const ref_gemm_args *g)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < g->k; p++)
                sum += (double)a[i * g->lda + p] *
                       b[g->b_transposed ? j * g->ldb + p : p * g->ldb + j];
            float *to = &c[i * g->ldc + j];
            *to = (float)(g->alpha * sum + (g->beta != 0 ? g->beta * *to : 0));
        }
}

void ref_prefill(float *y, const float *b, const float *row, int64_t rows,
                 const float *residual, int64_t n, int64_t t, int64_t c)
{
    for (int64_t i = 0; i < n * t * c; i++) {
        double v = b ? b[i % c] : 0;
        if (row)
            v += row[i / c / t % rows * c + i % c];
        if (residual)
            v += residual[i];
        y[i] = (float)v;
    }
}

void ref_linear(float *y, const float *x, const float *w, const float *b,
                const float *residual, int64_t m, int64_t in, int64_t out)
{
    ref_prefill(y, b, NULL, 1, residual, 1, m, out);
    ref_gemm(y, x, w,
             &(ref_gemm_args){ .m = m,
                               .n = out,
                               .k = in,
                               .lda = in,
                               .ldb = out,
                               .ldc = out,
                               .alpha = 1,
                               .beta = 1 });
}

/* The sum of one output value's window. */
static double window(const float *x, const float *w, const ref_conv_args *a, int64_t image,
                     int64_t oy, int64_t ox, int64_t o)
{
    double sum = 0;
    for (int64_t ky = 0; ky < a->kh; ky++)
        for (int64_t kx = 0; kx < a->kw; kx++) {
            int64_t iy = oy * a->stride + ky - a->pad_top;
            int64_t ix = ox * a->stride + kx - a->pad_left;
            if (a->wrap) {
                iy = (iy % a->in_h + a->in_h) % a->in_h;
                ix = (ix % a->in_w + a->in_w) % a->in_w;
            }
            if (iy < 0 || ix < 0 || iy >= a->in_h || ix >= a->in_w)
                continue;
            int64_t sy = iy * a->h / a->in_h, sx = ix * a->w / a->in_w;
            const float *p = x + ((image % a->sources * a->h + sy) * a->w + sx) * a->in;
            const float *q = w + (ky * a->kw + kx) * a->in * a->out + o;
            for (int64_t c = 0; c < a->in; c++)
                sum += (double)p[c] * q[c * a->out];
        }
    return sum * a->in_scale;
}

void ref_conv2d(float *y, const float *x, const float *w, const float *b, const float *row,
                const float *residual, const ref_conv_args *a)
{
    ref_prefill(y, b, row, a->rows, residual, a->n, a->out_h * a->out_w, a->out);
    for (int64_t i = 0; i < a->n * a->out_h * a->out_w * a->out; i++) {
        int64_t o = i % a->out, ox = i / a->out % a->out_w;
        int64_t oy = i / a->out / a->out_w % a->out_h;
        y[i] += (float)window(x, w, a, i / a->out / a->out_w / a->out_h, oy, ox, o);
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x * 0.70710678118654752));
}

/* Mean and 1/sqrt(variance + eps) of rows × cols values, rows ld floats apart. */
static void moments(double *mean, double *inv, const float *x, int64_t rows, int64_t cols,
                    int64_t ld, double eps)
{
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            sum += x[r * ld + c];
    *mean = sum / (double)(rows * cols);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            squares += (x[r * ld + c] - *mean) * (x[r * ld + c] - *mean);
    *inv = 1 / sqrt(squares / (double)(rows * cols) + eps);
}

void ref_group_norm(float *y, const float *x, const float *w, const float *b, int64_t n,
                    int64_t t, int64_t c, int64_t groups, double eps, bool silu)
{
    int64_t per = c / groups;
    for (int64_t i = 0; i < n * groups; i++) {
        int64_t at = i / groups * t * c + i % groups * per;
        double mean, inv;
        moments(&mean, &inv, x + at, t, per, c, eps);
        for (int64_t k = 0; k < t * per; k++) {
            int64_t e = at + k / per * c + k % per, ch = e % c;
            double v = (x[e] - mean) * inv * w[ch] + b[ch];
            y[e] = (float)(silu ? v * sigmoid(v) : v);
        }
    }
}

void ref_layer_norm(float *y, const float *x, const float *w, const float *b, int64_t rows,
                    int64_t c, double eps)
{
    for (int64_t r = 0; r < rows; r++) {
        double mean, inv;
        moments(&mean, &inv, x + r * c, 1, c, c, eps);
        for (int64_t i = 0; i < c; i++)
            y[r * c + i] = (float)((x[r * c + i] - mean) * inv * w[i] + b[i]);
    }
}

void ref_softmax(float *x, int64_t rows, int64_t cols, int64_t queries, int64_t first,
                 bool causal)
{
    for (int64_t r = 0; r < rows; r++) {
        float *p = x + r * cols;
        int64_t seen = cols;
        double top = -INFINITY, sum = 0;
        if (causal && r % queries + first + 1 < cols)
            seen = r % queries + first + 1;
        for (int64_t i = 0; i < seen; i++)
            top = fmax(top, p[i]);
        for (int64_t i = 0; i < seen; i++)
            sum += exp(p[i] - top);
        for (int64_t i = 0; i < cols; i++)
            p[i] = (float)(i < seen ? exp(p[i] - top) / sum : 0);
    }
}

/* One query of one head: d channels from q, k, v, whose rows are c apart. */
static void attend(float *y, const float *q, const float *k, const float *v, int64_t keys,
                   int64_t d, int64_t c)
{
    double top = -INFINITY, total = 0, sum[512] = { 0 };
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = 0; j < keys; j++) {
            double s = 0;
            for (int64_t i = 0; i < d; i++)
                s += (double)q[i] * k[j * c + i];
            s /= sqrt((double)d);
            if (pass == 0) {
                top = fmax(top, s);
                continue;
            }
            total += exp(s - top);
            for (int64_t i = 0; i < d; i++)
                sum[i] += exp(s - top) * v[j * c + i];
        }
    for (int64_t i = 0; i < d; i++)
        y[i] = (float)(sum[i] / total);
}

void ref_attention(float *y, const float *q, const float *k, const float *v,
                   const ref_attention_args *a)
{
    int64_t d = a->c / a->heads;
    for (int64_t i = 0; i < a->n; i++)
        for (int64_t t = 0; t < a->tq; t++)
            for (int64_t h = 0; h < a->heads; h++) {
                int64_t at = (i * a->tq + t) * a->c + h * d;
                int64_t row = a->rows ? a->rows[i] : i * a->m / a->n;
                int64_t text = row * a->tk * a->c + h * d;
                int64_t keys = a->causal && t + 1 < a->tk ? t + 1 : a->tk;
                attend(y + at, q + at, k + text, v + text, keys, d, a->c);
            }
}

void ref_activate(float *y, const float *x, int64_t count, dr_activation kind)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)(kind == DR_GELU         ? gelu(x[i])
                       : kind == DR_SILU       ? x[i] * sigmoid(x[i])
                       : kind == DR_RELU       ? fmax(x[i], 0)
                       : kind == DR_SOFT_CLAMP ? 3 * tanh(x[i] / 3.0)
                                               : x[i] * sigmoid(1.702 * x[i]));
}

void ref_geglu(float *y, const float *x, int64_t rows, int64_t c)
{
    for (int64_t i = 0; i < rows * c; i++) {
        const float *row = x + i / c * 2 * c + i % c;
        y[i] = (float)(row[0] * gelu(row[c]));
    }
}

void ref_concat(float *y, const float *a, int64_t ca, const float *b, int64_t cb,
                int64_t rows)
{
    for (int64_t r = 0; r < rows; r++, y += ca + cb) {
        memcpy(y, a + r * ca, (size_t)ca * sizeof *y);
        memcpy(y + ca, b + r * cb, (size_t)cb * sizeof *y);
    }
}

void ref_scale(float *y, const float *x, int64_t count, double factor, double offset)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)(factor * x[i] + offset);
}

void ref_fill(float *y, int64_t count, double value)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)value;
}

void ref_embed_tokens(float *y, const int32_t *ids, const float *table, int64_t rows,
                      const float *extra, const float *positions, int64_t n, int64_t length,
                      int64_t c)
{
    for (int64_t i = 0; i < n * length * c; i++) {
        int64_t id = ids[i / c];
        const float *row = id < rows ? table + id * c : extra + (id - rows) * c;
        y[i] = row[i % c] + positions[i / c % length * c + i % c];
    }
}

void ref_embed_timestep(float *y, double timestep, int64_t c, bool flip, double shift)
{
    int64_t half = c / 2;
    for (int64_t i = 0; i < half; i++) {
        double a = timestep * exp(-log(10000.0) * (double)i / ((double)half - shift));
        y[i + (flip ? half : 0)] = (float)sin(a);
        y[i + (flip ? 0 : half)] = (float)cos(a);
    }
}

/* The guided value i of an image; along: the share of the text in what is avoided. */
static double guided(const float *text, const float *plain, const float *empty, int64_t i,
                     double cfg, double along)
{
    const float *base = empty ? empty : plain;
    double p = (double)text[i] - base[i], q = (double)plain[i] - base[i];
    return base[i] + cfg * (p - (q - along * p));
}

static double deviation(double sum, double squares, int64_t n)
{
    return sqrt(fmax(squares / (double)n - sum / (double)n * (sum / (double)n), 0));
}

static void guide_image(float *y, const float *text, const float *plain, const float *empty,
                        int64_t count, double cfg, double rescale)
{
    double dot = 0, norm = 0, sum[2] = { 0 }, squares[2] = { 0 };
    for (int64_t i = 0; i < count && empty; i++) {
        double p = (double)text[i] - empty[i];
        dot += p * ((double)plain[i] - empty[i]);
        norm += p * p;
    }
    double along = norm > 0 ? dot / norm : 0;
    for (int64_t i = 0; i < count; i++) {
        double m = guided(text, plain, empty, i, cfg, along);
        sum[0] += text[i];
        sum[1] += m;
        squares[0] += (double)text[i] * text[i];
        squares[1] += m * m;
    }
    double spread = deviation(sum[1], squares[1], count), factor = 1;
    if (spread > 0)
        factor = rescale * deviation(sum[0], squares[0], count) / spread + 1 - rescale;
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)(guided(text, plain, empty, i, cfg, along) * factor);
}

void ref_guide(float *y, const float *text, const float *plain, const float *empty,
               int64_t n, int64_t count, double cfg, double rescale)
{
    for (int64_t i = 0; i < n * count; i += count)
        guide_image(y + i, text + i, plain + i, empty ? empty + i : NULL, count, cfg,
                    rescale);
}

void ref_sampler_step(float *x, const float *out, const float *plain, float *const *hist,
                      const float *noise, float *denoised, int64_t count,
                      const dr_step_coef *k)
{
    for (int64_t i = 0; i < count; i++) {
        double m = out[i], v = x[i];
        if (plain)
            m = plain[i] + (double)k->cfg * (m - plain[i]);
        double next = k->x * v + k->out * m + k->noise * noise[i];
        for (int s = 0; s < DR_STEP_HISTORY; s++)
            next += (double)k->hist[s] * hist[s][i];
        if (k->slot >= 0)
            hist[k->slot][i] =
                (float)(k->hist_x * v + k->hist_out * m + k->hist_noise * noise[i]);
        x[i] = (float)next;
        denoised[i] = (float)(k->denoised_x * v + k->denoised_out * m);
    }
}

void ref_repaint(float *x, const float *mask, const float *picture, const float *noise,
                 int64_t positions, int64_t c, double signal, double level)
{
    for (int64_t i = 0; i < positions * c; i++) {
        double m = mask[i / c], kept = signal * picture[i] + level * noise[i];
        x[i] = (float)(m * x[i] + (1 - m) * kept);
    }
}

void ref_linear_rgb(float *y, const float *x, const float *matrix, int64_t pixels,
                    int64_t c)
{
    for (int64_t i = 0; i < pixels * 3; i++) {
        double v = matrix[c * 3 + i % 3];
        for (int64_t k = 0; k < c; k++)
            v += (double)x[i / 3 * c + k] * matrix[k * 3 + i % 3];
        y[i] = (float)v;
    }
}

void ref_to_rgb8(uint8_t *y, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (uint8_t)rintf(fminf(fmaxf(x[i] * 0.5f + 0.5f, 0.0f), 1.0f) * 255.0f);
}

dr_range ref_range(const float *x, int64_t count)
{
    dr_range all = { .min = INFINITY, .max = -INFINITY };
    for (int64_t i = 0; i < count; i++) {
        all.min = fminf(all.min, x[i]);
        all.max = fmaxf(all.max, x[i]);
        all.not_finite += !isfinite(x[i]);
    }
    return all;
}

/* IEEE binary16 by its definition. */
static float half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double v = exponent == 31  ? (fraction ? NAN : INFINITY)
               : exponent == 0 ? ldexp(fraction, -24)
                               : ldexp(fraction + 1024, exponent - 25);
    return (float)(bits >> 15 ? -v : v);
}

static float weight_value(const void *x, int64_t i, int kind)
{
    float v;
    uint16_t bits;
    if (kind == 0) {
        memcpy(&v, (const char *)x + i * 4, sizeof v);
        return v;
    }
    memcpy(&bits, (const char *)x + i * 2, sizeof bits);
    if (kind == 1)
        return half_value(bits);
    uint32_t wide = (uint32_t)bits << 16;
    memcpy(&v, &wide, sizeof v);
    return v;
}

void ref_unpack_weights(float *y, const void *x, int64_t o, int64_t c, int64_t s, int kind)
{
    for (int64_t i = 0; i < o * c * s; i++) {
        int64_t oi = i / s / c, ci = i / s % c, si = i % s;
        y[(si * c + ci) * o + oi] = weight_value(x, i, kind);
    }
}

void ref_add_hadamard(float *y, const float *a, const float *b, int64_t count,
                      double factor)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)(y[i] + factor * a[i] * b[i]);
}

void ref_add_kronecker(float *y, const float *a, const float *b,
                       const ref_kronecker_args *k, double factor)
{
    int64_t in = k->in1 * k->in2, out = k->out1 * k->out2;
    for (int64_t i = 0; i < k->s * in * out; i++) {
        int64_t s = i / out / in, row = i / out % in, o = i % out;
        y[i] = (float)(y[i] + factor * a[row / k->in2 * k->out1 + o / k->out2] *
                                  b[(s * k->in2 + row % k->in2) * k->out2 + o % k->out2]);
    }
}

/* Norm of what belongs to element i's output or input. */
static double dora_norm(const float *w, int64_t i, int64_t s, int64_t in, int64_t n,
                        bool by_input)
{
    double sum = 0;
    for (int64_t e = 0; e < s * in * n; e++)
        if (by_input ? e / n % in == i / n % in : e % n == i % n)
            sum += (double)w[e] * w[e];
    return sqrt(sum);
}

void ref_add_dora(float *y, const float *base, const float *w, const float *magnitude,
                  int64_t s, int64_t in, int64_t n, bool by_input, double factor)
{
    for (int64_t i = 0; i < s * in * n; i++) {
        double m = magnitude[by_input ? i / n % in : i % n];
        double v = m * w[i] / dora_norm(w, i, s, in, n, by_input);
        y[i] = (float)(y[i] + factor * (v - base[i]));
    }
}

double ref_distance(const float *a, const float *b, int64_t count)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(a[i]))
            return INFINITY;
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}
