/* softmax(q·k')·v without the scores ever leaving the cache: Dao et al. 2022,
 * "FlashAttention", with the running maximum and sum of Milakov & Gimelshein 2018, "Online
 * normalizer calculation for softmax". For CPUs.
 *
 * Everything is worked out turned over, (v'·softmax(k·q'))': lanes of a vector are queries.
 * Maxima and sums over keys need no shuffles then, and v's columns are rows of tiles, of
 * which none is wasted whatever a head's width.
 *
 * Keys and values are packed first, a text's heads apart, as add_steps reads them: k as
 * [keys / TILE][d][TILE], scaled; v as [key][columns of v]; zeros beyond. */

#define QUERIES    64  /* most of a task: a multiple of 32 */
#define KEYS       96  /* at a time, at most: a multiple of TILE */
#define BLOCK_KEYS 48  /* of a work-item of pack_keys: a multiple of TILE */
#define CHANNELS   512 /* of a head, at most */
#define SLACK      16  /* powers of two that a score may lie above the maximum so far */

/* Columns of v, rounded up to what add_steps reads with either height of tiles. */
inline int value_columns(int d)
{
    return (d + 3) / 4 * 4;
}

/* The next factor of a butterfly that turns 16 vectors over. */
#define LOWER(a, b)                                                                         \
    (float16)(a.s0, b.s0, a.s1, b.s1, a.s2, b.s2, a.s3, b.s3, a.s4, b.s4, a.s5, b.s5, a.s6, \
              b.s6, a.s7, b.s7)
#define UPPER(a, b)                                                                         \
    (float16)(a.s8, b.s8, a.s9, b.s9, a.sa, b.sa, a.sb, b.sb, a.sc, b.sc, a.sd, b.sd, a.se, \
              b.se, a.sf, b.sf)

/* m[i].s[j] and m[j].s[i] change places. Four times row i meets row i + 8, as cards are
 * shuffled. */
inline void turn_over(float16 m[16])
{
    float16 n[16];
    EACH(pass, 2)
    {
        EACH(i, 8)
        {
            n[2 * i] = LOWER(m[i], m[i + 8]);
            n[2 * i + 1] = UPPER(m[i], m[i + 8]);
        }
        EACH(i, 8)
        {
            m[2 * i] = LOWER(n[i], n[i + 8]);
            m[2 * i + 1] = UPPER(n[i], n[i + 8]);
        }
    }
}

/* m[j] = column j of 16 rows at p, ld floats apart; zero for rows from `rows` and columns
 * from `columns` on. */
inline void read_columns(__global const float *p, long ld, int rows, int columns, float16 m[16])
{
    EACH(j, 16)
    m[j] = j < rows ? load16(p + j * ld, columns) : (float16)0.0f;
    turn_over(m);
}

/* The first TILE of v to p. */
inline void store_rows(float16 v, __global float *p)
{
#if TILE == 12
    put8(v.lo, 0, p);
    vstore4(v.hi.lo, 2, p);
#else
    vstore4(v.lo.lo, 0, p);
    vstore2(v.lo.hi.lo, 2, p);
#endif
}

/* Work-item: (BLOCK_KEYS keys, head, text). k, v: [texts, keys, heads·d]; kt and vt hold
 * texts·heads times keys·d and keys·(d rounded up to 4), keys rounded up to BLOCK_KEYS. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
pack_keys(__global const float *k, long k_at, __global const float *v, long v_at,
          __global float *kt, long kt_at, __global float *vt, long vt_at, int keys, int heads,
          int d, float scale)
{
    long first = get_global_id(0) * BLOCK_KEYS, all = get_global_size(0) * BLOCK_KEYS;
    long head = get_global_id(1), text = get_global_id(2), c = (long)heads * d;
    int here = min((long)BLOCK_KEYS, keys - first), columns = value_columns(d);
    long at = (text * keys + first) * c + head * d;
    k += k_at + at;
    v += v_at + at;
    kt += kt_at + ((text * heads + head) * all + first) * d;
    vt += vt_at + ((text * heads + head) * all + first) * columns;
    for (int j = 0; j < BLOCK_KEYS; j += TILE)
        for (int i = 0; i < d; i += 16) {
            float16 m[16];
            read_columns(k + j * c + i, c, min(TILE, here - j), d - i, m);
            for (int r = 0; r < min(16, d - i); r++)
                store_rows(scale * m[r], kt + j * d + (i + r) * TILE);
        }
    for (int j = 0; j < BLOCK_KEYS; j++)
        for (int i = 0; i < columns; i += 8)
            store8(j < here && i < d ? load8(v + j * c + i, d - i) : (float8)0.0f,
                   vt + j * columns + i, columns - i);
}

/* to[column of q][query], WIDTH queries beside each other = q[query][column]; queries from
 * `rows` on are zero. */
inline void read_queries(__global const float *q, long ld, int rows, int d, float *to)
{
    for (int r = 0; r < WIDTH; r += 16)
        for (int i = 0; i < d; i += 16) {
            float16 m[16];
            read_columns(q + r * ld + i, ld, rows - r, d - i, m);
            for (int j = 0; j < min(16, d - i); j++)
                put16(m[j], (i + j) * VECTORS + r / 16, to);
        }
}

