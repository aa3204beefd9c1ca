#include "test_job.h"

#include "base/json.h"
#include "base/mem.h"
#include "job/events.h"

#include <math.h>
#include <stdlib.h>

/* The exact text of every event: clients parse it. */

#define HEAD(event)                                                                        \
    "{\"event\":\"" event "\",\"id\":\"17-0\",\"seq\":5,\"worker\":\"gpu \\\"1\\\"\","     \
    "\"ts_ms\":1764000000123,\"meta\":{\"user\":7}"

static const dr_event_head head = {
    .id = "17-0",
    .seq = 5,
    .worker = "gpu \"1\"",
    .ts_ms = 1764000000123,
    .meta_json = "{\"user\":7}",
};

static const dr_event_picture pictures[] = {
    { 0, 42, 512, 768, 18320, "webp", "{darkroom}:result:17-0:0", false },
    { 1, UINT64_MAX, 512, 768, 17000, "png", "{darkroom}:result:17-0:1", true },
};

static void test_events_without_members(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_queued(&b, &head);
    assert_string_equal(b.data, HEAD("queued") "}");
    dr_event_canceled(&b, &head);
    assert_string_equal(b.data, HEAD("canceled") "}");
    dr_event_expired(&b, &head);
    assert_string_equal(b.data, HEAD("expired") "}");
    dr_event_head no_meta = head;
    no_meta.meta_json = NULL;
    dr_event_expired(&b, &no_meta);
    assert_non_null(strstr(b.data, ",\"meta\":null}"));
    dr_buf_free(&b);
}

static void test_started(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_started(&b, &head, &(dr_event_start){ "tiny", "pocl", 512, 768, 2, 1 });
    assert_string_equal(b.data, HEAD("started") ",\"model\":\"tiny\",\"device\":\"pocl\","
                                                "\"width\":512,\"height\":768,\"n\":2,"
                                                "\"attempt\":1}");
    dr_buf_free(&b);
}

static void test_progress(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_progress(&b, &head, &(dr_event_step){ "denoise", 7, 20, 36.5, 1.25, 10.4 });
    assert_string_equal(b.data, HEAD("progress") ",\"phase\":\"denoise\",\"step\":7,"
                                                 "\"steps\":20,\"percent\":36.5,"
                                                 "\"it_s\":1.25,\"eta_s\":10.4}");
    dr_event_progress(&b, &head, &(dr_event_step){ "load", 0, 0, 0, NAN, INFINITY });
    assert_non_null(strstr(b.data, "\"it_s\":null,\"eta_s\":null}"));
    dr_buf_free(&b);
}

static void test_preview_and_image(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_preview(&b, &head, &(dr_event_peek){ 4, 64, 96, NULL });
    assert_string_equal(b.data, HEAD("preview") ",\"step\":4,\"width\":64,\"height\":96}");
    dr_event_preview(&b, &head, &(dr_event_peek){ 4, 64, 96, "k" });
    assert_string_equal(
        b.data, HEAD("preview") ",\"step\":4,\"width\":64,\"height\":96,\"key\":\"k\"}");
    dr_event_image(&b, &head, &pictures[0]);
    assert_string_equal(
        b.data, HEAD("image") ",\"index\":0,\"seed\":42,\"width\":512,"
                              "\"height\":768,\"bytes\":18320,"
                              "\"format\":\"webp\",\"key\":\"{darkroom}:result:17-0:0\"}");
    dr_buf_free(&b);
}

static void test_seeds(void **state)
{
    static const struct {
        uint64_t seed;
        const char *text;
    } cases[] = {
        { 0, "\"seed\":0," },
        { 9007199254740991ull, "\"seed\":9007199254740991," },
        { 9007199254740992ull, "\"seed\":\"9007199254740992\"," },
        { UINT64_MAX, "\"seed\":\"18446744073709551615\"," },
    };
    dr_buf b = { 0 };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_event_image(&b, &head, &(dr_event_picture){ .seed = cases[i].seed, .key = "k" });
        assert_non_null(strstr(b.data, cases[i].text));
    }
    dr_buf_free(&b);
}

static const dr_event_success success = {
    .model = "tiny",
    .sampler = DR_SAMPLER_DPMPP_2M,
    .schedule = DR_SCHEDULE_KARRAS,
    .steps = 20,
    .cfg_scale = 7.5,
    .width = 512,
    .height = 768,
    .seed = 42,
    .images = pictures,
    .n_images = 2,
    .times = { 10, 0, 120, 8000, 900, 60, 9090 },
    .warnings = (const char *const[]){ "unknown field ignored: foo", "a \"b\"" },
    .n_warnings = 2,
};

