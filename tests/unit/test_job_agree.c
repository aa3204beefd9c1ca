#include "test_job.h"

#include <stdio.h>

/* What the fields of a job say about each other. */

#define IMAGE "'image':'input:a:i'"
#define MASK  "'mask':'input:a:m'"

static dr_status decode_with(fixture *t, const char *what)
{
    char text[1024];
    snprintf(text, sizeof text, "{'prompt':'x',%s}", what);
    return decode_json(t, text);
}

static void test_tasks(void **state)
{
    static const struct {
        const char *json;
        dr_task task;
        const char *message; /* NULL: good */
    } cases[] = {
        { "'n':1", DR_TXT2IMG, NULL },
        { "'task':'txt2img'", DR_TXT2IMG, NULL },
        { IMAGE, DR_IMG2IMG, NULL },
        { "'task':'img2img'," IMAGE, DR_IMG2IMG, NULL },
        { "'task':'image-to-image'," IMAGE, DR_IMG2IMG, NULL },
        { IMAGE "," MASK, DR_INPAINT, NULL },
        { "'task':'inpaint'," IMAGE "," MASK, DR_INPAINT, NULL },
        { "'task':'Inpainting'," IMAGE "," MASK, DR_INPAINT, NULL },
        { "'task':'txt2img'," IMAGE, 0,
          "task txt2img takes no init_image; what was sent makes it img2img" },
        { "'task':'txt2img'," IMAGE "," MASK, 0, "task txt2img takes no init_image" },
        { "'task':'img2img'", 0, "task img2img needs an init_image" },
        { "'task':'inpaint'", 0, "task inpaint needs an init_image" },
        { "'task':'inpaint'," IMAGE, 0,
          "task inpaint needs a mask; what was sent makes it img2img" },
        { "'task':'img2img'," IMAGE "," MASK, 0, "task img2img takes no mask" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_status st = decode_with(t, cases[i].json);
        if (cases[i].message) {
            assert_fails(t, st, "task", cases[i].message);
            continue;
        }
        assert_int_equal(st, DR_OK);
        assert_int_equal(t->job->task, cases[i].task);
    }
    assert_fails(t, decode_with(t, MASK), "mask", "mask: needs the picture");
    assert_fails(t, decode_with(t, "'task':'inpaint'," MASK), "mask", "send init_image");
}

static void test_strength_under_every_name(void **state)
{
    static const char *const names[] = { "strength", "denoising_strength",
                                         "prompt_strength", "denoise", "init.strength" };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        assert_int_equal(decode_plain(t, "image", "input:a:b", names[i], "0.25", NULL),
                         DR_OK);
        assert_true(t->job->init.strength == 0.25);
        assert_int_equal(t->job->n_warnings, 0);
    }
    assert_int_equal(decode_plain(t, "image", "input:a:b", "init_mean", "yes", NULL),
                     DR_OK);
    assert_true(t->job->init.mean);
}

static void test_hires(void **state)
{
    static const struct {
        const char *json;
        double scale, strength;
        int64_t steps;
        dr_upscaler upscaler;
    } cases[] = {
        { "'hires':2", 2, 0.7, 0, DR_UPSCALE_LATENT },
        { "'hires':true", 2, 0.7, 0, DR_UPSCALE_LATENT },
        { "'hires':1", 2, 0.7, 0, DR_UPSCALE_LATENT }, /* "on", as for any bool */
        { "'hires':false", 0, 0.7, 0, DR_UPSCALE_LATENT },
        { "'hires':{'scale':1.5,'steps':3,'strength':0.5,'upscaler':'lanczos'}", 1.5, 0.5,
          3, DR_UPSCALE_LANCZOS },
        { "'hires_scale':1.5,'hires_steps':3,'hires_strength':0.5,"
          "'hires_upscaler':'lanczos'",
          1.5, 0.5, 3, DR_UPSCALE_LANCZOS },
        { "'enable_hr':true,'hr_scale':1.5,'hr_second_pass_steps':3,"
          "'denoising_strength':0.5,'hr_upscaler':'Latent'",
          1.5, 0.5, 3, DR_UPSCALE_LATENT },
        { "'enable_hr':false,'hr_scale':2,'hr_second_pass_steps':0,"
          "'denoising_strength':0.5,'hr_upscaler':'Latent','hr_resize_x':0",
          0, 0.7, 0, DR_UPSCALE_LATENT },
        { "'enable_hr':true,'denoising_strength':0.5,'hires_strength':0.25", 2, 0.25, 0,
          DR_UPSCALE_LATENT },
        { "'enable_hr':true," IMAGE ",'strength':0.5", 2, 0.7, 0, DR_UPSCALE_LATENT },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (decode_with(t, cases[i].json))
            fail_msg("%s: %s", cases[i].json, t->err.message);
        const dr_job *job = t->job;
        if (job->hires.scale != cases[i].scale || job->hires.strength != cases[i].strength)
            fail_msg("%s: %g, %g", cases[i].json, job->hires.scale, job->hires.strength);
        assert_int_equal(job->hires.steps, cases[i].steps);
        assert_int_equal(job->hires.upscaler, cases[i].upscaler);
        assert_int_equal(job->n_warnings, 0);
    }
    assert_fails(t, decode_with(t, "'hires':{'scale':0.9}"), "hires.scale", "1..4");
    assert_fails(t, decode_with(t, "'enable_hr':true,'hires_fix':false"), "enable_hr",
                 "different values");
}

