/* Operations without neighbours. A work-item handles a block of 8 neighbours, the last one
 * of a row what is left; any size. `_at` arguments are offsets in elements. Kernels over
 * rows: (block, row); the others: (block of all elements). */

/* y = value */
__kernel void fill(__global float *y, long y_at, long count, float value)
{
    long i = get_global_id(0) * BLOCK;
    if (i < count)
        store8(value, y + y_at + i, count - i);
}

/* y[n,t,c] = bias[c] + row[n % row_n, c] + residual[n,t,c] : what a product or a
 * convolution is then added to (beta = 1). has: bit 0 bias, bit 1 row, bit 2 residual. */
__kernel void prefill(__global float *y, long y_at, __global const float *bias, long bias_at,
                      __global const float *row, long row_at, int row_n,
                      __global const float *residual, long residual_at, int has, long t, long c)
{
    long ci = get_global_id(0) * BLOCK, r = get_global_id(1);
    if (ci >= c)
        return;
    float8 v = 0.0f;
    if (has & 1)
        v = load8(bias + bias_at + ci, c - ci);
    if (has & 2)
        v += load8(row + row_at + (r / t) % row_n * c + ci, c - ci);
    if (has & 4)
        v += load8(residual + residual_at + r * c + ci, c - ci);
    store8(v, y + y_at + r * c + ci, c - ci);
}

DEFINE_GELU(gelu, float8)

/* y = act(x): 0 SiLU x·σ(x), 1 GELU (erf form), 2 quick GELU x·σ(1.702x), 3 ReLU max(x, 0),
 * 4 soft clamp 3·tanh(x/3). */
__kernel void activate(__global const float *x, long x_at, __global float *y, long y_at,
                       long count, int kind)
{
    long i = get_global_id(0) * BLOCK;
    if (i >= count)
        return;
    float8 v = load8(x + x_at + i, count - i);
    if (kind == 1)
        v = gelu(v);
    else if (kind == 3)
        v = fmax(v, 0.0f);
    else if (kind == 4)
        v = 3.0f * tanh(v / 3.0f);
    else
        v = v / (1.0f + exp((kind == 2 ? -1.702f : -1.0f) * v));
    store8(v, y + y_at + i, count - i);
}

/* y[r,c] = x[r,c] · gelu(x[r,c + cols])   (GEGLU, Shazeer 2020); x: [r, 2·cols]. */
__kernel void geglu(__global const float *x, long x_at, __global float *y, long y_at, long cols)
{
    long c = get_global_id(0) * BLOCK, r = get_global_id(1);
    if (c >= cols)
        return;
    __global const float *p = x + x_at + r * 2 * cols + c;
    float8 v = load8(p, cols - c) * gelu(load8(p + cols, cols - c));
    store8(v, y + y_at + r * cols + c, cols - c);
}

/* y[r, 0..ca) = a[r], y[r, ca..ca+cb) = b[r] : skip connections joined by channel. Blocks
 * of a, then of b. */
__kernel void concat(__global const float *a, long a_at, long ca, __global const float *b,
                     long b_at, long cb, __global float *y, long y_at)
{
    long c = get_global_id(0) * BLOCK, r = get_global_id(1);
    long a_end = (ca + BLOCK - 1) / BLOCK * BLOCK;
    __global float *q = y + y_at + r * (ca + cb);
    if (c < a_end) {
        store8(load8(a + a_at + r * ca + c, ca - c), q + c, ca - c);
        return;
    }
    c -= a_end;
    if (c < cb)
        store8(load8(b + b_at + r * cb + c, cb - c), q + ca + c, cb - c);
}

/* y = factor · x + offset */
__kernel void scale(__global const float *x, long x_at, __global float *y, long y_at,
                    long count, float factor, float offset)
{
    long i = get_global_id(0) * BLOCK;
    if (i < count)
        store8(factor * load8(x + x_at + i, count - i) + offset, y + y_at + i, count - i);
}
