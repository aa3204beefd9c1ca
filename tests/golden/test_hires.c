#include "../lib/outcome.h"

#include "diffusion/model.h"

#include <math.h>
#include <string.h>

/* Jobs of two passes: against diffusers' pipelines one after the other, and what a run
 * promises of them. */

#define LIMIT     2e-4
#define BY_BYTES  3e-3 /* with a picture in between, where a half rounds up or down */
#define EQUAL_MIN 50.0 /* dB, a picture of several against the same alone */

enum { TINY, DEMO, MODELS };

typedef struct {
    golden *g;
    dr_model *model[MODELS];
} fixture;

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/hires", sizeof *f);
    f->model[TINY] = golden_keep(f->g, golden_model(f->g, GOLDEN_TINY));
    f->model[DEMO] = golden_keep(f->g, golden_model(f->g, GOLDEN_DEMO));
    return 0;
}

static dr_job hires_job(const dr_json *item)
{
    dr_job job = golden_job(item);
    bool lanczos = !strcmp(dr_json_get_string(item, "upscaler", ""), "lanczos");
    job.hires.scale = dr_json_get_number(item, "scale", NAN);
    job.hires.steps = (int64_t)dr_json_get_number(item, "hires_steps", 0);
    job.hires.strength = dr_json_get_number(item, "strength", NAN);
    job.hires.upscaler = lanczos ? DR_UPSCALE_LANCZOS : DR_UPSCALE_LATENT;
    return job;
}

static dr_job job_of(fixture *f, int i)
{
    return hires_job(dr_json_at(dr_json_get(f->g->cases, "cases"), i));
}

static outcome run(fixture *f, int model, const dr_job *job)
{
    dr_err err = { 0 };
    outcome o = { .g = f->g };
    if (outcome_try(f->model[model], job, &o, &err))
        fail_msg("%s: %s", dr_sampler_name(job->sampler), err.message);
    return o;
}

static void equals_diffusers(void **state)
{
    fixture *f = *state;
    const dr_json *list = dr_json_get(f->g->cases, "cases"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        const char *name = dr_json_get_string(item, "latents", "");
        bool demo = strstr(dr_json_get_string(item, "model", ""), "demo");
        dr_job job = hires_job(item);
        outcome o = run(f, demo ? DEMO : TINY, &job);
        golden_tensor want = golden_get(f->g, name);
        golden_near(f->g, name, o.latents, want.data, golden_count(want),
                    job.hires.upscaler == DR_UPSCALE_LANCZOS ? BY_BYTES : LIMIT);
        assert_int_equal(o.width, want.w * 8);
        assert_int_equal(o.height, want.h * 8);
    }
    assert_int_equal(dr_json_count(list), 5);
}

static void steps_and_sizes_are_told(void **state)
{
    fixture *f = *state;
    dr_job job = job_of(f, 1); /* 96 x 64 twice as large, 6 and 10 steps, strength 0.55 */
    dr_plan plan;
    dr_err err = { 0 };
    assert_int_equal(dr_plan_make(&plan, f->model[TINY], &job, &err), DR_OK);
    assert_int_equal(plan.passes, 2);
    assert_int_equal(plan.width, 192);
    assert_int_equal(plan.height, 128);
    assert_int_equal(plan.steps, 6);
    assert_int_equal(plan.pass[0].width, 96);
    assert_int_equal(plan.pass[1].steps, 10);
    assert_int_equal(plan.pass[1].first, 5);
    outcome o = run(f, TINY, &job);
    assert_int_equal(o.last.steps, 16);
    assert_int_equal(o.last.step, 16);
    assert_int_equal(o.first.step, 1);
    outcome_free(&o);
}

/* With two calls a step, and with nothing left to do in the second pass. */
static void progress_never_falls(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 4; i++) {
        dr_job job = job_of(f, 3 - i % 2);
        job.sampler = i < 2 ? DR_SAMPLER_HEUN : DR_SAMPLER_DPM_2_A;
        job.hires.strength = i % 2 ? 0 : 0.5;
        job.hires.steps = 9;
        outcome o = run(f, TINY, &job); /* checks it */
        assert_int_equal(o.last.steps, 15);
        outcome_free(&o);
    }
}

