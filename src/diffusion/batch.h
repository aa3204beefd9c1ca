#ifndef DR_DIFFUSION_BATCH_H
#define DR_DIFFUSION_BATCH_H

#include "diffusion/controls.h"
#include "diffusion/init.h"
#include "image/sheet.h"

/* Private to src/diffusion/: jobs of one shape and one sampler on their way to pictures.
 *
 * A batch is a list of pictures, each with the number of steps it has behind it. A group
 * is the part of them that is in the device's memory: pictures of one or more jobs that
 * stand at the same step and go through the UNet together. A job with more pictures than
 * fit at once takes part in several groups, one after the other. */

typedef struct dr_batch_job dr_batch_job;

/* One picture. */
typedef struct {
    dr_batch_job *job;
    int64_t index;     /* among its job's pictures */
    int64_t step;      /* rows of the sampler done: calls of the UNet */
    const char *saved; /* its record in the job's checkpoint; NULL: none, or step is 0 */
    float *kept;       /* room for its final latents */
    bool is_kept, decoded;
    dr_torch_rng rng; /* where the job's noise is PyTorch's */
    float *enlarged;  /* [h, w, c]: the latents that a second pass begins with */
} dr_batch_image;

/* The UNet's outputs that guidance is made of, and the prompts that they read. */
typedef enum {
    DR_GUIDE_TEXT,  /* the prompt */
    DR_GUIDE_PLAIN, /* the negative prompt */
    DR_GUIDE_EMPTY, /* nothing, for perp_neg */
    DR_GUIDES
} dr_guide;

/* A prompt over the steps that the pass makes; over those that a first pass skips, too. */
typedef struct {
    dr_prompt over;
    dr_text *text; /* [over.n]: as the encoder takes them */
    int *row;      /* [over.n]: rows of the group's texts; -1: not read in this group */
} dr_batch_prompt;

/* One job. */
struct dr_batch_job {
    dr_batch_task *t;
    const dr_observer *obs;            /* never NULL */
    dr_batch_image *image;             /* [t->plan.n] */
    dr_batch_prompt prompt[DR_GUIDES]; /* the first `guides` of the batch */
    dr_reading reading;                /* what is to be told of them */
    dr_init *init;                     /* its pictures; NULL: none, or it is over */
    float *moments; /* of init and of what its mask leaves of it [h, w, 2c], … */
    float *masked;  /* … on the host; NULL: not encoded */
    dr_sheet sheet; /* of its pictures, from the first one on, where it is wanted */
    bool in_group, encoded, over;
};

/* What a job takes from its first pass into the second. */
typedef struct {
    int64_t h, w;      /* of its latents */
    size_t count;      /* floats of a picture's */
    float *latents;    /* [n, h, w, c]; dr_free */
    dr_torch_rng *rng; /* [n], where the noise is PyTorch's; dr_free */
} dr_carry;

typedef struct {
    dr_model *m;
    dr_run *r;
    int pass;        /* 0, or 1 of a job with hires, the only one then */
    bool last;       /* pass */
    dr_carry *carry; /* from the first pass into this; NULL in dry runs */
    dr_batch_job *job;
    int n_jobs;
    dr_batch_image *image; /* of all jobs, in order */
    int n_images;
    int64_t width, height, steps, h, w, c; /* pixels; rows of the sampler; latents */
    int guides;                            /* rows of the UNet's batch a picture takes */
    int64_t guided_from, guided_end; /* in the steps [from, end); in others it is one */
    dr_text empty;                   /* the text "" */
    dr_vectors vectors;              /* of the embeddings that prompts name */
    int chunks;                      /* of the longest prompt */
    int64_t first;                   /* step that the rows begin with */
    bool pictures;                   /* the jobs begin with some */
    bool repaints; /* what lies outside of their masks is set back after every step */

    /* The group; rows are images of its tensors. */
    dr_batch_image **row; /* [n_images] */
    int n_rows;
    bool coarse;  /* previews go without the tiny decoder, which does not fit */
    int *text_of; /* [guides * n_images]: the text that a row of the UNet's batch reads */
    const dr_text **text; /* of all steps, no two equal */
    int n_texts;
    dr_tensor x, denoised, noise, hist[DR_HIST_MAX]; /* [n_rows, h, w, c]; m->steps.n_hist
                                                        of hist */
    dr_control_use control[DR_CONTROLS_MAX]; /* of the only job; hints are the group's */
    int n_controls;
    int64_t lora_bytes;               /* of the weights' copies with the jobs' LoRAs */
    dr_tensor init, init_noise, mask; /* where the batch repaints: the pictures' latents,
                                         their first noise, [n_rows, h, w, 1] */
    dr_tensor cond; /* what an inpainting UNet reads beside x: [n_rows, h, w, c + 1] */
    double flops[DR_PHASES]; /* of a dry run, by phase */

    /* Time and work of this run. */
    dr_phase phase;
    double start, phase_start, steps_start, done_flops;
    int64_t steps_made; /* in this group */
    uint64_t loop_allocations;

    char *note; /* room for a checkpoint; NULL: nobody wants one */
} dr_batch;

