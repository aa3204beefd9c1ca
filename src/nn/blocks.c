#include "nn/blocks.h"

#define TRANSFORMER_NORM_EPS 1e-6 /* diffusers fixes both */
#define LAYER_NORM_EPS       1e-5

const dr_conv_opts dr_window3 = {
    .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
};

void dr_norm_conv_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_norm *norm,
                       const dr_weight_mat *w, const dr_conv_opts *o)
{
    dr_mark mark = dr_push(r);
    dr_tensor coef = op_group_norm_coef(r, x, norm);
    dr_conv_opts behind = *o;
    behind.norm = &coef;
    op_conv2d_into(r, y, x, w, &behind);
    dr_pop(r, mark);
}

void dr_resnet_load(dr_loader *l, dr_resnet *b, int64_t in, int64_t out, int64_t time_c,
                    int64_t groups, double eps, const char *name)
{
    dr_load_norm(l, &b->norm1, in, groups, eps, "%s.norm1", name);
    dr_load_conv(l, &b->conv1, in, out, 3, "%s.conv1", name);
    if (time_c)
        dr_load_linear(l, &b->time, time_c, out, true, "%s.time_emb_proj", name);
    dr_load_norm(l, &b->norm2, out, groups, eps, "%s.norm2", name);
    dr_load_conv(l, &b->conv2, out, out, 3, "%s.conv2", name);
    if (in != out)
        dr_load_conv(l, &b->shortcut, in, out, 1, "%s.conv_shortcut", name);
}

void dr_resnet_forward_into(dr_run *r, const dr_resnet *b, dr_tensor y, dr_tensor x,
                            const dr_tensor *time)
{
    dr_mark mark = dr_push(r);
    dr_conv_opts first = dr_window3, second = dr_window3;
    dr_tensor row, h = dr_new(r, x.n, x.h, x.w, b->conv1.out);
    if (time) {
        row = op_linear(r, *time, &b->time, NULL); /* [1, 1, 1, out] */
        first.row = &row;
    }
    if (b->shortcut.out)
        op_conv2d_into(r, y, x, &b->shortcut, &(dr_conv_opts){ 0 });
    second.residual = b->shortcut.out ? &y : &x;
    dr_norm_conv_into(r, h, x, &b->norm1, &b->conv1, &first);
    dr_norm_conv_into(r, y, h, &b->norm2, &b->conv2, &second);
    dr_pop(r, mark);
}

dr_tensor dr_resnet_forward(dr_run *r, const dr_resnet *b, dr_tensor x,
                            const dr_tensor *time)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, b->conv2.out);
    dr_resnet_forward_into(r, b, y, x, time);
    return y;
}

void dr_self_attention_load(dr_loader *l, dr_self_attention *b, int64_t c, int64_t heads,
                            int64_t groups, double eps, const char *name)
{
    static const char *const spellings[][4] = { { "to_q", "to_k", "to_v", "to_out.0" },
                                                { "query", "key", "value", "proj_attn" } };
    const char *const *s = spellings[dr_load_has(l, "%s.query.weight", name)];
    b->heads = heads;
    dr_load_norm(l, &b->norm, c, groups, eps, "%s.group_norm", name);
    for (int i = 0; i < 3; i++)
        dr_load_linear(l, &b->qkv[i], c, c, true, "%s.%s", name, s[i]);
    dr_load_linear(l, &b->out, c, c, true, "%s.%s", name, s[3]);
}

dr_tensor dr_self_attention_forward(dr_run *r, const dr_self_attention *b, dr_tensor x)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c);
    dr_mark mark = dr_push(r);
    dr_tensor h = op_group_norm(r, x, &b->norm, false);
    dr_tensor qkv[3];
    op_linear_each(r, h, b->qkv, 3, qkv);
    dr_tensor a = op_attention(r, qkv[0], qkv[1], qkv[2], b->heads, false);
    op_linear_into(r, y, a, &b->out, &x);
    dr_pop(r, mark);
    return y;
}

