#ifndef OUTCOME_H
#define OUTCOME_H

#include "golden.h"

#include "base/buf.h"
#include "diffusion/pipeline.h"

/* What tests of whole runs share: an observer that writes everything down. */

#define OUTCOME_IMAGES 4

/* What came out of a run, and when it is to be stopped. */
typedef struct {
    golden
        *g; /* whose arena holds what follows; the checkpoint is free'd with outcome_free */
    float *latents; /* of all pictures */
    size_t n_latents;
    uint8_t *rgb[OUTCOME_IMAGES];
    uint64_t seed[OUTCOME_IMAGES];
    int64_t width, height;
    int pictures, previews, warnings, checkpoints;
    char warning[256]; /* the last one */
    dr_buf checkpoint;
    dr_progress first, last; /* first: after the first step of this run */
    int64_t calls;           /* progress told while denoising */
    bool fell;               /* the percentage did */
    int ends;                /* calls of `done` */
    dr_err end;
    int turn, *turns; /* this was the turn-th run to end, where *turns counts */

    dr_stop stop;                /* the answer, when … */
    int64_t stop_after;          /* … so many steps are done; 0: no matter */
    int64_t stop_after_calls;    /* … so many calls of the UNet are told of */
    int64_t stop_after_pictures; /* … so many pictures are made; 0: no matter */
    bool stop_at_once;
} outcome;

dr_observer outcome_observer(outcome *o);
void outcome_free(outcome *o);

/* Bytes of one picture. */
static inline size_t outcome_bytes(const outcome *o)
{
    return (size_t)(o->width * o->height * 3);
}

/* What every run promises, whatever came of it (st): one end with that status; when all
 * went well, all pictures, progress to 100 % that never fell, no allocation in the loop. */
void outcome_check(const outcome *o, const dr_job *job, const dr_run_stats *stats,
                   dr_status st);

/* Plan and run a job by itself, and check what every run promises. */
dr_status outcome_try(dr_model *m, const dr_job *job, outcome *o, dr_err *err);

/* The model folder, opened on g's device. */
dr_model *golden_model(golden *g, const char *path);
/* Close m with g; returns m. */
dr_model *golden_keep(golden *g, dr_model *m);

/* A job as the fixtures' cases describe it. */
dr_job golden_job(const dr_json *item);

#endif
