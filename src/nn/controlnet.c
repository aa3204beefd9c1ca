#include "nn/controlnet.h"

#include <stdio.h>

#define PICTURE_C 3

/* Options that would change the picture; only the value of the common ones is known. */
static const char *const only[][2] = {
    { "conditioning_channels", "3" },
    { "controlnet_conditioning_channel_order", "\"rgb\"" },
    { "global_pool_conditions", "false" },
};

/* --- weights --- */

/* Channels of the embedding's stages; n counts them. */
static void load_hint(dr_controlnet *c, dr_loader *l, const dr_json *config)
{
    static const char key[] = "conditioning_embedding_out_channels";
    static const int64_t usual[] = { 16, 32, 96, 256 };
    const dr_json *list = dr_json_get(config, key);
    bool given = dr_json_type(list) != DR_JSON_NULL;
    int n = given ? dr_json_count(list) : (int)DR_COUNT(usual);
    int64_t channels[DR_HINT_BLOCKS_MAX + 1] = { 0 };
    if (n < 1 || n > DR_HINT_BLOCKS_MAX + 1) {
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: %s must have 1..%d entries",
                l->component, key, DR_HINT_BLOCKS_MAX + 1);
        return;
    }
    for (int i = 0; i < n; i++)
        channels[i] =
            given ? dr_config_int_at(l, config, key, i, n, 1, 1 << 16, 16) : usual[i];
    c->hint.n_blocks = n - 1;
#define AT "controlnet_cond_embedding."
    dr_load_conv(l, &c->hint.in, PICTURE_C, channels[0], 3, AT "conv_in");
    for (int i = 0; i < n - 1; i++) {
        dr_load_conv(l, &c->hint.keep[i], channels[i], channels[i], 3, AT "blocks.%d",
                     2 * i);
        dr_load_conv(l, &c->hint.shrink[i], channels[i], channels[i + 1], 3, AT "blocks.%d",
                     2 * i + 1);
    }
    dr_load_conv(l, &c->hint.out, channels[n - 1], c->lower.width, 3, AT "conv_out");
#undef AT
}

/* A 1×1 convolution for each tensor of the way, in its order. */
static void load_skips(dr_controlnet *c, dr_loader *l)
{
    const dr_unet *m = &c->lower;
    int n = 0;
    int64_t width = m->width;
#define LOAD_SKIP()                                                                        \
    dr_load_conv(l, &c->skip[n], width, width, 1, "controlnet_down_blocks.%d", n), n++
    LOAD_SKIP(); /* conv_in's */
    for (int i = 0; i < m->n_levels; i++) {
        const dr_unet_block *b = &m->down[i];
        for (int j = 0; j < b->n_layers; j++) {
            width = b->resnets[j].conv2.out;
            LOAD_SKIP();
        }
        if (b->sampler.out)
            LOAD_SKIP();
    }
#undef LOAD_SKIP
    dr_load_conv(l, &c->mid, width, width, 1, "controlnet_mid_block");
}

void dr_controlnet_load(dr_controlnet *c, dr_loader *l, const dr_json *config,
                        dr_arena *mem)
{
    for (size_t i = 0; i < DR_COUNT(only); i++)
        dr_config_only(l, config, only[i][0], only[i][1]);
    dr_unet_load_lower(&c->lower, l, config, mem);
    if (!l->err.code && !c->lower.has_mid)
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: a ControlNet needs a mid_block_type",
                l->component);
    if (l->err.code)
        return;
    load_hint(c, l, config);
    load_skips(c, l);
}

/* --- forward --- */

int64_t dr_controlnet_factor(const dr_controlnet *c)
{
    return (int64_t)1 << c->hint.n_blocks;
}

static dr_tensor conv_silu(dr_run *r, dr_tensor x, const dr_weight_mat *w, int stride)
{
    dr_conv_opts o = dr_window3;
    o.stride = stride;
    return op_activate(r, op_conv2d(r, x, w, &o), DR_SILU);
}

void dr_controlnet_read_picture(dr_run *r, const dr_controlnet *c, dr_tensor picture,
                                dr_tensor hint)
{
    dr_mark mark = dr_push(r);
    dr_conv_opts out = dr_window3;
    dr_tensor h = conv_silu(r, picture, &c->hint.in, 1);
    for (int i = 0; i < c->hint.n_blocks; i++) {
        h = conv_silu(r, h, &c->hint.keep[i], 1);
        h = conv_silu(r, h, &c->hint.shrink[i], 2);
    }
    out.batch = hint.n;
    op_conv2d_into(r, hint, h, &c->hint.out, &out);
    dr_show(r, hint, "controlnet_cond_embedding");
    dr_pop(r, mark);
}

/* to += strength · (x·W + b), W as a 1×1 convolution. */
static void add(dr_run *r, dr_tensor to, dr_tensor x, const dr_weight_mat *w,
                double strength)
{
    dr_mark mark = dr_push(r);
    dr_weight_mat scaled = *w;
    scaled.b = dr_new(r, 1, 1, 1, w->out);
    op_scale(r, w->b, scaled.b, (float)strength, 0);
    op_conv2d_into(r, to, x, &scaled,
                   &(dr_conv_opts){ .in_scale = (float)strength, .residual = &to });
    dr_pop(r, mark);
}

void dr_controlnet_add(dr_run *r, const dr_controlnet *c, const dr_unet_call *call,
                       const dr_text_kv *kv, dr_tensor hint, double strength,
                       const dr_unet_way *way)
{
    dr_mark mark = dr_push(r);
    dr_tensor time = op_activate(r, dr_unet_time(r, &c->lower, call->timestep), DR_SILU);
    dr_unet_way own = dr_unet_descend(r, &c->lower, call, time, kv, &hint);
    if (own.n != way->n && !r->err.code)
        dr_fail(&r->err, DR_ESHAPE, "controlnet: %d tensors for a UNet of %d", own.n,
                way->n);
    for (int i = 0; i < own.n && !r->err.code; i++)
        add(r, way->skip[i], own.skip[i], &c->skip[i], strength);
    add(r, way->mid, own.mid, &c->mid, strength);
    dr_pop(r, mark);
}
