#ifndef DR_OP_LAUNCHER_H
#define DR_OP_LAUNCHER_H

/* Private to src/op/: how operations launch kernels. */

#include "dev/gemm.h"
#include "op/op.h"

typedef long long ll;

static inline int64_t div_up(int64_t x, int64_t unit)
{
    return (x + unit - 1) / unit;
}

static inline int64_t round_up(int64_t x, int64_t unit)
{
    return div_up(x, unit) * unit;
}

static inline int64_t at_least(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Expand to the two arguments that every kernel takes for a tensor. */
#define T(x) DR_MEM((x).mem), DR_LONG((x).at)

/* Whether an operation has to return at once; books what follows under label. */
static inline bool stop(dr_run *r, const char *label)
{
    r->label = label;
    if (!r->err.code && !r->dry)
        dr_profile_label(r->dev, label);
    return r->err.code != DR_OK;
}

static inline void launch(dr_run *r, dr_kernel_id k, const dr_arg *args, size_t n,
                          dr_grid grid)
{
    if (!r->err.code && !r->dry)
        (void)!dr_launch(r->dev, k, args, (int)n, &grid, &r->err);
}
#define LAUNCH(r, k, grid, ...)                                                            \
    launch(r, k, (const dr_arg[]){ __VA_ARGS__ },                                          \
           sizeof((const dr_arg[]){ __VA_ARGS__ }) / sizeof(dr_arg), grid)

static inline dr_grid grid1(int64_t x)
{
    return (dr_grid){ .dims = 1, .global = { (size_t)x } };
}

static inline dr_grid grid2(int64_t x, int64_t y)
{
    return (dr_grid){ .dims = 2, .global = { (size_t)x, (size_t)y } };
}

static inline dr_grid grid3(int64_t x, int64_t y, int64_t z)
{
    return (dr_grid){ .dims = 3, .global = { (size_t)x, (size_t)y, (size_t)z } };
}

/* Work-groups of one: kernels for CPUs, whose work-item is a task with loops of its own. */
static inline dr_grid grid_tasks(int64_t x, int64_t y, int64_t z)
{
    return (dr_grid){ .dims = 3,
                      .global = { (size_t)x, (size_t)y, (size_t)z },
                      .local = { 1, 1, 1 } };
}

/* One work-group of WG work-items for each of `rows` rows. */
static inline dr_grid grid_rows(const dr_run *r, int64_t rows)
{
    size_t wg = r->dry ? 1 : (size_t)dr_row_group(r->dev);
    return (dr_grid){ .dims = 1, .global = { (size_t)rows * wg }, .local = { wg } };
}

/* Work-items for c neighbours: BLOCK each, as in cl/prelude.h. */
#define BLOCK 8

static inline int64_t blocks(int64_t c)
{
    return div_up(c, BLOCK);
}

static inline int64_t positions(dr_tensor x)
{
    return x.h * x.w;
}

static inline bool same_shape(dr_tensor a, dr_tensor b)
{
    return a.n == b.n && positions(a) == positions(b) && a.c == b.c;
}

static inline void fail_shape(dr_run *r, const char *op, dr_tensor x, const char *what,
                              ll have, ll want)
{
    if (r->err.code)
        return;
    dr_fail(&r->err, DR_ESHAPE, "%s: x [%lld, %lld, %lld, %lld]: %s is %lld, must be %lld",
            op, (ll)x.n, (ll)x.h, (ll)x.w, (ll)x.c, what, have, want);
}

#define TILE_ROWS 12 /* TILE of cl/tile.h */

/* Tasks of a product, at least so many if there is work enough. */
static inline int64_t enough_tasks(const dr_run *r)
{
    return 4 * dr_compute_units(r->dev);
}

/* Rows of a task, of m over each of `panels` panels: at most `most`, fewer where that makes
 * too few tasks; whole tiles, between half of that and all, so that the last of m's tasks
 * lacks as little as possible. (A driver that deals out the tasks in halves lets all wait
 * for whoever got the full ones.) */
static inline int64_t task_rows(const dr_run *r, int64_t m, int64_t panels, int64_t most)
{
    most = at_most(most, at_least(m * panels / enough_tasks(r), TILE_ROWS));
    int64_t tiles = div_up(m, TILE_ROWS), best = 1, lacks = INT64_MAX;
    for (int64_t t = most / TILE_ROWS; t > 0 && 2 * t * TILE_ROWS >= most; t--) {
        int64_t lack = round_up(tiles, t) - tiles;
        if (lack < lacks) {
            best = t;
            lacks = lack;
        }
    }
    return at_most(best, tiles) * TILE_ROWS;
}

/* Count operations of a product that is launched now. */
static inline void work(dr_run *r, double flops)
{
    r->flops += flops;
    if (!r->err.code && !r->dry)
        dr_profile_work(r->dev, flops);
}

static inline void gemm(dr_run *r, const dr_gemm_args *g)
{
    work(r, 2.0 * (double)g->m * (double)g->n * (double)g->k * (double)g->batch);
    if (r->watch && !r->err.code)
        r->watch(r->watch_ctx, r->label, g);
    if (!r->err.code && !r->dry)
        (void)!dr_gemm(r->dev, g, &r->err);
}

#endif
