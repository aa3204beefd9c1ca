#ifndef DR_IMAGE_MASK_H
#define DR_IMAGE_MASK_H

#include "image/image.h"

/* Masks are floats [h, w] in 0..1: how much of a pixel is repainted. They stay soft; there
 * is no threshold. */

/* out [h, w] = the luminance of a picture of one channel, brought to w x h as
 * dr_image_resize would bring a picture, but by the mean over areas. invert: black is
 * repainted. DR_ENOMEM. */
DR_MUST_USE dr_status dr_mask_from_image(float *out, const dr_image *grey, int64_t w,
                                         int64_t h, dr_fit fit, bool invert, dr_err *err);

/* Gaussian blur in place by sigma pixels (A1111's mask_blur), edges repeated; <= 0:
 * nothing. The exact Gaussian, where Pillow approaches it by three boxes. DR_ENOMEM. */
DR_MUST_USE dr_status dr_mask_blur(float *mask, int64_t w, int64_t h, double sigma,
                                   dr_err *err);

/* out [to_h, to_w] = the part of a mask, by the mean over areas: so a mask comes to the
 * size of latents. part must lie inside w x h. DR_ENOMEM. */
DR_MUST_USE dr_status dr_mask_resize(float *out, int64_t to_w, int64_t to_h,
                                     const float *mask, int64_t w, int64_t h, dr_rect part,
                                     dr_err *err);

/* The smallest rectangle around what is masked, that is all that 8 bits would not round to
 * 0; false, and *out untouched, when nothing is. */
bool dr_mask_bounds(dr_rect *out, const float *mask, int64_t w, int64_t h);

/* r and `padding` pixels around it, inside w x h, then enlarged to the shape for_w : for_h
 * and moved, if need be, to stay inside: what A1111's "only masked" works on. Where the
 * picture is too small for the shape it is as large as it can be. */
dr_rect dr_mask_region(dr_rect r, int64_t padding, int64_t for_w, int64_t for_h, int64_t w,
                       int64_t h);

/* base = base x (1 - mask) + over x mask for the pixels of `over`, which lies at x, y in
 * base and has as many channels; mask is as large as base. Where it is 0 base stays as it
 * is, bit by bit. DR_EINVAL when over does not lie inside. */
DR_MUST_USE dr_status dr_image_blend(dr_image *base, const dr_image *over, int64_t x,
                                     int64_t y, const float *mask, dr_err *err);

#endif
