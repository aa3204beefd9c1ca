#include "op/product.h"

/* Linear layers and convolutions. */

/* y = bias + row + residual; gives the beta that a product into y then needs. */
static float prefill(dr_run *r, dr_tensor y, const dr_weight_mat *w, const addends *add)
{
    const addends_args a = addends_of(y, w, add);
    if (!a.has)
        return 0.0f;
    LAUNCH(r, DR_K_prefill, grid2(blocks(y.c), y.n * positions(y)), T(y), ADDENDS(a),
           DR_LONG(positions(y)), DR_LONG(y.c));
    return 1.0f;
}

#define TASK_ROWS   312 /* as in cl/gemm.cl */
#define TASK_PANELS 4

/* What a packed product passes instead of an activation; as in cl/gemm.cl. */
enum { NOTHING = -1, GATED = DR_ACTIVATIONS };

/* Products of one x in one launch: how many, and how many floats their weights, biases and
 * results lie apart. */
typedef struct {
    int64_t n, w, bias, y;
} series;

static const series alone = { .n = 1 };

/* y[first…first + m) = x·W + bias through `through`, + addends, x's rows from 0, by the
 * packed kernel. GATED: GEGLU, y half as wide. y, w: the first of a series. */
static void multiply_packed(dr_run *r, dr_tensor x, dr_tensor y, int64_t first, int64_t m,
                            const dr_weight_mat *w, const addends *add, int through,
                            const series *s)
{
    int64_t n = w->w.c, k = w->w.w, panels = dr_panels(y.c);
    int64_t group = through == GATED ? TASK_PANELS / 2 : TASK_PANELS;
    const addends_args a = addends_of(y, w, add);
    work(r, 2.0 * (double)(s->n * m) * (double)n * (double)k);
    if (r->err.code || r->dry)
        return;
    int64_t rows = task_rows(r, m, s->n * panels, TASK_ROWS), tasks = div_up(m, rows);
    while (group > 1 && s->n * tasks * div_up(panels, group) < enough_tasks(r))
        group /= 2;
    int64_t groups = div_up(panels, group);
    bool rows_first = m < n / 2; /* weights are the larger part: read each just once */
    LAUNCH(r, DR_K_multiply_packed,
           rows_first ? grid_tasks(tasks, groups, s->n) : grid_tasks(groups, tasks, s->n),
           T(x), T(w->w), DR_INT(w->layout == DR_PACKED_HALF), T(y), ADDENDS(a),
           DR_LONG(first), DR_LONG(positions(y)), DR_LONG(m), DR_LONG(n), DR_LONG(k),
           DR_INT(through), DR_INT(group), DR_INT(rows), DR_INT(rows_first), DR_LONG(s->w),
           DR_LONG(s->bias), DR_LONG(s->y));
}

/* The same by CLBlast, where prefill has put bias and addends into y: beta 1. */
static void multiply_rows(dr_run *r, dr_tensor x, dr_tensor y, int64_t first, int64_t m,
                          const dr_weight_mat *w, float beta)
{
    gemm(r, &(dr_gemm_args){
                .m = m,
                .n = w->w.c,
                .k = w->w.w,
                .batch = 1,
                .a = { .mem = x.mem, .at = x.at, .ld = w->w.w },
                .b = { .mem = w->w.mem, .at = w->w.at, .ld = w->w.c },
                .c = { .mem = y.mem, .at = y.at + (size_t)(first * y.c), .ld = y.c },
                .alpha = 1.0f,
                .beta = beta,
            });
}

/* Of all rows of x. */
static void product(dr_run *r, dr_tensor x, dr_tensor y, const dr_weight_mat *w,
                    const addends *add)
{
    int64_t m = x.n * positions(x);
    if (w->layout == DR_ROWS)
        multiply_rows(r, x, y, 0, m, w, prefill(r, y, w, add));
    else
        multiply_packed(r, x, y, 0, m, w, add, NOTHING, &alone);
}

void op_linear_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_mat *w,
                    const dr_tensor *residual)
{
    if (stop(r, "linear"))
        return;
    if (x.c != w->in || w->kh * w->kw != 1)
        fail_shape(r, "linear", x, "c", x.c, w->in);
    else if (y.c != w->out || y.n * positions(y) != x.n * positions(x))
        fail_shape(r, "linear", x, "result's c", y.c, w->out);
    else if (residual && !same_shape(*residual, y))
        fail_shape(r, "linear", *residual, "residual c", residual->c, y.c);
    if (!r->err.code)
        product(r, x, y, w, &(addends){ .residual = residual });
}

