#ifndef DARKROOM_JOB_H
#define DARKROOM_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a client asks for: one job after decoding and validation. All strings are
 * NUL-terminated UTF-8, borrowed from the job's arena. "Unset" values (0, NULL, NaN) mean
 * the model's default and are filled in by the plan. */

/* Bounds of an untrusted job; each is enforced in src/job/. */
#define DR_JOB_BYTES_MAX    ((size_t)1 << 20)  /* without its pictures */
#define DR_ENTRY_BYTES_MAX  ((size_t)64 << 20) /* with them, as sent */
#define DR_JOB_DEPTH_MAX    8
#define DR_JOB_OBJECTS_MAX  4096
#define DR_JOB_ID_MAX       128
#define DR_PROMPT_BYTES_MAX 8192
#define DR_SIZE_MIN         64
#define DR_SIZE_MAX         2048
#define DR_STEPS_MAX        1000
#define DR_IMAGES_MAX       16
#define DR_META_BYTES_MAX   16384 /* as JSON text: every event repeats it */
#define DR_ATTEMPTS_MAX     100
#define DR_TIMES_MS_MAX     2592000000 /* 30 days: ttl_ms, timeout_ms, delay_ms */
#define DR_WARNINGS_MAX     16
#define DR_IMAGE_BYTES_MAX  ((size_t)32 << 20) /* of one picture as sent, encoded */
#define DR_LORAS_MAX        16
#define DR_CONTROLS_MAX     4
#define DR_NAME_BYTES_MAX   128 /* of a model, a LoRA, an embedding */

#define DR_PREVIEW_AUTO (-1) /* about eight previews, however many steps there are */

typedef enum { DR_TXT2IMG, DR_IMG2IMG, DR_INPAINT } dr_task;

typedef enum {
    DR_SAMPLER_DEFAULT, /* the model's */
    DR_SAMPLER_DDIM,
    DR_SAMPLER_EULER,
    DR_SAMPLER_EULER_A,
    DR_SAMPLER_DPMPP_2M,
    DR_SAMPLER_HEUN,
    DR_SAMPLER_DPM_2,
    DR_SAMPLER_DPM_2_A,
    DR_SAMPLER_LMS,
    DR_SAMPLER_DPMPP_2S_A,
    DR_SAMPLER_DPMPP_SDE,
    DR_SAMPLER_DPMPP_2M_SDE,
    DR_SAMPLER_DPMPP_3M_SDE,
    DR_SAMPLER_DDPM,
    DR_SAMPLER_PNDM,
    DR_SAMPLER_UNI_PC,
    DR_SAMPLER_DEIS,
    DR_SAMPLER_LCM,
    DR_SAMPLER_TCD,
    DR_SAMPLERS
} dr_sampler_id;

typedef enum {
    DR_SCHEDULE_DEFAULT, /* the model's */
    DR_SCHEDULE_NORMAL,
    DR_SCHEDULE_KARRAS,
    DR_SCHEDULE_EXPONENTIAL,
    DR_SCHEDULE_SGM_UNIFORM,
    DR_SCHEDULE_SIMPLE,
    DR_SCHEDULE_DDIM_UNIFORM,
    DR_SCHEDULE_BETA,
    DR_SCHEDULE_AYS,
    DR_SCHEDULE_KL_OPTIMAL,
    DR_SCHEDULE_LINEAR_QUADRATIC,
    DR_SCHEDULE_CUSTOM, /* the job's sigmas or timesteps */
    DR_SCHEDULES
} dr_schedule_id;

typedef enum { DR_NOISE_PHILOX, DR_NOISE_TORCH } dr_noise_kind;

typedef enum { DR_PRIORITY_HIGH, DR_PRIORITY_NORMAL, DR_PRIORITY_LOW } dr_priority;

/* The canonical name, "euler_a", "karras"; "default" for the model's. Never NULL. */
const char *dr_sampler_name(dr_sampler_id id);
const char *dr_schedule_name(dr_schedule_id id);

/* A picture that a client sent: its encoded bytes, or the key of a Redis string that holds
 * them (P:input:<id>:<name>), which the worker reads before the job starts. n 0 and key
 * NULL: none. */
typedef struct {
    const void *bytes;
    size_t n;
    const char *key;
} dr_picture_ref;

