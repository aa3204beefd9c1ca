#ifndef DR_IMAGE_JPEG_H
#define DR_IMAGE_JPEG_H

#include "image/decode.h"
#include "image/encode.h"

/* The one door to libjpeg-turbo, through its TurboJPEG interface: errors are returned, no
 * longjmp leaves the library. */

/* dr_read_fn for baseline and progressive files: grey, YCbCr, RGB, CMYK, YCCK. Inks are
 * taken to be stored inverted, as Adobe writes and Pillow reads them. What libjpeg would
 * only warn of (data missing, corrupt) is an error. */
dr_status dr_jpeg_read(dr_stored *out, const uint8_t *p, size_t n,
                       const dr_image_limits *limits, dr_err *err);

/* The row's encode: progressive, colour at full resolution (4:4:4); the text becomes an
 * Exif UserComment, at most some 32,000 UTF-16 units (DR_EINVAL). */
dr_status dr_jpeg_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                         dr_buf *out, dr_err *err);

#endif
