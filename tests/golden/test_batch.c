#include "../lib/outcome.h"

#include "base/hash.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Several jobs in one forward pass, and jobs that go on from a checkpoint: each makes what
 * it makes alone. */

#define EQUAL_MIN 50.0 /* dB, a picture of a batch against the same alone */
#define LIMIT     1e-4 /* relative L2 of latents, the same */
#define TASKS     4

typedef struct {
    golden *g;
    dr_model *model;
    const char *path;
} fixture;

static int setup(void **state, const char *dir)
{
    fixture *f = golden_begin(state, dir, sizeof *f);
    f->path = dr_json_get_string(f->g->cases, "model", "");
    f->model = golden_keep(f->g, golden_model(f->g, f->path));
    return 0;
}

static int setup_demo(void **state)
{
    return setup(state, "tests/golden/demo");
}

static int setup_tiny(void **state)
{
    return setup(state, "tests/golden/tiny-sd1");
}

/* --- running --- */

/* A short job of the fixtures' size. */
static dr_job short_job(const fixture *f)
{
    dr_job job = golden_job(dr_json_first(dr_json_get(f->g->cases, "images")));
    job.noise = DR_NOISE_PHILOX;
    job.steps = 5;
    job.seed = 7;
    return job;
}

/* Jobs that differ in all that jobs of one pass may differ in. */
static void mix(const fixture *f, dr_job jobs[TASKS])
{
    static const char *const prompts[TASKS] = { "a red circle on a blue background",
                                                "a green square", "two yellow triangles",
                                                "a red circle on a blue background" };
    for (int i = 0; i < TASKS; i++) {
        jobs[i] = short_job(f);
        jobs[i].prompt = prompts[i];
        jobs[i].seed = 100 + 17 * (uint64_t)i;
    }
    jobs[0].cfg_scale = 3;
    jobs[1].n = 2;
    jobs[1].preview.every = 2;
    jobs[2].negative_prompt = "a red circle on a blue background";
    jobs[2].cfg_scale = 9;
    jobs[3].negative_prompt = "blur";
}

/* Several runs' tasks and what came of them. */
typedef struct {
    dr_job job[TASKS];
    dr_batch_task task[TASKS];
    dr_observer obs[TASKS];
    outcome out[TASKS];
    int n, turns;
} many;

static void many_begin(many *b, fixture *f, const dr_job *jobs, int n)
{
    *b = (many){ .n = n };
    for (int i = 0; i < n; i++) {
        b->job[i] = jobs[i];
        b->out[i] = (outcome){ .g = f->g, .turns = &b->turns };
        b->obs[i] = outcome_observer(&b->out[i]);
        b->task[i] = (dr_batch_task){ .job = &b->job[i], .obs = &b->obs[i] };
    }
}

static void many_run(many *b, dr_model *m)
{
    dr_batch_run(m, b->task, b->n);
    for (int i = 0; i < b->n; i++)
        outcome_check(&b->out[i], &b->job[i], &b->task[i].stats, b->task[i].err.code);
    assert_int_equal(b->turns, b->n);
}

static void plan_all(many *b, dr_model *m, int fit)
{
    assert_int_equal(dr_batch_plan(m, b->task, b->n), fit);
}

static void many_free(many *b)
{
    for (int i = 0; i < b->n; i++)
        outcome_free(&b->out[i]);
}

static outcome alone(fixture *f, dr_model *m, const dr_job *job)
{
    dr_err err = { 0 };
    dr_plan plan;
    dr_run_stats stats;
    outcome o = { .g = f->g };
    const dr_observer obs = outcome_observer(&o);
    if (dr_plan_make(&plan, m, job, &err) ||
        dr_pipeline_run(m, job, &plan, &obs, &stats, &err))
        fail_msg("%s", err.message);
    outcome_check(&o, job, &stats, DR_OK);
    return o;
}

static void same_result(const char *what, int i, const outcome *have, const outcome *want)
{
    double worst = golden_l2(have->latents, want->latents, want->n_latents);
    assert_int_equal(have->n_latents, want->n_latents);
    assert_int_equal(have->pictures, want->pictures);
    if (!(worst <= LIMIT))
        fail_msg("%s, job %d: latents differ by %.2g", what, i, worst);
    for (int k = 0; k < want->pictures; k++) {
        double psnr = golden_psnr(have->rgb[k], want->rgb[k], outcome_bytes(want));
        assert_int_equal(have->seed[k], want->seed[k]);
        if (!(psnr >= EQUAL_MIN))
            fail_msg("%s, job %d, picture %d: PSNR %.1f dB", what, i, k, psnr);
    }
    assert_int_equal(have->previews, want->previews);
}

