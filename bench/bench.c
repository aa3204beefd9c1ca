/* Where the time goes. One measurement a process, so that its memory is its own;
 * bench/run.py makes a plan of them.
 *
 * usage: bench ops|case [option VALUE]…
 * ops   milliseconds of a UNet call and of a decode by operation
 *       [--batch ROWS] [--calls N]
 * case  seconds of whole jobs by phase
 *       [--name txt2img|txt2img_lora|img2img|inpaint] [--images N] [--steps N] [--runs N]
 *       [--warm RUNS that are not counted] [--fresh 1: a new prompt each time]
 * both  [--model demo|sd15] [--dir DIR] [--size PIXELS] [--json FILE]
 * sd15 is Stable Diffusion 1.5's full width with random weights, made in DIR if need be. */
#include "bench.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

/* --- loading --- */

static void load_unet(bench *b, dr_loader *l)
{
    dr_unet_load(&b->unet, l, l->config, b->mem);
}

static void load_vae(bench *b, dr_loader *l)
{
    dr_vae_load(&b->vae, l, l->config, b->mem);
}

static dr_status load(bench *b, const char *model, const char *name,
                      void (*part)(bench *, dr_loader *), dr_err *err)
{
    dr_loader l;
    dr_status st = dr_loader_open_component(&l, b->dev, b->pool, model, name,
                                            "diffusion_pytorch_model", err);
    if (st)
        return st;
    part(b, &l);
    return dr_loader_close(&l, err);
}

