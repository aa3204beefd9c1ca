#ifndef DR_NN_VAE_BANDS_H
#define DR_NN_VAE_BANDS_H

#include "nn/vae.h"

/* Private to src/nn/vae*.c. The small part, at the latents' size, is always whole. */

/* vae.c: the decoder up to its first level [n, h, w, c]; the encoder from behind its last
 * one, into out. */
dr_tensor dr_vae_expand(dr_run *r, const dr_vae *m, dr_tensor z);
void dr_vae_condense(dr_run *r, const dr_vae *m, dr_tensor x, dr_tensor out);

/* The whole ways, into out; r->band_rows rows at a time. */
void dr_vae_decode_bands(dr_run *r, const dr_vae *m, dr_tensor z, dr_tensor out);
void dr_vae_encode_bands(dr_run *r, const dr_vae *m, dr_tensor picture, dr_tensor out);

#endif
