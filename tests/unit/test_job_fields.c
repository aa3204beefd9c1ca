#include "test_job_pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Every field under every name, in every shape; every bound from both sides. */

typedef enum { INT, FLOAT, BOOL, TEXT, ENUM } kind;

#define AT(member) offsetof(dr_job, member)

static const struct {
    const char *name, *value; /* as plain text */
    kind kind;
    size_t offset;
    double want;
} cases[] = {
    { "width", "512", INT, AT(width), 512 },
    { "height", "768", INT, AT(height), 768 },
    { "size", "512x768", INT, AT(width), 512 },
    { "size", "512X768", INT, AT(height), 768 },
    { "steps", "20", INT, AT(steps), 20 },
    { "steps", "20.0", INT, AT(steps), 20 },
    { "num_inference_steps", "21", INT, AT(steps), 21 },
    { "sample_steps", "22", INT, AT(steps), 22 },
    { "cfg_scale", "7.5", FLOAT, AT(cfg_scale), 7.5 },
    { "guidance_scale", "0", FLOAT, AT(cfg_scale), 0 },
    { "cfg", "100", FLOAT, AT(cfg_scale), 100 },
    { "n", "2", INT, AT(n), 2 },
    { "num_images", "3", INT, AT(n), 3 },
    { "num_outputs", "4", INT, AT(n), 4 },
    { "batch_size", "5", INT, AT(n), 5 },
    { "n_iter", "16", INT, AT(n), 16 },
    { "sampler", "ddim", ENUM, AT(sampler), DR_SAMPLER_DDIM },
    { "sampler_name", "Euler a", ENUM, AT(sampler), DR_SAMPLER_EULER_A },
    { "scheduler", "K_EULER", ENUM, AT(sampler), DR_SAMPLER_EULER },
    { "scheduler", "karras", ENUM, AT(schedule), DR_SCHEDULE_KARRAS },
    { "scheduler", "Automatic", ENUM, AT(schedule), DR_SCHEDULE_DEFAULT },
    { "schedule", "normal", ENUM, AT(schedule), DR_SCHEDULE_NORMAL },
    { "noise_schedule", "discrete", ENUM, AT(schedule), DR_SCHEDULE_NORMAL },
    { "karras", "true", ENUM, AT(schedule), DR_SCHEDULE_KARRAS },
    { "karras", "false", ENUM, AT(schedule), DR_SCHEDULE_NORMAL },
    { "clip_skip", "0", INT, AT(clip_skip), 0 },
    { "clip_skip", "1", INT, AT(clip_skip), 0 },
    { "clip_skip", "2", INT, AT(clip_skip), 1 },
    { "clip_skip", "-1", INT, AT(clip_skip), 0 },
    { "clip_skip", "-2", INT, AT(clip_skip), 1 },
    { "eta", "0.5", FLOAT, AT(eta), 0.5 },
    { "noise", "torch", ENUM, AT(noise), DR_NOISE_TORCH },
    { "noise", "philox", ENUM, AT(noise), DR_NOISE_PHILOX },
    { "cfg_rescale", "0.7", FLOAT, AT(cfg_rescale), 0.7 },
    { "guidance_rescale", "1", FLOAT, AT(cfg_rescale), 1 },
    { "cfg_start", "0.25", FLOAT, AT(cfg_start), 0.25 },
    { "cfg_end", "0.75", FLOAT, AT(cfg_end), 0.75 },
    { "perp_neg", "true", BOOL, AT(perp_neg), 1 },
    { "subseed", "5", INT, AT(subseed), 5 },
    { "variation_seed", "6", INT, AT(subseed), 6 },
    { "subseed_strength", "0.3", FLOAT, AT(subseed_strength), 0.3 },
    { "variation_strength", "0.4", FLOAT, AT(subseed_strength), 0.4 },
    { "tiling", "true", BOOL, AT(tiling), 1 },
    { "seamless", "true", BOOL, AT(tiling), 1 },
    { "hires", "2", FLOAT, AT(hires.scale), 2 },
    { "hires", "true", FLOAT, AT(hires.scale), 2 },
    { "hires", "false", FLOAT, AT(hires.scale), 0 },
    { "hires_fix", "true", FLOAT, AT(hires.scale), 2 },
    { "enable_hr", "true", FLOAT, AT(hires.scale), 2 },
    { "enable_hr", "false", FLOAT, AT(hires.scale), 0 },
    { "hires.scale", "1.5", FLOAT, AT(hires.scale), 1.5 },
    { "hires_scale", "4", FLOAT, AT(hires.scale), 4 },
    { "hr_scale", "1", FLOAT, AT(hires.scale), 1 },
    { "output_format", "webp", ENUM, AT(output.format), DR_FORMAT_WEBP },
    { "output.format", "png", ENUM, AT(output.format), DR_FORMAT_PNG },
    { "format", "jpeg", ENUM, AT(output.format), DR_FORMAT_JPEG },
    { "format", "JPG", ENUM, AT(output.format), DR_FORMAT_JPEG },
    { "output.near_lossless", "60", INT, AT(output.near_lossless), 60 },
    { "output_near_lossless", "0", INT, AT(output.near_lossless), 1 },
    { "near_lossless", "100", INT, AT(output.near_lossless), 100 },
    { "output.sheet", "true", BOOL, AT(output.sheet), 1 },
    { "output_sheet", "true", BOOL, AT(output.sheet), 1 },
    { "sheet", "true", BOOL, AT(output.sheet), 1 },
    { "output.contact_sheet", "true", BOOL, AT(output.sheet), 1 },
    { "contact_sheet", "true", BOOL, AT(output.sheet), 1 },
    { "output.quality", "0", INT, AT(output.quality), 0 },
    { "output_quality", "80", INT, AT(output.quality), 80 },
    { "quality", "100", INT, AT(output.quality), 100 },
    { "output.lossless", "true", BOOL, AT(output.lossless), 1 },
    { "output_lossless", "true", BOOL, AT(output.lossless), 1 },
    { "lossless", "true", BOOL, AT(output.lossless), 1 },
    { "output.metadata", "false", BOOL, AT(output.metadata), 0 },
    { "output_metadata", "false", BOOL, AT(output.metadata), 0 },
    { "preview.every", "5", INT, AT(preview.every), 5 },
    { "preview_every", "5", INT, AT(preview.every), 5 },
    { "show_progress_every_n_steps", "6", INT, AT(preview.every), 6 },
    { "preview", "true", INT, AT(preview.every), DR_PREVIEW_AUTO },
    { "previews", "false", INT, AT(preview.every), 0 },
    { "preview_size", "64", INT, AT(preview.every), DR_PREVIEW_AUTO },
    { "preview.size", "0", INT, AT(preview.every), DR_PREVIEW_AUTO },
    { "preview.size", "128", INT, AT(preview.size), 128 },
    { "preview_size", "128", INT, AT(preview.size), 128 },
    { "events", "msgpack", BOOL, AT(events_msgpack), 1 },
    { "events", "json", BOOL, AT(events_msgpack), 0 },
    { "task", "txt2img", ENUM, AT(task), DR_TXT2IMG },
    { "task", "text-to-image", ENUM, AT(task), DR_TXT2IMG },
    { "priority", "high", ENUM, AT(priority), DR_PRIORITY_HIGH },
    { "priority", "normal", ENUM, AT(priority), DR_PRIORITY_NORMAL },
    { "priority", "low", ENUM, AT(priority), DR_PRIORITY_LOW },
    { "ttl_ms", "60000", INT, AT(ttl_ms), 60000 },
    { "timeout_ms", "2592000000", INT, AT(timeout_ms), 2592000000.0 },
    { "delay_ms", "0", INT, AT(delay_ms), 0 },
    { "max_attempts", "1", INT, AT(max_attempts), 1 },
};

