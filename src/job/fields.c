#include "job/fields.h"

#include "job/decode.h"
#include "job/read.h"
#include "job/row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table of a job's fields, the setters that only one of them has, and the pass that
 * fills dr_job by them. */

static dr_setter set_id, set_meta, set_extent, set_size, set_fit, set_mask, set_hires,
    set_hires_on, set_near_lossless, set_preview;

static const char *const task_words[] = { "txt2img|text2img|text-to-image",
                                          "img2img|image-to-image", "inpaint|inpainting",
                                          NULL };
static const char *const noise_words[] = { "philox", "torch", NULL };
static const char *const event_words[] = { "json", "msgpack", NULL };
static const char *const fit_words[] = { "stretch|0", "crop|1", "pad|2", NULL };
static const char *const upscaler_words[] = { "latent", "lanczos", NULL };
static const char *const format_words[] = { "webp", "png", "jpeg|jpg", NULL };
static const char *const priority_words[] = { "high", "normal", "low", NULL };

#define ROW                               DR_ROW
#define FIELD(name, aliases, set, member) DR_FIELD(dr_job, name, aliases, set, member)
#define RANGE(name, aliases, set, member, min, max)                                        \
    DR_RANGE(dr_job, name, aliases, set, member, min, max)
#define WORDS(name, aliases, set, member, words)                                           \
    DR_WORDS(dr_job, name, aliases, set, member, words)

