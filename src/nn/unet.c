#include "nn/unet.h"

#include <stdio.h>
#include <string.h>

/* What the config says of one level, counted from the picture inwards. */
typedef struct {
    int64_t channels, layers, heads, text_c;
    int transformer_layers;
    bool cross_down, cross_up;
} level_config;

typedef struct {
    level_config level[DR_UNET_LEVELS_MAX];
    int64_t groups;
    double eps;
    dr_arena *mem;
} unet_config;

/* --- reading the config --- */

/* Options that would change the picture; only the value of the SD family is known. */
static const char *const only[][2] = {
    { "act_fn", "\"silu\"" },
    { "addition_embed_type", "null" },
    { "attention_type", "\"default\"" },
    { "center_input_sample", "false" },
    { "class_embed_type", "null" },
    { "conv_in_kernel", "3" },
    { "conv_out_kernel", "3" },
    { "cross_attention_norm", "null" },
    { "downsample_padding", "1" },
    { "dual_cross_attention", "false" },
    { "encoder_hid_dim", "null" },
    { "encoder_hid_dim_type", "null" },
    { "mid_block_only_cross_attention", "null" },
    { "mid_block_scale_factor", "1" },
    { "num_class_embeds", "null" },
    { "only_cross_attention", "false" },
    { "resnet_out_scale_factor", "1" },
    { "resnet_skip_time_act", "false" },
    { "resnet_time_scale_shift", "\"default\"" },
    { "reverse_transformer_layers_per_block", "null" },
    { "time_cond_proj_dim", "null" },
    { "time_embedding_act_fn", "null" },
    { "time_embedding_dim", "null" },
    { "time_embedding_type", "\"positional\"" },
    { "timestep_post_act", "null" },
};

/* Whether block i of a list crosses to the text. */
static bool cross(dr_loader *l, const dr_json *config, const char *key, int i,
                  const char *plain, const char *crossed)
{
    const char *name = dr_json_string(dr_json_at(dr_json_get(config, key), i));
    if (!l->err.code && (!name || (strcmp(name, plain) != 0 && strcmp(name, crossed) != 0)))
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: %s[%d] is %s; known are %s and %s",
                l->component, key, i, name ? name : "missing", plain, crossed);
    return name && !strcmp(name, crossed);
}

static void read_level(level_config *v, dr_loader *l, const dr_json *config, int i, int n,
                       bool whole)
{
    const char *heads =
        dr_json_type(dr_json_get(config, "num_attention_heads")) == DR_JSON_NULL
            ? "attention_head_dim" /* holds the number of heads in SD 1 and 2 */
            : "num_attention_heads";
    v->channels = dr_config_int_at(l, config, "block_out_channels", i, n, 1, 1 << 16, 0);
    v->layers = dr_config_int_at(l, config, "layers_per_block", i, n, 1, 16, 2);
    v->heads = dr_config_int_at(l, config, heads, i, n, 1, 1 << 12, 8);
    v->text_c = dr_config_int_at(l, config, "cross_attention_dim", i, n, 1, 1 << 16, 1280);
    v->transformer_layers =
        (int)dr_config_int_at(l, config, "transformer_layers_per_block", i, n, 1, 64, 1);
    v->cross_down =
        cross(l, config, "down_block_types", i, "DownBlock2D", "CrossAttnDownBlock2D");
    v->cross_up = whole && cross(l, config, "up_block_types", n - 1 - i, "UpBlock2D",
                                 "CrossAttnUpBlock2D");
}

static void check_level(dr_loader *l, const unet_config *c, int i)
{
    const level_config *v = &c->level[i];
    if (l->err.code)
        return;
    if (v->channels % c->groups)
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: block_out_channels[%d] = %lld is no multiple of "
                "norm_num_groups = %lld",
                l->component, i, (long long)v->channels, (long long)c->groups);
    else if ((v->cross_down || v->cross_up) && v->channels % v->heads)
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: block_out_channels[%d] = %lld is no multiple of its %lld "
                "attention heads",
                l->component, i, (long long)v->channels, (long long)v->heads);
}