static const struct {
    const char *name, *value;
    size_t offset;
} texts[] = {
    { "negative_prompt", "blurry", AT(negative_prompt) },
    { "negative", "", AT(negative_prompt) },
    { "model", "tiny-sd", AT(model) },
    { "checkpoint", "v1.5", AT(model) },
    { "model_name", "sd 1.5", AT(model) },
    { "model", "v1.safetensors.x", AT(model) },
    { "unique", "user-7", AT(unique) },
    { "id", "job_1.a~", AT(id) },
    { "meta", "{\"a\":[1,null]}", AT(meta_json) },
};

static double read_number(const dr_job *job, kind k, size_t offset)
{
    const void *at = (const char *)job + offset;
    if (k == INT)
        return (double)*(const int64_t *)at;
    if (k == FLOAT)
        return *(const double *)at;
    return k == BOOL ? (double)*(const bool *)at : (double)*(const int *)at;
}

static bool is_word(kind k, const char *value)
{
    return k == TEXT || (k == ENUM && strcmp(value, "true") && strcmp(value, "false"));
}

/* {"prompt": "x", name: value}, value as the type that the text spells, or as text. */
static dr_status decode_msgpack(fixture *t, const char *name, const char *value,
                                bool as_text)
{
    dr_buf b = { 0 };
    msgpack_packer pk;
    char *end;
    msgpack_packer_init(&pk, &b, write_buf);
    msgpack_pack_map(&pk, 2);
    pack_text(&pk, "prompt");
    pack_text(&pk, "x");
    pack_text(&pk, name);
    long long i = strtoll(value, &end, 10);
    double d = 0;
    if (!as_text && *value && !*end)
        msgpack_pack_int64(&pk, i);
    else if (!as_text && (d = strtod(value, &end), *value && !*end))
        msgpack_pack_double(&pk, d);
    else if (!as_text && !strcmp(value, "true"))
        msgpack_pack_true(&pk);
    else if (!as_text && !strcmp(value, "false"))
        msgpack_pack_false(&pk);
    else
        pack_text(&pk, value);
    dr_status st = decode_as(t, "job", b.data, b.len);
    dr_buf_free(&b);
    return st;
}

static void test_every_name_in_every_shape(void **state)
{
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        const char *name = cases[i].name, *value = cases[i].value;
        char bare[256], quoted[256];
        snprintf(bare, sizeof bare, "{'prompt':'x','%s':%s}", name, value);
        snprintf(quoted, sizeof quoted, "{'prompt':'x','%s':'%s'}", name, value);
        bool word = is_word(cases[i].kind, value) || strpbrk(value, "xXjmwpJ");
        for (int shape = 0; shape < 5; shape++) {
            dr_status st = shape == 0   ? decode_plain(t, name, value, NULL)
                           : shape == 1 ? decode_json(t, word ? quoted : bare)
                           : shape == 2 ? decode_json(t, quoted)
                                        : decode_msgpack(t, name, value, shape == 4);
            if (st)
                fail_msg("%s=%s in shape %d: %s", name, value, shape, t->err.message);
            double got = read_number(t->job, cases[i].kind, cases[i].offset);
            if (got != cases[i].want)
                fail_msg("%s=%s in shape %d gave %g", name, value, shape, got);
            /* a sheet of one picture is no use */
            assert_int_equal(t->job->n_warnings, strstr(name, "sheet") && got == 1);
        }
    }
}

static void test_texts(void **state)
{
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(texts); i++) {
        assert_int_equal(decode_plain(t, texts[i].name, texts[i].value, NULL), DR_OK);
        const char *got = *(char **)((char *)t->job + texts[i].offset);
        assert_string_equal(got, texts[i].value);
    }
    for (size_t i = 0; i + 1 < DR_COUNT(texts); i++) {
        assert_int_equal(decode_msgpack(t, texts[i].name, texts[i].value, true), DR_OK);
        const char *got = *(char **)((char *)t->job + texts[i].offset);
        assert_string_equal(got, texts[i].value);
    }
}

