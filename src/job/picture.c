#include "job/picture.h"

#include "job/base64.h"
#include "job/decode.h"
#include "job/read.h"

#include <stdio.h>
#include <string.h>

#define PREFIX_MAX 128 /* bytes of a key in front of ":input:", as of queue.prefix */

/* --- Kinds of files ------------------------------------------------------------------ */

/* How files begin; where `brand` is set, those bytes stand at its place as well. */
static const struct {
    const char *head;
    size_t n, brand_at;
    const char *brand;
    const char *other; /* what it is when it is not wanted; NULL: wanted */
} kinds[] = {
    { "\x89PNG\r\n\x1a\n", 8, 0, NULL, NULL },
    { "\xff\xd8\xff", 3, 0, NULL, NULL },
    { "RIFF", 4, 8, "WEBP", NULL },
    { "RIFF", 4, 0, NULL, "a RIFF file that is no WebP" },
    { "GIF8", 4, 0, NULL, "a GIF" },
    { "BM", 2, 0, NULL, "a BMP" },
    { "II*\0", 4, 0, NULL, "a TIFF" },
    { "MM\0*", 4, 0, NULL, "a TIFF" },
    { "", 0, 4, "ftypavif", "an AVIF" },
    { "", 0, 4, "ftyp", "an HEIC or video file" },
    { "\xff\x0a", 2, 0, NULL, "a JPEG XL" },
    { "\0\0\0\x0cJXL ", 8, 0, NULL, "a JPEG XL" },
    { "<", 1, 0, NULL, "an SVG or other XML" },
    { "%PDF", 4, 0, NULL, "a PDF" },
};

static bool begins(const char *p, size_t n, size_t at, const char *head, size_t len)
{
    return n >= at + len && !memcmp(p + at, head, len);
}

/* What the bytes are when they are not wanted; NULL: wanted. */
static const char *other_kind(const char *p, size_t n)
{
    for (size_t i = 0; i < DR_COUNT(kinds); i++)
        if (begins(p, n, 0, kinds[i].head, kinds[i].n) &&
            (!kinds[i].brand ||
             begins(p, n, kinds[i].brand_at, kinds[i].brand, strlen(kinds[i].brand))))
            return kinds[i].other;
    return "no picture that is known here";
}

dr_status dr_picture_check(const char *field, const void *p, size_t n, dr_err *err)
{
    const char *other = other_kind(p, n);
    if (n > DR_IMAGE_BYTES_MAX)
        return dr_fail_field(err, DR_EINVAL, field,
                             "%s of %zu bytes: must be at most %zu; send a smaller picture",
                             field, n, DR_IMAGE_BYTES_MAX);
    if (other)
        return dr_fail_field(err, DR_EINVAL, field, "%s: %s; send PNG, JPEG or WebP", field,
                             other);
    return DR_OK;
}

/* --- Text ---------------------------------------------------------------------------- */

static bool leads(const char *text, size_t n, const char *word)
{
    return begins(text, n, 0, word, strlen(word));
}

/* Where <id>:<name> begins in a text that is a key; NULL: it is none. */
static const char *input_part(const char *text, size_t n)
{
    static const char word[] = ":input:";
    if (leads(text, n, word + 1))
        return text + strlen(word + 1);
    const char *at = memmem(text, n, word, strlen(word));
    return at ? at + strlen(word) : NULL;
}

/* A key of n bytes whose <id>:<name> begins at part. */
static dr_status read_key(dr_picture_ref *out, const char *field, const char *key, size_t n,
                          const char *part, dr_err *err)
{
    size_t left = n - (size_t)(part - key), front = (size_t)(part - key);
    const char *colon = memchr(part, ':', left);
    bool good = front < PREFIX_MAX + sizeof ":input:";
    for (size_t i = 0; i < front; i++)
        good &= key[i] > ' ' && key[i] <= '~';
    if (good && colon) {
        size_t id = (size_t)(colon - part);
        good = !dr_job_id_check(field, part, id, NULL) &&
               !dr_job_id_check(field, colon + 1, left - id - 1, NULL);
    }
    if (!good || !colon) {
        char shown[80];
        dr_value_quote(shown, sizeof shown, key, n);
        return dr_fail_field(err, DR_EINVAL, field,
                             "%s: a key must be input:<id>:<name>, both of the characters "
                             "that an id may have; \"%s\" is not",
                             field, shown);
    }
    *out = (dr_picture_ref){ .key = key };
    return DR_OK;
}

/* Base64 in the n characters of text. */
static dr_status read_base64(dr_picture_ref *out, dr_arena *mem, const char *field,
                             const char *text, size_t n, dr_err *err)
{
    size_t at;
    char shown[8];
    char *bytes = dr_arena_alloc(mem, DR_BASE64_BYTES(n));
    if (!bytes)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if (!dr_base64_decode(text, n, bytes, &out->n, &at)) {
        if (at == n)
            return dr_fail_field(err, DR_EINVAL, field,
                                 "%s: base64 of %zu characters is cut; its last four are "
                                 "not complete",
                                 field, n);
        dr_value_quote(shown, sizeof shown, text + at, 1);
        return dr_fail_field(err, DR_EINVAL, field,
                             "%s: character %zu (%s) is not base64; send a picture as "
                             "bytes, base64 or data: text, or as an input: key",
                             field, at, shown);
    }
    out->bytes = bytes;
    return DR_OK;
}

/* "data:image/png;base64,…" */
static dr_status read_data(dr_picture_ref *out, dr_arena *mem, const char *field,
                           const char *text, size_t n, dr_err *err)
{
    static const char coding[] = ";base64";
    const char *comma = memchr(text, ',', n);
    size_t head = comma ? (size_t)(comma - text) : 0;
    if (head < sizeof coding || memcmp(comma - strlen(coding), coding, strlen(coding)) != 0)
        return dr_fail_field(err, DR_EINVAL, field,
                             "%s: a data: text must be data:image/...;base64,...", field);
    return read_base64(out, mem, field, comma + 1, n - head - 1, err);
}

dr_status dr_picture_read(dr_picture_ref *out, dr_arena *mem, const char *field,
                          const dr_value *v, dr_err *err)
{
    *out = (dr_picture_ref){ 0 };
    if (v->kind != DR_VALUE_STR && v->kind != DR_VALUE_BIN)
        return dr_fail_field(
            err, DR_EINVAL, field,
            "%s %s: must be a picture: bytes, base64 or data: text, or an input: key",
            field, dr_value_show(v).text);
    const char *p = v->as.s.p, *part;
    size_t n = v->as.s.n;
    dr_status st = DR_OK;
    if (v->kind == DR_VALUE_BIN || !other_kind(p, n) || memchr(p, 0, n))
        *out = (dr_picture_ref){ .bytes = p, .n = n };
    else if (leads(p, n, "data:"))
        st = read_data(out, mem, field, p, n, err);
    else if (leads(p, n, "http:") || leads(p, n, "https:"))
        return dr_fail_field(err, DR_EINVAL, field,
                             "%s: an address; nothing is fetched from the network, send "
                             "the picture itself",
                             field);
    else if ((part = input_part(p, n)))
        return read_key(out, field, p, n, part, err);
    else
        st = read_base64(out, mem, field, p, n, err);
    return st ? st : dr_picture_check(field, out->bytes, out->n, err);
}
