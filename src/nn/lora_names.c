#include "nn/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How LoRA files spell the layers of a model. Every spelling is flattened: dots become
 * underscores, as in kohya's names, so that "unet.mid_block.attentions.0.proj_in" and
 * "lora_unet_mid_block_attentions_0_proj_in" differ by their prefix only. */

#define FLAT_MAX 256

/* --- the original names of a UNet's layers --- */

/* The parts of a residual block, as CompVis' latent-diffusion calls them. */
static const char *original_part(const char *part)
{
    static const char *const rows[][2] = {
        { "conv1", "in_layers.2" },
        { "conv2", "out_layers.3" },
        { "time_emb_proj", "emb_layers.1" },
        { "conv_shortcut", "skip_connection" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(part, rows[i][0]))
            return rows[i][1];
    return part;
}

/* Outside of blocks. */
static bool original_border(char *out, const char *name)
{
    static const char *const rows[][2] = {
        { "conv_in", "input_blocks.0.0" },
        { "conv_out", "out.2" },
        { "time_embedding.linear_1", "time_embed.0" },
        { "time_embedding.linear_2", "time_embed.2" },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(name, rows[i][0]))
            return snprintf(out, FLAT_MAX, "%s", rows[i][1]) > 0;
    return false;
}

/* Number of the block that layer j of level i has in one list over all levels. */
static int original_block(const dr_unet *m, bool down, int i, int j)
{
    int n = down ? 1 + j : j; /* conv_in is the first on the way down */
    for (int k = 0; k < i; k++)
        n += down ? m->down[k].n_layers + (m->down[k].sampler.out != 0) : m->up[k].n_layers;
    return n;
}

/* The name of a layer in the original code (openaimodel.py); false: it has none. */
static bool original_name(char *out, const char *name, const dr_unet *m)
{
    char side[8], kind[16], part[128];
    int i, j;
    if (sscanf(name, "mid_block.%15[a-z].%d.%127s", kind, &j, part) == 3) {
        bool resnet = !strcmp(kind, "resnets");
        snprintf(out, FLAT_MAX, "middle_block.%d.%s", resnet ? 2 * j : 1,
                 resnet ? original_part(part) : part);
        return true;
    }
    if (sscanf(name, "%7[a-z]_blocks.%d.%15[a-z].%d.%127s", side, &i, kind, &j, part) != 5)
        return original_border(out, name);
    bool down = !strcmp(side, "down"), resnet = !strcmp(kind, "resnets");
    const dr_unet_block *b = down ? &m->down[i] : &m->up[i];
    const char *list = down ? "input" : "output";
    if (resnet || !strcmp(kind, "attentions"))
        snprintf(out, FLAT_MAX, "%s_blocks.%d.%d.%s", list, original_block(m, down, i, j),
                 !resnet, resnet ? original_part(part) : part);
    else if (down)
        snprintf(out, FLAT_MAX, "input_blocks.%d.0.op",
                 original_block(m, down, i, b->n_layers));
    else
        snprintf(out, FLAT_MAX, "output_blocks.%d.%d.conv",
                 original_block(m, down, i, b->n_layers - 1), b->attentions ? 2 : 1);
    return true;
}

/* --- the table --- */

static int by_name(const void *a, const void *b)
{
    const dr_lora_name *x = a, *y = b;
    return x->part != y->part ? (int)x->part - (int)y->part : strcmp(x->flat, y->flat);
}

/* n bytes of text with underscores for dots; false when out (FLAT_MAX) is too small. */
static bool flatten(char *out, const char *text, size_t n)
{
    if (n >= FLAT_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] == '.' ? '_' : text[i];
    out[n] = 0;
    return true;
}

static bool add_name(dr_lora_layers *l, dr_arena *mem, const char *name)
{
    char flat[FLAT_MAX];
    if (!flatten(flat, name, strlen(name)))
        return true;
    const char *copy = dr_arena_str(mem, flat, strlen(flat));
    l->name[l->n_names++] = (dr_lora_name){ .flat = copy,
                                            .part = l->layer[l->n_layers - 1].part,
                                            .layer = l->n_layers - 1 };
    return copy != NULL;
}

static bool add_part(dr_lora_layers *l, dr_arena *mem, dr_lora_part part,
                     const dr_mats *mats, const dr_unet *m)
{
    char original[FLAT_MAX];
    bool ok = true;
    for (int i = 0; i < mats->count && ok; i++) {
        const char *name = mats->row[i].name;
        l->layer[l->n_layers++] = (dr_lora_layer){ .name = name,
                                                   .part = part,
                                                   .w = mats->row[i].w,
                                                   .base = mats->row[i].w->w,
                                                   .layout = mats->row[i].w->layout };
        ok = add_name(l, mem, name);
        if (ok && part == DR_LORA_UNET && original_name(original, name, m))
            ok = add_name(l, mem, original);
    }
    return ok;
}

dr_status dr_lora_layers_make(dr_lora_layers *out, dr_arena *mem, const dr_unet *m,
                              const dr_mats *unet, const dr_mats *text, dr_err *err)
{
    size_t n = (size_t)(unet->count + text->count);
    *out = (dr_lora_layers){ .layer = dr_arena_alloc(mem, n * sizeof *out->layer),
                             .name = dr_arena_alloc(mem, 2 * n * sizeof *out->name),
                             .text_c = m->text_c };
    if (!out->layer || !out->name || !add_part(out, mem, DR_LORA_UNET, unet, m) ||
        !add_part(out, mem, DR_LORA_TEXT, text, m))
        return dr_fail(err, DR_ENOMEM, "out of memory for the names of %zu layers", n);
    qsort(out->name, (size_t)out->n_names, sizeof *out->name, by_name);
    return DR_OK;
}

/* --- looking up --- */

/* What files put before a layer's name. */
static const struct {
    const char *text;
    dr_lora_part part;
} prefixes[] = {
    { "lora_unet_", DR_LORA_UNET }, /* kohya */
    { "lora_te_", DR_LORA_TEXT },
    { "unet_base_model_model_", DR_LORA_UNET }, /* PEFT, saved without diffusers */
    { "text_encoder_base_model_model_", DR_LORA_TEXT },
    { "unet_", DR_LORA_UNET }, /* diffusers */
    { "text_encoder_", DR_LORA_TEXT },
    { "base_model_model_", DR_LORA_UNET },
    { "base_model_model_", DR_LORA_TEXT },
    { "lycoris_", DR_LORA_UNET }, /* LyCORIS around a UNet alone */
    { "model_diffusion_model_", DR_LORA_UNET },
    { "diffusion_model_", DR_LORA_UNET },
    { "", DR_LORA_UNET }, /* diffusers, UNet alone */
    { "", DR_LORA_TEXT },
};

/* How diffusers spelled some layers when attention had processors. */
static const char *const respelled[][2] = {
    { "_processor_", "_" },
    { "_self_attn_to_q", "_self_attn_q_proj" },
    { "_self_attn_to_k", "_self_attn_k_proj" },
    { "_self_attn_to_v", "_self_attn_v_proj" },
    { "_self_attn_to_out", "_self_attn_out_proj" },
    { "_to_out", "_to_out_0" },
};

static int lookup(const dr_lora_layers *l, const char *flat)
{
    for (size_t i = 0; i < DR_COUNT(prefixes); i++) {
        size_t n = strlen(prefixes[i].text);
        if (strncmp(flat, prefixes[i].text, n) != 0)
            continue;
        const dr_lora_name key = { .flat = flat + n, .part = prefixes[i].part };
        const dr_lora_name *found =
            bsearch(&key, l->name, (size_t)l->n_names, sizeof *l->name, by_name);
        if (found)
            return found->layer;
    }
    return -1;
}

/* Put `to` for the first `from` in text (FLAT_MAX), where there is room. */
static void respell(char *text, const char *from, const char *to)
{
    char *at = strstr(text, from);
    size_t length = strlen(text), cut = strlen(from), put = strlen(to);
    if (!at || length - cut + put >= FLAT_MAX)
        return;
    memmove(at + put, at + cut, strlen(at + cut) + 1);
    memcpy(at, to, put);
}

int dr_lora_find(const dr_lora_layers *l, const char *key, size_t n)
{
    char flat[FLAT_MAX];
    if (!flatten(flat, key, n))
        return -1;
    int layer = lookup(l, flat);
    if (layer >= 0)
        return layer;
    for (size_t i = 0; i < DR_COUNT(respelled); i++)
        respell(flat, respelled[i][0], respelled[i][1]);
    return lookup(l, flat);
}