dr_tensor op_linear(dr_run *r, dr_tensor x, const dr_weight_mat *w,
                    const dr_tensor *residual)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, w->out);
    op_linear_into(r, y, x, w, residual);
    return y;
}

/* Whether t, the i-th, lies i times as far behind the first as the second does. */
static bool evenly(dr_tensor first, dr_tensor second, dr_tensor t, int i)
{
    return t.mem == first.mem && t.at == first.at + (size_t)i * (second.at - first.at);
}

/* Whether n matrices and their results are a series: alike, packed and evenly spaced. */
static bool is_series(const dr_weight_mat *w, const dr_tensor *y, int n)
{
    for (int i = 1; i < n; i++)
        if (w[i].layout != w->layout || w[i].in != w->in || w[i].out != w->out ||
            w[i].b.c != w->b.c || !evenly(w->w, w[1].w, w[i].w, i) ||
            !evenly(w->b, w[1].b, w[i].b, i) || !evenly(*y, y[1], y[i], i))
            return false;
    return n > 1 && w->layout != DR_ROWS && w->in == w->w.w;
}

void op_linear_each(dr_run *r, dr_tensor x, const dr_weight_mat *w, int n, dr_tensor *y)
{
    for (int i = 0; i < n; i++)
        y[i] = dr_new(r, x.n, x.h, x.w, w[i].out);
    if (is_series(w, y, n) && x.c == w->in && !stop(r, "linear")) {
        const series s = { .n = n,
                           .w = (int64_t)(w[1].w.at - w->w.at),
                           .bias = (int64_t)(w[1].b.at - w->b.at),
                           .y = (int64_t)(y[1].at - y->at) };
        multiply_packed(r, x, *y, 0, x.n * positions(x), w, &(addends){ 0 }, NOTHING, &s);
        return;
    }
    for (int i = 0; i < n; i++)
        op_linear_into(r, y[i], x, &w[i], NULL);
}

/* All of x·W + b through `through` into y, by the packed kernel; op: its name in errors. */
static void linear_through(dr_run *r, const char *op, dr_tensor y, dr_tensor x,
                           const dr_weight_mat *w, int through)
{
    if (x.c != w->in)
        fail_shape(r, op, x, "c", x.c, w->in);
    else if (!stop(r, "linear"))
        multiply_packed(r, x, y, 0, x.n * positions(x), w, &(addends){ 0 }, through,
                        &alone);
}

dr_tensor op_linear_geglu(dr_run *r, dr_tensor x, const dr_weight_mat *w)
{
    bool fits = w->layout != DR_ROWS && w->out % (2 * DR_PANEL) == 0;
    dr_tensor y = dr_new(r, x.n, x.h, x.w, w->out / 2);
    dr_mark mark = dr_push(r);
    if (!fits)
        op_geglu_into(r, y, op_linear(r, x, w, NULL));
    else
        linear_through(r, "linear_geglu", y, x, w, GATED);
    dr_pop(r, mark);
    return y;
}

dr_tensor op_linear_activate(dr_run *r, dr_tensor x, const dr_weight_mat *w,
                             dr_activation kind)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, w->out);
    if (w->layout != DR_ROWS && kind <= DR_QUICK_GELU) {
        linear_through(r, "linear_activate", y, x, w, (int)kind);
    } else {
        op_linear_into(r, y, x, w, NULL);
        op_activate_into(r, y, y, kind);
    }
    return y;
}

/* Places of a window on a line; 0 when it is too long. */
static int64_t windows(int64_t length, int window, int stride)
{
    return length < window ? 0 : (length - window) / stride + 1;
}