/* --- batches --- */

static void jobs_of_one_pass(void **state)
{
    (void)state;
    static const double numbers[] = { NAN, 7.5, 1 };
    dr_job a = { .steps = 20, .cfg_scale = NAN, .eta = NAN, .n = 1, .seed = 1 }, b = a;
    b.prompt = "other";
    b.seed = 2;
    b.n = 3;
    assert_true(dr_jobs_batch(&a, &b));
    for (size_t i = 0; i < DR_COUNT(numbers); i++)
        for (size_t k = 0; k < DR_COUNT(numbers); k++) {
            a.cfg_scale = numbers[i];
            b.cfg_scale = numbers[k];
            assert_int_equal(dr_jobs_batch(&a, &b), i == k);
        }
    a.cfg_scale = 2;
    b.cfg_scale = 9;
    assert_true(dr_jobs_batch(&a, &b));
    const dr_job same = b;
#define DIFFERS(field, value)                                                              \
    b = same;                                                                              \
    b.field = value;                                                                       \
    assert_false(dr_jobs_batch(&a, &b))
    DIFFERS(width, 64);
    DIFFERS(height, 64);
    DIFFERS(steps, 0);
    DIFFERS(sampler, DR_SAMPLER_EULER);
    DIFFERS(schedule, DR_SCHEDULE_KARRAS);
    DIFFERS(eta, 0);
    DIFFERS(noise, DR_NOISE_TORCH);
    DIFFERS(clip_skip, 1);
    DIFFERS(cfg_start, 0.1);
    DIFFERS(cfg_end, 0.5);
    DIFFERS(perp_neg, true);
#undef DIFFERS
}

static void batch_equals_each_alone(void **state)
{
    static const struct {
        dr_sampler_id sampler;
        dr_noise_kind noise;
        bool guided;
        int n;
    } ways[] = {
        { DR_SAMPLER_EULER_A, DR_NOISE_PHILOX, true, 4 },
        { DR_SAMPLER_EULER_A, DR_NOISE_TORCH, false, 3 },
        { DR_SAMPLER_DPMPP_2M, DR_NOISE_TORCH, true, 2 },
    };
    fixture *f = *state;
    for (size_t w = 0; w < DR_COUNT(ways); w++) {
        char what[32];
        dr_job jobs[TASKS];
        many b;
        mix(f, jobs);
        for (int i = 0; i < TASKS; i++) {
            jobs[i].sampler = ways[w].sampler;
            jobs[i].noise = ways[w].noise;
            jobs[i].cfg_scale = ways[w].guided ? jobs[i].cfg_scale : 1;
        }
        many_begin(&b, f, jobs, ways[w].n);
        plan_all(&b, f->model, ways[w].n);
        many_run(&b, f->model);
        snprintf(what, sizeof what, "way %zu", w);
        for (int i = 0; i < b.n; i++) {
            outcome one = alone(f, f->model, &jobs[i]);
            assert_int_equal(b.task[i].err.code, DR_OK);
            same_result(what, i, &b.out[i], &one);
        }
        many_free(&b);
    }
}

/* The same job twice in a batch is the same picture, whatever its place. */
static void place_does_not_matter(void **state)
{
    fixture *f = *state;
    dr_job jobs[TASKS];
    many b;
    mix(f, jobs);
    jobs[3] = jobs[0];
    many_begin(&b, f, jobs, 4);
    plan_all(&b, f->model, 4);
    many_run(&b, f->model);
    same_result("place", 3, &b.out[3], &b.out[0]);
    many_free(&b);
}

