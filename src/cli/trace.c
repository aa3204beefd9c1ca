#include "cli/trace.h"

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "dev/launch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { HOST = 1, DEVICE }; /* lanes: tid */

struct dr_trace {
    FILE *file;
    const char *path; /* borrowed */
    double origin_s;
    dr_dev *dev; /* that is profiled; NULL: none */
    dr_buf line; /* one event */
    bool failed;
};

/* A comma stands in front of every event but the first. */
static void write_line(dr_trace *t)
{
    t->failed |=
        t->line.failed || fwrite(t->line.data, 1, t->line.len, t->file) != t->line.len;
    dr_buf_clear(&t->line);
    dr_buf_puts(&t->line, ",\n");
}

static void name_lane(dr_trace *t, int lane, const char *name)
{
    dr_buf_printf(&t->line,
                  "{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\","
                  "\"args\":{\"name\":",
                  lane);
    dr_json_put_string(&t->line, name);
    dr_buf_puts(&t->line, "}}");
    write_line(t);
}

/* A complete event; it ends in "args":{ which the caller fills and closes. Microseconds, to
 * the nanosecond. */
static void put_event(dr_trace *t, int lane, const char *category, const char *name,
                      double from_s, double to_s)
{
    dr_buf_printf(&t->line,
                  "{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"cat\":\"%s\",\"ts\":%.3f,"
                  "\"dur\":%.3f,\"name\":",
                  lane, category, (from_s - t->origin_s) * 1e6, (to_s - from_s) * 1e6);
    dr_json_put_string(&t->line, name);
    dr_buf_puts(&t->line, ",\"args\":{");
}

dr_status dr_trace_open(dr_trace **out, const char *path, double origin_s, dr_err *err)
{
    dr_trace *t = dr_alloc(sizeof *t);
    if (!t)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    *t = (dr_trace){ .file = fopen(path, "w"), .path = path, .origin_s = origin_s };
    if (!t->file) {
        dr_free(t);
        return dr_fail(err, errno == ENOENT ? DR_ENOTFOUND : DR_EIO, "--trace %s: %s", path,
                       strerror(errno));
    }
    dr_buf_puts(&t->line, "[\n");
    name_lane(t, HOST, "host");
    *out = t;
    return DR_OK;
}

static void on_kernel(void *ctx, const dr_profile_event *e)
{
    dr_trace *t = ctx;
    put_event(t, DEVICE, "kernel", e->kernel, e->from_s, e->to_s);
    dr_buf_puts(&t->line, "\"op\":");
    dr_json_put_string(&t->line, e->label);
    dr_buf_puts(&t->line, "}}");
    write_line(t);
}

dr_status dr_trace_device(dr_trace *t, dr_dev *dev, dr_err *err)
{
    char name[256];
    snprintf(name, sizeof name, "device: %s", dr_dev_describe(dev)->name);
    name_lane(t, DEVICE, name);
    t->dev = dev;
    return dr_profile_start(dev, on_kernel, t, err);
}

void dr_trace_span(dr_trace *t, const char *name, int64_t step, double from_s, double to_s)
{
    char text[32];
    if (!t)
        return;
    snprintf(text, sizeof text, "step %lld", (long long)step);
    put_event(t, HOST, step ? "step" : "phase", step ? text : name, from_s, to_s);
    dr_buf_puts(&t->line, "}}");
    write_line(t);
}

dr_status dr_trace_close(dr_trace *t, dr_err *err)
{
    if (!t)
        return DR_OK;
    if (t->dev)
        dr_profile_free(t->dev); /* shows the last kernels */
    bool good = !t->failed && fputs("\n]\n", t->file) >= 0;
    good = !fclose(t->file) && good;
    dr_status st =
        good ? DR_OK : dr_fail(err, DR_EIO, "--trace %s: could not be written", t->path);
    dr_buf_free(&t->line);
    dr_free(t);
    return st;
}
