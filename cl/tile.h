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
#define SOON(p)  __builtin_prefetch(p)
#define LATER(p) __builtin_prefetch(p, 0, 2) /* after much else */
#else
#define SOON(p)
#define LATER(p)
#endif

/* Memory that is asked for while tiles are worked on: AHEAD_BYTES every 16 steps. Many lines
 * asked for at once make the next reads wait. */
#define AHEAD_BYTES 128
typedef struct {
    __global const uchar *at;
    int step; /* 0: nothing more is wanted */
} ahead;

#define ASK(a)                                                                              \
    do {                                                                                    \
        EACH(line, AHEAD_BYTES / 64)                                                        \
        LATER(a.at + line * 64);                                                            \
        a.at += a.step;                                                                     \
    } while (0)

/* The share of the n-th tile in asking for `bytes` at p; each has `depth` steps. */
inline ahead share(__global const uchar *p, long bytes, int n, int depth)
{
    long at = (long)n * (depth / 16) * AHEAD_BYTES;
    ahead a = { at < bytes ? p + at : p, at < bytes ? AHEAD_BYTES : 0 };
    return a;
}

/* One step of a tile of n rows; value: what row i multiplies b's by; vector: the x-th of b. */
#define ADD_STEP(n, value, vector)                                                          \
    do {                                                                                    \
        float16 row[VECTORS];                                                               \
        EACH(x, VECTORS)                                                                    \
        row[x] = vector;                                                                    \
        EACH(i, n)                                                                          \
        {                                                                                   \
            float16 v = value;                                                              \
            EACH(x, VECTORS)                                                                \
            sum[i][x] = fma(v, row[x], sum[i][x]);                                          \
        }                                                                                   \
        b += WIDTH;                                                                         \
    } while (0)

#define FETCH_SUMS(n)                                                                       \
    EACH(i, n)                                                                              \
    EACH(x, VECTORS)                                                                        \
    sum[i][x] = fresh ? (float16)0.0f : vload16(i * VECTORS + x, c)

#define STORE_SUMS(n)                                                                       \
    EACH(i, n)                                                                              \
    EACH(x, VECTORS)                                                                        \
    put16(sum[i][x], i * VECTORS + x, c)

#define DEFINE_TILE(name, n)                                                                \
    inline void name(__global const float *a, long ld, long block, int rows,                \
                     const float *b, int depth, float *c, bool fresh, ahead then)           \
    {                                                                                       \
        __global const float *p[n];                                                         \
        float16 sum[n][VECTORS];                                                            \
        EACH(i, n)                                                                          \
        {                                                                                   \
            p[i] = a + min(i, rows - 1) * ld;                                               \
            SOON(c + (n + i) * WIDTH);                                                      \
        }                                                                                   \
        FETCH_SUMS(n);                                                                      \
        for (; depth >= 16; depth -= 16) {                                                  \
            EACH(i, n)                                                                      \
            SOON(p[i] + n * ld);                                                            \
            ASK(then);                                                                      \
            __attribute__((opencl_unroll_hint(2))) for (int j = 0; j < 16; j++)             \
                ADD_STEP(n, p[i][j], vload16(x, b));                                        \
            EACH(i, n)                                                                      \
            p[i] += block;                                                                  \
        }                                                                                   \
        for (int j = 0; j < depth; j++)                                                     \
            ADD_STEP(n, p[i][j], vload16(x, b));                                            \
        STORE_SUMS(n);                                                                      \
    }

#define DEFINE_STEP_TILE(name, n)                                                           \
    inline void name(__global const float *a, long step, const float *b, int depth,         \
                     float *c, bool fresh)                                                  \
    {                                                                                       \
        float16 sum[n][VECTORS];                                                            \
        FETCH_SUMS(n);                                                                      \
        for (; depth > 0; depth--, a += step)                                               \
            ADD_STEP(n, a[i], vload16(x, b));                                               \
        STORE_SUMS(n);                                                                      \
    }

DEFINE_TILE(add_tile_all, TILE)
DEFINE_TILE(add_tile_most, TILE / 3 * 2)
DEFINE_TILE(add_tile_few, TILE / 3)
DEFINE_STEP_TILE(add_steps_all, TILE)
DEFINE_STEP_TILE(add_steps_most, TILE / 3 * 2)
DEFINE_STEP_TILE(add_steps_few, TILE / 3)

