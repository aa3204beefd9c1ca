#include "../lib/outcome.h"

#include "base/file.h"
#include "image/decode.h"
#include "image/encode.h"
#include "image/mask.h"
#include "image/resample.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What runs that begin with a picture promise of sizes, strengths, masks, batches and
 * checkpoints, and which pictures they refuse. test_starts.c holds them against diffusers.
 */

#define EQUAL_MIN 50.0 /* dB, a picture of a batch against the same alone */
#define LIMIT     1e-4 /* relative L2 of latents, the same */
#define W         96   /* of the fixtures' picture */
#define H         64

typedef struct {
    golden *g;
    dr_model *tiny, *demo;
    dr_picture_ref init, mask;
} fixture;

/* A file for a job, as long as g lives. */
static dr_picture_ref keep(golden *g, const dr_buf *file)
{
    return (dr_picture_ref){ .bytes = dr_arena_str(g->mem, file->data, file->len),
                             .n = file->len };
}

static dr_picture_ref read_file(golden *g, const char *path)
{
    dr_buf file = { 0 };
    assert_int_equal(dr_file_read(path, (size_t)1 << 20, &file, NULL), DR_OK);
    dr_picture_ref p = keep(g, &file);
    dr_buf_free(&file);
    return p;
}

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/starts", sizeof *f);
    f->tiny = golden_keep(f->g, golden_model(f->g, GOLDEN_TINY));
    f->demo = golden_keep(f->g, golden_model(f->g, GOLDEN_DEMO));
    f->init = read_file(f->g, "tests/golden/starts/tiny-sd1.png");
    f->mask = read_file(f->g, "tests/golden/starts/tiny-sd1-mask.png");
    return 0;
}

/* --- pictures --- */

static dr_image decoded(const dr_picture_ref *p, dr_pixels pixels)
{
    dr_image im;
    dr_err err = { 0 };
    if (dr_image_decode(&im, p->bytes, p->n, pixels, NULL, &err))
        fail_msg("%s", err.message);
    return im;
}

/* A PNG of w x h pixels, each value by its place. */
static dr_picture_ref painted(golden *g, int64_t w, int64_t h,
                              uint8_t (*value)(int64_t x, int64_t y, int c))
{
    const dr_image_opts o = { .format = DR_FORMAT_PNG, .effort = 0 };
    dr_buf file = { 0 };
    dr_image im;
    assert_int_equal(dr_image_new(&im, w, h, 3, NULL), DR_OK);
    for (int64_t i = 0; i < w * h * 3; i++)
        im.px[i] = value(i / 3 % w, i / 3 / w, (int)(i % 3));
    assert_int_equal(dr_image_encode(im.px, w, h, &o, &file, NULL), DR_OK);
    dr_picture_ref p = keep(g, &file);
    dr_image_free(&im);
    dr_buf_free(&file);
    return p;
}

static uint8_t waves(int64_t x, int64_t y, int c)
{
    return (uint8_t)(127.5 + 120 * sin(0.11 * (double)x + c) * cos(0.07 * (double)y));
}

static uint8_t stripes(int64_t x, int64_t y, int c)
{
    return (uint8_t)((x / 9 + y / 5 + c) % 2 ? 230 : 20);
}

static uint8_t black(int64_t x, int64_t y, int c)
{
    (void)x, (void)y, (void)c;
    return 0;
}

/* --- runs --- */

static dr_job img2img(const fixture *f)
{
    return (dr_job){ .id = "start",
                     .task = DR_IMG2IMG,
                     .prompt = "a castle in the clouds",
                     .negative_prompt = "bad hands",
                     .width = W,
                     .height = H,
                     .steps = 5,
                     .cfg_scale = 4,
                     .eta = NAN,
                     .seed = 7,
                     .n = 1,
                     .sampler = DR_SAMPLER_DPMPP_2M,
                     .init = { .image = f->init, .strength = 0.6 } };
}

static dr_job inpaint(const fixture *f)
{
    dr_job job = img2img(f);
    job.task = DR_INPAINT;
    job.mask.image = f->mask;
    return job;
}

