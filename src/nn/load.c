#include "nn/load.h"

#include "base/file.h"
#include "base/mem.h"
#include "dev/dev.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 256
#define CHUNK_BYTES    ((size_t)64 << 20)
#define ALIGN_BYTES    ((size_t)256)
#define SAMPLE_BYTES   ((size_t)1024)     /* of each tensor, for the digest */
#define READ_MAX       ((size_t)64 << 20) /* of the files, that may count as ours */

/* --- pool --- */

typedef struct chunk {
    struct chunk *next;
    dr_mem *mem;
    size_t used, size;
} chunk;

struct dr_pool {
    dr_dev *dev;
    chunk *head;
    size_t bytes;
};

dr_pool *dr_pool_new(dr_dev *dev)
{
    dr_pool *p = dr_alloc(sizeof *p);
    if (p)
        p->dev = dev;
    return p;
}

void dr_pool_free(dr_pool *p)
{
    if (!p)
        return;
    while (p->head) {
        chunk *c = p->head;
        p->head = c->next;
        dr_mem_free(p->dev, c->mem);
        dr_free(c);
    }
    dr_free(p);
}

size_t dr_pool_bytes(const dr_pool *p)
{
    return p->bytes;
}

/* Chunks are as large as what is left to load, within bounds. A large tensor that does not
 * fit gets a chunk of its own behind the head, whose free end stays in use. */
