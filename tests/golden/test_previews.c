#include "../lib/outcome.h"

#include "base/file.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Previews: the tiny decoder against diffusers' AutoencoderTiny, in both layouts, and which
 * previews a job gets. */

#define LIMIT 1e-5

typedef struct {
    golden *g;
    dr_model *plain, *tiny, *original; /* the demo model: alone, and with the decoder */
} fixture;

/* The demo model with one more entry: a link to `what` in the fixtures. */
static dr_status open_with(golden *g, const char *entry, const char *what, dr_model **m,
                           dr_err *err)
{
    char dir[] = "/tmp/darkroom-model.XXXXXX", at[DR_PATH_MAX], from[DR_PATH_MAX];
    golden_link_model(dir, GOLDEN_DEMO, NULL);
    snprintf(at, sizeof at, "%s/%s", dir, entry);
    assert_non_null(getcwd(from, sizeof from));
    size_t n = strlen(from);
    snprintf(from + n, sizeof from - n, "/tests/golden/taesd/%s", what);
    assert_int_equal(symlink(from, at), 0);
    dr_status st = dr_model_load(m, g->dev, dir, &g->conf, NULL, NULL, err);
    golden_remove_model(dir);
    return st;
}

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/taesd", sizeof *f);
    dr_err err = { 0 };
    f->plain = golden_keep(f->g, golden_model(f->g, GOLDEN_DEMO));
    if (open_with(f->g, "taesd", "model", &f->tiny, &err) ||
        open_with(f->g, "taesd_decoder.safetensors", "original/taesd_decoder.safetensors",
                  &f->original, &err))
        fail_msg("%s", err.message);
    golden_keep(f->g, f->tiny);
    golden_keep(f->g, f->original);
    return 0;
}

/* --- the decoder --- */

typedef struct {
    const dr_taesd *m;
    golden_tensor in;
    float *out;
} call;

static void decode(dr_run *r, void *ctx)
{
    call *c = ctx;
    dr_download(r, dr_taesd_decode(r, c->m, golden_put(r, c->in)), c->out);
}

static void equals_diffusers(void **state)
{
    fixture *f = *state;
    const dr_json *list = dr_json_get(f->g->cases, "cases"), *item;
    assert_int_equal(f->plain->tiny.conv_in.out, 0);
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        golden_tensor want = golden_of(f->g, item, "rgb");
        call c = { .in = golden_of(f->g, item, "latents"),
                   .out = dr_arena_alloc(f->g->mem, golden_count(want) * sizeof(float)) };
        const dr_taesd *const both[] = { &f->tiny->tiny, &f->original->tiny };
        for (int i = 0; i < 2; i++) {
            c.m = both[i];
            golden_run(f->g, decode, &c, 0, NULL);
            golden_near(f->g, i ? "original names" : "diffusers' names", c.out, want.data,
                        golden_count(want), LIMIT);
        }
    }
    assert_int_equal(dr_json_count(list), 2);
}

static void another_file_is_an_error(void **state)
{
    fixture *f = *state;
    dr_model *m = NULL;
    dr_err err = { 0 };
    assert_int_equal(open_with(f->g, "taesd_decoder.safetensors",
                               "model/diffusion_pytorch_model.safetensors", &m, &err),
                     DR_EMODEL);
    assert_non_null(strstr(err.message, "1.weight"));
    assert_null(m);
    /* a folder without its config.json */
    assert_int_not_equal(open_with(f->g, "taesd", "original", &m, &err), DR_OK);
    assert_non_null(strstr(err.message, "taesd/config.json"));
    assert_null(m);
}

/* --- a job's previews --- */

typedef struct {
    outcome o;
    int n;
    int64_t step[64], width, height;
    double mean; /* of the last one's values */
} shown;

static void on_preview(void *ctx, int64_t step, const dr_picture *pic)
{
    outcome *o = ctx;
    shown *s = (shown *)o; /* its first member */
    size_t count = (size_t)(pic->width * pic->height * 3);
    assert_true(s->n < 64);
    s->step[s->n++] = step;
    s->width = pic->width;
    s->height = pic->height;
    s->mean = 0;
    for (size_t i = 0; i < count; i++)
        s->mean += pic->rgb[i] / (double)count;
}