/* Stopped ones end at once, the others do not notice. */
static void stopped_jobs_leave_the_others(void **state)
{
    static const struct {
        int64_t steps[TASKS], pictures[TASKS]; /* after which to stop */
    } ways[] = {
        { .steps = { 0, 2, 0, 0 } },
        { .steps = { 1, 0, 3, 0 } },
        { .steps = { 2, 2, 2, 0 } },
        { .pictures = { 0, 1, 0, 0 } },
    };
    fixture *f = *state;
    for (size_t w = 0; w < DR_COUNT(ways); w++) {
        char what[32];
        dr_job jobs[TASKS];
        many b;
        mix(f, jobs);
        for (int i = 0; i < TASKS; i++)
            jobs[i].sampler = w % 2 ? DR_SAMPLER_EULER_A : DR_SAMPLER_DPMPP_2M;
        many_begin(&b, f, jobs, TASKS);
        for (int i = 0; i < TASKS; i++) {
            b.out[i].stop_after = ways[w].steps[i];
            b.out[i].stop_after_pictures = ways[w].pictures[i];
        }
        plan_all(&b, f->model, TASKS);
        many_run(&b, f->model);
        snprintf(what, sizeof what, "stop %zu", w);
        for (int i = 0; i < TASKS; i++) {
            if (ways[w].steps[i] || ways[w].pictures[i]) {
                assert_int_equal(b.task[i].err.code, DR_ESTOPPED);
                assert_int_equal(b.out[i].pictures, ways[w].pictures[i]);
                assert_int_equal(b.out[i].checkpoints, 0);
                if (ways[w].steps[i])
                    assert_int_equal(b.out[i].last.step, ways[w].steps[i]);
                continue;
            }
            outcome one = alone(f, f->model, &jobs[i]);
            same_result(what, i, &b.out[i], &one);
            for (int k = 0; k < TASKS; k++)
                if (ways[w].steps[k])
                    assert_true(b.out[k].turn < b.out[i].turn);
        }
        many_free(&b);
    }
}

/* A job that cannot run, and one that becomes NaN on the way: they fail, the others do
 * not. */
static void bad_jobs_leave_the_others(void **state)
{
    fixture *f = *state;
    dr_job jobs[TASKS];
    many b;
    mix(f, jobs);
    jobs[0].width = 63;
    jobs[2].cfg_scale = 1e38;
    many_begin(&b, f, jobs, TASKS);
    plan_all(&b, f->model, 3);
    assert_int_equal(b.task[0].err.code, DR_EINVAL);
    assert_string_equal(b.task[0].err.field, "width");
    many_run(&b, f->model);
    assert_int_equal(b.task[0].err.code, DR_EINVAL);
    assert_int_equal(b.out[0].turn, 1);
    assert_int_equal(b.task[2].err.code, DR_ENUMERIC);
    assert_int_equal(b.out[2].pictures, 0);
    for (int i = 1; i < TASKS; i += 2) {
        outcome one = alone(f, f->model, &jobs[i]);
        assert_int_equal(b.task[i].err.code, DR_OK);
        same_result("bad", i, &b.out[i], &one);
    }
    many_free(&b);
    for (int i = 0; i < TASKS; i++)
        jobs[i].width = 63;
    many_begin(&b, f, jobs, TASKS);
    plan_all(&b, f->model, 0);
    many_run(&b, f->model);
}

/* Tasks that cannot share a pass run one after the other. */
static void others_follow(void **state)
{
    fixture *f = *state;
    dr_job jobs[TASKS];
    many b;
    mix(f, jobs);
    jobs[1].steps = 3;
    jobs[2].clip_skip = 1;
    many_begin(&b, f, jobs, TASKS);
    plan_all(&b, f->model, 1);
    many_run(&b, f->model);
    for (int i = 0; i < TASKS; i++) {
        outcome one = alone(f, f->model, &jobs[i]);
        assert_int_equal(b.task[i].err.code, DR_OK);
        assert_int_equal(b.out[i].turn, i + 1);
        same_result("others", i, &b.out[i], &one);
    }
    many_free(&b);
}

/* --- memory --- */

/* Let the device have just the memory for `images` pictures of the job; gives what it had.
 */
static uint64_t limit_memory(fixture *f, dr_job job, int64_t images)
{
    dr_plan plan;
    dr_err err = { 0 };
    dr_dev_info *info = (dr_dev_info *)dr_dev_describe(f->g->dev);
    uint64_t before = info->memory_bytes;
    job.n = images;
    if (dr_plan_make(&plan, f->model, &job, &err))
        fail_msg("%s", err.message);
    info->memory_bytes = (uint64_t)plan.peak_bytes + dr_pool_bytes(f->model->pool);
    return before;
}

