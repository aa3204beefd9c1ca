#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "nn/clip.h"
#include "nn/lora.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>

#include <cmocka.h>

/* LoRA files against the layers of SD 1.5 at its real size: names, shapes, refusals. No
 * weights and no device are needed. */

#define ATTN  "attentions.0.transformer_blocks.0."
#define FATTN "attentions_0_transformer_blocks_0_"

typedef struct {
    dr_arena *mem;
    dr_unet unet;
    dr_clip clip;
    dr_mats mats[2]; /* UNet, text encoder */
    dr_lora_layers layers;
    char path[64];
} fixture;

static const char unet_config[] =
    "{\"block_out_channels\": [320, 640, 1280, 1280], \"cross_attention_dim\": 768,"
    "\"attention_head_dim\": 8, \"down_block_types\": [\"CrossAttnDownBlock2D\","
    "\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"DownBlock2D\"],"
    "\"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\","
    "\"CrossAttnUpBlock2D\"], \"layers_per_block\": 2}";
static const char clip_config[] =
    "{\"hidden_size\": 768, \"intermediate_size\": 3072, \"num_attention_heads\": 12}";

static void ignore(void *ctx, const char *name, const int64_t *dim, int ndim)
{
    (void)ctx;
    (void)name;
    (void)dim;
    (void)ndim;
}

static dr_json *parse(const char *text)
{
    dr_json *j = NULL;
    assert_int_equal(dr_json_parse(&j, text, strlen(text), NULL), DR_OK);
    return j;
}

