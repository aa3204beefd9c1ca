#include "../lib/outcome.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

/* Whole runs against diffusers' StableDiffusionPipeline: latents after the loop, pictures,
 * and what a run promises about seeds, batches and bad numbers. */

#define LIMIT     1e-4
#define PSNR_MIN  40.0 /* dB, against diffusers */
#define EQUAL_MIN 50.0 /* dB, a picture of a batch against the same alone */

typedef struct {
    golden *g;
    dr_model *model;
} fixture;

static int setup(void **state, const char *dir)
{
    fixture *f = golden_begin(state, dir, sizeof *f);
    const char *path = dr_json_get_string(f->g->cases, "model", "");
    f->model = golden_keep(f->g, golden_model(f->g, path));
    return 0;
}

static int setup_demo(void **state)
{
    return setup(state, "tests/golden/demo");
}

static int setup_tiny(void **state)
{
    return setup(state, "tests/golden/tiny-sd1");
}

/* --- running a job --- */

static outcome run(golden *g, dr_model *m, const dr_job *job)
{
    dr_err err = { 0 };
    outcome o = { .g = g };
    if (outcome_try(m, job, &o, &err))
        fail_msg("%s, %lld steps: %s", dr_sampler_name(job->sampler), (long long)job->steps,
                 err.message);
    return o;
}

/* A short job with the default noise. */
static dr_job small_job(fixture *f)
{
    dr_job job = golden_job(dr_json_first(dr_json_get(f->g->cases, "images")));
    job.noise = DR_NOISE_PHILOX;
    job.steps = 4;
    job.seed = 7;
    return job;
}

/* --- against diffusers --- */

static void copy_file(const char *from, const char *to_dir, const char *name)
{
    char to[DR_PATH_MAX];
    dr_buf file = { 0 };
    assert_int_equal(dr_file_read(from, (size_t)1 << 30, &file, NULL), DR_OK);
    assert_int_equal(dr_path_join(to, to_dir, name, NULL), DR_OK);
    assert_int_equal(dr_file_write(to, file.data, file.len, NULL), DR_OK);
    dr_buf_free(&file);
}

/* The model, read with another scheduler's file. */
static dr_model *open_with(golden *g, const char *scheduler)
{
    char dir[] = "/tmp/darkroom-model.XXXXXX", to[DR_PATH_MAX];
    golden_link_model(dir, dr_json_get_string(g->cases, "model", ""), "scheduler");
    assert_int_equal(dr_path_join(to, dir, "scheduler", NULL), DR_OK);
    assert_int_equal(dr_mkdirs(to, NULL), DR_OK);
    copy_file(scheduler, to, "scheduler_config.json");
    dr_model *m = golden_model(g, dir);
    golden_remove_model(dir);
    return m;
}

static void latents_equal_diffusers(void **state)
{
    fixture *f = *state;
    golden *g = f->g;
    const dr_json *list = dr_json_get(g->cases, "samplers"), *item;
    const char *scheduler = NULL;
    dr_model *m = NULL;
    int longest = 0;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        const char *file = dr_json_get_string(item, "scheduler", "");
        const char *name = dr_json_get_string(item, "latents", "");
        dr_job job = golden_job(item);
        if (!scheduler || strcmp(file, scheduler) != 0) {
            dr_model_close(m);
            m = open_with(g, scheduler = file);
        }
        outcome o = run(g, m, &job);
        golden_tensor want = golden_get(g, name);
        golden_near(g, name, o.latents, want.data, golden_count(want), LIMIT);
        longest += job.steps == 20;
    }
    dr_model_close(m);
    assert_true(longest >= 6);
}

static void pictures_equal_diffusers(void **state)
{
    fixture *f = *state;
    const dr_json *list = dr_json_get(f->g->cases, "images"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        dr_job job = golden_job(item);
        const char *name = dr_json_get_string(item, "rgb", "");
        const dr_weight *want = golden_raw(f->g, name);
        outcome o = run(f->g, f->model, &job);
        assert_int_equal(o.height, want->dim[0]);
        assert_int_equal(o.width, want->dim[1]);
        double psnr = golden_psnr(o.rgb[0], want->data, outcome_bytes(&o));
        print_message("%s: PSNR %.1f dB\n", name, psnr);
        assert_true(psnr >= PSNR_MIN);
    }
    assert_int_equal(dr_json_count(list), 2);
}

/* --- seeds and batches --- */