/* whole: with a way up. */
static void read_config(unet_config *c, dr_unet *m, dr_loader *l, const dr_json *config,
                        bool whole)
{
    int n = dr_json_count(dr_json_get(config, "block_out_channels"));
    const dr_json *mid = dr_json_get(config, "mid_block_type");
    if (n < 1 || n > DR_UNET_LEVELS_MAX) {
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: block_out_channels must have 1..%d entries", l->component,
                DR_UNET_LEVELS_MAX);
        return;
    }
    for (size_t i = 0; i < DR_COUNT(only); i++)
        dr_config_only(l, config, only[i][0], only[i][1]);
    c->groups = dr_config_int(l, config, "norm_num_groups", 1, 1 << 16, 32);
    c->eps = dr_json_get_number(config, "norm_eps", 1e-5);
    for (int i = 0; i < n; i++) {
        read_level(&c->level[i], l, config, i, n, whole);
        check_level(l, c, i);
    }
    m->n_levels = n;
    m->in_c = dr_config_int(l, config, "in_channels", 1, 256, 4);
    m->out_c = dr_config_int(l, config, "out_channels", 1, 256, 4);
    m->sample_size = dr_config_int(l, config, "sample_size", 1, 4096, 64);
    m->flip_sin_to_cos = dr_json_get_bool(config, "flip_sin_to_cos", true);
    m->freq_shift = dr_json_get_number(config, "freq_shift", 0);
    m->width = c->level[0].channels;
    m->time_c = 4 * m->width;
    m->text_c = c->level[0].text_c;
    /* A config without the key predates it and has a middle block. */
    const char *name = mid ? dr_json_string(mid) : "UNetMidBlock2DCrossAttn";
    m->has_mid = name != NULL;
    if (name && strcmp(name, "UNetMidBlock2DCrossAttn") != 0 && !l->err.code)
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: mid_block_type is %s; only UNetMidBlock2DCrossAttn and "
                "null are "
                "supported",
                l->component, name);
}

/* --- weights --- */

static void load_transformer(dr_unet *m, dr_loader *l, const unet_config *c,
                             const level_config *v, dr_transformer *t, const char *name)
{
    t->n_layers = v->transformer_layers;
    t->first_kv = m->n_kv;
    t->layers = dr_arena_alloc(c->mem, (size_t)t->n_layers * sizeof *t->layers);
    if (!t->layers) {
        dr_fail(&l->err, DR_ENOMEM, "out of memory");
        return;
    }
    m->n_kv += t->n_layers;
    dr_transformer_load(l, t, v->channels, v->text_c, v->heads, c->groups, name);
}

/* A block of n resnets whose inputs have in[j] channels, each followed by a transformer
 * where the level crosses. */
static void load_block(dr_unet *m, dr_loader *l, const unet_config *c, dr_unet_block *b,
                       const level_config *v, bool crossed, const int64_t *in, int n,
                       const char *side, int i)
{
    char name[96];
    b->n_layers = n;
    b->resnets = dr_arena_alloc(c->mem, (size_t)n * sizeof *b->resnets);
    if (crossed)
        b->attentions = dr_arena_alloc(c->mem, (size_t)n * sizeof *b->attentions);
    if (!b->resnets || (crossed && !b->attentions)) {
        dr_fail(&l->err, DR_ENOMEM, "out of memory");
        return;
    }
    for (int j = 0; j < n; j++) {
        snprintf(name, sizeof name, "%s_blocks.%d.resnets.%d", side, i, j);
        dr_resnet_load(l, &b->resnets[j], in[j], v->channels, m->time_c, c->groups, c->eps,
                       name);
        snprintf(name, sizeof name, "%s_blocks.%d.attentions.%d", side, i, j);
        if (crossed)
            load_transformer(m, l, c, v, &b->attentions[j], name);
    }
    if (i < m->n_levels - 1)
        dr_load_conv(l, &b->sampler, v->channels, v->channels, 3,
                     "%s_blocks.%d.%ssamplers.0.conv", side, i, side);
}

static void load_down(dr_unet *m, dr_loader *l, const unet_config *c)
{
    m->n_skips = 1; /* conv_in's */
    for (int i = 0; i < m->n_levels; i++) {
        const level_config *v = &c->level[i];
        int64_t in[16];
        for (int j = 0; j < v->layers; j++)
            in[j] = j ? v->channels : c->level[i ? i - 1 : 0].channels;
        load_block(m, l, c, &m->down[i], v, v->cross_down, in, (int)v->layers, "down", i);
        m->n_skips += (int)v->layers + (i < m->n_levels - 1);
    }
}

