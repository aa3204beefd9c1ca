#include "golden.h"

#include "base/file.h"
#include "base/mem.h"
#include "diffusion/pipeline.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static void must(dr_status st, const char *what, const dr_err *err)
{
    if (st)
        fail_msg("%s: %s", what, err->message);
}

/* --- fixtures --- */

golden *golden_open(const char *dir)
{
    char path[DR_PATH_MAX];
    dr_err err = { 0 };
    golden *g = dr_alloc(sizeof *g);
    assert_non_null(g);
    assert_non_null(g->mem = dr_arena_new());
    must(dr_conf_init(&g->conf, &err), "settings", &err);
    must(dr_conf_env(&g->conf, &err), "settings", &err);
    must(dr_conf_set(&g->conf, "device.tune", "off", &err), "settings", &err);
    must(dr_path_join(path, dir, "cases.json", &err), dir, &err);
    must(dr_json_read(&g->cases, path, &err), path, &err);
    must(dr_weights_open(&g->stages, dir, "stages", &err), dir, &err);
    return g;
}

void golden_close(golden *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_kept; i++)
        dr_model_close(g->kept[i]);
    dr_pool_free(g->pool);
    dr_dev_close(g->dev);
    dr_weights_close(g->stages);
    dr_json_free(g->cases);
    dr_arena_free(g->mem);
    dr_conf_free(&g->conf);
    dr_free(g);
}

const dr_weight *golden_raw(golden *g, const char *name)
{
    const dr_weight *t = name ? dr_weights_find(g->stages, name) : NULL;
    if (!t)
        fail_msg("stages.safetensors has no tensor %s", name ? name : "(null)");
    return t;
}

golden_tensor golden_get(golden *g, const char *name)
{
    const dr_weight *t = golden_raw(g, name);
    if (t->type != DR_WEIGHT_F32 || t->ndim < 1)
        fail_msg("%s: %d dimensions of %s", name, t->ndim, t->dtype);
    bool planes = t->ndim == 4;
    golden_tensor x = { .n = t->ndim > 1 ? t->dim[0] : 1,
                        .h = planes ? t->dim[2] : 1,
                        .w = planes ? t->dim[3] : 1,
                        .c = planes ? t->dim[1] : t->dim[t->ndim - 1] };
    for (int i = 1; !planes && i < t->ndim - 1; i++)
        x.h *= t->dim[i];
    x.data = dr_arena_alloc(g->mem, t->bytes);
    assert_non_null(x.data);
    const char *from = t->data;
    int64_t at = 0, pixels = x.h * x.w;
    for (int64_t n = 0; n < x.n; n++)
        for (int64_t p = 0; p < pixels; p++)
            for (int64_t c = 0; c < x.c; c++, at++) {
                int64_t i = planes ? (n * x.c + c) * pixels + p : at;
                memcpy(&x.data[at], from + (size_t)i * sizeof(float), sizeof(float));
            }
    return x;
}

golden_tensor golden_of(golden *g, const dr_json *item, const char *key)
{
    return golden_get(g, dr_json_get_string(item, key, NULL));
}

/* --- models --- */

void golden_device(golden *g)
{
    dr_err err = { 0 };
    if (!g->dev)
        must(dr_dev_open(&g->dev, &g->conf, &err), "device", &err);
}

static void load_clip(golden *g, dr_loader *l)
{
    dr_clip_load(&g->clip, l, l->config, g->mem);
}

static void load_unet(golden *g, dr_loader *l)
{
    dr_unet_load(&g->unet, l, l->config, g->mem);
}

static void load_vae(golden *g, dr_loader *l)
{
    dr_vae_load(&g->vae, l, l->config, g->mem);
}

static const struct {
    const char *folder, *stem;
    void (*load)(golden *g, dr_loader *l);
} components[] = {
    { "text_encoder", "model", load_clip },
    { "unet", "diffusion_pytorch_model", load_unet },
    { "vae", "diffusion_pytorch_model", load_vae },
};

static dr_status load(golden *g, size_t i, const char *path, dr_err *err)
{
    dr_loader l;
    dr_status st = dr_loader_open_component(&l, g->dev, g->pool, path, components[i].folder,
                                            components[i].stem, err);
    if (st)
        return st;
    components[i].load(g, &l);
    return dr_loader_close(&l, err);
}

dr_status golden_load(golden *g, const char *path, dr_err *err)
{
    dr_status st = DR_OK;
    g->clip = (dr_clip){ 0 };
    g->unet = (dr_unet){ 0 };
    g->vae = (dr_vae){ 0 };
    dr_pool_free(g->pool);
    g->pool = dr_pool_new(g->dev);
    assert_non_null(g->pool);
    for (size_t i = 0; i < DR_COUNT(components) && !st; i++)
        st = load(g, i, path, err);
    if (st)
        return st;
    g->kv = dr_arena_alloc(g->mem, (size_t)g->unet.n_kv * sizeof *g->kv);
    assert_non_null(g->kv);
    return DR_OK;
}

