#include "image/image.h"

#include "base/mem.h"

#include <string.h>

dr_status dr_image_new(dr_image *out, int64_t w, int64_t h, int64_t channels, dr_err *err)
{
    size_t bytes;
    *out = (dr_image){ .w = w, .h = h, .channels = channels };
    dr_status st = dr_mul(&bytes, (size_t)w, (size_t)h, err);
    if (!st)
        st = dr_mul(&bytes, bytes, (size_t)channels, err);
    if (!st && !(out->px = dr_alloc(bytes)))
        st = dr_fail(err, DR_ENOMEM, "picture: out of memory for %lld x %lld pixels",
                     (long long)w, (long long)h);
    if (st)
        *out = (dr_image){ 0 };
    return st;
}

void dr_image_free(dr_image *im)
{
    dr_free(im->px);
    *im = (dr_image){ 0 };
}

dr_status dr_image_crop(dr_image *out, const dr_image *im, dr_rect r, dr_err *err)
{
    if (r.x < 0 || r.y < 0 || r.w < 1 || r.h < 1 || r.w > im->w || r.h > im->h ||
        r.x > im->w - r.w || r.y > im->h - r.h)
        return dr_fail(err, DR_EINVAL,
                       "crop: %lld x %lld at %lld, %lld: must lie inside %lld x %lld",
                       (long long)r.w, (long long)r.h, (long long)r.x, (long long)r.y,
                       (long long)im->w, (long long)im->h);
    dr_status st = dr_image_new(out, r.w, r.h, im->channels, err);
    if (st)
        return st;
    const size_t row = (size_t)(r.w * im->channels);
    for (int64_t y = 0; y < r.h; y++)
        memcpy(out->px + (size_t)y * row, im->px + ((r.y + y) * im->w + r.x) * im->channels,
               row);
    return DR_OK;
}
