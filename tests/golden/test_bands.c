#include "../lib/outcome.h"

#include "base/file.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The autoencoder in bands of rows gives what it gives at once, and does so by itself where
 * the device is too small. */

#define LIMIT 1e-5

typedef struct {
    golden *g;
    dr_model *model, *other; /* demo; tiny-sd1, of other channels and groups */
    dr_dev_info *info, real; /* what the device says, for a test to change */
} fixture;

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/demo", sizeof *f);
    f->model = golden_keep(f->g, golden_model(f->g, GOLDEN_DEMO));
    f->other = golden_keep(f->g, golden_model(f->g, GOLDEN_TINY));
    f->info = (dr_dev_info *)dr_dev_describe(f->g->dev);
    f->real = *f->info;
    return 0;
}

static int restore_device(void **state)
{
    fixture *f = *state;
    *f->info = f->real;
    return 0;
}

/* --- both ways --- */

typedef struct {
    const dr_vae *vae;
    dr_tensor (*way)(dr_run *r, const dr_vae *m, dr_tensor x);
    golden_tensor in;
    float *out;
    size_t count, peak_bytes;
    int64_t band_rows;
    bool wrap;
} call;

static void body(dr_run *r, void *ctx)
{
    call *c = ctx;
    r->band_rows = c->band_rows;
    r->wrap = c->wrap;
    dr_tensor y = c->way(r, c->vae, golden_put(r, c->in));
    assert_true((size_t)dr_count(y) <= c->count);
    dr_download(r, y, c->out);
    c->peak_bytes = r->peak_bytes;
}

/* Smooth with some noise: norms see different statistics in each band. */
static golden_tensor waves(golden *g, int64_t n, int64_t h, int64_t w, int64_t c)
{
    golden_tensor x = { .n = n, .h = h, .w = w, .c = c };
    uint32_t noise = 7;
    x.data = dr_arena_alloc(g->mem, golden_count(x) * sizeof *x.data);
    for (size_t i = 0; i < golden_count(x); i++) {
        double row = (double)((int64_t)i / (w * c)), col = (double)((int64_t)i / c % w);
        noise = noise * 1664525u + 1013904223u;
        x.data[i] = (float)(0.7 * sin(row / 5 + (double)((int64_t)i % c)) * cos(col / 9) +
                            0.3 * (noise / 4294967296.0 - 0.5));
    }
    return x;
}

static void equals_the_whole(void **state)
{
    fixture *f = *state;
    static const struct {
        bool encode;
        int64_t n, h, w; /* latents */
        bool wrap;
    } cases[] = {
        { false, 1, 16, 16, false }, { false, 2, 9, 13, false }, { false, 1, 12, 20, true },
        { false, 1, 1, 3, false },   { true, 1, 16, 16, false }, { true, 2, 9, 13, false },
        { true, 1, 12, 20, true },   { true, 1, 2, 1, false },
    };
    static const int64_t bands[] = { 1, 7, 16, 50, 1000 };
    for (size_t i = 0; i < 2 * DR_COUNT(cases); i++) {
        const dr_vae *vae = &(i % 2 ? f->other : f->model)->vae;
        int64_t s = cases[i / 2].encode ? vae->factor : 1, c = cases[i / 2].encode ? 3 : 4;
        call whole = { .vae = vae,
                       .way = cases[i / 2].encode ? dr_vae_encode : dr_vae_decode,
                       .in = waves(f->g, cases[i / 2].n, cases[i / 2].h * s,
                                   cases[i / 2].w * s, c),
                       .wrap = cases[i / 2].wrap };
        whole.count = golden_count(whole.in) * 64;
        call banded = whole;
        whole.out = dr_arena_alloc(f->g->mem, whole.count * sizeof(float));
        banded.out = dr_arena_alloc(f->g->mem, whole.count * sizeof(float));
        golden_run(f->g, body, &whole, 0, NULL);
        size_t count = cases[i / 2].encode ? golden_count(whole.in) / 192 * 8
                                           : golden_count(whole.in) / 4 * 192;
        for (size_t k = 0; k < DR_COUNT(bands); k++) {
            banded.band_rows = bands[k];
            golden_run(f->g, body, &banded, 0, NULL);
            golden_near(f->g, cases[i / 2].encode ? "encode" : "decode", banded.out,
                        whole.out, count, LIMIT);
        }
    }
}

/* --- on small devices --- */

static outcome run(fixture *f, const dr_job *job)
{
    dr_err err = { 0 };
    outcome o = { .g = f->g };
    if (outcome_try(f->model, job, &o, &err))
        fail_msg("%s", err.message);
    return o;
}

static dr_job large_job(void)
{
    return (dr_job){ .id = "large",
                     .prompt = "a red circle on a blue background",
                     .negative_prompt = "",
                     .width = 320,
                     .height = 256,
                     .steps = 2,
                     .cfg_scale = 1, /* so that the UNet needs less than the autoencoder */
                     .eta = NAN,
                     .seed = 5,
                     .n = 1 };
}

static int largest_difference(const outcome *a, const outcome *b)
{
    int most = 0;
    for (size_t k = 0; k < outcome_bytes(a); k++) {
        int d = abs(a->rgb[0][k] - b->rgb[0][k]);
        most = d > most ? d : most;
    }
    return most;
}

