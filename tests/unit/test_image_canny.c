#include "test_image.h"

#include "image/canny.h"

/* Edges of im against a file of one bit a pixel that OpenCV found. */
static void compare(const dr_image *im, const char *file)
{
    dr_buf want = picture_file(file);
    dr_image edges;
    dr_err err = { 0 };
    int different = 0, found = 0;
    const int n = (int)(im->w * im->h);
    assert_int_equal(dr_image_canny(&edges, im, DR_CANNY_LOW, DR_CANNY_HIGH, &err), DR_OK);
    assert_int_equal(edges.channels, 3);
    assert_int_equal(want.len, (n + 7) / 8);
    for (int i = 0; i < n; i++) {
        const uint8_t *p = edges.px + 3 * i;
        assert_true((p[0] == 0 || p[0] == 255) && p[1] == p[0] && p[2] == p[0]);
        found += p[0] == 255;
        different += (p[0] == 255) != ((uint8_t)want.data[i / 8] >> (7 - i % 8) & 1);
    }
    assert_in_range(found, n / 100, n / 2);
    assert_int_equal(different, 0);
    dr_image_free(&edges);
    dr_buf_free(&want);
}

static void test_opencv(void **state)
{
    (void)state;
    dr_image im = picture_scene(96, 72), grey;
    dr_err err = { 0 };
    compare(&im, "canny.raw");
    assert_int_equal(dr_image_new(&grey, 96, 72, 1, &err), DR_OK);
    for (int i = 0; i < 96 * 72; i++)
        grey.px[i] = im.px[3 * i + 1];
    compare(&grey, "canny-grey.raw");
    dr_image_free(&grey);
    dr_image_free(&im);
}

static void test_small(void **state)
{
    (void)state;
    for (int w = 1; w <= 3; w++)
        for (int h = 1; h <= 3; h++) {
            dr_image im, edges;
            dr_err err = { 0 };
            assert_int_equal(dr_image_new(&im, w, h, 3, &err), DR_OK);
            assert_int_equal(dr_image_canny(&edges, &im, 100, 200, &err), DR_OK);
            for (int i = 0; i < 3 * w * h; i++)
                assert_int_equal(edges.px[i], 0);
            dr_image_free(&im);
            dr_image_free(&edges);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opencv),
        cmocka_unit_test(test_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
