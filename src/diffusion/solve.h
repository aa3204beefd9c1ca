#ifndef DR_DIFFUSION_SOLVE_H
#define DR_DIFFUSION_SOLVE_H

#include "diffusion/sampler.h"

/* Private to the samplers (sampler.c, solve_*.c): how rows are written. All that a row can
 * compute is linear in x, m, z and h, so a step's mathematics is done on such linear forms
 * and reads like the paper; the row is the form that comes out. */

/* x * x_ + m * m_ + z * z_ + sum h[k] * h_[k] */
typedef struct {
    double x, m, z, h[DR_HIST_MAX];
} dr_form;

/* f + k * g */
static inline dr_form dr_plus(dr_form f, double k, dr_form g)
{
    f.x += k * g.x;
    f.m += k * g.m;
    f.z += k * g.z;
    for (int i = 0; i < DR_HIST_MAX; i++)
        f.h[i] += k * g.h[i];
    return f;
}

static inline dr_form dr_times(double k, dr_form f)
{
    return dr_plus((dr_form){ 0 }, k, f);
}

static inline dr_form dr_latents(void)
{
    return (dr_form){ .x = 1 };
}

/* What was kept in a slot before this row. */
static inline dr_form dr_kept(int slot)
{
    dr_form f = { 0 };
    f.h[slot] = 1;
    return f;
}

/* x = a * x0 + b * eps */
typedef struct {
    double a, b;
} dr_level;

/* uni_pc: what the row before added to x, in terms of what is kept, and by which order; 0:
 * there is none to correct. */
typedef struct {
    dr_form rest;
    int order;
} dr_last_step;

/* A request while its rows are written. */
typedef struct {
    const dr_schedule_config *cfg;
    const double *timestep, *sigma; /* [steps], [steps + 1] */
    int64_t steps, first;
    bool listed; /* levels are a list of sigmas, not training steps at a distance */
    double eta;
    bool sigma_space; /* x = x0 + sigma eps, else x = a x0 + b eps with a² + b² = 1 */
    dr_step *row;     /* room for 2 * steps + 1 */
    int64_t n_rows;
    dr_last_step last;
} dr_solver;

/* How x is made up at a sigma. */
dr_level dr_level_at(const dr_solver *s, double sigma);

/* At most `order`, and no more than the calls since the first that were made at different
 * levels, that of step i among them. */
int dr_order_at(const dr_solver *s, int64_t i, int order);

/* What a UNet call predicts: the clean latents and the noise (of a flow model the
 * direction away from them). */
typedef struct {
    dr_form x0, eps;
} dr_guess;

/* Begin a row of step i: call the UNet at sigma. */
dr_guess dr_call(dr_solver *s, int64_t i, double timestep, double sigma);
/* The same where in_scale * x = a x0 + b eps, a² + b² = 1, is known otherwise. */
dr_guess dr_call_scaled(dr_solver *s, int64_t i, double timestep, double in_scale,
                        dr_level model);
/* Keep f (of x, m and z) in a slot of the memory, once a row. */
void dr_keep(dr_solver *s, int slot, dr_form f);
/* End the row: x becomes f. */
void dr_move(dr_solver *s, dr_form f);

/* Write the rows of step i. */
typedef void dr_solve(dr_solver *s, int64_t i);
dr_solve dr_solve_euler, dr_solve_euler_a, dr_solve_heun, dr_solve_dpm_2, dr_solve_dpm_2_a,
    dr_solve_lms, dr_solve_dpmpp_2s_a, dr_solve_dpmpp_sde; /* solve_sigma.c */
dr_solve dr_solve_dpmpp_2m, dr_solve_dpmpp_2m_sde, dr_solve_dpmpp_3m_sde, dr_solve_uni_pc,
    dr_solve_deis; /* solve_lambda.c */
dr_solve dr_solve_ddim, dr_solve_ddpm, dr_solve_pndm, dr_solve_lcm,
    dr_solve_tcd; /* solve_training.c */

#endif
