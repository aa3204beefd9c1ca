/* Everything but products against its reference, twice: with the kernels that the device
 * gets and with the work-groups of a GPU. */
#include "kit.h"

#include <math.h>

#define CASES 30

/* Channels that no vector width divides are as likely as those that all divide. */
static int64_t channels(kit *k)
{
    return kit_pick(k, 0, 1) ? 8 * kit_pick(k, 1, 40) : kit_pick(k, 1, 300);
}

/* --- norms and softmax --- */

static void group_norm_run(kit *k, int64_t n, int64_t h, int64_t w, int64_t groups,
                           int64_t per, float mean, float std, double limit)
{
    float *x, *hw, *hb, *want;
    int64_t c = groups * per;
    KIT_SAY(what, "group_norm [%d, %d, %d, %d], %d groups, mean %g, std %g", (int)n, (int)h,
            (int)w, (int)c, (int)groups, (double)mean, (double)std);
    dr_tensor dx = kit_noise(k, &x, mean, std, n, h, w, c);
    dr_weight_norm m = kit_norm(k, &hw, &hb, c, groups);
    want = kit_host(k, n * h * w * c);
    for (int silu = 0; silu < 2; silu++) {
        ref_group_norm(want, x, hw, hb, n, h * w, c, groups, m.eps, silu);
        kit_compare(k, op_group_norm(&k->run, dx, &m, silu), want, limit, what);
    }
}

static void test_group_norm(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t w = kit_pick(k, 1, 20), h = i % 5 ? kit_pick(k, 1, 20) : 1;
        group_norm_run(k, kit_pick(k, 1, 3), h, w, kit_pick(k, 1, 9), kit_pick(k, 1, 9),
                       1.0f, 2.0f, LIMIT);
    }
    /* As wide and as many positions as a slab, and one more or less. */
    static const int64_t positions[] = { 63, 64, 65, 128, 129 };
    for (size_t i = 0; i < DR_COUNT(positions); i++) {
        kit_begin(k);
        group_norm_run(k, 1, positions[i], 1, 32, 10, 0.0f, 1.0f, LIMIT);
    }
    kit_begin(k);
    group_norm_run(k, 2, 96, 97, 2, 64, 0.5f, 1.0f, LIMIT); /* 600 000 values a group */
}

/* A mean a thousand times the deviation: squares summed without taking the mean off first
 * would lose all of the variance. What is left is the rounding of the mean itself, whose
 * neighbours as floats lie 6e-5 apart. */
static void test_group_norm_large_mean(void **state)
{
    kit *k = *state;
    kit_begin(k);
    group_norm_run(k, 1, 64, 65, 2, 5, 1000.0f, 1.0f, 1e-4);
    kit_begin(k);
    group_norm_run(k, 2, 30, 31, 4, 16, -3000.0f, 1.0f, 3e-4);
    kit_begin(k); /* a constant group: y = b */
    group_norm_run(k, 1, 9, 9, 4, 4, 7.0f, 0.0f, LIMIT);
}

static void test_layer_norm(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 3), t = kit_pick(k, 1, 20);
        /* One channel normalises to 0: only rounding would be left to compare. */
        int64_t c = channels(k) + 1;
        float mean = i % 3 ? 0.5f : 100.0f, *x, *w, *b, *want = kit_host(k, n * t * c);
        KIT_SAY(what, "layer_norm [%d, %d], mean %g", (int)(n * t), (int)c, (double)mean);
        dr_tensor dx = kit_noise(k, &x, mean, 1.0f, n, t, 1, c);
        dr_weight_norm m = kit_norm(k, &w, &b, c, 0);
        ref_layer_norm(want, x, w, b, n * t, c, m.eps);
        /* The rounding of a mean of 100 shows, see above. */
        double limit = mean > 1.0f ? 1e-4 : LIMIT;
        kit_compare(k, op_layer_norm(&k->run, dx, &m), want, limit, what);
        op_layer_norm_into(&k->run, dx, dx, &m);
        kit_compare(k, dx, want, limit, what);
    }
}