/* Whatever comes first. */
static void test_previews(void **state)
{
    static const struct {
        const char *json;
        int64_t every, size;
    } cases[] = {
        { "'preview':true", DR_PREVIEW_AUTO, 0 },
        { "'preview':false", 0, 0 },
        { "'preview':{}", 0, 0 },
        { "'preview':null", 0, 0 },
        { "'preview':'true'", DR_PREVIEW_AUTO, 0 },
        { "'preview':{'every':3}", 3, 0 },
        { "'preview':{'size':64}", DR_PREVIEW_AUTO, 64 },
        { "'preview':{'every':0,'size':64}", 0, 64 },
        { "'preview':{'every':3,'size':64}", 3, 64 },
        { "'preview':true,'preview_every':3", 3, 0 },
        { "'preview_every':3,'preview':true", 3, 0 },
        { "'preview':true,'preview_size':64", DR_PREVIEW_AUTO, 64 },
        { "'preview':false,'preview_size':64", 0, 64 },
        { "'preview_size':64,'preview':false", 0, 64 },
        { "'preview':false,'preview_every':3", 0, 0 },
        { "'preview_every':3,'preview':false", 0, 0 },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (decode_with(t, cases[i].json))
            fail_msg("%s: %s", cases[i].json, t->err.message);
        if (t->job->preview.every != cases[i].every ||
            t->job->preview.size != cases[i].size)
            fail_msg("%s: every %lld, size %lld", cases[i].json,
                     (long long)t->job->preview.every, (long long)t->job->preview.size);
        assert_int_equal(t->job->n_warnings, 0);
    }
    assert_fails(t, decode_with(t, "'preview':true,'previews':false"), "preview",
                 "different values");
    assert_fails(t, decode_with(t, "'preview':[1]"), "preview", "must be");
}

static void test_levels(void **state)
{
    static const struct {
        const char *json;
        int64_t n_sigmas, n_timesteps, steps;
    } cases[] = {
        { "'sigmas':[14.6,7,0.5,0]", 4, 0, 3 },
        { "'sigmas':[14.6,7,0.5]", 3, 0, 3 },
        { "'sigmas':['14.6',7e0,0.5],'steps':3", 3, 0, 3 },
        { "'sigmas':[1]", 1, 0, 1 },
        { "'timesteps':[999,500.5,0]", 0, 3, 3 },
        { "'timesteps':[1000],'steps':1", 0, 1, 1 },
        { "'timesteps':[],'sigmas':null", 0, 0, 0 },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (decode_with(t, cases[i].json))
            fail_msg("%s: %s", cases[i].json, t->err.message);
        assert_int_equal(t->job->n_sigmas, cases[i].n_sigmas);
        assert_int_equal(t->job->n_timesteps, cases[i].n_timesteps);
        assert_int_equal(t->job->steps, cases[i].steps);
        assert_int_equal(!t->job->sigmas, !cases[i].n_sigmas);
    }
    static const char *const plain[] = { "14.6,7,0.5", "14.6, 7, 0.5", "[14.6,7,0.5]",
                                         " [ 14.6, 7, 0.5 ]" };
    for (size_t i = 0; i < DR_COUNT(plain); i++) {
        assert_int_equal(decode_plain(t, "sigmas", plain[i], NULL), DR_OK);
        assert_int_equal(t->job->n_sigmas, 3);
        assert_true(t->job->sigmas[0] == 14.6 && t->job->sigmas[2] == 0.5);
    }
    assert_int_equal(decode_plain(t, "sigmas", "2,1", "sigmas", "2, 1.0", NULL), DR_OK);
    assert_fails(t, decode_plain(t, "sigmas", "2,1", "sigmas", "2,1,0", NULL), "sigmas",
                 "given twice");
}