static const dr_row rows[FIELDS] = {
    [F_ID] = FIELD("id", NULL, set_id, id),
    [F_EVENTS] = WORDS("events", NULL, dr_set_enum_bool, events_msgpack, event_words),
    [F_META] = FIELD("meta", NULL, set_meta, meta_json),
    [F_TASK] = WORDS("task", NULL, dr_set_enum, task, task_words),
    [F_MODEL] =
        RANGE("model", "checkpoint model_name", dr_set_name, model, 1, DR_NAME_BYTES_MAX),
    [F_PROMPT] = RANGE("prompt", NULL, dr_set_text, prompt, 0, DR_PROMPT_BYTES_MAX),
    [F_NEGATIVE] = RANGE("negative_prompt", "negative", dr_set_text, negative_prompt, 0,
                         DR_PROMPT_BYTES_MAX),
    [F_WIDTH] = RANGE("width", NULL, set_extent, width, DR_SIZE_MIN, DR_SIZE_MAX),
    [F_HEIGHT] = RANGE("height", NULL, set_extent, height, DR_SIZE_MIN, DR_SIZE_MAX),
    [F_SIZE] = ROW("size", NULL, set_size),
    [F_STEPS] = RANGE("steps", "num_inference_steps sample_steps", dr_set_int, steps, 1,
                      DR_STEPS_MAX),
    [F_CFG] = RANGE("cfg_scale", "guidance_scale cfg", dr_set_float, cfg_scale, 0, 100),
    [F_CFG_RESCALE] =
        RANGE("cfg_rescale", "guidance_rescale", dr_set_float, cfg_rescale, 0, 1),
    [F_CFG_START] = RANGE("cfg_start", NULL, dr_set_float, cfg_start, 0, 1),
    [F_CFG_END] = RANGE("cfg_end", NULL, dr_set_float, cfg_end, 0, 1),
    [F_PERP_NEG] = FIELD("perp_neg", NULL, dr_set_bool, perp_neg),
    [F_SEED] = FIELD("seed", NULL, dr_set_seed, seed),
    [F_SUBSEED] = FIELD("subseed", "variation_seed", dr_set_subseed, subseed),
    [F_SUBSEED_STRENGTH] = RANGE("subseed_strength", "variation_strength", dr_set_float,
                                 subseed_strength, 0, 1),
    [F_N] = RANGE("n", "num_images num_outputs batch_size n_iter", dr_set_int, n, 1,
                  DR_IMAGES_MAX),
    [F_SAMPLER] = FIELD("sampler", "sampler_name", dr_set_sampler, sampler),
    [F_SCHEDULE] = FIELD("schedule", "noise_schedule", dr_set_schedule, schedule),
    [F_SCHEDULER] = ROW("scheduler", NULL, dr_set_scheduler),
    [F_KARRAS] = ROW("karras", NULL, dr_set_karras),
    [F_SIGMAS] = RANGE("sigmas", NULL, dr_set_levels, sigmas, 0, 1000000),
    [F_TIMESTEPS] = RANGE("timesteps", NULL, dr_set_levels, timesteps, 0, 1000),
    [F_CLIP_SKIP] = RANGE("clip_skip", NULL, dr_set_clip_skip, clip_skip, -12, 12),
    [F_ETA] = RANGE("eta", NULL, dr_set_float, eta, 0, 1),
    [F_NOISE] = WORDS("noise", NULL, dr_set_enum, noise, noise_words),
    [F_TILING] = FIELD("tiling", "seamless", dr_set_bool, tiling),
    [F_INIT] = ROW("init", NULL, dr_set_group),
    [F_INIT_IMAGE] = FIELD(
        "init_image", "init.image image input_image source_image init_images image_url",
        dr_set_picture, init.image),
    [F_STRENGTH] =
        RANGE("strength", "init.strength denoising_strength prompt_strength denoise",
              dr_set_float, init.strength, 0, 1),
    [F_FIT] = WORDS("fit", "init.fit resize_mode", set_fit, init.fit, fit_words),
    [F_INIT_MEAN] = FIELD("init.mean", "init_mean", dr_set_bool, init.mean),
    [F_MASK] = FIELD("mask", "mask.image mask_image source_mask", set_mask, mask.image),
    [F_MASK_BLUR] = RANGE("mask_blur", "mask.blur", dr_set_float, mask.blur, 0, 256),
    [F_MASK_INVERT] = FIELD("mask_invert", "mask.invert inpainting_mask_invert",
                            dr_set_bool, mask.invert),
    [F_ONLY_MASKED] = FIELD("only_masked", "mask.only_masked inpaint_full_res", dr_set_bool,
                            mask.only_masked),
    [F_MASK_PADDING] = RANGE("mask_padding", "mask.padding inpaint_full_res_padding",
                             dr_set_int, mask.padding, 0, DR_SIZE_MAX),
    [F_HIRES] = ROW("hires", NULL, set_hires),
    [F_HIRES_ON] = DR_FIELD(dr_gathered, "enable_hr", "hires_fix", set_hires_on, hires_on),
    [F_HIRES_SCALE] =
        RANGE("hires.scale", "hires_scale hr_scale", dr_set_float, hires.scale, 1, 4),
    [F_HIRES_STEPS] = RANGE("hires.steps", "hires_steps hr_second_pass_steps", dr_set_int,
                            hires.steps, 0, DR_STEPS_MAX),
    [F_HIRES_STRENGTH] =
        RANGE("hires.strength", "hires_strength", dr_set_float, hires.strength, 0, 1),
    [F_HIRES_UPSCALER] = WORDS("hires.upscaler", "hires_upscaler hr_upscaler", dr_set_enum,
                               hires.upscaler, upscaler_words),
    [F_LORAS] = ROW("loras", "lora lora_weights extra_lora", dr_set_loras),
    [F_LORA_SCALE] = DR_RANGE(dr_gathered, "lora_scale", "lora_strength", dr_set_lora_scale,
                              lora_scale, -10, 10),
    [F_CONTROLS] = ROW("controls", "control controlnet controlnets", dr_set_controls),
    [F_CONTROL_NAME] = ROW("control_name", "control_model controlnet_name controlnet_model",
                           dr_set_control),
    [F_CONTROL_IMAGE] = ROW("control_image", "controlnet_image", dr_set_control),
    [F_CONTROL_STRENGTH] = ROW("control_strength",
                               "control_scale conditioning_scale controlnet_strength "
                               "controlnet_scale controlnet_conditioning_scale",
                               dr_set_control),
    [F_CONTROL_START] =
        ROW("control_start", "control_guidance_start controlnet_start", dr_set_control),
    [F_CONTROL_END] =
        ROW("control_end", "control_guidance_end controlnet_end", dr_set_control),
    [F_CONTROL_PREPROCESSOR] =
        ROW("control_preprocessor", "controlnet_preprocessor controlnet_module",
            dr_set_control),
    [F_OUTPUT] = ROW("output", NULL, dr_set_group),
    [F_FORMAT] = WORDS("output.format", "output_format format", dr_set_enum, output.format,
                       format_words),
    [F_QUALITY] = RANGE("output.quality", "output_quality quality", dr_set_int,
                        output.quality, 0, 100),
    [F_LOSSLESS] =
        FIELD("output.lossless", "output_lossless lossless", dr_set_bool, output.lossless),
    [F_NEAR_LOSSLESS] = RANGE("output.near_lossless", "output_near_lossless near_lossless",
                              set_near_lossless, output.near_lossless, 0, 100),
    [F_METADATA] =
        FIELD("output.metadata", "output_metadata", dr_set_bool, output.metadata),
    [F_SHEET] = FIELD("output.sheet",
                      "output_sheet sheet output.contact_sheet "
                      "contact_sheet",
                      dr_set_bool, output.sheet),
    [F_PREVIEW] = DR_FIELD(dr_gathered, "preview", "previews", set_preview, preview_on),
    [F_PREVIEW_EVERY] = RANGE("preview.every", "preview_every show_progress_every_n_steps",
                              dr_set_int, preview.every, 0, DR_STEPS_MAX),
    [F_PREVIEW_SIZE] =
        RANGE("preview.size", "preview_size", dr_set_int, preview.size, 0, DR_SIZE_MAX),
    [F_PRIORITY] = WORDS("priority", NULL, dr_set_enum, priority, priority_words),
    [F_TTL] = RANGE("ttl_ms", NULL, dr_set_int, ttl_ms, 0, DR_TIMES_MS_MAX),
    [F_TIMEOUT] = RANGE("timeout_ms", NULL, dr_set_int, timeout_ms, 0, DR_TIMES_MS_MAX),
    [F_DELAY] = RANGE("delay_ms", NULL, dr_set_int, delay_ms, 0, DR_TIMES_MS_MAX),
    [F_ATTEMPTS] =
        RANGE("max_attempts", NULL, dr_set_int, max_attempts, 1, DR_ATTEMPTS_MAX),
    [F_UNIQUE] = FIELD("unique", NULL, set_id, unique),
    [F_EMBEDDINGS] = ROW("embeddings", "tis textual_inversions", dr_set_none),
    [F_IP_ADAPTER] = ROW("ip_adapter_image", "ip_adapter ref_images", dr_set_none),
    [F_REFINER] = ROW("refiner", "refiner_checkpoint refiner_switch_at", dr_set_none),
    [F_HIRES_SIZE] = ROW("hr_resize_x", "hr_resize_y", dr_set_none),
    [F_CONTROL_TYPE] = ROW("control_type", NULL, dr_set_none),
};

