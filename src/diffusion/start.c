#include "diffusion/batch.h"

#include "diffusion/noise.h"

#include <math.h>
#include <string.h>

/* What a group begins with: noise, a picture under noise, or what a checkpoint kept; and
 * what keeps a picture outside a mask as it was.
 *
 * A second pass begins with what the first one made.
 *
 * Streams of Philox are the kinds of noise that a picture draws before its first step;
 * PyTorch's generator gives them in this order, as diffusers does. */
enum { STREAM_NOISE, STREAM_ENCODE, STREAM_MASKED, STREAMS };

#define LOGVAR_MIN -30.0f /* diffusers' DiagonalGaussianDistribution */
#define LOGVAR_MAX 20.0f

/* Whether steps read more than latents and text: then a resumed job needs its start too. */
static bool is_steered(const dr_batch *b)
{
    return b->row[0]->step < b->steps && (b->repaints || dr_model_inpaints(b->m));
}

/* Whether the latents of the job's picture count. A mask at full strength starts from
 * nothing but noise; then only what is kept outside of it needs them. */
static bool needs_picture(const dr_batch *b, const dr_batch_job *j)
{
    return !b->pass && dr_init_given(j->t->job) &&
           (b->repaints || b->first > 0 || !dr_mask_given(j->t->job));
}

/* --- encoding --- */

/* The picture of a job through the encoder, to *moments on the host; in NULL: grey. Nothing
 * where that was done for an earlier group. */
static void encode(dr_batch *b, const dr_init *in, bool masked, float **moments)
{
    dr_run *r = b->r;
    size_t count = (size_t)(b->width * b->height * 3);
    size_t bytes = 2 * (size_t)(b->h * b->w * b->c) * sizeof **moments;
    if (*moments || r->err.code)
        return;
    dr_mark mark = dr_push(r);
    dr_tensor x = dr_new(r, 1, b->height, b->width, 3);
    if (!r->dry) {
        if (!(*moments = dr_arena_alloc(b->m->plan_mem, bytes)))
            dr_fail(&r->err, DR_ENOMEM, "out of memory: %zu bytes for latents", bytes);
        memset(b->m->host, 0, count * sizeof(float));
        if (in && *moments)
            (void)!dr_init_picture(in, b->m->host, masked, &r->err);
    }
    dr_upload(r, x, b->m->host);
    dr_tensor y = dr_vae_encode(r, &b->m->vae, x);
    if (!r->err.code && !r->dry)
        dr_download(r, y, *moments);
    dr_pop(r, mark);
}

void dr_start_encode(dr_batch *b)
{
    if (b->row[0]->step > 0 && !is_steered(b))
        return;
    dr_hires_enlarge(b);
    for (int i = 0; i < b->n_jobs; i++) {
        dr_batch_job *j = &b->job[i];
        if (!j->in_group || j->over)
            continue;
        if (needs_picture(b, j))
            encode(b, j->init, false, &j->moments);
        if (dr_model_inpaints(b->m))
            encode(b, dr_mask_given(j->t->job) ? j->init : NULL, true, &j->masked);
    }
}

/* --- drawing --- */

static uint64_t seed_of(const dr_batch_image *p)
{
    return p->job->t->plan.seed + (uint64_t)p->index;
}

/* Normal noise for one picture into out, on the host; PyTorch's order is [c, h, w]. */
static void draw(dr_batch *b, dr_batch_image *p, int64_t step, uint32_t stream, float *out)
{
    size_t pixels = (size_t)(b->h * b->w), c = (size_t)b->c, count = pixels * c;
    const dr_job *job = p->job->t->job;
    float *planar = b->m->host;
    if (job->noise == DR_NOISE_TORCH)
        dr_torch_normal(&p->rng, planar, count);
    else
        dr_philox_normal(planar, count, seed_of(p), (uint32_t)step,
                         stream + STREAMS * (uint32_t)b->pass);
    if (step == 0 && stream == STREAM_NOISE && !b->pass && job->subseed_strength > 0)
        dr_noise_vary(planar, out, count, job->noise,
                      p->job->t->plan.subseed + (uint64_t)p->index, job->subseed_strength);
    for (size_t k = 0; k < c; k++)
        for (size_t q = 0; q < pixels; q++)
            out[q * c + k] = planar[k * pixels + q];
}

void dr_draw_noise(dr_batch *b, int64_t step)
{
    float *out = b->m->host + b->h * b->w * b->c;
    for (int i = 0; i < b->n_rows && !b->r->dry && !b->r->err.code; i++) {
        draw(b, b->row[i], step + 1, STREAM_NOISE, out);
        dr_upload(b->r, dr_slice(b->noise, i, 1), out);
    }
}

/* A draw from the encoder's distribution, or its mean, as the UNet knows latents. moments
 * NULL: only the draw is made. */
static void sample(dr_batch *b, dr_batch_image *p, const float *moments, uint32_t stream,
                   float *out)
{
    const dr_vae *vae = &b->m->vae;
    int64_t c = b->c;
    bool mean = p->job->t->job->init.mean;
    if (!mean)
        draw(b, p, 0, stream, out);
    for (int64_t i = 0; i < b->h * b->w * c && moments; i++) {
        const float *at = moments + i / c * 2 * c + i % c;
        float deviation = expf(0.5f * fminf(fmaxf(at[c], LOGVAR_MIN), LOGVAR_MAX));
        float z = at[0] + (mean ? 0 : deviation * out[i]);
        out[i] = (z - (float)vae->shift_factor) * (float)vae->scaling_factor;
    }
}

