#include "nn/lora.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHAPE_TEXT 96

/* --- keys --- */

typedef enum {
    DOWN,
    UP,
    MID,
    ALPHA,
    HADA_W1_A,
    HADA_W1_B,
    HADA_W2_A,
    HADA_W2_B,
    HADA_T1,
    HADA_T2,
    LOKR_W1,
    LOKR_W1_A,
    LOKR_W1_B,
    LOKR_W2,
    LOKR_W2_A,
    LOKR_W2_B,
    LOKR_T2,
    DORA_SCALE, /* LyCORIS: of outputs or inputs, as its shape says */
    MAGNITUDE,  /* PEFT: of outputs */
    ROLES
} role;

/* The end of a key that says what the tensor is to its layer. */
static const struct {
    const char *tail;
    role role;
} tails[] = {
    { ".lora_down.weight", DOWN },
    { ".lora_up.weight", UP },
    { ".lora_mid.weight", MID },
    { ".alpha", ALPHA },
    { ".lora_A.weight", DOWN },
    { ".lora_B.weight", UP },
    { ".lora_A.default.weight", DOWN },
    { ".lora_B.default.weight", UP },
    { ".lora.down.weight", DOWN },
    { ".lora.up.weight", UP },
    { "_lora.down.weight", DOWN },
    { "_lora.up.weight", UP },
    { ".lora_linear_layer.down.weight", DOWN },
    { ".lora_linear_layer.up.weight", UP },
    { ".hada_w1_a", HADA_W1_A },
    { ".hada_w1_b", HADA_W1_B },
    { ".hada_w2_a", HADA_W2_A },
    { ".hada_w2_b", HADA_W2_B },
    { ".hada_t1", HADA_T1 },
    { ".hada_t2", HADA_T2 },
    { ".lokr_w1", LOKR_W1 },
    { ".lokr_w1_a", LOKR_W1_A },
    { ".lokr_w1_b", LOKR_W1_B },
    { ".lokr_w2", LOKR_W2 },
    { ".lokr_w2_a", LOKR_W2_A },
    { ".lokr_w2_b", LOKR_W2_B },
    { ".lokr_t2", LOKR_T2 },
    { ".dora_scale", DORA_SCALE },
    { ".lora_magnitude_vector", MAGNITUDE },
    { ".lora_magnitude_vector.weight", MAGNITUDE },
    { ".lora_magnitude_vector.default.weight", MAGNITUDE },
};

/* The tensors of one layer. */
typedef struct {
    const dr_weight *t[ROLES];
} parts;

/* A file while it is read. */
typedef struct {
    dr_lora *f;
    const dr_lora_layers *l;
    parts *layer;  /* [n_layers] */
    dr_json *peft; /* PEFT's settings, which diffusers puts in the header; NULL: none */
    dr_err *err;
} reader;

/* The key's role, and how many bytes lead up to it; ROLES: none. */
static role role_of(const char *key, size_t *n)
{
    size_t length = strlen(key);
    for (size_t i = 0; i < DR_COUNT(tails); i++) {
        size_t tail = strlen(tails[i].tail);
        if (length <= tail || strcmp(key + length - tail, tails[i].tail) != 0)
            continue;
        *n = length - tail;
        return tails[i].role;
    }
    return ROLES;
}

/* --- families --- */

static const char *family_of(int64_t text_c)
{
    return text_c == 768    ? "SD 1"
           : text_c == 1024 ? "SD 2"
           : text_c == 2048 ? "SDXL"
                            : NULL;
}

/* What in a key without a place tells which family it is for. */
static const struct {
    const char *part, *family;
} signs[] = {
    { "lora_te1_", "SDXL" },
    { "lora_te2_", "SDXL" },
    { "text_encoder_2", "SDXL" },
    { "lora_te3_", "SD 3" },
    { "joint_blocks", "SD 3" },
    { "double_blocks", "FLUX" },
    { "single_blocks", "FLUX" },
    { "single_transformer_blocks", "FLUX" },
    { "transformer.transformer_blocks", "FLUX or SD 3" },
    { "transformer_blocks_1_", "SDXL" },
    { "transformer_blocks.1.", "SDXL" },
};

