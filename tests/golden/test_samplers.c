#include "../lib/golden.h"
#include "../lib/rows.h"

#include "base/file.h"
#include "base/rng.h"
#include "diffusion/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Step tables, whole sampling loops and noise against diffusers and PyTorch. */

#define LIMIT 1e-4
#define TABLE 2e-6 /* tables are float32 there, double here */

static int fixtures(void **state)
{
    *state = golden_open("tests/golden/common");
    return 0;
}

static int close_fixtures(void **state)
{
    return golden_teardown(state);
}

/* A case's config as a file, read as a model's. */
static dr_schedule_config config_of(golden *g, const dr_json *item)
{
    char path[] = "/tmp/darkroom-scheduler.XXXXXX";
    dr_schedule_config cfg;
    dr_err err = { 0 };
    dr_buf text = { 0 };
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    dr_json_put(&text, dr_json_get(item, "config"));
    assert_int_equal(dr_file_write(path, text.data, text.len, &err), DR_OK);
    if (dr_schedule_config_read(&cfg, g->mem, path, &err))
        fail_msg("%s: %s", text.data, err.message);
    unlink(path);
    dr_buf_free(&text);
    return cfg;
}

static dr_steps steps_of(golden *g, const dr_json *item)
{
    int sampler = 0, schedule = 0;
    dr_steps s;
    dr_err err = { 0 };
    dr_schedule_config cfg = config_of(g, item);
    while (strcmp(dr_sampler_name(sampler), dr_json_get_string(item, "sampler", "")) != 0)
        assert_true(++sampler < DR_SAMPLERS);
    while (strcmp(dr_schedule_name(schedule), dr_json_get_string(item, "schedule", "")) !=
           0)
        assert_true(++schedule < DR_SCHEDULES);
    const dr_schedule_ask ask = { .sampler = sampler,
                                  .schedule = schedule,
                                  .steps = (int64_t)dr_json_get_number(item, "steps", 0),
                                  .eta = NAN };
    if (dr_schedule_make(&s, g->mem, &cfg, &ask, &err))
        fail_msg("%s", err.message);
    return s;
}

/* Element i of list `key` is `have` up to `limit` of its size, or of 0.05: sigma stays
 * finite where a zero terminal SNR makes alpha_bar 0. */
static void near_at(const dr_json *item, const char *key, int64_t i, double have,
                    double limit)
{
    double want = dr_json_number(dr_json_at(dr_json_get(item, key), (int)i));
    if (!(fabs(have - want) <= limit * fmax(fabs(want), 0.05))) {
        dr_buf text = { 0 };
        dr_json_put(&text, item);
        fail_msg("%s[%lld] is %.9g, should be %.9g in %s", key, (long long)i, have, want,
                 text.data);
    }
}

static void check_table(const dr_json *item, const dr_steps *s)
{
    double init = dr_json_get_number(item, "init_noise_sigma", NAN);
    bool sigmas = dr_json_get(item, "sigmas") != NULL;
    const char *kind =
        dr_json_get_string(dr_json_get(item, "config"), "prediction_type", "epsilon");
    assert_int_equal(dr_json_count(dr_json_get(item, "timesteps")), s->count);
    assert_true(fabs(s->init_noise_sigma - init) <= TABLE * init);
    for (int64_t i = 0; i < s->count; i++) {
        double a = 1 / (1 + s->sigma[i] * s->sigma[i]);
        near_at(item, "timesteps", i, s->row[i].timestep, TABLE);
        if (sigmas)
            near_at(item, "sigmas", i, s->sigma[i], TABLE);
        else
            near_at(item, "alpha_bar", i, a, TABLE);
        /* DDIM with noise prediction: x' = sqrt(a' / a) x + … */
        if (!sigmas && !strcmp(kind, "epsilon"))
            near_at(item, "alpha_bar_prev", i, pow(s->row[i].x, 2) * a, 4 * TABLE);
    }
    if (sigmas)
        near_at(item, "sigmas", s->count, s->sigma[s->count], TABLE);
}

static void tables_equal_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *list = dr_json_get(g->cases, "tables"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        dr_steps s = steps_of(g, item);
        check_table(item, &s);
    }
    assert_int_equal(dr_json_count(list), 120);
}

