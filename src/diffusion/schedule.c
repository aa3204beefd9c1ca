#include "diffusion/schedule.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)
#define TRAIN_STEPS_MAX  10000

/* --- the file's words -------------------------------------------------------------- */

typedef struct {
    const char *word;
    int value;
} word;

static const word classes[] = {
    { "DDIMScheduler", DR_SAMPLER_DDIM },
    { "DDPMScheduler", DR_SAMPLER_DDIM },
    { "PNDMScheduler", DR_SAMPLER_DPMPP_2M },
    { "EulerDiscreteScheduler", DR_SAMPLER_EULER },
    { "EulerAncestralDiscreteScheduler", DR_SAMPLER_EULER_A },
    { "DPMSolverMultistepScheduler", DR_SAMPLER_DPMPP_2M },
    { "DPMSolverSinglestepScheduler", DR_SAMPLER_DPMPP_2M },
    { "DEISMultistepScheduler", DR_SAMPLER_DPMPP_2M },
    { "UniPCMultistepScheduler", DR_SAMPLER_DPMPP_2M },
    { "LMSDiscreteScheduler", DR_SAMPLER_EULER },
    { "HeunDiscreteScheduler", DR_SAMPLER_EULER },
    { NULL, 0 },
};
static const word predictions[] = {
    { "epsilon", DR_PREDICT_EPSILON },
    { "v_prediction", DR_PREDICT_V },
    { "sample", DR_PREDICT_SAMPLE },
    { NULL, 0 },
};
static const word spacings[] = {
    { "leading", DR_SPACING_LEADING },
    { "trailing", DR_SPACING_TRAILING },
    { "linspace", DR_SPACING_LINSPACE },
    { NULL, 0 },
};
static const word finals[] = {
    { "zero", DR_FINAL_ZERO },
    { "sigma_min", DR_FINAL_SIGMA_MIN },
    { NULL, 0 },
};
enum { BETA_LINEAR, BETA_SCALED_LINEAR, BETA_COSINE };
static const word beta_schedules[] = {
    { "linear", BETA_LINEAR },
    { "scaled_linear", BETA_SCALED_LINEAR },
    { "squaredcos_cap_v2", BETA_COSINE },
    { NULL, 0 },
};

/* Keys that would change the picture: the JSON values that mean what darkroom does. */
static const struct {
    const char *key, *allowed;
} fixed[] = {
    { "thresholding", "false" },
    { "clip_sample", "false" },
    { "use_exponential_sigmas", "false" },
    { "use_beta_sigmas", "false" },
    { "use_lu_lambdas", "false" },
    { "use_flow_sigmas", "false" },
    { "interpolation_type", "\"linear\"" },
    { "timestep_type", "\"discrete\"" },
    { "algorithm_type", "\"dpmsolver++\" \"deis\"" },
    { "solver_type", "\"midpoint\" \"logrho\" \"bh1\" \"bh2\"" },
    { "solver_order", "1 2" },
    { "predict_x0", "true" },
    { "variance_type",
      "\"fixed_small\" \"fixed_small_log\" \"fixed_large\" \"fixed_large_log\"" },
    { "lambda_min_clipped", "null" },
    { "sigma_min", "null" },
    { "sigma_max", "null" },
};

static dr_status check_fixed(const dr_json *j, dr_err *err)
{
    dr_status st = DR_OK;
    dr_buf value = { 0 };
    for (size_t i = 0; i < DR_COUNT(fixed) && !st; i++) {
        const dr_json *item = dr_json_get(j, fixed[i].key);
        if (dr_json_type(item) == DR_JSON_NULL)
            continue;
        dr_buf_clear(&value);
        dr_json_put(&value, item);
        if (value.failed)
            st = dr_fail(err, DR_ENOMEM, "out of memory");
        else if (!strstr(fixed[i].allowed, value.data))
            st = dr_fail(err, DR_EMODEL, "%s %.80s: not supported; may be: %s",
                         fixed[i].key, value.data, fixed[i].allowed);
    }
    dr_buf_free(&value);
    return st;
}

/* One of words, or fallback when the key is absent or null. */
static dr_status get_word(int *out, const dr_json *j, const char *key, const word *words,
                          int fallback, dr_err *err)
{
    const dr_json *item = dr_json_get(j, key);
    *out = fallback;
    if (dr_json_type(item) == DR_JSON_NULL)
        return DR_OK;
    const char *text = dr_json_string(item);
    for (const word *w = words; w->word; w++)
        if (text && strcmp(text, w->word) == 0) {
            *out = w->value;
            return DR_OK;
        }
    char may[512] = "";
    for (size_t n = 0; words->word && n < sizeof may; words++)
        n += (size_t)snprintf(may + n, sizeof may - n, " %s", words->word);
    return dr_fail(err, DR_EMODEL, "%s '%.80s': not supported; may be:%s", key,
                   text ? text : "(not a string)", may);
}

