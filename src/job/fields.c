#include "job/fields.h"

#include "base/utf8.h"
#include "job/decode.h"
#include "job/names.h"
#include "job/read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table of a job's fields and the one pass that fills dr_job by it. A field may be
 * given under several names; it is set once, and a second value must be the same. */

typedef enum {
    F_ID,
    F_EVENTS,
    F_META, /* the last of those read first */
    F_TASK,
    F_MODEL,
    F_PROMPT,
    F_NEGATIVE,
    F_WIDTH,
    F_HEIGHT,
    F_SIZE,
    F_STEPS,
    F_CFG,
    F_SEED,
    F_N,
    F_SAMPLER,
    F_SCHEDULE,
    F_SCHEDULER,
    F_KARRAS,
    F_CLIP_SKIP,
    F_ETA,
    F_NOISE,
    F_OUTPUT,
    F_FORMAT,
    F_QUALITY,
    F_LOSSLESS,
    F_METADATA,
    F_PREVIEW,
    F_PREVIEW_EVERY,
    F_PREVIEW_SIZE,
    F_PRIORITY,
    F_TTL,
    F_TIMEOUT,
    F_DELAY,
    F_ATTEMPTS,
    F_UNIQUE,
    F_INIT_IMAGE,
    F_MASK,
    F_STRENGTH,
    F_MASK_BLUR,
    F_LORAS,
    F_CONTROL,
    F_HIRES,
    F_EMBEDDINGS,
    FIELDS
} field;

typedef struct {
    dr_job *job;
    dr_arena *mem;
    dr_err *err;
    const char *given[FIELDS]; /* the name under which a field was set; NULL: not yet */
    char unknown[320];         /* names for the warning */
    int n_unknown;
} fill;

typedef struct row row;
typedef dr_status setter(fill *f, const row *r, const dr_value *v, const char *as);

struct row {
    const char *name;    /* the canonical one */
    const char *aliases; /* separated by blanks; NULL: none */
    setter *set;
    size_t offset;            /* into dr_job */
    int64_t min, max;         /* numbers; max: bytes of a text */
    const char *const *words; /* of an enumeration, in its order; NULL ends */
};

static setter set_id, set_meta, set_model, set_prompt, set_extent, set_size, set_int,
    set_float, set_bool, set_seed, set_sampler, set_schedule, set_scheduler, set_karras,
    set_clip_skip, set_enum, set_enum_bool, set_nothing, set_group, set_unsupported;

static const char *const task_words[] = { "txt2img", NULL };
static const char *const noise_words[] = { "philox", "torch", NULL };
static const char *const event_words[] = { "json", "msgpack", NULL };
static const char *const format_words[] = { "webp", NULL };
static const char *const priority_words[] = { "high", "normal", "low", NULL };

/* A field on its own, one with a place in dr_job, with bounds, with words. */
#define ROW(name, aliases, set)                                                            \
    {                                                                                      \
        name, aliases, set, 0, 0, 0, NULL                                                  \
    }
#define FIELD(name, aliases, set, member)                                                  \
    {                                                                                      \
        name, aliases, set, offsetof(dr_job, member), 0, 0, NULL                           \
    }
#define RANGE(name, aliases, set, member, min, max)                                        \
    {                                                                                      \
        name, aliases, set, offsetof(dr_job, member), min, max, NULL                       \
    }
#define WORD(name, aliases, set, member, words)                                            \
    {                                                                                      \
        name, aliases, set, offsetof(dr_job, member), 0, 0, words                          \
    }