static int setup(void **state)
{
    static fixture f;
    dr_err err = { 0 };
    f = (fixture){ .mem = dr_arena_new(), .path = "/tmp/darkroom-lora.XXXXXX" };
    int fd = mkstemp(f.path);
    assert_true(fd >= 0);
    close(fd);
    dr_json *unet = parse(unet_config), *clip = parse(clip_config);
    for (int i = 0; i < 2; i++) {
        f.mats[i].mem = f.mem;
        dr_loader l = { .wanted = ignore, .component = "test", .mats = &f.mats[i] };
        if (i == 0)
            dr_unet_load(&f.unet, &l, unet, f.mem);
        else
            dr_clip_load(&f.clip, &l, clip, f.mem);
        assert_int_equal(l.err.code, DR_OK);
    }
    dr_json_free(unet);
    dr_json_free(clip);
    assert_int_equal(
        dr_lora_layers_make(&f.layers, f.mem, &f.unet, &f.mats[0], &f.mats[1], &err),
        DR_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    unlink(f->path);
    dr_arena_free(f->mem);
    return 0;
}

/* --- names --- */

/* Every spelling of a layer, "" for none. */
static const struct {
    const char *key, *layer;
} spellings[] = {
    { "lora_unet_down_blocks_0_" FATTN "attn1_to_q", "down_blocks.0." ATTN "attn1.to_q" },
    { "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj",
      "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj" },
    { "lora_unet_mid_block_" FATTN "attn2_to_out_0", "mid_block." ATTN "attn2.to_out.0" },
    { "lora_unet_down_blocks_2_resnets_1_time_emb_proj",
      "down_blocks.2.resnets.1.time_emb_proj" },
    { "unet.down_blocks.1.attentions.1.proj_in", "down_blocks.1.attentions.1.proj_in" },
    { "unet.down_blocks.0." ATTN "attn1.processor.to_q",
      "down_blocks.0." ATTN "attn1.to_q" },
    { "unet.down_blocks.0." ATTN "attn1.processor.to_out",
      "down_blocks.0." ATTN "attn1.to_out.0" },
    { "down_blocks.0." ATTN "attn2.processor.to_v", "down_blocks.0." ATTN "attn2.to_v" },
    { "unet.base_model.model.conv_in", "conv_in" },
    { "base_model.model.mid_block." ATTN "ff.net.2", "mid_block." ATTN "ff.net.2" },
    { "diffusion_model.input_blocks.1.1.proj_in", "down_blocks.0.attentions.0.proj_in" },
    { "lora_unet_input_blocks_0_0", "conv_in" },
    { "lora_unet_input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1" },
    { "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
      "down_blocks.0." ATTN "attn1.to_q" },
    { "lora_unet_input_blocks_2_0_out_layers_3", "down_blocks.0.resnets.1.conv2" },
    { "lora_unet_input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv" },
    { "lora_unet_input_blocks_4_0_skip_connection",
      "down_blocks.1.resnets.0.conv_shortcut" },
    { "lora_unet_input_blocks_8_1_proj_out", "down_blocks.2.attentions.1.proj_out" },
    { "lora_unet_input_blocks_9_0_op", "down_blocks.2.downsamplers.0.conv" },
    { "lora_unet_input_blocks_10_0_in_layers_2", "down_blocks.3.resnets.0.conv1" },
    { "lora_unet_input_blocks_11_0_emb_layers_1", "down_blocks.3.resnets.1.time_emb_proj" },
    { "lora_unet_middle_block_0_in_layers_2", "mid_block.resnets.0.conv1" },
    { "lora_unet_middle_block_1_transformer_blocks_0_ff_net_0_proj",
      "mid_block." ATTN "ff.net.0.proj" },
    { "lora_unet_middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj" },
    { "lora_unet_output_blocks_0_0_skip_connection",
      "up_blocks.0.resnets.0.conv_shortcut" },
    { "lora_unet_output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv" },
    { "lora_unet_output_blocks_3_1_proj_in", "up_blocks.1.attentions.0.proj_in" },
    { "lora_unet_output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv" },
    { "lora_unet_output_blocks_8_2_conv", "up_blocks.2.upsamplers.0.conv" },
    { "lora_unet_output_blocks_11_0_out_layers_3", "up_blocks.3.resnets.2.conv2" },
    { "lora_unet_output_blocks_11_1_transformer_blocks_0_attn2_to_k",
      "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k" },
    { "lora_unet_time_embed_0", "time_embedding.linear_1" },
    { "lora_unet_time_embed_2", "time_embedding.linear_2" },
    { "lora_unet_out_2", "conv_out" },
    { "lora_te_text_model_encoder_layers_11_mlp_fc1",
      "text_model.encoder.layers.11.mlp.fc1" },
    { "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
      "text_model.encoder.layers.0.self_attn.q_proj" },
    { "text_encoder.text_model.encoder.layers.3.self_attn.to_k",
      "text_model.encoder.layers.3.self_attn.k_proj" },
    { "text_encoder.text_model.encoder.layers.3.self_attn.to_out",
      "text_model.encoder.layers.3.self_attn.out_proj" },
    { "lora_unet_text_model_encoder_layers_0_mlp_fc1", "" },
    { "lora_te_down_blocks_0_" FATTN "attn1_to_q", "" },
    { "lora_unet_down_blocks_3_" FATTN "attn1_to_q", "" },
    { "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q", "" },
    { "lora_unet_output_blocks_8_1_conv", "" },
    { "lora_unet_", "" },
    { "lora_unet_conv_norm_out", "" },
    { "", "" },
};

static void every_spelling_finds_its_layer(void **state)
{
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(spellings); i++) {
        int layer = dr_lora_find(&f->layers, spellings[i].key, strlen(spellings[i].key));
        const char *name = layer < 0 ? "" : f->layers.layer[layer].name;
        if (strcmp(name, spellings[i].layer) != 0)
            fail_msg("%s is \"%s\", must be \"%s\"", spellings[i].key, name,
                     spellings[i].layer);
    }
    char long_key[600];
    memset(long_key, '_', sizeof long_key);
    memcpy(long_key, "lora_unet_", 10);
    assert_int_equal(dr_lora_find(&f->layers, long_key, sizeof long_key), -1);
}

/* All layers of SD 1.5 that LyCORIS trains, by both block names; no name twice. */
static void the_table_is_whole(void **state)
{
    fixture *f = *state;
    /* 22 resnets of 3 with 14 shortcuts, 16 transformers of 12, 6 samplers, in, out, time
     */
    assert_int_equal(f->mats[0].count, 22 * 3 + 14 + 16 * 12 + 6 + 4);
    assert_int_equal(f->mats[1].count, 12 * 6);
    assert_int_equal(f->layers.n_layers, f->mats[0].count + f->mats[1].count);
    assert_int_equal(f->layers.n_names, 2 * f->mats[0].count + f->mats[1].count);
    for (int i = 1; i < f->layers.n_names; i++) {
        const dr_lora_name *a = &f->layers.name[i - 1], *b = &f->layers.name[i];
        assert_true(a->part < b->part || strcmp(a->flat, b->flat) < 0);
    }
}

/* --- files --- */

typedef struct {
    const char *name, *dtype;
    int64_t dim[4];
    int ndim;
    const void *data; /* NULL: zeros */
} tensor;

