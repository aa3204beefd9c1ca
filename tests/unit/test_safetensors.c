#include "base/buf.h"
#include "base/file.h"
#include "nn/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* --- hand-made files --- */

static char dir[64];
static char file[128]; /* dir/m.safetensors */

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/safetensors.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/m.safetensors", dir);
    return 0;
}

static int drop_dir(void **state)
{
    static const char *const names[] = { "m.safetensors", "m.fp16.safetensors",
                                         "m.safetensors.index.json", "a.safetensors",
                                         "b.safetensors" };
    char path[256];
    (void)state;
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

/* A file image: header length, header, `bytes` of data counting 0, 1, 2, … */
static void image(dr_buf *out, const char *header, size_t bytes)
{
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++)
        dr_buf_put(out, &(char){ (char)((uint64_t)n >> 8 * i) }, 1);
    dr_buf_puts(out, header);
    for (size_t i = 0; i < bytes; i++)
        dr_buf_put(out, &(char){ (char)i }, 1);
}

static void write_as(const char *name, const char *header, size_t bytes)
{
    char path[256];
    dr_buf b = { 0 };
    snprintf(path, sizeof path, "%s/%s", dir, name);
    image(&b, header, bytes);
    assert_int_equal(dr_file_write(path, b.data, b.len, NULL), DR_OK);
    dr_buf_free(&b);
}

static void write_text(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(dr_file_write(path, text, strlen(text), NULL), DR_OK);
}

static void expect_error(dr_status st, const dr_err *err, const char *const *parts,
                         size_t n)
{
    assert_int_equal(st, err->code);
    for (size_t i = 0; i < n && parts[i]; i++)
        if (!strstr(err->message, parts[i]))
            fail_msg("'%s' is not in: %s", parts[i], err->message);
}

/* --- good files --- */

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
    "\"b.h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
    "\"c\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[28,30]},"
    "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[30,30]},"
    "\"ids\":{\"dtype\":\"I64\",\"shape\":[1,1],\"data_offsets\":[30,38]}}   ";

static void reads_every_field(void **state)
{
    dr_weights *w = NULL;
    (void)state;
    write_as("m.safetensors", good, 38);
    assert_int_equal(dr_weights_open_file(&w, file, NULL), DR_OK);
    assert_int_equal(dr_weights_count(w), 5);

    const dr_weight *a = dr_weights_find(w, "a"), *b = dr_weights_find(w, "b.h");
    const dr_weight *c = dr_weights_find(w, "c"), *none = dr_weights_find(w, "none");
    const dr_weight *ids = dr_weights_find(w, "ids");
    assert_ptr_equal(dr_weights_at(w, 0), a);
    assert_ptr_equal(dr_weights_at(w, 4), ids);
    assert_string_equal(a->name, "a");
    assert_string_equal(a->dtype, "F32");
    assert_int_equal(a->type, DR_WEIGHT_F32);
    assert_int_equal(a->ndim, 2);
    assert_int_equal(a->dim[0], 2);
    assert_int_equal(a->dim[1], 3);
    assert_int_equal(a->bytes, 24);
    assert_int_equal(((const uint8_t *)a->data)[0], 4);
    assert_int_equal(((const uint8_t *)a->data)[23], 27);
    assert_int_equal(b->type, DR_WEIGHT_F16);
    assert_int_equal(b->bytes, 4);
    assert_int_equal(((const uint8_t *)b->data)[0], 0);
    assert_int_equal(c->type, DR_WEIGHT_BF16);
    assert_int_equal(c->ndim, 0);
    assert_int_equal(c->bytes, 2);
    assert_int_equal(none->bytes, 0);
    assert_int_equal(ids->type, DR_WEIGHT_OTHER);
    assert_string_equal(ids->dtype, "I64");
    assert_null(dr_weights_find(w, "__metadata__"));
    assert_null(dr_weights_find(w, "A"));
    dr_weights_close(w);
}

static void tells_what_nobody_used(void **state)
{
    dr_weights *w = NULL;
    size_t cursor = 0;
    (void)state;
    write_as("m.safetensors", good, 38);
    assert_int_equal(dr_weights_open_file(&w, file, NULL), DR_OK);
    assert_non_null(dr_weights_use(w, "a"));
    assert_non_null(dr_weights_use(w, "c"));
    assert_non_null(dr_weights_use(w, "ids"));
    assert_null(dr_weights_use(w, "d"));
    assert_string_equal(dr_weights_unused(w, &cursor)->name, "b.h");
    assert_string_equal(dr_weights_unused(w, &cursor)->name, "none");
    assert_null(dr_weights_unused(w, &cursor));
    dr_weights_close(w);
}