static void same_job_same_bytes(void **state)
{
    fixture *f = *state;
    dr_job job = small_job(f), other = job;
    outcome a = run(f->g, f->model, &job);
    other.seed = 1000; /* in between, so that nothing of the first run is left over */
    other.n = 2;
    other.negative_prompt = "something else";
    outcome c = run(f->g, f->model, &other), b = run(f->g, f->model, &job);
    assert_memory_equal(a.rgb[0], b.rgb[0], outcome_bytes(&a));
    assert_true(golden_psnr(a.rgb[0], c.rgb[0], outcome_bytes(&a)) < EQUAL_MIN);
}

static void seed_changes_the_picture(void **state)
{
    fixture *f = *state;
    dr_job job = small_job(f);
    outcome a = run(f->g, f->model, &job);
    job.seed ^= (uint64_t)1 << 40; /* all 64 bits count */
    outcome b = run(f->g, f->model, &job);
    job = small_job(f);
    job.noise = DR_NOISE_TORCH;
    outcome c = run(f->g, f->model, &job);
    size_t count = outcome_bytes(&a);
    assert_true(golden_psnr(a.rgb[0], b.rgb[0], count) < EQUAL_MIN);
    assert_true(golden_psnr(a.rgb[0], c.rgb[0], count) < EQUAL_MIN);
}

/* strength 0 is the seed's picture, 1 that of the other seed, between them another. */
static void subseed_leads_to_its_picture(void **state)
{
    fixture *f = *state;
    for (int kind = DR_NOISE_PHILOX; kind <= DR_NOISE_TORCH; kind++) {
        dr_job job = small_job(f), there = job;
        job.noise = there.noise = (dr_noise_kind)kind;
        job.subseed = there.seed = 1000;
        outcome from = run(f->g, f->model, &job), to = run(f->g, f->model, &there);
        size_t count = outcome_bytes(&to);
        job.subseed_strength = 0.5;
        outcome half = run(f->g, f->model, &job);
        job.subseed_strength = 1;
        outcome whole = run(f->g, f->model, &job);
        assert_true(golden_psnr(whole.rgb[0], to.rgb[0], count) >= EQUAL_MIN);
        assert_true(golden_psnr(half.rgb[0], from.rgb[0], count) < EQUAL_MIN);
        assert_true(golden_psnr(half.rgb[0], to.rgb[0], count) < EQUAL_MIN);
    }
}

/* Every image of a batch is the picture its own seed gives alone, with noise in every step
 * or only at the start, with guidance and without. */
static void batch_equals_single_runs(void **state)
{
    static const struct {
        dr_sampler_id sampler;
        dr_noise_kind noise;
        double cfg;
    } ways[] = {
        { DR_SAMPLER_EULER_A, DR_NOISE_PHILOX, 5 },
        { DR_SAMPLER_EULER_A, DR_NOISE_TORCH, 1 },
        { DR_SAMPLER_DPMPP_2M, DR_NOISE_PHILOX, 1 },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(ways); i++) {
        dr_job job = small_job(f);
        job.sampler = ways[i].sampler;
        job.noise = ways[i].noise;
        job.cfg_scale = ways[i].cfg;
        job.n = 2;
        outcome both = run(f->g, f->model, &job);
        job.n = 1;
        for (int k = 0; k < 2; k++, job.seed++) {
            outcome one = run(f->g, f->model, &job);
            assert_int_equal(both.seed[k], job.seed);
            double psnr = golden_psnr(both.rgb[k], one.rgb[0], outcome_bytes(&one));
            if (!(psnr >= EQUAL_MIN))
                fail_msg("way %zu, image %d: PSNR %.1f dB", i, k, psnr);
        }
    }
}

/* Guidance off (cfg <= 1) is one UNet row, and another picture. */
static void guidance_changes_the_picture(void **state)
{
    fixture *f = *state;
    dr_job job = small_job(f);
    outcome with = run(f->g, f->model, &job);
    job.cfg_scale = 1;
    outcome without = run(f->g, f->model, &job);
    assert_true(golden_psnr(with.rgb[0], without.rgb[0], outcome_bytes(&with)) < EQUAL_MIN);
    job.negative_prompt = "is not read then";
    outcome still = run(f->g, f->model, &job);
    assert_memory_equal(still.rgb[0], without.rgb[0], outcome_bytes(&with));
}

/* --- what a run tells --- */

static void previews_come_and_change_nothing(void **state)
{
    fixture *f = *state;
    dr_job job = small_job(f);
    outcome plain = run(f->g, f->model, &job);
    job.preview.every = 1;
    outcome shown = run(f->g, f->model, &job);
    assert_int_equal(plain.previews, 0);
    assert_int_equal(shown.previews, job.steps - 1); /* the last step is the picture */
    assert_memory_equal(plain.rgb[0], shown.rgb[0], outcome_bytes(&plain));
}

