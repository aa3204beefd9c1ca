/* Measuring who multiplies fastest: every kind of operation is checked, one that is wrong
 * takes its candidate out, and a first start measures once. */
#include "kit.h"

#include "dev/gemm.h"
#include "op/tune.h"

#include <math.h>

static const dr_tune_shapes small = {
    .n = 4,
    .row = { { DR_TUNE_LINEAR, 70, 96, 45, 1, 2 },
             { DR_TUNE_CONV3X3, 130, 40, 144, 1, 1 },
             { DR_TUNE_CONV3X3, 64, 16, 9, 1, 1 },
             { DR_TUNE_ATTENTION, 50, 300, 24, 3, 1 } },
};

static char dir[] = "/tmp/darkroom-tune-XXXXXX";

/* Packed, then CLBlast as it comes. */
static int measure(kit *k, dr_dev *dev, dr_tune_result results[2])
{
    const dr_tune_opts o = { .conf = &k->conf };
    memset(results, 0, 2 * sizeof *results);
    for (int i = 0; i < 2; i++)
        dr_choice_default(&results[i].choice, dr_dev_describe(dev));
    results[0].choice.packed = true;
    results[1].choice.packed = false;
    return dr_tune_measure(dev, &small, results, 2, &o);
}

static dr_dev *open_device(kit *k)
{
    dr_dev *dev;
    dr_err err = { 0 };
    if (dr_dev_open(&dev, &k->conf, &err))
        fail_msg("%s", err.message);
    return dev;
}

static void test_sound_candidates_are_timed(void **state)
{
    kit *k = *state;
    dr_tune_result results[2];
    dr_dev *dev = open_device(k);
    int best = measure(k, dev, results);
    dr_dev_close(dev);
    assert_in_range(best, 0, 1);
    for (int i = 0; i < 2; i++)
        if (results[i].err.code)
            fail_msg("%s", results[i].err.message);
    for (int i = 0; i < small.n; i++)
        assert_true(results[best].seconds[i] > 0);
    assert_true(isfinite(results[best].total_s));
    assert_true(dr_tune_gflops(&small, &results[best]) > 0);
}

/* A slip in what only packed kernels use, and what finds it. */
static void test_wrong_candidates_are_out(void **state)
{
    kit *k = *state;
    static const kit_slip slips[] = {
        { "weights.cl", "j < outputs ? load_weight", "j + 1 < outputs ? load_weight",
          "results for linear" },
        { "winograd.cl", "q + 8.0f * t", "q + 4.0f * t", "results for conv3x3" },
        { "attention.cl", "sum[x] += total", "sum[x] = total", "results for attention" },
        { "gemm.cl", "shift + out)", "shift)", "self-test: linear_geglu" },
    };
    dr_tune_result results[2];
    assert_int_equal(dr_conf_set(&k->conf, "device.cl_dir", dir, NULL), DR_OK);
    for (size_t i = 0; i < DR_COUNT(slips); i++) {
        kit_write_kernels(dir, &slips[i]);
        dr_dev *dev = open_device(k);
        int best = measure(k, dev, results);
        dr_dev_close(dev);
        if (best != 1 || !strstr(results[0].err.message, slips[i].op))
            fail_msg("%s: winner %d, %s", slips[i].file, best, results[0].err.message);
    }
    kit_remove_kernels(dir);
    assert_int_equal(dr_conf_set(&k->conf, "device.cl_dir", "", NULL), DR_OK);
}

static void test_a_first_start_measures_once(void **state)
{
    kit *k = *state;
    char path[DR_PATH_MAX], lock[DR_PATH_MAX + 8], command[DR_PATH_MAX + 80];
    dr_err err = { 0 };
    /* A cache of its own, but for the kernels that are compiled already. */
    assert_int_equal(dr_cache_dir(path, "", &err), DR_OK);
    snprintf(command, sizeof command, "cp %s/*.clbin %s", path, dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(dr_conf_set(&k->conf, "device.tune", "auto", NULL), DR_OK);
    assert_int_equal(dr_conf_set(&k->conf, "device.cache_dir", dir, NULL), DR_OK);
    dr_dev *dev = open_device(k);
    const dr_dev_info *info = dr_dev_describe(dev);
    assert_true(dr_choice_path(path, info, &k->conf));
    assert_int_equal(dr_dev_choice(dev)->by, DR_BY_DEFAULT);
    assert_int_equal(dr_tune_start(dev, &k->conf, &err), DR_OK);
    dr_choice first = *dr_dev_choice(dev);
    assert_int_equal(dr_packed(dev), dr_has_kernel(dev, DR_K_multiply_packed));
    dr_dev_close(dev);
    if (first.by == DR_BY_DEFAULT) /* a GPU */
        return;
    assert_int_equal(first.by, DR_BY_MEASURE);
    assert_true(dr_file_exists(path));
    dev = open_device(k);
    assert_int_equal(dr_dev_choice(dev)->by, DR_BY_MEASURE);
    assert_true(dr_choice_same(dr_dev_choice(dev), &first));
    dr_dev_close(dev);
    snprintf(lock, sizeof lock, "%s.lock", path);
    assert_true(dr_file_exists(lock));
}

/* What a run's watch sees becomes operations. */
static void test_products_are_counted(void **state)
{
    (void)state;
    dr_tune_shapes s = { 0 };
    const dr_gemm_args product = { .m = 64, .n = 32, .k = 18, .batch = 1 };
    const dr_gemm_args large = { .m = 64, .n = 77, .k = 4000, .batch = 1 };
    const dr_gemm_args scores = {
        .m = 64, .n = 77, .k = 40, .batch = 8, .b_transposed = true
    };
    const dr_gemm_args values = { .m = 64, .n = 40, .k = 77, .batch = 8 };
    dr_tune_add(&s, "linear", &product, 1);
    dr_tune_add(&s, "conv2d", &product, 2);
    dr_tune_add(&s, "linear", &product, 20);
    dr_tune_add(&s, "attention", &scores, 1);
    dr_tune_add(&s, "attention", &values, 1);
    dr_tune_add(&s, "linear", &large, 1);
    assert_int_equal(s.n, 4);
    dr_tune_cut(&s, 3);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.row[0].k, 4000);
    assert_int_equal(s.row[1].kind, DR_TUNE_ATTENTION);
    assert_true(s.row[2].kind == DR_TUNE_LINEAR && s.row[2].calls > 20.5);
}

static int open_all(void **state)
{
    return mkdtemp(dir) ? kit_setup(state) : -1;
}

static int close_all(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return kit_teardown(state) + system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_products_are_counted),
                                        cmocka_unit_test(test_sound_candidates_are_timed),
                                        cmocka_unit_test(test_wrong_candidates_are_out),
                                        cmocka_unit_test(
                                            test_a_first_start_measures_once) };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
