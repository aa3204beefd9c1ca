/* Who multiplies matrices: the order of settings, measurements and defaults, and a stored
 * measurement that nobody should trust. */
#include "dev/choice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const dr_dev_info cpu = { .type = "cpu",
                                 .platform = "Portable Computing Language",
                                 .name = "pthread-Some \"CPU\"; 8 cores",
                                 .driver = "3.1",
                                 .version = "OpenCL 2.0 pocl",
                                 .compute_units = 8 };
static const dr_dev_info gpu = {
    .type = "gpu", .platform = "Some Platform", .name = "Some GPU", .driver = "550.1"
};

static char dir[] = "/tmp/darkroom-choice-XXXXXX";
static dr_conf conf;

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) && !dr_conf_init(&conf, NULL) &&
                   !dr_conf_set(&conf, "device.cache_dir", dir, NULL)
               ? 0
               : -1;
}

static const char *path_of(const dr_dev_info *info)
{
    static char path[DR_PATH_MAX];
    assert_true(dr_choice_path(path, info, &conf));
    return path;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path_of(&cpu));
    unlink(path_of(&gpu));
    dr_conf_free(&conf);
    return rmdir(dir);
}

static void set(const char *key, const char *value)
{
    assert_int_equal(dr_conf_set(&conf, key, value, NULL), DR_OK);
}

static dr_choice find(const dr_dev_info *info)
{
    dr_choice c;
    dr_err err = { 0 };
    if (dr_choice_find(&c, info, &conf, &err))
        fail_msg("%s", err.message);
    return c;
}

/* The path of what was written. */
static const char *save(const dr_dev_info *info, bool packed, const char *tuning)
{
    dr_err err = { 0 };
    dr_choice c = { .packed = packed, .shapes = "mo;del\n" };
    snprintf(c.tuning, sizeof c.tuning, "%s", tuning);
    if (dr_choice_save(&c, info, path_of(info), "; notes\n", &err))
        fail_msg("%s", err.message);
    return path_of(info);
}

static void test_defaults(void **state)
{
    (void)state;
    char name[64];
    dr_choice c = find(&cpu);
    assert_true(c.packed);
    assert_string_equal(c.tuning, "pocl-cpu.ini");
    assert_int_equal(c.by, DR_BY_DEFAULT);
    dr_choice_name(name, &c);
    assert_string_equal(name, "packed");
    c.packed = false;
    dr_choice_name(name, &c);
    assert_string_equal(name, "clblast pocl-cpu");
    c = find(&gpu);
    assert_false(c.packed);
    dr_choice_name(name, &c);
    assert_string_equal(name, "clblast");
}

static void test_settings_win(void **state)
{
    (void)state;
    save(&cpu, true, "");
    set("device.gemm", "clblast");
    assert_false(find(&cpu).packed);
    assert_int_equal(find(&cpu).by, DR_BY_SETTING);
    set("device.tuning", "none");
    assert_string_equal(find(&cpu).tuning, "");
    set("device.tuning", "/some/file.ini");
    assert_string_equal(find(&cpu).tuning, "/some/file.ini");
    set("device.gemm", "auto");
    assert_int_equal(find(&cpu).by, DR_BY_SETTING);
    set("device.tuning", "");
    set("device.gemm", "fast");
    dr_choice c;
    dr_err err = { 0 };
    assert_int_equal(dr_choice_find(&c, &cpu, &conf, &err), DR_EINVAL);
    assert_string_equal(err.field, "device.gemm");
    set("device.gemm", "auto");
    set("device.tune", "maybe");
    assert_int_equal(dr_choice_find(&c, &cpu, &conf, &err), DR_EINVAL);
    assert_string_equal(err.field, "device.tune");
    set("device.tune", "auto");
    unlink(path_of(&cpu));
}

