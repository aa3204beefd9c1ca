#ifndef DR_IMAGE_PNG_H
#define DR_IMAGE_PNG_H

#include "image/decode.h"
#include "image/encode.h"

/* The one door to libspng. */

/* dr_read_fn for every kind of PNG: depths 1..16, palettes, tRNS, Adam7. */
dr_status dr_png_read(dr_stored *out, const uint8_t *p, size_t n,
                      const dr_image_limits *limits, dr_err *err);

/* The row's encode. The text becomes a chunk "parameters": tEXt when it is Latin-1, else
 * iTXt, as Pillow chooses. */
dr_status dr_png_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                        dr_buf *out, dr_err *err);

#endif
