#include "bench.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "diffusion/pipeline.h"
#include "image/encode.h"
#include "image/image.h"
#include "job/decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Whole jobs, as a client would send them: from the prompt to the file. */

#define FIELDS_MAX 9
#define TEXT_BYTES 96

typedef struct {
    const char *name;
    const char *lora; /* NULL: none */
    bool picture, mask;
} kind;

static const kind kinds[] = { { "txt2img", NULL, false, false },
                              { "txt2img_lora", "outline:0.8", false, false },
                              { "img2img", NULL, true, false },
                              { "inpaint", NULL, true, true } };

typedef struct {
    bench *b;
    const kind *k;
    dr_arena *mem; /* of the job */
    dr_job *job;
    dr_model *model;
    dr_buf picture, mask;             /* as files */
    dr_buf file;                      /* what a run made */
    dr_err failure;                   /* of writing it */
    uint64_t launches, step_launches; /* at the last span's end; of the last step */
} benched;

/* --- jobs --- */

static uint8_t slope(int64_t x, int64_t y, int64_t side)
{
    return (uint8_t)(255 * (x + y) / (2 * side));
}

static uint8_t right_half(int64_t x, int64_t y, int64_t side)
{
    (void)y;
    return x < side / 2 ? 0 : 255;
}

static dr_status draw(dr_buf *out, int64_t side,
                      uint8_t (*pixel)(int64_t x, int64_t y, int64_t side), dr_err *err)
{
    const dr_image_opts png = { .format = DR_FORMAT_PNG, .effort = DR_IMAGE_EFFORT };
    dr_image im;
    dr_status st = dr_image_new(&im, side, side, 3, err);
    if (st)
        return st;
    for (int64_t i = 0; i < side * side; i++)
        memset(im.px + 3 * i, pixel(i % side, i / side, side), 3);
    st = dr_image_encode(im.px, side, side, &png, out, err);
    dr_image_free(&im);
    return st;
}

static dr_field text_field(const char *name, const char *value)
{
    return (dr_field){ name, value, strlen(value) };
}

/* The job of run i, in c->mem. */
static dr_status make_job(benched *c, int64_t i, dr_err *err)
{
    const bench_options *o = &c->b->o;
    const dr_job_defaults defaults = { .quality = c->b->conf.output.quality };
    char prompt[TEXT_BYTES], size[TEXT_BYTES], steps[TEXT_BYTES], n[TEXT_BYTES];
    dr_field f[FIELDS_MAX];
    int count = 0;
    snprintf(prompt, sizeof prompt, "a large red circle on a blue background");
    if (o->fresh)
        snprintf(prompt, sizeof prompt, "a large red circle, number %lld", (long long)i);
    snprintf(size, sizeof size, "%lldx%lld", (long long)o->size, (long long)o->size);
    snprintf(steps, sizeof steps, "%lld", (long long)o->steps);
    snprintf(n, sizeof n, "%lld", (long long)o->images);
    f[count++] = text_field("prompt", prompt);
    f[count++] = text_field("size", size);
    f[count++] = text_field("n", n);
    f[count++] = text_field("seed", "7");
    if (o->steps)
        f[count++] = text_field("steps", steps);
    if (c->k->lora)
        f[count++] = text_field("loras", c->k->lora);
    if (c->k->picture)
        f[count++] = (dr_field){ "init_image", c->picture.data, c->picture.len };
    if (c->k->mask)
        f[count++] = (dr_field){ "mask", c->mask.data, c->mask.len };
    dr_arena_reset(c->mem);
    return dr_job_decode(&c->job, c->mem, "bench", f, count, &defaults, err);
}

/* --- runs --- */

static void on_image(void *ctx, int64_t index, uint64_t seed, const dr_picture *pic)
{
    benched *c = ctx;
    const dr_image_opts o = dr_image_output(c->job, NULL);
    (void)index, (void)seed;
    if (!c->failure.code)
        (void)!dr_image_encode(pic->rgb, pic->width, pic->height, &o, &c->file,
                               &c->failure);
}

static void on_span(void *ctx, dr_phase phase, int64_t step, double from_s, double to_s)
{
    benched *c = ctx;
    uint64_t now = dr_launches(c->b->dev);
    (void)phase, (void)from_s, (void)to_s;
    if (step)
        c->step_launches = now - c->launches;
    c->launches = now;
}

