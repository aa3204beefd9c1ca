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
#include "sampler_loops.h"

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
    assert_true(s.count >= steps && s.count <= 2 * steps);
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

/* Length of a list that ends with zeros; the 0 that ends sigmas counts as none. */
static int64_t length(const double list[12], bool to_zero)
{
    int64_t n = 12;
    while (n > 0 && list[n - 1] == 0)
        n--;
    return to_zero && n > 0 ? n + 1 : n;
}

static double distance(const double have[3], const double want[3])
{
    double error = 0, norm = 0;
    for (int i = 0; i < 3; i++) {
        error += pow(have[i] - want[i], 2);
        norm += pow(want[i], 2);
    }
    return sqrt(error / norm);
}

static void equals_diffusers(void **state)
{
    fixture *f = *state;
    for (size_t c = 0; c < DR_COUNT(cases); c++) {
        dr_schedule_config cfg = sd15(f, cases[c].keys);
        double eta = cases[c].sampler == DR_SAMPLER_DDIM ? cases[c].eta : NAN;
        dr_steps s =
            make(f, &cfg, cases[c].sampler, cases[c].schedule, cases[c].steps, eta);
        double weighted = 0, x[3] = { -1.5, 0.25, 2 };
        for (int64_t i = 0; i < s.count; i++)
            weighted += (double)(i + 1) * s.row[i].timestep;
        for (int i = 0; i < 3; i++)
            x[i] *= s.init_noise_sigma;
        run_model(&s, x);
        const double want[3] = { cases[c].x0, cases[c].x1, cases[c].x2 };
        if (!(fabs(s.init_noise_sigma - cases[c].init) <= 1e-6 * cases[c].init) ||
            !(fabs(s.row[0].timestep - cases[c].first) <= 1e-7 * cases[c].first) ||
            !(fabs(s.row[s.count - 1].timestep - cases[c].last) <= 1e-6 * cases[c].last) ||
            !(fabs(weighted - cases[c].weighted) <= 1e-7 * cases[c].weighted) ||
            !(distance(x, want) <= 1e-5))
            fail_msg(
                "case %zu: %s, %lld steps, {%s}: init %.9g, timesteps %.9g … %.9g (%.12g), "
                "latents %.9g %.9g %.9g, relative L2 %.2g",
                c, dr_sampler_name(s.sampler), (long long)s.count, cases[c].keys,
                s.init_noise_sigma, s.row[0].timestep, s.row[s.count - 1].timestep,
                weighted, x[0], x[1], x[2], distance(x, want));
        dr_arena_reset(f->mem);
    }
}

/* Whole loops of diffusers' schedulers and k-diffusion's samplers. */
static void loops_equal_references(void **state)
{
    fixture *f = *state;
    double worst = 0;
    int bad = 0;
    for (size_t c = 0; c < DR_COUNT(loops); c++) {
        dr_schedule_config cfg = sd15(f, loops[c].keys);
        dr_steps s;
        dr_err err = { 0 };
        const dr_schedule_ask ask = { .sampler = loops[c].sampler,
                                      .schedule = loops[c].schedule,
                                      .steps = loops[c].steps,
                                      .first = loops[c].first,
                                      .eta = loops[c].eta,
                                      .sigmas = loops[c].sigmas,
                                      .n_sigmas = length(loops[c].sigmas, c % 2),
                                      .timesteps = loops[c].timesteps,
                                      .n_timesteps = length(loops[c].timesteps, false),
                                      .tokens = 1024 };
        if (dr_schedule_make(&s, f->mem, &cfg, &ask, &err))
            fail_msg("case %zu: %s", c, err.message);
        double weighted = 0, x[3] = { -1.5, 0.25, 2 };
        const double picture[3] = { 0.7, -0.2, 1.1 };
        for (int i = 0; i < 3; i++)
            x[i] = s.first ? s.start_signal * picture[i] + s.start_noise * x[i]
                           : s.init_noise_sigma * x[i];
        for (int64_t i = 0; i < s.count; i++)
            weighted += (double)(i + 1) * s.row[i].timestep;
        run_model(&s, x);
        double off = distance(x, loops[c].x);
        worst = off > worst ? off : worst;
        bool good = off <= 1e-4 && s.count == loops[c].count &&
                    fabs(s.init_noise_sigma - loops[c].init) <= 1e-5 * loops[c].init &&
                    fabs(weighted - loops[c].weighted) <= 0.05 + 1e-5 * weighted;
        if (!good) {
            print_error("case %zu: %s %s, %lld steps, eta %g, {%s}: init %.9g, %lld rows, "
                        "timesteps %.12g, latents %.9g %.9g %.9g, relative L2 %.2g\n",
                        c, dr_sampler_name(s.sampler), dr_schedule_name(s.schedule),
                        (long long)s.steps, s.eta, loops[c].keys, s.init_noise_sigma,
                        (long long)s.count, weighted, x[0], x[1], x[2], off);
            bad++;
        }
        dr_arena_reset(f->mem);
    }
    print_message("%zu loops, largest relative L2 %.2g\n", DR_COUNT(loops), worst);
    assert_int_equal(bad, 0);
}

