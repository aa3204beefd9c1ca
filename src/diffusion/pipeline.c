#include "diffusion/pipeline.h"

#include "base/clock.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>

/* The story of one job: encode the text, make noise, denoise, decode. The same functions
 * run dry in the plan (nothing is enqueued) and for real. */

/* One run of a job. */
typedef struct {
    dr_run *r;
    dr_model *m;
    const dr_job *job;
    const dr_plan *plan;
    const dr_observer *obs;
    dr_run_stats *stats;
    int64_t n, h, w, c; /* latents */
    double start, done_flops, total_flops;
    double step_start; /* when the first step began */
} job_run;

/* What stays alive from the first step to the last picture. */
typedef struct {
    dr_tensor x, hist, denoised, noise;
} latents;

const char *dr_phase_name(dr_phase p)
{
    static const char *const names[DR_PHASES] = { "load", "encode", "denoise", "decode",
                                                  "compress" };
    return names[p];
}

/* --- telling --- */

static void tell(job_run *s, dr_phase phase, int64_t step)
{
    if (s->r->dry || s->r->err.code || !s->obs->progress)
        return;
    double now = dr_now_s(), share = s->done_flops / s->total_flops;
    dr_progress p = { .phase = phase,
                      .step = step,
                      .steps = s->plan->steps,
                      .percent = 100 * (share > 1 ? 1 : share) };
    if (step > 0 && now > s->step_start)
        p.it_s = (double)step / (now - s->step_start);
    if (share > 0 && share < 1)
        p.eta_s = (now - s->start) * (1 - share) / share;
    s->obs->progress(s->obs->ctx, &p);
}

static bool stopped(job_run *s)
{
    dr_run *r = s->r;
    if (!r->err.code && !r->dry && s->obs->stopped && s->obs->stopped(s->obs->ctx))
        dr_fail(&r->err, DR_ESTOPPED, "stopped");
    return r->err.code != DR_OK;
}

static void warn_cut(job_run *s, int cut)
{
    char text[160];
    if (s->r->dry || !cut || !s->obs->warning)
        return;
    snprintf(
        text, sizeof text,
        "the prompt is %d tokens longer than the %lld that the model reads; its end had "
        "no effect",
        cut, (long long)s->m->clip.length - 2);
    s->obs->warning(s->obs->ctx, text);
}

/* Every value must be a number; what: "latents", "picture". */
static void check_finite(dr_run *r, dr_range range, const char *what)
{
    if (!r->err.code && !r->dry && range.not_finite)
        dr_fail(
            &r->err, DR_ENUMERIC,
            "%lld values of the %s are NaN or infinite; the weights or the device are bad",
            (long long)range.not_finite, what);
}

/* --- noise --- */

/* Normal noise for all images, element order as PyTorch's [c, h, w], into x. step 0 is the
 * first latents', step i + 1 what step i adds. */
static void draw_noise(job_run *s, dr_tensor x, int64_t step)
{
    size_t pixels = (size_t)(s->h * s->w), c = (size_t)s->c, count = pixels * c;
    float *planar = s->m->host, *out = planar + count;
    if (s->r->dry || s->r->err.code)
        return;
    for (int64_t i = 0; i < s->n; i++) {
        uint64_t seed = s->plan->seed + (uint64_t)i;
        if (s->job->noise == DR_NOISE_TORCH) {
            if (step == 0)
                dr_torch_seed(&s->m->rngs[i], seed);
            dr_torch_normal(&s->m->rngs[i], planar, count);
        } else {
            dr_philox_normal(planar, count, seed, (uint32_t)step, 0);
        }
        for (size_t k = 0; k < c; k++)
            for (size_t p = 0; p < pixels; p++)
                out[p * c + k] = planar[k * pixels + p];
        dr_upload(s->r, dr_slice(x, i, 1), out);
    }
}

/* --- the parts --- */

