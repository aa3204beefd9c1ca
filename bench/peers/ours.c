/* One part of a full-width model on one input, for bench/peers/run.py.
 *
 * usage: ours MODEL WORK DIR CALLS
 * WORK: see the table at the end. Reads DIR/WORK.in (raw floats, or int32 ids; channels
 * last), writes DIR/WORK.darkroom (raw floats), prints {"load_s": …, "calls_s": […]}. A
 * call goes from inputs to outputs in the host's memory; one before the first warms up. */
#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "dev/dev.h"
#include "nn/clip.h"
#include "nn/unet.h"
#include "nn/vae.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_TOKENS 77
#define TEXTS       2 /* guidance's: without and with the prompt */
#define TIMESTEP    500
#define MIB         ((size_t)1 << 20)

typedef struct {
    dr_conf conf;
    dr_dev *dev;
    dr_arena *mem;
    dr_pool *pool;
    dr_run run;
    dr_clip clip;
    dr_unet unet;
    dr_vae vae;
    dr_text_kv *kv;
    dr_map in;
    size_t at;    /* bytes of `in` that the call has read */
    int64_t side; /* of the latents */
    dr_buf times;
} bench;

/* --- the parts --- */

static void load_clip(bench *b, dr_loader *l)
{
    dr_clip_load(&b->clip, l, l->config, b->mem);
}

static void load_unet(bench *b, dr_loader *l)
{
    dr_unet_load(&b->unet, l, l->config, b->mem);
    b->kv = dr_arena_alloc(b->mem, (size_t)b->unet.n_kv * sizeof *b->kv);
}

static void load_vae(bench *b, dr_loader *l)
{
    dr_vae_load(&b->vae, l, l->config, b->mem);
}

/* The next `bytes` of the input; NULL and the run's error when it is shorter. */
static const void *take(bench *b, size_t bytes)
{
    const uint8_t *p = b->in.data + b->at;
    if (bytes > b->in.size - b->at) {
        dr_fail(&b->run.err, DR_EINVAL, "the input has %zu bytes, at least %zu are wanted",
                b->in.size, b->at + bytes);
        return NULL;
    }
    b->at += bytes;
    return p;
}

/* The next tensor of the input, [n, h, w, c]. */
static dr_tensor put(bench *b, int64_t n, int64_t h, int64_t w, int64_t c)
{
    dr_tensor x = dr_new(&b->run, n, h, w, c);
    const float *p = take(b, (size_t)dr_count(x) * sizeof *p);
    if (p)
        dr_upload(&b->run, x, p);
    return x;
}

static dr_tensor call_clip(bench *b)
{
    const int32_t *ids = take(b, TEXTS * TEXT_TOKENS * sizeof *ids);
    if (!ids)
        return (dr_tensor){ 0 };
    return dr_clip_forward(&b->run, &b->clip, ids, TEXTS, TEXT_TOKENS, NULL, 0);
}

/* Both halves of guidance; the peers read the texts in each call, so do we. */
static dr_tensor call_unet(bench *b)
{
    dr_tensor x = put(b, 1, b->side, b->side, b->unet.in_c);
    dr_tensor text = put(b, TEXTS, TEXT_TOKENS, 1, b->unet.text_c);
    dr_unet_read_text(&b->run, &b->unet, text, b->kv);
    const dr_unet_call call = {
        .x = x, .batch = TEXTS, .in_scale = 1, .timestep = TIMESTEP
    };
    return dr_unet_forward(&b->run, &b->unet, &call, b->kv);
}

static dr_tensor call_decode(bench *b)
{
    return dr_vae_decode(&b->run, &b->vae, put(b, 1, b->side, b->side, b->vae.latent_c));
}

typedef struct {
    const char *name, *folder, *stem;
    void (*load)(bench *b, dr_loader *l);
    dr_tensor (*call)(bench *b);
    int64_t side;
} work;

