/* Linear layers, convolutions and attention against their references, on random shapes:
 * odd sizes, single rows, channels that no vector divides, tiles so small that several
 * run. */
#include "kit.h"

#define CASES 40

static void test_linear(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 3), t = i % 4 ? kit_pick(k, 1, 70) : 1;
        int64_t in = kit_pick(k, 1, 90), out = kit_pick(k, 1, 70);
        bool bias = kit_pick(k, 0, 1), residual = kit_pick(k, 0, 1);
        float *x, *w, *b, *s = NULL, *want = kit_host(k, n * t * out);
        KIT_SAY(what, "linear n=%d t=%d in=%d out=%d bias=%d residual=%d", (int)n, (int)t,
                (int)in, (int)out, bias, residual);
        dr_tensor dx = kit_tensor(k, &x, n, t, 1, in), ds = { 0 };
        dr_weight_mat m = kit_matrix(k, &w, &b, in, out, 1, 1, bias);
        if (residual)
            ds = kit_tensor(k, &s, n, t, 1, out);
        ref_linear(want, x, w, b, s, n * t, in, out);
        const dr_weight_mat both[] = { m, kit_packed(k, m) };
        for (int j = 0; j < 2; j++) {
            k->run.flops = 0;
            dr_tensor y = op_linear(&k->run, dx, &both[j], residual ? &ds : NULL);
            kit_compare(k, y, want, LIMIT, what);
            assert_true(k->run.flops == 2.0 * (double)(n * t * in * out));
            if (!residual)
                continue;
            op_linear_into(&k->run, ds, dx, &both[j], &ds); /* in place */
            kit_compare(k, ds, want, LIMIT, what);
            dr_upload(&k->run, ds, s);
        }
    }
}

/* Three matrices of one input; every second time something lies between the last two. */
static void test_linear_each(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t t = kit_pick(k, 1, 90), in = kit_pick(k, 1, 90), out = kit_pick(k, 1, 70);
        bool bias = kit_pick(k, 0, 1), even = i % 2;
        float *x, *w[3], *b[3], *want = kit_host(k, t * out);
        dr_tensor dx = kit_tensor(k, &x, 1, t, 1, in), y[3];
        dr_weight_mat rows[3], packed[3];
        for (int j = 0; j < 3; j++)
            rows[j] = kit_matrix(k, &w[j], &b[j], in, out, 1, 1, bias);
        for (int j = 0; j < 3; j++) {
            packed[j] = kit_packed(k, rows[j]);
            if (j == 1 && !even)
                dr_new(&k->run, 1, 1, 1, 1);
        }
        uint64_t before = dr_launches(k->dev);
        op_linear_each(&k->run, dx, packed, 3, y);
        if (dr_packed(k->dev))
            assert_int_equal(dr_launches(k->dev) - before, even ? 1 : 3);
        for (int kind = 0; kind < 2; kind++) {
            for (int j = 0; j < 3; j++) {
                KIT_SAY(what, "matrix %d of 3, t=%d in=%d out=%d bias=%d even=%d packed=%d",
                        j, (int)t, (int)in, (int)out, bias, even, !kind);
                ref_linear(want, x, w[j], b[j], NULL, t, in, out);
                kit_compare(k, y[j], want, LIMIT, what);
            }
            op_linear_each(&k->run, dx, rows, 3, y);
        }
    }
}

static void test_linear_geglu(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t t = kit_pick(k, 1, 200), in = kit_pick(k, 1, 90);
        int64_t out = i % 2 ? 64 * kit_pick(k, 1, 4) : 2 * kit_pick(k, 1, 70);
        float *x, *w, *b, *wide = kit_host(k, t * out), *want = kit_host(k, t * out / 2);
        KIT_SAY(what, "linear_geglu t=%d in=%d out=%d", (int)t, (int)in, (int)out);
        dr_tensor dx = kit_tensor(k, &x, 1, t, 1, in);
        dr_weight_mat m = kit_matrix(k, &w, &b, in, out, 1, 1, i % 3);
        ref_linear(wide, x, w, b, NULL, t, in, out);
        ref_geglu(want, wide, t, out / 2);
        const dr_weight_mat both[] = { m, kit_packed(k, m) };
        for (int j = 0; j < 2; j++)
            kit_compare(k, op_linear_geglu(&k->run, dx, &both[j]), want, LIMIT, what);
    }
}

