#include "op/selftest.h"

#include "base/arena.h"
#include "base/rng.h"
#include "dev/dev.h"
#include "dev/gemm.h"
#include "op/merge.h"
#include "op/ref.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RUN_BYTES ((size_t)16 << 20)
/* Tiles so small that the operations of this test take several. */
#define ATTENTION_TILE ((size_t)4096)
#define CONV_TILE      ((size_t)16384)

/* Relative difference that passes. Wide enough for the 4 ulp that OpenCL allows exp and
 * for any order of summation, far below what a wrong index or a lost tile makes. */
#define LIMIT 1e-4
/* sin and cos of angles up to 1000 that a float holds to 6e-5. */
#define LIMIT_ANGLES 1e-3

/* One run of the self-test. Errors are sticky in run.err. */
typedef struct {
    dr_run run;
    dr_arena *mem;
    uint32_t draws;
} probe;

static float *host(probe *p, int64_t count)
{
    float *x = dr_arena_alloc(p->mem, (size_t)count * sizeof *x);
    if (!x && !p->run.err.code)
        dr_fail(&p->run.err, DR_ENOMEM, "out of memory");
    return x;
}

/* A tensor of normal noise here and on the device. */
static dr_tensor input(probe *p, float **x, int64_t n, int64_t h, int64_t w, int64_t c)
{
    dr_tensor t = dr_new(&p->run, n, h, w, c);
    *x = host(p, n * h * w * c);
    if (p->run.err.code)
        return t;
    dr_philox_normal(*x, (size_t)(n * h * w * c), 1, 0, ++p->draws);
    dr_upload(&p->run, t, *x);
    return t;
}

static void compare(probe *p, const char *op, dr_tensor y, const float *want, double limit)
{
    int64_t count = dr_count(y), worst = 0;
    float *have = host(p, count);
    if (p->run.err.code)
        return;
    dr_download(&p->run, y, have);
    double distance = ref_distance(have, want, count);
    if (p->run.err.code || distance <= limit)
        return;
    for (int64_t i = 1; i < count; i++)
        if (!(fabs((double)have[i] - want[i]) <= fabs((double)have[worst] - want[worst])))
            worst = i;
    dr_fail(&p->run.err, DR_EDEVICE,
            "%s on %s gives wrong results: relative difference %.2g, at most %.0e is "
            "right; the largest is at element %lld of %lld: %.9g instead of %.9g; try "
            "another driver or device, or device.tuning = none",
            op, dr_dev_describe(p->run.dev)->name, distance, limit, (long long)worst,
            (long long)count, (double)have[worst], (double)want[worst]);
}

static dr_weight_mat matrix(probe *p, float **w, float **b, int64_t in, int64_t out,
                            int window)
{
    dr_weight_mat m = { .kh = window, .kw = window, .in = in, .out = out };
    m.w = input(p, w, 1, 1, in * window * window, out);
    m.b = input(p, b, 1, 1, 1, out);
    return m;
}

static dr_weight_norm norm(probe *p, float **w, float **b, int64_t c, int64_t groups)
{
    /* So large that a kernel without it would show. */
    dr_weight_norm m = { .eps = 0.1f, .groups = groups };
    m.w = input(p, w, 1, 1, 1, c);
    m.b = input(p, b, 1, 1, 1, c);
    return m;
}

/* --- products --- */

/* A product the way an operation asks for it; heads > 1: as attention does, side by side
 * in one row. Small ones take CLBlast's direct kernel, large ones the packed one. */
typedef struct {
    int64_t m, n, k, heads;
    bool b_transposed;
    float beta;
} product;

static const product products[] = {
    { 37, 29, 53, 1, false, 0.0f },   { 65, 96, 64, 1, false, 1.0f },
    { 33, 17, 40, 1, true, 0.0f },    { 23, 77, 40, 3, true, 0.0f },
    { 19, 40, 77, 3, false, 0.0f },   { 131, 523, 1156, 1, false, 1.0f },
    { 260, 650, 320, 1, true, 0.0f }, { 60, 77, 40, 3, true, 0.0f },
    { 60, 40, 77, 3, false, 0.0f },
};

