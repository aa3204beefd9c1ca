#include "diffusion/batch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "dev/dev.h"

#include <stdio.h>
#include <string.h>

/* The story of a group of pictures: encode texts and pictures, add noise, denoise, decode.
 * The same functions run dry in the plan (nothing is enqueued) and for real.
 *
 * What goes wrong for one job (stopped, bad numbers) ends that job; an error of the run
 * itself (r->err: the device, memory) ends all that are in the group. */

#define SHEET_SIDE_MAX 4096

const char *dr_phase_name(dr_phase p)
{
    static const char *const names[DR_PHASES] = { "load", "encode", "denoise", "decode",
                                                  "compress" };
    return names[p];
}

/* --- telling --- */

static bool failed(const dr_batch *b)
{
    return b->r->err.code != DR_OK;
}

_Static_assert(DR_HIST_MAX == DR_STEP_HISTORY, "rows and kernel share a memory");

/* Book the time since the last call for the jobs in the group. */
static void spend(dr_batch *b)
{
    double now = dr_now_s(), spent = now - b->phase_start;
    b->phase_start = now;
    for (int i = 0; i < b->n_jobs; i++) {
        dr_run_stats *s = &b->job[i].t->stats;
        double *const seconds[DR_PHASES] = { [DR_PHASE_ENCODE] = &s->encode,
                                             [DR_PHASE_DENOISE] = &s->denoise,
                                             [DR_PHASE_DECODE] = &s->decode,
                                             [DR_PHASE_COMPRESS] = &s->compress };
        if (b->job[i].in_group && !b->job[i].over)
            *seconds[b->phase] += spent;
    }
}

/* Show the jobs in the group what lies between from_s and now. */
static void show_span(const dr_batch *b, int64_t step, double from_s)
{
    double now = dr_now_s();
    for (int i = 0; i < b->n_jobs && !b->r->dry; i++) {
        const dr_batch_job *j = &b->job[i];
        if (j->in_group && !j->over && j->obs->span)
            j->obs->span(j->obs->ctx, b->phase, step, from_s, now);
    }
}

static void enter(dr_batch *b, dr_phase phase)
{
    if (b->r->dry)
        return;
    show_span(b, 0, b->phase_start);
    spend(b);
    b->phase = phase;
}

/* --- ends --- */

void dr_job_end(dr_batch *b, dr_batch_job *j, const dr_err *err)
{
    dr_batch_task *t = j->t;
    if (j->over)
        return;
    spend(b);
    j->over = true;
    t->err = err ? *err : (dr_err){ 0 };
    t->stats.loop_allocations += b->loop_allocations;
    dr_init_free(j->init);
    j->init = NULL;
    dr_image_free(&j->sheet.image);
    if (j->obs->done)
        j->obs->done(j->obs->ctx, &t->err);
}

void dr_batch_ask(dr_batch *b)
{
    for (int i = 0; i < b->n_jobs && !b->r->dry && !failed(b); i++) {
        dr_batch_job *j = &b->job[i];
        dr_stop stop =
            j->over || !j->obs->stopped ? DR_GO_ON : j->obs->stopped(j->obs->ctx);
        dr_err err = { 0 };
        if (stop == DR_GO_ON)
            continue;
        if (stop == DR_STOP_KEEP)
            dr_checkpoint_save(b, j);
        dr_fail(&err, DR_ESTOPPED, "stopped");
        dr_job_end(b, j, &err);
    }
}

/* End a job if values of its `what` ("latents", "picture") are no numbers. */
static void check_finite(dr_batch *b, dr_batch_job *j, dr_range range, const char *what)
{
    dr_err err = { 0 };
    if (failed(b) || b->r->dry || !range.not_finite)
        return;
    dr_fail(&err, DR_ENUMERIC,
            "%lld values of the %s are NaN or infinite; the weights or the device are bad",
            (long long)range.not_finite, what);
    dr_job_end(b, j, &err);
}

/* --- texts --- */

/* The guides of a step, in the order of the UNet's batch: with guidance the negative
 * prompts come first. → how many */
static int guides_at(const dr_batch *b, int64_t step, dr_guide order[DR_GUIDES])
{
    static const dr_guide guided[] = { DR_GUIDE_PLAIN, DR_GUIDE_TEXT, DR_GUIDE_EMPTY };
    int n = dr_batch_guided(b, step) ? b->guides : 1;
    for (int i = 0; i < n; i++)
        order[i] = n > 1 ? guided[i] : DR_GUIDE_TEXT;
    return n;
}