static void test_softmax(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t queries = kit_pick(k, 1, 20), rows = queries * kit_pick(k, 1, 3);
        int64_t cols = i % 3 ? channels(k) : kit_pick(k, 1000, 5000);
        int64_t first = kit_pick(k, 0, 50);
        bool causal = i % 2;
        float *x;
        KIT_SAY(what, "softmax [%d, %d], %d queries from %d, causal=%d", (int)rows,
                (int)cols, (int)queries, (int)first, causal);
        dr_tensor dx = kit_noise(k, &x, 50.0f, 4.0f, 1, rows, 1, cols);
        size_t wg = (size_t)dr_row_group(k->dev);
        dr_arg args[] = { DR_MEM(dx.mem),   DR_LONG(dx.at), DR_LONG(cols),
                          DR_LONG(queries), DR_LONG(first), DR_INT(causal) };
        dr_grid grid = { .dims = 1, .global = { (size_t)rows * wg }, .local = { wg } };
        assert_int_equal(dr_launch(k->dev, DR_K_softmax, args, DR_COUNT(args), &grid, NULL),
                         DR_OK);
        ref_softmax(x, rows, cols, queries, first, causal);
        kit_compare(k, dx, x, LIMIT, what);
    }
}

/* --- element by element --- */

static void test_activate(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 3), t = kit_pick(k, 1, 9), c = channels(k);
        dr_activation kind = (dr_activation)(i % DR_ACTIVATIONS);
        float *x, *want = kit_host(k, n * t * c);
        KIT_SAY(what, "activation %d of [%d, %d, %d]", (int)kind, (int)n, (int)t, (int)c);
        dr_tensor dx = kit_noise(k, &x, 0.0f, 5.0f, n, t, 1, c);
        ref_activate(want, x, n * t * c, kind);
        kit_compare(k, op_activate(&k->run, dx, kind), want, LIMIT, what);
    }
}

/* Far from zero the functions are 0 or x, without NaN on the way. */
static void test_activate_far(void **state)
{
    kit *k = *state;
    kit_begin(k);
    const float x[] = { -1e4f, -200.0f, -88.0f, -0.0f, 88.0f, 200.0f, 1e4f, 3e38f, -3e38f };
    const int64_t n = (int64_t)DR_COUNT(x);
    float want[DR_COUNT(x)], have[DR_COUNT(x)];
    dr_tensor dx = dr_new(&k->run, 1, 1, 1, n);
    dr_upload(&k->run, dx, x);
    for (int kind = 0; kind < DR_ACTIVATIONS; kind++) {
        ref_activate(want, x, n, (dr_activation)kind);
        dr_download(&k->run, op_activate(&k->run, dx, (dr_activation)kind), have);
        kit_ok(k);
        for (int i = 0; i < n; i++)
            if (!(fabsf(have[i] - want[i]) <= 1e-6f * fabsf(want[i]) + 1e-30f))
                fail_msg("activation %d of %g: %g instead of %g", kind, (double)x[i],
                         (double)have[i], (double)want[i]);
    }
}

static void test_geglu(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t rows = kit_pick(k, 1, 20), c = channels(k);
        float *x, *want = kit_host(k, rows * c);
        KIT_SAY(what, "geglu [%d, %d]", (int)rows, (int)c);
        dr_tensor dx = kit_noise(k, &x, 0.0f, 2.0f, 1, rows, 1, 2 * c);
        ref_geglu(want, x, rows, c);
        kit_compare(k, op_geglu(&k->run, dx), want, LIMIT, what);
    }
}

static void test_concat(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 2), h = kit_pick(k, 1, 5), w = kit_pick(k, 1, 5);
        int64_t ca = channels(k), cb = channels(k);
        float *a, *b, *want = kit_host(k, n * h * w * (ca + cb));
        KIT_SAY(what, "concat %d and %d", (int)ca, (int)cb);
        dr_tensor da = kit_tensor(k, &a, n, h, w, ca), db = kit_tensor(k, &b, n, h, w, cb);
        ref_concat(want, a, ca, b, cb, n * h * w);
        kit_compare(k, op_concat(&k->run, da, db), want, 0, what);
    }
}