static void put_run(dr_buf *out, const dr_run_stats *s, double plan, double total)
{
    const struct {
        const char *name;
        double seconds;
    } parts[] = { { "total", total },      { "plan", plan },
                  { "encode", s->encode }, { "denoise", s->denoise },
                  { "decode", s->decode }, { "compress", s->compress } };
    dr_buf_puts(out, out->len ? ",\n     {" : "{");
    for (size_t i = 0; i < DR_COUNT(parts); i++)
        dr_buf_printf(out, "%s\"%s\": %.6f", i ? ", " : "", parts[i].name,
                      parts[i].seconds);
    dr_buf_puts(out, "}");
}

/* Run i, from the job's plan to its last file; *total in seconds. */
static dr_status run_once(benched *c, int64_t i, dr_plan *plan, dr_run_stats *stats,
                          double *plan_s, double *total_s, dr_err *err)
{
    const dr_observer observer = { .ctx = c, .image = on_image, .span = on_span };
    dr_status st = make_job(c, i, err);
    double start = dr_now_s();
    if (st || (st = dr_plan_make(plan, c->model, c->job, err)))
        return st;
    *plan_s = dr_now_s() - start;
    st = dr_pipeline_run(c->model, c->job, plan, &observer, stats, err);
    *total_s = dr_now_s() - start;
    if (!st && c->failure.code)
        *err = c->failure;
    return st ? st : c->failure.code;
}

static dr_status run_all(benched *c, double load_s, dr_err *err)
{
    const bench_options *o = &c->b->o;
    dr_buf *rows = &c->b->rows, runs = { 0 };
    dr_plan plan;
    dr_run_stats stats;
    uint64_t allocations = 0;
    double plan_s, total_s, best = INFINITY;
    dr_status st = DR_OK;
    for (int64_t i = 0; i < o->warm + o->runs && !st; i++) {
        st = run_once(c, i, &plan, &stats, &plan_s, &total_s, err);
        if (st || i < o->warm)
            continue;
        put_run(&runs, &stats, plan_s, total_s);
        allocations += stats.loop_allocations;
        best = fmin(best, total_s);
    }
    if (st)
        goto done;
    long long made = (long long)(plan.steps - plan.pass[0].first);
    printf("%s %s %lldx%lld, %lld pictures of %lld steps: best of %lld %.3f s\n", o->model,
           c->k->name, (long long)o->size, (long long)o->size, (long long)plan.n, made,
           (long long)o->runs, best);
    dr_buf_printf(
        rows,
        "\n  {\"case\": \"%s\", \"size\": %lld, \"images\": %lld, \"steps\": %lld,"
        " \"fresh\": %s, \"load\": %.3f,\n   \"activation_bytes\": %lld, "
        "\"loop_allocations\": %llu, \"step_launches\": %llu,\n   \"runs\": [",
        c->k->name, (long long)o->size, (long long)plan.n, made,
        o->fresh ? "true" : "false", load_s, (long long)plan.peak_bytes,
        (unsigned long long)allocations, (unsigned long long)c->step_launches);
    dr_buf_put(rows, runs.data, runs.len);
    dr_buf_puts(rows, "]}");
    rows->failed |= runs.failed;
done:
    dr_buf_free(&runs);
    return st;
}

static const kind *find_kind(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(kinds); i++)
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    return NULL;
}

dr_status bench_case(bench *b, dr_err *err)
{
    benched c = { .b = b, .k = find_kind(b->o.name), .mem = dr_arena_new() };
    double start = dr_now_s();
    dr_status st = DR_OK;
    if (!c.k)
        st = dr_fail(err, DR_EINVAL, "--name %s: no such case", b->o.name);
    else if (!c.mem)
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    if (!st && !(st = draw(&c.picture, b->o.size, slope, err)) &&
        !(st = draw(&c.mask, b->o.size, right_half, err)) &&
        !(st = dr_model_open(&c.model, b->dev, b->path, &b->conf, NULL, NULL, err)))
        st = run_all(&c, dr_now_s() - start, err);
    dr_model_close(c.model);
    dr_buf_free(&c.picture);
    dr_buf_free(&c.mask);
    dr_buf_free(&c.file);
    dr_arena_free(c.mem);
    return st;
}
