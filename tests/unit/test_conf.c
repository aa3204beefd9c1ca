#include "base/conf.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/darkroom-conf-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const char *text)
{
    dr_err err = { 0 };
    assert_int_equal(dr_file_write(path, text, strlen(text), &err), DR_OK);
}

static dr_conf defaults(void)
{
    dr_conf c;
    dr_err err = { 0 };
    if (dr_conf_init(&c, &err))
        fail_msg("%s", err.message);
    return c;
}

static void test_defaults(void **state)
{
    (void)state;
    dr_conf c = defaults();
    assert_string_equal(c.redis.url, "redis://127.0.0.1:6379");
    assert_string_equal(c.queue.prefix, "{darkroom}");
    assert_int_equal(c.lease.ms, 20000);
    assert_int_equal(c.result.publish_max, 1 << 20);
    assert_string_equal(c.model.path, "");
    assert_true(c.device.self_test);
    assert_int_equal(c.output.quality, 90);
    dr_conf_free(&c);
    dr_conf_free(&c); /* accepts {0} */
}

/* Every row: a dotted key, help, a place of its own, a default within its bounds. */
static void test_table(void **state)
{
    (void)state;
    for (int i = 0; i < dr_conf_row_count; i++) {
        const dr_conf_row *row = &dr_conf_rows[i];
        assert_non_null(strchr(row->key, '.'));
        assert_true(strlen(row->help) > 20);
        if (row->type == DR_CONF_INT) {
            long long v = strtoll(row->fallback, NULL, 10);
            assert_true(v >= row->min && v <= row->max);
        }
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(dr_conf_rows[k].key, row->key);
            assert_int_not_equal(dr_conf_rows[k].offset, row->offset);
        }
    }
}

/* Later wins: defaults, file, environment, command line. */
static void test_precedence(void **state)
{
    (void)state;
    dr_err err = { 0 };
    dr_conf c = defaults();
    write_file(
        "# a comment\n[lease]\nms = 30000\nrenew_ms = 6000\n\n[queue]\nprefix = {f}\n"
        "[device]\nself_test = no\n");
    assert_int_equal(dr_conf_file(&c, path, &err), DR_OK);
    assert_int_equal(c.lease.ms, 30000);
    assert_int_equal(c.lease.renew_ms, 6000);
    assert_string_equal(c.queue.prefix, "{f}");
    assert_false(c.device.self_test);

    setenv("DARKROOM_LEASE_RENEW_MS", "7000", 1);
    setenv("DARKROOM_QUEUE_PREFIX", "{e}", 1);
    assert_int_equal(dr_conf_env(&c, &err), DR_OK);
    assert_int_equal(c.lease.ms, 30000);
    assert_int_equal(c.lease.renew_ms, 7000);
    assert_string_equal(c.queue.prefix, "{e}");

    assert_int_equal(dr_conf_set(&c, "queue.prefix", "{c}", &err), DR_OK);
    assert_int_equal(c.lease.renew_ms, 7000);
    assert_string_equal(c.queue.prefix, "{c}");
    unsetenv("DARKROOM_LEASE_RENEW_MS");
    unsetenv("DARKROOM_QUEUE_PREFIX");
    dr_conf_free(&c);
}

static void test_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
        dr_status status;
        const char *message;
    } rows[] = {
        { "output.quality", "0", DR_OK, "" },
        { "output.quality", "100", DR_OK, "" },
        { "output.quality", "-1", DR_EINVAL, "0..100" },
        { "output.quality", "101", DR_EINVAL, "output.quality = 101" },
        { "output.quality", "", DR_EINVAL, "whole number" },
        { "output.quality", "9x", DR_EINVAL, "9x" },
        { "output.quality", "1e2", DR_EINVAL, "1e2" },
        { "lease.ms", "99999999999999999999", DR_EINVAL, "lease.ms" },
        { "device.self_test", "off", DR_OK, "" },
        { "device.self_test", "yes", DR_OK, "" },
        { "device.self_test", "maybe", DR_EINVAL, "yes or no" },
        { "device", "gpu", DR_EINVAL, "unknown setting device" },
        { "lease.MS", "20000", DR_EINVAL, "unknown setting" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_conf c = defaults();
        dr_err err = { 0 };
        assert_int_equal(dr_conf_set(&c, rows[i].key, rows[i].value, &err), rows[i].status);
        if (!strstr(err.message, rows[i].message))
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].message);
        if (rows[i].status)
            assert_string_equal(err.field, rows[i].key);
        dr_conf_free(&c);
    }
}

static void test_refused_value_changes_nothing(void **state)
{
    (void)state;
    dr_conf c = defaults();
    dr_err err = { 0 };
    assert_int_equal(dr_conf_set(&c, "lease.ms", "5", &err), DR_EINVAL);
    assert_int_equal(c.lease.ms, 20000);
    dr_conf_free(&c);
}

/* A message names the place: file, or variable, and key. */
static void test_places(void **state)
{
    (void)state;
    dr_conf c = defaults();
    dr_err err = { 0 };
    write_file("[lease]\nms = soon\n");
    assert_int_equal(dr_conf_file(&c, path, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "lease.ms = soon"));
    write_file("[lease]\nunknown = 1\n");
    assert_int_equal(dr_conf_file(&c, path, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "lease.unknown"));
    write_file("[lease]\nthis is no setting\n");
    assert_int_equal(dr_conf_file(&c, path, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, ":2:"));
    assert_int_equal(dr_conf_file(&c, "/no/such/darkroom.conf", &err), DR_ENOTFOUND);
    assert_non_null(strstr(err.message, "/no/such/darkroom.conf"));

    setenv("DARKROOM_OUTPUT_QUALITY", "best", 1);
    assert_int_equal(dr_conf_env(&c, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "DARKROOM_OUTPUT_QUALITY"));
    unsetenv("DARKROOM_OUTPUT_QUALITY");
    dr_conf_free(&c);
}

/* What is printed is a settings file that gives the defaults again. */
static void test_print(void **state)
{
    (void)state;
    dr_conf c = defaults();
    dr_err err = { 0 };
    dr_buf text = { 0 };
    dr_conf_print(&text);
    write_file(text.data);
    assert_int_equal(dr_conf_set(&c, "lease.ms", "5000", &err), DR_OK);
    assert_int_equal(dr_conf_set(&c, "model.path", "/m", &err), DR_OK);
    if (dr_conf_file(&c, path, &err))
        fail_msg("%s", err.message);
    assert_int_equal(c.lease.ms, 20000);
    assert_string_equal(c.model.path, "");
    for (int i = 0; i < dr_conf_row_count; i++) {
        const char *name = strchr(dr_conf_rows[i].key, '.') + 1;
        char line[128];
        snprintf(line, sizeof line, "\n%s =", name);
        assert_non_null(strstr(text.data, line));
    }
    dr_buf_free(&text);
    dr_conf_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_refused_value_changes_nothing),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