static const row rows[FIELDS] = {
    [F_ID] = FIELD("id", NULL, set_id, id),
    [F_EVENTS] = WORD("events", NULL, set_enum_bool, events_msgpack, event_words),
    [F_META] = FIELD("meta", NULL, set_meta, meta_json),
    [F_TASK] = WORD("task", NULL, set_enum, task, task_words),
    [F_MODEL] = RANGE("model", "checkpoint model_name", set_model, model, 1, 128),
    [F_PROMPT] = RANGE("prompt", NULL, set_prompt, prompt, 0, DR_PROMPT_BYTES_MAX),
    [F_NEGATIVE] = RANGE("negative_prompt", "negative", set_prompt, negative_prompt, 0,
                         DR_PROMPT_BYTES_MAX),
    [F_WIDTH] = RANGE("width", NULL, set_extent, width, DR_SIZE_MIN, DR_SIZE_MAX),
    [F_HEIGHT] = RANGE("height", NULL, set_extent, height, DR_SIZE_MIN, DR_SIZE_MAX),
    [F_SIZE] = ROW("size", NULL, set_size),
    [F_STEPS] =
        RANGE("steps", "num_inference_steps sample_steps", set_int, steps, 1, DR_STEPS_MAX),
    [F_CFG] = RANGE("cfg_scale", "guidance_scale cfg", set_float, cfg_scale, 0, 100),
    [F_SEED] = FIELD("seed", NULL, set_seed, seed),
    [F_N] = RANGE("n", "num_images num_outputs batch_size n_iter", set_int, n, 1,
                  DR_IMAGES_MAX),
    [F_SAMPLER] = FIELD("sampler", "sampler_name", set_sampler, sampler),
    [F_SCHEDULE] = FIELD("schedule", "noise_schedule", set_schedule, schedule),
    [F_SCHEDULER] = ROW("scheduler", NULL, set_scheduler),
    [F_KARRAS] = ROW("karras", NULL, set_karras),
    [F_CLIP_SKIP] = RANGE("clip_skip", NULL, set_clip_skip, clip_skip, -12, 12),
    [F_ETA] = RANGE("eta", NULL, set_float, eta, 0, 1),
    [F_NOISE] = WORD("noise", NULL, set_enum, noise, noise_words),
    [F_OUTPUT] = ROW("output", NULL, set_group),
    [F_FORMAT] = { "output.format", "output_format", set_nothing, 0, 0, 0, format_words },
    [F_QUALITY] =
        RANGE("output.quality", "output_quality quality", set_int, output.quality, 0, 100),
    [F_LOSSLESS] =
        FIELD("output.lossless", "output_lossless lossless", set_bool, output.lossless),
    [F_METADATA] = FIELD("output.metadata", "output_metadata", set_bool, output.metadata),
    [F_PREVIEW] = ROW("preview", NULL, set_group),
    [F_PREVIEW_EVERY] = RANGE("preview.every", "preview_every show_progress_every_n_steps",
                              set_int, preview.every, 0, DR_STEPS_MAX),
    [F_PREVIEW_SIZE] =
        RANGE("preview.size", "preview_size", set_int, preview.size, 0, DR_SIZE_MAX),
    [F_PRIORITY] = WORD("priority", NULL, set_enum, priority, priority_words),
    [F_TTL] = RANGE("ttl_ms", NULL, set_int, ttl_ms, 0, DR_TIMES_MS_MAX),
    [F_TIMEOUT] = RANGE("timeout_ms", NULL, set_int, timeout_ms, 0, DR_TIMES_MS_MAX),
    [F_DELAY] = RANGE("delay_ms", NULL, set_int, delay_ms, 0, DR_TIMES_MS_MAX),
    [F_ATTEMPTS] = RANGE("max_attempts", NULL, set_int, max_attempts, 1, DR_ATTEMPTS_MAX),
    [F_UNIQUE] = FIELD("unique", NULL, set_id, unique),
    [F_INIT_IMAGE] =
        ROW("init_image", "image input_image source_image init_images image_url ref_images",
            set_unsupported),
    [F_MASK] = ROW("mask", "mask_image source_mask", set_unsupported),
    [F_STRENGTH] =
        ROW("strength", "denoising_strength prompt_strength denoise", set_unsupported),
    [F_MASK_BLUR] = ROW("mask_blur", NULL, set_unsupported),
    [F_LORAS] = ROW("loras", "lora lora_weights lora_scale extra_lora", set_unsupported),
    [F_CONTROL] = ROW("control",
                      "controlnet controlnets control_image control_type control_strength "
                      "ip_adapter_image",
                      set_unsupported),
    [F_HIRES] = ROW("hires", "hires_fix enable_hr refiner", set_unsupported),
    [F_EMBEDDINGS] = ROW("embeddings", "tis textual_inversions", set_unsupported),
};

/* --- Finding and remembering --------------------------------------------------------- */

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

static const row *find(const char *name)
{
    for (int i = 0; i < FIELDS; i++)
        if (!strcmp(rows[i].name, name) || in_list(rows[i].aliases, name))
            return &rows[i];
    return NULL;
}

