#include "diffusion/schedule.h"

#include <math.h>
#include <stddef.h>

/* From a number of steps to noise levels. Where diffusers has a schedule, its meaning
 * counts; the others are ComfyUI's (comfy/samplers.py), which A1111's webui shares but for
 * what is said below. */

const char *dr_schedule_label(dr_schedule_id id)
{
    static const char *const labels[DR_SCHEDULES] = {
        [DR_SCHEDULE_DEFAULT] = "Automatic",
        [DR_SCHEDULE_NORMAL] = "Normal",
        [DR_SCHEDULE_KARRAS] = "Karras",
        [DR_SCHEDULE_EXPONENTIAL] = "Exponential",
        [DR_SCHEDULE_SGM_UNIFORM] = "SGM Uniform",
        [DR_SCHEDULE_SIMPLE] = "Simple",
        [DR_SCHEDULE_DDIM_UNIFORM] = "DDIM",
        [DR_SCHEDULE_BETA] = "Beta",
        [DR_SCHEDULE_AYS] = "Align Your Steps",
        [DR_SCHEDULE_KL_OPTIMAL] = "KL Optimal",
        [DR_SCHEDULE_LINEAR_QUADRATIC] = "Linear Quadratic",
        [DR_SCHEDULE_CUSTOM] = "Custom",
    };
    return labels[id];
}

/* --- sigma and timestep --------------------------------------------------------------- */

/* sigma at a fractional timestep, linear between training steps. */
static double sigma_at(const dr_schedule_config *cfg, double t)
{
    int64_t last = cfg->train_steps - 1, i = (int64_t)t;
    if (t <= 0 || i >= last)
        return cfg->sigma[t <= 0 ? 0 : last];
    return cfg->sigma[i] + (t - (double)i) * ((double)cfg->sigma[i + 1] - cfg->sigma[i]);
}

/* The same, linear in log sigma, as k-diffusion's DiscreteSchedule.t_to_sigma. */
static double sigma_at_log(const dr_schedule_config *cfg, double t)
{
    int64_t last = cfg->train_steps - 1, i = (int64_t)t;
    if (t <= 0 || i >= last)
        return cfg->sigma[t <= 0 ? 0 : last];
    double a = log(cfg->sigma[i]), b = log(cfg->sigma[i + 1]);
    return exp(a + (t - (double)i) * (b - a));
}

double dr_timestep_at(const dr_schedule_config *cfg, double sigma)
{
    if (cfg->prediction == DR_PREDICT_FLOW)
        return sigma * (double)cfg->train_steps;
    double log_sigma = log(fmax(sigma, 1e-10));
    int64_t low = 0, high = cfg->train_steps - 1;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        *(log_sigma >= logf(cfg->sigma[middle]) ? &low : &high) = middle;
    }
    double a = logf(cfg->sigma[low]), b = logf(cfg->sigma[low + 1]);
    double w = fmin(fmax((a - log_sigma) / (a - b), 0), 1);
    return (1 - w) * (double)low + w * (double)(low + 1);
}

/* Point i of numpy.linspace(0, last, n). */
static double linspace(double last, int64_t i, int64_t n)
{
    return n > 1 && i == n - 1 ? last : (double)i * (n > 1 ? last / (double)(n - 1) : 0);
}

/* --- schedules by timestep ------------------------------------------------------------ */

/* Level i of `steps`, counted from the noisy end. */
typedef struct {
    const dr_schedule_config *cfg;
    const dr_level_rule *rule;
    int64_t steps;
    double max, min; /* the sigmas that schedules by sigma span */
} span;

/* Distilled models know `original_steps` levels; take some of them (Luo et al. 2023,
 * "Latent Consistency Models", section 4.3). */
static double picked(const span *s, int64_t i)
{
    int64_t known = s->cfg->original_steps, skip = s->cfg->train_steps / known;
    double at = floor((double)i * ((double)known / (double)s->steps));
    return (double)((known - (int64_t)at) * skip - 1);
}

