#include "cli/jobs.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/progress.h"
#include "cli/trace.h"
#include "dev/dev.h"
#include "diffusion/pipeline.h"
#include "image/encode.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *output, *trace;
    bool json, quiet;
} options;

static const dr_cli_row rows[] = {
    { "output", 'o', "FILE", DR_CLI_TEXT, .offset = offsetof(options, output),
      .help =
          "Where the picture goes, - for standard output; the ending chooses the format "
          "without --format; several pictures get their number in front of it; without "
          "this darkroom-SEED.webp, .png or .jpg." },
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "The result as one JSON object." },
    { "quiet", 0, NULL, DR_CLI_FLAG, .offset = offsetof(options, quiet),
      .help = "No progress." },
    { "trace", 0, "FILE", DR_CLI_TEXT, .offset = offsetof(options, trace),
      .help = "Write when each phase, step and kernel ran, as Chrome's trace events: open "
              "FILE in ui.perfetto.dev or chrome://tracing." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "generate",
    .usage = "PROMPT",
    .summary = "Make pictures from a prompt on this machine, as a worker would, without "
               "Redis.",
    .examples =
        "  darkroom generate \"a red circle on a blue background\" -o circle.webp\n"
        "  darkroom generate -m models/sd-turbo --steps 4 --cfg 1 --seed 7 \"a cat\"\n"
        "  darkroom generate --count 4 --sampler euler --json \"a fox\" | jq .images\n",
    .args_min = 1,
    .args_max = 1,
    .rows = { rows, dr_cli_job, dr_cli_engine, dr_cli_common },
};

/* One run. */
typedef struct {
    const dr_cli *cli;
    const options *o;
    dr_job *job;
    dr_dev *dev;
    dr_model *model;
    dr_plan plan;
    dr_run_stats stats;
    dr_bar bar;
    dr_trace *trace;   /* NULL: none */
    dr_buf webp, text; /* a picture's file and its parameters */
    dr_buf report;     /* what is printed at the end */
    dr_buf warnings;   /* as the inside of a JSON array */
    dr_err failure;    /* of writing a picture; ends the run */
    double from_s, load_s;
} run;

/* --- what the pipeline tells --- */

static void on_load(void *ctx, double share)
{
    run *r = ctx;
    const dr_bar_state state = { .phase = dr_phase_name(DR_PHASE_LOAD),
                                 .percent = share * 100 };
    dr_bar_show(&r->bar, &state);
}

static void on_progress(void *ctx, const dr_progress *p)
{
    run *r = ctx;
    const dr_bar_state state = { .phase = dr_phase_name(p->phase),
                                 .step = p->step,
                                 .steps = p->steps,
                                 .percent = p->percent,
                                 .it_s = p->it_s,
                                 .eta_s = p->eta_s };
    dr_bar_show(&r->bar, &state);
}

static dr_stop is_stopped(void *ctx)
{
    const run *r = ctx;
    return r->failure.code ? DR_STOP : DR_GO_ON;
}

static void on_warning(void *ctx, const char *text)
{
    run *r = ctx;
    dr_bar_clear(&r->bar);
    fprintf(stderr, "darkroom: warning: %s\n", text);
    if (r->warnings.len)
        dr_buf_puts(&r->warnings, ",");
    dr_json_put_string(&r->warnings, text);
}

/* Where picture `index` goes; darkroom-SEED and the format's ending without --output. */
static const char *image_path(const run *r, int64_t index, uint64_t seed)
{
    if (r->o->output)
        return dr_cli_image_path(r->cli->mem, r->o->output, index, r->plan.pictures);
    return dr_arena_printf(r->cli->mem, "darkroom-%llu%s.%s", (unsigned long long)seed,
                           index == r->plan.n ? "-sheet" : "",
                           dr_image_format_of(r->job->output.format)->extension);
}

static void report_image(run *r, int64_t index, uint64_t seed, const dr_picture *pic,
                         const char *path)
{
    dr_buf *out = &r->report;
    if (!r->o->json) {
        dr_buf_printf(out, "%s  %lldx%lld  seed %llu  %zu bytes\n", path,
                      (long long)pic->width, (long long)pic->height,
                      (unsigned long long)seed, r->webp.len);
        return;
    }
    dr_buf_printf(out,
                  "%s{\"index\":%lld,\"seed\":%llu,\"width\":%lld,\"height\":%lld,"
                  "\"bytes\":%zu,\"path\":",
                  out->len ? "," : "", (long long)index, (unsigned long long)seed,
                  (long long)pic->width, (long long)pic->height, r->webp.len);
    dr_json_put_string(out, path);
    dr_buf_puts(out, "}");
}

static dr_status write_image(run *r, int64_t index, uint64_t seed, const dr_picture *pic,
                             dr_err *err)
{
    dr_image_opts o = dr_image_output(r->job, NULL);
    dr_buf_clear(&r->text);
    if (r->job->output.metadata) {
        dr_parameters_text(&r->text, r->model, r->job, &r->plan, index);
        o.parameters = r->text.data;
    }
    dr_status st = dr_image_encode(pic->rgb, pic->width, pic->height, &o, &r->webp, err);
    if (st)
        return st;
    const char *path = image_path(r, index, seed);
    if (!path)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if (!strcmp(path, "-"))
        return fwrite(r->webp.data, 1, r->webp.len, stdout) == r->webp.len &&
                       !fflush(stdout)
                   ? DR_OK
                   : dr_fail(err, DR_EIO,
                             "standard output: the picture could not be written");
    if (!(st = dr_file_write(path, r->webp.data, r->webp.len, err)))
        report_image(r, index, seed, pic, path);
    return st;
}