static void multiply(probe *p, const product *g)
{
    float *a, *b, *c;
    bool packed = g->heads > 1;
    dr_mark mark = dr_push(&p->run);
    int64_t rows = g->b_transposed ? g->n : g->k, cols = g->b_transposed ? g->k : g->n;
    dr_tensor x = input(p, &a, 1, g->m, 1, g->k * g->heads);
    dr_tensor w = input(p, &b, 1, rows, 1, cols * g->heads);
    dr_tensor y = input(p, &c, g->heads, g->m, 1, g->n);
    if (p->run.err.code)
        goto done;
    dr_gemm_args args = {
        .m = g->m,
        .n = g->n,
        .k = g->k,
        .batch = g->heads,
        .a = { .mem = x.mem, .at = x.at, .ld = x.c, .stride = packed ? g->k : 0 },
        .b = { .mem = w.mem, .at = w.at, .ld = w.c, .stride = packed ? cols : 0 },
        .c = { .mem = y.mem, .at = y.at, .ld = g->n, .stride = g->m * g->n },
        .b_transposed = g->b_transposed,
        .alpha = 0.5f,
        .beta = g->beta,
    };
    if (dr_gemm(p->run.dev, &args, &p->run.err))
        goto done;
    for (int64_t h = 0; h < g->heads; h++)
        ref_gemm(c + h * g->m * g->n, a + h * g->k, b + h * cols,
                 &(ref_gemm_args){ .m = g->m,
                                   .n = g->n,
                                   .k = g->k,
                                   .lda = x.c,
                                   .ldb = w.c,
                                   .ldc = g->n,
                                   .b_transposed = g->b_transposed,
                                   .alpha = 0.5,
                                   .beta = g->beta });
    char name[96];
    snprintf(name, sizeof name, "gemm m=%d n=%d k=%d batch=%d%s", (int)g->m, (int)g->n,
             (int)g->k, (int)g->heads, g->b_transposed ? " transposed" : "");
    compare(p, name, y, c, LIMIT);
done:
    dr_pop(&p->run, mark);
}

static void test_gemm(probe *p)
{
    for (size_t i = 0; i < DR_COUNT(products); i++)
        multiply(p, &products[i]);
}

static void test_conv2d(probe *p)
{
    float *x, *w, *b, *row, *residual, *want = host(p, 2 * 5 * 4 * 9);
    dr_tensor dx = input(p, &x, 1, 6, 5, 7), r = input(p, &row, 1, 1, 1, 9);
    dr_weight_mat m = matrix(p, &w, &b, 7, 9, 3);
    dr_tensor s = input(p, &residual, 2, 5, 4, 9);
    if (p->run.err.code)
        return;
    dr_conv_opts o = { .stride = 2,
                       .pad_bottom = 1,
                       .pad_right = 1,
                       .up_h = 10,
                       .up_w = 8,
                       .batch = 2,
                       .in_scale = 0.5f,
                       .row = &r,
                       .residual = &s };
    ref_conv2d(want, x, w, b, row, residual,
               &(ref_conv_args){ .sources = 1,
                                 .h = 6,
                                 .w = 5,
                                 .in = 7,
                                 .in_h = 10,
                                 .in_w = 8,
                                 .n = 2,
                                 .out_h = 5,
                                 .out_w = 4,
                                 .out = 9,
                                 .rows = 1,
                                 .kh = 3,
                                 .kw = 3,
                                 .stride = 2,
                                 .in_scale = 0.5 });
    compare(p, "conv2d", op_conv2d(&p->run, dx, &m, &o), want, LIMIT);
}

/* More keys than are worked on at once, later ones with much larger scores. */
static void test_attention(probe *p)
{
    enum { TEXT = 300 };
    float *q, *k, *v, *want = host(p, 2 * 21 * 24);
    dr_tensor dq = input(p, &q, 2, 21, 1, 24), dk = input(p, &k, 1, TEXT, 1, 24);
    dr_tensor dv = input(p, &v, 1, TEXT, 1, 24);
    for (int i = 0; i < TEXT * 24 && !p->run.err.code; i++)
        k[i] *= 1 + (float)(i / 24) / 10;
    dr_upload(&p->run, dk, k);
    for (int i = 0; i < 4 && !p->run.err.code; i++) {
        bool causal = i % 2;
        p->run.unfused = i / 2;
        ref_attention(want, q, k, v,
                      &(ref_attention_args){ .n = 2,
                                             .m = 1,
                                             .tq = 21,
                                             .tk = TEXT,
                                             .c = 24,
                                             .heads = 3,
                                             .causal = causal });
        compare(p, p->run.unfused ? "attention by products" : "attention",
                op_attention(&p->run, dq, dk, dv, 3, causal), want, LIMIT);
    }
    p->run.unfused = false;
}

