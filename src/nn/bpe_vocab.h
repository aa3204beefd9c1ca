#ifndef DR_NN_BPE_VOCAB_H
#define DR_NN_BPE_VOCAB_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The tables of a byte pair encoding, read from a tokenizer folder: what nn/bpe.c looks
 * words up in. Read-only once opened. */

#define DR_BPE_ADDED_MAX 1024

/* A string that a word can be made of, or an added token. Equal strings are one symbol. */
typedef struct {
    const char *text;
    uint32_t len;
    int32_t id; /* -1: not in the vocabulary */
} dr_bpe_symbol;

/* left right -> result, as numbers of symbols; rank -1: there is no such merge. */
typedef struct {
    int32_t left, right, result, rank;
} dr_bpe_merge;

typedef struct {
    dr_arena *mem;
    dr_bpe_symbol *symbols;
    int32_t n_symbols, symbols_max;
    int32_t *slots; /* open addressing: symbol + 1, or 0 */
    size_t slot_mask;
    dr_bpe_merge *merges; /* open addressing: rank -1 is a free slot */
    size_t merge_mask;
    int32_t byte_symbol[2][256];     /* [at the end of a word][byte] */
    int32_t added[DR_BPE_ADDED_MAX]; /* symbols that are cut out of a text first */
    int n_added;
    bool added_start[256]; /* their first bytes */
    int32_t bos, eos, unk, pad;
    int32_t size; /* one more than the largest id */
} dr_bpe_vocab;

/* Read vocab.json, merges.txt and the optional settings beside them. On failure *v holds
 * nothing; free with dr_bpe_vocab_free. */
DR_MUST_USE dr_status dr_bpe_vocab_read(dr_bpe_vocab *v, const char *dir, dr_err *err);
void dr_bpe_vocab_free(dr_bpe_vocab *v); /* accepts {0} */

/* The symbol of a string, -1 when there is none. */
int32_t dr_bpe_symbol_of(const dr_bpe_vocab *v, const char *text, size_t len);

/* The merge of two symbols; never NULL, rank -1 when they do not merge. */
const dr_bpe_merge *dr_bpe_merge_of(const dr_bpe_vocab *v, int32_t left, int32_t right);

/* The longest added token that the n bytes at p begin with, as a symbol; -1: none. */
int32_t dr_bpe_added_at(const dr_bpe_vocab *v, const char *p, size_t n);

#endif