/* The way back: y[query][column] = o[column][query] / sum[query]. */
inline void write_queries(__global float *y, long ld, int rows, int d, const float *o,
                          const float16 *sum)
{
    for (int r = 0; r < rows; r += 16)
        for (int i = 0; i < d; i += 16) {
            float16 m[16], share = 1.0f / sum[r / 16];
            EACH(j, 16)
            m[j] = i + j < d ? share * vload16((i + j) * VECTORS + r / 16, o) : (float16)0.0f;
            turn_over(m);
            for (int j = 0; j < min(16, rows - r); j++)
                store16(m[j], y + (r + j) * ld + i, d - i);
        }
}

/* Scores s[keys][WIDTH], logarithms to base 2, to weights under a maximum that is at most
 * SLACK below the true one; o, [d][WIDTH], and sum are brought to that maximum. */
inline void weigh(float *s, int keys, float *o, int d, float16 *top, float16 *sum)
{
    float16 high[VECTORS], other[VECTORS], now[VECTORS], total[VECTORS];
    EACH(x, VECTORS)
    {
        high[x] = vload16((keys - 1) * VECTORS + x, s);
        other[x] = high[x];
        total[x] = 0.0f;
    }
    for (int j = 0; j + 1 < keys; j += 2)
        EACH(x, VECTORS)
        {
            high[x] = max(high[x], vload16(j * VECTORS + x, s));
            other[x] = max(other[x], vload16((j + 1) * VECTORS + x, s));
        }
    EACH(x, VECTORS)
    {
        high[x] = max(high[x], other[x]);
        now[x] = top[x];
        float16 above = high[x] - now[x];
        if (max8(fmax(above.lo, above.hi)) > SLACK) {
            now[x] = max(high[x], now[x]);
            float16 keep = exp2_16(top[x] - now[x]);
            for (int i = 0; i < d; i++)
                put16(keep * vload16(i * VECTORS + x, o), i * VECTORS + x, o);
            sum[x] *= keep;
            top[x] = now[x];
        }
    }
    for (int j = 0; j < keys; j++)
        EACH(x, VECTORS)
        {
            float16 e = exp2_16(vload16(j * VECTORS + x, s) - now[x]);
            put16(e, j * VECTORS + x, s);
            total[x] += e;
        }
    EACH(x, VECTORS)
    sum[x] += total[x];
}

/* y = softmax(q·k')·v; q, y: [images, queries, heads·d]; kt, vt as pack_keys makes them, `all`
 * keys a head; image i reads text i·texts / images. causal: query t sees keys 0..t.
 * Work-item: (block of `rows` queries, head, image). */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attend(__global const float *q, long q_at, __global const float *kt, long kt_at,
       __global const float *vt, long vt_at, __global float *y, long y_at, int queries,
       int keys, long all, int texts, int heads, int d, int causal, int rows, int step)
{
    float qt[QUERIES * CHANNELS], s[KEYS * WIDTH], o[QUERIES * CHANNELS];
    float16 top[QUERIES / 16], sum[QUERIES / 16];
    long t0 = get_global_id(0) * rows, head = get_global_id(1), c = (long)heads * d;
    int n = min((long)rows, queries - t0), columns = value_columns(d);
    int seen = causal ? min((long)keys, t0 + n) : keys;
    long image = get_global_id(2), text = image * texts / get_global_size(2);
    kt += kt_at + (text * heads + head) * all * d;
    vt += vt_at + (text * heads + head) * all * columns;
    q += q_at + (image * queries + t0) * c + head * d;
    y += y_at + (image * queries + t0) * c + head * d;
    for (int r = 0; r < n; r += WIDTH)
        read_queries(q + r * c, c, n - r, d, qt + r * d);
    for (int i = 0; i < QUERIES / 16; i++) {
        top[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (int i = 0; i < QUERIES / 16 * columns; i++)
        put16((float16)0.0f, i, o);
    for (int k0 = 0; k0 < seen; k0 += step) {
        int here = min(step, seen - k0);
        for (int r = 0; r < n; r += WIDTH) {
            for (int j = 0; j < here; j += TILE)
                add_steps(kt + (k0 + j) * (long)d, TILE, here - j, qt + r * d, d,
                          s + j * WIDTH, true);
            if (causal)
                for (int j = 0; j < here * VECTORS; j++) {
                    float16 query = t0 + r + j % VECTORS * 16 +
                                    (float16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
                                              14, 15);
                    put16(select(vload16(j, s), (float16)-INFINITY,
                                 isless(query, (float16)(k0 + j / VECTORS))),
                          j, s);
                }
            weigh(s, here, o + r * columns, d, top + r / 16, sum + r / 16);
            for (int i = 0; i < d; i += TILE)
                add_steps(vt + k0 * (long)columns + i, columns, d - i, s, here,
                          o + r * columns + i * WIDTH, false);
        }
    }
    for (int r = 0; r < n; r += WIDTH)
        write_queries(y + r * c, c, min(n - r, WIDTH), d, o + r * columns, sum + r / 16);
}
