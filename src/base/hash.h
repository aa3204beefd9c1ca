#ifndef DR_BASE_HASH_H
#define DR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A 128-bit fingerprint (XXH3) as 32 hexadecimal digits, for cache keys. Not for secrets.
 */
typedef struct {
    char hex[33];
} dr_digest;

typedef struct dr_hash dr_hash; /* a running fingerprint */

dr_hash *dr_hash_new(void); /* NULL when memory is out */
void dr_hash_add(dr_hash *h, const void *p, size_t n);
void dr_hash_str(dr_hash *h, const char *s); /* with its NUL, so that "ab","c" ≠ "a","bc" */
dr_digest dr_hash_end(dr_hash *h);           /* frees h */

uint64_t dr_hash64(const void *p, size_t n);

/* A number in [0, n), n > 0, by the clock: so that many who wait for the same do not all
 * come at once. Not for secrets. */
int64_t dr_jitter(int64_t n);

#endif