static void test_what_was_measured_is_used(void **state)
{
    (void)state;
    save(&cpu, false, "cpu-64x64.ini");
    save(&gpu, false, "");
    dr_choice c = find(&cpu);
    assert_int_equal(c.by, DR_BY_MEASURE);
    assert_false(c.packed);
    assert_string_equal(c.tuning, "cpu-64x64.ini");
    assert_string_equal(c.shapes, "mo_del_");
    assert_int_equal(strlen(c.at), strlen("2026-11-28T21:40:00Z"));
    assert_string_equal(find(&gpu).tuning, "");
    assert_int_equal(find(&gpu).by, DR_BY_MEASURE);
    set("device.tune", "off");
    assert_int_equal(find(&cpu).by, DR_BY_DEFAULT);
    set("device.tune", "auto");
    set("device.cl_dir", "cl");
    assert_int_equal(find(&cpu).by, DR_BY_DEFAULT);
    set("device.cl_dir", "");
    unlink(path_of(&cpu));
    assert_int_equal(find(&cpu).by, DR_BY_DEFAULT);
}

/* Another driver, another number of cores: nothing was measured there. */
static void test_a_changed_device_is_another(void **state)
{
    (void)state;
    dr_dev_info newer = cpu, larger = cpu;
    snprintf(newer.driver, sizeof newer.driver, "3.2");
    larger.compute_units = 16;
    save(&cpu, false, "");
    assert_int_equal(find(&cpu).by, DR_BY_MEASURE);
    assert_int_equal(find(&newer).by, DR_BY_DEFAULT);
    assert_int_equal(find(&larger).by, DR_BY_DEFAULT);
}

/* `text` in place of the first `from` in a good file; "" for all of it. */
static void spoil(const char *from, const char *text)
{
    dr_buf old = { 0 }, bad = { 0 };
    const char *path = save(&cpu, false, "");
    assert_int_equal(dr_file_read(path, 1 << 20, &old, NULL), DR_OK);
    const char *at = *from ? strstr(old.data, from) : old.data;
    assert_non_null(at);
    dr_buf_put(&bad, old.data, (size_t)(at - old.data));
    dr_buf_puts(&bad, text);
    dr_buf_puts(&bad, *from ? at + strlen(from) : "");
    assert_int_equal(dr_file_write(path, bad.data, bad.len, NULL), DR_OK);
    dr_buf_free(&old);
    dr_buf_free(&bad);
}

static void test_broken_files_are_ignored(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "gemm = clblast", "gemm = cublas" },
        { "gemm = clblast", "gemm = clblastclblastclblast" },
        { "gemm = clblast", "" },
        { "tuning = none", "tuning = ../../etc/passwd" },
        { "tuning = none", "tuning =" },
        { "[choice]", "[choices]" },
        { "device = ", "device = 0" },
        { "at = ", "at = \x1b[31m" },
        { "", "not a file of ours" },
        { "", "\xff\xfe\x01" },
        { "", "\n" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        spoil(rows[i][0], rows[i][1]);
        if (find(&cpu).by != DR_BY_DEFAULT)
            fail_msg("taken with \"%s\"", rows[i][1]);
    }
    dr_buf large = { 0 };
    for (int i = 0; i < 20000; i++)
        dr_buf_puts(&large, "; \n");
    spoil("[choice]", large.data);
    assert_int_equal(find(&cpu).by, DR_BY_DEFAULT);
    dr_buf_free(&large);
    spoil("gemm =", "colour = red\ngemm =");
    assert_int_equal(find(&cpu).by, DR_BY_MEASURE);
}

static void test_another_devices_file_is_ignored(void **state)
{
    (void)state;
    const char *path = save(&gpu, false, "");
    dr_buf text = { 0 };
    assert_int_equal(dr_file_read(path, 1 << 20, &text, NULL), DR_OK);
    assert_int_equal(dr_file_write(path_of(&cpu), text.data, text.len, NULL), DR_OK);
    dr_buf_free(&text);
    assert_int_equal(find(&cpu).by, DR_BY_DEFAULT);
}

static void test_without_a_cache_there_is_no_path(void **state)
{
    (void)state;
    char path[DR_PATH_MAX];
    set("device.cache_dir", "off");
    assert_false(dr_choice_path(path, &cpu, &conf));
    assert_int_equal(find(&cpu).by, DR_BY_DEFAULT);
    set("device.cache_dir", dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_settings_win),
        cmocka_unit_test(test_what_was_measured_is_used),
        cmocka_unit_test(test_a_changed_device_is_another),
        cmocka_unit_test(test_broken_files_are_ignored),
        cmocka_unit_test(test_another_devices_file_is_ignored),
        cmocka_unit_test(test_without_a_cache_there_is_no_path),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