/* The first picture changed in every pixel, so that what is kept can be told apart. */
static dr_job other_job(const fixture *f, bool mask)
{
    dr_job job = mask ? inpaint(f) : img2img(f);
    job.init.image = painted(f->g, W, H, waves);
    job.prompt = "a green square";
    job.seed = 40;
    return job;
}

#define TASKS 3

/* Tasks and what came of them. */
typedef struct {
    dr_batch_task task[TASKS];
    dr_observer obs[TASKS];
    outcome out[TASKS];
    int n;
} many;

static void begin(many *b, const fixture *f, const dr_job *jobs, int n)
{
    *b = (many){ .n = n };
    for (int i = 0; i < n; i++) {
        b->out[i] = (outcome){ .g = f->g };
        b->obs[i] = outcome_observer(&b->out[i]);
        b->task[i] = (dr_batch_task){ .job = &jobs[i], .obs = &b->obs[i] };
    }
}

/* Plan and run; → how many fit one pass. */
static int finish(many *b, dr_model *m)
{
    int fit = dr_batch_plan(m, b->task, b->n);
    dr_batch_run(m, b->task, b->n);
    for (int i = 0; i < b->n; i++)
        outcome_check(&b->out[i], b->task[i].job, &b->task[i].stats, b->task[i].err.code);
    return fit;
}

static outcome run(const fixture *f, dr_model *m, const dr_job *job)
{
    many b;
    begin(&b, f, job, 1);
    finish(&b, m);
    if (b.task[0].err.code)
        fail_msg("%s", b.task[0].err.message);
    return b.out[0];
}

static void same_bytes(const outcome *have, const outcome *want)
{
    assert_int_equal(have->pictures, want->pictures);
    for (int k = 0; k < want->pictures; k++)
        assert_memory_equal(have->rgb[k], want->rgb[k], outcome_bytes(want));
    assert_memory_equal(have->latents, want->latents, want->n_latents * sizeof(float));
}

static void same_result(const char *what, const outcome *have, const outcome *want)
{
    assert_int_equal(have->pictures, want->pictures);
    double l2 = golden_l2(have->latents, want->latents, want->n_latents);
    if (!(l2 <= LIMIT))
        fail_msg("%s: latents are off by %.1e", what, l2);
    for (int k = 0; k < want->pictures; k++) {
        double psnr = golden_psnr(have->rgb[k], want->rgb[k], outcome_bytes(want));
        if (!(psnr >= EQUAL_MIN))
            fail_msg("%s: picture %d: PSNR %.1f dB", what, k, psnr);
    }
}

/* --- strength --- */

static void strength_chooses_the_first_step(void **state)
{
    static const struct {
        int64_t steps;
        double strength;
        int64_t first;
    } cases[] = {
        { 20, 0.8, 4 },   { 20, 1, 0 },    { 20, 0, 20 },     { 20, 0.04, 20 },
        { 20, 0.05, 19 }, { 10, 0.29, 8 }, { 100, 0.29, 72 }, /* as Python's int() */
        { 50, 0.75, 13 }, { 1, 1, 0 },     { 1, 0.99, 1 },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_job job = img2img(f);
        dr_plan plan;
        dr_err err = { 0 };
        job.steps = cases[i].steps;
        job.init.strength = cases[i].strength;
        if (dr_plan_make(&plan, f->tiny, &job, &err))
            fail_msg("%s", err.message);
        if (plan.pass[0].first != cases[i].first)
            fail_msg("%d steps at %g: from %d, must be %d", (int)job.steps,
                     job.init.strength, (int)plan.pass[0].first, (int)cases[i].first);
    }
}

static void progress_counts_what_is_skipped(void **state)
{
    fixture *f = *state;
    dr_job job = img2img(f);
    outcome o = run(f, f->tiny, &job);
    assert_int_equal(o.first.step, 3); /* of 5, of which 2 are skipped */
    assert_int_equal(o.last.steps, 5);
}

