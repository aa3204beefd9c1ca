#include "test_job_pack.h"

#include "base/mem.h"
#include "base/rng.h"
#include "job/base64.h"
#include "job/picture.h"

#include <stdio.h>

/* Pictures that come with a job: every shape, every name, every limit; and base64. */

#define BYTES(text) text, sizeof text - 1

static const char png[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
static const char jpeg[] = "\xff\xd8\xff\xe0\0\x10JFIF\0";
static const char webp[] = "RIFF\x1a\0\0\0WEBPVP8L";
#define PNG64 "iVBORw0KGgoAAAANSUhEUg=="

static void assert_picture(const dr_picture_ref *p, const char *bytes, size_t n)
{
    assert_null(p->key);
    assert_int_equal(p->n, n);
    assert_memory_equal(p->bytes, bytes, n);
}

/* --- Base64 -------------------------------------------------------------------------- */

static void test_base64_vectors(void **state)
{
    /* RFC 4648, section 10. */
    static const char *const cases[][2] = {
        { "", "" },
        { "f", "Zg==" },
        { "fo", "Zm8=" },
        { "foo", "Zm9v" },
        { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" },
    };
    char out[32];
    size_t n, at;
    (void)state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_buf b = { 0 };
        const char *plain = cases[i][0], *text = cases[i][1];
        dr_base64_put(&b, plain, strlen(plain));
        assert_string_equal(b.data ? b.data : "", text);
        assert_true(dr_base64_decode(text, strlen(text), out, &n, &at));
        assert_int_equal(n, strlen(plain));
        assert_memory_equal(out, plain, n);
        dr_buf_free(&b);
    }
    assert_true(dr_base64_decode("Zm9v\r\nYmFy\n", 11, out, &n, &at));
    assert_int_equal(n, 6);
    assert_memory_equal(out, "foobar", 6);
}

static void test_base64_is_strict(void **state)
{
    static const struct {
        const char *text;
        size_t at;
    } cases[] = {
        { "Z", 1 },          { "Zg", 2 },        { "Zg=", 3 },         { "Zm8", 3 },
        { "=", 0 },          { "Z===", 1 },      { "====", 0 },        { "Zg===", 4 },
        { "Zg==Zg==", 4 },   { "Zm8=Zg==", 4 },  { "Zg=x", 3 },        { "Zh==", 3 },
        { "Zm9=", 3 },       { "Zm9v Zm9v", 4 }, { "Zm9-", 3 },        { "Zm9_", 3 },
        { "Zm9v\tZm9v", 4 }, { "Zm9v!", 4 },     { "\xc3\xbcm9v", 0 }, { "Zm9v\n=", 5 },
    };
    char out[32];
    size_t n, at;
    (void)state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (dr_base64_decode(cases[i].text, strlen(cases[i].text), out, &n, &at))
            fail_msg("\"%s\" was taken", cases[i].text);
        if (at != cases[i].at)
            fail_msg("\"%s\": %zu", cases[i].text, at);
    }
    assert_false(dr_base64_decode("Zm9\0", 4, out, &n, &at));
    assert_int_equal(at, 3);
}

static void test_base64_there_and_back(void **state)
{
    unsigned char from[64], to[DR_BASE64_BYTES(96)];
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t r[4];
        size_t size = i % sizeof from, n, at;
        dr_buf b = { 0 };
        for (size_t k = 0; k < size; k++) {
            dr_philox4x32(r, (uint32_t[]){ i, (uint32_t)k, 0, 0 }, (uint32_t[]){ 64, 0 });
            from[k] = (unsigned char)r[0];
        }
        dr_base64_put(&b, from, size);
        assert_int_equal(b.len, (size + 2) / 3 * 4);
        assert_true(dr_base64_decode(b.data, b.len, to, &n, &at));
        assert_int_equal(n, size);
        assert_memory_equal(to, from, size);
        dr_buf_free(&b);
    }
}

/* --- Shapes -------------------------------------------------------------------------- */

static dr_status decode_bin(fixture *t, const char *name, const char *p, size_t n)
{
    dr_buf b = { 0 };
    msgpack_packer pk;
    msgpack_packer_init(&pk, &b, write_buf);
    msgpack_pack_map(&pk, 2);
    pack_text(&pk, "prompt");
    pack_text(&pk, "x");
    pack_text(&pk, name);
    msgpack_pack_bin(&pk, n);
    msgpack_pack_bin_body(&pk, p, n);
    dr_status st = decode_as(t, "job", b.data, b.len);
    memset(b.data, 0xee, b.len); /* nothing points into the message */
    dr_buf_free(&b);
    return st;
}

