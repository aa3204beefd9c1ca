#include "diffusion/controls.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "diffusion/loras.h"
#include "op/selftest.h"
#include "op/tune.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

/* --- what a folder is --- */

void dr_model_name_of(char out[DR_MODEL_NAME], const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t first = n;
    while (first > 0 && path[first - 1] != '/')
        first--;
    snprintf(out, DR_MODEL_NAME, "%.*s", (int)(n - first), path + first);
    /* The demo model's folder is called by what it holds. */
    if (!strcmp(out, "model") && strstr(path, "demo-model"))
        snprintf(out, DR_MODEL_NAME, "demo-model");
}

/* The families this program runs, by model_index.json's class. Which one a model belongs to
 * shows in its UNet: some that were trained to inpaint are called by the plain name. */
static const char plain_family[] = "StableDiffusionPipeline";
static const char inpaint_family[] = "StableDiffusionInpaintPipeline";

bool dr_model_inpaints(const dr_model *m)
{
    return m->unet.in_c != m->unet.out_c;
}

const char *dr_model_family(const dr_model *m)
{
    return dr_model_inpaints(m) ? inpaint_family : plain_family;
}

dr_status dr_model_check(const char *path, dr_err *err)
{
    char file[DR_PATH_MAX];
    dr_json *index = NULL;
    dr_status st;
    if (!dr_dir_exists(path))
        return dr_fail(err, DR_ENOTFOUND, "%s: no such model folder", path);
    if ((st = dr_path_join(file, path, "model_index.json", err)))
        return st;
    errno = 0;
    if (!dr_file_exists(file))
        return errno && errno != ENOENT
                   ? dr_fail(err, DR_EIO, "%s: %s", file, strerror(errno))
                   : dr_fail(err, DR_ENOTFOUND,
                             "%s: no model_index.json; a model is a folder in diffusers "
                             "layout",
                             path);
    if ((st = dr_json_read(&index, file, err)))
        return st;
    const char *family = dr_json_get_string(index, "_class_name", "missing");
    if (strcmp(family, plain_family) != 0 && strcmp(family, inpaint_family) != 0)
        st = dr_fail(err, DR_EMODEL, "%s: _class_name is %s; known are %s and %s", file,
                     family, plain_family, inpaint_family);
    dr_json_free(index);
    return st;
}

/* --- loading --- */

typedef struct {
    void (*progress)(void *ctx, double share);
    void *ctx;
    double first, share; /* this component's part of the whole */
} load_progress;

static void on_share(void *ctx, double share)
{
    load_progress *p = ctx;
    p->progress(p->ctx, p->first + p->share * share);
}

static void load_clip(dr_model *m, dr_loader *l)
{
    dr_clip_load(&m->clip, l, l->config, m->mem);
}

static void load_unet(dr_model *m, dr_loader *l)
{
    dr_unet_load(&m->unet, l, l->config, m->mem);
}

static void load_vae(dr_model *m, dr_loader *l)
{
    dr_vae_load(&m->vae, l, l->config, m->mem);
}

static const struct {
    const char *folder, *stem;
    void (*load)(dr_model *m, dr_loader *l);
    double first, share; /* of the loading time, by the size the parts usually have */
} components[DR_PARTS] = {
    { "text_encoder", "model", load_clip, 0.0, 0.1 },
    { "unet", "diffusion_pytorch_model", load_unet, 0.1, 0.8 },
    { "vae", "diffusion_pytorch_model", load_vae, 0.9, 0.1 },
};

/* The one place that counts a model's weights. */
static dr_part count(size_t i, const dr_weights *w)
{
    dr_part p = { .folder = components[i].folder, .tensors = dr_weights_count(w) };
    for (size_t k = 0; k < p.tensors; k++) {
        const dr_weight *t = dr_weights_at(w, k);
        p.parameters += dr_weight_count(t);
        p.file_bytes += t->bytes;
        p.f32 += t->type == DR_WEIGHT_F32;
        p.f16 += t->type == DR_WEIGHT_F16;
        p.bf16 += t->type == DR_WEIGHT_BF16;
    }
    return p;
}

int64_t dr_model_memory(const dr_dev *dev, int64_t memory_mb)
{
    return memory_mb ? memory_mb * (int64_t)MIB
                     : (int64_t)(dr_dev_describe(dev)->memory_bytes / 4 * 3);
}

int64_t dr_parts_bytes(const dr_part parts[DR_PARTS])
{
    int64_t bytes = 0;
    for (int i = 0; i < DR_PARTS; i++)
        bytes += parts[i].parameters * (int64_t)sizeof(float);
    return bytes;
}

dr_status dr_model_need(int64_t *bytes, const char *path, dr_err *err)
{
    dr_part parts[DR_PARTS];
    char dir[DR_PATH_MAX];
    dr_status st = dr_model_check(path, err);
    for (size_t i = 0; i < DR_PARTS && !st; i++) {
        dr_weights *w = NULL;
        if ((st = dr_path_join(dir, path, components[i].folder, err)) ||
            (st = dr_weights_open(&w, dir, components[i].stem, err)))
            return st;
        parts[i] = count(i, w);
        dr_weights_close(w);
    }
    if (!st)
        *bytes = dr_parts_bytes(parts);
    return st;
}

