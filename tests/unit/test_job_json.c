#include "test_job.h"

#include "base/mem.h"
#include "base/rng.h"

#include <stdio.h>

/* Hostile JSON, and how the three shapes go together. */

static const char valid[] =
    "{\"id\":\"job-1\",\"prompt\":\"gr\\u00fcn \\ud83d\\ude00 \\\"x\\\"\",\"width\":512,"
    "\"steps\":2e1,\"cfg\":7.5,\"seed\":\"18446744073709551615\",\"karras\":true,"
    "\"image\":null,\"output\":{\"quality\":80},\"meta\":{\"user\":1234567890123456789,"
    "\"t\":[-0.1,1e3,{}],\"s\":\"\\u0001/\\/\"}}";

static void test_a_valid_object(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_as(t, "json", valid, sizeof valid - 1), DR_OK);
    assert_string_equal(t->job->id, "job-1");
    assert_string_equal(t->job->prompt, "gr\xc3\xbcn \xf0\x9f\x98\x80 \"x\"");
    assert_int_equal(t->job->width, 512);
    assert_int_equal(t->job->steps, 20);
    assert_true(t->job->cfg_scale == 7.5);
    assert_true(t->job->seed == UINT64_MAX);
    assert_int_equal(t->job->output.quality, 80);
    assert_string_equal(t->job->meta_json,
                        "{\"user\":1234567890123456789,\"t\":[-0.1,1000,{}],"
                        "\"s\":\"\\u0001//\"}");
}

static void test_every_prefix(void **state)
{
    fixture *t = *state;
    for (size_t n = 0; n < sizeof valid - 1; n++) {
        char *part = dr_alloc(n + 1), *exact = dr_resize(part, n ? n : 1);
        memcpy(exact, valid, n);
        assert_int_equal(decode_as(t, "json", exact, n), DR_EINVAL);
        assert_non_null(strstr(t->err.message, "JSON"));
        dr_free(exact);
    }
}

static void test_bad_text(void **state)
{
    static const struct {
        const char *text, *field, *message;
    } cases[] = {
        { "[]", "json", "must be an object" },
        { "'x'", "json", "must be an object" },
        { "20", "json", "must be an object" },
        { "", "json", "not JSON" },
        { "{'prompt':'x'} x", "json", "trailing text" },
        { "{'prompt':'x'}{}", "json", "trailing text" },
        { "{'prompt':'x',}", "json", "not JSON" },
        { "{'prompt':'x' 'n':1}", "json", "not JSON" },
        { "{prompt:'x'}", "json", "not JSON" },
        { "{'prompt':'x\\u0000y'}", "prompt", "a NUL" },
        { "{'n':1,'prompt':['x\\u0000y']}", "prompt", "a NUL" },
        { "{'prompt':'x\ny'}", "prompt", "control byte" },
        { "{'prompt':'\\ud800'}", "json", "not JSON" },
        { "{'prompt':'\\x41'}", "json", "not JSON" },
        { "{'n':01}", "n", "not a number" },
        { "{'n':+1}", "n", "not a number" },
        { "{'n':.5}", "n", "not a number" },
        { "{'n':1.}", "n", "not a number" },
        { "{'n':1e}", "n", "not a number" },
        { "{'n':-}", "n", "not a number" },
        { "{'n':1-2}", "json", "not JSON" },
        { "{'n':0x10}", "json", "not JSON" },
        { "{'n':Infinity}", "json", "not JSON" },
        { "{'n':-Infinity}", "n", "not a number" },
        { "{'n':TRUE}", "json", "not JSON" },
        { "{'steps':1,'steps':1}", "steps", "given twice" },
        { "{'meta':{'k':1,'k':2}}", "k", "given twice" },
        { "{'st\\u0065ps':1,'steps':1}", "steps", "given twice" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++)
        assert_fails(t, decode_json(t, cases[i].text), cases[i].field, cases[i].message);
    assert_fails(t, decode_as(t, "json", "{\"prompt\":\"x\"}\0", 15), "json", "a NUL");
    assert_fails(t, decode_as(t, "json", "{\"prompt\":\"r\xff\"}", 15), "prompt",
                 "byte 1 is not UTF-8");
    assert_fails(t, decode_as(t, "json", "{\"\xff\":1}", 7), "?", "must be UTF-8");
}

static dr_status decode_nested(fixture *t, int depth, char open, char close)
{
    dr_buf b = { 0 };
    dr_buf_puts(&b, "{\"prompt\":\"x\",\"m\":");
    for (int i = 1; i < depth; i++)
        dr_buf_puts(&b, open == '[' ? "[" : i + 1 < depth ? "{\"k\":" : "{");
    for (int i = 1; i < depth && close; i++)
        dr_buf_put(&b, &close, 1);
    dr_buf_puts(&b, "}");
    dr_status st = decode_as(t, "json", b.data, b.len);
    dr_buf_free(&b);
    return st;
}

static void test_depth(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_nested(t, DR_JOB_DEPTH_MAX, '[', ']'), DR_OK);
    assert_int_equal(decode_nested(t, DR_JOB_DEPTH_MAX, '{', '}'), DR_OK);
    assert_fails(t, decode_nested(t, DR_JOB_DEPTH_MAX + 1, '[', ']'), "m", "deeper than 8");
    assert_fails(t, decode_nested(t, DR_JOB_DEPTH_MAX + 1, '{', '}'), "m", "deeper than 8");
    assert_fails(t, decode_nested(t, 200000, '[', 0), "m", "deeper than 8");
    assert_int_equal(decode_json(t, "{'prompt':'[[[[[[[[[[{{{{{{'}"), DR_OK);
}

