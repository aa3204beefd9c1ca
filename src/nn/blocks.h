#ifndef DR_NN_BLOCKS_H
#define DR_NN_BLOCKS_H

#include "nn/load.h"

/* The blocks that the UNet and the autoencoder share. Names are prefixes inside the weight
 * file, as diffusers writes them. */

/* A 3×3 window that keeps the size. */
extern const dr_conv_opts dr_window3;

/* y = the convolution by w of x behind group norm and SiLU; o as for op_conv2d_into,
 * without a norm of its own. */
void dr_norm_conv_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_norm *norm,
                       const dr_weight_mat *w, const dr_conv_opts *o);

/* Residual block (He et al. 2016; with a timestep as in Ho et al. 2020):
 *   y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time(silu(t))))) */
typedef struct {
    dr_weight_norm norm1, norm2;
    dr_weight_mat conv1, conv2;
    dr_weight_mat time;     /* time.out 0: takes no timestep */
    dr_weight_mat shortcut; /* shortcut.out 0: x itself */
} dr_resnet;

/* time_c 0: no timestep. */
void dr_resnet_load(dr_loader *l, dr_resnet *b, int64_t in, int64_t out, int64_t time_c,
                    int64_t groups, double eps, const char *name);
/* x: [n, h, w, in]; time: [1, 1, 1, time_c], already through SiLU, or NULL.
 * → [n, h, w, out] */
dr_tensor dr_resnet_forward(dr_run *r, const dr_resnet *b, dr_tensor x,
                            const dr_tensor *time);
/* The same into y, which may be x where there is no shortcut. */
void dr_resnet_forward_into(dr_run *r, const dr_resnet *b, dr_tensor y, dr_tensor x,
                            const dr_tensor *time);

/* Self-attention over all positions with a norm before and x added after: the middle of
 * the autoencoder. Reads both of diffusers' spellings (to_q, query). */
typedef struct {
    dr_weight_norm norm;
    dr_weight_mat qkv[3], out;
    int64_t heads;
} dr_self_attention;

void dr_self_attention_load(dr_loader *l, dr_self_attention *b, int64_t c, int64_t heads,
                            int64_t groups, double eps, const char *name);
dr_tensor dr_self_attention_forward(dr_run *r, const dr_self_attention *b, dr_tensor x);

/* Keys and values of the text for one cross-attention: computed once a job. */
typedef struct {
    dr_tensor k, v;  /* [texts, tokens, 1, c] */
    const int *rows; /* row i of the batch reads text rows[i]; NULL: i·texts/batch */
} dr_text_kv;

/* One layer of a spatial transformer: self-attention, cross-attention to the text, GEGLU
 * feed-forward, each with a layer norm before and x added after. */
typedef struct {
    dr_weight_norm norm1, norm2, norm3;
    dr_weight_mat qkv1[3], out1;    /* self */
    dr_weight_mat q2, kv2[2], out2; /* cross */
    dr_weight_mat ff_in, ff_out;
} dr_transformer_layer;

/* Spatial transformer (Rombach et al. 2022): group norm, projection, layers, projection,
 * plus x. 1×1 convolutions and linear layers are the same thing here, since activations
 * are channels-last. */
typedef struct {
    dr_weight_norm norm;
    dr_weight_mat in, out;
    dr_transformer_layer *layers;
    int n_layers;
    int first_kv; /* index of its first layer in the job's array of dr_text_kv */
    int64_t heads;
} dr_transformer;

void dr_transformer_load(dr_loader *l, dr_transformer *b, int64_t c, int64_t text_c,
                         int64_t heads, int64_t groups, const char *name);
/* Fill kv[first_kv …] from the text [texts, tokens, 1, text_c]. */
void dr_transformer_read_text(dr_run *r, const dr_transformer *b, dr_tensor text,
                              dr_text_kv *kv);
/* x: [n, h, w, c] → [batch, h, w, c]. With fewer rows than `batch`, whose multiple that is,
 * row i starts as x's i % n: before texts are read such rows do not differ. */
dr_tensor dr_transformer_forward(dr_run *r, const dr_transformer *b, dr_tensor x,
                                 const dr_text_kv *kv, int64_t batch);

#endif