static void on_image(void *ctx, int64_t index, uint64_t seed, const dr_picture *pic)
{
    run *r = ctx;
    if (!r->failure.code && write_image(r, index, seed, pic, &r->failure))
        dr_bar_clear(&r->bar);
}

static void on_span(void *ctx, dr_phase phase, int64_t step, double from_s, double to_s)
{
    const run *r = ctx;
    dr_trace_span(r->trace, dr_phase_name(phase), step, from_s, to_s);
}

/* --- a run, step by step --- */

static dr_status decode_job(run *r, dr_err *err)
{
    dr_cli_ask ask;
    dr_status st = dr_cli_decode(r->cli, "generate", SIZE_MAX, &ask, err);
    if (st)
        return st;
    r->job = ask.job;
    for (int i = 0; i < r->job->n_warnings; i++)
        on_warning(r, r->job->warnings[i]);
    if (r->o->output && !strcmp(r->o->output, "-") && (r->job->n > 1 || r->o->json))
        return dr_fail_field(
            err, DR_EINVAL, "output",
            "--output -: one picture and no --json, since both would share "
            "standard output; give a file name");
    return DR_OK;
}

static dr_status open_device(run *r, dr_err *err)
{
    dr_status st = dr_dev_open(&r->dev, &r->cli->conf, err);
    return st || !r->trace ? st : dr_trace_device(r->trace, r->dev, err);
}

static dr_status open_model(run *r, dr_err *err)
{
    char path[DR_PATH_MAX];
    const dr_conf *conf = &r->cli->conf;
    dr_status st = dr_model_path(path, conf, err);
    if (!st)
        st = dr_model_open(&r->model, r->dev, path, conf, on_load, r, err);
    if (st)
        return st;
    r->load_s = dr_now_s() - r->from_s;
    dr_trace_span(r->trace, dr_phase_name(DR_PHASE_LOAD), 0, r->from_s,
                  r->from_s + r->load_s);
    if (r->job->model && strcmp(r->job->model, dr_model_name(r->model)))
        return dr_fail_field(
            err, DR_ENOTFOUND, "model",
            "model %s: the loaded one is %s; choose another with --model PATH",
            r->job->model, dr_model_name(r->model));
    return DR_OK;
}

static void put_result(run *r, dr_buf *out)
{
    if (!r->o->json) {
        dr_buf_put(out, r->report.data, r->report.len);
        return;
    }
    dr_buf_puts(out, "{\"model\":");
    dr_json_put_string(out, dr_model_name(r->model));
    dr_buf_puts(out, ",\"device\":");
    dr_json_put_string(out, dr_dev_describe(r->dev)->name);
    dr_buf_printf(out, ",\"steps\":%lld,\"cfg_scale\":", (long long)r->plan.steps);
    dr_json_put_number(out, r->plan.cfg_scale);
    dr_buf_printf(out, ",\"sampler\":\"%s\",\"schedule\":\"%s\",\"images\":[",
                  dr_sampler_name(r->plan.sampler), dr_schedule_name(r->plan.schedule));
    dr_buf_put(out, r->report.data, r->report.len);
    const struct {
        const char *name;
        double seconds;
    } timings[] = {
        { "load", r->load_s },
        { "encode", r->stats.encode },
        { "denoise", r->stats.denoise },
        { "decode", r->stats.decode },
        { "compress", r->stats.compress },
        { "total", dr_now_s() - r->from_s },
    };
    dr_buf_puts(out, "],\"timings\":{");
    for (size_t i = 0; i < DR_COUNT(timings); i++)
        dr_buf_printf(out, "%s\"%s\":%.3f", i ? "," : "", timings[i].name,
                      timings[i].seconds);
    dr_buf_printf(out, "},\"peak_bytes\":%llu,\"warnings\":[",
                  (unsigned long long)dr_dev_peak_bytes(r->dev));
    dr_buf_put(out, r->warnings.data, r->warnings.len);
    dr_buf_puts(out, "]}\n");
}

/* The exit code; all mistakes are said. */
static dr_exit generate(run *r)
{
    const dr_observer observer = { .ctx = r,
                                   .stopped = is_stopped,
                                   .progress = on_progress,
                                   .image = on_image,
                                   .warning = on_warning,
                                   .span = on_span };
    dr_err err = { 0 };
    dr_buf result = { 0 };
    dr_status st = decode_job(r, &err);
    if (!st && r->o->trace)
        st = dr_trace_open(&r->trace, r->o->trace, r->from_s, &err);
    if (st)
        return dr_cli_fail(&err);
    if (open_device(r, &err)) {
        dr_cli_fail(&err);
        return DR_EXIT_UNAVAILABLE;
    }
    if (!(st = open_model(r, &err)) &&
        !(st = dr_plan_make(&r->plan, r->model, r->job, &err)))
        st = dr_pipeline_run(r->model, r->job, &r->plan, &observer, &r->stats, &err);
    dr_bar_clear(&r->bar);
    if (r->failure.code)
        return dr_cli_fail(&r->failure);
    if (st)
        return dr_cli_fail(&err);
    put_result(r, &result);
    result.failed |= r->report.failed || r->warnings.failed;
    return dr_cli_print(&result);
}

int dr_cmd_generate(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    run r = { .cli = &cli, .o = &o, .bar = dr_bar_make(o.quiet), .from_s = dr_now_s() };
    dr_err err = { 0 };
    if (!(code = (int)dr_cli_format(&cli, o.output)))
        code = (int)generate(&r);
    if (dr_trace_close(r.trace, &err) && !code)
        code = (int)dr_cli_fail(&err);
    dr_model_close(r.model);
    dr_dev_close(r.dev);
    dr_buf_free(&r.webp);
    dr_buf_free(&r.text);
    dr_buf_free(&r.report);
    dr_buf_free(&r.warnings);
    dr_cli_close(&cli);
    return code;
}