static void test_defaults_of_an_empty_job(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_plain(t, NULL), DR_OK);
    const dr_job *job = t->job;
    assert_string_equal(job->id, "17-0");
    assert_string_equal(job->prompt, "x");
    assert_string_equal(job->negative_prompt, "");
    assert_null(job->model);
    assert_null(job->meta_json);
    assert_null(job->unique);
    assert_int_equal(job->width, 0);
    assert_int_equal(job->height, 0);
    assert_int_equal(job->steps, 0);
    assert_int_equal(job->n, 1);
    assert_true(isnan(job->cfg_scale));
    assert_true(isnan(job->eta));
    assert_true(job->seed_is_random);
    assert_in_range(job->seed, 0, UINT32_MAX);
    assert_int_equal(job->sampler, DR_SAMPLER_DEFAULT);
    assert_int_equal(job->schedule, DR_SCHEDULE_DEFAULT);
    assert_int_equal(job->output.quality, 90);
    assert_false(job->output.lossless);
    assert_true(job->output.metadata);
    assert_int_equal(job->preview.every, 0);
    assert_int_equal(job->priority, DR_PRIORITY_NORMAL);
    assert_int_equal(job->max_attempts, 3);
    assert_int_equal(job->task, DR_TXT2IMG);
    assert_true(job->cfg_rescale == 0 && job->cfg_start == 0 && job->cfg_end == 1);
    assert_true(job->init.strength == 0.8 && job->init.fit == DR_FIT_STRETCH);
    assert_true(job->mask.blur == 4 && job->mask.padding == 32);
    assert_true(job->hires.scale == 0 && job->hires.strength == 0.7);
    assert_true(job->hires.steps == 0 && job->hires.upscaler == DR_UPSCALE_LATENT);
    assert_true(job->subseed_strength == 0 && job->subseed_is_random);
    assert_int_equal(job->output.format, DR_FORMAT_WEBP);
    assert_int_equal(job->output.near_lossless, 100);
    assert_int_equal(job->n_loras + job->n_controls, 0);
    assert_null(job->init.image.bytes);
    assert_null(job->init.image.key);
    assert_null(job->sigmas);
    assert_int_equal(job->n_warnings, 0);
    uint64_t first = job->seed;
    bool differs = false;
    for (int i = 0; i < 4; i++)
        differs |= !decode_plain(t, NULL) && t->job->seed != first;
    assert_true(differs);
}

static void test_null_means_not_given(void **state)
{
    fixture *t = *state;
    assert_int_equal(
        decode_json(t, "{'prompt':'x','negative_prompt':null,'steps':null,'seed':null,"
                       "'image':null,'mask':null,'loras':[],'enable_hr':false,'meta':null,"
                       "'output':null,'size':null}"),
        DR_OK);
    assert_string_equal(t->job->negative_prompt, "");
    assert_int_equal(t->job->steps, 0);
    assert_true(t->job->seed_is_random);
    assert_null(t->job->meta_json);
    assert_int_equal(t->job->n_warnings, 0);
    assert_fails(t, decode_json(t, "{'prompt':null}"), "prompt", "missing");
}

static const struct {
    const char *name, *value, *field, *message;
} bad[] = {
    { "width", "0", "width",
      "width 0: must be a multiple of 8 in 64..2048; the nearest is 64" },
    { "width", "7", "width", "the nearest is 64" },
    { "width", "56", "width", "the nearest is 64" },
    { "width", "65", "width",
      "width 65: must be a multiple of 8 in 64..2048; the nearest is 64" },
    { "width", "1001", "width", "the nearest is 1000" },
    { "height", "1005", "height", "the nearest is 1008" },
    { "height", "2056", "height", "the nearest is 2048" },
    { "height", "100000", "height", "height 100000" },
    { "height", "-512", "height", "the nearest is 64" },
    { "height", "512.5", "height", "multiple of 8" },
    { "width", "9223372036854775807", "width", "the nearest is 2048" },
    { "width", "99999999999999999999", "width", "multiple of 8" },
    { "size", "512", "size", "WIDTHxHEIGHT" },
    { "size", "512x", "size", "WIDTHxHEIGHT" },
    { "size", "512x512x512", "size", "WIDTHxHEIGHT" },
    { "size", "512xx512", "size", "WIDTHxHEIGHT" },
    { "size", "-512x512", "size", "WIDTHxHEIGHT" },
    { "size", "99999999x99999999", "size", "WIDTHxHEIGHT" },
    { "size", "512x513", "height", "the nearest is 512" },
    { "steps", "0", "steps", "steps 0: must be a whole number in 1..1000" },
    { "steps", "1001", "steps", "1..1000" },
    { "steps", "1000000000", "steps", "steps 1000000000" },
    { "steps", "-1", "steps", "1..1000" },
    { "steps", "20.5", "steps", "whole number" },
    { "steps", "1e300", "steps", "whole number" },
    { "num_inference_steps", "0", "steps", "1..1000" },
    { "n", "0", "n", "1..16" },
    { "n", "17", "n", "1..16" },
    { "cfg_scale", "-0.1", "cfg_scale", "0..100" },
    { "cfg_scale", "100.1", "cfg_scale", "0..100" },
    { "eta", "1.01", "eta", "0..1" },
    { "cfg_rescale", "1.1", "cfg_rescale", "0..1" },
    { "cfg_start", "-0.1", "cfg_start", "0..1" },
    { "cfg_end", "2", "cfg_end", "0..1" },
    { "cfg_end", "0", "cfg_start", "cfg_start 0: must be below cfg_end, which is 0" },
    { "cfg_start", "1", "cfg_start", "cfg_scale 1 turns guidance off" },
    { "perp_neg", "2", "perp_neg", "true or false" },
    { "tiling", "x", "tiling", "true or false" },
    { "subseed", "-2", "subseed", "subseed -2: must be a whole number in 0.." },
    { "subseed_strength", "1.5", "subseed_strength", "0..1" },
    { "strength", "1.5", "strength", "strength 1.5: must be a number in 0..1" },
    { "denoising_strength", "-0.5", "strength", "0..1" },
    { "fit", "tile", "fit", "\"tile\": this version knows stretch, crop, pad" },
    { "resize_mode", "3", "fit", "this version knows stretch, crop, pad" },
    { "init.mean", "5", "init.mean", "true or false" },
    { "mask_blur", "-1", "mask_blur", "0..256" },
    { "mask_blur", "257", "mask_blur", "0..256" },
    { "mask_padding", "2049", "mask_padding", "0..2048" },
    { "mask_padding", "1.5", "mask_padding", "whole number" },
    { "inpaint_full_res", "7", "only_masked", "true or false" },
    { "hires", "0.5", "hires.scale", "hires.scale 0.5: must be a number in 1..4" },
    { "hires", "much", "hires", "must be a scale, a map, or true or false" },
    { "hr_scale", "5", "hires.scale", "1..4" },
    { "hr_second_pass_steps", "1001", "hires.steps", "0..1000" },
    { "hires_strength", "1.01", "hires.strength", "0..1" },
    { "hr_upscaler", "ESRGAN_4x", "hires.upscaler", "this version knows latent, lanczos" },
    { "enable_hr", "5", "enable_hr", "true or false" },
    { "hr_resize_x", "1024", "hr_resize_x", "cannot do that; leave it out" },
    { "lora_scale", "11", "lora_scale", "-10..10" },
    { "near_lossless", "101", "output.near_lossless", "0..100" },
    { "sheet", "no way", "output.sheet", "true or false" },
    { "clip_skip", "13", "clip_skip", "1..12" },
    { "clip_skip", "-13", "clip_skip", "-1..-12" },
    { "output.quality", "101", "output.quality", "0..100" },
    { "quality", "-1", "output.quality", "0..100" },
    { "preview.every", "1001", "preview.every", "0..1000" },
    { "preview.size", "2049", "preview.size", "0..2048" },
    { "ttl_ms", "-1", "ttl_ms", "0..2592000000" },
    { "timeout_ms", "2592000001", "timeout_ms", "0..2592000000" },
    { "delay_ms", "2592000001", "delay_ms", "0..2592000000" },
    { "max_attempts", "0", "max_attempts", "1..100" },
    { "max_attempts", "101", "max_attempts", "1..100" },
    { "output.format", "gif", "output.format",
      "\"gif\": this version knows webp, png, jpeg" },
    { "noise", "perlin", "noise", "philox, torch" },
    { "events", "xml", "events", "json, msgpack" },
    { "priority", "urgent", "priority", "high, normal, low" },
    { "task", "outpaint", "task",
      "\"outpaint\": this version knows txt2img, img2img, inpaint" },
    { "task", "img2img", "task", "task img2img needs an init_image" },
    { "task", "inpaint", "task", "task inpaint needs an init_image" },
    { "sampler", "heun2", "sampler", "\"heun2\"; known: ddim, euler, euler_a, dpmpp_2m" },
    { "sampler", "karras", "sampler", "known: ddim" },
    { "sampler", "DPM++ 2M SDE Heun", "sampler", "known: ddim" },
    { "sampler", "dpm_adaptive", "sampler", "deis, lcm, tcd" },
    { "sampler", "ddim_uniform", "sampler", "known: ddim" },
    { "schedule", "polyexponential", "schedule", "known: normal, karras" },
    { "schedule", "bong_tangent", "schedule", "linear_quadratic, custom" },
    { "scheduler", "RePaint", "scheduler",
      "known samplers: ddim, euler, euler_a, dpmpp_2m" },
    { "scheduler", "RePaint", "scheduler", "tcd; known schedules: normal, karras" },
    { "karras", "maybe", "karras", "true or false" },
    { "lossless", "2", "output.lossless", "true or false" },
    { "model", "../other", "model", "without" },
    { "model", "a/b", "model", "without" },
    { "model", "..", "model", "without" },
    { "model", ".hidden", "model", "without" },
    { "model", "a\nb", "model", "control characters" },
    { "model", "a\x7f", "model", "control characters" },
    { "model", "", "model", "empty" },
    { "seed", "-2", "seed", "0..18446744073709551615" },
    { "seed", "18446744073709551616", "seed", "0..18446744073709551615" },
    { "seed", "1.5", "seed", "whole number" },
    { "seed", "abc", "seed", "whole number" },
    { "seed", "", "seed", "whole number" },
    { "id", "", "id", "1..128" },
};