/* --- the other operations --- */

static void test_norms(probe *p)
{
    float *x, *w, *b, *want = host(p, 2 * 150 * 36);
    dr_tensor dx = input(p, &x, 2, 15, 10, 36);
    dr_weight_norm m = norm(p, &w, &b, 36, 4);
    if (p->run.err.code)
        return;
    ref_group_norm(want, x, w, b, 2, 150, 36, 4, m.eps, true);
    compare(p, "group_norm", op_group_norm(&p->run, dx, &m, true), want, LIMIT);
    ref_layer_norm(want, x, w, b, 300, 36, m.eps);
    compare(p, "layer_norm", op_layer_norm(&p->run, dx, &m), want, LIMIT);
}

static void test_elementwise(probe *p)
{
    static const char *const names[DR_ACTIVATIONS] = { "silu", "gelu", "quick_gelu", "relu",
                                                       "soft_clamp" };
    float *a, *b, *want = host(p, 11 * 33);
    dr_tensor da = input(p, &a, 1, 11, 1, 14), db = input(p, &b, 1, 11, 1, 19);
    if (p->run.err.code)
        return;
    for (int kind = 0; kind < DR_ACTIVATIONS; kind++) {
        ref_activate(want, a, 11 * 14, (dr_activation)kind);
        compare(p, names[kind], op_activate(&p->run, da, (dr_activation)kind), want, LIMIT);
    }
    ref_geglu(want, a, 11, 7);
    compare(p, "geglu", op_geglu(&p->run, da), want, LIMIT);
    ref_concat(want, a, 14, b, 19, 11);
    compare(p, "concat", op_concat(&p->run, da, db), want, 0);
    ref_scale(want, a, 11 * 14, 3, -0.5);
    op_scale(&p->run, da, da, 3.0f, -0.5f);
    compare(p, "scale", da, want, LIMIT);
    ref_fill(want, 11 * 19, 2.5);
    op_fill(&p->run, db, 2.5f);
    compare(p, "fill", db, want, 0);
}

static void test_embeddings(probe *p)
{
    static const int32_t ids[] = { 0, 12, 3, 14, 7, 13 };
    float *table, *positions, *extra, *want = host(p, 6 * 10);
    dr_weight_mat t = { .in = 13, .out = 10 }, s = { .in = 3, .out = 10 };
    t.w = input(p, &table, 1, 1, 13, 10);
    s.w = input(p, &positions, 1, 1, 3, 10);
    dr_tensor more = input(p, &extra, 1, 1, 2, 10);
    if (p->run.err.code)
        return;
    ref_embed_tokens(want, ids, table, 13, extra, positions, 2, 3, 10);
    compare(p, "embed_tokens", op_embed_tokens(&p->run, ids, 2, 3, &t, &s, &more), want,
            LIMIT);
    ref_embed_timestep(want, 981, 34, true, 1);
    compare(p, "embed_timestep", op_embed_timestep(&p->run, 981, 34, true, 1), want,
            LIMIT_ANGLES);
}

static void test_sampler_step(probe *p)
{
    dr_step_coef k = { .cfg = 7.5f,
                       .x = 0.9f,
                       .out = -0.3f,
                       .noise = 0.1f,
                       .hist = { 0.2f, -0.6f, 0.5f },
                       .hist_x = 1.1f,
                       .hist_out = -0.7f,
                       .hist_noise = 0.3f,
                       .denoised_x = 0.4f,
                       .denoised_out = 0.6f };
    float *x, *out, *plain, *hist[DR_STEP_HISTORY], *noise, *denoised;
    dr_tensor dx = input(p, &x, 1, 5, 7, 4), dh[DR_STEP_HISTORY];
    for (int i = 0; i < DR_STEP_HISTORY; i++)
        dh[i] = input(p, &hist[i], 1, 5, 7, 4);
    dr_tensor dz = input(p, &noise, 1, 5, 7, 4), dd = input(p, &denoised, 1, 5, 7, 4);
    dr_tensor dout = input(p, &out, 1, 5, 7, 4), du = input(p, &plain, 1, 5, 7, 4);
    if (p->run.err.code)
        return;
    for (k.slot = 0; k.slot < DR_STEP_HISTORY; k.slot++) {
        ref_sampler_step(x, out, plain, hist, noise, denoised, 140, &k);
        op_sampler_step(&p->run, dx, dout, &du, dh, DR_STEP_HISTORY, dz, dd, &k);
    }
    compare(p, "sampler_step", dx, x, LIMIT);
    for (int i = 0; i < DR_STEP_HISTORY; i++)
        compare(p, "sampler_step history", dh[i], hist[i], LIMIT);
    compare(p, "sampler_step denoised", dd, denoised, LIMIT);
}

