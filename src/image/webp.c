#include "image/webp.h"

#include "base/utf8.h"
#include "image/exif.h"

#include <darkroom/version.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/encode.h>
#include <webp/mux.h>

#define LOSSLESS_QUALITY 75.0f /* how hard to look for a smaller file; nothing is lost */

/* --- metadata --- */

/* Text for XML 1.0, which has no control characters besides tab and newline. */
static void put_xml(dr_buf *out, const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        char bytes[4];
        int32_t cp = dr_exif_next(&text, end);
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

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "webp: out of memory");
}

static dr_status wrong_version(dr_err *err)
{
    return dr_fail(err, DR_EIO, "webp: libwebp is of another version than its headers");
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
    dr_exif_put_comment(&exif, text);
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

static dr_status encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                        dr_buf *out, dr_err *err)
{
    WebPConfig config;
    WebPPicture picture;
    dr_status st = DR_OK;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture))
        return wrong_version(err);
    const bool near = o->near_lossless % 100 != 0, lossless = o->lossless || near;
    config.quality = lossless ? LOSSLESS_QUALITY : (float)o->quality;
    config.lossless = lossless;
    config.near_lossless = near ? (int)o->near_lossless : 100;
    config.method = (int)o->effort;
    picture.use_argb = lossless;
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

dr_status dr_webp_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                         dr_buf *out, dr_err *err)
{
    dr_buf plain = { 0 };
    if (!o->parameters)
        return encode(rgb, w, h, o, out, err);
    dr_status st = encode(rgb, w, h, o, &plain, err);
    if (!st)
        st = add_metadata(&plain, o->parameters, out, err);
    dr_buf_free(&plain);
    return st;
}

/* --- reading --- */

static const struct {
    VP8StatusCode code;
    const char *text;
} troubles[] = {
    { VP8_STATUS_NOT_ENOUGH_DATA, "cut short" },
    { VP8_STATUS_SUSPENDED, "cut short" },
    { VP8_STATUS_UNSUPPORTED_FEATURE, "of a kind that libwebp does not know" },
};

static dr_status from_webp(VP8StatusCode code, dr_err *err)
{
    const char *text = "broken";
    if (code == VP8_STATUS_OUT_OF_MEMORY)
        return no_memory(err);
    for (size_t i = 0; i < DR_COUNT(troubles); i++)
        if (troubles[i].code == code)
            text = troubles[i].text;
    return dr_fail(err, DR_EINVAL, "webp: the file is %s", text);
}

/* What the file's RIFF head says that it has, against what is there. */
static dr_status check_length(const uint8_t *p, size_t n, dr_err *err)
{
    enum { HEAD = 8 };
    size_t says =
        (size_t)p[4] | (size_t)p[5] << 8 | (size_t)p[6] << 16 | (size_t)p[7] << 24;
    if (says > n - HEAD)
        return dr_fail(err, DR_EINVAL, "webp: cut short: %zu bytes, of which %zu are there",
                       says + HEAD, n);
    return DR_OK;
}

static int orientation(const uint8_t *p, size_t n)
{
    const WebPData file = { .bytes = p, .size = n };
    WebPData exif;
    int turn = 1;
    WebPMux *mux = WebPMuxCreate(&file, 0);
    if (mux && WebPMuxGetChunk(mux, "EXIF", &exif) == WEBP_MUX_OK)
        turn = dr_exif_orientation(exif.bytes, exif.size);
    WebPMuxDelete(mux);
    return turn;
}

dr_status dr_webp_read(dr_stored *out, const uint8_t *p, size_t n,
                       const dr_image_limits *limits, dr_err *err)
{
    WebPDecoderConfig config;
    dr_image *im = &out->image;
    if (!WebPInitDecoderConfig(&config))
        return wrong_version(err);
    dr_status st = check_length(p, n, err);
    if (st)
        return st;
    VP8StatusCode code = WebPGetFeatures(p, n, &config.input);
    if (code)
        return from_webp(code, err);
    if (config.input.has_animation)
        return dr_fail(err, DR_EINVAL, "webp: it is animated: send one picture");
    const int channels = config.input.has_alpha ? 4 : 3;
    st = dr_stored_new(out, "webp", config.input.width, config.input.height, channels,
                       limits, err);
    out->orientation = orientation(p, n);
    if (st || out->size_only)
        return st;
    config.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA = (WebPRGBABuffer){ .rgba = im->px,
                                             .stride = (int)(im->w * channels),
                                             .size = dr_image_bytes(im) };
    code = WebPDecode(p, n, &config);
    WebPFreeDecBuffer(&config.output);
    return code ? from_webp(code, err) : DR_OK;
}