static dr_status get_whole(int64_t *out, const dr_json *j, const char *key,
                           int64_t fallback, int64_t min, int64_t max, dr_err *err)
{
    double v = dr_json_get_number(j, key, (double)fallback);
    if (!(v >= (double)min && v <= (double)max && v == floor(v)))
        return dr_fail(err, DR_EMODEL, "%s %g: must be a whole number in %lld..%lld", key,
                       v, (long long)min, (long long)max);
    *out = (int64_t)v;
    return DR_OK;
}

/* --- betas: float32 like the tables of the models' training ------------------------- */

/* torch.linspace: each half counts from its own end. */
static void fill_linspace(float *out, int64_t n, float from, float to)
{
    float step = (to - from) / (float)(n - 1);
    for (int64_t i = 0; i < n; i++)
        out[i] = i < n / 2 ? from + step * (float)i : to - step * (float)(n - 1 - i);
}

/* alpha_bar of Nichol & Dhariwal 2021. */
static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * acos(-1.0) / 2);
    return c * c;
}

static dr_status read_trained_betas(float *beta, const dr_json *list, int64_t n,
                                    dr_err *err)
{
    int64_t i = 0;
    if (dr_json_type(list) != DR_JSON_ARRAY || dr_json_count(list) != n)
        return dr_fail(err, DR_EMODEL,
                       "trained_betas: not a list of num_train_timesteps (%lld)",
                       (long long)n);
    for (const dr_json *j = dr_json_first(list); j; j = dr_json_next(j), i++) {
        double v = dr_json_number(j);
        if (!(v > 0 && v < 1))
            return dr_fail(err, DR_EMODEL, "trained_betas[%lld] %g: must be inside 0..1",
                           (long long)i, v);
        beta[i] = (float)v;
    }
    return DR_OK;
}

static dr_status make_betas(float *beta, const dr_json *j, int64_t n, dr_err *err)
{
    const dr_json *trained = dr_json_get(j, "trained_betas");
    double start = dr_json_get_number(j, "beta_start", 0.0001);
    double end = dr_json_get_number(j, "beta_end", 0.02);
    int kind;
    if (dr_json_type(trained) != DR_JSON_NULL)
        return read_trained_betas(beta, trained, n, err);
    dr_status st = get_word(&kind, j, "beta_schedule", beta_schedules, BETA_LINEAR, err);
    if (st)
        return st;
    if (!(start > 0 && start <= end && end < 1))
        return dr_fail(err, DR_EMODEL,
                       "beta_start %g, beta_end %g: must be 0 < start <= end < 1", start,
                       end);
    if (kind == BETA_LINEAR) {
        fill_linspace(beta, n, (float)start, (float)end);
    } else if (kind == BETA_SCALED_LINEAR) {
        fill_linspace(beta, n, (float)sqrt(start), (float)sqrt(end));
        for (int64_t i = 0; i < n; i++)
            beta[i] *= beta[i];
    } else {
        for (int64_t i = 0; i < n; i++) {
            double a = cosine_alpha_bar((double)i / (double)n);
            double b = cosine_alpha_bar((double)(i + 1) / (double)n);
            beta[i] = (float)fmin(1 - b / a, 0.999);
        }
    }
    return DR_OK;
}

static void make_alpha_bar(float *alpha_bar, const float *beta, int64_t n)
{
    double product = 1;
    for (int64_t i = 0; i < n; i++)
        alpha_bar[i] = (float)(product *= 1.0f - beta[i]);
}

/* Algorithm 1 of Lin et al. 2023 ("Common diffusion noise schedules and sample steps are
 * flawed"): shift and scale sqrt(alpha_bar) so that the last is 0 and the first stays. */
static void rescale_to_zero_snr(float *beta, float *alpha_bar, int64_t n)
{
    float first = sqrtf(alpha_bar[0]), last = sqrtf(alpha_bar[n - 1]), before = 1;
    for (int64_t i = 0; i < n; i++) {
        float root = (sqrtf(alpha_bar[i]) - last) * (first / (first - last));
        float now = root * root;
        beta[i] = 1.0f - now / before;
        before = now;
    }
    make_alpha_bar(alpha_bar, beta, n);
}

