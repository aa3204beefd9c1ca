#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* --- err --- */

static void test_err(void **state)
{
    (void)state;
    dr_err err = { 0 };
    assert_int_equal(dr_fail(&err, DR_EIO, "%s: %d", "file", 7), DR_EIO);
    assert_int_equal(err.code, DR_EIO);
    assert_string_equal(err.field, "");
    assert_string_equal(err.message, "file: 7");
    assert_int_equal(dr_fail_field(&err, DR_EINVAL, "width", "width %d", 1001), DR_EINVAL);
    assert_string_equal(err.field, "width");
    assert_string_equal(err.message, "width 1001");
    dr_err_wrap(&err, "job %s", "17-0");
    assert_int_equal(err.code, DR_EINVAL);
    assert_string_equal(err.message, "job 17-0: width 1001");
    assert_string_equal(err.field, "width");
    assert_int_equal(dr_fail(NULL, DR_ENOMEM, "nobody listens"), DR_ENOMEM);
}

static void test_err_keeps_within_its_room(void **state)
{
    (void)state;
    dr_err err = { 0 };
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    dr_fail_field(&err, DR_EIO, text, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(strlen(err.field), sizeof err.field - 1);
    dr_err_wrap(&err, "head");
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_memory_equal(err.message, "head: xxx", 9);
}

static void test_status_names(void **state)
{
    (void)state;
    assert_string_equal(dr_status_name(DR_OK), "ok");
    assert_string_equal(dr_status_name(DR_EINVAL), "invalid");
    assert_string_equal(dr_status_name(DR_ELOST), "lost");
    assert_string_equal(dr_status_name((dr_status)999), "unknown");
    for (int i = DR_OK; i <= DR_ELOST; i++)
        assert_string_not_equal(dr_status_name((dr_status)i), "unknown");
}

static void test_mul(void **state)
{
    (void)state;
    dr_err err = { 0 };
    size_t n = 0;
    assert_int_equal(dr_mul(&n, 3, 4, &err), DR_OK);
    assert_int_equal(n, 12);
    assert_int_equal(dr_mul(&n, SIZE_MAX, 1, &err), DR_OK);
    assert_true(n == SIZE_MAX);
    assert_int_equal(dr_mul(&n, SIZE_MAX / 2 + 1, 2, &err), DR_ENOMEM);
    assert_non_null(strstr(err.message, "x 2"));
}

/* --- arena --- */

static void test_arena(void **state)
{
    (void)state;
    dr_arena *a = dr_arena_new();
    char *first = dr_arena_alloc(a, 5);
    assert_int_equal((uintptr_t)first % 16, 0);
    memset(first, 0xff, 5);
    assert_int_equal(dr_arena_used(a), 16);
    char *big = dr_arena_alloc(a, 1 << 20); /* more than a chunk */
    assert_int_equal((uintptr_t)big % 16, 0);
    for (size_t i = 0; i < 1 << 20; i++)
        assert_int_equal(big[i], 0);
    assert_int_equal((unsigned char)first[4], 0xff);
    assert_string_equal(dr_arena_str(a, "hello world", 5), "hello");
    assert_string_equal(dr_arena_str(a, NULL, 0), "");
    assert_string_equal(dr_arena_printf(a, "%d-%s", 17, "x"), "17-x");
    assert_null(dr_arena_alloc(a, SIZE_MAX));
    assert_null(dr_arena_str(a, "x", SIZE_MAX));

    /* After a reset the first chunk is used again, zeroed, and nothing is allocated. */
    dr_arena_reset(a);
    assert_int_equal(dr_arena_used(a), 0);
    uint64_t allocations = dr_alloc_count();
    char *again = dr_arena_alloc(a, 5);
    assert_ptr_equal(again, first);
    assert_memory_equal(again, "\0\0\0\0\0", 5);
    assert_int_equal(dr_alloc_count(), allocations);
    dr_arena_free(a);
    dr_arena_free(NULL);
}

/* --- buf --- */

static void test_buf(void **state)
{
    (void)state;
    dr_buf b = { 0 };
    dr_buf_put(&b, "a\0b", 3);
    dr_buf_puts(&b, "cd");
    dr_buf_printf(&b, "%03d", 7);
    assert_int_equal(b.len, 8);
    assert_memory_equal(b.data, "a\0bcd007", 9); /* and the NUL */
    for (int i = 0; i < 1000; i++)
        dr_buf_printf(&b, "%d,", i);
    assert_int_equal(b.len, 8 + 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(b.data + 8), b.len - 8);

    char *data = b.data;
    uint64_t allocations = dr_alloc_count();
    dr_buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    dr_buf_puts(&b, "again");
    assert_ptr_equal(b.data, data);
    assert_int_equal(dr_alloc_count(), allocations);

    /* What cannot fit marks the buffer; later appends do nothing. */
    dr_buf_put(&b, "x", SIZE_MAX / 2);
    assert_true(b.failed);
    dr_buf_puts(&b, "more");
    assert_string_equal(b.data, "again");
    dr_buf_free(&b);
    assert_null(b.data);
    assert_false(b.failed);
    dr_buf_free(&b);
}

/* --- files --- */

static char dir[] = "/tmp/darkroom-base-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static void test_files(void **state)
{
    (void)state;
    char path[DR_PATH_MAX];
    dr_buf text = { 0 };
    dr_map map = { 0 };
    dr_err err = { 0 };
    assert_int_equal(dr_path_join(path, dir, "f", &err), DR_OK);
    assert_false(dr_file_exists(path));
    assert_int_equal(dr_file_read(path, 100, &text, &err), DR_ENOTFOUND);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(dr_map_open(&map, path, &err), DR_ENOTFOUND);

    assert_int_equal(dr_file_write(path, "first text", 10, &err), DR_OK);
    assert_int_equal(dr_file_write(path, "second", 6, &err), DR_OK);
    assert_true(dr_file_exists(path));
    assert_false(dr_dir_exists(path));
    dr_buf_puts(&text, "> ");
    assert_int_equal(dr_file_read(path, 100, &text, &err), DR_OK);
    assert_string_equal(text.data, "> second");
    dr_buf_clear(&text);
    assert_int_equal(dr_file_read(path, 6, &text, &err), DR_OK);
    dr_buf_clear(&text);
    assert_int_equal(dr_file_read(path, 5, &text, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "5 bytes"));

    assert_int_equal(dr_map_open(&map, path, &err), DR_OK);
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "second", 6);
    dr_map_close(&map);
    assert_null(map.data);
    dr_map_close(&map);
    assert_int_equal(dr_map_open(&map, dir, &err), DR_EIO);
    unlink(path);

    assert_int_equal(dr_path_join(path, dir, "no/such/f", &err), DR_OK);
    assert_int_equal(dr_file_write(path, "x", 1, &err), DR_EIO);
    dr_buf_free(&text);
}

