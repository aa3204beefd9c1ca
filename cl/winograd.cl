/* Convolutions with a 3x3 window at stride 1 by Winograd's F(4x4, 3x3): Lavin & Gray 2016,
 * "Fast algorithms for convolutional neural networks". A tile of 4x4 results takes 36
 * products a channel instead of 144:
 *   Y = A'·[ sum_c (G·g·G') ⊙ (B'·d·B) ]·A
 * with d the 6x6 pixels that a tile sees, g the window. For CPUs; weights are packed (see
 * cl/gemm.cl) and transformed on the way, block by block, which costs a few percent and
 * saves four times their memory. */

#define POINTS 36
#define BLOCK_TILES 132 /* most tiles of a task: a multiple of TILE */
#define STEPS 160       /* channels at a time */
#define GROUP 6         /* tiles of a work-item of winograd_input */

/* B' down one column of six. */
#define TO_POINTS(d, e, step)                                                               \
    do {                                                                                    \
        float16 p = d[4 * step] - 4.0f * d[2 * step], q = d[3 * step] - 4.0f * d[step];     \
        float16 s = d[4 * step] - d[2 * step], t = 2.0f * (d[3 * step] - d[step]);          \
        e[0] = 4.0f * d[0] - 5.0f * d[2 * step] + d[4 * step];                              \
        e[1] = p + q;                                                                       \
        e[2] = p - q;                                                                       \
        e[3] = s + t;                                                                       \
        e[4] = s - t;                                                                       \
        e[5] = 4.0f * d[step] - 5.0f * d[3 * step] + d[5 * step];                           \
    } while (0)

/* A' down one column of six: four results. */
#define FROM_POINTS(m, y, step)                                                             \
    do {                                                                                    \
        float16 p = m[step] + m[2 * step], q = m[step] - m[2 * step];                       \
        float16 s = m[3 * step] + m[4 * step], t = m[3 * step] - m[4 * step];               \
        y[0] = m[0] + p + s;                                                                \
        y[1] = q + 2.0f * t;                                                                \
        y[2] = p + 4.0f * s;                                                                \
        y[3] = q + 8.0f * t + m[5 * step];                                                  \
    } while (0)

/* v[c / STEPS, point, c / 16, tile - first, c % 16] = B'·d·B of tiles [first, first +
 * count), counted through [image, line of tiles, column]. All lies in the order in which
 * winograd_multiply reads it. Reads x as cl/conv.cl's unfold does; norm: through
 * group norm by coef, as cl/norm.cl's apply, and SiLU. c: a multiple of 16. Work-item: GROUP
 * tiles; neighbours share columns of pixels. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
winograd_input(__global const float *x, long x_at, __global const float *coef, long coef_at,
               int norm, __global float *v, long v_at, long first, long count, int n_src,
               int h, int w, int c, int in_h, int in_w, int tiles_h, int tiles_w, int pad_top,
               int pad_left, int wrap, float in_scale)
{
    long t0 = get_global_id(0) * GROUP;
    int n = min((long)GROUP, count - t0), columns = 0, begin[GROUP];
    long at[GROUP * POINTS], image[GROUP * 6];
    float16 e[GROUP * POINTS]; /* [column][point of it] */
    x += x_at;
    v += v_at + t0 * 16;
    for (int t = 0; t < n; t++) {
        long tile = first + t0 + t;
        int oy = tile / tiles_w % tiles_h * 4, ox = tile % tiles_w * 4;
        int shared = t > 0 && ox > 0 ? 2 : 0;
        begin[t] = columns - shared;
        for (int j = shared; j < 6; j++, columns++) {
            int sx = source_pixel(ox + j - pad_left, in_w, w, wrap);
            image[columns] = tile / tiles_w / tiles_h % n_src;
            for (int i = 0; i < 6; i++) {
                int sy = source_pixel(oy + i - pad_top, in_h, h, wrap);
                at[columns * 6 + i] =
                    sy < 0 || sx < 0 ? -1 : ((image[columns] * h + sy) * w + sx) * c;
            }
        }
    }
    for (int k = 0; k < c; k += 16) {
        int k0 = k / STEPS * STEPS;
        long plane = min(STEPS, c - k0) * count;
        __global float *to = v + k0 * POINTS * count + (k - k0) * count;
        for (int j = 0; j < columns; j++) {
            const long *from = at + j * 6;
            __global const float *by = coef + coef_at + image[j] * 3 * c + k;
            float16 mean = 0.0f, factor = in_scale, offset = 0.0f, d[6], o[6];
            if (norm) {
                mean = vload16(0, by);
                factor = vload16(0, by + c);
                offset = vload16(0, by + 2 * c);
            }
            EACH(i, 6)
            SOON(x + from[i] + k + 32);
            EACH(i, 6)
            {
                d[i] = 0.0f;
                if (from[i] >= 0) {
                    d[i] = (vload16(0, x + from[i] + k) - mean) * factor + offset;
                    if (norm)
                        d[i] = silu_16(d[i], 1.0f);
                }
            }
            TO_POINTS(d, o, 1);
            EACH(i, 6)
            e[j * 6 + i] = o[i];
        }
        for (int t = 0; t < n; t++) {
            const float16 *d = e + begin[t] * 6;
            EACH(i, 6)
            {
                float16 o[6];
                TO_POINTS((d + i), o, 6);
                EACH(j, 6)
                put16(o[j], t, to + (i * 6 + j) * plane);
            }
        }
    }
}

