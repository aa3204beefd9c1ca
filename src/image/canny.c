#include "image/canny.h"

#include "base/mem.h"

#include <stdlib.h>

/* All planes have a frame of one pixel, so that neighbours need no bounds. */

typedef struct {
    int16_t x, y;
} gradient;

enum { NO_EDGE, WEAK, EDGE };

typedef struct {
    int64_t w, h, stride; /* stride: of a plane, w + 2 */
    gradient *g;
    uint8_t *kind;  /* NO_EDGE… */
    int64_t *stack; /* edges whose neighbours are still to be looked at */
    int64_t n_stack;
} canny;

static int64_t at(const canny *c, int64_t x, int64_t y)
{
    return (y + 1) * c->stride + x + 1;
}

static int size(gradient g)
{
    return abs(g.x) + abs(g.y);
}

/* Sobel of one channel; px: [3] rows, x: [3] columns in bytes. */
static gradient sobel(const uint8_t *const px[3], const int64_t x[3])
{
    int dx = px[0][x[2]] - px[0][x[0]] + 2 * (px[1][x[2]] - px[1][x[0]]) + px[2][x[2]] -
             px[2][x[0]];
    int dy = px[2][x[0]] - px[0][x[0]] + 2 * (px[2][x[1]] - px[0][x[1]]) + px[2][x[2]] -
             px[0][x[2]];
    return (gradient){ (int16_t)dx, (int16_t)dy };
}

static int64_t within(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

static void find_gradients(canny *c, const dr_image *im)
{
    for (int64_t y = 0; y < c->h; y++)
        for (int64_t x = 0; x < c->w; x++) {
            gradient best = { 0, 0 };
            for (int64_t k = 0; k < im->channels; k++) {
                const uint8_t *rows[3];
                int64_t columns[3];
                for (int64_t i = 0; i < 3; i++) {
                    rows[i] = im->px + within(y + i - 1, c->h) * c->w * im->channels + k;
                    columns[i] = within(x + i - 1, c->w) * im->channels;
                }
                gradient g = sobel(rows, columns);
                best = size(g) > size(best) ? g : best;
            }
            c->g[at(c, x, y)] = best;
        }
}

/* Whether the pixel i is the largest along its gradient, in one of four directions. The
 * slopes 22.5 and 67.5 degrees are OpenCV's, in 15 bits. */
static bool is_ridge(const canny *c, int64_t i)
{
    enum { TAN_22 = 13573, BITS = 15 };
    const gradient g = c->g[i];
    const int64_t x = abs(g.x), y = (int64_t)abs(g.y) << BITS;
    const int64_t lower = x * TAN_22, upper = lower + (x << (BITS + 1));
    const int m = size(g);
    if (y < lower)
        return m > size(c->g[i - 1]) && m >= size(c->g[i + 1]);
    if (y > upper)
        return m > size(c->g[i - c->stride]) && m >= size(c->g[i + c->stride]);
    const int64_t s = (g.x ^ g.y) < 0 ? -1 : 1;
    return m > size(c->g[i - c->stride - s]) && m > size(c->g[i + c->stride + s]);
}

static void push(canny *c, int64_t i)
{
    c->kind[i] = EDGE;
    c->stack[c->n_stack++] = i;
}

static void thin(canny *c, int low, int high)
{
    for (int64_t y = 0; y < c->h; y++)
        for (int64_t x = 0; x < c->w; x++) {
            const int64_t i = at(c, x, y);
            if (size(c->g[i]) <= low || !is_ridge(c, i))
                continue;
            if (size(c->g[i]) > high)
                push(c, i);
            else
                c->kind[i] = WEAK;
        }
}

/* Weak pixels next to an edge become edges. */
static void connect_edges(canny *c)
{
    const int64_t s = c->stride;
    const int64_t around[] = { -s - 1, -s, -s + 1, -1, 1, s - 1, s, s + 1 };
    while (c->n_stack) {
        const int64_t i = c->stack[--c->n_stack];
        for (size_t k = 0; k < DR_COUNT(around); k++)
            if (c->kind[i + around[k]] == WEAK)
                push(c, i + around[k]);
    }
}

dr_status dr_image_canny(dr_image *out, const dr_image *im, int low, int high, dr_err *err)
{
    canny c = { .w = im->w, .h = im->h, .stride = im->w + 2 };
    const size_t n = (size_t)(c.stride * (c.h + 2));
    dr_status st = dr_image_new(out, im->w, im->h, 3, err);
    if (st)
        return st;
    c.g = dr_alloc(n * sizeof *c.g);
    c.kind = dr_alloc(n);
    c.stack = dr_alloc(n * sizeof *c.stack);
    if (c.g && c.kind && c.stack) {
        find_gradients(&c, im);
        thin(&c, low, high);
        connect_edges(&c);
        for (int64_t i = 0; i < 3 * c.w * c.h; i++)
            out->px[i] = c.kind[at(&c, i / 3 % c.w, i / 3 / c.w)] == EDGE ? 255 : 0;
    } else {
        st = dr_fail(err, DR_ENOMEM, "canny: out of memory");
        dr_image_free(out);
    }
    dr_free(c.g);
    dr_free(c.kind);
    dr_free(c.stack);
    return st;
}
