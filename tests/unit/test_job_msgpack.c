#include "test_job_pack.h"

#include "base/mem.h"
#include "base/rng.h"
#include "job/msgpack.h"

#include <stdio.h>

/* Hostile msgpack: whatever the bytes are, the answer is a job or an error that says what
 * is wrong, and nothing large is allocated for a small message. */

static const char jpeg[8] = "\xff\xd8\xff\xe0\0\x10JF";

/* A message with every msgpack type in it that is accepted. */
static void pack_valid(dr_buf *b)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, b, write_buf);
    msgpack_pack_map(&pk, 13);
    pack_text(&pk, "id");
    pack_text(&pk, "job-1");
    pack_text(&pk, "prompt");
    pack_text(&pk, "a red circle on a blue background, in the style of a poster");
    pack_text(&pk, "width");
    msgpack_pack_int(&pk, 512);
    pack_text(&pk, "steps");
    msgpack_pack_double(&pk, 20.0);
    pack_text(&pk, "cfg");
    msgpack_pack_float(&pk, 7.5f);
    pack_text(&pk, "seed");
    msgpack_pack_uint64(&pk, 18446744073709551615ull);
    pack_text(&pk, "karras");
    msgpack_pack_true(&pk);
    pack_text(&pk, "image");
    msgpack_pack_nil(&pk);
    pack_text(&pk, "init_image");
    msgpack_pack_bin(&pk, sizeof jpeg);
    msgpack_pack_bin_body(&pk, jpeg, sizeof jpeg);
    pack_text(&pk, "loras");
    msgpack_pack_map(&pk, 1);
    pack_text(&pk, "l");
    msgpack_pack_double(&pk, 0.5);
    pack_text(&pk, "controls");
    msgpack_pack_array(&pk, 1);
    msgpack_pack_map(&pk, 2);
    pack_text(&pk, "name");
    pack_text(&pk, "c");
    pack_text(&pk, "image");
    pack_text(&pk, "input:a:b");
    pack_text(&pk, "output");
    msgpack_pack_map(&pk, 1);
    pack_text(&pk, "quality");
    msgpack_pack_int(&pk, 80);
    pack_text(&pk, "meta");
    msgpack_pack_map(&pk, 3);
    pack_text(&pk, "user");
    msgpack_pack_uint64(&pk, 1234567890123456789ull);
    pack_text(&pk, "tags");
    msgpack_pack_array(&pk, 3);
    pack_text(&pk, "a\"b");
    msgpack_pack_int64(&pk, -5);
    msgpack_pack_double(&pk, 0.1);
    pack_text(&pk, "big");
    msgpack_pack_uint64(&pk, UINT64_MAX);
}

static void test_a_valid_message(void **state)
{
    fixture *t = *state;
    dr_buf b = { 0 };
    pack_valid(&b);
    assert_int_equal(decode_as(t, "job", b.data, b.len), DR_OK);
    memset(b.data, 0xff, b.len); /* nothing points into the message */
    dr_buf_free(&b);
    assert_string_equal(t->job->id, "job-1");
    assert_string_equal(t->job->prompt,
                        "a red circle on a blue background, in the style of a poster");
    assert_int_equal(t->job->width, 512);
    assert_int_equal(t->job->steps, 20);
    assert_true(t->job->cfg_scale == 7.5);
    assert_true(t->job->seed == UINT64_MAX);
    assert_int_equal(t->job->schedule, DR_SCHEDULE_KARRAS);
    assert_int_equal(t->job->task, DR_IMG2IMG);
    assert_int_equal(t->job->init.image.n, sizeof jpeg);
    assert_memory_equal(t->job->init.image.bytes, jpeg, sizeof jpeg);
    assert_string_equal(t->job->loras[0].name, "l");
    assert_true(t->job->loras[0].strength == 0.5);
    assert_string_equal(t->job->controls[0].image.key, "input:a:b");
    assert_int_equal(t->job->output.quality, 80);
    assert_string_equal(t->job->meta_json,
                        "{\"user\":1234567890123456789,\"tags\":[\"a\\\"b\",-5,0.1],"
                        "\"big\":18446744073709551615}");
}

static void test_every_prefix(void **state)
{
    fixture *t = *state;
    dr_buf b = { 0 };
    pack_valid(&b);
    for (size_t n = 0; n < b.len; n++) {
        /* A copy of exactly n bytes, so that a sanitizer sees a read behind them. */
        char *part = dr_alloc(n + 1), *exact = dr_resize(part, n ? n : 1);
        memcpy(exact, b.data, n);
        assert_fails(t, decode_as(t, "job", exact, n), "job", "msgpack");
        dr_free(exact);
    }
    dr_buf_free(&b);
}

