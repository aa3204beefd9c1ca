/* Operations without neighbours. One work-item handles one element of y unless said
 * otherwise; any size. `_at` arguments are offsets in elements. */

/* y = value */
__kernel void fill(__global float *y, long y_at, long count, float value)
{
    long i = get_global_id(0);
    if (i < count)
        y[y_at + i] = value;
}

/* y[n,t,c] = bias[c] + row[n % row_n, c] + residual[n,t,c] : what a product or a
 * convolution is then added to (beta = 1). has: bit 0 bias, bit 1 row, bit 2 residual. */
__kernel void prefill(__global float *y, long y_at, __global const float *bias, long bias_at,
                      __global const float *row, long row_at, int row_n,
                      __global const float *residual, long residual_at, long t, long c, int has)
{
    long ci = get_global_id(0), r = get_global_id(1);
    if (ci >= c)
        return;
    float v = 0.0f;
    if (has & 1)
        v = bias[bias_at + ci];
    if (has & 2)
        v += row[row_at + (r / t) % row_n * c + ci];
    if (has & 4)
        v += residual[residual_at + r * c + ci];
    y[y_at + r * c + ci] = v;
}

inline float gelu(float x)
{
    return 0.5f * x * (1.0f + erf(x * 0.70710678118654752f));
}

/* y = act(x): 0 SiLU x·σ(x), 1 GELU (erf form), 2 quick GELU x·σ(1.702x). */
__kernel void activate(__global const float *x, long x_at, __global float *y, long y_at,
                       long count, int kind)
{
    long i = get_global_id(0);
    if (i >= count)
        return;
    float v = x[x_at + i];
    if (kind == 1)
        v = gelu(v);
    else
        v = v / (1.0f + exp(kind == 2 ? -1.702f * v : -v));
    y[y_at + i] = v;
}

/* y[r,c] = x[r,c] · gelu(x[r,c + cols])   (GEGLU, Shazeer 2020); x: [r, 2·cols]. */
__kernel void geglu(__global const float *x, long x_at, __global float *y, long y_at, long cols)
{
    long c = get_global_id(0), r = get_global_id(1);
    if (c >= cols)
        return;
    __global const float *row = x + x_at + r * 2 * cols;
    y[y_at + r * cols + c] = row[c] * gelu(row[cols + c]);
}

/* y[r, 0..ca) = a[r], y[r, ca..ca+cb) = b[r] : skip connections joined by channel. */
__kernel void concat(__global const float *a, long a_at, long ca, __global const float *b,
                     long b_at, long cb, __global float *y, long y_at)
{
    long c = get_global_id(0), r = get_global_id(1);
    if (c >= ca + cb)
        return;
    y[y_at + r * (ca + cb) + c] = c < ca ? a[a_at + r * ca + c] : b[b_at + r * cb + c - ca];
}

/* y = factor · x + offset */
__kernel void scale(__global const float *x, long x_at, __global float *y, long y_at,
                    long count, float factor, float offset)
{
    long i = get_global_id(0);
    if (i < count)
        y[y_at + i] = factor * x[x_at + i] + offset;
}
