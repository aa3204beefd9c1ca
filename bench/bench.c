/* Where the time goes: milliseconds of a UNet call and of a decode by operation, for the
 * demo model and for Stable Diffusion 1.5's full width.
 *
 * usage: bench [--full DIR] [--size PIXELS] [--batch ROWS] [--calls N] [--json FILE]
 *              [--only demo|full]
 * DIR: where the full-width model is, or is made with random weights. */
#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "dev/dev.h"
#include "diffusion/pipeline.h"
#include "nn/unet.h"
#include "nn/vae.h"
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_TOKENS 77
#define MIB         ((size_t)1 << 20)

typedef struct {
    const char *full, *json, *only;
    int64_t size, batch, calls;
} options;

typedef struct {
    dr_conf conf;
    dr_dev *dev;
    dr_run run;
    dr_arena *mem;
    dr_pool *pool;
    dr_unet unet;
    dr_vae vae;
    dr_text_kv *kv;
    dr_buf rows; /* JSON objects so far */
} bench;

/* --- loading --- */

static void load_unet(bench *b, dr_loader *l, const dr_json *config)
{
    dr_unet_load(&b->unet, l, config, b->mem);
}

static void load_vae(bench *b, dr_loader *l, const dr_json *config)
{
    dr_vae_load(&b->vae, l, config, b->mem);
}

static dr_status load(bench *b, const char *model, const char *name,
                      void (*part)(bench *, dr_loader *, const dr_json *), dr_err *err)
{
    char dir[DR_PATH_MAX], path[DR_PATH_MAX];
    dr_json *config = NULL;
    dr_loader l = { 0 };
    dr_status st;
    if ((st = dr_path_join(dir, model, name, err)) ||
        (st = dr_path_join(path, dir, "config.json", err)) ||
        (st = dr_json_read(&config, path, err)) ||
        (st = dr_loader_open(&l, b->dev, b->pool, name, dir, "diffusion_pytorch_model",
                             err)))
        goto done;
    part(b, &l, config);
    st = dr_loader_close(&l, err);
done:
    dr_json_free(config);
    return st;
}

