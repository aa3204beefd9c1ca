#ifndef DR_BASE_ARENA_H
#define DR_BASE_ARENA_H

#include <stddef.h>

/* A growing region: everything of one job (or one loaded model) is allocated from it and
 * nothing is freed singly. Not thread safe: one owner at any instant. */
typedef struct dr_arena dr_arena;

dr_arena *dr_arena_new(void);     /* NULL when memory is out */
void dr_arena_free(dr_arena *a);  /* accepts NULL */
void dr_arena_reset(dr_arena *a); /* forget all, keep the first chunk */
size_t dr_arena_used(const dr_arena *a);

void *dr_arena_alloc(dr_arena *a, size_t bytes); /* zeroed, 16-aligned, NULL when out */
char *dr_arena_str(dr_arena *a, const char *p, size_t n); /* copy + NUL */
char *dr_arena_printf(dr_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
