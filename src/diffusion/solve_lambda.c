#include "diffusion/solve.h"

#include <math.h>

/* Multistep samplers that walk along lambda = ln (a / b) = -ln sigma, x = a x0 + b eps. */

/* DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2, midpoint). With h =
 * lambda' - lambda and r = h_before / h:
 * x' = (b'/b) x + a' (1 - e^-h) (D + (D - D_before) / (2 r)), D the predicted x0. The
 * memory is D; a first-order step takes D alone. */
void dr_solve_dpmpp_2m(dr_solver *s, int64_t i)
{
    const dr_schedule_config *cfg = s->cfg;
    double now = s->sigma[i], next = s->sigma[i + 1];
    dr_level from = dr_level_at(s, now), to = dr_level_at(s, next);
    bool final =
        i == s->steps - 1 &&
        (cfg->euler_at_final || (cfg->lower_order_final && s->steps < 15) || next == 0);
    dr_guess g = dr_call(s, i, s->timestep[i], now);
    dr_form x0 = g.x0;
    if (i > s->first && !final && cfg->solver_order == 2 && s->sigma[i - 1] != now) {
        double mix = 0.5 * log(now / next) / log(s->sigma[i - 1] / now); /* 1 / (2 r) */
        x0 = dr_plus(dr_times(1 + mix, x0), -mix, dr_kept(0));
    }
    dr_keep(s, 0, g.x0);
    dr_move(s, dr_plus(dr_times(to.b / from.b, dr_latents()), to.a * (1 - next / now), x0));
}