static int text_row(dr_batch *b, const dr_text *text)
{
    for (int i = 0; i < b->n_texts; i++)
        if (!strcmp(b->text[i]->text, text->text))
            return i;
    b->text[b->n_texts] = text;
    return b->n_texts++;
}

/* Find a row for every text that a job reads from a step on. */
static void collect_texts(dr_batch *b, dr_batch_job *j, int64_t from)
{
    dr_guide order[DR_GUIDES];
    for (int g = 0; g < b->guides; g++)
        for (int i = 0; i < j->prompt[g].over.n; i++)
            j->prompt[g].row[i] = -1;
    for (int64_t step = from; step < b->m->steps.steps; step++)
        for (int g = guides_at(b, step, order) - 1; g >= 0; g--) {
            dr_batch_prompt *p = &j->prompt[order[g]];
            int text = dr_batch_text(b, p, step);
            if (p->row[text] < 0)
                p->row[text] = text_row(b, &p->text[text]);
        }
}

/* Which text each row of the UNet's batch reads in a step. → its rows, in pictures */
static int map_texts(dr_batch *b, int64_t step)
{
    dr_guide order[DR_GUIDES];
    int *at = b->text_of, n = guides_at(b, step, order);
    for (int g = 0; g < n; g++)
        for (int i = 0; i < b->n_rows; i++) {
            const dr_batch_prompt *p = &b->row[i]->job->prompt[order[g]];
            *at++ = p->row[dr_batch_text(b, p, step)];
        }
    return n;
}

static void tell_notes(const dr_batch *b, dr_batch_job *j)
{
    for (int i = 0; i < j->reading.n && !j->encoded && !b->pass && j->obs->warning; i++)
        j->obs->warning(j->obs->ctx, j->reading.note[i]);
    j->encoded = true;
}

/* Embed every text once and keep every cross-attention's keys and values. */
static void encode_texts(dr_batch *b)
{
    dr_run *r = b->r;
    dr_model *m = b->m;
    const dr_text_ask ask = { .chunks = b->chunks,
                              .skip = b->row[0]->job->t->job->clip_skip,
                              .empty = &b->empty,
                              .vectors = &b->vectors };
    b->n_texts = 0;
    for (int i = 0; i < b->n_jobs; i++)
        if (b->job[i].in_group && !b->job[i].over)
            collect_texts(b, &b->job[i], m->steps.row[b->row[0]->step].step);
    dr_tell_all(b);
    dr_tensor text = dr_new(r, b->n_texts, b->chunks * m->clip.length, 1, m->clip.width);
    dr_text_encode(r, m, b->text, b->n_texts, &ask, text);
    dr_unet_read_text(r, &m->unet, text, m->kv);
    dr_unet_choose_text(&m->unet, m->kv, b->text_of);
    for (int i = 0; i < b->n_controls; i++)
        dr_control_read(r, &b->control[i], text, b->text_of, b->width, b->height,
                        b->guides * b->n_rows);
    for (int i = 0; i < b->n_jobs && !r->dry && !failed(b); i++)
        if (b->job[i].in_group && !b->job[i].over)
            tell_notes(b, &b->job[i]);
}

static void encode_pictures(dr_batch *b)
{
    if (b->pictures)
        dr_tell_all(b);
    dr_start_encode(b);
    for (int i = 0; i < b->n_jobs && !b->r->dry && !failed(b); i++)
        b->job[i].encoded |= b->job[i].in_group;
}

/* --- steps --- */

static dr_step_coef coef_of(const dr_step *row)
{
    dr_step_coef coef = {
        .x = (float)row->x,
        .out = (float)row->out,
        .noise = (float)row->noise,
        .slot = row->slot,
        .hist_x = (float)row->hist_x,
        .hist_out = (float)row->hist_out,
        .hist_noise = (float)row->hist_noise,
        .denoised_x = (float)row->denoised_x,
        .denoised_out = (float)row->denoised_out,
    };
    for (int k = 0; k < DR_HIST_MAX; k++)
        coef.hist[k] = (float)row->hist[k];
    return coef;
}

/* Rows of one job, from `first` on. */
static int rows_of_job(const dr_batch *b, int first)
{
    int n = 1;
    while (first + n < b->n_rows && b->row[first + n]->job == b->row[first]->job)
        n++;
    return n;
}

