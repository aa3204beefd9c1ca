#include "../lib/rows.h"

#include "base/buf.h"
#include "base/file.h"
#include "diffusion/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler_cases.h"

/* The part of SD 1.5's scheduler_config.json that its class leaves open. */
#define SD15                                                                               \
    "\"beta_start\":0.00085,\"beta_end\":0.012,\"beta_schedule\":\"scaled_linear\","       \
    "\"num_train_timesteps\":1000,\"set_alpha_to_one\":false,\"steps_offset\":1,"          \
    "\"clip_sample\":false,\"trained_betas\":null}"

typedef struct {
    dr_arena *mem;
    char path[64];
} fixture;

static int setup(void **state)
{
    static fixture f;
    f.mem = dr_arena_new();
    snprintf(f.path, sizeof f.path, "/tmp/scheduler_config.XXXXXX");
    int fd = mkstemp(f.path);
    *state = &f;
    return f.mem && fd >= 0 ? close(fd) : -1;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dr_arena_free(f->mem);
    return unlink(f->path);
}

static dr_status read_text(fixture *f, dr_schedule_config *cfg, const char *text,
                           dr_err *err)
{
    assert_int_equal(dr_file_write(f->path, text, strlen(text), NULL), DR_OK);
    return dr_schedule_config_read(cfg, f->mem, f->path, err);
}

/* keys: more keys, each with its comma; of a doubled key the first counts. */
static dr_schedule_config sd15(fixture *f, const char *keys)
{
    dr_schedule_config cfg;
    dr_err err = { 0 };
    dr_buf text = { 0 };
    dr_buf_printf(&text, "{%s%s", keys, SD15);
    if (read_text(f, &cfg, text.data, &err))
        fail_msg("%s", err.message);
    dr_buf_free(&text);
    return cfg;
}

static dr_steps make(fixture *f, const dr_schedule_config *cfg, dr_sampler_id sampler,
                     dr_schedule_id schedule, int64_t steps, double eta)
{
    dr_steps s;
    dr_err err = { 0 };
    const dr_schedule_ask ask = {
        .sampler = sampler, .schedule = schedule, .steps = steps, .eta = eta
    };
    if (dr_schedule_make(&s, f->mem, cfg, &ask, &err))
        fail_msg("%s %lld steps: %s", dr_sampler_name(sampler), (long long)steps,
                 err.message);
    assert_int_equal(s.steps, steps);
    assert_int_equal(s.count, steps);
    return s;
}

/* --- against diffusers ------------------------------------------------------------- */

/* The loop on three values. */
static void run_model(const dr_steps *s, double x[3])
{
    double h[3][DR_HIST_MAX] = { 0 };
    int draws = 0;
    for (int64_t k = 0; k < s->count; k++) {
        const dr_step *r = &s->row[k];
        draws += dr_step_draws(r);
        for (int i = 0; i < 3; i++) {
            double m = 0.3 * r->in_scale * x[i] * cos(r->timestep / 250) + 0.1;
            rows_apply(r, &x[i], h[i], m, cos(1.3 * draws + i));
        }
    }
}

static void equals_diffusers(void **state)
{
    fixture *f = *state;
    for (size_t c = 0; c < DR_COUNT(cases); c++) {
        dr_schedule_config cfg = sd15(f, cases[c].keys);
        double eta = cases[c].sampler == DR_SAMPLER_DDIM ? cases[c].eta : NAN;
        dr_steps s =
            make(f, &cfg, cases[c].sampler, cases[c].schedule, cases[c].steps, eta);
        double weighted = 0, x[3] = { -1.5, 0.25, 2 }, error = 0, norm = 0;
        for (int64_t i = 0; i < s.count; i++)
            weighted += (double)(i + 1) * s.row[i].timestep;
        for (int i = 0; i < 3; i++)
            x[i] *= s.init_noise_sigma;
        run_model(&s, x);
        const double want[3] = { cases[c].x0, cases[c].x1, cases[c].x2 };
        for (int i = 0; i < 3; i++) {
            error += pow(x[i] - want[i], 2);
            norm += pow(want[i], 2);
        }
        if (!(fabs(s.init_noise_sigma - cases[c].init) <= 1e-6 * cases[c].init) ||
            !(fabs(s.row[0].timestep - cases[c].first) <= 1e-7 * cases[c].first) ||
            !(fabs(s.row[s.count - 1].timestep - cases[c].last) <= 1e-6 * cases[c].last) ||
            !(fabs(weighted - cases[c].weighted) <= 1e-7 * cases[c].weighted) ||
            !(sqrt(error / norm) <= 1e-5))
            fail_msg(
                "case %zu: %s, %lld steps, {%s}: init %.9g, timesteps %.9g … %.9g (%.12g), "
                "latents %.9g %.9g %.9g, relative L2 %.2g",
                c, dr_sampler_name(s.sampler), (long long)s.count, cases[c].keys,
                s.init_noise_sigma, s.row[0].timestep, s.row[s.count - 1].timestep,
                weighted, x[0], x[1], x[2], sqrt(error / norm));
        dr_arena_reset(f->mem);
    }
}