static void off_is_one_pass(void **state)
{
    fixture *f = *state;
    dr_job job = job_of(f, 0);
    job.hires.scale = 1;
    outcome one = run(f, TINY, &job);
    job.hires.scale = 0;
    outcome off = run(f, TINY, &job);
    assert_int_equal(one.width, 96);
    assert_memory_equal(one.rgb[0], off.rgb[0], outcome_bytes(&off));
}

/* Noise that counts instead of remembering must not be the first pass's again. */
static void philox_draws_anew(void **state)
{
    fixture *f = *state;
    dr_job job = job_of(f, 2);
    job.noise = DR_NOISE_PHILOX;
    job.hires.scale = 1.01; /* rounds to the same size */
    outcome two = run(f, TINY, &job);
    assert_int_equal(two.width, 96);
    job.hires.scale = 0;
    outcome one = run(f, TINY, &job);
    assert_true(golden_psnr(two.rgb[0], one.rgb[0], outcome_bytes(&one)) < 40);
}

static void several_equal_each_alone(void **state)
{
    fixture *f = *state;
    for (int i = 1; i < 4; i += 2) { /* one of each upscaler */
        dr_job job = job_of(f, i);
        job.n = 3;
        outcome all = run(f, TINY, &job);
        job.n = 1;
        for (int k = 0; k < 3; k++, job.seed++) {
            outcome one = run(f, TINY, &job);
            double psnr = golden_psnr(all.rgb[k], one.rgb[0], outcome_bytes(&one));
            print_message("case %d, picture %d: %.1f dB\n", i, k, psnr);
            assert_true(psnr >= EQUAL_MIN);
            assert_int_equal(all.seed[k], one.seed[0]);
        }
    }
}

/* 6 steps, then 5 of 10: what changes in the second pass, and when. */
static void prompts_go_on_in_the_second_pass(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *prompt, *same;
    } cases[] = {
        { "[a castle:a ship:0.0]", "a ship" },
        { "[a castle:a ship:2.0]", "a castle" },
        { "[a castle:a ship:6]", "[a castle:a ship:1.0]" },
        { "[a castle:a ship:8]", "[a castle:a ship:1.5]" },
        { "[a castle:a ship:3]", "[a castle:a ship:0.5]" },
    };
    outcome made[DR_COUNT(cases)];
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_job job = job_of(f, 1);
        job.prompt = cases[i].prompt;
        made[i] = run(f, TINY, &job);
        job.prompt = cases[i].same;
        outcome same = run(f, TINY, &job);
        assert_memory_equal(made[i].rgb[0], same.rgb[0], outcome_bytes(&same));
        for (size_t k = 0; k < i; k++)
            assert_true(memcmp(made[i].rgb[0], made[k].rgb[0], outcome_bytes(&same)));
    }
}

/* --- stopped and resumed --- */

static outcome stopped(fixture *f, const dr_job *job, int64_t steps)
{
    dr_err err = { 0 };
    outcome o = { .g = f->g, .stop = DR_STOP_KEEP, .stop_after = steps };
    assert_int_equal(outcome_try(f->model[TINY], job, &o, &err), DR_ESTOPPED);
    assert_int_equal(o.checkpoints, 1);
    return o;
}

static outcome resumed(fixture *f, const dr_job *job, const void *bytes, size_t n)
{
    outcome o = { .g = f->g };
    dr_observer obs = outcome_observer(&o);
    dr_batch_task t = { .job = job, .obs = &obs, .resume = bytes, .resume_bytes = n };
    if (dr_plan_make(&t.plan, f->model[TINY], job, &t.err))
        fail_msg("%s", t.err.message);
    dr_batch_run(f->model[TINY], &t, 1);
    outcome_check(&o, job, &t.stats, t.err.code);
    assert_int_equal(t.err.code, DR_OK);
    return o;
}

/* In the first pass, in the second, and where the second has begun with none of its
 * pictures but the first (they do not fit together). */