/* Table 2 of Lin et al. 2023. */
static double normal(const span *s, int64_t i)
{
    const dr_schedule_config *cfg = s->cfg;
    int64_t n = s->steps + s->rule->extra, from_clean = n - 1 - i;
    double train = (double)cfg->train_steps, t;
    if (s->rule->distilled)
        return picked(s, i);
    switch (cfg->spacing ? cfg->spacing : s->rule->spacing) {
    case DR_SPACING_LEADING:
        return (double)(from_clean * (cfg->train_steps / n) + cfg->steps_offset);
    case DR_SPACING_TRAILING:
        return rint(train - (double)i * (train / (double)s->steps)) - 1;
    default:
        if (n == 1 && s->rule->one_noisy)
            return train - 1;
        t = linspace(train - 1, from_clean, n);
        return s->rule->whole_linspace ? rint(t) : (double)(float)t;
    }
}

/* Lin et al. 2023's trailing, by real instead of whole timesteps (Stability's
 * generative-models): the last of steps + 1 equal distances is left out. */
static double sgm_uniform(const span *s, int64_t i)
{
    double last = (double)(s->cfg->train_steps - 1);
    return last - last * (double)i / (double)s->steps;
}

/* Every so-many-th level of the table. */
static double simple(const span *s, int64_t i)
{
    double apart = (double)s->cfg->train_steps / (double)s->steps;
    return (double)(s->cfg->train_steps - 1 - (int64_t)((double)i * apart));
}

/* Song et al. 2020: the first training step and those at whole distances. ComfyUI runs one
 * step more than asked where the steps do not divide the table; here they are `steps`. */
static double ddim_uniform(const span *s, int64_t i)
{
    return (double)((s->steps - 1 - i) * (s->cfg->train_steps / s->steps) + 1);
}

/* --- schedules by sigma --------------------------------------------------------------- */

/* Equation 5 of Karras et al. 2022 with rho = 7. */
static double karras(const span *s, int64_t i)
{
    const double rho = 7;
    double from = pow(s->max, 1 / rho), to = pow(s->min, 1 / rho);
    return pow(from + linspace(1, i, s->steps) * (to - from), rho);
}

/* Equal distances in log sigma. */
static double exponential(const span *s, int64_t i)
{
    return s->max * exp(linspace(log(s->min / s->max), i, s->steps));
}

/* Share of the beta distribution below x for 0 <= x <= 1/2, both parameters being p: the
 * series x^p (1 - x)^p / (p B(p, p)) sum of x^n (2 p)_n / (p + 1)_n (Abramowitz & Stegun
 * 26.5.4). */
static double beta_share(double p, double x)
{
    double term = 1, sum = 0;
    for (int n = 0; n < 200 && term > 1e-17; n++) {
        sum += term;
        term *= x * (2 * p + n) / (p + 1 + n);
    }
    return sum * exp(p * log(x * (1 - x)) + lgamma(2 * p) - 2 * lgamma(p)) / p;
}

/* Where the share is `share`; the distribution is symmetric. */
static double beta_quantile(double p, double share)
{
    if (share > 0.5)
        return 1 - beta_quantile(p, 1 - share);
    double low = 0, high = 0.5;
    for (int i = 0; i < 60 && share > 0; i++) {
        double x = (low + high) / 2;
        *(beta_share(p, x) < share ? &low : &high) = x;
    }
    return low;
}

/* Lee et al. 2024 ("Beta sampling is all you need", arXiv:2407.12173) with 0.6, over
 * sigmas as diffusers and A1111 have it (ComfyUI's is over timesteps). */
static double beta(const span *s, int64_t i)
{
    return s->min + beta_quantile(0.6, 1 - linspace(1, i, s->steps)) * (s->max - s->min);
}

/* Sabour et al. 2024 ("Align your steps", arXiv:2404.14507), the published ten steps of SD
 * 1.5, others by interpolation in log sigma. The last sigma gives its place to the end. */