static void copy_row(dr_batch *b, dr_tensor t, int from, int to)
{
    op_scale(b->r, dr_slice(t, from, 1), dr_slice(t, to, 1), 1, 0);
}

/* Tensors whose rows outlive a step; room for DR_HIST_MAX + 5. */
static int lasting(dr_batch *b, dr_tensor **out)
{
    dr_tensor *parts[] = { &b->x, &b->init, &b->init_noise, &b->mask, &b->cond };
    int n = 0;
    for (size_t i = 0; i < DR_COUNT(parts); i++)
        if (parts[i]->c)
            out[n++] = parts[i];
    for (int k = 0; k < b->m->steps.n_hist; k++)
        out[n++] = &b->hist[k];
    return n;
}

/* Let the rows of jobs that are over fall out. */
static void close_ranks(dr_batch *b)
{
    dr_tensor *t[DR_HIST_MAX + 5];
    int to = 0, n = lasting(b, t);
    for (int i = 0; i < b->n_rows; i++) {
        if (b->row[i]->job->over)
            continue;
        for (int k = 0; k < n && to != i; k++)
            copy_row(b, *t[k], i, to);
        b->row[to++] = b->row[i];
    }
    if (to == b->n_rows)
        return;
    b->n_rows = to;
    b->denoised.n = b->noise.n = to;
    for (int k = 0; k < n; k++)
        t[k]->n = to;
}

/* A small picture of what the job's first image is becoming, as large as it wants it; row
 * i is that image. A dry run makes one whoever watches: for its memory, and for its share
 * of a step's work. */
static void show_preview(dr_batch *b, int i, int64_t step)
{
    dr_run *r = b->r;
    dr_batch_job *j = b->row[i]->job;
    int64_t every = dr_preview_every(j->t->job, &j->t->plan);
    if (!every || !j->t->plan.preview_side || (!j->obs->preview && !r->dry))
        return;
    if (!r->dry && (step % every || (b->last && step == b->m->steps.steps)))
        return; /* the last one would be the picture itself */
    double flops = r->flops;
    dr_mark mark = dr_push(r);
    dr_picture pic = dr_preview_make(r, b->m, dr_slice(b->denoised, i, 1), b->coarse);
    if (r->dry)
        r->flops = flops + (r->flops - flops) / (double)every;
    if (pic.rgb && !r->dry && !failed(b)) {
        pic = dr_preview_fit_size(&pic, b->m->rgb, j->t->job->preview.size, b->width,
                                  b->height);
        j->obs->preview(j->obs->ctx, dr_steps_before(&j->t->plan, b->pass) + step, &pic);
    }
    dr_pop(r, mark);
}

/* The sampler's update in place, job by job: each has its own guidance. out: the UNet's,
 * one after the other for each of n guides. */
static void update(dr_batch *b, dr_tensor out, int guides, const dr_step *row)
{
    dr_step_coef coef = coef_of(row);
    dr_tensor hist[DR_HIST_MAX];
    int n_hist = b->m->steps.n_hist;
    dr_tensor all = dr_slice(out, guides > 1 ? b->n_rows : 0, b->n_rows);
    for (int i = 0, n; i < b->n_rows; i += n) {
        n = rows_of_job(b, i);
        const dr_batch_task *t = b->row[i]->job->t;
        dr_tensor plain = dr_slice(out, i, n), text = dr_slice(all, i, n), empty;
        bool apart = guides > 2 || (guides > 1 && t->job->cfg_rescale > 0);
        if (guides > 2)
            empty = dr_slice(out, 2 * b->n_rows + i, n);
        if (apart)
            text = op_guide(b->r, text, plain, guides > 2 ? &empty : NULL,
                            t->plan.cfg_scale, t->job->cfg_rescale);
        coef.cfg = (float)t->plan.cfg_scale;
        for (int k = 0; k < n_hist; k++)
            hist[k] = dr_slice(b->hist[k], i, n);
        op_sampler_step(b->r, dr_slice(b->x, i, n), text,
                        guides > 1 && !apart ? &plain : NULL, hist, n_hist,
                        dr_slice(b->noise, i, n), dr_slice(b->denoised, i, n), &coef);
    }
}

/* One row of the sampler. */
typedef struct {
    dr_batch *b;
    int64_t i;
} turn;

/* The ControlNets' part of a row. A dry run knows one row only: it takes all into account
 * for memory, for work by the share of the rows that they act in. */
