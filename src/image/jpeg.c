#include "image/jpeg.h"

#include "base/mem.h"
#include "image/exif.h"

#include <string.h>
#include <turbojpeg.h>

/* Passes over a progressive picture; ten are usual, and each costs time for all pixels
 * however few bytes it has. */
#define SCANS_MAX 100

#define SEGMENT_MAX 65533 /* bytes of a marker's content */

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "jpeg: out of memory");
}

/* --- reading: what the markers say --- */

enum { EOI = 0xd9, SOS = 0xda, APP1 = 0xe1 };

typedef struct {
    int64_t w, h;
    int components; /* 0: no frame seen */
    int orientation;
} survey;

static size_t be16(const uint8_t *p)
{
    return (size_t)p[0] << 8 | p[1];
}

static bool is_frame(uint8_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
           marker != 0xcc;
}

/* Markers without a length. libjpeg would pass them over where they must not be; this
 * reader must not see another frame header than libjpeg does. */
static bool stands_alone(uint8_t marker)
{
    return marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8);
}

/* Every SOS from p on; entropy-coded data has none, since its 0xff is followed by 0. */
static int count_scans(const uint8_t *p, const uint8_t *end)
{
    int n = 0;
    while (end - p >= 2 && (p = memchr(p, 0xff, (size_t)(end - p) - 1)) != NULL)
        n += *++p == SOS;
    return n;
}

static void look_into(survey *s, uint8_t marker, const uint8_t *p, size_t n)
{
    if (is_frame(marker) && n >= 6) {
        s->h = (int64_t)be16(p + 1);
        s->w = (int64_t)be16(p + 3);
        s->components = p[5];
    } else if (marker == APP1 && n >= 6 && !memcmp(p, "Exif\0", 6))
        s->orientation = dr_exif_orientation(p, n);
}

/* Read the segments in front of the first scan. */
static dr_status look(survey *s, const uint8_t *p, size_t n, dr_err *err)
{
    const uint8_t *end = p + n;
    *s = (survey){ .orientation = 1 };
    for (p += 2; end - p >= 4; p += 2 + be16(p + 2)) {
        while (end - p > 4 && p[0] == 0xff && p[1] == 0xff)
            p++; /* fill bytes */
        if (p[0] == 0xff && (p[1] == SOS || p[1] == EOI))
            break;
        if (p[0] != 0xff || stands_alone(p[1]) || be16(p + 2) < 2)
            return dr_fail(err, DR_EINVAL,
                           "jpeg: no marker where one must be; the file is "
                           "broken");
        if (be16(p + 2) > (size_t)(end - p) - 2)
            return dr_fail(
                err, DR_EINVAL,
                "jpeg: cut short: a segment of %zu bytes, of which %zu are there",
                be16(p + 2), (size_t)(end - p) - 2);
        look_into(s, p[1], p + 4, be16(p + 2) - 2);
    }
    if (!s->components)
        return dr_fail(err, DR_EINVAL, "jpeg: cut short: it has no frame header");
    int scans = count_scans(p, end);
    if (scans > SCANS_MAX)
        return dr_fail(err, DR_EINVAL, "jpeg: %d scans: at most %d are read; save it again",
                       scans, SCANS_MAX);
    return DR_OK;
}

/* --- reading: the pixels --- */

static dr_status decompress(tjhandle tj, const uint8_t *p, size_t n, dr_image *im,
                            int format, dr_err *err)
{
    const int flags = TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS;
    if (!tjDecompress2(tj, p, (unsigned long)n, im->px, (int)im->w,
                       (int)(im->w * im->channels), (int)im->h, format, flags))
        return DR_OK;
    return dr_fail(err, DR_EINVAL, "jpeg: %s; the file is cut short or broken",
                   tjGetErrorStr2(tj));
}

/* Inverted inks to RGB: what is left of white after colour and black. */
static dr_status read_inks(tjhandle tj, const uint8_t *p, size_t n, dr_image *rgb,
                           dr_err *err)
{
    dr_image inks;
    dr_status st = dr_image_new(&inks, rgb->w, rgb->h, 4, err);
    if (!st)
        st = decompress(tj, p, n, &inks, TJPF_CMYK, err);
    if (!st)
        for (int64_t i = 0; i < rgb->w * rgb->h; i++)
            for (int c = 0; c < 3; c++)
                rgb->px[3 * i + c] =
                    (uint8_t)((inks.px[4 * i + c] * inks.px[4 * i + 3] + 127) / 255);
    dr_image_free(&inks);
    return st;
}

dr_status dr_jpeg_read(dr_stored *out, const uint8_t *p, size_t n,
                       const dr_image_limits *limits, dr_err *err)
{
    survey s;
    dr_status st = look(&s, p, n, err);
    if (!st)
        st = dr_stored_new(out, "jpeg", s.w, s.h, 3, limits, err);
    out->orientation = s.orientation;
    if (st || out->size_only)
        return st;
    tjhandle tj = tjInitDecompress();
    if (!tj)
        return no_memory(err);
    st = s.components == 4 ? read_inks(tj, p, n, &out->image, err)
                           : decompress(tj, p, n, &out->image, TJPF_RGB, err);
    tjDestroy(tj);
    return st;
}

/* --- writing --- */

/* The Exif segment for text, marker and all. */
static dr_status put_comment(dr_buf *out, const char *text, dr_err *err)
{
    dr_buf tiff = { 0 };
    dr_status st = DR_OK;
    dr_buf_put(&tiff, "Exif\0", 6);
    dr_exif_put_comment(&tiff, text);
    if (tiff.len > SEGMENT_MAX)
        st = dr_fail(err, DR_EINVAL,
                     "jpeg: parameters of %zu bytes in UTF-16: at most %d fit; choose webp "
                     "or png",
                     tiff.len, SEGMENT_MAX);
    else {
        const size_t n = tiff.len + 2;
        dr_buf_put(out, (uint8_t[]){ 0xff, APP1, (uint8_t)(n >> 8), (uint8_t)n }, 4);
        dr_buf_put(out, tiff.data, tiff.len);
    }
    out->failed |= tiff.failed;
    dr_buf_free(&tiff);
    return st;
}

/* Append a whole file. *file: the library's memory, to be freed by the caller. */
static dr_status compress(tjhandle tj, unsigned char **file, const uint8_t *rgb, int64_t w,
                          int64_t h, const dr_image_opts *o, dr_buf *out, dr_err *err)
{
    unsigned long n = 0;
    int quality = o->quality ? (int)o->quality : 1; /* the library's scale begins there */
    if (tjCompress2(tj, rgb, (int)w, (int)w * 3, (int)h, TJPF_RGB, file, &n, TJSAMP_444,
                    quality, TJFLAG_ACCURATEDCT | TJFLAG_PROGRESSIVE))
        return dr_fail(err, DR_EIO, "jpeg: %s", tjGetErrorStr2(tj));
    dr_buf_put(out, *file, 2); /* SOI; Exif stands right behind it */
    dr_status st = o->parameters ? put_comment(out, o->parameters, err) : DR_OK;
    dr_buf_put(out, *file + 2, n - 2);
    return st;
}

dr_status dr_jpeg_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                         dr_buf *out, dr_err *err)
{
    unsigned char *file = NULL;
    tjhandle tj = tjInitCompress();
    if (!tj)
        return no_memory(err);
    dr_status st = compress(tj, &file, rgb, w, h, o, out, err);
    tjDestroy(tj);
    tjFree(file);
    return st;
}
