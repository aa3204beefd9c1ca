#include "test_image.h"

#include "image/decode.h"
#include "image/encode.h"

enum { W = 96, H = 72 };

static dr_buf encode(const dr_image_opts *o)
{
    dr_image im = picture_scene(W, H);
    dr_buf out = { 0 };
    dr_err err = { 0 };
    if (dr_image_encode(im.px, W, H, o, &out, &err))
        fail_msg("%s", err.message);
    dr_image_free(&im);
    return out;
}

/* Read the file again: the largest difference to what was painted, and the mean one. */
static int reread(const dr_buf *file, double *mean)
{
    dr_image im, want = picture_scene(W, H);
    dr_err err = { 0 };
    if (dr_image_decode(&im, file->data, file->len, DR_PIXELS_RGB, NULL, &err))
        fail_msg("%s", err.message);
    assert_int_equal(im.w, W);
    assert_int_equal(im.h, H);
    int worst = picture_worst(im.px, want.px, dr_image_bytes(&want));
    *mean = 0;
    for (size_t i = 0; i < dr_image_bytes(&want); i++)
        *mean += abs(im.px[i] - want.px[i]) / (double)dr_image_bytes(&want);
    dr_image_free(&im);
    dr_image_free(&want);
    return worst;
}

static const char *find(const dr_buf *file, const void *bytes, size_t n)
{
    return memmem(file->data, file->len, bytes, n);
}

static void test_formats(void **state)
{
    (void)state;
    static const struct {
        dr_format format;
        const char *name, *mime, *extension;
        double mean;
    } rows[] = {
        { DR_FORMAT_WEBP, "webp", "image/webp", "webp", 16 },
        { DR_FORMAT_PNG, "png", "image/png", "png", 0 },
        { DR_FORMAT_JPEG, "jpeg", "image/jpeg", "jpg", 6 },
    };
    double mean;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        const dr_image_format *f = dr_image_format_of(rows[i].format);
        assert_string_equal(f->name, rows[i].name);
        assert_string_equal(f->mime, rows[i].mime);
        assert_string_equal(f->extension, rows[i].extension);
        const dr_image_opts o = { .format = rows[i].format, .quality = 90, .effort = 4 };
        dr_buf file = encode(&o), again = encode(&o);
        assert_int_equal(file.len, again.len);
        assert_memory_equal(file.data, again.data, file.len);
        reread(&file, &mean);
        assert_true(mean <= rows[i].mean);
        dr_buf_free(&file);
        dr_buf_free(&again);
    }
}

static void test_png_effort(void **state)
{
    (void)state;
    double mean;
    dr_buf fast = encode(&(dr_image_opts){ .format = DR_FORMAT_PNG, .effort = 0 });
    dr_buf small = encode(&(dr_image_opts){ .format = DR_FORMAT_PNG, .effort = 6 });
    assert_true(small.len < fast.len);
    assert_int_equal(reread(&small, &mean), 0);
    dr_buf_free(&fast);
    dr_buf_free(&small);
}

static void test_png_text(void **state)
{
    (void)state;
    double mean;
    static const struct {
        const char *text, *chunk;
        size_t n;
    } rows[] = {
        { "a caf\xc3\xa9\nSteps: 20", "\0\0\0\x1btEXtparameters\0a caf\xe9\nSteps: 20",
          35 },
        { "\xe6\xbc\xa2\n", "\0\0\0\x13iTXtparameters\0\0\0\0\0\xe6\xbc\xa2\n", 27 },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_buf file =
            encode(&(dr_image_opts){ .format = DR_FORMAT_PNG, .parameters = rows[i].text });
        const char *at = find(&file, rows[i].chunk, rows[i].n),
                   *pixels = find(&file, "IDAT", 4);
        assert_non_null(at);
        assert_true(at < pixels); /* readers look in front of the pixels */
        assert_int_equal(reread(&file, &mean), 0);
        dr_buf_free(&file);
    }
    dr_buf file = encode(&(dr_image_opts){ .format = DR_FORMAT_PNG, .parameters = "" });
    assert_null(find(&file, "parameters", 10));
    dr_buf_free(&file);
}

static void test_jpeg(void **state)
{
    (void)state;
    double mean;
    static const uint8_t head[] = {
        0xff, 0xd8, 0xff, 0xe1, 0, 66,  'E',  'x',  'i',  'f',  0,    0,    'M', 'M', 0,
        42,   0,    0,    0,    8, 0,   1,    0x87, 0x69, 0,    4,    0,    0,   0,   1,
        0,    0,    0,    26,   0, 0,   0,    0,    0,    1,    0x92, 0x86, 0,   7,   0,
        0,    0,    14,   0,    0, 0,   44,   0,    0,    0,    0,    'U',  'N', 'I', 'C',
        'O',  'D',  'E',  0,    0, 'A', 0xd8, 0x3d, 0xde, 0x00, 0xff, 0xe0,
    };
    dr_image_opts o = { .format = DR_FORMAT_JPEG,
                        .quality = 95,
                        .parameters = "A\xf0\x9f\x98\x80" };
    dr_buf good = encode(&o);
    assert_memory_equal(good.data, head, sizeof head);
    const char *frame =
        find(&good, "\xff\xc2\0\x11\x08\0\x48\0\x60\3\1\x11\0\2\x11\1\3\x11\1", 19);
    assert_non_null(frame); /* progressive, 96 x 72, three components of 1 x 1: 4:4:4 */
    reread(&good, &mean);
    assert_true(mean < 5);
    o.quality = 0;
    dr_buf bad = encode(&o);
    assert_true(bad.len < good.len);
    dr_buf_free(&good);
    dr_buf_free(&bad);
}

