#ifndef DR_DIFFUSION_SAMPLER_H
#define DR_DIFFUSION_SAMPLER_H

#include "diffusion/schedule.h"

/* Samplers as data: each call of the UNet is one row of coefficients, made once a request
 * in double precision with all conversions folded in (what the model predicts, whether x
 * is scaled by alpha or sigma). One kernel executes every row. */

#define DR_HIST_MAX 3 /* tensors of a sampler's memory */

/* One UNet call and the update after it; m: the model's output after guidance, x: the
 * latents, h: the sampler's memory, z: fresh normal noise. Some samplers take two rows for
 * a step. A row reads only what rows before it have put into h. */
typedef struct {
    int64_t step;    /* of the user's steps that this is part of, counted from 0 */
    double timestep; /* what the UNet's time embedding gets; may be fractional */
    double in_scale; /* UNet input = in_scale * x */
    double x, out, noise, hist[DR_HIST_MAX]; /* x' = x * x_ + out * m + noise * z +
                                                sum hist[k] * h[k] */
    int slot;                                /* h[slot] to write; -1: none */
    double hist_x, hist_out, hist_noise;     /* h[slot]' = hist_x * x_ + hist_out * m +
                                                hist_noise * z, x_ before the update */
    double denoised_x, denoised_out;         /* predicted clean latents = denoised_x * x_ +
                                                denoised_out * m, for previews */
    double to_signal, to_noise; /* what x is made of when the whole step is done: to_signal
                                 * clean latents + to_noise * normal noise */
} dr_step;

/* The rows of a request and what they were made from. */
typedef struct dr_steps {
    dr_sampler_id sampler;   /* never DEFAULT */
    dr_schedule_id schedule; /* never DEFAULT */
    int64_t steps;           /* as the user counts them */
    int64_t first;           /* step of row 0; what is before it was skipped */
    int64_t count;           /* rows */
    double eta;              /* in use; 0 where the sampler takes none */
    double init_noise_sigma; /* first latents = init_noise_sigma * normal noise, or … */
    double start_signal, start_noise; /* … start_signal * a picture's latents +
                                         start_noise * normal noise */
    const dr_step *row;               /* [count] */
    const double *sigma;              /* [steps + 1], from noisy to clean */
    bool uses_noise;                  /* some row draws noise */
    int n_hist;                       /* tensors of memory that rows use */
} dr_steps;

/* What a request asks of its schedule. Zero is a good default but for eta. */
typedef struct {
    dr_sampler_id sampler;   /* DEFAULT: the model's */
    dr_schedule_id schedule; /* DEFAULT: the model's */
    int64_t steps;           /* with a list: 0, or as many as it has */
    int64_t first;           /* step to begin with, 0..steps - 1: see dr_first_step */
    double eta; /* share of fresh noise where the sampler takes it, 0..1; NaN: its own */
    const double *sigmas, *timesteps; /* levels instead of the schedule's, falling; a 0 at
                                         the end of sigmas may be left out. NULL: none */
    int64_t n_sigmas, n_timesteps;
    int64_t tokens; /* of the picture, for flow models */
} dr_schedule_ask;

/* Make the rows in mem. DR_EINVAL names the field at fault; DR_EMODEL when the model's
 * settings leave a step undefined (noise prediction at zero terminal SNR). */
DR_MUST_USE dr_status dr_schedule_make(dr_steps *out, dr_arena *mem,
                                       const dr_schedule_config *cfg,
                                       const dr_schedule_ask *ask, dr_err *err);

/* Where to begin for a picture that `strength` (0..1) of the steps shall change, as
 * diffusers rounds it: the last int(steps * strength) are run. `steps`: none is. */
int64_t dr_first_step(int64_t steps, double strength);

/* Whether a row needs noise. */
bool dr_step_draws(const dr_step *row);

/* User's steps that are behind after `rows` rows, the skipped ones among them. */
int64_t dr_steps_done(const dr_steps *s, int64_t rows);

/* "Euler a": what A1111 shows. Never NULL. */
const char *dr_sampler_label(dr_sampler_id id);

#endif