static void load_layer(dr_loader *l, dr_transformer_layer *b, int64_t c, int64_t text_c,
                       const char *name, int i)
{
#define AT "%s.transformer_blocks.%d."
    dr_load_norm(l, &b->norm1, c, 1, LAYER_NORM_EPS, AT "norm1", name, i);
    for (int j = 0; j < 3; j++)
        dr_load_linear(l, &b->qkv1[j], c, c, false, AT "attn1.to_%c", name, i, "qkv"[j]);
    dr_load_linear(l, &b->out1, c, c, true, AT "attn1.to_out.0", name, i);
    dr_load_norm(l, &b->norm2, c, 1, LAYER_NORM_EPS, AT "norm2", name, i);
    dr_load_linear(l, &b->q2, c, c, false, AT "attn2.to_q", name, i);
    for (int j = 0; j < 2; j++)
        dr_load_linear(l, &b->kv2[j], text_c, c, false, AT "attn2.to_%c", name, i, "kv"[j]);
    dr_load_linear(l, &b->out2, c, c, true, AT "attn2.to_out.0", name, i);
    dr_load_norm(l, &b->norm3, c, 1, LAYER_NORM_EPS, AT "norm3", name, i);
    dr_load_linear(l, &b->ff_in, c, 8 * c, true, AT "ff.net.0.proj", name, i);
    dr_load_linear(l, &b->ff_out, 4 * c, c, true, AT "ff.net.2", name, i);
#undef AT
}

void dr_transformer_load(dr_loader *l, dr_transformer *b, int64_t c, int64_t text_c,
                         int64_t heads, int64_t groups, const char *name)
{
    b->heads = heads;
    dr_load_norm(l, &b->norm, c, groups, TRANSFORMER_NORM_EPS, "%s.norm", name);
    dr_load_linear(l, &b->in, c, c, true, "%s.proj_in", name);
    for (int i = 0; i < b->n_layers; i++)
        load_layer(l, &b->layers[i], c, text_c, name, i);
    dr_load_linear(l, &b->out, c, c, true, "%s.proj_out", name);
}

void dr_transformer_read_text(dr_run *r, const dr_transformer *b, dr_tensor text,
                              dr_text_kv *kv)
{
    for (int i = 0; i < b->n_layers; i++) {
        dr_tensor both[2];
        op_linear_each(r, text, b->layers[i].kv2, 2, both);
        kv[b->first_kv + i] = (dr_text_kv){ .k = both[0], .v = both[1] };
    }
}

/* x: [n, h, w, c], updated in place, as in the next one. */
static void attend_itself(dr_run *r, const dr_transformer_layer *b, dr_tensor x,
                          int64_t heads)
{
    dr_mark mark = dr_push(r);
    dr_tensor h = op_layer_norm(r, x, &b->norm1);
    dr_tensor qkv[3];
    op_linear_each(r, h, b->qkv1, 3, qkv);
    h = op_attention(r, qkv[0], qkv[1], qkv[2], heads, false);
    op_linear_into(r, x, h, &b->out1, &x);
    dr_pop(r, mark);
}

static void attend_text(dr_run *r, const dr_transformer_layer *b, dr_tensor x,
                        int64_t heads, const dr_text_kv *kv)
{
    dr_mark mark = dr_push(r);
    dr_tensor h = op_layer_norm(r, x, &b->norm2);
    dr_tensor q = op_linear(r, h, &b->q2, NULL);
    h = kv->rows ? op_cross_attention(r, q, kv->k, kv->v, heads, kv->rows)
                 : op_attention(r, q, kv->k, kv->v, heads, false);
    op_linear_into(r, x, h, &b->out2, &x);
    dr_pop(r, mark);

    h = op_layer_norm(r, x, &b->norm3);
    h = op_linear_geglu(r, h, &b->ff_in); /* [n, h, w, 4c] */
    op_linear_into(r, x, h, &b->ff_out, &x);
    dr_pop(r, mark);
}

dr_tensor dr_transformer_forward(dr_run *r, const dr_transformer *b, dr_tensor x,
                                 const dr_text_kv *kv, int64_t batch)
{
    dr_tensor y = dr_new(r, batch, x.h, x.w, x.c);
    dr_mark mark = dr_push(r);
    dr_tensor h = op_group_norm(r, x, &b->norm, false);
    h = op_linear(r, h, &b->in, NULL);
    for (int i = 0; i < b->n_layers; i++) {
        attend_itself(r, &b->layers[i], h, b->heads);
        h = op_repeat(r, h, batch);
        attend_text(r, &b->layers[i], h, b->heads, &kv[b->first_kv + i]);
    }
    x = op_repeat(r, x, batch);
    op_linear_into(r, y, h, &b->out, &x);
    dr_pop(r, mark);
    return y;
}
