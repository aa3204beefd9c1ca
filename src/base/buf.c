#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool reserve(dr_buf *b, size_t more)
{
    if (b->failed || more > (size_t)-1 / 4 - b->len)
        return !(b->failed = true);
    if (b->len + more + 1 <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < b->len + more + 1)
        cap *= 2;
    char *p = dr_resize(b->data, cap);
    if (!p)
        return !(b->failed = true);
    b->data = p;
    b->cap = cap;
    return true;
}

void dr_buf_put(dr_buf *b, const void *p, size_t n)
{
    if (!reserve(b, n))
        return;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
}

void dr_buf_puts(dr_buf *b, const char *s)
{
    dr_buf_put(b, s, strlen(s));
}

void dr_buf_printf(dr_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void dr_buf_clear(dr_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = 0;
}

void dr_buf_free(dr_buf *b)
{
    dr_free(b->data);
    *b = (dr_buf){ 0 };
}