#define BYTES(text) text, sizeof text - 1

static const struct {
    const char *bytes;
    size_t n;
    const char *message;
} bombs[] = {
    { BYTES("\xdf\xff\xff\xff\xff"), "a map of 4294967295 announced, but only 0 bytes" },
    { BYTES("\xde\xff\xff"), "a map of 65535 announced" },
    { BYTES("\x81\xa1m\xdd\xff\xff\xff\xff"), "an array of 4294967295 announced" },
    { BYTES("\x81\xa1m\xdd\x7f\xff\xff\xff"), "an array of 2147483647 announced" },
    { BYTES("\x81\xa1m\xdc\xff\xff"), "an array of 65535 announced" },
    { BYTES("\x81\xa1m\xdf\x80\x00\x00\x00"), "a map of 2147483648 announced" },
    { BYTES("\x81\xa1m\xdb\xff\xff\xff\xff"), "4294967295 bytes announced, but only 0" },
    { BYTES("\x81\xa1m\xda\xff\xff"), "65535 bytes announced" },
    { BYTES("\x81\xa1m\xd9\xff"), "255 bytes announced" },
    { BYTES("\x81\xa1m\xc6\xff\xff\xff\xff"), "4294967295 bytes announced" },
    { BYTES("\x81\xa1m\xc5\xff\xff"), "65535 bytes announced" },
    { BYTES("\x81\xa1m\xc4\xff"), "255 bytes announced" },
    { BYTES("\x81\xdb\xff\xff\xff\xff"), "4294967295 bytes announced" },
    { BYTES("\x81\xa1m\xc7\x00\x01"), "ext types" },
    { BYTES("\x81\xa1m\xc9\xff\xff\xff\xff\x01"), "ext types" },
    { BYTES("\x81\xa1m\xd4\x01\x02"), "ext types" },
    { BYTES("\x81\xa1m\xd6\xff\x01\x02\x03\x04"), "ext types" },
    { BYTES("\x81\xa1m\xc1"), "0xc1 is not a type" },
    { BYTES("\x81\x01\x02"), "a map key must be a string" },
    { BYTES("\x81\xc4\x01m\x02"), "a map key must be a string" },
    { BYTES("\x81\xa1m\x81\xc0\xc0"), "a map key must be a string" },
    { BYTES("\x81\xa1m\x81\x90\xc0"), "a map key must be a string" },
    { BYTES("\x93\x01\x02\x03"), "must be a map" },
    { BYTES("\xa6prompt"), "must be a map" },
    { BYTES("\xc0"), "must be a map" },
    { BYTES("\x14"), "must be a map" },
    { BYTES(""), "ends at byte 0" },
    { BYTES("\x81\xa6prompt\xa1x\x00"), "1 bytes follow the end" },
    { BYTES("\x80\x80"), "1 bytes follow the end" },
};

static void test_bombs(void **state)
{
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(bombs); i++) {
        uint64_t before = dr_alloc_count();
        assert_fails(t, decode_as(t, "job", bombs[i].bytes, bombs[i].n), "job",
                     bombs[i].message);
        assert_int_equal(dr_alloc_count(), before);
        assert_in_range(dr_arena_used(t->mem), 0, 4096);
    }
}

static void test_depth(void **state)
{
    fixture *t = *state;
    char b[64];
    for (size_t depth = 2; depth < 40; depth++) {
        /* {"prompt": "x", "m": [[[…]]]}: the map is the first level */
        memcpy(b, "\x82\xa6prompt\xa1x\xa1m", 12);
        memset(b + 12, 0x91, depth - 1);
        b[12 + depth - 1] = 1;
        dr_status st = decode_as(t, "job", b, 12 + depth);
        if (depth <= DR_JOB_DEPTH_MAX)
            assert_int_equal(st, DR_OK);
        else
            assert_fails(t, st, "job", "nested deeper than 8");
    }
}

/* count integers in a list: with the map, two keys, the prompt and the list they make
 * count + 5 objects. */
static dr_status decode_list(fixture *t, size_t count)
{
    dr_buf b = { 0 };
    msgpack_packer pk;
    msgpack_packer_init(&pk, &b, write_buf);
    msgpack_pack_map(&pk, 2);
    pack_text(&pk, "prompt");
    pack_text(&pk, "x");
    pack_text(&pk, "m");
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        msgpack_pack_int(&pk, 1);
    dr_status st = decode_as(t, "job", b.data, b.len);
    dr_buf_free(&b);
    return st;
}

