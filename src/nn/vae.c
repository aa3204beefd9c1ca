#include "nn/vae_bands.h"

#include <stdio.h>
#include <string.h>

#define VAE_NORM_EPS 1e-6

typedef struct {
    int64_t channels[DR_VAE_LEVELS_MAX]; /* from the picture inwards */
    int64_t layers, groups;
    int levels;
    bool mid_attention;
    dr_arena *mem;
} vae_config;

static void check_types(dr_loader *l, const dr_json *config, const char *key,
                        const char *want, int levels)
{
    const dr_json *types = dr_json_get(config, key);
    for (int i = 0; i < levels && !l->err.code; i++) {
        const char *name = dr_json_string(dr_json_at(types, i));
        if (!name || strcmp(name, want) != 0)
            dr_fail(&l->err, DR_EMODEL,
                    "%s/config.json: %s[%d] is %s; only %s is supported", l->component, key,
                    i, name ? name : "missing", want);
    }
}

static void read_config(vae_config *c, dr_vae *m, dr_loader *l, const dr_json *config)
{
    static const char *const key = "block_out_channels";
    c->levels = dr_json_count(dr_json_get(config, key));
    if (c->levels < 1 || c->levels > DR_VAE_LEVELS_MAX) {
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: %s must have 1..%d entries",
                l->component, key, DR_VAE_LEVELS_MAX);
        return;
    }
    for (int i = 0; i < c->levels; i++)
        c->channels[i] = dr_config_int_at(l, config, key, i, c->levels, 1, 1 << 16, 0);
    check_types(l, config, "down_block_types", "DownEncoderBlock2D", c->levels);
    check_types(l, config, "up_block_types", "UpDecoderBlock2D", c->levels);
    dr_config_only(l, config, "act_fn", "\"silu\"");
    dr_config_only(l, config, "in_channels", "3");
    dr_config_only(l, config, "out_channels", "3");
    c->layers = dr_config_int(l, config, "layers_per_block", 1, 16, 1);
    c->groups = dr_config_int(l, config, "norm_num_groups", 1, 1 << 16, 32);
    c->mid_attention = dr_json_get_bool(config, "mid_block_add_attention", true);
    m->latent_c = dr_config_int(l, config, "latent_channels", 1, 256, 4);
    m->factor = (int64_t)1 << (c->levels - 1);
    m->scaling_factor = dr_json_get_number(config, "scaling_factor", 0.18215);
    m->shift_factor = dr_json_get_number(config, "shift_factor", 0);
    if (m->scaling_factor == 0 && !l->err.code)
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: scaling_factor is 0", l->component);
    for (int i = 0; i < c->levels && !l->err.code; i++)
        if (c->channels[i] % c->groups)
            dr_fail(&l->err, DR_EMODEL,
                    "%s/config.json: block_out_channels[%d] = %lld is no multiple of "
                    "norm_num_groups = %lld",
                    l->component, i, (long long)c->channels[i], (long long)c->groups);
}

static void load_mid(dr_vae_half *h, dr_loader *l, const vae_config *c, const char *half)
{
    char name[64];
    int64_t ch = c->channels[c->levels - 1];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.mid_block.resnets.%d", half, i);
        dr_resnet_load(l, &h->mid[i], ch, ch, 0, c->groups, VAE_NORM_EPS, name);
    }
    snprintf(name, sizeof name, "%s.mid_block.attentions.0", half);
    if (c->mid_attention)
        dr_self_attention_load(l, &h->attention, ch, 1, c->groups, VAE_NORM_EPS, name);
}

static void load_level(dr_vae_half *h, dr_loader *l, const vae_config *c, const char *half,
                       const char *side, int i, int64_t in, int64_t out, int64_t resnets)
{
    char name[96];
    dr_vae_level *v = &h->levels[i];
    v->n_resnets = (int)resnets;
    v->resnets = dr_arena_alloc(c->mem, (size_t)resnets * sizeof *v->resnets);
    if (!v->resnets) {
        dr_fail(&l->err, DR_ENOMEM, "out of memory");
        return;
    }
    for (int j = 0; j < resnets; j++) {
        snprintf(name, sizeof name, "%s.%s_blocks.%d.resnets.%d", half, side, i, j);
        dr_resnet_load(l, &v->resnets[j], j ? out : in, out, 0, c->groups, VAE_NORM_EPS,
                       name);
    }
    if (i < c->levels - 1)
        dr_load_conv(l, &v->sampler, out, out, 3, "%s.%s_blocks.%d.%ssamplers.0.conv", half,
                     side, i, side);
}