/* --- Setters of one field ------------------------------------------------------------ */

static dr_status set_extent(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (!dr_value_int(v, &i))
        return dr_bad(f, r, " %s: must be a multiple of 8 in %d..%d", dr_value_show(v).text,
                      DR_SIZE_MIN, DR_SIZE_MAX);
    int64_t near = i < r->min ? r->min : i > r->max ? r->max : (i + 4) / 8 * 8;
    if (near != i)
        return dr_bad(f, r,
                      " %lld: must be a multiple of 8 in %d..%d; the nearest is "
                      "%lld",
                      (long long)i, DR_SIZE_MIN, DR_SIZE_MAX, (long long)near);
    return dr_fill_keep(f, r, as, &i, sizeof i);
}

/* "512x768": width and height in one. */
static dr_status set_size(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_value part[2] = { { .kind = DR_VALUE_INT }, { .kind = DR_VALUE_INT } };
    const char *text;
    int end = 0;
    dr_status st = dr_to_text(f, r, v, &text);
    if (st)
        return st;
    long long w, h;
    if (strspn(text, "0123456789xX") != strlen(text) || strlen(text) > 15 ||
        sscanf(text, "%lld%*1[xX]%lld%n", &w, &h, &end) != 2 || text[end])
        return dr_bad(f, r, " %s: must be WIDTHxHEIGHT, as in 512x768",
                      dr_value_show(v).text);
    part[0].as.i = w;
    part[1].as.i = h;
    if ((st = set_extent(f, &rows[F_WIDTH], &part[0], as)))
        return st;
    return set_extent(f, &rows[F_HEIGHT], &part[1], as);
}

