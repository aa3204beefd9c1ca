#ifndef DR_NN_UNET_H
#define DR_NN_UNET_H

#include "base/arena.h"
#include "nn/blocks.h"

#define DR_UNET_LEVELS_MAX 8
#define DR_UNET_SKIPS_MAX  64

/* The denoising UNet (Ronneberger et al. 2015; Ho et al. 2020; Rombach et al. 2022), as
 * diffusers' UNet2DConditionModel: any block list, widths, layers, heads. */
typedef struct {
    dr_resnet *resnets;
    dr_transformer *attentions; /* NULL: a block without */
    int n_layers;
    dr_weight_mat sampler; /* down- or upsampling convolution; out 0: none */
} dr_unet_block;

typedef struct {
    int64_t in_c, out_c, text_c, time_c, sample_size;
    int64_t width; /* of the first level and of the sinusoidal timestep embedding */
    bool flip_sin_to_cos;
    double freq_shift;
    dr_weight_mat time1, time2, conv_in, conv_out;
    dr_weight_norm norm_out;
    dr_unet_block down[DR_UNET_LEVELS_MAX], up[DR_UNET_LEVELS_MAX];
    int n_levels;
    dr_resnet mid[2];
    dr_transformer mid_attention;
    bool has_mid;
    int n_skips; /* tensors that the way down hands to the way up */
    int n_kv;    /* cross-attentions in all */
} dr_unet;

/* What the way down and the middle hand to the way up. */
typedef struct {
    dr_tensor skip[DR_UNET_SKIPS_MAX];
    int n;
    dr_tensor mid;
} dr_unet_way;

/* One evaluation: x are latents [n, h, w, in_c]; the UNet sees in_scale·x, for `batch` rows
 * (a multiple of n: guidance's halves read the same latents). */
typedef struct dr_unet_call {
    dr_tensor x;
    int64_t batch;
    double in_scale, timestep;
    /* May be set to add to the way in place, before it is read: ControlNets. */
    void (*guide)(void *ctx, dr_run *r, const struct dr_unet_call *call,
                  const dr_unet_way *way);
    void *guide_ctx;
} dr_unet_call;

void dr_unet_load(dr_unet *m, dr_loader *l, const dr_json *config, dr_arena *mem);
/* All but the way up and what follows it: what a ControlNet has copied. */
void dr_unet_load_lower(dr_unet *m, dr_loader *l, const dr_json *config, dr_arena *mem);

/* Keys and values of the texts [texts, tokens, 1, text_c] for every cross-attention, into
 * kv[m->n_kv]. They stay valid until the run pops below this call. */
void dr_unet_read_text(dr_run *r, const dr_unet *m, dr_tensor text, dr_text_kv *kv);

/* From now on row i of a batch reads text rows[i]; borrowed, may change between calls. */
void dr_unet_choose_text(const dr_unet *m, dr_text_kv *kv, const int *rows);

/* Row i reads text i·texts/batch, unless dr_unet_choose_text says otherwise.
 * → [batch, h, w, out_c] */
dr_tensor dr_unet_forward(dr_run *r, const dr_unet *m, const dr_unet_call *call,
                          const dr_text_kv *kv);

/* The way down and the middle only, of a whole UNet or a lower one; its tensors live until
 * the caller pops. time: dr_unet_time's through SiLU; hint (NULL: none) is added to the
 * first convolution's output: [batch, h, w, width]. */
dr_unet_way dr_unet_descend(dr_run *r, const dr_unet *m, const dr_unet_call *call,
                            dr_tensor time, const dr_text_kv *kv, const dr_tensor *hint);

/* The timestep's embedding → [1, 1, 1, time_c] (before the blocks' SiLU). */
dr_tensor dr_unet_time(dr_run *r, const dr_unet *m, double timestep);

#endif
