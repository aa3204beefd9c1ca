#include "base/rng.h"
#include "diffusion/noise.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Numbers from NumPy and PyTorch in double precision. */

static void assert_near(const float *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 2e-6))
            fail_msg("[%zu] is %.8g, not %.8g", i, (double)got[i], want[i]);
}

static void slerp_follows_the_arc(void **state)
{
    static const float from[6] = { 0.5f, -1.25f, 2, 0.75f, -0.125f, 1.5f };
    static const float to[6] = { -1, 0.25f, 1.5f, -2, 0.625f, 0.25f };
    static const struct {
        double share, want[6];
    } cases[] = {
        { 0, { 0.5, -1.25, 2, 0.75, -0.125, 1.5 } },
        { 0.25,
          { 0.088744313, -1.0257411, 2.3200179, -0.04552359, 0.11179397, 1.4273933 } },
        { 0.5,
          { -0.33405105, -0.66810209, 2.3383573, -0.83512762, 0.33405105, 1.1691787 } },
        { 1, { -1, 0.25, 1.5, -2, 0.625, 0.25 } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float got[6];
        memcpy(got, from, sizeof got);
        dr_noise_slerp(got, to, 6, cases[i].share);
        assert_near(got, cases[i].want, 6);
    }
}

/* Where no arc, or more than one, leads there. */
static void slerp_of_parallels_is_a_line(void **state)
{
    static const double longer[3] = { 1.125, -2.25, 0.5625 }, less[3] = { 0.5, -1, 0.25 };
    static const double half[3] = { 0.25, 0.5, 0.75 };
    float a[3] = { 1, -2, 0.5f }, same[3] = { 1.5f, -3, 0.75f };
    float b[3] = { 1, -2, 0.5f }, back[3] = { -1, 2, -0.5f };
    float zero[3] = { 0 }, c[3] = { 0.5f, 1, 1.5f };
    (void)state;
    dr_noise_slerp(a, same, 3, 0.25);
    assert_near(a, longer, 3);
    dr_noise_slerp(b, back, 3, 0.25);
    assert_near(b, less, 3);
    dr_noise_slerp(zero, c, 3, 0.5);
    assert_near(zero, half, 3);
}

static void variation_of_pytorch_noise(void **state)
{
    static const double want[16] = { -0.90025016, -0.30748655, 0.31507204,  -1.4537771,
                                     -0.50166972, 0.74395209,  -0.72165515, -0.19374635,
                                     1.0696348,   -0.82544325, -0.41967351, -0.29572206,
                                     0.73414298,  1.2930898,   -0.35189811, 0.9985109 };
    float noise[16], scratch[16];
    dr_torch_rng rng;
    (void)state;
    dr_torch_seed(&rng, 7);
    dr_torch_normal(&rng, noise, 16);
    dr_noise_vary(noise, scratch, 16, DR_NOISE_TORCH, 1000, 0.4);
    assert_near(noise, want, 16);
}

static void variation_of_philox_noise(void **state)
{
    enum { COUNT = 4096 };
    static float noise[COUNT], scratch[COUNT], other[COUNT], mixed[COUNT];
    double squares = 0;
    (void)state;
    dr_philox_normal(noise, COUNT, 7, 0, 0);
    dr_philox_normal(other, COUNT, 1000, 0, 0);
    memcpy(mixed, noise, sizeof noise);
    dr_noise_vary(mixed, scratch, COUNT, DR_NOISE_PHILOX, 1000, 0.5);
    dr_noise_slerp(noise, other, COUNT, 0.5);
    assert_memory_equal(mixed, noise, sizeof noise);
    for (int i = 0; i < COUNT; i++)
        squares += (double)mixed[i] * mixed[i];
    assert_true(fabs(squares / COUNT - 1) < 0.05); /* as strong as before; a mean: 0.5 */
}

static void derived_seed_is_another_and_the_same(void **state)
{
    (void)state;
    assert_true(dr_noise_subseed(7) == dr_noise_subseed(7));
    assert_true(dr_noise_subseed(7) != dr_noise_subseed(8));
    assert_true(dr_noise_subseed(7) != 7);
    assert_true(dr_noise_subseed(UINT64_MAX) <= UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slerp_follows_the_arc),
        cmocka_unit_test(slerp_of_parallels_is_a_line),
        cmocka_unit_test(variation_of_pytorch_noise),
        cmocka_unit_test(variation_of_philox_noise),
        cmocka_unit_test(derived_seed_is_another_and_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