/* A job that begins with what the demo model made: its autoencoder knows such pictures. */
static dr_job demo_job(const fixture *f)
{
    const dr_image_opts o = { .format = DR_FORMAT_PNG };
    dr_job job = img2img(f), first = job;
    dr_buf file = { 0 };
    first.task = DR_TXT2IMG;
    first.init.image = (dr_picture_ref){ 0 };
    first.width = first.height = job.width = job.height = 0;
    first.prompt = "a large red circle on a yellow background";
    job.prompt = "a green star on a white background";
    first.sampler = job.sampler = DR_SAMPLER_DDIM;
    first.negative_prompt = job.negative_prompt = "";
    first.steps = job.steps = 10;
    outcome made = run(f, f->demo, &first);
    assert_int_equal(dr_image_encode(made.rgb[0], made.width, made.height, &o, &file, NULL),
                     DR_OK);
    job.init.image = keep(f->g, &file);
    dr_buf_free(&file);
    return job;
}

/* No steps: the picture through the autoencoder, whatever the seed and the sampler. */
static void strength_0_gives_the_picture(void **state)
{
    fixture *f = *state;
    dr_job job = demo_job(f);
    job.init.strength = 0;
    job.init.mean = true;
    outcome a = run(f, f->demo, &job);
    dr_image want = decoded(&job.init.image, DR_PIXELS_RGB);
    assert_int_equal(a.width, want.w);
    double psnr = golden_psnr(a.rgb[0], want.px, outcome_bytes(&a));
    print_message("strength 0: PSNR %.1f dB\n", psnr);
    assert_true(psnr > 20);
    dr_image_free(&want);
    job.seed++;
    job.sampler = DR_SAMPLER_EULER_A;
    job.init.strength = 0.09; /* less than a step */
    outcome b = run(f, f->demo, &job);
    same_bytes(&b, &a);
    assert_int_equal(b.last.step, job.steps);
}

/* A little noise changes the picture a little, more changes more. */
static void strength_grows(void **state)
{
    fixture *f = *state;
    dr_job job = demo_job(f);
    dr_image want = decoded(&job.init.image, DR_PIXELS_RGB);
    double before = INFINITY;
    for (double s = 0.1; s < 0.4; s += 0.2) {
        job.init.strength = s;
        outcome o = run(f, f->demo, &job);
        double psnr = golden_psnr(o.rgb[0], want.px, outcome_bytes(&o));
        print_message("strength %g: PSNR %.1f dB\n", s, psnr);
        assert_true(psnr < before);
        before = psnr;
    }
    dr_image_free(&want);
}

/* --- masks --- */

/* The mask as the job's settings soften it. */
static float *soft_mask(const dr_job *job, int64_t w, int64_t h)
{
    dr_image grey = decoded(&job->mask.image, DR_PIXELS_MASK);
    float *mask = test_malloc((size_t)(w * h) * sizeof *mask);
    assert_int_equal(
        dr_mask_from_image(mask, &grey, w, h, job->init.fit, job->mask.invert, NULL),
        DR_OK);
    assert_int_equal(dr_mask_blur(mask, w, h, job->mask.blur, NULL), DR_OK);
    dr_image_free(&grey);
    return mask;
}

/* Pixels outside are the sent ones, bit by bit; those inside mostly are not. */
static void expect_kept(const dr_job *job, const outcome *o, int64_t w, int64_t h)
{
    dr_image source = decoded(&job->init.image, DR_PIXELS_RGB);
    float *mask = soft_mask(job, w, h);
    int64_t outside = 0, inside = 0, changed = 0;
    assert_int_equal(dr_image_resize(&source, w, h, job->init.fit, NULL), DR_OK);
    assert_int_equal(o->width, w);
    assert_int_equal(o->height, h);
    for (int64_t i = 0; i < w * h; i++) {
        bool equal = !memcmp(o->rgb[0] + 3 * i, source.px + 3 * i, 3);
        if (mask[i] == 0 && !equal)
            fail_msg("pixel %d, %d is outside of the mask and not as it was", (int)(i % w),
                     (int)(i / w));
        outside += mask[i] == 0;
        inside += mask[i] > 0.9f;
        changed += mask[i] > 0.9f && !equal;
    }
    assert_true(outside > 100 && inside > 100);
    assert_true(changed > inside / 2);
    test_free(mask);
    dr_image_free(&source);
}

