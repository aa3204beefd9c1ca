#ifndef BENCH_SYNTH_H
#define BENCH_SYNTH_H

#include "base/err.h"

/* Write the UNet and the autoencoder of Stable Diffusion 1.5 with random half-precision
 * weights to dir, in diffusers' layout (1.9 GB): times do not depend on the values. A
 * folder that has them already is left alone. */
DR_MUST_USE dr_status synth_sd15(const char *dir, dr_err *err);

#endif
