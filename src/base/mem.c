#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Per thread, so that the I/O thread's work does not show in the engine's count. */
static _Thread_local uint64_t allocations;

void *dr_alloc(size_t bytes)
{
    allocations++;
    return calloc(1, bytes ? bytes : 1);
}

void *dr_resize(void *p, size_t bytes)
{
    allocations++;
    return realloc(p, bytes ? bytes : 1);
}

void dr_free(void *p)
{
    free(p);
}

char *dr_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = dr_alloc(n);
    if (p)
        memcpy(p, s, n);
    return p;
}

uint64_t dr_alloc_count(void)
{
    return allocations;
}