/* --- what must hold for every sampler ---------------------------------------------- */

static const char *const predictions[] = {
    "\"prediction_type\":\"epsilon\",",
    "\"prediction_type\":\"v_prediction\",",
    "\"prediction_type\":\"sample\",",
};

/* A model that knows the picture: its answer about x at level sigma. */
static double oracle(int prediction, double u, double sigma, double x0)
{
    double a = 1 / sqrt(1 + sigma * sigma), b = sigma * a, eps = (u - a * x0) / b;
    return prediction == 0 ? eps : prediction == 1 ? a * eps - b * x0 : x0;
}

/* With a perfect model every step predicts the picture and the last one is it. */
static void a_perfect_model_ends_at_the_picture(void **state)
{
    static const int64_t counts[] = { 1, 2, 5, 20, 50 };
    const double x0 = 0.75;
    fixture *f = *state;
    for (int p = 0; p < 3; p++) {
        char keys[128];
        snprintf(keys, sizeof keys, "\"set_alpha_to_one\":true,%s", predictions[p]);
        dr_schedule_config cfg = sd15(f, keys);
        for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
            for (int k = DR_SCHEDULE_NORMAL; k < DR_SCHEDULES; k++)
                for (size_t c = 0; c < DR_COUNT(counts); c++) {
                    dr_steps s =
                        make(f, &cfg, (dr_sampler_id)id, (dr_schedule_id)k, counts[c], 1);
                    double x = -1.3 * s.init_noise_sigma, h[DR_HIST_MAX] = { 0 };
                    for (int64_t i = 0; i < s.count; i++) {
                        const dr_step *r = &s.row[i];
                        double m = oracle(p, r->in_scale * x, s.sigma[i], x0);
                        assert_float_equal(r->denoised_x * x + r->denoised_out * m, x0,
                                           1e-4);
                        rows_apply(r, &x, h, m, 0.4);
                        assert_true(isfinite(x) && isfinite(h[0] + h[1] + h[2]));
                    }
                    assert_float_equal(x, x0, 1e-4);
                    assert_true(s.sigma[s.count] == 0);
                }
        dr_arena_reset(f->mem);
    }
}

static void sigmas_fall_and_timesteps_follow(void **state)
{
    static const char *const spacing[] = { "", "\"timestep_spacing\":\"leading\",",
                                           "\"timestep_spacing\":\"trailing\",",
                                           "\"timestep_spacing\":\"linspace\"," };
    fixture *f = *state;
    for (size_t p = 0; p < DR_COUNT(spacing); p++) {
        dr_schedule_config cfg = sd15(f, spacing[p]);
        for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
            for (int64_t n = 1; n < 500; n += 1 + n / 5) {
                dr_steps s = make(f, &cfg, (dr_sampler_id)id, DR_SCHEDULE_NORMAL, n, 0);
                for (int64_t i = 0; i < n; i++) {
                    assert_true(s.row[i].timestep >= 0 && s.row[i].timestep <= 1000);
                    assert_true(s.sigma[i] > s.sigma[i + 1] || i == n - 1);
                    assert_true(i == 0 || s.row[i].timestep < s.row[i - 1].timestep);
                }
                dr_arena_reset(f->mem);
                cfg = sd15(f, spacing[p]);
            }
    }
}

static void karras_of_one_step_is_the_noisiest_level(void **state)
{
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "\"timestep_spacing\":\"trailing\",");
    for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++) {
        dr_steps s = make(f, &cfg, (dr_sampler_id)id, DR_SCHEDULE_KARRAS, 1, 0);
        assert_float_equal(s.sigma[0], 14.6146, 1e-3);
        assert_float_equal(s.row[0].timestep, 999, 1e-3);
        assert_true(isfinite(s.row[0].x) && isfinite(s.row[0].out));
    }
}

/* Steps so dense that neighbouring levels coincide must not divide by zero. */
static void dense_steps_stay_finite(void **state)
{
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "\"timestep_spacing\":\"leading\",");
    for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
        for (int k = DR_SCHEDULE_NORMAL; k < DR_SCHEDULES; k++) {
            double x[3] = { 1, 0, -1 };
            dr_steps s = make(f, &cfg, (dr_sampler_id)id, (dr_schedule_id)k, 999, 0);
            run_model(&s, x);
            assert_true(isfinite(x[0] + x[1] + x[2]));
        }
}

