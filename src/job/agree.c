#include "job/row.h"

#include <stdio.h>
#include <string.h>

/* What the fields of a job say about each other. */

static bool given(const dr_fill *f, dr_job_field field)
{
    return f->given[field];
}

static bool has_picture(const dr_picture_ref *p)
{
    return p->n || p->key;
}

static const dr_row *row_of(const dr_fill *f, dr_job_field field)
{
    return &f->rows[field];
}

/* --- Tasks --------------------------------------------------------------------------- */

static dr_status infer_task(dr_fill *f)
{
    static const char *const names[] = { "txt2img", "img2img", "inpaint" };
    dr_job *job = f->job;
    bool init = has_picture(&job->init.image), mask = has_picture(&job->mask.image);
    dr_task task = !init ? DR_TXT2IMG : !mask ? DR_IMG2IMG : DR_INPAINT;
    if (mask && !init)
        return dr_bad(f, row_of(f, F_MASK),
                      ": needs the picture that it belongs to; send init_image or leave "
                      "mask out");
    if (given(f, F_TASK) && job->task != task) {
        const char *what = job->task == DR_TXT2IMG   ? "takes no init_image"
                           : !init                   ? "needs an init_image"
                           : job->task == DR_INPAINT ? "needs a mask"
                                                     : "takes no mask";
        return dr_bad(f, row_of(f, F_TASK), " %s %s; what was sent makes it %s",
                      names[job->task], what, names[task]);
    }
    job->task = task;
    return DR_OK;
}

/* --- Hires --------------------------------------------------------------------------- */

#define HIRES_SCALE 2.0 /* where only that it is wanted is said */

/* A1111's enable_hr decides where it is given; its denoising_strength is the second pass's
 * where nothing else could be meant. */
static void settle_hires(dr_fill *f)
{
    dr_job *job = f->job;
    if (given(f, F_HIRES_ON))
        job->hires.scale = !f->more->hires_on        ? 0
                           : given(f, F_HIRES_SCALE) ? job->hires.scale
                                                     : HIRES_SCALE;
    if (job->hires.scale > 1 && job->task == DR_TXT2IMG && given(f, F_STRENGTH) &&
        !given(f, F_HIRES_STRENGTH))
        job->hires.strength = job->init.strength;
}

/* --- Levels -------------------------------------------------------------------------- */

static dr_status check_levels(dr_fill *f)
{
    dr_job *job = f->job;
    bool sigmas = job->n_sigmas;
    int64_t n = sigmas ? job->n_sigmas : job->n_timesteps, steps = n;
    if (!n)
        return DR_OK;
    if (job->n_sigmas && job->n_timesteps)
        return dr_bad(f, row_of(f, F_SIGMAS), ": given beside timesteps; send one of them");
    if (sigmas && job->sigmas[n - 1] == 0)
        steps--; /* the end of the last step, which goes without saying */
    if (!steps)
        return dr_bad(f, row_of(f, F_SIGMAS), ": only 0; send levels above it");
    if (given(f, F_STEPS) && job->steps != steps)
        return dr_bad(
            f, row_of(f, F_STEPS), " %lld: %s holds levels for %lld; leave steps out",
            (long long)job->steps, sigmas ? "sigmas" : "timesteps", (long long)steps);
    job->steps = steps;
    return DR_OK;
}

/* --- Ranges and files ---------------------------------------------------------------- */

static dr_status check_guided(dr_fill *f)
{
    const dr_job *job = f->job;
    if (job->cfg_start < job->cfg_end)
        return DR_OK;
    return dr_bad(f, row_of(f, F_CFG_START),
                  " %g: must be below cfg_end, which is %g; cfg_scale 1 turns guidance off",
                  job->cfg_start, job->cfg_end);
}

static dr_status check_output(dr_fill *f)
{
    dr_job *job = f->job;
    bool near = job->output.near_lossless < 100;
    if (near && job->output.format != DR_FORMAT_WEBP)
        return dr_bad(f, row_of(f, F_NEAR_LOSSLESS),
                      ": only WebP has it; leave it or the format out");
    if (near && given(f, F_LOSSLESS) && !job->output.lossless)
        return dr_bad(f, row_of(f, F_NEAR_LOSSLESS),
                      " %lld: is a kind of lossless, which was turned off; leave one out",
                      (long long)job->output.near_lossless);
    job->output.lossless |= near;
    if (job->output.lossless && job->output.format == DR_FORMAT_JPEG)
        return dr_bad(f, row_of(f, F_LOSSLESS),
                      ": JPEG cannot be; send format webp or png");
    return DR_OK;
}

/* Whether there are previews is said by `preview`, else by `every`; else who says how large
 * they shall be wants some. */
static void settle_preview(dr_fill *f)
{
    int64_t *every = &f->job->preview.every;
    bool said = given(f, F_PREVIEW), on = said && f->more->preview_on;
    if (said && !on)
        *every = 0;
    else if (given(f, F_PREVIEW_EVERY))
        return;
    else if (on || (given(f, F_PREVIEW_SIZE) && !*every))
        *every = DR_PREVIEW_AUTO;
}

/* --- What has no effect -------------------------------------------------------------- */

static dr_status warn_idle(dr_fill *f)
{
    dr_job *job = f->job;
    const bool init = has_picture(&job->init.image), mask = has_picture(&job->mask.image);
    const bool hires = job->hires.scale > 1 || given(f, F_HIRES_ON);
    const bool levels = job->n_sigmas || job->n_timesteps;
    const struct {
        dr_job_field field;
        bool works;
        const char *why;
    } idle[] = {
        { F_STRENGTH, init || hires, "needs init_image" },
        { F_FIT, init, "needs init_image" },
        { F_INIT_MEAN, init, "needs init_image" },
        { F_MASK_BLUR, mask, "needs mask" },
        { F_MASK_INVERT, mask, "needs mask" },
        { F_ONLY_MASKED, mask, "needs mask" },
        { F_MASK_PADDING, mask, "needs mask" },
        { F_HIRES_STEPS, hires, "needs hires.scale" },
        { F_HIRES_STEPS, !hires || !levels, "explicit levels say them" },
        { F_HIRES_STRENGTH, hires, "needs hires.scale" },
        { F_HIRES_UPSCALER, hires, "needs hires.scale" },
        { F_LORA_SCALE, job->n_loras, "needs loras" },
        { F_SCHEDULE, !levels, "explicit levels replace it" },
        { F_SHEET, job->n > 1 || !job->output.sheet, "needs n above 1" },
    };
    char text[640] = ""; /* all of them fit */
    size_t n = 0;
    for (size_t i = 0; i < DR_COUNT(idle); i++)
        if (given(f, idle[i].field) && !idle[i].works)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s (%s)", n ? ", " : "",
                                  f->rows[idle[i].field].name, idle[i].why);
    if (!n || job->n_warnings == DR_WARNINGS_MAX)
        return DR_OK;
    char *whole = dr_arena_printf(f->mem, "without effect: %s", text);
    if (!whole)
        return dr_fill_nomem(f);
    job->warnings[job->n_warnings++] = whole;
    return DR_OK;
}

dr_status dr_agree(dr_fill *f)
{
    dr_status st = infer_task(f);
    if (st)
        return st;
    settle_hires(f);
    settle_preview(f);
    if ((st = check_levels(f)) || (st = check_guided(f)) || (st = check_output(f)))
        return st;
    return warn_idle(f);
}
