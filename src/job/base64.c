#include "job/base64.h"

#include <stdint.h>
#include <string.h>

static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The six bits of a character; -1 when it stands for none. */
static int bits_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool dr_base64_decode(const char *text, size_t n, void *out, size_t *bytes, size_t *at)
{
    uint8_t *to = out;
    uint32_t group = 0;
    int count = 0, pads = 0; /* characters and "=" of this group */
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        int bits = bits_of(text[i]);
        if (text[i] == '\n' || text[i] == '\r')
            continue;
        *at = i;
        if (text[i] == '=' ? count + pads < 2 || count + pads > 3 : bits < 0 || pads)
            return false;
        if (text[i] == '=')
            pads++;
        else
            count++;
        group = group << 6 | (uint32_t)(bits < 0 ? 0 : bits);
        if (count + pads < 4)
            continue;
        /* What the "=" leave out of the last byte must be zero. */
        if (pads && group & (pads == 2 ? 0xffff : 0xff))
            return false;
        for (int k = 0; k < 3 - pads; k++)
            to[(*bytes)++] = (uint8_t)(group >> (16 - 8 * k));
        group = 0;
        count = pads ? 4 : 0; /* nothing may follow the padding */
    }
    *at = n;
    return count == 0 || count == 4;
}

void dr_base64_put(dr_buf *out, const void *p, size_t n)
{
    const uint8_t *from = p;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i < 3 ? n - i : 3;
        uint32_t group = (uint32_t)from[i] << 16;
        group |= left > 1 ? (uint32_t)from[i + 1] << 8 : 0;
        group |= left > 2 ? from[i + 2] : 0;
        char four[4] = "====";
        for (size_t k = 0; k <= left; k++)
            four[k] = alphabet[group >> (18 - 6 * k) & 63];
        dr_buf_put(out, four, sizeof four);
    }
}
