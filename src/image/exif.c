#include "image/exif.h"

#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

/* --- reading --- */

typedef struct {
    const uint8_t *p;
    size_t n;
    bool big; /* byte order */
} tiff;

/* `bytes` (2 or 4) at `at`; the caller has checked that they are there. */
static uint32_t number(const tiff *t, size_t at, int bytes)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | t->p[at + (size_t)(t->big ? i : bytes - 1 - i)];
    return v;
}

int dr_exif_orientation(const uint8_t *p, size_t n)
{
    enum { HEAD = 8, ENTRY = 12, TAG = 0x112, SHORT = 3 };
    if (n >= 6 && !memcmp(p, "Exif\0", 6)) {
        p += 6;
        n -= 6;
    }
    if (n < HEAD || (memcmp(p, "MM\0*", 4) && memcmp(p, "II*\0", 4)))
        return 1;
    const tiff t = { .p = p, .n = n, .big = *p == 'M' };
    size_t at = number(&t, 4, 4);
    if (at > n || n - at < 2)
        return 1;
    size_t entries = number(&t, at, 2);
    at += 2;
    if (entries > (n - at) / ENTRY)
        entries = (n - at) / ENTRY;
    for (; entries--; at += ENTRY) {
        if (number(&t, at, 2) != TAG)
            continue;
        uint32_t value = number(&t, at + 8, 2);
        bool valid = number(&t, at + 2, 2) == SHORT && number(&t, at + 4, 4) == 1 &&
                     value >= 1 && value <= 8;
        return valid ? (int)value : 1;
    }
    return 1;
}

/* --- writing --- */

int32_t dr_exif_next(const char **p, const char *end)
{
    int32_t cp;
    int n = dr_utf8_decode(*p, (size_t)(end - *p), &cp);
    *p += n > 0 ? n : 1;
    return n > 0 ? cp : 0xfffd;
}

static void put_be(dr_buf *out, uint32_t v, int bytes)
{
    while (bytes--)
        dr_buf_put(out, &(uint8_t){ (uint8_t)(v >> 8 * bytes) }, 1);
}

static void put_utf16be(dr_buf *out, const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        uint32_t cp = (uint32_t)dr_exif_next(&text, end);
        if (cp > 0xffff) {
            put_be(out, 0xd800 + ((cp - 0x10000) >> 10), 2);
            cp = 0xdc00 + ((cp - 0x10000) & 0x3ff);
        }
        put_be(out, cp, 2);
    }
}

/* A directory of one entry: tag, type, count, value or offset. */
static void put_directory(dr_buf *out, uint32_t tag, uint32_t type, uint32_t count,
                          uint32_t value)
{
    put_be(out, 1, 2);
    put_be(out, tag, 2);
    put_be(out, type, 2);
    put_be(out, count, 4);
    put_be(out, value, 4);
    put_be(out, 0, 4); /* no further directory */
}

/* A TIFF head, a directory with the pointer to the Exif directory, and there UserComment
 * (0x9286, type 7), whose bytes lie behind it. */
void dr_exif_put_comment(dr_buf *out, const char *text)
{
    enum { HEAD = 8, DIRECTORY = 18 };
    dr_buf comment = { 0 };
    dr_buf_put(&comment, "UNICODE", 8);
    put_utf16be(&comment, text);
    dr_buf_put(out, "MM", 2);
    put_be(out, 42, 2);
    put_be(out, HEAD, 4);
    put_directory(out, 0x8769, 4, 1, HEAD + DIRECTORY);
    put_directory(out, 0x9286, 7, (uint32_t)comment.len, HEAD + 2 * DIRECTORY);
    dr_buf_put(out, comment.data, comment.len);
    out->failed |= comment.failed;
    dr_buf_free(&comment);
}
