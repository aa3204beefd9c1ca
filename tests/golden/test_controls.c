#include "../lib/control.h"
#include "../lib/outcome.h"

#include "base/file.h"
#include "diffusion/controls.h"
#include "image/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Jobs with ControlNets: when they act, what is refused, what stays loaded. */

#define SIZE 64
#define NETS 5

typedef struct {
    golden *g;
    dr_model *model;
    char dir[64];
    dr_buf picture;
} fixture;

static const char *in_dir(fixture *f, const char *name)
{
    return dr_arena_printf(f->g->mem, "%s/%s", f->dir, name);
}

static dr_json *changed(fixture *f, const char *member)
{
    dr_buf text = { 0 }, all = { 0 };
    dr_json *config = NULL;
    dr_json_put(&text, dr_json_get(f->g->cases, "config"));
    dr_buf_printf(&all, "{%s,%s", member, text.data + 1);
    assert_int_equal(dr_json_parse(&config, all.data, all.len, NULL), DR_OK);
    dr_buf_free(&text);
    dr_buf_free(&all);
    return config;
}

/* A disc, as PNG. */
static void draw(dr_buf *out)
{
    static uint8_t rgb[SIZE * SIZE * 3];
    for (int y = 0; y < SIZE; y++)
        for (int x = 0; x < SIZE; x++)
            memset(&rgb[(y * SIZE + x) * 3],
                   (x - 30) * (x - 30) + (y - 30) * (y - 30) < 400 ? 230 : 20, 3);
    assert_int_equal(dr_image_encode(rgb, SIZE, SIZE,
                                     &(dr_image_opts){ .lossless = true, .effort = 1 }, out,
                                     NULL),
                     DR_OK);
}

static dr_model *open_model(fixture *f, const char *memory_mb)
{
    assert_int_equal(dr_conf_set(&f->g->conf, "control.dir", f->dir, NULL), DR_OK);
    assert_int_equal(dr_conf_set(&f->g->conf, "model.memory_mb", memory_mb, NULL), DR_OK);
    return golden_model(f->g, dr_json_get_string(f->g->cases, "model", ""));
}

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/control", sizeof *f);
    const dr_json *config = dr_json_get(f->g->cases, "config");
    snprintf(f->dir, sizeof f->dir, "/tmp/darkroom-controls.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    control_write(in_dir(f, "net0"), "first", config);
    control_write(in_dir(f, "net1"), "second", config);
    for (int i = 2; i < NETS; i++)
        assert_int_equal(symlink("net1", in_dir(f, dr_arena_printf(f->g->mem, "net%d", i))),
                         0);
    dr_json *wide = changed(f, "\"cross_attention_dim\":48");
    control_write(in_dir(f, "wide"), "wide", wide);
    dr_json_free(wide);
    dr_json *narrow = changed(f, "\"block_out_channels\":[16,16,32,32]");
    control_write(in_dir(f, "narrow"), "narrow", narrow);
    dr_json_free(narrow);
    dr_json *flat = changed(f, "\"conditioning_embedding_out_channels\":[4,6,8]");
    control_write(in_dir(f, "flat"), "flat", flat);
    dr_json_free(flat);
    assert_int_equal(dr_file_write(in_dir(f, "single.safetensors"), "x", 1, NULL), DR_OK);
    draw(&f->picture);
    f->model = golden_keep(f->g, open_model(f, "0"));
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dr_buf_free(&f->picture);
    golden_remove_model(f->dir);
    return golden_end(state);
}

/* --- running --- */

static dr_job plain_job(void)
{
    return (dr_job){ .id = "control",
                     .prompt = "a cat",
                     .negative_prompt = "a dog",
                     .width = SIZE,
                     .height = SIZE,
                     .steps = 4,
                     .cfg_scale = 5,
                     .eta = 0,
                     .seed = 7,
                     .n = 1,
                     .sampler = DR_SAMPLER_EULER };
}

static dr_job controlled(fixture *f, const char *name)
{
    dr_job job = plain_job();
    job.controls[0] = (dr_control_ref){
        .name = name,
        .image = { .bytes = f->picture.data, .n = f->picture.len },
        .strength = 1,
        .end = 1,
    };
    job.n_controls = 1;
    return job;
}

static dr_status try_run(dr_model *m, const dr_job *job, outcome *o, dr_batch_task *t)
{
    const dr_observer obs = outcome_observer(o);
    t->job = job;
    t->obs = &obs;
    (void)!dr_batch_plan(m, t, 1);
    dr_batch_run(m, t, 1);
    outcome_check(o, job, &t->stats, t->err.code);
    return t->err.code;
}

static outcome run(fixture *f, const dr_job *job)
{
    dr_batch_task t = { 0 };
    outcome o = { .g = f->g };
    if (try_run(f->model, job, &o, &t))
        fail_msg("%s", t.err.message);
    return o;
}

static bool equal(const outcome *a, const outcome *b)
{
    return a->n_latents == b->n_latents &&
           !memcmp(a->latents, b->latents, a->n_latents * sizeof(float)) &&
           !memcmp(a->rgb[0], b->rgb[0], outcome_bytes(a));
}

