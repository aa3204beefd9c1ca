#ifndef DR_IMAGE_EXIF_H
#define DR_IMAGE_EXIF_H

#include "base/buf.h"

#include <stdint.h>

/* The two things darkroom needs of Exif (CIPA DC-008, a TIFF directory): the way a camera
 * was held, and A1111's place for the generation parameters. */

/* The Orientation tag, 1..8, of n untrusted bytes, with or without "Exif\0\0" in front;
 * 1 (as stored) when there is none or anything is not as it should be. */
int dr_exif_orientation(const uint8_t *p, size_t n);

/* Append a TIFF structure whose Exif UserComment is text (UTF-8; what is not becomes
 * U+FFFD), as UNICODE in UTF-16BE, the form that piexif and so A1111 write and read. */
void dr_exif_put_comment(dr_buf *out, const char *text);

/* The next code point of UTF-8 text that may be broken; U+FFFD for what is not UTF-8. */
int32_t dr_exif_next(const char **p, const char *end);

#endif