static void test_bad_values(void **state)
{
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        assert_fails(t, decode_plain(t, bad[i].name, bad[i].value, NULL), bad[i].field,
                     bad[i].message);
        assert_fails(t, decode_msgpack(t, bad[i].name, bad[i].value, true), bad[i].field,
                     bad[i].message);
    }
}

static void test_bounds_are_accepted(void **state)
{
    static const char *const good[][2] = {
        { "width", "64" },
        { "height", "2048" },
        { "steps", "1" },
        { "steps", "1000" },
        { "n", "1" },
        { "n", "16" },
        { "cfg_scale", "0" },
        { "cfg_scale", "100" },
        { "eta", "0" },
        { "eta", "1" },
        { "clip_skip", "12" },
        { "clip_skip", "-12" },
        { "quality", "0" },
        { "quality", "100" },
        { "preview.size", "2048" },
        { "preview.size", "0" },
        { "preview.every", "1000" },
        { "max_attempts", "100" },
        { "ttl_ms", "0" },
        { "ttl_ms", "2592000000" },
        { "delay_ms", "2592000000" },
        { "strength", "0" },
        { "strength", "1" },
        { "cfg_rescale", "1" },
        { "cfg_end", "0.001" },
        { "mask_blur", "256" },
        { "mask_padding", "2048" },
        { "hires", "1.0" },
        { "hires", "4" },
        { "near_lossless", "0" },
        { "subseed_strength", "1" },
        { "subseed", "18446744073709551615" },
        { "variation_seed", "-1" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(good); i++)
        if (decode_plain(t, good[i][0], good[i][1], NULL))
            fail_msg("%s=%s: %s", good[i][0], good[i][1], t->err.message);
}

/* Neither NaN nor Inf, by value or by name, in a known field or an unknown one. */
static void test_not_finite(void **state)
{
    static const char *const names[][2] = {
        { "cfg", "cfg_scale" }, { "eta", "eta" },     { "steps", "steps" },
        { "seed", "seed" },     { "width", "width" }, { "meta", "meta" },
        { "other", "other" },
    };
    static const double values[] = { NAN, INFINITY, -INFINITY };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(names); i++)
        for (size_t k = 0; k < DR_COUNT(values); k++) {
            dr_buf b = { 0 };
            msgpack_packer pk;
            msgpack_packer_init(&pk, &b, write_buf);
            msgpack_pack_map(&pk, 2);
            pack_text(&pk, "prompt");
            pack_text(&pk, "x");
            pack_text(&pk, names[i][0]);
            if (i % 2)
                msgpack_pack_array(&pk, 1); /* inside a list, too */
            k % 2 ? msgpack_pack_double(&pk, values[k])
                  : msgpack_pack_float(&pk, (float)values[k]);
            assert_fails(t, decode_as(t, "job", b.data, b.len), names[i][1], "NaN");
            dr_buf_free(&b);
        }
    assert_fails(t, decode_json(t, "{'prompt':'x','cfg':1e999}"), "cfg_scale", "NaN");
    assert_fails(t, decode_json(t, "{'prompt':'x','cfg':NaN}"), "json", "not JSON");
    assert_fails(t, decode_plain(t, "cfg", "nan", NULL), "cfg_scale", "\"nan\"");
    assert_fails(t, decode_plain(t, "cfg", "inf", NULL), "cfg_scale", "\"inf\"");
    assert_fails(t, decode_plain(t, "cfg", "1e999", NULL), "cfg_scale", "0..100");
    assert_fails(t, decode_plain(t, "cfg", "0x10", NULL), "cfg_scale", "0..100");
}

