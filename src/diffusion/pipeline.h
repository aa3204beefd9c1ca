#ifndef DR_DIFFUSION_PIPELINE_H
#define DR_DIFFUSION_PIPELINE_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/file.h"

#include <darkroom/job.h>
#include <stdbool.h>
#include <stdint.h>

/* From validated jobs to RGB pictures: encode text and pictures, add noise, denoise,
 * decode. The caller owns a dr_model and runs one job or one batch of jobs at a time on it,
 * from one thread. */

typedef struct dr_dev dr_dev; /* dev/dev.h */
struct dr_tune_shapes;        /* op/tune.h */

/* A loaded model: tokenizer, text encoder, UNet, autoencoder. */
typedef struct dr_model dr_model;

/* One way of a job's pictures through the sampler. With hires there is a second, which
 * begins with what the first one made, enlarged and put under noise again. */
#define DR_PASSES_MAX 2
typedef struct {
    int64_t width, height;           /* pixels */
    int64_t steps, first;            /* of them, the one to begin with, 0 without a picture;
                                        first = steps: none is made */
    int64_t rows;                    /* calls of the UNet that a picture takes */
    int64_t guided_from, guided_end; /* the steps with guidance: [from, end) */
    double encode_flops, step_flops,
        decode_flops; /* of the job, of one step of all its pictures, of a picture */
} dr_pass;

/* What will run: the job's values with the model's defaults filled in. */
typedef struct {
    int64_t width, height, n; /* of the pictures that are handed out */
    int64_t steps;            /* of the first pass */
    dr_pass pass[DR_PASSES_MAX];
    int passes;
    double cfg_scale;       /* <= 1: no CFG */
    uint64_t seed, subseed; /* of image 0 */
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    double eta;
    int guides;           /* rows of the UNet's batch that a picture takes: 1 without
                             guidance, 2 with, 3 with perp_neg */
    int64_t text_chunks;  /* of its longest prompt, 75 tokens each */
    int64_t pictures;     /* that are handed out: n, and the sheet of them */
    int64_t preview_side; /* longest side of a preview, pixels; 0: there are none */
    int64_t band_rows;    /* of the last pass in the autoencoder at once; 0: all */
    int64_t peak_bytes; /* device memory for activations, as many pictures at once as fit */
} dr_plan;

typedef enum {
    DR_PHASE_LOAD,
    DR_PHASE_ENCODE,
    DR_PHASE_DENOISE,
    DR_PHASE_DECODE,
    DR_PHASE_COMPRESS,
    DR_PHASES
} dr_phase;

/* "load", "encode", … */
const char *dr_phase_name(dr_phase p);

typedef struct {
    dr_phase phase;
    int64_t step, steps; /* of all pictures of the job together, in all its passes */
    double percent;      /* of the whole job, 0..100, never falling */
    double it_s, eta_s;  /* 0 until known; it_s while denoising only */
} dr_progress;

/* An 8-bit picture, rows top down, RGB interleaved; borrowed for the call. */
typedef struct {
    const uint8_t *rgb;
    int64_t width, height;
} dr_picture;

typedef enum {
    DR_GO_ON,
    DR_STOP,
    DR_STOP_KEEP /* and leave a checkpoint */
} dr_stop;

/* How a run tells what happens; called from the running thread. Any may be NULL.
 * `stopped` is asked before every step, before encode and before decode; what is not
 * DR_GO_ON ends the job with DR_ESTOPPED. */
typedef struct {
    void *ctx;
    dr_stop (*stopped)(void *ctx);
    void (*progress)(void *ctx, const dr_progress *p);
    void (*preview)(void *ctx, int64_t step, const dr_picture *pic);
    /* A picture; index n is the sheet of all (output.sheet), seed the first one's then. */
    void (*image)(void *ctx, int64_t index, uint64_t seed, const dr_picture *pic);
    void (*warning)(void *ctx, const char *text);
    /* A part of the work is over: a phase from encode on (a picture's decode and compress
     * each its own), and inside of denoise every step, counted from 1 over all passes; 0:
     * the whole phase. Times as dr_now_s tells them. */
    void (*span)(void *ctx, dr_phase phase, int64_t step, double from_s, double to_s);
    /* The final latents of all pictures, channels-last [n, h, w, c], before decoding. */
    void (*latents)(void *ctx, const float *x, int64_t n, int64_t h, int64_t w, int64_t c);
    /* What a job stopped with DR_STOP_KEEP can be resumed from: once, before `done`, and
     * only when a step was done. Borrowed for the call. */
    void (*checkpoint)(void *ctx, const void *bytes, size_t n);
    /* The job is over: err->code is DR_OK, DR_ESTOPPED or a failure. Exactly once, last of
     * all, also while other jobs of its batch go on. */
    void (*done)(void *ctx, const dr_err *err);
} dr_observer;

