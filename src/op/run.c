#include "op/run.h"

#include "base/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ALIGN_BYTES ((size_t)256)
#define SLABS_MAX   64

struct dr_slab {
    dr_mem *mem; /* NULL in a dry run */
    size_t size;
};

/* Largest slab. Without a device (a dry run for its numbers only) there is no limit. */
static size_t slab_limit(const dr_run *r)
{
    size_t limit = r->dev ? (size_t)dr_max_alloc(r->dev) : SIZE_MAX / 4;
    return limit / ALIGN_BYTES * ALIGN_BYTES;
}

void dr_run_init(dr_run *r, dr_dev *dev, size_t attention_tile_bytes,
                 size_t conv_tile_bytes)
{
    *r = (dr_run){ .dev = dev,
                   .attention_tile_bytes = attention_tile_bytes,
                   .conv_tile_bytes = conv_tile_bytes };
}

static void free_slabs(dr_run *r)
{
    for (int i = 0; i < r->n_slabs; i++)
        dr_mem_free(r->dev, r->slabs[i].mem);
    dr_free(r->slabs);
    r->slabs = NULL;
    r->n_slabs = 0;
}

void dr_run_free(dr_run *r)
{
    if (r->dev)
        free_slabs(r);
    *r = (dr_run){ 0 };
}

void dr_run_reset(dr_run *r, bool dry)
{
    r->err = (dr_err){ 0 };
    r->dry = dry;
    r->flops = 0;
    r->peak_bytes = 0;
    r->host_bytes = 0;
    r->host_peak_bytes = 0;
    r->slab = 0;
    r->used = 0;
}

/* Slabs of one device allocation each: the first ones full, the last one what is left. A
 * tensor never spans two; the ends that stay empty are part of the peak. */
dr_status dr_run_reserve(dr_run *r, size_t bytes, dr_err *err)
{
    size_t have = 0, limit = slab_limit(r);
    for (int i = 0; i < r->n_slabs; i++)
        have += r->slabs[i].size;
    if (bytes <= have)
        return DR_OK;
    free_slabs(r);
    r->slabs = dr_alloc(SLABS_MAX * sizeof *r->slabs);
    if (!r->slabs)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (size_t left = bytes; left;) {
        size_t size = left < limit ? left : limit;
        if (r->n_slabs == SLABS_MAX)
            return dr_fail(err, DR_ENOMEM, "%zu bytes of activations need too many buffers",
                           bytes);
        dr_status st = dr_mem_new(&r->slabs[r->n_slabs].mem, r->dev, size, err);
        if (st) {
            free_slabs(r);
            dr_err_wrap(err, "%zu bytes for activations", bytes);
            return st;
        }
        r->slabs[r->n_slabs++].size = size;
        left -= size;
    }
    return DR_OK;
}

dr_mark dr_push(dr_run *r)
{
    return (dr_mark){ .slab = r->slab, .used = r->used };
}

void dr_pop(dr_run *r, dr_mark m)
{
    assert(m.slab < r->slab || (m.slab == r->slab && m.used <= r->used));
    r->slab = m.slab;
    r->used = m.used;
}

dr_tensor dr_new(dr_run *r, int64_t n, int64_t h, int64_t w, int64_t c)
{
    dr_tensor x = { .n = n, .h = h, .w = w, .c = c };
    size_t bytes = sizeof(float), limit = slab_limit(r);
    if (r->err.code)
        return x;
    if (n <= 0 || h <= 0 || w <= 0 || c <= 0) {
        dr_fail(&r->err, DR_ESHAPE, "a tensor of [%lld, %lld, %lld, %lld] holds nothing",
                (long long)n, (long long)h, (long long)w, (long long)c);
        return x;
    }
    if (dr_mul(&bytes, bytes, (size_t)n, &r->err) ||
        dr_mul(&bytes, bytes, (size_t)h, &r->err) ||
        dr_mul(&bytes, bytes, (size_t)w, &r->err) ||
        dr_mul(&bytes, bytes, (size_t)c, &r->err) || bytes > limit) {
        dr_fail(&r->err, DR_ENOMEM,
                "a tensor [%lld, %lld, %lld, %lld] is more than the device allows in one "
                "buffer (%zu bytes)",
                (long long)n, (long long)h, (long long)w, (long long)c, limit);
        return x;
    }
    bytes = (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (bytes > limit - r->used) { /* the next slab; this one is full-sized by now */
        r->slab++;
        r->used = 0;
    }
    if (!r->dry) {
        if (r->slab >= r->n_slabs || r->used + bytes > r->slabs[r->slab].size) {
            dr_fail(&r->err, DR_ENOMEM, "activations outgrew what the dry run found");
            return x;
        }
        x.mem = r->slabs[r->slab].mem;
    }
    x.at = r->used / sizeof(float);
    r->used += bytes;
    size_t total = limit * (size_t)r->slab + r->used;
    if (total > r->peak_bytes)
        r->peak_bytes = total;
    return x;
}

void dr_upload(dr_run *r, dr_tensor x, const float *p)
{
    if (!r->err.code && !r->dry)
        (void)!dr_mem_write(r->dev, x.mem, x.at * sizeof(float), p,
                            (size_t)dr_count(x) * sizeof(float), &r->err);
}

void dr_download(dr_run *r, dr_tensor x, float *p)
{
    if (r->err.code || r->dry)
        memset(p, 0, (size_t)dr_count(x) * sizeof(float));
    else
        (void)!dr_mem_read(r->dev, x.mem, x.at * sizeof(float), p,
                           (size_t)dr_count(x) * sizeof(float), &r->err);
}

void dr_show(dr_run *r, dr_tensor x, const char *name, ...)
{
    char text[128];
    va_list ap;
    if (!r->tap || r->dry || r->err.code)
        return;
    va_start(ap, name);
    vsnprintf(text, sizeof text, name, ap);
    va_end(ap);
    r->tap(r->tap_ctx, text, x);
}
