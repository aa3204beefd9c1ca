#include "diffusion/batch.h"

#include "base/clock.h"

/* How far a job is, told to its observer. Shares are those of the work that the plan
 * counted, over all passes, so that they grow evenly and never fall. */

/* Rows done of all pictures of a job, and how many of them are decoded. */
static int64_t steps_of(const dr_batch_job *j, int64_t *decoded)
{
    int64_t steps = 0;
    *decoded = 0;
    for (int64_t i = 0; i < j->t->plan.n; i++) {
        steps += j->image[i].step;
        *decoded += j->image[i].decoded;
    }
    return steps;
}

/* Work of a job's passes [from, to). */
static double flops_beside(const dr_batch_job *j, int from, int to)
{
    const dr_plan *plan = &j->t->plan;
    double flops = 0;
    for (int i = from; i < to && i < plan->passes; i++) {
        const dr_pass *pass = &plan->pass[i];
        flops += pass->encode_flops + (double)pass->rows * pass->step_flops +
                 (double)plan->n * pass->decode_flops;
    }
    return flops;
}

int64_t dr_steps_before(const dr_plan *plan, int to)
{
    int64_t steps = 0;
    for (int i = 0; i < to; i++)
        steps += plan->pass[i].steps;
    return steps;
}

/* Work that lies before the last picture of a job: that of the pictures before it, and the
 * steps that the rest of the group makes with them. */
static double flops_left(const dr_batch *b, const dr_batch_job *j)
{
    double flops = flops_beside(j, b->pass + 1, DR_PASSES_MAX);
    for (int i = 0; i < b->n_images; i++) {
        const dr_batch_image *p = &b->image[i];
        const dr_pass *pass = dr_pass_of(b, p->job);
        bool before = p->job <= j;
        if (p->job->over || !(before || p->job->in_group))
            continue;
        flops +=
            (double)(b->steps - p->step) * pass->step_flops / (double)p->job->t->plan.n;
        flops += before && !p->decoded ? pass->decode_flops : 0;
    }
    return flops;
}

void dr_tell(dr_batch *b, dr_batch_job *j)
{
    const dr_plan *plan = &j->t->plan;
    const dr_pass *pass = dr_pass_of(b, j);
    int64_t decoded, steps = steps_of(j, &decoded);
    if (b->r->dry || b->r->err.code || j->over || !j->obs->progress)
        return;
    double n = (double)plan->n, now = dr_now_s(), done = b->done_flops + b->r->flops;
    double before = flops_beside(j, 0, b->pass);
    double share =
        (before + (j->encoded ? pass->encode_flops : 0) +
         (double)steps / n * pass->step_flops + (double)decoded * pass->decode_flops) /
        (before + pass->encode_flops + (double)b->steps * pass->step_flops +
         n * pass->decode_flops + flops_beside(j, b->pass + 1, DR_PASSES_MAX));
    dr_progress p = { .phase = b->phase,
                      .step = dr_steps_before(plan, b->pass) +
                              dr_steps_done(&b->m->steps, steps / plan->n),
                      .steps = dr_steps_before(plan, plan->passes),
                      .percent = 100 * (share > 1 ? 1 : share) };
    if (b->phase == DR_PHASE_DENOISE && now > b->steps_start)
        p.it_s = (double)b->steps_made / (now - b->steps_start);
    if (done > 0)
        p.eta_s = (now - b->start) * flops_left(b, j) / done;
    j->obs->progress(j->obs->ctx, &p);
}

void dr_tell_all(dr_batch *b)
{
    for (int i = 0; i < b->n_jobs; i++)
        if (b->job[i].in_group)
            dr_tell(b, &b->job[i]);
}
