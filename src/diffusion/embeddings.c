#include "diffusion/embeddings.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "nn/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_BYTES_MAX 128
#define NAME_IDS_MAX   75   /* a chunk's; longer names are in no prompt */
#define SETTLED_MS     2000 /* a folder that changed less long ago may change unseen */

struct dr_embeddings {
    char dir[DR_PATH_MAX];
    dr_arena *mem; /* what follows */
    dr_embedding *at;
    int n, cap;
    struct timespec changed; /* the folder, when it was read */
    bool settled;
};

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "out of memory for embeddings");
}

/* --- the folder --- */

dr_status dr_embeddings_open(dr_embeddings **out, const char *dir, dr_err *err)
{
    dr_embeddings *e = dr_alloc(sizeof *e);
    if (!e || !(e->mem = dr_arena_new())) {
        dr_embeddings_close(e);
        return no_memory(err);
    }
    if (snprintf(e->dir, sizeof e->dir, "%s", dir) >= (int)sizeof e->dir) {
        dr_embeddings_close(e);
        return dr_fail_field(err, DR_EINVAL, "embeddings.dir",
                             "embeddings.dir of %zu bytes: must be less than %d",
                             strlen(dir), DR_PATH_MAX);
    }
    *out = e;
    return DR_OK;
}

void dr_embeddings_close(dr_embeddings *e)
{
    if (!e)
        return;
    dr_arena_free(e->mem);
    dr_free(e->at);
    dr_free(e);
}

bool dr_embeddings_any(const dr_embeddings *e)
{
    return *e->dir != 0;
}

/* The ending of a file that may hold vectors; NULL: of another kind. */
static const char *ending_of(const char *file, bool *is_pickle)
{
    static const char *const endings[] = { ".safetensors", ".pt", ".bin", ".ckpt" };
    size_t n = strlen(file);
    for (size_t i = 0; i < DR_COUNT(endings); i++) {
        size_t len = strlen(endings[i]);
        *is_pickle = i > 0;
        if (n > len && !strcmp(file + n - len, endings[i]))
            return endings[i];
    }
    return NULL;
}

static dr_status add(dr_embeddings *e, dr_bpe *b, const char *file, dr_err *err)
{
    dr_embedding v = { .ending = ending_of(file, &v.is_pickle) };
    int32_t ids[NAME_IDS_MAX + 2];
    int n;
    if (!v.ending || *file == '.')
        return DR_OK;
    size_t len = strlen(file) - strlen(v.ending);
    v.name = dr_arena_str(e->mem, file, len);
    if (!v.name)
        return no_memory(err);
    if (len > NAME_BYTES_MAX || !dr_utf8_valid(v.name, len, NULL)) {
        char quoted[600];
        dr_log(DR_WARN, "embedding.left_out",
               "file=%s message=\"a name must be UTF-8 of at most %d bytes\"",
               dr_log_quote(quoted, sizeof quoted, file), NAME_BYTES_MAX);
        return DR_OK;
    }
    dr_status st = dr_bpe_encode(b, v.name, ids, (int)DR_COUNT(ids), &n, err);
    if (st || n <= 2 || n > (int)DR_COUNT(ids))
        return st;
    size_t bytes = (size_t)(n - 2) * sizeof *ids;
    int32_t *kept = dr_arena_alloc(e->mem, bytes);
    if (e->n == e->cap) {
        int cap = e->cap ? 2 * e->cap : 64;
        dr_embedding *grown = dr_resize(e->at, (size_t)cap * sizeof *grown);
        if (!grown)
            return no_memory(err);
        e->at = grown;
        e->cap = cap;
    }
    if (!kept)
        return no_memory(err);
    v.n_ids = n - 2;
    v.ids = memcpy(kept, ids + 1, bytes); /* without the ends */
    e->at[e->n++] = v;
    return DR_OK;
}

/* The longest first; of equal ones what can be read. */
static int by_length(const void *a, const void *b)
{
    const dr_embedding *x = a, *y = b;
    if (x->n_ids != y->n_ids)
        return y->n_ids - x->n_ids;
    if (x->is_pickle != y->is_pickle)
        return x->is_pickle - y->is_pickle;
    return strcmp(x->name, y->name);
}

static dr_status scan(dr_embeddings *e, dr_bpe *b, dr_err *err)
{
    const struct dirent *item;
    DIR *d = opendir(e->dir);
    dr_status st = DR_OK;
    if (!d)
        return dr_fail_field(err, DR_EIO, "embeddings.dir", "embeddings.dir %s: %s", e->dir,
                             strerror(errno));
    while (!st && (item = readdir(d)))
        st = add(e, b, item->d_name, err);
    closedir(d);
    if (e->n)
        qsort(e->at, (size_t)e->n, sizeof *e->at, by_length);
    return st;
}