static void set_memory(fixture *f, uint64_t bytes)
{
    ((dr_dev_info *)dr_dev_describe(f->g->dev))->memory_bytes = bytes;
}

static void memory_splits_a_job(void **state)
{
    fixture *f = *state;
    dr_job job = short_job(f);
    dr_err err = { 0 };
    dr_plan whole, part;
    job.n = 4;
    assert_int_equal(dr_plan_make(&whole, f->model, &job, &err), DR_OK);
    outcome want = alone(f, f->model, &job);
    for (int64_t images = 1; images <= 3; images++) {
        uint64_t before = limit_memory(f, job, images);
        uint64_t limit = dr_dev_describe(f->g->dev)->memory_bytes;
        assert_int_equal(dr_plan_make(&part, f->model, &job, &err), DR_OK);
        outcome have = alone(f, f->model, &job);
        set_memory(f, limit / 2);
        dr_status st = dr_plan_make(&part, f->model, &job, &err);
        set_memory(f, before);
        assert_int_equal(st, DR_ENOMEM);
        assert_true(part.peak_bytes < whole.peak_bytes);
        same_result("split", (int)images, &have, &want);
    }
    /* The work is the same, however it is cut. */
    uint64_t before = limit_memory(f, job, 1);
    assert_int_equal(dr_plan_make(&part, f->model, &job, &err), DR_OK);
    set_memory(f, before);
    assert_true(fabs(part.pass[0].step_flops / whole.pass[0].step_flops - 1) < 0.01);
    assert_true(part.pass[0].decode_flops == whole.pass[0].decode_flops);
}

static void memory_splits_a_batch(void **state)
{
    fixture *f = *state;
    dr_job jobs[TASKS];
    many b;
    mix(f, jobs);                     /* 1, 2, 1 and 1 pictures */
    for (int i = 0; i < TASKS; i++) { /* the same two texts in each batch */
        jobs[i].prompt = jobs[0].prompt;
        jobs[i].negative_prompt = jobs[0].negative_prompt;
        jobs[i].preview.every = 0;
    }
    for (int64_t images = 1; images <= 5; images++) {
        static const int fit[] = { 0, 1, 1, 2, 3, 4 };
        many_begin(&b, f, jobs, TASKS);
        uint64_t before = limit_memory(f, jobs[0], images);
        int have = dr_batch_plan(f->model, b.task, TASKS);
        many_run(&b, f->model);
        set_memory(f, before);
        assert_int_equal(have, fit[images]);
        for (int i = 0; i < TASKS; i++) {
            outcome one = alone(f, f->model, &jobs[i]);
            if (b.task[i].err.code)
                fail_msg("%d pictures at once, job %d: %s", (int)images, i,
                         b.task[i].err.message);
            same_result("split batch", i, &b.out[i], &one);
        }
        many_free(&b);
    }
}

/* --- checkpoints --- */

static outcome stopped_run(fixture *f, const dr_job *job, int64_t steps, int64_t pictures)
{
    many b;
    many_begin(&b, f, job, 1);
    b.out[0].stop = DR_STOP_KEEP;
    b.out[0].stop_after = steps;
    b.out[0].stop_after_pictures = pictures;
    plan_all(&b, f->model, 1);
    many_run(&b, f->model);
    if (b.task[0].err.code != DR_ESTOPPED)
        fail_msg("%s: %s", dr_status_name(b.task[0].err.code), b.task[0].err.message);
    assert_int_equal(b.out[0].checkpoints, 1);
    return b.out[0];
}

static outcome resumed_run(fixture *f, dr_model *m, const dr_job *job, const void *bytes,
                           size_t n)
{
    many b;
    many_begin(&b, f, job, 1);
    b.task[0].resume = bytes;
    b.task[0].resume_bytes = n;
    plan_all(&b, m, 1);
    many_run(&b, m);
    assert_int_equal(b.task[0].err.code, DR_OK);
    return b.out[0];
}

static void same_bytes(const outcome *have, const outcome *want)
{
    assert_int_equal(have->pictures, want->pictures);
    for (int k = 0; k < want->pictures; k++)
        assert_memory_equal(have->rgb[k], want->rgb[k], outcome_bytes(want));
    assert_memory_equal(have->latents, want->latents, want->n_latents * sizeof(float));
}