/* One convolution with what it needs, made from the counter. */
typedef struct {
    dr_tensor x, row, residual;
    float *hx, *hw, *hb, *hrow, *hresidual, *want;
    dr_weight_mat m;
    dr_conv_opts o;
    ref_conv_args a;
} conv_case;

static void conv_run(kit *k, conv_case *c, const char *kind)
{
    ref_conv_args *a = &c->a;
    KIT_SAY(what,
            "conv2d %s: [%d, %d, %d, %d] to [%d, %d, %d, %d], window %d, stride %d, "
            "enlarged to %d x %d",
            kind, (int)a->sources, (int)a->h, (int)a->w, (int)a->in, (int)a->n,
            (int)a->out_h, (int)a->out_w, (int)a->out, (int)a->kh, (int)a->stride,
            (int)a->in_h, (int)a->in_w);
    const dr_weight_mat both[] = { c->m, kit_packed(k, c->m) };
    for (int i = 0; i < 2; i++) {
        dr_tensor y = op_conv2d(&k->run, c->x, &both[i], &c->o);
        kit_ok(k);
        assert_true(y.n == a->n && y.h == a->out_h && y.w == a->out_w && y.c == a->out);
        kit_compare(k, y, c->want, LIMIT, what);
        if (!c->o.residual)
            continue;
        op_conv2d_into(&k->run, c->residual, c->x, &both[i], &c->o);
        kit_compare(k, c->residual, c->want, LIMIT, what);
        dr_upload(&k->run, c->residual, c->hresidual);
    }
}

static void test_linear_activate(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t t = kit_pick(k, 1, 90), in = kit_pick(k, 1, 90), out = kit_pick(k, 1, 70);
        dr_activation kind = (dr_activation)(i % DR_ACTIVATIONS);
        float *x, *w, *b, *want = kit_host(k, t * out);
        KIT_SAY(what, "linear_activate %d t=%d in=%d out=%d", (int)kind, (int)t, (int)in,
                (int)out);
        dr_tensor dx = kit_tensor(k, &x, 1, t, 1, in);
        dr_weight_mat m = kit_matrix(k, &w, &b, in, out, 1, 1, i % 3);
        ref_linear(want, x, w, b, NULL, t, in, out);
        ref_activate(want, want, t * out, kind);
        const dr_weight_mat both[] = { m, kit_packed(k, m) };
        for (int j = 0; j < 2; j++)
            kit_compare(k, op_linear_activate(&k->run, dx, &both[j], kind), want, LIMIT,
                        what);
    }
}

/* As many as Winograd's way takes, or any number. */
static int64_t channels(kit *k)
{
    return kit_pick(k, 0, 1) ? 16 * kit_pick(k, 1, 3) : kit_pick(k, 1, 19);
}

/* Fill in c from its options: input, weights, what is added, the reference's answer. */
static void conv_make(kit *k, conv_case *c, int64_t n, int64_t h, int64_t w, int64_t in,
                      int64_t out, int window, bool row, bool residual)
{
    dr_conv_opts *o = &c->o;
    int64_t stride = o->stride ? o->stride : 1;
    c->a = (ref_conv_args){ .sources = n,
                            .h = h,
                            .w = w,
                            .in = in,
                            .in_h = o->up_h ? o->up_h : h,
                            .in_w = o->up_w ? o->up_w : w,
                            .n = o->batch ? o->batch : n,
                            .out = out,
                            .rows = 1,
                            .kh = window,
                            .kw = window,
                            .stride = stride,
                            .pad_top = o->pad_top,
                            .pad_left = o->pad_left,
                            .wrap = k->run.wrap,
                            .in_scale = o->in_scale != 0.0f ? (double)o->in_scale : 1.0 };
    ref_conv_args *a = &c->a;
    a->out_h = (a->in_h + o->pad_top + o->pad_bottom - window) / stride + 1;
    a->out_w = (a->in_w + o->pad_left + o->pad_right - window) / stride + 1;
    c->want = kit_host(k, a->n * a->out_h * a->out_w * out);
    c->x = kit_tensor(k, &c->hx, n, h, w, in);
    c->m = kit_matrix(k, &c->hw, &c->hb, in, out, window, window, kit_pick(k, 0, 3));
    if (row) {
        a->rows = kit_pick(k, 1, 2);
        c->row = kit_tensor(k, &c->hrow, a->rows, 1, 1, out);
        o->row = &c->row;
    }
    if (residual) {
        c->residual = kit_tensor(k, &c->hresidual, a->n, a->out_h, a->out_w, out);
        o->residual = &c->residual;
    }
    ref_conv2d(c->want, c->hx, c->hw, c->hb, c->hrow, c->hresidual, a);
}

