#include "diffusion/sampler.h"

#include <math.h>

/* What a row is built from. */
typedef struct {
    const dr_schedule_config *cfg;
    const double *timestep, *sigma; /* [steps], [steps + 1] */
    int64_t steps;
    bool karras;
    double eta;
} request;

/* The noise in x as the model predicts it: eps = x * x_ + out * m. */
typedef struct {
    double x, out;
} noise_term;

/* --- the model's prediction --------------------------------------------------------- */

/* Set r's denoised terms and return the noise terms. The model sees u = in_scale * x =
 * a * x0 + b * eps with a² + b² = 1; epsilon models answer eps, v models (Salimans & Ho
 * 2022) a * eps - b * x0, sample models x0. */
static noise_term predict(dr_step *r, dr_prediction kind, double a, double b)
{
    double s = r->in_scale;
    switch (kind) {
    case DR_PREDICT_EPSILON:
        r->denoised_x = s / a;
        r->denoised_out = -b / a;
        return (noise_term){ 0, 1 };
    case DR_PREDICT_V:
        r->denoised_x = a * s;
        r->denoised_out = -b;
        return (noise_term){ b * s, a };
    default:
        r->denoised_x = 0;
        r->denoised_out = 1;
        return (noise_term){ s / b, -a / b };
    }
}

/* --- one row of each sampler -------------------------------------------------------- */

/* DDIM (Song et al. 2020), equations 12 and 16:
 * x' = sqrt(a') x0 + sqrt(1 - a' - d²) eps + d z, d = eta sqrt((1-a')/(1-a) (1 - a/a')),
 * a and a' being alpha_bar now and next. Without karras, "next" is a fixed distance in
 * training steps, whatever the spacing. */
static void ddim_row(dr_step *r, const request *q, int64_t i)
{
    const dr_schedule_config *cfg = q->cfg;
    double a = 1 / (1 + q->sigma[i] * q->sigma[i]);
    double next = 1 / (1 + q->sigma[i + 1] * q->sigma[i + 1]);
    if (!q->karras) {
        int64_t t = (int64_t)q->timestep[i], t_next = t - cfg->train_steps / q->steps;
        a = cfg->alpha_bar[t < cfg->train_steps ? t : cfg->train_steps - 1];
        next = t_next >= 0             ? cfg->alpha_bar[t_next]
               : cfg->set_alpha_to_one ? 1
                                       : cfg->alpha_bar[0];
    }
    r->in_scale = 1;
    noise_term eps = predict(r, cfg->prediction, sqrt(a), sqrt(1 - a));
    r->noise = q->eta * sqrt(fmax((1 - next) / (1 - a) * (1 - a / next), 0));
    double signal = sqrt(next), direction = sqrt(fmax(1 - next - r->noise * r->noise, 0));
    r->x = signal * r->denoised_x + direction * eps.x;
    r->out = signal * r->denoised_out + direction * eps.out;
}

/* x' = x + (to - sigma) eps, for x = x0 + sigma eps. */
static void euler_to(dr_step *r, const request *q, double sigma, double to)
{
    r->in_scale = 1 / sqrt(sigma * sigma + 1);
    noise_term eps = predict(r, q->cfg->prediction, r->in_scale, sigma * r->in_scale);
    r->x = 1 + (to - sigma) * eps.x;
    r->out = (to - sigma) * eps.out;
}

/* Algorithm 2 of Karras et al. 2022 without churn and second-order correction. */
static void euler_row(dr_step *r, const request *q, int64_t i)
{
    euler_to(r, q, q->sigma[i], q->sigma[i + 1]);
}

/* The same, to below the next level, and fresh noise up to it: eta 1 of DDIM's family
 * (Song et al. 2020, equation 16) in terms of sigma. */
static void euler_a_row(dr_step *r, const request *q, int64_t i)
{
    double s = q->sigma[i], next = q->sigma[i + 1];
    double up = sqrt(fmax(next * next * (s * s - next * next) / (s * s), 0));
    euler_to(r, q, s, sqrt(fmax(next * next - up * up, 0)));
    r->noise = up;
}

/* DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2, midpoint). With lambda =
 * -ln sigma, h = lambda' - lambda and r = h_before / h:
 * x' = (b'/b) x + a' (1 - e^-h) (D + (D - D_before) / (2 r)), D the predicted x0. The
 * memory is D; a first-order step takes D alone. */
static void dpmpp_2m_row(dr_step *r, const request *q, int64_t i)
{
    const dr_schedule_config *cfg = q->cfg;
    double s = q->sigma[i], next = q->sigma[i + 1];
    double a = 1 / sqrt(s * s + 1), a_next = 1 / sqrt(next * next + 1);
    bool final =
        i == q->steps - 1 &&
        (cfg->euler_at_final || (cfg->lower_order_final && q->steps < 15) || next == 0);
    double mix = 0; /* 1 / (2 r) */
    if (i > 0 && !final && cfg->solver_order == 2 && q->sigma[i - 1] != s)
        mix = 0.5 * log(s / next) / log(q->sigma[i - 1] / s);
    double weight = a_next * (1 - next / s);
    r->in_scale = 1;
    predict(r, cfg->prediction, a, s * a);
    r->hist_x = r->denoised_x;
    r->hist_out = r->denoised_out;
    r->x = next * a_next / (s * a) + weight * (1 + mix) * r->denoised_x;
    r->out = weight * (1 + mix) * r->denoised_out;
    r->hist = -weight * mix;
}