static void test_scale_and_fill(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t c = channels(k);
        float *x, *want = kit_host(k, c);
        dr_tensor dx = kit_tensor(k, &x, 1, 1, 1, c), y = dr_new(&k->run, 1, 1, 1, c);
        dr_tensor guard = dr_new(&k->run, 1, 1, 1, 64);
        op_fill(&k->run, guard, 9.0f);
        ref_scale(want, x, c, -2.5, 0.75);
        op_scale(&k->run, dx, y, -2.5f, 0.75f);
        kit_compare(k, y, want, LIMIT, "scale");
        op_scale(&k->run, dx, dx, -2.5f, 0.75f);
        kit_compare(k, dx, want, LIMIT, "scale in place");
        op_fill(&k->run, y, -1.5f);
        ref_fill(want, c, -1.5);
        kit_compare(k, y, want, 0, "fill");
        float nine[64];
        ref_fill(nine, 64, 9);
        kit_compare(k, guard, nine, 0, "what lies behind fill");
    }
}

/* --- embeddings, sampler, pictures --- */

static void test_embed_tokens(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t rows = kit_pick(k, 1, 50), length = kit_pick(k, 1, 12), c = channels(k);
        int64_t n = kit_pick(k, 1, 3), more = kit_pick(k, 0, 3);
        int32_t ids[36];
        float *table, *positions, *extra = NULL, *want = kit_host(k, n * length * c);
        dr_weight_mat t = { .in = rows, .out = c }, p = { .in = length, .out = c };
        t.w = kit_tensor(k, &table, 1, 1, rows, c);
        p.w = kit_tensor(k, &positions, 1, 1, length, c);
        dr_tensor e = { 0 };
        if (more)
            e = kit_tensor(k, &extra, 1, 1, more, c);
        for (int j = 0; j < n * length; j++)
            ids[j] = (int32_t)kit_pick(k, 0, rows + more - 1);
        ref_embed_tokens(want, ids, table, rows, extra, positions, n, length, c);
        kit_compare(k, op_embed_tokens(&k->run, ids, n, length, &t, &p, more ? &e : NULL),
                    want, LIMIT, "embed_tokens");
    }
}

/* An angle near 1000 is a float with steps of 6e-5, and its sine is no better; PyTorch's
 * own embedding in float32 is as far from the exact one. */
static void test_embed_timestep(void **state)
{
    kit *k = *state;
    static const double timesteps[] = { 0, 1, 20.5, 500, 981, 999 };
    for (size_t i = 0; i < DR_COUNT(timesteps); i++)
        for (int flip = 0; flip < 2; flip++)
            for (int shift = 0; shift < 2; shift++) {
                kit_begin(k);
                int64_t c = i % 2 ? 320 : 2 * kit_pick(k, 2, 40);
                float *want = kit_host(k, c);
                double t = timesteps[i];
                KIT_SAY(what, "embed_timestep %g to %d", t, (int)c);
                ref_embed_timestep(want, t, c, flip, shift);
                kit_compare(k, op_embed_timestep(&k->run, t, c, flip, shift), want,
                            t > 50 ? 2e-4 : LIMIT, what);
            }
}

