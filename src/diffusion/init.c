#include "diffusion/init.h"

#include "base/mem.h"
#include "image/decode.h"
#include "image/mask.h"
#include "image/resample.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define HALF_MASKED 0.5f

struct dr_init {
    const dr_job *job;
    int64_t w, h;    /* that the model makes */
    dr_image source; /* what the result is put into */
    dr_rect part;    /* of it that the model works on */
    float *mask;     /* [source.h, source.w]; NULL: none */
    float *small;    /* the same of `part`, at the size of latents */
    dr_image made;   /* the last result */
};

static bool has_picture(const dr_picture_ref *p)
{
    return p->n || p->key;
}

bool dr_init_given(const dr_job *job)
{
    return has_picture(&job->init.image);
}

bool dr_mask_given(const dr_job *job)
{
    return dr_init_given(job) && has_picture(&job->mask.image);
}

static bool only_masked(const dr_job *job)
{
    return dr_mask_given(job) && job->mask.only_masked;
}

/* --- sizes --- */

static const char *const init_field = "init_image", *const mask_field = "mask";

/* Let a failure of the picture's own name its field. */
static dr_status on_field(dr_status st, const char *field, dr_err *err)
{
    if (st != DR_EINVAL || !err)
        return st;
    dr_err_wrap(err, "%s", field);
    snprintf(err->field, sizeof err->field, "%s", field);
    return st;
}

static dr_status size_of(int64_t *w, int64_t *h, const dr_picture_ref *p, const char *field,
                         dr_err *err)
{
    if (!p->n)
        return dr_fail_field(err, DR_EINVAL, field,
                             "%s: key %.80s: only workers read keys; send the picture",
                             field, p->key);
    return on_field(dr_image_size(w, h, p->bytes, p->n, NULL, err), field, err);
}

static dr_status sizes(int64_t *w, int64_t *h, const dr_job *job, dr_err *err)
{
    int64_t mask_w, mask_h;
    dr_status st = size_of(w, h, &job->init.image, init_field, err);
    if (st || !dr_mask_given(job) ||
        (st = size_of(&mask_w, &mask_h, &job->mask.image, mask_field, err)))
        return st;
    if (mask_w == *w && mask_h == *h)
        return DR_OK;
    return dr_fail_field(
        err, DR_EINVAL, mask_field,
        "mask of %lld x %lld pixels: init_image has %lld x %lld; make them "
        "equal",
        (long long)mask_w, (long long)mask_h, (long long)*w, (long long)*h);
}

/* v pixels as a whole number of multiples within the limits. */
static int64_t whole(double v, int64_t multiple)
{
    int64_t low = (DR_SIZE_MIN + multiple - 1) / multiple, high = DR_SIZE_MAX / multiple;
    int64_t n = llrint(v / (double)multiple);
    return (n < low ? low : n > high ? high : n) * multiple;
}

dr_status dr_init_size(int64_t *w, int64_t *h, const dr_job *job, int64_t multiple,
                       dr_err *err)
{
    int64_t have_w, have_h;
    dr_status st = sizes(&have_w, &have_h, job, err);
    if (st || only_masked(job) || (*w && *h))
        return st;
    double pw = (double)have_w, ph = (double)have_h;
    if (*w || *h) {
        *h = *h ? *h : whole((double)*w * ph / pw, multiple);
        *w = *w ? *w : whole((double)*h * pw / ph, multiple);
        return DR_OK;
    }
    double scale = fmin(1, DR_SIZE_MAX / fmax(pw, ph));
    scale = fmax(scale, DR_SIZE_MIN / fmin(pw, ph));
    *w = whole(pw * scale, multiple);
    *h = whole(ph * scale, multiple);
    return DR_OK;
}

bool dr_init_same_size(const dr_job *a, const dr_job *b)
{
    int64_t aw, ah, bw, bh;
    if (a->width != b->width || a->height != b->height || only_masked(a) != only_masked(b))
        return false;
    if ((a->width && a->height) || only_masked(a))
        return true;
    return !sizes(&aw, &ah, a, NULL) && !sizes(&bw, &bh, b, NULL) && aw == bw && ah == bh;
}

/* --- decoding --- */

static dr_status new_floats(float **out, int64_t w, int64_t h, dr_err *err)
{
    *out = dr_alloc((size_t)(w * h) * sizeof **out);
    return *out ? DR_OK
                : dr_fail(err, DR_ENOMEM, "out of memory for a mask of %lld x %lld",
                          (long long)w, (long long)h);
}

/* The mask at the source's size, softened. */
static dr_status open_mask(dr_init *in, dr_err *err)
{
    const dr_job *job = in->job;
    int64_t w = in->source.w, h = in->source.h;
    dr_image grey;
    dr_status st = on_field(dr_image_decode(&grey, job->mask.image.bytes, job->mask.image.n,
                                            DR_PIXELS_MASK, NULL, err),
                            mask_field, err);
    if (!st)
        st = new_floats(&in->mask, w, h, err);
    if (!st)
        st =
            dr_mask_from_image(in->mask, &grey, w, h, job->init.fit, job->mask.invert, err);
    dr_image_free(&grey);
    return st ? st : dr_mask_blur(in->mask, w, h, job->mask.blur, err);
}

