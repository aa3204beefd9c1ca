#ifndef DR_IMAGE_DECODE_H
#define DR_IMAGE_DECODE_H

#include "image/image.h"

/* Bounds of an untrusted picture. A header is held against them before anything behind it
 * is decoded, so that few bytes cannot ask for much memory: at most 4 bytes a pixel for the
 * result and as many while it is made, and for a progressive JPEG 6 more. */
typedef struct {
    int64_t side_max;   /* pixels */
    int64_t pixels_max; /* of the whole */
    size_t bytes_max;   /* encoded */
} dr_image_limits;

#define DR_IMAGE_LIMITS                                                                    \
    ((dr_image_limits){ .side_max = 8192,                                                  \
                        .pixels_max = (int64_t)64 << 20,                                   \
                        .bytes_max = DR_IMAGE_BYTES_MAX })

/* What a decoded picture consists of. */
typedef enum {
    DR_PIXELS_RGB,  /* transparency is seen on white */
    DR_PIXELS_RGBA, /* alpha 255 where the file has none */
    DR_PIXELS_MASK  /* one channel of luminance (BT.601); the transparent is black */
} dr_pixels;

/* Decode a PNG, JPEG or WebP file of n bytes, recognised by its first bytes, and turn it
 * the way its Exif Orientation says. Colours are taken as sRGB: ICC profiles and gamma are
 * not looked at; 16 bits a channel become 8. limits may be NULL (DR_IMAGE_LIMITS). Free
 * *out with dr_image_free; on failure it is {0}. DR_EINVAL: too large, another format,
 * animated, cut short, broken; DR_ENOMEM. Any thread. */
DR_MUST_USE dr_status dr_image_decode(dr_image *out, const void *bytes, size_t n,
                                      dr_pixels pixels, const dr_image_limits *limits,
                                      dr_err *err);

/* The size that dr_image_decode would give, by the file's head alone; what is wrong behind
 * it is not seen. The same errors. Any thread. */
DR_MUST_USE dr_status dr_image_size(int64_t *w, int64_t *h, const void *bytes, size_t n,
                                    const dr_image_limits *limits, dr_err *err);

/* --- for the doors (png.c, jpeg.c, webp.c) --- */

/* A picture as it is stored: 3 or 4 channels, not yet turned. */
typedef struct {
    dr_image image;
    int orientation; /* Exif, 1..8 */
    bool size_only;  /* asked for by the caller: no pixels are allocated or decoded */
} dr_stored;

/* Decode the whole file; on failure out->image may be allocated: the caller frees it. */
typedef dr_status dr_read_fn(dr_stored *out, const uint8_t *p, size_t n,
                             const dr_image_limits *limits, dr_err *err);

/* Check the header's size and, unless size_only, allocate the pixels. */
DR_MUST_USE dr_status dr_stored_new(dr_stored *out, const char *format, int64_t w,
                                    int64_t h, int64_t channels,
                                    const dr_image_limits *limits, dr_err *err);

#endif
