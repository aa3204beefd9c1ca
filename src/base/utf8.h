#ifndef DR_BASE_UTF8_H
#define DR_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The one door to utf8proc. */

/* Decode the code point at p (n bytes left): its length in bytes, or -1 when invalid
 * (overlong, surrogate, above U+10FFFF, truncated). */
int dr_utf8_decode(const char *p, size_t n, int32_t *cp);
/* Encode cp into out (room for 4); the number of bytes, 0 when cp is not a scalar value. */
int dr_utf8_encode(int32_t cp, char out[4]);
/* Whether all n bytes are valid UTF-8; *at receives the offset of the first bad byte. */
bool dr_utf8_valid(const char *p, size_t n, size_t *at);

int32_t dr_utf8_lower(int32_t cp);        /* simple lower case */
const char *dr_utf8_category(int32_t cp); /* "Lu", "Nd", "Cf", … as in UnicodeData */
/* Canonical composition (NFC) of a valid string; NULL when memory is out; dr_free it. */
char *dr_utf8_nfc(const char *s);

#endif