static dr_job job_of(int64_t steps, int64_t every, int64_t size, double hires)
{
    return (dr_job){ .id = "previews",
                     .prompt = "a red circle on a blue background",
                     .negative_prompt = "",
                     .width = 96,
                     .height = 64,
                     .steps = steps,
                     .cfg_scale = 1,
                     .eta = NAN,
                     .n = 1,
                     .seed = 3,
                     .hires = { .scale = hires, .strength = 0.6 },
                     .preview = { .every = every, .size = size } };
}

static shown run_job(fixture *f, dr_model *m, const dr_job *job)
{
    shown s = { .o.g = f->g };
    dr_observer obs = outcome_observer(&s.o);
    obs.preview = on_preview;
    dr_batch_task t = { .job = job, .obs = &obs };
    assert_int_equal(dr_plan_make(&t.plan, m, job, &t.err), DR_OK);
    assert_int_equal(t.plan.preview_side > 0, job->preview.every != 0);
    dr_batch_run(m, &t, 1);
    outcome_check(&s.o, job, &t.stats, t.err.code);
    assert_int_equal(t.err.code, DR_OK);
    assert_true(s.width <= t.plan.preview_side && s.height <= t.plan.preview_side);
    return s;
}

static shown run(fixture *f, dr_model *m, int64_t steps, int64_t every, int64_t size,
                 double hires)
{
    const dr_job job = job_of(steps, every, size, hires);
    return run_job(f, m, &job);
}

static void five_to_ten_come_when_asked(void **state)
{
    fixture *f = *state;
    static const struct {
        int64_t steps, first;
        int n;
    } cases[] = { { 5, 1, 4 }, { 8, 1, 7 }, { 9, 2, 4 }, { 20, 3, 6 }, { 50, 7, 7 } };
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        shown s = run(f, f->plain, cases[i].steps, DR_PREVIEW_AUTO, 0, 0);
        assert_int_equal(s.n, cases[i].n);
        assert_int_equal(s.step[0], cases[i].first);
    }
    assert_int_equal(run(f, f->plain, 6, 0, 0, 0).n, 0);
    /* the last step's would be the picture itself */
    assert_int_equal(run(f, f->plain, 6, 3, 0, 0).n, 1);
}

/* Those of both passes are counted together, and only steps that are made. */
static void with_hires_there_are_no_more(void **state)
{
    fixture *f = *state;
    const shown s = run(f, f->plain, 16, DR_PREVIEW_AUTO, 0, 1.5); /* 16 steps, then 10 */
    const int64_t want[] = { 4, 8, 12, 16, 24, 28 };
    assert_int_equal(s.n, DR_COUNT(want));
    assert_memory_equal(s.step, want, sizeof want);
}

static void sizes(void **state)
{
    fixture *f = *state;
    static const struct {
        bool tiny;
        int64_t size, width, height;
    } cases[] = {
        { false, 0, 12, 8 },    { false, 48, 48, 32 }, { false, 6, 6, 4 },
        { false, 999, 96, 64 }, { true, 0, 96, 64 },   { true, 48, 48, 32 },
        { true, 50, 50, 33 },   { true, 999, 96, 64 },
    };
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        shown s = run(f, cases[i].tiny ? f->tiny : f->plain, 3, 2, cases[i].size, 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.width, cases[i].width);
        assert_int_equal(s.height, cases[i].height);
    }
    /* shrinking keeps the mean */
    assert_true(fabs(run(f, f->tiny, 3, 2, 48, 0).mean - run(f, f->tiny, 3, 2, 0, 0).mean) <
                1);
}

static void both_passes_are_shown(void **state)
{
    fixture *f = *state;
    shown s = run(f, f->plain, 10, 5, 0, 1.5); /* 10 steps, then 6 of 10 */
    const int64_t want[] = { 5, 10, 15 };
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.step, want, sizeof want);
    assert_int_equal(s.width, 18);
}

/* --- what they take --- */

