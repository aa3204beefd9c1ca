#include "diffusion/batch.h"

#include "base/clock.h"
#include "base/mem.h"

/* Which pictures go through the model together, and in which order. */

static const dr_observer nobody = { 0 };

/* Whether two planned jobs may share a forward pass. */
static bool same_pass(const dr_batch_task *a, const dr_batch_task *b)
{
    const dr_plan *p = &a->plan, *q = &b->plan;
    return p->width == q->width && p->height == q->height && p->steps == q->steps &&
           p->sampler == q->sampler && p->schedule == q->schedule && p->eta == q->eta &&
           (p->cfg_scale > 1) == (q->cfg_scale > 1) &&
           a->job->clip_skip == b->job->clip_skip && a->job->tiling == b->job->tiling &&
           !a->job->n_controls && !b->job->n_controls;
}

int dr_tasks_span(const dr_batch_task *tasks, int n)
{
    const dr_batch_task *first = NULL;
    int i = 0;
    for (; i < n; i++) {
        if (tasks[i].err.code)
            continue;
        if (first && !same_pass(first, &tasks[i]))
            break;
        first = first ? first : &tasks[i];
    }
    return i;
}

/* --- making a batch --- */

static dr_status make_steps(dr_model *m, const dr_plan *plan, dr_err *err)
{
    dr_arena_reset(m->plan_mem);
    const dr_schedule_ask ask = { .sampler = plan->sampler,
                                  .schedule = plan->schedule,
                                  .steps = plan->steps,
                                  .eta = plan->eta };
    return dr_schedule_make(&m->steps, m->plan_mem, &m->schedule, &ask, err);
}

static bool alloc_parts(dr_batch *b, dr_batch_task *tasks, int n)
{
    dr_arena *mem = b->m->plan_mem;
    for (int i = 0; i < n; i++) {
        b->n_jobs += !tasks[i].err.code;
        b->n_images += tasks[i].err.code ? 0 : (int)tasks[i].plan.n;
    }
    size_t jobs = (size_t)b->n_jobs, images = (size_t)b->n_images;
    b->job = dr_arena_alloc(mem, jobs * sizeof *b->job);
    b->image = dr_arena_alloc(mem, images * sizeof *b->image);
    b->row = dr_arena_alloc(mem, images * sizeof(dr_image *));
    b->text_of = dr_arena_alloc(mem, 2 * images * sizeof *b->text_of);
    b->text = dr_arena_alloc(mem, 2 * jobs * sizeof *b->text);
    b->cut = dr_arena_alloc(mem, 2 * jobs * sizeof *b->cut);
    return b->job && b->image && b->row && b->text_of && b->text && b->cut;
}

static void fill_jobs(dr_batch *b, dr_batch_task *tasks, int n)
{
    dr_batch_job *j = b->job;
    dr_image *p = b->image;
    for (int i = 0; i < n; i++) {
        if (tasks[i].err.code)
            continue;
        *j = (dr_batch_job){ .t = &tasks[i],
                             .obs = tasks[i].obs ? tasks[i].obs : &nobody,
                             .image = p };
        for (int64_t k = 0; k < tasks[i].plan.n; k++, p++) {
            p->job = j;
            p->index = k;
        }
        j++;
    }
}

dr_status dr_batch_open(dr_batch *b, dr_model *m, dr_batch_task *tasks, int n, dr_err *err)
{
    const dr_batch_task *first = tasks;
    while (first->err.code)
        first++;
    const dr_plan *plan = &first->plan;
    *b = (dr_batch){ .m = m,
                     .r = &m->run,
                     .width = plan->width,
                     .height = plan->height,
                     .h = plan->height / m->vae.factor,
                     .w = plan->width / m->vae.factor,
                     .c = m->vae.latent_c,
                     .guided = plan->cfg_scale > 1 };
    m->run.wrap = first->job->tiling;
    dr_status st = make_steps(m, plan, err);
    if (st || (st = dr_controls_take(m, first->job, b->control, &b->n_controls, err)))
        return st;
    b->steps = m->steps.count;
    if (!alloc_parts(b, tasks, n))
        return dr_fail(err, DR_ENOMEM, "out of memory for a batch of %d", n);
    fill_jobs(b, tasks, n);
    return DR_OK;
}

