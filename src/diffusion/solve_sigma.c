#include "diffusion/solve.h"

#include <math.h>

/* Samplers that walk along sigma: x = x0 + sigma eps, so dx / dsigma = eps (Karras et al.
 * 2022, equation 1). Names and orders as in k-diffusion (Crowson 2022); where it draws the
 * noise of its SDE samplers from a Brownian tree, fresh noise of the same law is drawn
 * here: the same kind of picture, not the same one. */

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

/* Algorithm 1 of the same without churn: the slope's mean over the step. */
void dr_solve_heun(dr_solver *s, int64_t i)
{
    double now = s->sigma[i], next = s->sigma[i + 1];
    dr_guess g = dr_call(s, i, s->timestep[i], now);
    if (next > 0)
        dr_keep(s, 0, g.eps);
    slope(s, g.eps, now, (ancestry){ next, 0 });
    if (!(next > 0))
        return;
    g = dr_call(s, i, s->timestep[i + 1], next);
    dr_form change = dr_plus(g.eps, -1, dr_kept(0));
    dr_move(s, dr_plus(dr_latents(), (next - now) / 2, change));
}

/* DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, algorithm 1) as Karras et al. 2022
 * write it: the slope in the (geometric) middle counts for the whole step. */
static void dpm_2(dr_solver *s, int64_t i, double eta)
{
    double now = s->sigma[i];
    ancestry to = ancestral(now, s->sigma[i + 1], eta);
    dr_guess g = dr_call(s, i, s->timestep[i], now);
    if (!(to.down > 0)) {
        slope(s, g.eps, now, to);
        return;
    }
    double middle = sqrt(now * to.down);
    dr_keep(s, 0, dr_latents());
    slope(s, g.eps, now, (ancestry){ middle, 0 });
    g = dr_call(s, i, dr_timestep_at(s->cfg, middle), middle);
    dr_form next = dr_plus(dr_kept(0), to.down - now, g.eps);
    next.z = to.up;
    dr_move(s, next);
}

void dr_solve_dpm_2(dr_solver *s, int64_t i)
{
    dpm_2(s, i, 0);
}

void dr_solve_dpm_2_a(dr_solver *s, int64_t i)
{
    dpm_2(s, i, s->eta);
}

/* The integral over sigma[i] … sigma[i + 1] of the Lagrange polynomial that is 1 at
 * sigma[i - j] and 0 at the other `order` levels; two Gauss points are exact up to cubes.
 */
static double lagrange(const dr_solver *s, int64_t i, int order, int j)
{
    double sum = 0, from = s->sigma[i], to = s->sigma[i + 1];
    for (int side = -1; side <= 1; side += 2) {
        double at = (from + to) / 2 + side * (to - from) / (2 * sqrt(3)), product = 1;
        for (int k = 0; k < order; k++)
            if (k != j)
                product *= (at - s->sigma[i - k]) / (s->sigma[i - j] - s->sigma[i - k]);
        sum += product;
    }
    return sum * (to - from) / 2;
}

/* Linear multistep (Adams-Bashforth for uneven steps), order 4; the memory is a ring of
 * the last three slopes. */
void dr_solve_lms(dr_solver *s, int64_t i)
{
    int order = dr_order_at(s, i, 4);
    dr_guess g = dr_call(s, i, s->timestep[i], s->sigma[i]);
    dr_form next = dr_plus(dr_latents(), lagrange(s, i, order, 0), g.eps);
    for (int j = 1; j < order; j++)
        next = dr_plus(next, lagrange(s, i, order, j), dr_kept((int)((i - j) % 3)));
    dr_keep(s, (int)(i % 3), g.eps);
    dr_move(s, next);
}

/* DPM-Solver++(2S) (Lu et al. 2022, arXiv:2211.01095, algorithm 1), with ancestral noise:
 * x' = (s'/s) x + (1 - s'/s) D, D the x0 predicted at the middle of log sigma. */
void dr_solve_dpmpp_2s_a(dr_solver *s, int64_t i)
{
    double now = s->sigma[i];
    ancestry to = ancestral(now, s->sigma[i + 1], s->eta);
    dr_guess g = dr_call(s, i, s->timestep[i], now);
    if (!(to.down > 0)) {
        slope(s, g.eps, now, to);
        return;
    }
    double middle = sqrt(now * to.down), ratio = middle / now;
    dr_keep(s, 0, dr_latents());
    dr_move(s, dr_plus(dr_times(ratio, dr_latents()), 1 - ratio, g.x0));
    g = dr_call(s, i, dr_timestep_at(s->cfg, middle), middle);
    ratio = to.down / now;
    dr_form next = dr_plus(dr_times(ratio, dr_kept(0)), 1 - ratio, g.x0);
    next.z = to.up;
    dr_move(s, next);
}

/* DPM-Solver++ with noise also before the second call, the middle of log sigma. Both
 * noises are of one path: what the whole step adds contains, in part, what its first half
 * added; `shared` is their correlation. */
void dr_solve_dpmpp_sde(dr_solver *s, int64_t i)
{
    double now = s->sigma[i], next = s->sigma[i + 1];
    dr_guess g = dr_call(s, i, s->timestep[i], now);
    if (!(next > 0 && next < now)) {
        slope(s, g.eps, now, (ancestry){ next, 0 });
        return;
    }
    double middle = sqrt(now * next), shared = sqrt((now - middle) / (now - next));
    ancestry half = ancestral(now, middle, s->eta), to = ancestral(now, next, s->eta);
    double ratio = half.down / now;
    dr_form kept = dr_times(to.down / now, dr_latents());
    kept.z = to.up * shared;
    dr_keep(s, 0, kept);
    dr_form x = dr_plus(dr_times(ratio, dr_latents()), 1 - ratio, g.x0);
    x.z = half.up;
    dr_move(s, x);
    g = dr_call(s, i, dr_timestep_at(s->cfg, middle), middle);
    x = dr_plus(dr_kept(0), 1 - to.down / now, g.x0);
    x.z = to.up * sqrt(1 - shared * shared);
    dr_move(s, x);
}
