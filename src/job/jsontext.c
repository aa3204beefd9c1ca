#include "job/value.h"

#include "base/json.h"

#include <darkroom/job.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Untrusted JSON in two passes. The first walks the text itself and enforces what the
 * parser does not: depth, number of values, strict numbers, no NUL and no raw control
 * bytes. The second walks the parsed tree; both visit the numbers in the same order, so the
 * second reads each number from the text, where whole numbers still have all their bits. */

#define EXACT_MAX ((int64_t)1 << 53)

typedef struct {
    const char *text, *end, *p;
    int depth, objects, objects_max;
    const char *string; /* the last string at depth 1 … */
    size_t string_len;
    char field[48]; /* … and, once a colon followed, the outermost field */
    dr_err *err;
} scanner;

static size_t at(const scanner *s)
{
    return (size_t)(s->p - s->text);
}

/* s->p stands on the opening quote and is left behind the closing one. An end without a
 * quote is the parser's to report. */
static dr_status scan_string(scanner *s)
{
    const char *start = ++s->p;
    for (; s->p < s->end && *s->p != '"'; s->p++) {
        if ((unsigned char)*s->p < 0x20)
            return dr_fail_field(s->err, DR_EINVAL, s->field,
                                 "JSON byte %zu: a control byte in a string; escape it",
                                 at(s));
        if (*s->p != '\\')
            continue;
        if (s->end - s->p >= 6 && !memcmp(s->p, "\\u0000", 6))
            return dr_fail_field(s->err, DR_EINVAL, s->field,
                                 "JSON byte %zu: a NUL; text may not hold one", at(s));
        if (++s->p == s->end)
            return DR_OK;
    }
    if (s->depth == 1) {
        s->string = start;
        s->string_len = (size_t)(s->p - start);
    }
    s->p += s->p < s->end;
    return DR_OK;
}

static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && isdigit((unsigned char)*p))
        p++;
    return p;
}

/* The end of the number at p by JSON's grammar, or NULL. */
static const char *number_end(const char *p, const char *end)
{
    p += *p == '-';
    const char *digits = p;
    p = skip_digits(p, end);
    if (p == digits || (*digits == '0' && p > digits + 1))
        return NULL;
    if (p < end && *p == '.') {
        digits = ++p;
        if ((p = skip_digits(p, end)) == digits)
            return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        digits = p;
        if ((p = skip_digits(p, end)) == digits)
            return NULL;
    }
    return p;
}

static bool starts_number(char c)
{
    return c == '-' || c == '+' || c == '.' || isdigit((unsigned char)c);
}

static dr_status scan_number(scanner *s)
{
    const char *end = *s->p == '+' || *s->p == '.' ? NULL : number_end(s->p, s->end);
    if (!end)
        return dr_fail_field(s->err, DR_EINVAL, s->field, "JSON byte %zu: not a number",
                             at(s));
    s->p = end;
    return DR_OK;
}

/* One token; s->p is left behind it. */
static dr_status scan_token(scanner *s)
{
    char c = *s->p;
    if (c == '"' || c == '{' || c == '[' || isalpha((unsigned char)c) || starts_number(c))
        s->objects++;
    if (s->objects > s->objects_max)
        return dr_fail(s->err, DR_EINVAL, "JSON holds more than %d values and keys",
                       s->objects_max);
    if (c == '"')
        return scan_string(s);
    if (starts_number(c))
        return scan_number(s);
    if (isalpha((unsigned char)c)) {
        while (s->p < s->end && isalpha((unsigned char)*s->p))
            s->p++;
        return DR_OK;
    }
    if (!c)
        return dr_fail(s->err, DR_EINVAL, "JSON byte %zu: a NUL", at(s));
    if ((c == '{' || c == '[') && ++s->depth > DR_JOB_DEPTH_MAX)
        return dr_fail_field(s->err, DR_EINVAL, s->field,
                             "JSON byte %zu: nested deeper than %d", at(s),
                             DR_JOB_DEPTH_MAX);
    if (c == '}' || c == ']')
        s->depth--;
    if (c == ':' && s->depth == 1)
        dr_value_quote(s->field, sizeof s->field, s->string ? s->string : "",
                       s->string_len);
    s->p++;
    return DR_OK;
}