static void assert_refused(fixture *f, dr_model *m, const dr_job *job, dr_status want,
                           const char *says, const char *and)
{
    dr_batch_task t = { 0 };
    outcome o = { .g = f->g };
    dr_status st = try_run(m, job, &o, &t);
    if (st != want || !strstr(t.err.message, says) || !strstr(t.err.message, and))
        fail_msg("%s: %s: %s", job->controls[0].name, dr_status_name(st), t.err.message);
}

/* --- what they do --- */

static void strength_0_is_none_and_1_is_some(void **state)
{
    fixture *f = *state;
    dr_job job = plain_job(), with = controlled(f, "net0");
    outcome none = run(f, &job), one = run(f, &with), again = run(f, &with);
    with.controls[0].strength = 0;
    outcome zero = run(f, &with);
    with.controls[0].strength = 0.5;
    outcome half = run(f, &with);
    assert_true(equal(&none, &zero));
    assert_true(equal(&one, &again));
    assert_false(equal(&none, &one));
    assert_false(equal(&half, &none) || equal(&half, &one));
    assert_true(golden_l2(half.latents, none.latents, none.n_latents) <
                golden_l2(one.latents, none.latents, none.n_latents));
}

static void everything_of_a_control_counts(void **state)
{
    fixture *f = *state;
    dr_job job = controlled(f, "net0");
    outcome one = run(f, &job);
    job.controls[0].canny = true;
    outcome edges = run(f, &job);
    job = controlled(f, "net1");
    outcome other = run(f, &job);
    job.controls[1] = controlled(f, "net0").controls[0];
    job.n_controls = 2;
    outcome both = run(f, &job);
    assert_false(equal(&one, &edges) || equal(&one, &other) || equal(&both, &one) ||
                 equal(&both, &other));
    job.n = 2; /* pictures of one job share their ControlNets */
    outcome two = run(f, &job);
    assert_true(golden_psnr(two.rgb[0], both.rgb[0], outcome_bytes(&both)) > 50);
}

static void start_and_end_are_shares_of_the_steps(void **state)
{
    static const struct {
        double start, end;
        int acts; /* a bit for each of four steps */
    } rows[] = { { 0, 1, 15 },      { 0, 0.5, 3 },  { 0.5, 1, 12 },
                 { 0.25, 0.75, 6 }, { 0.3, 1, 12 }, { 0, 0.7, 3 },
                 { 0.1, 0.4, 0 },   { 0.75, 1, 8 }, { 0, 0.25, 1 } };
    fixture *f = *state;
    dr_job job = plain_job();
    outcome of[DR_COUNT(rows)], none = run(f, &job);
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_job with = controlled(f, "net0");
        with.controls[0].start = rows[i].start;
        with.controls[0].end = rows[i].end;
        dr_control_use use = { .ref = &with.controls[0] };
        for (int k = 0; k < 4; k++)
            assert_int_equal(dr_control_acts(&use, k, 4), rows[i].acts >> k & 1);
        of[i] = run(f, &with);
        assert_int_equal(equal(&of[i], &none), !rows[i].acts);
        for (size_t k = 0; k < i; k++)
            assert_int_equal(equal(&of[i], &of[k]), rows[i].acts == rows[k].acts);
    }
}

static void plan_counts_memory_and_work(void **state)
{
    fixture *f = *state;
    dr_job job = plain_job(), with = controlled(f, "net0");
    dr_plan none, one, half;
    assert_int_equal(dr_plan_make(&none, f->model, &job, NULL), DR_OK);
    assert_int_equal(dr_plan_make(&one, f->model, &with, NULL), DR_OK);
    with.controls[0].end = 0.5;
    assert_int_equal(dr_plan_make(&half, f->model, &with, NULL), DR_OK);
    assert_true(one.peak_bytes > none.peak_bytes);
    assert_int_equal(half.peak_bytes, one.peak_bytes);
    assert_true(one.pass[0].encode_flops > none.pass[0].encode_flops);
    double more = one.pass[0].step_flops - none.pass[0].step_flops;
    assert_true(more > 0.2 * none.pass[0].step_flops &&
                more < 0.8 * none.pass[0].step_flops);
    assert_true(
        golden_l2(&(float){ (float)(half.pass[0].step_flops - none.pass[0].step_flops) },
                  &(float){ (float)(more / 2) }, 1) < 1e-6);
    assert_true(dr_jobs_batch(&job, &job));
    assert_false(dr_jobs_batch(&job, &with) || dr_jobs_batch(&with, &job) ||
                 dr_jobs_batch(&with, &with));
}

