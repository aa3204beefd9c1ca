#ifndef DR_JOB_VALUE_H
#define DR_JOB_VALUE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What the three shapes of a job (msgpack, JSON, plain fields) are turned into before
 * anybody looks at a field: one tree of values. All of it lives in the job's arena. */
typedef enum {
    DR_VALUE_NIL,
    DR_VALUE_BOOL,
    DR_VALUE_INT,  /* i */
    DR_VALUE_UINT, /* u, only above INT64_MAX */
    DR_VALUE_FLOAT,
    DR_VALUE_STR, /* bytes, not yet checked for UTF-8; a NUL follows them */
    DR_VALUE_BIN,
    DR_VALUE_ARRAY,
    DR_VALUE_MAP
} dr_value_kind;

typedef struct dr_value dr_value;
struct dr_value {
    dr_value_kind kind;
    bool plain;       /* a plain field: text standing for whatever its field is */
    bool risky;       /* a whole JSON number above 2^53: the sender may have rounded it */
    const char *name; /* its key in a map: UTF-8, "" elsewhere */
    uint64_t name_hash;
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double f;
        struct {
            const char *p;
            size_t n;
        } s; /* STR, BIN */
        struct {
            dr_value *first, *last;
            int n;
        } items; /* ARRAY, MAP; linked by next */
    } as;
    dr_value *next;
};

/* A NIL in the arena, or NULL when memory is out. */
dr_value *dr_value_new(dr_arena *mem);

/* Make v a STR or BIN with a copy of the bytes. */
DR_MUST_USE dr_status dr_value_bytes(dr_value *v, dr_arena *mem, dr_value_kind kind,
                                     const char *p, size_t n, dr_err *err);

/* Give v a copy of the name; DR_EINVAL when it is not UTF-8 or holds a NUL. */
DR_MUST_USE dr_status dr_value_name(dr_value *v, dr_arena *mem, const char *name, size_t n,
                                    dr_err *err);

/* Append item to an array, or to a map under a key that is not in it yet (DR_EINVAL). */
void dr_value_append(dr_value *array, dr_value *item);
DR_MUST_USE dr_status dr_value_put(dr_value *map, dr_arena *mem, const char *key, size_t n,
                                   dr_value *item, dr_err *err);

/* Whether no NaN and no infinity is in v. */
bool dr_value_finite(const dr_value *v);

/* Append v as JSON text. DR_EINVAL for what JSON cannot hold: bytes, NaN, Inf, text that is
 * not UTF-8 or holds a NUL. */
DR_MUST_USE dr_status dr_value_json(dr_buf *out, const dr_value *v, dr_err *err);

/* Parse untrusted JSON: depth <= DR_JOB_DEPTH_MAX, at most objects_max values and keys, no
 * NUL, no duplicate keys, no trailing text. Whole numbers keep all their 64 bits. On
 * failure err->field is the outermost field when that is known. */
DR_MUST_USE dr_status dr_value_from_json(dr_value **out, dr_arena *mem, const char *text,
                                         size_t n, int objects_max, dr_err *err);

/* Bytes for a message or err->field: printable ASCII, cut to fit; returns buf. */
const char *dr_value_quote(char *buf, size_t size, const char *p, size_t n);

#endif
