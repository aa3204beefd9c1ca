/* Products by tiles whose sums stay in registers; put in front of each kernel file after
 * prelude.h. For CPUs, whose vectors hold LANES floats: 12 rows and 32 columns where that is
 * 16 (32 registers), else 6 rows and 16 columns (16 registers of 8). Others compute right
 * and slowly. Loops over a tile's rows have constant bounds and are unrolled: otherwise
 * compilers keep the sums in memory. */
#ifndef LANES
#define LANES 16
#endif
#define PANEL 32 /* columns of packed weights that lie together; see cl/gemm.cl */
#if LANES >= 16
#define TILE    12 /* rows of a tile */
#define VECTORS 2  /* vectors of 16 floats in its row */
#else
#define TILE    6
#define VECTORS 1
#endif
#define WIDTH (VECTORS * 16) /* columns of a tile */
#define PARTS (PANEL / WIDTH) /* tiles beside each other in a panel */

#define EACH(i, n) __attribute__((opencl_unroll_hint(n))) for (int i = 0; i < n; i++)

/* The line of memory at p is read soon. The cache sees no pattern in rows of a tile, which
 * are short and far apart. */
#ifdef __clang__
#define SOON(p) __builtin_prefetch(p)
#else
#define SOON(p)
#endif

/* Step j of a block of 16 in a tile of n rows of `vectors` vectors of w floats. */
#define ADD_STEP(n, w, vectors, j)                                                          \
    do {                                                                                    \
        float##w row[vectors];                                                              \
        EACH(x, vectors)                                                                    \
        row[x] = vload##w(x, b);                                                            \
        EACH(i, n)                                                                          \
        {                                                                                   \
            float##w v = p[i][j];                                                           \
            EACH(x, vectors)                                                                \
            sum[i][x] = fma(v, row[x], sum[i][x]);                                          \
        }                                                                                   \
        b += w * vectors;                                                                   \
    } while (0)

/* DEFINE_TILE(name, n, w, vectors, space of a, space of b) makes name(): c[r, w·vectors]
 * (ld_c floats between rows) += a[r, depth] · b[depth, w·vectors], or = when fresh. Of a,
 * ld_a floats lie between rows, and block_a between blocks of 16 columns: 16 for an ordinary
 * matrix. r is `rows`, at most n, rounded up to n; rows of a from `rows` on are the last one
 * again. */
#define DEFINE_TILE(name, n, w, vectors, a_space, b_space)                                  \
    inline void name(a_space const float *a, long ld_a, long block_a, int rows,             \
                     b_space const float *b, int depth, float *c, int ld_c, bool fresh)     \
    {                                                                                       \
        a_space const float *p[n];                                                          \
        float##w sum[n][vectors];                                                           \
        EACH(i, n)                                                                          \
        {                                                                                   \
            p[i] = a + min(i, rows - 1) * ld_a;                                             \
            SOON(c + (n + i) * ld_c);                                                       \
            EACH(x, vectors)                                                                \
            sum[i][x] = fresh ? (float##w)0.0f : vload##w(x, c + i * ld_c);                 \
        }                                                                                   \
        for (; depth >= 16; depth -= 16) {                                                  \
            EACH(i, n)                                                                      \
            SOON(p[i] + n * ld_a);                                                          \
            for (int j = 0; j < 16; j++)                                                    \
                ADD_STEP(n, w, vectors, j);                                                 \
            EACH(i, n)                                                                      \
            p[i] += block_a;                                                                \
        }                                                                                   \
        for (int j = 0; j < depth; j++)                                                     \
            ADD_STEP(n, w, vectors, j);                                                     \
        EACH(i, n)                                                                          \
        EACH(x, vectors)                                                                    \
        put##w(sum[i][x], x, c + i * ld_c);                                              \
    }

/* DEFINE_TILES makes name(), WIDTH wide and TILE rows high; rows are rounded up to a third,
 * two thirds or the whole of that. */
#define DEFINE_TILES(name, a_space, b_space)                                                \
    DEFINE_TILE(name##_all, TILE, 16, VECTORS, a_space, b_space)                            \
    DEFINE_TILE(name##_most, (TILE / 3 * 2), 16, VECTORS, a_space, b_space)                 \
    DEFINE_TILE(name##_few, (TILE / 3), 16, VECTORS, a_space, b_space)                      \
    inline void name(a_space const float *a, long ld_a, long block_a, int rows,             \
                     b_space const float *b, int depth, float *c, int ld_c, bool fresh)     \
    {                                                                                       \
        if (rows > TILE / 3 * 2)                                                            \
            name##_all(a, ld_a, block_a, rows, b, depth, c, ld_c, fresh);                   \
        else if (rows > TILE / 3)                                                           \
            name##_most(a, ld_a, block_a, rows, b, depth, c, ld_c, fresh);                  \
        else                                                                                \
            name##_few(a, ld_a, block_a, rows, b, depth, c, ld_c, fresh);                   \
    }

/* Vector i, 16 packed weights, as floats. */
inline float16 read_weights(__global const uchar *w, int halves, long i)
{
    return halves ? vload_half16(i, (__global const half *)w)
                  : vload16(i, (__global const float *)w);
}

/* Which vector of [PARTS][rows][WIDTH], a panel cut for tiles, holds columns 16·v to 16·v +
 * 15 of a row. */
inline int vector_of(int row, int v, int rows)
{
    return (v / VECTORS * rows + row) * VECTORS + v % VECTORS;
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
