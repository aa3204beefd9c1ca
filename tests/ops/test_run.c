/* The run itself: dry runs know what real runs need, errors stick, memory that is too small
 * is refused; and what the operations say about shapes that do not fit. */
#include "kit.h"

static const dr_conv_opts same = {
    .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
};

/* Something like a model's block: scratch inside scratch, tiles, attention. */
static dr_tensor block(dr_run *r, dr_tensor x, const dr_weight_mat *conv,
                       const dr_weight_mat *linear, const dr_weight_norm *norm)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c);
    dr_mark mark = dr_push(r);
    dr_tensor h = op_group_norm(r, x, norm, true);
    h = op_conv2d(r, h, conv, &same);
    h = op_attention(r, h, h, h, 2, false);
    op_linear_into(r, y, h, linear, &x);
    dr_pop(r, mark);
    return y;
}

/* Weights live in a run of their own, as a model's do in its pool. */
typedef struct {
    dr_run run;
    dr_weight_mat conv, linear;
    dr_weight_norm norm;
} weights;

static void weights_make(kit *k, weights *w)
{
    float *p, *q;
    dr_run_init(&w->run, k->dev, 1, 1);
    assert_int_equal(dr_run_reserve(&w->run, (size_t)1 << 20, NULL), DR_OK);
    dr_run keep = k->run;
    k->run = w->run;
    w->conv = kit_matrix(k, &p, &q, 12, 12, 3, 3, true);
    w->linear = kit_matrix(k, &p, &q, 12, 12, 1, 1, true);
    w->norm = kit_norm(k, &p, &q, 12, 3);
    w->run = k->run;
    k->run = keep;
}

static void test_dry_run_counts_what_a_real_run_needs(void **state)
{
    kit *k = *state;
    kit_begin(k);
    weights w;
    weights_make(k, &w);
    dr_run r;
    dr_run_init(&r, k->dev, 2000, 5000);
    dr_run_reset(&r, true);
    uint64_t launches = dr_launches(k->dev);
    block(&r, dr_new(&r, 2, 11, 9, 12), &w.conv, &w.linear, &w.norm);
    assert_int_equal(r.err.code, DR_OK);
    assert_true(dr_launches(k->dev) == launches);
    size_t peak = r.peak_bytes;
    double flops = r.flops;
    double tokens = 2 * 99, conv = 2 * tokens * 108 * 12, linear = 2 * tokens * 12 * 12;
    assert_true(flops == conv + linear + 2 * 2 * tokens * 99 * 12);

    dr_run_reset(&r, false);
    assert_int_equal(dr_run_reserve(&r, peak, NULL), DR_OK);
    dr_tensor x = dr_new(&r, 2, 11, 9, 12);
    op_fill(&r, x, 0.5f);
    dr_tensor y = block(&r, x, &w.conv, &w.linear, &w.norm);
    assert_int_equal(r.err.code, DR_OK);
    dr_range range = op_range(&r, y);
    assert_int_equal(r.err.code, DR_OK);
    assert_int_equal(range.not_finite, 0);
    assert_true(range.min < range.max);
    assert_int_equal(r.peak_bytes, peak);
    assert_true(r.flops == flops);
    dr_run_free(&r);
    dr_run_free(&w.run);
}

static void test_too_little_memory(void **state)
{
    kit *k = *state;
    kit_begin(k);
    weights w;
    weights_make(k, &w);
    dr_run r;
    dr_run_init(&r, k->dev, 2000, 5000);
    dr_run_reset(&r, true);
    block(&r, dr_new(&r, 2, 11, 9, 12), &w.conv, &w.linear, &w.norm);
    size_t peak = r.peak_bytes;
    dr_run_reset(&r, false);
    assert_int_equal(dr_run_reserve(&r, peak - 256, NULL), DR_OK);
    block(&r, dr_new(&r, 2, 11, 9, 12), &w.conv, &w.linear, &w.norm);
    assert_int_equal(r.err.code, DR_ENOMEM);
    /* Once there is enough, the same run goes on. */
    dr_run_reset(&r, false);
    assert_int_equal(dr_run_reserve(&r, peak, NULL), DR_OK);
    block(&r, dr_new(&r, 2, 11, 9, 12), &w.conv, &w.linear, &w.norm);
    assert_int_equal(r.err.code, DR_OK);
    dr_run_free(&r);
    dr_run_free(&w.run);
}

