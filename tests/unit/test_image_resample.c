#include "test_image.h"

#include "image/resample.h"

#include <math.h>

static dr_image resized(const dr_image *im, int64_t w, int64_t h, dr_fit fit)
{
    dr_image out;
    dr_err err = { 0 };
    const dr_rect all = { .w = im->w, .h = im->h };
    if (dr_image_crop(&out, im, all, &err) || dr_image_resize(&out, w, h, fit, &err))
        fail_msg("%s", err.message);
    assert_int_equal(out.w, w);
    assert_int_equal(out.h, h);
    return out;
}

static void test_pillow(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int w, h, to_w, to_h;
        dr_fit fit;
    } rows[] = {
        { "lanczos-61x40.raw", 96, 72, 61, 40, DR_FIT_STRETCH },
        { "lanczos-61x50.raw", 48, 36, 61, 50, DR_FIT_STRETCH },
        { "crop-40x40.raw", 96, 72, 40, 40, DR_FIT_CROP },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_buf want = picture_file(rows[i].file);
        dr_image im = picture_scene(rows[i].w, rows[i].h);
        dr_image out = resized(&im, rows[i].to_w, rows[i].to_h, rows[i].fit);
        assert_int_equal(want.len, dr_image_bytes(&out));
        int worst = picture_worst(out.px, (uint8_t *)want.data, want.len);
        if (worst > 1)
            fail_msg("%s: off by %d", rows[i].file, worst);
        dr_image_free(&im);
        dr_image_free(&out);
        dr_buf_free(&want);
    }
}

static void test_only_when_needed(void **state)
{
    (void)state;
    dr_image im = picture_scene(40, 30), crop;
    dr_err err = { 0 };
    uint8_t *px = im.px;
    assert_int_equal(dr_image_resize(&im, 40, 30, DR_FIT_CROP, &err), DR_OK);
    assert_ptr_equal(im.px, px);
    /* One side as it is, the other cut: pixels are moved, not filtered. */
    dr_image out = resized(&im, 29, 30, DR_FIT_CROP);
    assert_int_equal(dr_image_crop(&crop, &im, (dr_rect){ 5, 0, 29, 30 }, &err), DR_OK);
    assert_memory_equal(out.px, crop.px, dr_image_bytes(&crop));
    dr_image_free(&out);
    dr_image_free(&crop);
    dr_image_free(&im);
}

static void test_pad(void **state)
{
    (void)state;
    dr_image im = picture_scene(40, 20);
    dr_image out = resized(&im, 40, 31, DR_FIT_PAD); /* 5 rows above, 6 below */
    const size_t row = 40 * 3;
    for (size_t y = 0; y < 31; y++) {
        size_t from = y < 5 ? 0 : y - 5 > 19 ? 19 : y - 5;
        assert_memory_equal(out.px + y * row, im.px + from * row, row);
    }
    dr_image_free(&out);
    out = resized(&im, 100, 20, DR_FIT_PAD); /* 30 columns to both sides */
    for (int y = 0; y < 20; y++)
        for (int x = 0; x < 100; x++) {
            int from = x < 30 ? 0 : x - 30 > 39 ? 39 : x - 30;
            assert_memory_equal(out.px + 3 * (y * 100 + x), im.px + 3 * (y * 40 + from), 3);
        }
    dr_image_free(&out);
    out = resized(&im, 20, 20, DR_FIT_PAD); /* half as large, 5 rows above and below */
    dr_image half = resized(&im, 20, 10, DR_FIT_STRETCH);
    assert_memory_equal(out.px + 5 * 60, half.px, dr_image_bytes(&half));
    assert_memory_equal(out.px, half.px, 60);
    assert_memory_equal(out.px + 19 * 60, half.px + 9 * 60, 60);
    dr_image_free(&out);
    dr_image_free(&half);
    dr_image_free(&im);
}

/* Nothing may come from, or be written, beyond the ends; a sanitizer watches. A picture of
 * one colour keeps it. */
static void test_any_size(void **state)
{
    (void)state;
    static const int sides[] = { 1, 2, 3, 7, 64, 301 };
    enum { N = DR_COUNT(sides) };
    for (int i = 0; i < N * N * N * N; i++) {
        const int w = sides[i % N], h = sides[i / N % N], to_w = sides[i / N / N % N],
                  to_h = sides[i / N / N / N];
        for (dr_fit fit = DR_FIT_STRETCH; fit <= DR_FIT_PAD; fit++) {
            dr_image im;
            dr_err err = { 0 };
            assert_int_equal(dr_image_new(&im, w, h, 1, &err), DR_OK);
            memset(im.px, 77, dr_image_bytes(&im));
            assert_int_equal(dr_image_resize(&im, to_w, to_h, fit, &err), DR_OK);
            for (int k = 0; k < to_w * to_h; k++)
                assert_int_equal(im.px[k], 77);
            dr_image_free(&im);
        }
    }
}

static void test_floats(void **state)
{
    (void)state;
    dr_image im = picture_scene(48, 36);
    dr_image bytes = resized(&im, 40, 40, DR_FIT_CROP);
    float *f = test_malloc(48 * 48 * 3 * sizeof *f);
    dr_err err = { 0 };
    assert_int_equal(dr_image_to_floats(&im, 40, 40, DR_FIT_CROP, -1, 1, f, &err), DR_OK);
    for (int i = 0; i < 40 * 40 * 3; i++) {
        assert_true(f[i] >= -1 && f[i] <= 1);
        assert_true(fabsf((f[i] + 1) * 127.5f - bytes.px[i]) <= 0.501f);
    }
    assert_int_equal(dr_image_to_floats(&im, 48, 36, DR_FIT_STRETCH, 0, 1, f, &err), DR_OK);
    for (int i = 0; i < 48 * 36 * 3; i++)
        assert_true(fabsf(f[i] - im.px[i] / 255.0f) < 1e-6f);
    test_free(f);
    dr_image_free(&bytes);
    dr_image_free(&im);
}

static void test_crop(void **state)
{
    (void)state;
    static const dr_rect bad[] = {
        { -1, 0, 2, 2 }, { 0, -1, 2, 2 }, { 0, 0, 0, 2 },         { 0, 0, 2, -1 },
        { 9, 0, 2, 2 },  { 0, 7, 2, 2 },  { INT64_MAX, 0, 2, 2 }, { 0, 0, 11, 1 },
    };
    dr_image im = picture_scene(10, 8), out;
    dr_err err = { 0 };
    for (size_t i = 0; i < DR_COUNT(bad); i++)
        assert_int_equal(dr_image_crop(&out, &im, bad[i], &err), DR_EINVAL);
    assert_int_equal(dr_image_crop(&out, &im, (dr_rect){ 8, 6, 2, 2 }, &err), DR_OK);
    assert_memory_equal(out.px, im.px + 3 * (6 * 10 + 8), 6);
    assert_memory_equal(out.px + 6, im.px + 3 * (7 * 10 + 8), 6);
    dr_image_free(&out);
    dr_image_free(&im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pillow), cmocka_unit_test(test_only_when_needed),
        cmocka_unit_test(test_pad),    cmocka_unit_test(test_any_size),
        cmocka_unit_test(test_floats), cmocka_unit_test(test_crop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
