#ifndef DR_JOB_ROW_H
#define DR_JOB_ROW_H

#include "job/value.h"

#include <darkroom/job.h>

/* Private to src/job/: how values get into a struct by a table of its fields. A field may
 * be given under several names; it is set once, and a second value must be the same. */

/* The fields of a job. */
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
    F_CFG_RESCALE,
    F_CFG_START,
    F_CFG_END,
    F_PERP_NEG,
    F_SEED,
    F_SUBSEED,
    F_SUBSEED_STRENGTH,
    F_N,
    F_SAMPLER,
    F_SCHEDULE,
    F_SCHEDULER,
    F_KARRAS,
    F_SIGMAS,
    F_TIMESTEPS,
    F_CLIP_SKIP,
    F_ETA,
    F_NOISE,
    F_TILING,
    F_INIT,
    F_INIT_IMAGE,
    F_STRENGTH,
    F_FIT,
    F_INIT_MEAN,
    F_MASK,
    F_MASK_BLUR,
    F_MASK_INVERT,
    F_ONLY_MASKED,
    F_MASK_PADDING,
    F_HIRES,
    F_HIRES_ON,
    F_HIRES_SCALE,
    F_HIRES_STEPS,
    F_HIRES_STRENGTH,
    F_HIRES_UPSCALER,
    F_LORAS,
    F_LORA_SCALE,
    F_CONTROLS,
    F_CONTROL_NAME, /* these and the next: one control without a list */
    F_CONTROL_IMAGE,
    F_CONTROL_STRENGTH,
    F_CONTROL_START,
    F_CONTROL_END,
    F_CONTROL_PREPROCESSOR,
    F_OUTPUT,
    F_FORMAT,
    F_QUALITY,
    F_LOSSLESS,
    F_NEAR_LOSSLESS,
    F_METADATA,
    F_SHEET,
    F_PREVIEW,
    F_PREVIEW_EVERY,
    F_PREVIEW_SIZE,
    F_PRIORITY,
    F_TTL,
    F_TIMEOUT,
    F_DELAY,
    F_ATTEMPTS,
    F_UNIQUE,
    F_EMBEDDINGS,
    F_IP_ADAPTER,
    F_REFINER,
    F_HIRES_SIZE,
    F_CONTROL_TYPE,
    FIELDS
} dr_job_field;

/* Those of one entry of `controls`, in the order of F_CONTROL_NAME… */
typedef enum {
    C_NAME,
    C_IMAGE,
    C_STRENGTH,
    C_START,
    C_END,
    C_PREPROCESSOR,
    CONTROL_FIELDS
} dr_control_field;

typedef struct dr_row dr_row;
typedef struct dr_fill dr_fill;
typedef dr_status dr_setter(dr_fill *f, const dr_row *r, const dr_value *v, const char *as);

struct dr_row {
    const char *name;    /* the canonical one */
    const char *aliases; /* separated by blanks; NULL: none */
    dr_setter *set;
    size_t offset;    /* into the struct */
    int64_t min, max; /* numbers; bytes of a text; numbers in a list */
    /* Of an enumeration, in its order; NULL ends. "jpeg|jpg": two spellings. */
    const char *const *words;
};

/* A field on its own, one with a place in the struct type, with bounds, with words. */
#define DR_ROW(name, aliases, set)                                                         \
    {                                                                                      \
        name, aliases, set, 0, 0, 0, NULL                                                  \
    }
#define DR_FIELD(type, name, aliases, set, member)                                         \
    {                                                                                      \
        name, aliases, set, offsetof(type, member), 0, 0, NULL                             \
    }
#define DR_RANGE(type, name, aliases, set, member, min, max)                               \
    {                                                                                      \
        name, aliases, set, offsetof(type, member), min, max, NULL                         \
    }
#define DR_WORDS(type, name, aliases, set, member, words)                                  \
    {                                                                                      \
        name, aliases, set, offsetof(type, member), 0, 0, words                            \
    }

/* What is gathered on the way besides the job. */
typedef struct {
    char unknown[320]; /* names for the warning */
    int n_unknown;
    bool hires_on;          /* the value of F_HIRES_ON */
    bool preview_on;        /* of F_PREVIEW, where that is true or false */
    double lora_scale;      /* the value of F_LORA_SCALE */
    dr_control_ref control; /* of the F_CONTROL_… */
    const char *control_given[CONTROL_FIELDS];
} dr_gathered;

