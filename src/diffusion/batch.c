#include "diffusion/batch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "diffusion/loras.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Which pictures go through the model together, and in which order. */

static const dr_observer nobody = { 0 };

/* Whether two planned jobs may share a forward pass. */
static bool same_pass(const dr_batch_task *a, const dr_batch_task *b)
{
    const dr_plan *p = &a->plan, *q = &b->plan;
    const dr_pass *v = &p->pass[0], *w = &q->pass[0];
    return p->passes == 1 && q->passes == 1 && v->width == w->width &&
           v->height == w->height && v->steps == w->steps && p->sampler == q->sampler &&
           p->schedule == q->schedule && p->eta == q->eta &&
           dr_same_levels(a->job, b->job) && p->guides == q->guides &&
           v->guided_from == w->guided_from && v->guided_end == w->guided_end &&
           p->text_chunks == q->text_chunks && a->job->clip_skip == b->job->clip_skip &&
           a->job->tiling == b->job->tiling && v->first == w->first &&
           a->job->task == b->job->task && !a->job->n_controls && !b->job->n_controls &&
           dr_loras_equal(a->job->loras, a->job->n_loras, b->job->loras, b->job->n_loras);
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

/* The second pass reads other fields: steps are hires.steps there. */
static dr_status blame_hires(dr_err *err)
{
    const dr_err first = *err;
    return dr_fail_field(err, first.code, "hires.steps", "hires.%s", first.message);
}

/* With nothing left to do (strength 0) there are no rows, and the picture no noise. */
static dr_status make_steps(dr_model *m, const dr_batch_task *t, int number, dr_err *err)
{
    const dr_job *job = t->job;
    const dr_plan *plan = &t->plan;
    const dr_pass *pass = &plan->pass[number];
    bool none = pass->first == pass->steps;
    dr_arena_reset(m->plan_mem);
    const dr_schedule_ask ask = { .sampler = plan->sampler,
                                  .schedule = plan->schedule,
                                  .steps = pass->steps,
                                  .first = none ? 0 : pass->first,
                                  .eta = plan->eta,
                                  .sigmas = job->sigmas,
                                  .timesteps = job->timesteps,
                                  .n_sigmas = job->n_sigmas,
                                  .n_timesteps = job->n_timesteps };
    dr_status st = dr_schedule_make(&m->steps, m->plan_mem, &m->schedule, &ask, err);
    if (st && number && !strcmp(err->field, "steps"))
        return blame_hires(err);
    if (!st && none) {
        m->steps.count = 0;
        m->steps.start_signal = 1;
        m->steps.start_noise = 0;
    }
    return st;
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
    b->row = dr_arena_alloc(mem, images * sizeof(dr_batch_image *));
    b->text_of = dr_arena_alloc(mem, (size_t)b->guides * images * sizeof *b->text_of);
    return b->job && b->image && b->row && b->text_of;
}

static void fill_jobs(dr_batch *b, dr_batch_task *tasks, int n)
{
    dr_batch_job *j = b->job;
    dr_batch_image *p = b->image;
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

/* --- guidance --- */

bool dr_batch_guided(const dr_batch *b, int64_t step)
{
    return b->guides > 1 && step >= b->guided_from && step < b->guided_end;
}

/* The first of `steps` that lies at or after a share of them. */
static int64_t step_at(double share, int64_t steps)
{
    return (int64_t)ceil(share * (double)steps - 1e-9);
}

/* What the first job asks for; the others ask for the same. */
static void choose_guides(dr_batch *b, const dr_job *job, double cfg_scale)
{
    int64_t steps = b->m->steps.steps;
    b->guided_from = step_at(job->cfg_start, steps);
    b->guided_end = job->cfg_end > 0 ? step_at(job->cfg_end, steps) : steps;
    b->guides = cfg_scale <= 1 || b->guided_from >= b->guided_end ? 1
                : job->perp_neg && *job->negative_prompt          ? 3
                                                                  : 2;
    if (b->guides == 1)
        b->guided_from = b->guided_end = 0;
}

/* --- prompts --- */

/* The steps that prompts count: of a picture to begin with those that are skipped, too, of
 * a second pass those that it makes, as A1111 does. */
static dr_prompt_steps steps_to_read(const dr_batch *b, const dr_plan *plan)
{
    const dr_pass *second = &plan->pass[1];
    return (
        dr_prompt_steps){ .steps = { plan->pass[0].steps,
                                     plan->passes > 1 ? second->steps - second->first : 0 },
                          .pass = b->pass };
}

int dr_batch_text(const dr_batch *b, const dr_batch_prompt *p, int64_t step)
{
    return p->over.at[b->pass ? step - b->first : step];
}

/* A prompt's texts over the steps, each as rows for the encoder. */
static dr_status read_prompt(dr_batch *b, dr_batch_job *j, dr_guide guide,
                             const char *source, dr_err *err)
{
    dr_batch_prompt *p = &j->prompt[guide];
    dr_status st =
        dr_prompt_read(&p->over, &j->reading, source, steps_to_read(b, &j->t->plan), err);
    if (st)
        return st;
    size_t n = (size_t)p->over.n;
    p->text = dr_arena_alloc(j->reading.mem, n * sizeof *p->text);
    p->row = dr_arena_alloc(j->reading.mem, n * sizeof *p->row);
    if (!p->text || !p->row)
        return dr_fail(err, DR_ENOMEM, "out of memory for %zu texts", n);
    for (size_t i = 0; i < n && !st; i++) {
        st =
            dr_text_make(&p->text[i], &b->vectors, b->m, &j->reading, p->over.text[i], err);
        b->chunks = p->text[i].chunks > b->chunks ? p->text[i].chunks : b->chunks;
    }
    return st;
}

/* Tell what of the guidance has no effect. */
static void note_guidance(const dr_batch *b, dr_batch_job *j)
{
    const dr_job *job = j->t->job;
    bool wanted = j->t->plan.cfg_scale > 1;
    if (!wanted && *job->negative_prompt) {
        j->reading.field = "negative_prompt";
        dr_note(&j->reading, "has no effect without guidance");
    }
    if (wanted && b->guides == 1) {
        j->reading.field = "cfg_start";
        dr_note(&j->reading, "no step lies between cfg_start and cfg_end; guidance is off");
    }
    if (job->perp_neg && b->guides < 3) {
        j->reading.field = "perp_neg";
        dr_note(&j->reading, "has no effect without %s",
                wanted ? "a negative prompt" : "guidance");
    }
    if (job->cfg_rescale > 0 && b->guides == 1) {
        j->reading.field = "cfg_rescale";
        dr_note(&j->reading, "has no effect without guidance");
    }
}

static dr_status read_job(dr_batch *b, dr_batch_job *j, dr_err *err)
{
    const dr_job *job = j->t->job;
    const char *const source[DR_GUIDES] = { job->prompt, job->negative_prompt, "" };
    static const char *const fields[DR_GUIDES] = { "prompt", "negative_prompt", "" };
    dr_status st = DR_OK;
    j->reading.mem = b->m->plan_mem;
    for (int i = 0; i < b->guides && !st; i++) {
        j->reading.field = fields[i];
        st = read_prompt(b, j, (dr_guide)i, source[i], err);
    }
    note_guidance(b, j);
    return st;
}

static dr_status read_prompts(dr_batch *b, dr_err *err)
{
    dr_reading nothing = { .mem = b->m->plan_mem, .field = "" };
    size_t texts = 0;
    dr_status st = dr_embeddings_scan(b->m->embeddings, b->m->bpe, err);
    if (!st)
        st = dr_text_make(&b->empty, &b->vectors, b->m, &nothing, "", err);
    for (int i = 0; i < b->n_jobs && !st; i++) {
        st = read_job(b, &b->job[i], err);
        for (int k = 0; k < b->guides; k++)
            texts += (size_t)b->job[i].prompt[k].over.n;
    }
    if (st)
        return st;
    b->text = dr_arena_alloc(b->m->plan_mem, texts * sizeof *b->text);
    return b->text ? DR_OK : dr_fail(err, DR_ENOMEM, "out of memory for %zu texts", texts);
}

dr_status dr_batch_open(dr_batch *b, dr_model *m, dr_batch_task *tasks, int n, int pass,
                        dr_err *err)
{
    const dr_batch_task *first = tasks;
    while (first->err.code)
        first++;
    const dr_pass *p = &first->plan.pass[pass];
    *b = (dr_batch){ .m = m,
                     .r = &m->run,
                     .pass = pass,
                     .last = pass == first->plan.passes - 1,
                     .width = p->width,
                     .height = p->height,
                     .h = p->height / m->vae.factor,
                     .w = p->width / m->vae.factor,
                     .c = m->vae.latent_c,
                     .first = p->first,
                     .pictures = !pass && dr_init_given(first->job),
                     .repaints = dr_mask_given(first->job) && !dr_model_inpaints(m) };
    m->run.wrap = first->job->tiling;
    dr_status st = make_steps(m, first, pass, err);
    if (st ||
        (st = dr_loras_check(m, first->job->loras, first->job->n_loras, &b->lora_bytes,
                             err)) ||
        (st = dr_controls_take(m, first->job, b->control, &b->n_controls, err)))
        return st;
    b->steps = m->steps.count;
    choose_guides(b, first->job, first->plan.cfg_scale);
    if (!alloc_parts(b, tasks, n))
        return dr_fail(err, DR_ENOMEM, "out of memory for a batch of %d", n);
    fill_jobs(b, tasks, n);
    return read_prompts(b, err);
}

/* What a job keeps on the host. *note grows to the size of its checkpoint. */
static dr_status reserve_job(dr_batch *b, dr_batch_job *j, size_t *note, dr_err *err)
{
    const dr_plan *plan = &j->t->plan;
    size_t bytes = j->obs->checkpoint ? dr_checkpoint_bytes(b, j) : 0;
    *note = bytes > *note ? bytes : *note;
    for (int64_t i = 0; i < plan->n && b->pass; i++) {
        bytes = (size_t)(b->h * b->w * b->c) * sizeof(float);
        if (!(j->image[i].enlarged = dr_arena_alloc(b->m->plan_mem, bytes)))
            return dr_fail(err, DR_ENOMEM, "out of memory: %zu bytes for latents", bytes);
    }
    return DR_OK;
}

/* What a real run needs beside: staging for noise and a picture, room for what is kept. */
static dr_status reserve_host(dr_batch *b, dr_err *err)
{
    dr_status st = DR_OK;
    size_t latent = (size_t)(b->h * b->w * b->c), note = 0;
    size_t pixels = (size_t)(b->width * b->height + b->h * b->w); /* and a preview */
    float *kept =
        dr_arena_alloc(b->m->plan_mem, (size_t)b->n_images * latent * sizeof *kept);
    for (int i = 0; i < b->n_jobs && !st; i++)
        st = reserve_job(b, &b->job[i], &note, err);
    if (st)
        return st;
    b->note = note ? dr_arena_alloc(b->m->plan_mem, note) : NULL;
    if (!kept || (note && !b->note))
        return dr_fail(err, DR_ENOMEM, "out of memory for %d latents", b->n_images);
    for (int i = 0; i < b->n_images; i++)
        b->image[i].kept = kept + (size_t)i * latent;
    return dr_model_reserve(b->m, dr_start_floats(b), pixels * 3, err);
}

/* --- LoRAs --- */

static void note_unmatched(dr_reading *r, const dr_lora_count *file)
{
    if (file->unmatched)
        dr_note(r, "%lld of the %lld keys of %s have no place in this model; first %s",
                (long long)file->unmatched, (long long)(file->matched + file->unmatched),
                file->name, file->first_unmatched);
}

/* Give the model the weights that all jobs of the batch ask for. */
static dr_status apply_loras(dr_batch *b, dr_err *err)
{
    const dr_job *job = b->job[0].t->job;
    dr_lora_report report;
    dr_status st = dr_loras_apply(b->m, job->loras, job->n_loras, &report, err);
    for (int k = 0; k < b->n_jobs && !st; k++) {
        b->job[k].reading.field = "loras";
        dr_run_stats *s = &b->job[k].t->stats;
        s->n_loras = report.n;
        for (int i = 0; i < report.n; i++) {
            const dr_lora_count *file = &report.file[i];
            note_unmatched(&b->job[k].reading, file);
            s->loras[i].matched = file->matched;
            s->loras[i].unmatched = file->unmatched;
            snprintf(s->loras[i].name, sizeof s->loras[i].name, "%s", file->name);
        }
    }
    return st;
}

/* --- groups --- */

bool dr_group_choose(dr_batch *b)
{
    b->n_rows = 0;
    for (int i = 0; i < b->n_jobs; i++) {
        dr_batch_job *j = &b->job[i];
        for (int64_t k = 0; k < j->t->plan.n && !j->over; k++) {
            dr_batch_image *p = &j->image[k];
            if (p->decoded)
                continue;
            if (b->n_rows && p->step != b->row[0]->step)
                break; /* a job's pictures leave in order */
            b->row[b->n_rows++] = p;
        }
    }
    return b->n_rows > 0;
}

/* Memory for the group's activations, also what unused LoRA sets hold. */
static dr_status reserve(dr_batch *b, size_t peak_bytes, dr_err *err)
{
    dr_model *m = b->m;
    uint64_t others = (uint64_t)(dr_loras_bytes(m) - b->lora_bytes);
    if (dr_group_memory(b, peak_bytes) + others > dr_dev_describe(m->dev)->memory_bytes)
        dr_loras_make_room(m);
    dr_status st = dr_run_reserve(b->r, peak_bytes, err);
    return st == DR_ENOMEM && dr_loras_make_room(m) ? dr_run_reserve(b->r, peak_bytes, err)
                                                    : st;
}

static void run_group(dr_batch *b)
{
    dr_run *r = b->r;
    dr_err err = { 0 };
    size_t peak_bytes;
    if (!dr_group_fit(b, &peak_bytes, &err) && !reserve(b, peak_bytes, &err)) {
        dr_run_reset(r, false);
        dr_group_run(b);
        b->done_flops += r->flops;
        r->flops = 0;
        return;
    }
    for (int i = 0; i < b->n_rows; i++)
        dr_job_end(b, b->row[i]->job, &err);
}

/* A job whose pictures are bad ends here. */
static void open_pictures(dr_batch *b, dr_batch_job *j)
{
    dr_err err = { 0 };
    if (b->pictures &&
        dr_init_open(&j->init, j->t->job, b->width, b->height, b->m->vae.factor, &err))
        dr_job_end(b, j, &err);
}

static void end_tasks(dr_batch_task *tasks, int n, const dr_err *err)
{
    for (int i = 0; i < n; i++) {
        if (tasks[i].err.code)
            continue;
        tasks[i].err = *err;
        if (tasks[i].obs && tasks[i].obs->done)
            tasks[i].obs->done(tasks[i].obs->ctx, err);
    }
}

/* → the pass to make next; those of the plan: there is none. A second pass whose checkpoint
 * does not fit leads back to the first. */
static int run_pass(dr_model *m, dr_batch_task *tasks, int n, int pass, dr_carry *carry)
{
    dr_batch b;
    dr_err err = { 0 };
    int passes = tasks->plan.passes;
    dr_status st = dr_batch_open(&b, m, tasks, n, pass, &err);
    b.carry = carry;
    if (!st)
        st = reserve_host(&b, &err);
    if (!st)
        st = apply_loras(&b, &err);
    if (st) {
        end_tasks(tasks, n, &err);
        return passes;
    }
    for (int i = 0; i < b.n_jobs; i++) {
        if (!dr_checkpoint_find(&b, &b.job[i]))
            return 0;
        open_pictures(&b, &b.job[i]);
    }
    b.start = dr_now_s();
    for (dr_batch_ask(&b); dr_group_choose(&b); dr_batch_ask(&b))
        run_group(&b);
    if (b.last || b.job->over)
        return passes;
    dr_carry_keep(carry, b.job);
    tasks->stats.loop_allocations += b.loop_allocations;
    return pass + 1;
}

/* Tasks of which the good ones share their forward passes; one with two passes is alone. */
static void run_span(dr_model *m, dr_batch_task *tasks, int n)
{
    dr_carry carry = { 0 };
    dr_err err = { 0 };
    int passes = tasks->plan.passes;
    if (passes > 1 && dr_carry_make(&carry, m, &tasks->plan, &err))
        end_tasks(tasks, n, &err);
    else
        for (int pass = passes > 1 ? dr_checkpoint_pass(tasks) : 0; pass < passes;)
            pass = run_pass(m, tasks, n, pass, &carry);
    dr_carry_free(&carry);
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
