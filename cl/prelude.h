/* Common to all kernel files; put in front of each by the host. Storage is float; indices
 * into buffers are long, since a buffer may hold more than 2^31 elements. WG is the number
 * of work-items that share a row in reductions: 1 on CPUs, where the inner loop is the
 * vector, a power of two elsewhere. */
#ifndef WG
#define WG 64
#endif

/* Most kernels give a work-item BLOCK neighbours of a row, so that a CPU's compiler finds
 * its vector ready made; a row's last block may be short. */
#define BLOCK 8

/* vstore8 and vstore16 in one piece: where PoCL's own are used, LLVM makes four of them. */
#ifdef __clang__
typedef float8 loose8 __attribute__((aligned(4)));
typedef float16 loose16 __attribute__((aligned(4)));
#define DEFINE_PUT(name, type, loose, n, space)                                             \
    inline void __attribute__((overloadable)) name(type v, long i, space float *p)          \
    {                                                                                       \
        *(space loose *)(p + i * n) = v;                                                    \
    }
DEFINE_PUT(put8, float8, loose8, 8, __global)
DEFINE_PUT(put8, float8, loose8, 8, __private)
DEFINE_PUT(put16, float16, loose16, 16, __global)
DEFINE_PUT(put16, float16, loose16, 16, __private)
#else
#define put8  vstore8
#define put16 vstore16
#endif

/* The first n > 0 floats at p, at most 8; the others are 0. */
inline float8 load8(__global const float *p, long n)
{
    if (n >= BLOCK)
        return vload8(0, p);
    float8 v = 0.0f;
    v.s0 = p[0];
    v.s1 = n > 1 ? p[1] : 0.0f;
    v.s2 = n > 2 ? p[2] : 0.0f;
    v.s3 = n > 3 ? p[3] : 0.0f;
    v.s4 = n > 4 ? p[4] : 0.0f;
    v.s5 = n > 5 ? p[5] : 0.0f;
    v.s6 = n > 6 ? p[6] : 0.0f;
    return v;
}

/* The first n > 0 of v to p. */
inline void store8(float8 v, __global float *p, long n)
{
    if (n >= BLOCK) {
        put8(v, 0, p);
        return;
    }
    p[0] = v.s0;
    if (n > 1)
        p[1] = v.s1;
    if (n > 2)
        p[2] = v.s2;
    if (n > 3)
        p[3] = v.s3;
    if (n > 4)
        p[4] = v.s4;
    if (n > 5)
        p[5] = v.s5;
    if (n > 6)
        p[6] = v.s6;
}

/* The same for 16. */
inline float16 load16(__global const float *p, long n)
{
    if (n >= 16)
        return vload16(0, p);
    return (float16)(load8(p, n), n > BLOCK ? load8(p + BLOCK, n - BLOCK) : (float8)0.0f);
}

inline void store16(float16 v, __global float *p, long n)
{
    if (n >= 16) {
        put16(v, 0, p);
        return;
    }
    store8(v.lo, p, n);
    if (n > BLOCK)
        store8(v.hi, p + BLOCK, n - BLOCK);
}

/* store16 past the cache, for results that are too large to be found in it later: lines need
 * not be read before they are written. */
inline void stream16(float16 v, __global float *p, long n)
{
#ifdef __clang__
    if (n >= 16 && (ulong)p % sizeof v == 0) {
        __builtin_nontemporal_store(v, (__global float16 *)p);
        return;
    }
#endif
    store16(v, p, n);
}

/* x·Φ(x) = x/2·(1 + erf(x/√2)), with erf as the quotient of polynomials of degree 13 and 8
 * over [-4, 4] that Eigen and XLA use: Φ is wrong by at most 2e-7, and unlike the library's
 * erf it is a vector operation on every device. */
#define DEFINE_GELU(name, type)                                                             \
    inline type name(type x)                                                                \
    {                                                                                       \
        type z = min(max(x * 0.70710678118654752f, -4.0f), 4.0f), s = z * z;                \
        type p = fma(s, (type)-2.72614225801306e-10f, (type)2.77068142495902e-08f);         \
        p = fma(p, s, (type)-2.10102402082508e-06f);                                        \
        p = fma(p, s, (type)-5.69250639462346e-05f);                                        \
        p = fma(p, s, (type)-7.34990630326855e-04f);                                        \
        p = fma(p, s, (type)-2.95459980854025e-03f);                                        \
        p = fma(p, s, (type)-1.60960333262415e-02f);                                        \
        type q = fma(s, (type)-1.45660718464996e-05f, (type)-2.13374055278905e-04f);        \
        q = fma(q, s, (type)-1.68282697438203e-03f);                                        \
        q = fma(q, s, (type)-7.37332916720468e-03f);                                        \
        q = fma(q, s, (type)-1.42647390514189e-02f);                                        \
        return fma(0.5f * x, z * p / q, 0.5f * x);                                          \
    }

/* Where pixel i of a line of in_n pixels lies in one of n, which it enlarges by nearest
 * neighbour; -1: outside, where a convolution reads zeros. wrap: the picture goes on at its
 * opposite edge. in_n·n below 2^31. */
inline int source_pixel(int i, int in_n, int n, int wrap)
{
    if (wrap)
        i = (i % in_n + in_n) % in_n;
    if (i < 0 || i >= in_n)
        return -1;
    return in_n == n ? i : i * n / in_n;
}

/* Join v over a work-group; every work-item gets the result. JOIN(a, b) is associative. */
#if WG == 1
#define GROUP_JOIN(name, JOIN)                                                              \
    inline float name(float v, __local float *tmp)                                          \
    {                                                                                       \
        return v;                                                                           \
    }
#else
#define GROUP_JOIN(name, JOIN)                                                              \
    inline float name(float v, __local float *tmp)                                          \
    {                                                                                       \
        int id = get_local_id(0);                                                           \
        barrier(CLK_LOCAL_MEM_FENCE);                                                       \
        tmp[id] = v;                                                                        \
        barrier(CLK_LOCAL_MEM_FENCE);                                                       \
        for (int s = WG / 2; s > 0; s /= 2) {                                               \
            if (id < s)                                                                     \
                tmp[id] = JOIN(tmp[id], tmp[id + s]);                                       \
            barrier(CLK_LOCAL_MEM_FENCE);                                                   \
        }                                                                                   \
        return tmp[0];                                                                      \
    }
#endif

#define PLUS(a, b) ((a) + (b))

GROUP_JOIN(group_sum, PLUS)
GROUP_JOIN(group_max, fmax)

inline float sum8(float8 v)
{
    float4 a = v.lo + v.hi;
    return a.x + a.y + a.z + a.w;
}

inline float max8(float8 v)
{
    float4 a = fmax(v.lo, v.hi);
    return fmax(fmax(a.x, a.y), fmax(a.z, a.w));
}