/* A value of a kind that no field takes, for every field. */
static void test_wrong_types(void **state)
{
    static const char *const names[] = {
        "id",
        "events",
        "task",
        "model",
        "prompt",
        "width",
        "height",
        "size",
        "negative_prompt",
        "steps",
        "cfg_scale",
        "seed",
        "n",
        "sampler",
        "schedule",
        "scheduler",
        "karras",
        "eta",
        "clip_skip",
        "noise",
        "output",
        "output.format",
        "ttl_ms",
        "output.quality",
        "output.lossless",
        "preview",
        "preview.every",
        "priority",
        "output.metadata",
        "preview.size",
        "timeout_ms",
        "max_attempts",
        "delay_ms",
        "unique",
        "init_image",
        "strength",
        "fit",
        "init.mean",
        "mask",
        "mask_blur",
        "mask_invert",
        "only_masked",
        "mask_padding",
        "subseed",
        "tiling",
        "subseed_strength",
        "perp_neg",
        "cfg_start",
        "cfg_end",
        "cfg_rescale",
        "hires.steps",
        "enable_hr",
        "lora_scale",
        "control_image",
        "output.near_lossless",
        "output.sheet",
        "hires.upscaler",
        "hires.scale",
        "control_strength",
        "init",
        "embeddings",
        "refiner",
        "control_type",
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(names); i++)
        for (int k = 0; k < 4; k++) {
            dr_buf b = { 0 };
            msgpack_packer pk;
            msgpack_packer_init(&pk, &b, write_buf);
            msgpack_pack_map(&pk, 1);
            pack_text(&pk, names[i]);
            if (k == 0) {
                msgpack_pack_bin(&pk, 2);
                msgpack_pack_bin_body(&pk, "20", 2);
            } else if (k == 1) {
                msgpack_pack_array(&pk, 1);
                msgpack_pack_int(&pk, 20);
            } else if (k == 2) {
                msgpack_pack_double(&pk, -20.5);
            } else {
                pack_text(&pk, "[]!");
            }
            dr_status st = decode_as(t, "job", b.data, b.len);
            dr_buf_free(&b);
            bool text = !strcmp(names[i], "prompt") ||
                        !strcmp(names[i], "negative_prompt") || !strcmp(names[i], "model");
            if (k == 3 && text)
                continue;
            assert_fails(t, st, names[i], "");
        }
    assert_fails(t, decode_json(t, "{'prompt':'x','output':5}"), "output", "must be a map");
    assert_fails(t, decode_json(t, "{'prompt':true}"), "prompt", "true: must be text");
}

static void test_seeds(void **state)
{
    static const struct {
        const char *json; /* the value */
        uint64_t want;
    } good[] = {
        { "0", 0 },
        { "42.0", 42 },
        { "'42'", 42 },
        { "9007199254740992", 9007199254740992ull },
        { "'9007199254740993'", 9007199254740993ull },
        { "'18446744073709551615'", UINT64_MAX },
    };
    static const char *const random[] = { "-1", "null", "'-1'", "-1.0" };
    fixture *t = *state;
    char text[128];
    for (size_t i = 0; i < DR_COUNT(good); i++) {
        snprintf(text, sizeof text, "{'prompt':'x','seed':%s}", good[i].json);
        assert_int_equal(decode_json(t, text), DR_OK);
        assert_true(t->job->seed == good[i].want);
        assert_false(t->job->seed_is_random);
    }
    for (size_t i = 0; i < DR_COUNT(random); i++) {
        snprintf(text, sizeof text, "{'prompt':'x','seed':%s}", random[i]);
        assert_int_equal(decode_json(t, text), DR_OK);
        assert_true(t->job->seed_is_random);
    }
    assert_int_equal(decode_plain(t, "seed", "18446744073709551615", NULL), DR_OK);
    assert_true(t->job->seed == UINT64_MAX);
    assert_int_equal(decode_plain(t, "seed", "null", NULL), DR_OK);
    assert_true(t->job->seed_is_random);
    assert_fails(t, decode_json(t, "{'prompt':'x','seed':9007199254740993}"), "seed",
                 "9007199254740993: a JSON number above 2^53");
    assert_fails(t, decode_json(t, "{'prompt':'x','seed':18446744073709551615}"), "seed",
                 "send it as a string");
    assert_fails(t, decode_json(t, "{'prompt':'x','seed':1e19}"), "seed",
                 "send it as a string");
    assert_fails(t, decode_json(t, "{'prompt':'x','seed':'null'}"), "seed", "whole number");
}

/* msgpack has 64-bit integers: nothing is lost, nothing refused. */
static void test_msgpack_seeds(void **state)
{
    fixture *t = *state;
    static const unsigned char all[] = "\x82\xa6prompt\xa1x\xa4seed\xcf\xff\xff\xff\xff\xff"
                                       "\xff\xff\xff";
    assert_int_equal(decode_as(t, "job", all, sizeof all - 1), DR_OK);
    assert_true(t->job->seed == UINT64_MAX);
    static const unsigned char minus_one[] = "\x82\xa6prompt\xa1x\xa4seed\xff";
    assert_int_equal(decode_as(t, "job", minus_one, sizeof minus_one - 1), DR_OK);
    assert_true(t->job->seed_is_random);
}

