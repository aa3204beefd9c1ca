#include "nn/lora.h"

/* From a file's tensors to a changed weight on the device. */

/* A tensor [o, c, s] of the file as [s, c, 1, o]. The dry run before is where its values
 * are looked at: once, and before anything is done. */
static dr_tensor lift(dr_run *r, const dr_lora *f, const dr_weight *t, int64_t o, int64_t c,
                      int64_t s)
{
    int kind = t->type == DR_WEIGHT_F32 ? 0 : t->type == DR_WEIGHT_F16 ? 1 : 2;
    if (r->dry && !r->err.code && !dr_weight_finite(t))
        dr_fail(&r->err, DR_EMODEL, "LoRA %s: %.200s holds values that are NaN or infinite",
                f->name, t->name);
    return op_upload_weights(r, t->data, t->bytes, o, c, s, kind);
}

/* y = strength · the factor + beta · y. Through a core (Tucker's form) an output's window
 * is sum_p sum_q a[o, p] · t[p, q, s] · b[q, i]. */
static void add_factor(dr_run *r, const dr_lora *f, const dr_lora_factor *x, dr_tensor y,
                       float strength, float beta)
{
    dr_mark mark = dr_push(r);
    dr_tensor a = x->a_rows ? lift(r, f, x->a, x->o * x->rank, 1, 1)
                            : lift(r, f, x->a, x->o, x->rank, 1);
    a.h = x->rank; /* [1, rank, 1, o] either way */
    a.c = x->o;
    dr_tensor b = lift(r, f, x->b, x->rank, x->i, x->t ? 1 : x->s); /* [s, i, 1, rank] */
    if (x->t) {
        dr_tensor t = lift(r, f, x->t, x->rank, x->rank, x->s); /* [s, q, 1, p] */
        dr_tensor ta = dr_new(r, x->s, x->rank, 1, x->o);
        op_add_product(r, ta, t, a, 1, 0);
        op_add_product(r, y, b, ta, strength, beta);
    } else {
        op_add_product(r, y, b, a, strength, beta);
    }
    dr_pop(r, mark);
}

/* A factor by itself. */
static dr_tensor factor(dr_run *r, const dr_lora *f, const dr_lora_factor *x)
{
    if (x->whole)
        return lift(r, f, x->whole, x->o, x->i, x->s);
    dr_tensor y = dr_new(r, x->s, x->i, 1, x->o);
    add_factor(r, f, x, y, 1, 0);
    return y;
}

static void add_delta(dr_run *r, const dr_lora *f, const dr_lora_module *m, dr_tensor y,
                      float strength)
{
    dr_mark mark = dr_push(r);
    if (m->kind == DR_LORA_PLAIN) {
        add_factor(r, f, &m->factor[0], y, strength, 1);
    } else {
        dr_tensor a = factor(r, f, &m->factor[0]), b = factor(r, f, &m->factor[1]);
        (m->kind == DR_LORA_HADAMARD ? op_add_hadamard : op_add_kronecker)(r, y, a, b,
                                                                           strength);
    }
    dr_pop(r, mark);
}

void dr_lora_add(dr_run *r, const dr_lora *f, const dr_lora_module *m,
                 const dr_lora_layers *l, dr_tensor y, dr_tensor base, double strength)
{
    const dr_lora_layer *layer = &l->layer[m->layer];
    y.n = (int64_t)layer->w->kh * layer->w->kw; /* [k, n] by positions */
    y.h = layer->w->in;
    y.w = 1;
    if (!m->magnitude) {
        add_delta(r, f, m, y, (float)(strength * m->scale));
        return;
    }
    dr_mark mark = dr_push(r);
    int64_t norms = m->by_input ? layer->w->in : layer->w->out;
    dr_tensor magnitude = lift(r, f, m->magnitude, norms, 1, 1);
    dr_tensor v = dr_new(r, y.n, y.h, 1, y.c);
    op_scale(r, base, v, 1, 0);
    add_delta(r, f, m, v, (float)m->scale);
    op_add_dora(r, y, base, v, magnitude, m->by_input, (float)strength);
    dr_pop(r, mark);
}