/* --- the first latents --- */

/* One picture's latents, its first noise and what is left of it under the mask. */
typedef struct {
    bool has; /* picture counts */
    float *picture, *noise, *masked;
    float *cond; /* [h, w, c + 1] */
} start;

size_t dr_start_floats(const dr_batch *b)
{
    size_t pixels = (size_t)(b->h * b->w), floats = pixels * (size_t)(5 * b->c + 1);
    size_t picture = (size_t)(b->width * b->height * 3);
    bool encodes = b->pictures || b->pass || dr_model_inpaints(b->m);
    return encodes && picture > floats ? picture : floats;
}

/* Draw in diffusers' order; of the encoded pictures diffusers draws also the masked one,
 * where nothing reads it. */
static start draw_start(dr_batch *b, dr_batch_image *p)
{
    const dr_job *job = p->job->t->job;
    size_t count = (size_t)(b->h * b->w * b->c);
    float *at = b->m->host + count;
    start s = { .has = b->pass || needs_picture(b, p->job),
                .picture = at,
                .noise = at + count,
                .masked = at + 2 * count,
                .cond = at + 3 * count };
    if (b->pass) {
        p->rng = b->carry->rng[p->index];
        memcpy(s.picture, p->enlarged, count * sizeof *s.picture);
    } else {
        dr_torch_seed(&p->rng, seed_of(p));
    }
    if (needs_picture(b, p->job))
        sample(b, p, p->job->moments, STREAM_ENCODE, s.picture);
    draw(b, p, 0, STREAM_NOISE, s.noise);
    if (dr_model_inpaints(b->m) || (dr_mask_given(job) && job->noise == DR_NOISE_TORCH))
        sample(b, p, p->job->masked, STREAM_MASKED, s.masked);
    return s;
}

/* What an inpainting UNet reads beside row i: a mask of whole latents, as it was trained
 * with, and the masked picture. Without a mask everything is new. */
static void fill_cond(dr_batch *b, int i, const start *s)
{
    const dr_init *in = b->row[i]->job->init;
    const float *mask = in ? dr_init_mask(in) : NULL;
    float *to = s->cond;
    for (int64_t q = 0; q < b->h * b->w; q++, to += b->c + 1) {
        to[0] = !mask || mask[q] >= 0.5f;
        memcpy(to + 1, s->masked + q * b->c, (size_t)b->c * sizeof *to);
    }
    dr_upload(b->r, dr_slice(b->cond, i, 1), s->cond);
}

static void start_row(dr_batch *b, int i)
{
    const dr_steps *steps = &b->m->steps;
    dr_batch_image *p = b->row[i];
    start s = draw_start(b, p);
    bool pure = !s.has || (dr_mask_given(p->job->t->job) && b->first == 0);
    float signal = pure ? 0 : (float)steps->start_signal;
    float level = (float)(pure ? steps->init_noise_sigma : steps->start_noise);
    if (dr_model_inpaints(b->m))
        fill_cond(b, i, &s);
    if (b->repaints) {
        dr_upload(b->r, dr_slice(b->init, i, 1), s.picture);
        dr_upload(b->r, dr_slice(b->init_noise, i, 1), s.noise);
        dr_upload(b->r, dr_slice(b->mask, i, 1), dr_init_mask(p->job->init));
    }
    for (int64_t k = 0; k < b->h * b->w * b->c; k++)
        s.noise[k] = level * s.noise[k] + (pure ? 0 : signal * s.picture[k]);
    dr_upload(b->r, dr_slice(b->x, i, 1), s.noise);
}

void dr_start_latents(dr_batch *b)
{
    dr_run *r = b->r;
    int64_t n = b->n_rows, step = b->row[0]->step;
    dr_tensor *parts[] = { &b->x, &b->denoised, &b->noise, &b->init, &b->init_noise };
    for (size_t i = 0; i < (b->repaints ? 5 : 3); i++)
        *parts[i] = dr_new(r, n, b->h, b->w, b->c);
    if (b->repaints)
        b->mask = dr_new(r, n, b->h, b->w, 1);
    if (dr_model_inpaints(b->m))
        b->cond = dr_new(r, n, b->h, b->w, b->c + 1);
    for (int i = 0; i < b->m->steps.n_hist; i++) {
        b->hist[i] = dr_new(r, n, b->h, b->w, b->c);
        op_fill(r, b->hist[i], 0); /* a checkpoint takes also what no row wrote yet */
    }
    for (int i = 0; i < n && !r->dry && !r->err.code; i++) {
        if (step == 0 || is_steered(b))
            start_row(b, i);
        if (step > 0)
            dr_checkpoint_load(b, i);
    }
}

/* --- steps --- */

void dr_repaint(dr_batch *b, int64_t i)
{
    const dr_steps *s = &b->m->steps;
    const dr_step *row = &s->row[i];
    bool last = i + 1 == s->count;
    if (!b->repaints || (!last && row[1].step == row->step))
        return; /* within a step */
    op_repaint(b->r, b->x, b->mask, b->init, b->init_noise, last ? 1 : row->to_signal,
               last ? 0 : row->to_noise);
}

void dr_add_mask(dr_batch *b, dr_unet_call *call)
{
    if (!dr_model_inpaints(b->m))
        return;
    dr_tensor x = dr_new(b->r, b->n_rows, b->h, b->w, b->c);
    op_scale(b->r, call->x, x, (float)call->in_scale, 0); /* the rest is read as it is */
    call->in_scale = 1;
    call->x = op_concat(b->r, x, b->cond);
}
