#include "diffusion/model.h"

#include <string.h>

/* From a text to the rows that the text encoder takes. */

#define NAME_MAX_BYTES 128 /* between angle brackets */

/* Vectors of one embedding. */
typedef struct dr_vector_part {
    struct dr_vector_part *next;
    const dr_embedding
        *name; /* the embedding, for as long as the folder is not read again */
    const float *at;
    int first, n;
} part;

/* The text's tokens so far; the row under work is number `chunks`. */
typedef struct {
    dr_model *m;
    dr_reading *r;
    dr_vectors *v;
    dr_text *out;
    int room, fill; /* tokens of text in a row; those in this one */
    int last_comma; /* -1: none in this row */
    int32_t comma;
    int64_t cut; /* tokens for which there was no row */
} chunker;

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "out of memory for a prompt's tokens");
}

/* --- rows --- */

static int32_t *row_ids(const chunker *c, int row)
{
    return c->out->ids + (size_t)row * (size_t)(c->room + 2);
}

static float *row_weights(const chunker *c, int row)
{
    return c->out->weights + (size_t)row * (size_t)(c->room + 2);
}

/* End the row under work: both ends, and the padding behind. */
static void end_row(chunker *c)
{
    int32_t *ids = row_ids(c, c->out->chunks);
    float *weights = row_weights(c, c->out->chunks);
    ids[0] = dr_bpe_bos(c->m->bpe);
    ids[c->fill + 1] = dr_bpe_eos(c->m->bpe);
    for (int i = c->fill + 2; i < c->room + 2; i++)
        ids[i] = dr_bpe_pad(c->m->bpe);
    weights[0] = 1;
    for (int i = c->fill + 1; i < c->room + 2; i++)
        weights[i] = 1;
    c->out->chunks++;
    c->fill = 0;
    c->last_comma = -1;
}

static void append(chunker *c, int32_t id, double weight)
{
    if (c->out->chunks == DR_TEXT_CHUNKS_MAX) {
        c->cut++;
        return;
    }
    row_ids(c, c->out->chunks)[c->fill + 1] = id;
    row_weights(c, c->out->chunks)[c->fill + 1] = (float)weight;
    c->fill++;
}

/* Whether another row may begin; else what comes is cut. */
static bool is_full(const chunker *c)
{
    return c->out->chunks < DR_TEXT_CHUNKS_MAX && c->fill == c->room;
}

/* The row is full: what follows a comma near its end goes to the next one as well. */
static void backtrack(chunker *c)
{
    int from = c->last_comma + 1, n = c->fill - from, row = c->out->chunks;
    if (c->last_comma < 0 || c->fill - c->last_comma > DR_TEXT_BACKTRACK)
        return;
    const int32_t *ids = row_ids(c, row) + 1 + from;
    const float *weights = row_weights(c, row) + 1 + from;
    int32_t moved_ids[DR_TEXT_BACKTRACK];
    float moved_weights[DR_TEXT_BACKTRACK];
    memcpy(moved_ids, ids, (size_t)n * sizeof *ids);
    memcpy(moved_weights, weights, (size_t)n * sizeof *weights);
    c->fill = from;
    end_row(c);
    for (int i = 0; i < n; i++)
        append(c, moved_ids[i], moved_weights[i]);
}

/* Before a token: a row that has room for it. */
static void make_room(chunker *c, int32_t token)
{
    if (c->comma >= 0 && token == c->comma)
        c->last_comma = c->fill;
    else if (is_full(c))
        backtrack(c);
    if (is_full(c))
        end_row(c);
}

/* --- embeddings --- */

static dr_status find_part(part **out, chunker *c, const dr_embedding *name, dr_err *err)
{
    dr_vectors *v = c->v;
    for (part *p = v->first; p; p = p->next)
        if (p->name == name) {
            *out = p;
            return DR_OK;
        }
    part *p = *out = dr_arena_alloc(c->r->mem, sizeof *p);
    if (!p)
        return no_memory(err);
    *p = (part){ .name = name, .first = v->n };
    dr_status st = dr_embedding_read(&p->at, &p->n, c->m->embeddings, name, c->r->mem,
                                     c->m->clip.width, c->room, c->r->field, err);
    if (st)
        return st;
    *(v->last ? &v->last->next : &v->first) = p;
    v->last = p;
    v->n += p->n;
    return DR_OK;
}

/* Vectors in place of the tokens that name them; never split over two rows. */
static dr_status put_embedding(chunker *c, const dr_embedding *name, double weight,
                               dr_err *err)
{
    part *p;
    dr_status st = find_part(&p, c, name, err);
    if (st)
        return st;
    make_room(c, name->ids[0]);
    if (c->out->chunks < DR_TEXT_CHUNKS_MAX && c->fill + p->n > c->room)
        end_row(c);
    for (int i = 0; i < p->n; i++)
        append(c, (int32_t)c->m->clip.vocabulary + p->first + i, weight);
    return DR_OK;
}

void dr_vectors_write(const dr_vectors *v, float *out, int64_t width)
{
    for (const part *p = v->first; p; p = p->next)
        memcpy(out + (int64_t)p->first * width, p->at,
               (size_t)(p->n * width) * sizeof *out);
}

/* --- tokens --- */

/* The tokens of n bytes of text, without both ends, in the arena. */
static dr_status tokenize(const int32_t **out, int *n, chunker *c, const char *p,
                          size_t len, dr_err *err)
{
    char *text = dr_arena_str(c->r->mem, p, len);
    int needed;
    dr_status st =
        text ? dr_bpe_encode(c->m->bpe, text, NULL, 0, &needed, err) : no_memory(err);
    if (st)
        return st;
    int32_t *ids = dr_arena_alloc(c->r->mem, (size_t)needed * sizeof *ids);
    if (!ids)
        return no_memory(err);
    *out = ids + 1;
    *n = needed - 2;
    return dr_bpe_encode(c->m->bpe, text, ids, needed, &needed, err);
}

