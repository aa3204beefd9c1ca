#include "nn/clip.h"

#include <string.h>

static const struct {
    const char *name;
    dr_activation act;
} activations[] = {
    { "quick_gelu", DR_QUICK_GELU },
    { "gelu", DR_GELU },
};

static void read_config(dr_clip *m, dr_loader *l, const dr_json *config)
{
    const char *act = dr_json_get_string(config, "hidden_act", "quick_gelu");
    m->width = dr_config_int(l, config, "hidden_size", 1, 16384, 512);
    m->layers = dr_config_int(l, config, "num_hidden_layers", 1, 256, 12);
    m->heads = dr_config_int(l, config, "num_attention_heads", 1, 256, 8);
    m->length = dr_config_int(l, config, "max_position_embeddings", 2, 4096, 77);
    m->vocabulary = dr_config_int(l, config, "vocab_size", 1, 1 << 24, 49408);
    if (m->width % m->heads && !l->err.code)
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: hidden_size = %lld is no multiple of num_attention_heads "
                "= %lld",
                l->component, (long long)m->width, (long long)m->heads);
    for (size_t i = 0; i < DR_COUNT(activations); i++)
        if (!strcmp(act, activations[i].name)) {
            m->act = activations[i].act;
            return;
        }
    if (!l->err.code)
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: hidden_act \"%s\"; known are quick_gelu and gelu",
                l->component, act);
}

static void load_layer(struct dr_clip_layer *b, dr_loader *l, int64_t i, int64_t c,
                       int64_t inner, double eps)
{
#define AT "text_model.encoder.layers.%lld."
    long long n = (long long)i;
    dr_load_norm(l, &b->norm1, c, 1, eps, AT "layer_norm1", n);
    for (int j = 0; j < 3; j++)
        dr_load_linear(l, &b->qkv[j], c, c, true, AT "self_attn.%c_proj", n, "qkv"[j]);
    dr_load_linear(l, &b->out, c, c, true, AT "self_attn.out_proj", n);
    dr_load_norm(l, &b->norm2, c, 1, eps, AT "layer_norm2", n);
    dr_load_linear(l, &b->fc1, c, inner, true, AT "mlp.fc1", n);
    dr_load_linear(l, &b->fc2, inner, c, true, AT "mlp.fc2", n);
#undef AT
}

void dr_clip_load(dr_clip *m, dr_loader *l, const dr_json *config, dr_arena *mem)
{
    read_config(m, l, config);
    if (l->err.code)
        return;
    double eps = dr_json_get_number(config, "layer_norm_eps", 1e-5);
    int64_t inner = dr_config_int(l, config, "intermediate_size", 1, 1 << 20, 2048);
    m->layer = dr_arena_alloc(mem, (size_t)m->layers * sizeof *m->layer);
    if (!m->layer) {
        dr_fail(&l->err, DR_ENOMEM, "out of memory");
        return;
    }
    dr_load_table(l, &m->tokens, m->vocabulary, m->width,
                  "text_model.embeddings.token_embedding");
    dr_load_table(l, &m->positions, m->length, m->width,
                  "text_model.embeddings.position_embedding");
    for (int64_t i = 0; i < m->layers; i++)
        load_layer(&m->layer[i], l, i, m->width, inner, eps);
    dr_load_norm(l, &m->final_norm, m->width, 1, eps, "text_model.final_layer_norm");
}

/* x: [n, length, width] → the same, in y. */
static void layer_forward(dr_run *r, const dr_clip *m, const struct dr_clip_layer *b,
                          dr_tensor x, dr_tensor y)
{
    dr_mark mark = dr_push(r);
    dr_tensor h = op_layer_norm(r, x, &b->norm1);
    dr_tensor qkv[3];
    op_linear_each(r, h, b->qkv, 3, qkv);
    dr_tensor a = op_attention(r, qkv[0], qkv[1], qkv[2], m->heads, true);
    x = op_linear(r, a, &b->out, &x);
    h = op_layer_norm(r, x, &b->norm2);
    h = op_linear_activate(r, h, &b->fc1, m->act); /* [n, length, inner] */
    op_linear_into(r, y, h, &b->fc2, &x);
    dr_pop(r, mark);
}

dr_tensor dr_clip_forward(dr_run *r, const dr_clip *m, const int32_t *ids, int64_t n,
                          int64_t length, const dr_tensor *extra, int64_t skip)
{
    dr_tensor out = dr_new(r, n, length, 1, m->width);
    int64_t layers = skip < m->layers ? m->layers - skip : 1;
    dr_mark mark = dr_push(r);
    dr_tensor x = op_embed_tokens(r, ids, n, length, &m->tokens, &m->positions, extra);
    dr_show(r, x, "text_model.embeddings");
    for (int64_t i = 0; i < layers; i++) {
        dr_tensor y = dr_new(r, n, length, 1, m->width);
        layer_forward(r, m, &m->layer[i], x, y);
        dr_show(r, y, "text_model.encoder.layers.%lld", (long long)i);
        x = y;
    }
    op_layer_norm_into(r, out, x, &m->final_norm);
    dr_pop(r, mark);
    return out;
}