static dr_status load_component(dr_model *m, size_t i, load_progress *p, dr_err *err)
{
    dr_loader l;
    dr_status st = dr_loader_open_component(&l, m->dev, m->pool, m->path,
                                            components[i].folder, components[i].stem, err);
    if (st)
        return st;
    m->parts[i] = count(i, l.files);
    if (m->dev)
        m->digest[i] = dr_loader_digest(&l);
    m->mats[i].mem = m->mem;
    l.mats = &m->mats[i];
    p->first = components[i].first;
    p->share = components[i].share;
    l.progress = p->progress ? on_share : NULL;
    l.ctx = p;
    components[i].load(m, &l);
    return dr_loader_close(&l, err);
}

/* The decoder for previews, optional: diffusers' AutoencoderTiny in the folder taesd, or
 * the original file beside the others. */
static dr_status load_tiny(dr_model *m, dr_err *err)
{
    char dir[DR_PATH_MAX], path[DR_PATH_MAX];
    const char *stem = "diffusion_pytorch_model";
    dr_json *config = NULL;
    dr_loader l = { 0 };
    dr_status st;
    if ((st = dr_path_join(dir, m->path, "taesd", err)) ||
        (st = dr_path_join(path, dir, "config.json", err)))
        return st;
    if (dr_dir_exists(dir)) {
        st = dr_json_read(&config, path, err);
    } else if (!(st = dr_path_join(path, m->path, "taesd_decoder.safetensors", err))) {
        if (!dr_file_exists(path))
            return DR_OK;
        stem = "taesd_decoder";
        snprintf(dir, sizeof dir, "%s", m->path);
    }
    if (st || (st = dr_loader_open(&l, m->dev, m->pool, "taesd", dir, stem, err)))
        goto done;
    dr_taesd_load(&m->tiny, &l, config);
    st = dr_loader_close(&l, err);
    if (!st && (m->tiny.latent_c != m->vae.latent_c || m->vae.factor != 8))
        st =
            dr_fail(err, DR_EMODEL,
                    "%s: taesd has %lld latents of 8 pixels, vae %lld of %lld; they do not "
                    "belong together",
                    m->path, (long long)m->tiny.latent_c, (long long)m->vae.latent_c,
                    (long long)m->vae.factor);
done:
    dr_json_free(config);
    return st;
}

/* darkroom.json, optional: what the model's makers recommend. */
static dr_status read_defaults(dr_model *m, dr_err *err)
{
    char file[DR_PATH_MAX];
    dr_json *j = NULL;
    dr_status st = dr_path_join(file, m->path, "darkroom.json", err);
    m->defaults.steps = 20;
    m->defaults.cfg_scale = 7.5;
    if (st || !dr_file_exists(file))
        return st;
    if ((st = dr_json_read(&j, file, err)))
        return st;
    double steps = dr_json_get_number(j, "steps", (double)m->defaults.steps);
    double cfg = dr_json_get_number(j, "cfg_scale", m->defaults.cfg_scale);
    dr_json_free(j);
    if (!(steps >= 1 && steps <= DR_STEPS_MAX) || !(cfg >= 0 && cfg <= 100))
        return dr_fail(err, DR_EMODEL, "%s: steps must be in 1..%d, cfg_scale in 0..100",
                       file, DR_STEPS_MAX);
    m->defaults.steps = (int64_t)steps;
    m->defaults.cfg_scale = cfg;
    return DR_OK;
}

/* Parts that were made for each other. */
static dr_status check_fit(const dr_model *m, dr_err *err)
{
    if (dr_bpe_size(m->bpe) > m->clip.vocabulary)
        return dr_fail(err, DR_EMODEL,
                       "%s: the tokenizer has %d tokens, the text encoder only %lld",
                       m->path, dr_bpe_size(m->bpe), (long long)m->clip.vocabulary);
    if (m->clip.width != m->unet.text_c)
        return dr_fail(
            err, DR_EMODEL,
            "%s: the text encoder is %lld wide, the UNet's cross_attention_dim is "
            "%lld",
            m->path, (long long)m->clip.width, (long long)m->unet.text_c);
    int64_t masked_c = 2 * m->unet.out_c + 1; /* latents, mask, latents under the mask */
    if (m->vae.latent_c != m->unet.out_c ||
        (m->unet.in_c != m->unet.out_c && m->unet.in_c != masked_c))
        return dr_fail(
            err, DR_EMODEL,
            "%s: UNet %lld -> %lld channels, autoencoder %lld latents: only models "
            "whose UNet reads latents, or latents with a masked picture, and writes "
            "latents can make pictures from text",
            m->path, (long long)m->unet.in_c, (long long)m->unet.out_c,
            (long long)m->vae.latent_c);
    return DR_OK;
}

