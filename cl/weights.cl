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

/* y: the packed form that cl/gemm.cl reads, [ceil(o / 32)][k][32] with k = position·c +
 * channel, zeros beyond o. Source element (output, channel, position) lies at
 * output·o_step + channel·c_step + position·s_step from x_at: a file's [o, c, s] as well as
 * floats [s·c, o]. kind 1 stays half, the others become float. Work-item: (panel, block of
 * 64 channels). */
#define CHANNELS 64

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
pack_weights(__global const uchar *x, long x_at, __global uchar *y, long y_at, long o, long c,
             long s, long o_step, long c_step, long s_step, int kind)
{
    long first = get_global_id(0) * PANEL, outputs = min((long)PANEL, o - first);
    long from = get_global_id(1) * CHANNELS, to = min(c, from + CHANNELS);
    __global float *whole = (__global float *)y + y_at;
    __global ushort *half_bits = (__global ushort *)whole;
    for (long i = from; i < to; i++)
        for (long p = 0; p < s; p++) {
            long source = x_at + first * o_step + i * c_step + p * s_step;
            long target = (first * s + p * PANEL) * c + i * PANEL;
            if (kind == 1)
                for (int j = 0; j < PANEL; j++)
                    half_bits[target + j] =
                        j < outputs ? ((__global const ushort *)x)[source + j * o_step]
                                    : (ushort)0;
            else
                for (int j = 0; j < PANEL; j++)
                    whole[target + j] =
                        j < outputs ? load_weight(x, source + j * o_step, kind) : 0.0f;
        }
}

/* The way back: y [k, o] floats from the packed form, halves or floats. Work-item: (panel,
 * row of k). */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
unpack_rows(__global const uchar *x, long x_at, __global float *y, long y_at, long o, long k,
            int kind)
{
    long panel = get_global_id(0), row = get_global_id(1), first = panel * PANEL;
    __global const uchar *p = x + x_at * sizeof(float);
    for (long j = 0; j < min((long)PANEL, o - first); j++)
        y[y_at + row * o + first + j] = load_weight(p, (panel * k + row) * PANEL + j, kind);
}
