#ifndef DR_DIFFUSION_TEXT_H
#define DR_DIFFUSION_TEXT_H

#include "base/hash.h"
#include "diffusion/prompt.h"
#include "op/run.h"

/* Texts on their way through the text encoder. It reads rows of `length` tokens (77); a
 * longer text is cut into chunks of length - 2, each a row of its own, whose embeddings
 * then follow one another. As A1111's web UI does it, in all details. */

#define DR_TEXT_CHUNKS_MAX 8
#define DR_TEXT_BACKTRACK  20 /* tokens after a comma that may move to the next chunk */

typedef struct dr_model dr_model;

/* Vectors of embeddings that stand in rows for the ids from the vocabulary's size on. */
typedef struct dr_vectors {
    struct dr_vector_part *first, *last;
    int n; /* vectors in all */
} dr_vectors;

/* A text as the encoder takes it; made in the reading's arena. */
typedef struct {
    const char *text;
    int chunks;
    int32_t *ids;    /* [chunks, length] */
    float *weights;  /* [chunks, length] */
    dr_digest *keys; /* [chunks]: of ids, weights and the vectors they stand for */
} dr_text;

/* chunks.c: weigh a text (prompt.h), put embeddings in, cut it into chunks. Notes what has
 * no effect. */
DR_MUST_USE dr_status dr_text_make(dr_text *out, dr_vectors *v, dr_model *m, dr_reading *r,
                                   const char *text, dr_err *err);

/* Host floats [v->n, width] of all vectors. */
void dr_vectors_write(const dr_vectors *v, float *out, int64_t width);

/* How texts are to be encoded. */
typedef struct {
    int chunks;                /* of each; shorter ones are filled up with empty chunks */
    int64_t skip;              /* layers left out at the end */
    const dr_text *empty;      /* the text "" */
    const dr_vectors *vectors; /* that the texts refer to */
} dr_text_ask;

/* Embeddings of n texts (from the cache where a chunk is known; the others in batches) into
 * out [n, chunks * length, 1, width]. Embeddings are multiplied by their tokens' weights
 * and each chunk is then scaled back to the mean it had. */
void dr_text_encode(dr_run *r, dr_model *m, const dr_text *const *texts, int n,
                    const dr_text_ask *ask, dr_tensor out);

/* Free the cache. */
void dr_text_forget(dr_model *m);

#endif
