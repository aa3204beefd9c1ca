#include "base/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static dr_json *parse(const char *text)
{
    dr_json *j = NULL;
    dr_err err = { 0 };
    if (dr_json_parse(&j, text, strlen(text), &err))
        fail_msg("%s", err.message);
    return j;
}

static void test_read(void **state)
{
    (void)state;
    dr_json *j =
        parse(" {\"n\": -1.5e2, \"s\": \"caf\\u00e9\\n\", \"t\": true, \"z\": null,"
              " \"a\": [1, \"two\", {}], \"N\": 7}\n");
    assert_int_equal(dr_json_type(j), DR_JSON_OBJECT);
    assert_int_equal(dr_json_count(j), 6);
    assert_true(dr_json_get_number(j, "n", 0) == -150);
    assert_true(dr_json_get_number(j, "N", 0) == 7); /* keys differ by case */
    assert_string_equal(dr_json_get_string(j, "s", ""), "caf\xc3\xa9\n");
    assert_true(dr_json_get_bool(j, "t", false));
    const dr_json *a = dr_json_get(j, "a");
    assert_int_equal(dr_json_type(a), DR_JSON_ARRAY);
    assert_int_equal(dr_json_count(a), 3);
    assert_string_equal(dr_json_string(dr_json_at(a, 1)), "two");
    assert_int_equal(dr_json_type(dr_json_at(a, 2)), DR_JSON_OBJECT);
    assert_null(dr_json_at(a, 3));
    dr_json_free(j);
    dr_json_free(NULL);
}

static void test_fallbacks(void **state)
{
    (void)state;
    dr_json *j = parse("{\"s\": \"x\", \"n\": 1, \"z\": null}");
    assert_true(dr_json_get_number(j, "s", 5) == 5); /* of another type */
    assert_true(dr_json_get_number(j, "z", 5) == 5);
    assert_true(dr_json_get_number(j, "none", 5) == 5);
    assert_true(dr_json_get_bool(j, "n", true));
    assert_string_equal(dr_json_get_string(j, "n", "f"), "f");
    assert_null(dr_json_get_string(NULL, "n", NULL));
    assert_null(dr_json_string(dr_json_get(j, "n")));
    assert_true(isnan(dr_json_number(dr_json_get(j, "s"))));
    assert_int_equal(dr_json_type(dr_json_get(j, "z")), DR_JSON_NULL);
    assert_int_equal(dr_json_type(NULL), DR_JSON_NULL);
    assert_int_equal(dr_json_count(NULL), 0);
    dr_json_free(j);
}

static void test_walk(void **state)
{
    (void)state;
    dr_json *j = parse("{\"a\": 1, \"b\": 2, \"c\": 3}");
    char keys[8] = "";
    double sum = 0;
    for (const dr_json *i = dr_json_first(j); i; i = dr_json_next(i)) {
        keys[strlen(keys)] = *dr_json_key(i);
        sum += dr_json_number(i);
    }
    assert_string_equal(keys, "abc");
    assert_true(sum == 6);
    dr_json_free(j);
    j = parse("[9]");
    assert_string_equal(dr_json_key(dr_json_first(j)), "");
    dr_json_free(j);
    assert_null(dr_json_first(NULL));
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const rows[] = { "",      "{",   "{\"a\":1", "[1,]",
                                        "{a:1}", "1 2", "{} x",     "\"open",
                                        "nul",   "[",   "{\"a\"}" };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_json *j = NULL;
        dr_err err = { 0 };
        if (dr_json_parse(&j, rows[i], strlen(rows[i]), &err) != DR_EINVAL)
            fail_msg("\"%s\" was taken", rows[i]);
        assert_non_null(strstr(err.message, "not JSON"));
        assert_null(j);
    }
    /* Only the n bytes given are read. */
    dr_json *j = NULL;
    dr_err err = { 0 };
    assert_int_equal(dr_json_parse(&j, "12}", 2, &err), DR_OK);
    assert_true(dr_json_number(j) == 12);
    dr_json_free(j);
    /* Deep nesting is an error, not a crash. */
    char deep[20001];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_int_equal(dr_json_parse(&j, deep, sizeof deep - 1, &err), DR_EINVAL);
}

static void test_files(void **state)
{
    (void)state;
    dr_json *j = NULL;
    dr_err err = { 0 };
    assert_int_equal(dr_json_read(&j, "/no/such/file.json", &err), DR_ENOTFOUND);
    assert_non_null(strstr(err.message, "/no/such/file.json"));
}

static void test_write(void **state)
{
    (void)state;
    dr_buf b = { 0 };
    dr_json_put_string(&b, "a \"b\" \\ \n\t\x01 caf\xc3\xa9");
    assert_string_equal(b.data, "\"a \\\"b\\\" \\\\ \\n\\u0009\\u0001 caf\xc3\xa9\"");
    dr_buf_clear(&b);
    static const struct {
        double v;
        const char *text;
    } rows[] = {
        { 0, "0" },      { 42, "42" },
        { -7, "-7" },    { 1e12, "1000000000000" },
        { 0.5, "0.5" },  { 3.14159265, "3.14159" },
        { NAN, "null" }, { INFINITY, "null" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_json_put_number(&b, rows[i].v);
        assert_string_equal(b.data, rows[i].text);
        dr_buf_clear(&b);
    }
    dr_json *j = parse("{ \"a\" : [ 1, \"x\\\"\", null ], \"b\" : { } }");
    dr_json_put(&b, j);
    assert_string_equal(b.data, "{\"a\":[1,\"x\\\"\",null],\"b\":{}}");
    dr_json_free(j);
    dr_buf_free(&b);
}

/* What the writer makes, the reader takes back unchanged. */
static void test_round_trip(void **state)
{
    (void)state;
    char text[256];
    int n = 0;
    for (int c = 1; c < 128; c++)
        text[n++] = (char)c;
    text[n] = 0;
    dr_buf b = { 0 };
    dr_json_put_string(&b, text);
    dr_json *j = parse(b.data);
    assert_string_equal(dr_json_string(j), text);
    dr_json_free(j);
    dr_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),       cmocka_unit_test(test_fallbacks),
        cmocka_unit_test(test_walk),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_files),      cmocka_unit_test(test_write),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