static void test_prompts(void **state)
{
    fixture *t = *state;
    char *text = dr_arena_alloc(t->mem, 10241);
    dr_field f = { "prompt", "", 0 };
    assert_int_equal(decode(t, &f, 1), DR_OK);
    assert_string_equal(t->job->prompt, "");
    assert_fails(t, decode(t, &(dr_field){ "steps", "5", 1 }, 1), "prompt", "missing");

    dr_buf b = { 0 };
    for (int i = 0; i < 10240; i++)
        dr_buf_puts(&b, "a");
    text = b.data;
    f = (dr_field){ "prompt", text, DR_PROMPT_BYTES_MAX };
    assert_int_equal(decode(t, &f, 1), DR_OK);
    assert_int_equal(strlen(t->job->prompt), DR_PROMPT_BYTES_MAX);
    f.len++;
    assert_fails(t, decode(t, &f, 1), "prompt", "8193 bytes: must be at most 8192");
    f.len = 10240;
    assert_fails(t, decode(t, &f, 1), "prompt", "10240 bytes");
    dr_buf_free(&b);

    f = (dr_field){ "prompt", "red \xff", 5 };
    assert_fails(t, decode(t, &f, 1), "prompt", "byte 4 is not UTF-8");
    f = (dr_field){ "prompt", "\xed\xa0\x80", 3 }; /* a surrogate */
    assert_fails(t, decode(t, &f, 1), "prompt", "byte 0 is not UTF-8");
    f = (dr_field){ "prompt", "cut \xe2\x82", 6 };
    assert_fails(t, decode(t, &f, 1), "prompt", "byte 4 is not UTF-8");
    f = (dr_field){ "prompt", "a\0b", 3 };
    assert_fails(t, decode(t, &f, 1), "prompt", "byte 1 is NUL");
    f = (dr_field){ "prompt", "gr\xc3\xbcn \xf0\x9f\x94\xb4", 10 };
    assert_int_equal(decode(t, &f, 1), DR_OK);
    assert_string_equal(t->job->prompt, "gr\xc3\xbcn \xf0\x9f\x94\xb4");
}

static void test_ids(void **state)
{
    fixture *t = *state;
    char id[DR_JOB_ID_MAX + 2] = "";
    memset(id, 'a', DR_JOB_ID_MAX);
    assert_int_equal(decode_plain(t, "id", id, NULL), DR_OK);
    assert_string_equal(t->job->id, id);
    id[DR_JOB_ID_MAX] = 'a';
    assert_fails(t, decode_plain(t, "id", id, NULL), "id", "129 bytes: must be 1..128");
    assert_string_equal(t->job->id, "17-0");
    for (int c = 1; c < 256; c++) {
        bool good = c > ' ' && c < 127 && !strchr("\"'`\\{}*?[]:/", c);
        char text[] = { 'a', (char)c, 0 };
        dr_status st = decode_plain(t, "id", text, NULL);
        if (good) {
            assert_int_equal(st, DR_OK);
            assert_string_equal(t->job->id, text);
        } else {
            assert_fails(t, st, "id", "byte 1");
        }
        st = decode_plain(t, "unique", text, NULL);
        assert_int_equal(st == DR_OK, good);
    }
    assert_int_equal(decode_json(t, "{'prompt':'x','id':42}"), DR_OK);
    assert_string_equal(t->job->id, "42");
    dr_field f = { "prompt", "x", 1 };
    assert_int_equal(dr_job_decode(&t->job, t->mem, NULL, &f, 1, &test_defaults, &t->err),
                     DR_EINVAL);
    assert_string_equal(t->err.field, "id");
}

/* Whoever waits for the job must hear of its failure: id, meta and the events' form come
 * out even when another field is bad, wherever they stand. */
static void test_failures_keep_the_id(void **state)
{
    fixture *t = *state;
    assert_fails(t,
                 decode_json(t, "{'width':1001,'prompt':'x','events':'msgpack',"
                                "'meta':{'user':7},'id':'mine'}"),
                 "width", "1001");
    assert_string_equal(t->job->id, "mine");
    assert_string_equal(t->job->meta_json, "{\"user\":7}");
    assert_true(t->job->events_msgpack);
    dr_field broken[] = { { "job", "\xdf\xff\xff\xff\xff", 5 }, { "id", "mine", 4 } };
    assert_fails(t, decode(t, broken, 2), "job", "announced");
    assert_string_equal(t->job->id, "mine");
}

static void test_two_spellings(void **state)
{
    fixture *t = *state;
    assert_fails(t, decode_plain(t, "steps", "20", "num_inference_steps", "30", NULL),
                 "steps", "given as steps and as num_inference_steps");
    assert_int_equal(decode_plain(t, "steps", "20", "num_inference_steps", "20.0", NULL),
                     DR_OK);
    assert_int_equal(decode_plain(t, "batch_size", "1", "n_iter", "1", NULL), DR_OK);
    assert_fails(t, decode_plain(t, "batch_size", "1", "n_iter", "4", NULL), "n",
                 "given as batch_size and as n_iter");
    assert_fails(t, decode_plain(t, "size", "512x512", "height", "768", NULL), "height",
                 "given as size and as height");
    assert_int_equal(decode_plain(t, "size", "512x768", "height", "768", NULL), DR_OK);
    assert_fails(t,
                 decode_plain(t, "sampler", "DPM++ 2M Karras", "schedule", "normal", NULL),
                 "schedule", "given as sampler and as schedule");
    assert_int_equal(
        decode_plain(t, "sampler_name", "DPM++ 2M", "scheduler", "Karras", NULL), DR_OK);
    assert_int_equal(t->job->sampler, DR_SAMPLER_DPMPP_2M);
    assert_int_equal(t->job->schedule, DR_SCHEDULE_KARRAS);
    assert_int_equal(
        decode_plain(t, "sampler", "DPM++ 2M Karras", "scheduler", "automatic", NULL),
        DR_OK);
    assert_int_equal(t->job->schedule, DR_SCHEDULE_KARRAS);
    assert_fails(t, decode_plain(t, "sampler", "euler", "scheduler", "ddim", NULL),
                 "sampler", "given as sampler and as scheduler");
    assert_fails(t, decode_plain(t, "seed", "1", "seed", "-1", NULL), "seed",
                 "given twice");
    assert_fails(t, decode_plain(t, "seed", "-1", "seed", "1", NULL), "seed",
                 "given twice");
    assert_fails(t, decode_plain(t, "prompt", "y", NULL), "prompt", "given twice");
    assert_int_equal(decode_plain(t, "prompt", "x", NULL), DR_OK);
    assert_fails(t, decode_plain(t, "model", "a", "checkpoint", "b", NULL), "model",
                 "given as model and as checkpoint");
    assert_fails(t,
                 decode_json(t, "{'prompt':'x','output':{'quality':5},'output_quality':6}"),
                 "output.quality", "given as output.quality and as output_quality");
}