/* Block i of the way up mirrors level n-1-i. Its resnets read what comes from below joined
 * with the skips, last ones first: this level's own, then the one before its first resnet,
 * which is as wide as the next level outwards. */
static void load_up(dr_unet *m, dr_loader *l, const unet_config *c)
{
    int n = m->n_levels;
    for (int i = 0; i < n; i++) {
        int at = n - 1 - i;
        const level_config *v = &c->level[at];
        int64_t below = c->level[i ? at + 1 : at].channels;
        int64_t outer = c->level[at ? at - 1 : 0].channels, in[17];
        int resnets = (int)v->layers + 1;
        for (int j = 0; j < resnets; j++)
            in[j] = (j ? v->channels : below) + (j == resnets - 1 ? outer : v->channels);
        load_block(m, l, c, &m->up[i], v, v->cross_up, in, resnets, "up", i);
    }
}

static void load_mid(dr_unet *m, dr_loader *l, const unet_config *c)
{
    const level_config *v = &c->level[m->n_levels - 1];
    for (int i = 0; i < 2; i++)
        dr_resnet_load(l, &m->mid[i], v->channels, v->channels, m->time_c, c->groups,
                       c->eps, i ? "mid_block.resnets.1" : "mid_block.resnets.0");
    load_transformer(m, l, c, v, &m->mid_attention, "mid_block.attentions.0");
}

/* What the whole and the lower half share. */
static void load_lower(dr_unet *m, dr_loader *l, const unet_config *c)
{
    dr_load_linear(l, &m->time1, m->width, m->time_c, true, "time_embedding.linear_1");
    dr_load_linear(l, &m->time2, m->time_c, m->time_c, true, "time_embedding.linear_2");
    dr_load_conv(l, &m->conv_in, m->in_c, m->width, 3, "conv_in");
    load_down(m, l, c);
    if (m->has_mid)
        load_mid(m, l, c);
    if (m->n_skips > DR_UNET_SKIPS_MAX && !l->err.code)
        dr_fail(&l->err, DR_EMODEL, "%s: %d layers, at most %d are supported", l->component,
                m->n_skips, DR_UNET_SKIPS_MAX);
}

void dr_unet_load(dr_unet *m, dr_loader *l, const dr_json *config, dr_arena *mem)
{
    unet_config c = { .mem = mem };
    read_config(&c, m, l, config, true);
    if (l->err.code)
        return;
    load_lower(m, l, &c);
    load_up(m, l, &c);
    dr_load_norm(l, &m->norm_out, m->width, c.groups, c.eps, "conv_norm_out");
    dr_load_conv(l, &m->conv_out, m->width, m->out_c, 3, "conv_out");
}

void dr_unet_load_lower(dr_unet *m, dr_loader *l, const dr_json *config, dr_arena *mem)
{
    unet_config c = { .mem = mem };
    read_config(&c, m, l, config, false);
    if (!l->err.code)
        load_lower(m, l, &c);
}

/* --- forward --- */

static void read_text(dr_run *r, const dr_unet_block *b, dr_tensor text, dr_text_kv *kv)
{
    for (int j = 0; b->attentions && j < b->n_layers; j++)
        dr_transformer_read_text(r, &b->attentions[j], text, kv);
}

void dr_unet_read_text(dr_run *r, const dr_unet *m, dr_tensor text, dr_text_kv *kv)
{
    for (int i = 0; i < m->n_levels; i++)
        read_text(r, &m->down[i], text, kv);
    if (m->has_mid)
        dr_transformer_read_text(r, &m->mid_attention, text, kv);
    for (int i = 0; i < m->n_levels; i++)
        read_text(r, &m->up[i], text, kv);
}

void dr_unet_choose_text(const dr_unet *m, dr_text_kv *kv, const int *rows)
{
    for (int i = 0; i < m->n_kv; i++)
        kv[i].rows = rows;
}

dr_tensor dr_unet_time(dr_run *r, const dr_unet *m, double timestep)
{
    dr_tensor t =
        op_embed_timestep(r, timestep, m->width, m->flip_sin_to_cos, m->freq_shift);
    t = op_linear(r, t, &m->time1, NULL);
    t = op_activate(r, t, DR_SILU);
    t = op_linear(r, t, &m->time2, NULL);
    dr_show(r, t, "time_embedding");
    return t;
}

/* Resnet j of a block and its transformer, of `batch` rows then; side and i tell which
 * block it is. */
