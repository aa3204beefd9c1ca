#include "job/read.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 2^53: up to here doubles hold every whole number. */
#define EXACT_MAX 9007199254740992.0

bool dr_value_is(const dr_value *v, const char *word)
{
    return v->kind == DR_VALUE_STR && strlen(word) == v->as.s.n &&
           !memcmp(word, v->as.s.p, v->as.s.n);
}

/* Text that is a decimal number and nothing else. */
static bool is_number(const dr_value *v)
{
    return v->kind == DR_VALUE_STR && v->as.s.n > 0 &&
           strspn(v->as.s.p, "0123456789+-.eE") == v->as.s.n;
}

dr_shown dr_value_show(const dr_value *v)
{
    static const char *const kinds[] = {
        [DR_VALUE_NIL] = "null",
        [DR_VALUE_BIN] = "of bytes",
        [DR_VALUE_ARRAY] = "[...]",
        [DR_VALUE_MAP] = "{...}",
    };
    dr_shown s;
    char part[48];
    if (v->kind == DR_VALUE_STR)
        snprintf(s.text, sizeof s.text, is_number(v) ? "%s" : "\"%s\"",
                 dr_value_quote(part, sizeof part, v->as.s.p, v->as.s.n));
    else if (v->kind == DR_VALUE_BOOL)
        snprintf(s.text, sizeof s.text, "%s", v->as.b ? "true" : "false");
    else if (v->kind == DR_VALUE_INT)
        snprintf(s.text, sizeof s.text, "%lld", (long long)v->as.i);
    else if (v->kind == DR_VALUE_UINT)
        snprintf(s.text, sizeof s.text, "%llu", (unsigned long long)v->as.u);
    else if (v->kind == DR_VALUE_FLOAT)
        snprintf(s.text, sizeof s.text, "%.15g", v->as.f);
    else
        snprintf(s.text, sizeof s.text, "%s", kinds[v->kind]);
    return s;
}

bool dr_value_float(const dr_value *v, double *out)
{
    char *end;
    if (is_number(v)) {
        *out = strtod(v->as.s.p, &end);
        return end > v->as.s.p && !*end && isfinite(*out);
    }
    if (v->kind == DR_VALUE_INT)
        *out = (double)v->as.i;
    else if (v->kind == DR_VALUE_UINT)
        *out = (double)v->as.u;
    else if (v->kind == DR_VALUE_FLOAT)
        *out = v->as.f;
    else
        return false;
    return isfinite(*out);
}

bool dr_value_int(const dr_value *v, int64_t *out)
{
    double d;
    char *end;
    if (v->kind == DR_VALUE_INT) {
        *out = v->as.i;
        return true;
    }
    if (is_number(v)) {
        errno = 0;
        *out = strtoll(v->as.s.p, &end, 10);
        if (!errno && !*end)
            return true;
    }
    if (!dr_value_float(v, &d) || d != floor(d) || fabs(d) > EXACT_MAX)
        return false;
    *out = (int64_t)d;
    return true;
}

bool dr_value_uint(const dr_value *v, uint64_t *out)
{
    int64_t i;
    if (dr_value_int(v, &i)) {
        *out = (uint64_t)i;
        return i >= 0;
    }
    if (v->kind == DR_VALUE_UINT) {
        *out = v->as.u;
        return true;
    }
    if (v->kind != DR_VALUE_STR || !v->as.s.n ||
        strspn(v->as.s.p, "0123456789") != v->as.s.n)
        return false;
    errno = 0;
    *out = strtoull(v->as.s.p, NULL, 10);
    return !errno;
}

bool dr_value_bool(const dr_value *v, bool *out)
{
    static const char *const words[] = {
        "false", "true", "0", "1", "no", "yes", "off", "on"
    };
    if (v->kind == DR_VALUE_BOOL) {
        *out = v->as.b;
        return true;
    }
    if (v->kind == DR_VALUE_INT && (v->as.i == 0 || v->as.i == 1)) {
        *out = v->as.i;
        return true;
    }
    for (size_t i = 0; i < DR_COUNT(words); i++)
        if (dr_value_is(v, words[i])) {
            *out = i % 2;
            return true;
        }
    return false;
}
