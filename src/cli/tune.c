#include "cli/cli.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/progress.h"
#include "diffusion/pipeline.h"
#include "op/tune.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHAPES 16 /* that are measured: those with the most work */

typedef struct {
    bool json, quiet, dry_run;
    int64_t width, height, seconds;
    const char *candidates;
} options;

static const dr_cli_row rows[] = {
    { "model", 'm', "PATH", DR_CLI_SETTING, .key = "model.path",
      .help = "Model folder, or its name in model.dir; without it Stable Diffusion 1.5's "
              "operations, which need no files." },
    { "width", 'W', "PIXELS", DR_CLI_INT, .offset = offsetof(options, width), .min = 64,
      .max = 2048,
      .help = "Of the pictures that --model makes; without it the model's own." },
    { "height", 'H', "PIXELS", DR_CLI_INT, .offset = offsetof(options, height), .min = 64,
      .max = 2048,
      .help = "Of the pictures that --model makes; without it the model's own." },
    { "seconds", 0, "N", DR_CLI_INT, .offset = offsetof(options, seconds), .min = 1,
      .max = 3600,
      .help = "How long to time, beside compiling and one run of each (default: 30)." },
    { "candidates", 0, "LIST", DR_CLI_TEXT, .offset = offsetof(options, candidates),
      .help = "Only these, with commas: packed, clblast, clblast pocl-cpu, …" },
    { "dry-run", 0, NULL, DR_CLI_FLAG, .offset = offsetof(options, dry_run),
      .help = "Measure and print, but store nothing." },
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "The result as one JSON object." },
    { "quiet", 0, NULL, DR_CLI_FLAG, .offset = offsetof(options, quiet),
      .help = "No progress." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "tune",
    .usage = "",
    .summary = "Measure who multiplies fastest on this device for a model's operations: "
               "darkroom's packed kernels, CLBlast with its own parameters, CLBlast with "
               "each set of parameters that comes with darkroom (and that of "
               "device.tuning). Candidates with wrong results are thrown out. The winner "
               "is stored for the device and its driver, and used from the next start on.",
    .examples = "  darkroom tune\n"
                "  darkroom tune --model models/stable-diffusion-v1-5 --device gpu\n"
                "  darkroom tune --candidates \"packed,clblast\" --dry-run\n",
    .rows = { rows, &dr_cli_engine[1] /* --device */, dr_cli_common },
};

typedef struct {
    const options *o;
    const dr_conf *conf;
    const char *own; /* the settings' device.tuning */
    bool used;       /* they leave the choice to what is measured */
    dr_dev *dev;
    dr_bar bar;
    dr_tune_shapes shapes;
    dr_tune_result results[DR_TUNE_CANDIDATES_MAX];
    int n, best;            /* best -1: none */
    char path[DR_PATH_MAX]; /* where it was stored; "": it was not */
} tuning;

/* --- what to measure --- */

static dr_status find_shapes(tuning *t, dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_status st = DR_OK;
    t->shapes = dr_tune_sd15;
    if (*t->conf->model.path && !(st = dr_model_path(path, t->conf, err)))
        st = dr_model_shapes(&t->shapes, path, t->conf, t->o->width, t->o->height, err);
    dr_tune_cut(&t->shapes, SHAPES);
    return st;
}

/* Whether a list names it; NULL names all. */
static bool named(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += strspn(p, ", ");
        if (!strncmp(p, name, n) && (!p[n] || p[n] == ','))
            return true;
    }
    return !list;
}

static void add(tuning *t, bool packed, const char *file)
{
    char name[64];
    dr_choice c = { .packed = packed, .by = DR_BY_MEASURE };
    snprintf(c.tuning, sizeof c.tuning, "%s", file);
    dr_choice_name(name, &c);
    bool wanted = named(t->o->candidates, name);
    for (int i = 0; i < t->n; i++)
        wanted &= !dr_choice_same(&t->results[i].choice, &c);
    if (wanted)
        t->results[t->n++].choice = c;
}

/* CLBlast's own before all that override them. On GPUs the packed kernels, whose
 * work-groups are of one, would take minutes. */
static dr_status find_candidates(tuning *t, dr_err *err)
{
    const dr_dev_info *info = dr_dev_describe(t->dev);
    const char *names[DR_TUNINGS_MAX];
    if (strcmp(info->type, "gpu") != 0)
        add(t, true, "");
    add(t, false, "");
    for (int i = 0, n = dr_choice_tunings(names, info); i < n; i++)
        add(t, false, names[i]);
    if (*t->own && strcmp(t->own, "none") != 0)
        add(t, false, t->own);
    return t->n ? DR_OK
                : dr_fail_field(err, DR_EINVAL, "candidates",
                                "--candidates %s: there is none of these for %s",
                                t->o->candidates, info->name);
}