/* What a real run needs beside: staging for noise and a picture, room for what is kept. */
static dr_status reserve_host(dr_batch *b, dr_err *err)
{
    size_t latent = (size_t)(b->h * b->w * b->c), note = 0;
    size_t pixels = (size_t)(b->width * b->height + b->h * b->w); /* and a preview */
    float *kept =
        dr_arena_alloc(b->m->plan_mem, (size_t)b->n_images * latent * sizeof *kept);
    for (int i = 0; i < b->n_jobs; i++) {
        size_t bytes = b->job[i].obs->checkpoint ? dr_checkpoint_bytes(b, &b->job[i]) : 0;
        note = bytes > note ? bytes : note;
    }
    b->note = note ? dr_arena_alloc(b->m->plan_mem, note) : NULL;
    if (!kept || (note && !b->note))
        return dr_fail(err, DR_ENOMEM, "out of memory for %d latents", b->n_images);
    for (int i = 0; i < b->n_images; i++)
        b->image[i].kept = kept + (size_t)i * latent;
    return dr_model_reserve(b->m, 2 * latent, pixels * 3, err);
}

/* --- groups --- */

bool dr_group_choose(dr_batch *b)
{
    b->n_rows = 0;
    for (int i = 0; i < b->n_jobs; i++) {
        dr_batch_job *j = &b->job[i];
        for (int64_t k = 0; k < j->t->plan.n && !j->over; k++) {
            dr_image *p = &j->image[k];
            if (p->decoded)
                continue;
            if (b->n_rows && p->step != b->row[0]->step)
                break; /* a job's pictures leave in order */
            b->row[b->n_rows++] = p;
        }
    }
    return b->n_rows > 0;
}

static void run_group(dr_batch *b)
{
    dr_run *r = b->r;
    dr_err err = { 0 };
    size_t peak_bytes;
    if (!dr_group_fit(b, &peak_bytes, &err) && !dr_run_reserve(r, peak_bytes, &err)) {
        dr_run_reset(r, false);
        dr_group_run(b);
        b->done_flops += r->flops;
        r->flops = 0;
        return;
    }
    for (int i = 0; i < b->n_rows; i++)
        dr_job_end(b, b->row[i]->job, &err);
}

/* Tasks of which the good ones share a forward pass. */
static void run_span(dr_model *m, dr_batch_task *tasks, int n)
{
    dr_batch b;
    dr_err err = { 0 };
    dr_status st = dr_batch_open(&b, m, tasks, n, &err);
    if (!st)
        st = reserve_host(&b, &err);
    for (int i = 0; i < n && st; i++) {
        if (tasks[i].err.code)
            continue;
        tasks[i].err = err;
        if (tasks[i].obs && tasks[i].obs->done)
            tasks[i].obs->done(tasks[i].obs->ctx, &err);
    }
    if (st)
        return;
    for (int i = 0; i < b.n_jobs; i++)
        dr_checkpoint_find(&b, &b.job[i]);
    b.start = dr_now_s();
    for (dr_batch_ask(&b); dr_group_choose(&b); dr_batch_ask(&b))
        run_group(&b);
}

void dr_batch_run(dr_model *m, dr_batch_task *tasks, int n)
{
    for (int i = 0; i < n; i++) {
        dr_batch_task *t = &tasks[i];
        t->stats = (dr_run_stats){ 0 };
        if (t->err.code && t->obs && t->obs->done)
            t->obs->done(t->obs->ctx, &t->err);
    }
    for (int i = 0, len; i < n; i += len) {
        len = tasks[i].err.code ? 1 : dr_tasks_span(tasks + i, n - i);
        if (!tasks[i].err.code)
            run_span(m, tasks + i, len);
    }
}

dr_status dr_pipeline_run(dr_model *m, const dr_job *job, const dr_plan *plan,
                          const dr_observer *obs, dr_run_stats *stats, dr_err *err)
{
    dr_batch_task t = { .job = job, .plan = *plan, .obs = obs };
    dr_batch_run(m, &t, 1);
    if (stats)
        *stats = t.stats;
    if (t.err.code && err)
        *err = t.err;
    return t.err.code;
}
