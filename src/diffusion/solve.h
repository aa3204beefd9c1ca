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
} dr_solver;

/* How x is made up at a sigma. */
dr_level dr_level_at(const dr_solver *s, double sigma);

/* What a UNet call predicts: the clean latents and the noise. */
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
void dr_solve_ddim(dr_solver *s, int64_t i);
void dr_solve_euler(dr_solver *s, int64_t i);
void dr_solve_euler_a(dr_solver *s, int64_t i);
void dr_solve_dpmpp_2m(dr_solver *s, int64_t i);

#endif