static dr_status fail_family(const reader *r, const char *family, const char *key)
{
    const char *own = family_of(r->l->text_c);
    return dr_fail(r->err, DR_EMODEL,
                   "LoRA %s is for %s models (by its key %.160s), this model is %s%s",
                   r->f->name, family, key, own ? "of " : "another", own ? own : "");
}

static dr_status check_sign(const reader *r, const char *key)
{
    for (size_t i = 0; i < DR_COUNT(signs); i++)
        if (strstr(key, signs[i].part))
            return fail_family(r, signs[i].family, key);
    return DR_OK;
}

/* A layer that reads texts tells how wide they were. */
static dr_status check_text_width(const reader *r)
{
    for (int i = 0; i < r->l->n_layers; i++) {
        const parts *p = &r->layer[i];
        const dr_weight *t = p->t[DOWN] ? p->t[DOWN] : p->t[HADA_W1_B];
        const char *name = r->l->layer[i].name;
        if (!t || t->ndim < 2 || !strstr(name, "attn2.to_") || strstr(name, "to_q") ||
            strstr(name, "to_out") || t->dim[1] == r->l->text_c)
            continue;
        const char *family = family_of(t->dim[1]);
        if (family)
            return fail_family(r, family, t->name);
    }
    return DR_OK;
}

/* --- shapes --- */

static dr_status fail_shape(const reader *r, const dr_weight *t, const dr_lora_layer *y,
                            const int64_t *want, int n)
{
    char have[SHAPE_TEXT], need[SHAPE_TEXT], whole[SHAPE_TEXT];
    const int64_t layer[] = { y->w->out, y->w->in, y->w->kh, y->w->kw };
    return dr_fail(
        r->err, DR_EMODEL,
        "LoRA %s: %.200s is %s, must be %s: this model's layer %s is %s; is it "
        "for another family of models?",
        r->f->name, t->name, dr_shape_text(have, sizeof have, t->dim, t->ndim),
        dr_shape_text(need, sizeof need, want, n), y->name,
        dr_shape_text(whole, sizeof whole, layer, y->w->kh * y->w->kw > 1 ? 4 : 2));
}

/* Whether t is [a, b, kh, kw], without trailing ones or as [a, b·kh·kw]. */
static bool is_shape(const dr_weight *t, const int64_t want[4])
{
    if (t->ndim == 2 && t->dim[0] == want[0] && t->dim[1] == want[1] * want[2] * want[3])
        return true;
    for (int i = 0; i < 4 || i < t->ndim; i++)
        if ((i < t->ndim ? t->dim[i] : 1) != (i < 4 ? want[i] : 1))
            return false;
    return t->ndim >= 2;
}

static dr_status check_tensor(const reader *r, const dr_lora_layer *y, const dr_weight *t,
                              int64_t a, int64_t b, int64_t kh, int64_t kw)
{
    const int64_t want[] = { a, b, kh, kw };
    if (t->type == DR_WEIGHT_OTHER)
        return dr_fail(r->err, DR_EMODEL,
                       "LoRA %s: %.200s is %s; only F32, F16 and BF16 can be read",
                       r->f->name, t->name, t->dtype);
    return is_shape(t, want) ? DR_OK : fail_shape(r, t, y, want, kh * kw > 1 ? 4 : 2);
}

static int64_t dim_of(const dr_weight *t, int i)
{
    return i < t->ndim ? t->dim[i] : 1;
}

/* A factor's matrices against its size; sets its rank. kh × kw = factor->s. */
static dr_status check_factor(const reader *r, const dr_lora_layer *y, dr_lora_factor *x,
                              int64_t kh, int64_t kw)
{
    dr_status st;
    if (x->whole)
        return check_tensor(r, y, x->whole, x->o, x->i, kh, kw);
    int64_t rank = x->rank = dim_of(x->b, 0);
    if (rank < 1)
        return dr_fail(r->err, DR_EMODEL, "LoRA %s: %.200s is empty", r->f->name,
                       x->b->name);
    if ((st = check_tensor(r, y, x->a, x->a_rows ? rank : x->o, x->a_rows ? x->o : rank, 1,
                           1)) ||
        (st = check_tensor(r, y, x->b, rank, x->i, x->t ? 1 : kh, x->t ? 1 : kw)))
        return st;
    return x->t ? check_tensor(r, y, x->t, rank, rank, kh, kw) : DR_OK;
}