static dr_status set_id(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_value whole = *v;
    const char *text;
    if (v->kind == DR_VALUE_INT) { /* clients number their jobs */
        char *digits = dr_arena_printf(f->mem, "%lld", (long long)v->as.i);
        if (!digits)
            return dr_fill_nomem(f);
        whole.kind = DR_VALUE_STR;
        whole.as.s.p = digits;
        whole.as.s.n = strlen(digits);
    }
    dr_status st = dr_to_text(f, r, &whole, &text);
    if (!st)
        st = dr_job_id_check(r->name, text, strlen(text), f->err);
    return st ? st : dr_fill_text(f, r, as, text);
}

static dr_status set_meta(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_buf json = { 0 };
    dr_err why;
    const dr_value *tree;
    const char *text = NULL;
    dr_status st = dr_unfold(f, v, &tree, &why);
    if (st != DR_ENOMEM) /* plain text that is not JSON is a string */
        st = dr_value_json(&json, tree, &why);
    if (st) {
        st = dr_fail_field(f->err, st, r->name, "meta: %s", why.message);
    } else if (json.len > DR_META_BYTES_MAX) {
        st = dr_bad(f, r,
                    " of %zu bytes as JSON: must be at most %d; every event "
                    "repeats it, so send a key to it instead",
                    json.len, DR_META_BYTES_MAX);
    } else if (json.failed || !(text = dr_arena_str(f->mem, json.data, json.len))) {
        st = dr_fill_nomem(f);
    } else {
        st = dr_fill_text(f, r, as, text);
    }
    dr_buf_free(&json);
    return st;
}

/* A1111 and the Horde have numbers for it. */
static dr_status set_fit(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (v->kind != DR_VALUE_INT || !dr_value_int(v, &i) || i < DR_FIT_STRETCH ||
        i > DR_FIT_PAD)
        return dr_set_enum(f, r, v, as);
    dr_fit fit = (dr_fit)i;
    return dr_fill_keep(f, r, as, &fit, sizeof fit);
}

/* A picture, or a map of it and what goes with it. */
static dr_status set_mask(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_status st = v->plain ? dr_unfold_items(f, r, &v) : DR_OK;
    if (st)
        return st;
    return v->kind == DR_VALUE_MAP ? dr_set_group(f, r, v, as)
                                   : dr_set_picture(f, r, v, as);
}

static dr_status set_hires_on(dr_fill *f, const dr_row *r, const dr_value *v,
                              const char *as)
{
    dr_fill own = *f;
    own.base = f->more;
    return dr_set_bool(&own, r, v, as);
}

/* A map, or whether at all. */
static dr_status set_preview(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    bool on;
    dr_fill own = *f;
    own.base = f->more;
    return dr_value_bool(v, &on) ? dr_fill_keep(&own, r, as, &on, sizeof on)
                                 : dr_set_group(f, r, v, as);
}

/* A map, a scale, or whether at all. */
static dr_status set_hires(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    bool on;
    double scale;
    dr_status st = v->plain ? dr_unfold_items(f, r, &v) : DR_OK;
    if (st || dr_asks_nothing(v))
        return st;
    if (v->kind == DR_VALUE_MAP)
        return dr_set_group(f, r, v, as);
    const dr_row *to = dr_value_bool(v, &on)       ? &f->rows[F_HIRES_ON]
                       : dr_value_float(v, &scale) ? &f->rows[F_HIRES_SCALE]
                                                   : NULL;
    if (!to)
        return dr_bad(f, r, " %s: must be a scale, a map, or true or false",
                      dr_value_show(v).text);
    return to->set(f, to, v, as);
}

/* 0 and 1 are the same to libwebp, and 0 of a struct is "unset". */
static dr_status set_near_lossless(dr_fill *f, const dr_row *r, const dr_value *v,
                                   const char *as)
{
    const dr_value one = { .kind = DR_VALUE_INT, .as.i = 1 };
    int64_t i;
    return dr_set_int(f, r, dr_value_int(v, &i) && !i ? &one : v, as);
}

/* --- The pass ------------------------------------------------------------------------ */

static bool in_list(const char *list, const char *word)
{
    size_t n = strlen(word);
    while (list && *list) {
        size_t len = strcspn(list, " ");
        if (len == n && !memcmp(list, word, n))
            return true;
        list += len + (list[len] == ' ');
    }
    return false;
}