/* Embed negative and positive prompt and keep every cross-attention's keys and values. */
static void encode_text(job_run *s)
{
    bool guided = s->plan->cfg_scale > 1;
    const char *texts[] = { s->job->negative_prompt, s->job->prompt };
    int first = guided ? 0 : 1, cut = 0;
    if (stopped(s))
        return;
    tell(s, DR_PHASE_ENCODE, 0);
    dr_tensor text = dr_new(s->r, 2 - first, s->m->clip.length, 1, s->m->clip.width);
    dr_text_encode(s->r, s->m, texts + first, 2 - first, s->job->clip_skip, text, &cut);
    dr_unet_read_text(s->r, &s->m->unet, text, s->m->kv);
    warn_cut(s, cut);
}

static dr_step_coef coef_of(const dr_step *row, double cfg)
{
    return (dr_step_coef){
        .cfg = (float)cfg,
        .x = (float)row->x,
        .out = (float)row->out,
        .hist = (float)row->hist,
        .noise = (float)row->noise,
        .hist_x = (float)row->hist_x,
        .hist_out = (float)row->hist_out,
        .denoised_x = (float)row->denoised_x,
        .denoised_out = (float)row->denoised_out,
    };
}

/* A small picture of what image 0 is becoming, as large as the job wants it. */
static void show_preview(job_run *s, int64_t step, dr_tensor denoised)
{
    dr_run *r = s->r;
    uint8_t *rgb = s->m->rgb, *small = rgb + s->plan->width * s->plan->height * 3;
    if (!s->job->preview.every || !s->obs->preview || !s->m->preview)
        return;
    if (!r->dry && (step % s->job->preview.every || step == s->plan->steps))
        return;
    dr_mark mark = dr_push(r);
    dr_tensor matrix = dr_new(r, 1, 1, 1, (s->c + 1) * 3);
    dr_upload(r, matrix, s->m->preview);
    op_to_rgb8(r, op_linear_rgb(r, dr_slice(denoised, 0, 1), matrix), small);
    if (!r->dry && !r->err.code) {
        dr_picture pic = { .rgb = small, .width = s->w, .height = s->h };
        if (s->job->preview.size)
            pic = dr_preview_resize(&pic, rgb, s->job->preview.size, s->plan->width,
                                    s->plan->height);
        s->obs->preview(s->obs->ctx, step, &pic);
    }
    dr_pop(r, mark);
}

/* One step: a call of the UNet for all images and both halves of the guidance, and the
 * sampler's update in place. */
static void denoise_step(job_run *s, int64_t i, const latents *l)
{
    dr_run *r = s->r;
    const dr_step *row = &s->m->steps.row[i];
    dr_step_coef coef = coef_of(row, s->plan->cfg_scale);
    int64_t batch = s->plan->cfg_scale > 1 ? 2 * s->n : s->n;
    dr_mark mark = dr_push(r);
    if (row->noise != 0)
        draw_noise(s, l->noise, i + 1);
    dr_tensor out = dr_unet_forward(r, &s->m->unet, l->x, batch, row->in_scale,
                                    row->timestep, s->m->kv);
    dr_tensor plain = dr_slice(out, 0, s->n);
    op_sampler_step(r, l->x, dr_slice(out, batch - s->n, s->n),
                    batch > s->n ? &plain : NULL, l->hist, l->noise, l->denoised, &coef);
    if (!r->dry && !r->err.code)
        (void)!dr_finish(r->dev, &r->err); /* so that progress and stop mean this step */
    dr_pop(r, mark);
}

static void denoise(job_run *s, const latents *l)
{
    dr_run *r = s->r;
    int64_t steps = r->dry ? 1 : s->plan->steps;
    uint64_t allocations = dr_alloc_count();
    draw_noise(s, l->x, 0);
    op_scale(r, l->x, l->x, (float)s->m->steps.init_noise_sigma, 0);
    op_fill(r, l->hist, 0);
    s->step_start = dr_now_s();
    for (int64_t i = 0; i < steps && !stopped(s); i++) {
        denoise_step(s, i, l);
        show_preview(s, i + 1, l->denoised);
        s->done_flops += s->plan->step_flops;
        tell(s, DR_PHASE_DENOISE, i + 1);
    }
    s->stats->loop_allocations = dr_alloc_count() - allocations;
    check_finite(r, op_range(r, l->x), "latents");
}

