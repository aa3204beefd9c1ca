#ifndef DR_IMAGE_ENCODE_H
#define DR_IMAGE_ENCODE_H

#include "base/buf.h"
#include "base/err.h"

#include <darkroom/job.h>
#include <stdbool.h>
#include <stdint.h>

#define DR_IMAGE_EFFORT 4 /* for pictures that are kept: libwebp's own balance */

typedef struct {
    dr_format format;
    int64_t quality;        /* WebP, JPEG: 0..100; not looked at when lossless */
    bool lossless;          /* WebP; PNG always is, JPEG never */
    int64_t near_lossless;  /* WebP: 1..99 is lossless but for small changes of pixels, the
                               lower the more, that make it smaller; 0, 100: off */
    int64_t effort;         /* WebP, PNG: 0 (fast) .. 6 (small) */
    const char *parameters; /* UTF-8 text to keep in the file, where A1111 looks for it:
                               a PNG text chunk "parameters", else Exif UserComment, and
                               in WebP XMP too; NULL: none */
} dr_image_opts;

/* What is to be known about a format. */
typedef struct {
    const char *name;      /* "webp", as in output.format */
    const char *mime;      /* "image/webp" */
    const char *extension; /* "webp", without the dot */
    int64_t side_max;      /* pixels */
    dr_status (*encode)(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                        dr_buf *out, dr_err *err); /* its door; appends; o is checked */
} dr_image_format;

/* A format's row. Never NULL. */
const dr_image_format *dr_image_format_of(dr_format format);
/* The row whose name or extension that is, in either case; NULL: none. */
const dr_image_format *dr_image_format_named(const char *name);

/* What a job asks for, with DR_IMAGE_EFFORT. parameters is borrowed; may be NULL. */
dr_image_opts dr_image_output(const dr_job *job, const char *parameters);

/* Encode w x h pixels, RGB interleaved, rows top down. out is cleared and then holds the
 * file (free with dr_buf_free); on failure it is empty. The same input gives the same
 * bytes. DR_EINVAL for a size or option out of bounds; DR_ENOMEM. Any thread. */
DR_MUST_USE dr_status dr_image_encode(const uint8_t *rgb, int64_t w, int64_t h,
                                      const dr_image_opts *o, dr_buf *out, dr_err *err);

#endif