/* Stop, open the model anew, go on. */
static void resumed_equals_uninterrupted(void **state)
{
    fixture *f = *state;
    for (int s = DR_SAMPLER_DEFAULT + 1; s < DR_SAMPLERS; s++) {
        dr_job job = short_job(f);
        dr_model *fresh = golden_model(f->g, f->path);
        job.sampler = (dr_sampler_id)s;
        job.noise = s % 2 ? DR_NOISE_TORCH : DR_NOISE_PHILOX;
        job.eta = 0.7; /* noise in every step where the sampler takes it */
        job.n = 1 + s % 3 / 2;
        outcome want = alone(f, f->model, &job);
        for (int64_t k = 1; k <= job.steps; k += s > DR_SAMPLER_DPMPP_2M ? 3 : 1) {
            outcome half = stopped_run(f, &job, k, 0);
            assert_int_equal(half.last.step, k);
            outcome have =
                resumed_run(f, fresh, &job, half.checkpoint.data, half.checkpoint.len);
            assert_int_equal(have.warnings, 0);
            if (k < job.steps) /* samplers of two calls tell of the first one too */
                assert_true(have.first.step == k || have.first.step == k + 1);
            same_bytes(&have, &want);
            outcome_free(&half);
        }
        dr_model_close(fresh);
    }
}

/* Between the two calls of a step. */
static void resumed_in_the_middle_of_a_step(void **state)
{
    static const dr_sampler_id ids[] = { DR_SAMPLER_HEUN, DR_SAMPLER_DPMPP_SDE };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(ids); i++) {
        dr_job job = short_job(f);
        many b;
        job.sampler = ids[i];
        outcome want = alone(f, f->model, &job);
        many_begin(&b, f, &job, 1);
        b.out[0].stop = DR_STOP_KEEP;
        b.out[0].stop_after_calls = 3;
        plan_all(&b, f->model, 1);
        many_run(&b, f->model);
        assert_int_equal(b.task[0].err.code, DR_ESTOPPED);
        assert_int_equal(b.out[0].last.step, 1);
        assert_int_equal(b.out[0].last.steps, job.steps);
        outcome have = resumed_run(f, f->model, &job, b.out[0].checkpoint.data,
                                   b.out[0].checkpoint.len);
        assert_int_equal(have.warnings, 0);
        assert_int_equal(have.first.step, 2);
        same_bytes(&have, &want);
        many_free(&b);
    }
}

/* Levels of the job's own are those of a schedule by another name. */
static void lists_of_levels_are_run(void **state)
{
    static const double list[] = { 14.615, 6.475, 3.861, 2.697, 1.886, 1.396,
                                   0.963,  0.652, 0.399, 0.152, 0 };
    fixture *f = *state;
    dr_job job = short_job(f), by_name = job, other;
    job.sampler = by_name.sampler = DR_SAMPLER_EULER;
    by_name.schedule = DR_SCHEDULE_AYS;
    by_name.steps = 10;
    job.steps = 0;
    job.sigmas = list;
    job.n_sigmas = 11;
    outcome have = alone(f, f->model, &job), want = alone(f, f->model, &by_name);
    assert_int_equal(have.last.steps, 10);
    same_bytes(&have, &want);
    other = job;
    assert_true(dr_jobs_batch(&job, &other));
    other.n_sigmas = 10;
    assert_false(dr_jobs_batch(&job, &other));
    assert_false(dr_jobs_batch(&job, &by_name));
}

/* Pictures that were done before the stop come again, those not begun come too. */
static void resumed_in_the_middle_of_pictures(void **state)
{
    fixture *f = *state;
    dr_job job = short_job(f);
    job.n = 3;
    job.sampler = DR_SAMPLER_DPMPP_2M;
    uint64_t before = limit_memory(f, job, 1); /* one picture after the other */
    outcome want = alone(f, f->model, &job);
    outcome decoded = stopped_run(f, &job, 0, 1);
    outcome steps = stopped_run(f, &job, 2, 0); /* of 5: within the second picture */
    assert_int_equal(decoded.pictures, 1);
    assert_int_equal(steps.pictures, 1);
    outcome a =
        resumed_run(f, f->model, &job, decoded.checkpoint.data, decoded.checkpoint.len);
    outcome b = resumed_run(f, f->model, &job, steps.checkpoint.data, steps.checkpoint.len);
    set_memory(f, before);
    same_bytes(&a, &want);
    same_bytes(&b, &want);
    outcome_free(&decoded);
    outcome_free(&steps);
}

