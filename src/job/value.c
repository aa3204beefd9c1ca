#include "job/value.h"

#include "base/hash.h"
#include "base/json.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

dr_value *dr_value_new(dr_arena *mem)
{
    dr_value *v = dr_arena_alloc(mem, sizeof *v);
    if (v)
        v->name = "";
    return v;
}

dr_status dr_value_bytes(dr_value *v, dr_arena *mem, dr_value_kind kind, const char *p,
                         size_t n, dr_err *err)
{
    v->kind = kind;
    v->as.s.n = n;
    v->as.s.p = dr_arena_str(mem, p, n);
    return v->as.s.p ? DR_OK : dr_fail(err, DR_ENOMEM, "out of memory");
}

void dr_value_append(dr_value *list, dr_value *item)
{
    if (list->as.items.last)
        list->as.items.last->next = item;
    else
        list->as.items.first = item;
    list->as.items.last = item;
    list->as.items.n++;
}

dr_status dr_value_name(dr_value *v, dr_arena *mem, const char *name, size_t n, dr_err *err)
{
    char shown[48];
    if (memchr(name, 0, n) || !dr_utf8_valid(name, n, NULL)) {
        dr_value_quote(shown, sizeof shown, name, n);
        return dr_fail_field(err, DR_EINVAL, shown,
                             "the name of field %s must be UTF-8 without NUL", shown);
    }
    v->name = dr_arena_str(mem, name, n);
    v->name_hash = dr_hash64(name, n);
    return v->name ? DR_OK : dr_fail(err, DR_ENOMEM, "out of memory");
}

dr_status dr_value_put(dr_value *map, dr_arena *mem, const char *key, size_t n,
                       dr_value *item, dr_err *err)
{
    char shown[48];
    dr_status st = dr_value_name(item, mem, key, n, err);
    if (st)
        return st;
    for (const dr_value *v = map->as.items.first; v; v = v->next)
        if (v->name_hash == item->name_hash && !strcmp(v->name, item->name)) {
            dr_value_quote(shown, sizeof shown, key, n);
            return dr_fail_field(err, DR_EINVAL, shown, "%s: given twice; send it once",
                                 shown);
        }
    dr_value_append(map, item);
    return DR_OK;
}

bool dr_value_finite(const dr_value *v)
{
    if (v->kind == DR_VALUE_FLOAT)
        return isfinite(v->as.f);
    if (v->kind == DR_VALUE_ARRAY || v->kind == DR_VALUE_MAP)
        for (const dr_value *item = v->as.items.first; item; item = item->next)
            if (!dr_value_finite(item))
                return false;
    return true;
}

/* The shortest of the texts that read back as the same number. */
static void put_double(dr_buf *out, double f)
{
    char text[40];
    int digits = 15;
    do
        snprintf(text, sizeof text, "%.*g", digits, f);
    while (digits++ < 17 && strtod(text, NULL) != f);
    dr_buf_puts(out, text);
}

static dr_status put_string(dr_buf *out, const char *p, size_t n, dr_err *err)
{
    size_t at;
    if (memchr(p, 0, n))
        return dr_fail(err, DR_EINVAL, "text may not hold a NUL");
    if (!dr_utf8_valid(p, n, &at))
        return dr_fail(err, DR_EINVAL, "text is not UTF-8 at its byte %zu", at);
    dr_json_put_string(out, p);
    return DR_OK;
}

static dr_status put_items(dr_buf *out, const dr_value *v, dr_err *err)
{
    bool map = v->kind == DR_VALUE_MAP;
    dr_status st = DR_OK;
    dr_buf_puts(out, map ? "{" : "[");
    for (const dr_value *item = v->as.items.first; item && !st; item = item->next) {
        if (item != v->as.items.first)
            dr_buf_puts(out, ",");
        if (map) {
            dr_json_put_string(out, item->name);
            dr_buf_puts(out, ":");
        }
        st = dr_value_json(out, item, err);
    }
    dr_buf_puts(out, map ? "}" : "]");
    return st;
}

dr_status dr_value_json(dr_buf *out, const dr_value *v, dr_err *err)
{
    switch (v->kind) {
    case DR_VALUE_NIL:
        dr_buf_puts(out, "null");
        break;
    case DR_VALUE_BOOL:
        dr_buf_puts(out, v->as.b ? "true" : "false");
        break;
    case DR_VALUE_INT:
        dr_buf_printf(out, "%lld", (long long)v->as.i);
        break;
    case DR_VALUE_UINT:
        dr_buf_printf(out, "%llu", (unsigned long long)v->as.u);
        break;
    case DR_VALUE_FLOAT:
        if (!isfinite(v->as.f))
            return dr_fail(err, DR_EINVAL, "JSON has no NaN and no infinity");
        put_double(out, v->as.f);
        break;
    case DR_VALUE_STR:
        return put_string(out, v->as.s.p, v->as.s.n, err);
    case DR_VALUE_BIN:
        return dr_fail(err, DR_EINVAL, "bytes have no place in JSON; send text");
    case DR_VALUE_ARRAY:
    case DR_VALUE_MAP:
        return put_items(out, v, err);
    }
    return DR_OK;
}

const char *dr_value_quote(char *buf, size_t size, const char *p, size_t n)
{
    size_t len = n < size ? n : size - 1;
    for (size_t i = 0; i < len; i++)
        buf[i] = p[i] < 0x20 || p[i] > 0x7e ? '?' : p[i];
    buf[len] = 0;
    if (n > len && len >= 3)
        memcpy(buf + len - 3, "...", 3);
    return buf;
}
