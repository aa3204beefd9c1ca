/* What LoRAs add to weights. Weights y are [k, n] floats as GEMM reads them: row s·in + i
 * holds input i at position s of the window, column o is an output. `_at` arguments are
 * offsets in elements. Any sizes. */

/* y += factor · a ⊙ b over all elements : LoHa (Hyeon-Woo et al. 2022). A work-item: 8
 * neighbours. */
__kernel void add_hadamard(__global float *y, long y_at, __global const float *a, long a_at,
                           __global const float *b, long b_at, long count, float factor)
{
    long i = get_global_id(0) * BLOCK;
    if (i >= count)
        return;
    __global float *p = y + y_at + i;
    float8 v = load8(a + a_at + i, count - i) * load8(b + b_at + i, count - i);
    store8(load8(p, count - i) + factor * v, p, count - i);
}

/* y[s, i1·in2 + i2, o1·out2 + o2] += factor · a[i1, o1] · b[s, i2, o2] : LoKr, Kronecker's
 * product of a small matrix and a layer's window. rows: those of b, s·in2. A work-item: 8
 * neighbours of b. (block, row of b, element of a) */
__kernel void add_kronecker(__global float *y, long y_at, __global const float *a, long a_at,
                            __global const float *b, long b_at, long in1, long out1, long in2,
                            long out2, float factor)
{
    long o = get_global_id(0) * BLOCK, row = get_global_id(1), e = get_global_id(2);
    if (o >= out2)
        return;
    long i1 = e / out1, o1 = e % out1, s = row / in2, i2 = row % in2;
    __global float *p =
        y + y_at + ((s * in1 + i1) * in2 + i2) * (out1 * out2) + o1 * out2 + o;
    float8 v = load8(b + b_at + row * out2 + o, out2 - o);
    store8(load8(p, out2 - o) + factor * a[a_at + e] * v, p, out2 - o);
}

/* scale[j] = magnitude[j] / ‖w_j‖ : DoRA (Liu et al. 2024). by_input 0: j is an output, w_j
 * a column of w [s·in, n]; 1: j is an input, w_j its rows at all positions. A work-item: one
 * j. Sums in parts of 64, so that long ones lose no digits. */
__kernel void dora_norm(__global const float *w, long w_at, __global const float *magnitude,
                        long magnitude_at, __global float *scale, long scale_at, long in,
                        long n, long s, int by_input, long count)
{
    long j = get_global_id(0);
    if (j >= count)
        return;
    long length = by_input ? s * n : s * in;
    float sum = 0.0f;
    for (long first = 0; first < length; first += 64) {
        float part = 0.0f;
        for (long e = first; e < min(length, first + 64); e++) {
            float v = w[w_at + (by_input ? (e / n * in + j) * n + e % n : e * n + j)];
            part += v * v;
        }
        sum += part;
    }
    scale[scale_at + j] = magnitude[magnitude_at + j] / (sqrt(sum) + FLT_EPSILON);
}

/* y += factor · (scale · w - base), scale by output or by input as above. (block, row) */
__kernel void add_dora(__global float *y, long y_at, __global const float *base, long base_at,
                       __global const float *w, long w_at, __global const float *scale,
                       long scale_at, long in, long n, int by_input, float factor)
{
    long o = get_global_id(0) * BLOCK, row = get_global_id(1), at = row * n + o, left = n - o;
    if (left <= 0)
        return;
    float8 m = by_input ? (float8)scale[scale_at + row % in]
                        : load8(scale + scale_at + o, left);
    float8 v = m * load8(w + w_at + at, left) - load8(base + base_at + at, left);
    __global float *p = y + y_at + at;
    store8(load8(p, left) + factor * v, p, left);
}
