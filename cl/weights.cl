/* y[c, k, o] = float(x[o, c', k']) : a weight of the file as the floats that GEMM reads.
 *
 * The file holds [o, c, s] (linear: s = 1; convolution: s = kh*kw; both as PyTorch stores
 * them); GEMM wants [s*c, o], so that channels-last rows meet it without a transpose. c = 1
 * and s = 1 keep the order of the file (vectors, tables). kind: 0 float, 1 half,
 * 2 bfloat16. Work-item: 8 outputs of one column c·s of the file, so that neighbouring
 * columns find the file's lines in the cache. Any sizes. */
inline float load_weight(__global const uchar *x, long i, int kind)
{
    if (kind == 1)
        return vload_half(i, (__global const half *)x);
    if (kind == 2)
        return as_float((uint)((__global const ushort *)x)[i] << 16);
    return ((__global const float *)x)[i];
}

__kernel void unpack_weights(__global const uchar *x, long x_at, __global float *y, long y_at,
                             long o, long c, long s, int kind)
{
    long first = get_global_id(0) * BLOCK, column = get_global_id(1);
    long row = column % s * c + column / s;
    for (long i = first; i < min(o, first + BLOCK); i++)
        y[y_at + row * o + i] = load_weight(x, x_at + i * c * s + column, kind);
}