static void on_progress(void *ctx, const char *candidate, double share)
{
    tuning *t = ctx;
    dr_bar_show(&t->bar, &(dr_bar_state){ .phase = candidate, .percent = share * 100 });
}

/* --- what came of it --- */

static void put_end(dr_buf *out, const tuning *t)
{
    char name[64];
    if (t->best < 0) {
        dr_buf_puts(out, "no candidate is left\n");
        return;
    }
    dr_choice_name(name, &t->results[t->best].choice);
    dr_buf_printf(out, "winner: %s\n", name);
    if (*t->path)
        dr_buf_printf(out, "stored: %s\n", t->path);
    else
        dr_buf_puts(out, "not stored\n");
    if (*t->path && !t->used)
        dr_buf_puts(out, "not used, because device.gemm, device.tune, device.tuning or "
                         "device.cl_dir is set\n");
}

static void put_table(dr_buf *out, const tuning *t)
{
    char name[64];
    double work = 0;
    for (int i = 0; i < t->shapes.n; i++)
        work += dr_tune_flops(&t->shapes.row[i]) * t->shapes.row[i].calls;
    dr_buf_printf(out, "%s\n\n%-9s %7s %6s %6s %5s %6s %5s", dr_dev_describe(t->dev)->name,
                  "GFLOPS", "M", "N", "K", "HEADS", "CALLS", "WORK");
    for (int i = 0; i < t->n; i++) {
        dr_choice_name(name, &t->results[i].choice);
        dr_buf_printf(out, "  %16s", name);
    }
    for (int k = 0; k < t->shapes.n; k++) {
        const dr_tune_shape *s = &t->shapes.row[k];
        dr_buf_printf(out, "\n%-9s %7lld %6lld %6lld %5lld %6.0f %4.0f%%",
                      dr_tune_kind_name(s->kind), (long long)s->m, (long long)s->n,
                      (long long)s->k, (long long)s->heads, s->calls,
                      100 * dr_tune_flops(s) * s->calls / work);
        for (int i = 0; i < t->n; i++)
            if (t->results[i].seconds[k] > 0)
                dr_buf_printf(out, "  %16.1f",
                              dr_tune_flops(s) / t->results[i].seconds[k] / 1e9);
            else
                dr_buf_printf(out, "  %16s", "-");
    }
    dr_buf_printf(out, "\n%-50s", "seconds a picture");
    for (int i = 0; i < t->n; i++)
        if (isfinite(t->results[i].total_s))
            dr_buf_printf(out, "  %16.2f", t->results[i].total_s);
        else
            dr_buf_printf(out, "  %16s", t->results[i].err.code ? "out" : "too slow");
    dr_buf_puts(out, "\n\n");
    for (int i = 0; i < t->n; i++) {
        dr_choice_name(name, &t->results[i].choice);
        if (t->results[i].err.code)
            dr_buf_printf(out, "%s is out: %s\n", name, t->results[i].err.message);
    }
    put_end(out, t);
}

/* "" as null. */
static void put_text(dr_buf *out, const char *key, const char *value)
{
    dr_buf_puts(out, key);
    if (*value)
        dr_json_put_string(out, value);
    else
        dr_buf_puts(out, "null");
}

static void put_seconds(dr_buf *out, const tuning *t, const dr_tune_result *r)
{
    dr_buf_puts(out, ",\"gflops\":[");
    for (int k = 0; k < t->shapes.n; k++) {
        dr_buf_puts(out, k ? "," : "");
        dr_json_put_number(out, r->seconds[k] > 0
                                    ? dr_tune_flops(&t->shapes.row[k]) / r->seconds[k] / 1e9
                                    : NAN);
    }
    dr_buf_puts(out, "],\"seconds\":");
    dr_json_put_number(out, isfinite(r->total_s) ? r->total_s : NAN);
    put_text(out, ",\"error\":", r->err.message);
}