/* Scratch that is small beside the activations; and the memory that the model has is gone.
 */
static void small_tiles(dr_model *m)
{
    dr_dev *dev = m->dev;
    dr_run_free(&m->run);
    dr_run_init(&m->run, dev, (size_t)4 << 20, (size_t)4 << 20);
}

/* A device beside the host, with so many percent of what the plan needs beside weights. */
static void shrink_device(fixture *f, const dr_plan *plan, uint64_t percent)
{
    f->info->shares_host = false;
    f->info->memory_bytes =
        dr_pool_bytes(f->model->pool) + (uint64_t)plan->peak_bytes * percent / 100;
    small_tiles(f->model);
}

/* Too little memory, too small buffers: the picture is the same, also that of a job which
 * begins with one. */
static void small_devices_take_bands(void **state)
{
    fixture *f = *state;
    dr_map init;
    dr_err err = { 0 };
    assert_int_equal(dr_map_open(&init, "tests/golden/starts/demo-model.png", &err), DR_OK);
    static const struct {
        bool init;
        uint64_t percent, alloc; /* 0: as it is */
    } cases[] = {
        { false, 80, 0 }, { false, 40, 0 }, { false, 0, 320 * 256 * 32 * 4 - 1 },
        { true, 80, 0 },  { true, 40, 0 },  { true, 0, 320 * 256 * 32 * 4 - 1 },
    }; /* a layer at full size has 32 channels */
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_job job = large_job();
        dr_plan whole, part;
        if (cases[i].init) {
            job.task = DR_IMG2IMG;
            job.init.image = (dr_picture_ref){ .bytes = init.data, .n = init.size };
            job.init.strength = 0.5;
        }
        small_tiles(f->model);
        assert_int_equal(dr_plan_make(&whole, f->model, &job, &err), DR_OK);
        assert_int_equal(whole.band_rows, 0);
        outcome want = run(f, &job);
        if (cases[i].percent)
            shrink_device(f, &whole, cases[i].percent);
        if (cases[i].alloc)
            f->info->max_alloc_bytes = cases[i].alloc;
        small_tiles(f->model);
        if (dr_plan_make(&part, f->model, &job, &err))
            fail_msg("%zu: %s", i, err.message);
        outcome have = run(f, &job);
        *f->info = f->real;
        print_message("%zu: %d rows at once, %zu of %zu KiB\n", i, (int)part.band_rows,
                      (size_t)part.peak_bytes >> 10, (size_t)whole.peak_bytes >> 10);
        assert_true(part.band_rows > 0);
        assert_true(largest_difference(&have, &want) <= 1);
    }
    dr_map_close(&init);
}

/* What bands leave on the host is counted: with the device's own where that is the same
 * memory, else by itself. */
static void the_host_has_limits_too(void **state)
{
    fixture *f = *state;
    dr_job job = large_job();
    dr_plan plan;
    dr_err err = { 0 };
    small_tiles(f->model);
    assert_int_equal(dr_plan_make(&plan, f->model, &job, &err), DR_OK);
    shrink_device(f, &plan, 40);
    f->info->shares_host = true;
    assert_int_equal(dr_plan_make(&plan, f->model, &job, &err), DR_ENOMEM);
    assert_non_null(strstr(err.message, "the device has"));
    f->info->shares_host = false;
    f->info->host_bytes = (uint64_t)320 * 256 * 64 * 4; /* two layers at full size */
    assert_int_equal(dr_plan_make(&plan, f->model, &job, &err), DR_ENOMEM);
    assert_non_null(strstr(err.message, "the host can spare 15 MiB"));
    f->info->host_bytes *= 2;
    assert_int_equal(dr_plan_make(&plan, f->model, &job, &err), DR_OK);
}

static void what_fits_in_no_way_is_refused(void **state)
{
    fixture *f = *state;
    dr_job job = large_job();
    dr_plan plan;
    dr_err err = { 0 };
    f->info->memory_bytes = dr_pool_bytes(f->model->pool) + 1000000;
    assert_int_equal(dr_plan_make(&plan, f->model, &job, &err), DR_ENOMEM);
    assert_non_null(strstr(err.message, "320 x 256 needs"));
}

static void a_setting_forces_them(void **state)
{
    fixture *f = *state;
    dr_job job = large_job();
    dr_plan plan;
    dr_err err = { 0 };
    outcome want = run(f, &job);
    f->model->band_rows = 24;
    assert_int_equal(dr_plan_make(&plan, f->model, &job, &err), DR_OK);
    assert_int_equal(plan.band_rows, 24);
    outcome have = run(f, &job);
    f->model->band_rows = 0;
    assert_true(largest_difference(&have, &want) <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_whole),
        cmocka_unit_test_teardown(small_devices_take_bands, restore_device),
        cmocka_unit_test_teardown(the_host_has_limits_too, restore_device),
        cmocka_unit_test_teardown(what_fits_in_no_way_is_refused, restore_device),
        cmocka_unit_test(a_setting_forces_them),
    };
    return cmocka_run_group_tests_name("bands", tests, setup, golden_end);
}