/* Note that r was set under the name `as`; a second time only with an equal value. */
static dr_status claim(fill *f, const row *r, const char *as, bool equal)
{
    const char **given = &f->given[r - rows];
    if (*given && !equal && !strcmp(*given, as))
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s: given twice with different values; send one", as);
    if (*given && !equal)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s: given as %s and as %s with different values; send one",
                             r->name, *given, as);
    *given = as;
    return DR_OK;
}

/* Store size bytes of value as field r. */
static dr_status keep(fill *f, const row *r, const char *as, const void *value, size_t size)
{
    void *to = (char *)f->job + r->offset;
    dr_status st = claim(f, r, as, !memcmp(to, value, size));
    if (!st)
        memcpy(to, value, size);
    return st;
}

static dr_status keep_text(fill *f, const row *r, const char *as, const char *text)
{
    const char **to = (const char **)((char *)f->job + r->offset);
    dr_status st = claim(f, r, as, *to && !strcmp(*to, text));
    if (!st)
        *to = text;
    return st;
}

/* --- Checked reading ----------------------------------------------------------------- */

/* Checked text: UTF-8 without NUL, r->min..r->max bytes when the row has bounds. */
static dr_status to_text(fill *f, const row *r, const dr_value *v, const char **out)
{
    size_t at;
    if (v->kind != DR_VALUE_STR)
        return dr_fail_field(f->err, DR_EINVAL, r->name, "%s %s: must be text", r->name,
                             dr_value_show(v).text);
    const char *p = v->as.s.p, *nul = memchr(p, 0, v->as.s.n);
    if (r->max && (int64_t)v->as.s.n > r->max)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s of %zu bytes: must be at most %lld; shorten it", r->name,
                             v->as.s.n, (long long)r->max);
    if ((int64_t)v->as.s.n < r->min)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s: empty; give a value or leave it out", r->name);
    if (!dr_utf8_valid(p, v->as.s.n, &at))
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s: byte %zu is not UTF-8; send the text as UTF-8", r->name,
                             at);
    if (nul)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s: byte %zu is NUL; text may not hold one", r->name,
                             (size_t)(nul - p));
    *out = p;
    return DR_OK;
}

/* The index of v in the row's words. */
static dr_status to_word(fill *f, const row *r, const dr_value *v, int *out)
{
    char known[128] = "";
    size_t n = 0;
    for (int i = 0; r->words[i]; i++) {
        const char *word = r->words[i];
        if (dr_value_is(v, word)) {
            *out = i;
            return DR_OK;
        }
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", word);
    }
    return dr_fail_field(f->err, DR_EINVAL, r->name, "%s %s: this version knows %s",
                         r->name, dr_value_show(v).text, known);
}

/* --- Setters ------------------------------------------------------------------------- */

static dr_status set_int(fill *f, const row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (!dr_value_int(v, &i) || i < r->min || i > r->max)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s %s: must be a whole number in %lld..%lld", r->name,
                             dr_value_show(v).text, (long long)r->min, (long long)r->max);
    return keep(f, r, as, &i, sizeof i);
}

static dr_status set_float(fill *f, const row *r, const dr_value *v, const char *as)
{
    double d;
    if (!dr_value_float(v, &d) || d < (double)r->min || d > (double)r->max)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s %s: must be a number in %lld..%lld", r->name,
                             dr_value_show(v).text, (long long)r->min, (long long)r->max);
    return keep(f, r, as, &d, sizeof d);
}

static dr_status set_bool(fill *f, const row *r, const dr_value *v, const char *as)
{
    bool b;
    if (!dr_value_bool(v, &b))
        return dr_fail_field(f->err, DR_EINVAL, r->name, "%s %s: must be true or false",
                             r->name, dr_value_show(v).text);
    return keep(f, r, as, &b, sizeof b);
}

static dr_status set_extent(fill *f, const row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (!dr_value_int(v, &i))
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s %s: must be a multiple of 8 in %d..%d", r->name,
                             dr_value_show(v).text, DR_SIZE_MIN, DR_SIZE_MAX);
    int64_t near = i < r->min ? r->min : i > r->max ? r->max : (i + 4) / 8 * 8;
    if (near != i)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s %lld: must be a multiple of 8 in %d..%d; the nearest is "
                             "%lld",
                             r->name, (long long)i, DR_SIZE_MIN, DR_SIZE_MAX,
                             (long long)near);
    return keep(f, r, as, &i, sizeof i);
}