static void outside_stays_bit_by_bit(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 4; i++) {
        dr_job job = inpaint(f);
        job.mask.blur = i == 1 ? 1.5 : 0;
        job.mask.invert = i == 2;
        job.init.strength = i == 3 ? 1 : 0.6;
        outcome o = run(f, f->tiny, &job);
        expect_kept(&job, &o, W, H);
    }
    dr_job job = inpaint(f); /* resized: as it was at the job's size */
    job.width = job.height = 128;
    job.init.fit = DR_FIT_CROP;
    outcome o = run(f, f->tiny, &job);
    expect_kept(&job, &o, 128, 128);
}

/* A part of a picture as a file. */
static dr_picture_ref part_of(golden *g, const dr_picture_ref *p, dr_rect part)
{
    const dr_image_opts o = { .format = DR_FORMAT_PNG };
    dr_buf file = { 0 };
    dr_image all = decoded(p, DR_PIXELS_RGB), im;
    assert_int_equal(dr_image_crop(&im, &all, part, NULL), DR_OK);
    assert_int_equal(dr_image_encode(im.px, im.w, im.h, &o, &file, NULL), DR_OK);
    dr_picture_ref out = keep(g, &file);
    dr_image_free(&all);
    dr_image_free(&im);
    dr_buf_free(&file);
    return out;
}

/* What only_masked does, by hand: cut the part, paint it, put it back. */
static void only_masked_works_on_the_part(void **state)
{
    fixture *f = *state;
    dr_job whole = inpaint(f), part;
    dr_rect bounds, region;
    whole.mask.image = painted(f->g, W, H, black);
    dr_image grey = decoded(&f->mask, DR_PIXELS_MASK);
    memset(grey.px, 0, dr_image_bytes(&grey));
    for (int64_t i = 0; i < 24 * 24; i++) /* a square in the middle */
        grey.px[(20 + i / 24) * W + 40 + i % 24] = 255;
    float *mask = test_malloc(W * H * sizeof *mask);
    assert_int_equal(dr_mask_from_image(mask, &grey, W, H, DR_FIT_STRETCH, false, NULL),
                     DR_OK);
    assert_true(dr_mask_bounds(&bounds, mask, W, H));
    region = dr_mask_region(bounds, 20, 64, 64, W, H);
    assert_int_equal(region.w, 64);
    assert_int_equal(region.h, 64);
    dr_image rgb = decoded(&whole.mask.image, DR_PIXELS_RGB);
    for (int64_t i = 0; i < W * H * 3; i++)
        rgb.px[i] = grey.px[i / 3];
    dr_buf file = { 0 };
    assert_int_equal(dr_image_encode(rgb.px, W, H,
                                     &(dr_image_opts){ .format = DR_FORMAT_PNG }, &file,
                                     NULL),
                     DR_OK);
    whole.mask.image = keep(f->g, &file);
    whole.mask.only_masked = true;
    whole.mask.padding = 20;
    whole.width = whole.height = 0; /* the model's: 64 */
    part = whole;
    part.mask.only_masked = false;
    part.init.image = part_of(f->g, &whole.init.image, region);
    part.mask.image = part_of(f->g, &whole.mask.image, region);
    outcome a = run(f, f->tiny, &whole), b = run(f, f->tiny, &part);
    assert_int_equal(a.width, W);
    assert_int_equal(a.height, H);
    assert_int_equal(b.width, 64);
    assert_memory_equal(a.latents, b.latents, b.n_latents * sizeof(float));
    expect_kept(&whole, &a, W, H);
    for (int64_t y = 0; y < 64; y++)
        assert_memory_equal(a.rgb[0] + 3 * ((region.y + y) * W + region.x),
                            b.rgb[0] + 3 * 64 * y, 3 * 64);
    test_free(mask);
    dr_image_free(&grey);
    dr_image_free(&rgb);
    dr_buf_free(&file);
}

/* The part is enlarged for the model and made small again. */
static void only_masked_changes_sizes(void **state)
{
    fixture *f = *state;
    dr_job job = inpaint(f);
    job.mask.only_masked = true;
    job.mask.padding = 4;
    job.mask.blur = 2;
    job.width = 128;
    job.height = 96;
    outcome o = run(f, f->tiny, &job);
    expect_kept(&job, &o, W, H);
}

