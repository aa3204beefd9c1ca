/* Products with packed weights, for CPUs: a work-group of one computes a block of rows and
 * up to PANELS panels of 32 columns, in tiles that stay in registers (cl/tile.h). Goto & van
 * de Geijn 2008, "Anatomy of high-performance matrix multiplication": blocks of B in the
 * first cache, of A in the second.
 *
 * Packed weights [ceil(n / 32)][k][32], zeros beyond n, are floats or halves; see
 * cl/weights.cl. */
#define ROWS   312 /* most rows of a task: a multiple of TILE */
#define DEPTH  256 /* steps of k at a time */
#define PANELS 4   /* most panels of a task */
#define GATED  5   /* behind the activations of cl/elementwise.cl */

DEFINE_GELU(gelu_16, float16)

/* The panel that a task of `n` panels from p0 on multiplies as its p-th: behind its own come
 * those of their gates, `apart` panels behind them. */
inline long nth_panel(int p, long p0, int n, long apart)
{
    return p < n ? p0 + p : p0 + p - n + apart;
}

/* y[first + r, :] = x[r, :]·W + bias + row[(first + r) / t % row_n, :] + residual[first + r, :]
 * for r < m; has: bit 0 bias, bit 1 row, bit 2 residual (which may be y). through: what the
 * product and bias pass before more is added: 0, 1, 2 as in cl/elementwise.cl's activate, -1
 * nothing; GATED: y is half as wide, their first half times the GELU of the second (GEGLU,
 * Shazeer 2020), n a multiple of 64 then. Work-item: (group of `panels` panels of y, block
 * of `rows` rows), or when rows_first the other way round; third: of several products of one
 * x, whose weights, biases and results lie so many floats apart.
 *
 * While a panel is multiplied, the weights that come next are asked for, and at the end the
 * residual; behind the last panel that asks for nothing that is needed, and harms nothing. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
multiply_packed(__global const float *x, long x_at, __global const uchar *w, long w_at,
                int halves, __global float *y, long y_at, __global const float *bias,
                long bias_at, __global const float *row, long row_at, int row_n,
                __global const float *residual, long residual_at, int has, long first, long t,
                long m, long n, long k, int through, int panels, int rows, int rows_first,
                long w_apart, long bias_apart, long y_apart)
{
    float b[DEPTH * PANEL], c[PANELS * ROWS * PANEL];
    long p0 = get_global_id(rows_first) * panels, r0 = get_global_id(!rows_first) * rows;
    int gated = through == GATED;
    long out = gated ? n / 2 : n, out_panels = (out + PANEL - 1) / PANEL;
    int n_panels = min((long)panels, out_panels - p0);
    int n_rows = min((long)rows, m - r0);
    int all_panels = gated ? 2 * n_panels : n_panels;
    long line = PANEL * (halves ? sizeof(short) : sizeof(float)); /* bytes of a panel's row */
    w += (w_at + get_global_id(2) * w_apart) * sizeof(float);
    bias += bias_at + get_global_id(2) * bias_apart;
    y += y_at + get_global_id(2) * y_apart;
    __global const uchar *next = w + p0 * k * line; /* what is read next */
    for (long k0 = 0; k0 < k; k0 += DEPTH) {
        int depth = min((long)DEPTH, k - k0);
        for (int p = 0; p < all_panels; p++) {
            __global const uchar *from = next;
            if (p + 1 < all_panels)
                next = w + (nth_panel(p + 1, p0, n_panels, out_panels) * k + k0) * line;
            else if (k0 + depth < k)
                next = w + (p0 * k + k0 + depth) * line;
            else /* of the next task, most likely */
                next = w + (p0 + n_panels) * k * line;
            for (int r = 0; r < n_rows; r += TILE) {
                ahead then = share(next, depth * line, r / TILE, depth);
                if (has & 4 && k0 + DEPTH >= k)
                    for (int i = 0; i < TILE; i++)
                        EACH(j, PANEL / 16)
                        LATER(residual + residual_at + (first + r0 + r + i) * out +
                              (p0 + p) * PANEL + j * 16);
                for (int part = 0; part < PARTS; part++) {
                    __global const float *a = x + x_at + (r0 + r) * k + k0;
                    float *to = c + ((p * PARTS + part) * ROWS + r) * WIDTH;
                    float *own = b + part * depth * WIDTH;
                    if (r == 0)
                        add_tile_from(a, k, n_rows, from, halves, part, own, depth, to, k0 == 0,
                                      then);
                    else
                        add_tile(a, k, 16, n_rows - r, own, depth, to, k0 == 0, then);
                }
            }
        }
    }
    int vectors = min(n_panels * 2L, (out - p0 * PANEL + 15) / 16);
    for (int r = 0; r < n_rows; r++) {
        long at = first + r0 + r, col = p0 * PANEL, left = out - col;
        __global const float *shift = bias + col;
        __global const float *add = residual + residual_at + at * out + col;
        __global const float *own = row + row_at + (has & 2 ? at / t % row_n * out : 0) + col;
        __global float *to = y + at * out + col;
        for (int i = 0; i < vectors; i++, left -= 16) {
            float16 v = vload16(vector_of(r, i, ROWS), c);
            if (has & 1)
                v += load16(shift + i * 16, left);
            if (gated) {
                float16 gate = vload16(vector_of(r, i + n_panels * 2, ROWS), c);
                v *= gelu_16(has & 1 ? gate + vload16(i, shift + out) : gate);
            } else if (through == 1)
                v = gelu_16(v);
            else if (through >= 0)
                v = silu_16(v, through == 2 ? 1.702f : 1.0f);
            if (has & 2)
                v += load16(own + i * 16, left);
            if (has & 4)
                v += load16(add + i * 16, left);
            stream16(v, to + i * 16, left);
        }
    }
}
