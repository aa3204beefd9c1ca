#ifndef DR_BASE_MEM_H
#define DR_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* The one door to the C allocator. Each returns NULL when memory is out. */
void *dr_alloc(size_t bytes); /* zeroed */
void *dr_resize(void *p, size_t bytes);
void dr_free(void *p); /* accepts NULL */
char *dr_strdup(const char *s);

/* Allocations (dr_alloc, dr_resize, dr_strdup, arena chunks) made by this thread so far.
 * The denoising loop is measured with it: the difference over a loop must be 0. */
uint64_t dr_alloc_count(void);

#endif