/* --- sizes --- */

static void size_is_the_pictures(void **state)
{
    static const struct {
        int64_t w, h, width, height; /* of the picture; asked for */
        int64_t to_w, to_h;
    } cases[] = {
        { 96, 64, 0, 0, 96, 64 },       { 100, 67, 0, 0, 96, 64 },
        { 101, 69, 0, 0, 104, 72 },     { 96, 64, 192, 0, 192, 128 },
        { 96, 64, 0, 192, 288, 192 },   { 30, 20, 0, 0, 96, 64 },
        { 4096, 512, 0, 0, 2048, 256 }, { 8000, 8, 0, 0, 2048, 64 },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_job job = img2img(f);
        dr_plan plan;
        dr_err err = { 0 };
        job.init.image = painted(f->g, cases[i].w, cases[i].h, black);
        job.width = cases[i].width;
        job.height = cases[i].height;
        if (dr_plan_make(&plan, f->tiny, &job, &err))
            fail_msg("%s", err.message);
        if (plan.width != cases[i].to_w || plan.height != cases[i].to_h)
            fail_msg("%d x %d: %d x %d instead of %d x %d", (int)cases[i].w,
                     (int)cases[i].h, (int)plan.width, (int)plan.height, (int)cases[i].to_w,
                     (int)cases[i].to_h);
    }
}

static void other_sizes_are_fitted(void **state)
{
    fixture *f = *state;
    outcome o[3];
    for (int fit = DR_FIT_STRETCH; fit <= DR_FIT_PAD; fit++) {
        dr_job job = img2img(f);
        job.width = 64;
        job.height = 128;
        job.init.fit = (dr_fit)fit;
        o[fit] = run(f, f->tiny, &job);
        assert_int_equal(o[fit].width, 64);
        assert_int_equal(o[fit].height, 128);
        for (int k = 0; k < fit; k++)
            assert_true(golden_psnr(o[fit].rgb[0], o[k].rgb[0], outcome_bytes(&o[k])) <
                        EQUAL_MIN);
    }
}

/* --- what is refused --- */

/* The job fails, by its plan or as it begins, for this field and with these words. */
static void refuse(const fixture *f, const dr_job *job, const char *field,
                   const char *words)
{
    many b;
    begin(&b, f, job, 1);
    finish(&b, f->tiny);
    const dr_err *err = &b.task[0].err;
    if (err->code != DR_EINVAL || strcmp(err->field, field) != 0 ||
        !strstr(err->message, words))
        fail_msg("status %s, field '%s', \"%s\" instead of '%s', \"%s\"",
                 dr_status_name(err->code), err->field, err->message, field, words);
    assert_int_equal(b.out[0].pictures, 0);
}

static void bad_pictures_are_the_clients_fault(void **state)
{
    fixture *f = *state;
    dr_job job = img2img(f);
    job.init.image = (dr_picture_ref){ .bytes = "GIF89a..............", .n = 20 };
    refuse(f, &job, "init_image", "init_image: picture: GIF is not read");
    job.init.image = (dr_picture_ref){ .bytes = f->init.bytes, .n = f->init.n / 2 };
    refuse(f, &job, "init_image", "cut short");
    char *spoilt = dr_arena_str(f->g->mem, f->init.bytes, f->init.n);
    for (size_t i = 60; i < 160; i++)
        spoilt[i] ^= 0x55; /* within the pixels, behind a sound head */
    job.init.image.bytes = spoilt;
    job.init.image.n = f->init.n;
    refuse(f, &job, "init_image", "init_image: png: ");
    job.init.image = (dr_picture_ref){ .key = "input:x:init_image" };
    refuse(f, &job, "init_image", "key input:x:init_image");
    job = inpaint(f);
    job.mask.image.bytes = spoilt;
    job.mask.image.n = f->init.n;
    refuse(f, &job, "mask", "mask: png: ");
    job.mask.image = painted(f->g, W, H + 1, waves);
    refuse(f, &job, "mask", "mask of 96 x 65 pixels: init_image has 96 x 64");
    job.mask.image = painted(f->g, W, H, black);
    refuse(f, &job, "mask", "black all over");
    job = img2img(f);
    job.width = 100;
    refuse(f, &job, "width", "multiple of 8");
    run(f, f->tiny,
        &(dr_job){ .prompt = "",
                   .negative_prompt = "",
                   .n = 1,
                   .steps = 1,
                   .cfg_scale = 1,
                   .eta = NAN }); /* nothing is left over */
}