static void test_without_a_device(void **state)
{
    (void)state;
    dr_run r;
    dr_weight_mat m = { .kh = 3, .kw = 3, .in = 320, .out = 320 };
    dr_weight_norm n = { .groups = 32, .eps = 1e-5f };
    m.w = (dr_tensor){ .n = 1, .h = 1, .w = 2880, .c = 320 };
    m.b = n.w = n.b = (dr_tensor){ .n = 1, .h = 1, .w = 1, .c = 320 };
    dr_run_init(&r, NULL, (size_t)1 << 20, (size_t)1 << 20);
    dr_run_reset(&r, true);
    dr_tensor x = dr_new(&r, 2, 64, 64, 320);
    x = op_conv2d(&r, op_group_norm(&r, x, &n, true), &m, &same);
    op_attention(&r, op_layer_norm(&r, x, &n), x, x, 8, false);
    assert_int_equal(r.err.code, DR_OK);
    size_t one = 2 * 4096 * 320 * sizeof(float);
    assert_true(r.peak_bytes > 5 * one && r.peak_bytes < 6 * one);
    dr_run_free(&r);
}

static void test_a_tensor_too_large(void **state)
{
    kit *k = *state;
    kit_begin(k);
    dr_new(&k->run, 1 << 20, 1 << 20, 1 << 20, 4);
    assert_int_equal(k->run.err.code, DR_ENOMEM);
    kit_begin(k);
    dr_new(&k->run, 1, 1, 1, RUN_BYTES / sizeof(float) + 1);
    assert_int_equal(k->run.err.code, DR_ENOMEM);
    kit_begin(k);
    dr_new(&k->run, 1, 0, 1, 4);
    assert_int_equal(k->run.err.code, DR_ESHAPE);
}

static void test_push_and_pop(void **state)
{
    kit *k = *state;
    kit_begin(k);
    dr_new(&k->run, 1, 1, 1, 100);
    dr_mark mark = dr_push(&k->run);
    dr_tensor a = dr_new(&k->run, 1, 1, 1, 1000);
    dr_pop(&k->run, mark);
    dr_tensor b = dr_new(&k->run, 1, 1, 1, 10);
    assert_true(a.mem == b.mem && a.at == b.at);
    dr_tensor c = dr_new(&k->run, 1, 1, 1, 10);
    assert_true(c.at >= b.at + 10);
    assert_int_equal(k->run.peak_bytes, 512 + 4096);
    dr_tensor s = dr_slice((dr_tensor){ .at = 7, .n = 5, .h = 2, .w = 3, .c = 4 }, 2, 2);
    assert_int_equal(s.at, 7 + 48);
    assert_int_equal(dr_count(s), 48);
}

/* --- errors --- */

static void expect_shape_error(kit *k, const char *word)
{
    uint64_t launches = dr_launches(k->dev);
    assert_int_equal(k->run.err.code, DR_ESHAPE);
    assert_non_null(strstr(k->run.err.message, word));
    /* Whatever follows does nothing and keeps the first message. */
    char first[sizeof k->run.err.message];
    memcpy(first, k->run.err.message, sizeof first);
    float left[4] = { 1, 2, 3, 4 };
    dr_tensor x = dr_new(&k->run, 1, 1, 1, 4);
    op_fill(&k->run, x, 1.0f);
    op_scale(&k->run, x, x, 1.0f, 1.0f);
    op_attention(&k->run, x, x, x, 3, false);
    dr_download(&k->run, x, left);
    assert_true(left[0] == 0.0f && left[3] == 0.0f);
    assert_string_equal(k->run.err.message, first);
    assert_true(dr_launches(k->dev) == launches);
    kit_begin(k);
}

