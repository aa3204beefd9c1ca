#include "image/png.h"

#include "image/exif.h"

#include <spng.h>
#include <string.h>

enum { SIGNATURE = 8, FRAME = 12, HEAD = 8 }; /* bytes; a chunk's length, type and CRC */

static dr_status from_spng(int code, dr_err *err)
{
    if (code == SPNG_EMEM)
        return dr_fail(err, DR_ENOMEM, "png: out of memory");
    return dr_fail(err, DR_EINVAL, "png: %s; the file is broken", spng_strerror(code));
}

/* --- reading: what the chunks say --- */

typedef struct {
    const uint8_t *type, *data; /* 4 bytes, n bytes */
    size_t n;
} chunk;

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is(const chunk *c, const char *type)
{
    return !memcmp(c->type, type, 4);
}

/* The chunk at `left` bytes from `p`. */
static dr_status read_chunk(chunk *c, const uint8_t *p, size_t left, dr_err *err)
{
    if (left < FRAME)
        return dr_fail(err, DR_EINVAL, "png: cut short: it ends without an IEND chunk");
    *c = (chunk){ .type = p + 4, .data = p + HEAD, .n = be32(p) };
    if (c->n > left - FRAME)
        return dr_fail(err, DR_EINVAL,
                       "png: cut short: a chunk of %zu bytes, of which %zu are there", c->n,
                       left - FRAME);
    return DR_OK;
}

typedef struct {
    int64_t w, h;
    bool alpha;
    int orientation;
} survey;

/* Read all chunks' heads: whether the file is whole, its size and what else is needed. */
static dr_status look(survey *s, const uint8_t *p, size_t n, dr_err *err)
{
    enum { IHDR_BYTES = 13, COLOUR_TYPE = 9, WITH_ALPHA = 4 };
    chunk c = { 0 };
    *s = (survey){ .orientation = 1 };
    for (size_t at = SIGNATURE; at == SIGNATURE || !is(&c, "IEND"); at += FRAME + c.n) {
        dr_status st = read_chunk(&c, p + at, n - at, err);
        if (st)
            return st;
        if (at == SIGNATURE) {
            if (!is(&c, "IHDR") || c.n != IHDR_BYTES)
                return dr_fail(err, DR_EINVAL,
                               "png: it does not begin with IHDR; the file is broken");
            s->w = be32(c.data);
            s->h = be32(c.data + 4);
            s->alpha = c.data[COLOUR_TYPE] & WITH_ALPHA;
        } else if (is(&c, "acTL"))
            return dr_fail(err, DR_EINVAL, "png: it is animated: send one picture");
        else if (is(&c, "tRNS"))
            s->alpha = true;
        else if (is(&c, "eXIf"))
            s->orientation = dr_exif_orientation(c.data, c.n);
    }
    return DR_OK;
}

/* --- reading: the pixels --- */

/* The file as libspng gets to see it: only the chunks that make pixels, so that no text or
 * profile can ask for memory or be wrong. */
typedef struct {
    const uint8_t *p; /* the next byte */
    size_t n;         /* until the end of what passes at once */
    const uint8_t *end;
} filtered;

/* Move on to the next chunk that passes; false at the end. look() found all of them whole.
 */
static bool next_chunk(filtered *f)
{
    static const char passes[][5] = { "IHDR", "PLTE", "tRNS", "IDAT", "IEND" };
    chunk c;
    while (!read_chunk(&c, f->p, (size_t)(f->end - f->p), NULL)) {
        for (size_t i = 0; i < DR_COUNT(passes); i++)
            if (is(&c, passes[i])) {
                f->n = FRAME + c.n;
                return true;
            }
        f->p += FRAME + c.n;
    }
    return false;
}

static int on_read(spng_ctx *spng, void *user, void *to, size_t n)
{
    filtered *f = user;
    uint8_t *out = to;
    (void)spng;
    while (n) {
        if (!f->n && !next_chunk(f))
            return SPNG_IO_EOF;
        size_t part = n < f->n ? n : f->n;
        memcpy(out, f->p, part);
        out += part;
        n -= part;
        f->p += part;
        f->n -= part;
    }
    return 0;
}

