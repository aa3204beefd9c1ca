#include "image/webp.h"

#include "base/utf8.h"

#include <darkroom/version.h>
#include <string.h>
#include <webp/encode.h>
#include <webp/mux.h>

#define LOSSLESS_QUALITY 75.0f /* how hard to look for a smaller file; nothing is lost */

/* --- metadata --- */

/* The next code point; U+FFFD for what is not UTF-8. */
static int32_t next_cp(const char **p, const char *end)
{
    int32_t cp;
    int n = dr_utf8_decode(*p, (size_t)(end - *p), &cp);
    *p += n > 0 ? n : 1;
    return n > 0 ? cp : 0xfffd;
}

/* Text for XML 1.0, which has no control characters besides tab and newline. */
static void put_xml(dr_buf *out, const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        char bytes[4];
        int32_t cp = next_cp(&text, end);
        bool allowed = cp >= 0x20 ? cp < 0xfffe || cp > 0xffff : cp == '\t' || cp == '\n';
        if (cp == '&')
            dr_buf_puts(out, "&amp;");
        else if (cp == '<')
            dr_buf_puts(out, "&lt;");
        else if (cp == '>')
            dr_buf_puts(out, "&gt;");
        else if (cp == '\r')
            dr_buf_puts(out, "&#13;");
        else
            dr_buf_put(out, bytes, (size_t)dr_utf8_encode(allowed ? cp : 0xfffd, bytes));
    }
}

static void put_language_alternative(dr_buf *out, const char *tag, const char *text)
{
    dr_buf_printf(out, "<%s><rdf:Alt><rdf:li xml:lang=\"x-default\">", tag);
    put_xml(out, text);
    dr_buf_printf(out, "</rdf:li></rdf:Alt></%s>\n", tag);
}

/* An XMP packet (ISO 16684-1). */
static void put_xmp(dr_buf *out, const char *text)
{
    dr_buf_puts(out, "<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
                     "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
                     "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
                     "<rdf:Description rdf:about=\"\"\n"
                     " xmlns:dc=\"http://purl.org/dc/elements/1.1/\"\n"
                     " xmlns:exif=\"http://ns.adobe.com/exif/1.0/\"\n"
                     " xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n"
                     " xmp:CreatorTool=\"darkroom " DR_VERSION "\">\n");
    put_language_alternative(out, "dc:description", text);
    put_language_alternative(out, "exif:UserComment", text);
    dr_buf_puts(out, "</rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"r\"?>");
}

static void put_utf16be(dr_buf *out, const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        uint32_t cp = (uint32_t)next_cp(&text, end), units[2] = { cp, 0 };
        int n = 1;
        if (cp > 0xffff) {
            units[0] = 0xd800 + ((cp - 0x10000) >> 10);
            units[1] = 0xdc00 + ((cp - 0x10000) & 0x3ff);
            n = 2;
        }
        for (int i = 0; i < n; i++)
            dr_buf_put(out, (uint8_t[]){ (uint8_t)(units[i] >> 8), (uint8_t)units[i] }, 2);
    }
}

static void put_be(dr_buf *out, uint32_t v, int bytes)
{
    while (bytes--)
        dr_buf_put(out, &(uint8_t){ (uint8_t)(v >> 8 * bytes) }, 1);
}

/* An entry of a TIFF directory: tag, type, count, value or offset. */
static void put_entry(dr_buf *out, uint32_t tag, uint32_t type, uint32_t count,
                      uint32_t value)
{
    put_be(out, 1, 2); /* entries of this directory */
    put_be(out, tag, 2);
    put_be(out, type, 2);
    put_be(out, count, 4);
    put_be(out, value, 4);
    put_be(out, 0, 4); /* no further directory */
}

/* Exif (CIPA DC-008): a TIFF head, a directory with the pointer to the Exif directory, and
 * there UserComment (0x9286, type 7), whose bytes lie behind it. */
static void put_exif(dr_buf *out, const char *text)
{
    enum { HEAD = 8, DIRECTORY = 18 };
    dr_buf comment = { 0 };
    dr_buf_put(&comment, "UNICODE", 8);
    put_utf16be(&comment, text);
    dr_buf_put(out, "MM", 2);
    put_be(out, 42, 2);
    put_be(out, HEAD, 4);
    put_entry(out, 0x8769, 4, 1, HEAD + DIRECTORY);
    put_entry(out, 0x9286, 7, (uint32_t)comment.len, HEAD + 2 * DIRECTORY);
    dr_buf_put(out, comment.data, comment.len);
    out->failed |= comment.failed;
    dr_buf_free(&comment);
}

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "webp: out of memory");
}