dr_status dr_pool_take(dr_pool *p, size_t bytes, size_t still_to_come, dr_mem **mem,
                       size_t *at, dr_err *err)
{
    bytes = (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    chunk *c = p->head;
    if (!c || c->size - c->used < bytes) {
        bool own = c && bytes >= CHUNK_BYTES / 16;
        size_t size = still_to_come < CHUNK_BYTES ? still_to_come : CHUNK_BYTES;
        if (!(c = dr_alloc(sizeof *c)))
            return dr_fail(err, DR_ENOMEM, "out of memory");
        c->size = own || size < bytes ? bytes : size;
        dr_status st = dr_mem_new(&c->mem, p->dev, c->size, err);
        if (st) {
            dr_free(c);
            return st;
        }
        chunk **place = own ? &p->head->next : &p->head;
        c->next = *place;
        *place = c;
        p->bytes += c->size;
    }
    *mem = c->mem;
    *at = c->used;
    c->used += bytes;
    return DR_OK;
}

/* --- loader --- */

dr_status dr_loader_open(dr_loader *l, dr_dev *dev, dr_pool *pool, const char *component,
                         const char *dir, const char *stem, dr_err *err)
{
    *l = (dr_loader){ .dev = dev, .pool = pool, .component = component };
    dr_status st = dr_weights_open(&l->files, dir, stem, err);
    if (st)
        return st;
    for (size_t i = 0; i < dr_weights_count(l->files); i++)
        l->total_bytes += dr_weights_at(l->files, i)->bytes;
    return DR_OK;
}

dr_status dr_loader_open_component(dr_loader *l, dr_dev *dev, dr_pool *pool,
                                   const char *model, const char *component,
                                   const char *stem, dr_err *err)
{
    char dir[DR_PATH_MAX], path[DR_PATH_MAX];
    dr_json *config = NULL;
    dr_status st;
    if ((st = dr_path_join(dir, model, component, err)) ||
        (st = dr_path_join(path, dir, "config.json", err)) ||
        (st = dr_json_read(&config, path, err)))
        return st;
    st = dr_loader_open(l, dev, pool, component, dir, stem, err);
    if (st)
        dr_json_free(config);
    else
        l->config = config;
    return st;
}

dr_digest dr_loader_digest(dr_loader *l)
{
    dr_hash *h = dr_hash_new();
    if (!h) {
        dr_fail(&l->err, DR_ENOMEM, "out of memory");
        return (dr_digest){ 0 };
    }
    for (size_t i = 0; i < dr_weights_count(l->files); i++) {
        const dr_weight *w = dr_weights_at(l->files, i);
        dr_hash_str(h, w->name);
        dr_hash_add(h, w->dim, sizeof w->dim);
        dr_hash_add(h, w->data, w->bytes < SAMPLE_BYTES ? w->bytes : SAMPLE_BYTES);
    }
    return dr_hash_end(h);
}

/* Tensors that old exports carry and no model reads. */
static bool ignorable(const char *name)
{
    static const char *const tails[] = { "embeddings.position_ids" };
    for (size_t i = 0; i < DR_COUNT(tails); i++) {
        size_t n = strlen(name), t = strlen(tails[i]);
        if (n >= t && !strcmp(name + n - t, tails[i]))
            return true;
    }
    return false;
}

static void report_unused(dr_loader *l)
{
    const dr_weight *w, *first = NULL;
    size_t cursor = 0, n = 0;
    while ((w = dr_weights_unused(l->files, &cursor)))
        if (!ignorable(w->name)) {
            first = first ? first : w;
            n++;
        }
    if (first)
        dr_fail(
            &l->err, DR_EMODEL,
            "%s: %zu tensors of the file have no place in this config, the first is %s: "
            "config.json and weights do not belong together",
            l->component, n, first->name);
}

static dr_status stage(dr_loader *l, const dr_weight *t)
{
    if (t->bytes > l->staging_bytes) {
        dr_mem_free(l->dev, l->staging);
        l->staging = NULL;
        l->staging_bytes = 0;
        dr_status st = dr_mem_new(&l->staging, l->dev, t->bytes, &l->err);
        if (st)
            return st;
        l->staging_bytes = t->bytes;
    }
    return dr_mem_write(l->dev, l->staging, 0, t->data, t->bytes, &l->err);
}

/* A tensor as it is in the file: the file's own pages where the device is a CPU, which
 * spares a copy, else l->staging. */
static dr_status borrow(dr_loader *l, const dr_weight *t, dr_mem **out)
{
    bool aligned = (uintptr_t)t->data % sizeof(float) == 0;
    dr_status st;
    if (dr_is_cpu(dr_dev_describe(l->dev)) && aligned)
        return dr_mem_wrap(out, l->dev, t->data, t->bytes, &l->err);
    if (!(st = stage(l, t)))
        *out = l->staging;
    return st;
}

/* Until the device is done; what was read of the files no longer counts as ours then. */
static void settle(dr_loader *l)
{
    if (l->read_bytes) {
        (void)!dr_finish(l->dev, l->err.code ? NULL : &l->err);
        dr_weights_forget(l->files);
    }
    l->read_bytes = 0;
}

static void give_back(dr_loader *l, const dr_weight *t, dr_mem *borrowed)
{
    if (borrowed != l->staging)
        dr_mem_free(l->dev, borrowed); /* launched kernels keep it while they need it */
    l->read_bytes += t->bytes;
    if (l->read_bytes >= READ_MAX)
        settle(l);
}

dr_status dr_loader_close(dr_loader *l, dr_err *err)
{
    if (!l->err.code && l->files)
        report_unused(l);
    settle(l);
    if (l->dev)
        dr_mem_free(l->dev, l->staging);
    dr_weights_close(l->files);
    dr_json_free(l->config);
    if (l->err.code && err)
        *err = l->err;
    dr_status st = l->err.code;
    *l = (dr_loader){ 0 };
    return st;
}

static int kind_of(const dr_weight *t)
{
    return t->type == DR_WEIGHT_F32    ? 0
           : t->type == DR_WEIGHT_F16  ? 1
           : t->type == DR_WEIGHT_BF16 ? 2
                                       : -1;
}

/* Put a checked tensor on the device; o, c, s as in cl/weights.cl. */
static dr_tensor place(dr_loader *l, const dr_weight *t, int64_t o, int64_t c, int64_t s,
                       dr_layout layout)
{
    dr_tensor w = { .n = 1, .h = 1, .w = s * c, .c = o };
    dr_mem *file = NULL;
    size_t at = 0;
    int kind = kind_of(t);
    dr_status (*move)(dr_dev *, dr_mem *, dr_mem *, size_t, int64_t, int64_t, int64_t, int,
                      dr_err *) = layout == DR_ROWS ? op_unpack_weights : op_pack_weights;
    if (kind < 0) {
        dr_fail(&l->err, DR_EMODEL, "%s: %s is %s; only F32, F16 and BF16 can be loaded",
                l->component, t->name, t->dtype);
        return w;
    }
    if (!l->dev)
        return w;
    if (dr_pool_take(l->pool, (size_t)op_weight_floats(layout, s * c, o) * sizeof(float),
                     (l->total_bytes - l->loaded_bytes) * (kind ? 2 : 1) + CHUNK_BYTES / 64,
                     &w.mem, &at, &l->err) ||
        borrow(l, t, &file))
        return w;
    w.at = at / sizeof(float);
    dr_status st = move(l->dev, file, w.mem, w.at, o, c, s, kind, &l->err);
    give_back(l, t, file);
    if (st)
        return w;
    l->loaded_bytes += t->bytes;
    if (l->progress)
        l->progress(l->ctx, (double)l->loaded_bytes / (double)l->total_bytes);
    return w;
}

/* A matrix in the layout that the device wants. */
static void place_matrix(dr_loader *l, dr_weight_mat *w, const dr_weight *t)
{
    w->layout = l->dev ? op_layout(l->dev, kind_of(t)) : DR_ROWS;
    w->w = place(l, t, w->out, w->in, (int64_t)w->kh * w->kw, w->layout);
}

/* The same in the order of the file: [rows, c]. */
static dr_tensor place_rows(dr_loader *l, const dr_weight *t, int64_t rows, int64_t c)
{
    dr_tensor w = place(l, t, rows * c, 1, 1, DR_ROWS);
    w.w = rows;
    w.c = c;
    return w;
}

const char *dr_shape_text(char *out, size_t size, const int64_t *dim, int ndim)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < ndim && n < size; i++)
        n +=
            (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (n < size)
        snprintf(out + n, size - n, "]");
    return out;
}

