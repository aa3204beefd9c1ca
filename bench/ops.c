#include "bench.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>

/* Milliseconds of a UNet call and of a decode by operation. */

#define TEXT_TOKENS 77
#define MIB         ((size_t)1 << 20)

/* Latents for pictures of --size, --batch rows of them, and what the model makes of it. */
static void call_unet(bench *b)
{
    dr_run *r = &b->run;
    int64_t side = b->o.size / b->vae.factor, batch = b->o.batch;
    dr_tensor text = dr_new(r, batch > 1 ? 2 : 1, TEXT_TOKENS, 1, b->unet.text_c);
    dr_tensor x = dr_new(r, (batch + 1) / 2, side, side, b->unet.in_c);
    op_fill(r, text, 0.25f);
    op_fill(r, x, 0.5f);
    dr_unet_read_text(r, &b->unet, text, b->kv);
    const dr_unet_call call = { .x = x, .batch = batch, .in_scale = 1, .timestep = 500 };
    dr_unet_forward(r, &b->unet, &call, b->kv);
}

static void call_decode(bench *b)
{
    dr_run *r = &b->run;
    int64_t side = b->o.size / b->vae.factor;
    dr_tensor x = dr_new(r, 1, side, side, b->vae.latent_c);
    op_fill(r, x, 0.5f);
    dr_vae_decode(r, &b->vae, x);
}

typedef struct {
    const char *name;
    void (*call)(bench *b);
    bool batched; /* else one row */
} subject;

static const subject subjects[] = { { "unet", call_unet, true },
                                    { "decode", call_decode, false } };

/* Sizes the run's memory by a dry run, then gives the best of --calls times. */
static dr_status best_time(bench *b, const subject *s, double *best, dr_err *err)
{
    dr_status st;
    *best = INFINITY;
    dr_run_reset(&b->run, true);
    s->call(b);
    size_t peak = b->run.peak_bytes;
    if ((st = dr_run_reserve(&b->run, peak, err)))
        return st;
    for (int64_t i = 0; i < b->o.calls && !b->run.err.code; i++) {
        dr_run_reset(&b->run, false);
        double start = dr_now_s();
        s->call(b);
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

static void put_subject(bench *b, const subject *s, double best, double flops,
                        const dr_profile_row *rows, int n)
{
    const bench_options *o = &b->o;
    printf("%s %s %lldx%lld, batch %lld: %.1f ms, %.1f GFLOP, %.1f MiB of activations\n",
           o->model, s->name, (long long)o->size, (long long)o->size,
           (long long)(s->batched ? o->batch : 1), best * 1e3, flops / 1e9,
           (double)b->run.peak_bytes / (double)MIB);
    dr_buf_printf(&b->rows,
                  "%s\n  {\"what\": \"%s\", \"size\": %lld, \"batch\": %lld, "
                  "\"ms\": %.3f, \"gflops\": %.3f, \"peak_bytes\": %zu,\n   \"ops\": [",
                  b->rows.len ? "," : "", s->name, (long long)o->size,
                  (long long)(s->batched ? o->batch : 1), best * 1e3, flops / best / 1e9,
                  b->run.peak_bytes);
    for (int i = 0; i < n; i++) {
        if (i)
            dr_buf_puts(&b->rows, ",\n           ");
        put_row(b, rows[i].label, (double)rows[i].calls, rows[i].seconds, rows[i].flops);
    }
    dr_buf_puts(&b->rows, "]}");
}

/* Time a subject, then run it once more with a watch on each operation. */
static dr_status time_subject(bench *b, const subject *s, dr_err *err)
{
    const dr_profile_row *rows;
    int n;
    double best;
    dr_status st = best_time(b, s, &best, err);
    if (st)
        return st;
    dr_run_reset(&b->run, false);
    if ((st = dr_profile_start(b->dev, NULL, NULL, err)))
        return st;
    double start = dr_now_s();
    s->call(b);
    double flops = b->run.flops;
    if (!(st = dr_profile_stop(b->dev, &rows, &n, err))) {
        best = fmin(best, dr_now_s() - start); /* the first call may have compiled */
        put_subject(b, s, best, flops, rows, n);
    }
    dr_profile_free(b->dev);
    return st;
}

dr_status bench_ops(bench *b, dr_err *err)
{
    dr_status st = bench_parts_open(b, err);
    for (size_t i = 0; i < DR_COUNT(subjects) && !st; i++)
        st = time_subject(b, &subjects[i], err);
    bench_parts_close(b);
    return st;
}
