#include "base/utf8.h"

#include "base/mem.h"

#include <utf8proc.h>

int dr_utf8_decode(const char *p, size_t n, int32_t *cp)
{
    utf8proc_ssize_t len = n > 4 ? 4 : (utf8proc_ssize_t)n;
    len = n ? utf8proc_iterate((const utf8proc_uint8_t *)p, len, cp) : -1;
    return len > 0 ? (int)len : -1;
}

int dr_utf8_encode(int32_t cp, char out[4])
{
    return utf8proc_codepoint_valid(cp)
               ? (int)utf8proc_encode_char(cp, (utf8proc_uint8_t *)out)
               : 0;
}

bool dr_utf8_valid(const char *p, size_t n, size_t *at)
{
    int32_t cp;
    for (size_t i = 0; i < n;) {
        int len = dr_utf8_decode(p + i, n - i, &cp);
        if (len < 0) {
            if (at)
                *at = i;
            return false;
        }
        i += (size_t)len;
    }
    return true;
}

int32_t dr_utf8_lower(int32_t cp)
{
    return utf8proc_tolower(cp);
}

const char *dr_utf8_category(int32_t cp)
{
    return utf8proc_category_string(cp);
}

char *dr_utf8_nfc(const char *s)
{
    const utf8proc_option_t options =
        UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)s;
    utf8proc_ssize_t n = utf8proc_decompose(text, 0, NULL, 0, options);
    if (n < 0)
        return NULL;
    /* Code points first, one more for the NUL; then UTF-8 in the same place. */
    utf8proc_int32_t *cps = dr_alloc(((size_t)n + 1) * sizeof *cps);
    if (!cps || utf8proc_decompose(text, 0, cps, n, options) != n ||
        utf8proc_reencode(cps, n, options) < 0) {
        dr_free(cps);
        return NULL;
    }
    return (char *)cps;
}
