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
#define DEMO  "contrib/demo-model/model"

typedef struct {
    golden *g;
    dr_model *plain, *tiny, *original; /* the demo model: alone, and with the decoder */
} fixture;

/* The demo model with one more entry: a link to `what` in the fixtures. */
static dr_status open_with(golden *g, const char *entry, const char *what, dr_model **m,
                           dr_err *err)
{
    char dir[] = "/tmp/darkroom-model.XXXXXX", at[DR_PATH_MAX], from[DR_PATH_MAX];
    golden_link_model(dir, DEMO, NULL);
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
    golden *g = golden_open("tests/golden/taesd");
    fixture *f = *state = dr_arena_alloc(g->mem, sizeof *f);
    dr_err err = { 0 };
    golden_device(g);
    f->g = g;
    f->plain = golden_model(g, DEMO);
    if (open_with(g, "taesd", "model", &f->tiny, &err) ||
        open_with(g, "taesd_decoder.safetensors", "original/taesd_decoder.safetensors",
                  &f->original, &err))
        fail_msg("%s", err.message);
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    void *g = f->g;
    dr_model_close(f->plain);
    dr_model_close(f->tiny);
    dr_model_close(f->original);
    return golden_teardown(&g);
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

static shown run(fixture *f, dr_model *m, int64_t steps, int64_t every, int64_t size,
                 double hires)
{
    shown s = { .o.g = f->g };
    dr_job job = { .id = "previews",
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
    dr_observer obs = outcome_observer(&s.o);
    obs.preview = on_preview;
    dr_batch_task t = { .job = &job, .obs = &obs };
    assert_int_equal(dr_plan_make(&t.plan, m, &job, &t.err), DR_OK);
    assert_int_equal(t.plan.preview_side > 0, every != 0);
    dr_batch_run(m, &t, 1);
    outcome_check(&s.o, &job, &t.stats, t.err.code);
    assert_int_equal(t.err.code, DR_OK);
    assert_true(s.width <= t.plan.preview_side && s.height <= t.plan.preview_side);
    return s;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_diffusers),
        cmocka_unit_test(another_file_is_an_error),
        cmocka_unit_test(five_to_ten_come_when_asked),
        cmocka_unit_test(sizes),
        cmocka_unit_test(both_passes_are_shown),
    };
    return cmocka_run_group_tests_name("previews", tests, setup, teardown);
}
