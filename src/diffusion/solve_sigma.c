#include "diffusion/solve.h"

#include <math.h>

/* Samplers that walk along sigma: x = x0 + sigma eps, so dx / dsigma = eps (Karras et al.
 * 2022, equation 1). */

/* How far down to go before fresh noise `up` brings the level back to `to`: DDIM's family
 * (Song et al. 2020, equation 16) in terms of sigma, eta 1 being ancestral sampling. */
typedef struct {
    double down, up;
} ancestry;

static ancestry ancestral(double from, double to, double eta)
{
    double up = eta * sqrt(fmax(to * to * (from * from - to * to) / (from * from), 0));
    up = fmin(up, to);
    return (ancestry){ sqrt(fmax(to * to - up * up, 0)), up };
}

/* x' = x + (to - from) eps + up z */
static void slope(dr_solver *s, dr_form eps, double from, ancestry to)
{
    dr_form next = dr_plus(dr_latents(), to.down - from, eps);
    next.z = to.up;
    dr_move(s, next);
}

/* Algorithm 2 of Karras et al. 2022 without churn and second-order correction. */
void dr_solve_euler(dr_solver *s, int64_t i)
{
    dr_guess g = dr_call(s, i, s->timestep[i], s->sigma[i]);
    slope(s, g.eps, s->sigma[i], (ancestry){ s->sigma[i + 1], 0 });
}

/* The same, to below the next level, and fresh noise up to it. */
void dr_solve_euler_a(dr_solver *s, int64_t i)
{
    dr_guess g = dr_call(s, i, s->timestep[i], s->sigma[i]);
    slope(s, g.eps, s->sigma[i], ancestral(s->sigma[i], s->sigma[i + 1], s->eta));
}
