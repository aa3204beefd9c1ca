#include "diffusion/model.h"

#include "base/mem.h"

#include <string.h>

#define TEXTS_AT_ONCE 16 /* new ones in one pass of the encoder */

static dr_text_entry *lookup(dr_model *m, const char *text, int64_t skip)
{
    for (int64_t i = 0; i < m->n_texts; i++) {
        dr_text_entry *e = &m->texts[i];
        if (e->text && e->skip == skip && !strcmp(e->text, text) &&
            !strcmp(e->weights.hex, m->text_weights.hex)) {
            e->used = ++m->tick;
            return e;
        }
    }
    return NULL;
}

static void forget(dr_text_entry *e)
{
    dr_free(e->text);
    dr_free(e->data);
    *e = (dr_text_entry){ 0 };
}

void dr_text_forget(dr_model *m)
{
    for (int64_t i = 0; m->texts && i < m->n_texts; i++)
        forget(&m->texts[i]);
    dr_free(m->texts);
    m->texts = NULL;
}

/* Keep a copy of an embedding; without memory it is simply not kept. */
static void remember(dr_model *m, const char *text, int64_t skip, int cut,
                     const float *data, size_t count)
{
    dr_text_entry *oldest = m->texts;
    if (!m->n_texts)
        return;
    for (int64_t i = 0; i < m->n_texts; i++)
        if (m->texts[i].used < oldest->used)
            oldest = &m->texts[i];
    forget(oldest);
    *oldest = (dr_text_entry){ .text = dr_strdup(text),
                               .weights = m->text_weights,
                               .skip = skip,
                               .cut = cut,
                               .data = dr_alloc(count * sizeof(float)),
                               .used = ++m->tick };
    if (!oldest->text || !oldest->data)
        forget(oldest);
    else
        memcpy(oldest->data, data, count * sizeof(float));
}

/* Run the text encoder on the texts that are new, in one batch, and copy each row to its
 * place. */
static void encode_new(dr_run *r, dr_model *m, const char *const *texts, const int *place,
                       int n, int64_t skip, dr_tensor out, int *cut)
{
    int64_t length = m->clip.length;
    size_t count = (size_t)(length * m->clip.width);
    int32_t *ids = dr_alloc((size_t)(n * length) * sizeof *ids);
    float *host = dr_alloc(count * sizeof *host);
    dr_mark mark = dr_push(r);
    if (!ids || !host)
        dr_fail(&r->err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < n && !r->err.code; i++)
        (void)!dr_bpe_row(m->bpe, texts[place[i]], ids + i * length, (int)length,
                          &cut[place[i]], &r->err);
    dr_tensor x = dr_clip_forward(r, &m->clip, ids, n, length, NULL, skip);
    for (int i = 0; i < n && !r->err.code && !r->dry; i++) {
        dr_download(r, dr_slice(x, i, 1), host);
        dr_upload(r, dr_slice(out, place[i], 1), host);
        if (!r->err.code)
            remember(m, texts[place[i]], skip, cut[place[i]], host, count);
    }
    dr_pop(r, mark);
    dr_free(ids);
    dr_free(host);
}

void dr_text_encode(dr_run *r, dr_model *m, const char *const *texts, int n, int64_t skip,
                    dr_tensor out, int *cut)
{
    int place[TEXTS_AT_ONCE], fresh = 0;
    for (int i = 0; i < n; i++) {
        const dr_text_entry *e = r->dry ? NULL : lookup(m, texts[i], skip);
        if (e) {
            dr_upload(r, dr_slice(out, i, 1), e->data);
            cut[i] = e->cut;
            continue;
        }
        place[fresh++] = i;
        if (fresh == TEXTS_AT_ONCE) {
            encode_new(r, m, texts, place, fresh, skip, out, cut);
            fresh = 0;
        }
    }
    if (fresh)
        encode_new(r, m, texts, place, fresh, skip, out, cut);
}
