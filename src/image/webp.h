#ifndef DR_IMAGE_WEBP_H
#define DR_IMAGE_WEBP_H

#include "image/decode.h"
#include "image/encode.h"

/* The one door to libwebp. */

/* dr_read_fn for lossy and lossless files, with alpha or without. */
dr_status dr_webp_read(dr_stored *out, const uint8_t *p, size_t n,
                       const dr_image_limits *limits, dr_err *err);

/* The row's encode. parameters is written twice, because readers differ: as XMP
 * (dc:description and exif:UserComment; exiftool, image catalogues) and as Exif UserComment
 * (A1111 and what reads its files). */
dr_status dr_webp_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                         dr_buf *out, dr_err *err);

#endif
