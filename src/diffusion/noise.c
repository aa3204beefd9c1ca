#include "diffusion/noise.h"

#include "base/hash.h"
#include "base/rng.h"

#include <math.h>

#define PARALLEL 0.9995 /* cosine from which on the arc is taken for a line; A1111's */

void dr_noise_slerp(float *a, const float *b, size_t n, double share)
{
    double dot = 0, aa = 0, bb = 0, of_a = 1 - share, of_b = share;
    for (size_t i = 0; i < n; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    double cosine = aa > 0 && bb > 0 ? dot / sqrt(aa * bb) : 1;
    if (fabs(cosine) <= PARALLEL) {
        double angle = acos(cosine);
        of_a = sin(of_a * angle) / sin(angle);
        of_b = sin(of_b * angle) / sin(angle);
    }
    for (size_t i = 0; i < n; i++)
        a[i] = (float)(of_a * a[i] + of_b * b[i]);
}

void dr_noise_vary(float *noise, float *scratch, size_t n, dr_noise_kind kind,
                   uint64_t seed, double share)
{
    dr_torch_rng rng;
    if (kind == DR_NOISE_TORCH) {
        dr_torch_seed(&rng, seed);
        dr_torch_normal(&rng, scratch, n);
    } else {
        dr_philox_normal(scratch, n, seed, 0, 0);
    }
    dr_noise_slerp(noise, scratch, n, share);
}

uint64_t dr_noise_subseed(uint64_t seed)
{
    return dr_hash64(&seed, sizeof seed) & UINT32_MAX;
}