/* RssFile: bytes of maps that count as the process's. */
static long file_kib(void)
{
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssFile: %ld", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

static void test_forgotten_map(void **state)
{
    (void)state;
    enum { BYTES = 8 << 20, KIB = BYTES / 1024 };
    char path[DR_PATH_MAX], *text = dr_alloc(BYTES);
    dr_map map = { 0 };
    dr_err err = { 0 };
    assert_non_null(text);
    memset(text, 'x', BYTES);
    assert_int_equal(dr_path_join(path, dir, "f", &err), DR_OK);
    assert_int_equal(dr_file_write(path, text, BYTES, &err), DR_OK);
    assert_int_equal(dr_map_open(&map, path, &err), DR_OK);
    long before = file_kib();
    assert_memory_equal(map.data, text, BYTES);
    assert_true(file_kib() >= before + KIB / 2);
    dr_map_forget(map.data + 1, BYTES - 2);
    assert_true(file_kib() <= before + KIB / 8);
    assert_memory_equal(map.data, text, BYTES);
    dr_map_close(&map);
    unlink(path);
    dr_free(text);
}

static void test_lock(void **state)
{
    (void)state;
    char path[DR_PATH_MAX];
    assert_int_equal(dr_path_join(path, dir, "lock", NULL), DR_OK);
    int first = dr_file_lock(path, 0);
    assert_true(first >= 0);
    assert_int_equal(dr_file_lock(path, 60), -1);
    dr_file_unlock(first);
    int second = dr_file_lock(path, 0);
    assert_true(second >= 0);
    dr_file_unlock(second);
    unlink(path);
    dr_file_unlock(-1);
    assert_int_equal(dr_path_join(path, dir, "no/such/lock", NULL), DR_OK);
    assert_int_equal(dr_file_lock(path, 1000), -1);
}

static void test_dirs(void **state)
{
    (void)state;
    char path[DR_PATH_MAX], longest[DR_PATH_MAX];
    dr_err err = { 0 };
    assert_int_equal(dr_path_join(path, dir, "a/b", &err), DR_OK);
    assert_int_equal(dr_mkdirs(path, &err), DR_OK);
    assert_int_equal(dr_mkdirs(path, &err), DR_OK);
    assert_true(dr_dir_exists(path));
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(dr_path_join(path, dir, longest, &err), DR_EINVAL);

    /* The setting wins over XDG_CACHE_HOME, which wins over HOME. */
    char *xdg = getenv("XDG_CACHE_HOME") ? dr_strdup(getenv("XDG_CACHE_HOME")) : NULL;
    setenv("XDG_CACHE_HOME", dir, 1);
    assert_int_equal(dr_cache_dir(path, "", &err), DR_OK);
    assert_int_equal(strncmp(path, dir, strlen(dir)), 0);
    assert_string_equal(path + strlen(dir), "/darkroom");
    assert_true(dr_dir_exists(path));
    rmdir(path);
    assert_int_equal(dr_path_join(longest, dir, "a/mine", &err), DR_OK);
    assert_int_equal(dr_cache_dir(path, longest, &err), DR_OK);
    assert_string_equal(path, longest);
    assert_true(dr_dir_exists(longest));
    rmdir(longest);
    if (xdg)
        setenv("XDG_CACHE_HOME", xdg, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    dr_free(xdg);

    static const char *const made[] = { "a/b", "a" };
    for (size_t i = 0; i < DR_COUNT(made); i++) {
        assert_int_equal(dr_path_join(path, dir, made[i], &err), DR_OK);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(dr_program_dir(path, &err), DR_OK);
    assert_true(dr_dir_exists(path));
}

/* --- log, hash, utf8 --- */

static void test_log_quote(void **state)
{
    (void)state;
    char buf[64], small[12];
    assert_string_equal(dr_log_quote(buf, sizeof buf, "a b"), "\"a b\"");
    assert_string_equal(dr_log_quote(buf, sizeof buf, "say \"hi\" \\o"),
                        "\"say \\\"hi\\\" \\\\o\"");
    assert_string_equal(dr_log_quote(buf, sizeof buf, "a\nb\x1b\x7f"),
                        "\"a\\nb\\x1b\\x7f\"");
    assert_string_equal(dr_log_quote(buf, sizeof buf, ""), "\"\"");
    /* Cut to fit, with both quotes. */
    dr_log_quote(small, sizeof small, "0123456789abcdef");
    size_t n = strlen(small);
    assert_true(n < sizeof small);
    assert_int_equal(small[0], '"');
    assert_int_equal(small[n - 1], '"');
    dr_log_quote(small, sizeof small, "\x01\x01\x01\x01\x01");
    assert_true(strlen(small) < sizeof small);
    assert_string_equal(dr_log_quote(small, 4, "abc"), "\"\"");
}

static void test_log_levels(void **state)
{
    (void)state;
    dr_level level = DR_INFO;
    assert_int_equal(dr_log_level_parse("error", &level), 0);
    assert_int_equal(level, DR_ERROR);
    assert_int_equal(dr_log_level_parse("debug", &level), 0);
    assert_int_equal(level, DR_DEBUG);
    assert_int_equal(dr_log_level_parse("loud", &level), -1);
    assert_int_equal(level, DR_DEBUG);
}

static dr_digest digest_of(const char *a, const char *b)
{
    dr_hash *h = dr_hash_new();
    assert_non_null(h);
    dr_hash_str(h, a);
    dr_hash_str(h, b);
    return dr_hash_end(h);
}

static void test_hash(void **state)
{
    (void)state;
    dr_digest one = digest_of("ab", "c");
    assert_int_equal(strspn(one.hex, "0123456789abcdef"), 32);
    assert_int_equal(strlen(one.hex), 32);
    assert_string_equal(one.hex, digest_of("ab", "c").hex);
    assert_string_not_equal(one.hex, digest_of("a", "bc").hex);
    /* XXH3's own published value for no bytes. */
    assert_true(dr_hash64("", 0) == 0x2d06800538d394c2ull);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        int len;
        int32_t cp;
    } rows[] = {
        { "a", 1, 1, 'a' },
        { "\xc3\xa9", 2, 2, 0xe9 },
        { "\xe2\x82\xac!", 4, 3, 0x20ac },
        { "\xf0\x9f\x98\x80", 4, 4, 0x1f600 },
        { "\xc3", 1, -1, 0 },             /* truncated */
        { "\xc0\x80", 2, -1, 0 },         /* overlong */
        { "\xed\xa0\x80", 3, -1, 0 },     /* a surrogate */
        { "\xf4\x90\x80\x80", 4, -1, 0 }, /* above U+10FFFF */
        { "\x80", 1, -1, 0 },
        { "", 0, -1, 0 },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        int32_t cp = 0;
        char back[4];
        assert_int_equal(dr_utf8_decode(rows[i].bytes, rows[i].n, &cp), rows[i].len);
        if (rows[i].len < 0)
            continue;
        assert_int_equal(cp, rows[i].cp);
        assert_int_equal(dr_utf8_encode(cp, back), rows[i].len);
        assert_memory_equal(back, rows[i].bytes, (size_t)rows[i].len);
    }
    size_t at = 0;
    char none[4];
    assert_true(dr_utf8_valid("caf\xc3\xa9", 5, &at));
    assert_false(dr_utf8_valid("caf\xc3", 4, &at));
    assert_int_equal(at, 3);
    assert_int_equal(dr_utf8_encode(0xd800, none), 0);
    assert_int_equal(dr_utf8_encode(0x110000, none), 0);
    assert_int_equal(dr_utf8_lower(0xc9), 0xe9);
    assert_string_equal(dr_utf8_category('A'), "Lu");
    assert_string_equal(dr_utf8_category(0x200b), "Cf");
}

static void test_nfc(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } rows[] = {
        { "", "" },
        { "plain", "plain" },
        { "e\xcc\x81", "\xc3\xa9" },
        { "a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81" }, /* marks are put in order first */
        { "\xe1\x84\x80\xe1\x85\xa1", "\xea\xb0\x80" },  /* Hangul */
        { "\xe2\x84\xab", "\xc3\x85" },                  /* the Angstrom sign */
        { "\xf0\x9d\x85\x9e", "\xf0\x9d\x85\x97\xf0\x9d\x85\xa5" }, /* grows */
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        char *nfc = dr_utf8_nfc(rows[i].from);
        assert_non_null(nfc);
        assert_string_equal(nfc, rows[i].to);
        dr_free(nfc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_err_keeps_within_its_room),
        cmocka_unit_test(test_status_names),
        cmocka_unit_test(test_mul),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_forgotten_map),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_dirs),
        cmocka_unit_test(test_log_quote),
        cmocka_unit_test(test_log_levels),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_nfc),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
