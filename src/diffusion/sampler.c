#include "diffusion/sampler.h"

#include "diffusion/solve.h"

#include <math.h>

/* --- the table ---------------------------------------------------------------------- */

typedef enum { END_ZERO, END_FINAL_SIGMA, END_SET_ALPHA } end_rule;

typedef struct {
    const char *name, *label, *paper;
    void (*solve)(dr_solver *s, int64_t i);
    bool sigma_space; /* x = x0 + sigma eps, else x = a x0 + b eps */
    end_rule end;     /* what decides the last sigma */
    double eta;       /* unless asked otherwise; NAN: the sampler takes none */
    dr_level_rule levels;
} sampler_row;

static const sampler_row samplers[DR_SAMPLERS] = {
    [DR_SAMPLER_DEFAULT] = { .name = "default", .label = "Default" },
    [DR_SAMPLER_DDIM] = { "ddim",
                          "DDIM",
                          "Song et al. 2020, arXiv:2010.02502",
                          dr_solve_ddim,
                          false,
                          END_SET_ALPHA,
                          0,
                          { .spacing = DR_SPACING_LEADING, .whole_linspace = true } },
    [DR_SAMPLER_EULER] = { "euler",
                           "Euler",
                           "Karras et al. 2022, arXiv:2206.00364",
                           dr_solve_euler,
                           true,
                           END_FINAL_SIGMA,
                           NAN,
                           { .spacing = DR_SPACING_LINSPACE } },
    [DR_SAMPLER_EULER_A] = { "euler_a",
                             "Euler a",
                             "Karras et al. 2022, arXiv:2206.00364",
                             dr_solve_euler_a,
                             true,
                             END_ZERO,
                             1,
                             { .spacing = DR_SPACING_LINSPACE } },
    [DR_SAMPLER_DPMPP_2M] = { "dpmpp_2m",
                              "DPM++ 2M",
                              "Lu et al. 2022, arXiv:2211.01095",
                              dr_solve_dpmpp_2m,
                              false,
                              END_FINAL_SIGMA,
                              NAN,
                              { .spacing = DR_SPACING_LINSPACE,
                                .extra = 1,
                                .whole_linspace = true,
                                .karras_all = true,
                                .karras_whole = true } },
};

const char *dr_sampler_label(dr_sampler_id id)
{
    return samplers[id].label;
}

static double last_sigma(const dr_schedule_config *cfg, end_rule end)
{
    bool zero =
        end == END_ZERO ||
        (end == END_SET_ALPHA ? cfg->set_alpha_to_one : cfg->final_sigma == DR_FINAL_ZERO);
    return zero ? 0 : cfg->sigma[0];
}

/* Sigma-space samplers start from noise at the first level; leading spacing starts below
 * the noisiest level and makes up for the missing signal's variance. */
static double init_noise(const dr_solver *q, const sampler_row *s)
{
    dr_spacing spacing = q->cfg->spacing ? q->cfg->spacing : s->levels.spacing;
    if (!s->sigma_space)
        return 1;
    return spacing == DR_SPACING_LEADING ? sqrt(q->sigma[0] * q->sigma[0] + 1)
                                         : q->sigma[0];
}

static bool finite_row(const dr_step *r)
{
    double sum = r->x + r->out + r->noise + r->hist_x + r->hist_out + r->hist_noise +
                 r->denoised_x + r->denoised_out;
    for (int k = 0; k < DR_HIST_MAX; k++)
        sum += r->hist[k];
    return isfinite(sum);
}

bool dr_step_draws(const dr_step *row)
{
    return row->noise != 0 || row->hist_noise != 0;
}

int64_t dr_steps_done(const dr_steps *s, int64_t rows)
{
    return rows < s->count ? s->row[rows].step : s->steps;
}

static dr_status make_rows(dr_steps *out, dr_solver *q, dr_err *err)
{
    const sampler_row *s = &samplers[out->sampler];
    for (int64_t i = q->first; i < q->steps; i++)
        s->solve(q, i);
    for (int64_t i = 0; i < q->n_rows; i++) {
        const dr_step *r = &q->row[i];
        if (!finite_row(r))
            return dr_fail(
                err, DR_EMODEL,
                "sampler %s: step %lld at timestep %g is undefined for this model's "
                "noise schedule; take another sampler",
                s->name, (long long)r->step, r->timestep);
        out->uses_noise |= dr_step_draws(r);
        if (r->slot >= out->n_hist)
            out->n_hist = r->slot + 1;
    }
    out->count = q->n_rows;
    out->row = q->row;
    return DR_OK;
}

static dr_status check_ask(const dr_schedule_ask *ask, dr_err *err)
{
    if (ask->steps < 1 || ask->steps > DR_STEPS_MAX)
        return dr_fail_field(err, DR_EINVAL, "steps", "steps %lld: must be 1..%d",
                             (long long)ask->steps, DR_STEPS_MAX);
    if (!isnan(ask->eta) && !(ask->eta >= 0 && ask->eta <= 1))
        return dr_fail_field(err, DR_EINVAL, "eta", "eta %g: must be 0..1", ask->eta);
    return DR_OK;
}

dr_status dr_schedule_make(dr_steps *out, dr_arena *mem, const dr_schedule_config *cfg,
                           const dr_schedule_ask *ask, dr_err *err)
{
    dr_steps made = { .sampler = ask->sampler ? ask->sampler : cfg->sampler,
                      .schedule = ask->schedule ? ask->schedule : cfg->schedule,
                      .steps = ask->steps,
                      .first = ask->first };
    const sampler_row *s = &samplers[made.sampler];
    dr_status st = check_ask(ask, err);
    if (st)
        return st;
    if (!isnan(s->eta))
        made.eta = isnan(ask->eta) ? s->eta : ask->eta;

    size_t n = (size_t)made.steps;
    dr_step *rows = dr_arena_alloc(mem, (2 * n + 1) * sizeof *rows);
    double *sigma = dr_arena_alloc(mem, (n + 1) * sizeof *sigma);
    double *timestep = dr_arena_alloc(mem, n * sizeof *timestep);
    if (!rows || !sigma || !timestep)
        return dr_fail(err, DR_ENOMEM, "out of memory for %zu sampler steps", n);
    dr_solver q = { .cfg = cfg,
                    .timestep = timestep,
                    .sigma = sigma,
                    .steps = made.steps,
                    .first = made.first,
                    .listed = made.schedule == DR_SCHEDULE_KARRAS,
                    .eta = made.eta,
                    .sigma_space = s->sigma_space,
                    .row = rows };
    st = dr_schedule_levels(timestep, sigma, cfg, &s->levels, q.listed, made.steps, err);
    if (st)
        return st;
    sigma[n] = last_sigma(cfg, s->end);
    dr_level start = dr_level_at(&q, sigma[made.first]);
    made.init_noise_sigma = init_noise(&q, s);
    made.start_signal = start.a;
    made.start_noise = start.b;
    made.sigma = sigma;
    if (!(st = make_rows(&made, &q, err)))
        *out = made;
    return st;
}
