#include "diffusion/init.h"
#include "diffusion/model.h"

#include "base/json.h"

#include <darkroom/version.h>
#include <math.h>
#include <string.h>

/* Words about a model and a picture: `darkroom inspect` and A1111's parameters text. */

/* A value as A1111 writes it: quoted where its reader would not take it for one. */
static void put_value(dr_buf *out, const char *value)
{
    if (strpbrk(value, ",:\"\n"))
        dr_json_put_string(out, value);
    else
        dr_buf_puts(out, value);
}

/* In A1111's words. */
static void describe_start(dr_buf *out, const dr_job *job)
{
    if (!dr_init_given(job))
        return;
    dr_buf_printf(out, ", Denoising strength: %g", job->init.strength);
    if (!dr_mask_given(job))
        return;
    dr_buf_printf(out, ", Mask blur: %g", job->mask.blur);
    if (job->mask.only_masked)
        dr_buf_printf(out, ", Inpaint area: Only masked, Masked area padding: %lld",
                      (long long)job->mask.padding);
}

static void describe_hires(dr_buf *out, const dr_job *job, const dr_plan *plan)
{
    static const char *const upscalers[] = { "Latent", "Lanczos" };
    if (plan->passes == 1)
        return;
    dr_buf_printf(out, ", Denoising strength: %g, Hires upscale: %g, Hires upscaler: %s",
                  job->hires.strength, job->hires.scale, upscalers[job->hires.upscaler]);
    if (plan->pass[1].steps != plan->pass[0].steps)
        dr_buf_printf(out, ", Hires steps: %lld", (long long)plan->pass[1].steps);
}

/* As A1111's ControlNet extension writes them. */
static void describe_controls(dr_buf *out, const dr_job *job)
{
    for (int i = 0; i < job->n_controls; i++) {
        const dr_control_ref *c = &job->controls[i];
        dr_buf one = { 0 };
        dr_buf_printf(&one, "Module: %s, Model: ", c->canny ? "canny" : "none");
        put_value(&one, c->name);
        dr_buf_printf(&one, ", Weight: %g, Guidance Start: %g, Guidance End: %g",
                      c->strength, c->start, c->end);
        dr_buf_printf(out, ", ControlNet %d: ", i);
        put_value(out, one.failed ? "" : one.data);
        out->failed |= one.failed;
        dr_buf_free(&one);
    }
}

void dr_parameters_text(dr_buf *out, const dr_model *m, const dr_job *job,
                        const dr_plan *plan, int64_t index)
{
    index = index < plan->n ? index : 0; /* the sheet shows all, beginning with the first */
    dr_buf_puts(out, job->prompt);
    for (int i = 0; i < job->n_loras; i++) {
        const dr_lora_ref *l = &job->loras[i];
        dr_buf_printf(out, " <lora:%s:%g", l->name, l->text_strength);
        if (l->text_strength < l->strength || l->text_strength > l->strength)
            dr_buf_printf(out, ":%g", l->strength);
        dr_buf_puts(out, ">");
    }
    dr_buf_puts(out, "\n");
    if (*job->negative_prompt)
        dr_buf_printf(out, "Negative prompt: %s\n", job->negative_prompt);
    dr_buf_printf(out,
                  "Steps: %lld, Sampler: %s, Schedule type: %s, CFG scale: %g, Seed: %llu, "
                  "Size: %lldx%lld, Model: ",
                  (long long)plan->steps, dr_sampler_label(plan->sampler),
                  dr_schedule_label(plan->schedule), plan->cfg_scale,
                  (unsigned long long)(plan->seed + (uint64_t)index),
                  (long long)plan->pass[0].width, (long long)plan->pass[0].height);
    put_value(out, m->name);
    if (job->clip_skip)
        dr_buf_printf(out, ", Clip skip: %lld", (long long)job->clip_skip + 1);
    if (job->subseed_strength > 0)
        dr_buf_printf(out, ", Variation seed: %llu, Variation seed strength: %g",
                      (unsigned long long)(plan->subseed + (uint64_t)index),
                      job->subseed_strength);
    if (job->tiling)
        dr_buf_puts(out, ", Tiling: True");
    if (plan->eta == job->eta)
        dr_buf_printf(out, ", Eta: %g", plan->eta);
    describe_start(out, job);
    describe_hires(out, job, plan);
    describe_controls(out, job);
    dr_buf_puts(out, ", Version: darkroom " DR_VERSION);
}