/* --- batches --- */

static void images_equal_single_runs(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 4; i++) {
        dr_job job = i % 2 ? inpaint(f) : img2img(f);
        job.noise = i < 2 ? DR_NOISE_PHILOX : DR_NOISE_TORCH;
        job.sampler = DR_SAMPLER_EULER_A;
        job.n = 2;
        outcome both = run(f, f->tiny, &job);
        job.n = 1;
        for (int k = 0; k < 2; k++, job.seed++) {
            outcome one = run(f, f->tiny, &job);
            assert_true(golden_psnr(both.rgb[k], one.rgb[0], outcome_bytes(&one)) >=
                        EQUAL_MIN);
        }
        assert_true(golden_psnr(both.rgb[0], both.rgb[1], outcome_bytes(&both)) <
                    EQUAL_MIN);
    }
}

static void batch_equals_each_alone(void **state)
{
    fixture *f = *state;
    for (int mask = 0; mask < 2; mask++) {
        dr_job jobs[TASKS] = { mask ? inpaint(f) : img2img(f), other_job(f, mask) };
        many b;
        jobs[0].n = 2;
        jobs[2] = jobs[0];
        jobs[2].init.mean = true;
        jobs[2].mask.invert = true;
        assert_true(dr_jobs_batch(&jobs[0], &jobs[1]));
        begin(&b, f, jobs, TASKS);
        assert_int_equal(finish(&b, f->tiny), TASKS);
        for (int i = 0; i < TASKS; i++) {
            outcome one = run(f, f->tiny, &jobs[i]);
            assert_int_equal(b.task[i].err.code, DR_OK);
            same_result(mask ? "inpaint" : "img2img", &b.out[i], &one);
        }
    }
}

/* Rows that fall out take their masks and pictures along. */
static void others_go_on(void **state)
{
    fixture *f = *state;
    dr_job jobs[TASKS] = { other_job(f, true), inpaint(f), other_job(f, true) };
    many b;
    jobs[2].mask.invert = true;
    begin(&b, f, jobs, TASKS);
    b.out[0].stop_after = 3;
    assert_int_equal(finish(&b, f->tiny), TASKS);
    assert_int_equal(b.task[0].err.code, DR_ESTOPPED);
    for (int i = 1; i < TASKS; i++) {
        outcome one = run(f, f->tiny, &jobs[i]);
        same_result("after a stop", &b.out[i], &one);
    }
    jobs[1].mask.image.n = 0; /* broken only where it is decoded */
    jobs[1].mask.image.bytes = NULL;
    jobs[1].task = DR_IMG2IMG;
    jobs[0].init.strength = 1;
    begin(&b, f, jobs, TASKS);
    assert_int_equal(finish(&b, f->tiny), 1);
    for (int i = 0; i < TASKS; i++) {
        outcome one = run(f, f->tiny, &jobs[i]);
        same_result("not of one pass", &b.out[i], &one);
    }
}

static void jobs_of_one_pass(void **state)
{
    fixture *f = *state;
    dr_job a = img2img(f), b = other_job(f, false);
    assert_true(dr_jobs_batch(&a, &b));
    b.init.strength = 0.7;
    assert_false(dr_jobs_batch(&a, &b));
    b = inpaint(f);
    assert_false(dr_jobs_batch(&a, &b));
    b = a;
    b.task = DR_TXT2IMG;
    b.init.image = (dr_picture_ref){ 0 };
    assert_false(dr_jobs_batch(&a, &b));
    b = other_job(f, false);
    a.width = a.height = b.width = b.height = 0; /* each its picture's */
    assert_true(dr_jobs_batch(&a, &b));
    b.init.image = painted(f->g, W, H + 8, waves);
    assert_false(dr_jobs_batch(&a, &b));
    b.init.image = (dr_picture_ref){ .key = "input:x:init_image" };
    assert_false(dr_jobs_batch(&a, &b));
    a.width = b.width = W;
    a.height = b.height = H;
    assert_true(dr_jobs_batch(&a, &b));
    a = b = inpaint(f);
    b.mask.only_masked = true;
    assert_false(dr_jobs_batch(&a, &b));
}

