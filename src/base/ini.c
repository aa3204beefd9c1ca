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

dr_status dr_ini_read(const char *path, dr_ini_row *row, void *ctx, dr_err *err)
{
    reader r = { .row = row, .ctx = ctx, .err = err };
    int line = ini_parse(path, on_line, &r);
    if (r.status) {
        dr_err_wrap(err, "%s", path);
        return r.status;
    }
    if (line < 0)
        return dr_fail(err, DR_ENOTFOUND, "%s: cannot be read", path);
    if (line > 0)
        return dr_fail(err, DR_EINVAL, "%s:%d: not an INI line (key = value)", path, line);
    return DR_OK;
}
