#include "image/sheet.h"

#include "image/resample.h"

#include <assert.h>
#include <string.h>

#define BORDER 4 /* pixels */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A sheet's side for n cells of so many pixels. */
static int64_t side(int64_t n, int64_t pixels)
{
    return n * (pixels + BORDER) + BORDER;
}

static int64_t rows_of(int64_t n, int64_t columns)
{
    return (n + columns - 1) / columns;
}

/* The number of columns with the smallest longer side; of equal ones the most. */
static int64_t arrange(int64_t n, int64_t w, int64_t h)
{
    int64_t best = 1, shortest = INT64_MAX;
    for (int64_t columns = 1; columns <= n; columns++) {
        const int64_t longer = larger(side(columns, w), side(rows_of(n, columns), h));
        if (longer > shortest)
            continue;
        shortest = longer;
        best = columns;
    }
    return best;
}

/* Make cells smaller until `rows` of them fit; the shape of a cell is kept. */
static void shrink(dr_sheet *s, int64_t rows, int64_t side_max)
{
    const int64_t w = (side_max - BORDER) / s->columns - BORDER,
                  h = (side_max - BORDER) / rows - BORDER;
    if (s->w > w) {
        s->w = w;
        s->h = s->full_h * w / s->full_w;
    }
    if (s->h > h) {
        s->h = h;
        s->w = s->full_w * h / s->full_h;
    }
}

dr_status dr_sheet_new(dr_sheet *out, int64_t n, int64_t w, int64_t h, int64_t side_max,
                       dr_err *err)
{
    dr_sheet s = { .columns = arrange(n, w, h), .w = w, .h = h, .full_w = w, .full_h = h };
    const int64_t rows = rows_of(n, s.columns);
    *out = (dr_sheet){ 0 };
    shrink(&s, rows, side_max);
    if (s.w < 1 || s.h < 1)
        return dr_fail(err, DR_EINVAL,
                       "contact sheet: %lld pictures do not fit %lld x %lld pixels",
                       (long long)n, (long long)side_max, (long long)side_max);
    dr_status st = dr_image_new(&s.image, side(s.columns, s.w), side(rows, s.h), 3, err);
    if (st)
        return st;
    memset(s.image.px, 255, dr_image_bytes(&s.image));
    *out = s;
    return DR_OK;
}

static void paste(dr_image *to, const dr_image *from, int64_t x, int64_t y)
{
    assert(x >= 0 && y >= 0 && x + from->w <= to->w && y + from->h <= to->h);
    for (int64_t row = 0; row < from->h; row++)
        memcpy(to->px + 3 * ((y + row) * to->w + x), from->px + 3 * row * from->w,
               (size_t)(3 * from->w));
}

dr_status dr_sheet_place(dr_sheet *s, int64_t i, const dr_image *picture, dr_err *err)
{
    dr_image small = { 0 };
    dr_status st = DR_OK;
    const int64_t w = larger(picture->w * s->w / s->full_w, 1),
                  h = larger(picture->h * s->h / s->full_h, 1);
    if (w != picture->w || h != picture->h) {
        st = dr_image_crop(&small, picture, (dr_rect){ .w = picture->w, .h = picture->h },
                           err);
        if (!st)
            st = dr_image_resize(&small, w, h, DR_FIT_STRETCH, err);
        picture = &small;
    }
    if (!st)
        paste(&s->image, picture, side(i % s->columns, s->w) + (s->w - w) / 2,
              side(i / s->columns, s->h) + (s->h - h) / 2);
    dr_image_free(&small);
    return st;
}