static dr_status put_text(chunker *c, const char *p, size_t len, double weight, dr_err *err)
{
    const int32_t *ids;
    int n;
    dr_status st = tokenize(&ids, &n, c, p, len, err);
    for (int i = 0; i < n && !st;) {
        const dr_embedding *e = dr_embeddings_at(c->m->embeddings, ids + i, n - i);
        if (e) {
            st = put_embedding(c, e, weight, err);
            i += e->n_ids;
            continue;
        }
        make_room(c, ids[i]);
        append(c, ids[i], weight);
        i++;
    }
    return st;
}

/* The embedding that the bytes between angle brackets name exactly; NULL: none. */
static dr_status find_named(const dr_embedding **out, chunker *c, const char *p, size_t len,
                            dr_err *err)
{
    const int32_t *ids;
    int n;
    dr_status st = tokenize(&ids, &n, c, p, len, err);
    *out = st ? NULL : dr_embeddings_at(c->m->embeddings, ids, n);
    if (*out && (*out)->n_ids != n)
        *out = NULL;
    return st;
}

/* "<name>" at p → its bytes when it may be meant for an embedding's name, else 0. */
static size_t bracketed(const char *p)
{
    size_t n = strcspn(p + 1, "<>");
    return p[1 + n] == '>' && n && n <= NAME_MAX_BYTES && p[1] != '|' ? n + 2 : 0;
}

/* A stretch: text, and embeddings in angle brackets. */
static dr_status put_stretch(chunker *c, const char *text, double weight, dr_err *err)
{
    const char *from = text;
    dr_status st = DR_OK;
    for (const char *p = text; (p = strchr(p, '<')) && !st;) {
        const dr_embedding *e = NULL;
        size_t n = bracketed(p);
        if (n)
            st = find_named(&e, c, p + 1, n - 2, err);
        if (st || !e) {
            if (n && !st && !memchr(p, ' ', n))
                dr_note(c->r, "%.*s names no embedding%s; it is read as text", (int)n, p,
                        dr_embeddings_any(c->m->embeddings)
                            ? ""
                            : " (embeddings.dir is not set)");
            p++;
            continue;
        }
        if ((st = put_text(c, from, (size_t)(p - from), weight, err)) ||
            (st = put_embedding(c, e, weight, err)))
            break;
        from = p += n;
    }
    return st ? st : put_text(c, from, strlen(from), weight, err);
}

/* --- all of it --- */

static dr_status make_keys(chunker *c, dr_err *err)
{
    dr_text *t = c->out;
    size_t length = (size_t)c->room + 2, vocabulary = (size_t)c->m->clip.vocabulary;
    for (int i = 0; i < t->chunks; i++) {
        dr_hash *h = dr_hash_new();
        if (!h)
            return no_memory(err);
        const int32_t *ids = row_ids(c, i);
        dr_hash_add(h, row_weights(c, i), length * sizeof(float));
        for (size_t k = 0; k < length; k++) {
            size_t id = (size_t)ids[k], at = id - vocabulary;
            const part *p = c->v->first;
            while (id >= vocabulary && p && at >= (size_t)(p->first + p->n))
                p = p->next;
            if (id < vocabulary || !p)
                dr_hash_add(h, &ids[k], sizeof *ids);
            else
                dr_hash_add(h, p->at + (at - (size_t)p->first) * (size_t)c->m->clip.width,
                            (size_t)c->m->clip.width * sizeof(float));
        }
        t->keys[i] = dr_hash_end(h);
    }
    return DR_OK;
}

/* The token of a comma, where A1111 looks for it; -1: the vocabulary has none. */
static dr_status find_comma(chunker *c, dr_err *err)
{
    int32_t ids[3];
    int n;
    dr_status st = dr_bpe_encode(c->m->bpe, ",", ids, 3, &n, err);
    c->comma = n == 3 ? ids[1] : -1;
    return st;
}

dr_status dr_text_make(dr_text *out, dr_vectors *v, dr_model *m, dr_reading *r,
                       const char *text, dr_err *err)
{
    size_t tokens = DR_TEXT_CHUNKS_MAX * (size_t)m->clip.length;
    chunker c = { .m = m,
                  .r = r,
                  .v = v,
                  .out = out,
                  .room = (int)m->clip.length - 2,
                  .last_comma = -1 };
    dr_stretch *s;
    int n;
    *out = (dr_text){ .text = text };
    out->ids = dr_arena_alloc(r->mem, tokens * sizeof *out->ids);
    out->weights = dr_arena_alloc(r->mem, tokens * sizeof *out->weights);
    out->keys = dr_arena_alloc(r->mem, DR_TEXT_CHUNKS_MAX * sizeof *out->keys);
    dr_status st =
        out->ids && out->weights && out->keys ? find_comma(&c, err) : no_memory(err);
    if (!st)
        st = dr_prompt_weigh(&s, &n, r, text, err);
    for (int i = 0; !st && i < n; i++) {
        if (!s[i].is_break)
            st = put_stretch(&c, s[i].text, s[i].weight, err);
        else if (out->chunks < DR_TEXT_CHUNKS_MAX)
            end_row(&c);
    }
    if (!st && out->chunks < DR_TEXT_CHUNKS_MAX && (c.fill || !out->chunks))
        end_row(&c);
    if (c.cut)
        dr_note(r, "%lld tokens longer than the %d that are read; its end had no effect",
                (long long)c.cut, DR_TEXT_CHUNKS_MAX * c.room);
    return st ? st : make_keys(&c, err);
}