static void load_encoder(dr_vae *m, dr_loader *l, const vae_config *c)
{
    dr_vae_half *h = &m->encoder;
    int64_t in = c->channels[0], top = c->channels[c->levels - 1];
    h->n_levels = c->levels;
    dr_load_conv(l, &h->conv_in, 3, in, 3, "encoder.conv_in");
    for (int i = 0; i < c->levels; i++) {
        load_level(h, l, c, "encoder", "down", i, in, c->channels[i], c->layers);
        in = c->channels[i];
    }
    load_mid(h, l, c, "encoder");
    dr_load_norm(l, &h->norm_out, top, c->groups, VAE_NORM_EPS, "encoder.conv_norm_out");
    dr_load_conv(l, &h->conv_out, top, 2 * m->latent_c, 3, "encoder.conv_out");
}

static void load_decoder(dr_vae *m, dr_loader *l, const vae_config *c)
{
    dr_vae_half *h = &m->decoder;
    int64_t in = c->channels[c->levels - 1];
    h->n_levels = c->levels;
    dr_load_conv(l, &h->conv_in, m->latent_c, in, 3, "decoder.conv_in");
    load_mid(h, l, c, "decoder");
    for (int i = 0; i < c->levels; i++) {
        int64_t out = c->channels[c->levels - 1 - i];
        load_level(h, l, c, "decoder", "up", i, in, out, c->layers + 1);
        in = out;
    }
    dr_load_norm(l, &h->norm_out, in, c->groups, VAE_NORM_EPS, "decoder.conv_norm_out");
    dr_load_conv(l, &h->conv_out, in, 3, 3, "decoder.conv_out");
}

void dr_vae_load(dr_vae *m, dr_loader *l, const dr_json *config, dr_arena *mem)
{
    vae_config c = { .mem = mem };
    read_config(&c, m, l, config);
    if (l->err.code)
        return;
    load_encoder(m, l, &c);
    load_decoder(m, l, &c);
    if (dr_json_get_bool(config, "use_quant_conv", true))
        dr_load_conv(l, &m->quant, 2 * m->latent_c, 2 * m->latent_c, 1, "quant_conv");
    if (dr_json_get_bool(config, "use_post_quant_conv", true))
        dr_load_conv(l, &m->post_quant, m->latent_c, m->latent_c, 1, "post_quant_conv");
}

static dr_tensor mid_forward(dr_run *r, const dr_vae_half *h, dr_tensor x, const char *half)
{
    x = dr_resnet_forward(r, &h->mid[0], x, NULL);
    dr_show(r, x, "%s.mid_block.resnets.0", half);
    if (h->attention.heads) {
        x = dr_self_attention_forward(r, &h->attention, x);
        dr_show(r, x, "%s.mid_block.attentions.0", half);
    }
    x = dr_resnet_forward(r, &h->mid[1], x, NULL);
    dr_show(r, x, "%s.mid_block.resnets.1", half);
    dr_show(r, x, "%s.mid_block", half);
    return x;
}

/* The resnets of a level and, except in the last one, the convolution `resize` to
 * [h, w]. */
static dr_tensor level_forward(dr_run *r, const dr_vae_level *v, dr_tensor x, int64_t h,
                               int64_t w, const dr_conv_opts *resize)
{
    dr_tensor y = x;
    if (v->sampler.out)
        y = dr_new(r, x.n, h, w, v->sampler.out);
    dr_mark mark = dr_push(r);
    x = dr_resnet_forward(r, &v->resnets[0], x, NULL);
    for (int i = 1; i < v->n_resnets; i++) /* in place: nobody else reads x */
        dr_resnet_forward_into(r, &v->resnets[i], x, x, NULL);
    if (!v->sampler.out)
        return x;
    op_conv2d_into(r, y, x, &v->sampler, resize);
    dr_pop(r, mark);
    return y;
}