static void put_json(dr_buf *out, const tuning *t)
{
    char name[64];
    dr_buf_puts(out, "{\"device\":");
    dr_json_put_string(out, dr_dev_describe(t->dev)->name);
    dr_buf_puts(out, ",\"shapes\":[");
    for (int i = 0; i < t->shapes.n; i++) {
        const dr_tune_shape *s = &t->shapes.row[i];
        dr_buf_printf(out,
                      "%s{\"operation\":\"%s\",\"m\":%lld,\"n\":%lld,\"k\":%lld,"
                      "\"heads\":%lld,\"calls\":%.0f}",
                      i ? "," : "", dr_tune_kind_name(s->kind), (long long)s->m,
                      (long long)s->n, (long long)s->k, (long long)s->heads, s->calls);
    }
    dr_buf_puts(out, "],\"candidates\":[");
    for (int i = 0; i < t->n; i++) {
        dr_choice_name(name, &t->results[i].choice);
        dr_buf_printf(out, "%s{\"name\":", i ? "," : "");
        dr_json_put_string(out, name);
        put_seconds(out, t, &t->results[i]);
        dr_buf_puts(out, "}");
    }
    if (t->best >= 0)
        dr_choice_name(name, &t->results[t->best].choice);
    put_text(out, "],\"winner\":", t->best < 0 ? "" : name);
    put_text(out, ",\"stored\":", t->path);
    dr_buf_puts(out, "}\n");
}

/* Parameters of a file that is the user's own, and what was measured of kernels that are,
 * belong into the settings. */
static dr_status store(tuning *t, dr_err *err)
{
    const dr_dev_info *info = dr_dev_describe(t->dev);
    const char *model = t->conf->model.path, *names[DR_TUNINGS_MAX];
    dr_choice usual, c = t->results[t->best].choice;
    dr_buf notes = { 0 };
    bool known = c.packed || !*c.tuning;
    for (int i = 0, n = dr_choice_tunings(names, info); i < n; i++)
        known |= !strcmp(names[i], c.tuning);
    if (t->o->dry_run || !known || *t->conf->device.cl_dir ||
        !dr_choice_path(t->path, info, t->conf)) {
        *t->path = 0;
        return DR_OK;
    }
    dr_choice_default(&usual, info);
    if (c.packed) /* for what little CLBlast does then */
        snprintf(c.tuning, sizeof c.tuning, "%s", usual.tuning);
    snprintf(c.shapes, sizeof c.shapes, "%s", *model ? model : "Stable Diffusion 1.5");
    dr_tune_notes(&notes, &t->shapes, t->results, t->n);
    dr_status st = notes.failed ? dr_fail(err, DR_ENOMEM, "out of memory")
                                : dr_choice_save(&c, info, t->path, notes.data, err);
    dr_buf_free(&notes);
    return st;
}

/* The device as CLBlast comes, whatever the settings say; what they say is kept. */
static dr_status open_device(tuning *t, dr_cli *cli, dr_err *err)
{
    static const char *const plain[][2] = { { "device.gemm", "clblast" },
                                            { "device.tuning", "none" },
                                            { "device.tune", "off" } };
    dr_status st = DR_OK;
    t->used = dr_choice_measures(&cli->conf);
    t->own = dr_arena_printf(cli->mem, "%s", cli->conf.device.tuning);
    if (!t->own)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (size_t i = 0; i < DR_COUNT(plain) && !st; i++)
        st = dr_conf_set(&cli->conf, plain[i][0], plain[i][1], err);
    return st ? st : dr_dev_open(&t->dev, &cli->conf, err);
}

/* The exit code; all mistakes are said. */
static dr_exit tune(tuning *t, dr_cli *cli)
{
    const dr_tune_opts o = { .conf = &cli->conf,
                             .budget_s = (double)t->o->seconds,
                             .progress = on_progress,
                             .ctx = t };
    dr_err err = { 0 };
    dr_buf out = { 0 };
    if (find_shapes(t, &err))
        return dr_cli_fail(&err);
    if (open_device(t, cli, &err)) {
        dr_cli_fail(&err);
        return DR_EXIT_UNAVAILABLE;
    }
    if (find_candidates(t, &err))
        return dr_cli_fail(&err);
    t->best = dr_tune_measure(t->dev, &t->shapes, t->results, t->n, &o);
    dr_bar_clear(&t->bar);
    if (t->best >= 0 && store(t, &err))
        return dr_cli_fail(&err);
    (t->o->json ? put_json : put_table)(&out, t);
    dr_exit code = dr_cli_print(&out);
    return t->best < 0 && !code ? DR_EXIT_FAILED : code;
}

int dr_cmd_tune(int argc, char **argv)
{
    options o = { .seconds = 30 };
    dr_cli cli;
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    tuning t = { .o = &o, .conf = &cli.conf, .bar = dr_bar_make(o.quiet) };
    code = (int)tune(&t, &cli);
    dr_dev_close(t.dev);
    dr_cli_close(&cli);
    return code;
}
