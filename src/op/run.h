#ifndef DR_OP_RUN_H
#define DR_OP_RUN_H

#include "base/err.h"
#include "dev/launch.h"

#include <stdbool.h>

/* A run: where the operations of a model put their results and their errors.
 *
 * Errors are sticky: once r->err.code is set every operation returns at once, so that a
 * model's body stays arithmetic and the pipeline checks once a step.
 *
 * A dry run enqueues nothing: shapes are checked and memory is counted, by the same code
 * that runs later. Activations come from slabs of device memory with push and pop; reuse
 * after pop is safe because the queue is in order. */
typedef struct dr_run dr_run;

/* A tensor of floats, channels-last: [n, h, w, c]; a sequence is [n, tokens, 1, c], a
 * vector [1, 1, 1, c]. Borrowed memory; passed by value. */
typedef struct {
    dr_mem *mem;
    size_t at; /* first element */
    int64_t n, h, w, c;
} dr_tensor;

/* A point to go back to. */
typedef struct {
    int slab;
    size_t used;
} dr_mark;

struct dr_slab;
struct dr_gemm_args; /* dev/gemm.h */

struct dr_run {
    dr_dev *dev;
    dr_err err;
    bool dry;
    bool unfused;      /* attention by products even where a fused kernel is */
    bool wrap;         /* convolutions are padded with the opposite edge, not with zeros */
    double flops;      /* of products and convolutions, counted in dry and real runs */
    size_t peak_bytes; /* most activations alive at once */
    size_t host_bytes, host_peak_bytes; /* of those that lie on the host, now and at most */
    size_t attention_tile_bytes, conv_tile_bytes;
    int64_t band_rows; /* of large pictures that are worked on at once; 0: all */
    struct dr_slab *slabs;
    int n_slabs, cap_slabs, slab; /* slab: the one that new tensors come from */
    size_t used;                  /* bytes used in it */
    /* May be set to look at the results of a model's blocks while a real run computes
     * them; x is valid during the call, name is the module's path as diffusers spells it:
     * "mid_block.attentions.0". */
    void (*tap)(void *ctx, const char *name, dr_tensor x);
    void *tap_ctx;
    /* May be set to see the products that CLBlast would get, dry or real, and which
     * operation asks for them: "linear", "conv2d", "attention". */
    void (*watch)(void *ctx, const char *label, const struct dr_gemm_args *g);
    void *watch_ctx;
    const char *label; /* of the operation that runs */
};

/* A run on dev, or without one (NULL) for dry runs only. Tile sizes in bytes. */
void dr_run_init(dr_run *r, dr_dev *dev, size_t attention_tile_bytes,
                 size_t conv_tile_bytes);
void dr_run_free(dr_run *r);

/* Forget errors and tensors, keep the memory; dry or real from here on. */
void dr_run_reset(dr_run *r, bool dry);

/* Allocate the slabs for a peak that a dry run found. */
DR_MUST_USE dr_status dr_run_reserve(dr_run *r, size_t bytes, dr_err *err);

dr_mark dr_push(dr_run *r);
void dr_pop(dr_run *r, dr_mark m); /* frees every tensor made since the mark */

/* A new tensor with undefined contents. */
dr_tensor dr_new(dr_run *r, int64_t n, int64_t h, int64_t w, int64_t c);

/* Elements. */
static inline int64_t dr_count(dr_tensor x)
{
    return x.n * x.h * x.w * x.c;
}

/* Images [first, first + n) of x. */
static inline dr_tensor dr_slice(dr_tensor x, int64_t first, int64_t n)
{
    x.at += (size_t)(first * x.h * x.w * x.c);
    x.n = n;
    return x;
}

/* Rows [first, first + h) of x, one image. */
static inline dr_tensor dr_rows(dr_tensor x, int64_t first, int64_t h)
{
    x.at += (size_t)(first * x.w * x.c);
    x.h = h;
    return x;
}

/* Blocking copies between host and a tensor; n is dr_count(x) floats. No-ops in a dry run
 * (reads give zeros). */
void dr_upload(dr_run *r, dr_tensor x, const float *p);
void dr_download(dr_run *r, dr_tensor x, float *p);

/* Show x to the run's tap, if there is one; name by printf. */
void dr_show(dr_run *r, dr_tensor x, const char *name, ...) DR_PRINTF(3, 4);

#endif