static double ays(const span *s, int64_t i)
{
    static const double sigma[] = { 14.615, 6.475, 3.861, 2.697, 1.886, 1.396,
                                    0.963,  0.652, 0.399, 0.152, 0.029 };
    static const double sigma_xl[] = { 14.615, 6.315, 3.771, 2.181, 1.342, 0.862,
                                       0.555,  0.380, 0.234, 0.113, 0.029 };
    const double *table = s->cfg->ays_xl ? sigma_xl : sigma;
    double at = (double)i * 10 / (double)s->steps;
    int below = (int)at;
    return exp(log(table[below]) +
               (at - below) * (log(table[below + 1]) - log(table[below])));
}

/* The optimum that the same derive for Gaussian data: between the arctangents of sigma. */
static double kl_optimal(const span *s, int64_t i)
{
    double at = linspace(1, i, s->steps);
    return tan(at * atan(s->min) + (1 - at) * atan(s->max));
}

/* Of Genmo's Mochi: half of the steps in equal distances down to 1 - 0.025 of the noise,
 * the others by a square law. */
static double linear_quadratic(const span *s, int64_t i)
{
    const double threshold = 0.025;
    double n = (double)s->steps, k = (double)i, linear = floor(n / 2);
    if (s->steps == 1)
        return s->max;
    if (k < linear)
        return s->max * (1 - k * threshold / linear);
    double rest = n - linear, gap = linear - threshold * n;
    double square = gap / (linear * rest * rest);
    double slope = threshold / linear - 2 * gap / (rest * rest);
    return s->max * (1 - (square * k * k + slope * k + square * linear * linear));
}

static const struct {
    double (*timestep)(const span *s, int64_t i);
    double (*sigma)(const span *s, int64_t i);
    bool chosen; /* spans the sigmas of the normal levels where the sampler says so */
} schedules[DR_SCHEDULES] = {
    [DR_SCHEDULE_NORMAL] = { .timestep = normal },
    [DR_SCHEDULE_KARRAS] = { .sigma = karras, .chosen = true },
    [DR_SCHEDULE_EXPONENTIAL] = { .sigma = exponential, .chosen = true },
    [DR_SCHEDULE_SGM_UNIFORM] = { .timestep = sgm_uniform },
    [DR_SCHEDULE_SIMPLE] = { .timestep = simple },
    [DR_SCHEDULE_DDIM_UNIFORM] = { .timestep = ddim_uniform },
    [DR_SCHEDULE_BETA] = { .sigma = beta, .chosen = true },
    [DR_SCHEDULE_AYS] = { .sigma = ays },
    [DR_SCHEDULE_KL_OPTIMAL] = { .sigma = kl_optimal },
    [DR_SCHEDULE_LINEAR_QUADRATIC] = { .sigma = linear_quadratic },
};

static void fill(double *timestep, double *sigma, const span *s, dr_schedule_id id)
{
    for (int64_t i = 0; i < s->steps; i++) {
        if (schedules[id].timestep) {
            timestep[i] = schedules[id].timestep(s, i);
            sigma[i] = id == DR_SCHEDULE_SGM_UNIFORM ? sigma_at_log(s->cfg, timestep[i])
                                                     : sigma_at(s->cfg, timestep[i]);
        } else {
            sigma[i] = schedules[id].sigma(s, i);
            double t = dr_timestep_at(s->cfg, sigma[i]);
            bool whole = id == DR_SCHEDULE_KARRAS && s->rule->karras_whole;
            timestep[i] = whole ? rint(t) : t;
        }
    }
}

/* --- flow matching -------------------------------------------------------------------- */

/* Esser et al. 2024 ("Scaling rectified flow transformers", arXiv:2403.03206), section
 * 5.3.2: more noise for more tokens; equal distances from 1 before that. */
static dr_status fill_flow(double *timestep, double *sigma, const dr_schedule_config *cfg,
                           const dr_level_ask *ask, dr_err *err)
{
    const dr_flow *f = &cfg->flow;
    double shift = f->shift;
    if (ask->schedule != DR_SCHEDULE_NORMAL && ask->schedule != DR_SCHEDULE_SIMPLE &&
        ask->schedule != DR_SCHEDULE_SGM_UNIFORM)
        return dr_fail_field(err, DR_EINVAL, "schedule",
                             "schedule %s: not for flow models; take normal, or sigmas",
                             dr_schedule_name(ask->schedule));
    if (f->dynamic && ask->tokens > 0)
        shift = exp(f->base_shift + (f->max_shift - f->base_shift) *
                                        (double)(ask->tokens - f->base_tokens) /
                                        (double)(f->max_tokens - f->base_tokens));
    for (int64_t i = 0; i < ask->steps; i++) {
        double s = 1 - (double)i / (double)ask->steps;
        sigma[i] = shift * s / (1 + (shift - 1) * s);
        timestep[i] = sigma[i] * (double)cfg->train_steps;
    }
    return DR_OK;
}