/* --- modules --- */

static dr_status fail_partner(const reader *r, const dr_weight *have, const char *lacks)
{
    return dr_fail(r->err, DR_EMODEL, "LoRA %s: %.200s has no partner %s in the file",
                   r->f->name, have->name, lacks);
}

/* LoRA and LoCon: up · mid · down. */
static dr_status make_plain(const reader *r, dr_lora_module *m, const parts *p,
                            const dr_lora_layer *y)
{
    const dr_weight *any = p->t[DOWN] ? p->t[DOWN] : p->t[UP] ? p->t[UP] : p->t[MID];
    if (!p->t[DOWN] || !p->t[UP])
        return fail_partner(r, any, p->t[DOWN] ? "lora_up" : "lora_down");
    m->kind = DR_LORA_PLAIN;
    m->factor[0] = (dr_lora_factor){ .a = p->t[UP],
                                     .b = p->t[DOWN],
                                     .t = p->t[MID],
                                     .o = y->w->out,
                                     .i = y->w->in,
                                     .s = (int64_t)y->w->kh * y->w->kw };
    return check_factor(r, y, &m->factor[0], y->w->kh, y->w->kw);
}

/* LoHa: (w1_a · w1_b) ⊙ (w2_a · w2_b). */
static dr_status make_hadamard(const reader *r, dr_lora_module *m, const parts *p,
                               const dr_lora_layer *y)
{
    m->kind = DR_LORA_HADAMARD;
    for (int i = 0; i < 2; i++) {
        const dr_weight *a = p->t[i ? HADA_W2_A : HADA_W1_A];
        const dr_weight *b = p->t[i ? HADA_W2_B : HADA_W1_B];
        const dr_weight *t = p->t[i ? HADA_T2 : HADA_T1];
        if (!a || !b)
            return dr_fail(r->err, DR_EMODEL,
                           "LoRA %s: of layer %s's hada_w1_a, hada_w1_b, hada_w2_a and "
                           "hada_w2_b some are missing",
                           r->f->name, y->name);
        m->factor[i] = (dr_lora_factor){ .a = a,
                                         .b = b,
                                         .t = t,
                                         .o = y->w->out,
                                         .i = y->w->in,
                                         .s = (int64_t)y->w->kh * y->w->kw,
                                         .a_rows = t != NULL };
        dr_status st = check_factor(r, y, &m->factor[i], y->w->kh, y->w->kw);
        if (st)
            return st;
    }
    return DR_OK;
}

/* LoKr: w1 ⊗ w2, each whole or a product. */
static dr_status make_kronecker(const reader *r, dr_lora_module *m, const parts *p,
                                const dr_lora_layer *y)
{
    dr_lora_factor *u = &m->factor[0], *v = &m->factor[1];
    dr_status st;
    m->kind = DR_LORA_KRONECKER;
    *u = (dr_lora_factor){
        .whole = p->t[LOKR_W1], .a = p->t[LOKR_W1_A], .b = p->t[LOKR_W1_B], .s = 1
    };
    *v = (dr_lora_factor){ .whole = p->t[LOKR_W2],
                           .a = p->t[LOKR_W2_A],
                           .b = p->t[LOKR_W2_B],
                           .t = p->t[LOKR_T2],
                           .s = (int64_t)y->w->kh * y->w->kw,
                           .a_rows = p->t[LOKR_T2] != NULL };
    if ((!u->whole && (!u->a || !u->b)) || (!v->whole && (!v->a || !v->b)))
        return dr_fail(r->err, DR_EMODEL,
                       "LoRA %s: of layer %s's lokr_w1 and lokr_w2 or their _a and _b some "
                       "are missing",
                       r->f->name, y->name);
    const dr_weight *rows = u->whole ? u->whole : u->a, *cols = u->whole ? u->whole : u->b;
    u->o = dim_of(rows, 0);
    u->i = dim_of(cols, 1);
    if (u->o < 1 || u->i < 1 || y->w->out % u->o || y->w->in % u->i)
        return fail_shape(r, rows, y, (const int64_t[]){ y->w->out, y->w->in }, 2);
    v->o = y->w->out / u->o;
    v->i = y->w->in / u->i;
    if ((st = check_factor(r, y, u, 1, 1)))
        return st;
    return check_factor(r, y, v, y->w->kh, y->w->kw);
}