static void test_number_of_values(void **state)
{
    fixture *t = *state;
    for (int more = 0; more < 2; more++) {
        dr_buf b = { 0 };
        dr_buf_puts(&b, "{\"prompt\":\"x\",\"m\":[1");
        for (int i = 1; i < DR_JOB_OBJECTS_MAX - 5 + more; i++)
            dr_buf_puts(&b, ",1");
        dr_buf_puts(&b, "]}");
        dr_status st = decode_as(t, "json", b.data, b.len);
        dr_buf_free(&b);
        if (more)
            assert_fails(t, st, "json", "more than 4096 values");
        else
            assert_int_equal(st, DR_OK);
    }
}

/* {"prompt": "x", "m": "aaa…"} with names and texts of n bytes. */
static dr_status decode_sized(fixture *t, size_t n, const char *name)
{
    dr_buf b = { 0 };
    size_t length = n - strlen("promptx") - strlen(name);
    char *text = dr_alloc(length + 1);
    memset(text, 'A', length);
    dr_buf_printf(&b, "{\"prompt\":\"x\",\"%s\":\"%s\"}", name, text);
    dr_free(text);
    dr_status st = decode_as(t, "json", b.data, b.len);
    dr_buf_free(&b);
    return st;
}

/* What a job says itself is bounded closely, it with its pictures widely. */
static void test_size(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_sized(t, DR_JOB_BYTES_MAX, "m"), DR_OK);
    assert_fails(t, decode_sized(t, DR_JOB_BYTES_MAX + 1, "m"), "",
                 "job of more than 1048576 bytes without its pictures");
    assert_fails(t, decode_sized(t, 3 << 20, "prompt_2"), "", "more than 1048576 bytes");
    assert_fails(t, decode_sized(t, 4 << 20, "image"), "init_image",
                 "no picture that is known here");
    assert_fails(t, decode_sized(t, DR_ENTRY_BYTES_MAX + 1, "image"), "",
                 "job of more than 67108864 bytes with its pictures");
}

/* Plain fields and a map make one job. */
static void test_shapes_together(void **state)
{
    fixture *t = *state;
    dr_field both[] = {
        { "json", "{\"prompt\":\"x\",\"n\":2}", 20 },
        { "id", "a", 1 },
        { "steps", "5", 1 },
    };
    assert_int_equal(decode(t, both, 3), DR_OK);
    assert_string_equal(t->job->id, "a");
    assert_int_equal(t->job->steps, 5);
    assert_int_equal(t->job->n, 2);
    both[2] = (dr_field){ "num_images", "3", 1 };
    assert_fails(t, decode(t, both, 3), "n", "given as n and as num_images");
    both[2] = (dr_field){ "job", "\x80", 1 };
    assert_fails(t, decode(t, both, 3), "job", "send one");
    both[2] = (dr_field){ "json", "{}", 2 };
    assert_fails(t, decode(t, both, 3), "job", "given 2 times");
    assert_fails(t, decode(t, NULL, 0), "prompt", "missing");
}

/* Plain text of meta is JSON when it can be read as JSON, else a string. */
static void test_plain_meta(void **state)
{
    static const char *const cases[][2] = {
        { "{\"a\": 1}", "{\"a\":1}" }, { "7", "7" },   { "user 7", "\"user 7\"" },
        { "{broken", "\"{broken\"" },  { "", "\"\"" }, { "true", "true" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        assert_int_equal(decode_plain(t, "meta", cases[i][0], NULL), DR_OK);
        assert_string_equal(t->job->meta_json, cases[i][1]);
    }
    assert_int_equal(decode_json(t, "{'prompt':'x','meta':'{}'}"), DR_OK);
    assert_string_equal(t->job->meta_json, "\"{}\"");
}

/* What meta becomes is JSON that reads back as itself. */
static void assert_meta_is_stable(fixture *t)
{
    dr_buf first = { 0 };
    if (!t->job->meta_json)
        return;
    dr_buf_puts(&first, t->job->meta_json);
    assert_int_equal(decode_plain(t, "meta", first.data, NULL), DR_OK);
    assert_string_equal(t->job->meta_json, first.data);
    dr_buf_free(&first);
}

static void test_mutations(void **state)
{
    static const char alphabet[] = "{}[]\",:\\0123456789.-+eEu \tntfx\x01\x80\xff";
    fixture *t = *state;
    char b[512];
    int accepted = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        size_t n = mutate(b, valid, alphabet, i, 99);
        if (decode_as(t, "json", b, n) == DR_OK) {
            accepted++;
            assert_meta_is_stable(t);
        }
    }
    assert_in_range(accepted, 5000, 190000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_valid_object),  TEST(test_every_prefix),     TEST(test_bad_text),
        TEST(test_depth),           TEST(test_number_of_values), TEST(test_size),
        TEST(test_shapes_together), TEST(test_plain_meta),       TEST(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
