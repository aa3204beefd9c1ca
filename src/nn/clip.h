#ifndef DR_NN_CLIP_H
#define DR_NN_CLIP_H

#include "base/arena.h"
#include "nn/load.h"

/* CLIP's text encoder (Radford et al. 2021), as transformers' CLIPTextModel: pre-norm
 * transformer layers under a causal mask, a last layer norm. Any size, quick_gelu or gelu.
 */
typedef struct {
    int64_t width, layers, heads, length, vocabulary; /* length: positions, 77 in CLIP */
    dr_activation act;
    dr_weight_mat tokens, positions;
    struct dr_clip_layer {
        dr_weight_norm norm1, norm2;
        dr_weight_mat qkv[3], out, fc1, fc2;
    } * layer;
    dr_weight_norm final_norm;
} dr_clip;

/* Read config.json's values and the weights; errors are in l->err. */
void dr_clip_load(dr_clip *m, dr_loader *l, const dr_json *config, dr_arena *mem);

/* ids: n rows of `length` tokens on the host. extra: vectors [1, 1, rows, width] that stand
 * for the ids from `vocabulary` on; NULL: none. skip: layers left out at the end (clip
 * skip). → [n, length, 1, width] */
dr_tensor dr_clip_forward(dr_run *r, const dr_clip *m, const int32_t *ids, int64_t n,
                          int64_t length, const dr_tensor *extra, int64_t skip);

#endif