/* Latents of image i → picture, checked, handed out. */
static void decode(job_run *s, dr_tensor x, int64_t i)
{
    dr_run *r = s->r;
    if (stopped(s))
        return;
    dr_mark mark = dr_push(r);
    dr_tensor picture = dr_vae_decode(r, &s->m->vae, dr_slice(x, i, 1));
    dr_range range = op_range(r, picture);
    check_finite(r, range, "picture");
    if (!r->err.code && !r->dry && range.min == range.max)
        dr_fail(&r->err, DR_ENUMERIC, "the picture came out in one single colour");
    op_to_rgb8(r, picture, s->m->rgb);
    dr_pop(r, mark);
    s->done_flops += s->plan->decode_flops;
    tell(s, DR_PHASE_DECODE, s->plan->steps);
    if (!r->dry && !r->err.code && s->obs->image)
        s->obs->image(s->obs->ctx, i, s->plan->seed + (uint64_t)i,
                      &(dr_picture){ .rgb = s->m->rgb,
                                     .width = s->plan->width,
                                     .height = s->plan->height });
}

static void show_latents(job_run *s, dr_tensor x)
{
    dr_run *r = s->r;
    if (r->dry || r->err.code || !s->obs->latents)
        return;
    for (int64_t i = 0; i < s->n; i++) {
        float *at = s->m->host + i * dr_count(x) / s->n;
        dr_download(r, dr_slice(x, i, 1), at);
    }
    s->obs->latents(s->obs->ctx, s->m->host, s->n, s->h, s->w, s->c);
}

static job_run begin(dr_model *m, const dr_job *job, const dr_plan *plan,
                     const dr_observer *obs, dr_run_stats *stats, bool dry)
{
    dr_run_reset(&m->run, dry);
    return (job_run){
        .r = &m->run,
        .m = m,
        .job = job,
        .plan = plan,
        .obs = obs,
        .stats = stats,
        .n = plan->n,
        .h = plan->height / m->vae.factor,
        .w = plan->width / m->vae.factor,
        .c = m->vae.latent_c,
        .start = dr_now_s(),
        .total_flops = plan->encode_flops + (double)plan->steps * plan->step_flops +
                       (double)plan->n * plan->decode_flops,
    };
}

static latents make_latents(job_run *s)
{
    return (latents){ .x = dr_new(s->r, s->n, s->h, s->w, s->c),
                      .hist = dr_new(s->r, s->n, s->h, s->w, s->c),
                      .denoised = dr_new(s->r, s->n, s->h, s->w, s->c),
                      .noise = dr_new(s->r, s->n, s->h, s->w, s->c) };
}

/* --- plan --- */

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

/* Run dry, part by part, for the memory and the work. */
static dr_status measure(dr_plan *plan, dr_model *m, const dr_job *job, dr_err *err)
{
    static const dr_observer nobody = { 0 };
    dr_run_stats stats = { 0 };
    job_run s = begin(m, job, plan, &nobody, &stats, true);
    encode_text(&s);
    plan->encode_flops = s.r->flops;
    latents l = make_latents(&s);
    denoise(&s, &l);
    plan->step_flops = s.r->flops - plan->encode_flops;
    decode(&s, l.x, 0);
    plan->decode_flops = s.r->flops - plan->encode_flops - plan->step_flops;
    plan->peak_bytes = (int64_t)s.r->peak_bytes;
    if (s.r->err.code)
        *err = s.r->err;
    return s.r->err.code;
}

static dr_status check_memory(const dr_plan *plan, const dr_model *m, dr_err *err)
{
    if (!m->dev)
        return DR_OK;
    uint64_t have = dr_dev_describe(m->dev)->memory_bytes;
    uint64_t need = (uint64_t)plan->peak_bytes + dr_pool_bytes(m->pool);
    if (need <= have)
        return DR_OK;
    return dr_fail(err, DR_ENOMEM,
                   "%lld x %lld, n = %lld needs %llu MiB, the device has %llu MiB; make it "
                   "smaller or n less",
                   (long long)plan->width, (long long)plan->height, (long long)plan->n,
                   (unsigned long long)(need >> 20), (unsigned long long)(have >> 20));
}