static void test_sampler_step(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 3), h = kit_pick(k, 1, 9), count = n * h * 28;
        int slots = (int)kit_pick(k, 0, DR_STEP_HISTORY);
        bool noisy = i % 5 != 0, guided = i % 2;
        dr_step_coef c = { .cfg = 7.5f,
                           .x = 0.9f,
                           .out = -0.3f,
                           .noise = noisy && i % 7 ? 0.1f : 0.0f,
                           .slot = (int)kit_pick(k, 0, slots) - 1,
                           .hist_x = 1.1f,
                           .hist_out = -0.7f,
                           .hist_noise = noisy && i % 3 ? 0.4f : 0.0f,
                           .denoised_x = 0.4f,
                           .denoised_out = 0.6f };
        float *x, *out, *plain, *hist[DR_STEP_HISTORY], *noise, *denoised;
        dr_tensor dh[DR_STEP_HISTORY], dx = kit_tensor(k, &x, n, h, 7, 4);
        dr_tensor dout = kit_tensor(k, &out, n, h, 7, 4);
        dr_tensor du = kit_tensor(k, &plain, n, h, 7, 4);
        dr_tensor dz = kit_tensor(k, &noise, n, h, 7, 4);
        dr_tensor dd = kit_tensor(k, &denoised, n, h, 7, 4);
        for (int s = 0; s < DR_STEP_HISTORY; s++) {
            dh[s] = kit_tensor(k, &hist[s], n, h, 7, 4);
            c.hist[s] = s < slots && (i + s) % 3 ? 0.2f - 0.3f * (float)s : 0.0f;
        }
        if (!noisy) /* then noise may be x itself */
            dz = dx;
        ref_sampler_step(x, out, guided ? plain : NULL, hist, noise, denoised, count, &c);
        op_sampler_step(&k->run, dx, dout, guided ? &du : NULL, dh, slots, dz, dd, &c);
        kit_compare(k, dx, x, LIMIT, "sampler_step x");
        for (int s = 0; s < DR_STEP_HISTORY; s++)
            kit_compare(k, dh[s], hist[s], LIMIT, "sampler_step hist");
        kit_compare(k, dd, denoised, LIMIT, "sampler_step denoised");
    }
}

/* Every way of guidance, on images whose last block is short too, with and without a mean
 * that is large beside the spread. */
static void test_guide(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 3), h = kit_pick(k, 1, 40), w = kit_pick(k, 1, 7);
        int64_t c = i % 2 ? 4 : 1, count = h * w * c;
        double cfg = (double)kit_pick(k, 1, 12), rescale = i % 3 ? 0.1 * (i % 10) : 0;
        float *text, *plain, *empty, *want = kit_host(k, n * count);
        dr_tensor dc = kit_tensor(k, &text, n, h, w, c);
        dr_tensor du = kit_tensor(k, &plain, n, h, w, c);
        dr_tensor de = kit_tensor(k, &empty, n, h, w, c);
        bool across = i % 4 == 0;
        ref_guide(want, text, plain, across ? empty : NULL, n, count, cfg, rescale);
        KIT_SAY(what, "guide %g rescale %g of %lld values%s", cfg, rescale,
                (long long)count, across ? " across" : "");
        kit_compare(k, op_guide(&k->run, dc, du, across ? &de : NULL, cfg, rescale), want,
                    1e-4, what);
    }
}

/* Masks of 0 and 1 leave nothing of the other side, whatever it holds. */
static void test_repaint(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 3), h = kit_pick(k, 1, 9), c = kit_pick(k, 1, 16);
        double signal = i % 3 ? 0.7 : 0, level = i % 4 ? 0.9 : 0;
        float *x, *mask, *picture, *noise;
        dr_tensor dx = kit_tensor(k, &x, n, h, 5, c), dm = kit_tensor(k, &mask, n, h, 5, 1);
        dr_tensor dy = kit_tensor(k, &picture, n, h, 5, c);
        dr_tensor dz = kit_tensor(k, &noise, n, h, 5, c);
        for (int64_t q = 0; q < n * h * 5; q++)
            mask[q] = q % 3 ? (float)(q % 2) : (mask[q] + 1) / 2;
        dr_upload(&k->run, dm, mask);
        ref_repaint(x, mask, picture, noise, n * h * 5, c, signal, level);
        op_repaint(&k->run, dx, dm, dy, dz, signal, level);
        kit_compare(k, dx, x, LIMIT, "repaint");
    }
}

static void test_linear_rgb(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t n = kit_pick(k, 1, 2), h = kit_pick(k, 1, 9), c = kit_pick(k, 1, 16);
        float *x, *m, *want = kit_host(k, n * h * 5 * 3);
        dr_tensor dx = kit_tensor(k, &x, n, h, 5, c),
                  dm = kit_tensor(k, &m, 1, 1, c + 1, 3);
        ref_linear_rgb(want, x, m, n * h * 5, c);
        kit_compare(k, op_linear_rgb(&k->run, dx, dm), want, LIMIT, "linear_rgb");
    }
}

