#include "test_image.h"

#include "image/decode.h"
#include "image/encode.h"
#include "image/exif.h"

#include <turbojpeg.h>
#include <webp/mux.h>

enum { W = 19, H = 13 };

/* Every file that can be read, and how far its pixels may be from Pillow's: versions of
 * libjpeg and libwebp round differently. */
static const struct {
    const char *name;
    int tolerance;
} files[] = {
    { "grey1.png", 0 },         { "grey1-adam7.png", 0 },   { "grey2.png", 0 },
    { "grey2-adam7.png", 0 },   { "grey4.png", 0 },         { "grey4-adam7.png", 0 },
    { "grey8.png", 0 },         { "grey8-adam7.png", 0 },   { "grey16.png", 0 },
    { "grey16-adam7.png", 0 },  { "rgb8.png", 0 },          { "rgb8-adam7.png", 0 },
    { "rgb16.png", 0 },         { "rgb16-adam7.png", 0 },   { "rgba8.png", 0 },
    { "rgba8-adam7.png", 0 },   { "rgba16.png", 0 },        { "rgba16-adam7.png", 0 },
    { "ga8.png", 0 },           { "ga8-adam7.png", 0 },     { "ga16.png", 0 },
    { "ga16-adam7.png", 0 },    { "palette1.png", 0 },      { "palette1-trns.png", 0 },
    { "palette2.png", 0 },      { "palette2-trns.png", 0 }, { "palette4.png", 0 },
    { "palette4-trns.png", 0 }, { "palette8.png", 0 },      { "palette8-trns.png", 0 },
    { "grey8-trns.png", 0 },    { "rgb8-trns.png", 0 },     { "rgb8-text.png", 0 },
    { "rgb420.jpg", 2 },        { "rgb444.jpg", 2 },        { "progressive.jpg", 2 },
    { "grey.jpg", 2 },          { "cmyk.jpg", 2 },          { "lossy.webp", 2 },
    { "lossless.webp", 0 },     { "alpha.webp", 0 },
};

static dr_image decode(const dr_buf *file, dr_pixels pixels)
{
    dr_image out;
    dr_err err = { 0 };
    if (dr_image_decode(&out, file->data, file->len, pixels, NULL, &err))
        fail_msg("%s", err.message);
    int64_t w = 0, h = 0;
    assert_int_equal(dr_image_size(&w, &h, file->data, file->len, NULL, &err), DR_OK);
    assert_int_equal(w, out.w);
    assert_int_equal(h, out.h);
    return out;
}

/* Decoding must fail and say `message`. */
static void refuse(const char *what, const void *p, size_t n, const dr_image_limits *limits,
                   const char *message)
{
    dr_image out = { .w = 1 };
    dr_err err = { 0 };
    dr_status st = dr_image_decode(&out, p, n, DR_PIXELS_RGB, limits, &err);
    if (st != DR_EINVAL || !strstr(err.message, message))
        fail_msg("%s, %zu bytes: status %d, \"%s\" does not say \"%s\"", what, n, st,
                 err.message, message);
    assert_null(out.px);
    assert_int_equal(out.w, 0);
}

static void test_kinds(void **state)
{
    (void)state;
    for (size_t i = 0; i < DR_COUNT(files); i++) {
        char name[64];
        dr_buf file = picture_file(files[i].name);
        dr_image im = decode(&file, DR_PIXELS_RGBA);
        int stem = (int)strcspn(files[i].name, ".");
        if (strstr(files[i].name, "-adam7"))
            stem -= 6;
        snprintf(name, sizeof name, "%.*s.rgba", stem, files[i].name);
        dr_buf want = picture_file(name);
        assert_int_equal(im.w, W);
        assert_int_equal(im.h, H);
        assert_int_equal(im.channels, 4);
        assert_int_equal(want.len, dr_image_bytes(&im));
        int worst = picture_worst(im.px, (uint8_t *)want.data, want.len);
        if (worst > files[i].tolerance)
            fail_msg("%s: off by %d", files[i].name, worst);
        dr_image_free(&im);
        dr_buf_free(&want);
        dr_buf_free(&file);
    }
}