/* A checkpoint of a job that was resumed, before it made a step and after one. */
static void kept_twice(void **state)
{
    fixture *f = *state;
    dr_job job = short_job(f);
    job.noise = DR_NOISE_TORCH;
    job.sampler = DR_SAMPLER_EULER_A;
    outcome want = alone(f, f->model, &job), first = stopped_run(f, &job, 2, 0);
    for (int64_t more = 0; more < 2; more++) {
        many b;
        many_begin(&b, f, &job, 1);
        b.task[0].resume = first.checkpoint.data;
        b.task[0].resume_bytes = first.checkpoint.len;
        b.out[0].stop = DR_STOP_KEEP;
        b.out[0].stop_after = more ? 3 : 0;
        b.out[0].stop_at_once = !more;
        plan_all(&b, f->model, 1);
        many_run(&b, f->model);
        assert_int_equal(b.out[0].checkpoints, 1);
        if (!more)
            assert_memory_equal(b.out[0].checkpoint.data, first.checkpoint.data,
                                first.checkpoint.len);
        outcome have = resumed_run(f, f->model, &job, b.out[0].checkpoint.data,
                                   b.out[0].checkpoint.len);
        same_bytes(&have, &want);
        many_free(&b);
    }
    outcome_free(&first);
}

/* Jobs at different steps: each goes on from its own. */
static void different_steps_resume(void **state)
{
    fixture *f = *state;
    dr_job jobs[TASKS];
    outcome half[2];
    many b;
    mix(f, jobs);
    for (int i = 0; i < 2; i++)
        half[i] = stopped_run(f, &jobs[i], 1 + 2 * i, 0);
    many_begin(&b, f, jobs, TASKS);
    for (int i = 0; i < 2; i++) {
        b.task[i].resume = half[i].checkpoint.data;
        b.task[i].resume_bytes = half[i].checkpoint.len;
    }
    plan_all(&b, f->model, TASKS);
    many_run(&b, f->model);
    assert_int_equal(b.out[0].first.step, 2);
    assert_int_equal(b.out[1].first.step, 4);
    assert_int_equal(b.out[2].first.step, 1);
    for (int i = 0; i < TASKS; i++) {
        outcome one = alone(f, f->model, &jobs[i]);
        assert_int_equal(b.task[i].err.code, DR_OK);
        b.out[i].previews = one.previews; /* those of the steps made here */
        same_result("steps", i, &b.out[i], &one);
    }
    many_free(&b);
    outcome_free(&half[0]);
    outcome_free(&half[1]);
}

static void nothing_done_nothing_kept(void **state)
{
    fixture *f = *state;
    dr_job job = short_job(f);
    many b;
    many_begin(&b, f, &job, 1);
    b.out[0].stop = DR_STOP_KEEP;
    b.out[0].stop_at_once = true;
    plan_all(&b, f->model, 1);
    many_run(&b, f->model);
    assert_int_equal(b.task[0].err.code, DR_ESTOPPED);
    assert_int_equal(b.out[0].checkpoints, 0);
}

/* The job runs from its start and says why. */
static void expect_anew(fixture *f, const dr_job *job, const void *bytes, size_t n,
                        const outcome *want, const char *why)
{
    outcome have = resumed_run(f, f->model, job, bytes, n);
    if (have.warnings != 1 || !strstr(have.warning, why))
        fail_msg("%zu bytes: %d warnings, \"%s\" instead of \"%s\"", n, have.warnings,
                 have.warning, why);
    assert_int_equal(have.first.step, 1);
    if (want)
        same_bytes(&have, want);
}

/* Offsets in a checkpoint; see checkpoint.c. */
enum { AT_DIGEST = 8, AT_CHECKSUM = 40, AT_COUNT = 48, AT_STEPS = 64 };

/* One value changed, and the checksum set right again. */
static void forge(dr_buf *out, const dr_buf *from, size_t at, const void *value, size_t n)
{
    dr_buf_clear(out);
    dr_buf_put(out, from->data, from->len);
    memcpy(out->data + at, value, n);
    uint64_t sum = dr_hash64(out->data + AT_STEPS, out->len - AT_STEPS);
    memcpy(out->data + AT_CHECKSUM, &sum, sizeof sum);
}