static dr_status make_tables(dr_schedule_config *c, dr_arena *mem, const dr_json *j,
                             dr_err *err)
{
    int64_t n = c->train_steps;
    float *beta = dr_arena_alloc(mem, (size_t)n * sizeof *beta);
    float *alpha_bar = dr_arena_alloc(mem, (size_t)n * sizeof *alpha_bar);
    float *sigma = dr_arena_alloc(mem, (size_t)n * sizeof *sigma);
    if (!beta || !alpha_bar || !sigma)
        return dr_fail(err, DR_ENOMEM, "out of memory for %lld training steps",
                       (long long)n);
    dr_status st = make_betas(beta, j, n, err);
    if (st)
        return st;
    make_alpha_bar(alpha_bar, beta, n);
    bool zero_snr = dr_json_get_bool(j, "rescale_betas_zero_snr", false);
    if (zero_snr)
        rescale_to_zero_snr(beta, alpha_bar, n);
    for (int64_t i = 0; i < n; i++) {
        float a = zero_snr && i == n - 1 ? 0x1p-24f : alpha_bar[i];
        sigma[i] = sqrtf((1.0f - a) / a);
        if (!(sigma[i] > 0 && isfinite(sigma[i])))
            return dr_fail(err, DR_EMODEL, "betas: sigma of training step %lld is %g",
                           (long long)i, (double)sigma[i]);
    }
    c->alpha_bar = alpha_bar;
    c->sigma = sigma;
    return DR_OK;
}

/* --- reading ------------------------------------------------------------------------ */

/* Python writes -Infinity, which JSON has no word for: lambda_min_clipped's default. In
 * place: it becomes null, outside strings only. */
static void drop_infinities(dr_buf *text)
{
    static const char infinity[] = "Infinity";
    const size_t n = sizeof infinity - 1;
    bool quoted = false;
    for (size_t i = 0; i < text->len; i++) {
        char *p = text->data + i;
        if (*p == '\\' && quoted)
            i++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted && text->len - i >= n && memcmp(p, infinity, n) == 0) {
            memcpy(p, "null    ", n);
            if (i && p[-1] == '-')
                p[-1] = ' ';
        }
    }
}

static dr_status parse(dr_schedule_config *c, dr_arena *mem, const dr_json *j, dr_err *err)
{
    int sampler, prediction, spacing, final;
    int64_t order;
    dr_status st = dr_json_type(j) == DR_JSON_OBJECT
                       ? check_fixed(j, err)
                       : dr_fail(err, DR_EMODEL, "not a JSON object");
    if (st ||
        (st = get_word(&sampler, j, "_class_name", classes, DR_SAMPLER_DPMPP_2M, err)) ||
        (st = get_word(&prediction, j, "prediction_type", predictions, DR_PREDICT_EPSILON,
                       err)) ||
        (st = get_word(&spacing, j, "timestep_spacing", spacings, DR_SPACING_DEFAULT,
                       err)) ||
        (st = get_word(&final, j, "final_sigmas_type", finals, DR_FINAL_ZERO, err)) ||
        (st = get_whole(&c->train_steps, j, "num_train_timesteps", 1000, 2, TRAIN_STEPS_MAX,
                        err)) ||
        (st = get_whole(&c->steps_offset, j, "steps_offset", 0, 0, c->train_steps - 1,
                        err)) ||
        (st = get_whole(&order, j, "solver_order", 2, 1, 2, err)))
        return st;
    c->sampler = (dr_sampler_id)sampler;
    c->prediction = (dr_prediction)prediction;
    c->spacing = (dr_spacing)spacing;
    c->final_sigma = (dr_final_sigma) final;
    c->solver_order = (int)order;
    c->schedule = dr_json_get_bool(j, "use_karras_sigmas", false) ? DR_SCHEDULE_KARRAS
                                                                  : DR_SCHEDULE_NORMAL;
    c->set_alpha_to_one = dr_json_get_bool(j, "set_alpha_to_one", true);
    c->lower_order_final = dr_json_get_bool(j, "lower_order_final", true);
    c->euler_at_final = dr_json_get_bool(j, "euler_at_final", false);
    return make_tables(c, mem, j, err);
}

