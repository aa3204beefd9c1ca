/* Products by tiles of 12 rows and 32 columns whose sums stay in registers; put in front of
 * each kernel file after prelude.h. For CPUs with vectors of 16 floats; others compute right
 * and slowly. Loops over a tile's rows have constant bounds and are unrolled: otherwise
 * compilers keep the sums in memory. */
#define TILE  12 /* rows of a tile */
#define WIDTH 32 /* columns of a panel */

#define EACH(i, n) __attribute__((opencl_unroll_hint(n))) for (int i = 0; i < n; i++)

/* DEFINE_TILES(name, space of a, space of b) makes name(): c[r, 32] (ld_c floats between
 * rows) += a[r, depth] · b[depth, 32], or = when fresh. r is `rows`, at most TILE, rounded up
 * to 4, 8 or 12; rows of a from `rows` on are the last one again. */
#define DEFINE_TILE(name, n, a_space, b_space)                                              \
    inline void name(a_space const float *a, long ld_a, int rows, b_space const float *b,   \
                     int depth, float *c, int ld_c, bool fresh)                             \
    {                                                                                       \
        a_space const float *p[n];                                                          \
        float16 c0[n], c1[n];                                                               \
        EACH(i, n)                                                                          \
        {                                                                                   \
            p[i] = a + min(i, rows - 1) * ld_a;                                             \
            c0[i] = fresh ? (float16)0.0f : vload16(0, c + i * ld_c);                       \
            c1[i] = fresh ? (float16)0.0f : vload16(1, c + i * ld_c);                       \
        }                                                                                   \
        for (int k = 0; k < depth; k++) {                                                   \
            float16 b0 = vload16(2 * k, b), b1 = vload16(2 * k + 1, b);                     \
            EACH(i, n)                                                                      \
            {                                                                               \
                float16 v = p[i][k];                                                        \
                c0[i] = fma(v, b0, c0[i]);                                                  \
                c1[i] = fma(v, b1, c1[i]);                                                  \
            }                                                                               \
        }                                                                                   \
        EACH(i, n)                                                                          \
        {                                                                                   \
            vstore16(c0[i], 0, c + i * ld_c);                                               \
            vstore16(c1[i], 1, c + i * ld_c);                                               \
        }                                                                                   \
    }

#define DEFINE_TILES(name, a_space, b_space)                                                \
    DEFINE_TILE(name##_12, 12, a_space, b_space)                                            \
    DEFINE_TILE(name##_8, 8, a_space, b_space)                                              \
    DEFINE_TILE(name##_4, 4, a_space, b_space)                                              \
    inline void name(a_space const float *a, long ld_a, int rows, b_space const float *b,   \
                     int depth, float *c, int ld_c, bool fresh)                             \
    {                                                                                       \
        if (rows > 8)                                                                       \
            name##_12(a, ld_a, rows, b, depth, c, ld_c, fresh);                             \
        else if (rows > 4)                                                                  \
            name##_8(a, ld_a, rows, b, depth, c, ld_c, fresh);                              \
        else                                                                                \
            name##_4(a, ld_a, rows, b, depth, c, ld_c, fresh);                              \
    }

/* DEFINE_NARROW_TILE: c[12, n] += a[12, depth] · b[depth, n], n 8 or 16. */
#define DEFINE_NARROW_TILE(name, n, a_space, b_space)                                       \
    inline void name(a_space const float *a, long ld_a, b_space const float *b, int depth,  \
                     float *c, int ld_c)                                                    \
    {                                                                                       \
        float##n c0[TILE];                                                                  \
        EACH(i, TILE)                                                                       \
        c0[i] = vload##n(0, c + i * ld_c);                                                  \
        for (int k = 0; k < depth; k++) {                                                   \
            float##n b0 = vload##n(k, b);                                                   \
            EACH(i, TILE)                                                                   \
            c0[i] = fma((float##n)a[i * ld_a + k], b0, c0[i]);                              \
        }                                                                                   \
        EACH(i, TILE)                                                                       \
        vstore##n(c0[i], 0, c + i * ld_c);                                                  \
    }

/* Vector i, 16 packed weights, as floats. */
inline float16 read_weights(__global const uchar *w, int halves, long i)
{
    return halves ? vload_half16(i, (__global const half *)w)
                  : vload16(i, (__global const float *)w);
}

/* 2^x for x <= 0, wrong by at most 1e-7 of it; 2^-126 below. 2^n · 2^f with |f| <= 1/2; the
 * polynomial of degree 6 whose largest relative error there is least (Remez). */
inline float16 exp2_negative(float16 x)
{
    const float round = 12582912.0f; /* 1.5·2^23: adding it leaves whole numbers */
    x = fmax(x, -126.0f);
    float16 z = x + round, f = x - (z - round);
    float16 p = fma(f, (float16)1.53458120e-4f, (float16)1.33999312e-3f);
    p = fma(p, f, (float16)9.61848896e-3f);
    p = fma(p, f, (float16)5.55032878e-2f);
    p = fma(p, f, (float16)2.40226469e-1f);
    p = fma(p, f, (float16)6.93147206e-1f);
    p = fma(p, f, (float16)1.0f);
    return as_float16(as_int16(p) + (as_int16(z) << 23));
}