static bool set_chunk(WebPMux *mux, const char name[4], const dr_buf *content)
{
    const WebPData data = { .bytes = (const uint8_t *)content->data, .size = content->len };
    return !content->failed && WebPMuxSetChunk(mux, name, &data, 0) == WEBP_MUX_OK;
}

/* Append webp to out, with text in it. */
static dr_status add_metadata(const dr_buf *webp, const char *text, dr_buf *out,
                              dr_err *err)
{
    const WebPData plain = { .bytes = (const uint8_t *)webp->data, .size = webp->len };
    dr_buf xmp = { 0 }, exif = { 0 };
    WebPData file = { 0 };
    WebPMux *mux = WebPMuxCreate(&plain, 0);
    put_xmp(&xmp, text);
    put_exif(&exif, text);
    bool done = mux && set_chunk(mux, "XMP ", &xmp) && set_chunk(mux, "EXIF", &exif) &&
                WebPMuxAssemble(mux, &file) == WEBP_MUX_OK;
    if (done)
        dr_buf_put(out, file.bytes, file.size);
    WebPDataClear(&file);
    WebPMuxDelete(mux);
    dr_buf_free(&xmp);
    dr_buf_free(&exif);
    return done ? DR_OK : no_memory(err);
}

/* --- pixels --- */

static int on_bytes(const uint8_t *p, size_t n, const WebPPicture *picture)
{
    dr_buf *out = picture->custom_ptr;
    dr_buf_put(out, p, n);
    return !out->failed;
}

static dr_status check(int64_t w, int64_t h, const dr_webp_opts *o, dr_err *err)
{
    if (w < 1 || h < 1 || w > DR_WEBP_SIDE_MAX || h > DR_WEBP_SIDE_MAX)
        return dr_fail(err, DR_EINVAL,
                       "webp: %lld x %lld pixels: each side must be in 1..%d", (long long)w,
                       (long long)h, DR_WEBP_SIDE_MAX);
    if (o->quality < 0 || o->quality > 100)
        return dr_fail_field(err, DR_EINVAL, "output.quality",
                             "webp: quality %lld: must be in 0..100",
                             (long long)o->quality);
    if (o->effort < 0 || o->effort > 6)
        return dr_fail(err, DR_EINVAL, "webp: effort %lld: must be in 0..6",
                       (long long)o->effort);
    return DR_OK;
}

static dr_status encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_webp_opts *o,
                        dr_buf *out, dr_err *err)
{
    WebPConfig config;
    WebPPicture picture;
    dr_status st = DR_OK;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture))
        return dr_fail(err, DR_EIO, "webp: libwebp is of another version than its headers");
    config.quality = o->lossless ? LOSSLESS_QUALITY : (float)o->quality;
    config.lossless = o->lossless;
    config.method = (int)o->effort;
    picture.use_argb = o->lossless;
    picture.width = (int)w;
    picture.height = (int)h;
    picture.writer = on_bytes;
    picture.custom_ptr = out;
    if (!WebPPictureImportRGB(&picture, rgb, (int)w * 3))
        st = no_memory(err);
    else if (!WebPEncode(&config, &picture))
        st = picture.error_code == VP8_ENC_ERROR_OUT_OF_MEMORY ||
                     picture.error_code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY ||
                     out->failed
                 ? no_memory(err)
                 : dr_fail(err, DR_EIO, "webp: encoder error %d on %lld x %lld pixels",
                           (int)picture.error_code, (long long)w, (long long)h);
    WebPPictureFree(&picture);
    return st;
}

dr_status dr_webp_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_webp_opts *o,
                         dr_buf *out, dr_err *err)
{
    dr_buf plain = { 0 };
    dr_buf_clear(out);
    dr_status st = check(w, h, o, err);
    if (!st)
        st = encode(rgb, w, h, o, o->parameters ? &plain : out, err);
    if (!st && o->parameters)
        st = add_metadata(&plain, o->parameters, out, err);
    if (!st && out->failed)
        st = no_memory(err);
    if (st)
        dr_buf_clear(out);
    dr_buf_free(&plain);
    return st;
}