/* The loop for the model m = 0.3 u cos(t / 250) + 0.1. */
static void run_loop(const dr_steps *s, golden_tensor noise, float *out)
{
    size_t count = golden_count(noise) / (size_t)noise.n;
    for (size_t i = 0; i < count; i++) {
        double x = s->init_noise_sigma * (double)noise.data[i], h[DR_HIST_MAX] = { 0 };
        for (int64_t k = 0; k < s->count; k++) {
            const dr_step *r = &s->row[k];
            double m = 0.3 * r->in_scale * x * cos(r->timestep / 250) + 0.1, z = 0;
            if (dr_step_draws(r))
                z = (double)noise.data[(size_t)(k + 1) * count + i];
            rows_apply(r, &x, h, m, z);
        }
        out[i] = (float)x;
    }
}

static void loops_equal_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *loops = dr_json_get(g->cases, "loops"), *item;
    const dr_json *list = dr_json_get(loops, "cases");
    const dr_weight *raw = golden_raw(g, dr_json_get_string(loops, "noise", NULL));
    float *data = dr_arena_alloc(g->mem, raw->bytes);
    golden_tensor noise = { memcpy(data, raw->data, raw->bytes), raw->dim[0], 1, 1,
                            (int64_t)(raw->bytes / sizeof(float)) / raw->dim[0] };
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        const char *name = dr_json_get_string(item, "latents", NULL);
        const dr_weight *want = golden_raw(g, name);
        float have[64], should[64];
        assert_int_equal(want->bytes, sizeof should);
        memcpy(should, want->data, sizeof should);
        dr_steps s = steps_of(g, item);
        check_table(item, &s);
        assert_true(s.count < noise.n);
        run_loop(&s, noise, have);
        golden_near(g, name, have, should, 64, LIMIT);
    }
    assert_int_equal(dr_json_count(list), 234);
}

static void betas_equal_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *list = dr_json_get(g->cases, "betas"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        dr_schedule_config cfg = config_of(g, item);
        const dr_json *at = dr_json_get(item, "timesteps");
        bool ddim = !strcmp(dr_json_get_string(item, "sampler", ""), "ddim");
        for (int i = 0; i < dr_json_count(at); i++) {
            int64_t t = (int64_t)dr_json_number(dr_json_at(at, i));
            double sigma = cfg.sigma[t], a = 1 / (1 + sigma * sigma);
            near_at(item, "alpha_bar", i, ddim ? (double)cfg.alpha_bar[t] : a, 4 * TABLE);
        }
    }
    assert_int_equal(dr_json_count(list), 12);
}

/* Draw i of a generator; `kept` values at either end are in the fixture, or all. */
static void check_draw(golden *g, dr_torch_rng *rng, const char *name, size_t count,
                       size_t kept)
{
    const dr_weight *want = golden_raw(g, name);
    size_t n = kept ? 2 * kept : count;
    float *have = dr_arena_alloc(g->mem, count * sizeof *have);
    float *should = dr_arena_alloc(g->mem, want->bytes);
    memcpy(should, want->data, want->bytes);
    assert_int_equal(want->bytes, n * sizeof *should);
    dr_torch_normal(rng, have, count);
    if (kept)
        memmove(have + kept, have + count - kept, kept * sizeof *have);
    golden_near(g, name, have, should, n, 1e-6);
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(have[i] - should[i]) <= 4e-6f);
}

static void noise_equals_pytorch(void **state)
{
    golden *g = *state;
    const dr_json *list = dr_json_get(g->cases, "torch_noise"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        const dr_json *counts = dr_json_get(item, "counts");
        const dr_json *names = dr_json_get(item, "tensors");
        dr_torch_rng rng;
        dr_torch_seed(&rng, strtoull(dr_json_get_string(item, "seed", ""), NULL, 10));
        for (int i = 0; i < dr_json_count(counts); i++)
            check_draw(g, &rng, dr_json_string(dr_json_at(names, i)),
                       (size_t)dr_json_number(dr_json_at(counts, i)),
                       (size_t)dr_json_get_number(item, "kept", 0));
    }
    assert_int_equal(dr_json_count(list), 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(betas_equal_diffusers),
        cmocka_unit_test(tables_equal_diffusers),
        cmocka_unit_test(loops_equal_diffusers),
        cmocka_unit_test(noise_equals_pytorch),
    };
    return cmocka_run_group_tests(tests, fixtures, close_fixtures);
}
