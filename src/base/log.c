#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = { "debug", "info", "warn", "error" };

/* The one piece of state without a handle besides the signal flag: a log line must be
 * possible from anywhere, an error path that has no handle included. */
static _Atomic dr_level threshold = DR_INFO;

void dr_log_level(dr_level level)
{
    threshold = level;
}

int dr_log_level_parse(const char *name, dr_level *out)
{
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, level_names[i])) {
            *out = (dr_level)i;
            return 0;
        }
    return -1;
}

void dr_log(dr_level level, const char *ev, const char *fmt, ...)
{
    char line[4096];
    struct timespec t;
    struct tm tm;
    if (level < threshold)
        return;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "ts=%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03dZ level=%s ev=%s ",
                          (int)(t.tv_nsec / 1000000), level_names[level], ev);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    n += more < 0 ? 0 : (size_t)more;
    if (n > sizeof line - 2)
        n = sizeof line - 2;
    line[n++] = '\n';
    /* One write call, so that lines of several threads never mix. */
    if (write(STDERR_FILENO, line, n) < 0)
        return;
}

const char *dr_log_quote(char *buf, unsigned long size, const char *text)
{
    unsigned long n = 0;
    if (size < 8)
        return "\"\"";
    buf[n++] = '"';
    for (; *text && n + 6 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            buf[n++] = '\\';
            buf[n++] = (char)c;
        } else if (c == '\n') {
            buf[n++] = '\\';
            buf[n++] = 'n';
        } else if (c < 0x20 || c == 0x7f) {
            n += (unsigned long)snprintf(buf + n, size - n, "\\x%02x", c);
        } else {
            buf[n++] = (char)c;
        }
    }
    buf[n++] = '"';
    buf[n] = 0;
    return buf;
}