static void stops_within_one_step(void **state)
{
    fixture *f = *state;
    dr_job job = small_job(f);
    dr_err err = { 0 };
    outcome o = { .g = f->g, .stop_after = 2 };
    assert_int_equal(outcome_try(f->model, &job, &o, &err), DR_ESTOPPED);
    assert_int_equal(o.last.step, 2);
    assert_int_equal(o.pictures, 0);
    run(f->g, f->model, &job); /* and the next job is not disturbed */
}

/* --- bad numbers --- */

/* A copy of a component's weights with NaN as the first value of a tensor of halves. */
static void spoil(const char *from, const char *to, const char *tensor)
{
    static const char name[] = "diffusion_pytorch_model.safetensors";
    char path[DR_PATH_MAX];
    dr_buf file = { 0 };
    dr_json *header = NULL;
    uint64_t length;
    assert_int_equal(dr_path_join(path, from, name, NULL), DR_OK);
    assert_int_equal(dr_file_read(path, (size_t)1 << 30, &file, NULL), DR_OK);
    memcpy(&length, file.data, sizeof length);
    assert_int_equal(dr_json_parse(&header, file.data + 8, length, NULL), DR_OK);
    const dr_json *span = dr_json_get(dr_json_get(header, tensor), "data_offsets");
    assert_int_equal(dr_json_type(span), DR_JSON_ARRAY);
    memcpy(file.data + 8 + length + (size_t)dr_json_number(dr_json_at(span, 0)), "\0\x7e",
           2);
    assert_int_equal(dr_path_join(path, to, name, NULL), DR_OK);
    assert_int_equal(dr_file_write(path, file.data, file.len, NULL), DR_OK);
    dr_json_free(header);
    dr_buf_free(&file);
}

static dr_model *open_spoiled(golden *g, const char *component, const char *tensor)
{
    const char *source = dr_json_get_string(g->cases, "model", "");
    char dir[] = "/tmp/darkroom-model.XXXXXX", to[DR_PATH_MAX];
    char from[DR_PATH_MAX], config[DR_PATH_MAX];
    golden_link_model(dir, source, component);
    assert_int_equal(dr_path_join(from, source, component, NULL), DR_OK);
    assert_int_equal(dr_path_join(config, from, "config.json", NULL), DR_OK);
    assert_int_equal(dr_path_join(to, dir, component, NULL), DR_OK);
    assert_int_equal(dr_mkdirs(to, NULL), DR_OK);
    spoil(from, to, tensor);
    copy_file(config, to, "config.json");
    dr_model *m = golden_model(g, dir);
    golden_remove_model(dir);
    return m;
}

static void nan_is_a_failure_not_a_picture(void **state)
{
    static const char *const places[][3] = {
        { "unet", "conv_out.weight", "latents" },
        { "unet", "mid_block.resnets.0.conv1.weight", "latents" },
        { "vae", "decoder.conv_out.weight", "picture" },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(places); i++) {
        dr_model *m = open_spoiled(f->g, places[i][0], places[i][1]);
        dr_job job = small_job(f);
        dr_err err = { 0 };
        outcome o = { .g = f->g };
        dr_status st = outcome_try(m, &job, &o, &err);
        dr_model_close(m);
        if (st != DR_ENUMERIC || !strstr(err.message, places[i][2]))
            fail_msg("%s: status %s, message %s", places[i][1], dr_status_name(st),
                     err.message);
        assert_int_equal(o.pictures, 0);
    }
}

#define COMMON                                                                             \
    cmocka_unit_test(latents_equal_diffusers), cmocka_unit_test(pictures_equal_diffusers), \
        cmocka_unit_test(batch_equals_single_runs)

int main(void)
{
    const struct CMUnitTest demo[] = { COMMON };
    const struct CMUnitTest tiny[] = {
        COMMON,
        cmocka_unit_test(same_job_same_bytes),
        cmocka_unit_test(seed_changes_the_picture),
        cmocka_unit_test(subseed_leads_to_its_picture),
        cmocka_unit_test(guidance_changes_the_picture),
        cmocka_unit_test(previews_come_and_change_nothing),
        cmocka_unit_test(stops_within_one_step),
        cmocka_unit_test(nan_is_a_failure_not_a_picture),
    };
    return cmocka_run_group_tests_name("demo", demo, setup_demo, golden_end) +
           cmocka_run_group_tests_name("tiny-sd1", tiny, setup_tiny, golden_end);
}