/* Inks on their own are not what libjpeg stores by default: it turns them into YCCK. */
static void test_ycck(void **state)
{
    (void)state;
    enum { N = 16 };
    uint8_t inks[N * N * 4];
    unsigned char *jpeg = NULL;
    unsigned long n = 0;
    for (int i = 0; i < N * N; i++)
        memcpy(inks + 4 * i, (uint8_t[]){ 200, 100, 50, 128 }, 4); /* inverted */
    tjhandle tj = tjInitCompress();
    assert_int_equal(
        tjCompress2(tj, inks, N, N * 4, N, TJPF_CMYK, &jpeg, &n, TJSAMP_444, 100, 0), 0);
    const dr_buf file = { .data = (char *)jpeg, .len = n };
    dr_image im = decode(&file, DR_PIXELS_RGB);
    assert_true(picture_worst(im.px, (uint8_t[]){ 100, 50, 25 }, 3) <= 2);
    dr_image_free(&im);
    tjFree(jpeg);
    tjDestroy(tj);
}

static void test_pixels(void **state)
{
    (void)state;
    dr_buf file = picture_file("rgba8.png");
    dr_image rgba = decode(&file, DR_PIXELS_RGBA), rgb = decode(&file, DR_PIXELS_RGB),
             mask = decode(&file, DR_PIXELS_MASK);
    assert_int_equal(rgb.channels, 3);
    assert_int_equal(mask.channels, 1);
    assert_int_equal(rgba.px[3], 0); /* transparent: white, or black in a mask */
    assert_memory_equal(rgb.px, "\xff\xff\xff", 3);
    assert_int_equal(mask.px[0], 0);
    for (int i = 0; i < W * H; i++) {
        const uint8_t *p = rgba.px + 4 * i;
        const double a = p[3] / 255.0;
        for (int c = 0; c < 3; c++)
            assert_true(abs(rgb.px[3 * i + c] - (int)(p[c] * a + 255 * (1 - a) + 0.5)) <=
                        1);
        const double l = 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
        assert_true(abs(mask.px[i] - (int)(l * a + 0.5)) <= 1);
    }
    dr_image_free(&rgba);
    dr_image_free(&rgb);
    dr_image_free(&mask);
    dr_buf_free(&file);
}

/* --- orientation --- */

/* A TIFF directory with one more entry in front of Orientation. */
static void put_exif(dr_buf *out, bool big, int type, int count, int value)
{
    const int fields[][2] = { { 2, 2 },          { 0x10f, 2 }, { 2, 2 },    { 1, 4 },
                              { 0x41000000, 4 }, { 0x112, 2 }, { type, 2 }, { count, 4 } };
    dr_buf_put(out, big ? "MM\0*\0\0\0\10" : "II*\0\10\0\0\0", 8);
    for (size_t i = 0; i < DR_COUNT(fields); i++)
        for (int k = 0; k < fields[i][1]; k++) {
            int shift = 8 * (big ? fields[i][1] - 1 - k : k);
            dr_buf_put(out, &(uint8_t){ (uint8_t)(fields[i][0] >> shift) }, 1);
        }
    dr_buf_put(out, (uint8_t[]){ big ? 0 : (uint8_t)value, big ? (uint8_t)value : 0 }, 2);
    dr_buf_put(out, "\0\0\0\0\0\0", 6);
}

/* A file with Exif put into it. */
static void with_exif(dr_buf *out, dr_format format, const dr_buf *file, const dr_buf *exif)
{
    const uint8_t n[2] = { 0, (uint8_t)exif->len };
    if (format == DR_FORMAT_PNG) {
        dr_buf_put(out, file->data, 33); /* signature and IHDR */
        dr_buf_put(out, "\0\0", 2);
        dr_buf_put(out, n, 2);
        dr_buf_puts(out, "eXIf");
        dr_buf_put(out, exif->data, exif->len);
        dr_buf_put(out, "\0\0\0\0", 4); /* its CRC is not looked at */
        dr_buf_put(out, file->data + 33, file->len - 33);
    } else if (format == DR_FORMAT_JPEG) {
        dr_buf_put(out, file->data, 2);
        dr_buf_put(out, (uint8_t[]){ 0xff, 0xe1, 0, (uint8_t)(exif->len + 8) }, 4);
        dr_buf_put(out, "Exif\0", 6);
        dr_buf_put(out, exif->data, exif->len);
        dr_buf_put(out, file->data + 2, file->len - 2);
    } else {
        WebPData in = { (uint8_t *)file->data, file->len }, whole,
                 data = { (uint8_t *)exif->data, exif->len };
        WebPMux *mux = WebPMuxCreate(&in, 0);
        assert_int_equal(WebPMuxSetChunk(mux, "EXIF", &data, 0), WEBP_MUX_OK);
        assert_int_equal(WebPMuxAssemble(mux, &whole), WEBP_MUX_OK);
        dr_buf_put(out, whole.bytes, whole.size);
        WebPDataClear(&whole);
        WebPMuxDelete(mux);
    }
}

