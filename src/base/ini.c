#include "base/ini.h"

#include <ini.h>

typedef struct {
    dr_ini_row *row;
    void *ctx;
    dr_err *err;
    dr_status status;
} reader;

static int on_line(void *user, const char *section, const char *key, const char *value)
{
    reader *r = user;
    if (!r->status)
        r->status = r->row(r->ctx, section, key, value, r->err);
    return !r->status;
}

/* What inih's answer `line` and the rows' own errors come to. */
static dr_status finish(const reader *r, const char *name, int line)
{
    if (r->status) {
        dr_err_wrap(r->err, "%s", name);
        return r->status;
    }
    if (line < 0)
        return dr_fail(r->err, DR_ENOTFOUND, "%s: cannot be read", name);
    if (line > 0)
        return dr_fail(r->err, DR_EINVAL, "%s:%d: not an INI line (key = value)", name,
                       line);
    return DR_OK;
}

dr_status dr_ini_read(const char *path, dr_ini_row *row, void *ctx, dr_err *err)
{
    reader r = { .row = row, .ctx = ctx, .err = err };
    return finish(&r, path, ini_parse(path, on_line, &r));
}

dr_status dr_ini_text(const char *name, const char *text, dr_ini_row *row, void *ctx,
                      dr_err *err)
{
    reader r = { .row = row, .ctx = ctx, .err = err };
    return finish(&r, name, ini_parse_string(text, on_line, &r));
}
