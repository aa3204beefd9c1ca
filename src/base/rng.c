#include "base/rng.h"

#include <math.h>

#define PHILOX_ROUNDS 10
#define MT_WORDS      624
#define MT_AHEAD      397
#define FILL          16 /* PyTorch fills this many normals at once */

static const double two_pi = 6.283185307179586476925;

/* --- Philox --- */

void dr_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int i = 0; i < PHILOX_ROUNDS; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* Weyl sequences: golden ratio, sqrt(3) - 1 */
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Two normals from two words; the half keeps u1 off 0. */
static void box_muller(double z[2], uint32_t a, uint32_t b)
{
    double u1 = (a + 0.5) * 0x1p-32, u2 = (b + 0.5) * 0x1p-32;
    double radius = sqrt(-2.0 * log(u1));
    z[0] = radius * cos(two_pi * u2);
    z[1] = radius * sin(two_pi * u2);
}

void dr_philox_normal(float *out, size_t n, uint64_t seed, uint32_t step, uint32_t stream)
{
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    for (size_t i = 0; i < n; i += 4) {
        uint64_t block = i / 4;
        uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), step, stream };
        uint32_t word[4];
        double z[4];
        dr_philox4x32(word, counter, key);
        box_muller(z, word[0], word[1]);
        box_muller(z + 2, word[2], word[3]);
        for (size_t j = 0; j < 4 && i + j < n; j++)
            out[i + j] = (float)z[j];
    }
}

/* --- PyTorch's CPU generator --- */

void dr_torch_seed(dr_torch_rng *r, uint64_t seed)
{
    *r = (dr_torch_rng){ .next = MT_WORDS };
    r->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < MT_WORDS; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ (r->state[i - 1] >> 30)) + i;
}

static void refill(dr_torch_rng *r)
{
    uint32_t *s = r->state;
    for (int i = 0; i < MT_WORDS; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % MT_WORDS] & 0x7fffffffu);
        s[i] = s[(i + MT_AHEAD) % MT_WORDS] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->next = 0;
}

static uint32_t random_u32(dr_torch_rng *r)
{
    if (r->next == MT_WORDS)
        refill(r);
    uint32_t y = r->state[r->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* [0, 1) with a float's 24 bits. */
static float uniform_float(dr_torch_rng *r)
{
    return (float)(random_u32(r) & 0xffffffu) * 0x1p-24f;
}

/* [0, 1) with a double's 53 bits; the first word is the upper one. */
static double uniform_double(dr_torch_rng *r)
{
    uint64_t high = random_u32(r);
    uint64_t word = high << 32 | random_u32(r);
    return (double)(word & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* 16 uniforms → 16 normals in place: value j pairs with value j + 8. */
static void normal_16(float *v)
{
    for (int j = 0; j < FILL / 2; j++) {
        double radius = sqrt(-2.0 * log(1.0 - v[j])), theta = two_pi * v[j + FILL / 2];
        v[j] = (float)(radius * cos(theta));
        v[j + FILL / 2] = (float)(radius * sin(theta));
    }
}

/* What PyTorch draws for fewer than 16 values: pairs in double, the second one kept. */
static double normal_single(dr_torch_rng *r)
{
    if (r->has_spare) {
        r->has_spare = false;
        return r->spare;
    }
    double u1 = uniform_double(r), u2 = uniform_double(r);
    double radius = sqrt(-2.0 * log1p(-u2));
    r->spare = radius * sin(two_pi * u1);
    r->has_spare = true;
    return radius * cos(two_pi * u1);
}

void dr_torch_normal(dr_torch_rng *r, float *out, size_t n)
{
    if (n < FILL) {
        for (size_t i = 0; i < n; i++)
            out[i] = (float)normal_single(r);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = uniform_float(r);
    for (size_t i = 0; i + FILL <= n; i += FILL)
        normal_16(out + i);
    if (n % FILL == 0)
        return;
    /* A ragged end: the last 16 values, some of them done already, are drawn anew. */
    float *tail = out + n - FILL;
    for (int i = 0; i < FILL; i++)
        tail[i] = uniform_float(r);
    normal_16(tail);
}
