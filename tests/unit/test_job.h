#ifndef TESTS_UNIT_TEST_JOB_H
#define TESTS_UNIT_TEST_JOB_H

/* What the tests of src/job/ share: decode one job in one of the three shapes. */

#include "base/buf.h"
#include "base/rng.h"
#include "job/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    dr_arena *mem;
    dr_job *job;
    dr_err err;
} fixture;

static const dr_job_defaults test_defaults = { .quality = 90, .preview_every = 0 };

static inline int open_fixture(void **state)
{
    static fixture t;
    t = (fixture){ .mem = dr_arena_new() };
    *state = &t;
    return t.mem ? 0 : -1;
}

static inline int close_fixture(void **state)
{
    dr_arena_free(((fixture *)*state)->mem);
    return 0;
}

static inline dr_status decode(fixture *t, const dr_field *fields, int n)
{
    dr_arena_reset(t->mem);
    t->err = (dr_err){ 0 };
    t->job = NULL;
    dr_status st =
        dr_job_decode(&t->job, t->mem, "17-0", fields, n, &test_defaults, &t->err);
    assert_non_null(t->job);
    assert_true(st == DR_OK || (t->err.code == st && t->err.message[0]));
    return st;
}

static inline dr_status decode_as(fixture *t, const char *shape, const void *p, size_t n)
{
    return decode(t, &(dr_field){ shape, p, n }, 1);
}

/* JSON text with ' for ", so that it reads well in C. */
static inline dr_status decode_json(fixture *t, const char *text)
{
    dr_buf json = { 0 };
    dr_buf_puts(&json, text);
    for (char *p = json.data; (p = strchr(p, '\''));)
        *p = '"';
    dr_status st = decode_as(t, "json", json.data, json.len);
    dr_buf_free(&json);
    return st;
}

/* Plain fields: name, value, … NULL; `prompt x` is added. */
static inline dr_status decode_plain(fixture *t, ...)
{
    dr_field fields[16] = { { "prompt", "x", 1 } };
    int n = 1;
    va_list ap;
    va_start(ap, t);
    for (const char *name; (name = va_arg(ap, const char *)) && n < 16; n++) {
        const char *value = va_arg(ap, const char *);
        fields[n] = (dr_field){ name, value, strlen(value) };
    }
    va_end(ap);
    return decode(t, fields, n);
}

/* text with one to three of its bytes taken out, put in or replaced from alphabet, into b,
 * which has room for three more; the i-th of the series `key`. → bytes */
static inline size_t mutate(char *b, const char *text, const char *alphabet, uint32_t i,
                            uint32_t key)
{
    size_t n = strlen(text), letters = strlen(alphabet);
    uint32_t r[4];
    memcpy(b, text, n);
    for (uint32_t k = 0; k <= i % 3; k++) {
        dr_philox4x32(r, (uint32_t[]){ i, k, 0, 0 }, (uint32_t[]){ key, 0 });
        size_t at = r[0] % n;
        if (r[1] % 8 == 0) {
            memmove(b + at, b + at + 1, --n - at);
        } else {
            if (r[1] % 8 == 1)
                memmove(b + at + 1, b + at, n++ - at);
            b[at] = alphabet[r[2] % letters];
        }
    }
    return n;
}

static inline void assert_fails(const fixture *t, dr_status st, const char *field,
                                const char *part_of_message)
{
    assert_int_equal(st, DR_EINVAL);
    assert_string_equal(t->err.field, field);
    if (!strstr(t->err.message, part_of_message))
        fail_msg("\"%s\" lacks \"%s\"", t->err.message, part_of_message);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

#endif
