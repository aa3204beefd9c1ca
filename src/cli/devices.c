#include "cli/cli.h"

#include "base/json.h"
#include "dev/choice.h"

#include <stdio.h>

#define DEVICES_MAX 64
#define GIB         (1024.0 * 1024.0 * 1024.0)

typedef struct {
    bool json;
} options;

static const dr_cli_row rows[] = {
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "One JSON array with an object for each device." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "devices",
    .usage = "",
    .summary = "List the OpenCL devices of this machine, numbered as --device takes them, "
               "and who multiplies on each: by default for its type, by setting, or as "
               "measured by `darkroom tune` or a first start.",
    .examples = "  darkroom devices\n"
                "  darkroom devices --json\n"
                "  darkroom generate --device 1 \"a red circle\"\n",
    .rows = { rows, dr_cli_common },
};

static const char *const by_names[] = { "default", "measured", "setting" };

static void put_table(dr_buf *out, const dr_dev_info *d, const dr_choice *c, int n)
{
    char name[64];
    dr_buf_printf(out, "%-5s %-11s %9s %9s %5s %5s %4s %4s  %s\n", "INDEX", "TYPE",
                  "MEMORY", "MAX ALLOC", "UNITS", "GROUP", "FP16", "FP64",
                  "NAME (PLATFORM, DRIVER)");
    for (int i = 0; i < n; i++, d++, c++) {
        dr_buf_printf(out, "%-5d %-11s %5.1f GiB %5.1f GiB %5u %5zu %4s %4s  %s (%s, %s)\n",
                      d->index, d->type, (double)d->memory_bytes / GIB,
                      (double)d->max_alloc_bytes / GIB, d->compute_units, d->max_work_group,
                      d->fp16 ? "yes" : "no", d->fp64 ? "yes" : "no", d->name, d->platform,
                      d->driver);
        dr_choice_name(name, c);
        dr_buf_printf(out, "      products by %s (%s", name, by_names[c->by]);
        if (c->by == DR_BY_MEASURE)
            dr_buf_printf(out, " at %s: %s", c->at, c->shapes);
        dr_buf_puts(out, ")\n");
    }
}

static void put_text(dr_buf *out, const char *key, const char *value)
{
    dr_buf_printf(out, ",\"%s\":", key);
    dr_json_put_string(out, value);
}

static void put_json(dr_buf *out, const dr_dev_info *d, const dr_choice *c, int n)
{
    char name[64];
    dr_buf_puts(out, "[");
    for (int i = 0; i < n; i++, d++, c++) {
        dr_buf_printf(out, "%s{\"index\":%d", i ? "," : "", d->index);
        put_text(out, "platform", d->platform);
        put_text(out, "name", d->name);
        put_text(out, "type", d->type);
        put_text(out, "driver", d->driver);
        put_text(out, "version", d->version);
        dr_buf_printf(
            out,
            ",\"memory_bytes\":%llu,\"max_alloc_bytes\":%llu,\"local_bytes\":%llu,"
            "\"compute_units\":%u,\"max_work_group\":%zu,\"fp16\":%s,\"fp64\":%s",
            (unsigned long long)d->memory_bytes, (unsigned long long)d->max_alloc_bytes,
            (unsigned long long)d->local_bytes, d->compute_units, d->max_work_group,
            d->fp16 ? "true" : "false", d->fp64 ? "true" : "false");
        dr_choice_name(name, c);
        put_text(out, "products", name);
        put_text(out, "products_by", by_names[c->by]);
        if (c->by == DR_BY_MEASURE) {
            put_text(out, "measured_at", c->at);
            put_text(out, "measured_on", c->shapes);
        }
        dr_buf_puts(out, "}");
    }
    dr_buf_puts(out, "]\n");
}

/* The exit code; all mistakes are said. */
static dr_exit list(const dr_cli *cli, bool json)
{
    dr_dev_info devices[DEVICES_MAX];
    dr_buf text = { 0 };
    dr_err err = { 0 };
    int n = 0;
    if (dr_dev_list(devices, DEVICES_MAX, &n, &err)) {
        dr_cli_fail(&err);
        return DR_EXIT_UNAVAILABLE;
    }
    n = n < DEVICES_MAX ? n : DEVICES_MAX;
    dr_choice *choices = dr_arena_alloc(cli->mem, (size_t)n * sizeof *choices);
    if (!choices)
        dr_fail(&err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < n && !err.code; i++)
        (void)!dr_choice_find(&choices[i], &devices[i], &cli->conf, &err);
    if (err.code)
        return dr_cli_fail(&err);
    (json ? put_json : put_table)(&text, devices, choices, n);
    return dr_cli_print(&text);
}

int dr_cmd_devices(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    code = (int)list(&cli, o.json);
    dr_cli_close(&cli);
    return code;
}