static void test_jpeg_text_limit(void **state)
{
    (void)state;
    double mean;
    static char text[40000];
    dr_image im = picture_scene(W, H);
    dr_buf out = { 0 };
    dr_err err = { 0 };
    dr_image_opts o = { .format = DR_FORMAT_JPEG, .quality = 90, .parameters = text };
    memset(text, 'x', 32737); /* 6 + 44 + 8 + 2 x 32737 = 65532 */
    assert_int_equal(dr_image_encode(im.px, W, H, &o, &out, &err), DR_OK);
    reread(&out, &mean);
    assert_true(mean < 6);
    text[32737] = 'x';
    assert_int_equal(dr_image_encode(im.px, W, H, &o, &out, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "65534 bytes in UTF-16: at most 65533 fit"));
    assert_int_equal(out.len, 0);
    dr_buf_free(&out);
    dr_image_free(&im);
}

static void test_near_lossless(void **state)
{
    (void)state;
    double mean;
    dr_buf whole =
        encode(&(dr_image_opts){ .lossless = true, .near_lossless = 100, .effort = 4 });
    dr_buf off = encode(&(dr_image_opts){ .lossless = true, .effort = 4 });
    dr_buf near = encode(&(dr_image_opts){ .near_lossless = 20, .effort = 4 });
    assert_int_equal(whole.len, off.len);
    assert_int_equal(reread(&whole, &mean), 0);
    assert_in_range(reread(&near, &mean), 1, 8);
    assert_true(near.len < whole.len);
    dr_buf_free(&whole);
    dr_buf_free(&off);
    dr_buf_free(&near);
}

static void test_bounds(void **state)
{
    (void)state;
    static const struct {
        dr_format format;
        int64_t w, h, quality, near_lossless, effort;
        const char *field, *message;
    } rows[] = {
        { DR_FORMAT_WEBP, 0, 8, 90, 0, 4, "", "webp: 0 x 8" },
        { DR_FORMAT_PNG, 8, -1, 90, 0, 4, "", "png: 8 x -1" },
        { DR_FORMAT_WEBP, 16384, 1, 90, 0, 4, "", "1..16383" },
        { DR_FORMAT_PNG, 65536, 1, 90, 0, 4, "", "1..65535" },
        { DR_FORMAT_JPEG, 1, INT64_MAX, 90, 0, 4, "", "1..65500" },
        { DR_FORMAT_WEBP, 8, 8, 101, 0, 4, "output.quality", "quality 101" },
        { DR_FORMAT_JPEG, 8, 8, -1, 0, 4, "output.quality", "jpeg: quality -1" },
        { DR_FORMAT_WEBP, 8, 8, 9, 101, 4, "output.near_lossless", "near_lossless 101" },
        { DR_FORMAT_PNG, 8, 8, 90, 0, 7, "", "effort 7: must be in 0..6" },
        { DR_FORMAT_PNG, 8, 8, 90, 0, -1, "", "effort -1" },
    };
    uint8_t rgb[8 * 8 * 3] = { 0 };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_buf out = { 0 };
        dr_err err = { 0 };
        const dr_image_opts o = { .format = rows[i].format,
                                  .quality = rows[i].quality,
                                  .near_lossless = rows[i].near_lossless,
                                  .effort = rows[i].effort };
        assert_int_equal(dr_image_encode(rgb, rows[i].w, rows[i].h, &o, &out, &err),
                         DR_EINVAL);
        assert_string_equal(err.field, rows[i].field);
        if (!strstr(err.message, rows[i].message))
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].message);
        assert_int_equal(out.len, 0);
        dr_buf_free(&out);
    }
}

static void test_output(void **state)
{
    (void)state;
    const dr_job job = { .output = { .format = DR_FORMAT_PNG,
                                     .quality = 7,
                                     .near_lossless = 60,
                                     .lossless = true } };
    const dr_image_opts o = dr_image_output(&job, "text");
    assert_int_equal(o.format, DR_FORMAT_PNG);
    assert_int_equal(o.quality, 7);
    assert_int_equal(o.near_lossless, 60);
    assert_true(o.lossless);
    assert_int_equal(o.effort, DR_IMAGE_EFFORT);
    assert_string_equal(o.parameters, "text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),         cmocka_unit_test(test_png_effort),
        cmocka_unit_test(test_png_text),        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_jpeg_text_limit), cmocka_unit_test(test_near_lossless),
        cmocka_unit_test(test_bounds),          cmocka_unit_test(test_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
