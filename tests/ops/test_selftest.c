/* The self-test passes on a sound device and finds kernels that are slightly wrong. */
#include "kit.h"

#include "op/selftest.h"

#include <unistd.h>

static void test_passes(void **state)
{
    kit *k = *state;
    dr_err err = { 0 };
    if (dr_selftest(k->dev, &err))
        fail_msg("%s", err.message);
}

/* Each with the operation that the message must name. */
static const kit_slip slips[] = {
    { "norm.cl", "/ size + eps", "/ size", "group_norm" },
    { "norm.cl", "/ cols + eps", "/ (cols - 1) + eps", "layer_norm" },
    { "softmax.cl", "+ first + 1", "+ first", "attention" },
    { "conv.cl", "kx - pad_left", "kx - pad_left + 1", "conv2d" },
    { "elementwise.cl", "-1.702f", "-1.7f", "quick_gelu" },
    { "elementwise.cl", "if (has & 4)", "if (has & 8)", "conv2d" },
    { "sample.cl", "k1 * load8", "hx * load8", "sampler_step" },
    { "sample.cl", "+ 1.0f - rescale", "+ 0.9f - rescale", "guide" },
    { "sample.cl", "base - along * p", "base + along * p", "guide across" },
    { "sample.cl", "+ (1.0f - m) *", "+ (0.9f - m) *", "repaint" },
    { "gemm.cl", "if (has & 4)", "if (has & 8)", "conv2d packed" },
    { "gemm.cl", "shift + out)", "shift)", "linear_geglu" },
    { "winograd.cl", "q + 8.0f * t", "q + 4.0f * t", "conv2d by Winograd" },
    { "attention.cl", "sum[x] *= keep", "sum[x] *= 1", "attention" },
    { "weights.cl", "<< 16", "<< 15", "unpack_weights bf16" },
    { "embed.cl", "r % length * cols", "r / length * cols", "embed_tokens" },
};

static void test_finds_slips(void **state)
{
    kit *k = *state;
    char dir[] = "/tmp/darkroom-slips-XXXXXX";
    dr_err err = { 0 };
    assert_non_null(mkdtemp(dir));
    assert_int_equal(dr_conf_set(&k->conf, "device.cl_dir", dir, NULL), DR_OK);
    for (size_t i = 0; i < DR_COUNT(slips); i++) {
        dr_dev *dev;
        kit_write_kernels(dir, &slips[i]);
        if (dr_dev_open(&dev, &k->conf, &err))
            fail_msg("%s", err.message);
        dr_status st = dr_selftest(dev, &err);
        dr_dev_close(dev);
        if (st != DR_EDEVICE || !strstr(err.message, slips[i].op))
            fail_msg("%s: %s for %s gave %d: %s", slips[i].file, slips[i].wrong,
                     slips[i].right, st, st ? err.message : "");
    }
    kit_remove_kernels(dir);
    rmdir(dir);
}

static void test_row_group_is_checked(void **state)
{
    kit *k = *state;
    dr_err err = { 0 };
    dr_dev *dev;
    k->conf.device.row_group = 48;
    assert_int_equal(dr_dev_open(&dev, &k->conf, &err), DR_EINVAL);
    assert_string_equal(err.field, "device.row_group");
    k->conf.device.row_group = 0;
}

/* Kernels made for either width of vectors are right on every CPU. */
static void test_passes_with_any_lanes(void **state)
{
    kit *k = *state;
    dr_err err = { 0 };
    for (int lanes = 8; lanes <= 16; lanes *= 2) {
        dr_dev *dev;
        k->conf.device.lanes = lanes;
        if (dr_dev_open(&dev, &k->conf, &err) || dr_selftest(dev, &err))
            fail_msg("%d lanes: %s", lanes, err.message);
        dr_dev_close(dev);
    }
    k->conf.device.lanes = 12;
    assert_int_equal(dr_dev_open(&(dr_dev *){ NULL }, &k->conf, &err), DR_EINVAL);
    assert_string_equal(err.field, "device.lanes");
    k->conf.device.lanes = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_passes),
                                        cmocka_unit_test(test_passes_with_any_lanes),
                                        cmocka_unit_test(test_row_group_is_checked),
                                        cmocka_unit_test(test_finds_slips) };
    const struct CMUnitTest again[] = { cmocka_unit_test(test_passes) };
    int failed = cmocka_run_group_tests_name("selftest", tests, kit_setup, kit_teardown);
    return failed + cmocka_run_group_tests_name("selftest with the work-groups of GPUs",
                                                again, kit_setup_wide, kit_teardown);
}