static void test_shapes_are_checked(void **state)
{
    kit *k = *state;
    kit_begin(k);
    float *p, *q;
    weights w;
    weights_make(k, &w);
    const dr_weight_mat *conv = &w.conv, *linear = &w.linear;
#define X(n, h, w, c) kit_tensor(k, &p, n, h, w, c)
    op_linear(&k->run, X(1, 5, 1, 11), linear, NULL);
    expect_shape_error(k, "linear");
    op_linear(&k->run, X(1, 5, 1, 12), conv, NULL);
    expect_shape_error(k, "linear");
    dr_tensor r = X(1, 4, 1, 12);
    op_linear(&k->run, X(1, 5, 1, 12), linear, &r);
    expect_shape_error(k, "residual");
    op_conv2d(&k->run, X(1, 5, 5, 13), conv, &same);
    expect_shape_error(k, "conv2d");
    op_conv2d(&k->run, X(1, 2, 2, 12), conv, &(dr_conv_opts){ 0 });
    expect_shape_error(k, "conv2d");
    r = X(1, 5, 4, 12);
    dr_conv_opts o = same;
    o.residual = &r;
    op_conv2d(&k->run, X(1, 5, 5, 12), conv, &o);
    expect_shape_error(k, "residual");
    r = X(1, 1, 1, 13);
    o = same;
    o.row = &r;
    op_conv2d(&k->run, X(1, 5, 5, 12), conv, &o);
    expect_shape_error(k, "row");
    dr_weight_norm n = kit_norm(k, &p, &q, 12, 5);
    op_group_norm(&k->run, X(1, 5, 5, 12), &n, false);
    expect_shape_error(k, "group_norm");
    op_layer_norm(&k->run, X(1, 5, 5, 11), &w.norm);
    expect_shape_error(k, "layer_norm");
    r = X(2, 5, 1, 12);
    op_attention(&k->run, X(3, 5, 1, 12), r, r, 2, false);
    expect_shape_error(k, "attention");
    r = X(1, 5, 1, 12);
    op_attention(&k->run, X(1, 5, 1, 12), r, r, 5, false);
    expect_shape_error(k, "attention");
    r = X(1, 5, 1, 11);
    op_geglu(&k->run, r);
    expect_shape_error(k, "geglu");
    r = X(1, 4, 5, 3);
    op_concat(&k->run, X(1, 5, 4, 3), r);
    expect_shape_error(k, "concat");
    r = X(3, 4, 5, 3);
    dr_tensor x = X(2, 4, 5, 3);
    op_sampler_step(&k->run, x, r, NULL, NULL, 0, x, x, &(dr_step_coef){ .slot = -1 });
    expect_shape_error(k, "sampler_step");
    op_sampler_step(&k->run, x, x, &r, NULL, 0, x, x, &(dr_step_coef){ .slot = -1 });
    expect_shape_error(k, "sampler_step");
    op_guide(&k->run, x, r, NULL, 2, 0);
    expect_shape_error(k, "guide");
    op_guide(&k->run, x, x, &r, 2, 0);
    expect_shape_error(k, "guide");
    op_repaint(&k->run, x, X(2, 4, 5, 1), x, r, 1, 1);
    expect_shape_error(k, "repaint");
    op_repaint(&k->run, x, X(2, 4, 5, 1), r, x, 1, 1);
    expect_shape_error(k, "repaint");
    op_repaint(&k->run, x, X(1, 4, 5, 1), x, x, 1, 1);
    expect_shape_error(k, "repaint");
    op_repaint(&k->run, x, X(2, 4, 5, 3), x, x, 1, 1);
    expect_shape_error(k, "repaint");
    r = X(1, 1, 5, 3);
    op_linear_rgb(&k->run, X(1, 4, 5, 3), r);
    expect_shape_error(k, "linear_rgb");
    op_embed_timestep(&k->run, 1, 9, false, 0);
    expect_shape_error(k, "embed_timestep");
#undef X
    dr_run_free(&w.run);
}

static void test_tokens_are_checked(void **state)
{
    kit *k = *state;
    kit_begin(k);
    float *p;
    dr_weight_mat t = { 0 };
    t.w = kit_tensor(k, &p, 1, 1, 4, 3);
    op_embed_tokens(&k->run, (const int32_t[]){ 0, 4 }, 1, 2, &t, &t, NULL);
    assert_int_equal(k->run.err.code, DR_EMODEL);
    assert_non_null(strstr(k->run.err.message, "4"));
    kit_begin(k);
    op_embed_tokens(&k->run, (const int32_t[]){ 0, -1 }, 1, 2, &t, &t, NULL);
    assert_int_equal(k->run.err.code, DR_EMODEL);
    kit_begin(k);
    op_embed_tokens(&k->run, (const int32_t[]){ 0, 0, 0, 0, 0 }, 1, 5, &t, &t, NULL);
    assert_int_equal(k->run.err.code, DR_ESHAPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dry_run_counts_what_a_real_run_needs),
        cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_without_a_device),
        cmocka_unit_test(test_a_tensor_too_large),
        cmocka_unit_test(test_push_and_pop),
        cmocka_unit_test(test_shapes_are_checked),
        cmocka_unit_test(test_tokens_are_checked),
    };
    return cmocka_run_group_tests_name("run", tests, kit_setup, kit_teardown);
}