static const dr_row *find(const dr_row *table, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(table[i].name, name) || in_list(table[i].aliases, name))
            return &table[i];
    return NULL;
}

static void note_unknown(dr_fill *f, const char *name)
{
    char part[48], whole[96];
    dr_gathered *g = f->more;
    size_t n = strlen(g->unknown), room = sizeof g->unknown - n;
    snprintf(whole, sizeof whole, "%s%s", f->prefix, name);
    dr_value_quote(part, sizeof part, whole, strlen(whole));
    if (g->n_unknown++ < 6)
        snprintf(g->unknown + n, room, "%s%s", n ? ", " : "", part);
}

dr_status dr_apply(dr_fill *f, const dr_value *v, const char *name)
{
    const dr_row *r = find(f->rows, f->n_rows, name);
    char shown[48];
    if (!dr_value_finite(v)) {
        const dr_row nameless = { .name = dr_value_quote(shown, sizeof shown, name,
                                                         strlen(name)) };
        return dr_bad(f, r ? r : &nameless,
                      ": NaN and infinity are not accepted; send a finite number");
    }
    if (!r)
        note_unknown(f, name);
    else if (v->kind != DR_VALUE_NIL)
        return r->set(f, r, v, name);
    return DR_OK;
}

static dr_status warn_unknown(dr_fill *f)
{
    char more[32] = "";
    dr_job *job = f->job;
    const dr_gathered *g = f->more;
    if (!g->n_unknown || job->n_warnings == DR_WARNINGS_MAX)
        return DR_OK;
    if (g->n_unknown > 6)
        snprintf(more, sizeof more, " and %d more", g->n_unknown - 6);
    char *text = dr_arena_printf(f->mem, "unknown field%s ignored: %s%s",
                                 g->n_unknown == 1 ? "" : "s", g->unknown, more);
    if (!text)
        return dr_fill_nomem(f);
    job->warnings[job->n_warnings++] = text;
    return DR_OK;
}

dr_status dr_job_fill(dr_job *job, dr_arena *mem, const dr_value *values, dr_err *err)
{
    const char *given[FIELDS] = { 0 };
    dr_gathered more = { .lora_scale = 1, .control = { .strength = 1, .end = 1 } };
    dr_fill f = { .rows = rows,
                  .n_rows = FIELDS,
                  .base = job,
                  .given = given,
                  .prefix = "",
                  .job = job,
                  .mem = mem,
                  .err = err,
                  .more = &more };
    dr_status st = DR_OK;
    for (int pass = 0; pass < 2; pass++)
        for (const dr_value *v = values; v && !st; v = v->next) {
            const dr_row *r = find(rows, FIELDS, v->name);
            bool early = r && r <= &rows[F_META];
            if (early == (pass == 0))
                st = dr_apply(&f, v, v->name);
        }
    if (!st)
        st = dr_finish_addons(&f);
    if (!st)
        st = dr_agree(&f);
    return st ? st : warn_unknown(&f);
}

/* --- Size ---------------------------------------------------------------------------- */

/* Bytes of v's names and, with texts, of the texts in it. */
static size_t weight(const dr_value *v, bool texts)
{
    size_t bytes = strlen(v->name);
    if (v->kind == DR_VALUE_STR || v->kind == DR_VALUE_BIN)
        return bytes + (texts ? v->as.s.n : 0);
    if (v->kind == DR_VALUE_ARRAY || v->kind == DR_VALUE_MAP)
        for (const dr_value *i = v->as.items.first; i; i = i->next)
            bytes += weight(i, texts);
    return bytes;
}

size_t dr_job_own_bytes(const dr_value *values)
{
    static const dr_job_field pictures[] = { F_INIT, F_INIT_IMAGE, F_MASK, F_CONTROLS,
                                             F_CONTROL_IMAGE };
    size_t bytes = 0;
    for (const dr_value *v = values; v; v = v->next) {
        const dr_row *r = find(rows, FIELDS, v->name);
        bool texts = true;
        for (size_t i = 0; i < DR_COUNT(pictures); i++)
            texts &= r != &rows[pictures[i]];
        bytes += weight(v, texts);
    }
    return bytes;
}