/* --- scales --- */

/* A number of PEFT's settings for the part that a layer belongs to. */
static const dr_json *setting(const reader *r, const dr_lora_layer *y, const char *name)
{
    static const char *const prefixes[] = { "unet.", "text_encoder." };
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefixes[y->part], name);
    const dr_json *j = dr_json_get(r->peft, key);
    return j ? j : dr_json_get(r->peft, name); /* a UNet's adapter saved alone */
}

/* The alpha of a layer without a tensor for it: PEFT's setting, else the rank. */
static double alpha_without(const reader *r, const dr_lora_layer *y, double rank)
{
    size_t whole = strlen(y->name);
    const dr_json *j = r->peft ? setting(r, y, "lora_alpha") : NULL;
    if (dr_json_type(j) != DR_JSON_NUMBER)
        return rank;
    double alpha = dr_json_number(j);
    for (j = dr_json_first(setting(r, y, "alpha_pattern")); j; j = dr_json_next(j)) {
        const char *tail = dr_json_key(j);
        size_t n = strlen(tail);
        if (n <= whole && !strcmp(y->name + whole - n, tail) &&
            (n == whole || y->name[whole - n - 1] == '.') &&
            dr_json_type(j) == DR_JSON_NUMBER)
            alpha = dr_json_number(j);
    }
    if (dr_json_bool(setting(r, y, "use_rslora")))
        alpha *= sqrt(rank); /* alpha / √rank, Kalajdzievski 2023 */
    return isfinite(alpha) ? alpha : rank;
}

static dr_status read_scale(const reader *r, dr_lora_module *m, const dr_weight *alpha,
                            const dr_lora_layer *y)
{
    /* Of a product of two, LyCORIS takes the last one that is decomposed. */
    int64_t rank = m->factor[1].rank ? m->factor[1].rank : m->factor[0].rank;
    m->scale = 1;
    if (!rank)
        return DR_OK;
    if (!alpha) {
        m->scale = alpha_without(r, y, (double)rank) / (double)rank;
        return DR_OK;
    }
    size_t bytes = alpha->type == DR_WEIGHT_F32 ? 4 : 2;
    if (alpha->type == DR_WEIGHT_OTHER || alpha->bytes != bytes || !dr_weight_finite(alpha))
        return dr_fail(r->err, DR_EMODEL,
                       "LoRA %s: %.200s must be one finite value of F32, F16 or BF16",
                       r->f->name, alpha->name);
    float v;
    uint16_t bits;
    memcpy(bytes == 4 ? (void *)&v : &bits, alpha->data, bytes);
    if (bytes == 2)
        v = alpha->type == DR_WEIGHT_F16 ? dr_half_to_float(bits) : dr_bf16_to_float(bits);
    m->scale = (double)v / (double)rank;
    return DR_OK;
}

/* DoRA's magnitudes: of the outputs, or of the inputs where LyCORIS says [1, in, …]. */
static dr_status read_magnitude(const reader *r, dr_lora_module *m, const parts *p,
                                const dr_lora_layer *y)
{
    const dr_weight *t = p->t[MAGNITUDE] ? p->t[MAGNITUDE] : p->t[DORA_SCALE];
    if (!t)
        return DR_OK;
    m->magnitude = t;
    m->by_input = !p->t[MAGNITUDE] && dim_of(t, 0) != y->w->out;
    if (t->type != DR_WEIGHT_OTHER && t->ndim > 0 &&
        dr_weight_count(t) == (m->by_input ? y->w->in : y->w->out))
        return DR_OK;
    return fail_shape(r, t, y, (const int64_t[]){ y->w->out, 1 }, 2);
}

/* Whether any tensor of roles first..last is there. */
static bool any(const parts *p, role first, role last)
{
    bool found = false;
    for (int i = (int)first; i <= (int)last; i++)
        found |= p->t[i] != NULL;
    return found;
}