static void flags_say_what_rows_need(void **state)
{
    static const struct {
        dr_sampler_id id;
        double eta;
        bool noise;
        int hist;
    } rows[] = {
        { DR_SAMPLER_DDIM, 0, false, 0 },     { DR_SAMPLER_DDIM, NAN, false, 0 },
        { DR_SAMPLER_DDIM, 0.5, true, 0 },    { DR_SAMPLER_EULER, 1, false, 0 },
        { DR_SAMPLER_EULER_A, NAN, true, 0 }, { DR_SAMPLER_EULER_A, 0, false, 0 },
        { DR_SAMPLER_DPMPP_2M, 0, false, 1 },
    };
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "");
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_steps s = make(f, &cfg, rows[i].id, DR_SCHEDULE_NORMAL, 8, rows[i].eta);
        assert_int_equal(s.uses_noise, rows[i].noise);
        assert_int_equal(s.n_hist, rows[i].hist);
        for (int k = 0; k < DR_HIST_MAX; k++)
            assert_true(s.row[0].hist[k] == 0); /* the memory is empty */
    }
}

/* --- bounds ------------------------------------------------------------------------ */

static void refuses_what_is_out_of_bounds(void **state)
{
    static const struct {
        dr_sampler_id id;
        int64_t steps;
        double eta;
        const char *field, *part;
    } rows[] = {
        { DR_SAMPLER_DDIM, 0, 0, "steps", "steps 0: must be 1..1000" },
        { DR_SAMPLER_DDIM, -3, 0, "steps", "steps -3" },
        { DR_SAMPLER_DDIM, 1001, 0, "steps", "steps 1001: must be 1..1000" },
        { DR_SAMPLER_DPMPP_2M, 1000, 0, "steps", "steps 1000: must be 1..999" },
        { DR_SAMPLER_DDIM, 10, 1.5, "eta", "eta 1.5: must be 0..1" },
        { DR_SAMPLER_DDIM, 10, -0.1, "eta", "eta -0.1" },
    };
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "");
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_steps s;
        dr_err err = { 0 };
        const dr_schedule_ask ask = { .sampler = rows[i].id,
                                      .schedule = DR_SCHEDULE_NORMAL,
                                      .steps = rows[i].steps,
                                      .eta = rows[i].eta };
        assert_int_equal(dr_schedule_make(&s, f->mem, &cfg, &ask, &err), DR_EINVAL);
        assert_string_equal(err.field, rows[i].field);
        assert_non_null(strstr(err.message, rows[i].part));
    }
}

/* Pure noise holds no prediction of the picture when the model answers with the noise. */
static void refuses_noise_prediction_at_zero_snr(void **state)
{
    fixture *f = *state;
    dr_steps s;
    dr_err err = { 0 };
    dr_schedule_config cfg =
        sd15(f, "\"rescale_betas_zero_snr\":true,\"timestep_spacing\":\"trailing\",");
    assert_true(cfg.alpha_bar[999] == 0);
    assert_float_equal(cfg.sigma[999], 4096, 1e-2);
    const dr_schedule_ask ask = { .sampler = DR_SAMPLER_DDIM, .steps = 10 };
    assert_int_equal(dr_schedule_make(&s, f->mem, &cfg, &ask, &err), DR_EMODEL);
    assert_non_null(strstr(err.message, "step 0 at timestep 999"));
}

/* --- scheduler_config.json --------------------------------------------------------- */

static void defaults_follow_the_class(void **state)
{
    static const struct {
        const char *keys;
        dr_sampler_id sampler;
        dr_schedule_id schedule;
    } rows[] = {
        { "\"_class_name\":\"DDIMScheduler\",", DR_SAMPLER_DDIM, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"PNDMScheduler\",", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"EulerDiscreteScheduler\",\"use_karras_sigmas\":true,",
          DR_SAMPLER_EULER, DR_SCHEDULE_KARRAS },
        { "\"_class_name\":\"EulerAncestralDiscreteScheduler\",", DR_SAMPLER_EULER_A,
          DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"DPMSolverMultistepScheduler\",\"use_karras_sigmas\":false,",
          DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_NORMAL },
        { "", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_NORMAL },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_schedule_config cfg = sd15(f, rows[i].keys);
        dr_steps s = make(f, &cfg, DR_SAMPLER_DEFAULT, DR_SCHEDULE_DEFAULT, 4, NAN);
        assert_int_equal(s.sampler, rows[i].sampler);
        assert_int_equal(s.schedule, rows[i].schedule);
        s = make(f, &cfg, DR_SAMPLER_DDIM, DR_SCHEDULE_NORMAL, 4, NAN);
        assert_int_equal(s.sampler, DR_SAMPLER_DDIM);
        assert_int_equal(s.schedule, DR_SCHEDULE_NORMAL);
    }
}