dr_status dr_png_read(dr_stored *out, const uint8_t *p, size_t n,
                      const dr_image_limits *limits, dr_err *err)
{
    survey s;
    filtered f = { .p = p, .n = SIGNATURE, .end = p + n };
    dr_status st = look(&s, p, n, err);
    if (!st)
        st = dr_stored_new(out, "png", s.w, s.h, s.alpha ? 4 : 3, limits, err);
    out->orientation = s.orientation;
    if (st || out->size_only)
        return st;
    spng_ctx *spng = spng_ctx_new(0);
    if (!spng)
        return from_spng(SPNG_EMEM, err);
    int code = spng_set_image_limits(spng, (uint32_t)s.w, (uint32_t)s.h);
    if (!code)
        code = spng_set_png_stream(spng, on_read, &f);
    if (!code)
        code = spng_decode_image(spng, out->image.px, dr_image_bytes(&out->image),
                                 s.alpha ? SPNG_FMT_RGBA8 : SPNG_FMT_RGB8,
                                 s.alpha ? SPNG_DECODE_TRNS : 0);
    if (!code) /* the last rows may be there before the checksum behind them */
        code = spng_decode_chunks(spng);
    spng_ctx_free(spng);
    return code ? from_spng(code, err) : DR_OK;
}

/* --- writing --- */

/* Text as Latin-1; false when it has other characters. */
static bool to_latin1(dr_buf *out, const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        int32_t cp = dr_exif_next(&text, end);
        if (cp > 0xff || (cp < 0x20 && cp != '\n') || (cp >= 0x7f && cp < 0xa0))
            return false;
        dr_buf_put(out, &(uint8_t){ (uint8_t)cp }, 1);
    }
    return true;
}

static int set_text(spng_ctx *spng, dr_buf *latin1, const char *text)
{
    static char none[] = "";
    struct spng_text t = { .keyword = "parameters",
                           .language_tag = none,
                           .translated_keyword = none };
    bool fits = to_latin1(latin1, text);
    if (latin1->failed)
        return SPNG_EMEM;
    t.type = fits ? SPNG_TEXT : SPNG_ITXT;
    t.text = fits ? latin1->data : (char *)text;
    t.length = fits ? latin1->len : strlen(text);
    return t.length ? spng_set_text(spng, &t, 1) : 0;
}

static int on_write(spng_ctx *spng, void *user, void *from, size_t n)
{
    dr_buf *out = user;
    (void)spng;
    dr_buf_put(out, from, n);
    return out->failed ? SPNG_IO_ERROR : 0;
}

dr_status dr_png_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                        dr_buf *out, dr_err *err)
{
    static const int levels[] = { 1, 2, 3, 4, 6, 8, 9 }; /* zlib's, by effort */
    struct spng_ihdr head = { .width = (uint32_t)w,
                              .height = (uint32_t)h,
                              .bit_depth = 8,
                              .color_type = SPNG_COLOR_TYPE_TRUECOLOR };
    dr_buf latin1 = { 0 };
    spng_ctx *spng = spng_ctx_new(SPNG_CTX_ENCODER);
    int code = spng ? spng_set_png_stream(spng, on_write, out) : SPNG_EMEM;
    if (!code)
        code = spng_set_option(spng, SPNG_IMG_COMPRESSION_LEVEL, levels[o->effort]);
    if (!code)
        code = spng_set_ihdr(spng, &head);
    if (!code && o->parameters)
        code = set_text(spng, &latin1, o->parameters);
    if (!code)
        code = spng_encode_image(spng, rgb, (size_t)(w * h * 3), SPNG_FMT_PNG,
                                 SPNG_ENCODE_FINALIZE);
    spng_ctx_free(spng);
    dr_buf_free(&latin1);
    if (!code || out->failed)
        return DR_OK; /* the caller sees that memory is out */
    return dr_fail(err, code == SPNG_EMEM ? DR_ENOMEM : DR_EIO, "png: %s",
                   spng_strerror(code));
}