static void guide(void *ctx, dr_run *r, const dr_unet_call *call, const dr_unet_way *way)
{
    const turn *t = ctx;
    dr_batch *b = t->b;
    dr_unet_call own = { .x = b->x,
                         .batch = call->batch,
                         .in_scale = b->m->steps.row[t->i].in_scale,
                         .timestep = call->timestep };
    for (int k = 0; k < b->n_controls; k++) {
        const dr_control_use *use = &b->control[k];
        double flops = r->flops;
        int64_t rows = 0;
        if (!r->dry && !dr_control_acts(use, t->i, b->steps))
            continue;
        dr_controlnet_add(r, use->net, &own, use->kv, dr_slice(use->hint, 0, own.batch),
                          use->ref->strength, way);
        for (int64_t i = 0; r->dry && i < b->steps; i++)
            rows += dr_control_acts(use, i, b->steps);
        if (r->dry)
            r->flops = flops + (r->flops - flops) * (double)rows / (double)b->steps;
    }
}

/* One row: a call of the UNet for all pictures and all that guidance needs. A dry one
 * counts a step with guidance, if there is any. */
static void denoise_row(dr_batch *b, int64_t i)
{
    dr_run *r = b->r;
    const dr_step *row = &b->m->steps.row[i];
    dr_mark mark = dr_push(r);
    if (dr_step_draws(row))
        dr_draw_noise(b, i);
    turn now = { b, i };
    int64_t step = r->dry && row->step < b->guided_from ? b->guided_from : row->step;
    int guides = map_texts(b, step);
    dr_unet_call call = { .guide = b->n_controls ? guide : NULL,
                          .guide_ctx = &now,
                          .x = b->x,
                          .batch = (int64_t)guides * b->n_rows,
                          .in_scale = row->in_scale,
                          .timestep = row->timestep };
    dr_add_mask(b, &call);
    dr_tensor out = dr_unet_forward(r, &b->m->unet, &call, b->m->kv);
    update(b, out, guides, row);
    dr_repaint(b, i);
    if (!failed(b) && !r->dry)
        (void)!dr_finish(r->dev, &r->err); /* so that progress and stop mean this step */
    dr_pop(r, mark);
}

static void denoise(dr_batch *b)
{
    int64_t first = b->row[0]->step;
    int64_t steps = b->r->dry && first < b->steps ? first + 1 : b->steps;
    enter(b, DR_PHASE_DENOISE);
    double from_s = b->steps_start = dr_now_s();
    b->steps_made = 0;
    for (int64_t i = first; i < steps; i++) {
        dr_batch_ask(b);
        close_ranks(b);
        if (!b->n_rows || failed(b))
            return;
        uint64_t allocations = dr_alloc_count();
        denoise_row(b, i);
        for (int k = 0; k < b->n_rows && !b->r->dry && !failed(b); k++)
            b->row[k]->step = i + 1;
        b->steps_made++;
        int64_t done = dr_steps_done(&b->m->steps, i + 1);
        for (int k = 0; k < b->n_rows; k++)
            if (b->row[k]->index == 0 &&
                (b->r->dry || done > dr_steps_done(&b->m->steps, i)))
                show_preview(b, k, done);
        dr_tell_all(b);
        b->loop_allocations += dr_alloc_count() - allocations;
        if (b->r->dry || done == dr_steps_done(&b->m->steps, i))
            continue;
        show_span(b, dr_steps_before(&b->job->t->plan, b->pass) + done, from_s);
        from_s = dr_now_s();
    }
}

/* --- pictures --- */

/* Check the final latents, keep a copy on the host, and show those of jobs that have all.
 */
static void keep_latents(dr_batch *b)
{
    dr_run *r = b->r;
    for (int i = 0, n; i < b->n_rows && !failed(b); i += n) {
        dr_batch_job *j = b->row[i]->job;
        n = rows_of_job(b, i);
        check_finite(b, j, op_range(r, dr_slice(b->x, i, n)), "latents");
        if (r->dry || j->over)
            continue;
        for (int k = i; k < i + n; k++) {
            dr_download(r, dr_slice(b->x, k, 1), b->row[k]->kept);
            b->row[k]->is_kept = true;
        }
        if (!failed(b) && b->last && j->obs->latents && j->image[j->t->plan.n - 1].is_kept)
            j->obs->latents(j->obs->ctx, j->image->kept, j->t->plan.n, b->h, b->w, b->c);
    }
}