static void test_nested_maps(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_json(t, "{'prompt':'x','output':{'format':'webp','quality':70,"
                                    "'lossless':true,'metadata':false,'depth':16},"
                                    "'preview':{'every':2,'size':256}}"),
                     DR_OK);
    assert_int_equal(t->job->output.quality, 70);
    assert_true(t->job->output.lossless);
    assert_false(t->job->output.metadata);
    assert_int_equal(t->job->preview.every, 2);
    assert_int_equal(t->job->preview.size, 256);
    assert_int_equal(t->job->n_warnings, 1);
    assert_string_equal(t->job->warnings[0], "unknown field ignored: output.depth");
    assert_int_equal(decode_plain(t, "output", "{\"quality\":60}", NULL), DR_OK);
    assert_int_equal(t->job->output.quality, 60);
    assert_fails(t, decode_plain(t, "output", "{\"quality\":", NULL), "output", "not JSON");
    assert_fails(t, decode_json(t, "{'prompt':'x','preview':{'every':-1}}"),
                 "preview.every", "0..1000");
}

static void test_unknown_fields(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_plain(t, "restore_faces", "1", "s_churn", "0", NULL), DR_OK);
    assert_int_equal(t->job->n_warnings, 1);
    assert_string_equal(t->job->warnings[0],
                        "unknown fields ignored: restore_faces, s_churn");
    dr_buf b = { 0 };
    dr_buf_puts(&b, "{'prompt':'x'");
    for (int i = 0; i < 100; i++)
        dr_buf_printf(&b, ",'unknown\\n%d%*d':[]", i, 200, i);
    dr_buf_puts(&b, "}");
    assert_int_equal(decode_json(t, b.data), DR_OK);
    dr_buf_free(&b);
    assert_int_equal(t->job->n_warnings, 1);
    assert_in_range(strlen(t->job->warnings[0]), 100, 400);
    assert_non_null(strstr(t->job->warnings[0], "unknown?0"));
    assert_non_null(strstr(t->job->warnings[0], " and 94 more"));
}

static void test_what_no_version_does_yet(void **state)
{
    static const char *const names[][2] = {
        { "embeddings", "embeddings" },       { "tis", "embeddings" },
        { "ip_adapter", "ip_adapter_image" }, { "ref_images", "ip_adapter_image" },
        { "refiner_checkpoint", "refiner" },  { "control_type", "control_type" },
        { "hr_resize_y", "hr_resize_x" },
    };
    static const char *const nothing[] = { "", "0", "false" };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        assert_fails(t, decode_plain(t, names[i][0], "0.5", NULL), names[i][1],
                     "this version cannot do that; leave it out");
        for (size_t k = 0; k < DR_COUNT(nothing); k++)
            assert_int_equal(decode_plain(t, names[i][0], nothing[k], NULL), DR_OK);
    }
}

/* ".safetensors" is dropped wherever a name is. */
static void test_names(void **state)
{
    fixture *t = *state;
    char name[DR_NAME_BYTES_MAX + 2] = "";
    assert_int_equal(decode_plain(t, "model", "v1.5.safetensors", NULL), DR_OK);
    assert_string_equal(t->job->model, "v1.5");
    assert_fails(t, decode_plain(t, "model", ".safetensors", NULL), "model", "leading");
    memset(name, 'a', DR_NAME_BYTES_MAX);
    assert_int_equal(decode_plain(t, "model", name, NULL), DR_OK);
    name[DR_NAME_BYTES_MAX] = 'a';
    assert_fails(t, decode_plain(t, "model", name, NULL), "model",
                 "model of 129 bytes: must be at most 128");
    dr_field f[] = { { "prompt", "x", 1 }, { "model", "a\0b", 3 } };
    assert_fails(t, decode(t, f, 2), "model", "byte 1 is NUL");
}