/* "512x768": width and height in one. */
static dr_status set_size(fill *f, const row *r, const dr_value *v, const char *as)
{
    dr_value part[2] = { { .kind = DR_VALUE_INT }, { .kind = DR_VALUE_INT } };
    const char *text;
    int end = 0;
    dr_status st = to_text(f, r, v, &text);
    if (st)
        return st;
    long long w, h;
    if (strspn(text, "0123456789xX") != strlen(text) || strlen(text) > 15 ||
        sscanf(text, "%lld%*1[xX]%lld%n", &w, &h, &end) != 2 || text[end])
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "size %s: must be WIDTHxHEIGHT, as in 512x768",
                             dr_value_show(v).text);
    part[0].as.i = w;
    part[1].as.i = h;
    if ((st = set_extent(f, &rows[F_WIDTH], &part[0], as)))
        return st;
    return set_extent(f, &rows[F_HEIGHT], &part[1], as);
}

/* The full range of 64 bits; -1 is random. */
static dr_status set_seed(fill *f, const row *r, const dr_value *v, const char *as)
{
    dr_job *job = f->job;
    int64_t i;
    uint64_t u;
    if (v->risky)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "seed %s: a JSON number above 2^53 may have lost bits on its "
                             "way; send it as a string",
                             dr_value_show(v).text);
    if ((dr_value_int(v, &i) && i == -1) || (v->plain && dr_value_is(v, "null")))
        return claim(f, r, as, job->seed_is_random);
    if (!dr_value_uint(v, &u))
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "seed %s: must be a whole number in 0..18446744073709551615 "
                             "(above 2^53 as a string), or -1 for a random one",
                             dr_value_show(v).text);
    dr_status st = claim(f, r, as, !job->seed_is_random && job->seed == u);
    if (!st) {
        job->seed = u;
        job->seed_is_random = false;
    }
    return st;
}

static dr_status set_id(fill *f, const row *r, const dr_value *v, const char *as)
{
    dr_value whole = *v;
    const char *text;
    if (v->kind == DR_VALUE_INT) { /* clients number their jobs */
        char *digits = dr_arena_printf(f->mem, "%lld", (long long)v->as.i);
        if (!digits)
            return dr_fail(f->err, DR_ENOMEM, "out of memory");
        whole.kind = DR_VALUE_STR;
        whole.as.s.p = digits;
        whole.as.s.n = strlen(digits);
    }
    dr_status st = to_text(f, r, &whole, &text);
    if (!st)
        st = dr_job_id_check(r->name, text, strlen(text), f->err);
    return st ? st : keep_text(f, r, as, text);
}

/* A model is a name, resolved inside the worker's folder: never a path. */
static dr_status set_model(fill *f, const row *r, const dr_value *v, const char *as)
{
    const char *text;
    dr_status st = to_text(f, r, v, &text);
    if (st)
        return st;
    if (strchr(text, '/') || strstr(text, ".."))
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "model %s: must be a name without \"/\" and \"..\"",
                             dr_value_show(v).text);
    return keep_text(f, r, as, text);
}

static dr_status set_prompt(fill *f, const row *r, const dr_value *v, const char *as)
{
    const char *text, *tag;
    dr_status st = to_text(f, r, v, &text);
    if (st)
        return st;
    if ((tag = strstr(text, "<lora:")))
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "%s: <lora:...> at byte %zu: this version applies no LoRA; "
                             "take it out",
                             r->name, (size_t)(tag - text));
    return keep_text(f, r, as, text);
}

static dr_status set_enum(fill *f, const row *r, const dr_value *v, const char *as)
{
    int word;
    dr_status st = to_word(f, r, v, &word);
    return st ? st : keep(f, r, as, &word, sizeof word);
}

/* Two words whose second means true. */
static dr_status set_enum_bool(fill *f, const row *r, const dr_value *v, const char *as)
{
    int word;
    dr_status st = to_word(f, r, v, &word);
    bool b = !st && word;
    return st ? st : keep(f, r, as, &b, sizeof b);
}

/* A field with one possible value. */
static dr_status set_nothing(fill *f, const row *r, const dr_value *v, const char *as)
{
    int word;
    (void)as;
    return to_word(f, r, v, &word);
}

static dr_status unknown_name(fill *f, const char *name, const dr_value *v,
                              const char *known)
{
    return dr_fail_field(f->err, DR_EINVAL, name, "unknown %s %s; known: %s", name,
                         dr_value_show(v).text, known);
}