static void check_picture(dr_batch *b, dr_batch_job *j, dr_range range)
{
    dr_err err = { 0 };
    check_finite(b, j, range, "picture");
    if (failed(b) || b->r->dry || range.min != range.max)
        return;
    dr_fail(&err, DR_ENUMERIC, "the picture came out in one single colour");
    dr_job_end(b, j, &err);
}

/* Put a picture on the job's sheet, where it wants one; the last one hands it out. */
static dr_status show_on_sheet(dr_batch_job *j, const dr_batch_image *p,
                               const dr_picture *pic, dr_err *err)
{
    const dr_plan *plan = &j->t->plan;
    /* A view: the pixels are only read. */
    const dr_image image = {
        .px = (uint8_t *)pic->rgb, .w = pic->width, .h = pic->height, .channels = 3
    };
    dr_status st = DR_OK;
    if (plan->pictures == plan->n)
        return DR_OK;
    if (!j->sheet.image.px)
        st = dr_sheet_new(&j->sheet, plan->n, image.w, image.h, SHEET_SIDE_MAX, err);
    if (!st)
        st = dr_sheet_place(&j->sheet, p->index, &image, err);
    if (st || p->index < plan->n - 1)
        return st;
    const dr_image *whole = &j->sheet.image;
    const dr_picture sheet = { .rgb = whole->px, .width = whole->w, .height = whole->h };
    j->obs->image(j->obs->ctx, plan->n, plan->seed, &sheet);
    return DR_OK;
}

/* Row i → picture, checked, handed out; the last one ends its job. */
static void decode(dr_batch *b, int i)
{
    dr_run *r = b->r;
    dr_batch_image *p = b->row[i];
    dr_batch_job *j = p->job;
    dr_mark mark = dr_push(r);
    dr_tensor picture = dr_vae_decode(r, &b->m->vae, dr_slice(b->x, i, 1));
    check_picture(b, j, op_range(r, picture));
    op_to_rgb8(r, picture, b->m->rgb);
    dr_pop(r, mark);
    if (r->dry || failed(b) || j->over)
        return;
    dr_picture pic = { .rgb = b->m->rgb, .width = b->width, .height = b->height };
    dr_err err = { 0 };
    if (j->init && dr_init_finish(j->init, &pic, &err)) {
        dr_job_end(b, j, &err);
        return;
    }
    p->decoded = true;
    dr_tell(b, j);
    enter(b, DR_PHASE_COMPRESS);
    if (j->obs->image)
        j->obs->image(j->obs->ctx, p->index, j->t->plan.seed + (uint64_t)p->index, &pic);
    bool shown = !j->obs->image || !show_on_sheet(j, p, &pic, &err);
    enter(b, DR_PHASE_DECODE);
    if (!shown)
        dr_job_end(b, j, &err);
    else if (p->index == j->t->plan.n - 1)
        dr_job_end(b, j, NULL);
}

/* The pictures of the group's rows; before the last pass there are none. */
static void decode_rows(dr_batch *b)
{
    for (int i = 0; i < (b->r->dry ? 1 : b->n_rows) && !failed(b); i++) {
        dr_batch_ask(b);
        if (b->row[i]->job->over)
            continue;
        if (b->last)
            decode(b, i);
        else
            b->row[i]->decoded = !b->r->dry;
    }
}

void dr_group_run(dr_batch *b)
{
    dr_run *r = b->r;
    for (int i = 0; i < b->n_rows; i++)
        b->row[i]->job->in_group = true;
    b->phase = DR_PHASE_ENCODE;
    b->phase_start = dr_now_s();
    if (b->row[0]->step < b->steps)
        encode_texts(b);
    encode_pictures(b);
    b->flops[DR_PHASE_ENCODE] = r->flops;
    dr_start_latents(b);
    denoise(b);
    b->flops[DR_PHASE_DENOISE] = r->flops - b->flops[DR_PHASE_ENCODE];
    enter(b, DR_PHASE_DECODE);
    keep_latents(b);
    decode_rows(b);
    b->flops[DR_PHASE_DECODE] =
        r->flops - b->flops[DR_PHASE_ENCODE] - b->flops[DR_PHASE_DENOISE];
    for (int i = 0; i < b->n_jobs; i++) {
        if (b->job[i].in_group && failed(b) && !r->dry)
            dr_job_end(b, &b->job[i], &r->err);
        b->job[i].in_group = false;
    }
}