static int setup(void **state, const char *dir)
{
    dr_err err = { 0 };
    golden *g = *state = golden_open(dir);
    golden_device(g);
    must(golden_load(g, dr_json_get_string(g->cases, "model", ""), &err), dir, &err);
    return 0;
}

int golden_demo(void **state)
{
    return setup(state, "tests/golden/demo");
}

int golden_tiny(void **state)
{
    return setup(state, "tests/golden/tiny-sd1");
}

int golden_teardown(void **state)
{
    golden *g = *state;
    print_message("largest relative L2: %.3g\n", g->worst);
    golden_close(g);
    return 0;
}

void *golden_begin(void **state, const char *dir, size_t size)
{
    golden *g = golden_open(dir);
    golden **f = *state = dr_arena_alloc(g->mem, size);
    assert_non_null(f);
    golden_device(g);
    *f = g;
    return f;
}

int golden_end(void **state)
{
    void *g = *(golden **)*state;
    return golden_teardown(&g);
}

/* --- comparisons --- */

double golden_l2(const float *have, const float *want, size_t count)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)have[i] - want[i];
        if (!isfinite(d))
            return INFINITY;
        error += d * d;
        norm += (double)want[i] * want[i];
    }
    return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

void golden_near(golden *g, const char *what, const float *have, const float *want,
                 size_t count, double limit)
{
    double d = golden_l2(have, want, count);
    if (!(d <= limit))
        fail_msg("%s: relative L2 %.3g, at most %.3g is allowed; the first of %zu values "
                 "are %g %g %g, should be %g %g %g",
                 what, d, limit, count, have[0], count > 1 ? have[1] : 0,
                 count > 2 ? have[2] : 0, want[0], count > 1 ? want[1] : 0,
                 count > 2 ? want[2] : 0);
    if (d > g->worst)
        g->worst = d;
}

double golden_psnr(const uint8_t *a, const uint8_t *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)(a[i] - b[i]) * (a[i] - b[i]);
    return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)count / sum) : INFINITY;
}

/* --- runs --- */

static void must_run(const dr_run *r, const char *how)
{
    if (r->err.code)
        fail_msg("%s run: %s", how, r->err.message);
}

void golden_run(golden *g, golden_body *body, void *ctx, size_t tile_bytes,
                void (*tap)(void *ctx, const char *name, dr_tensor x))
{
    dr_run r;
    dr_err err = { 0 };
    dr_run_init(&r, g->dev,
                tile_bytes ? tile_bytes : (size_t)g->conf.device.attention_tile_mb * MIB,
                tile_bytes ? tile_bytes : (size_t)g->conf.device.conv_tile_mb * MIB);
    dr_run_reset(&r, true);
    body(&r, ctx);
    must_run(&r, "dry");
    size_t peak = r.peak_bytes;
    double flops = r.flops;
    must(dr_run_reserve(&r, peak, &err), "memory", &err);
    dr_run_reset(&r, false);
    r.tap = tap;
    r.tap_ctx = ctx;
    body(&r, ctx);
    must_run(&r, "real");
    assert_int_equal(r.peak_bytes, peak);
    assert_true(r.flops == flops);
    dr_run_free(&r);
}

dr_tensor golden_put(dr_run *r, golden_tensor x)
{
    dr_tensor t = dr_new(r, x.n, x.h, x.w, x.c);
    dr_upload(r, t, x.data);
    return t;
}

/* --- changed copies of a model --- */

/* Call act(ctx, path, name) for every entry of a folder. */
static void each_entry(const char *dir,
                       void (*act)(void *ctx, const char *path, const char *name),
                       void *ctx)
{
    char path[DR_PATH_MAX];
    struct dirent *e;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        assert_int_equal(dr_path_join(path, dir, e->d_name, NULL), DR_OK);
        act(ctx, path, e->d_name);
    }
    closedir(d);
}

typedef struct {
    const char *dir, *but;
} link_plan;

static void link_entry(void *ctx, const char *path, const char *name)
{
    const link_plan *plan = ctx;
    char whole[DR_PATH_MAX], to[DR_PATH_MAX];
    if (plan->but && !strcmp(plan->but, name))
        return;
    assert_non_null(realpath(path, whole));
    assert_int_equal(dr_path_join(to, plan->dir, name, NULL), DR_OK);
    assert_int_equal(symlink(whole, to), 0);
}

void golden_link_model(char *dir, const char *source, const char *but)
{
    assert_non_null(mkdtemp(dir));
    each_entry(source, link_entry, &(link_plan){ dir, but });
}

static void remove_file(void *ctx, const char *path, const char *name)
{
    (void)ctx;
    (void)name;
    assert_int_equal(unlink(path), 0);
}

static void remove_entry(void *ctx, const char *path, const char *name)
{
    if (!unlink(path))
        return;
    each_entry(path, remove_file, ctx);
    assert_int_equal(rmdir(path), 0);
    (void)name;
}

void golden_remove_model(const char *dir)
{
    each_entry(dir, remove_entry, NULL);
    assert_int_equal(rmdir(dir), 0);
}
