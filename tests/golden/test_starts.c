#include "../lib/outcome.h"

#include "base/file.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Pictures that begin with a picture: against diffusers' img2img and inpaint pipelines, and
 * what a run promises about strengths, masks, batches and checkpoints. */

#define DIR       "tests/golden/starts"
#define LIMIT     1e-4
#define PSNR_MIN  40.0 /* dB, against diffusers */
#define EQUAL_MIN 50.0 /* dB, a picture of a batch against the same alone */

enum { TINY, DEMO, NINE, MODELS };

typedef struct {
    golden *g;
    dr_model *model[MODELS];
} fixture;

/* --- the inpainting UNet: tiny-sd1's with another first convolution --- */

#define WAS "\"conv_in.weight\":{\"dtype\":\"F16\",\"shape\":[16,4,3,3],\"data_offsets\":["

/* A copy of a file of weights, in which conv_in.weight lies at the end. */
static void widen(const char *from, const char *to, const dr_weight *conv)
{
    dr_buf file = { 0 }, text = { 0 };
    uint64_t length;
    assert_int_equal(dr_file_read(from, (size_t)1 << 30, &file, NULL), DR_OK);
    memcpy(&length, file.data, sizeof length);
    const char *header = file.data + 8;
    const char *at = memmem(header, length, WAS, strlen(WAS));
    assert_non_null(at);
    const char *end = memchr(at + strlen(WAS), ']', 64);
    size_t bytes = file.len - 8 - length;
    dr_buf_put(&text, &length, sizeof length);
    dr_buf_put(&text, header, (size_t)(at - header));
    dr_buf_printf(&text,
                  "\"conv_in.weight\":{\"dtype\":\"F16\",\"shape\":[16,9,3,3],"
                  "\"data_offsets\":[%zu,%zu",
                  bytes, bytes + conv->bytes);
    dr_buf_put(&text, end, (size_t)(header + length - end));
    length = text.len - 8;
    dr_buf_put(&text, header + (file.len - 8 - bytes), bytes);
    dr_buf_put(&text, conv->data, conv->bytes);
    memcpy(text.data, &length, sizeof length);
    assert_int_equal(dr_file_write(to, text.data, text.len, NULL), DR_OK);
    dr_buf_free(&file);
    dr_buf_free(&text);
}

static void set_channels(const char *from, const char *to)
{
    static const char was[] = "\"in_channels\": 4";
    dr_buf file = { 0 };
    assert_int_equal(dr_file_read(from, (size_t)1 << 20, &file, NULL), DR_OK);
    char *at = memmem(file.data, file.len, was, strlen(was));
    assert_non_null(at);
    at[strlen(was) - 1] = '9';
    assert_int_equal(dr_file_write(to, file.data, file.len, NULL), DR_OK);
    dr_buf_free(&file);
}

static dr_model *open_nine(golden *g)
{
    static const char weights[] = "diffusion_pytorch_model.safetensors";
    char dir[] = "/tmp/darkroom-model.XXXXXX", from[DR_PATH_MAX], to[DR_PATH_MAX];
    golden_link_model(dir, GOLDEN_TINY, "unet");
    snprintf(to, sizeof to, "%s/unet", dir);
    assert_int_equal(dr_mkdirs(to, NULL), DR_OK);
    snprintf(from, sizeof from, "tests/golden/tiny-sd1/model/unet/%s", weights);
    snprintf(to, sizeof to, "%s/unet/%s", dir, weights);
    widen(from, to, golden_raw(g, "conv_in"));
    snprintf(to, sizeof to, "%s/unet/config.json", dir);
    set_channels("tests/golden/tiny-sd1/model/unet/config.json", to);
    dr_model *m = golden_model(g, dir);
    golden_remove_model(dir);
    return m;
}

static int setup(void **state)
{
    fixture *f = golden_begin(state, DIR, sizeof *f);
    f->model[TINY] = golden_keep(f->g, golden_model(f->g, GOLDEN_TINY));
    f->model[DEMO] = golden_keep(f->g, golden_model(f->g, GOLDEN_DEMO));
    f->model[NINE] = golden_keep(f->g, open_nine(f->g));
    return 0;
}

/* --- jobs --- */

static dr_picture_ref picture(golden *g, const char *name)
{
    char path[DR_PATH_MAX];
    dr_buf file = { 0 };
    snprintf(path, sizeof path, "%s/%s", DIR, name);
    assert_int_equal(dr_file_read(path, (size_t)1 << 20, &file, NULL), DR_OK);
    dr_picture_ref p = { .bytes = dr_arena_str(g->mem, file.data, file.len),
                         .n = file.len };
    dr_buf_free(&file);
    return p;
}

static dr_job start_job(golden *g, const dr_json *item)
{
    const char *mask = dr_json_get_string(item, "mask", NULL);
    dr_job job = golden_job(item);
    job.task = mask ? DR_INPAINT : DR_IMG2IMG;
    job.init.image = picture(g, dr_json_get_string(item, "init", ""));
    job.init.strength = dr_json_get_number(item, "strength", NAN);
    job.init.mean = dr_json_get_bool(item, "mean", false);
    if (mask)
        job.mask.image = picture(g, mask);
    return job;
}

static outcome run(fixture *f, int model, const dr_job *job)
{
    dr_err err = { 0 };
    outcome o = { .g = f->g };
    if (outcome_try(f->model[model], job, &o, &err))
        fail_msg("%s, strength %g: %s", dr_sampler_name(job->sampler), job->init.strength,
                 err.message);
    return o;
}

/* --- against diffusers --- */

static int model_of(const dr_json *item)
{
    return dr_json_get_bool(item, "unet9", false)                  ? NINE
           : strstr(dr_json_get_string(item, "model", ""), "demo") ? DEMO
                                                                   : TINY;
}

static void equals_diffusers(void **state)
{
    fixture *f = *state;
    const dr_json *list = dr_json_get(f->g->cases, "cases"), *item;
    int pictures = 0;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        const char *name = dr_json_get_string(item, "latents", "");
        const char *rgb = dr_json_get_string(item, "rgb", NULL);
        dr_job job = start_job(f->g, item);
        outcome o = run(f, model_of(item), &job);
        golden_tensor want = golden_get(f->g, name);
        golden_near(f->g, name, o.latents, want.data, golden_count(want), LIMIT);
        if (!rgb)
            continue;
        double psnr = golden_psnr(o.rgb[0], golden_raw(f->g, rgb)->data, outcome_bytes(&o));
        print_message("%s: PSNR %.1f dB\n", rgb, psnr);
        assert_true(psnr >= PSNR_MIN);
        pictures++;
    }
    assert_int_equal(dr_json_count(list), 19);
    assert_true(pictures >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_diffusers),
    };
    return cmocka_run_group_tests_name("starts", tests, setup, golden_end);
}
