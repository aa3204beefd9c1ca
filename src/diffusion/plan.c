#include "diffusion/batch.h"

#include "dev/dev.h"
#include "diffusion/loras.h"
#include "diffusion/noise.h"

#include <math.h>
#include <string.h>

/* What will run, checked before it does: sizes, the sampler, and by a dry run memory and
 * work. */

static dr_status check_size(const char *field, int64_t v, const dr_model *m, dr_err *err)
{
    if (v % m->vae.factor == 0 && v > 0)
        return DR_OK;
    int64_t f = m->vae.factor, near = (v + f / 2) / f * f;
    return dr_fail_field(err, DR_EINVAL, field,
                         "%s %lld: must be a multiple of %lld for %s; the nearest is %lld",
                         field, (long long)v, (long long)f, m->name,
                         (long long)(near ? near : f));
}

/* --- memory --- */

uint64_t dr_group_memory(const dr_batch *b, size_t peak_bytes)
{
    uint64_t bytes =
        (uint64_t)peak_bytes + (uint64_t)b->lora_bytes + dr_controls_bytes(b->m->controls);
    if (b->m->dev && dr_dev_describe(b->m->dev)->shares_host)
        bytes += b->r->host_peak_bytes;
    return bytes + (b->m->dev ? dr_pool_bytes(b->m->pool) : 0);
}

static dr_status too_large(const dr_batch *b, const char *whose, uint64_t need,
                           uint64_t have, dr_err *err)
{
    return dr_fail(
        err, DR_ENOMEM, "%lld x %lld needs %llu MiB, the %s %llu MiB; make it smaller",
        (long long)b->width, (long long)b->height, (unsigned long long)(need >> 20), whose,
        (unsigned long long)(have >> 20));
}

/* Whether what the dry run found can be had. Of the host a quarter is left to what else it
 * holds. */
static dr_status check_memory(const dr_batch *b, size_t peak_bytes, dr_err *err)
{
    if (!b->m->dev)
        return DR_OK;
    const dr_dev_info *d = dr_dev_describe(b->m->dev);
    uint64_t need = dr_group_memory(b, peak_bytes), host = d->host_bytes / 4 * 3;
    if (need > d->memory_bytes)
        return too_large(b, "device has", need, d->memory_bytes, err);
    if (host && b->r->host_peak_bytes > host)
        return too_large(b, "host can spare", b->r->host_peak_bytes, host, err);
    return DR_OK;
}

/* Run the first n rows of the group dry: *err says how it went. DR_ENOMEM: they are too
 * many, or too large. */
static dr_status measure(dr_batch *b, int n, size_t *peak_bytes, dr_err *err)
{
    b->n_rows = n;
    dr_run_reset(b->r, true);
    dr_group_run(b);
    *peak_bytes = b->r->peak_bytes;
    *err = b->r->err;
    if (err->code)
        return err->code;
    return check_memory(b, *peak_bytes, err);
}

/* Where one picture alone is too large, the autoencoder must work in bands; but for a
 * setting, no narrower ones than it takes. Where they are no help it is the previews that
 * go without their decoder. */
static void choose_less(dr_batch *b, size_t *peak_bytes)
{
    static const int64_t rows[] = { 0, 256, 64, 16 };
    int last = b->m->tiny.conv_in.out ? 1 : 0;
    for (int coarse = 0; coarse <= last; coarse++)
        for (size_t i = 0; i < DR_COUNT(rows); i++) {
            dr_err why = { 0 };
            b->coarse = coarse != 0;
            b->r->band_rows = b->m->band_rows ? b->m->band_rows : rows[i];
            if (measure(b, 1, peak_bytes, &why) != DR_ENOMEM)
                return;
        }
}