/* A plain field, whose bytes are as they are. */
static dr_status decode_raw(fixture *t, const char *name, const char *p, size_t n)
{
    dr_field f[] = { { "prompt", "x", 1 }, { name, p, n } };
    return decode(t, f, 2);
}

static void test_every_name(void **state)
{
    static const char *const names[] = { "init_image",   "image",       "input_image",
                                         "source_image", "init_images", "image_url",
                                         "init.image" };
    fixture *t = *state;
    char text[128];
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        const dr_picture_ref *p = NULL;
        assert_int_equal(decode_bin(t, names[i], BYTES(png)), DR_OK);
        p = &t->job->init.image;
        assert_picture(p, BYTES(png));
        assert_int_equal(t->job->task, DR_IMG2IMG);
        assert_int_equal(t->job->n_warnings, 0);
        assert_int_equal(decode_raw(t, names[i], BYTES(jpeg)), DR_OK);
        assert_picture(&t->job->init.image, BYTES(jpeg));
        assert_int_equal(decode_plain(t, names[i], PNG64, NULL), DR_OK);
        assert_picture(&t->job->init.image, BYTES(png));
        snprintf(text, sizeof text, "{'prompt':'x','%s':['%s']}", names[i], PNG64);
        assert_int_equal(decode_json(t, text), DR_OK);
        assert_picture(&t->job->init.image, BYTES(png));
    }
    assert_int_equal(decode_json(t, "{'prompt':'x','init':{'image':'" PNG64
                                    "','strength':0.5,'fit':'crop','mean':true}}"),
                     DR_OK);
    assert_picture(&t->job->init.image, BYTES(png));
    assert_true(t->job->init.strength == 0.5 && t->job->init.mean);
    assert_int_equal(t->job->init.fit, DR_FIT_CROP);
}

static void test_every_name_of_the_mask(void **state)
{
    static const char *const names[] = { "mask", "mask_image", "source_mask",
                                         "mask.image" };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        assert_int_equal(decode_plain(t, "image", "input:a:b", names[i], PNG64, NULL),
                         DR_OK);
        assert_picture(&t->job->mask.image, BYTES(png));
        assert_string_equal(t->job->init.image.key, "input:a:b");
        assert_int_equal(t->job->task, DR_INPAINT);
    }
    for (int plain = 0; plain < 2; plain++) {
        static const char map[] = "{\"image\":\"" PNG64 "\",\"blur\":9.5,\"invert\":true,"
                                  "\"only_masked\":true,\"padding\":7}";
        char json[256];
        snprintf(json, sizeof json,
                 "{\"prompt\":\"x\",\"image\":\"input:a:b\",\"mask\":%s}", map);
        dr_status st = plain ? decode_plain(t, "image", "input:a:b", "mask", map, NULL)
                             : decode_as(t, "json", json, strlen(json));
        assert_int_equal(st, DR_OK);
        assert_picture(&t->job->mask.image, BYTES(png));
        assert_true(t->job->mask.blur == 9.5 && t->job->mask.invert);
        assert_true(t->job->mask.only_masked && t->job->mask.padding == 7);
        assert_int_equal(t->job->n_warnings, 0);
    }
    assert_int_equal(decode_plain(t, "image", PNG64, "mask", PNG64, "mask_blur", "0",
                                  "inpainting_mask_invert", "1", "inpaint_full_res", "true",
                                  "inpaint_full_res_padding", "64", NULL),
                     DR_OK);
    assert_true(t->job->mask.blur == 0 && t->job->mask.invert);
    assert_true(t->job->mask.only_masked && t->job->mask.padding == 64);
}

static void test_fits(void **state)
{
    static const struct {
        const char *text;
        dr_fit fit;
    } cases[] = { { "stretch", DR_FIT_STRETCH }, { "crop", DR_FIT_CROP },
                  { "pad", DR_FIT_PAD },         { "0", DR_FIT_STRETCH },
                  { "1", DR_FIT_CROP },          { "2", DR_FIT_PAD } };
    fixture *t = *state;
    char text[128];
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        const char *value = cases[i].text;
        assert_int_equal(decode_plain(t, "image", PNG64, "resize_mode", value, NULL),
                         DR_OK);
        assert_int_equal(t->job->init.fit, cases[i].fit);
        snprintf(text, sizeof text, "{'prompt':'x','image':'%s','fit':%s%s%s}", PNG64,
                 strlen(value) > 1 ? "'" : "", value, strlen(value) > 1 ? "'" : "");
        assert_int_equal(decode_json(t, text), DR_OK);
        assert_int_equal(t->job->init.fit, cases[i].fit);
    }
    assert_fails(t, decode_json(t, "{'prompt':'x','fit':3}"), "fit",
                 "fit 3: this version knows stretch, crop, pad");
}

