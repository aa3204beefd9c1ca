#include "diffusion/loras.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "diffusion/lora_wish.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MIB ((int64_t)1 << 20)

/* A merged set. */
typedef struct set {
    struct set *next; /* used before this one */
    dr_digest key, text;
    dr_tensor *copy; /* [n_layers]; c 0: the layer is not touched */
    dr_pool *pool;
    dr_lora_report report;
} set;

struct dr_loras {
    dr_lora_layers layers;
    char dir[DR_PATH_MAX]; /* "": none */
    int64_t budget;        /* bytes */
    set *sets;             /* the last used first */
    const set *current;    /* whose weights the model has; NULL: its own */
};

/* --- files --- */

static double strength_of(const struct dr_loras *x, const dr_lora_wish *w, int file,
                          const dr_lora_module *m)
{
    return w->item[file].strength[x->layers.layer[m->layer].part];
}

/* Copies hold floats, whatever the file held. */
static dr_layout copy_layout(const dr_lora_layer *l)
{
    return l->layout == DR_ROWS ? DR_ROWS : DR_PACKED;
}

static int64_t layer_bytes(const dr_lora_layer *l)
{
    return op_weight_floats(copy_layout(l), l->base.w, l->base.c) * (int64_t)sizeof(float);
}

/* Mark the layers that change (touched: [n_layers]); the bytes of their copies. */
static int64_t touch(const struct dr_loras *x, const dr_lora_wish *w, const dr_lora *files,
                     bool *touched)
{
    int64_t bytes = 0;
    for (int i = 0; i < w->n; i++)
        for (int k = 0; k < files[i].n_modules; k++) {
            const dr_lora_module *m = &files[i].module[k];
            if (strength_of(x, w, i, m) == 0 || touched[m->layer])
                continue;
            touched[m->layer] = true;
            bytes += layer_bytes(&x->layers.layer[m->layer]);
        }
    return bytes;
}

/* --- sets --- */

static void free_set(set *s)
{
    dr_pool_free(s->pool);
    dr_free(s->copy);
    dr_free(s);
}

static int64_t kept_bytes(const struct dr_loras *x)
{
    int64_t bytes = 0;
    for (const set *s = x->sets; s; s = s->next)
        bytes += s->report.bytes;
    return bytes;
}

/* Free the least recently used sets, but never the current one, until the others and it
 * take at most `limit` bytes. → whether any was freed. */
static bool evict_to(struct dr_loras *x, int64_t limit)
{
    bool any = false;
    while (kept_bytes(x) > limit) {
        set **last = NULL;
        for (set **s = &x->sets; *s; s = &(*s)->next)
            if (*s != x->current)
                last = s;
        if (!last)
            break;
        set *gone = *last;
        *last = gone->next;
        free_set(gone);
        any = true;
    }
    return any;
}

/* Give the model the weights of a set, or its own. */
static void switch_to(dr_model *m, const set *s)
{
    struct dr_loras *x = m->loras;
    for (int i = 0; i < x->layers.n_layers; i++) {
        const dr_lora_layer *l = &x->layers.layer[i];
        bool copied = s && s->copy[i].c;
        l->w->w = copied ? s->copy[i] : l->base;
        l->w->layout = copied ? copy_layout(l) : l->layout;
    }
    m->text_weights = s ? s->text : (dr_digest){ 0 };
    x->current = s;
}