static size_t bytes_of(const tensor *t)
{
    size_t n = !strcmp(t->dtype, "F32") ? 4 : !strcmp(t->dtype, "I64") ? 8 : 2;
    for (int i = 0; i < t->ndim; i++)
        n *= (size_t)t->dim[i];
    return n;
}

/* A safetensors file of these tensors, n or up to the first without a name. */
static void write_file(const char *path, const tensor *t, int n, const char *metadata)
{
    dr_buf head = { 0 }, data = { 0 }, whole = { 0 };
    dr_buf_puts(&head, "{");
    if (metadata) {
        dr_buf_puts(&head,
                    "\"__metadata__\":{\"format\":\"pt\",\"lora_adapter_metadata\":");
        dr_json_put_string(&head, metadata);
        dr_buf_puts(&head, "},");
    }
    for (int i = 0; i < n && t[i].name; i++) {
        size_t bytes = bytes_of(&t[i]);
        dr_buf_printf(&head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "",
                      t[i].name, t[i].dtype);
        for (int d = 0; d < t[i].ndim; d++)
            dr_buf_printf(&head, "%s%lld", d ? "," : "", (long long)t[i].dim[d]);
        dr_buf_printf(&head, "],\"data_offsets\":[%zu,%zu]}", data.len, data.len + bytes);
        void *zeros = dr_alloc(bytes + 1);
        assert_non_null(zeros);
        dr_buf_put(&data, t[i].data ? t[i].data : zeros, bytes);
        dr_free(zeros);
    }
    dr_buf_puts(&head, "}");
    uint64_t length = head.len;
    dr_buf_put(&whole, &length, sizeof length);
    dr_buf_put(&whole, head.data, head.len);
    dr_buf_put(&whole, data.data ? data.data : "", data.len);
    assert_false(whole.failed);
    assert_int_equal(dr_file_write(path, whole.data, whole.len, NULL), DR_OK);
    dr_buf_free(&head);
    dr_buf_free(&data);
    dr_buf_free(&whole);
}

/* A dry run of everything in the file: values are checked, and every operation's shapes. */
static dr_status dry_run(const fixture *f, const dr_lora *file, dr_err *err)
{
    dr_run r;
    dr_run_init(&r, NULL, (size_t)32 << 20, (size_t)32 << 20);
    dr_run_reset(&r, true);
    for (int i = 0; i < file->n_modules; i++)
        dr_lora_add(&r, file, &file->module[i], &f->layers,
                    f->layers.layer[file->module[i].layer].base,
                    f->layers.layer[file->module[i].layer].base, 0.5);
    *err = r.err;
    dr_run_free(&r);
    return err->code;
}

/* --- files that fit --- */

#define TO_Q "lora_unet_down_blocks_0_" FATTN "attn1_to_q"
#define TO_K "lora_unet_down_blocks_0_" FATTN "attn2_to_k"
#define CONV "lora_unet_down_blocks_0_resnets_0_conv1"
#define FC1  "lora_te_text_model_encoder_layers_0_mlp_fc1"

static dr_lora open_good(fixture *f, const tensor *t, int n, const char *metadata)
{
    dr_err err = { 0 };
    dr_lora file;
    write_file(f->path, t, n, metadata);
    if (dr_lora_open(&file, f->path, &f->layers, &err) || dry_run(f, &file, &err))
        fail_msg("%s", err.message);
    return file;
}

static void counts_and_parts(void **state)
{
    fixture *f = *state;
    const tensor t[] = {
        { TO_Q ".lora_down.weight", "F16", { 4, 320 }, 2, NULL },
        { TO_Q ".lora_up.weight", "F32", { 320, 4 }, 2, NULL },
        { CONV ".lora_down.weight", "BF16", { 8, 320, 3, 3 }, 4, NULL },
        { CONV ".lora_up.weight", "F16", { 320, 8, 1, 1 }, 4, NULL },
        { "lora_unet_nowhere.alpha", "F32", { 0 }, 0, NULL },
        { "bundle_emb.x.string_to_param.*", "F32", { 2, 768 }, 2, NULL },
        { FC1 ".lora_down.weight", "F16", { 1, 768 }, 2, NULL },
        { FC1 ".lora_up.weight", "F16", { 3072, 1 }, 2, NULL },
    };
    dr_lora a = open_good(f, t, 8, NULL), unet = open_good(f, t, 4, NULL);
    dr_lora text = open_good(f, t + 6, 2, NULL);
    assert_int_equal(a.n_modules, 3);
    assert_int_equal(a.matched, 6);
    assert_int_equal(a.unmatched, 2);
    assert_string_equal(a.first_unmatched, "lora_unet_nowhere.alpha");
    assert_true(a.has[DR_LORA_UNET] && a.has[DR_LORA_TEXT]);
    assert_true(unet.has[DR_LORA_UNET] && !unet.has[DR_LORA_TEXT]);
    assert_true(!text.has[DR_LORA_UNET] && text.has[DR_LORA_TEXT]);
    dr_lora_close(&a);
    dr_lora_close(&unet);
    dr_lora_close(&text);
}