/* Everything but the device's part of previews; dev NULL: names and shapes only. */
static dr_status load(dr_model *m, load_progress *p, dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_status st;
    if ((st = dr_model_check(m->path, err)) || (st = read_defaults(m, err)) ||
        (st = dr_path_join(path, m->path, "tokenizer", err)) ||
        (st = dr_bpe_open(&m->bpe, path, err)) ||
        (st = dr_path_join(path, m->path, "scheduler/scheduler_config.json", err)) ||
        (st = dr_schedule_config_read(&m->schedule, m->mem, path, err)))
        return st;
    for (size_t i = 0; i < DR_PARTS; i++)
        if ((st = load_component(m, i, p, err)))
            return st;
    if ((st = load_tiny(m, err)))
        return st;
    m->kv = dr_arena_alloc(m->mem, (size_t)m->unet.n_kv * sizeof *m->kv);
    if (!m->kv)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    return check_fit(m, err);
}

dr_status dr_model_load(dr_model **out, dr_dev *dev, const char *path, const dr_conf *conf,
                        void (*progress)(void *ctx, double share), void *ctx, dr_err *err)
{
    load_progress p = { .progress = progress, .ctx = ctx };
    double start = dr_now_s();
    dr_status st = DR_OK;
    dr_model *m = dr_alloc(sizeof *m);
    if (!m)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    m->dev = dev;
    m->mem = dr_arena_new();
    m->plan_mem = dr_arena_new();
    m->n_texts = conf->model.text_cache;
    m->band_rows = conf->device.band_rows;
    m->controls = dr_controls_new(conf);
    m->texts = dr_alloc((size_t)m->n_texts * sizeof *m->texts);
    snprintf(m->path, sizeof m->path, "%s", path);
    dr_model_name_of(m->name, path);
    dr_run_init(&m->run, dev, (size_t)conf->device.attention_tile_mb * MIB,
                (size_t)conf->device.conv_tile_mb * MIB);
    if (dev)
        m->pool = dr_pool_new(dev);
    if (!m->mem || !m->plan_mem || !m->texts || !m->controls || (dev && !m->pool))
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    else if (!(st = dr_embeddings_open(&m->embeddings, conf->embeddings.dir, err)))
        st = load(m, &p, err);
    if (!st)
        st = dr_loras_open(m, conf, err);
    if (!st)
        st = dr_embeddings_scan(m->embeddings, m->bpe, err);
    if (!st && dev)
        st = dr_preview_fit(m, conf, err);
    if (st) {
        dr_model_close(m);
        return st;
    }
    if (dev)
        dr_log(DR_INFO, "model.ready", "model=%s ms=%.0f weights_mb=%zu", m->name,
               (dr_now_s() - start) * 1000, dr_pool_bytes(m->pool) / MIB);
    *out = m;
    return DR_OK;
}

dr_status dr_model_open(dr_model **out, dr_dev *dev, const char *path, const dr_conf *conf,
                        void (*progress)(void *ctx, double share), void *ctx, dr_err *err)
{
    dr_status st = dev ? dr_tune_start(dev, conf, err) : DR_OK;
    if (!st && dev && conf->device.self_test)
        st = dr_selftest(dev, err);
    return st ? st : dr_model_load(out, dev, path, conf, progress, ctx, err);
}

void dr_model_idle(dr_model *m)
{
    size_t attention = m->run.attention_tile_bytes, conv = m->run.conv_tile_bytes;
    dr_controls_forget(m->controls);
    dr_run_free(&m->run);
    dr_run_init(&m->run, m->dev, attention, conv);
}

void dr_model_close(dr_model *m)
{
    if (!m)
        return;
    dr_text_forget(m);
    dr_embeddings_close(m->embeddings);
    dr_controls_free(m->controls);
    dr_loras_close(m);
    dr_run_free(&m->run);
    dr_pool_free(m->pool);
    dr_bpe_close(m->bpe);
    dr_arena_free(m->mem);
    dr_arena_free(m->plan_mem);
    dr_free(m->host);
    dr_free(m->rgb);
    dr_free(m);
}

const char *dr_model_name(const dr_model *m)
{
    return m->name;
}

dr_status dr_model_reserve(dr_model *m, size_t floats, size_t rgb_bytes, dr_err *err)
{
    if (floats > m->host_count) {
        float *p = dr_resize(m->host, floats * sizeof *p);
        if (!p)
            return dr_fail(err, DR_ENOMEM, "out of memory for %zu latents", floats);
        m->host = p;
        m->host_count = floats;
    }
    if (rgb_bytes > m->rgb_bytes) {
        uint8_t *p = dr_resize(m->rgb, rgb_bytes);
        if (!p)
            return dr_fail(err, DR_ENOMEM, "out of memory for a picture of %zu bytes",
                           rgb_bytes);
        m->rgb = p;
        m->rgb_bytes = rgb_bytes;
    }
    return DR_OK;
}
