#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* --- Philox --- */

/* The philox4x32-10 rows of Random123's known answers. */
static void philox_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } rows[] = {
        { { 0 }, { 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t out[4];
        dr_philox4x32(out, rows[i].counter, rows[i].key);
        assert_memory_equal(out, rows[i].out, sizeof out);
    }
}

/* The first four values of seed 0 follow from the first known answer. */
static void philox_normals_are_box_muller(void **state)
{
    const double word[4] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
    float z[4];
    (void)state;
    dr_philox_normal(z, 4, 0, 0, 0);
    for (int i = 0; i < 4; i += 2) {
        double r = sqrt(-2 * log((word[i] + 0.5) / 4294967296.0));
        double a = 2 * acos(-1) * ((word[i + 1] + 0.5) / 4294967296.0);
        assert_float_equal(z[i], r * cos(a), 1e-6);
        assert_float_equal(z[i + 1], r * sin(a), 1e-6);
    }
}

static void philox_prefix_does_not_depend_on_length(void **state)
{
    float whole[1001], part[1001];
    (void)state;
    dr_philox_normal(whole, 1001, 77, 3, 1);
    for (size_t n = 0; n < 40; n++) {
        memset(part, 0, sizeof part);
        dr_philox_normal(part, n, 77, 3, 1);
        assert_memory_equal(part, whole, n * sizeof *part);
        assert_true(part[n] == 0.0f);
    }
}

static void philox_seed_step_and_stream_all_count(void **state)
{
    static const struct {
        uint64_t seed;
        uint32_t step, stream;
    } rows[] = { { 1, 0, 0 }, { UINT64_C(1) << 32, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } };
    float base[8], other[8];
    (void)state;
    dr_philox_normal(base, 8, 0, 0, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dr_philox_normal(other, 8, rows[i].seed, rows[i].step, rows[i].stream);
        for (int j = 0; j < 8; j++)
            assert_true(other[j] != base[j]);
    }
}

static void philox_moments_are_normal(void **state)
{
    enum { N = 1 << 18 };
    static float z[N];
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0;
    (void)state;
    dr_philox_normal(z, N, 20241124, 0, 0);
    for (int i = 0; i < N; i++) {
        double v = z[i];
        m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
        lag += i ? v * z[i - 1] : 0;
    }
    assert_float_equal(m1 / N, 0, 0.01); /* five standard errors each */
    assert_float_equal(m2 / N, 1, 0.014);
    assert_float_equal(m3 / N, 0, 0.04);
    assert_float_equal(m4 / N, 3, 0.1);
    assert_float_equal(lag / N, 0, 0.01);
}

/* --- PyTorch --- */

#define TOLERANCE 1e-6

static void expect_draw(dr_torch_rng *r, const float *want, size_t n)
{
    float got[64];
    assert_true(n <= 64);
    dr_torch_normal(r, got, n);
    for (size_t i = 0; i < n; i++)
        assert_float_equal(got[i], want[i], TOLERANCE);
}

/* torch.randn(16, generator=Generator().manual_seed(seed)), torch 2.5.1 */
static const float seed_0[] = { -1.1258398f, -1.1523602f, -0.25057858f, -0.43387881f,
                                0.84871036f, 0.69200915f, -0.31601277f, -2.1152194f,
                                0.32227492f, -1.2633348f, 0.34998319f,  0.30813393f,
                                0.11984151f, 1.2376579f,  1.1167772f,   -0.24727815f };
static const float seed_42[] = { 1.9269153f,   1.4872841f,   0.9007172f,    -2.105521f,
                                 0.67841846f,  -1.2345449f,  -0.043067478f, -1.6046669f,
                                 -0.75213528f, 1.648723f,    -0.39247864f,  -1.4036071f,
                                 -0.72788131f, -0.55943018f, -0.76883888f,  0.76244539f };

static void torch_fill_of_16(void **state)
{
    dr_torch_rng r;
    (void)state;
    dr_torch_seed(&r, 0);
    expect_draw(&r, seed_0, 16);
    dr_torch_seed(&r, 42);
    expect_draw(&r, seed_42, 16);
}

static void torch_drops_the_upper_half_of_a_seed(void **state)
{
    dr_torch_rng r;
    (void)state;
    dr_torch_seed(&r, UINT64_C(0xdeadbeef00000000) + 42);
    expect_draw(&r, seed_42, 16);
}

static void torch_redraws_a_ragged_tail(void **state)
{
    static const float want[] = {
        -0.82013452f, 0.39563116f,  0.8989085f,  -1.3884039f,   -0.16699602f, 0.28514996f,
        -0.64109153f, -0.89365542f, 0.926543f,   -0.53551221f,  -1.1597203f,  -0.46015716f,
        0.70853907f,  1.0127554f,   0.23039687f, 1.0901651f,    -1.5826646f,  -0.32456663f,
        1.9263681f,   -0.33001173f, 0.19844505f, 0.78207266f,   1.0391077f,   -0.72451073f,
        -0.13543689f, 0.74711823f,  0.61181575f, 1.8677835f,    2.5116029f,   -1.2547852f,
        0.8164565f,   -1.0653989f,  -1.6370213f, 0.15771191f,   0.39574093f,  -1.3677397f,
        -0.10073432f, 0.23701459f,  0.63268209f, -0.091677167f,
    };
    dr_torch_rng r;
    (void)state;
    dr_torch_seed(&r, 7);
    expect_draw(&r, want, 40);
}

/* One generator, draws of 5, 20, 3, 4 and 16: the scalar path keeps half a pair across the
 * fill of 20. */
static void torch_consecutive_draws(void **state)
{
    static const float five[] = { 0.80327606f, 0.17483339f, 0.088978097f, -0.61371803f,
                                  0.04618245f };
    static const float twenty[] = {
        -0.33979017f, 0.22252527f,  0.31697658f,  1.1059221f,   -0.47603095f,
        -0.29291254f, -0.34808931f, 0.34874636f,  0.037066877f, -0.067685589f,
        0.42903304f,  -0.86811924f, -0.27121457f, 0.14162847f,  0.12951782f,
        0.68141109f,  -0.95830041f, 0.063924082f, 0.65891391f,  0.8194592f,
    };
    static const float three[] = { -1.3682592f, -0.39215022f, 0.15191489f };
    static const float four[] = { -1.1837332f, 0.53436071f, -1.4510227f, -0.62937403f };
    static const float sixteen[] = {
        0.20301233f, -0.20442277f,  -0.4121379f, 0.68737543f, -0.075202502f, -0.42329928f,
        0.42168704f, -0.25764507f,  -1.954093f,  -1.2216325f, -0.33041829f,  -0.42430159f,
        0.5124644f,  -0.019845407f, -1.1215951f, -0.48906714f
    };
    dr_torch_rng r;
    (void)state;
    dr_torch_seed(&r, 3);
    expect_draw(&r, five, 5);
    expect_draw(&r, twenty, 20);
    expect_draw(&r, three, 3);
    expect_draw(&r, four, 4);
    expect_draw(&r, sixteen, 16);
}

/* torch.randn(4, 64, 64) of seed 1234: sums, and values around a refill of the twister. */
static void torch_latents_of_a_picture(void **state)
{
    enum { N = 4 * 64 * 64 };
    static float z[N];
    static const float last[] = { 1.3883376f, -1.0849719f, 0.5443095f, 1.5798631f };
    static const float middle[] = { 0.51517677f, 0.29067054f, 1.1948693f, -1.546041f };
    double sum = 0, squares = 0;
    dr_torch_rng r;
    (void)state;
    dr_torch_seed(&r, 1234);
    dr_torch_normal(&r, z, N);
    for (int i = 0; i < N; i++)
        sum += z[i], squares += (double)z[i] * z[i];
    for (int i = 0; i < 4; i++) {
        assert_float_equal(z[N - 4 + i], last[i], TOLERANCE);
        assert_float_equal(z[8190 + i], middle[i], TOLERANCE);
    }
    assert_float_equal(sum, -6.569933727238094, 1e-3);
    assert_float_equal(squares, 16757.60157473822, 1e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(philox_normals_are_box_muller),
        cmocka_unit_test(philox_prefix_does_not_depend_on_length),
        cmocka_unit_test(philox_seed_step_and_stream_all_count),
        cmocka_unit_test(philox_moments_are_normal),
        cmocka_unit_test(torch_fill_of_16),
        cmocka_unit_test(torch_drops_the_upper_half_of_a_seed),
        cmocka_unit_test(torch_redraws_a_ragged_tail),
        cmocka_unit_test(torch_consecutive_draws),
        cmocka_unit_test(torch_latents_of_a_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