static void test_sampler_spellings(void **state)
{
    static const struct {
        const char *name;
        dr_sampler_id sampler;
        dr_schedule_id schedule;
    } spellings[] = {
        { "ddim", DR_SAMPLER_DDIM, 0 },
        { "DDIM", DR_SAMPLER_DDIM, 0 },
        { "DDIMScheduler", DR_SAMPLER_DDIM, 0 },
        { "Euler", DR_SAMPLER_EULER, 0 },
        { "k_euler", DR_SAMPLER_EULER, 0 },
        { "K_EULER", DR_SAMPLER_EULER, 0 },
        { "EulerDiscreteScheduler", DR_SAMPLER_EULER, 0 },
        { "euler_k", DR_SAMPLER_EULER, DR_SCHEDULE_KARRAS },
        { "Euler Karras", DR_SAMPLER_EULER, DR_SCHEDULE_KARRAS },
        { "Euler a", DR_SAMPLER_EULER_A, 0 },
        { "euler_a", DR_SAMPLER_EULER_A, 0 },
        { "euler-ancestral", DR_SAMPLER_EULER_A, 0 },
        { "euler_ancestral", DR_SAMPLER_EULER_A, 0 },
        { "k_euler_a", DR_SAMPLER_EULER_A, 0 },
        { "K_EULER_ANCESTRAL", DR_SAMPLER_EULER_A, 0 },
        { "EulerAncestralDiscreteScheduler", DR_SAMPLER_EULER_A, 0 },
        { "DPM++ 2M", DR_SAMPLER_DPMPP_2M, 0 },
        { "dpm++2m", DR_SAMPLER_DPMPP_2M, 0 },
        { "dpmpp_2m", DR_SAMPLER_DPMPP_2M, 0 },
        { "k_dpmpp_2m", DR_SAMPLER_DPMPP_2M, 0 },
        { "DPMSolverMultistep", DR_SAMPLER_DPMPP_2M, 0 },
        { "DPMSolverMultistepScheduler", DR_SAMPLER_DPMPP_2M, 0 },
        { "DPM++ 2M Karras", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_KARRAS },
        { "dpmpp_2m_k", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_KARRAS },
        { "KarrasDPM", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_KARRAS },
        { "DPM++ 2M SDE", DR_SAMPLER_DPMPP_2M_SDE, 0 },
        { "dpmpp_2m_sde_gpu", DR_SAMPLER_DPMPP_2M_SDE, 0 },
        { "DPM++ 2M SDE Exponential", DR_SAMPLER_DPMPP_2M_SDE, DR_SCHEDULE_EXPONENTIAL },
        { "dpmpp_2m_sde_k", DR_SAMPLER_DPMPP_2M_SDE, DR_SCHEDULE_KARRAS },
        { "DPM++ 3M SDE Karras", DR_SAMPLER_DPMPP_3M_SDE, DR_SCHEDULE_KARRAS },
        { "DPM++ 2S a", DR_SAMPLER_DPMPP_2S_A, 0 },
        { "dpm++2s_a", DR_SAMPLER_DPMPP_2S_A, 0 },
        { "dpmpp_2s_ancestral", DR_SAMPLER_DPMPP_2S_A, 0 },
        { "k_dpmpp_2s_a", DR_SAMPLER_DPMPP_2S_A, 0 },
        { "DPM++ SDE Karras", DR_SAMPLER_DPMPP_SDE, DR_SCHEDULE_KARRAS },
        { "k_dpmpp_sde", DR_SAMPLER_DPMPP_SDE, 0 },
        { "DPMSolverSDEScheduler", DR_SAMPLER_DPMPP_SDE, 0 },
        { "heun", DR_SAMPLER_HEUN, 0 },
        { "heun_k", DR_SAMPLER_HEUN, DR_SCHEDULE_KARRAS },
        { "HeunDiscreteScheduler", DR_SAMPLER_HEUN, 0 },
        { "DPM2", DR_SAMPLER_DPM_2, 0 },
        { "dpm_2", DR_SAMPLER_DPM_2, 0 },
        { "kdpm_2_k", DR_SAMPLER_DPM_2, DR_SCHEDULE_KARRAS },
        { "KDPM2DiscreteScheduler", DR_SAMPLER_DPM_2, 0 },
        { "DPM2 a Karras", DR_SAMPLER_DPM_2_A, DR_SCHEDULE_KARRAS },
        { "dpm_2_ancestral", DR_SAMPLER_DPM_2_A, 0 },
        { "k_dpm_2_a", DR_SAMPLER_DPM_2_A, 0 },
        { "KDPM2AncestralDiscreteScheduler", DR_SAMPLER_DPM_2_A, 0 },
        { "KLMS", DR_SAMPLER_LMS, 0 },
        { "LMS Karras", DR_SAMPLER_LMS, DR_SCHEDULE_KARRAS },
        { "LMSDiscreteScheduler", DR_SAMPLER_LMS, 0 },
        { "PLMS", DR_SAMPLER_PNDM, 0 },
        { "PNDMScheduler", DR_SAMPLER_PNDM, 0 },
        { "DDPM", DR_SAMPLER_DDPM, 0 },
        { "UniPC", DR_SAMPLER_UNI_PC, 0 },
        { "unipc_k", DR_SAMPLER_UNI_PC, DR_SCHEDULE_KARRAS },
        { "UniPCMultistepScheduler", DR_SAMPLER_UNI_PC, 0 },
        { "DEISMultistepScheduler", DR_SAMPLER_DEIS, 0 },
        { "LCMScheduler", DR_SAMPLER_LCM, 0 },
        { "TCD", DR_SAMPLER_TCD, 0 },
        { "ddim_trailing", DR_SAMPLER_DDIM, DR_SCHEDULE_SGM_UNIFORM },
        { "Euler SGM Uniform", DR_SAMPLER_EULER, DR_SCHEDULE_SGM_UNIFORM },
        { "Euler a Align Your Steps", DR_SAMPLER_EULER_A, DR_SCHEDULE_AYS },
    };
    static const struct {
        const char *name;
        dr_schedule_id schedule;
    } schedules[] = {
        { "ddim_uniform", DR_SCHEDULE_DDIM_UNIFORM },
        { "SGM Uniform", DR_SCHEDULE_SGM_UNIFORM },
        { "trailing", DR_SCHEDULE_SGM_UNIFORM },
        { "Uniform", DR_SCHEDULE_NORMAL },
        { "KL Optimal", DR_SCHEDULE_KL_OPTIMAL },
        { "Align Your Steps", DR_SCHEDULE_AYS },
        { "simple", DR_SCHEDULE_SIMPLE },
        { "Beta", DR_SCHEDULE_BETA },
        { "linear_quadratic", DR_SCHEDULE_LINEAR_QUADRATIC },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(spellings); i++)
        for (int k = 0; k < 3; k++) {
            static const char *const names[] = { "sampler", "sampler_name", "scheduler" };
            if (decode_plain(t, names[k], spellings[i].name, NULL))
                fail_msg("%s", t->err.message);
            assert_int_equal(t->job->sampler, spellings[i].sampler);
            assert_int_equal(t->job->schedule, spellings[i].schedule);
        }
    for (size_t i = 0; i < DR_COUNT(schedules); i++) {
        assert_int_equal(decode_plain(t, "scheduler", schedules[i].name, NULL), DR_OK);
        assert_int_equal(t->job->schedule, schedules[i].schedule);
        assert_int_equal(t->job->sampler, DR_SAMPLER_DEFAULT);
    }
    assert_int_equal(decode_plain(t, "schedule", "DDIM", NULL), DR_OK);
    assert_int_equal(t->job->schedule, DR_SCHEDULE_DDIM_UNIFORM);
    for (int id = 1; id < DR_SAMPLERS; id++) {
        assert_int_equal(decode_plain(t, "sampler", dr_sampler_name(id), NULL), DR_OK);
        assert_int_equal(t->job->sampler, id);
    }
    for (int id = 1; id < DR_SCHEDULES; id++) {
        assert_int_equal(decode_plain(t, "schedule", dr_schedule_name(id), NULL), DR_OK);
        assert_int_equal(t->job->schedule, id);
    }
    assert_string_equal(dr_sampler_name(DR_SAMPLER_DPMPP_2M), "dpmpp_2m");
    assert_string_equal(dr_schedule_name(DR_SCHEDULE_KARRAS), "karras");
    assert_string_equal(dr_sampler_name((dr_sampler_id)99), "default");
    assert_fails(t, decode_plain(t, "sampler", "", NULL), "sampler", "known: ddim");
    assert_fails(t, decode_plain(t, "sampler", "karras", NULL), "sampler", "known: ddim");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_name_in_every_shape),
        TEST(test_texts),
        TEST(test_defaults_of_an_empty_job),
        TEST(test_null_means_not_given),
        TEST(test_bad_values),
        TEST(test_bounds_are_accepted),
        TEST(test_not_finite),
        TEST(test_wrong_types),
        TEST(test_seeds),
        TEST(test_msgpack_seeds),
        TEST(test_prompts),
        TEST(test_ids),
        TEST(test_failures_keep_the_id),
        TEST(test_two_spellings),
        TEST(test_nested_maps),
        TEST(test_unknown_fields),
        TEST(test_what_no_version_does_yet),
        TEST(test_names),
        TEST(test_sampler_spellings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
