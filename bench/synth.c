#include "synth.h"

#include "base/arena.h"
#include "base/file.h"
#include "nn/clip.h"
#include "nn/unet.h"
#include "nn/vae.h"

#include <stdio.h>
#include <string.h>

static const char unet_config[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"in_channels\": 4, \"out_channels\": 4,\n"
    " \"sample_size\": 64, \"block_out_channels\": [320, 640, 1280, 1280],\n"
    " \"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\",\n"
    "  \"CrossAttnDownBlock2D\", \"DownBlock2D\"],\n"
    " \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\",\n"
    "  \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"],\n"
    " \"layers_per_block\": 2, \"attention_head_dim\": 8, \"cross_attention_dim\": 768}\n";

static const char vae_config[] =
    "{\"_class_name\": \"AutoencoderKL\", \"in_channels\": 3, \"out_channels\": 3,\n"
    " \"latent_channels\": 4, \"block_out_channels\": [128, 256, 512, 512],\n"
    " \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\",\n"
    "  \"DownEncoderBlock2D\", \"DownEncoderBlock2D\"],\n"
    " \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\",\n"
    "  \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"],\n"
    " \"layers_per_block\": 2, \"norm_num_groups\": 32, \"scaling_factor\": 0.18215}\n";

static const char text_config[] =
    "{\"architectures\": [\"CLIPTextModel\"], \"vocab_size\": 49408, "
    "\"hidden_size\": 768,\n \"intermediate_size\": 3072, \"num_hidden_layers\": 12, "
    "\"num_attention_heads\": 12,\n \"max_position_embeddings\": 77, "
    "\"hidden_act\": \"quick_gelu\", \"layer_norm_eps\": 1e-05}\n";

/* What the small model lends: its tokens are a part of the text encoder's. */
static const char *const lent[] = { "model_index.json",
                                    "scheduler/scheduler_config.json",
                                    "tokenizer/vocab.json",
                                    "tokenizer/merges.txt",
                                    "tokenizer/tokenizer_config.json",
                                    "tokenizer/special_tokens_map.json" };

/* The header of a safetensors file while the model names its tensors. */
typedef struct {
    dr_buf json;
    size_t at;
} header;

static void on_wanted(void *ctx, const char *name, const int64_t *dim, int ndim)
{
    header *h = ctx;
    size_t bytes = 2;
    dr_buf_printf(&h->json, "%s\"%s\": {\"dtype\": \"F16\", \"shape\": [",
                  h->at ? ", " : "", name);
    for (int i = 0; i < ndim; i++) {
        dr_buf_printf(&h->json, "%s%lld", i ? ", " : "", (long long)dim[i]);
        bytes *= (size_t)dim[i];
    }
    dr_buf_printf(&h->json, "], \"data_offsets\": [%zu, %zu]}", h->at, h->at + bytes);
    h->at += bytes;
}

/* Halves of ±0.016 to ±0.031, never so small that arithmetic turns slow. */
static dr_status write_data(FILE *f, size_t bytes)
{
    static uint16_t block[1 << 19];
    uint32_t x = 1;
    for (size_t i = 0; i < DR_COUNT(block); i++) {
        x = x * 1664525u + 1013904223u;
        block[i] = (uint16_t)((x >> 31) << 15 | 9u << 10 | (x >> 12 & 1023));
    }
    for (size_t n; bytes; bytes -= n) {
        n = bytes < sizeof block ? bytes : sizeof block;
        if (fwrite(block, 1, n, f) != n)
            return DR_EIO;
    }
    return DR_OK;
}

static dr_status write_weights(const char *path, header *h, dr_err *err)
{
    char part[DR_PATH_MAX];
    uint64_t length = h->json.len;
    if (h->json.failed)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if (snprintf(part, sizeof part, "%s.part", path) >= DR_PATH_MAX)
        return dr_fail(err, DR_EINVAL, "%s: too long", path);
    FILE *f = fopen(part, "wb");
    if (!f)
        return dr_fail(err, DR_EIO, "%s: cannot be written", part);
    bool good = fwrite(&length, sizeof length, 1, f) == 1 &&
                fwrite(h->json.data, 1, h->json.len, f) == h->json.len &&
                !write_data(f, h->at);
    good = !fclose(f) && good && !rename(part, path);
    return good ? DR_OK : dr_fail(err, DR_EIO, "%s: cannot be written", path);
}

static void want_unet(dr_loader *l, const dr_json *config, dr_arena *mem)
{
    dr_unet m = { 0 };
    dr_unet_load(&m, l, config, mem);
}

static void want_vae(dr_loader *l, const dr_json *config, dr_arena *mem)
{
    dr_vae m = { 0 };
    dr_vae_load(&m, l, config, mem);
}

static void want_text(dr_loader *l, const dr_json *config, dr_arena *mem)
{
    dr_clip m = { 0 };
    dr_clip_load(&m, l, config, mem);
}

typedef struct {
    const char *folder, *weights, *config;
    void (*want)(dr_loader *, const dr_json *, dr_arena *);
} component;

static const component components[] = {
    { "unet", "diffusion_pytorch_model.safetensors", unet_config, want_unet },
    { "vae", "diffusion_pytorch_model.safetensors", vae_config, want_vae },
    { "text_encoder", "model.safetensors", text_config, want_text },
};

static dr_status make(const char *root, const component *c, dr_err *err)
{
    char dir[DR_PATH_MAX], path[DR_PATH_MAX];
    header h = { 0 };
    dr_loader l = { .component = c->folder, .wanted = on_wanted, .ctx = &h };
    dr_arena *mem = dr_arena_new();
    dr_json *json = NULL;
    dr_status st;
    if (!mem)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if ((st = dr_path_join(dir, root, c->folder, err)) || (st = dr_mkdirs(dir, err)) ||
        (st = dr_path_join(path, dir, "config.json", err)) ||
        (st = dr_file_write(path, c->config, strlen(c->config), err)) ||
        (st = dr_path_join(path, dir, c->weights, err)) || dr_file_exists(path) ||
        (st = dr_json_parse(&json, c->config, strlen(c->config), err)))
        goto done;
    dr_buf_puts(&h.json, "{");
    c->want(&l, json, mem);
    dr_buf_puts(&h.json, "}");
    if (!(st = dr_loader_close(&l, err)))
        st = write_weights(path, &h, err);
done:
    dr_json_free(json);
    dr_buf_free(&h.json);
    dr_arena_free(mem);
    return st;
}

static dr_status lend(const char *root, const char *from, const char *name, dr_err *err)
{
    char source[DR_PATH_MAX], target[DR_PATH_MAX], dir[DR_PATH_MAX];
    dr_buf text = { 0 };
    dr_status st;
    if ((st = dr_path_join(source, from, name, err)) ||
        (st = dr_path_join(target, root, name, err)))
        return st;
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(target, '/') - target), target);
    if (!(st = dr_mkdirs(dir, err)) && !(st = dr_file_read(source, 1 << 20, &text, err)))
        st = dr_file_write(target, text.data, text.len, err);
    dr_buf_free(&text);
    return st;
}

dr_status synth_sd15(const char *dir, const char *small, dr_err *err)
{
    dr_status st = DR_OK;
    for (size_t i = 0; i < DR_COUNT(components) && !st; i++)
        st = make(dir, &components[i], err);
    for (size_t i = 0; i < DR_COUNT(lent) && !st; i++)
        st = lend(dir, small, lent[i], err);
    return st;
}