/* --- what must hold for every sampler ---------------------------------------------- */

static const char *const predictions[] = {
    "\"prediction_type\":\"epsilon\",",
    "\"prediction_type\":\"v_prediction\",",
    "\"prediction_type\":\"sample\",",
};

/* Steps that a sampler has levels for: distilled models know few. */
static int64_t most_steps(int id, int schedule)
{
    bool distilled = id == DR_SAMPLER_LCM || id == DR_SAMPLER_TCD;
    return distilled && schedule == DR_SCHEDULE_NORMAL ? 50 : 999;
}

/* A row may read what rows before it have written, and steps follow each other. */
static void rows_are_in_order(const dr_steps *s)
{
    unsigned written = 0;
    for (int64_t i = 0; i < s->count; i++) {
        const dr_step *r = &s->row[i];
        for (int k = 0; k < DR_HIST_MAX; k++)
            assert_true(r->hist[k] == 0 || (written >> k & 1));
        if (r->slot >= 0)
            written |= 1u << r->slot;
        assert_true(r->slot < s->n_hist);
        int64_t before = i ? s->row[i - 1].step : s->first - 1;
        assert_true(r->step == before + 1 || (i && r->step == before));
        assert_int_equal(dr_steps_done(s, i), r->step);
    }
    assert_int_equal(dr_steps_done(s, s->count), s->steps);
}

/* The rest that a perfect model leaves of the noise in x. */
static double rest_after(const dr_steps *s)
{
    const double x0 = 0.75;
    double x = s->start_signal * x0 - 1.3 * s->start_noise, h[DR_HIST_MAX] = { 0 };
    for (int64_t i = 0; i < s->count; i++) {
        const dr_step *r = &s->row[i];
        double m = (x0 - r->denoised_x * x) / r->denoised_out;
        rows_apply(r, &x, h, m, 0.4);
        assert_true(isfinite(x) && isfinite(h[0] + h[1] + h[2]));
    }
    return fabs(x - x0);
}