static void test_succeeded(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_succeeded(&b, &head, &success);
    assert_string_equal(
        b.data,
        HEAD("succeeded") ",\"model\":\"tiny\",\"sampler\":\"dpmpp_2m\",\"schedule\":"
                          "\"karras\","
                          "\"steps\":20,\"cfg_scale\":7.5,\"width\":512,\"height\":768,"
                          "\"seed\":42,\"images\":["
                          "{\"index\":0,\"seed\":42,\"width\":512,\"height\":768,"
                          "\"bytes\":18320,\"format\":\"webp\",\"key\":\"{darkroom}:result:"
                          "17-0:0\"},"
                          "{\"index\":1,\"seed\":\"18446744073709551615\",\"width\":512,"
                          "\"height\":768,\"bytes\":17000,"
                          "\"format\":\"png\",\"key\":\"{darkroom}:result:17-0:1\","
                          "\"sheet\":true}],"
                          "\"timings\":{\"wait\":10,\"load\":0,\"encode\":120,"
                          "\"denoise\":8000,\"decode\":900,\"compress\":60,\"total\":9090},"
                          "\"warnings\":[\"unknown field ignored: foo\",\"a \\\"b\\\"\"]}");
    dr_event_success none = success;
    none.n_images = none.n_warnings = 0;
    dr_event_succeeded(&b, &head, &none);
    assert_non_null(strstr(b.data, "\"images\":[],"));
    assert_non_null(strstr(b.data, "\"warnings\":[]}"));
    dr_buf_free(&b);
}

static void test_failed_and_warning(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_failed(&b, &head, &(dr_event_failure){ "invalid", "width", "width 7: no" });
    assert_string_equal(b.data, HEAD("failed") ",\"code\":\"invalid\",\"field\":\"width\","
                                               "\"message\":\"width 7: no\"}");
    dr_event_failed(&b, &head, &(dr_event_failure){ "device", "", "build log:\n\t\x01" });
    assert_string_equal(b.data, HEAD("failed") ",\"code\":\"device\",\"message\":"
                                               "\"build log:\\n\\u0009\\u0001\"}");
    dr_event_warning(&b, &head, "slow");
    assert_string_equal(b.data, HEAD("warning") ",\"message\":\"slow\"}");
    dr_buf_free(&b);
}

/* Messages come from drivers and files: the event is valid JSON and UTF-8 all the same. */
static void test_texts_that_are_not_utf8(void **state)
{
    dr_buf b = { 0 };
    dr_json *j = NULL;
    dr_err err;
    (void)state;
    dr_event_warning(&b, &head,
                     "a\xff"
                     "b \xe2\x82");
    assert_non_null(strstr(b.data, "\"message\":\"a?b ??\"}"));
    char *text = dr_alloc(3 * DR_EVENT_TEXT_MAX + 1);
    for (int i = 0; i < DR_EVENT_TEXT_MAX; i++)
        memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    dr_event_warning(&b, &head, text);
    assert_int_equal(dr_json_parse(&j, b.data, b.len, &err), DR_OK);
    assert_int_equal(strlen(dr_json_get_string(j, "message", "")),
                     DR_EVENT_TEXT_MAX / 3 * 3); /* no half character */
    dr_json_free(j);
    dr_free(text);
    dr_buf_free(&b);
}

static void test_a_warm_buffer_allocates_nothing(void **state)
{
    dr_buf b = { 0 };
    (void)state;
    dr_event_succeeded(&b, &head, &success);
    uint64_t before = dr_alloc_count();
    for (int i = 0; i < 100; i++) {
        dr_event_progress(&b, &head,
                          &(dr_event_step){ "denoise", i, 100, i, 1.5, 100 - i });
        dr_event_succeeded(&b, &head, &success);
        dr_event_image(&b, &head, &pictures[1]);
    }
    assert_int_equal(dr_alloc_count(), before);
    assert_false(b.failed);
    dr_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_without_members),
        cmocka_unit_test(test_started),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_preview_and_image),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_succeeded),
        cmocka_unit_test(test_failed_and_warning),
        cmocka_unit_test(test_texts_that_are_not_utf8),
        cmocka_unit_test(test_a_warm_buffer_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