/* How many keys of a LoRA have a place in the model. */
typedef struct {
    char name[DR_NAME_BYTES_MAX + 1];
    int64_t matched, unmatched;
} dr_lora_use;

/* Seconds spent, and what was used. compress: in the observer's `image`. */
typedef struct {
    double encode, denoise, decode, compress;
    dr_lora_use loras[DR_LORAS_MAX]; /* those of strength 0 are left out */
    int n_loras;
    uint64_t loop_allocations; /* host allocations during the steps: 0 */
} dr_run_stats;

/* Load a model folder onto the device. progress (may be NULL) gets 0..1. */
DR_MUST_USE dr_status dr_model_open(dr_model **out, dr_dev *dev, const char *path,
                                    const dr_conf *conf,
                                    void (*progress)(void *ctx, double share), void *ctx,
                                    dr_err *err);
void dr_model_close(dr_model *m);             /* accepts NULL */
const char *dr_model_name(const dr_model *m); /* the folder's last component */

/* The model folder to use: conf's model.path, else the demo model beside the program. */
DR_MUST_USE dr_status dr_model_path(char out[DR_PATH_MAX], const dr_conf *conf,
                                    dr_err *err);

/* Fill in defaults, check the job against the model (sizes, task, sampler) and, by a dry
 * run, that it fits the device's memory. Costs no device time. */
DR_MUST_USE dr_status dr_plan_make(dr_plan *plan, dr_model *m, const dr_job *job,
                                   dr_err *err);

/* Run a planned job: a batch of one. Pictures that do not fit the memory together are made
 * in groups, one after the other. */
DR_MUST_USE dr_status dr_pipeline_run(dr_model *m, const dr_job *job, const dr_plan *plan,
                                      const dr_observer *obs, dr_run_stats *stats,
                                      dr_err *err);

/* --- several jobs in one forward pass --- */

/* One job of a batch. */
typedef struct {
    const dr_job *job;
    dr_plan plan; /* filled by dr_batch_plan */
    const dr_observer *obs;
    const void *resume; /* a checkpoint, borrowed until the job is over; NULL: none. One
                           that does not fit is left aside with a warning. */
    size_t resume_bytes;
    dr_run_stats stats;
    dr_err err;
} dr_batch_task;

/* Whether two jobs may share a forward pass, were they for one model: same task, size,
 * strength, steps, sampler, schedule or levels, eta, noise, clip_skip, tiling and LoRAs,
 * both with guidance or both without; none with ControlNets or hires. Reads unplanned jobs:
 * unset equals unset only. */
bool dr_jobs_batch(const dr_job *a, const dr_job *b);

/* Plan every task alone; one that fails gets err and stays out. → how many of the good
 * ones, counted from the first, fit the device's memory together: 0 when none is good,
 * else at least 1. */
int dr_batch_plan(dr_model *m, dr_batch_task *tasks, int n);

/* Run planned tasks: those that may share a forward pass do, as many pictures at once as
 * memory allows; the rest follow one after the other, in order. Each job keeps its own
 * prompts, guidance, seeds, previews, progress and end: stats, err and its observer's
 * `done`. A task whose err is set already (by the plan) only gets its `done`. */
void dr_batch_run(dr_model *m, dr_batch_task *tasks, int n);

/* A1111's "parameters" text of image `index`: prompt, negative prompt, settings line. */
void dr_parameters_text(dr_buf *out, const dr_model *m, const dr_job *job,
                        const dr_plan *plan, int64_t index);

/* `darkroom inspect`: read headers and configs only, print family, components, tensor
 * counts, dtypes, parameters and memory; as one JSON object when json. */
DR_MUST_USE dr_status dr_model_inspect(dr_buf *out, const char *path, bool json,
                                       dr_err *err);

/* The operations of one picture of a model, width x height pixels (0: the model's size),
 * and how often each runs; from configs and headers only. */
DR_MUST_USE dr_status dr_model_shapes(struct dr_tune_shapes *out, const char *path,
                                      const dr_conf *conf, int64_t width, int64_t height,
                                      dr_err *err);

#endif
