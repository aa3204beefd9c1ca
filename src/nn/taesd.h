#ifndef DR_NN_TAESD_H
#define DR_NN_TAESD_H

#include "nn/load.h"

/* The decoder of the tiny autoencoder for previews (TAESD, Bohan 2023), as diffusers'
 * AutoencoderTiny or the original taesd_decoder file: latents as the UNet knows them → a
 * picture, at a hundredth of the work of the real one. */

#define DR_TAESD_LEVELS 4
#define DR_TAESD_BLOCKS 8 /* of one level, at most */

typedef struct {
    dr_weight_mat conv_in, conv_out; /* conv_in.out 0: there is no such decoder */
    struct {
        struct {
            dr_weight_mat conv[3];
        } block[DR_TAESD_BLOCKS];
        int n_blocks;
        dr_weight_mat resize; /* behind it, enlarged to twice the size; out 0: none */
    } level[DR_TAESD_LEVELS];
    int64_t latent_c;
} dr_taesd;

/* config: diffusers' config.json, or NULL for the original names and shape. */
void dr_taesd_load(dr_taesd *m, dr_loader *l, const dr_json *config);

/* Latents [n, h, w, latent_c] → picture in −1..1 [n, 8·h, 8·w, 3] */
dr_tensor dr_taesd_decode(dr_run *r, const dr_taesd *m, dr_tensor latents);

#endif
