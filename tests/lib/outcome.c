#include "outcome.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_latents(void *ctx, const float *x, int64_t n, int64_t h, int64_t w,
                       int64_t c)
{
    outcome *o = ctx;
    assert_null(o->latents);
    o->n_latents = (size_t)(n * h * w * c);
    o->latents = memcpy(dr_arena_alloc(o->g->mem, o->n_latents * sizeof *x), x,
                        o->n_latents * sizeof *x);
}

static void on_image(void *ctx, int64_t index, uint64_t seed, const dr_picture *pic)
{
    outcome *o = ctx;
    assert_int_equal(o->ends, 0);
    assert_int_equal(index, o->pictures);
    assert_true(index < OUTCOME_IMAGES);
    o->width = pic->width;
    o->height = pic->height;
    o->seed[index] = seed;
    o->rgb[index] =
        memcpy(dr_arena_alloc(o->g->mem, outcome_bytes(o)), pic->rgb, outcome_bytes(o));
    o->pictures++;
}

static void on_progress(void *ctx, const dr_progress *p)
{
    outcome *o = ctx;
    assert_int_equal(o->ends, 0);
    assert_true(p->step >= o->last.step && p->step <= p->steps);
    assert_true(isfinite(p->it_s) && isfinite(p->eta_s) && p->eta_s >= 0);
    assert_int_equal(p->it_s > 0, p->phase == DR_PHASE_DENOISE);
    if (p->phase == DR_PHASE_DENOISE && !o->first.step)
        o->first = *p;
    o->calls += p->phase == DR_PHASE_DENOISE;
    o->fell |= p->percent < o->last.percent;
    o->last = *p;
}

static void on_preview(void *ctx, int64_t step, const dr_picture *pic)
{
    outcome *o = ctx;
    assert_int_equal(o->ends, 0);
    assert_true(step > 0 && pic->width > 0 && pic->height > 0);
    o->previews++;
}

static dr_stop on_stopped(void *ctx)
{
    outcome *o = ctx;
    assert_int_equal(o->ends, 0);
    if (o->stop_at_once || (o->stop_after && o->last.step >= o->stop_after) ||
        (o->stop_after_calls && o->calls >= o->stop_after_calls) ||
        (o->stop_after_pictures && o->pictures >= o->stop_after_pictures))
        return o->stop ? o->stop : DR_STOP;
    return DR_GO_ON;
}

static void on_warning(void *ctx, const char *text)
{
    outcome *o = ctx;
    snprintf(o->warning, sizeof o->warning, "%s", text);
    o->warnings++;
}

static void on_checkpoint(void *ctx, const void *bytes, size_t n)
{
    outcome *o = ctx;
    assert_int_equal(o->ends, 0);
    dr_buf_clear(&o->checkpoint);
    dr_buf_put(&o->checkpoint, bytes, n);
    assert_false(o->checkpoint.failed);
    o->checkpoints++;
}

static void on_done(void *ctx, const dr_err *err)
{
    outcome *o = ctx;
    o->end = *err;
    o->ends++;
    o->turn = o->turns ? ++*o->turns : 0;
}

dr_observer outcome_observer(outcome *o)
{
    return (dr_observer){ .ctx = o,
                          .stopped = on_stopped,
                          .progress = on_progress,
                          .preview = on_preview,
                          .image = on_image,
                          .warning = on_warning,
                          .latents = on_latents,
                          .checkpoint = on_checkpoint,
                          .done = on_done };
}

void outcome_free(outcome *o)
{
    dr_buf_free(&o->checkpoint);
}

void outcome_check(const outcome *o, const dr_job *job, const dr_run_stats *stats,
                   dr_status st)
{
    assert_int_equal(o->ends, 1);
    assert_int_equal(o->end.code, st);
    assert_false(o->fell);
    assert_int_equal(stats->loop_allocations, 0);
    if (st)
        return;
    assert_int_equal(o->pictures, job->n);
    assert_true(o->last.percent == 100);
    assert_true(o->last.step == o->last.steps);
    assert_non_null(o->latents);
    assert_int_equal(o->checkpoints, 0);
}

dr_model *golden_model(golden *g, const char *path)
{
    dr_model *m = NULL;
    dr_err err = { 0 };
    if (dr_model_open(&m, g->dev, path, &g->conf, NULL, NULL, &err))
        fail_msg("%s: %s", path, err.message);
    return m;
}

dr_model *golden_keep(golden *g, dr_model *m)
{
    assert_true(g->n_kept < GOLDEN_KEPT);
    return g->kept[g->n_kept++] = m;
}

dr_job golden_job(const dr_json *item)
{
    dr_job job = { .id = "golden",
                   .prompt = dr_json_get_string(item, "prompt", ""),
                   .negative_prompt = dr_json_get_string(item, "negative_prompt", ""),
                   .width = (int64_t)dr_json_get_number(item, "width", 0),
                   .height = (int64_t)dr_json_get_number(item, "height", 0),
                   .steps = (int64_t)dr_json_get_number(item, "steps", 0),
                   .cfg_scale = dr_json_get_number(item, "cfg", NAN),
                   .eta = NAN,
                   .seed = strtoull(dr_json_get_string(item, "seed", "0"), NULL, 10),
                   .n = 1,
                   .noise = DR_NOISE_TORCH };
    const char *sampler = dr_json_get_string(item, "sampler", "");
    const char *schedule = dr_json_get_string(item, "schedule", "");
    while (strcmp(dr_sampler_name(job.sampler), sampler) != 0)
        assert_true(++job.sampler < DR_SAMPLERS);
    while (strcmp(dr_schedule_name(job.schedule), schedule) != 0)
        assert_true(++job.schedule < DR_SCHEDULES);
    return job;
}

dr_status outcome_try(dr_model *m, const dr_job *job, outcome *o, dr_err *err)
{
    dr_plan plan;
    dr_run_stats stats;
    const dr_observer obs = outcome_observer(o);
    dr_status st = dr_plan_make(&plan, m, job, err);
    if (st)
        return st;
    st = dr_pipeline_run(m, job, &plan, &obs, &stats, err);
    outcome_check(o, job, &stats, st);
    return st;
}