/* c[r, WIDTH] += a[r, depth] · b[depth, WIDTH], or = when fresh. Of a, ld floats lie between
 * rows, and `block` between blocks of 16 columns: 16 for an ordinary matrix. r is `rows`, at
 * most TILE, rounded up to a third, two thirds or the whole of that; rows of a from `rows` on
 * are the last one again. */
inline void add_tile(__global const float *a, long ld, long block, int rows, const float *b,
                     int depth, float *c, bool fresh, ahead then)
{
    if (rows > TILE / 3 * 2)
        add_tile_all(a, ld, block, rows, b, depth, c, fresh, then);
    else if (rows > TILE / 3)
        add_tile_most(a, ld, block, rows, b, depth, c, fresh, then);
    else
        add_tile_few(a, ld, block, rows, b, depth, c, fresh, then);
}

/* The same where the rows of a column of a lie beside each other, `step` floats between
 * columns; r is rounded up, so that many must be there. */
inline void add_steps(__global const float *a, long step, int rows, const float *b, int depth,
                      float *c, bool fresh)
{
    if (rows > TILE / 3 * 2)
        add_steps_all(a, step, b, depth, c, fresh);
    else if (rows > TILE / 3)
        add_steps_most(a, step, b, depth, c, fresh);
    else
        add_steps_few(a, step, b, depth, c, fresh);
}

/* Vector i, 16 packed weights, as floats. */
inline float16 read_weights(__global const uchar *w, int halves, long i)
{
    return halves ? vload_half16(i, (__global const half *)w)
                  : vload16(i, (__global const float *)w);
}

/* v, the x-th vector at b from now on. */
inline float16 put_through(float16 v, int x, float *b)
{
    put16(v, x, b);
    return v;
}

/* add_tile of an ordinary matrix with part `part` of a packed panel, read from w as floats
 * and left in b for the tiles that follow: waiting for memory and converting halves goes on
 * beside the sums. As for a whole tile; c has room for it. */
inline void add_tile_from(__global const float *a, long ld, int rows,
                          __global const uchar *w, int halves, int part, float *b, int depth,
                          float *c, bool fresh, ahead then)
{
    __global const float *p[TILE];
    float16 sum[TILE][VECTORS];
    EACH(i, TILE)
    p[i] = a + min(i, rows - 1) * ld;
    FETCH_SUMS(TILE);
    for (int j = 0; j < depth; j++) {
        if (j % 16 == 0) {
            EACH(i, TILE)
            SOON(p[i] + j + TILE * ld);
            ASK(then);
        }
        ADD_STEP(TILE, p[i][j],
                 put_through(read_weights(w, halves, (j * PARTS + part) * VECTORS + x), x, b));
    }
    STORE_SUMS(TILE);
}

/* Which vector of [PARTS][rows][WIDTH], a panel cut for tiles, holds columns 16·v to 16·v +
 * 15 of a row. */
inline int vector_of(int row, int v, int rows)
{
    return (v / VECTORS * rows + row) * VECTORS + v % VECTORS;
}

/* 2^(factor·x), |factor·x| <= 126, wrong by at most 1e-7 of it. 2^n · 2^f with |f| <= 1/2,
 * where the product is rounded only when n is taken off; the polynomial of degree 6 whose
 * largest relative error there is least (Remez). */
inline float16 power_of_2(float16 x, float factor)
{
    const float round = 12582912.0f; /* 1.5·2^23: adding it leaves whole numbers */
    float16 z = fma(x, (float16)factor, (float16)round);
    float16 f = fma(x, (float16)factor, round - z);
    float16 p = fma(f, (float16)1.53458120e-4f, (float16)1.33999312e-3f);
    p = fma(p, f, (float16)9.61848896e-3f);
    p = fma(p, f, (float16)5.55032878e-2f);
    p = fma(p, f, (float16)2.40226469e-1f);
    p = fma(p, f, (float16)6.93147206e-1f);
    p = fma(p, f, (float16)1.0f);
    return as_float16(as_int16(p) + (as_int16(z) << 23));
}

/* 2^x for x <= 126; 2^-126 for less than that. */
inline float16 exp2_16(float16 x)
{
    return power_of_2(max(x, -126.0f), 1.0f);
}

/* x·σ(slope·x) */
inline float16 silu_16(float16 x, float slope)
{
    float most = 87.0f / slope;
    return x / (1.0f + power_of_2(min(max(x, -most), most), slope * -1.44269504088896341f));
}
