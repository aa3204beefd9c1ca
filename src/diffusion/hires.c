#include "diffusion/batch.h"

#include "base/mem.h"
#include "image/resample.h"

#include <math.h>
#include <string.h>

/* Hires-fix: composition at a size that the model knows, details at a larger one. What the
 * first pass made is enlarged, as latents or as a picture, put under noise and denoised
 * again. */

bool dr_hires_given(const dr_job *job)
{
    return job->hires.scale > 1;
}

static int64_t enlarged(int64_t side, double scale, int64_t factor)
{
    return llround((double)side * scale / (double)factor) * factor;
}

dr_status dr_hires_plan(dr_plan *plan, const dr_model *m, const dr_job *job, dr_err *err)
{
    const dr_pass *first = &plan->pass[0];
    dr_pass *second = &plan->pass[1];
    int64_t longest = first->width > first->height ? first->width : first->height;
    if (!dr_hires_given(job))
        return DR_OK;
    if (dr_mask_given(job))
        return dr_fail_field(err, DR_EINVAL, "hires",
                             "hires: not together with a mask; leave one of them out");
    *second = (dr_pass){ .width = enlarged(first->width, job->hires.scale, m->vae.factor),
                         .height = enlarged(first->height, job->hires.scale, m->vae.factor),
                         .steps = job->hires.steps && !job->n_sigmas && !job->n_timesteps
                                      ? job->hires.steps
                                      : first->steps };
    if (second->width > DR_SIZE_MAX || second->height > DR_SIZE_MAX)
        return dr_fail_field(
            err, DR_EINVAL, "hires.scale",
            "hires.scale %g: %lld x %lld becomes %lld x %lld, sides end at "
            "%d; at most %g",
            job->hires.scale, (long long)first->width, (long long)first->height,
            (long long)second->width, (long long)second->height, DR_SIZE_MAX,
            floor(100.0 * DR_SIZE_MAX / (double)longest) / 100);
    second->first = dr_first_step(second->steps, job->hires.strength);
    plan->width = second->width;
    plan->height = second->height;
    plan->passes = 2;
    return DR_OK;
}

/* --- between the passes --- */

dr_status dr_carry_make(dr_carry *c, const dr_model *m, const dr_plan *plan, dr_err *err)
{
    const dr_pass *first = &plan->pass[0];
    size_t n = (size_t)plan->n;
    c->h = first->height / m->vae.factor;
    c->w = first->width / m->vae.factor;
    c->count = (size_t)(c->h * c->w * m->vae.latent_c);
    c->latents = dr_alloc(n * c->count * sizeof *c->latents);
    c->rng = dr_alloc(n * sizeof *c->rng);
    if (!c->latents || !c->rng) {
        dr_carry_free(c);
        return dr_fail(err, DR_ENOMEM, "out of memory for the latents of %zu pictures", n);
    }
    return DR_OK;
}

void dr_carry_free(dr_carry *c)
{
    dr_free(c->latents);
    dr_free(c->rng);
    *c = (dr_carry){ 0 };
}

void dr_carry_keep(dr_carry *c, const dr_batch_job *j)
{
    for (int64_t i = 0; i < j->t->plan.n; i++) {
        memcpy(dr_carry_at(c, i), j->image[i].kept, c->count * sizeof *c->latents);
        c->rng[i] = j->image[i].rng;
    }
}

/* --- enlarging --- */

/* Where output i of `to` reads `from` values: between at and the next, by share. */
typedef struct {
    int64_t at, next;
    float share;
} tap;

static tap tap_of(int64_t i, int64_t from, int64_t to)
{
    double x = ((double)i + 0.5) * (double)from / (double)to - 0.5;
    x = x < 0 ? 0 : x;
    int64_t at = (int64_t)x;
    return (tap){ at, at + 1 < from ? at + 1 : at, (float)(x - (double)at) };
}

static float mix(float a, float b, float share)
{
    return a + share * (b - a);
}

/* Bilinear between pixel centres, as torch.nn.functional.interpolate without antialiasing.
 */
static void stretch(float *out, int64_t h, int64_t w, const float *in, int64_t in_h,
                    int64_t in_w, int64_t c)
{
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) {
            tap v = tap_of(y, in_h, h), u = tap_of(x, in_w, w);
            const float *above = in + v.at * in_w * c, *below = in + v.next * in_w * c;
            for (int64_t k = 0; k < c; k++)
                *out++ =
                    mix(mix(above[u.at * c + k], above[u.next * c + k], u.share),
                        mix(below[u.at * c + k], below[u.next * c + k], u.share), v.share);
        }
}

/* Latents of the first pass → RGB bytes at m->rgb. */
static void decode_small(dr_batch *b, const float *latents)
{
    dr_run *r = b->r;
    const dr_carry *c = b->carry;
    const dr_pass *first = &b->job[0].t->plan.pass[0];
    int64_t f = b->m->vae.factor;
    dr_mark mark = dr_push(r);
    dr_tensor z = dr_new(r, 1, first->height / f, first->width / f, b->c);
    if (c)
        dr_upload(r, z, latents);
    op_to_rgb8(r, dr_vae_decode(r, &b->m->vae, z), b->m->rgb);
    dr_pop(r, mark);
}

/* By way of a picture, which Lanczos enlarges; the mean of what the encoder makes of it. */
static void by_picture(dr_batch *b, const float *latents, float *out)
{
    dr_run *r = b->r;
    const dr_vae *vae = &b->m->vae;
    float *host = b->m->host;
    decode_small(b, latents);
    dr_mark mark = dr_push(r);
    dr_tensor x = dr_new(r, 1, b->height, b->width, 3);
    if (!r->dry && !r->err.code) {
        const dr_image small = { .px = b->m->rgb,
                                 .w = b->carry->w * vae->factor,
                                 .h = b->carry->h * vae->factor,
                                 .channels = 3 };
        (void)!dr_image_to_floats(&small, b->width, b->height, DR_FIT_STRETCH, -1, 1, host,
                                  &r->err);
    }
    dr_upload(r, x, host);
    dr_tensor moments = dr_vae_encode(r, vae, x);
    if (!r->dry && !r->err.code) {
        dr_download(r, moments, host);
        for (int64_t i = 0; i < b->h * b->w * b->c; i++)
            out[i] = (host[i / b->c * 2 * b->c + i % b->c] - (float)vae->shift_factor) *
                     (float)vae->scaling_factor;
    }
    dr_pop(r, mark);
}

void dr_hires_enlarge(dr_batch *b)
{
    bool picture = b->job[0].t->job->hires.upscaler == DR_UPSCALE_LANCZOS;
    for (int i = 0; i < b->n_rows && b->pass && !b->r->err.code; i++) {
        dr_batch_image *p = b->row[i];
        const dr_carry *c = b->carry;
        const float *latents = c ? dr_carry_at(c, p->index) : NULL;
        if (p->step > 0)
            continue;
        if (picture)
            by_picture(b, latents, p->enlarged);
        else if (!b->r->dry)
            stretch(p->enlarged, b->h, b->w, latents, c->h, c->w, b->c);
    }
}
