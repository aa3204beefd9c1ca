#include "image/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <webp/decode.h>
#include <webp/mux.h>

enum { W = 48, H = 32 };

/* A red disc on a blue ground with a ramp in green. */
static void paint(uint8_t rgb[H * W * 3])
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            int dx = x - W / 2, dy = y - H / 2, in = dx * dx + dy * dy < 100;
            uint8_t *p = rgb + 3 * (y * W + x);
            p[0] = in ? 220 : 10;
            p[1] = (uint8_t)(x * 2);
            p[2] = in ? 20 : 200;
        }
}

static void encode(dr_buf *out, const dr_image_opts *o)
{
    static uint8_t rgb[H * W * 3];
    dr_err err = { 0 };
    paint(rgb);
    if (dr_image_encode(rgb, W, H, o, out, &err))
        fail_msg("%s", err.message);
    assert_true(out->len > 20);
}

/* The largest difference of a channel to what was painted. */
static int decode_and_compare(const dr_buf *webp)
{
    uint8_t want[H * W * 3];
    int w = 0, h = 0, worst = 0;
    uint8_t *rgb = WebPDecodeRGB((const uint8_t *)webp->data, webp->len, &w, &h);
    assert_non_null(rgb);
    assert_int_equal(w, W);
    assert_int_equal(h, H);
    paint(want);
    for (size_t i = 0; i < sizeof want; i++)
        worst = abs(rgb[i] - want[i]) > worst ? abs(rgb[i] - want[i]) : worst;
    WebPFree(rgb);
    return worst;
}

static void test_lossless(void **state)
{
    (void)state;
    dr_buf out = { 0 };
    encode(&out, &(dr_image_opts){ .lossless = true, .effort = 4 });
    assert_int_equal(decode_and_compare(&out), 0);
    dr_buf_free(&out);
}

static void test_quality(void **state)
{
    (void)state;
    dr_buf good = { 0 }, bad = { 0 };
    encode(&good, &(dr_image_opts){ .quality = 95, .effort = 4 });
    encode(&bad, &(dr_image_opts){ .quality = 5, .effort = 4 });
    assert_true(bad.len < good.len);
    assert_in_range(decode_and_compare(&good), 1, 128); /* colour at the disc's edge */
    dr_buf_free(&good);
    dr_buf_free(&bad);
}

static void test_same_bytes(void **state)
{
    (void)state;
    const dr_image_opts o = { .quality = 90,
                              .effort = 4,
                              .parameters = "a cat\nSteps: 20" };
    dr_buf first = { 0 }, second = { 0 };
    encode(&first, &o);
    encode(&second, &o);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    dr_buf_free(&first);
    dr_buf_free(&second);
}

/* One chunk of a file, terminated, or NULL; free it. */
static char *chunk(const dr_buf *webp, const char *name, size_t *len)
{
    WebPData file = { (const uint8_t *)webp->data, webp->len }, data;
    char *copy = NULL;
    WebPMux *mux = WebPMuxCreate(&file, 0);
    assert_non_null(mux);
    if (WebPMuxGetChunk(mux, name, &data) == WEBP_MUX_OK) {
        copy = test_calloc(1, data.size + 1);
        memcpy(copy, data.bytes, data.size);
        *len = data.size;
    }
    WebPMuxDelete(mux);
    return copy;
}

static void test_xmp(void **state)
{
    (void)state;
    dr_buf out = { 0 };
    size_t len = 0;
    encode(&out,
           &(dr_image_opts){ .quality = 90,
                             .effort = 4,
                             .parameters = "caf\xc3\xa9 <lora:x> & \"y\"\x01\nSteps: 20" });
    char *xmp = chunk(&out, "XMP ", &len);
    assert_non_null(xmp);
    const char *want = ">caf\xc3\xa9 &lt;lora:x&gt; &amp; \"y\"\xef\xbf\xbd\nSteps: 20<";
    char *first = strstr(xmp, want);
    assert_non_null(first);
    assert_non_null(strstr(first + 1, want)); /* description and UserComment */
    assert_non_null(strstr(xmp, "exif:UserComment"));
    assert_true(decode_and_compare(&out) < 128);
    test_free(xmp);
    dr_buf_free(&out);
}

static void test_exif(void **state)
{
    (void)state;
    dr_buf out = { 0 };
    size_t len = 0;
    /* U+1F600 takes two UTF-16 units. */
    encode(&out, &(dr_image_opts){ .effort = 0, .parameters = "A\xf0\x9f\x98\x80" });
    char *exif = chunk(&out, "EXIF", &len);
    static const uint8_t want[] = {
        'M', 'M', 0,   42,  0,   0,   0,  8, 0,   1,    0x87, 0x69, 0,    4,    0,
        0,   0,   1,   0,   0,   0,   26, 0, 0,   0,    0,    0,    1,    0x92, 0x86,
        0,   7,   0,   0,   0,   14,  0,  0, 0,   44,   0,    0,    0,    0,    'U',
        'N', 'I', 'C', 'O', 'D', 'E', 0,  0, 'A', 0xd8, 0x3d, 0xde, 0x00,
    };
    assert_non_null(exif);
    assert_int_equal(len, sizeof want);
    assert_memory_equal(exif, want, sizeof want);
    test_free(exif);
    dr_buf_free(&out);
}

static void test_no_metadata(void **state)
{
    (void)state;
    dr_buf out = { 0 };
    size_t len = 0;
    encode(&out, &(dr_image_opts){ .quality = 90, .effort = 4 });
    assert_null(chunk(&out, "XMP ", &len));
    assert_null(chunk(&out, "EXIF", &len));
    dr_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless),   cmocka_unit_test(test_quality),
        cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_xmp),
        cmocka_unit_test(test_exif),       cmocka_unit_test(test_no_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