/* How a picture of another shape becomes the job's size. */
typedef enum {
    DR_FIT_STRETCH,
    DR_FIT_CROP, /* fill the size, cut what stands over */
    DR_FIT_PAD   /* all of it, edges repeated around it */
} dr_fit;

/* A low-rank addition to the weights, by its name in the LoRA folder. */
typedef struct {
    const char *name;
    double strength, text_strength; /* of the UNet's part and the text encoder's */
} dr_lora_ref;

/* A ControlNet by its name in the folder of those. */
typedef struct {
    const char *name;
    dr_picture_ref image;
    double strength;
    double start, end; /* share of the steps, 0..1 */
    bool canny;        /* find the edges of image first */
} dr_control_ref;

typedef enum { DR_UPSCALE_LATENT, DR_UPSCALE_LANCZOS } dr_upscaler;

typedef enum { DR_FORMAT_WEBP, DR_FORMAT_PNG, DR_FORMAT_JPEG } dr_format;

typedef struct {
    const char *id;
    dr_task task;
    const char *model; /* NULL: the worker's default */
    const char *prompt, *negative_prompt;
    int64_t width, height; /* pixels; 0: the model's */
    int64_t steps;         /* 0: the model's */
    double cfg_scale;      /* NaN: the model's; <= 1 turns CFG off */
    uint64_t seed;         /* image i uses seed + i */
    bool seed_is_random;   /* not given: drawn at decode, echoed in the events */
    int64_t n;             /* images */
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    int64_t clip_skip; /* layers of the text encoder left out; A1111's value - 1 */
    double eta;        /* ddim and ancestral samplers; NaN: the sampler's own */
    dr_noise_kind noise;
    const double *sigmas, *timesteps; /* explicit levels instead of a schedule; NULL */
    int64_t n_sigmas, n_timesteps;
    double cfg_rescale;        /* 0..1, Lin et al. 2024; 0: off */
    double cfg_start, cfg_end; /* share of the steps that are guided, 0..1 */
    bool perp_neg;             /* the negative prompt's part across the positive only */
    uint64_t subseed;          /* noise is mixed with that of subseed + i … */
    bool subseed_is_random;    /* not given: the plan derives it from the seed */
    double subseed_strength;   /* … by so much, 0..1 */
    bool tiling;               /* seamless: edges meet */
    struct {
        dr_picture_ref image;
        dr_fit fit;
        double strength; /* share of the steps that are run, 0..1 */
        bool mean;       /* of the encoder's distribution instead of a draw from it */
    } init;
    struct {
        dr_picture_ref image; /* white is repainted */
        double blur;          /* pixels */
        bool invert;
        bool only_masked; /* work on the masked part at full size */
        int64_t padding;  /* pixels around it then */
    } mask;
    struct {
        double scale;  /* of both sides; <= 1: off */
        int64_t steps; /* of the second pass; 0: as the first */
        double strength;
        dr_upscaler upscaler;
    } hires;
    dr_lora_ref loras[DR_LORAS_MAX];
    int n_loras;
    dr_control_ref controls[DR_CONTROLS_MAX];
    int n_controls;
    struct {
        dr_format format;
        int64_t quality;       /* 0..100 */
        int64_t near_lossless; /* WebP, 0..100; 100: off */
        bool lossless;
        bool metadata; /* A1111 parameters text */
        bool sheet;    /* one more picture that shows all of them */
    } output;
    struct {
        int64_t every; /* steps between previews; 0: none; DR_PREVIEW_AUTO */
        int64_t size;  /* longest side in pixels; 0: as it comes */
    } preview;
    bool events_msgpack;   /* else JSON */
    const char *meta_json; /* the client's `meta` as JSON text, echoed; NULL: none */
    dr_priority priority;
    int64_t ttl_ms;       /* waiting longer than this it expires; 0: never */
    int64_t timeout_ms;   /* running longer than this it fails; 0: the worker's */
    int64_t delay_ms;     /* not before this long after it was sent */
    int64_t max_attempts; /* runs after which a transient failure is final */
    const char *unique;   /* one job with this key at a time; NULL: none */
    const char *warnings[DR_WARNINGS_MAX];
    int n_warnings;
} dr_job;

#endif