static dr_status keep_sampler(fill *f, const char *as, dr_sampler_id sampler,
                              dr_schedule_id schedule)
{
    dr_status st = keep(f, &rows[F_SAMPLER], as, &sampler, sizeof sampler);
    if (!st && schedule)
        st = keep(f, &rows[F_SCHEDULE], as, &schedule, sizeof schedule);
    return st;
}

static dr_status keep_schedule(fill *f, const char *as, dr_schedule_id schedule)
{
    /* "automatic" says nothing, so nothing can contradict it. */
    return schedule ? keep(f, &rows[F_SCHEDULE], as, &schedule, sizeof schedule) : DR_OK;
}

static dr_status set_sampler(fill *f, const row *r, const dr_value *v, const char *as)
{
    char known[DR_NAMES_BYTES];
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    const char *text;
    dr_status st = to_text(f, r, v, &text);
    if (st)
        return st;
    if (!dr_sampler_parse(text, &sampler, &schedule))
        return unknown_name(f, r->name, v, dr_sampler_list(known));
    return keep_sampler(f, as, sampler, schedule);
}

static dr_status set_schedule(fill *f, const row *r, const dr_value *v, const char *as)
{
    char known[DR_NAMES_BYTES];
    dr_schedule_id schedule;
    const char *text;
    dr_status st = to_text(f, r, v, &text);
    if (st)
        return st;
    if (!dr_schedule_parse(text, &schedule))
        return unknown_name(f, r->name, v, dr_schedule_list(known));
    return keep_schedule(f, as, schedule);
}

/* A sampler to diffusers' users, a schedule to A1111's and ComfyUI's: the value tells. */
static dr_status set_scheduler(fill *f, const row *r, const dr_value *v, const char *as)
{
    char samplers[DR_NAMES_BYTES], schedules[DR_NAMES_BYTES];
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    const char *text;
    dr_status st = to_text(f, r, v, &text);
    if (st)
        return st;
    if (dr_sampler_parse(text, &sampler, &schedule))
        return keep_sampler(f, as, sampler, schedule);
    if (dr_schedule_parse(text, &schedule))
        return keep_schedule(f, as, schedule);
    return dr_fail_field(f->err, DR_EINVAL, r->name,
                         "unknown scheduler %s; known samplers: %s; known schedules: %s",
                         dr_value_show(v).text, dr_sampler_list(samplers),
                         dr_schedule_list(schedules));
}

static dr_status set_karras(fill *f, const row *r, const dr_value *v, const char *as)
{
    bool b;
    if (!dr_value_bool(v, &b))
        return dr_fail_field(f->err, DR_EINVAL, r->name, "karras %s: must be true or false",
                             dr_value_show(v).text);
    return keep_schedule(f, as, b ? DR_SCHEDULE_KARRAS : DR_SCHEDULE_NORMAL);
}

/* A1111 counts 1, 2, … from the last layer, ComfyUI -1, -2, …; 0 is the model's own. */
static dr_status set_clip_skip(fill *f, const row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (!dr_value_int(v, &i) || i < r->min || i > r->max)
        return dr_fail_field(f->err, DR_EINVAL, r->name,
                             "clip_skip %s: must be a whole number in 1..%lld or -1..%lld",
                             dr_value_show(v).text, (long long)r->max, (long long)r->min);
    i = i ? llabs(i) - 1 : 0;
    return keep(f, r, as, &i, sizeof i);
}

/* A plain field may hold JSON text where a job has a map; *out is that or v itself. */
static dr_status unfold(fill *f, const dr_value *v, const dr_value **out, dr_err *err)
{
    dr_value *tree;
    *out = v;
    if (v->kind != DR_VALUE_STR || !v->plain)
        return DR_OK;
    dr_status st =
        dr_value_from_json(&tree, f->mem, v->as.s.p, v->as.s.n, DR_JOB_OBJECTS_MAX, err);
    if (!st)
        *out = tree;
    return st;
}

