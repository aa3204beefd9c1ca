#ifndef DR_DIFFUSION_SAMPLER_H
#define DR_DIFFUSION_SAMPLER_H

#include "diffusion/schedule.h"

/* Samplers as data: each step of each sampler is one row of coefficients, made once a
 * request in double precision with all conversions folded in (what the model predicts,
 * whether x is scaled by alpha or sigma). One kernel executes every row. */

/* One UNet call and the update after it; m: the model's output after guidance, x: the
 * latents, h: the sampler's memory (zeros at first), z: fresh normal noise. */
typedef struct {
    double timestep;            /* what the UNet's time embedding gets; may be fractional */
    double in_scale;            /* UNet input = in_scale * x */
    double x, out, hist, noise; /* x' = x * x_ + out * m + hist * h + noise * z;
                                   noise 0: none is drawn */
    double hist_x, hist_out;    /* h' = hist_x * x_ + hist_out * m, x_ before update */
    double denoised_x, denoised_out; /* predicted clean latents = denoised_x * x_ +
                                        denoised_out * m, for previews */
} dr_step;

/* The rows of a request and what they were made from. */
typedef struct dr_steps {
    dr_sampler_id sampler;   /* never DEFAULT */
    dr_schedule_id schedule; /* never DEFAULT */
    int64_t count;
    double init_noise_sigma; /* first latents = init_noise_sigma * normal noise */
    const dr_step *row;      /* [count] */
    const double *sigma;     /* [count + 1], from noisy to clean */
    bool uses_noise;         /* some row draws noise */
    bool uses_hist;          /* some row reads the memory h */
} dr_steps;

/* Make the rows in mem. DEFAULT ids mean the model's own; eta (ddim only, NaN: 0) is the
 * share of fresh noise, 0..1. DR_EINVAL names the field at fault; DR_EMODEL when the
 * model's settings leave a step undefined (noise prediction at zero terminal SNR). */
DR_MUST_USE dr_status dr_schedule_make(dr_steps *out, dr_arena *mem,
                                       const dr_schedule_config *cfg, dr_sampler_id sampler,
                                       dr_schedule_id schedule, int64_t steps, double eta,
                                       dr_err *err);

/* "Euler a": what A1111 shows. Never NULL. */
const char *dr_sampler_label(dr_sampler_id id);

#endif