dr_status dr_plan_make(dr_plan *plan, dr_model *m, const dr_job *job, dr_err *err)
{
    int64_t size = m->unet.sample_size * m->vae.factor;
    dr_status st;
    *plan = (dr_plan){
        .width = job->width ? job->width : size,
        .height = job->height ? job->height : size,
        .steps = job->steps ? job->steps : m->defaults.steps,
        .n = job->n,
        .cfg_scale = isnan(job->cfg_scale) ? m->defaults.cfg_scale : job->cfg_scale,
        .seed = job->seed,
        .eta = isnan(job->eta) ? 0 : job->eta,
    };
    if ((st = check_size("width", plan->width, m, err)) ||
        (st = check_size("height", plan->height, m, err)))
        return st;
    dr_arena_reset(m->plan_mem);
    if ((st = dr_schedule_make(&m->steps, m->plan_mem, &m->schedule, job->sampler,
                               job->schedule, plan->steps, plan->eta, err)))
        return st;
    plan->steps = m->steps.count;
    plan->sampler = m->steps.sampler;
    plan->schedule = m->steps.schedule;
    if ((st = measure(plan, m, job, err)))
        return st;
    return check_memory(plan, m, err);
}

/* --- run --- */

static dr_status make_steps(dr_model *m, const dr_plan *plan, dr_err *err)
{
    dr_arena_reset(m->plan_mem);
    return dr_schedule_make(&m->steps, m->plan_mem, &m->schedule, plan->sampler,
                            plan->schedule, plan->steps, plan->eta, err);
}

static dr_status run_one(dr_model *m, dr_batch_task *t)
{
    static const dr_observer nobody = { 0 };
    const dr_plan *plan = &t->plan;
    job_run s = begin(m, t->job, plan, t->obs ? t->obs : &nobody, &t->stats, false);
    size_t latent = (size_t)(s.h * s.w * s.c);
    dr_status st = dr_run_reserve(s.r, (size_t)plan->peak_bytes, &t->err);
    size_t pixels = (size_t)(plan->width * plan->height + s.h * s.w); /* and a preview */
    if (st || (st = make_steps(m, plan, &t->err)) ||
        (st = dr_model_reserve(m, latent * (size_t)(plan->n < 2 ? 2 : plan->n), pixels * 3,
                               &t->err)))
        return st;
    encode_text(&s);
    s.done_flops = plan->encode_flops;
    double encoded = dr_now_s();
    latents l = make_latents(&s);
    denoise(&s, &l);
    show_latents(&s, l.x);
    double denoised = dr_now_s();
    for (int64_t i = 0; i < plan->n; i++)
        decode(&s, l.x, i);
    t->stats.encode = encoded - s.start;
    t->stats.denoise = denoised - encoded;
    t->stats.decode = dr_now_s() - denoised;
    if (s.r->err.code)
        t->err = s.r->err;
    return s.r->err.code;
}

void dr_batch_run(dr_model *m, dr_batch_task *tasks, int n)
{
    for (int i = 0; i < n; i++) {
        dr_batch_task *t = &tasks[i];
        t->stats = (dr_run_stats){ 0 };
        if (!t->err.code)
            t->err.code = run_one(m, t);
        if (t->obs && t->obs->done)
            t->obs->done(t->obs->ctx, &t->err);
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

int dr_batch_plan(dr_model *m, dr_batch_task *tasks, int n)
{
    int good = 0;
    for (int i = 0; i < n; i++) {
        tasks[i].err = (dr_err){ 0 };
        good += dr_plan_make(&tasks[i].plan, m, tasks[i].job, &tasks[i].err) == DR_OK;
    }
    return good;
}

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

bool dr_jobs_batch(const dr_job *a, const dr_job *b)
{
    return a->width == b->width && a->height == b->height && a->steps == b->steps &&
           a->sampler == b->sampler && a->schedule == b->schedule &&
           same_number(a->eta, b->eta) && a->noise == b->noise &&
           guidance_of(a) == guidance_of(b) && a->clip_skip == b->clip_skip;
}
