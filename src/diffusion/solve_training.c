#include "diffusion/solve.h"

#include <math.h>

/* Samplers that walk along training steps: alpha_bar before and after decides a step. */

/* alpha_bar now and next. */
typedef struct {
    double now, next;
} pair;

static double bar_of(double sigma)
{
    return 1 / (1 + sigma * sigma);
}

/* alpha_bar of training step t, `last` beyond the clean end. */
static double bar_at(const dr_solver *s, int64_t t, double last)
{
    const dr_schedule_config *cfg = s->cfg;
    int64_t top = cfg->train_steps - 1;
    return t < 0 ? last : cfg->alpha_bar[t < top ? t : top];
}

static double bar_now(const dr_solver *s, int64_t i)
{
    return s->listed ? bar_of(s->sigma[i]) : bar_at(s, (int64_t)s->timestep[i], 1);
}

/* Unless levels are listed, "next" is a fixed distance in training steps, whatever the
 * spacing; after the last it is `last`. */
static pair bars(const dr_solver *s, int64_t i, double last)
{
    if (s->listed)
        return (pair){ bar_of(s->sigma[i]), bar_of(s->sigma[i + 1]) };
    int64_t t = (int64_t)s->timestep[i];
    return (pair){ bar_at(s, t, last),
                   bar_at(s, t - s->cfg->train_steps / s->steps, last) };
}

static dr_guess call(dr_solver *s, int64_t i, int64_t at, double bar)
{
    return dr_call_scaled(s, i, s->timestep[at], 1, (dr_level){ sqrt(bar), sqrt(1 - bar) });
}

/* DDIM (Song et al. 2020), equations 12 and 16:
 * x' = sqrt(a') x0 + sqrt(1 - a' - d²) eps + d z, d = eta sqrt((1-a')/(1-a) (1 - a/a')),
 * a and a' being alpha_bar now and next. */
void dr_solve_ddim(dr_solver *s, int64_t i)
{
    pair p = bars(s, i, s->cfg->set_alpha_to_one ? 1 : s->cfg->alpha_bar[0]);
    dr_guess g = call(s, i, i, p.now);
    double d = s->eta * sqrt(fmax((1 - p.next) / (1 - p.now) * (1 - p.now / p.next), 0));
    dr_form next = dr_times(sqrt(p.next), g.x0);
    next = dr_plus(next, sqrt(fmax(1 - p.next - d * d, 0)), g.eps);
    next.z = d;
    dr_move(s, next);
}

/* DDPM (Ho et al. 2020), equations 6 and 7, over distances of more than one training step:
 * the posterior's mean, and its variance or, large, beta. */
void dr_solve_ddpm(dr_solver *s, int64_t i)
{
    pair p = bars(s, i, 1);
    dr_guess g = call(s, i, i, p.now);
    double alpha = p.now / p.next, beta = 1 - alpha, left = (1 - p.next) / (1 - p.now);
    dr_form next = dr_times(sqrt(p.next) * beta / (1 - p.now), g.x0);
    next = dr_plus(next, sqrt(alpha) * left, dr_latents());
    if (s->timestep[i] > 0 && s->sigma[i + 1] < s->sigma[i])
        next.z = sqrt(fmax(s->cfg->large_variance ? beta : left * beta, 0));
    dr_move(s, next);
}

/* --- PNDM ------------------------------------------------------------------------------
 */

/* x' = x * x_ + m * m_ for a model output m_. */
typedef struct {
    double x, m;
} transfer;

/* Equation 11 of Liu et al. 2022, which is DDIM's step. */
static transfer transfer_of(const dr_solver *s, pair p)
{
    double a = sqrt(p.now), b = sqrt(1 - p.now), x = sqrt(p.next / p.now);
    double eps = sqrt(1 - p.next) - x * b;
    switch (s->cfg->prediction) {
    case DR_PREDICT_V:
        return (transfer){ x + eps * b, eps * a };
    case DR_PREDICT_SAMPLE:
        return (transfer){ x + eps / b, -eps * a / b };
    default:
        return (transfer){ x, eps };
    }
}

