#ifndef DR_IMAGE_RESAMPLE_H
#define DR_IMAGE_RESAMPLE_H

#include "image/image.h"

/* One separable filter in floats, rows first, then columns, over a ring of as many filtered
 * rows as the filter is high: memory is bounded by width x support, and the result may be
 * written over the source when the sizes are equal. Outside the picture there is nothing
 * (weights are normalised over what is there), but the Gaussian sees its edges repeated.
 * Lanczos is Pillow's LANCZOS to one unit of 8 bits; but Pillow 13 goes columns first where
 * that is less work, which shows at hard edges when one side grows and the other shrinks.
 */
typedef enum {
    DR_FILTER_LANCZOS, /* Lanczos-3, stretched by the scale when shrinking: no aliases */
    DR_FILTER_AREA,    /* the mean over exactly the area that becomes one pixel */
    DR_FILTER_GAUSS    /* blur by sigma, cut at 4 sigma; the size stays */
} dr_filter;

/* What lies at index i of n outputs along one axis: position i - before of `inner` equal
 * parts of lo..hi in source pixels; beyond the inner part its nearest one is repeated. */
typedef struct {
    double lo, hi;
    int64_t before, inner;
} dr_span;

typedef struct {
    dr_filter filter;
    double sigma;      /* pixels; DR_FILTER_GAUSS */
    const uint8_t *u8; /* [h, w, channels], or … */
    const float *f32;  /* … these */
    int64_t w, h, channels;
    dr_span across, down;
    int64_t to_w, to_h;
    uint8_t *to_u8; /* [to_h, to_w, channels] rounded to 0..255, or … */
    float *to_f32;  /* … value x scale + shift, value held within 0..max */
    float max, scale, shift;
} dr_resampling;

/* DR_ENOMEM. Any thread. */
DR_MUST_USE dr_status dr_resample(const dr_resampling *r, dr_err *err);

/* The spans that bring w x h into to_w x to_h by a fit. */
void dr_fit_spans(dr_fit fit, int64_t w, int64_t h, int64_t to_w, int64_t to_h,
                  dr_span *across, dr_span *down);

/* Bring im to w x h (1.. each) with Lanczos-3; nothing is done, and nothing allocated, when
 * it has that size. DR_ENOMEM (im as it was). */
DR_MUST_USE dr_status dr_image_resize(dr_image *im, int64_t w, int64_t h, dr_fit fit,
                                      dr_err *err);

/* The same in one pass into floats [h, w, channels], 0..255 becoming lo..hi: -1..1 is what
 * an autoencoder takes, 0..1 a ControlNet. */
DR_MUST_USE dr_status dr_image_to_floats(const dr_image *im, int64_t w, int64_t h,
                                         dr_fit fit, float lo, float hi, float *out,
                                         dr_err *err);

#endif
