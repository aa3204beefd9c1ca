#ifndef DR_NN_VAE_H
#define DR_NN_VAE_H

#include "base/arena.h"
#include "nn/blocks.h"

#define DR_VAE_LEVELS_MAX 8

/* The autoencoder between pictures and latents (Kingma & Welling 2013; Rombach et al.
 * 2022), as diffusers' AutoencoderKL. */
typedef struct {
    dr_resnet *resnets;
    int n_resnets;
    dr_weight_mat sampler; /* down- or upsampling convolution; out 0: none */
} dr_vae_level;

typedef struct {
    dr_weight_mat conv_in, conv_out;
    dr_resnet mid[2];
    dr_self_attention attention; /* attention.heads 0: none */
    dr_vae_level levels[DR_VAE_LEVELS_MAX];
    int n_levels;
    dr_weight_norm norm_out;
} dr_vae_half;

typedef struct {
    int64_t latent_c;
    int64_t factor;                      /* pixels per latent, each way */
    double scaling_factor, shift_factor; /* latents = (z - shift) · scaling */
    dr_vae_half encoder, decoder;
    dr_weight_mat quant, post_quant; /* out 0: the config has none */
} dr_vae;

void dr_vae_load(dr_vae *m, dr_loader *l, const dr_json *config, dr_arena *mem);

/* Both ways work in bands of rows when the run's band_rows says so: with the same result,
 * in less device memory; what is large then lies on the host, and the run counts it. */

/* Latents as the UNet knows them (scaled) [n, h, w, latent_c] → picture in −1..1, not
 * clamped: [n, h·factor, w·factor, 3] */
dr_tensor dr_vae_decode(dr_run *r, const dr_vae *m, dr_tensor latents);

/* Picture in −1..1 [n, h, w, 3] → mean and log-variance of z, not scaled:
 * [n, h/factor, w/factor, 2·latent_c]; the mean is the first latent_c channels. */
dr_tensor dr_vae_encode(dr_run *r, const dr_vae *m, dr_tensor picture);

#endif
