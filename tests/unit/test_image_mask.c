#include "test_image.h"

#include "image/mask.h"

#include <math.h>

enum { W = 64, H = 48 };

/* As in pictures.py: a rectangle. */
static void paint(float mask[H * W])
{
    for (int i = 0; i < H * W; i++)
        mask[i] = i / W >= 10 && i / W < 30 && i % W >= 20 && i % W < 50;
}

static double worst(const float *mask, const char *file)
{
    dr_buf want = picture_file(file);
    double most = 0;
    assert_int_equal(want.len, H * W);
    for (int i = 0; i < H * W; i++)
        most = fmax(most, fabs(mask[i] * 255 - (uint8_t)want.data[i]));
    dr_buf_free(&want);
    return most;
}

static void test_blur(void **state)
{
    (void)state;
    float mask[H * W], same[H * W];
    dr_err err = { 0 };
    paint(mask);
    paint(same);
    assert_int_equal(dr_mask_blur(mask, W, H, 0, &err), DR_OK);
    assert_memory_equal(mask, same, sizeof mask);
    assert_int_equal(dr_mask_blur(mask, W, H, 4, &err), DR_OK);
    assert_true(worst(mask, "gauss4-64x48.raw") <= 0.55); /* OpenCV, rounded to 8 bits */
    assert_true(worst(mask, "blur4-64x48.raw") <= 5);     /* Pillow's three boxes */
    for (int i = 0; i < H * W; i++)
        same[i] = 1;
    assert_int_equal(dr_mask_blur(same, W, H, 100, &err), DR_OK); /* edges are repeated */
    for (int i = 0; i < H * W; i++)
        assert_true(fabsf(same[i] - 1) < 1e-5f);
}

static void test_area(void **state)
{
    (void)state;
    static const float row[6] = { 1, 0, 0, 1, 1, 0 };
    float out[6];
    dr_err err = { 0 };
    assert_int_equal(
        dr_mask_resize(out, 3, 1, row, 6, 1, (dr_rect){ .w = 6, .h = 1 }, &err), DR_OK);
    assert_true(out[0] == 0.5f && out[1] == 0.5f && out[2] == 0.5f);
    /* 1.5 pixels each; parts of pixels count as such. */
    assert_int_equal(
        dr_mask_resize(out, 4, 1, row, 6, 1, (dr_rect){ .w = 6, .h = 1 }, &err), DR_OK);
    const float want[] = { 2 / 3.0f, 0, 1, 1 / 3.0f };
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(out[i] - want[i]) < 1e-6f);
    /* Only a part of it, and larger. */
    assert_int_equal(
        dr_mask_resize(out, 4, 1, row, 6, 1, (dr_rect){ .x = 2, .w = 2, .h = 1 }, &err),
        DR_OK);
    assert_true(out[0] == 0 && out[1] == 0 && out[2] == 1 && out[3] == 1);
}

static void test_from_image(void **state)
{
    (void)state;
    uint8_t px[4 * 2] = { 0, 255, 51, 255, 0, 255, 51, 255 };
    const dr_image im = { .px = px, .w = 4, .h = 2, .channels = 1 };
    float out[8];
    dr_err err = { 0 };
    assert_int_equal(dr_mask_from_image(out, &im, 2, 1, DR_FIT_STRETCH, false, &err),
                     DR_OK);
    assert_true(fabsf(out[0] - 0.5f) < 1e-6f && fabsf(out[1] - 0.6f) < 1e-6f);
    assert_int_equal(dr_mask_from_image(out, &im, 2, 1, DR_FIT_STRETCH, true, &err), DR_OK);
    assert_true(fabsf(out[0] - 0.5f) < 1e-6f && fabsf(out[1] - 0.4f) < 1e-6f);
    assert_int_equal(dr_mask_from_image(out, &im, 2, 2, DR_FIT_CROP, false, &err), DR_OK);
    assert_true(out[0] == 1 && fabsf(out[1] - 0.2f) < 1e-6f);
    assert_int_equal(dr_mask_from_image(out, &im, 4, 2, DR_FIT_PAD, true, &err), DR_OK);
    assert_true(out[0] == 1 && out[1] == 0 && fabsf(out[2] - 0.8f) < 1e-6f && out[3] == 0);
}