dr_status dr_schedule_config_read(dr_schedule_config *out, dr_arena *mem, const char *path,
                                  dr_err *err)
{
    dr_schedule_config c = { 0 };
    dr_buf text = { 0 };
    dr_json *j = NULL;
    dr_err why = { 0 };
    dr_status st = dr_file_read(path, CONFIG_BYTES_MAX, &text, err);
    if (st)
        goto done;
    drop_infinities(&text);
    if (dr_json_parse(&j, text.data ? text.data : "", text.len, &why)) {
        st = dr_fail(err, DR_EMODEL, "%s: %s", path, why.message);
        goto done;
    }
    if ((st = parse(&c, mem, j, err)))
        dr_err_wrap(err, "%s", path);
    else
        *out = c;
done:
    dr_json_free(j);
    dr_buf_free(&text);
    return st;
}

/* --- levels ------------------------------------------------------------------------- */

/* Point i of numpy.linspace(0, last, n). */
static double linspace(double last, int64_t i, int64_t n)
{
    return n > 1 && i == n - 1 ? last : (double)i * (n > 1 ? last / (double)(n - 1) : 0);
}

/* Table 2 of Lin et al. 2023; i counts from the noisy end. */
static double spaced(const dr_schedule_config *cfg, const dr_level_rule *rule, int64_t i,
                     int64_t steps)
{
    int64_t n = steps + rule->extra, from_clean = n - 1 - i;
    double train = (double)cfg->train_steps, t;
    switch (cfg->spacing ? cfg->spacing : rule->spacing) {
    case DR_SPACING_LEADING:
        return (double)(from_clean * (cfg->train_steps / n) + cfg->steps_offset);
    case DR_SPACING_TRAILING:
        return rint(train - (double)i * (train / (double)steps)) - 1;
    default:
        t = linspace(train - 1, from_clean, n);
        return rule->whole_linspace ? rint(t) : (double)(float)t;
    }
}

/* sigma at a fractional timestep, linear between training steps. */
static double sigma_at(const dr_schedule_config *cfg, double t)
{
    int64_t last = cfg->train_steps - 1, i = (int64_t)t;
    if (t <= 0 || i >= last)
        return cfg->sigma[t <= 0 ? 0 : last];
    return cfg->sigma[i] + (t - (double)i) * ((double)cfg->sigma[i + 1] - cfg->sigma[i]);
}

/* The inverse, linear in log sigma. */
static double timestep_at(const dr_schedule_config *cfg, double sigma)
{
    double log_sigma = log(fmax(sigma, 1e-10));
    int64_t low = 0;
    for (int64_t i = 0; i < cfg->train_steps - 1; i++)
        if (log_sigma >= logf(cfg->sigma[i]))
            low = i;
    double a = logf(cfg->sigma[low]), b = logf(cfg->sigma[low + 1]);
    double w = fmin(fmax((a - log_sigma) / (a - b), 0), 1);
    return (1 - w) * (double)low + w * (double)(low + 1);
}

/* Equation 5 of Karras et al. 2022 with rho = 7. One step is the noisiest level alone. */
static void fill_karras(double *timestep, double *sigma, const dr_schedule_config *cfg,
                        const dr_level_rule *rule, int64_t steps)
{
    const double rho = 7;
    double max = rule->karras_all ? cfg->sigma[cfg->train_steps - 1] : sigma[0];
    double min = rule->karras_all ? cfg->sigma[0] : sigma[steps - 1];
    double from = pow(max, 1 / rho), to = pow(min, 1 / rho);
    for (int64_t i = 0; i < steps; i++) {
        sigma[i] = pow(from + linspace(1, i, steps) * (to - from), rho);
        double t = timestep_at(cfg, sigma[i]);
        timestep[i] = rule->karras_whole ? rint(t) : t;
    }
}

dr_status dr_schedule_levels(double *timestep, double *sigma, const dr_schedule_config *cfg,
                             const dr_level_rule *rule, bool karras, int64_t steps,
                             dr_err *err)
{
    int64_t max = cfg->train_steps - rule->extra;
    if (steps < 1 || steps > max)
        return dr_fail_field(err, DR_EINVAL, "steps",
                             "steps %lld: must be 1..%lld for this model", (long long)steps,
                             (long long)max);
    for (int64_t i = 0; i < steps; i++) {
        timestep[i] = spaced(cfg, rule, i, steps);
        sigma[i] = sigma_at(cfg, timestep[i]);
    }
    if (karras)
        fill_karras(timestep, sigma, cfg, rule, steps);
    for (int64_t i = 0; i < steps; i++) { /* diffusers keeps both in float32 */
        timestep[i] = (float)timestep[i];
        sigma[i] = (float)sigma[i];
    }
    return DR_OK;
}
