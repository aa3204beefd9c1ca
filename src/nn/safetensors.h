#ifndef DR_NN_SAFETENSORS_H
#define DR_NN_SAFETENSORS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tensors of a safetensors file or a set of shards, mapped read-only. Files are untrusted:
 * every size, span and name is checked before a tensor can be seen.
 *
 * Format: u64 header length (little endian), a JSON object {name: {dtype, shape,
 * data_offsets: [begin, end)}}, then the data the offsets count into. */

#define DR_WEIGHT_DIMS_MAX          8
#define DR_WEIGHTS_HEADER_BYTES_MAX ((size_t)100 * 1000 * 1000)

typedef enum {
    DR_WEIGHT_OTHER, /* known to the format, but no model loads it: integers, F64, … */
    DR_WEIGHT_F32,
    DR_WEIGHT_F16,
    DR_WEIGHT_BF16
} dr_weight_type;

/* One tensor, row-major. All pointers live as long as the dr_weights. */
typedef struct {
    const char *name;
    const char *dtype; /* as the file spells it: "F16" */
    dr_weight_type type;
    int ndim; /* 0: a scalar */
    int64_t dim[DR_WEIGHT_DIMS_MAX];
    const void *data; /* may be unaligned: read it through memcpy */
    size_t bytes;
} dr_weight;

/* Elements of a tensor. */
static inline int64_t dr_weight_count(const dr_weight *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

typedef struct dr_weights dr_weights;

/* Open one file. */
DR_MUST_USE dr_status dr_weights_open_file(dr_weights **out, const char *path, dr_err *err);

/* Open the first of dir/stem.safetensors, dir/stem.fp16.safetensors and the shards that
 * dir/stem.safetensors.index.json lists; DR_ENOTFOUND names all three. */
DR_MUST_USE dr_status dr_weights_open(dr_weights **out, const char *dir, const char *stem,
                                      dr_err *err);
void dr_weights_close(dr_weights *w); /* accepts NULL */

/* What was read of the files no longer counts as memory of the process; see
 * dr_map_forget. */
void dr_weights_forget(const dr_weights *w);

/* A tensor by name, NULL when there is none. `use` also marks it as used. */
const dr_weight *dr_weights_find(const dr_weights *w, const char *name);
const dr_weight *dr_weights_use(dr_weights *w, const char *name);

/* Walk all tensors, in the order of the files: at(w, i) for i < count(w). */
size_t dr_weights_count(const dr_weights *w);
const dr_weight *dr_weights_at(const dr_weights *w, size_t i);

/* A text from the header's __metadata__, NULL when there is none of that key. */
const char *dr_weights_note(const dr_weights *w, const char *key);

/* Walk the tensors that nobody used: start with *cursor = 0; NULL at the end. */
const dr_weight *dr_weights_unused(const dr_weights *w, size_t *cursor);

/* Whether no value of an F32, F16 or BF16 tensor is NaN or infinite; reads them all. */
bool dr_weight_finite(const dr_weight *t);

/* IEEE binary16 and bfloat16 bits as float. */
float dr_half_to_float(uint16_t h);
float dr_bf16_to_float(uint16_t b);

#endif