static dr_tensor layer_forward(dr_run *r, const dr_unet_block *b, int j, dr_tensor x,
                               const dr_tensor *time, const dr_text_kv *kv, int64_t batch,
                               const char *side, int i)
{
    x = dr_resnet_forward(r, &b->resnets[j], x, time);
    dr_show(r, x, "%s_blocks.%d.resnets.%d", side, i, j);
    if (b->attentions) {
        x = dr_transformer_forward(r, &b->attentions[j], x, kv, batch);
        dr_show(r, x, "%s_blocks.%d.attentions.%d", side, i, j);
    }
    return x;
}

static dr_tensor mid_forward(dr_run *r, const dr_unet *m, dr_tensor x,
                             const dr_tensor *time, const dr_text_kv *kv)
{
    x = dr_resnet_forward(r, &m->mid[0], x, time);
    dr_show(r, x, "mid_block.resnets.0");
    x = dr_transformer_forward(r, &m->mid_attention, x, kv, x.n);
    dr_show(r, x, "mid_block.attentions.0");
    x = dr_resnet_forward(r, &m->mid[1], x, time);
    dr_show(r, x, "mid_block.resnets.1");
    dr_show(r, x, "mid_block");
    return x;
}

/* Until the first text is read, rows of the same latents are the same: one of them is
 * worked out. */
dr_unet_way dr_unet_descend(dr_run *r, const dr_unet *m, const dr_unet_call *call,
                            dr_tensor time, const dr_text_kv *kv, const dr_tensor *hint)
{
    dr_unet_way way = { 0 };
    dr_conv_opts in = dr_window3;
    in.batch = hint ? call->batch : call->x.n;
    in.in_scale = (float)call->in_scale;
    in.residual = hint;
    dr_tensor h = op_conv2d(r, call->x, &m->conv_in, &in); /* [.., h, w, width] */
    way.skip[way.n++] = op_repeat(r, h, call->batch);
    dr_show(r, way.skip[0], "conv_in");
    for (int i = 0; i < m->n_levels; i++) {
        const dr_unet_block *b = &m->down[i];
        for (int j = 0; j < b->n_layers; j++) {
            h = layer_forward(r, b, j, h, &time, kv, call->batch, "down", i);
            way.skip[way.n++] = op_repeat(r, h, call->batch);
        }
        if (b->sampler.out) {
            dr_conv_opts down = dr_window3;
            down.stride = 2;
            h = op_conv2d(r, h, &b->sampler, &down);
            way.skip[way.n++] = op_repeat(r, h, call->batch);
            dr_show(r, h, "down_blocks.%d.downsamplers.0", i);
        }
        dr_show(r, h, "down_blocks.%d", i);
    }
    h = op_repeat(r, h, call->batch);
    way.mid = m->has_mid ? mid_forward(r, m, h, &time, kv) : h;
    return way;
}

dr_tensor dr_unet_forward(dr_run *r, const dr_unet *m, const dr_unet_call *call,
                          const dr_text_kv *kv)
{
    dr_tensor out = dr_new(r, call->batch, call->x.h, call->x.w, m->out_c);
    dr_mark mark = dr_push(r);
    dr_tensor time = op_activate(r, dr_unet_time(r, m, call->timestep), DR_SILU);
    dr_unet_way way = dr_unet_descend(r, m, call, time, kv, NULL);
    if (call->guide)
        call->guide(call->guide_ctx, r, call, &way);
    const dr_tensor *skip = way.skip;
    dr_tensor h = way.mid;
    int n = way.n;
    for (int i = 0; i < m->n_levels; i++) {
        const dr_unet_block *b = &m->up[i];
        for (int j = 0; j < b->n_layers; j++)
            h = layer_forward(r, b, j, op_concat(r, h, skip[--n]), &time, kv, h.n, "up", i);
        if (b->sampler.out) { /* to the size of the next skip: odd sizes come back too */
            dr_conv_opts up = dr_window3;
            up.up_h = skip[n - 1].h;
            up.up_w = skip[n - 1].w;
            h = op_conv2d(r, h, &b->sampler, &up);
            dr_show(r, h, "up_blocks.%d.upsamplers.0", i);
        }
        dr_show(r, h, "up_blocks.%d", i);
    }
    dr_norm_conv_into(r, out, h, &m->norm_out, &m->conv_out, &dr_window3);
    dr_show(r, out, "conv_out");
    dr_pop(r, mark);
    return out;
}