static void test_bad_levels(void **state)
{
    static const struct {
        const char *json, *field, *message;
    } cases[] = {
        { "'sigmas':5", "sigmas", "sigmas 5: must be a list of numbers" },
        { "'sigmas':'5,4'", "sigmas", "must be a list of numbers" },
        { "'sigmas':[5,'x']", "sigmas", "sigmas: number 2 is \"x\": must be a number" },
        { "'sigmas':[5,-1]", "sigmas", "number 2 is -1: must be a number in 0..1000000" },
        { "'sigmas':[1e7,1]", "sigmas", "number 1 is 10000000" },
        { "'sigmas':[5,6]", "sigmas", "number 2 (6) is not below the one before it" },
        { "'sigmas':[5,5]", "sigmas", "they must fall" },
        { "'sigmas':[0]", "sigmas", "only 0; send levels above it" },
        { "'sigmas':[5,null]", "sigmas", "number 2 is null" },
        { "'timesteps':[1000.5]", "timesteps", "must be a number in 0..1000" },
        { "'timesteps':[-1]", "timesteps", "must be a number in 0..1000" },
        { "'timesteps':[1,2]", "timesteps", "they must fall" },
        { "'timesteps':[2,1],'sigmas':[2,1]", "sigmas", "given beside timesteps" },
        { "'sigmas':[2,1,0],'steps':3", "steps",
          "steps 3: sigmas holds levels for 2; leave steps out" },
        { "'timesteps':[2,1],'steps':20", "steps",
          "steps 20: timesteps holds levels for 2" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++)
        assert_fails(t, decode_with(t, cases[i].json), cases[i].field, cases[i].message);
    for (int n = DR_STEPS_MAX; n <= DR_STEPS_MAX + 1; n++) {
        dr_buf b = { 0 };
        dr_buf_puts(&b, "{\"prompt\":\"x\",\"sigmas\":[");
        for (int i = 0; i < n; i++)
            dr_buf_printf(&b, "%s%d", i ? "," : "", 2000 - i);
        dr_buf_puts(&b, "]}");
        dr_status st = decode_as(t, "json", b.data, b.len);
        dr_buf_free(&b);
        if (n > DR_STEPS_MAX)
            assert_fails(t, st, "sigmas", "sigmas of 1001 numbers: must be at most 1000");
        else
            assert_int_equal(st, DR_OK);
    }
    assert_fails(t, decode_plain(t, "sigmas", "2 1", NULL), "sigmas", "JSON");
    assert_fails(t, decode_plain(t, "sigmas", "nan", NULL), "sigmas", "JSON");
}

static void test_output(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_with(t, "'output':{'near_lossless':60}"), DR_OK);
    assert_true(t->job->output.lossless);
    assert_int_equal(decode_with(t, "'near_lossless':100,'lossless':false"), DR_OK);
    assert_false(t->job->output.lossless);
    assert_fails(t, decode_with(t, "'near_lossless':60,'lossless':false"),
                 "output.near_lossless", "near_lossless 60: is a kind of lossless");
    assert_fails(t, decode_with(t, "'near_lossless':60,'format':'png'"),
                 "output.near_lossless", "only WebP has it");
    assert_fails(t, decode_with(t, "'lossless':true,'format':'jpg'"), "output.lossless",
                 "JPEG cannot be; send format webp or png");
    assert_int_equal(decode_with(t, "'lossless':true,'format':'png'"), DR_OK);
    assert_int_equal(t->job->output.format, DR_FORMAT_PNG);
}

static void test_what_has_no_effect(void **state)
{
    static const struct {
        const char *json, *warning; /* NULL: none */
    } cases[] = {
        { "'strength':0.5", "without effect: strength (needs init_image)" },
        { "'fit':'crop','init_mean':true",
          "without effect: fit (needs init_image), init.mean (needs init_image)" },
        { IMAGE ",'mask_blur':2,'mask_invert':false,'only_masked':true,'mask_padding':1",
          "without effect: mask_blur (needs mask), mask_invert (needs mask), only_masked "
          "(needs mask), mask_padding (needs mask)" },
        { "'hires_steps':2,'hires_strength':0.5,'hires_upscaler':'latent'",
          "without effect: hires.steps (needs hires.scale), hires.strength (needs "
          "hires.scale), hires.upscaler (needs hires.scale)" },
        { "'lora_scale':0.5", "without effect: lora_scale (needs loras)" },
        { "'sigmas':[2,1],'schedule':'karras'",
          "without effect: schedule (explicit levels replace it)" },
        { "'sigmas':[2,1],'hires_scale':2,'hires_steps':3",
          "without effect: hires.steps (explicit levels say them)" },
        { "'sheet':true", "without effect: output.sheet (needs n above 1)" },
        { IMAGE "," MASK ",'strength':0.5,'fit':'crop','mask_blur':2", NULL },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        assert_int_equal(decode_with(t, cases[i].json), DR_OK);
        assert_int_equal(t->job->n_warnings, cases[i].warning != NULL);
        if (cases[i].warning)
            assert_string_equal(t->job->warnings[0], cases[i].warning);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tasks),  TEST(test_strength_under_every_name),
        TEST(test_hires),  TEST(test_previews),
        TEST(test_levels), TEST(test_bad_levels),
        TEST(test_output), TEST(test_what_has_no_effect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