static void widen(dr_weight_mat *w, int64_t in, int64_t out)
{
    w->in = in;
    w->out = out;
    w->w.w = in * w->kh * w->kw;
    w->w.c = out;
    w->b.c = w->b.c ? out : 0;
}

/* The decoder with more channels than any other part, for dry runs only. */
static void make_wide(dr_taesd *m, int64_t c)
{
    widen(&m->conv_in, m->latent_c, c);
    widen(&m->conv_out, c, 3);
    for (int i = 0; i < DR_TAESD_LEVELS; i++) {
        for (int k = 0; k < m->level[i].n_blocks; k++)
            for (int j = 0; j < 3; j++)
                widen(&m->level[i].block[k].conv[j], c, c);
        if (m->level[i].resize.out)
            widen(&m->level[i].resize, c, c);
    }
}

static dr_plan plan_of(dr_model *m, const dr_job *job)
{
    dr_plan plan;
    dr_err err = { 0 };
    if (dr_plan_make(&plan, m, job, &err))
        fail_msg("%s", err.message);
    return plan;
}

/* Whoever watches, and in samplers that call the UNet twice a step too. */
static void the_plan_knows_their_memory_and_work(void **state)
{
    fixture *f = *state;
    static const dr_sampler_id samplers[] = { DR_SAMPLER_EULER, DR_SAMPLER_HEUN };
    const dr_taesd before = f->tiny->tiny;
    enum { WIDE = 200, PIXELS = 96 * 64 };
    for (size_t i = 0; i < DR_COUNT(samplers); i++) {
        dr_job without = job_of(12, 0, 0, 0), some = job_of(12, 4, 0, 0),
               all = job_of(12, 1, 0, 0);
        without.sampler = some.sampler = all.sampler = samplers[i];
        make_wide(&f->tiny->tiny, WIDE);
        const dr_plan none = plan_of(f->tiny, &without), few = plan_of(f->tiny, &some),
                      many = plan_of(f->tiny, &all);
        f->tiny->tiny = before;
        /* three tensors at full size */
        assert_true(few.peak_bytes > 3 * WIDE * PIXELS * (int64_t)sizeof(float));
        assert_true(few.peak_bytes > none.peak_bytes);
        assert_int_equal(few.peak_bytes, many.peak_bytes);
        const double more = few.pass[0].step_flops - none.pass[0].step_flops;
        assert_true(more > 0);
        assert_true(fabs(many.pass[0].step_flops - none.pass[0].step_flops - 4 * more) <
                    1e-6 * many.pass[0].step_flops);
        assert_int_equal(run_job(f, f->tiny, &some).n, 2);
    }
}

/* A job is not refused for its previews' sake. */
static void a_decoder_that_does_not_fit_is_left_out(void **state)
{
    fixture *f = *state;
    const dr_taesd before = f->tiny->tiny;
    dr_dev_info *info = (dr_dev_info *)dr_dev_describe(f->g->dev);
    const dr_dev_info device = *info;
    const dr_job without = job_of(3, 0, 0, 0), with = job_of(3, 1, 0, 0);
    const dr_plan none = plan_of(f->tiny, &without);
    info->memory_bytes =
        dr_pool_bytes(f->tiny->pool) + (uint64_t)none.peak_bytes + ((uint64_t)1 << 16);
    make_wide(&f->tiny->tiny, 512);
    const shown s = run_job(f, f->tiny, &with);
    const dr_plan plan = plan_of(f->tiny, &with);
    *info = device;
    f->tiny->tiny = before;
    assert_int_equal(plan.band_rows, 0);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.width, 12);
    assert_int_equal(s.height, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_diffusers),
        cmocka_unit_test(another_file_is_an_error),
        cmocka_unit_test(five_to_ten_come_when_asked),
        cmocka_unit_test(with_hires_there_are_no_more),
        cmocka_unit_test(sizes),
        cmocka_unit_test(both_passes_are_shown),
        cmocka_unit_test(the_plan_knows_their_memory_and_work),
        cmocka_unit_test(a_decoder_that_does_not_fit_is_left_out),
    };
    return cmocka_run_group_tests_name("previews", tests, setup, golden_end);
}
