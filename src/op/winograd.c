#include "op/product.h"

#define POINTS     36 /* as in cl/winograd.cl */
#define TASK_TILES 132
#define GROUP      6
#define SIDE       4                  /* pixels of a tile's result */
#define CHANNELS   16                 /* of a vector; the input has a multiple of them */
#define UNIT_BYTES ((int64_t)4 << 20) /* of transformed input for each compute unit */

bool winograd_fits(const dr_weight_mat *w, const conv_shape *s)
{
    return w->layout != DR_ROWS && w->kh == 3 && w->kw == 3 && s->stride == 1 &&
           w->in % CHANNELS == 0;
}

void winograd(dr_run *r, dr_tensor x, dr_tensor y, const dr_weight_mat *w,
              const conv_shape *s, const addends *add)
{
    const addends_args a = addends_of(y, w, add);
    int64_t tiles_h = div_up(y.h, SIDE), tiles_w = div_up(y.w, SIDE);
    int64_t tiles = y.n * tiles_h * tiles_w, panels = dr_panels(y.c);
    int64_t tile_bytes = POINTS * x.c * 4;
    int64_t rows = task_rows(r, tiles, panels, TASK_TILES);
    int64_t chunk = at_least(rows, dr_compute_units(r->dev) * UNIT_BYTES / tile_bytes);
    chunk = at_most(chunk, (int64_t)r->conv_tile_bytes / tile_bytes);
    rows = at_most(rows, at_least(chunk / TILE_ROWS, 1) * TILE_ROWS);
    chunk = at_least(chunk / rows, 1) * rows;
    chunk = at_most(chunk, tiles);
    dr_mark mark = dr_push(r);
    dr_tensor v = dr_new(r, POINTS, chunk, 1, x.c);
    work(r, 2.0 * 9 * (double)(y.n * positions(y)) * (double)x.c * (double)y.c);
    for (int64_t first = 0; first < tiles && !r->err.code && !r->dry; first += chunk) {
        int64_t count = at_most(tiles - first, chunk);
        stop(r, "winograd_input");
        LAUNCH(r, DR_K_winograd_input, grid_tasks(div_up(count, GROUP), 1, 1), T(x),
               T(s->norm ? *s->norm : x), DR_INT(s->norm != NULL), T(v), DR_LONG(first),
               DR_LONG(count), DR_INT(x.n), DR_INT(x.h), DR_INT(x.w), DR_INT(x.c),
               DR_INT(s->in_h), DR_INT(s->in_w), DR_INT(tiles_h), DR_INT(tiles_w),
               DR_INT(s->pad_top), DR_INT(s->pad_left), DR_INT(r->wrap),
               DR_FLOAT(s->in_scale));
        stop(r, "conv2d");
        LAUNCH(r, DR_K_winograd_multiply, grid_tasks(panels, div_up(count, rows), 1), T(v),
               T(w->w), DR_INT(w->layout == DR_PACKED_HALF), T(y), ADDENDS(a),
               DR_LONG(first), DR_LONG(count), DR_INT(y.h), DR_INT(y.w), DR_INT(tiles_h),
               DR_INT(tiles_w), DR_LONG(y.c), DR_INT(x.c), DR_INT(rows));
    }
    dr_pop(r, mark);
}