static void test_orientation(void **state)
{
    (void)state;
    enum { CELL = 8, COLUMNS = 3, ROWS = 2 };
    /* Blocks a b c / d e f, as they must be seen. */
    static const char *const seen[] = { "abc/def",  "abc/def",  "cba/fed",
                                        "fed/cba",  "def/abc",  "ad/be/cf",
                                        "da/eb/fc", "fc/eb/da", "cf/be/ad" };
    uint8_t px[ROWS * CELL][COLUMNS * CELL][3];
    for (int y = 0; y < ROWS * CELL; y++)
        for (int x = 0; x < COLUMNS * CELL; x++)
            memset(px[y][x], 20 + 40 * (y / CELL * COLUMNS + x / CELL), 3);
    for (dr_format format = 0; format <= DR_FORMAT_JPEG; format++)
        for (int turn = 0; turn <= 9; turn++) {
            dr_buf file = { 0 }, exif = { 0 }, both = { 0 };
            dr_err err = { 0 };
            const dr_image_opts o = { .format = format, .quality = 95 };
            const char *want = seen[turn == 9 ? 0 : turn]; /* 0 and 9 are no orientations */
            assert_int_equal(
                dr_image_encode(&px[0][0][0], COLUMNS * CELL, ROWS * CELL, &o, &file, &err),
                DR_OK);
            put_exif(&exif, turn & 1, 3, 1, turn);
            with_exif(&both, format, &file, &exif);
            dr_image im = decode(&both, DR_PIXELS_RGB);
            const int columns = (int)strcspn(want, "/");
            assert_int_equal(im.w, columns * CELL);
            assert_int_equal(im.h, COLUMNS * ROWS / columns * CELL);
            for (int i = 0; i < COLUMNS * ROWS; i++) {
                int x = i % columns, y = i / columns;
                char is = want[y * (columns + 1) + x];
                int v = im.px[((y * CELL + 4) * im.w + x * CELL + 4) * 3];
                if (abs(v - (20 + 40 * (is - 'a'))) > 8)
                    fail_msg("format %d, orientation %d, block %d: %d is not %c",
                             (int)format, turn, i, v, is);
            }
            dr_image_free(&im);
            dr_buf_free(&file);
            dr_buf_free(&exif);
            dr_buf_free(&both);
        }
}

static void test_exif(void **state)
{
    (void)state;
    static const struct {
        int type, count, value, want;
    } rows[] = {
        { 3, 1, 6, 6 }, { 3, 1, 0, 1 }, { 3, 1, 9, 1 }, { 4, 1, 6, 1 }, { 3, 2, 6, 1 },
    };
    for (size_t i = 0; i < 2 * DR_COUNT(rows); i++) {
        dr_buf exif = { 0 };
        put_exif(&exif, i & 1, rows[i / 2].type, rows[i / 2].count, rows[i / 2].value);
        assert_int_equal(dr_exif_orientation((uint8_t *)exif.data, exif.len),
                         rows[i / 2].want);
        /* Every shorter one, at the end of its memory so that a sanitizer sees more. */
        for (size_t n = 0; n + 4 < exif.len; n++) {
            uint8_t *cut = test_malloc(n + 1);
            memcpy(cut + 1, exif.data, n);
            int got = dr_exif_orientation(cut + 1, n);
            assert_true(got == 1 || n >= 34);
            test_free(cut);
        }
        memset(exif.data + 4, 0xff, 4); /* a directory beyond the end */
        assert_int_equal(dr_exif_orientation((uint8_t *)exif.data, exif.len), 1);
        dr_buf_free(&exif);
    }
}

/* --- what is refused --- */

static void test_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < DR_COUNT(files); i++) {
        dr_buf file = picture_file(files[i].name);
        for (size_t n = 12; n < file.len; n++) {
            uint8_t *cut = test_malloc(n);
            memcpy(cut, file.data, n);
            refuse(files[i].name, cut, n, NULL, "cut short");
            test_free(cut);
        }
        dr_buf_free(&file);
    }
}