static double scale_with(fixture *f, const char *dtype, const void *alpha, int ndim,
                         const char *metadata)
{
    const tensor t[] = {
        { TO_Q ".lora_down.weight", "F16", { 4, 320 }, 2, NULL },
        { TO_Q ".lora_up.weight", "F16", { 320, 4 }, 2, NULL },
        { TO_Q ".alpha", dtype, { 1 }, ndim, alpha },
    };
    dr_lora a = open_good(f, t, alpha ? 3 : 2, metadata);
    double scale = a.module[0].scale;
    dr_lora_close(&a);
    return scale;
}

/* Without alpha it is the rank, unless PEFT's settings in the header say otherwise. */
static void alpha_over_rank(void **state)
{
    fixture *f = *state;
    const float one = 1, two = 2;
    const uint16_t half = 0x3c00, bf16 = 0x3f80; /* 1 */
    static const struct {
        const char *metadata;
        double scale;
    } rows[] = {
        { NULL, 1 },
        { "{\"unet.lora_alpha\": 8, \"unet.r\": 4}", 2 },
        { "{\"lora_alpha\": 2}", 0.5 },
        { "{\"text_encoder.lora_alpha\": 8}", 1 },
        { "{\"unet.lora_alpha\": 8, \"unet.use_rslora\": true}", 4 },
        { "{\"unet.lora_alpha\": 8, \"unet.alpha_pattern\": {\"attn1.to_q\": 1}}", 0.25 },
        { "{\"unet.lora_alpha\": 8, \"unet.alpha_pattern\": {\"1.to_q\": 1}}", 2 },
        { "{\"unet.lora_alpha\": 8, \"unet.alpha_pattern\": {\"to_q\": \"x\"}}", 2 },
        { "{\"unet.lora_alpha\": \"8\"}", 1 },
        { "no JSON", 1 },
    };
    assert_true(scale_with(f, "F32", &one, 0, NULL) == 0.25);
    assert_true(scale_with(f, "F32", &two, 1, NULL) == 0.5);
    assert_true(scale_with(f, "F16", &half, 0, NULL) == 0.25);
    assert_true(scale_with(f, "BF16", &bf16, 0, "{\"unet.lora_alpha\": 8}") == 0.25);
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        assert_true(scale_with(f, "F32", NULL, 0, rows[i].metadata) == rows[i].scale);
}

/* A product of two scales by the last decomposed matrix's rank, two whole ones not. */
static void lokr_scales(void **state)
{
    fixture *f = *state;
    const float three = 3;
    const tensor t[] = {
        { TO_Q ".lokr_w1", "F32", { 8, 8 }, 2, NULL },
        { TO_Q ".lokr_w2", "F32", { 40, 40 }, 2, NULL },
        { TO_Q ".alpha", "F32", { 0 }, 0, &three },
        { CONV ".lokr_w1_a", "F32", { 8, 2 }, 2, NULL },
        { CONV ".lokr_w1_b", "F32", { 2, 16 }, 2, NULL },
        { CONV ".lokr_w2_a", "F32", { 40, 6 }, 2, NULL },
        { CONV ".lokr_w2_b", "F32", { 6, 20 * 9 }, 2, NULL },
        { CONV ".alpha", "F32", { 0 }, 0, &three },
    };
    dr_lora a = open_good(f, t, 8, NULL);
    assert_int_equal(a.n_modules, 2);
    for (int i = 0; i < 2; i++) {
        bool conv = f->layers.layer[a.module[i].layer].w->kh == 3;
        assert_true(a.module[i].scale == (conv ? 0.5 : 1.0));
        assert_int_equal(a.module[i].kind, DR_LORA_KRONECKER);
    }
    dr_lora_close(&a);
}