static void test_guide(probe *p)
{
    float *text, *plain, *empty, *want = host(p, 2 * 140);
    dr_tensor dc = input(p, &text, 2, 5, 7, 4), du = input(p, &plain, 2, 5, 7, 4);
    dr_tensor de = input(p, &empty, 2, 5, 7, 4);
    if (p->run.err.code)
        return;
    ref_guide(want, text, plain, NULL, 2, 140, 7.5, 0.7);
    compare(p, "guide", op_guide(&p->run, dc, du, NULL, 7.5, 0.7), want, LIMIT);
    ref_guide(want, text, plain, empty, 2, 140, 7.5, 0);
    compare(p, "guide across", op_guide(&p->run, dc, du, &de, 7.5, 0), want, LIMIT);
}

static void test_repaint(probe *p)
{
    float *x, *mask, *picture, *noise;
    dr_tensor dx = input(p, &x, 2, 5, 7, 4), dm = input(p, &mask, 2, 5, 7, 1);
    dr_tensor dy = input(p, &picture, 2, 5, 7, 4), dz = input(p, &noise, 2, 5, 7, 4);
    if (p->run.err.code)
        return;
    ref_repaint(x, mask, picture, noise, 70, 4, 0.8, 0.6);
    op_repaint(&p->run, dx, dm, dy, dz, 0.8, 0.6);
    compare(p, "repaint", dx, x, LIMIT);
}

static void test_pictures(probe *p)
{
    uint8_t have[195], want[195];
    float *x, *m, *rgb = host(p, 65 * 3);
    dr_tensor dx = input(p, &x, 1, 13, 5, 4), dm = input(p, &m, 1, 1, 5, 3);
    if (p->run.err.code)
        return;
    ref_linear_rgb(rgb, x, m, 65, 4);
    dr_tensor y = op_linear_rgb(&p->run, dx, dm);
    compare(p, "linear_rgb", y, rgb, LIMIT);
    dr_download(&p->run, y, rgb);
    op_to_rgb8(&p->run, y, have);
    ref_to_rgb8(want, rgb, 195);
    dr_range range = op_range(&p->run, y), all = ref_range(rgb, 195);
    const char *name = dr_dev_describe(p->run.dev)->name;
    /* A fused multiply-add may round a tie the other way. */
    for (int i = 0; i < 195 && !p->run.err.code; i++)
        if (have[i] > want[i] + 1 || have[i] + 1 < want[i])
            dr_fail(&p->run.err, DR_EDEVICE, "to_rgb8 on %s gives %d instead of %d for %g",
                    name, have[i], want[i], (double)rgb[i]);
    if (!p->run.err.code &&
        (range.min < all.min || range.min > all.min || range.max < all.max ||
         range.max > all.max || range.not_finite != all.not_finite))
        dr_fail(&p->run.err, DR_EDEVICE, "range on %s gives %g..%g instead of %g..%g", name,
                (double)range.min, (double)range.max, (double)all.min, (double)all.max);
}

/* Weights of 5 outputs, 3 channels, 4 positions from each type, as nn/load.c does. */
static void test_unpack_weights(probe *p)
{
    static const char *const names[] = { "unpack_weights f32", "unpack_weights f16",
                                         "unpack_weights bf16" };
    union {
        float f[60];
        uint16_t bits[60];
    } file;
    float want[60];
    dr_mem *file_mem = NULL;
    dr_tensor y = dr_new(&p->run, 1, 1, 12, 5);
    (void)!dr_mem_new(&file_mem, p->run.dev, sizeof file, &p->run.err);
    for (int kind = 0; kind < 3 && !p->run.err.code; kind++) {
        for (int i = 0; i < 60; i++)
            if (kind == 0)
                file.f[i] = (float)i - 30.25f;
            else /* all signs, exponents away from infinity, zero and a subnormal */
                file.bits[i] = (uint16_t)(i == 0   ? 0
                                          : i == 1 ? 3
                                                   : i % 2 << 15 | 0x3a00 | i * 13);
        ref_unpack_weights(want, &file, 5, 3, 4, kind);
        if (dr_mem_write(p->run.dev, file_mem, 0, &file, sizeof file, &p->run.err))
            break;
        if (!op_unpack_weights(p->run.dev, file_mem, y.mem, y.at, 5, 3, 4, kind,
                               &p->run.err))
            compare(p, names[kind], y, want, 0);
    }
    dr_mem_free(p->run.dev, file_mem);
}