dr_status dr_group_fit(dr_batch *b, size_t *peak_bytes, dr_err *err)
{
    int fits = 0, too_many = b->n_rows + 1;
    dr_err why = { 0 };
    b->coarse = false;
    b->r->band_rows = b->m->band_rows;
    if (measure(b, b->n_rows, peak_bytes, &why) != DR_ENOMEM)
        goto done;
    choose_less(b, peak_bytes);
    while (too_many - fits > 1) {
        int n = (fits + too_many) / 2;
        dr_status st = measure(b, n, peak_bytes, &why);
        if (st && st != DR_ENOMEM)
            goto done;
        *(st ? &too_many : &fits) = n;
    }
    measure(b, fits ? fits : 1, peak_bytes, &why);
done:
    if (why.code)
        *err = why;
    return why.code;
}

/* --- one job --- */

/* Run a pass dry for its memory and its work. */
static dr_status weigh(dr_plan *plan, int pass, dr_model *m, const dr_job *job, dr_err *err)
{
    dr_batch_task t = { .job = job, .plan = *plan };
    dr_batch b;
    size_t peak_bytes;
    dr_pass *p = &plan->pass[pass];
    dr_status st = dr_batch_open(&b, m, &t, 1, pass, err);
    if (st)
        return st;
    p->steps = m->steps.steps;
    p->rows = b.steps;
    plan->sampler = m->steps.sampler;
    plan->schedule = m->steps.schedule;
    plan->eta = m->steps.eta;
    plan->guides = b.guides;
    p->guided_from = b.guided_from;
    p->guided_end = b.guided_end;
    plan->text_chunks = b.chunks;
    dr_group_choose(&b);
    if ((st = dr_group_fit(&b, &peak_bytes, err)))
        return st;
    if ((int64_t)peak_bytes > plan->peak_bytes)
        plan->peak_bytes = (int64_t)peak_bytes;
    plan->band_rows = b.r->band_rows;
    p->encode_flops = b.flops[DR_PHASE_ENCODE];
    p->step_flops = b.flops[DR_PHASE_DENOISE] * (double)plan->n / b.n_rows;
    if (b.guides > 1) { /* on average */
        double guided = (double)(b.guided_end - b.guided_from) / (double)p->steps;
        p->step_flops *= guided + (1 - guided) / b.guides;
    }
    p->decode_flops = b.flops[DR_PHASE_DECODE];
    return DR_OK;
}

/* The job's, a list's own (without the 0 that ends sigmas), or the model's. */
static int64_t steps_of(const dr_job *job, const dr_model *m)
{
    int64_t n = job->n_sigmas ? job->n_sigmas - (job->sigmas[job->n_sigmas - 1] == 0)
                              : job->n_timesteps;
    return job->steps ? job->steps : n ? n : m->defaults.steps;
}

/* Size and steps of the first pass. */
static dr_status plan_first(dr_pass *p, const dr_model *m, const dr_job *job, dr_err *err)
{
    int64_t size = m->unet.sample_size * m->vae.factor;
    dr_status st = DR_OK;
    *p = (dr_pass){ .width = job->width, .height = job->height, .steps = steps_of(job, m) };
    if (dr_init_given(job)) {
        p->first = dr_first_step(p->steps, job->init.strength);
        st = dr_init_size(&p->width, &p->height, job, m->vae.factor, err);
    }
    p->width = p->width ? p->width : size;
    p->height = p->height ? p->height : size;
    if (!st && !(st = check_size("width", p->width, m, err)))
        st = check_size("height", p->height, m, err);
    return st;
}

static int64_t preview_side(const dr_plan *plan, const dr_model *m, const dr_job *job)
{
    int64_t longest = plan->width > plan->height ? plan->width : plan->height;
    if (!job->preview.every || !(m->tiny.conv_in.out || m->preview))
        return 0;
    if (job->preview.size)
        return job->preview.size < longest ? job->preview.size : longest;
    return m->tiny.conv_in.out ? longest : longest / m->vae.factor;
}