/* DoRA's norms are of outputs or inputs, as the shape says; PEFT's always of outputs. */
static void dora_axes(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *tail;
        int64_t dim[4];
        int ndim;
        bool by_input;
    } rows[] = {
        { ".dora_scale", { 320, 1 }, 2, false },
        { ".dora_scale", { 1, 768 }, 2, true },
        { ".dora_scale", { 1, 768, 1, 1 }, 4, true },
        { ".lora_magnitude_vector", { 320 }, 1, false },
        { ".lora_magnitude_vector.weight", { 1, 320, 1, 1 }, 4, false },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        char name[128];
        snprintf(name, sizeof name, TO_K "%s", rows[i].tail);
        tensor t[] = {
            { TO_K ".lora_down.weight", "F16", { 4, 768 }, 2, NULL },
            { TO_K ".lora_up.weight", "F16", { 320, 4 }, 2, NULL },
            { name, "F32", { 0 }, rows[i].ndim, NULL },
        };
        memcpy(t[2].dim, rows[i].dim, sizeof t[2].dim);
        dr_lora a = open_good(f, t, 3, NULL);
        assert_non_null(a.module[0].magnitude);
        assert_int_equal(a.module[0].by_input, rows[i].by_input);
        dr_lora_close(&a);
    }
}

/* --- files that do not --- */

#define DOWN                                                                               \
    {                                                                                      \
        TO_Q ".lora_down.weight", "F16", { 4, 320 }, 2, NULL                               \
    }
#define UP                                                                                 \
    {                                                                                      \
        TO_Q ".lora_up.weight", "F16", { 320, 4 }, 2, NULL                                 \
    }

static const float nan_alpha[] = { __builtin_nanf("") };

