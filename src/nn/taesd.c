#include "nn/taesd.h"

#include "nn/blocks.h"

#include <stdio.h>

/* A list of layers, numbered as PyTorch's Sequential counts them: activations and
 * enlargements have numbers too, but no weights. */

#define WIDTH_MAX (1 << 12)

typedef struct {
    dr_loader *l;
    const char *prefix; /* "decoder.layers.", or "" */
    int next;           /* layer */
} layers;

static void load_conv(layers *s, dr_weight_mat *w, int64_t in, int64_t out, bool bias)
{
    (bias ? dr_load_conv : dr_load_conv_plain)(s->l, w, in, out, 3, "%s%d", s->prefix,
                                               s->next++);
}

static void load_block(layers *s, dr_weight_mat conv[3], int64_t c)
{
    for (int i = 0; i < 3; i++)
        dr_load_conv(s->l, &conv[i], c, c, 3, "%s%d.conv.%d", s->prefix, s->next, 2 * i);
    s->next++;
}

/* Numbers that a config.json may change, with AutoencoderTiny's defaults. */
typedef struct {
    int64_t width[DR_TAESD_LEVELS], blocks[DR_TAESD_LEVELS], latent_c;
} shape;

static shape read_shape(dr_loader *l, const dr_json *config)
{
    const dr_weight *first =
        l->files && !config ? dr_weights_find(l->files, "1.weight") : NULL;
    int64_t width = first && first->ndim == 4 ? first->dim[0] : 64;
    static const int64_t blocks[DR_TAESD_LEVELS] = { 3, 3, 3, 1 };
    shape s = { .latent_c = dr_config_int(l, config, "latent_channels", 1, 64, 4) };
    for (int i = 0; i < DR_TAESD_LEVELS; i++) {
        s.width[i] = dr_config_int_at(l, config, "decoder_block_out_channels", i,
                                      DR_TAESD_LEVELS, 1, WIDTH_MAX, width);
        s.blocks[i] = dr_config_int_at(l, config, "num_decoder_blocks", i, DR_TAESD_LEVELS,
                                       1, DR_TAESD_BLOCKS, blocks[i]);
    }
    dr_config_only(l, config, "_class_name", "\"AutoencoderTiny\"");
    dr_config_only(l, config, "act_fn", "\"relu\"");
    dr_config_only(l, config, "upsample_fn", "\"nearest\"");
    dr_config_only(l, config, "upsampling_scaling_factor", "2");
    dr_config_only(l, config, "out_channels", "3");
    dr_config_only(l, config, "scaling_factor", "1");
    dr_config_only(l, config, "shift_factor", "0");
    for (int i = 1; i < DR_TAESD_LEVELS && !l->err.code; i++)
        if (s.width[i] != s.width[0])
            dr_fail(
                &l->err, DR_EMODEL,
                "%s/config.json: decoder_block_out_channels must be equal, not %lld and "
                "%lld",
                l->component, (long long)s.width[0], (long long)s.width[i]);
    return s;
}

void dr_taesd_load(dr_taesd *m, dr_loader *l, const dr_json *config)
{
    shape s = read_shape(l, config);
    layers at = { .l = l, .prefix = config ? "decoder.layers." : "", .next = !config };
    int64_t c = s.width[0];
    m->latent_c = s.latent_c;
    load_conv(&at, &m->conv_in, s.latent_c, c, true);
    at.next++; /* ReLU */
    for (int i = 0; i < DR_TAESD_LEVELS; i++) {
        bool last = i == DR_TAESD_LEVELS - 1;
        m->level[i].n_blocks = (int)s.blocks[i];
        for (int k = 0; k < s.blocks[i]; k++)
            load_block(&at, m->level[i].block[k].conv, c);
        at.next += !last; /* the enlargement */
        load_conv(&at, last ? &m->conv_out : &m->level[i].resize, c, last ? 3 : c, last);
    }
    dr_load_skip(l, "encoder."); /* of AutoencoderTiny */
}

static void conv_relu(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_mat *w,
                      const dr_tensor *residual)
{
    dr_conv_opts o = dr_window3;
    o.residual = residual;
    op_conv2d_into(r, y, x, w, &o);
    op_activate_into(r, y, y, DR_RELU);
}

/* The blocks of a level: x becomes relu(x + conv(relu(conv(relu(conv(x)))))), in turn.
 * Three tensors change places. */
static dr_tensor blocks(dr_run *r, const dr_taesd *m, int level, dr_tensor x)
{
    dr_tensor a = dr_new(r, x.n, x.h, x.w, x.c), b = dr_new(r, x.n, x.h, x.w, x.c);
    for (int k = 0; k < m->level[level].n_blocks; k++) {
        const dr_weight_mat *conv = m->level[level].block[k].conv;
        conv_relu(r, a, x, &conv[0], NULL);
        conv_relu(r, b, a, &conv[1], NULL);
        conv_relu(r, a, b, &conv[2], &x);
        dr_tensor y = a;
        a = x;
        x = y;
    }
    return x;
}

dr_tensor dr_taesd_decode(dr_run *r, const dr_taesd *m, dr_tensor latents)
{
    dr_tensor out = dr_new(r, latents.n, latents.h * 8, latents.w * 8, 3);
    dr_mark mark = dr_push(r);
    dr_tensor x = dr_new(r, latents.n, latents.h, latents.w, m->conv_in.out);
    conv_relu(r, x, op_activate(r, latents, DR_SOFT_CLAMP), &m->conv_in, NULL);
    for (int i = 0; i < DR_TAESD_LEVELS; i++) {
        bool last = i == DR_TAESD_LEVELS - 1;
        dr_conv_opts o = dr_window3;
        o.up_h = last ? 0 : 2 * x.h; /* nearest neighbour, then a convolution */
        o.up_w = last ? 0 : 2 * x.w;
        dr_tensor y = last ? out : dr_new(r, x.n, o.up_h, o.up_w, x.c);
        dr_mark level = dr_push(r);
        op_conv2d_into(r, y, blocks(r, m, i, x), last ? &m->conv_out : &m->level[i].resize,
                       &o);
        dr_pop(r, level);
        x = y;
    }
    op_scale(r, out, out, 2, -1);
    dr_pop(r, mark);
    return out;
}