/* The tensor NAME.tail when its shape is `want` (trailing dimensions of 1 do not count),
 * else NULL with an error. */
static const dr_weight *find(dr_loader *l, const char *name, const char *tail,
                             const int64_t *want, int ndim)
{
    static const dr_weight imagined = { .type = DR_WEIGHT_F16 };
    char full[NAME_MAX_BYTES + 16], have_text[128], want_text[128];
    snprintf(full, sizeof full, "%s.%s", name, tail);
    if (l->wanted) {
        l->wanted(l->ctx, full, want, ndim);
        return &imagined;
    }
    dr_shape_text(want_text, sizeof want_text, want, ndim);
    const dr_weight *t = dr_weights_use(l->files, full);
    if (!t) {
        dr_fail(&l->err, DR_EMODEL, "%s: tensor %s %s is missing", l->component, full,
                want_text);
        return NULL;
    }
    int n = t->ndim < ndim ? ndim : t->ndim;
    for (int i = 0; i < n; i++) {
        int64_t have = i < t->ndim ? t->dim[i] : 1, wanted = i < ndim ? want[i] : 1;
        if (have == wanted)
            continue;
        dr_shape_text(have_text, sizeof have_text, t->dim, t->ndim);
        dr_fail(&l->err, DR_EMODEL,
                "%s: tensor %s is %s in the file, the config makes it %s", l->component,
                full, have_text, want_text);
        return NULL;
    }
    return t;
}

static bool format(dr_loader *l, char *out, const char *fmt, va_list ap)
{
    if (l->err.code)
        return false;
    vsnprintf(out, NAME_MAX_BYTES, fmt, ap);
    return true;
}

#define FORMAT_NAME(l, name, fmt)                                                          \
    char name[NAME_MAX_BYTES];                                                             \
    va_list ap;                                                                            \
    va_start(ap, fmt);                                                                     \
    bool go = format(l, name, fmt, ap);                                                    \
    va_end(ap);                                                                            \
    if (!go)                                                                               \
    return

static dr_tensor load_vector(dr_loader *l, const char *name, const char *tail, int64_t c)
{
    const dr_weight *t = find(l, name, tail, &c, 1);
    return t ? place_rows(l, t, 1, c) : (dr_tensor){ 0 };
}

/* Note a matrix in l->mats. */
static void note(dr_loader *l, const char *name, dr_weight_mat *w)
{
    dr_mats *m = l->mats;
    if (!m || l->err.code)
        return;
    if (m->count == m->cap) {
        int cap = m->cap ? 2 * m->cap : 64;
        struct dr_named_mat *row = dr_arena_alloc(m->mem, (size_t)cap * sizeof *row);
        if (row && m->count)
            memcpy(row, m->row, (size_t)m->count * sizeof *row);
        m->row = row;
        m->cap = row ? cap : 0;
    }
    const char *copy = m->row ? dr_arena_str(m->mem, name, strlen(name)) : NULL;
    if (copy)
        m->row[m->count++] = (struct dr_named_mat){ .name = copy, .w = w };
    else
        dr_fail(&l->err, DR_ENOMEM, "out of memory");
}

void dr_load_linear(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, bool bias,
                    const char *fmt, ...)
{
    FORMAT_NAME(l, name, fmt);
    *w = (dr_weight_mat){ .kh = 1, .kw = 1, .in = in, .out = out };
    const dr_weight *t = find(l, name, "weight", (const int64_t[]){ out, in }, 2);
    if (t)
        place_matrix(l, w, t);
    if (t && bias)
        w->b = load_vector(l, name, "bias", out);
    note(l, name, w);
}

