#include "diffusion/solve.h"

#include <math.h>

/* Samplers that walk along training steps: alpha_bar before and after decides a step. */

/* alpha_bar now and next. Unless levels are listed, "next" is a fixed distance in training
 * steps, whatever the spacing; after the last it is `last`. */
typedef struct {
    double now, next;
} pair;

static double bar_of(double sigma)
{
    return 1 / (1 + sigma * sigma);
}

static pair bars(const dr_solver *s, int64_t i, double last)
{
    const dr_schedule_config *cfg = s->cfg;
    if (s->listed)
        return (pair){ bar_of(s->sigma[i]), bar_of(s->sigma[i + 1]) };
    int64_t t = (int64_t)s->timestep[i], next = t - cfg->train_steps / s->steps;
    return (pair){ cfg->alpha_bar[t < cfg->train_steps ? t : cfg->train_steps - 1],
                   next >= 0 ? cfg->alpha_bar[next] : last };
}

static dr_guess call(dr_solver *s, int64_t i, double bar)
{
    return dr_call_scaled(s, i, s->timestep[i], 1, (dr_level){ sqrt(bar), sqrt(1 - bar) });
}

/* DDIM (Song et al. 2020), equations 12 and 16:
 * x' = sqrt(a') x0 + sqrt(1 - a' - d²) eps + d z, d = eta sqrt((1-a')/(1-a) (1 - a/a')),
 * a and a' being alpha_bar now and next. */
void dr_solve_ddim(dr_solver *s, int64_t i)
{
    pair p = bars(s, i, s->cfg->set_alpha_to_one ? 1 : s->cfg->alpha_bar[0]);
    dr_guess g = call(s, i, p.now);
    double d = s->eta * sqrt(fmax((1 - p.next) / (1 - p.now) * (1 - p.now / p.next), 0));
    dr_form next = dr_times(sqrt(p.next), g.x0);
    next = dr_plus(next, sqrt(fmax(1 - p.next - d * d, 0)), g.eps);
    next.z = d;
    dr_move(s, next);
}
