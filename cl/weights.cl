/* y[c, k, o] = float(x[o, c', k']) : a weight of the file as the floats that GEMM reads.
 *
 * The file holds [o, c, s] (linear: s = 1; convolution: s = kh*kw; both as PyTorch stores
 * them); GEMM wants [s*c, o], so that channels-last rows meet it without a transpose.
 * kind: 0 float, 1 half, 2 bfloat16. One work-item an element of y. `rows` 0 keeps the
 * order of the file (vectors, tables). Limits: any sizes. */
inline float load_weight(__global const uchar *x, long i, int kind)
{
    if (kind == 1)
        return vload_half(i, (__global const half *)x);
    if (kind == 2)
        return as_float((uint)((__global const ushort *)x)[i] << 16);
    return ((__global const float *)x)[i];
}

__kernel void unpack_weights(__global const uchar *x, long x_at, __global float *y, long y_at,
                             long count, long o, long c, long s, int kind, int keep)
{
    long i = get_global_id(0);
    if (i >= count)
        return;
    long from = i;
    if (!keep) {
        long oi = i % o, ci = i / o % c, si = i / o / c;
        from = (oi * c + ci) * s + si;
    }
    y[y_at + i] = load_weight(x, x_at + from, kind);
}