static void resumed_equals_uninterrupted(void **state)
{
    fixture *f = *state;
    static const struct {
        int job;
        dr_noise_kind noise;
        int64_t n, steps;
    } cases[] = {
        { 0, DR_NOISE_TORCH, 1, 3 },   { 0, DR_NOISE_PHILOX, 1, 9 },
        { 1, DR_NOISE_TORCH, 2, 4 },   { 1, DR_NOISE_TORCH, 2, 13 },
        { 3, DR_NOISE_TORCH, 1, 12 },  { 3, DR_NOISE_PHILOX, 2, 2 },
        { 1, DR_NOISE_PHILOX, 2, 12 },
    };
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_job job = job_of(f, cases[i].job);
        job.noise = cases[i].noise;
        job.n = cases[i].n;
        outcome whole = run(f, TINY, &job);
        outcome half = stopped(f, &job, cases[i].steps);
        outcome rest = resumed(f, &job, half.checkpoint.data, half.checkpoint.len);
        assert_int_equal(rest.warnings, 0);
        assert_int_equal(rest.first.step, cases[i].steps + 1);
        for (int k = 0; k < cases[i].n; k++)
            assert_memory_equal(rest.rgb[k], whole.rgb[k], outcome_bytes(&whole));
        outcome_free(&half);
    }
}

/* The second pass of a job that changed begins with the first. */
static void a_checkpoint_of_another_second_pass_is_left_aside(void **state)
{
    fixture *f = *state;
    dr_job job = job_of(f, 1);
    outcome half = stopped(f, &job, 13);
    for (int i = 0; i < 3; i++) {
        dr_job other = job;
        other.hires.strength = i == 0 ? 0.8 : job.hires.strength;
        other.hires.steps = i == 1 ? 12 : job.hires.steps;
        other.hires.scale = i == 2 ? 1.5 : job.hires.scale;
        outcome want = run(f, TINY, &other);
        outcome have = resumed(f, &other, half.checkpoint.data, half.checkpoint.len);
        assert_int_equal(have.warnings, 1);
        assert_non_null(strstr(have.warning, "begun anew"));
        assert_memory_equal(have.rgb[0], want.rgb[0], outcome_bytes(&want));
    }
    outcome_free(&half);
}

/* --- what cannot be --- */

static void bad_second_passes_are_refused(void **state)
{
    fixture *f = *state;
    dr_plan plan;
    dr_err err = { 0 };
    dr_job job = job_of(f, 0);
    job.width = 1024;
    job.hires.scale = 2.1;
    assert_int_equal(dr_plan_make(&plan, f->model[TINY], &job, &err), DR_EINVAL);
    assert_string_equal(err.field, "hires.scale");
    assert_string_equal(err.message, "hires.scale 2.1: 1024 x 64 becomes 2152 x 136, sides "
                                     "end at 2048; at most 2");
    job = job_of(f, 0);
    job.sampler = DR_SAMPLER_LCM;
    job.hires.steps = 60;
    assert_int_equal(dr_plan_make(&plan, f->model[TINY], &job, &err), DR_EINVAL);
    assert_string_equal(err.field, "hires.steps");
    assert_string_equal(err.message, "hires.steps 60: must be 1..50 for this model");
}

static void jobs_of_two_passes_stay_alone(void **state)
{
    fixture *f = *state;
    dr_job a = job_of(f, 0), b = a;
    assert_false(dr_jobs_batch(&a, &b));
    a.hires.scale = b.hires.scale = 0;
    assert_true(dr_jobs_batch(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_diffusers),
        cmocka_unit_test(steps_and_sizes_are_told),
        cmocka_unit_test(progress_never_falls),
        cmocka_unit_test(off_is_one_pass),
        cmocka_unit_test(philox_draws_anew),
        cmocka_unit_test(several_equal_each_alone),
        cmocka_unit_test(prompts_go_on_in_the_second_pass),
        cmocka_unit_test(resumed_equals_uninterrupted),
        cmocka_unit_test(a_checkpoint_of_another_second_pass_is_left_aside),
        cmocka_unit_test(bad_second_passes_are_refused),
        cmocka_unit_test(jobs_of_two_passes_stay_alone),
    };
    return cmocka_run_group_tests_name("hires", tests, setup, golden_end);
}