static void reads_an_empty_object_as_all_defaults(void **state)
{
    fixture *f = *state;
    dr_schedule_config cfg;
    assert_int_equal(read_text(f, &cfg, "{}", NULL), DR_OK);
    assert_int_equal(cfg.train_steps, 1000);
    assert_int_equal(cfg.prediction, DR_PREDICT_EPSILON);
    assert_int_equal(cfg.spacing, DR_SPACING_DEFAULT);
    assert_true(cfg.set_alpha_to_one && cfg.lower_order_final && !cfg.euler_at_final);
    assert_float_equal(cfg.alpha_bar[0], 0.9999, 1e-7);
    assert_float_equal(cfg.alpha_bar[999], 4.0358e-5, 1e-8);
}

static void reads_pythons_infinity(void **state)
{
    fixture *f = *state;
    dr_schedule_config cfg;
    assert_int_equal(
        read_text(f, &cfg,
                  "{\"lambda_min_clipped\": -Infinity, \"note\": \"\\\" Infinity\","
                  "\"sigma_max\":Infinity}",
                  NULL),
        DR_OK);
}

static void refuses_unsupported_configs(void **state)
{
    static const struct {
        const char *text;
        const char *parts[2];
    } rows[] = {
        { "", { "not JSON" } },
        { "[]", { "not a JSON object" } },
        { "{\"clip_sample\":true}", { "clip_sample true", "may be: false" } },
        { "{\"thresholding\":true}", { "thresholding true" } },
        { "{\"use_beta_sigmas\":true}", { "use_beta_sigmas true" } },
        { "{\"algorithm_type\":\"sde-dpmsolver++\"}",
          { "algorithm_type \"sde-dpmsolver++\"" } },
        { "{\"algorithm_type\":\"dpmsolver\"}", { "algorithm_type \"dpmsolver\"" } },
        { "{\"solver_type\":\"heun\"}", { "solver_type \"heun\"" } },
        { "{\"solver_order\":3}", { "solver_order 3", "1 2" } },
        { "{\"lambda_min_clipped\":-5.1}", { "lambda_min_clipped -5.1" } },
        { "{\"variance_type\":\"learned_range\"}", { "variance_type \"learned_range\"" } },
        { "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\"}",
          { "_class_name 'FlowMatchEulerDiscreteScheduler'" } },
        { "{\"_class_name\":7}", { "_class_name '(not a string)'" } },
        { "{\"prediction_type\":\"flow\"}",
          { "prediction_type 'flow'", "may be: epsilon v_prediction sample" } },
        { "{\"timestep_spacing\":\"log\"}", { "timestep_spacing 'log'" } },
        { "{\"final_sigmas_type\":\"one\"}", { "final_sigmas_type 'one'" } },
        { "{\"beta_schedule\":\"sigmoid\"}", { "beta_schedule 'sigmoid'" } },
        { "{\"num_train_timesteps\":1}", { "num_train_timesteps 1", "2..10000" } },
        { "{\"num_train_timesteps\":1e9}", { "num_train_timesteps 1e+09" } },
        { "{\"steps_offset\":0.5}", { "steps_offset 0.5" } },
        { "{\"steps_offset\":1000}", { "steps_offset 1000", "0..999" } },
        { "{\"beta_start\":0.02,\"beta_end\":0.01}", { "beta_start 0.02, beta_end 0.01" } },
        { "{\"beta_end\":1.5}", { "beta_end 1.5" } },
        { "{\"trained_betas\":[0.1]}", { "trained_betas", "1000" } },
        { "{\"num_train_timesteps\":2,\"trained_betas\":[0.1,2]}",
          { "trained_betas[1] 2", "inside 0..1" } },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_schedule_config cfg;
        dr_err err = { 0 };
        assert_int_equal(read_text(f, &cfg, rows[i].text, &err), DR_EMODEL);
        assert_non_null(strstr(err.message, f->path));
        for (int k = 0; k < 2 && rows[i].parts[k]; k++)
            if (!strstr(err.message, rows[i].parts[k]))
                fail_msg("'%s' is not in: %s", rows[i].parts[k], err.message);
        assert_int_equal(read_text(f, &cfg, rows[i].text, NULL), DR_EMODEL);
    }
    dr_schedule_config cfg;
    assert_int_equal(dr_schedule_config_read(&cfg, f->mem, "/nonexistent/s.json", NULL),
                     DR_ENOTFOUND);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(equals_diffusers),
        TEST(a_perfect_model_ends_at_the_picture),
        TEST(sigmas_fall_and_timesteps_follow),
        TEST(karras_of_one_step_is_the_noisiest_level),
        TEST(dense_steps_stay_finite),
        TEST(flags_say_what_rows_need),
        TEST(refuses_what_is_out_of_bounds),
        TEST(refuses_noise_prediction_at_zero_snr),
        TEST(defaults_follow_the_class),
        TEST(reads_an_empty_object_as_all_defaults),
        TEST(reads_pythons_infinity),
        TEST(refuses_unsupported_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