static const struct {
    tensor t[4];
    const char *message;
} refused[] = {
    { { { "x", "F32", { 1 }, 1, NULL } },
      "none of its 1 keys has a place in this model; the first is x" },
    { { DOWN }, TO_Q ".lora_down.weight has no partner lora_up" },
    { { UP }, TO_Q ".lora_up.weight has no partner lora_down" },
    { { { TO_Q ".alpha", "F32", { 0 }, 0, NULL } }, "a scale, but nothing to scale" },
    { { { TO_Q ".lora_down.weight", "F16", { 4, 640 }, 2, NULL }, UP },
      TO_Q ".lora_down.weight is [4, 640], must be [4, 320]: this model's layer "
           "down_blocks.0." ATTN "attn1.to_q is [320, 320]" },
    { { DOWN, { TO_Q ".lora_up.weight", "F16", { 320, 5 }, 2, NULL } },
      "is [320, 5], must be [320, 4]" },
    { { DOWN, { TO_Q ".lora_up.weight", "F16", { 1280 }, 1, NULL } },
      "is [1280], must be [320, 4]" },
    { { { TO_Q ".lora_down.weight", "F16", { 0, 320 }, 2, NULL },
        { TO_Q ".lora_up.weight", "F16", { 320, 0 }, 2, NULL } },
      "is empty" },
    { { { TO_Q ".lora_down.weight", "I64", { 4, 320 }, 2, NULL }, UP },
      "is I64; only F32, F16 and BF16" },
    { { DOWN,
        UP,
        { "unet.down_blocks.0." ATTN "attn1.to_q.lora_A.weight",
          "F16",
          { 4, 320 },
          2,
          NULL } },
      "are the same thing twice" },
    { { DOWN, UP, { TO_Q ".alpha", "F32", { 0 }, 0, nan_alpha } },
      "must be one finite value" },
    { { DOWN, UP, { TO_Q ".alpha", "F32", { 2 }, 1, NULL } }, "must be one finite value" },
    { { DOWN, UP, { TO_Q ".alpha", "I64", { 0 }, 0, NULL } }, "must be one finite value" },
    { { DOWN, UP, { TO_Q ".hada_w1_a", "F16", { 320, 4 }, 2, NULL } },
      "tensors of several kinds of LoRA" },
    { { DOWN, UP, { TO_Q ".dora_scale", "F32", { 320, 2 }, 2, NULL } },
      "is [320, 2], must be [320, 1]" },
    { { { TO_Q ".hada_w1_a", "F16", { 320, 4 }, 2, NULL },
        { TO_Q ".hada_w1_b", "F16", { 4, 320 }, 2, NULL } },
      "attn1.to_q's hada_w1_a, hada_w1_b, hada_w2_a and hada_w2_b some are missing" },
    { { { TO_Q ".lokr_w1", "F16", { 3, 4 }, 2, NULL },
        { TO_Q ".lokr_w2", "F16", { 80, 80 }, 2, NULL } },
      "lokr_w1 is [3, 4]" },
    { { { TO_Q ".lokr_w1", "F16", { 0, 4 }, 2, NULL },
        { TO_Q ".lokr_w2", "F16", { 80, 80 }, 2, NULL } },
      "lokr_w1 is [0, 4]" },
    { { { TO_Q ".lokr_w1", "F16", { 4, 4 }, 2, NULL },
        { TO_Q ".lokr_w2_a", "F16", { 80, 80 }, 2, NULL } },
      "lokr_w1 and lokr_w2 or their _a and _b some are missing" },
    { { { CONV ".lora_down.weight", "F16", { 4, 3, 3, 320 }, 4, NULL },
        { CONV ".lora_up.weight", "F16", { 320, 4 }, 2, NULL } },
      "is [4, 3, 3, 320], must be [4, 320, 3, 3]" },
    { { { CONV ".lora_down.weight", "F16", { 4, 320, 1, 1 }, 4, NULL },
        { CONV ".lora_up.weight", "F16", { 320, 4 }, 2, NULL },
        { CONV ".lora_mid.weight", "F16", { 4, 5, 3, 3 }, 4, NULL } },
      "is [4, 5, 3, 3], must be [4, 4, 3, 3]" },
    /* Other families. */
    { { DOWN,
        UP,
        { "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "F32", { 0 }, 0, NULL } },
      "is for SDXL models (by its key lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha), "
      "this model is of SD 1" },
    { { DOWN,
        UP,
        { "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.alpha",
          "F32",
          { 0 },
          0,
          NULL } },
      "is for SDXL models" },
    { { { TO_K ".lora_down.weight", "F16", { 4, 2048 }, 2, NULL },
        { TO_K ".lora_up.weight", "F16", { 320, 4 }, 2, NULL } },
      "is for SDXL models (by its key " TO_K ".lora_down.weight)" },
    { { { TO_K ".hada_w1_b", "F16", { 4, 1024 }, 2, NULL }, DOWN, UP },
      "is for SD 2 models" },
    { { { "lora_unet_double_blocks_0_img_attn_qkv.alpha", "F32", { 0 }, 0, NULL } },
      "is for FLUX models" },
    { { { "transformer.transformer_blocks.1.attn.to_q.lora_A.weight",
          "F16",
          { 4, 3072 },
          2,
          NULL } },
      "is for FLUX or SD 3 models" },
};

static void bad_files_are_refused(void **state)
{
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(refused); i++) {
        dr_err err = { 0 };
        dr_lora file;
        write_file(f->path, refused[i].t, 4, NULL);
        dr_status st = dr_lora_open(&file, f->path, &f->layers, &err);
        if (st != DR_EMODEL || !strstr(err.message, refused[i].message))
            fail_msg("%d: \"%s\" is not in \"%s\"", (int)st, refused[i].message,
                     err.message);
        assert_null(file.files);
    }
}

static void values_must_be_numbers(void **state)
{
    fixture *f = *state;
    static const uint16_t halves[] = { 0x7c00, 0xfe01, 0x7bff }; /* Inf, NaN, 65504 */
    static const float floats[] = { __builtin_inff(), __builtin_nanf(""), 3e38f };
    for (int i = 0; i < 6; i++) {
        const bool half = i < 3;
        uint16_t down16[320] = { 0 };
        float down32[320] = { 0 };
        dr_err err = { 0 };
        dr_lora file;
        down16[319] = halves[i % 3];
        down32[319] = floats[i % 3];
        const tensor t[] = {
            { TO_Q ".lora_down.weight",
              half ? "F16" : "F32",
              { 1, 320 },
              2,
              half ? (const void *)down16 : down32 },
            { TO_Q ".lora_up.weight", "F16", { 320, 1 }, 2, NULL },
        };
        write_file(f->path, t, 2, NULL);
        assert_int_equal(dr_lora_open(&file, f->path, &f->layers, &err), DR_OK);
        assert_int_equal(dry_run(f, &file, &err), i % 3 == 2 ? DR_OK : DR_EMODEL);
        if (i % 3 != 2)
            assert_non_null(strstr(err.message, ".lora_down.weight holds values"));
        dr_lora_close(&file);
    }
}

/* Good files of a convolution, to be spoiled. */
#define S(tail, ...)                                                                       \
    {                                                                                      \
        CONV tail, "F16", __VA_ARGS__, NULL                                                \
    }
static const tensor good[][6] = {
    { S(".lora_down.weight", { 4, 320, 3, 3 }, 4), S(".lora_up.weight", { 320, 4 }, 2) },
    { S(".lora_down.weight", { 4, 320 }, 2), S(".lora_up.weight", { 320, 4 }, 2),
      S(".lora_mid.weight", { 4, 4, 3, 3 }, 4), S(".dora_scale", { 1, 320 }, 2) },
    { S(".hada_w1_a", { 320, 2 }, 2), S(".hada_w1_b", { 2, 320 * 9 }, 2),
      S(".hada_w2_a", { 2, 320 }, 2), S(".hada_w2_b", { 2, 320 }, 2),
      S(".hada_t2", { 2, 2, 3, 3 }, 4), S(".dora_scale", { 320, 1, 1, 1 }, 4) },
    { S(".lokr_w1", { 8, 4 }, 2), S(".lokr_w2", { 40, 80, 3, 3 }, 4) },
    { S(".lokr_w1_a", { 8, 3 }, 2), S(".lokr_w1_b", { 3, 4 }, 2),
      S(".lokr_w2_a", { 2, 40 }, 2), S(".lokr_w2_b", { 2, 80 }, 2),
      S(".lokr_t2", { 2, 2, 3, 3 }, 4), S(".lora_magnitude_vector", { 320 }, 1) },
    { S(".lokr_w1", { 4, 8 }, 2), S(".lokr_w2_a", { 80, 5 }, 2),
      S(".lokr_w2_b", { 5, 40 * 9 }, 2) },
};

static uint32_t roll(uint32_t below)
{
    static uint32_t draw;
    uint32_t out[4], counter[4] = { ++draw }, key[2] = { 3, 5 };
    dr_philox4x32(out, counter, key);
    return out[0] % below;
}

/* Change a dimension to another number that is about, swap two, or change how many. */
static void spoil(tensor *t)
{
    static const int64_t sizes[] = { 1, 2, 3, 4, 8, 40, 80, 160, 320, 360, 2880 };
    uint32_t a = roll(4), b = roll(4);
    int64_t kept = t->dim[a];
    for (int d = t->ndim; d < 4; d++)
        t->dim[d] = 1;
    if (roll(3) == 0) {
        t->dim[a] = t->dim[b];
        t->dim[b] = kept ? kept : 1;
    } else if (roll(2) == 0) {
        t->dim[a] = sizes[roll(DR_COUNT(sizes))];
    } else {
        t->ndim = 1 + (int)roll(4);
    }
    if (bytes_of(t) > 1 << 21)
        t->ndim = 1;
}

/* Whatever passes the checks, the operations take. */
static void what_is_opened_can_be_merged(void **state)
{
    fixture *f = *state;
    int opened = 0, failed = 0;
    for (int i = 0; i < 1500; i++) {
        tensor t[6];
        dr_err err = { 0 };
        dr_lora file;
        size_t kind = (size_t)i % DR_COUNT(good);
        memcpy(t, good[kind], sizeof t);
        for (int k = 0; k < 6 && t[k].name; k++)
            if (i >= (int)DR_COUNT(good) && roll(4) == 0)
                spoil(&t[k]);
        write_file(f->path, t, 6, NULL);
        dr_status st = dr_lora_open(&file, f->path, &f->layers, &err);
        if (st) {
            assert_true(i >= (int)DR_COUNT(good));
            assert_int_equal(st, DR_EMODEL);
            failed++;
            continue;
        }
        opened++;
        if (dry_run(f, &file, &err))
            fail_msg("%s", err.message);
        dr_lora_close(&file);
    }
    assert_true(opened > 300 && failed > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_finds_its_layer),
        cmocka_unit_test(the_table_is_whole),
        cmocka_unit_test(counts_and_parts),
        cmocka_unit_test(alpha_over_rank),
        cmocka_unit_test(lokr_scales),
        cmocka_unit_test(dora_axes),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(values_must_be_numbers),
        cmocka_unit_test(what_is_opened_can_be_merged),
    };
    return cmocka_run_group_tests_name("lora", tests, setup, teardown);
}