/* Norm, SiLU and the last convolution, into y. */
static void finish(dr_run *r, const dr_vae_half *h, dr_tensor x, dr_tensor y,
                   const char *half)
{
    dr_mark mark = dr_push(r);
    dr_norm_conv_into(r, y, x, &h->norm_out, &h->conv_out, &dr_window3);
    dr_show(r, y, "%s.conv_out", half);
    dr_pop(r, mark);
}

dr_tensor dr_vae_expand(dr_run *r, const dr_vae *m, dr_tensor z)
{
    const dr_vae_half *h = &m->decoder;
    dr_tensor x = dr_new(r, z.n, z.h, z.w, z.c);
    op_scale(r, z, x, (float)(1.0 / m->scaling_factor), (float)m->shift_factor);
    if (m->post_quant.out)
        x = op_conv2d(r, x, &m->post_quant, &(dr_conv_opts){ 0 });
    dr_show(r, x, "post_quant_conv");
    x = op_conv2d(r, x, &h->conv_in, &dr_window3);
    dr_show(r, x, "decoder.conv_in");
    return mid_forward(r, h, x, "decoder");
}

dr_tensor dr_vae_decode(dr_run *r, const dr_vae *m, dr_tensor z)
{
    const dr_vae_half *h = &m->decoder;
    dr_tensor out = dr_new(r, z.n, z.h * m->factor, z.w * m->factor, 3);
    dr_mark mark = dr_push(r);
    if (r->band_rows) {
        dr_vae_decode_bands(r, m, z, out);
        dr_pop(r, mark);
        return out;
    }
    dr_tensor x = dr_vae_expand(r, m, z);
    for (int i = 0; i < h->n_levels; i++) {
        dr_conv_opts up = dr_window3; /* nearest neighbour, then a convolution */
        up.up_h = 2 * x.h;
        up.up_w = 2 * x.w;
        x = level_forward(r, &h->levels[i], x, up.up_h, up.up_w, &up);
        dr_show(r, x, "decoder.up_blocks.%d", i);
    }
    finish(r, h, x, out, "decoder");
    dr_pop(r, mark);
    return out;
}

void dr_vae_condense(dr_run *r, const dr_vae *m, dr_tensor x, dr_tensor out)
{
    const dr_vae_half *h = &m->encoder;
    x = mid_forward(r, h, x, "encoder");
    dr_tensor moments = m->quant.out ? dr_new(r, out.n, out.h, out.w, out.c) : out;
    finish(r, h, x, moments, "encoder");
    if (m->quant.out)
        op_conv2d_into(r, out, moments, &m->quant, &(dr_conv_opts){ 0 });
    dr_show(r, out, "quant_conv");
}

dr_tensor dr_vae_encode(dr_run *r, const dr_vae *m, dr_tensor picture)
{
    const dr_vae_half *h = &m->encoder;
    /* diffusers pads only below and to the right before it halves */
    const dr_conv_opts down = { .stride = 2, .pad_bottom = 1, .pad_right = 1 };
    dr_tensor out =
        dr_new(r, picture.n, picture.h / m->factor, picture.w / m->factor, h->conv_out.out);
    dr_mark mark = dr_push(r);
    if (r->band_rows) {
        dr_vae_encode_bands(r, m, picture, out);
        dr_pop(r, mark);
        return out;
    }
    dr_tensor x = op_conv2d(r, picture, &h->conv_in, &dr_window3);
    dr_show(r, x, "encoder.conv_in");
    for (int i = 0; i < h->n_levels; i++) {
        x = level_forward(r, &h->levels[i], x, x.h / 2, x.w / 2, &down);
        dr_show(r, x, "encoder.down_blocks.%d", i);
    }
    dr_vae_condense(r, m, x, out);
    dr_pop(r, mark);
    return out;
}