dr_status dr_plan_make(dr_plan *plan, dr_model *m, const dr_job *job, dr_err *err)
{
    dr_pass *first = &plan->pass[0];
    *plan = (dr_plan){
        .passes = 1,
        .n = job->n,
        .pictures = job->n + (job->output.sheet && job->n > 1),
        .cfg_scale = isnan(job->cfg_scale) ? m->defaults.cfg_scale : job->cfg_scale,
        .seed = job->seed,
        .subseed = job->subseed_is_random ? dr_noise_subseed(job->seed) : job->subseed,
        .sampler = job->sampler,
        .schedule = job->schedule,
        .eta = job->eta,
    };
    dr_status st = plan_first(first, m, job, err);
    if (st)
        return st;
    plan->width = first->width;
    plan->height = first->height;
    st = dr_hires_plan(plan, m, job, err);
    plan->preview_side = preview_side(plan, m, job);
    for (int pass = 0; pass < plan->passes && !st; pass++)
        st = weigh(plan, pass, m, job, err);
    plan->steps = first->steps;
    return st;
}

/* --- several --- */

/* Equal, or both unset. */
static bool same_number(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b;
}

/* 0: the model decides; 1: with guidance; 2: without. */
static int guidance_of(const dr_job *job)
{
    return isnan(job->cfg_scale) ? 0 : job->cfg_scale > 1 ? 1 : 2;
}

static bool same_start(const dr_job *a, const dr_job *b)
{
    if (!dr_init_given(a) && !dr_init_given(b))
        return a->width == b->width && a->height == b->height;
    return a->init.strength == b->init.strength && dr_init_same_size(a, b);
}

static bool same_list(const double *a, int64_t n, const double *b, int64_t m)
{
    return n == m && (n == 0 || memcmp(a, b, (size_t)n * sizeof *a) == 0);
}

bool dr_same_levels(const dr_job *a, const dr_job *b)
{
    return same_list(a->sigmas, a->n_sigmas, b->sigmas, b->n_sigmas) &&
           same_list(a->timesteps, a->n_timesteps, b->timesteps, b->n_timesteps);
}

bool dr_jobs_batch(const dr_job *a, const dr_job *b)
{
    return a->task == b->task && same_start(a, b) && a->steps == b->steps &&
           a->sampler == b->sampler && a->schedule == b->schedule && dr_same_levels(a, b) &&
           same_number(a->eta, b->eta) && a->noise == b->noise &&
           guidance_of(a) == guidance_of(b) && a->cfg_start == b->cfg_start &&
           a->cfg_end == b->cfg_end && a->perp_neg == b->perp_neg &&
           a->clip_skip == b->clip_skip && a->tiling == b->tiling && !a->n_controls &&
           !b->n_controls && !dr_hires_given(a) && !dr_hires_given(b) &&
           dr_loras_equal(a->loras, a->n_loras, b->loras, b->n_loras);
}

/* Whole jobs in the first `rows` pictures; the first one counts even if it must be split.
 */
static int whole_jobs(const dr_batch *b, int64_t rows)
{
    int n = 0;
    while (n < b->n_jobs && (rows -= b->job[n].t->plan.n) >= 0)
        n++;
    return n ? n : 1;
}

int dr_batch_plan(dr_model *m, dr_batch_task *tasks, int n)
{
    int good = 0;
    dr_batch b;
    size_t peak_bytes;
    dr_err err = { 0 };
    for (int i = 0; i < n; i++) {
        tasks[i].err = (dr_err){ 0 };
        good += dr_plan_make(&tasks[i].plan, m, tasks[i].job, &tasks[i].err) == DR_OK;
    }
    if (good < 2)
        return good;
    if (dr_batch_open(&b, m, tasks, dr_tasks_span(tasks, n), 0, &err))
        return 1; /* it was good alone */
    dr_group_choose(&b);
    return dr_group_fit(&b, &peak_bytes, &err) ? 1 : whole_jobs(&b, b.n_rows);
}