/* batch.c: make the batch of those tasks that have no error for their pass, in m's plan
 * memory; all share the first one's shape. Makes the sampler's rows (m->steps) too. */
DR_MUST_USE dr_status dr_batch_open(dr_batch *b, dr_model *m, dr_batch_task *tasks, int n,
                                    int pass, dr_err *err);

/* A job's pass of a batch. */
static inline const dr_pass *dr_pass_of(const dr_batch *b, const dr_batch_job *j)
{
    return &j->t->plan.pass[b->pass];
}

/* Fill the group: the next pictures that wait at the same step, of as many jobs as there
 * are. → whether any does. */
bool dr_group_choose(dr_batch *b);

/* What a step of the user's reads of a prompt: an index of its texts. */
int dr_batch_text(const dr_batch *b, const dr_batch_prompt *p, int64_t step);

/* Whether a step of the user's runs with guidance. */
bool dr_batch_guided(const dr_batch *b, int64_t step);

/* How many tasks from the first on share its forward pass; those with an error count as if
 * they did. */
int dr_tasks_span(const dr_batch_task *tasks, int n);

/* plan.c: whether both jobs ask for the same list of levels, or for none. */
bool dr_same_levels(const dr_job *a, const dr_job *b);

/* plan.c: cut the group to the rows that fit the device's memory; *peak_bytes is what they
 * need. DR_ENOMEM when not even one does. b->flops tells their work. */
DR_MUST_USE dr_status dr_group_fit(dr_batch *b, size_t *peak_bytes, dr_err *err);

/* Device memory of the whole with such a group: weights, LoRAs, ControlNets too, and what
 * lies on the host where that is the same memory. */
uint64_t dr_group_memory(const dr_batch *b, size_t peak_bytes);

/* pipeline.c: the way of a group, from texts to pictures; dry: one step, one picture. Ends
 * the jobs whose last picture it makes, that are stopped or that fail. */
void dr_group_run(dr_batch *b);

/* Ask every job whether to go on, also those that wait for their group; end those that
 * shall not. */
void dr_batch_ask(dr_batch *b);

/* A job's end, for whatever reason: its stats, its err, its `done`. */
void dr_job_end(dr_batch *b, dr_batch_job *j, const dr_err *err);

/* --- progress.c --- */

/* Steps of the user's in a job's passes [0, to). */
int64_t dr_steps_before(const dr_plan *plan, int to);
/* Tell a job, or all of the group, how far it is. Nothing in dry runs and after errors. */
void dr_tell(dr_batch *b, dr_batch_job *j);
void dr_tell_all(dr_batch *b);

/* --- start.c --- */

/* Floats of m->host that starts and noise need. */
size_t dr_start_floats(const dr_batch *b);
/* Bring the pictures of the group's jobs through the encoder. */
void dr_start_encode(dr_batch *b);
/* Make the group's tensors, with the latents that it begins with: noise, a picture under
 * noise, or what a checkpoint kept. */
void dr_start_latents(dr_batch *b);
/* Fresh noise for row `step` of the sampler, into b->noise. */
void dr_draw_noise(dr_batch *b, int64_t step);
/* After row i: set x back to the pictures' own latents outside of the masks. */
void dr_repaint(dr_batch *b, int64_t i);
/* Add to the call, in the caller's scope, what an inpainting UNet reads beside latents. */
void dr_add_mask(dr_batch *b, dr_unet_call *call);

/* --- hires.c --- */

/* Give a task its second pass, if it asks for one; the first one is made. DR_EINVAL: too
 * large, or with a mask. */
DR_MUST_USE dr_status dr_hires_plan(dr_plan *plan, const dr_model *m, const dr_job *job,
                                    dr_err *err);
bool dr_hires_given(const dr_job *job);
/* Room for what the plan's first pass leaves. DR_ENOMEM. */
DR_MUST_USE dr_status dr_carry_make(dr_carry *c, const dr_model *m, const dr_plan *plan,
                                    dr_err *err);
void dr_carry_free(dr_carry *c); /* accepts {0}; leaves {0} */
/* Keep what the job's first pass made. */
void dr_carry_keep(dr_carry *c, const dr_batch_job *j);
/* The latents of its picture i. */
static inline float *dr_carry_at(const dr_carry *c, int64_t i)
{
    return c->latents + (size_t)i * c->count;
}
/* In a second pass: make the latents that the group's pictures begin with. */
void dr_hires_enlarge(dr_batch *b);

/* --- checkpoint.c --- */

/* The pass that a task's checkpoint was left in; 0 when there is none. */
int dr_checkpoint_pass(const dr_batch_task *t);

/* Most bytes a job's checkpoint takes. */
size_t dr_checkpoint_bytes(const dr_batch *b, const dr_batch_job *j);
/* Hand what the job has so far to its observer, if that is more than nothing. */
void dr_checkpoint_save(dr_batch *b, dr_batch_job *j);
/* Find the job's pictures in its checkpoint: sets `step` and `saved`, or warns. → whether
 * that left the batch where it can begin: false when a second pass has no first. */
bool dr_checkpoint_find(dr_batch *b, dr_batch_job *j);
/* Put a saved picture into row i of the group's x and hist. */
void dr_checkpoint_load(dr_batch *b, int i);

#endif
