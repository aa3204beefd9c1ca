#ifndef DR_IMAGE_IMAGE_H
#define DR_IMAGE_IMAGE_H

#include "base/err.h"

#include <darkroom/job.h>
#include <stdbool.h>
#include <stdint.h>

/* Pixels in host memory: 8 bits a channel, interleaved, rows top down without gaps. {0} is
 * none. A view of somebody else's pixels is written out,
 * (dr_image){ .px = rgb, .w = w, .h = h, .channels = 3 }, and not freed. */
typedef struct {
    uint8_t *px;      /* [h, w, channels] */
    int64_t w, h;     /* pixels, >= 1 */
    int64_t channels; /* 1 grey, 3 RGB, 4 RGB and alpha (not premultiplied) */
} dr_image;

/* Part of a picture, in pixels. */
typedef struct {
    int64_t x, y, w, h;
} dr_rect;

/* Allocate pixels, all 0. DR_ENOMEM. */
DR_MUST_USE dr_status dr_image_new(dr_image *out, int64_t w, int64_t h, int64_t channels,
                                   dr_err *err);
void dr_image_free(dr_image *im); /* accepts {0}; leaves {0} */

static inline size_t dr_image_bytes(const dr_image *im)
{
    return (size_t)(im->w * im->h * im->channels);
}

/* *out = a copy of the part r of im, which must lie inside (DR_EINVAL). */
DR_MUST_USE dr_status dr_image_crop(dr_image *out, const dr_image *im, dr_rect r,
                                    dr_err *err);

#endif
