#ifndef DR_BASE_RNG_H
#define DR_BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Normal noise from a seed, two ways: counter-based (the default: element i depends on
 * nothing but its own number) and PyTorch's CPU generator (for parity with diffusers). */

/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
 * four random words for a 128-bit counter and a 64-bit key. */
void dr_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* out[i], i < n, from N(0, 1). Key: seed; counter: (i / 4, step, stream), so that a longer
 * draw begins with a shorter one and steps and streams never meet. Box-Muller in double. */
void dr_philox_normal(float *out, size_t n, uint64_t seed, uint32_t step, uint32_t stream);

/* torch.Generator('cpu').manual_seed(seed): a Mersenne Twister (Matsumoto & Nishimura
 * 1998) and the half of a Box-Muller pair that the last small draw left over. PyTorch
 * seeds with the low 32 bits and drops the rest. About 2.5 kB, no memory behind it. */
typedef struct {
    uint32_t state[624];
    int next; /* the word of state to use; 624: refill first */
    double spare;
    bool has_spare;
} dr_torch_rng;

void dr_torch_seed(dr_torch_rng *r, uint64_t seed);

/* torch.randn(n, generator=r) in float32: equal up to 1e-6, where PyTorch's vector log and
 * cos round otherwise. Consecutive draws go on where the last ended. */
void dr_torch_normal(dr_torch_rng *r, float *out, size_t n);

#endif
