#ifndef DR_NN_BPE_H
#define DR_NN_BPE_H

#include "base/err.h"

#include <stdint.h>

/* CLIP's tokenizer: byte-level byte pair encoding (Sennrich et al. 2016, "Neural machine
 * translation of rare words with subword units"; Radford et al. 2021) with a model's own
 * vocabulary. Gives the ids of transformers' slow CLIPTokenizer without ftfy: added tokens
 * first, then clean-up, NFC, lower case, words by regular expression, merges by rank.
 * One thread at a time. */
typedef struct dr_bpe dr_bpe;

/* Read vocab.json and merges.txt of a tokenizer folder and, where they exist,
 * tokenizer_config.json, special_tokens_map.json and added_tokens.json. DR_EMODEL names
 * the file and, in merges.txt, the line at fault. Close with dr_bpe_close. */
DR_MUST_USE dr_status dr_bpe_open(dr_bpe **out, const char *tokenizer_dir, dr_err *err);
void dr_bpe_close(dr_bpe *b); /* accepts NULL */

/* BOS, the tokens of text, EOS: the first `max` of them go to ids, *needed gets how many
 * there are. text is UTF-8 (else DR_EINVAL). */
DR_MUST_USE dr_status dr_bpe_encode(dr_bpe *b, const char *text, int32_t *ids, int max,
                                    int *needed, dr_err *err);

/* The row a text encoder takes: exactly `length` (>= 2) ids, cut to BOS … EOS or filled up
 * with the tokenizer's pad token. *cut gets the number of tokens of text left out. */
DR_MUST_USE dr_status dr_bpe_row(dr_bpe *b, const char *text, int32_t *ids, int length,
                                 int *cut, dr_err *err);

int32_t dr_bpe_bos(const dr_bpe *b);
int32_t dr_bpe_eos(const dr_bpe *b);
int32_t dr_bpe_pad(const dr_bpe *b);
/* One more than the largest id: what the embedding table must at least hold. */
int32_t dr_bpe_size(const dr_bpe *b);

#endif
