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
    { "DDPMScheduler", DR_SAMPLER_DDPM },
    { "PNDMScheduler", DR_SAMPLER_PNDM },
    { "EulerDiscreteScheduler", DR_SAMPLER_EULER },
    { "EulerAncestralDiscreteScheduler", DR_SAMPLER_EULER_A },
    { "DPMSolverMultistepScheduler", DR_SAMPLER_DPMPP_2M },
    { "DPMSolverSinglestepScheduler", DR_SAMPLER_DPMPP_2M },
    { "DPMSolverSDEScheduler", DR_SAMPLER_DPMPP_SDE },
    { "DEISMultistepScheduler", DR_SAMPLER_DEIS },
    { "UniPCMultistepScheduler", DR_SAMPLER_UNI_PC },
    { "LMSDiscreteScheduler", DR_SAMPLER_LMS },
    { "HeunDiscreteScheduler", DR_SAMPLER_HEUN },
    { "KDPM2DiscreteScheduler", DR_SAMPLER_DPM_2 },
    { "KDPM2AncestralDiscreteScheduler", DR_SAMPLER_DPM_2_A },
    { "LCMScheduler", DR_SAMPLER_LCM },
    { "TCDScheduler", DR_SAMPLER_TCD },
    { "FlowMatchEulerDiscreteScheduler", DR_SAMPLER_EULER },
    { "FlowMatchHeunDiscreteScheduler", DR_SAMPLER_HEUN },
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
static const word algorithms[] = {
    { "dpmsolver++", 0 },
    { "deis", 0 },
    { "sde-dpmsolver++", 1 },
    { NULL, 0 },
};
/* A class takes another's word for its own default, as in diffusers. */
static const word solver_types[] = {
    { "midpoint", DR_SOLVER_DEFAULT }, { "logrho", DR_SOLVER_DEFAULT },
    { "bh2", DR_SOLVER_DEFAULT },      { "heun", DR_SOLVER_HEUN },
    { "bh1", DR_SOLVER_BH1 },          { NULL, 0 },
};
static const word variances[] = {
    { "fixed_small", 0 },
    { "fixed_small_log", 0 },
    { "fixed_large", 1 },
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
    { "use_lu_lambdas", "false" },
    { "use_flow_sigmas", "false" },
    { "interpolation_type", "\"linear\"" },
    { "timestep_type", "\"discrete\"" },
    { "predict_x0", "true" },
    { "disable_corrector", "[]" },
    { "skip_prk_steps", "true" },
    { "invert_sigmas", "false" },
    { "stochastic_sampling", "false" },
    { "time_shift_type", "\"exponential\"" },
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

/* FlowMatch…Scheduler's keys; there is no table of betas. */
static dr_status parse_flow(dr_schedule_config *c, const dr_json *j, dr_err *err)
{
    dr_flow *f = &c->flow;
    dr_status st;
    *f = (dr_flow){ .shift = dr_json_get_number(j, "shift", 1),
                    .base_shift = dr_json_get_number(j, "base_shift", 0.5),
                    .max_shift = dr_json_get_number(j, "max_shift", 1.15),
                    .dynamic = dr_json_get_bool(j, "use_dynamic_shifting", false) };
    if ((st = get_whole(&f->base_tokens, j, "base_image_seq_len", 256, 1, 1 << 20, err)) ||
        (st = get_whole(&f->max_tokens, j, "max_image_seq_len", 4096, f->base_tokens + 1,
                        1 << 20, err)))
        return st;
    if (!(f->shift > 0 && f->shift <= 100))
        return dr_fail(err, DR_EMODEL, "shift %g: must be above 0, at most 100", f->shift);
    return DR_OK;
}

/* Which sampler and schedule the file means. */
static dr_status parse_class(dr_schedule_config *c, const dr_json *j, dr_err *err)
{
    int sampler, sde;
    dr_status st;
    if ((st = get_word(&sampler, j, "_class_name", classes, DR_SAMPLER_DPMPP_2M, err)) ||
        (st = get_word(&sde, j, "algorithm_type", algorithms, 0, err)))
        return st;
    c->sampler = (dr_sampler_id)sampler;
    if (sde && c->sampler == DR_SAMPLER_DPMPP_2M)
        c->sampler =
            c->solver_order > 2 ? DR_SAMPLER_DPMPP_3M_SDE : DR_SAMPLER_DPMPP_2M_SDE;
    c->schedule = dr_json_get_bool(j, "use_karras_sigmas", false) ? DR_SCHEDULE_KARRAS
                  : dr_json_get_bool(j, "use_exponential_sigmas", false)
                      ? DR_SCHEDULE_EXPONENTIAL
                  : dr_json_get_bool(j, "use_beta_sigmas", false) ? DR_SCHEDULE_BETA
                                                                  : DR_SCHEDULE_NORMAL;
    return DR_OK;
}

static dr_status parse(dr_schedule_config *c, dr_arena *mem, const dr_json *j, dr_err *err)
{
    int prediction, spacing, final, solver, variance;
    int64_t order;
    dr_status st = dr_json_type(j) == DR_JSON_OBJECT
                       ? check_fixed(j, err)
                       : dr_fail(err, DR_EMODEL, "not a JSON object");
    if (st ||
        (st = get_word(&prediction, j, "prediction_type", predictions, DR_PREDICT_EPSILON,
                       err)) ||
        (st = get_word(&spacing, j, "timestep_spacing", spacings, DR_SPACING_DEFAULT,
                       err)) ||
        (st = get_word(&final, j, "final_sigmas_type", finals, DR_FINAL_ZERO, err)) ||
        (st = get_word(&solver, j, "solver_type", solver_types, DR_SOLVER_DEFAULT, err)) ||
        (st = get_word(&variance, j, "variance_type", variances, 0, err)) ||
        (st = get_whole(&c->train_steps, j, "num_train_timesteps", 1000, 2, TRAIN_STEPS_MAX,
                        err)) ||
        (st = get_whole(&c->steps_offset, j, "steps_offset", 0, 0, c->train_steps - 1,
                        err)) ||
        (st = get_whole(&c->original_steps, j, "original_inference_steps",
                        c->train_steps < 50 ? c->train_steps : 50, 1, c->train_steps,
                        err)) ||
        (st = get_whole(&order, j, "solver_order", 2, 1, 3, err)))
        return st;
    c->prediction = (dr_prediction)prediction;
    c->spacing = (dr_spacing)spacing;
    c->final_sigma = (dr_final_sigma) final;
    c->solver_order = (int)order;
    c->solver_type = (dr_solver_type)solver;
    c->large_variance = variance != 0;
    c->timestep_scaling = dr_json_get_number(j, "timestep_scaling", 10);
    c->set_alpha_to_one = dr_json_get_bool(j, "set_alpha_to_one", true);
    c->pndm_alpha_to_one = dr_json_get_bool(j, "set_alpha_to_one", false);
    c->lower_order_final = dr_json_get_bool(j, "lower_order_final", true);
    c->euler_at_final = dr_json_get_bool(j, "euler_at_final", false);
    if ((st = parse_class(c, j, err)))
        return st;
    if (!strncmp(dr_json_get_string(j, "_class_name", ""), "FlowMatch", 9)) {
        c->prediction = DR_PREDICT_FLOW;
        return parse_flow(c, j, err);
    }
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
