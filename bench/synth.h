#ifndef BENCH_SYNTH_H
#define BENCH_SYNTH_H

#include "base/err.h"

/* Write Stable Diffusion 1.5 with random half-precision weights to dir, in diffusers'
 * layout (2.1 GB): times do not depend on the values. Weights that are there already are
 * left alone. small: the folder of a model of the same family that lends its tokenizer and
 * its scheduler. */
DR_MUST_USE dr_status synth_sd15(const char *dir, const char *small, dr_err *err);

#endif