static dr_status model_open(bench *b, const char *path, dr_err *err)
{
    dr_status st;
    double start = dr_now_s();
    b->unet = (dr_unet){ 0 };
    b->vae = (dr_vae){ 0 };
    if (!(b->mem = dr_arena_new()) || !(b->pool = dr_pool_new(b->dev)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if ((st = load(b, path, "unet", load_unet, err)) ||
        (st = load(b, path, "vae", load_vae, err)) || (st = dr_finish(b->dev, err)))
        return st;
    if (!(b->kv = dr_arena_alloc(b->mem, (size_t)b->unet.n_kv * sizeof *b->kv)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    printf("\n%s: %.1f MiB of weights in %.1f s\n", path,
           (double)dr_pool_bytes(b->pool) / (double)MIB, dr_now_s() - start);
    return DR_OK;
}

static void model_close(bench *b)
{
    dr_run_free(&b->run);
    dr_pool_free(b->pool);
    dr_arena_free(b->mem);
    b->pool = NULL;
    b->mem = NULL;
}

/* --- what is timed --- */

/* Latents for pictures of size × size and what the model makes of them. */
static void call_unet(bench *b, int64_t size, int64_t batch)
{
    dr_run *r = &b->run;
    int64_t side = size / b->vae.factor;
    dr_tensor text = dr_new(r, batch > 1 ? 2 : 1, TEXT_TOKENS, 1, b->unet.text_c);
    dr_tensor x = dr_new(r, (batch + 1) / 2, side, side, b->unet.in_c);
    op_fill(r, text, 0.25f);
    op_fill(r, x, 0.5f);
    dr_unet_read_text(r, &b->unet, text, b->kv);
    const dr_unet_call call = { .x = x, .batch = batch, .in_scale = 1, .timestep = 500 };
    dr_unet_forward(r, &b->unet, &call, b->kv);
}

static void call_decode(bench *b, int64_t size, int64_t batch)
{
    dr_run *r = &b->run;
    int64_t side = size / b->vae.factor;
    (void)batch;
    dr_tensor x = dr_new(r, 1, side, side, b->vae.latent_c);
    op_fill(r, x, 0.5f);
    dr_vae_decode(r, &b->vae, x);
}

typedef struct {
    const char *name;
    void (*call)(bench *b, int64_t size, int64_t batch);
} subject;

static const subject subjects[] = { { "unet", call_unet }, { "decode", call_decode } };

/* Sizes the run's memory by a dry run, then gives the best of `calls` times. */
static dr_status best_time(bench *b, const subject *s, int64_t size, int64_t batch,
                           int64_t calls, double *best, dr_err *err)
{
    dr_status st;
    *best = INFINITY;
    dr_run_reset(&b->run, true);
    s->call(b, size, batch);
    size_t peak = b->run.peak_bytes;
    if ((st = dr_run_reserve(&b->run, peak, err)))
        return st;
    for (int64_t i = 0; i < calls && !b->run.err.code; i++) {
        dr_run_reset(&b->run, false);
        double start = dr_now_s();
        s->call(b, size, batch);
        if (!b->run.err.code)
            (void)!dr_finish(b->dev, &b->run.err);
        *best = fmin(*best, dr_now_s() - start);
    }
    if (b->run.err.code)
        *err = b->run.err;
    return b->run.err.code;
}

static void put_row(bench *b, const char *label, double calls, double seconds, double flops)
{
    printf("  %-16s %6.0f %10.1f ms", label, calls, seconds * 1e3);
    printf(flops > 0 ? " %8.1f GFLOPS\n" : "\n", flops / seconds / 1e9);
    dr_buf_puts(&b->rows, "{\"label\": ");
    dr_json_put_string(&b->rows, label);
    dr_buf_printf(&b->rows, ", \"calls\": %.0f, \"ms\": %.3f, \"gflops\": ", calls,
                  seconds * 1e3);
    dr_json_put_number(&b->rows, flops > 0 ? flops / seconds / 1e9 : NAN);
    dr_buf_puts(&b->rows, "}");
}

/* Time a subject, then run it once more with a watch on each operation. */
static dr_status time_subject(bench *b, const char *model, const subject *s, int64_t size,
                              int64_t batch, int64_t calls, dr_err *err)
{
    const dr_profile_row *rows;
    int n;
    double best;
    dr_status st = best_time(b, s, size, batch, calls, &best, err);
    if (st)
        return st;
    dr_run_reset(&b->run, false);
    if ((st = dr_profile_start(b->dev, NULL, NULL, err)))
        return st;
    double start = dr_now_s(), flops;
    s->call(b, size, batch);
    flops = b->run.flops;
    if ((st = dr_profile_stop(b->dev, &rows, &n, err)))
        return st;
    best = fmin(best, dr_now_s() - start); /* the first call may have compiled */
    printf("%s %s %lldx%lld, batch %lld: %.1f ms, %.1f GFLOP, %.1f MiB of activations\n",
           model, s->name, (long long)size, (long long)size, (long long)batch, best * 1e3,
           flops / 1e9, (double)b->run.peak_bytes / (double)MIB);
    dr_buf_printf(&b->rows,
                  "%s\n  {\"model\": \"%s\", \"what\": \"%s\", \"size\": %lld, "
                  "\"batch\": %lld, \"ms\": %.3f, \"gflops\": %.3f, \"peak_bytes\": %zu,\n"
                  "   \"rows\": [",
                  b->rows.len ? "," : "", model, s->name, (long long)size, (long long)batch,
                  best * 1e3, flops / best / 1e9, b->run.peak_bytes);
    for (int i = 0; i < n; i++) {
        if (i)
            dr_buf_puts(&b->rows, ",\n            ");
        put_row(b, rows[i].label, (double)rows[i].calls, rows[i].seconds, rows[i].flops);
    }
    dr_buf_puts(&b->rows, "]}");
    dr_profile_free(b->dev);
    return DR_OK;
}

static dr_status time_model(bench *b, const char *name, const char *path, int64_t size,
                            int64_t batch, int64_t calls, dr_err *err)
{
    dr_status st = model_open(b, path, err);
    dr_run_init(&b->run, b->dev, (size_t)b->conf.device.attention_tile_mb * MIB,
                (size_t)b->conf.device.conv_tile_mb * MIB);
    for (size_t i = 0; i < DR_COUNT(subjects) && !st; i++)
        st = time_subject(b, name, &subjects[i], size,
                          subjects[i].call == call_unet ? batch : 1, calls, err);
    model_close(b);
    return st;
}

/* --- the whole pipeline --- */

/* One picture of the demo model; its second run, when everything is compiled. */
static dr_status time_picture(bench *b, const char *path, dr_run_stats *stats, dr_err *err)
{
    const dr_job job = { .id = "bench",
                         .prompt = "a red circle on a blue background",
                         .negative_prompt = "",
                         .cfg_scale = NAN,
                         .eta = NAN,
                         .n = 1 };
    dr_model *m;
    dr_plan plan;
    dr_status st = dr_model_open(&m, b->dev, path, &b->conf, NULL, NULL, err);
    if (st)
        return st;
    for (int i = 0; i < 2 && !st; i++)
        if (!(st = dr_plan_make(&plan, m, &job, err)))
            st = dr_pipeline_run(m, &job, &plan, &(dr_observer){ 0 }, stats, err);
    if (!st)
        printf("demo picture, %lld steps: encode %.1f ms, denoise %.1f ms, decode %.1f ms, "
               "%llu host allocations in the loop\n",
               (long long)plan.steps, stats->encode * 1e3, stats->denoise * 1e3,
               stats->decode * 1e3, (unsigned long long)stats->loop_allocations);
    dr_model_close(m);
    return st;
}

/* VmHWM: the most memory the process ever had, bytes; 0 where /proc has no such line. */
static double peak_rss(void)
{
    char line[256];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024;
}

static dr_status write_json(const bench *b, const options *o, const dr_run_stats *stats,
                            dr_err *err)
{
    dr_buf out = { 0 };
    dr_buf_puts(&out, "{\"device\": ");
    dr_json_put_string(&out, dr_dev_describe(b->dev)->name);
    dr_buf_puts(&out, ", \"driver\": ");
    dr_json_put_string(&out, dr_dev_describe(b->dev)->driver);
    dr_buf_printf(&out,
                  ",\n \"peak_rss_bytes\": %.0f, \"loop_allocations\": %llu,\n"
                  " \"demo_picture_s\": {\"encode\": %.6f, \"denoise\": %.6f, "
                  "\"decode\": %.6f},\n \"runs\": [",
                  peak_rss(), (unsigned long long)stats->loop_allocations, stats->encode,
                  stats->denoise, stats->decode);
    dr_buf_put(&out, b->rows.data, b->rows.len);
    dr_buf_puts(&out, "]}\n");
    dr_status st = out.failed ? dr_fail(err, DR_ENOMEM, "out of memory")
                              : dr_file_write(o->json, out.data, out.len, err);
    dr_buf_free(&out);
    return st;
}

static dr_status run_all(bench *b, const options *o, dr_err *err)
{
    char demo[DR_PATH_MAX] = "contrib/demo-model/model";
    dr_run_stats stats = { 0 };
    dr_status st;
    if ((st = dr_conf_init(&b->conf, err)) || (st = dr_conf_env(&b->conf, err)) ||
        (st = dr_dev_open(&b->dev, &b->conf, err)))
        return st;
    printf("%s, %s, %s\n", dr_dev_describe(b->dev)->name, dr_dev_describe(b->dev)->platform,
           dr_dev_describe(b->dev)->driver);
    if (strcmp(o->only, "full") != 0 &&
        ((st = time_picture(b, demo, &stats, err)) ||
         (st = time_model(b, "demo", demo, 128, 2, o->calls + 4, err))))
        return st;
    if (strcmp(o->only, "demo") != 0 &&
        ((st = synth_sd15(o->full, err)) ||
         (st = time_model(b, "sd15", o->full, o->size, o->batch, o->calls, err))))
        return st;
    printf("\npeak resident memory: %.1f MiB\n", peak_rss() / (double)MIB);
    return *o->json ? write_json(b, o, &stats, err) : DR_OK;
}

static bool parse(options *o, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **text;
        int64_t *number;
    } rows[] = { { "--full", &o->full, NULL },   { "--json", &o->json, NULL },
                 { "--only", &o->only, NULL },   { "--size", NULL, &o->size },
                 { "--batch", NULL, &o->batch }, { "--calls", NULL, &o->calls } };
    for (int i = 1; i < argc; i += 2) {
        size_t k = 0;
        while (k < DR_COUNT(rows) && strcmp(rows[k].name, argv[i]) != 0)
            k++;
        if (k == DR_COUNT(rows) || i + 1 == argc)
            return false;
        if (rows[k].text)
            *rows[k].text = argv[i + 1];
        else if ((*rows[k].number = strtoll(argv[i + 1], NULL, 10)) < 1)
            return false;
    }
    return o->size % 64 == 0;
}

int main(int argc, char **argv)
{
    options o = { "build/bench/sd15", "", "", 256, 1, 1 };
    bench b = { 0 };
    dr_err err = { 0 };
    if (!parse(&o, argc, argv)) {
        fprintf(stderr, "usage: bench [--full DIR] [--size PIXELS (64, 128, …)] "
                        "[--batch ROWS] [--calls N] [--json FILE] [--only demo|full]\n");
        return 2;
    }
    dr_status st = run_all(&b, &o, &err);
    if (st)
        fprintf(stderr, "bench: %s\n", err.message);
    dr_buf_free(&b.rows);
    dr_dev_close(b.dev);
    dr_conf_free(&b.conf);
    return st ? 1 : 0;
}
