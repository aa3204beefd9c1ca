#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set(dr_err *err, dr_status code, const char *field, const char *fmt, va_list ap)
{
    if (!err)
        return;
    err->code = code;
    snprintf(err->field, sizeof err->field, "%s", field);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
}

dr_status dr_fail(dr_err *err, dr_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(err, code, "", fmt, ap);
    va_end(ap);
    return code;
}

dr_status dr_fail_field(dr_err *err, dr_status code, const char *field, const char *fmt,
                        ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(err, code, field, fmt, ap);
    va_end(ap);
    return code;
}

void dr_err_wrap(dr_err *err, const char *fmt, ...)
{
    char head[512];
    va_list ap;
    if (!err)
        return;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head - 2, fmt, ap);
    va_end(ap);
    size_t n = strlen(head), room = sizeof err->message - 1, len = strlen(err->message);
    head[n++] = ':';
    head[n++] = ' ';
    len = len > room - n ? room - n : len;
    memmove(err->message + n, err->message, len);
    memcpy(err->message, head, n);
    err->message[n + len] = 0;
}

const char *dr_status_name(dr_status code)
{
    static const char *const names[] = {
        [DR_OK] = "ok",          [DR_EINVAL] = "invalid",   [DR_ENOTFOUND] = "not_found",
        [DR_EMODEL] = "model",   [DR_ESHAPE] = "shape",     [DR_ENOMEM] = "memory",
        [DR_EDEVICE] = "device", [DR_ENUMERIC] = "numeric", [DR_EIO] = "io",
        [DR_EREDIS] = "redis",   [DR_ESTOPPED] = "stopped", [DR_ELOST] = "lost",
    };
    return (size_t)code < DR_COUNT(names) ? names[code] : "unknown";
}

dr_status dr_mul(size_t *out, size_t a, size_t b, dr_err *err)
{
    if (__builtin_mul_overflow(a, b, out))
        return dr_fail(err, DR_ENOMEM, "size %zu x %zu does not fit this machine", a, b);
    return DR_OK;
}