static void bad_checkpoints_are_left_aside(void **state)
{
    static const int64_t steps[] = { -1, 1, 3, INT64_MAX, INT64_MIN };
    const float nan_value = NAN;
    const int32_t next = 625, two = 2;
    fixture *f = *state;
    dr_buf bad = { 0 };
    dr_job job = short_job(f), other = job;
    job.steps = 2;
    job.n = 2;
    job.sampler = DR_SAMPLER_EULER_A;
    job.noise = DR_NOISE_TORCH;
    outcome want = alone(f, f->model, &job), half = stopped_run(f, &job, 1, 0);
    const dr_buf *good = &half.checkpoint;
    size_t rng = good->len - (624 + 4) * 4; /* the last record's */

    for (size_t n = 0; n < good->len; n = n < 80 ? n + 9 : n * 3 + 1)
        expect_anew(f, &job, good->data, n, &want, n < 80 ? "too short" : "damaged");
    expect_anew(f, &job, good->data, good->len - 1, &want, "damaged");
    for (size_t at = 0; at < good->len; at = at < 80 ? at + 5 : at * 2) {
        dr_buf_clear(&bad);
        dr_buf_put(&bad, good->data, good->len);
        bad.data[at] ^= 0x10;
        expect_anew(f, &job, bad.data, bad.len, &want,
                    at < AT_DIGEST                    ? "format"
                    : at < AT_CHECKSUM                ? "another job"
                    : at >= AT_COUNT && at < AT_STEPS ? "another job"
                                                      : "damaged");
    }
    for (size_t i = 0; i < DR_COUNT(steps); i++) {
        forge(&bad, good, AT_STEPS + 8, &steps[i], sizeof *steps);
        if (steps[i] != 1)
            expect_anew(f, &job, bad.data, bad.len, &want, "steps are wrong");
    }
    const int64_t zero = 0;
    forge(&bad, good, AT_STEPS + 8, &zero, sizeof zero);
    expect_anew(f, &job, bad.data, bad.len, &want, "too long");
    forge(&bad, good, AT_STEPS + 16 + 40, &nan_value, sizeof nan_value);
    expect_anew(f, &job, bad.data, bad.len, &want, "numbers are wrong");
    forge(&bad, good, rng + 624 * 4, &next, sizeof next);
    expect_anew(f, &job, bad.data, bad.len, &want, "numbers are wrong");
    forge(&bad, good, rng + 624 * 4 + 4, &two, sizeof two);
    expect_anew(f, &job, bad.data, bad.len, &want, "numbers are wrong");

    other = job;
    other.seed++;
    expect_anew(f, &other, good->data, good->len, NULL, "another job");
    other = job;
    other.prompt = "another";
    expect_anew(f, &other, good->data, good->len, NULL, "another job");
    other = job;
    other.steps = 3;
    expect_anew(f, &other, good->data, good->len, NULL, "another job");
    other = job;
    other.n = 1;
    expect_anew(f, &other, good->data, good->len, NULL, "another job");
    outcome_free(&half);
    dr_buf_free(&bad);
}

#define COMMON                                                                             \
    cmocka_unit_test(batch_equals_each_alone), cmocka_unit_test(memory_splits_a_job)

int main(void)
{
    const struct CMUnitTest demo[] = { COMMON };
    const struct CMUnitTest tiny[] = {
        COMMON,
        cmocka_unit_test(jobs_of_one_pass),
        cmocka_unit_test(place_does_not_matter),
        cmocka_unit_test(stopped_jobs_leave_the_others),
        cmocka_unit_test(bad_jobs_leave_the_others),
        cmocka_unit_test(others_follow),
        cmocka_unit_test(memory_splits_a_batch),
        cmocka_unit_test(resumed_equals_uninterrupted),
        cmocka_unit_test(resumed_in_the_middle_of_a_step),
        cmocka_unit_test(lists_of_levels_are_run),
        cmocka_unit_test(resumed_in_the_middle_of_pictures),
        cmocka_unit_test(kept_twice),
        cmocka_unit_test(different_steps_resume),
        cmocka_unit_test(nothing_done_nothing_kept),
        cmocka_unit_test(bad_checkpoints_are_left_aside),
    };
    return cmocka_run_group_tests_name("demo", demo, setup_demo, golden_end) +
           cmocka_run_group_tests_name("tiny-sd1", tiny, setup_tiny, golden_end);
}