typedef struct {
    dr_arena *mem;
    const char *p, *end; /* behind the number read last */
    dr_err *err;
} builder;

/* The text of the next number: the scan has shown that there is one and that it is well
 * formed. */
static dr_status take_number(builder *b, dr_value *v)
{
    while (!starts_number(*b->p))
        if (*b->p++ == '"') {
            while (*b->p != '"')
                b->p += *b->p == '\\' ? 2 : 1;
            b->p++;
        }
    const char *end = number_end(b->p, b->end);
    const char *text = dr_arena_str(b->mem, b->p, (size_t)(end - b->p));
    b->p = end;
    if (!text)
        return dr_fail(b->err, DR_ENOMEM, "out of memory");
    bool whole = !strpbrk(text, ".eE");
    errno = 0;
    v->kind = DR_VALUE_INT;
    v->as.i = strtoll(text, NULL, 10);
    if (whole && !errno && (v->as.i || *text != '-')) { /* -0 is a double */
        v->risky = v->as.i > EXACT_MAX || v->as.i < -EXACT_MAX;
        return DR_OK;
    }
    errno = 0;
    v->kind = DR_VALUE_UINT;
    v->as.u = strtoull(text, NULL, 10);
    if (whole && !errno && *text != '-') {
        v->risky = true;
        return DR_OK;
    }
    v->kind = DR_VALUE_FLOAT;
    v->as.f = strtod(text, NULL);
    v->risky = fabs(v->as.f) > (double)EXACT_MAX;
    return DR_OK;
}

static dr_status build(dr_value **out, builder *b, const dr_json *j)
{
    dr_status st = DR_OK;
    dr_value *v = dr_value_new(b->mem);
    if (!v)
        return dr_fail(b->err, DR_ENOMEM, "out of memory");
    *out = v;
    switch (dr_json_type(j)) {
    case DR_JSON_NULL:
        return DR_OK;
    case DR_JSON_BOOL:
        v->kind = DR_VALUE_BOOL;
        v->as.b = dr_json_bool(j);
        return DR_OK;
    case DR_JSON_NUMBER:
        return take_number(b, v);
    case DR_JSON_STRING:
        return dr_value_bytes(v, b->mem, DR_VALUE_STR, dr_json_string(j),
                              strlen(dr_json_string(j)), b->err);
    case DR_JSON_ARRAY:
    case DR_JSON_OBJECT:
        v->kind = dr_json_type(j) == DR_JSON_ARRAY ? DR_VALUE_ARRAY : DR_VALUE_MAP;
        break;
    }
    for (const dr_json *i = dr_json_first(j); i && !st; i = dr_json_next(i)) {
        dr_value *item;
        if ((st = build(&item, b, i)))
            break;
        if (v->kind == DR_VALUE_ARRAY)
            dr_value_append(v, item);
        else
            st = dr_value_put(v, b->mem, dr_json_key(i), strlen(dr_json_key(i)), item,
                              b->err);
    }
    return st;
}

dr_status dr_value_from_json(dr_value **out, dr_arena *mem, const char *text, size_t n,
                             int objects_max, dr_err *err)
{
    scanner s = {
        .text = text, .end = text + n, .p = text, .objects_max = objects_max, .err = err
    };
    builder b = { .mem = mem, .p = text, .end = text + n, .err = err };
    dr_json *root = NULL;
    dr_status st = DR_OK;
    while (s.p < s.end && !st)
        st = scan_token(&s);
    if (!st)
        st = dr_json_parse(&root, text, n, err);
    if (!st)
        st = build(out, &b, root);
    dr_json_free(root);
    return st;
}