/* Room on the device for the copies. */
static dr_status take_room(const dr_model *m, set *s, const bool *touched, dr_err *err)
{
    const dr_lora_layers *l = &m->loras->layers;
    int64_t left = s->report.bytes;
    if (!(s->pool = dr_pool_new(m->dev)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < l->n_layers; i++) {
        size_t at = 0;
        if (!touched[i])
            continue;
        int64_t bytes = layer_bytes(&l->layer[i]);
        s->copy[i] = l->layer[i].base;
        dr_status st =
            dr_pool_take(s->pool, (size_t)bytes, (size_t)left, &s->copy[i].mem, &at, err);
        if (st)
            return st;
        s->copy[i].at = at / sizeof(float);
        left -= bytes;
    }
    return DR_OK;
}

/* The copy of layer i: its base and what each file's modules for it add. */
static void merge_layer(dr_run *r, const struct dr_loras *x, int i, dr_tensor copy,
                        const dr_lora_wish *w, const dr_lora *files)
{
    const dr_lora_layer *l = &x->layers.layer[i];
    dr_mark mark = dr_push(r);
    dr_tensor base = dr_new(r, 1, 1, l->base.w, l->base.c);
    dr_tensor y = dr_new(r, 1, 1, l->base.w, l->base.c);
    op_read_weight(r, l->base, l->layout, base);
    op_scale(r, base, y, 1, 0);
    for (int f = 0; f < w->n; f++)
        for (int k = 0; k < files[f].n_modules; k++) {
            const dr_lora_module *m = &files[f].module[k];
            double strength = m->layer == i ? strength_of(x, w, f, m) : 0;
            if (strength != 0)
                dr_lora_add(r, &files[f], m, &x->layers, y, base, strength);
        }
    op_write_weight(r, y, copy, copy_layout(l));
    dr_pop(r, mark);
}

static void merge(dr_run *r, const struct dr_loras *x, const set *s, const dr_lora_wish *w,
                  const dr_lora *files)
{
    for (int i = 0; i < x->layers.n_layers; i++)
        if (s->copy[i].c)
            merge_layer(r, x, i, s->copy[i], w, files);
}

/* Merge into s's copies, with the model's room for activations as scratch. */
static dr_status run_merge(dr_model *m, const set *s, const dr_lora_wish *w,
                           const dr_lora *files, dr_err *err)
{
    dr_run *r = &m->run;
    dr_run_reset(r, true);
    merge(r, m->loras, s, w, files);
    size_t peak_bytes = r->peak_bytes;
    if (r->err.code)
        goto done;
    dr_status st = dr_run_reserve(r, peak_bytes, err);
    if (st)
        return st;
    dr_run_reset(r, false);
    merge(r, m->loras, s, w, files);
    if (!r->err.code)
        (void)!dr_finish(m->dev, &r->err);
done:
    if (r->err.code && err)
        *err = r->err;
    return r->err.code;
}

static void fill_report(dr_lora_report *out, const dr_lora_wish *w, const dr_lora *files)
{
    out->n = w->n;
    for (int i = 0; i < w->n; i++) {
        const dr_lora *f = &files[i];
        dr_lora_count *c = &out->file[i];
        c->matched = f->matched;
        c->unmatched = f->unmatched;
        snprintf(c->name, sizeof c->name, "%s", w->item[i].name);
        snprintf(c->first_unmatched, sizeof c->first_unmatched, "%s",
                 f->first_unmatched ? f->first_unmatched : "");
    }
}

/* A merged set of open files, or an error and none. */
static dr_status build_set(dr_model *m, set **out, const dr_lora_wish *w,
                           const dr_lora *files, const bool *touched, int64_t bytes,
                           dr_err *err)
{
    dr_status st;
    set *s = dr_alloc(sizeof *s);
    if (!s)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    s->copy = dr_alloc((size_t)m->loras->layers.n_layers * sizeof *s->copy);
    s->report.bytes = bytes;
    fill_report(&s->report, w, files);
    if (!s->copy)
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    else if (!(st = dr_lora_wish_text_key(&s->text, w, files, err)) &&
             !(st = take_room(m, s, touched, err)))
        st = run_merge(m, s, w, files, err);
    if (st)
        free_set(s);
    else
        *out = s;
    return st;
}

/* Merge a new set and put it in front of the others. */
static dr_status make_set(dr_model *m, const dr_lora_wish *w, const dr_digest *key,
                          dr_err *err)
{
    struct dr_loras *x = m->loras;
    dr_lora files[DR_LORAS_MAX];
    set *s = NULL;
    double start = dr_now_s();
    bool *touched = dr_alloc((size_t)x->layers.n_layers * sizeof *touched);
    dr_status st = touched ? dr_lora_wish_open(w, x->dir, &x->layers, files, err)
                           : dr_fail(err, DR_ENOMEM, "out of memory");
    if (st)
        goto done;
    int64_t bytes = touch(x, w, files, touched);
    evict_to(x, bytes < x->budget ? x->budget - bytes : 0);
    st = build_set(m, &s, w, files, touched, bytes, err);
    if (st == DR_ENOMEM && evict_to(x, 0))
        st = build_set(m, &s, w, files, touched, bytes, err);
    dr_lora_wish_close(files, w->n);
    if (st)
        goto done;
    s->key = *key;
    s->next = x->sets;
    x->sets = s;
    dr_log(DR_INFO, "lora.merged", "model=%s loras=%d ms=%.0f memory_mb=%lld", m->name,
           w->n, (dr_now_s() - start) * 1000, (long long)(bytes / MIB));
done:
    dr_free(touched);
    return st;
}

/* Bring a kept set to the front; NULL: it is not kept. */
static set *recall(struct dr_loras *x, const dr_digest *key)
{
    for (set **s = &x->sets; *s; s = &(*s)->next) {
        set *found = *s;
        if (strcmp(found->key.hex, key->hex) != 0)
            continue;
        *s = found->next;
        found->next = x->sets;
        return x->sets = found;
    }
    return NULL;
}

/* --- the calls --- */

dr_status dr_loras_apply(dr_model *m, const dr_lora_ref *loras, int n,
                         dr_lora_report *report, dr_err *err)
{
    struct dr_loras *x = m->loras;
    dr_lora_wish w;
    dr_digest key;
    set *s = NULL;
    bool merged = false;
    dr_status st = dr_lora_wish_read(&w, x->dir, loras, n, err);
    if (!st && w.n)
        st = dr_lora_wish_key(&key, &w, err);
    if (!st && w.n && !(s = recall(x, &key))) {
        switch_to(m, NULL);
        st = make_set(m, &w, &key, err);
        s = st ? NULL : x->sets;
        merged = true;
    }
    switch_to(m, s);
    if (report)
        *report = s ? s->report : (dr_lora_report){ 0 };
    if (report && s)
        report->merged = merged;
    return st;
}

dr_status dr_loras_check(dr_model *m, const dr_lora_ref *loras, int n, int64_t *bytes,
                         dr_err *err)
{
    struct dr_loras *x = m->loras;
    dr_lora files[DR_LORAS_MAX];
    dr_lora_wish w;
    *bytes = 0;
    dr_status st = dr_lora_wish_read(&w, x->dir, loras, n, err);
    if (st || !w.n)
        return st;
    bool *touched = dr_alloc((size_t)x->layers.n_layers * sizeof *touched);
    if (!touched)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if (!(st = dr_lora_wish_open(&w, x->dir, &x->layers, files, err))) {
        *bytes = touch(x, &w, files, touched);
        dr_lora_wish_close(files, w.n);
    }
    dr_free(touched);
    return st;
}

int64_t dr_loras_bytes(const dr_model *m)
{
    return kept_bytes(m->loras);
}

bool dr_loras_make_room(dr_model *m)
{
    return evict_to(m->loras, 0);
}

/* Equal, or both unset. */
static bool same(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b;
}

bool dr_loras_equal(const dr_lora_ref *a, int n_a, const dr_lora_ref *b, int n_b)
{
    for (int i = 0; i < n_a && n_a == n_b; i++)
        if (strcmp(a[i].name, b[i].name) != 0 || !same(a[i].strength, b[i].strength) ||
            !same(a[i].text_strength, b[i].text_strength))
            return false;
    return n_a == n_b;
}

/* --- open and close --- */

/* lora.dir, or what comes with the demo model, inside its folder or beside it. */
static dr_status find_dir(struct dr_loras *x, const dr_model *m, const dr_conf *conf,
                          dr_err *err)
{
    static const char *const places[] = { "lora", "../lora" };
    if (*conf->lora.dir && !dr_dir_exists(conf->lora.dir))
        return dr_fail_field(err, DR_ENOTFOUND, "lora.dir", "lora.dir %s: no such folder",
                             conf->lora.dir);
    snprintf(x->dir, sizeof x->dir, "%s", conf->lora.dir);
    for (size_t i = 0; i < DR_COUNT(places) && !*x->dir; i++) {
        if (strcmp(m->name, "demo-model") != 0)
            break;
        dr_status st = dr_path_join(x->dir, m->path, places[i], err);
        if (st)
            return st;
        if (!dr_dir_exists(x->dir))
            *x->dir = 0;
    }
    return DR_OK;
}

dr_status dr_loras_open(dr_model *m, const dr_conf *conf, dr_err *err)
{
    int64_t set_mb = conf->lora.memory_mb;
    struct dr_loras *x = m->loras = dr_alloc(sizeof *x);
    if (!x)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    x->budget = set_mb   ? set_mb * MIB
                : m->dev ? (int64_t)(dr_dev_describe(m->dev)->memory_bytes / 4)
                         : 0;
    dr_status st = find_dir(x, m, conf, err);
    return st ? st
              : dr_lora_layers_make(&x->layers, m->mem, &m->unet, &m->mats[1], &m->mats[0],
                                    err);
}

void dr_loras_close(dr_model *m)
{
    struct dr_loras *x = m->loras;
    while (x && x->sets) {
        set *s = x->sets;
        x->sets = s->next;
        free_set(s);
    }
    dr_free(x);
    m->loras = NULL;
}