static void test_nothing(void **state)
{
    static const char *const values[] = { "null", "''", "[]", "['']", "[null]", "false" };
    fixture *t = *state;
    char text[128];
    for (size_t i = 0; i < DR_COUNT(values); i++) {
        snprintf(text, sizeof text, "{'prompt':'x','image':%s,'mask':%s}", values[i],
                 values[i]);
        assert_int_equal(decode_json(t, text), DR_OK);
        assert_int_equal(t->job->task, DR_TXT2IMG);
        assert_int_equal(t->job->n_warnings, 0);
    }
    assert_int_equal(decode_raw(t, "image", "", 0), DR_OK);
    assert_int_equal(decode_bin(t, "image", "", 0), DR_OK);
    assert_null(t->job->init.image.bytes);
}

/* --- Text ---------------------------------------------------------------------------- */

static void test_data_texts(void **state)
{
    fixture *t = *state;
    static const char *const good[] = {
        "data:image/png;base64," PNG64,
        "data:;base64," PNG64,
        "data:image/png;name=a.png;base64," PNG64,
    };
    static const char *const bad[] = {
        "data:image/png," PNG64, "data:image/png;base64", "data:",
        "data:base64," PNG64,    "data:,;base64",
    };
    for (size_t i = 0; i < DR_COUNT(good); i++) {
        assert_int_equal(decode_plain(t, "image", good[i], NULL), DR_OK);
        assert_picture(&t->job->init.image, BYTES(png));
    }
    for (size_t i = 0; i < DR_COUNT(bad); i++)
        assert_fails(t, decode_plain(t, "image", bad[i], NULL), "init_image",
                     "must be data:image/...;base64,...");
    assert_fails(
        t, decode_plain(t, "image", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", NULL),
        "init_image", "init_image: a GIF; send PNG, JPEG or WebP");
}

static void test_keys(void **state)
{
    fixture *t = *state;
    static const char *const good[] = {
        "input:job-1:init", "{darkroom}:input:job-1:mask.png",
        "P:input:17-0:a",   "a:b:input:c:d",
        "P:input:input:x",
    };
    static const char *const bad[] = {
        "input:",       "input::",         "input:a",        "input:a:",    "input::b",
        "input:a:b:c",  "P:input:a",       "input:a/b:c",    "input:a:b c", "input:a:b\n",
        "P :input:a:b", "P\x01:input:a:b", "\xff:input:a:b", "input:a:*",
    };
    char long_key[300];
    for (size_t i = 0; i < DR_COUNT(good); i++) {
        assert_int_equal(decode_plain(t, "image", good[i], NULL), DR_OK);
        assert_string_equal(t->job->init.image.key, good[i]);
        assert_int_equal(t->job->init.image.n, 0);
        assert_int_equal(t->job->task, DR_IMG2IMG);
    }
    for (size_t i = 0; i < DR_COUNT(bad); i++)
        assert_fails(t, decode_plain(t, "image", bad[i], NULL), "init_image",
                     "a key must be input:<id>:<name>");
    snprintf(long_key, sizeof long_key, "%0*d:input:a:b", 129, 0);
    assert_fails(t, decode_plain(t, "image", long_key, NULL), "init_image", "a key must");
    snprintf(long_key, sizeof long_key, "input:%0*d:b", DR_JOB_ID_MAX + 1, 0);
    assert_fails(t, decode_plain(t, "image", long_key, NULL), "init_image", "a key must");
    assert_fails(t, decode_raw(t, "image", BYTES("input:a:b\0c")), "init_image", "");
}

static void test_two_spellings(void **state)
{
    fixture *t = *state;
    assert_int_equal(
        decode_plain(t, "image", PNG64, "init_image", "data:image/png;base64," PNG64, NULL),
        DR_OK);
    assert_fails(t, decode_plain(t, "image", PNG64, "init_image", "input:a:b", NULL),
                 "init_image", "given as image and as init_image");
    assert_int_equal(decode_plain(t, "image", "input:a:b", "init_image", "input:a:b", NULL),
                     DR_OK);
    assert_fails(t, decode_plain(t, "image", "input:a:b", "init_image", "input:a:c", NULL),
                 "init_image", "different values");
}

/* --- What is refused ----------------------------------------------------------------- */

static void test_kinds(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *message; /* NULL: good */
    } cases[] = {
        { BYTES(png), NULL },
        { BYTES(jpeg), NULL },
        { BYTES(webp), NULL },
        { BYTES("GIF89a\1\0\1\0"), "init_image: a GIF; send PNG, JPEG or WebP" },
        { BYTES("GIF87a\1\0\1\0"), "a GIF" },
        { BYTES("BM\x36\0\0\0"), "a BMP" },
        { BYTES("II*\0\x08\0\0\0"), "a TIFF" },
        { BYTES("MM\0*\0\0\0\x08"), "a TIFF" },
        { BYTES("RIFF\x1a\0\0\0WAVEfmt "), "a RIFF file that is no WebP" },
        { BYTES("RIFF\x1a\0"), "a RIFF file" },
        { BYTES("\0\0\0\x20"
                "ftypavif\0"),
          "an AVIF" },
        { BYTES("\0\0\0\x20"
                "ftypheic\0"),
          "an HEIC or video file" },
        { BYTES("\0\0\0\x0cJXL \r\n"), "a JPEG XL" },
        { BYTES("\xff\x0a\0\0"), "a JPEG XL" },
        { BYTES("<svg xmlns=''>\0"), "an SVG or other XML" },
        { BYTES("%PDF-1.7\0"), "a PDF" },
        { BYTES("\x89PNG\r\n\x1a"), "no picture that is known here" },
        { BYTES("\xff\xd8"), "no picture that is known here" },
        { BYTES("\0"), "no picture that is known here" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        const char *message = cases[i].message;
        bool zero = memchr(cases[i].bytes, 0, cases[i].n);
        dr_status st = decode_bin(t, "image", cases[i].bytes, cases[i].n);
        if (!message)
            assert_int_equal(st, DR_OK);
        else
            assert_fails(t, st, "init_image", message);
        st = decode_raw(t, "image", cases[i].bytes, cases[i].n);
        if (message && zero)
            assert_fails(t, st, "init_image", message);
        else
            assert_int_equal(st == DR_OK, !message);
        st = dr_picture_check("mask", cases[i].bytes, cases[i].n, &t->err);
        assert_int_equal(st == DR_OK, !message);
    }
}

static void test_bad_pictures(void **state)
{
    static const struct {
        const char *json, *message;
    } cases[] = {
        { "5", "init_image 5: must be a picture: bytes, base64 or data: text" },
        { "true", "init_image true: must be a picture" },
        { "{'a':1}", "init_image {...}: must be a picture" },
        { "[['x']]", "init_image [...]: must be a picture" },
        { "['" PNG64 "','" PNG64 "']", "init_image of 2 pictures: must be one" },
        { "'http://example.org/a.png'", "an address; nothing is fetched" },
        { "'https://example.org/a.png'", "an address; nothing is fetched" },
        { "'iVBORw0KGgo'", "init_image: base64 of 11 characters is cut" },
        { "'iVBOR w0'", "character 5 ( ) is not base64" },
        { "'iVBOR\\u00e4w0'", "character 5 (?) is not base64" },
        { "'/home/me/a.png'", "character 10 (.) is not base64" },
        { "'aGVsbG8h'", "no picture that is known here; send PNG, JPEG or WebP" },
    };
    fixture *t = *state;
    char text[256];
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        snprintf(text, sizeof text, "{'prompt':'x','image':%s}", cases[i].json);
        assert_fails(t, decode_json(t, text), "init_image", cases[i].message);
    }
}