static void test_number_of_objects(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_list(t, DR_JOB_OBJECTS_MAX - 5), DR_OK);
    assert_fails(t, decode_list(t, DR_JOB_OBJECTS_MAX - 4), "job",
                 "more than 4096 objects");
}

static void test_size(void **state)
{
    fixture *t = *state;
    dr_buf b = { 0 };
    msgpack_packer pk;
    size_t n = DR_JOB_BYTES_MAX - 8 /* everything but the bytes */;
    for (int more = 0; more < 2; more++) {
        char *bytes = dr_alloc(n + 1);
        dr_buf_clear(&b);
        msgpack_packer_init(&pk, &b, write_buf);
        msgpack_pack_map(&pk, 2);
        pack_text(&pk, "prompt");
        pack_text(&pk, "x");
        pack_text(&pk, "m");
        msgpack_pack_bin(&pk, n + (size_t)more);
        msgpack_pack_bin_body(&pk, bytes, n + (size_t)more);
        dr_free(bytes);
        dr_status st = decode_as(t, "job", b.data, b.len);
        if (more)
            assert_fails(t, st, "", "job of more than 1048576 bytes");
        else
            assert_int_equal(st, DR_OK);
    }
    dr_buf_free(&b);
}

static void test_keys(void **state)
{
    fixture *t = *state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *field, *message;
    } cases[] = {
        { BYTES("\x82\xa5steps\x01\xa5steps\x01"), "steps", "given twice" },
        { BYTES("\x81\xa4meta\x82\xa1k\x01\xa1k\x02"), "k", "given twice" },
        { BYTES("\x81\xa3"
                "a\0b\x01"),
          "a?b", "UTF-8 without NUL" },
        { BYTES("\x81\xa2\xff"
                "a\x01"),
          "?a", "UTF-8 without NUL" },
    };
    for (size_t i = 0; i < DR_COUNT(cases); i++)
        assert_fails(t, decode_as(t, "job", cases[i].bytes, cases[i].n), cases[i].field,
                     cases[i].message);
    /* Equal keys in two maps are fine. */
    assert_int_equal(
        decode_as(t, "job",
                  BYTES("\x82\xa6prompt\xa1x\xa4meta\x92\x81\xa1k\x01\x81\xa1k\x02")),
        DR_OK);
    assert_string_equal(t->job->meta_json, "[{\"k\":1},{\"k\":2}]");
}

static void test_meta_that_json_cannot_hold(void **state)
{
    fixture *t = *state;
    assert_fails(t, decode_as(t, "job", BYTES("\x82\xa6prompt\xa1x\xa4meta\xc4\x01z")),
                 "meta", "bytes have no place in JSON");
    assert_fails(t, decode_as(t, "job", BYTES("\x82\xa6prompt\xa1x\xa4meta\xa1\xff")),
                 "meta", "not UTF-8 at its byte 0");
    assert_fails(t,
                 decode_as(t, "job",
                           BYTES("\x82\xa6prompt\xa1x\xa4meta\xa3"
                                 "a\0b")),
                 "meta", "NUL");
    dr_buf b = { 0 };
    msgpack_packer pk;
    char *text = dr_alloc(DR_META_BYTES_MAX);
    memset(text, 'a', DR_META_BYTES_MAX - 1);
    for (int more = 0; more < 2; more++) { /* 2 quotes around the text */
        text[DR_META_BYTES_MAX - 2 + more] = 0;
        dr_buf_clear(&b);
        msgpack_packer_init(&pk, &b, write_buf);
        msgpack_pack_map(&pk, 2);
        pack_text(&pk, "prompt");
        pack_text(&pk, "x");
        pack_text(&pk, "meta");
        pack_text(&pk, text);
        dr_status st = decode_as(t, "job", b.data, b.len);
        if (more)
            assert_fails(t, st, "meta",
                         "meta of 16385 bytes as JSON: must be at most 16384");
        else
            assert_int_equal(st, DR_OK);
        memset(text, 'a', DR_META_BYTES_MAX - 1);
    }
    dr_free(text);
    dr_buf_free(&b);
}

