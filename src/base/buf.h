#ifndef DR_BASE_BUF_H
#define DR_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

/* A growing byte buffer. {0} is an empty one. When memory runs out `failed` is set and
 * later appends do nothing, so that a writer checks once at its end. Reused by
 * dr_buf_clear it keeps its memory: appending then allocates nothing. */
typedef struct {
    char *data; /* NUL-terminated once something was appended */
    size_t len, cap;
    bool failed;
} dr_buf;

void dr_buf_put(dr_buf *b, const void *p, size_t n);
void dr_buf_puts(dr_buf *b, const char *s);
void dr_buf_printf(dr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dr_buf_clear(dr_buf *b);
void dr_buf_free(dr_buf *b); /* accepts {0}; leaves {0} */

#endif
