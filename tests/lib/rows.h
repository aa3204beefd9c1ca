#ifndef TESTS_ROWS_H
#define TESTS_ROWS_H

#include "diffusion/sampler.h"

/* What the fused kernel does with a sampler's row, in double, for one value: m is the
 * model's output, z the noise. */
static inline void rows_apply(const dr_step *r, double *x, double h[DR_HIST_MAX], double m,
                              double z)
{
    double was = *x, next = r->x * was + r->out * m + r->noise * z;
    for (int k = 0; k < DR_HIST_MAX; k++)
        next += r->hist[k] != 0 ? r->hist[k] * h[k] : 0;
    if (r->slot >= 0)
        h[r->slot] = r->hist_x * was + r->hist_out * m + r->hist_noise * z;
    *x = next;
}

#endif