/* --- checkpoints --- */

static outcome resumed(const fixture *f, const dr_job *job, const dr_buf *checkpoint)
{
    many b;
    begin(&b, f, job, 1);
    b.task[0].resume = checkpoint->data;
    b.task[0].resume_bytes = checkpoint->len;
    finish(&b, f->tiny);
    assert_int_equal(b.task[0].err.code, DR_OK);
    return b.out[0];
}

static void stopped(many *b, const fixture *f, const dr_job *job, int64_t step)
{
    begin(b, f, job, 1);
    b->out[0].stop = DR_STOP_KEEP;
    b->out[0].stop_after = step;
    finish(b, f->tiny);
    assert_int_equal(b->task[0].err.code, DR_ESTOPPED);
    assert_int_equal(b->out[0].checkpoints, 1);
}

static void resumed_equals_uninterrupted(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 8; i++) {
        dr_job job = i % 2 ? inpaint(f) : img2img(f);
        job.noise = i / 2 % 2 ? DR_NOISE_TORCH : DR_NOISE_PHILOX;
        job.sampler = i / 4 ? DR_SAMPLER_EULER_A : DR_SAMPLER_DPMPP_2M;
        job.n = 1 + i % 3 / 2;
        outcome want = run(f, f->tiny, &job);
        for (int64_t step = 3; step <= job.steps; step++) {
            many half;
            stopped(&half, f, &job, step);
            outcome have = resumed(f, &job, &half.out[0].checkpoint);
            assert_int_equal(have.warnings, 0);
            same_bytes(&have, &want);
            outcome_free(&half.out[0]);
        }
    }
}

static void other_pictures_are_other_jobs(void **state)
{
    fixture *f = *state;
    dr_job job = inpaint(f), other[8];
    many half;
    stopped(&half, f, &job, 4);
    for (size_t i = 0; i < DR_COUNT(other); i++)
        other[i] = job;
    other[0].init.image = painted(f->g, W, H, waves);
    other[1].mask.image = painted(f->g, W, H, stripes);
    other[2].init.strength = 0.8;
    other[3].init.mean = true;
    other[4].mask.blur = 1;
    other[5].mask.invert = true;
    other[6].mask.only_masked = true;
    other[7].init.fit = DR_FIT_CROP;
    for (size_t i = 0; i < DR_COUNT(other); i++) {
        outcome o = resumed(f, &other[i], &half.out[0].checkpoint);
        if (o.warnings != 1 || !strstr(o.warning, "another job"))
            fail_msg("change %zu: %d warnings, \"%s\"", i, o.warnings, o.warning);
    }
    outcome_free(&half.out[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strength_chooses_the_first_step),
        cmocka_unit_test(progress_counts_what_is_skipped),
        cmocka_unit_test(strength_0_gives_the_picture),
        cmocka_unit_test(strength_grows),
        cmocka_unit_test(outside_stays_bit_by_bit),
        cmocka_unit_test(only_masked_works_on_the_part),
        cmocka_unit_test(only_masked_changes_sizes),
        cmocka_unit_test(size_is_the_pictures),
        cmocka_unit_test(other_sizes_are_fitted),
        cmocka_unit_test(bad_pictures_are_the_clients_fault),
        cmocka_unit_test(images_equal_single_runs),
        cmocka_unit_test(batch_equals_each_alone),
        cmocka_unit_test(others_go_on),
        cmocka_unit_test(jobs_of_one_pass),
        cmocka_unit_test(resumed_equals_uninterrupted),
        cmocka_unit_test(other_pictures_are_other_jobs),
    };
    return cmocka_run_group_tests_name("pictures", tests, setup, golden_end);
}
