#ifndef OPS_KIT_H
#define OPS_KIT_H

#include "base/arena.h"
#include "base/conf.h"
#include "base/embed.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "dev/dev.h"
#include "op/merge.h"
#include "op/op.h"
#include "op/ref.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What the tests of operations share: one device for a program, tensors of noise that are
 * here and there at once, random shapes from a counter. Failures end the test through
 * cmocka. Header only: each program includes it once. */

#define LIMIT     1e-5 /* relative L2 of an operation in fp32 */
#define RUN_BYTES ((size_t)64 << 20)

typedef struct {
    dr_conf conf;
    dr_dev *dev;
    dr_run run;
    dr_arena *mem;
    uint32_t draws;
} kit;

/* The device of the settings; row_group > 0 builds the kernels as a GPU would get them, and
 * those for CPUs for vectors of 16 floats, otherwise of 8. */
static inline int kit_open(kit *k, int row_group)
{
    dr_err err = { 0 };
    *k = (kit){ .mem = dr_arena_new() };
    /* Not what an earlier program measured: the kernels of this type of device. */
    if (dr_conf_init(&k->conf, &err) || dr_conf_env(&k->conf, &err) ||
        dr_conf_set(&k->conf, "device.tune", "off", &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    k->conf.device.row_group = row_group ? row_group : k->conf.device.row_group;
    k->conf.device.lanes = row_group ? 16 : 8;
    if (dr_dev_open(&k->dev, &k->conf, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    dr_run_init(&k->run, k->dev, (size_t)32 << 20, (size_t)32 << 20);
    if (dr_run_reserve(&k->run, RUN_BYTES, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    return 0;
}

static inline void kit_close(kit *k)
{
    dr_run_free(&k->run);
    dr_dev_close(k->dev);
    dr_conf_free(&k->conf);
    dr_arena_free(k->mem);
    *k = (kit){ 0 };
}

/* Forget the last case's tensors and tile sizes. */
static inline void kit_begin(kit *k)
{
    dr_run_reset(&k->run, false);
    dr_arena_reset(k->mem);
    k->run.attention_tile_bytes = k->run.conv_tile_bytes = (size_t)32 << 20;
}

static inline void kit_ok(kit *k)
{
    if (k->run.err.code)
        fail_msg("%s", k->run.err.message);
}

/* A whole number in lo..hi, the next of the program's fixed sequence. */
static inline int64_t kit_pick(kit *k, int64_t lo, int64_t hi)
{
    uint32_t out[4], counter[4] = { ++k->draws }, key[2] = { 7, 11 };
    dr_philox4x32(out, counter, key);
    return lo + out[0] % (hi - lo + 1);
}

static inline float *kit_host(kit *k, int64_t count)
{
    float *x = dr_arena_alloc(k->mem, (size_t)count * sizeof *x);
    assert_non_null(x);
    return x;
}

/* Noise · std + mean, here and on the device. */
static inline dr_tensor kit_noise(kit *k, float **x, float mean, float std, int64_t n,
                                  int64_t h, int64_t w, int64_t c)
{
    int64_t count = n * h * w * c;
    dr_tensor t = dr_new(&k->run, n, h, w, c);
    *x = kit_host(k, count);
    dr_philox_normal(*x, (size_t)count, 5, 0, ++k->draws);
    for (int64_t i = 0; i < count; i++)
        (*x)[i] = (*x)[i] * std + mean;
    dr_upload(&k->run, t, *x);
    kit_ok(k);
    return t;
}

static inline dr_tensor kit_tensor(kit *k, float **x, int64_t n, int64_t h, int64_t w,
                                   int64_t c)
{
    return kit_noise(k, x, 0.0f, 1.0f, n, h, w, c);
}

/* y equals want within limit; what says which case this was. */
static inline void kit_compare(kit *k, dr_tensor y, const float *want, double limit,
                               const char *what)
{
    int64_t count = dr_count(y);
    float *have = kit_host(k, count);
    kit_ok(k);
    dr_download(&k->run, y, have);
    kit_ok(k);
    double distance = ref_distance(have, want, count);
    if (!(distance <= limit))
        fail_msg("%s: relative difference %.3g, at most %.0e is right", what, distance,
                 limit);
}

/* A weight matrix with its bias; bias false: none. Scaled so that a product of unit noise
 * has about unit size. */
static inline dr_weight_mat kit_matrix(kit *k, float **w, float **b, int64_t in,
                                       int64_t out, int kh, int kw, bool bias)
{
    dr_weight_mat m = { .kh = kh, .kw = kw, .in = in, .out = out };
    m.w = kit_noise(k, w, 0.0f, 0.3f, 1, 1, in * kh * kw, out);
    *b = NULL;
    if (bias)
        m.b = kit_tensor(k, b, 1, 1, 1, out);
    return m;
}

/* The same weights packed as floats; m itself where the device has no packed kernels. */
static inline dr_weight_mat kit_packed(kit *k, dr_weight_mat m)
{
    dr_weight_mat p = m;
    if (!dr_packed(k->dev))
        return p;
    p.layout = DR_PACKED;
    p.w = dr_new(&k->run, 1, 1, 1, op_weight_floats(p.layout, m.w.w, m.w.c));
    p.w.w = m.w.w;
    p.w.c = m.w.c;
    op_write_weight(&k->run, m.w, p.w, p.layout);
    return p;
}

static inline dr_weight_norm kit_norm(kit *k, float **w, float **b, int64_t c,
                                      int64_t groups)
{
    dr_weight_norm m = { .eps = 1e-5f, .groups = groups };
    m.w = kit_tensor(k, w, 1, 1, 1, c);
    m.b = kit_tensor(k, b, 1, 1, 1, c);
    return m;
}

#define KIT_SAY(text, ...)                                                                 \
    char text[160];                                                                        \
    snprintf(text, sizeof text, __VA_ARGS__)

/* cmocka group fixtures: *state is a kit, as the device wants the kernels, or as GPUs get
 * them. */
static inline int kit_open_group(void **state, int row_group)
{
    kit *k = dr_alloc(sizeof *k);
    *state = k;
    return k ? kit_open(k, row_group) : -1;
}

static inline int kit_setup(void **state)
{
    return kit_open_group(state, 0);
}

static inline int kit_setup_wide(void **state)
{
    return kit_open_group(state, 64);
}

static inline int kit_teardown(void **state)
{
    kit_close(*state);
    dr_free(*state);
    return 0;
}

/* --- wrong kernels, for device.cl_dir --- */

/* One slip in a kernel and what must find it. */
typedef struct {
    const char *file, *right, *wrong, *op;
} kit_slip;

/* Write the kernels to dir, with s made in its file. */
static inline void kit_write_kernels(const char *dir, const kit_slip *s)
{
    char path[DR_PATH_MAX];
    for (const dr_embedded *e = dr_kernel_files; e->name; e++) {
        dr_buf text = { 0 };
        const char *at = strcmp(e->name, s->file) ? NULL : strstr(e->text, s->right);
        if (!strcmp(e->name, s->file) && !at)
            fail_msg("%s no longer has \"%s\"", s->file, s->right);
        if (at) {
            dr_buf_put(&text, e->text, (size_t)(at - e->text));
            dr_buf_puts(&text, s->wrong);
        }
        dr_buf_puts(&text, at ? at + strlen(s->right) : e->text);
        assert_int_equal(dr_path_join(path, dir, e->name, NULL), DR_OK);
        assert_int_equal(dr_file_write(path, text.data, text.len, NULL), DR_OK);
        dr_buf_free(&text);
    }
}

static inline void kit_remove_kernels(const char *dir)
{
    char path[DR_PATH_MAX];
    for (const dr_embedded *e = dr_kernel_files; e->name; e++) {
        assert_int_equal(dr_path_join(path, dir, e->name, NULL), DR_OK);
        unlink(path);
    }
}

#endif