static const work works[] = {
    { "unet512", "unet", "diffusion_pytorch_model", load_unet, call_unet, 64 },
    { "unet256", "unet", "diffusion_pytorch_model", load_unet, call_unet, 32 },
    { "decode512", "vae", "diffusion_pytorch_model", load_vae, call_decode, 64 },
    { "text", "text_encoder", "model", load_clip, call_clip, 0 },
};

/* --- running one --- */

static dr_status load(bench *b, const char *model, const work *w, dr_err *err)
{
    dr_loader l;
    dr_status st;
    if (!(b->mem = dr_arena_new()) || !(b->pool = dr_pool_new(b->dev)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if ((st =
             dr_loader_open_component(&l, b->dev, b->pool, model, w->folder, w->stem, err)))
        return st;
    w->load(b, &l);
    st = dr_loader_close(&l, err);
    return st ? st : dr_finish(b->dev, err);
}

static dr_tensor call(bench *b, const work *w, bool dry)
{
    dr_run_reset(&b->run, dry);
    b->at = 0;
    return w->call(b);
}

/* A dry run that sizes the memory, a call to warm up, then `calls` more; the last one's
 * output goes to the file. */
static dr_status time_calls(bench *b, const work *w, int64_t calls, const char *to,
                            dr_err *err)
{
    dr_status st;
    size_t bytes = (size_t)dr_count(call(b, w, true)) * sizeof(float);
    float *out = dr_arena_alloc(b->mem, bytes);
    if (!out)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if (!b->run.err.code && (st = dr_run_reserve(&b->run, b->run.peak_bytes, err)))
        return st;
    for (int64_t i = -1; i < calls && !b->run.err.code; i++) {
        double start = dr_now_s();
        dr_download(&b->run, call(b, w, false), out);
        if (i >= 0)
            dr_buf_printf(&b->times, "%s%.6f", i ? ", " : "", dr_now_s() - start);
    }
    if (b->run.err.code) {
        *err = b->run.err;
        return err->code;
    }
    return dr_file_write(to, out, bytes, err);
}

static dr_status run(bench *b, const work *w, const char *model, const char *dir,
                     int64_t calls, dr_err *err)
{
    char in[DR_PATH_MAX], out[DR_PATH_MAX];
    dr_status st;
    double start = dr_now_s();
    b->side = w->side;
    snprintf(in, sizeof in, "%s/%s.in", dir, w->name);
    snprintf(out, sizeof out, "%s/%s.darkroom", dir, w->name);
    if ((st = dr_map_open(&b->in, in, err)) || (st = dr_conf_init(&b->conf, err)) ||
        (st = dr_conf_env(&b->conf, err)) || (st = dr_dev_open(&b->dev, &b->conf, err)) ||
        (st = load(b, model, w, err)))
        return st;
    double load_s = dr_now_s() - start;
    dr_run_init(&b->run, b->dev, (size_t)b->conf.device.attention_tile_mb * MIB,
                (size_t)b->conf.device.conv_tile_mb * MIB);
    if (!(st = time_calls(b, w, calls, out, err)))
        printf("{\"load_s\": %.3f, \"calls_s\": [%s]}\n", load_s, b->times.data);
    return st;
}

int main(int argc, char **argv)
{
    bench b = { 0 };
    dr_err err = { 0 };
    size_t k = 0;
    int64_t calls = argc == 5 ? strtoll(argv[4], NULL, 10) : 0;
    while (argc == 5 && k < DR_COUNT(works) && strcmp(works[k].name, argv[2]) != 0)
        k++;
    if (calls < 1 || k == DR_COUNT(works)) {
        fprintf(stderr, "usage: ours MODEL unet512|unet256|decode512|text DIR CALLS\n");
        return 2;
    }
    dr_status st = run(&b, &works[k], argv[1], argv[3], calls, &err);
    if (st)
        fprintf(stderr, "ours: %s\n", err.message);
    dr_run_free(&b.run);
    dr_pool_free(b.pool);
    dr_arena_free(b.mem);
    dr_map_close(&b.in);
    dr_buf_free(&b.times);
    dr_dev_close(b.dev);
    dr_conf_free(&b.conf);
    return st ? 1 : 0;
}
