/* softmax(q·k')·v without the scores ever leaving the cache: Dao et al. 2022,
 * "FlashAttention", with the running maximum and sum of Milakov & Gimelshein 2018, "Online
 * normalizer calculation for softmax". For CPUs.
 *
 * Keys and values are packed first, a text's heads apart: k as [WIDTH keys][d][WIDTH],
 * scaled; v as [panel][key][columns]: panels of WIDTH of the d columns, a last one of 8 or 16
 * where that is enough; zeros beyond d and beyond the last key. */

#define QUERIES 48 /* most of a task: a multiple of TILE */
#define KEYS 128   /* at a time, at most: a multiple of PANEL */
#define CHANNELS 512 /* of a head, at most */

DEFINE_TILES(score_tile, __global, __global)
DEFINE_TILES(value_tile, __private, __global)
DEFINE_TILE(last_tile_16, TILE, 16, 1, __private, __global)
DEFINE_TILE(last_tile_8, TILE, 8, 1, __private, __global)

/* Panels of WIDTH columns of v, and the columns of the one behind them: 0, 8 or, with wide
 * tiles, 16. */
inline int wide_panels(int d)
{
    return (d + WIDTH / 2 - 1) / WIDTH;
}

inline int narrow_columns(int d)
{
    return d % WIDTH > WIDTH / 2 ? 0 : (d % WIDTH + 7) / 8 * 8;
}

/* Where column j of row r lies in panels of `rows` rows each. */
inline long place(int j, long r, long rows, int wide, int narrow)
{
    int columns = j / WIDTH < wide ? WIDTH : narrow;
    return j / WIDTH * rows * WIDTH + r * columns + j % WIDTH;
}

/* Work-item: (32 keys, head, text). k, v: [texts, keys, heads·d]; kt and vt hold
 * texts·heads times keys·d and keys·(d rounded up to 32), keys rounded up to 32. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
pack_keys(__global const float *k, long k_at, __global const float *v, long v_at,
          __global float *kt, long kt_at, __global float *vt, long vt_at, int keys, int heads,
          int d, float scale)
{
    long first = get_global_id(0) * PANEL, all = get_global_size(0) * PANEL;
    long head = get_global_id(1), text = get_global_id(2), c = (long)heads * d;
    int wide = wide_panels(d), narrow = narrow_columns(d), width = wide * WIDTH + narrow;
    int here = min((long)PANEL, keys - first);
    long at = (text * keys + first) * c + head * d;
    k += k_at + at;
    v += v_at + at;
    kt += kt_at + (text * heads + head) * all * d + first * d;
    vt += vt_at + (text * heads + head) * all * ((d + PANEL - 1) / PANEL * PANEL);
    for (int j = 0; j < PANEL; j++)
        for (int i = 0; i < d; i++)
            kt[(j / WIDTH * d + i) * WIDTH + j % WIDTH] =
                j < here ? scale * k[j * c + i] : 0.0f;
    for (int j = 0; j < PANEL; j++)
        for (int i = 0; i < width; i += 8)
            put8(j < here && i < d ? load8(v + j * c + i, d - i) : (float8)0.0f, 0,
                    vt + place(i, first + j, all, wide, narrow));
}

/* Turn `count` scores at s (room for a multiple of 16), logarithms to base 2, into weights
 * under the running maximum; returns what earlier sums must be multiplied by. */
inline float weigh(float *s, int count, float *top, float *sum)
{
    int vectors = (count + 15) / 16;
    float16 high = -INFINITY, total = 0.0f;
    for (int j = count; j < vectors * 16; j++)
        s[j] = -INFINITY;
    for (int j = 0; j < vectors; j++)
        high = fmax(high, vload16(j, s));
    float8 h = fmax(high.lo, high.hi);
    float now = fmax(*top, max8(h));
    for (int j = 0; j < vectors; j++) {
        float16 e = exp2_negative(vload16(j, s) - now);
        put16(e, j, s);
        total += e;
    }
    float keep = exp2_negative((float16)(*top - now)).s0;
    *sum = *sum * keep + sum8(total.lo + total.hi);
    *top = now;
    return keep;
}

/* y = softmax(q·k')·v of one image; q, y: [queries, heads·d]; kt, vt of its text, as
 * pack_keys makes them. causal: query t sees keys 0..t. Work-item: (block of `rows` queries,
 * head). */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attend(__global const float *q, long q_at, __global const float *kt, long kt_at,
       __global const float *vt, long vt_at, __global float *y, long y_at, int queries,
       int keys, int heads, int d, int causal, int rows, int step)
{
    float s[QUERIES * KEYS], o[QUERIES * CHANNELS], top[QUERIES], sum[QUERIES];
    long t0 = get_global_id(0) * rows, head = get_global_id(1), c = (long)heads * d;
    int n = min((long)rows, queries - t0), wide = wide_panels(d), narrow = narrow_columns(d);
    int width = wide * WIDTH + narrow;
    long all = (keys + PANEL - 1) / PANEL * PANEL;
    int seen = causal ? min((long)keys, t0 + n) : keys;
    kt += kt_at + head * all * d;
    vt += vt_at + head * all * ((d + PANEL - 1) / PANEL * PANEL);
    q += q_at + t0 * c + head * d;
    for (int i = 0; i < QUERIES; i++) {
        top[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (int i = 0; i < QUERIES * width / 8; i++)
        put8((float8)0.0f, i, o);
    for (int k0 = 0; k0 < seen; k0 += step) {
        int here = min(step, seen - k0);
        for (int j = 0; j < here; j += WIDTH)
            for (int r = 0; r < n; r += TILE)
                score_tile(q + r * c, c, 16, n - r, kt + (k0 + j) * (long)d, d,
                           s + r * KEYS + j, KEYS, true);
        for (int r = 0; r < n; r++) {
            int count = causal ? min((long)here, t0 + r + 1 - k0) : here;
            float *p = s + r * KEYS;
            float keep = count > 0 ? weigh(p, count, top + r, sum + r) : 1.0f;
            for (int j = max(count, 0); j < here; j++)
                p[j] = 0.0f;
            if (keep != 1.0f)
                for (int j = 0; j < width; j += 8) {
                    float *z = o + place(j, r, QUERIES, wide, narrow);
                    put8(keep * vload8(0, z), 0, z);
                }
        }
        for (int j = 0; j < wide; j++)
            for (int r = 0; r < n; r += TILE)
                value_tile(s + r * KEYS, KEYS, 16, n - r, vt + (j * all + k0) * WIDTH, here,
                           o + (j * QUERIES + r) * WIDTH, WIDTH, false);
        __global const float *last = vt + wide * all * WIDTH + (long)k0 * narrow;
        for (int r = 0; r < n; r += TILE) {
            float *to = o + wide * QUERIES * WIDTH + r * narrow;
            if (narrow == 16)
                last_tile_16(s + r * KEYS, KEYS, 16, n - r, last, here, to, 16, false);
            else if (narrow == 8)
                last_tile_8(s + r * KEYS, KEYS, 16, n - r, last, here, to, 8, false);
        }
    }
    for (int r = 0; r < n; r++) {
        __global float *to = y + y_at + (t0 + r) * c + head * d;
        float share = 1.0f / sum[r];
        for (int j = 0; j < d; j += 8)
            store8(share * vload8(0, o + place(j, r, QUERIES, wide, narrow)), to + j, d - j);
    }
}
