#include "base/hash.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

dr_hash *dr_hash_new(void)
{
    XXH3_state_t *s = XXH3_createState();
    if (s)
        XXH3_128bits_reset(s);
    return (dr_hash *)s;
}

void dr_hash_add(dr_hash *h, const void *p, size_t n)
{
    XXH3_128bits_update((XXH3_state_t *)h, p, n);
}

void dr_hash_str(dr_hash *h, const char *s)
{
    dr_hash_add(h, s, strlen(s) + 1);
}

dr_digest dr_hash_end(dr_hash *h)
{
    dr_digest d;
    XXH128_hash_t v = XXH3_128bits_digest((XXH3_state_t *)h);
    XXH3_freeState((XXH3_state_t *)h);
    snprintf(d.hex, sizeof d.hex, "%016llx%016llx", (unsigned long long)v.high64,
             (unsigned long long)v.low64);
    return d;
}

uint64_t dr_hash64(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

int64_t dr_jitter(int64_t n)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)(dr_hash64(&t, sizeof t) % (uint64_t)n);
}