static void finds_thousands_by_name(void **state)
{
    enum { N = 5000 };
    dr_weights *w = NULL;
    dr_buf h = { 0 };
    char name[32];
    (void)state;
    for (int i = 0; i < N; i++)
        dr_buf_printf(&h,
                      "%c\"blocks.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],"
                      "\"data_offsets\":[%d,%d]}",
                      i ? ',' : '{', i, i, i + 1);
    dr_buf_puts(&h, "}");
    write_as("m.safetensors", h.data, N);
    dr_buf_free(&h);
    assert_int_equal(dr_weights_open_file(&w, file, NULL), DR_OK);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blocks.%d.w", i);
        const dr_weight *t = dr_weights_find(w, name);
        assert_non_null(t);
        assert_int_equal(*(const uint8_t *)t->data, i & 255);
    }
    assert_null(dr_weights_find(w, "blocks.5000.w"));
    dr_weights_close(w);
}

/* --- broken files --- */

#define T(name, dtype, shape, span)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" span "}"
#define ONE(dtype, shape, span) "{" T("t", dtype, shape, span) "}"

static void refuses_broken_headers(void **state)
{
    static const struct {
        const char *header;
        const char *parts[4]; /* of the message */
    } rows[] = {
        { "", { "header", "not JSON" } },
        { "{\"t\":", { "header", "not JSON" } },
        { "{} x", { "trailing" } },
        { "[1]", { "not a JSON object" } },
        { "3", { "not a JSON object" } },
        { "{\"t\":3}", { "'t'", "not an object" } },
        { "{\"t\":{}}", { "'t'", "dtype ''" } },
        { ONE("F31", "[1]", "[0,4]"), { "'t'", "dtype 'F31'" } },
        { "{\"t\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", { "dtype ''" } },
        { ONE("F32", "4", "[0,16]"), { "'t'", "shape: not an array" } },
        { ONE("F32", "null", "[0,16]"), { "shape: not an array" } },
        { ONE("F32", "[-1]", "[0,4]"), { "'t'", "dimension 0 is -1" } },
        { ONE("F32", "[1,2.5]", "[0,4]"), { "dimension 1 is 2.5" } },
        { ONE("F32", "[\"4\"]", "[0,16]"), { "dimension 0" } },
        { ONE("F32", "[1e300]", "[0,4]"), { "dimension 0 is 1e+300" } },
        { ONE("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"),
          { "'t'", "9 dimensions", "at most 8" } },
        { ONE("F32", "[4294967296,4294967296]", "[0,4]"),
          { "'t'", "overflows at dimension 1 (4294967296)" } },
        { ONE("F64", "[4503599627370496,1024]", "[0,0]"), { "overflows" } },
        { ONE("F32", "[1]", "[0]"), { "'t'", "not two whole numbers" } },
        { ONE("F32", "[1]", "[0,4,8]"), { "not two whole numbers" } },
        { ONE("F32", "[1]", "[-4,0]"), { "not two whole numbers" } },
        { ONE("F32", "[1]", "\"0,4\""), { "not two whole numbers" } },
        { ONE("F32", "[1]", "[8,4]"), { "'t'", "[8, 4)", "64 data bytes" } },
        { ONE("F32", "[1]", "[64,68]"), { "[64, 68)", "64 data bytes" } },
        { ONE("F32", "[1]", "[9007199254740991,9007199254740992]"), { "64 data bytes" } },
        { ONE("F32", "[2]", "[0,4]"), { "'t'", "span of 4 bytes", "need 8" } },
        { ONE("F16", "[1]", "[0,4]"), { "span of 4 bytes", "need 2" } },
        { "{" T("a", "F32", "[4]", "[0,16]") "," T("b", "F32", "[2]", "[12,20]") "}",
          { "tensor 'b'", "12 bytes into 'a'", "has 16" } },
        { "{" T("b", "F32", "[2]", "[0,8]") "," T("a", "F32", "[2]", "[0,8]") "}",
          { "0 bytes into", "has 8" } },
        { "{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}",
          { "tensor 'a' is already in", "m.safetensors" } },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_weights *w = NULL;
        dr_err err = { 0 };
        write_as("m.safetensors", rows[i].header, 64);
        dr_status st = dr_weights_open_file(&w, file, &err);
        assert_int_equal(st, DR_EMODEL);
        assert_null(w);
        assert_non_null(strstr(err.message, file));
        expect_error(st, &err, rows[i].parts, 4);
        assert_int_equal(dr_weights_open_file(&w, file, NULL), DR_EMODEL);
    }
}

