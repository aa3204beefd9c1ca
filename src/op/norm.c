#include "op/launcher.h"

/* Normalisations. Group norm in three steps (see cl/norm.cl), for a whole tensor or for
 * bands of a picture that is nowhere whole. */

#define SLAB_ROWS 64 /* rows whose statistics one work-item gathers; they stay in cache */

static bool fits(dr_run *r, dr_tensor x, const dr_weight_norm *w)
{
    if (stop(r, "group_norm"))
        return false;
    if (x.c != w->w.c || w->groups <= 0 || x.c % w->groups)
        fail_shape(r, "group_norm", x, "c", x.c, w->w.c);
    return !r->err.code;
}

/* Statistics of each slab of x's positions. */
static void gather(dr_run *r, dr_tensor x, dr_tensor part, int64_t slab)
{
    int64_t t = positions(x);
    LAUNCH(r, DR_K_group_norm_partial, grid3(blocks(x.c), (t + slab - 1) / slab, x.n), T(x),
           T(part), DR_LONG(t), DR_LONG(x.c), DR_LONG(slab));
}

/* Of all slabs of t positions. */
static void combine(dr_run *r, dr_tensor part, const dr_weight_norm *w, dr_tensor coef,
                    int64_t t, int64_t slab)
{
    LAUNCH(r, DR_K_group_norm_combine, grid_rows(r, w->groups * coef.n), T(part), T(w->w),
           T(w->b), T(coef), DR_LONG(t), DR_LONG(coef.c), DR_LONG(slab), DR_LONG(part.h),
           DR_LONG(w->groups), DR_FLOAT(w->eps));
}

static void apply(dr_run *r, dr_tensor x, dr_tensor coef, bool silu, dr_tensor y)
{
    int64_t t = positions(x);
    LAUNCH(r, DR_K_group_norm_apply, grid3(blocks(x.c), t, x.n), T(x), T(coef), T(y),
           DR_LONG(t), DR_LONG(x.c), DR_INT(silu));
}

dr_tensor op_group_norm_coef(dr_run *r, dr_tensor x, const dr_weight_norm *w)
{
    dr_tensor coef = dr_new(r, x.n, 1, 3, x.c);
    int64_t t = positions(x);
    if (!fits(r, x, w))
        return coef;
    dr_mark mark = dr_push(r);
    dr_tensor part = dr_new(r, x.n, (t + SLAB_ROWS - 1) / SLAB_ROWS, 2, x.c);
    gather(r, x, part, SLAB_ROWS);
    combine(r, part, w, coef, t, SLAB_ROWS);
    dr_pop(r, mark);
    return coef;
}

dr_tensor op_group_norm(dr_run *r, dr_tensor x, const dr_weight_norm *w, bool silu)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c);
    dr_mark mark = dr_push(r);
    dr_tensor coef = op_group_norm_coef(r, x, w);
    if (!r->err.code)
        apply(r, x, coef, silu, y);
    dr_pop(r, mark);
    return y;
}

void op_group_norm_gather(dr_run *r, dr_tensor x, dr_tensor part, int64_t first)
{
    if (stop(r, "group_norm"))
        return;
    if (x.n != 1 || first < 0 || first + x.h > part.h || x.c != part.c)
        fail_shape(r, "group_norm", x, "h", first + x.h, part.h);
    part.at += (size_t)(first * 2 * part.c);
    gather(r, x, part, x.w);
}

void op_group_norm_combine(dr_run *r, dr_tensor part, int64_t width,
                           const dr_weight_norm *w, dr_tensor coef)
{
    if (fits(r, coef, w))
        combine(r, part, w, coef, part.h * width, width);
}

dr_tensor op_group_norm_apply(dr_run *r, dr_tensor x, dr_tensor coef, bool silu)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c);
    if (stop(r, "group_norm"))
        return y;
    if (coef.c != x.c || coef.n != x.n)
        fail_shape(r, "group_norm", x, "c", x.c, coef.c);
    apply(r, x, coef, silu, y);
    return y;
}

void op_layer_norm_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_norm *w)
{
    if (stop(r, "layer_norm"))
        return;
    if (x.c != w->w.c || !same_shape(x, y))
        fail_shape(r, "layer_norm", x, "c", x.c, w->w.c);
    LAUNCH(r, DR_K_layer_norm, grid_rows(r, x.n * positions(x)), T(x), T(w->w), T(w->b),
           T(y), DR_LONG(x.c), DR_FLOAT(w->eps));
}

dr_tensor op_layer_norm(dr_run *r, dr_tensor x, const dr_weight_norm *w)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c);
    op_layer_norm_into(r, y, x, w);
    return y;
}
