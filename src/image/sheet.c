#include "image/sheet.h"

#include "image/resample.h"

#include <string.h>

#define BORDER 4 /* pixels */

typedef struct {
    int64_t columns, rows;
    int64_t w, h; /* of a cell, without border */
} grid;

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A sheet's side for n cells of so many pixels. */
static int64_t side(int64_t n, int64_t pixels)
{
    return n * (pixels + BORDER) + BORDER;
}

/* The number of columns with the smallest longer side; of equal ones the most. */
static grid arrange(const dr_image *pictures, int n)
{
    grid best = { 0 };
    int64_t w = 1, h = 1, shortest = INT64_MAX;
    for (int i = 0; i < n; i++) {
        w = larger(w, pictures[i].w);
        h = larger(h, pictures[i].h);
    }
    for (int64_t columns = 1; columns <= n; columns++) {
        const int64_t rows = (n + columns - 1) / columns;
        const int64_t longer = larger(side(columns, w), side(rows, h));
        if (longer > shortest)
            continue;
        shortest = longer;
        best = (grid){ columns, rows, w, h };
    }
    return best;
}

/* Make cells smaller until the sheet fits; the shape of a cell is kept. */
static void shrink(grid *g, int64_t side_max)
{
    const grid full = *g;
    const int64_t w = (side_max - BORDER) / g->columns - BORDER,
                  h = (side_max - BORDER) / g->rows - BORDER;
    if (g->w > w) {
        g->w = w;
        g->h = full.h * w / full.w;
    }
    if (g->h > h) {
        g->h = h;
        g->w = full.w * h / full.h;
    }
}

static void paste(dr_image *to, const dr_image *from, int64_t x, int64_t y)
{
    for (int64_t row = 0; row < from->h; row++)
        memcpy(to->px + 3 * ((y + row) * to->w + x), from->px + 3 * row * from->w,
               (size_t)(3 * from->w));
}

/* Put a picture into cell i; `cell` is the cells' full size. */
static dr_status place(dr_image *sheet, const grid *g, const grid *cell, int i,
                       const dr_image *picture, dr_err *err)
{
    dr_image small = { 0 };
    dr_status st = DR_OK;
    const int64_t w = larger(picture->w * g->w / cell->w, 1),
                  h = larger(picture->h * g->h / cell->h, 1);
    if (w != picture->w || h != picture->h) {
        st = dr_image_crop(&small, picture, (dr_rect){ .w = picture->w, .h = picture->h },
                           err);
        if (!st)
            st = dr_image_resize(&small, w, h, DR_FIT_STRETCH, err);
        picture = &small;
    }
    if (!st)
        paste(sheet, picture, side(i % g->columns, g->w) + (g->w - w) / 2,
              side(i / g->columns, g->h) + (g->h - h) / 2);
    dr_image_free(&small);
    return st;
}

dr_status dr_image_sheet(dr_image *out, const dr_image *pictures, int n, int64_t side_max,
                         dr_err *err)
{
    const grid full = arrange(pictures, n);
    grid g = full;
    *out = (dr_image){ 0 };
    shrink(&g, side_max);
    if (g.w < 1 || g.h < 1)
        return dr_fail(err, DR_EINVAL,
                       "contact sheet: %d pictures do not fit %lld x %lld pixels", n,
                       (long long)side_max, (long long)side_max);
    dr_status st = dr_image_new(out, side(g.columns, g.w), side(g.rows, g.h), 3, err);
    if (st)
        return st;
    memset(out->px, 255, dr_image_bytes(out));
    for (int i = 0; i < n && !st; i++)
        st = place(out, &g, &full, i, &pictures[i], err);
    if (st)
        dr_image_free(out);
    return st;
}