dr_status dr_embeddings_scan(dr_embeddings *e, dr_bpe *b, dr_err *err)
{
    struct stat now;
    if (!*e->dir)
        return DR_OK;
    if (stat(e->dir, &now))
        return dr_fail_field(err, DR_EIO, "embeddings.dir", "embeddings.dir %s: %s", e->dir,
                             strerror(errno));
    if (e->settled && !memcmp(&now.st_mtim, &e->changed, sizeof e->changed))
        return DR_OK;
    int64_t changed_ms = (int64_t)now.st_mtim.tv_sec * 1000 + now.st_mtim.tv_nsec / 1000000;
    bool settled = dr_wall_ms() - changed_ms > SETTLED_MS;
    dr_arena_reset(e->mem);
    e->n = 0;
    e->settled = false;
    dr_status st = scan(e, b, err);
    if (st) {
        e->n = 0;
        return st;
    }
    e->changed = now.st_mtim;
    e->settled = settled;
    return DR_OK;
}

const dr_embedding *dr_embeddings_at(const dr_embeddings *e, const int32_t *ids, int n)
{
    for (int i = 0; i < e->n; i++) {
        const dr_embedding *v = &e->at[i];
        if (v->n_ids <= n && !memcmp(v->ids, ids, (size_t)v->n_ids * sizeof *ids))
            return v;
    }
    return NULL;
}

/* --- a file --- */

static dr_status check_shape(const dr_weight *t, const char *name, int64_t width, int most,
                             const char *field, dr_err *err)
{
    int64_t rows = t->ndim == 2 ? t->dim[0] : 1;
    if (t->ndim < 1 || t->ndim > 2 || rows < 1)
        return dr_fail(err, DR_EMODEL,
                       "embedding %s: %s has %d dimensions; vectors are [n, width] or "
                       "[width]",
                       name, t->name, t->ndim);
    if (t->dim[t->ndim - 1] != width)
        return dr_fail_field(err, DR_EINVAL, field,
                             "embedding %s: its vectors are %lld wide, this model's text "
                             "encoder is %lld wide; it was made for another family of "
                             "models",
                             name, (long long)t->dim[t->ndim - 1], (long long)width);
    if (rows > most)
        return dr_fail_field(err, DR_EINVAL, field,
                             "embedding %s: %lld vectors, at most %d fit into a chunk",
                             name, (long long)rows, most);
    if (t->type == DR_WEIGHT_OTHER)
        return dr_fail(err, DR_EMODEL,
                       "embedding %s: %s is %s; known are F32, F16 and BF16", name, t->name,
                       t->dtype);
    return DR_OK;
}

static float element(const dr_weight *t, size_t i)
{
    float v;
    uint16_t bits;
    if (t->type == DR_WEIGHT_F32) {
        memcpy(&v, (const char *)t->data + i * sizeof v, sizeof v);
        return v;
    }
    memcpy(&bits, (const char *)t->data + i * sizeof bits, sizeof bits);
    return t->type == DR_WEIGHT_F16 ? dr_half_to_float(bits) : dr_bf16_to_float(bits);
}

static dr_status read_tensor(const float **vectors, int *n, const dr_weight *t,
                             const char *name, dr_arena *mem, int64_t width, dr_err *err)
{
    *n = t->ndim == 2 ? (int)t->dim[0] : 1;
    size_t count = (size_t)*n * (size_t)width;
    float *out = dr_arena_alloc(mem, count * sizeof *out);
    if (!out)
        return no_memory(err);
    for (size_t i = 0; i < count; i++) {
        out[i] = element(t, i);
        if (!isfinite(out[i]))
            return dr_fail(err, DR_EMODEL, "embedding %s: value %zu is no finite number",
                           name, i);
    }
    *vectors = out;
    return DR_OK;
}

static const dr_weight *find_tensor(const dr_weights *w, const char *name, dr_err *err)
{
    const dr_weight *t = dr_weights_find(w, "emb_params");
    size_t n = dr_weights_count(w);
    if (!t && n == 1)
        t = dr_weights_at(w, 0);
    if (!t)
        dr_fail(err, DR_EMODEL,
                "embedding %s: the file holds %zu tensors and none is called emb_params; "
                "one of vectors is needed",
                name, n);
    return t;
}

dr_status dr_embedding_read(const float **vectors, int *n, const dr_embeddings *e,
                            const dr_embedding *v, dr_arena *mem, int64_t width, int most,
                            const char *field, dr_err *err)
{
    char file[NAME_BYTES_MAX + 32], path[DR_PATH_MAX];
    dr_weights *w = NULL;
    const dr_weight *t;
    dr_status st;
    if (v->is_pickle)
        return dr_fail_field(err, DR_EINVAL, field,
                             "embedding %s: there is only %s%s, a pickle, which may run "
                             "anything when it is read; convert it to %s.safetensors",
                             v->name, v->name, v->ending, v->name);
    snprintf(file, sizeof file, "%s%s", v->name, v->ending);
    if ((st = dr_path_join(path, e->dir, file, err)) ||
        (st = dr_weights_open_file(&w, path, err)))
        return st;
    if (!(t = find_tensor(w, v->name, err)))
        st = DR_EMODEL;
    else if (!(st = check_shape(t, v->name, width, most, field, err)))
        st = read_tensor(vectors, n, t, v->name, mem, width, err);
    dr_weights_close(w);
    return st;
}