static dr_status set_meta(fill *f, const row *r, const dr_value *v, const char *as)
{
    dr_buf json = { 0 };
    dr_err why;
    const dr_value *tree;
    const char *text = NULL;
    dr_status st = unfold(f, v, &tree, &why);
    if (st != DR_ENOMEM) /* plain text that is not JSON is a string */
        st = dr_value_json(&json, tree, &why);
    if (st) {
        st = dr_fail_field(f->err, st, r->name, "meta: %s", why.message);
    } else if (json.len > DR_META_BYTES_MAX) {
        st = dr_fail_field(f->err, DR_EINVAL, r->name,
                           "meta of %zu bytes as JSON: must be at most %d; every event "
                           "repeats it, so send a key to it instead",
                           json.len, DR_META_BYTES_MAX);
    } else if (json.failed || !(text = dr_arena_str(f->mem, json.data, json.len))) {
        st = dr_fail(f->err, DR_ENOMEM, "out of memory");
    } else {
        st = keep_text(f, r, as, text);
    }
    dr_buf_free(&json);
    return st;
}

static bool asks_nothing(const dr_value *v)
{
    return v->kind == DR_VALUE_NIL || (v->kind == DR_VALUE_BOOL && !v->as.b) ||
           (v->kind == DR_VALUE_STR && !v->as.s.n) ||
           ((v->kind == DR_VALUE_ARRAY || v->kind == DR_VALUE_MAP) && !v->as.items.n);
}

static dr_status set_unsupported(fill *f, const row *r, const dr_value *v, const char *as)
{
    if (asks_nothing(v))
        return DR_OK;
    return dr_fail_field(f->err, DR_EINVAL, r->name,
                         "%s: this version makes txt2img only; leave it out", as);
}

/* --- The pass ------------------------------------------------------------------------ */

static void note_unknown(fill *f, const char *name)
{
    char part[48];
    size_t n = strlen(f->unknown), room = sizeof f->unknown - n;
    dr_value_quote(part, sizeof part, name, strlen(name));
    if (f->n_unknown++ < 6)
        snprintf(f->unknown + n, room, "%s%s", n ? ", " : "", part);
}

static dr_status apply(fill *f, const dr_value *v, const char *name)
{
    const row *r = find(name);
    char shown_name[48];
    if (!dr_value_finite(v)) {
        const char *field_name =
            r ? r->name : dr_value_quote(shown_name, sizeof shown_name, name, strlen(name));
        return dr_fail_field(f->err, DR_EINVAL, field_name,
                             "%s: NaN and infinity are not accepted; send a finite number",
                             field_name);
    }
    if (!r)
        note_unknown(f, name);
    else if (v->kind != DR_VALUE_NIL)
        return r->set(f, r, v, name);
    return DR_OK;
}

/* A map whose fields have names of their own: `quality` in `output` is output.quality. */
static dr_status set_group(fill *f, const row *r, const dr_value *v, const char *as)
{
    dr_err why;
    (void)as;
    dr_status st = unfold(f, v, &v, &why);
    if (st)
        return dr_fail_field(f->err, st, r->name, "%s: %s", r->name, why.message);
    if (v->kind != DR_VALUE_MAP)
        return dr_fail_field(f->err, DR_EINVAL, r->name, "%s %s: must be a map", r->name,
                             dr_value_show(v).text);
    for (const dr_value *i = v->as.items.first; i && !st; i = i->next) {
        const char *name = dr_arena_printf(f->mem, "%s.%s", r->name, i->name);
        st = name ? apply(f, i, name) : dr_fail(f->err, DR_ENOMEM, "out of memory");
    }
    return st;
}

static dr_status add_warning(fill *f)
{
    char more[32] = "";
    dr_job *job = f->job;
    if (!f->n_unknown || job->n_warnings == DR_WARNINGS_MAX)
        return DR_OK;
    if (f->n_unknown > 6)
        snprintf(more, sizeof more, " and %d more", f->n_unknown - 6);
    char *text = dr_arena_printf(f->mem, "unknown field%s ignored: %s%s",
                                 f->n_unknown == 1 ? "" : "s", f->unknown, more);
    if (!text)
        return dr_fail(f->err, DR_ENOMEM, "out of memory");
    job->warnings[job->n_warnings++] = text;
    return DR_OK;
}

dr_status dr_job_fill(dr_job *job, dr_arena *mem, const dr_value *values, dr_err *err)
{
    fill f = { .job = job, .mem = mem, .err = err };
    dr_status st = DR_OK;
    for (int pass = 0; pass < 2; pass++)
        for (const dr_value *v = values; v && !st; v = v->next) {
            const row *r = find(v->name);
            bool early = r && r <= &rows[F_META];
            if (early == (pass == 0))
                st = apply(&f, v, v->name);
        }
    return st ? st : add_warning(&f);
}