/* With a perfect model the last step ends at the picture, up to the last level's noise. */
static void a_perfect_model_ends_at_the_picture(void **state)
{
    static const int64_t counts[] = { 1, 2, 5, 20, 50 };
    fixture *f = *state;
    for (int p = 0; p < 3; p++) {
        char keys[128];
        snprintf(keys, sizeof keys, "\"set_alpha_to_one\":true,%s", predictions[p]);
        dr_schedule_config cfg = sd15(f, keys);
        for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
            for (int k = DR_SCHEDULE_NORMAL; k < DR_SCHEDULE_CUSTOM; k++)
                for (size_t c = 0; c < DR_COUNT(counts); c++) {
                    dr_steps s =
                        make(f, &cfg, (dr_sampler_id)id, (dr_schedule_id)k, counts[c], 1);
                    double rest = rest_after(&s), last = s.sigma[s.steps];
                    rows_are_in_order(&s);
                    if (id == DR_SAMPLER_LCM) /* near timestep 0 it believes x */
                        last = s.row[s.count - 1].timestep < 50 ? cfg.sigma[0] : 0;
                    /* outputs of different levels are mixed, which suits eps alone */
                    if ((id != DR_SAMPLER_PNDM || p == 0) && !(rest <= 2 * last + 1e-4))
                        fail_msg("%s %s, %lld steps, prediction %d: %g is left",
                                 dr_sampler_name(id), dr_schedule_name(k),
                                 (long long)s.steps, p, rest);
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
    for (size_t p = 0; p < DR_COUNT(spacing); p++)
        for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
            for (int k = DR_SCHEDULE_NORMAL; k < DR_SCHEDULE_CUSTOM; k++) {
                dr_schedule_config cfg = sd15(f, spacing[p]);
                for (int64_t n = 1; n < most_steps(id, k) / 2; n += 1 + n / 2) {
                    dr_steps s = make(f, &cfg, (dr_sampler_id)id, (dr_schedule_id)k, n, 0);
                    assert_true(s.sigma[0] < 14.62 && s.sigma[n - 1] > 0.029);
                    for (int64_t i = 0; i + 1 < n; i++)
                        assert_true(s.sigma[i] > s.sigma[i + 1]);
                    for (int64_t i = 0; i < s.count; i++) {
                        assert_true(s.row[i].timestep >= 0 && s.row[i].timestep <= 999);
                        /* karras rounds some of them */
                        assert_true(i == 0 ||
                                    s.row[i].timestep <= s.row[i - 1].timestep + 0.5);
                    }
                }
                dr_arena_reset(f->mem);
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
    for (int order = 1; order <= 3; order++)
        for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
            for (int k = DR_SCHEDULE_NORMAL; k < DR_SCHEDULE_CUSTOM; k++) {
                char keys[96];
                double x[3] = { 1, 0, -1 };
                snprintf(keys, sizeof keys,
                         "\"timestep_spacing\":\"leading\",\"solver_order\":%d,", order);
                dr_schedule_config cfg = sd15(f, keys);
                dr_steps s = make(f, &cfg, (dr_sampler_id)id, (dr_schedule_id)k,
                                  most_steps(id, k), NAN);
                run_model(&s, x);
                assert_true(isfinite(x[0] + x[1] + x[2]));
                dr_arena_reset(f->mem);
            }
}

static void rows_need_no_more_than_they_use(void **state)
{
    static const struct {
        dr_sampler_id id;
        double eta;
        bool noise;
        int hist;
        int64_t rows; /* of 8 steps */
    } rows[] = {
        { DR_SAMPLER_DDIM, 0, false, 0, 8 },
        { DR_SAMPLER_DDIM, NAN, false, 0, 8 },
        { DR_SAMPLER_DDIM, 0.5, true, 0, 8 },
        { DR_SAMPLER_EULER, 1, false, 0, 8 },
        { DR_SAMPLER_EULER_A, NAN, true, 0, 8 },
        { DR_SAMPLER_EULER_A, 0, false, 0, 8 },
        { DR_SAMPLER_DPMPP_2M, 0, false, 1, 8 },
        { DR_SAMPLER_HEUN, NAN, false, 1, 15 },
        { DR_SAMPLER_DPM_2, NAN, false, 1, 15 },
        { DR_SAMPLER_DPM_2_A, NAN, true, 1, 15 },
        { DR_SAMPLER_DPM_2_A, 0, false, 1, 15 },
        { DR_SAMPLER_LMS, NAN, false, 3, 8 },
        { DR_SAMPLER_DPMPP_2S_A, 1, true, 1, 15 },
        { DR_SAMPLER_DPMPP_SDE, NAN, true, 1, 15 },
        { DR_SAMPLER_DPMPP_SDE, 0, false, 1, 15 },
        { DR_SAMPLER_DPMPP_2M_SDE, 1, true, 1, 8 },
        { DR_SAMPLER_DPMPP_3M_SDE, 1, true, 2, 8 },
        { DR_SAMPLER_DDPM, NAN, true, 0, 8 },
        { DR_SAMPLER_PNDM, NAN, false, 3, 9 },
        { DR_SAMPLER_UNI_PC, NAN, false, 2, 8 },
        { DR_SAMPLER_DEIS, NAN, false, 1, 8 },
        { DR_SAMPLER_LCM, NAN, true, 0, 8 },
        { DR_SAMPLER_TCD, NAN, true, 0, 8 },
        { DR_SAMPLER_TCD, 0, false, 0, 8 },
    };
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "");
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_steps s = make(f, &cfg, rows[i].id, DR_SCHEDULE_NORMAL, 8, rows[i].eta);
        assert_int_equal(s.uses_noise, rows[i].noise);
        assert_int_equal(s.n_hist, rows[i].hist);
        assert_int_equal(s.count, rows[i].rows);
        assert_true(s.eta >= 0 && s.eta <= 1);
    }
}

/* Rows that begin in the middle know nothing of the steps before. */
static void a_start_in_the_middle_has_no_past(void **state)
{
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "\"solver_order\":3,");
    for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++)
        for (int64_t first = 0; first < 20; first++) {
            dr_steps s;
            dr_err err = { 0 };
            const dr_schedule_ask ask = {
                .sampler = (dr_sampler_id)id, .steps = 20, .first = first, .eta = NAN
            };
            assert_int_equal(dr_schedule_make(&s, f->mem, &cfg, &ask, &err), DR_OK);
            assert_int_equal(s.first, first);
            assert_int_equal(s.row[0].step, first);
            rows_are_in_order(&s);
            double sigma = s.start_noise / s.start_signal;
            assert_float_equal(sigma, s.sigma[first], 1e-5 * sigma);
            assert_float_equal(s.row[0].timestep, dr_timestep_at(&cfg, sigma), 1e-2);
        }
}