static void test_other_formats(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } rows[] = {
        { "GIF89a\1\0\1\0", 10, "GIF is not read" },
        { "BM\0\0", 4, "BMP is not read" },
        { "II*\0\10\0\0\0", 8, "TIFF is not read" },
        { "\0\0\0\x20"
          "ftypavif",
          12, "AVIF is not read: send PNG, JPEG or WebP" },
        { "<svg xmlns=", 11, "SVG" },
        { "hello", 5, "5 bytes that do not begin as" },
        { "\x89PNG", 4, "4 bytes that do not begin as" },
        { "RIFF\4\0\0\0WAVE", 12, "do not begin as" },
        { "", 0, "0 bytes that" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        refuse(rows[i].message, rows[i].bytes, rows[i].n, NULL, rows[i].message);
}

static void test_animated(void **state)
{
    (void)state;
    static const char *const names[] = { "animated.png", "animated.webp" };
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        dr_buf file = picture_file(names[i]);
        refuse(names[i], file.data, file.len, NULL, "it is animated: send one picture");
        dr_buf_free(&file);
    }
}

/* Where a format's header has width and height, and how. */
static void set_size(dr_buf *file, int64_t w, int64_t h)
{
    uint8_t *p = (uint8_t *)file->data;
    if (p[0] == 0x89) {
        for (int i = 0; i < 4; i++) {
            p[16 + i] = (uint8_t)(w >> (24 - 8 * i));
            p[20 + i] = (uint8_t)(h >> (24 - 8 * i));
        }
    } else if (p[0] == 0xff) {
        while (!(p[0] == 0xff && p[1] == 0xc0))
            p++;
        memcpy(p + 5, (uint8_t[]){ (uint8_t)(h >> 8), (uint8_t)h }, 2);
        memcpy(p + 7, (uint8_t[]){ (uint8_t)(w >> 8), (uint8_t)w }, 2);
    } else { /* a key frame of VP8 */
        memcpy(p + 26, (uint8_t[]){ (uint8_t)w, (uint8_t)(w >> 8) }, 2);
        memcpy(p + 28, (uint8_t[]){ (uint8_t)h, (uint8_t)(h >> 8) }, 2);
    }
}

static void test_headers(void **state)
{
    (void)state;
    static const dr_image_limits few = { .side_max = 8192,
                                         .pixels_max = 1000000,
                                         .bytes_max = 2000 };
    static const struct {
        const char *name;
        int64_t w, h;
        const dr_image_limits *limits;
        const char *message;
    } rows[] = {
        { "rgb8.png", 0, 13, NULL, "0 x 13 pixels: there is no picture" },
        { "rgb8.png", 19, 0, NULL, "19 x 0 pixels: there is no picture" },
        { "rgb8.png", 0xffffffff, 0xffffffff, NULL, "a side may have 8192" },
        { "rgb8.png", 8193, 1, NULL, "8193 x 1 pixels: a side may have 8192" },
        { "rgb8.png", 1, 8193, NULL, "1 x 8193 pixels: a side may have 8192" },
        { "rgb8.png", 1001, 1000, &few, "1001 x 1000 pixels: it may have 1000000 in all" },
        { "rgb420.jpg", 0, 13, NULL, "0 x 13 pixels: there is no picture" },
        { "rgb420.jpg", 19, 0, NULL, "19 x 0 pixels: there is no picture" },
        { "rgb420.jpg", 65535, 65535, NULL, "65535 x 65535 pixels: a side may have 8192" },
        { "rgb420.jpg", 1000, 1001, &few, "it may have 1000000 in all" },
        { "lossy.webp", 16383, 16383, NULL, "16383 x 16383 pixels: a side may have 8192" },
        { "lossy.webp", 1000, 1001, &few, "it may have 1000000 in all" },
        /* Within the limits, but with too few bytes behind it. */
        { "rgb8.png", 8192, 8192, NULL, "png: " },
        { "rgb420.jpg", 8192, 8192, NULL, "cut short" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_buf file = picture_file(rows[i].name);
        set_size(&file, rows[i].w, rows[i].h);
        refuse(rows[i].name, file.data, file.len, rows[i].limits, rows[i].message);
        dr_buf_free(&file);
    }
    uint8_t many[2001] = { 0x89, 'P', 'N', 'G' };
    refuse("bytes", many, sizeof many, &few, "2001 bytes: at most 2000 are read");
}

static void test_broken_jpeg(void **state)
{
    (void)state;
    dr_buf file = picture_file("progressive.jpg");
    for (int i = 0; i < 101; i++)
        dr_buf_put(&file, "\xff\xda", 2);
    refuse("scans", file.data, file.len, NULL, "at most 100 are read");
    dr_buf_free(&file);
    /* A restart marker has no length for libjpeg, which would find a frame header in it. */
    refuse("marker", "\xff\xd8\xff\xd0\xff\xc2\0\1", 8, NULL,
           "no marker where one must be");
    refuse("marker", "\xff\xd8\xff\xe0\0\1\0\0", 8, NULL, "no marker where one must be");
    refuse("no frame", "\xff\xd8\xff\xe0\0\2\xff\xd9\0\0", 10, NULL, "no frame header");
}

static void test_trailing_bytes(void **state)
{
    (void)state;
    static const char *const names[] = { "rgb8.png", "rgb420.jpg", "lossless.webp" };
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        dr_buf file = picture_file(names[i]);
        dr_buf_put(&file, "more\xff\xd9", 6);
        dr_image im = decode(&file, DR_PIXELS_RGB);
        assert_int_equal(im.w, W);
        dr_image_free(&im);
        dr_buf_free(&file);
    }
}