/* --- lists ---------------------------------------------------------------------------- */

static dr_status check_list(const dr_level_ask *ask, const double *list, const char *field,
                            double min, double max, dr_err *err)
{
    for (int64_t i = 0; i < ask->steps; i++) {
        if (!(list[i] >= min && list[i] <= max))
            return dr_fail_field(err, DR_EINVAL, field, "%s[%lld] %g: must be in %g..%g",
                                 field, (long long)i, list[i], min, max);
        if (i > 0 && !(list[i] < list[i - 1]))
            return dr_fail_field(err, DR_EINVAL, field,
                                 "%s[%lld] %g: must be below the one before, %g", field,
                                 (long long)i, list[i], list[i - 1]);
    }
    return DR_OK;
}

static dr_status fill_list(double *timestep, double *sigma, const dr_schedule_config *cfg,
                           const dr_level_rule *rule, const dr_level_ask *ask, dr_err *err)
{
    bool flow = cfg->prediction == DR_PREDICT_FLOW;
    double last = (double)cfg->train_steps - (flow ? 0 : 1);
    dr_status st = ask->sigmas
                       ? check_list(ask, ask->sigmas, "sigmas", 1e-6, flow ? 1 : 1e4, err)
                       : check_list(ask, ask->timesteps, "timesteps", 0, last, err);
    for (int64_t i = 0; i < ask->steps && !st; i++) {
        if (ask->sigmas) {
            sigma[i] = ask->sigmas[i];
            timestep[i] = dr_timestep_at(cfg, sigma[i]);
        } else {
            timestep[i] =
                rule->whole_linspace ? rint(ask->timesteps[i]) : ask->timesteps[i];
            sigma[i] = flow ? timestep[i] / last : sigma_at(cfg, timestep[i]);
        }
    }
    return st;
}

dr_status dr_schedule_levels(double *timestep, double *sigma, const dr_schedule_config *cfg,
                             const dr_level_rule *rule, const dr_level_ask *ask,
                             dr_err *err)
{
    span s = { .cfg = cfg, .rule = rule, .steps = ask->steps };
    int64_t max = rule->distilled && ask->schedule == DR_SCHEDULE_NORMAL
                      ? cfg->original_steps
                      : cfg->train_steps - rule->extra;
    dr_status st = DR_OK;
    max -= ask->schedule == DR_SCHEDULE_DDIM_UNIFORM && !rule->extra;
    if (ask->steps < 1 || ask->steps > max)
        return dr_fail_field(err, DR_EINVAL, "steps",
                             "steps %lld: must be 1..%lld for this model",
                             (long long)ask->steps, (long long)max);
    if (ask->schedule == DR_SCHEDULE_CUSTOM) {
        st = fill_list(timestep, sigma, cfg, rule, ask, err);
    } else if (cfg->prediction == DR_PREDICT_FLOW) {
        st = fill_flow(timestep, sigma, cfg, ask, err);
    } else {
        s.max = cfg->sigma[cfg->train_steps - 1];
        s.min = cfg->sigma[0];
        if (schedules[ask->schedule].chosen && !rule->karras_all) {
            s.max = sigma_at(cfg, normal(&s, 0));
            s.min = sigma_at(cfg, normal(&s, ask->steps - 1));
        }
        fill(timestep, sigma, &s, ask->schedule);
    }
    for (int64_t i = 0; i < ask->steps && !st; i++) { /* diffusers keeps both in float32 */
        timestep[i] = (float)timestep[i];
        sigma[i] = (float)sigma[i];
    }
    return st;
}
