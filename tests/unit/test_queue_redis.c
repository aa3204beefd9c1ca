/* The door to hiredis, as far as it needs no server: addresses, commands, back-off, how
 * errors are told apart. */
#include "queue/redis.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void addresses_are_parsed(void **state)
{
    static const struct {
        const char *url, *endpoint;
    } rows[] = {
        { "redis://localhost", "redis://localhost:6379/0" },
        { "redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3" },
        { "redis://host/", "redis://host:6379/0" },
        { "redis://:secret@host:1/2", "redis://host:1/2" },
        { "redis://user:p%40ss@host", "redis://host:6379/0" },
        { "redis://[::1]:7000/1", "redis://::1:7000/1" },
        { "unix:///run/redis.sock", "unix:///run/redis.sock" },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_redis *r = NULL;
        dr_err err = { 0 };
        assert_int_equal(dr_redis_new(&r, rows[i].url, 1000, &err), DR_OK);
        assert_string_equal(dr_redis_endpoint(r), rows[i].endpoint);
        dr_redis_free(r);
    }
}

static void bad_addresses_are_refused(void **state)
{
    static const char *const urls[] = {
        "",
        "localhost:6379",
        "http://host",
        "rediss://host",
        "redis://",
        "redis://host:port",
        "redis://host:70000",
        "redis://host:",
        "redis://host/x",
        "redis://:p%4@host",
        "redis://:p%zz@host",
        "unix://relative",
        "unix://",
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(urls); i++) {
        dr_redis *r = NULL;
        dr_err err = { 0 };
        assert_int_equal(dr_redis_new(&r, urls[i], 1000, &err), DR_EINVAL);
        assert_null(r);
        assert_string_equal(err.field, "redis.url");
        assert_non_null(strstr(err.message, "unix:///path"));
    }
}

static void the_password_is_never_shown(void **state)
{
    dr_redis *r = NULL;
    dr_err err = { 0 };
    (void)state;
    assert_int_equal(dr_redis_new(&r, "redis://u:hunter2@127.0.0.1:1", 300, &err), DR_OK);
    assert_int_equal(dr_redis_connect(r, &err), DR_EIO);
    assert_null(strstr(err.message, "hunter2"));
    assert_non_null(strstr(err.message, "redis://127.0.0.1:1/0: Connection refused"));
    assert_int_equal(dr_redis_connections(r), 0);
    assert_false(dr_redis_fatal(&err));
    dr_redis_free(r);
}

static void waiting_grows_to_five_seconds(void **state)
{
    dr_redis *r = NULL;
    dr_err err = { 0 };
    (void)state;
    assert_int_equal(dr_redis_new(&r, "unix:///nonexistent", 300, &err), DR_OK);
    int64_t most = 50;
    for (int i = 0; i < 12; i++) {
        int64_t ms = dr_redis_backoff_ms(r);
        assert_true(ms >= most / 2 && ms <= most);
        most = most * 2 > 5000 ? 5000 : most * 2;
    }
    dr_redis_free(r);
}

static void commands_are_byte_strings(void **state)
{
    dr_cmd c = { 0 };
    (void)state;
    dr_cmd_words(&c, "SET", "key");
    dr_cmd_bytes(&c, "a\0b", 3);
    dr_cmd_int(&c, -5);
    dr_cmd_printf(&c, "%s:%d", "x", 7);
    assert_int_equal(c.n, 5);
    assert_int_equal(c.size[2], 3);
    assert_memory_equal(c.arg[2], "a\0b", 3);
    assert_string_equal(c.arg[3], "-5");
    assert_string_equal(c.arg[4], "x:7");
    assert_int_equal(c.size[4], 3);
}

static void errors_are_told_apart(void **state)
{
    dr_err err = { 0 };
    (void)state;
    dr_fail(&err, DR_EREDIS, "redis: NOAUTH Authentication required.");
    assert_true(dr_redis_says(&err, "NOAUTH"));
    assert_false(dr_redis_says(&err, "NOAUT"));
    assert_true(dr_redis_fatal(&err));
    dr_fail(&err, DR_EREDIS, "redis: NOPERM this user has no permissions");
    assert_true(dr_redis_fatal(&err));
    dr_fail(&err, DR_EREDIS, "redis: OOM command not allowed");
    assert_false(dr_redis_fatal(&err));
    dr_fail(&err, DR_EIO, "redis unix:///x: No such file or directory");
    assert_false(dr_redis_fatal(&err));
    assert_false(dr_redis_says(&err, "No"));
}

static void no_reply_reads_as_nil(void **state)
{
    size_t n = 7;
    (void)state;
    assert_int_equal(dr_reply_type(NULL), DR_REPLY_NIL);
    assert_int_equal(dr_reply_count(NULL), 0);
    assert_null(dr_reply_at(NULL, 0));
    assert_string_equal(dr_reply_text(NULL, &n), "");
    assert_int_equal(n, 0);
    assert_int_equal(dr_reply_int(NULL), 0);
    dr_reply_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_parsed),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(the_password_is_never_shown),
        cmocka_unit_test(waiting_grows_to_five_seconds),
        cmocka_unit_test(commands_are_byte_strings),
        cmocka_unit_test(errors_are_told_apart),
        cmocka_unit_test(no_reply_reads_as_nil),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
