#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "base/arena.h"
#include "base/file.h"
#include "dev/dev.h"
#include "nn/unet.h"
#include "nn/vae.h"

/* What the bench's commands share. */

typedef struct {
    const char *model, *dir, *json, *name;    /* dir: where the full-width model is */
    int64_t size, batch, calls;               /* of `ops` */
    int64_t images, steps, runs, warm, fresh; /* of `case` */
} bench_options;

typedef struct {
    bench_options o;
    char path[DR_PATH_MAX]; /* the model's folder */
    dr_conf conf;
    dr_dev *dev;
    dr_buf rows; /* JSON objects so far, a comma between them */

    /* Parts of a model, for `ops`. */
    dr_run run;
    dr_arena *mem;
    dr_pool *pool;
    dr_unet unet;
    dr_vae vae;
    dr_text_kv *kv;
} bench;

/* bench.c: load UNet and autoencoder of b->path alone; close them again (accepts a bench
 * without them). */
DR_MUST_USE dr_status bench_parts_open(bench *b, dr_err *err);
void bench_parts_close(bench *b);

/* ops.c: one UNet call and one decode, by operation. */
DR_MUST_USE dr_status bench_ops(bench *b, dr_err *err);

/* cases.c: whole jobs, by phase. */
DR_MUST_USE dr_status bench_case(bench *b, dr_err *err);

#endif
