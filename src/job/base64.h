#ifndef DR_JOB_BASE64_H
#define DR_JOB_BASE64_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* Base64 with the standard alphabet, RFC 4648 section 4. */

/* Room that the decoded bytes of n characters take at most. */
#define DR_BASE64_BYTES(n) ((n) / 4 * 3 + 3)

/* Decode n characters into out, which has room for DR_BASE64_BYTES(n). Strict: whole
 * groups of four, "=" only as the end of the last, no bits left over; line ends between
 * characters are skipped. False when that fails; *at is then the place of the first
 * character that is wrong (n: the text is cut). */
bool dr_base64_decode(const char *text, size_t n, void *out, size_t *bytes, size_t *at);

/* Append n bytes as base64 without line ends. */
void dr_base64_put(dr_buf *out, const void *p, size_t n);

#endif