#define SAME .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1

static void test_conv_same(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        conv_case c = { .o = { SAME } };
        int64_t n = kit_pick(k, 1, 2);
        /* Tiles have at least 64 pixels: several of them in most cases. */
        k->run.conv_tile_bytes = 1;
        if (kit_pick(k, 0, 1))
            c.o.batch = 2 * n; /* guidance's halves read the same latents */
        if (kit_pick(k, 0, 1))
            c.o.in_scale = 0.25f;
        conv_make(k, &c, n, kit_pick(k, 1, 17), kit_pick(k, 1, 17), channels(k),
                  kit_pick(k, 1, 19), 3, kit_pick(k, 0, 1), kit_pick(k, 0, 1));
        conv_run(k, &c, "same");
    }
}

/* Behind group norm and SiLU, whose zeros around the picture stay zeros. */
static void test_conv_norm(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        conv_case c = { .o = { SAME } };
        float *w, *b;
        int64_t n = kit_pick(k, 1, 2), h = kit_pick(k, 2, 17), in = 2 * channels(k);
        k->run.conv_tile_bytes = 1;
        conv_make(k, &c, n, h, kit_pick(k, 1, 17), in, kit_pick(k, 1, 40), i % 4 ? 3 : 1,
                  false, kit_pick(k, 0, 1));
        dr_weight_norm norm = kit_norm(k, &w, &b, in, 2);
        dr_tensor coef = op_group_norm_coef(&k->run, c.x, &norm);
        float *normed = kit_host(k, dr_count(c.x));
        ref_group_norm(normed, c.hx, w, b, n, c.a.h * c.a.w, in, 2, norm.eps, true);
        ref_conv2d(c.want, normed, c.hw, c.hb, c.hrow, c.hresidual, &c.a);
        c.o.norm = &coef;
        conv_run(k, &c, "behind a norm");
    }
}

/* Seamless pictures: every kind of window that the models have, over the edges. */
static void test_conv_wrapped(void **state)
{
    static const dr_conv_opts windows[] = {
        { SAME },
        { SAME, .stride = 2 },
        { .stride = 2, .pad_bottom = 1, .pad_right = 1 },
    };
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t h = kit_pick(k, 1, 9) * 2, w = kit_pick(k, 1, 9) * 2;
        conv_case c = { .o = windows[i % 3] };
        if (i % 3 == 0 && kit_pick(k, 0, 1)) {
            c.o.up_h = 2 * h;
            c.o.up_w = 2 * w;
        }
        k->run.wrap = true;
        k->run.conv_tile_bytes = 1;
        conv_make(k, &c, kit_pick(k, 1, 2), h, w, channels(k), kit_pick(k, 1, 12), 3, false,
                  kit_pick(k, 0, 1));
        conv_run(k, &c, "wrapped");
        k->run.wrap = false;
    }
}

static void test_conv_stride(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        /* The UNet pads all round; the autoencoder's encoder only after the last row. */
        conv_case c = { .o = { .stride = 2, .pad_bottom = 1, .pad_right = 1 } };
        c.o.pad_top = c.o.pad_left = i % 2;
        k->run.conv_tile_bytes = 1;
        conv_make(k, &c, kit_pick(k, 1, 2), kit_pick(k, 2, 25), kit_pick(k, 2, 25),
                  kit_pick(k, 1, 12), kit_pick(k, 1, 12), 3, false, false);
        conv_run(k, &c, "stride");
    }
}

