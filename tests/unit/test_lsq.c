#include "base/rng.h"
#include "diffusion/lsq.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ROWS_MAX 600

/* y = x coef + intercept with known numbers, x normal around `mean`. */
static void make(float *x, float *y, size_t rows, int k, int c, float mean,
                 const double *coef)
{
    dr_philox_normal(x, rows * (size_t)k, 5, 0, 0);
    for (size_t r = 0; r < rows; r++)
        for (int j = 0; j < c; j++) {
            double sum = coef[k * c + j];
            for (int i = 0; i < k; i++) {
                if (j == 0)
                    x[r * (size_t)k + (size_t)i] += mean;
                sum += x[r * (size_t)k + (size_t)i] * coef[i * c + j];
            }
            y[r * (size_t)c + (size_t)j] = (float)sum;
        }
}

static void finds_known_factors(void **state)
{
    static const struct {
        size_t rows;
        int k, c;
        float mean;
    } cases[] = { { 64, 4, 3, 0 }, { 5, 4, 3, 0 },    { 600, 32, 3, 0 },
                  { 2, 1, 1, 0 },  { 200, 16, 3, 8 }, { 300, 4, 32, -3 } };
    static float x[ROWS_MAX * 32], y[ROWS_MAX * 32];
    double want[33 * 32], got[33 * 32];
    (void)state;
    for (int i = 0; i < 33 * 32; i++)
        want[i] = sin(1.7 * i);
    for (size_t t = 0; t < DR_COUNT(cases); t++) {
        int k = cases[t].k, c = cases[t].c;
        make(x, y, cases[t].rows, k, c, cases[t].mean, want);
        assert_int_equal(dr_lsq_fit(x, y, cases[t].rows, k, c, 0, got, NULL), DR_OK);
        for (int i = 0; i < (k + 1) * c; i++)
            assert_true(fabs(got[i] - want[i]) < 1e-4);
    }
}

/* Noisy line through (0,1) (1,3) (2,4) (3,4): slope 1, intercept 1.5 by hand. */
static void minimises_the_squares(void **state)
{
    const float x[] = { 0, 1, 2, 3 }, y[] = { 1, 3, 4, 4 };
    double coef[2];
    (void)state;
    assert_int_equal(dr_lsq_fit(x, y, 4, 1, 1, 0, coef, NULL), DR_OK);
    assert_true(fabs(coef[0] - 1) < 1e-12);
    assert_true(fabs(coef[1] - 1.5) < 1e-12);
}

/* Centred sum of squares is 5: ridge 5 halves the slope; the line still meets the means. */
static void ridge_shrinks_the_slope_only(void **state)
{
    const float x[] = { 0, 1, 2, 3 }, y[] = { 1, 3, 4, 4 };
    double coef[2];
    (void)state;
    assert_int_equal(dr_lsq_fit(x, y, 4, 1, 1, 5, coef, NULL), DR_OK);
    assert_true(fabs(coef[0] - 0.5) < 1e-12);
    assert_true(fabs(coef[1] + coef[0] * 1.5 - 3) < 1e-12);
}

static void tells_when_columns_depend(void **state)
{
    float x[14], y[7];
    double coef[3];
    dr_err err = { 0 };
    (void)state;
    for (int i = 0; i < 7; i++)
        x[2 * i] = (float)i, x[2 * i + 1] = 3 * (float)i, y[i] = (float)i;
    assert_int_equal(dr_lsq_fit(x, y, 7, 2, 1, 0, coef, &err), DR_ENUMERIC);
    assert_non_null(strstr(err.message, "column 1 of 2"));
    assert_int_equal(dr_lsq_fit(x, y, 7, 2, 1, 1e-3, coef, NULL), DR_OK);
    assert_float_equal(coef[0] + 3 * coef[1], 1, 1e-3);

    for (int i = 0; i < 7; i++)
        x[2 * i] = 0.1f; /* a constant is the intercept's column again */
    assert_int_equal(dr_lsq_fit(x, y, 7, 2, 1, 0, coef, &err), DR_ENUMERIC);
    assert_non_null(strstr(err.message, "column 0 of 2"));
}

static void refuses_bad_input(void **state)
{
    float x[2] = { 0, 1 }, y[2] = { 0, 1 };
    double coef[2];
    (void)state;
    assert_int_equal(dr_lsq_fit(x, y, 0, 1, 1, 0, coef, NULL), DR_EINVAL);
    assert_int_equal(dr_lsq_fit(x, y, 2, 33, 1, 0, coef, NULL), DR_EINVAL);
    assert_int_equal(dr_lsq_fit(x, y, 2, 1, 0, 0, coef, NULL), DR_EINVAL);
    assert_int_equal(dr_lsq_fit(x, y, 2, 1, 1, -1, coef, NULL), DR_EINVAL);
    assert_int_equal(dr_lsq_fit(x, y, 2, 1, 1, NAN, coef, NULL), DR_EINVAL);
    y[1] = INFINITY;
    assert_int_equal(dr_lsq_fit(x, y, 2, 1, 1, 0, coef, NULL), DR_ENUMERIC);
    x[1] = NAN;
    assert_int_equal(dr_lsq_fit(x, y, 2, 1, 1, 0, coef, NULL), DR_ENUMERIC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_known_factors),
        cmocka_unit_test(minimises_the_squares),
        cmocka_unit_test(ridge_shrinks_the_slope_only),
        cmocka_unit_test(tells_when_columns_depend),
        cmocka_unit_test(refuses_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