static void test_bounds(void **state)
{
    (void)state;
    static float mask[H * W];
    dr_rect r;
    assert_false(dr_mask_bounds(&r, mask, W, H));
    mask[0] = 0.001f; /* 0 in 8 bits */
    assert_false(dr_mask_bounds(&r, mask, W, H));
    paint(mask);
    mask[31 * W + 7] = 0.002f;
    assert_true(dr_mask_bounds(&r, mask, W, H));
    assert_true(r.x == 7 && r.y == 10 && r.w == 43 && r.h == 22);
}

static void test_region(void **state)
{
    (void)state;
    static const struct {
        dr_rect r;
        int64_t padding, for_w, for_h, w, h;
        dr_rect want;
    } rows[] = {
        /* 128 x 32 for a square becomes 128 x 128. */
        { { 200, 300, 128, 32 }, 0, 512, 512, 640, 640, { 200, 252, 128, 128 } },
        { { 300, 200, 32, 128 }, 0, 512, 512, 640, 640, { 252, 200, 128, 128 } },
        /* An odd rest goes below. */
        { { 200, 300, 101, 50 }, 0, 512, 512, 640, 640, { 200, 275, 101, 101 } },
        /* Padding ends at the picture's edges. */
        { { 10, 620, 100, 10 }, 32, 512, 512, 640, 640, { 0, 498, 142, 142 } },
        { { 600, 600, 40, 40 }, 32, 512, 512, 640, 640, { 568, 568, 72, 72 } },
        /* Moved inside. */
        { { 0, 0, 100, 20 }, 0, 512, 512, 640, 640, { 0, 0, 100, 100 } },
        { { 0, 620, 100, 20 }, 0, 512, 512, 640, 640, { 0, 540, 100, 100 } },
        /* Another shape. */
        { { 100, 100, 90, 60 }, 0, 768, 512, 640, 640, { 100, 100, 90, 60 } },
        { { 100, 100, 60, 60 }, 0, 768, 512, 640, 640, { 85, 100, 90, 60 } },
        /* The picture is too low for it. */
        { { 10, 10, 400, 20 }, 0, 512, 512, 640, 200, { 10, 0, 400, 200 } },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_rect r = dr_mask_region(rows[i].r, rows[i].padding, rows[i].for_w, rows[i].for_h,
                                   rows[i].w, rows[i].h);
        if (memcmp(&r, &rows[i].want, sizeof r))
            fail_msg("row %zu: %lld, %lld, %lld x %lld", i, (long long)r.x, (long long)r.y,
                     (long long)r.w, (long long)r.h);
    }
}

static void test_blend(void **state)
{
    (void)state;
    dr_image base = picture_scene(W, H), before = picture_scene(W, H), over;
    static float mask[H * W];
    dr_err err = { 0 };
    assert_int_equal(dr_image_new(&over, 40, 30, 3, &err), DR_OK);
    memset(over.px, 200, dr_image_bytes(&over));
    for (int i = 0; i < H * W; i++)
        mask[i] = i % W < 20 ? 0 : i % W < 40 ? 0.25f : 1;
    assert_int_equal(dr_image_blend(&base, &over, 10, 5, mask, &err), DR_OK);
    for (int i = 0; i < 3 * W * H; i++) {
        const int x = i / 3 % W, y = i / 3 / W, was = before.px[i];
        const bool inside = x >= 10 && x < 50 && y >= 5 && y < 35;
        const double m = inside ? mask[i / 3] : 0;
        if (m == 0)
            assert_int_equal(base.px[i], was);
        else
            assert_true(fabs(base.px[i] - (was * (1 - m) + 200 * m)) <= 0.5);
    }
    static const int64_t at[][2] = { { -1, 0 }, { 0, -1 }, { 25, 0 }, { 0, 19 } };
    for (size_t i = 0; i < DR_COUNT(at); i++)
        assert_int_equal(dr_image_blend(&base, &over, at[i][0], at[i][1], mask, &err),
                         DR_EINVAL);
    dr_image_free(&base);
    dr_image_free(&before);
    dr_image_free(&over);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blur),       cmocka_unit_test(test_area),
        cmocka_unit_test(test_from_image), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_region),     cmocka_unit_test(test_blend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
