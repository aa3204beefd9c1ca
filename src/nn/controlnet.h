#ifndef DR_NN_CONTROLNET_H
#define DR_NN_CONTROLNET_H

#include "nn/unet.h"

#define DR_HINT_BLOCKS_MAX 8 /* pairs of convolutions of the picture's embedding */

/* ControlNet (Zhang et al. 2023), as diffusers' ControlNetModel: a copy of a UNet's way
 * down and middle that also reads a picture, and a 1×1 convolution for each tensor that it
 * adds to the UNet's own. */
typedef struct {
    dr_unet lower;
    struct {
        dr_weight_mat in, keep[DR_HINT_BLOCKS_MAX], shrink[DR_HINT_BLOCKS_MAX], out;
        int n_blocks; /* each halves the sides */
    } hint;
    dr_weight_mat skip[DR_UNET_SKIPS_MAX], mid;
} dr_controlnet;

/* Errors are l->err's: also for a UNet without a middle. */
void dr_controlnet_load(dr_controlnet *c, dr_loader *l, const dr_json *config,
                        dr_arena *mem);

/* Sides of the picture are so many times those of the latents. */
int64_t dr_controlnet_factor(const dr_controlnet *c);

/* hint [batch, H/factor, W/factor, width] becomes what the picture [1, H, W, 3] in 0..1
 * adds to the first convolution, the same for every row. Once a job. */
void dr_controlnet_read_picture(dr_run *r, const dr_controlnet *c, dr_tensor picture,
                                dr_tensor hint);

/* Add strength times what the ControlNet makes of the call's latents to the way of the
 * UNet, in place. kv: the texts as c->lower reads them; hint: one row for each of the
 * batch. strength is not 0 (0 is not to call this). */
void dr_controlnet_add(dr_run *r, const dr_controlnet *c, const dr_unet_call *call,
                       const dr_text_kv *kv, dr_tensor hint, double strength,
                       const dr_unet_way *way);

#endif