/* A convolution by packed weights of 37 outputs and `in` channels that a file holds as
 * kind, and their way back; then the same behind group norm and SiLU. Rows for two tasks.
 */
static void packed(probe *p, int64_t in, int kind)
{
    enum { OUT = 37, H = 9, W = 11, MOST = OUT * 9 * 16 };
    static const char *const names[] = { "packed f32", "packed f16", "packed bf16" };
    union {
        float f[MOST];
        uint16_t bits[MOST];
    } file;
    int64_t k = 9 * in;
    dr_weight_mat m = { .kh = 3, .kw = 3, .in = in, .out = OUT };
    dr_mem *file_mem = NULL;
    float *x, *b, *row, *residual, *w = host(p, k * OUT), *want = host(p, 2 * H * W * OUT);
    dr_tensor dx = input(p, &x, 2, H, W, in), drow = input(p, &row, 1, 1, 1, OUT);
    dr_tensor ds = input(p, &residual, 2, H, W, OUT), rows = dr_new(&p->run, 1, 1, k, OUT);
    float *factors, *offsets, *normed = host(p, 2 * H * W * in);
    dr_weight_norm n = norm(p, &factors, &offsets, in, 2);
    dr_conv_opts o = { .pad_top = 1,
                       .pad_left = 1,
                       .pad_bottom = 1,
                       .pad_right = 1,
                       .row = &drow,
                       .residual = &ds };
    m.b = input(p, &b, 1, 1, 1, OUT);
    m.layout = op_layout(p->run.dev, kind);
    m.w = dr_new(&p->run, 1, 1, 1, op_weight_floats(m.layout, k, OUT));
    m.w.w = k;
    m.w.c = OUT;
    (void)!dr_mem_new(&file_mem, p->run.dev, sizeof file, &p->run.err);
    if (p->run.err.code)
        return;
    for (int i = 0; i < OUT * k; i++)
        if (kind == 0)
            file.f[i] = (float)(i % 61) / 32.0f - 1.0f;
        else
            file.bits[i] =
                (uint16_t)(i % 2 << 15 | (kind == 1 ? 0x3000 : 0x3e00) | i % 509);
    ref_unpack_weights(w, &file, OUT, in, 9, kind);
    const ref_conv_args a = { .sources = 2,
                              .h = H,
                              .w = W,
                              .in = in,
                              .in_h = H,
                              .in_w = W,
                              .n = 2,
                              .out_h = H,
                              .out_w = W,
                              .out = OUT,
                              .rows = 1,
                              .kh = 3,
                              .kw = 3,
                              .stride = 1,
                              .pad_top = 1,
                              .pad_left = 1,
                              .in_scale = 1 };
    ref_conv2d(want, x, w, b, row, residual, &a);
    if (!dr_mem_write(p->run.dev, file_mem, 0, &file, sizeof file, &p->run.err) &&
        !op_pack_weights(p->run.dev, file_mem, m.w.mem, m.w.at, OUT, in, 9, kind,
                         &p->run.err)) {
        op_read_weight(&p->run, m.w, m.layout, rows);
        compare(p, names[kind], rows, w, 0);
        const char *way = in % 16 ? "conv2d packed" : "conv2d by Winograd";
        compare(p, way, op_conv2d(&p->run, dx, &m, &o), want, LIMIT);
        dr_tensor coef = op_group_norm_coef(&p->run, dx, &n);
        o.norm = &coef;
        ref_group_norm(normed, x, factors, offsets, 2, H * W, in, 2, n.eps, true);
        ref_conv2d(want, normed, w, b, row, residual, &a);
        compare(p, way, op_conv2d(&p->run, dx, &m, &o), want, LIMIT);
    }
    dr_mem_free(p->run.dev, file_mem);
}

