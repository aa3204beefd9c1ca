#include "diffusion/sampler.h"

#include "diffusion/solve.h"

#include <math.h>

/* --- the table ---------------------------------------------------------------------- */

typedef enum {
    END_ZERO,
    END_FINAL_SIGMA, /* by final_sigmas_type */
    END_SET_ALPHA,   /* by set_alpha_to_one */
    END_SET_ALPHA_PNDM,
    END_SIGMA_MIN
} end_rule;

typedef struct {
    const char *name, *label, *paper;
    dr_solve *solve;
    end_rule end; /* what decides the last sigma */
    double eta;   /* unless asked otherwise; NAN: the sampler takes none */
    dr_level_rule levels;
    bool sigma_space; /* x = x0 + sigma eps, else x = a x0 + b eps */
    bool flow;        /* also for flow models */
} sampler_row;

/* Level rules of diffusers' scheduler classes and of k-diffusion. */
#define BY_SIGMA                                                                           \
    {                                                                                      \
        .spacing = DR_SPACING_LINSPACE                                                     \
    }
#define BY_SIGMA_WHOLE                                                                     \
    {                                                                                      \
        .spacing = DR_SPACING_LINSPACE, .karras_whole = true                               \
    }
#define BY_K                                                                               \
    {                                                                                      \
        .spacing = DR_SPACING_LINSPACE, .karras_all = true, .one_noisy = true              \
    }
#define BY_LAMBDA                                                                          \
    {                                                                                      \
        .spacing = DR_SPACING_LINSPACE, .extra = 1, .whole_linspace = true,                \
        .karras_all = true, .karras_whole = true                                           \
    }
#define BY_TRAINING                                                                        \
    {                                                                                      \
        .spacing = DR_SPACING_LEADING, .whole_linspace = true                              \
    }
#define DISTILLED                                                                          \
    {                                                                                      \
        .spacing = DR_SPACING_LEADING, .whole_linspace = true, .distilled = true           \
    }

#define KARRAS "Karras et al. 2022, arXiv:2206.00364"
#define LU     "Lu et al. 2022, arXiv:2211.01095"