static void refuses_impossible_header_lengths(void **state)
{
    static const struct {
        uint64_t length;
        const char *parts[3];
    } rows[] = {
        { UINT64_MAX, { "18446744073709551615", "the limit is 100000000" } },
        { 100000001, { "100000001", "the limit is 100000000" } },
        { 100000000, { "100000000 bytes in a file of 16" } },
        { 9, { "header of 9 bytes in a file of 16" } },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        char bytes[17] = "........{}      ";
        dr_weights *w = NULL;
        dr_err err = { 0 };
        for (int k = 0; k < 8; k++)
            bytes[k] = (char)(rows[i].length >> 8 * k);
        assert_int_equal(dr_file_write(file, bytes, 16, NULL), DR_OK);
        dr_status st = dr_weights_open_file(&w, file, &err);
        assert_int_equal(st, DR_EMODEL);
        expect_error(st, &err, rows[i].parts, 3);
    }
}

/* Every shorter file is an error, none a crash; the whole one opens. */
static void refuses_every_truncation(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    image(&b, good, 38);
    for (size_t n = 0; n <= b.len; n++) {
        dr_weights *w = NULL;
        dr_err err = { 0 };
        assert_int_equal(dr_file_write(file, b.data, n, NULL), DR_OK);
        dr_status st = dr_weights_open_file(&w, file, &err);
        if (n == b.len)
            assert_int_equal(st, DR_OK);
        else
            assert_int_equal(st, n ? DR_EMODEL : DR_EIO);
        dr_weights_close(w);
    }
    dr_buf_free(&b);
}

/* --- which file --- */

static void expect_only(const char *name)
{
    dr_weights *w = NULL;
    assert_int_equal(dr_weights_open(&w, dir, "m", NULL), DR_OK);
    assert_int_equal(dr_weights_count(w), 1);
    assert_non_null(dr_weights_find(w, name));
    dr_weights_close(w);
}

static void picks_files_in_order(void **state)
{
    static const char *const names[] = { "m.safetensors", "m.fp16.safetensors",
                                         "index.json" };
    dr_weights *w = NULL;
    dr_err err = { 0 };
    (void)state;
    dr_status st = dr_weights_open(&w, dir, "m", &err);
    assert_int_equal(st, DR_ENOTFOUND);
    expect_error(st, &err, names, 3);

    write_as("a.safetensors", "{" T("shard", "U8", "[1]", "[0,1]") "}", 1);
    write_text("m.safetensors.index.json",
               "{\"weight_map\":{\"shard\":\"a.safetensors\"}}");
    expect_only("shard");
    write_as("m.fp16.safetensors", "{" T("fp16", "U8", "[1]", "[0,1]") "}", 1);
    expect_only("fp16");
    write_as("m.safetensors", "{" T("plain", "U8", "[1]", "[0,1]") "}", 1);
    expect_only("plain");
}

static void joins_shards(void **state)
{
    dr_weights *w = NULL;
    (void)state;
    write_as("a.safetensors",
             "{" T("x", "U8", "[2]", "[0,2]") "," T("y", "U8", "[1]", "[2,3]") "}", 3);
    write_as("b.safetensors", "{" T("z", "U8", "[1]", "[3,4]") "}", 4);
    write_text("m.safetensors.index.json",
               "{\"metadata\":{\"total_size\":4},\"weight_map\":{\"x\":\"a.safetensors\","
               "\"z\":\"b.safetensors\",\"y\":\"a.safetensors\"}}");
    assert_int_equal(dr_weights_open(&w, dir, "m", NULL), DR_OK);
    assert_int_equal(dr_weights_count(w), 3);
    assert_int_equal(*(const uint8_t *)dr_weights_find(w, "y")->data, 2);
    assert_int_equal(*(const uint8_t *)dr_weights_find(w, "z")->data, 3);
    dr_weights_close(w);
}

