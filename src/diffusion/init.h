#ifndef DR_DIFFUSION_INIT_H
#define DR_DIFFUSION_INIT_H

#include "diffusion/pipeline.h"

/* Private to src/diffusion/: the pictures that a job brings, on the host: what the model is
 * given of them, and where its result goes. Errors name the job's field, init_image or
 * mask; DR_EINVAL is the client's fault.
 *
 * There are two ways. Usually the picture is brought to the job's size, and the result has
 * that size. With a mask and only_masked, the part around the mask is brought to the job's
 * size, and the result, brought back, is put into the picture as it was sent. */
typedef struct dr_init dr_init;

/* Whether a job begins with a picture; whether it brings a mask. */
bool dr_init_given(const dr_job *job);
bool dr_mask_given(const dr_job *job);

/* Check the heads of the pictures (format, limits, that both have one size; what lies
 * behind is seen by dr_init_open) and choose the size that the job leaves open in *w and
 * *h: 0 becomes the picture's, in whole multiples of `multiple` pixels, within
 * DR_SIZE_MIN..DR_SIZE_MAX and of the picture's shape as nearly as that goes. only_masked
 * leaves 0, since the picture's size says nothing of its part. */
DR_MUST_USE dr_status dr_init_size(int64_t *w, int64_t *h, const dr_job *job,
                                   int64_t multiple, dr_err *err);

/* Whether two jobs with pictures, were they for one model, get the same size. false also
 * when that cannot be known before a picture was fetched. */
bool dr_init_same_size(const dr_job *a, const dr_job *b);

/* Decode for a size of w x h pixels, a multiple of `factor`, the pixels of a latent each
 * way. The job is borrowed until dr_init_free. DR_EINVAL, DR_ENOMEM. */
DR_MUST_USE dr_status dr_init_open(dr_init **out, const dr_job *job, int64_t w, int64_t h,
                                   int64_t factor, dr_err *err);
void dr_init_free(dr_init *in); /* accepts NULL */

/* out [h, w, 3]: the picture for the encoder, in -1..1; masked: grey where the mask
 * repaints at least half of a pixel. DR_ENOMEM. */
DR_MUST_USE dr_status dr_init_picture(const dr_init *in, float *out, bool masked,
                                      dr_err *err);

/* The mask at the size of latents [h / factor, w / factor], 0..1; NULL: the job has none.
 */
const float *dr_init_mask(const dr_init *in);

/* *pic, as the model made it, becomes what the client gets: pixels of the sent picture
 * (brought to the job's size, unless only_masked) where the mask is 0, bit by bit, the
 * model's where it is 1, mixed in between. Without a mask it stays as it is. Borrowed until
 * the next call. DR_ENOMEM. */
DR_MUST_USE dr_status dr_init_finish(dr_init *in, dr_picture *pic, dr_err *err);

#endif
