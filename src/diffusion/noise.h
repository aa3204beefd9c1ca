#ifndef DR_DIFFUSION_NOISE_H
#define DR_DIFFUSION_NOISE_H

#include <darkroom/job.h>
#include <stddef.h>
#include <stdint.h>

/* Private to src/diffusion/: variations of an image's first noise. */

/* a[n] becomes what lies at `share` (0: a, 1: b) of the arc from a to b (Shoemake 1985),
 * as vectors of n dimensions: noise stays as strong as noise is. On the line between them
 * where they are nearly parallel. */
void dr_noise_slerp(float *a, const float *b, size_t n, double share);

/* Bring the noise towards the first noise of another seed; scratch: n floats. */
void dr_noise_vary(float *noise, float *scratch, size_t n, dr_noise_kind kind,
                   uint64_t seed, double share);

/* The variation seed of a job that names none: another draw, but always the same one, so
 * that a second attempt makes the same picture. 32 bits, as PyTorch keeps. */
uint64_t dr_noise_subseed(uint64_t seed);

#endif