/* A picture of exactly the most bytes, and one more; in bytes and as base64. */
static void test_limits(void **state)
{
    fixture *t = *state;
    size_t most = DR_IMAGE_BYTES_MAX;
    char *bytes = dr_alloc(most + 1);
    memcpy(bytes, png, sizeof png);
    assert_int_equal(decode_bin(t, "image", bytes, most), DR_OK);
    assert_int_equal(t->job->init.image.n, most);
    assert_fails(t, decode_bin(t, "image", bytes, most + 1), "init_image",
                 "init_image of 33554433 bytes: must be at most 33554432");
    for (size_t more = 0; more < 2; more++) {
        dr_buf b = { 0 };
        dr_base64_put(&b, bytes, most + more);
        dr_status st = decode_raw(t, "image", b.data, b.len);
        dr_buf_free(&b);
        if (more)
            assert_fails(t, st, "init_image", "init_image of 33554433 bytes");
        else
            assert_int_equal(st, DR_OK);
    }
    dr_field both[] = { { "prompt", "x", 1 },
                        { "image", bytes, most },
                        { "mask", bytes, most - 16 } };
    assert_int_equal(decode(t, both, 3), DR_OK);
    both[2].len = most;
    assert_fails(t, decode(t, both, 3), "",
                 "job of more than 67108864 bytes with its pictures");
    dr_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_base64_vectors),
        TEST(test_base64_is_strict),
        TEST(test_base64_there_and_back),
        TEST(test_every_name),
        TEST(test_every_name_of_the_mask),
        TEST(test_fits),
        TEST(test_nothing),
        TEST(test_data_texts),
        TEST(test_keys),
        TEST(test_two_spellings),
        TEST(test_kinds),
        TEST(test_bad_pictures),
        TEST(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