static void test_conv_enlarged(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t h = kit_pick(k, 1, 9), w = kit_pick(k, 1, 9);
        /* Twice the size or one less: what an odd skip asks for. */
        conv_case c = { .o = { SAME, .up_h = 2 * h - kit_pick(k, 0, 1), .up_w = 2 * w } };
        k->run.conv_tile_bytes = 1;
        conv_make(k, &c, kit_pick(k, 1, 2), h, w, channels(k), kit_pick(k, 1, 12), 3, false,
                  kit_pick(k, 0, 1));
        conv_run(k, &c, "enlarged");
    }
}

static void test_conv_one(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        conv_case c = { 0 };
        int64_t n = kit_pick(k, 1, 2);
        if (i % 4 == 0) /* unfolded after all */
            c.o.stride = 2;
        if (i % 4 == 1)
            c.o.in_scale = 3.0f;
        if (i % 4 == 2)
            c.o.batch = 2 * n;
        conv_make(k, &c, n, kit_pick(k, 1, 9), kit_pick(k, 1, 9), kit_pick(k, 1, 30),
                  kit_pick(k, 1, 30), 1, kit_pick(k, 0, 1), kit_pick(k, 0, 1));
        conv_run(k, &c, "1x1");
    }
}

static void attention_run(kit *k, ref_attention_args a, size_t tile_bytes)
{
    float *q, *h, *v, *want = kit_host(k, a.n * a.tq * a.c);
    KIT_SAY(what, "attention n=%d m=%d tq=%d tk=%d c=%d heads=%d causal=%d", (int)a.n,
            (int)a.m, (int)a.tq, (int)a.tk, (int)a.c, (int)a.heads, a.causal);
    k->run.attention_tile_bytes = tile_bytes;
    dr_tensor dq = kit_tensor(k, &q, a.n, a.tq, 1, a.c);
    dr_tensor dk = kit_tensor(k, &h, a.m, a.tk, 1, a.c);
    dr_tensor dv = kit_tensor(k, &v, a.m, a.tk, 1, a.c);
    ref_attention(want, q, h, v, &a);
    dr_tensor y = a.rows ? op_cross_attention(&k->run, dq, dk, dv, a.heads, a.rows)
                         : op_attention(&k->run, dq, dk, dv, a.heads, a.causal);
    kit_compare(k, y, want, LIMIT, what);
}

static void test_attention(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t heads = kit_pick(k, 1, 4), m = kit_pick(k, 1, 2);
        ref_attention_args a = { .n = m * kit_pick(k, 1, 3),
                                 .m = m,
                                 .tq = kit_pick(k, 1, 40),
                                 .tk = kit_pick(k, 1, 40),
                                 .heads = heads,
                                 .c = heads * kit_pick(k, 1, 20) };
        attention_run(k, a, i % 2 ? 1 : (size_t)kit_pick(k, 1, 20000));
    }
}

/* Images that choose their texts: shared, out of order, some unread. */
static void test_cross_attention(void **state)
{
    static const int rows[] = { 2, 0, 2, 3, 0 };
    kit *k = *state;
    for (int n = 1; n <= (int)DR_COUNT(rows); n++) {
        kit_begin(k);
        attention_run(k,
                      (ref_attention_args){ .n = n,
                                            .m = 4,
                                            .tq = kit_pick(k, 1, 40),
                                            .tk = 7,
                                            .heads = 3,
                                            .c = 24,
                                            .rows = rows },
                      (size_t)kit_pick(k, 1, 20000));
    }
}

/* The text encoder's: as many queries as keys, each sees none after itself. */
static void test_attention_causal(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t t = i ? kit_pick(k, 1, 40) : 77, n = kit_pick(k, 1, 2);
        attention_run(k,
                      (ref_attention_args){ .n = n,
                                            .m = n,
                                            .tq = t,
                                            .tk = t,
                                            .heads = 2,
                                            .c = 2 * kit_pick(k, 1, 20),
                                            .causal = true },
                      (size_t)kit_pick(k, 1, 8000));
    }
}