/* A struct that is being filled. */
struct dr_fill {
    const dr_row *rows;
    int n_rows;
    void *base;         /* the struct; the rows' offsets are into it */
    const char **given; /* [n_rows] the name under which a field was set; NULL: not yet */
    const char *prefix; /* "controls[1].", in front of names in messages */
    dr_job *job;        /* the whole */
    dr_arena *mem;
    dr_err *err;
    dr_gathered *more;
};

/* --- The pass (fields.c) ------------------------------------------------------------- */

/* Set the field of f that is called name to v; an unknown one is noted. */
DR_MUST_USE dr_status dr_apply(dr_fill *f, const dr_value *v, const char *name);

/* --- What setters are made of (set.c) ------------------------------------------------ */

/* DR_EINVAL at field r: its name followed by the text, which begins with ":" or " ". */
dr_status dr_bad(dr_fill *f, const dr_row *r, const char *fmt, ...) DR_PRINTF(3, 4);
dr_status dr_fill_nomem(dr_fill *f);
/* The field's name for a message; returns buf. */
#define DR_LABEL_BYTES 64
const char *dr_label(const dr_fill *f, const dr_row *r, char buf[DR_LABEL_BYTES]);

bool dr_is_given(const dr_fill *f, const dr_row *r);
/* Note that r was set under the name `as`; a second time only with an equal value. */
DR_MUST_USE dr_status dr_note_given(dr_fill *f, const dr_row *r, const char *as,
                                    bool equal);
/* Store size bytes of value, or a text, as field r. */
DR_MUST_USE dr_status dr_fill_keep(dr_fill *f, const dr_row *r, const char *as,
                                   const void *value, size_t size);
DR_MUST_USE dr_status dr_fill_text(dr_fill *f, const dr_row *r, const char *as,
                                   const char *text);

/* Checked text: UTF-8 without NUL, r->min..r->max bytes when the row has bounds. */
DR_MUST_USE dr_status dr_to_text(dr_fill *f, const dr_row *r, const dr_value *v,
                                 const char **out);
/* The index of v in the row's words. */
DR_MUST_USE dr_status dr_to_word(dr_fill *f, const dr_row *r, const dr_value *v, int *out);

/* A plain field may hold JSON text where a job has a map or list; *out is that or v. Says
 * in *why what is wrong with the text. */
DR_MUST_USE dr_status dr_unfold(dr_fill *f, const dr_value *v, const dr_value **out,
                                dr_err *why);
/* The same only for text that begins as a map or list does; what is wrong is r's error. */
DR_MUST_USE dr_status dr_unfold_items(dr_fill *f, const dr_row *r, const dr_value **v);
/* null, false, 0, "", [] and {}: as good as not given, for what is off by default. */
bool dr_asks_nothing(const dr_value *v);

/* Setters. dr_set_name: of a model, LoRA or ControlNet; never a path, ".safetensors" at its
 * end is dropped. dr_set_group: a map whose fields have names of their own: `quality` in
 * `output` is output.quality. dr_set_none: nothing may be asked for. */
dr_setter dr_set_int, dr_set_float, dr_set_bool, dr_set_text, dr_set_name, dr_set_enum,
    dr_set_enum_bool, dr_set_picture, dr_set_group, dr_set_none;

/* --- Noise and levels (sampling.c) --------------------------------------------------- */

dr_setter dr_set_seed, dr_set_subseed, dr_set_sampler, dr_set_schedule, dr_set_scheduler,
    dr_set_karras, dr_set_levels, dr_set_clip_skip;

/* --- Lists (addons.c) ---------------------------------------------------------------- */

/* dr_set_control: one field of the control that has no list. */
dr_setter dr_set_loras, dr_set_lora_scale, dr_set_controls, dr_set_control;

/* Take <lora:...> out of the prompts; give what has no strength of its own the default;
 * append the control that has no list. */
DR_MUST_USE dr_status dr_finish_addons(dr_fill *f);

/* --- The whole (agree.c) ------------------------------------------------------------- */

/* Whether the fields of a job go together, once all are set: the task is inferred, what
 * one field says about another is carried over, what has no effect becomes a warning. */
DR_MUST_USE dr_status dr_agree(dr_fill *f);

#endif
