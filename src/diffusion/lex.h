#ifndef DR_DIFFUSION_LEX_H
#define DR_DIFFUSION_LEX_H

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Private to prompt.c and emphasis.c: what characters are. */

#define SHOWN_MAX 60 /* bytes of a prompt that a note repeats */

/* How many of n bytes to show, cut between characters. */
static inline int shown(const char *p, size_t n)
{
    if (n <= SHOWN_MAX)
        return (int)n;
    for (n = SHOWN_MAX; n > 0 && ((unsigned char)p[n] & 0xc0) == 0x80;)
        n--;
    return (int)n;
}

static inline bool is_space(char c)
{
    return c && strchr(" \t\n\r\f\v", c);
}

static inline bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

static inline size_t digits(const char *p)
{
    size_t n = 0;
    while (isdigit((unsigned char)p[n]))
        n++;
    return n;
}

/* Bytes of the number at p, 0 when there is none: digits, a point among them or not, with
 * a sign. */
static inline size_t number(const char *p, double *value)
{
    size_t sign = *p == '+' || *p == '-', whole = digits(p + sign), n = sign + whole, part;
    if (p[n] == '.') {
        part = digits(p + n + 1);
        if (!whole && !part)
            return 0;
        n += 1 + part;
    } else if (!whole) {
        return 0;
    }
    *value = strtod(p, NULL);
    return n;
}

#endif