static conv_shape conv_shape_of(dr_tensor x, const dr_weight_mat *w, const dr_conv_opts *o)
{
    conv_shape s = { .stride = o->stride ? o->stride : 1,
                     .pad_top = o->pad_top,
                     .pad_left = o->pad_left,
                     .in_h = o->up_h ? o->up_h : x.h,
                     .in_w = o->up_w ? o->up_w : x.w,
                     .n = o->batch ? o->batch : x.n,
                     .in_scale = o->in_scale != 0.0f ? o->in_scale : 1.0f,
                     .norm = o->norm };
    s.h = windows(s.in_h + o->pad_top + o->pad_bottom, w->kh, s.stride);
    s.w = windows(s.in_w + o->pad_left + o->pad_right, w->kw, s.stride);
    s.plain =
        w->kh * w->kw == 1 && s.n == x.n && s.h == x.h && s.w == x.w && s.in_scale == 1.0f;
    return s;
}

/* Unfold and multiply, tile by tile of output pixels. */
static void conv_tiles(dr_run *r, dr_tensor x, dr_tensor y, const dr_weight_mat *w,
                       const conv_shape *s, const addends *add)
{
    int64_t k = w->w.w, pixels = y.n * positions(y);
    bool packed = w->layout != DR_ROWS;
    float beta = packed ? 0 : prefill(r, y, w, add);
    int64_t tile = (int64_t)(r->conv_tile_bytes / sizeof(float)) / k;
    tile = tile < 64 ? 64 : tile / 64 * 64;
    tile = tile > pixels ? pixels : tile;
    dr_mark mark = dr_push(r);
    dr_tensor rows = dr_new(r, 1, tile, 1, k);
    for (int64_t first = 0; first < pixels; first += tile) {
        int64_t m = pixels - first < tile ? pixels - first : tile;
        if (stop(r, "unfold"))
            break;
        LAUNCH(r, DR_K_unfold, grid2(blocks(x.c), m), T(x), T(rows), DR_LONG(first),
               DR_INT(x.n), DR_INT(x.h), DR_INT(x.w), DR_INT(x.c), DR_INT(s->in_h),
               DR_INT(s->in_w), DR_INT(y.h), DR_INT(y.w), DR_INT(w->kh), DR_INT(w->kw),
               DR_INT(s->stride), DR_INT(s->pad_top), DR_INT(s->pad_left), DR_INT(r->wrap),
               DR_FLOAT(s->in_scale));
        stop(r, "conv2d");
        if (packed)
            multiply_packed(r, rows, y, first, m, w, add, NOTHING, &alone);
        else
            multiply_rows(r, rows, y, first, m, w, beta);
    }
    dr_pop(r, mark);
}

void op_conv2d_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_mat *w,
                    const dr_conv_opts *o)
{
    conv_shape s = conv_shape_of(x, w, o);
    if (stop(r, "conv2d"))
        return;
    if (x.c != w->in)
        fail_shape(r, "conv2d", x, "c", x.c, w->in);
    else if (y.n != s.n || y.h != s.h || y.w != s.w || y.c != w->out)
        fail_shape(r, "conv2d", y, "the result's h", y.h, s.h);
    else if (o->residual && !same_shape(*o->residual, y))
        fail_shape(r, "conv2d", *o->residual, "residual c", o->residual->c, y.c);
    else if (o->row && o->row->c != y.c)
        fail_shape(r, "conv2d", *o->row, "row c", o->row->c, y.c);
    else if (o->norm && (o->norm->c != x.c || o->norm->n != x.n || s.in_scale != 1.0f))
        fail_shape(r, "conv2d", *o->norm, "norm c", o->norm->c, x.c);
    if (r->err.code)
        return;
    const addends add = { .row = o->row, .residual = o->residual };
    bool by_winograd = winograd_fits(w, &s);
    dr_mark mark = dr_push(r);
    if (o->norm && !by_winograd)
        x = op_group_norm_apply(r, x, *o->norm, true);
    if (s.plain)
        product(r, x, y, w, &add);
    else if (by_winograd)
        winograd(r, x, y, w, &s, &add);
    else
        conv_tiles(r, x, y, w, &s, &add);
    dr_pop(r, mark);
}

dr_tensor op_conv2d(dr_run *r, dr_tensor x, const dr_weight_mat *w, const dr_conv_opts *o)
{
    conv_shape s = conv_shape_of(x, w, o);
    if (s.h < 1 || s.w < 1)
        fail_shape(r, "conv2d", x, "the result's h", s.h, 1);
    dr_tensor y = dr_new(r, s.n, s.h, s.w, w->out);
    op_conv2d_into(r, y, x, w, o);
    return y;
}