/* u[6, panel of STEPS rows] at vector k = r·G', one row of points. */
inline void store_points(float16 r0, float16 r1, float16 r2, int k, float *u)
{
    float16 s = (r0 + r2) * (-1.0f / 6), q = r1 * (-1.0f / 6);
    float16 p = r0 * (1.0f / 24) + r2 * (1.0f / 6), t = r1 * (1.0f / 12);
    put16(0.25f * r0, k, u);
    put16(s + q, k + STEPS * 2, u);
    put16(s - q, k + STEPS * 4, u);
    put16(p + t, k + STEPS * 6, u);
    put16(p - t, k + STEPS * 8, u);
    put16(r2, k + STEPS * 10, u);
}

/* u[2, 6, panel of STEPS rows] = two rows of G·g·G' for `depth` channels from k0 of a panel of c
 * channels: pair 0 is rows 0 and 5, pair 1 rows 1 and 2, pair 2 rows 3 and 4, which share
 * their terms. */
inline void transform_weights(__global const uchar *w, int halves, long panel, long c, long k0,
                              int depth, int pair, float *u)
{
    float f0 = pair == 1 ? -1.0f / 6 : 1.0f / 24, f1 = pair == 1 ? -1.0f / 6 : 1.0f / 12;
    float f2 = pair == 1 ? -1.0f / 6 : 1.0f / 6;
    long at = (panel * 9 * c + k0) * 2, line = 3 * c * 2;
    for (int k = 0; k < depth * 2; k++, at++) {
        float16 first[3], second[3];
        EACH(j, 3)
        {
            long tap = at + j * c * 2;
            float16 g0 = read_weights(w, halves, tap);
            float16 g2 = read_weights(w, halves, tap + 2 * line);
            if (pair == 0) {
                first[j] = 0.25f * g0;
                second[j] = g2;
            } else {
                float16 even = f0 * g0 + f2 * g2, odd = f1 * read_weights(w, halves, tap + line);
                first[j] = even + odd;
                second[j] = even - odd;
            }
        }
        int to = vector_of(k / 2, k % 2, STEPS);
        store_points(first[0], first[1], first[2], to, u);
        store_points(second[0], second[1], second[2], to, u + 6 * STEPS * PANEL);
    }
}

/* y = the convolution of what winograd_input made into v + bias + row[image % row_n] +
 * residual (of y's shape, may be y) for tiles [first, first + count); has: bit 0 bias, bit 1
 * row, bit 2 residual. y: [images, out_h, out_w, n]. Work-item: (panel of 32 outputs, block
 * of `rows` tiles). */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
winograd_multiply(__global const float *v, long v_at, __global const uchar *w, long w_at,
                  int halves, __global float *y, long y_at, __global const float *bias,
                  long bias_at, __global const float *row, long row_at, int row_n,
                  __global const float *residual, long residual_at, int has, long first,
                  long count, int out_h, int out_w, int tiles_h, int tiles_w, long n, int c,
                  int rows)
{
    float u[12 * STEPS * PANEL], m[POINTS * BLOCK_TILES * PANEL];
    long panel = get_global_id(0), t0 = get_global_id(1) * rows;
    int n_tiles = min((long)rows, count - t0);
    const ahead nothing = { w, 0 };
    w += w_at * sizeof(float);
    v += v_at + t0 * 16;
    for (int k0 = 0; k0 < c; k0 += STEPS) {
        int depth = min(STEPS, c - k0);
        for (int pair = 0; pair < 3; pair++) {
            transform_weights(w, halves, panel, c, k0, depth, pair, u);
            for (int i = 0; i < 12; i++) {
                int line = i < 6 ? pair * 2 - (pair > 0) : pair == 0 ? 5 : pair * 2;
                int p = line * 6 + i % 6;
                for (int r = 0; r < n_tiles; r += TILE)
                    for (int part = 0; part < PARTS; part++)
                        add_tile(v + (k0 * POINTS + p * depth) * count + r * 16, 16, count * 16,
                                 n_tiles - r, u + (i * PARTS + part) * STEPS * WIDTH, depth,
                                 m + ((p * PARTS + part) * BLOCK_TILES + r) * WIDTH, k0 == 0,
                                 nothing);
            }
        }
    }
    for (int r = 0; r < n_tiles; r++) {
        long tile = first + t0 + r, image = tile / tiles_w / tiles_h;
        int oy = tile / tiles_w % tiles_h * 4, ox = tile % tiles_w * 4;
        for (int half_panel = 0; half_panel < 2; half_panel++) {
            long col = panel * PANEL + half_panel * 16, left = n - col;
            float16 d[POINTS], e[24], shift = 0.0f;
            if (left <= 0)
                break;
            if (has & 1)
                shift = load16(bias + bias_at + col, left);
            if (has & 2)
                shift += load16(row + row_at + image % row_n * n + col, left);
            EACH(i, POINTS)
            d[i] = vload16(vector_of(r, i * 2 + half_panel, BLOCK_TILES), m);
            EACH(j, 6)
            {
                float16 o[4];
                FROM_POINTS((d + j), o, 6);
                EACH(i, 4)
                e[i * 6 + j] = o[i];
            }
            for (int i = 0; i < 4 && oy + i < out_h; i++) {
                float16 o[4];
                long at = ((image * out_h + oy + i) * out_w + ox) * n + col;
                FROM_POINTS((e + i * 6), o, 1);
                for (int j = 0; j < 4 && ox + j < out_w; j++, at += n) {
                    float16 z = o[j] + shift;
                    if (has & 4)
                        z += load16(residual + residual_at + at, left);
                    stream16(z, y + y_at + at, left);
                }
            }
        }
    }
}