static dr_status make_module(reader *r, int layer)
{
    const parts *p = &r->layer[layer];
    const dr_lora_layer *y = &r->l->layer[layer];
    bool plain = any(p, DOWN, MID), hadamard = any(p, HADA_W1_A, HADA_T2);
    bool kronecker = any(p, LOKR_W1, LOKR_T2);
    dr_status st;
    if (plain + hadamard + kronecker != 1)
        return dr_fail(r->err, DR_EMODEL, "LoRA %s: layer %s has %s", r->f->name, y->name,
                       plain + hadamard + kronecker ? "tensors of several kinds of LoRA"
                                                    : "a scale, but nothing to scale");
    dr_lora_module *m = &r->f->module[r->f->n_modules++];
    m->layer = layer;
    st = plain      ? make_plain(r, m, p, y)
         : hadamard ? make_hadamard(r, m, p, y)
                    : make_kronecker(r, m, p, y);
    if (st || (st = read_scale(r, m, p->t[ALPHA], y)))
        return st;
    r->f->has[y->part] = true;
    return read_magnitude(r, m, p, y);
}

/* --- the file --- */

/* Find the place of every tensor. */
static dr_status sort_keys(reader *r)
{
    dr_lora *f = r->f;
    for (size_t i = 0; i < dr_weights_count(f->files); i++) {
        const dr_weight *t = dr_weights_at(f->files, i);
        size_t n = 0;
        role what = role_of(t->name, &n);
        int layer = what == ROLES ? -1 : dr_lora_find(r->l, t->name, n);
        if (layer < 0) {
            dr_status st = check_sign(r, t->name);
            if (st)
                return st;
            f->first_unmatched = f->first_unmatched ? f->first_unmatched : t->name;
            f->unmatched++;
            continue;
        }
        const dr_weight **place = &r->layer[layer].t[what];
        if (*place)
            return dr_fail(r->err, DR_EMODEL,
                           "LoRA %s: %.200s and %.200s are the same thing twice", f->name,
                           (*place)->name, t->name);
        *place = t;
        f->matched++;
    }
    return DR_OK;
}

static dr_status make_modules(reader *r)
{
    dr_lora *f = r->f;
    dr_status st = sort_keys(r);
    if (st || (st = check_text_width(r)))
        return st;
    if (!f->matched)
        return dr_fail(
            r->err, DR_EMODEL,
            "LoRA %s: none of its %lld keys has a place in this model; the first "
            "is %.200s",
            f->name, (long long)f->unmatched,
            f->first_unmatched ? f->first_unmatched : "missing");
    for (int i = 0; i < r->l->n_layers && !st; i++)
        if (any(&r->layer[i], DOWN, MAGNITUDE))
            st = make_module(r, i);
    return st;
}

/* The last component without its ending. */
static void name_of(char out[DR_LORA_NAME], const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    snprintf(out, DR_LORA_NAME, "%.*s", (int)(dot ? dot - name : (long)strlen(name)), name);
}

/* NULL: there are none, or they are no JSON. */
static dr_json *read_peft(const dr_weights *files)
{
    const char *text = dr_weights_note(files, "lora_adapter_metadata");
    dr_json *j = NULL;
    return text && !dr_json_parse(&j, text, strlen(text), NULL) ? j : NULL;
}

dr_status dr_lora_open(dr_lora *out, const char *path, const dr_lora_layers *l, dr_err *err)
{
    size_t n = (size_t)l->n_layers;
    reader r = { .f = out, .l = l, .err = err };
    *out = (dr_lora){ .mem = dr_arena_new() };
    name_of(out->name, path);
    dr_status st = out->mem ? dr_weights_open_file(&out->files, path, err) : DR_ENOMEM;
    if (!st) {
        r.layer = dr_arena_alloc(out->mem, n * sizeof *r.layer);
        out->module = dr_arena_alloc(out->mem, n * sizeof *out->module);
    }
    if (st == DR_ENOMEM || (!st && (!r.layer || !out->module)))
        st = dr_fail(err, DR_ENOMEM, "LoRA %s: out of memory", out->name);
    if (!st)
        r.peft = read_peft(out->files);
    if (!st)
        st = make_modules(&r);
    dr_json_free(r.peft);
    if (st)
        dr_lora_close(out);
    return st;
}

void dr_lora_close(dr_lora *f)
{
    dr_weights_close(f->files);
    dr_arena_free(f->mem);
    *f = (dr_lora){ 0 };
}
