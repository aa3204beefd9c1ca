#include "diffusion/solve.h"

#include <math.h>

dr_level dr_level_at(const dr_solver *s, double sigma)
{
    if (s->cfg->prediction == DR_PREDICT_FLOW)
        return (dr_level){ 1 - sigma, sigma };
    double a = s->sigma_space ? 1 : 1 / sqrt(sigma * sigma + 1);
    return (dr_level){ a, a * sigma };
}

int dr_order_at(const dr_solver *s, int64_t i, int order)
{
    int n = 1;
    while (n < order && i - n >= s->first && s->sigma[i - n] != s->sigma[i - n + 1])
        n++;
    return n;
}

dr_guess dr_call(dr_solver *s, int64_t i, double timestep, double sigma)
{
    double a = 1 / sqrt(sigma * sigma + 1);
    if (s->cfg->prediction == DR_PREDICT_FLOW)
        return dr_call_scaled(s, i, timestep, 1, (dr_level){ 1 - sigma, sigma });
    return dr_call_scaled(s, i, timestep, s->sigma_space ? a : 1,
                          (dr_level){ a, a * sigma });
}

/* epsilon models answer eps, v models (Salimans & Ho 2022) a * eps - b * x0, sample models
 * x0, flow models eps - x0, which is dx / dsigma like eps elsewhere and takes its place. */
dr_guess dr_call_scaled(dr_solver *s, int64_t i, double timestep, double in_scale,
                        dr_level l)
{
    dr_step *r = &s->row[s->n_rows++];
    dr_form u = { .x = in_scale }, m = { .m = 1 };
    dr_guess g = { 0 };
    switch (s->cfg->prediction) {
    case DR_PREDICT_EPSILON:
        g.x0 = dr_times(1 / l.a, dr_plus(u, -l.b, m));
        g.eps = m;
        break;
    case DR_PREDICT_V:
        g.x0 = dr_plus(dr_times(l.a, u), -l.b, m);
        g.eps = dr_plus(dr_times(l.b, u), l.a, m);
        break;
    case DR_PREDICT_SAMPLE:
        g.x0 = m;
        g.eps = dr_times(1 / l.b, dr_plus(u, -l.a, m));
        break;
    case DR_PREDICT_FLOW:
        g.x0 = dr_plus(u, -l.b, m);
        g.eps = m;
        break;
    }
    *r = (dr_step){ .step = i,
                    .timestep = timestep,
                    .in_scale = in_scale,
                    .slot = -1,
                    .denoised_x = g.x0.x,
                    .denoised_out = g.x0.m };
    return g;
}

void dr_keep(dr_solver *s, int slot, dr_form f)
{
    dr_step *r = &s->row[s->n_rows - 1];
    r->slot = slot;
    r->hist_x = f.x;
    r->hist_out = f.m;
    r->hist_noise = f.z;
}

void dr_move(dr_solver *s, dr_form f)
{
    dr_step *r = &s->row[s->n_rows - 1];
    r->x = f.x;
    r->out = f.m;
    r->noise = f.z;
    for (int k = 0; k < DR_HIST_MAX; k++)
        r->hist[k] = f.h[k];
    dr_level to = dr_level_at(s, s->sigma[r->step + 1]);
    r->to_signal = to.a;
    r->to_noise = to.b;
}
