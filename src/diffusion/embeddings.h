#ifndef DR_DIFFUSION_EMBEDDINGS_H
#define DR_DIFFUSION_EMBEDDINGS_H

#include "base/arena.h"
#include "nn/bpe.h"

#include <stdbool.h>

/* Textual inversion (Gal et al. 2022, "An image is worth one word"): files with vectors
 * that stand for a word of a prompt. Words are looked up among the names of a folder's
 * files, so that no prompt can name a file outside it. Files are untrusted. */
typedef struct dr_embeddings dr_embeddings;

/* A file of the folder, as prompts name it. */
typedef struct {
    const char *name;   /* without its ending */
    const char *ending; /* ".safetensors", or that of a pickle */
    bool is_pickle;
    const int32_t *ids; /* the tokens of name: prompts are matched by them */
    int n_ids;
} dr_embedding;

/* A folder that need not be there yet; "": none. Close with dr_embeddings_close. */
DR_MUST_USE dr_status dr_embeddings_open(dr_embeddings **out, const char *dir, dr_err *err);
void dr_embeddings_close(dr_embeddings *e); /* accepts NULL */

/* Read the folder's names anew if it changed since. What dr_embeddings_at gave before is
 * gone then. DR_EIO when the folder cannot be read. */
DR_MUST_USE dr_status dr_embeddings_scan(dr_embeddings *e, dr_bpe *b, dr_err *err);

/* The longest name that the n tokens at ids begin with; NULL: none. */
const dr_embedding *dr_embeddings_at(const dr_embeddings *e, const int32_t *ids, int n);

/* Whether there is a folder at all. */
bool dr_embeddings_any(const dr_embeddings *e);

/* Its vectors [*n, width], made in mem: the tensor emb_params, or the only one there is.
 * DR_EINVAL names `field`: vectors of another width, more than `most`, or a pickle, which
 * is never opened. DR_EMODEL: the file is no such file. */
DR_MUST_USE dr_status dr_embedding_read(const float **vectors, int *n,
                                        const dr_embeddings *e, const dr_embedding *name,
                                        dr_arena *mem, int64_t width, int most,
                                        const char *field, dr_err *err);

#endif