/* Scores of several hundred must not overflow exp. */
static void test_attention_large_scores(void **state)
{
    kit *k = *state;
    kit_begin(k);
    float *q, *v, *want = kit_host(k, 9 * 8);
    dr_tensor dq = kit_noise(k, &q, 0.0f, 30.0f, 1, 9, 1, 8);
    dr_tensor dv = kit_tensor(k, &v, 1, 9, 1, 8);
    ref_attention(
        want, q, q, v,
        &(ref_attention_args){ .n = 1, .m = 1, .tq = 9, .tk = 9, .c = 8, .heads = 1 });
    /* A score near 1000 is a float with steps of 6e-5, which exp passes on. */
    kit_compare(k, op_attention(&k->run, dq, dq, dv, 1, false), want, 1e-4, "large scores");
}

/* Maxima that keep growing, for some queries more than for others: what was summed before
 * must follow them. */
static void test_attention_growing_scores(void **state)
{
    enum { QUERIES = 70, KEYS = 500, C = 40 };
    kit *k = *state;
    kit_begin(k);
    float *q, *keys, *v, *want = kit_host(k, QUERIES * C);
    dr_tensor dq = kit_tensor(k, &q, 1, QUERIES, 1, C);
    dr_tensor dk = kit_tensor(k, &keys, 1, KEYS, 1, C);
    dr_tensor dv = kit_tensor(k, &v, 1, KEYS, 1, C);
    for (int i = 0; i < KEYS * C; i++)
        keys[i] *= 1 + (float)(i / C) / 10;
    dr_upload(&k->run, dk, keys);
    ref_attention(want, q, keys, v,
                  &(ref_attention_args){
                      .n = 1, .m = 1, .tq = QUERIES, .tk = KEYS, .c = C, .heads = 1 });
    kit_compare(k, op_attention(&k->run, dq, dk, dv, 1, false), want, 1e-4,
                "growing scores");
}

/* CLBlast's second kernel takes over above some size; attention's batches have their own;
 * packed products have several tasks each way. */
static void test_large(void **state)
{
    kit *k = *state;
    kit_begin(k);
    float *x, *w, *b, *want = kit_host(k, 700 * 513);
    dr_tensor dx = kit_tensor(k, &x, 1, 700, 1, 611);
    dr_weight_mat m = kit_matrix(k, &w, &b, 611, 513, 1, 1, true);
    ref_linear(want, x, w, b, NULL, 700, 611, 513);
    kit_compare(k, op_linear(&k->run, dx, &m, NULL), want, LIMIT, "linear 700x611x513");
    m = kit_packed(k, m);
    kit_compare(k, op_linear(&k->run, dx, &m, NULL), want, LIMIT, "linear 700x611x513");
    kit_begin(k);
    conv_case c = { .o = { SAME } };
    conv_make(k, &c, 2, 33, 50, 150, 70, 3, true, true);
    conv_run(k, &c, "large");
    kit_begin(k);
    attention_run(
        k,
        (ref_attention_args){ .n = 2, .m = 1, .tq = 300, .tk = 290, .c = 160, .heads = 2 },
        (size_t)1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_each),
        cmocka_unit_test(test_linear_geglu),
        cmocka_unit_test(test_linear_activate),
        cmocka_unit_test(test_conv_same),
        cmocka_unit_test(test_conv_norm),
        cmocka_unit_test(test_conv_wrapped),
        cmocka_unit_test(test_conv_stride),
        cmocka_unit_test(test_conv_enlarged),
        cmocka_unit_test(test_conv_one),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_cross_attention),
        cmocka_unit_test(test_attention_causal),
        cmocka_unit_test(test_attention_large_scores),
        cmocka_unit_test(test_attention_growing_scores),
        cmocka_unit_test(test_large),
    };
    int failed = cmocka_run_group_tests_name("products", tests, kit_setup, kit_teardown);
    return failed + cmocka_run_group_tests_name("products with the work-groups of GPUs",
                                                tests, kit_setup_wide, kit_teardown);
}