/* A stopped job goes on only with the ControlNets it had. */
static void checkpoint_knows_them(void **state)
{
    fixture *f = *state;
    dr_job job = controlled(f, "net0");
    outcome whole = run(f, &job),
            cut = { .g = f->g, .stop = DR_STOP_KEEP, .stop_after = 2 };
    dr_batch_task t = { 0 };
    assert_int_equal(try_run(f->model, &job, &cut, &t), DR_ESTOPPED);
    assert_int_equal(cut.checkpoints, 1);
    for (int i = 0; i < 4; i++) {
        dr_job next = controlled(f, i == 1 ? "net1" : "net0");
        next.controls[0].strength = i == 2 ? 0.9 : 1;
        next.controls[0].canny = i == 3;
        outcome o = { .g = f->g };
        t = (dr_batch_task){ .resume = cut.checkpoint.data,
                             .resume_bytes = cut.checkpoint.len };
        assert_int_equal(try_run(f->model, &next, &o, &t), DR_OK);
        assert_int_equal(o.warnings, i > 0);
        assert_int_equal(o.first.step, i ? 1 : 3);
        assert_int_equal(equal(&o, &whole), i == 0);
        outcome_free(&o);
    }
    outcome_free(&cut);
}

/* --- what is refused --- */

static void bad_ones_are_refused_with_a_reason(void **state)
{
    static const struct {
        const char *name;
        dr_status status;
        const char *says, *and;
    } rows[] = {
        { "nowhere", DR_ENOTFOUND, "\"nowhere\": no such ControlNet; there are: flat, ",
          ", narrow, net0, net1, " },
        { "../control", DR_EINVAL, "name of a folder", "" },
        { ".", DR_EINVAL, "name of a folder", "" },
        { "", DR_EINVAL, "name of a folder", "" },
        { "single", DR_EMODEL, "single.safetensors", "diffusers layout" },
        { "wide", DR_EINVAL, "cross_attention_dim is 48", "is 40" },
        { "narrow", DR_EINVAL, "other blocks", "narrow" },
        { "flat", DR_EINVAL, "4 times smaller", "8 times" },
    };
    fixture *f = *state;
    dr_job good = controlled(f, "net0");
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_job job = controlled(f, rows[i].name);
        assert_refused(f, f->model, &job, rows[i].status, rows[i].says, rows[i].and);
    }
    dr_job job = good;
    job.controls[0].image.n = 20;
    assert_refused(f, f->model, &job, DR_EINVAL, "net0", "");
    job.controls[0].image = (dr_picture_ref){ .key = "somewhere" };
    assert_refused(f, f->model, &job, DR_EINVAL, "net0", "missing");
    run(f, &good); /* and nothing is left of them */
    assert_int_equal(dr_conf_set(&f->g->conf, "control.dir", "", NULL), DR_OK);
    dr_model *m = golden_model(f->g, dr_json_get_string(f->g->cases, "model", ""));
    assert_refused(f, m, &good, DR_ENOTFOUND, "control.dir is not set", "net0");
    dr_model_close(m);
}

/* --- what stays loaded --- */

static void four_are_kept_and_idle_ones_go(void **state)
{
    fixture *f = *state;
    dr_model_idle(f->model);
    assert_int_equal(dr_controls_bytes(f->model->controls), 0);
    size_t one = 0;
    for (int i = 0; i < 2 * NETS; i++) {
        dr_job job = controlled(f, dr_arena_printf(f->g->mem, "net%d", i % NETS));
        run(f, &job);
        size_t bytes = dr_controls_bytes(f->model->controls);
        one = one ? one : bytes;
        int kept = i < DR_CONTROLS_MAX ? i + 1 : DR_CONTROLS_MAX;
        assert_true(bytes >= (size_t)kept * one - 8 && bytes <= (size_t)kept * one + 8);
    }
}

/* 3.5 MiB of the model's and 1.2 of one ControlNet's weights; two do not fit. */
static void memory_mb_holds_for_all_together(void **state)
{
    fixture *f = *state;
    dr_model *m = open_model(f, "5");
    dr_job first = controlled(f, "net0"), second = controlled(f, "net1"), both = first;
    dr_plan plan;
    both.controls[1] = second.controls[0];
    both.n_controls = 2;
    assert_int_equal(dr_plan_make(&plan, m, &first, NULL), DR_OK);
    size_t one = dr_controls_bytes(m->controls);
    assert_true(one > 0);
    assert_int_equal(dr_plan_make(&plan, m, &second, NULL), DR_OK);
    assert_int_equal(dr_controls_bytes(m->controls), one);
    assert_refused(f, m, &both, DR_ENOMEM, "2 MiB", "raise model.memory_mb");
    dr_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strength_0_is_none_and_1_is_some),
        cmocka_unit_test(everything_of_a_control_counts),
        cmocka_unit_test(start_and_end_are_shares_of_the_steps),
        cmocka_unit_test(plan_counts_memory_and_work),
        cmocka_unit_test(checkpoint_knows_them),
        cmocka_unit_test(bad_ones_are_refused_with_a_reason),
        cmocka_unit_test(four_are_kept_and_idle_ones_go),
        cmocka_unit_test(memory_mb_holds_for_all_together),
    };
    return cmocka_run_group_tests_name("controls", tests, setup, teardown);
}