static const sampler_row samplers[DR_SAMPLERS] = {
    /* clang-format off */
    [DR_SAMPLER_DEFAULT] = { .name = "default", .label = "Default" },
    [DR_SAMPLER_DDIM] = { "ddim", "DDIM", "Song et al. 2020, arXiv:2010.02502",
        dr_solve_ddim, END_SET_ALPHA, 0, BY_TRAINING, false, false },
    [DR_SAMPLER_EULER] = { "euler", "Euler", KARRAS,
        dr_solve_euler, END_FINAL_SIGMA, NAN, BY_SIGMA, true, true },
    [DR_SAMPLER_EULER_A] = { "euler_a", "Euler a", KARRAS,
        dr_solve_euler_a, END_ZERO, 1, BY_SIGMA, true, false },
    [DR_SAMPLER_DPMPP_2M] = { "dpmpp_2m", "DPM++ 2M", LU,
        dr_solve_dpmpp_2m, END_FINAL_SIGMA, NAN, BY_LAMBDA, false, false },
    [DR_SAMPLER_HEUN] = { "heun", "Heun", KARRAS,
        dr_solve_heun, END_ZERO, NAN, BY_SIGMA, true, true },
    [DR_SAMPLER_DPM_2] = { "dpm_2", "DPM2", KARRAS,
        dr_solve_dpm_2, END_ZERO, NAN, BY_SIGMA_WHOLE, true, true },
    [DR_SAMPLER_DPM_2_A] = { "dpm_2_a", "DPM2 a", KARRAS,
        dr_solve_dpm_2_a, END_ZERO, 1, BY_SIGMA_WHOLE, true, false },
    [DR_SAMPLER_LMS] = { "lms", "LMS", KARRAS,
        dr_solve_lms, END_ZERO, NAN, BY_SIGMA, true, true },
    [DR_SAMPLER_DPMPP_2S_A] = { "dpmpp_2s_a", "DPM++ 2S a", LU,
        dr_solve_dpmpp_2s_a, END_ZERO, 1, BY_K, true, false },
    [DR_SAMPLER_DPMPP_SDE] = { "dpmpp_sde", "DPM++ SDE", LU,
        dr_solve_dpmpp_sde, END_ZERO, 1, BY_K, true, false },
    [DR_SAMPLER_DPMPP_2M_SDE] = { "dpmpp_2m_sde", "DPM++ 2M SDE", LU,
        dr_solve_dpmpp_2m_sde, END_FINAL_SIGMA, 1, BY_LAMBDA, false, false },
    [DR_SAMPLER_DPMPP_3M_SDE] = { "dpmpp_3m_sde", "DPM++ 3M SDE", LU,
        dr_solve_dpmpp_3m_sde, END_ZERO, 1, BY_K, true, false },
    [DR_SAMPLER_DDPM] = { "ddpm", "DDPM", "Ho et al. 2020, arXiv:2006.11239",
        dr_solve_ddpm, END_ZERO, NAN, BY_TRAINING, false, false },
    [DR_SAMPLER_PNDM] = { "pndm", "PLMS", "Liu et al. 2022, arXiv:2202.09778",
        dr_solve_pndm, END_SET_ALPHA_PNDM, NAN, BY_TRAINING, false, false },
    [DR_SAMPLER_UNI_PC] = { "uni_pc", "UniPC", "Zhao et al. 2023, arXiv:2302.04867",
        dr_solve_uni_pc, END_FINAL_SIGMA, NAN, BY_LAMBDA, false, false },
    [DR_SAMPLER_DEIS] = { "deis", "DEIS", "Zhang & Chen 2022, arXiv:2204.13902",
        dr_solve_deis, END_SIGMA_MIN, NAN, BY_LAMBDA, false, false },
    [DR_SAMPLER_LCM] = { "lcm", "LCM", "Luo et al. 2023, arXiv:2310.04378",
        dr_solve_lcm, END_ZERO, NAN, DISTILLED, false, false },
    [DR_SAMPLER_TCD] = { "tcd", "TCD", "Zheng et al. 2024, arXiv:2402.19159",
        dr_solve_tcd, END_SIGMA_MIN, 0.3, DISTILLED, false, false },
    /* clang-format on */
};

const char *dr_sampler_label(dr_sampler_id id)
{
    return samplers[id].label;
}

static double last_sigma(const dr_schedule_config *cfg, end_rule end)
{
    bool zero[] = { [END_ZERO] = true,
                    [END_FINAL_SIGMA] = cfg->final_sigma == DR_FINAL_ZERO,
                    [END_SET_ALPHA] = cfg->set_alpha_to_one,
                    [END_SET_ALPHA_PNDM] = cfg->pndm_alpha_to_one,
                    [END_SIGMA_MIN] = false };
    return zero[end] || cfg->prediction == DR_PREDICT_FLOW ? 0 : cfg->sigma[0];
}

/* Sigma-space samplers start from noise at the first level; leading spacing starts below
 * the noisiest level and makes up for the missing signal's variance. */