dr_status bench_parts_open(bench *b, dr_err *err)
{
    dr_status st;
    double start = dr_now_s();
    if (!(b->mem = dr_arena_new()) || !(b->pool = dr_pool_new(b->dev)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if ((st = load(b, b->path, "unet", load_unet, err)) ||
        (st = load(b, b->path, "vae", load_vae, err)) || (st = dr_finish(b->dev, err)))
        return st;
    if (!(b->kv = dr_arena_alloc(b->mem, (size_t)b->unet.n_kv * sizeof *b->kv)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    printf("%s: %.1f MiB of weights in %.1f s\n", b->path,
           (double)dr_pool_bytes(b->pool) / (double)MIB, dr_now_s() - start);
    dr_run_init(&b->run, b->dev, (size_t)b->conf.device.attention_tile_mb * MIB,
                (size_t)b->conf.device.conv_tile_mb * MIB);
    return DR_OK;
}

void bench_parts_close(bench *b)
{
    dr_run_free(&b->run);
    dr_pool_free(b->pool);
    dr_arena_free(b->mem);
}

/* --- results --- */

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

static dr_status write_json(const bench *b, dr_err *err)
{
    const dr_dev_info *info = dr_dev_describe(b->dev);
    const struct {
        const char *name, *text;
    } texts[] = { { "model", b->o.model },
                  { "device", info->name },
                  { "platform", info->platform },
                  { "driver", info->driver },
                  { "type", info->type } };
    dr_buf out = { 0 };
    for (size_t i = 0; i < DR_COUNT(texts); i++) {
        dr_buf_printf(&out, "%s\"%s\": ", i ? ", " : "{", texts[i].name);
        dr_json_put_string(&out, texts[i].text);
    }
    dr_buf_printf(&out,
                  ", \"compute_units\": %u, \"peak_rss_bytes\": %.0f,"
                  " \"device_peak_bytes\": %llu,\n \"rows\": [",
                  info->compute_units, peak_rss(),
                  (unsigned long long)dr_dev_peak_bytes(b->dev));
    dr_buf_put(&out, b->rows.data, b->rows.len);
    dr_buf_puts(&out, "]}\n");
    dr_status st = out.failed || b->rows.failed
                       ? dr_fail(err, DR_ENOMEM, "out of memory")
                       : dr_file_write(b->o.json, out.data, out.len, err);
    dr_buf_free(&out);
    return st;
}

/* --- the command line --- */

typedef struct {
    const char *name;
    dr_status (*run)(bench *b, dr_err *err);
} command;

static const command commands[] = { { "ops", bench_ops }, { "case", bench_case } };

/* The folder of the model that --model names; the full-width one is made. */
static dr_status find_model(bench *b, dr_err *err)
{
    static const char demo[] = "contrib/demo-model/model";
    bool full = !strcmp(b->o.model, "sd15");
    if (!full && strcmp(b->o.model, "demo") != 0)
        return dr_fail(err, DR_EINVAL, "--model %s: must be demo or sd15", b->o.model);
    snprintf(b->path, sizeof b->path, "%s", full ? b->o.dir : demo);
    return full ? synth_sd15(b->o.dir, demo, err) : DR_OK;
}

static dr_status run_command(bench *b, const command *c, dr_err *err)
{
    dr_status st;
    if ((st = find_model(b, err)) || (st = dr_conf_init(&b->conf, err)) ||
        (st = dr_conf_env(&b->conf, err)) || (st = dr_dev_open(&b->dev, &b->conf, err)) ||
        (st = c->run(b, err)))
        return st;
    return *b->o.json ? write_json(b, err) : DR_OK;
}

/* NULL: something is wrong with the arguments. */
static const command *parse(bench_options *o, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **text;
        int64_t *number;
    } rows[] = { { "--model", &o->model, NULL }, { "--dir", &o->dir, NULL },
                 { "--json", &o->json, NULL },   { "--name", &o->name, NULL },
                 { "--size", NULL, &o->size },   { "--batch", NULL, &o->batch },
                 { "--calls", NULL, &o->calls }, { "--images", NULL, &o->images },
                 { "--steps", NULL, &o->steps }, { "--runs", NULL, &o->runs },
                 { "--warm", NULL, &o->warm },   { "--fresh", NULL, &o->fresh } };
    const command *c = NULL;
    for (size_t i = 0; i < DR_COUNT(commands) && argc > 1; i++)
        if (!strcmp(argv[1], commands[i].name))
            c = &commands[i];
    for (int i = 2; i < argc; i += 2) {
        size_t k = 0;
        while (k < DR_COUNT(rows) && strcmp(rows[k].name, argv[i]) != 0)
            k++;
        if (k == DR_COUNT(rows) || i + 1 == argc)
            return NULL;
        if (rows[k].text)
            *rows[k].text = argv[i + 1];
        else if ((*rows[k].number = strtoll(argv[i + 1], NULL, 10)) < 0)
            return NULL;
    }
    return o->runs && o->images && o->batch && o->calls && o->size % 64 == 0 ? c : NULL;
}

int main(int argc, char **argv)
{
    bench b = { .o = { .model = "demo",
                       .dir = "build/bench/sd15",
                       .json = "",
                       .name = "txt2img",
                       .size = 128,
                       .batch = 2,
                       .calls = 5,
                       .images = 1,
                       .runs = 5,
                       .warm = 1 } };
    dr_err err = { 0 };
    dr_log_level(DR_WARN);
    const command *c = parse(&b.o, argc, argv);
    if (!c) {
        fprintf(stderr,
                "usage: bench ops|case [--model demo|sd15] [--dir DIR] "
                "[--size PIXELS (64, 128, …)] [--json FILE]\n"
                "  ops: [--batch ROWS] [--calls N]\n"
                "  case: [--name txt2img|txt2img_lora|img2img|inpaint] [--images N] "
                "[--steps N] [--runs N] [--warm N] [--fresh 0|1]\n");
        return 2;
    }
    dr_status st = run_command(&b, c, &err);
    if (st)
        fprintf(stderr, "bench: %s\n", err.message);
    dr_buf_free(&b.rows);
    dr_dev_close(b.dev);
    dr_conf_free(&b.conf);
    return st ? 1 : 0;
}