/* --- inspect --- */

static void print_text(dr_buf *out, const dr_model *m, const dr_plan *plan)
{
    const dr_part *c = m->parts;
    dr_buf_printf(out, "%s\nfamily        %s\n", m->path, dr_model_family(m));
    for (int i = 0; i < DR_PARTS; i++)
        dr_buf_printf(out,
                      "%-14s%zu tensors (%zu f32, %zu f16, %zu bf16), %.2f M parameters, "
                      "%.1f MiB\n",
                      c[i].folder, c[i].tensors, c[i].f32, c[i].f16, c[i].bf16,
                      (double)c[i].parameters / 1e6, (double)c[i].file_bytes / 1048576);
    dr_buf_printf(out, "tokenizer     %d tokens, %lld positions\n", dr_bpe_size(m->bpe),
                  (long long)m->clip.length);
    dr_buf_printf(
        out, "defaults      %lldx%lld, %lld steps, cfg %g, sampler %s, schedule %s\n",
        (long long)plan->width, (long long)plan->height, (long long)plan->steps,
        plan->cfg_scale, dr_sampler_name(plan->sampler), dr_schedule_name(plan->schedule));
    dr_buf_printf(
        out,
        "memory        %.1f MiB weights on the device, %.1f MiB activations for one "
        "picture\nwork          %.2f GFLOP a step, %.2f GFLOP a decode\n",
        (double)dr_parts_bytes(c) / 1048576, (double)plan->peak_bytes / 1048576,
        plan->pass[0].step_flops / 1e9, plan->pass[0].decode_flops / 1e9);
}

static void print_json(dr_buf *out, const dr_model *m, const dr_plan *plan)
{
    const dr_part *c = m->parts;
    dr_buf_puts(out, "{\"path\":");
    dr_json_put_string(out, m->path);
    dr_buf_printf(out, ",\"family\":\"%s\",\"components\":{", dr_model_family(m));
    for (int i = 0; i < DR_PARTS; i++)
        dr_buf_printf(out,
                      "%s\"%s\":{\"tensors\":%zu,\"dtypes\":{\"f32\":%zu,\"f16\":%zu,"
                      "\"bf16\":%zu},\"parameters\":%lld,\"file_bytes\":%zu}",
                      i ? "," : "", c[i].folder, c[i].tensors, c[i].f32, c[i].f16,
                      c[i].bf16, (long long)c[i].parameters, c[i].file_bytes);
    dr_buf_printf(out,
                  "},\"defaults\":{\"width\":%lld,\"height\":%lld,\"steps\":%lld,"
                  "\"cfg_scale\":%g,\"sampler\":\"%s\",\"schedule\":\"%s\"},",
                  (long long)plan->width, (long long)plan->height, (long long)plan->steps,
                  plan->cfg_scale, dr_sampler_name(plan->sampler),
                  dr_schedule_name(plan->schedule));
    dr_buf_printf(out,
                  "\"memory\":{\"weights_bytes\":%lld,\"activation_bytes\":%lld},"
                  "\"step_flops\":%.0f,\"decode_flops\":%.0f}\n",
                  (long long)dr_parts_bytes(c), (long long)plan->peak_bytes,
                  plan->pass[0].step_flops, plan->pass[0].decode_flops);
}

dr_status dr_model_inspect(dr_buf *out, const char *path, bool json, dr_err *err)
{
    const dr_job job = {
        .prompt = "", .negative_prompt = "", .n = 1, .cfg_scale = NAN, .eta = NAN
    };
    dr_conf conf;
    dr_model *m = NULL;
    dr_plan plan;
    dr_status st = dr_conf_init(&conf, err);
    if (st || (st = dr_model_open(&m, NULL, path, &conf, NULL, NULL, err)) ||
        (st = dr_plan_make(&plan, m, &job, err)))
        goto done;
    (json ? print_json : print_text)(out, m, &plan);
done:
    dr_model_close(m);
    dr_conf_free(&conf);
    return st;
}
