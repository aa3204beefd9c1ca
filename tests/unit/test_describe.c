#include "base/buf.h"
#include "diffusion/model.h"

#include <stdarg.h>
#include <stdint.h>
#include <setjmp.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The parameters text: values that A1111's reader would take for several are quoted. */

static void text_of(dr_buf *out, const char *model, const dr_job *job)
{
    static dr_model m;
    const dr_plan plan = { .n = 1, .passes = 1, .steps = 20, .cfg_scale = 7 };
    snprintf(m.name, sizeof m.name, "%s", model);
    dr_parameters_text(out, &m, job, &plan, 0);
    assert_false(out->failed);
}

static void test_models(void **state)
{
    static const struct {
        const char *name, *written;
    } cases[] = {
        { "sd-v1-5", "Model: sd-v1-5, Version: " },
        { "caf\xc3\xa9 (pruned)", "Model: caf\xc3\xa9 (pruned), Version: " },
        { "mine, yours", "Model: \"mine, yours\", Version: " },
        { "a: b", "Model: \"a: b\", Version: " },
        { "a\nb", "Model: \"a\\nb\", Version: " },
        { "\"so called\"", "Model: \"\\\"so called\\\"\", Version: " },
    };
    const dr_job job = { .prompt = "a cat", .negative_prompt = "", .eta = NAN };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_buf out = { 0 };
        text_of(&out, cases[i].name, &job);
        if (!strstr(out.data, cases[i].written))
            fail_msg("%s: %s", cases[i].name, out.data);
        dr_buf_free(&out);
    }
}

static void test_controls(void **state)
{
    const dr_job job = {
        .prompt = "",
        .negative_prompt = "",
        .eta = NAN,
        .n_controls = 2,
        .controls = { { .name = "canny", .canny = true, .strength = 0.5, .end = 1 },
                      { .name = "a, b", .strength = 1, .start = 0.25, .end = 1 } },
    };
    dr_buf out = { 0 };
    (void)state;
    text_of(&out, "m", &job);
    const char *at = strstr(out.data, "ControlNet 0");
    assert_non_null(at);
    *strstr(at, ", Version") = 0;
    assert_string_equal(at, "ControlNet 0: \"Module: canny, Model: canny, Weight: 0.5, "
                            "Guidance Start: 0, Guidance End: 1\", "
                            "ControlNet 1: \"Module: none, Model: \\\"a, b\\\", Weight: 1, "
                            "Guidance Start: 0.25, Guidance End: 1\"");
    dr_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_controls),
    };
    return cmocka_run_group_tests_name("describe", tests, NULL, NULL);
}
