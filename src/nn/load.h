#ifndef DR_NN_LOAD_H
#define DR_NN_LOAD_H

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "nn/safetensors.h"
#include "op/op.h"

/* The matrices of a component by their names in the file, without ".weight": for what
 * changes them later (nn/lora.h). */
typedef struct {
    dr_arena *mem; /* what the list lives in */
    struct dr_named_mat {
        const char *name;
        dr_weight_mat *w;
    } * row;
    int count, cap;
} dr_mats;

/* From named tensors of a file to weights on the device, checked against the shapes that
 * the config implies and repacked as GEMM reads them. Errors are sticky in l->err: a
 * model's loading function is a list of names and shapes. */
typedef struct {
    dr_dev *dev;
    dr_weights *files;
    dr_json *config;       /* of a component's folder; NULL: opened without */
    const char *component; /* "unet", for messages */
    dr_err err;
    dr_mem *staging; /* one tensor as it is in the file, where the device needs a copy */
    size_t staging_bytes;
    size_t read_bytes;    /* of the files, that may count as memory of the process */
    struct dr_pool *pool; /* where the weights stay */
    dr_mats *mats;        /* gets every linear layer and convolution; NULL: nobody asks */
    size_t loaded_bytes, total_bytes;
    void (*progress)(void *ctx, double share);
    /* When set there are no files and no device: every tensor that the model asks for is
     * told here, [dim…] as PyTorch has it, and counts as found. */
    void (*wanted)(void *ctx, const char *name, const int64_t *dim, int ndim);
    void *ctx;
} dr_loader;

/* Device memory of a loaded model's weights. */
typedef struct dr_pool dr_pool;
dr_pool *dr_pool_new(dr_dev *dev); /* NULL when memory is out */
void dr_pool_free(dr_pool *p);     /* accepts NULL */
size_t dr_pool_bytes(const dr_pool *p);
/* Room for `bytes` at mem + *at. still_to_come: how much will be asked for from now on, so
 * that a small pool does not take a large chunk. */
DR_MUST_USE dr_status dr_pool_take(dr_pool *p, size_t bytes, size_t still_to_come,
                                   dr_mem **mem, size_t *at, dr_err *err);

/* Open the weight files of a component: dir/stem.safetensors or shards. dev NULL: names
 * and shapes are checked, nothing is loaded. */
DR_MUST_USE dr_status dr_loader_open(dr_loader *l, dr_dev *dev, dr_pool *pool,
                                     const char *component, const char *dir,
                                     const char *stem, dr_err *err);
/* The same of the folder model/component, with its config.json in l->config until l is
 * closed. */
DR_MUST_USE dr_status dr_loader_open_component(dr_loader *l, dr_dev *dev, dr_pool *pool,
                                               const char *model, const char *component,
                                               const char *stem, dr_err *err);
/* A digest of names, shapes and samples of the data: tells weights apart. */
dr_digest dr_loader_digest(dr_loader *l);
/* Close, and tell whether all went well: l->err, or tensors in the file that nothing used
 * (a config that belongs to other weights). */
DR_MUST_USE dr_status dr_loader_close(dr_loader *l, dr_err *err);

/* Weights by name (printf). A missing tensor or another shape is an error that names the
 * tensor and both shapes. `bias`: whether NAME.bias exists beside NAME.weight. */
void dr_load_linear(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, bool bias,
                    const char *name, ...) DR_PRINTF(6, 7);
void dr_load_conv(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, int window,
                  const char *name, ...) DR_PRINTF(6, 7);
/* The same without a bias. */
void dr_load_conv_plain(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, int window,
                        const char *name, ...) DR_PRINTF(6, 7);
void dr_load_norm(dr_loader *l, dr_weight_norm *w, int64_t c, int64_t groups, double eps,
                  const char *name, ...) DR_PRINTF(6, 7);
/* A table [rows, c] that is read by row. */
void dr_load_table(dr_loader *l, dr_weight_mat *w, int64_t rows, int64_t c,
                   const char *name, ...) DR_PRINTF(5, 6);
/* Tensors whose names begin so are of no use here. */
void dr_load_skip(dr_loader *l, const char *prefix);
/* Whether the file has a tensor NAME. */
bool dr_load_has(dr_loader *l, const char *name, ...) DR_PRINTF(2, 3);

/* "[o, i, 3, 3]" for messages; returns out. */
const char *dr_shape_text(char *out, size_t size, const int64_t *dim, int ndim);

/* --- reading a model's config.json --- */

/* A whole number in min..max; absent or null: fallback. Errors name component and key. */
int64_t dr_config_int(dr_loader *l, const dr_json *config, const char *key, int64_t min,
                      int64_t max, int64_t fallback);
/* Element i of a number or an array of n numbers. */
int64_t dr_config_int_at(dr_loader *l, const dr_json *config, const char *key, int i, int n,
                         int64_t min, int64_t max, int64_t fallback);
/* An option that this program knows only one value of: anything else but null is an error
 * that names key and value, since ignoring it would give a wrong picture. */
void dr_config_only(dr_loader *l, const dr_json *config, const char *key, const char *json);

#endif
