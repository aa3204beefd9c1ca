#ifndef TEST_IMAGE_H
#define TEST_IMAGE_H

#include "base/file.h"
#include "image/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What the tests of pictures share: files that contrib/goldens/pictures.py wrote with
 * Pillow and OpenCV, and the scene that it painted. */

/* A file of tests/unit/pictures; dr_buf_free it. */
static inline dr_buf picture_file(const char *name)
{
    char path[DR_PATH_MAX];
    dr_buf out = { 0 };
    dr_err err = { 0 };
    snprintf(path, sizeof path, "tests/unit/pictures/%s", name);
    if (dr_file_read(path, (size_t)1 << 20, &out, &err))
        fail_msg("%s", err.message);
    return out;
}

/* As scene() in pictures.py: ramps, a checkerboard, a disc, noise; dr_image_free it. */
static inline dr_image picture_scene(int w, int h)
{
    static const int disc[3] = { 230, 40, 90 };
    dr_image im;
    dr_err err = { 0 };
    assert_int_equal(dr_image_new(&im, w, h, 3, &err), DR_OK);
    uint8_t *p = im.px;
    const int r = h * 2 / 3;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                const int ground[3] = { x * 255 / (w - 1), y * 255 / (h - 1),
                                        255 * ((x / 8 + y / 8) & 1) };
                const int dx = 2 * x - w, dy = 2 * y - h;
                const uint32_t noise = (uint32_t)x * 73856093u ^ (uint32_t)y * 19349663u ^
                                       (uint32_t)c * 83492791u;
                int v = dx * dx + dy * dy < r * r ? disc[c] : ground[c];
                v += (int)(noise >> 13 & 31) - 16;
                *p++ = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
    return im;
}

/* The largest difference of n bytes. */
static inline int picture_worst(const uint8_t *a, const uint8_t *b, size_t n)
{
    int worst = 0;
    for (size_t i = 0; i < n; i++)
        worst = abs(a[i] - b[i]) > worst ? abs(a[i] - b[i]) : worst;
    return worst;
}

#endif
