#include "image/mask.h"

#include "image/resample.h"

#include <math.h>

#define SEEN_MIN (0.5f / 255) /* less would be 0 in 8 bits */

dr_status dr_mask_from_image(float *out, const dr_image *grey, int64_t w, int64_t h,
                             dr_fit fit, bool invert, dr_err *err)
{
    dr_resampling r = { .filter = DR_FILTER_AREA,
                        .u8 = grey->px,
                        .w = grey->w,
                        .h = grey->h,
                        .channels = 1,
                        .to_w = w,
                        .to_h = h,
                        .to_f32 = out,
                        .max = 255,
                        .scale = invert ? -1.0f / 255 : 1.0f / 255,
                        .shift = invert ? 1 : 0 };
    dr_fit_spans(fit, grey->w, grey->h, w, h, &r.across, &r.down);
    return dr_resample(&r, err);
}

static dr_resampling resampling(const float *mask, int64_t w, int64_t h, dr_rect part,
                                float *out, int64_t to_w, int64_t to_h)
{
    return (dr_resampling){
        .filter = DR_FILTER_AREA,
        .f32 = mask,
        .w = w,
        .h = h,
        .channels = 1,
        .across = { .lo = (double)part.x, .hi = (double)(part.x + part.w), .inner = to_w },
        .down = { .lo = (double)part.y, .hi = (double)(part.y + part.h), .inner = to_h },
        .to_w = to_w,
        .to_h = to_h,
        .to_f32 = out,
        .max = 1,
        .scale = 1,
    };
}

dr_status dr_mask_blur(float *mask, int64_t w, int64_t h, double sigma, dr_err *err)
{
    if (!(sigma > 0))
        return DR_OK;
    dr_resampling r = resampling(mask, w, h, (dr_rect){ .w = w, .h = h }, mask, w, h);
    r.filter = DR_FILTER_GAUSS;
    r.sigma = sigma;
    return dr_resample(&r, err);
}

dr_status dr_mask_resize(float *out, int64_t to_w, int64_t to_h, const float *mask,
                         int64_t w, int64_t h, dr_rect part, dr_err *err)
{
    const dr_resampling r = resampling(mask, w, h, part, out, to_w, to_h);
    return dr_resample(&r, err);
}

bool dr_mask_bounds(dr_rect *out, const float *mask, int64_t w, int64_t h)
{
    int64_t x0 = w, y0 = h, x1 = -1, y1 = -1;
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) {
            if (mask[y * w + x] < SEEN_MIN)
                continue;
            x0 = x < x0 ? x : x0;
            x1 = x > x1 ? x : x1;
            y0 = y < y0 ? y : y0;
            y1 = y;
        }
    if (x1 < 0)
        return false;
    *out = (dr_rect){ x0, y0, x1 - x0 + 1, y1 - y0 + 1 };
    return true;
}

/* Enlarge a run of n pixels at *at to `want`, half to each side, within 0..limit. */
static void enlarge(int64_t *at, int64_t *n, int64_t want, int64_t limit)
{
    int64_t more = want - *n;
    want = want < limit ? want : limit;
    *at -= more / 2;
    *at = *at + want > limit ? limit - want : *at;
    *at = *at < 0 ? 0 : *at;
    *n = want;
}

dr_rect dr_mask_region(dr_rect r, int64_t padding, int64_t for_w, int64_t for_h, int64_t w,
                       int64_t h)
{
    const int64_t x1 = r.x + r.w + padding, y1 = r.y + r.h + padding;
    r.x = r.x > padding ? r.x - padding : 0;
    r.y = r.y > padding ? r.y - padding : 0;
    r.w = (x1 < w ? x1 : w) - r.x;
    r.h = (y1 < h ? y1 : h) - r.y;
    if (r.w * for_h > for_w * r.h)
        enlarge(&r.y, &r.h, r.w * for_h / for_w, h);
    else
        enlarge(&r.x, &r.w, r.h * for_w / for_h, w);
    return r;
}

dr_status dr_image_blend(dr_image *base, const dr_image *over, int64_t x, int64_t y,
                         const float *mask, dr_err *err)
{
    if (x < 0 || y < 0 || over->w > base->w || over->h > base->h || x > base->w - over->w ||
        y > base->h - over->h || over->channels != base->channels)
        return dr_fail(
            err, DR_EINVAL,
            "blend: %lld x %lld pixels at %lld, %lld: must lie inside %lld x %lld",
            (long long)over->w, (long long)over->h, (long long)x, (long long)y,
            (long long)base->w, (long long)base->h);
    const uint8_t *from = over->px;
    for (int64_t row = y; row < y + over->h; row++)
        for (int64_t i = row * base->w + x; i < row * base->w + x + over->w; i++)
            for (int64_t c = 0; c < base->channels; c++, from++) {
                uint8_t *to = base->px + i * base->channels + c;
                *to = (uint8_t)lrintf(*to + mask[i] * (*from - *to));
            }
    return DR_OK;
}