/* What decode promises of any job it accepts. */
static void assert_within_limits(const dr_job *job)
{
    assert_in_range(strlen(job->id), 1, DR_JOB_ID_MAX);
    assert_in_range(strlen(job->prompt), 0, DR_PROMPT_BYTES_MAX);
    assert_in_range(strlen(job->negative_prompt), 0, DR_PROMPT_BYTES_MAX);
    assert_true(!job->width || (job->width % 8 == 0 && job->width >= DR_SIZE_MIN &&
                                job->width <= DR_SIZE_MAX));
    assert_in_range(job->steps, 0, DR_STEPS_MAX);
    assert_in_range(job->n, 1, DR_IMAGES_MAX);
    assert_in_range(job->output.quality, 0, 100);
    assert_true(!(job->cfg_scale < 0 || job->cfg_scale > 100));
    assert_in_range(job->sampler, 0, DR_SAMPLERS - 1);
    assert_in_range(job->schedule, 0, DR_SCHEDULES - 1);
    assert_in_range(job->n_warnings, 0, DR_WARNINGS_MAX);
    assert_in_range(job->init.image.n, 0, 512);
    assert_int_equal(job->task,
                     job->init.image.n || job->init.image.key ? DR_IMG2IMG : DR_TXT2IMG);
    assert_in_range(job->n_loras, 0, DR_LORAS_MAX);
    assert_in_range(job->n_controls, 0, DR_CONTROLS_MAX);
}

/* One to three bytes of a valid message changed, inserted or dropped; a fixed seed. */
static void test_mutations(void **state)
{
    fixture *t = *state;
    dr_buf valid = { 0 };
    char b[512];
    int accepted = 0;
    pack_valid(&valid);
    assert_in_range(valid.len, 100, sizeof b - 8);
    for (uint32_t i = 0; i < 300000; i++) {
        size_t n = valid.len;
        uint32_t r[4];
        memcpy(b, valid.data, n);
        for (uint32_t k = 0; k <= i % 3; k++) {
            dr_philox4x32(r, (uint32_t[]){ i, k, 0, 0 }, (uint32_t[]){ 1234, 0 });
            size_t at = r[0] % n;
            if (r[1] % 8 == 0 && n > 1) {
                memmove(b + at, b + at + 1, --n - at);
            } else if (r[1] % 8 == 1) {
                memmove(b + at + 1, b + at, n++ - at);
                b[at] = (char)r[2];
            } else {
                b[at] = (char)r[2];
            }
        }
        if (decode_as(t, "job", b, n) == DR_OK) {
            assert_within_limits(t->job);
            accepted++;
        }
    }
    assert_in_range(accepted, 30000, 290000); /* both ways were taken */
    dr_buf_free(&valid);
}

static void test_events_as_msgpack(void **state)
{
    fixture *t = *state;
    static const char json[] =
        "{\"event\":\"image\",\"seq\":3,\"meta\":{\"user\":1234567890123456789},"
        "\"list\":[true,false,null,-1,0.5,\"gr\\u00fcn\",18446744073709551615]}";
    dr_buf packed = { 0 }, back = { 0 };
    dr_value *v;
    assert_int_equal(dr_msgpack_from_json(&packed, json, sizeof json - 1, t->mem, &t->err),
                     DR_OK);
    /* Read by msgpack-c itself, not only by our own parser. */
    msgpack_unpacked root;
    msgpack_unpacked_init(&root);
    assert_int_equal(msgpack_unpack_next(&root, packed.data, packed.len, NULL),
                     MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(root.data.type, MSGPACK_OBJECT_MAP);
    assert_int_equal(root.data.via.map.size, 4);
    assert_int_equal(root.data.via.map.ptr[1].val.via.u64, 3);
    msgpack_unpacked_destroy(&root);
    assert_int_equal(dr_value_from_msgpack(&v, t->mem, packed.data, packed.len, &t->err),
                     DR_OK);
    assert_int_equal(dr_value_json(&back, v, &t->err), DR_OK);
    assert_string_equal(back.data, "{\"event\":\"image\",\"seq\":3,\"meta\":{\"user\":"
                                   "1234567890123456789},\"list\":[true,false,null,-1,0.5,"
                                   "\"gr\xc3\xbcn\",18446744073709551615]}");
    dr_buf_clear(&packed);
    assert_int_equal(dr_msgpack_from_json(&packed, "{", 1, t->mem, &t->err), DR_EINVAL);
    dr_buf_free(&packed);
    dr_buf_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_valid_message),
        TEST(test_every_prefix),
        TEST(test_bombs),
        TEST(test_depth),
        TEST(test_number_of_objects),
        TEST(test_size),
        TEST(test_keys),
        TEST(test_meta_that_json_cannot_hold),
        TEST(test_mutations),
        TEST(test_events_as_msgpack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
