#include "op/launcher.h"
#include "op/merge.h"

/* Weights between files and the two ways they lie on a device. */

#define PACK_CHANNELS 64 /* CHANNELS of cl/weights.cl */

dr_layout op_layout(const dr_dev *d, int kind)
{
    return !dr_packed(d) ? DR_ROWS : kind == 1 ? DR_PACKED_HALF : DR_PACKED;
}

int64_t op_weight_floats(dr_layout layout, int64_t k, int64_t n)
{
    int64_t padded = k * dr_panels(n) * DR_PANEL;
    return layout == DR_ROWS ? k * n : layout == DR_PACKED ? padded : padded / 2;
}

dr_status op_unpack_weights(dr_dev *d, dr_mem *file, dr_mem *to, size_t at, int64_t o,
                            int64_t c, int64_t s, int kind, dr_err *err)
{
    dr_arg args[] = { DR_MEM(file), DR_LONG(0), DR_MEM(to), DR_LONG(at),
                      DR_LONG(o),   DR_LONG(c), DR_LONG(s), DR_INT(kind) };
    dr_grid grid = grid2(blocks(o), c * s);
    return dr_launch(d, DR_K_unpack_weights, args, DR_COUNT(args), &grid, err);
}

dr_status op_pack_weights(dr_dev *d, dr_mem *file, dr_mem *to, size_t at, int64_t o,
                          int64_t c, int64_t s, int kind, dr_err *err)
{
    dr_arg args[] = { DR_MEM(file), DR_LONG(0), DR_MEM(to),  DR_LONG(at),
                      DR_LONG(o),   DR_LONG(c), DR_LONG(s),  DR_LONG(c * s),
                      DR_LONG(s),   DR_LONG(1), DR_INT(kind) };
    dr_grid grid = grid_tasks(dr_panels(o), div_up(c, PACK_CHANNELS), 1);
    return dr_launch(d, DR_K_pack_weights, args, DR_COUNT(args), &grid, err);
}

void op_read_weight(dr_run *r, dr_tensor w, dr_layout layout, dr_tensor rows)
{
    if (layout == DR_ROWS) {
        op_scale(r, w, rows, 1, 0);
        return;
    }
    if (stop(r, "read_weight"))
        return;
    LAUNCH(r, DR_K_unpack_rows, grid_tasks(dr_panels(w.c), w.w, 1), T(w), T(rows),
           DR_LONG(w.c), DR_LONG(w.w), DR_INT(layout == DR_PACKED_HALF));
}

void op_write_weight(dr_run *r, dr_tensor rows, dr_tensor w, dr_layout layout)
{
    if (layout == DR_ROWS) {
        op_scale(r, rows, w, 1, 0);
        return;
    }
    if (stop(r, "write_weight"))
        return;
    LAUNCH(r, DR_K_pack_weights, grid_tasks(dr_panels(w.c), div_up(w.w, PACK_CHANNELS), 1),
           T(rows), T(w), DR_LONG(w.c), DR_LONG(w.w), DR_LONG(1), DR_LONG(1), DR_LONG(w.c),
           DR_LONG(0), DR_INT(0));
}