static double init_noise(const dr_solver *q, const sampler_row *s)
{
    dr_spacing spacing = q->cfg->spacing ? q->cfg->spacing : s->levels.spacing;
    if (!s->sigma_space || q->cfg->prediction == DR_PREDICT_FLOW)
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

int64_t dr_first_step(int64_t steps, double strength)
{
    int64_t run = (int64_t)((double)steps * strength);
    return steps - (run < steps ? run : steps);
}

/* --- asking -------------------------------------------------------------------------- */

/* The ask as levels: a list counts for the schedule and the steps. */
static dr_status resolve(dr_level_ask *out, const dr_schedule_ask *ask,
                         const dr_schedule_config *cfg, dr_err *err)
{
    int64_t n = 0;
    const char *field = ask->n_sigmas ? "sigmas" : "timesteps";
    *out = (dr_level_ask){ .schedule = ask->schedule ? ask->schedule : cfg->schedule,
                           .steps = ask->steps,
                           .tokens = ask->tokens };
    if (ask->n_sigmas && ask->n_timesteps)
        return dr_fail_field(err, DR_EINVAL, "sigmas",
                             "sigmas and timesteps: give one of them");
    if (ask->n_sigmas) {
        out->sigmas = ask->sigmas;
        n = ask->n_sigmas - (ask->sigmas[ask->n_sigmas - 1] == 0);
    } else if (ask->n_timesteps) {
        out->timesteps = ask->timesteps;
        n = ask->n_timesteps;
    } else if (out->schedule == DR_SCHEDULE_CUSTOM) {
        return dr_fail_field(err, DR_EINVAL, "schedule",
                             "schedule custom: needs sigmas or timesteps");
    } else {
        return DR_OK;
    }
    if (n < 1)
        return dr_fail_field(err, DR_EINVAL, field, "%s: no level above 0", field);
    if (ask->steps && ask->steps != n)
        return dr_fail_field(err, DR_EINVAL, "steps",
                             "steps %lld: %s has %lld; leave steps out",
                             (long long)ask->steps, field, (long long)n);
    out->schedule = DR_SCHEDULE_CUSTOM;
    out->steps = n;
    return DR_OK;
}

static dr_status check(const dr_schedule_ask *ask, const dr_level_ask *levels,
                       const dr_schedule_config *cfg, dr_sampler_id id, dr_err *err)
{
    if (levels->steps < 1 || levels->steps > DR_STEPS_MAX)
        return dr_fail_field(err, DR_EINVAL, "steps", "steps %lld: must be 1..%d",
                             (long long)levels->steps, DR_STEPS_MAX);
    if (ask->first < 0 || ask->first >= levels->steps)
        return dr_fail_field(err, DR_EINVAL, "strength",
                             "strength: runs none of %lld steps; must be at least %.3g",
                             (long long)levels->steps, 1 / (double)levels->steps);
    if (!isnan(ask->eta) && !(ask->eta >= 0 && ask->eta <= 1))
        return dr_fail_field(err, DR_EINVAL, "eta", "eta %g: must be 0..1", ask->eta);
    if (cfg->prediction == DR_PREDICT_FLOW && !samplers[id].flow)
        return dr_fail_field(err, DR_EINVAL, "sampler",
                             "sampler %s: not for flow models; take euler, heun, dpm_2 or "
                             "lms",
                             samplers[id].name);
    return DR_OK;
}

dr_status dr_schedule_make(dr_steps *out, dr_arena *mem, const dr_schedule_config *cfg,
                           const dr_schedule_ask *ask, dr_err *err)
{
    dr_level_ask levels;
    dr_steps made = { .sampler = ask->sampler ? ask->sampler : cfg->sampler,
                      .first = ask->first };
    const sampler_row *s = &samplers[made.sampler];
    dr_status st = resolve(&levels, ask, cfg, err);
    if (st || (st = check(ask, &levels, cfg, made.sampler, err)))
        return st;
    made.schedule = levels.schedule;
    made.steps = levels.steps;
    if (!isnan(s->eta))
        made.eta = isnan(ask->eta) ? s->eta : ask->eta;

    size_t n = (size_t)made.steps;
    dr_step *rows = dr_arena_alloc(mem, (2 * n + 1) * sizeof *rows);
    double *sigma = dr_arena_alloc(mem, (n + 1) * sizeof *sigma);
    double *timestep = dr_arena_alloc(mem, n * sizeof *timestep);
    if (!rows || !sigma || !timestep)
        return dr_fail(err, DR_ENOMEM, "out of memory for %zu sampler steps", n);
    if ((st = dr_schedule_levels(timestep, sigma, cfg, &s->levels, &levels, err)))
        return st;
    sigma[n] = last_sigma(cfg, s->end);
    dr_solver q = { .cfg = cfg,
                    .timestep = timestep,
                    .sigma = sigma,
                    .steps = made.steps,
                    .first = made.first,
                    .listed = made.schedule != DR_SCHEDULE_NORMAL,
                    .eta = made.eta,
                    .sigma_space = s->sigma_space,
                    .row = rows };
    dr_level start = dr_level_at(&q, sigma[made.first]);
    made.init_noise_sigma = init_noise(&q, s);
    made.start_signal = start.a;
    made.start_noise = start.b;
    made.sigma = sigma;
    if (!(st = make_rows(&made, &q, err)))
        *out = made;
    return st;
}