/* --- the table ---------------------------------------------------------------------- */

typedef enum { END_ZERO, END_FINAL_SIGMA, END_SET_ALPHA } end_rule;

typedef struct {
    const char *name, *label, *paper;
    void (*row)(dr_step *r, const request *q, int64_t i); /* r is zero but for timestep */
    bool sigma_space; /* x = x0 + sigma eps, else x = a x0 + b eps */
    end_rule end;     /* what decides the last sigma */
    dr_level_rule levels;
} sampler_row;

static const sampler_row samplers[DR_SAMPLERS] = {
    [DR_SAMPLER_DEFAULT] = { .name = "default", .label = "Default" },
    [DR_SAMPLER_DDIM] = { "ddim",
                          "DDIM",
                          "Song et al. 2020, arXiv:2010.02502",
                          ddim_row,
                          false,
                          END_SET_ALPHA,
                          { .spacing = DR_SPACING_LEADING, .whole_linspace = true } },
    [DR_SAMPLER_EULER] = { "euler",
                           "Euler",
                           "Karras et al. 2022, arXiv:2206.00364",
                           euler_row,
                           true,
                           END_FINAL_SIGMA,
                           { .spacing = DR_SPACING_LINSPACE } },
    [DR_SAMPLER_EULER_A] = { "euler_a",
                             "Euler a",
                             "Karras et al. 2022, arXiv:2206.00364",
                             euler_a_row,
                             true,
                             END_ZERO,
                             { .spacing = DR_SPACING_LINSPACE } },
    [DR_SAMPLER_DPMPP_2M] = { "dpmpp_2m",
                              "DPM++ 2M",
                              "Lu et al. 2022, arXiv:2211.01095",
                              dpmpp_2m_row,
                              false,
                              END_FINAL_SIGMA,
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
static double init_noise(const request *q, const sampler_row *s)
{
    dr_spacing spacing = q->cfg->spacing ? q->cfg->spacing : s->levels.spacing;
    if (!s->sigma_space)
        return 1;
    return spacing == DR_SPACING_LEADING ? sqrt(q->sigma[0] * q->sigma[0] + 1)
                                         : q->sigma[0];
}

static bool finite_row(const dr_step *r)
{
    return isfinite(r->x + r->out + r->hist + r->noise + r->hist_x + r->hist_out +
                    r->denoised_x + r->denoised_out);
}

static dr_status make_rows(dr_steps *out, dr_step *rows, const request *q, dr_err *err)
{
    const sampler_row *s = &samplers[out->sampler];
    for (int64_t i = 0; i < q->steps; i++) {
        rows[i].timestep = q->timestep[i];
        s->row(&rows[i], q, i);
        if (!finite_row(&rows[i]))
            return dr_fail(
                err, DR_EMODEL,
                "sampler %s: step %lld at timestep %g is undefined for this model's "
                "noise schedule; take another sampler",
                s->name, (long long)i, rows[i].timestep);
        out->uses_noise |= rows[i].noise != 0;
        out->uses_hist |= rows[i].hist != 0;
    }
    return DR_OK;
}

dr_status dr_schedule_make(dr_steps *out, dr_arena *mem, const dr_schedule_config *cfg,
                           dr_sampler_id sampler, dr_schedule_id schedule, int64_t steps,
                           double eta, dr_err *err)
{
    dr_steps made = { .sampler = sampler ? sampler : cfg->sampler,
                      .schedule = schedule ? schedule : cfg->schedule,
                      .count = steps };
    const sampler_row *s = &samplers[made.sampler];
    if (steps < 1 || steps > DR_STEPS_MAX)
        return dr_fail_field(err, DR_EINVAL, "steps", "steps %lld: must be 1..%d",
                             (long long)steps, DR_STEPS_MAX);
    eta = isnan(eta) ? 0 : eta;
    if (!(eta >= 0 && eta <= 1))
        return dr_fail_field(err, DR_EINVAL, "eta", "eta %g: must be 0..1", eta);

    size_t n = (size_t)steps;
    dr_step *rows = dr_arena_alloc(mem, n * sizeof *rows);
    double *sigma = dr_arena_alloc(mem, (n + 1) * sizeof *sigma);
    double *timestep = dr_arena_alloc(mem, n * sizeof *timestep);
    if (!rows || !sigma || !timestep)
        return dr_fail(err, DR_ENOMEM, "out of memory for %zu sampler steps", n);
    request q = { .cfg = cfg,
                  .timestep = timestep,
                  .sigma = sigma,
                  .steps = steps,
                  .karras = made.schedule == DR_SCHEDULE_KARRAS,
                  .eta = eta };
    dr_status st =
        dr_schedule_levels(timestep, sigma, cfg, &s->levels, q.karras, steps, err);
    if (st)
        return st;
    sigma[steps] = last_sigma(cfg, s->end);
    made.init_noise_sigma = init_noise(&q, s);
    made.row = rows;
    made.sigma = sigma;
    if (!(st = make_rows(&made, rows, &q, err)))
        *out = made;
    return st;
}