static void packed_activations(probe *p)
{
    float *x, *w, *b, *wide = host(p, 11 * 128), *want = host(p, 11 * 128);
    dr_tensor dx = input(p, &x, 1, 11, 1, 14);
    dr_weight_mat m = matrix(p, &w, &b, 14, 128, 1), packed = m;
    if (p->run.err.code)
        return;
    packed.layout = DR_PACKED;
    packed.w = dr_new(&p->run, 1, 1, 14, 128);
    op_write_weight(&p->run, m.w, packed.w, packed.layout);
    ref_linear(wide, x, w, b, NULL, 11, 14, 128);
    ref_geglu(want, wide, 11, 64);
    compare(p, "linear_geglu", op_linear_geglu(&p->run, dx, &packed), want, LIMIT);
    for (int kind = 0; kind <= DR_QUICK_GELU; kind++) {
        ref_activate(want, wide, 11 * 128, (dr_activation)kind);
        compare(p, "linear_activate",
                op_linear_activate(&p->run, dx, &packed, (dr_activation)kind), want, LIMIT);
    }
}

static void test_packed(probe *p)
{
    if (!dr_packed(p->run.dev))
        return;
    packed_activations(p);
    for (int kind = 0; kind < 3 && !p->run.err.code; kind++) {
        dr_mark mark = dr_push(&p->run);
        packed(p, 6, kind);  /* unfolded */
        packed(p, 16, kind); /* by Winograd */
        dr_pop(&p->run, mark);
    }
}

/* --- LoRA --- */

/* Weights of 3 positions, 6 inputs, 20 outputs. */
static void test_lora(probe *p)
{
    float *y, *a, *b, *u, *v, *m;
    const ref_kronecker_args k = { .in1 = 2, .out1 = 5, .in2 = 3, .out2 = 4, .s = 3 };
    dr_tensor dy = input(p, &y, 3, 6, 1, 20), da = input(p, &a, 3, 6, 1, 20);
    dr_tensor db = input(p, &b, 3, 6, 1, 20), dm = input(p, &m, 1, 1, 1, 20);
    dr_tensor du = input(p, &u, 1, 2, 1, 5), dv = input(p, &v, 3, 3, 1, 4);
    if (p->run.err.code)
        return;
    ref_add_hadamard(y, a, b, 360, 0.5);
    op_add_hadamard(&p->run, dy, da, db, 0.5f);
    compare(p, "add_hadamard", dy, y, LIMIT);
    ref_add_kronecker(y, u, v, &k, -0.5);
    op_add_kronecker(&p->run, dy, du, dv, -0.5f);
    compare(p, "add_kronecker", dy, y, LIMIT);
    for (int by_input = 0; by_input < 2 && !p->run.err.code; by_input++) {
        dm.c = by_input ? 6 : 20;
        ref_add_dora(y, a, b, m, 3, 6, 20, by_input, 0.75);
        op_add_dora(&p->run, dy, da, db, dm, by_input, 0.75f);
        compare(p, "add_dora", dy, y, LIMIT);
    }
}

/* --- all of it --- */

static void (*const tests[])(probe *p) = {
    test_unpack_weights, test_elementwise, test_norms,      test_gemm,         test_conv2d,
    test_attention,      test_packed,      test_embeddings, test_sampler_step, test_guide,
    test_repaint,        test_pictures,    test_lora,
};

/* A kernel that joined the registry without a test here would never be checked. */
static void check_coverage(probe *p, const uint64_t *before)
{
    for (int i = 0; i < DR_KERNELS && !p->run.err.code; i++)
        if (dr_has_kernel(p->run.dev, (dr_kernel_id)i) &&
            dr_kernel_launches(p->run.dev, (dr_kernel_id)i) == before[i])
            dr_fail(&p->run.err, DR_EDEVICE, "the self-test leaves out kernel %s",
                    dr_kernel_name((dr_kernel_id)i));
}

dr_status dr_selftest(dr_dev *d, dr_err *err)
{
    probe p = { .mem = dr_arena_new() };
    uint64_t before[DR_KERNELS];
    if (!p.mem)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < DR_KERNELS; i++)
        before[i] = dr_kernel_launches(d, (dr_kernel_id)i);
    dr_run_init(&p.run, d, ATTENTION_TILE, CONV_TILE);
    (void)!dr_run_reserve(&p.run, RUN_BYTES, &p.run.err);
    for (size_t i = 0; i < DR_COUNT(tests) && !p.run.err.code; i++) {
        dr_mark mark = dr_push(&p.run);
        tests[i](&p);
        dr_pop(&p.run, mark);
        dr_arena_reset(p.mem);
    }
    check_coverage(&p, before);
    dr_status st = p.run.err.code;
    if (st && err) {
        *err = p.run.err;
        dr_err_wrap(err, "self-test");
    }
    dr_run_free(&p.run);
    dr_arena_free(p.mem);
    return st;
}