static void strength_rounds_as_diffusers(void **state)
{
    (void)state;
    static const struct {
        int64_t steps;
        double strength;
        int64_t first;
    } rows[] = { { 20, 1 - 0.2, 4 }, { 20, 0.75, 5 },  { 20, 1, 0 },      { 20, 0, 20 },
                 { 20, 0.04, 20 },   { 20, 0.05, 19 }, { 100, 0.29, 72 }, { 1, 0.99, 1 } };
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        assert_int_equal(dr_first_step(rows[i].steps, rows[i].strength), rows[i].first);
}

/* --- lists and flow models ---------------------------------------------------------- */

static void sdxl_has_its_own_ays(void **state)
{
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "");
    dr_steps s = make(f, &cfg, DR_SAMPLER_EULER, DR_SCHEDULE_AYS, 10, NAN);
    assert_float_equal(s.sigma[3], 2.697, 1e-6);
    assert_float_equal(s.sigma[9], 0.152, 1e-6);
    assert_true(s.sigma[10] == 0);
    cfg.ays_xl = true;
    s = make(f, &cfg, DR_SAMPLER_EULER, DR_SCHEDULE_AYS, 10, NAN);
    assert_float_equal(s.sigma[3], 2.181, 1e-6);
    assert_float_equal(s.sigma[9], 0.113, 1e-6);
}

static void refuses_bad_lists(void **state)
{
    static const double up[] = { 5, 6 }, none[] = { 0 }, fine[] = { 5, 2, 0 };
    static const double far[] = { 1000, 3 }, nan[] = { NAN };
    const struct {
        dr_schedule_ask ask;
        const char *field, *part;
    } rows[] = {
        { { .sigmas = up, .n_sigmas = 2 }, "sigmas", "sigmas[1] 6: must be below" },
        { { .sigmas = none, .n_sigmas = 1 }, "sigmas", "sigmas: no level above 0" },
        { { .sigmas = nan, .n_sigmas = 1 }, "sigmas", "sigmas[0] nan: must be in" },
        { { .timesteps = far, .n_timesteps = 2 },
          "timesteps",
          "[0] 1000: must be in 0..999" },
        { { .sigmas = fine, .n_sigmas = 3, .steps = 3 }, "steps", "steps 3: sigmas has 2" },
        { { .sigmas = fine, .n_sigmas = 3, .timesteps = fine, .n_timesteps = 3 },
          "sigmas",
          "give one of them" },
        { { .schedule = DR_SCHEDULE_CUSTOM, .steps = 4 }, "schedule", "needs sigmas or" },
        { { .steps = 4, .first = 4 },
          "strength",
          "runs none of 4 steps; must be at least 0.25" },
        { { .sampler = DR_SAMPLER_LCM, .schedule = DR_SCHEDULE_NORMAL, .steps = 51 },
          "steps",
          "steps 51: must be 1..50" },
    };
    fixture *f = *state;
    dr_schedule_config cfg = sd15(f, "");
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_steps s;
        dr_err err = { 0 };
        assert_int_equal(dr_schedule_make(&s, f->mem, &cfg, &rows[i].ask, &err), DR_EINVAL);
        assert_string_equal(err.field, rows[i].field);
        if (!strstr(err.message, rows[i].part))
            fail_msg("'%s' is not in: %s", rows[i].part, err.message);
    }
}

