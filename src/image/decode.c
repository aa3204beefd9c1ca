#include "image/decode.h"

#include "image/jpeg.h"
#include "image/png.h"
#include "image/webp.h"

#include <string.h>

/* --- formats by their first bytes --- */

typedef struct {
    const char *name;
    const char *magic; /* a dot stands for any byte */
    size_t n;
    dr_read_fn *read; /* NULL: known by name only */
} format;

static const format formats[] = {
    { "PNG", "\x89PNG\r\n\x1a\n", 8, dr_png_read },
    { "JPEG", "\xff\xd8\xff", 3, dr_jpeg_read },
    { "WebP", "RIFF....WEBP", 12, dr_webp_read },
    { "GIF", "GIF8", 4, NULL },
    { "BMP", "BM", 2, NULL },
    { "TIFF", "II*\0", 4, NULL },
    { "TIFF", "MM\0*", 4, NULL },
    { "AVIF", "....ftypavif", 12, NULL },
    { "HEIF", "....ftyphei", 11, NULL },
    { "HEIF", "....ftypmif1", 12, NULL },
    { "JPEG XL", "\xff\x0a", 2, NULL },
    { "JPEG XL", "....JXL ", 8, NULL },
    { "SVG or other XML", "<", 1, NULL },
};

static bool starts_with(const format *f, const uint8_t *p, size_t n)
{
    if (n < f->n)
        return false;
    for (size_t i = 0; i < f->n; i++)
        if (f->magic[i] != '.' && (uint8_t)f->magic[i] != p[i])
            return false;
    return true;
}

static dr_status recognise(const format **out, const uint8_t *p, size_t n, dr_err *err)
{
    for (size_t i = 0; i < DR_COUNT(formats); i++) {
        const format *f = &formats[i];
        if (!starts_with(f, p, n))
            continue;
        if (!f->read)
            return dr_fail(err, DR_EINVAL,
                           "picture: %s is not read: send PNG, JPEG or WebP", f->name);
        *out = f;
        return DR_OK;
    }
    return dr_fail(err, DR_EINVAL,
                   "picture: %zu bytes that do not begin as a PNG, JPEG or WebP file", n);
}

/* --- sizes --- */

dr_status dr_stored_new(dr_stored *out, const char *name, int64_t w, int64_t h,
                        int64_t channels, const dr_image_limits *limits, dr_err *err)
{
    if (w < 1 || h < 1)
        return dr_fail(err, DR_EINVAL, "%s: %lld x %lld pixels: there is no picture in it",
                       name, (long long)w, (long long)h);
    if (w > limits->side_max || h > limits->side_max)
        return dr_fail(err, DR_EINVAL,
                       "%s: %lld x %lld pixels: a side may have %lld; make it smaller",
                       name, (long long)w, (long long)h, (long long)limits->side_max);
    if (w > limits->pixels_max / h)
        return dr_fail(err, DR_EINVAL,
                       "%s: %lld x %lld pixels: it may have %lld in all; make it smaller",
                       name, (long long)w, (long long)h, (long long)limits->pixels_max);
    if (!out->size_only)
        return dr_image_new(&out->image, w, h, channels, err);
    out->image = (dr_image){ .w = w, .h = h, .channels = channels };
    return DR_OK;
}

/* --- from stored to wanted pixels --- */

/* c seen through alpha a on a ground. */
static uint8_t over(uint8_t c, uint8_t a, int ground)
{
    return (uint8_t)((c * a + ground * (255 - a) + 127) / 255);
}

static void to_rgb(uint8_t *to, const uint8_t *rgb, uint8_t alpha)
{
    for (int c = 0; c < 3; c++)
        to[c] = over(rgb[c], alpha, 255);
}

static void to_rgba(uint8_t *to, const uint8_t *rgb, uint8_t alpha)
{
    memcpy(to, rgb, 3);
    to[3] = alpha;
}

/* ITU-R BT.601 in 16 bits, as Pillow's mode L. */
static void to_mask(uint8_t *to, const uint8_t *rgb, uint8_t alpha)
{
    int l = (19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 0x8000) >> 16;
    *to = over((uint8_t)l, alpha, 0);
}

static const struct {
    int64_t channels;
    void (*put)(uint8_t *to, const uint8_t *rgb, uint8_t alpha);
} wanted[] = {
    [DR_PIXELS_RGB] = { 3, to_rgb },
    [DR_PIXELS_RGBA] = { 4, to_rgba },
    [DR_PIXELS_MASK] = { 1, to_mask },
};

/* How an Orientation's picture is read: rows are columns, from the right, from below. */
static const struct {
    bool swap, right, below;
} turns[9] = {
    [2] = { 0, 1, 0 }, [3] = { 0, 1, 1 }, [4] = { 0, 0, 1 }, [5] = { 1, 0, 0 },
    [6] = { 1, 0, 1 }, [7] = { 1, 1, 1 }, [8] = { 1, 1, 0 },
};

/* Write stored pixels into *out, turned and converted. */
static dr_status render(dr_image *out, const dr_stored *s, dr_pixels pixels, dr_err *err)
{
    const dr_image *in = &s->image;
    const bool swap = turns[s->orientation].swap, right = turns[s->orientation].right,
               below = turns[s->orientation].below;
    dr_status st = dr_image_new(out, swap ? in->h : in->w, swap ? in->w : in->h,
                                wanted[pixels].channels, err);
    if (st)
        return st;
    uint8_t *to = out->px;
    for (int64_t y = 0; y < out->h; y++)
        for (int64_t x = 0; x < out->w; x++, to += out->channels) {
            int64_t from_x = swap ? y : x, from_y = swap ? x : y;
            from_x = right ? in->w - 1 - from_x : from_x;
            from_y = below ? in->h - 1 - from_y : from_y;
            const uint8_t *p = in->px + (from_y * in->w + from_x) * in->channels;
            wanted[pixels].put(to, p, in->channels == 4 ? p[3] : 255);
        }
    return DR_OK;
}

/* As it is stored; s says whether with its pixels, which the caller frees. */
static dr_status read_stored(dr_stored *s, const void *bytes, size_t n,
                             const dr_image_limits *limits, dr_err *err)
{
    const dr_image_limits usual = DR_IMAGE_LIMITS;
    const format *f = NULL;
    if (!limits)
        limits = &usual;
    if (n > limits->bytes_max)
        return dr_fail(err, DR_EINVAL, "picture: %zu bytes: at most %zu are read", n,
                       limits->bytes_max);
    dr_status st = recognise(&f, bytes, n, err);
    return st ? st : f->read(s, bytes, n, limits, err);
}

dr_status dr_image_size(int64_t *w, int64_t *h, const void *bytes, size_t n,
                        const dr_image_limits *limits, dr_err *err)
{
    dr_stored s = { .orientation = 1, .size_only = true };
    dr_status st = read_stored(&s, bytes, n, limits, err);
    if (st)
        return st;
    *w = turns[s.orientation].swap ? s.image.h : s.image.w;
    *h = turns[s.orientation].swap ? s.image.w : s.image.h;
    return DR_OK;
}

dr_status dr_image_decode(dr_image *out, const void *bytes, size_t n, dr_pixels pixels,
                          const dr_image_limits *limits, dr_err *err)
{
    dr_stored s = { .orientation = 1 };
    *out = (dr_image){ 0 };
    dr_status st = read_stored(&s, bytes, n, limits, err);
    if (!st && s.orientation == 1 && s.image.channels == wanted[pixels].channels) {
        *out = s.image;
        return DR_OK;
    }
    if (!st)
        st = render(out, &s, pixels, err);
    dr_image_free(&s.image);
    return st;
}