/* What is worked on, and its mask as the latents see it. */
static dr_status choose_part(dr_init *in, int64_t factor, dr_err *err)
{
    int64_t w = in->source.w, h = in->source.h;
    dr_rect bounds;
    if (!dr_mask_bounds(&bounds, in->mask, w, h))
        return dr_fail_field(err, DR_EINVAL, mask_field,
                             "mask: black all over, so that nothing would be made anew; "
                             "white is repainted, mask_invert turns it round");
    if (only_masked(in->job))
        in->part = dr_mask_region(bounds, in->job->mask.padding, in->w, in->h, w, h);
    dr_status st = new_floats(&in->small, in->w / factor, in->h / factor, err);
    return st ? st
              : dr_mask_resize(in->small, in->w / factor, in->h / factor, in->mask, w, h,
                               in->part, err);
}

/* Room for the last result, unless it is the model's own. */
static dr_status open_parts(dr_init *in, int64_t factor, dr_err *err)
{
    const dr_job *job = in->job;
    dr_status st = on_field(dr_image_decode(&in->source, job->init.image.bytes,
                                            job->init.image.n, DR_PIXELS_RGB, NULL, err),
                            init_field, err);
    if (!st && dr_mask_given(job) && !only_masked(job))
        st = dr_image_resize(&in->source, in->w, in->h, job->init.fit, err);
    in->part = (dr_rect){ .w = in->source.w, .h = in->source.h };
    if (st || !dr_mask_given(job))
        return st;
    if ((st = open_mask(in, err)) || (st = choose_part(in, factor, err)))
        return st;
    return dr_image_new(&in->made, in->source.w, in->source.h, 3, err);
}

dr_status dr_init_open(dr_init **out, const dr_job *job, int64_t w, int64_t h,
                       int64_t factor, dr_err *err)
{
    dr_init *in = dr_alloc(sizeof *in);
    if (!in)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    *in = (dr_init){ .job = job, .w = w, .h = h };
    dr_status st = open_parts(in, factor, err);
    if (st)
        dr_init_free(in);
    else
        *out = in;
    return st;
}

void dr_init_free(dr_init *in)
{
    if (!in)
        return;
    dr_image_free(&in->source);
    dr_image_free(&in->made);
    dr_free(in->mask);
    dr_free(in->small);
    dr_free(in);
}

/* --- what the model is given --- */

/* Grey where the mask repaints; out: [h, w, 3]. */
static dr_status take_out(const dr_init *in, float *out, dr_err *err)
{
    float *mask = NULL;
    dr_status st = new_floats(&mask, in->w, in->h, err);
    if (!st)
        st = dr_mask_resize(mask, in->w, in->h, in->mask, in->source.w, in->source.h,
                            in->part, err);
    for (int64_t i = 0; i < in->w * in->h * 3 && !st; i++)
        out[i] = mask[i / 3] < HALF_MASKED ? out[i] : 0;
    dr_free(mask);
    return st;
}

dr_status dr_init_picture(const dr_init *in, float *out, bool masked, dr_err *err)
{
    dr_image cut = { 0 };
    dr_fit fit = only_masked(in->job) ? DR_FIT_STRETCH : in->job->init.fit;
    dr_status st = DR_OK;
    if (only_masked(in->job))
        st = dr_image_crop(&cut, &in->source, in->part, err);
    if (!st)
        st = dr_image_to_floats(cut.px ? &cut : &in->source, in->w, in->h, fit, -1, 1, out,
                                err);
    dr_image_free(&cut);
    return st || !masked ? st : take_out(in, out, err);
}

const float *dr_init_mask(const dr_init *in)
{
    return in->small;
}

/* --- what comes back --- */

/* The model's picture over the source, brought to the size of its part. */
static dr_status put_back(dr_init *in, const dr_image *over, dr_err *err)
{
    return dr_image_blend(&in->made, over, in->part.x, in->part.y, in->mask, err);
}

static dr_status put_back_resized(dr_init *in, const dr_image *over, dr_err *err)
{
    dr_image copy;
    dr_status st = dr_image_crop(&copy, over, (dr_rect){ .w = over->w, .h = over->h }, err);
    if (!st)
        st = dr_image_resize(&copy, in->part.w, in->part.h, DR_FIT_STRETCH, err);
    if (!st)
        st = put_back(in, &copy, err);
    dr_image_free(&copy);
    return st;
}

dr_status dr_init_finish(dr_init *in, dr_picture *pic, dr_err *err)
{
    /* A view: the pixels are only read. */
    const dr_image over = {
        .px = (uint8_t *)pic->rgb, .w = in->w, .h = in->h, .channels = 3
    };
    if (!in->mask)
        return DR_OK;
    memcpy(in->made.px, in->source.px, dr_image_bytes(&in->source));
    bool fits = over.w == in->part.w && over.h == in->part.h;
    dr_status st = (fits ? put_back : put_back_resized)(in, &over, err);
    *pic = (dr_picture){ .rgb = in->made.px, .width = in->made.w, .height = in->made.h };
    return st;
}
