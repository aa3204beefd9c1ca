#include "base/arena.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)64 << 10)
#define ALIGN       ((size_t)16)

typedef struct chunk {
    struct chunk *next; /* the chunk filled before this one */
    size_t used, size;
    _Alignas(16) char data[];
} chunk;

struct dr_arena {
    chunk *head;
    size_t used;
};

static chunk *chunk_new(size_t size, chunk *next)
{
    chunk *c = dr_alloc(sizeof *c + size);
    if (c) {
        c->size = size;
        c->next = next;
    }
    return c;
}

dr_arena *dr_arena_new(void)
{
    dr_arena *a = dr_alloc(sizeof *a);
    if (a && !(a->head = chunk_new(CHUNK_BYTES, NULL))) {
        dr_free(a);
        a = NULL;
    }
    return a;
}

void dr_arena_reset(dr_arena *a)
{
    while (a->head->next) {
        chunk *c = a->head;
        a->head = c->next;
        dr_free(c);
    }
    memset(a->head->data, 0, a->head->used);
    a->head->used = 0;
    a->used = 0;
}

void dr_arena_free(dr_arena *a)
{
    if (!a)
        return;
    dr_arena_reset(a);
    dr_free(a->head);
    dr_free(a);
}

size_t dr_arena_used(const dr_arena *a)
{
    return a->used;
}

void *dr_arena_alloc(dr_arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (a->head->size - a->head->used < bytes) {
        chunk *c = chunk_new(bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES, a->head);
        if (!c)
            return NULL;
        a->head = c;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += bytes;
    a->used += bytes;
    return p;
}

char *dr_arena_str(dr_arena *a, const char *p, size_t n)
{
    char *s = n < SIZE_MAX ? dr_arena_alloc(a, n + 1) : NULL;
    if (s && n)
        memcpy(s, p, n);
    return s;
}

char *dr_arena_printf(dr_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n >= 0 ? dr_arena_alloc(a, (size_t)n + 1) : NULL;
    if (s) {
        va_start(ap, fmt);
        vsnprintf(s, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    return s;
}
