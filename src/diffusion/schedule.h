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

typedef enum { DR_PREDICT_EPSILON, DR_PREDICT_V, DR_PREDICT_SAMPLE } dr_prediction;

typedef enum {
    DR_SPACING_DEFAULT, /* not in the file: the sampler's own */
    DR_SPACING_LEADING,
    DR_SPACING_TRAILING,
    DR_SPACING_LINSPACE
} dr_spacing;

typedef enum { DR_FINAL_ZERO, DR_FINAL_SIGMA_MIN } dr_final_sigma;

/* scheduler_config.json. The tables live in the arena it was read into. */
typedef struct {
    dr_sampler_id sampler;   /* of _class_name: the model's default */
    dr_schedule_id schedule; /* of use_karras_sigmas: the model's default */
    dr_prediction prediction;
    dr_spacing spacing;
    dr_final_sigma final_sigma; /* euler, dpmpp_2m */
    bool set_alpha_to_one;      /* ddim: the last step ends at alpha_bar 1, not [0] */
    bool lower_order_final, euler_at_final; /* dpmpp_2m */
    int solver_order;                       /* dpmpp_2m: 1 or 2 */
    int64_t train_steps, steps_offset;
    const float *alpha_bar; /* [train_steps] */
    const float *sigma;     /* [train_steps], finite also at zero terminal SNR */
} dr_schedule_config;

/* Read a scheduler_config.json. DR_EMODEL names the key and the value of anything that is
 * not supported: thresholding, clip_sample, SDE solvers, other families' schedulers.
 *
 * Classes that have no sampler here get the nearest one: PNDM (the file of SD 1.x), DEIS,
 * UniPC and the single-step DPM solvers become dpmpp_2m, the deterministic multistep
 * solver most front ends use for these models today; LMS and Heun become euler, DDPM ddim.
 */
DR_MUST_USE dr_status dr_schedule_config_read(dr_schedule_config *out, dr_arena *mem,
                                              const char *path, dr_err *err);

/* How a sampler turns a number of steps into noise levels. */
typedef struct {
    dr_spacing spacing;  /* when the file has none */
    int64_t extra;       /* levels computed beyond the steps and dropped at the clean end */
    bool whole_linspace; /* linspace timesteps are rounded */
    bool karras_all;     /* karras spans all training levels, not the chosen ones */
    bool karras_whole;   /* karras timesteps are rounded */
} dr_level_rule;

/* Fill timestep[steps] and sigma[steps] from noisy to clean, for 1 <= steps <=
 * train_steps - extra; else DR_EINVAL on field "steps". diffusers' trailing spacing yields
 * one level too many for some step counts (61, 103, …); here it is always `steps`. */
DR_MUST_USE dr_status dr_schedule_levels(double *timestep, double *sigma,
                                         const dr_schedule_config *cfg,
                                         const dr_level_rule *rule, bool karras,
                                         int64_t steps, dr_err *err);

#endif
