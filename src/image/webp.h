#ifndef DR_IMAGE_WEBP_H
#define DR_IMAGE_WEBP_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The one door to libwebp. */

#define DR_WEBP_SIDE_MAX 16383 /* pixels; the format's own limit */
#define DR_WEBP_EFFORT   4     /* for pictures that are kept: libwebp's own balance */

typedef struct {
    int64_t quality; /* 0..100; not looked at when lossless */
    bool lossless;
    int64_t effort;         /* 0 (fast) .. 6 (small) */
    const char *parameters; /* UTF-8 text to keep in the file; NULL: none */
} dr_webp_opts;

/* Encode w x h pixels, RGB interleaved, rows top down. out is cleared and then holds the
 * file (free with dr_buf_free); on failure it is empty. The same input gives the same
 * bytes. parameters is written twice, because readers differ: as XMP (dc:description and
 * exif:UserComment; exiftool, image catalogues) and as Exif UserComment (A1111 and what
 * reads its files). DR_EINVAL for a size or option out of bounds. Any thread. */
DR_MUST_USE dr_status dr_webp_encode(const uint8_t *rgb, int64_t w, int64_t h,
                                     const dr_webp_opts *o, dr_buf *out, dr_err *err);

#endif