static void load_conv(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, int window,
                      bool bias, const char *name)
{
    *w = (dr_weight_mat){ .kh = window, .kw = window, .in = in, .out = out };
    const dr_weight *t =
        find(l, name, "weight", (const int64_t[]){ out, in, window, window }, 4);
    if (!t)
        return;
    place_matrix(l, w, t);
    if (bias)
        w->b = load_vector(l, name, "bias", out);
    note(l, name, w);
}

void dr_load_conv(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, int window,
                  const char *fmt, ...)
{
    FORMAT_NAME(l, name, fmt);
    load_conv(l, w, in, out, window, true, name);
}

void dr_load_conv_plain(dr_loader *l, dr_weight_mat *w, int64_t in, int64_t out, int window,
                        const char *fmt, ...)
{
    FORMAT_NAME(l, name, fmt);
    load_conv(l, w, in, out, window, false, name);
}

void dr_load_skip(dr_loader *l, const char *prefix)
{
    for (size_t i = 0; l->files && i < dr_weights_count(l->files); i++) {
        const char *name = dr_weights_at(l->files, i)->name;
        if (!strncmp(name, prefix, strlen(prefix)))
            (void)dr_weights_use(l->files, name);
    }
}

void dr_load_norm(dr_loader *l, dr_weight_norm *w, int64_t c, int64_t groups, double eps,
                  const char *fmt, ...)
{
    FORMAT_NAME(l, name, fmt);
    *w = (dr_weight_norm){ .groups = groups, .eps = (float)eps };
    w->w = load_vector(l, name, "weight", c);
    if (!l->err.code)
        w->b = load_vector(l, name, "bias", c);
}

void dr_load_table(dr_loader *l, dr_weight_mat *w, int64_t rows, int64_t c, const char *fmt,
                   ...)
{
    FORMAT_NAME(l, name, fmt);
    *w = (dr_weight_mat){ .kh = 1, .kw = 1, .in = rows, .out = c };
    const dr_weight *t = find(l, name, "weight", (const int64_t[]){ rows, c }, 2);
    if (t)
        w->w = place_rows(l, t, rows, c);
}

bool dr_load_has(dr_loader *l, const char *fmt, ...)
{
    FORMAT_NAME(l, name, fmt) false;
    return l->files && dr_weights_find(l->files, name);
}

/* --- config --- */

static int64_t check_int(dr_loader *l, const char *key, const dr_json *j, int64_t min,
                         int64_t max, int64_t fallback)
{
    if (dr_json_type(j) == DR_JSON_NULL)
        return fallback;
    double v = dr_json_number(j);
    if (v >= (double)min && v <= (double)max && v == floor(v))
        return (int64_t)v;
    dr_buf text = { 0 };
    dr_json_put(&text, j);
    if (!l->err.code)
        dr_fail(&l->err, DR_EMODEL,
                "%s/config.json: %s holds %.80s; must be a whole number in %lld..%lld",
                l->component, key, text.failed ? "?" : text.data, (long long)min,
                (long long)max);
    dr_buf_free(&text);
    return fallback;
}

int64_t dr_config_int(dr_loader *l, const dr_json *config, const char *key, int64_t min,
                      int64_t max, int64_t fallback)
{
    return check_int(l, key, dr_json_get(config, key), min, max, fallback);
}

int64_t dr_config_int_at(dr_loader *l, const dr_json *config, const char *key, int i, int n,
                         int64_t min, int64_t max, int64_t fallback)
{
    const dr_json *j = dr_json_get(config, key);
    if (dr_json_type(j) != DR_JSON_ARRAY)
        return check_int(l, key, j, min, max, fallback);
    if (dr_json_count(j) != n && !l->err.code)
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: %s has %d entries, must have %d",
                l->component, key, dr_json_count(j), n);
    return check_int(l, key, dr_json_at(j, i), min, max, fallback);
}

void dr_config_only(dr_loader *l, const dr_json *config, const char *key, const char *json)
{
    dr_buf text = { 0 };
    const dr_json *j = dr_json_get(config, key);
    if (l->err.code || dr_json_type(j) == DR_JSON_NULL)
        return;
    dr_json_put(&text, j);
    if (text.failed || strcmp(text.data, json) != 0)
        dr_fail(&l->err, DR_EMODEL, "%s/config.json: %s is %.80s; only %s is supported",
                l->component, key, text.failed ? "?" : text.data, json);
    dr_buf_free(&text);
}