/* x = (1 - sigma) picture + sigma noise; the model answers with their difference. */
static void flow_models_run_by_slope(void **state)
{
    static const dr_sampler_id may[] = { DR_SAMPLER_EULER, DR_SAMPLER_HEUN,
                                         DR_SAMPLER_DPM_2, DR_SAMPLER_LMS };
    fixture *f = *state;
    dr_schedule_config cfg =
        sd15(f, "\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":3,");
    for (size_t i = 0; i < DR_COUNT(may); i++) {
        dr_steps s = make(f, &cfg, may[i], DR_SCHEDULE_NORMAL, 4, NAN);
        double x = 1.5, h[DR_HIST_MAX] = { 0 };
        assert_true(s.init_noise_sigma == 1 && s.sigma[0] == 1 && s.sigma[4] == 0);
        assert_float_equal(s.sigma[2], 0.75, 1e-6); /* 3 / 2 / (1 + 2 / 2) */
        assert_float_equal(s.row[0].timestep, 1000, 1e-3);
        for (int64_t k = 0; k < s.count; k++)
            rows_apply(&s.row[k], &x, h, 1.5 - 0.75, 0);
        assert_float_equal(x, 0.75, 1e-6);
    }
    for (int id = DR_SAMPLER_DDIM; id < DR_SAMPLERS; id++) {
        dr_steps s;
        dr_err err = { 0 };
        const dr_schedule_ask ask = { .sampler = (dr_sampler_id)id, .steps = 4 };
        bool may_run = false;
        for (size_t i = 0; i < DR_COUNT(may); i++)
            may_run |= may[i] == (dr_sampler_id)id;
        assert_int_equal(dr_schedule_make(&s, f->mem, &cfg, &ask, &err),
                         may_run ? DR_OK : DR_EINVAL);
        if (!may_run)
            assert_string_equal(err.field, "sampler");
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
        { "\"_class_name\":\"PNDMScheduler\",", DR_SAMPLER_PNDM, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"PNDMScheduler\",\"skip_prk_steps\":true,", DR_SAMPLER_PNDM,
          DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"DDPMScheduler\",", DR_SAMPLER_DDPM, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"LMSDiscreteScheduler\",\"use_exponential_sigmas\":true,",
          DR_SAMPLER_LMS, DR_SCHEDULE_EXPONENTIAL },
        { "\"_class_name\":\"HeunDiscreteScheduler\",\"use_beta_sigmas\":true,",
          DR_SAMPLER_HEUN, DR_SCHEDULE_BETA },
        { "\"_class_name\":\"KDPM2DiscreteScheduler\",", DR_SAMPLER_DPM_2,
          DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"KDPM2AncestralDiscreteScheduler\",", DR_SAMPLER_DPM_2_A,
          DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"DPMSolverSDEScheduler\",", DR_SAMPLER_DPMPP_SDE,
          DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"UniPCMultistepScheduler\",\"algorithm_type\":\"dpmsolver++\",",
          DR_SAMPLER_UNI_PC, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"DEISMultistepScheduler\",\"algorithm_type\":\"deis\",",
          DR_SAMPLER_DEIS, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"LCMScheduler\",", DR_SAMPLER_LCM, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"TCDScheduler\",", DR_SAMPLER_TCD, DR_SCHEDULE_NORMAL },
        { "\"_class_name\":\"DPMSolverMultistepScheduler\","
          "\"algorithm_type\":\"sde-dpmsolver++\",\"use_karras_sigmas\":true,",
          DR_SAMPLER_DPMPP_2M_SDE, DR_SCHEDULE_KARRAS },
        { "\"_class_name\":\"DPMSolverMultistepScheduler\",\"solver_order\":3,"
          "\"algorithm_type\":\"sde-dpmsolver++\",",
          DR_SAMPLER_DPMPP_3M_SDE, DR_SCHEDULE_NORMAL },
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
        { "{\"use_lu_lambdas\":true}", { "use_lu_lambdas true" } },
        { "{\"algorithm_type\":\"dpmsolver\"}",
          { "algorithm_type 'dpmsolver'", "dpmsolver++ deis sde-dpmsolver++" } },
        { "{\"solver_type\":\"euler\"}", { "solver_type 'euler'", "midpoint logrho bh2" } },
        { "{\"solver_order\":4}", { "solver_order 4", "1..3" } },
        { "{\"skip_prk_steps\":false}", { "skip_prk_steps false" } },
        { "{\"disable_corrector\":[0]}", { "disable_corrector [0]" } },
        { "{\"original_inference_steps\":0}", { "original_inference_steps 0", "1..1000" } },
        { "{\"lambda_min_clipped\":-5.1}", { "lambda_min_clipped -5.1" } },
        { "{\"variance_type\":\"learned_range\"}", { "variance_type 'learned_range'" } },
        { "{\"_class_name\":\"EDMEulerScheduler\"}",
          { "_class_name 'EDMEulerScheduler'" } },
        { "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":0}",
          { "shift 0", "above 0" } },
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
        TEST(loops_equal_references),
        TEST(a_perfect_model_ends_at_the_picture),
        TEST(sigmas_fall_and_timesteps_follow),
        TEST(karras_of_one_step_is_the_noisiest_level),
        TEST(dense_steps_stay_finite),
        TEST(rows_need_no_more_than_they_use),
        TEST(a_start_in_the_middle_has_no_past),
        TEST(strength_rounds_as_diffusers),
        TEST(sdxl_has_its_own_ays),
        TEST(refuses_bad_lists),
        TEST(flow_models_run_by_slope),
        TEST(refuses_what_is_out_of_bounds),
        TEST(refuses_noise_prediction_at_zero_snr),
        TEST(defaults_follow_the_class),
        TEST(reads_an_empty_object_as_all_defaults),
        TEST(reads_pythons_infinity),
        TEST(refuses_unsupported_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