/* --- random damage --- */

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Make a PNG's CRCs right again, so that damage gets past them. */
static void mend(uint8_t *p, size_t n)
{
    for (size_t at = 8; n - at >= 12;) {
        size_t len = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 |
                     (size_t)p[at + 2] << 8 | p[at + 3];
        uint32_t crc = 0xffffffff;
        if (len > n - at - 12)
            return;
        for (size_t i = at + 4; i < at + 8 + len; i++) {
            crc ^= p[i];
            for (int k = 0; k < 8; k++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
        at += 8 + len;
        for (int i = 0; i < 4; i++)
            p[at++] = (uint8_t)(~crc >> (24 - 8 * i));
    }
}

/* Every byte of a PNG's pixels counts, also those behind what the last row needs. */
static void test_checksums(void **state)
{
    (void)state;
    dr_buf file = picture_file("rgb8-text.png");
    uint8_t *idat = memmem(file.data, file.len, "IDAT", 4);
    size_t first = (size_t)(idat - (uint8_t *)file.data) + 4, n = 0;
    for (int i = -8; i < -4; i++)
        n = n << 8 | idat[4 + i];
    for (size_t i = first; i < first + n + 4; i++) {
        file.data[i] ^= 1;
        refuse("a bit of the pixels", file.data, file.len, NULL, "png: ");
        file.data[i] ^= 1;
    }
    assert_true(n > 100);
    dr_buf_free(&file);
}

static void test_damaged(void **state)
{
    (void)state;
    static const dr_image_limits limits = { .side_max = 400,
                                            .pixels_max = 40000,
                                            .bytes_max = 10000 };
    uint32_t seed = 1;
    int decoded = 0, refused = 0;
    for (size_t i = 0; i < DR_COUNT(files); i++) {
        dr_buf file = picture_file(files[i].name);
        for (int round = 0; round < 200; round++) {
            dr_image im;
            dr_err err = { 0 };
            uint8_t *p = test_malloc(file.len);
            memcpy(p, file.data, file.len);
            for (uint32_t k = 1 + next_random(&seed) % 6; k--;)
                p[12 + next_random(&seed) % (file.len - 12)] = (uint8_t)next_random(&seed);
            if (strstr(files[i].name, ".png"))
                mend(p, file.len);
            int64_t w, h;
            dr_status sized = dr_image_size(&w, &h, p, file.len, &limits, &err);
            if (!dr_image_decode(&im, p, file.len, round % 3, &limits, &err)) {
                assert_int_equal(sized, DR_OK);
                assert_true(w == im.w && h == im.h);
                assert_true(im.w >= 1 && im.h >= 1 && im.w <= 400 && im.h <= 400);
                decoded++;
            } else {
                assert_null(im.px);
                assert_int_equal(err.code, DR_EINVAL);
                refused++;
            }
            dr_image_free(&im);
            test_free(p);
        }
        dr_buf_free(&file);
    }
    assert_true(decoded > 500);
    assert_true(refused > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),          cmocka_unit_test(test_ycck),
        cmocka_unit_test(test_pixels),         cmocka_unit_test(test_orientation),
        cmocka_unit_test(test_exif),           cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_other_formats),  cmocka_unit_test(test_animated),
        cmocka_unit_test(test_headers),        cmocka_unit_test(test_broken_jpeg),
        cmocka_unit_test(test_trailing_bytes), cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
