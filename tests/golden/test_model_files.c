#include "../lib/golden.h"

#include "base/buf.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

/* Model files that lie: copies of the tiny model with one thing changed. Each must be
 * refused before anything runs, by a message that names what is wrong. */

static const char source[] = "tests/golden/tiny-sd1/model";

/* One change to one component; members that are NULL change nothing. */
typedef struct {
    const char *component;
    const char *drop;          /* a tensor to leave out */
    const char *add;           /* a tensor to add, of 4 halves */
    const char *alter;         /* a tensor to … */
    const char *shape, *dtype; /* … give another shape, another type */
    const char *key, *value;   /* a config key and its new JSON text */
    int pad;                   /* spaces behind the header: moves the data */
    const char *says[3];       /* what the message must hold */
} lie;

static const lie lies[] = {
    { .component = "unet",
      .drop = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
      .says = { "unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                "[32, 40]" } },
    { .component = "unet",
      .drop = "up_blocks.1.resnets.2.conv_shortcut.bias",
      .says = { "unet", "up_blocks.1.resnets.2.conv_shortcut.bias", "[32]" } },
    { .component = "vae",
      .drop = "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
      .says = { "vae", "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
                "[8, 16, 1, 1]" } },
    { .component = "text_encoder",
      .drop = "text_model.final_layer_norm.bias",
      .says = { "text_encoder", "text_model.final_layer_norm.bias", "[40]" } },

    { .component = "unet",
      .add = "down_blocks.0.controlnet.weight",
      .says = { "unet", "down_blocks.0.controlnet.weight", "1 tensor" } },
    { .component = "text_encoder",
      .add = "text_projection.weight",
      .says = { "text_encoder", "text_projection.weight" } },

    { .component = "unet",
      .alter = "conv_in.weight",
      .shape = "[4,16,3,3]",
      .says = { "conv_in.weight", "[4, 16, 3, 3]", "[16, 4, 3, 3]" } },
    { .component = "vae",
      .alter = "encoder.mid_block.attentions.0.to_q.weight",
      .shape = "[8,32]",
      .says = { "encoder.mid_block.attentions.0.to_q.weight", "[8, 32]", "[16, 16]" } },
    { .component = "text_encoder",
      .alter = "text_model.embeddings.token_embedding.weight",
      .shape = "[500,80]",
      .says = { "token_embedding.weight", "[500, 80]", "[1000, 40]" } },
    { .component = "unet",
      .alter = "conv_out.bias",
      .dtype = "I16",
      .says = { "conv_out.bias", "I16", "F16" } },

    { .component = "unet",
      .key = "block_out_channels",
      .value = "[16,24,32,64]",
      .says = { "down_blocks.3.resnets.0.conv1.weight", "[32, 32, 3, 3]",
                "[64, 32, 3, 3]" } },
    { .component = "unet",
      .key = "block_out_channels",
      .value = "[16,\"wide\",32,32]",
      .says = { "block_out_channels", "\"wide\"", "1..65536" } },
    { .component = "unet",
      .key = "norm_num_groups",
      .value = "5",
      .says = { "block_out_channels[0] = 16", "norm_num_groups = 5" } },
    { .component = "unet",
      .key = "attention_head_dim",
      .value = "5",
      .says = { "block_out_channels[0] = 16", "5 attention heads" } },
    { .component = "unet",
      .key = "layers_per_block",
      .value = "2.5",
      .says = { "layers_per_block", "2.5", "1..16" } },
    { .component = "unet",
      .key = "cross_attention_dim",
      .value = "48",
      .says = { "attn2.to_k.weight", "[16, 40]", "[16, 48]" } },
    { .component = "unet",
      .key = "act_fn",
      .value = "\"gelu\"",
      .says = { "act_fn", "\"gelu\"", "\"silu\"" } },
    { .component = "unet",
      .key = "class_embed_type",
      .value = "\"timestep\"",
      .says = { "class_embed_type", "\"timestep\"", "null" } },
    { .component = "unet",
      .key = "mid_block_type",
      .value = "\"UNetMidBlock2DSimpleCrossAttn\"",
      .says = { "mid_block_type", "UNetMidBlock2DSimpleCrossAttn",
                "UNetMidBlock2DCrossAttn" } },
    { .component = "unet",
      .key = "down_block_types",
      .value = "[\"CrossAttnDownBlock2D\",\"ResnetDownsampleBlock2D\","
               "\"CrossAttnDownBlock2D\",\"DownBlock2D\"]",
      .says = { "down_block_types[1]", "ResnetDownsampleBlock2D", "DownBlock2D" } },
    { .component = "vae",
      .key = "norm_num_groups",
      .value = "3",
      .says = { "block_out_channels[0] = 8", "norm_num_groups = 3" } },
    { .component = "vae",
      .key = "act_fn",
      .value = "\"mish\"",
      .says = { "act_fn", "\"mish\"", "\"silu\"" } },
    { .component = "vae",
      .key = "latent_channels",
      .value = "8",
      .says = { "encoder.conv_out.weight", "[8, 16, 3, 3]", "[16, 16, 3, 3]" } },
    { .component = "vae",
      .key = "use_quant_conv",
      .value = "false",
      .says = { "2 tensors", "quant_conv." } },
    { .component = "vae",
      .key = "scaling_factor",
      .value = "0",
      .says = { "scaling_factor" } },
    { .component = "text_encoder",
      .key = "hidden_act",
      .value = "\"relu\"",
      .says = { "hidden_act", "\"relu\"", "quick_gelu" } },
    { .component = "text_encoder",
      .key = "num_attention_heads",
      .value = "7",
      .says = { "hidden_size = 40", "num_attention_heads = 7" } },
    { .component = "text_encoder",
      .key = "num_hidden_layers",
      .value = "2",
      .says = { "16 tensors", "text_model.encoder.layers.2." } },
};

/* --- a changed copy --- */

static const char *stem_of(const char *component)
{
    return strcmp(component, "text_encoder") ? "diffusion_pytorch_model" : "model";
}

static void put_header(dr_buf *head, const char *name, const char *dtype, const char *shape,
                       size_t first, size_t bytes)
{
    dr_buf_printf(head,
                  "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                  head->len ? "," : "{", name, dtype, shape, first, first + bytes);
}

static void put_tensor(dr_buf *head, dr_buf *data, const dr_weight *t, const lie *l)
{
    dr_buf shape = { 0 };
    bool altered = l->alter && !strcmp(l->alter, t->name);
    for (int i = 0; i < t->ndim; i++)
        dr_buf_printf(&shape, "%c%lld", i ? ',' : '[', (long long)t->dim[i]);
    dr_buf_puts(&shape, "]");
    put_header(head, t->name, altered && l->dtype ? l->dtype : t->dtype,
               altered && l->shape ? l->shape : shape.data, data->len, t->bytes);
    dr_buf_put(data, t->data, t->bytes);
    dr_buf_free(&shape);
}

/* The weights of from/stem.safetensors with the lie's changes, as to/stem.safetensors. */
static void copy_weights(const char *from, const char *to, const char *stem, const lie *l)
{
    char path[DR_PATH_MAX + 64];
    dr_weights *w = NULL;
    dr_buf head = { 0 }, data = { 0 }, file = { 0 };
    assert_int_equal(dr_weights_open(&w, from, stem, NULL), DR_OK);
    for (size_t i = 0; i < dr_weights_count(w); i++) {
        const dr_weight *t = dr_weights_at(w, i);
        if (!l->drop || strcmp(l->drop, t->name) != 0)
            put_tensor(&head, &data, t, l);
    }
    if (l->add) {
        put_header(&head, l->add, "F16", "[4]", data.len, 8);
        dr_buf_put(&data, "\0\0\0\0\0\0\0", 8);
    }
    dr_buf_puts(&head, "}");
    while (head.len % 8)
        dr_buf_puts(&head, " ");
    for (int i = 0; i < l->pad; i++)
        dr_buf_puts(&head, " ");
    uint64_t length = head.len; /* little endian like the machines this runs on */
    dr_buf_put(&file, &length, sizeof length);
    dr_buf_put(&file, head.data, head.len);
    dr_buf_put(&file, data.data, data.len);
    assert_false(file.failed);
    snprintf(path, sizeof path, "%s/%s.safetensors", to, stem);
    assert_int_equal(dr_file_write(path, file.data, file.len, NULL), DR_OK);
    dr_buf_free(&head);
    dr_buf_free(&data);
    dr_buf_free(&file);
    dr_weights_close(w);
}

static void copy_config(const char *from, const char *to, const lie *l)
{
    char path[DR_PATH_MAX + 64];
    dr_json *config = NULL;
    dr_buf text = { 0 };
    bool found = !l->key;
    snprintf(path, sizeof path, "%s/config.json", from);
    assert_int_equal(dr_json_read(&config, path, NULL), DR_OK);
    for (const dr_json *i = dr_json_first(config); i; i = dr_json_next(i)) {
        bool changed = l->key && !strcmp(l->key, dr_json_key(i));
        dr_buf_printf(&text, "%c\"%s\":", text.len ? ',' : '{', dr_json_key(i));
        if (changed)
            dr_buf_puts(&text, l->value);
        else
            dr_json_put(&text, i);
        found |= changed;
    }
    dr_buf_puts(&text, "}");
    assert_true(found);
    snprintf(path, sizeof path, "%s/config.json", to);
    assert_int_equal(dr_file_write(path, text.data, text.len, NULL), DR_OK);
    dr_buf_free(&text);
    dr_json_free(config);
}

/* --- tests --- */

static int fixtures(void **state)
{
    *state = golden_open("tests/golden/tiny-sd1");
    return 0;
}

static int close_fixtures(void **state)
{
    golden_close(*state);
    return 0;
}

/* Load a copy of the model in which one component is written anew, with the lie in it. */
static dr_status load_with(golden *g, const lie *l, dr_err *err)
{
    char dir[] = "/tmp/darkroom-model.XXXXXX", from[DR_PATH_MAX], to[DR_PATH_MAX];
    golden_link_model(dir, source, l->component);
    assert_int_equal(dr_path_join(from, source, l->component, NULL), DR_OK);
    assert_int_equal(dr_path_join(to, dir, l->component, NULL), DR_OK);
    assert_int_equal(dr_mkdirs(to, NULL), DR_OK);
    copy_weights(from, to, stem_of(l->component), l);
    copy_config(from, to, l);
    dr_status st = golden_load(g, dir, err);
    golden_remove_model(dir);
    return st;
}

/* Without a lie the rewritten files load: the copies are otherwise right. */
static void the_truth_is_accepted(void **state)
{
    static const char *const components[] = { "text_encoder", "unet", "vae" };
    for (size_t i = 0; i < DR_COUNT(components); i++) {
        dr_err err = { 0 };
        if (load_with(*state, &(lie){ .component = components[i] }, &err))
            fail_msg("%s", err.message);
    }
}

/* What old exports carry without meaning is no lie. */
static void position_ids_are_ignored(void **state)
{
    dr_err err = { 0 };
    const lie old = { .component = "text_encoder",
                      .add = "text_model.embeddings.position_ids" };
    if (load_with(*state, &old, &err))
        fail_msg("%s", err.message);
}

static void every_lie_is_named(void **state)
{
    for (size_t i = 0; i < DR_COUNT(lies); i++) {
        const lie *l = &lies[i];
        dr_err err = { 0 };
        dr_status st = load_with(*state, l, &err);
        if (st != DR_EMODEL)
            fail_msg("lie %zu (%s, %s): status %s, message %s", i, l->component, l->says[0],
                     dr_status_name(st), err.message);
        for (size_t k = 0; k < DR_COUNT(l->says) && l->says[k]; k++)
            if (!strstr(err.message, l->says[k]))
                fail_msg("lie %zu: \"%s\" is not in: %s", i, l->says[k], err.message);
    }
}

typedef struct {
    golden *g;
    float *out; /* [LENGTH, width] */
} reading;

#define LENGTH 8

static void read_ids(dr_run *r, void *ctx)
{
    static const int32_t ids[LENGTH] = { 998, 5, 77, 3, 512, 41, 999, 999 };
    reading *t = ctx;
    dr_download(r, dr_clip_forward(r, &t->g->clip, ids, 1, LENGTH, NULL, 0), t->out);
}

/* Devices read the file's own bytes where those are aligned, a copy where they are not. */
static void data_may_begin_anywhere(void **state)
{
    golden *g = *state;
    float out[8][LENGTH * 40];
    golden_device(g);
    for (int pad = 0; pad < 8; pad++) {
        dr_err err = { 0 };
        if (load_with(g, &(lie){ .component = "text_encoder", .pad = pad }, &err))
            fail_msg("%d bytes off: %s", pad, err.message);
        assert_int_equal(g->clip.width, 40);
        golden_run(g, read_ids, &(reading){ .g = g, .out = out[pad] }, 0, NULL);
        if (memcmp(out[pad], out[0], sizeof out[0]))
            fail_msg("data %d bytes off is read as something else", pad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_truth_is_accepted),
        cmocka_unit_test(position_ids_are_ignored),
        cmocka_unit_test(every_lie_is_named),
        cmocka_unit_test(data_may_begin_anywhere),
    };
    return cmocka_run_group_tests(tests, fixtures, close_fixtures);
}
