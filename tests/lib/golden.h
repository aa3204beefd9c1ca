#ifndef GOLDEN_H
#define GOLDEN_H

#include "base/json.h"
#include "dev/dev.h"
#include "nn/clip.h"
#include "nn/unet.h"
#include "nn/vae.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

/* What the tests against diffusers share: the fixtures of contrib/goldens, the models they
 * were made from, comparisons that say which tensor is off and by how much. Everything
 * fails through cmocka, so that a test reads without error branches. Paths are relative to
 * the repository's root, where the tests run. */

#define GOLDEN_TINY "tests/golden/tiny-sd1/model"
#define GOLDEN_DEMO "contrib/demo-model/model"
#define GOLDEN_KEPT 4

/* A folder of fixtures and, after golden_load, its model on the device. */
typedef struct {
    dr_json *cases;
    dr_weights *stages;
    dr_conf conf;
    dr_dev *dev;
    dr_arena *mem;
    dr_pool *pool;
    dr_clip clip;
    dr_unet unet;
    dr_vae vae;
    dr_text_kv *kv;                     /* [unet.n_kv] */
    struct dr_model *kept[GOLDEN_KEPT]; /* models to be closed with it */
    int n_kept;
    double worst; /* largest difference that was accepted */
} golden;

/* A fixture's floats, channels-last whatever the file's order was. */
typedef struct {
    float *data;
    int64_t n, h, w, c;
} golden_tensor;

/* Read dir/cases.json and dir/stages.safetensors. Settings are the defaults and the
 * environment's. Free with golden_close. */
golden *golden_open(const char *dir);
void golden_close(golden *g); /* accepts NULL */

/* Open the device that the settings choose, once. */
void golden_device(golden *g);
/* Load the components of the model folder `path`; errors are returned. The device is used
 * when it is open; without it only names and shapes are checked. */
DR_MUST_USE dr_status golden_load(golden *g, const char *path, dr_err *err);

/* Begin the state of a test program, a struct of `size` bytes whose first member is
 * `golden *g`: it is in the arena of the fixtures of dir, whose device is open. golden_end,
 * a group teardown, closes them. */
void *golden_begin(void **state, const char *dir, size_t size);
int golden_end(void **state);

/* cmocka group fixtures: *state becomes the fixtures and the loaded model of
 * contrib/demo-model or of tests/golden/tiny-sd1. */
int golden_demo(void **state);
int golden_tiny(void **state);
int golden_teardown(void **state);

/* A tensor by its key in stages.safetensors. [n, c, h, w] becomes [n, h, w, c], [n, t, c]
 * becomes [n, t, 1, c], [n, c] becomes [n, 1, 1, c]. Lives as long as g. */
golden_tensor golden_get(golden *g, const char *name);
/* The tensor that member `key` of a case names. */
golden_tensor golden_of(golden *g, const dr_json *item, const char *key);
/* A tensor of another type than floats, as it lies in the file. */
const dr_weight *golden_raw(golden *g, const char *name);
static inline size_t golden_count(golden_tensor x)
{
    return (size_t)(x.n * x.h * x.w * x.c);
}

/* |have - want| / |want|; infinite when a value is not finite. */
double golden_l2(const float *have, const float *want, size_t count);
/* Fail unless golden_l2 is at most `limit`; the message names `what` and both numbers. */
void golden_near(golden *g, const char *what, const float *have, const float *want,
                 size_t count, double limit);
/* Peak signal-to-noise ratio of two 8-bit pictures, dB; infinite when they are equal. */
double golden_psnr(const uint8_t *a, const uint8_t *b, size_t count);

/* A model's evaluation: queue operations in r, which may be a dry run. */
typedef void golden_body(dr_run *r, void *ctx);
/* Run the body dry, reserve exactly the peak it found, and run it for real: it must fit,
 * find the same peak and end without an error. tile_bytes bounds attention's and
 * convolution's scratch; 0: the settings'. tap (may be NULL) sees the real run. */
void golden_run(golden *g, golden_body *body, void *ctx, size_t tile_bytes,
                void (*tap)(void *ctx, const char *name, dr_tensor x));

/* A new tensor holding x. */
dr_tensor golden_put(dr_run *r, golden_tensor x);

/* --- changed copies of a model --- */

/* Make a new folder under /tmp whose entries are links to those of the model folder
 * `source`, but for the entry `but` (NULL: all). dir: "/tmp/….XXXXXX", completed. */
void golden_link_model(char *dir, const char *source, const char *but);
/* Remove such a folder: links, files, and folders of files. */
void golden_remove_model(const char *dir);

#endif
