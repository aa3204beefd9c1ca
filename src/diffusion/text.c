#include "diffusion/model.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

#define ROWS_AT_ONCE 16 /* new ones in one pass of the encoder */

/* --- the cache --- */

static dr_text_entry *lookup(dr_model *m, const dr_digest *key)
{
    for (int64_t i = 0; i < m->n_texts; i++) {
        dr_text_entry *e = &m->texts[i];
        if (e->data && !memcmp(e->key.hex, key->hex, sizeof key->hex)) {
            e->used = ++m->tick;
            return e;
        }
    }
    return NULL;
}

void dr_text_forget(dr_model *m)
{
    for (int64_t i = 0; m->texts && i < m->n_texts; i++)
        dr_free(m->texts[i].data);
    dr_free(m->texts);
    m->texts = NULL;
}

/* Keep a copy of an embedding; without memory it is simply not kept. */
static void remember(dr_model *m, const dr_digest *key, const float *data, size_t count)
{
    dr_text_entry *oldest = m->texts;
    if (!m->n_texts)
        return;
    for (int64_t i = 0; i < m->n_texts; i++)
        if (m->texts[i].used < oldest->used)
            oldest = &m->texts[i];
    dr_free(oldest->data);
    *oldest = (dr_text_entry){ .key = *key,
                               .data = dr_alloc(count * sizeof(float)),
                               .used = ++m->tick };
    if (oldest->data)
        memcpy(oldest->data, data, count * sizeof(float));
}

/* --- encoding --- */

/* A chunk of a text that waits for the encoder. */
typedef struct {
    const int32_t *ids;
    const float *weights;
    dr_digest key;
    int64_t place; /* row of the result */
} waiting;

typedef struct {
    dr_run *r;
    dr_model *m;
    const dr_text_ask *ask;
    dr_tensor out;   /* [rows, length, 1, width] */
    dr_tensor extra; /* the embeddings' vectors */
    waiting row[ROWS_AT_ONCE];
    int n;
} encoder;

/* x[t] *= w[t], then all of x by what brings its mean back. */
static void weigh(float *x, const float *w, int64_t length, int64_t width)
{
    double before = 0, after = 0;
    bool plain = true;
    for (int64_t t = 0; t < length; t++)
        plain &= w[t] == 1;
    if (plain)
        return;
    for (int64_t i = 0; i < length * width; i++) {
        before += x[i];
        x[i] *= w[i / width];
        after += x[i];
    }
    double factor = before / after;
    for (int64_t i = 0; i < length * width && after != 0 && isfinite(factor); i++)
        x[i] = (float)(x[i] * factor);
}

/* Run the encoder on the rows that wait, and copy each to its place. */
static void encode_waiting(encoder *e)
{
    dr_run *r = e->r;
    const dr_clip *clip = &e->m->clip;
    size_t length = (size_t)clip->length, count = length * (size_t)clip->width;
    int32_t *ids = dr_alloc((size_t)e->n * length * sizeof *ids);
    float *host = dr_alloc(count * sizeof *host);
    dr_mark mark = dr_push(r);
    if (!ids || !host)
        dr_fail(&r->err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < e->n && ids; i++)
        memcpy(ids + (size_t)i * length, e->row[i].ids, length * sizeof *ids);
    dr_tensor x = { 0 };
    if (!r->err.code)
        x = dr_clip_forward(r, clip, ids, e->n, clip->length, e->extra.n ? &e->extra : NULL,
                            e->ask->skip);
    for (int i = 0; i < e->n && !r->err.code && !r->dry; i++) {
        dr_download(r, dr_slice(x, i, 1), host);
        weigh(host, e->row[i].weights, clip->length, clip->width);
        dr_upload(r, dr_slice(e->out, e->row[i].place, 1), host);
        if (!r->err.code)
            remember(e->m, &e->row[i].key, host, count);
    }
    dr_pop(r, mark);
    dr_free(ids);
    dr_free(host);
    e->n = 0;
}

/* A chunk's key with all that decides its embedding. */
static bool full_key(dr_digest *key, const encoder *e, const dr_digest *chunk)
{
    dr_hash *h = dr_hash_new();
    if (!h)
        return false;
    dr_hash_add(h, chunk->hex, sizeof chunk->hex);
    dr_hash_add(h, &e->ask->skip, sizeof e->ask->skip);
    dr_hash_str(h, e->m->text_weights.hex);
    *key = dr_hash_end(h);
    return true;
}

/* Chunk i of a text, to row `place`. */
static void encode_chunk(encoder *e, const dr_text *t, int i, int64_t place)
{
    int64_t at = i * e->m->clip.length;
    waiting *w = &e->row[e->n];
    *w = (waiting){ .ids = t->ids + at, .weights = t->weights + at, .place = place };
    if (!full_key(&w->key, e, &t->keys[i])) {
        dr_fail(&e->r->err, DR_ENOMEM, "out of memory");
        return;
    }
    const dr_text_entry *known = e->r->dry ? NULL : lookup(e->m, &w->key);
    if (known)
        dr_upload(e->r, dr_slice(e->out, place, 1), known->data);
    else if (++e->n == ROWS_AT_ONCE)
        encode_waiting(e);
}

/* The embeddings' vectors on the device. */
static void upload_vectors(encoder *e, const dr_vectors *v)
{
    int64_t width = e->m->clip.width;
    if (!v->n)
        return;
    float *host = dr_alloc((size_t)(v->n * width) * sizeof *host);
    e->extra = dr_new(e->r, 1, 1, v->n, width);
    if (!host)
        dr_fail(&e->r->err, DR_ENOMEM, "out of memory for %d vectors", v->n);
    else
        dr_vectors_write(v, host, width);
    dr_upload(e->r, e->extra, host);
    dr_free(host);
}

void dr_text_encode(dr_run *r, dr_model *m, const dr_text *const *texts, int n,
                    const dr_text_ask *ask, dr_tensor out)
{
    encoder e = { .r = r, .m = m, .ask = ask, .out = out };
    dr_mark mark = dr_push(r);
    e.out.n = n * ask->chunks;
    e.out.h = m->clip.length;
    upload_vectors(&e, ask->vectors);
    for (int i = 0; i < n * ask->chunks && !r->err.code; i++) {
        const dr_text *t = texts[i / ask->chunks];
        int chunk = i % ask->chunks;
        if (chunk < t->chunks)
            encode_chunk(&e, t, chunk, i);
        else
            encode_chunk(&e, ask->empty, 0, i);
    }
    if (e.n && !r->err.code)
        encode_waiting(&e);
    dr_pop(r, mark);
}