static void refuses_broken_indexes(void **state)
{
    static const struct {
        const char *index;
        dr_status code;
        const char *parts[3];
    } rows[] = {
        { "{", DR_EMODEL, { "index.json", "not JSON" } },
        { "{}", DR_EMODEL, { "weight_map is missing" } },
        { "{\"weight_map\":[\"a.safetensors\"]}", DR_EMODEL, { "not an object" } },
        { "{\"weight_map\":{}}", DR_EMODEL, { "lists no tensor" } },
        { "{\"weight_map\":{\"x\":3}}", DR_EMODEL, { "'x'", "not a plain file name" } },
        { "{\"weight_map\":{\"x\":\"\"}}", DR_EMODEL, { "not a plain file name" } },
        { "{\"weight_map\":{\"x\":\"..\"}}",
          DR_EMODEL,
          { "'..'", "not a plain file name" } },
        { "{\"weight_map\":{\"x\":\"../a.safetensors\"}}",
          DR_EMODEL,
          { "'../a.safetensors'" } },
        { "{\"weight_map\":{\"x\":\"/etc/passwd\"}}", DR_EMODEL, { "'/etc/passwd'" } },
        { "{\"weight_map\":{\"x\":\"c.safetensors\"}}", DR_ENOTFOUND, { "c.safetensors" } },
        { "{\"weight_map\":{\"w\":\"a.safetensors\"}}",
          DR_EMODEL,
          { "'w' is not in its shard", "a.safetensors" } },
        { "{\"weight_map\":{\"x\":\"b.safetensors\",\"z\":\"a.safetensors\"}}",
          DR_EMODEL,
          { "'x' is not in its shard", "b.safetensors" } },
    };
    (void)state;
    write_as("a.safetensors", "{" T("x", "U8", "[1]", "[0,1]") "}", 1);
    write_as("b.safetensors", "{" T("z", "U8", "[1]", "[0,1]") "}", 1);
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_weights *w = NULL;
        dr_err err = { 0 };
        write_text("m.safetensors.index.json", rows[i].index);
        dr_status st = dr_weights_open(&w, dir, "m", &err);
        assert_int_equal(st, rows[i].code);
        expect_error(st, &err, rows[i].parts, 3);
        assert_int_equal(dr_weights_open(&w, dir, "m", NULL), rows[i].code);
    }
}

static void refuses_a_tensor_in_two_shards(void **state)
{
    static const char *const parts[] = { "tensor 'x' is already in", "a.safetensors",
                                         "b.safetensors" };
    dr_weights *w = NULL;
    dr_err err = { 0 };
    (void)state;
    write_as("a.safetensors", "{" T("x", "U8", "[1]", "[0,1]") "}", 1);
    write_as("b.safetensors",
             "{" T("x", "U8", "[1]", "[0,1]") "," T("y", "U8", "[1]", "[1,2]") "}", 2);
    write_text("m.safetensors.index.json",
               "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}");
    dr_status st = dr_weights_open(&w, dir, "m", &err);
    assert_int_equal(st, DR_EMODEL);
    expect_error(st, &err, parts, 3);
}

/* --- number formats --- */

static void halves_become_floats(void **state)
{
    static const struct {
        uint16_t bits;
        float value;
    } half[] = { { 0x0000, 0 },
                 { 0x3c00, 1 },
                 { 0xc000, -2 },
                 { 0x3555, 0.33325195f },
                 { 0x7bff, 65504 },
                 { 0x0400, 6.1035156e-5f },
                 { 0x0001, 5.9604645e-8f },
                 { 0x83ff, -6.0975552e-5f } };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(half); i++)
        assert_true(dr_half_to_float(half[i].bits) == half[i].value);
    assert_true(signbit(dr_half_to_float(0x8000)));
    assert_true(isinf(dr_half_to_float(0x7c00)) && dr_half_to_float(0xfc00) < 0);
    assert_true(isnan(dr_half_to_float(0x7e00)));
    assert_true(dr_bf16_to_float(0x3f80) == 1.0f);
    assert_true(dr_bf16_to_float(0xc2f7) == -123.5f);
    assert_true(isinf(dr_bf16_to_float(0x7f80)));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reads_every_field),
        TEST(tells_what_nobody_used),
        TEST(finds_thousands_by_name),
        TEST(refuses_broken_headers),
        TEST(refuses_impossible_header_lengths),
        TEST(refuses_every_truncation),
        TEST(picks_files_in_order),
        TEST(joins_shards),
        TEST(refuses_broken_indexes),
        TEST(refuses_a_tensor_in_two_shards),
        cmocka_unit_test(halves_become_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