static void test_to_rgb8(void **state)
{
    kit *k = *state;
    kit_begin(k);
    enum { COUNT = 3 * 256 + 9 };
    float x[COUNT];
    uint8_t have[COUNT], want[COUNT];
    for (int i = 0; i < 3 * 256; i++) /* each level, and a third to both sides */
        x[i] = (float)((i / 3 + (i % 3 - 1) / 3.0) / 127.5 - 1.0);
    const float edges[] = { -1, 1, -7, 7, INFINITY, -INFINITY, 0, -1.0f, 0.5f };
    memcpy(x + 3 * 256, edges, sizeof edges);
    dr_tensor dx = dr_new(&k->run, 1, 1, 1, COUNT);
    dr_upload(&k->run, dx, x);
    op_to_rgb8(&k->run, dx, have);
    kit_ok(k);
    ref_to_rgb8(want, x, COUNT);
    assert_memory_equal(have, want, COUNT);
    for (int i = 0; i < 256; i++)
        assert_int_equal(have[3 * i + 1], i);
}

static void test_range(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t c = i % 4 ? channels(k) * 3 : kit_pick(k, 1, 5), bad = 0;
        float *x;
        dr_tensor dx = kit_tensor(k, &x, 1, 1, 1, c);
        for (int j = 0; j < i % 4 && j < c; j++, bad++)
            x[j * (c / 4)] = j == 0 ? NAN : j == 1 ? INFINITY : -INFINITY;
        dr_upload(&k->run, dx, x);
        dr_range have = op_range(&k->run, dx), want = ref_range(x, c);
        kit_ok(k);
        assert_int_equal(have.not_finite, want.not_finite);
        assert_true(have.not_finite == bad);
        assert_true(have.min == want.min && have.max == want.max);
    }
}

static void test_unpack_weights(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t o = kit_pick(k, 1, 20), c = kit_pick(k, 1, 20), s = i % 2 ? 9 : 1;
        if (i % 4 == 3) /* keeps the order */
            c = s = 1;
        int64_t count = o * c * s;
        int kind = i % 3;
        float *file = kit_host(k, count), *want = kit_host(k, count);
        uint16_t *bits = (uint16_t *)file;
        for (int64_t j = 0; j < count; j++)
            if (kind == 0)
                file[j] = (float)kit_pick(k, -9999, 9999) / 16.0f;
            else /* neither Inf nor NaN, subnormals among them */
                bits[j] = (uint16_t)(kit_pick(k, 0, 1) << 15 | kit_pick(k, 0, 0x7bff));
        ref_unpack_weights(want, file, o, c, s, kind);
        dr_tensor y = dr_new(&k->run, 1, 1, 1, count);
        dr_mem *mem;
        assert_int_equal(dr_mem_new(&mem, k->dev, (size_t)count * 4, NULL), DR_OK);
        assert_int_equal(dr_mem_write(k->dev, mem, 0, file, (size_t)count * 4, NULL),
                         DR_OK);
        assert_int_equal(op_unpack_weights(k->dev, mem, y.mem, y.at, o, c, s, kind, NULL),
                         DR_OK);
        float *have = kit_host(k, count);
        dr_download(&k->run, y, have);
        assert_memory_equal(have, want, (size_t)count * sizeof *have);
        dr_mem_free(k->dev, mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_norm),     cmocka_unit_test(test_group_norm_large_mean),
        cmocka_unit_test(test_layer_norm),     cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_activate),       cmocka_unit_test(test_activate_far),
        cmocka_unit_test(test_geglu),          cmocka_unit_test(test_concat),
        cmocka_unit_test(test_scale_and_fill), cmocka_unit_test(test_embed_tokens),
        cmocka_unit_test(test_embed_timestep), cmocka_unit_test(test_sampler_step),
        cmocka_unit_test(test_guide),          cmocka_unit_test(test_linear_rgb),
        cmocka_unit_test(test_to_rgb8),        cmocka_unit_test(test_range),
        cmocka_unit_test(test_unpack_weights), cmocka_unit_test(test_repaint),
    };
    int failed = cmocka_run_group_tests_name("ops", tests, kit_setup, kit_teardown);
    return failed + cmocka_run_group_tests_name("ops with the work-groups of GPUs", tests,
                                                kit_setup_wide, kit_teardown);
}