/* The first step is taken twice: with the output at its end, the mean of both is a better
 * one. x before it need not be kept, as x' tells it. */
static void again(dr_solver *s, int64_t i, transfer t, double last)
{
    pair p = bars(s, i, last);
    if (!s->listed) {
        int64_t end = (int64_t)s->timestep[i + 1];
        p.now = bar_at(s, end + s->cfg->train_steps / s->steps, last);
        p.next = bar_at(s, end, last);
    }
    transfer u = transfer_of(s, p);
    call(s, i, i + 1, bar_now(s, i + 1));
    dr_form x = dr_times(1 / t.x, dr_plus(dr_latents(), -t.m, dr_kept(0)));
    dr_form mean = dr_times(0.5, dr_plus((dr_form){ .m = 1 }, 1, dr_kept(0)));
    dr_move(s, dr_plus(dr_times(u.x, x), u.m, mean));
}

/* PNDM without Runge-Kutta steps (Liu et al. 2022, arXiv:2202.09778), also called PLMS:
 * Adams-Bashforth of the model's outputs in DDIM's step; a ring keeps three of them. */
void dr_solve_pndm(dr_solver *s, int64_t i)
{
    static const double weights[4][4] = { { 1 },
                                          { 3. / 2, -1. / 2 },
                                          { 23. / 12, -16. / 12, 5. / 12 },
                                          { 55. / 24, -59. / 24, 37. / 24, -9. / 24 } };
    int64_t behind = i - s->first;
    int order = behind < 3 ? (int)behind : 3;
    double last = s->cfg->pndm_alpha_to_one ? 1 : s->cfg->alpha_bar[0];
    pair p = bars(s, i, last);
    transfer t = transfer_of(s, p);
    call(s, i, i, p.now);
    dr_form out = { .m = weights[order][0] };
    for (int j = 1; j <= order; j++)
        out = dr_plus(out, weights[order][j], dr_kept((int)((behind - j) % 3)));
    dr_keep(s, (int)(behind % 3), (dr_form){ .m = 1 });
    dr_move(s, dr_plus(dr_times(t.x, dr_latents()), t.m, out));
    if (behind == 0 && i + 1 < s->steps)
        again(s, i, t, last);
}

/* --- distilled models ------------------------------------------------------------------
 */

/* Multistep consistency sampling (Luo et al. 2023, "Latent Consistency Models", algorithm
 * 3): jump to the picture, noise it to the next level. */
void dr_solve_lcm(dr_solver *s, int64_t i)
{
    const double data = 0.5; /* sigma of the data in the boundary conditions */
    double scaled = s->timestep[i] * s->cfg->timestep_scaling;
    double both = scaled * scaled + data * data;
    dr_guess g = call(s, i, i, bar_now(s, i));
    dr_form x = dr_times(scaled / sqrt(both), g.x0);
    x = dr_plus(x, data * data / both, dr_latents());
    if (i + 1 < s->steps) {
        double next = bar_now(s, i + 1);
        x = dr_times(sqrt(next), x);
        x.z = sqrt(1 - next);
    }
    dr_move(s, x);
}

/* Trajectory consistency (Zheng et al. 2024, arXiv:2402.19159, algorithm 4 with gamma =
 * eta): jump to (1 - eta) of the next timestep, noise back up to it. */
void dr_solve_tcd(dr_solver *s, int64_t i)
{
    bool final = i + 1 == s->steps;
    float t = final ? 0 : (float)s->timestep[i + 1]; /* as diffusers rounds */
    double next = final ? s->cfg->alpha_bar[0] : bar_now(s, i + 1);
    double target = bar_at(s, (int64_t)floorf((float)(1 - s->eta) * t), 1);
    dr_guess g = call(s, i, i, bar_now(s, i));
    dr_form x = dr_plus(dr_times(sqrt(target), g.x0), sqrt(1 - target), g.eps);
    if (s->eta > 0 && !final) {
        x = dr_times(sqrt(next / target), x);
        x.z = sqrt(fmax(1 - next / target, 0));
    }
    dr_move(s, x);
}
