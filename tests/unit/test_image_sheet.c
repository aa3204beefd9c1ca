#include "test_image.h"

#include "image/sheet.h"

/* n pictures of one colour each, 10 + 20 i. */
static void fill(dr_image *pictures, int n, int64_t w, int64_t h)
{
    dr_err err = { 0 };
    for (int i = 0; i < n; i++) {
        assert_int_equal(dr_image_new(&pictures[i], w, h, 3, &err), DR_OK);
        memset(pictures[i].px, 10 + 20 * i, dr_image_bytes(&pictures[i]));
    }
}

static void empty(dr_image *pictures, int n)
{
    for (int i = 0; i < n; i++)
        dr_image_free(&pictures[i]);
}

static int pixel(const dr_image *im, int64_t x, int64_t y)
{
    const uint8_t *p = im->px + 3 * (y * im->w + x);
    assert_true(p[1] == p[0] && p[2] == p[0]);
    return p[0];
}

static dr_sheet make_sheet(const dr_image *pictures, int n, int64_t side_max)
{
    dr_err err = { 0 };
    dr_sheet s;
    assert_int_equal(dr_sheet_new(&s, n, pictures[0].w, pictures[0].h, side_max, &err),
                     DR_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(dr_sheet_place(&s, i, &pictures[i], &err), DR_OK);
    return s;
}

static void test_grids(void **state)
{
    (void)state;
    static const struct {
        int n;
        int64_t w, h, columns, rows;
    } cases[] = {
        { 1, 20, 20, 1, 1 }, { 2, 20, 20, 2, 1 }, { 3, 20, 20, 2, 2 },  { 4, 20, 20, 2, 2 },
        { 5, 20, 20, 3, 2 }, { 9, 20, 20, 3, 3 }, { 10, 20, 20, 4, 3 }, { 2, 30, 20, 1, 2 },
        { 4, 20, 60, 4, 1 }, { 6, 60, 20, 2, 3 },
    };
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_image pictures[10];
        const int64_t w = cases[i].w, h = cases[i].h;
        fill(pictures, cases[i].n, w, h);
        dr_image sheet = make_sheet(pictures, cases[i].n, 16383).image;
        assert_int_equal(sheet.w, cases[i].columns * (w + 4) + 4);
        assert_int_equal(sheet.h, cases[i].rows * (h + 4) + 4);
        for (int k = 0; k < cases[i].n; k++) {
            const int64_t x = 4 + k % cases[i].columns * (w + 4),
                          y = 4 + k / cases[i].columns * (h + 4);
            assert_int_equal(pixel(&sheet, x, y), 10 + 20 * k);
            assert_int_equal(pixel(&sheet, x + w - 1, y + h - 1), 10 + 20 * k);
            assert_int_equal(pixel(&sheet, x - 1, y), 255);
            assert_int_equal(pixel(&sheet, x + w, y + h - 1), 255);
            assert_int_equal(pixel(&sheet, x, y - 1), 255);
        }
        dr_image_free(&sheet);
        empty(pictures, cases[i].n);
    }
}

static void test_mixed_and_shrunk(void **state)
{
    (void)state;
    dr_image pictures[3];
    dr_err err = { 0 };
    dr_sheet none;
    fill(pictures, 3, 40, 40);
    dr_image_free(&pictures[1]);
    assert_int_equal(dr_image_new(&pictures[1], 20, 10, 3, &err), DR_OK);
    dr_image sheet = make_sheet(pictures, 3, 1000).image;
    assert_int_equal(sheet.w, 92);
    assert_int_equal(pixel(&sheet, 48, 4), 255); /* around the small one */
    assert_int_equal(pixel(&sheet, 57, 20), 255);
    assert_int_equal(pixel(&sheet, 58, 19), 0);
    assert_int_equal(pixel(&sheet, 77, 28), 0);
    assert_int_equal(pixel(&sheet, 77, 29), 255);
    dr_image_free(&sheet);
    sheet = make_sheet(pictures, 3, 60).image;
    assert_int_equal(sheet.w, 60); /* cells of 24 */
    assert_int_equal(sheet.h, 60);
    assert_int_equal(pixel(&sheet, 4, 4), 10);
    assert_int_equal(pixel(&sheet, 27, 27), 10);
    assert_int_equal(pixel(&sheet, 28, 4), 255);
    assert_int_equal(pixel(&sheet, 44, 16), 0);
    dr_image_free(&sheet);
    assert_int_equal(dr_sheet_new(&none, 3, 40, 40, 9, &err), DR_EINVAL);
    assert_null(none.image.px);
    assert_non_null(strstr(err.message, "3 pictures do not fit 9 x 9"));
    empty(pictures, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grids),
        cmocka_unit_test(test_mixed_and_shrunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
