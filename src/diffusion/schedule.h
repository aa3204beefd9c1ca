#ifndef DR_DIFFUSION_SCHEDULE_H
#define DR_DIFFUSION_SCHEDULE_H

#include "base/arena.h"
#include "base/err.h"

#include <darkroom/job.h>
#include <stdbool.h>
#include <stdint.h>

/* Noise schedules: scheduler_config.json and the noise levels a run visits. Numbers follow
 * diffusers 0.31, whose samplers each space their timesteps a little differently.
 *
 * alpha_bar[t] = prod (1 - beta) is the share of signal after t steps of training noise
 * (Ho et al. 2020); sigma = sqrt((1 - alpha_bar) / alpha_bar) is the same level as noise
 * per unit of signal (Karras et al. 2022). */

typedef enum {
    DR_PREDICT_EPSILON,
    DR_PREDICT_V,
    DR_PREDICT_SAMPLE,
    DR_PREDICT_FLOW /* noise - picture; x = (1 - sigma) picture + sigma noise */
} dr_prediction;

typedef enum {
    DR_SPACING_DEFAULT, /* not in the file: the sampler's own */
    DR_SPACING_LEADING,
    DR_SPACING_TRAILING,
    DR_SPACING_LINSPACE
} dr_spacing;

typedef enum { DR_FINAL_ZERO, DR_FINAL_SIGMA_MIN } dr_final_sigma;

/* Variants of a multistep sampler; DEFAULT: its first choice (midpoint, logrho, bh2). */
typedef enum { DR_SOLVER_DEFAULT, DR_SOLVER_HEUN, DR_SOLVER_BH1 } dr_solver_type;

/* How flow models move their levels to the noisy end: sigma' = s sigma / (1 + (s - 1)
 * sigma), s a constant or, dynamic, exp of a line through the picture's tokens. */
typedef struct {
    double shift, base_shift, max_shift;
    int64_t base_tokens, max_tokens;
    bool dynamic;
} dr_flow;

/* scheduler_config.json. The tables live in the arena it was read into. */
typedef struct {
    dr_sampler_id sampler;   /* of _class_name: the model's default */
    dr_schedule_id schedule; /* of use_…_sigmas: the model's default */
    dr_prediction prediction;
    dr_spacing spacing;
    dr_final_sigma final_sigma; /* euler, dpmpp_2m, dpmpp_2m_sde, uni_pc */
    bool set_alpha_to_one;      /* ddim: the last step ends at alpha_bar 1, not [0] */
    bool pndm_alpha_to_one;     /* the same of pndm, which has another default */
    bool lower_order_final, euler_at_final; /* multistep solvers */
    int solver_order;                       /* multistep solvers: 1..3 */
    dr_solver_type solver_type;             /* multistep solvers */
    bool large_variance;                    /* ddpm: beta, not the posterior's variance */
    int64_t train_steps, steps_offset;
    int64_t original_steps;  /* lcm, tcd: levels that the model was distilled for */
    double timestep_scaling; /* lcm */
    const float *alpha_bar;  /* [train_steps]; NULL: a flow model */
    const float *sigma;      /* [train_steps], finite also at zero terminal SNR */
    dr_flow flow;            /* of a flow model */
    bool ays_xl;             /* ays: SDXL's sigmas; for the model's family to set */
} dr_schedule_config;

/* Read a scheduler_config.json. DR_EMODEL names the key and the value of anything that is
 * not supported: thresholding, clip_sample, other families' schedulers. A class is its own
 * sampler; DPMSolverSinglestep, which is not here, becomes dpmpp_2m, and so does a file
 * without a class. */
DR_MUST_USE dr_status dr_schedule_config_read(dr_schedule_config *out, dr_arena *mem,
                                              const char *path, dr_err *err);

/* How a sampler turns a number of steps into noise levels. */
typedef struct {
    dr_spacing spacing;  /* of the normal schedule when the file has none */
    int64_t extra;       /* its levels beyond the steps, dropped at the clean end */
    bool whole_linspace; /* linspace timesteps are rounded */
    bool karras_all;     /* karras, exponential, beta span all training levels, not the
                            normal ones */
    bool karras_whole;   /* karras timesteps are rounded */
    bool one_noisy;      /* a single linspace level is the noisiest, not the cleanest */
    bool distilled;      /* normal: some of original_steps */
} dr_level_rule;

/* What levels to make. */
typedef struct {
    dr_schedule_id schedule; /* not DEFAULT; CUSTOM: sigmas or timesteps */
    int64_t steps;
    const double *sigmas, *timesteps; /* [steps]; one of them, or NULL */
    int64_t tokens;                   /* of the picture, for flow models; 0: unknown */
} dr_level_ask;

/* Fill timestep[steps] and sigma[steps] from noisy to clean. DR_EINVAL on field "steps"
 * when the model has no so many levels, on "sigmas" or "timesteps" for a bad list. One
 * step of karras, exponential or beta is the noisiest level alone. diffusers' trailing
 * spacing yields one level too many for some step counts (61, 103, …); here it is always
 * `steps`. */
DR_MUST_USE dr_status dr_schedule_levels(double *timestep, double *sigma,
                                         const dr_schedule_config *cfg,
                                         const dr_level_rule *rule, const dr_level_ask *ask,
                                         dr_err *err);

/* The timestep, maybe fractional, at which the model expects noise of sigma. */
double dr_timestep_at(const dr_schedule_config *cfg, double sigma);

/* "SGM Uniform": what A1111 shows. Never NULL. */
const char *dr_schedule_label(dr_schedule_id id);

#endif
