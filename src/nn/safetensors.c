#include "nn/safetensors.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8
#define SHARDS_MAX   1024
#define EXACT_MAX    9007199254740992.0 /* 2^53: JSON numbers above it lose digits */

static const struct {
    const char *name;
    size_t bytes;
    dr_weight_type type;
} dtypes[] = {
    { "F32", 4, DR_WEIGHT_F32 },       { "F16", 2, DR_WEIGHT_F16 },
    { "BF16", 2, DR_WEIGHT_BF16 },     { "F64", 8, DR_WEIGHT_OTHER },
    { "I64", 8, DR_WEIGHT_OTHER },     { "U64", 8, DR_WEIGHT_OTHER },
    { "I32", 4, DR_WEIGHT_OTHER },     { "U32", 4, DR_WEIGHT_OTHER },
    { "I16", 2, DR_WEIGHT_OTHER },     { "U16", 2, DR_WEIGHT_OTHER },
    { "I8", 1, DR_WEIGHT_OTHER },      { "U8", 1, DR_WEIGHT_OTHER },
    { "BOOL", 1, DR_WEIGHT_OTHER },    { "F8_E4M3", 1, DR_WEIGHT_OTHER },
    { "F8_E5M2", 1, DR_WEIGHT_OTHER },
};

typedef struct {
    const char *path; /* in the arena */
    const char *name; /* the part of path an index lists */
    dr_map map;
} shard;

typedef struct {
    dr_weight w;
    int shard;
    bool used;
} entry;

typedef struct note {
    const struct note *next;
    const char *key, *text;
} note;

struct dr_weights {
    dr_arena *mem; /* names and paths */
    shard shards[SHARDS_MAX];
    int n_shards;
    const note *notes;
    entry *entries;
    size_t count, cap;
    uint32_t *slots; /* open addressing: entry number + 1, 0 is free */
    size_t n_slots;  /* a power of two, at least twice count */
};

/* --- one tensor's description ------------------------------------------------------ */

/* A whole number in 0..2^53. */
static bool whole(const dr_json *j, uint64_t *out)
{
    double v = dr_json_number(j);
    if (!(v >= 0 && v <= EXACT_MAX && v == floor(v)))
        return false;
    *out = (uint64_t)v;
    return true;
}

static dr_status read_shape(dr_weight *w, const dr_json *shape, size_t *bytes, dr_err *err)
{
    int count = dr_json_type(shape) == DR_JSON_ARRAY ? dr_json_count(shape) : -1;
    if (count < 0)
        return dr_fail(err, DR_EMODEL, "shape: not an array");
    if (count > DR_WEIGHT_DIMS_MAX)
        return dr_fail(err, DR_EMODEL, "shape: %d dimensions, at most %d are supported",
                       count, DR_WEIGHT_DIMS_MAX);
    for (const dr_json *j = dr_json_first(shape); j; j = dr_json_next(j)) {
        uint64_t n;
        if (!whole(j, &n))
            return dr_fail(err, DR_EMODEL,
                           "shape: dimension %d is %g, not a whole number >= 0", w->ndim,
                           dr_json_number(j));
        w->dim[w->ndim++] = (int64_t)n;
        if (dr_mul(bytes, *bytes, (size_t)n, NULL))
            return dr_fail(err, DR_EMODEL,
                           "shape: its product overflows at dimension %d (%llu)",
                           w->ndim - 1, (unsigned long long)n);
    }
    return DR_OK;
}

static dr_status read_span(dr_weight *w, const dr_json *span, const uint8_t *data,
                           size_t data_bytes, size_t want, dr_err *err)
{
    uint64_t begin, end;
    if (dr_json_type(span) != DR_JSON_ARRAY || dr_json_count(span) != 2 ||
        !whole(dr_json_at(span, 0), &begin) || !whole(dr_json_at(span, 1), &end))
        return dr_fail(err, DR_EMODEL, "data_offsets: not two whole numbers >= 0");
    if (begin > end || end > data_bytes)
        return dr_fail(err, DR_EMODEL,
                       "data_offsets: [%llu, %llu) is outside the file's %zu "
                       "data bytes; the file may be cut short",
                       (unsigned long long)begin, (unsigned long long)end, data_bytes);
    if (end - begin != want)
        return dr_fail(err, DR_EMODEL,
                       "data_offsets: span of %llu bytes, but dtype and shape "
                       "need %zu",
                       (unsigned long long)(end - begin), want);
    w->data = data + begin;
    w->bytes = want;
    return DR_OK;
}

/* Fill all of w but its name from {dtype, shape, data_offsets}. */
static dr_status read_tensor(dr_weight *w, const dr_json *j, const uint8_t *data,
                             size_t data_bytes, dr_err *err)
{
    if (dr_json_type(j) != DR_JSON_OBJECT)
        return dr_fail(err, DR_EMODEL, "its description is not an object");
    const char *dtype = dr_json_get_string(j, "dtype", "");
    size_t bytes = 0;
    for (size_t i = 0; i < DR_COUNT(dtypes) && !bytes; i++) {
        if (strcmp(dtype, dtypes[i].name) != 0)
            continue;
        w->dtype = dtypes[i].name;
        w->type = dtypes[i].type;
        bytes = dtypes[i].bytes;
    }
    if (!bytes)
        return dr_fail(err, DR_EMODEL, "dtype '%.40s': unknown to the safetensors format",
                       dtype);
    dr_status st = read_shape(w, dr_json_get(j, "shape"), &bytes, err);
    return st ? st
              : read_span(w, dr_json_get(j, "data_offsets"), data, data_bytes, bytes, err);
}

/* --- one file ---------------------------------------------------------------------- */

static dr_status no_memory(const char *path, dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "%s: out of memory for its list of tensors", path);
}

static entry *add_entry(dr_weights *w)
{
    if (w->count == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 256;
        entry *grown =
            cap < UINT32_MAX / 4 ? dr_resize(w->entries, cap * sizeof *grown) : NULL;
        if (!grown)
            return NULL;
        w->entries = grown;
        w->cap = cap;
    }
    entry *e = &w->entries[w->count++];
    *e = (entry){ 0 };
    return e;
}

/* The header's text: checks its length against the format's limit and the file. */
static dr_status find_header(const shard *s, const char **text, size_t *n, dr_err *err)
{
    uint64_t len = 0;
    if (s->map.size < LENGTH_BYTES)
        return dr_fail(err, DR_EMODEL, "%s: %zu bytes, too short for a safetensors file",
                       s->path, s->map.size);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        len = len << 8 | s->map.data[i];
    if (len > DR_WEIGHTS_HEADER_BYTES_MAX)
        return dr_fail(err, DR_EMODEL,
                       "%s: header of %llu bytes, the limit is %zu; is this a "
                       "safetensors file?",
                       s->path, (unsigned long long)len, DR_WEIGHTS_HEADER_BYTES_MAX);
    if (len > s->map.size - LENGTH_BYTES)
        return dr_fail(err, DR_EMODEL,
                       "%s: header of %llu bytes in a file of %zu; the file is cut "
                       "short",
                       s->path, (unsigned long long)len, s->map.size);
    *text = (const char *)s->map.data + LENGTH_BYTES;
    *n = (size_t)len;
    return DR_OK;
}

/* Keep the texts of __metadata__; what is no text is left aside. */
static bool add_notes(dr_weights *w, const dr_json *metadata)
{
    for (const dr_json *j = dr_json_first(metadata); j; j = dr_json_next(j)) {
        const char *key = dr_json_key(j), *text = dr_json_string(j);
        note *n = text ? dr_arena_alloc(w->mem, sizeof *n) : NULL;
        if (!text)
            continue;
        if (!n || !(n->key = dr_arena_str(w->mem, key, strlen(key))) ||
            !(n->text = dr_arena_str(w->mem, text, strlen(text))))
            return false;
        n->next = w->notes;
        w->notes = n;
    }
    return true;
}

static dr_status read_header(dr_weights *w, int number, const dr_json *header,
                             size_t header_bytes, dr_err *err)
{
    const shard *s = &w->shards[number];
    size_t start = LENGTH_BYTES + header_bytes;
    if (dr_json_type(header) != DR_JSON_OBJECT)
        return dr_fail(err, DR_EMODEL, "%s: the header is not a JSON object", s->path);
    for (const dr_json *j = dr_json_first(header); j; j = dr_json_next(j)) {
        const char *name = dr_json_key(j);
        if (strcmp(name, "__metadata__") == 0) {
            if (!add_notes(w, j))
                return no_memory(s->path, err);
            continue;
        }
        entry *e = add_entry(w);
        if (!e || !(e->w.name = dr_arena_str(w->mem, name, strlen(name))))
            return no_memory(s->path, err);
        e->shard = number;
        dr_status st = read_tensor(&e->w, j, s->map.data + start, s->map.size - start, err);
        if (st) {
            dr_err_wrap(err, "%s: tensor '%.200s'", s->path, name);
            return st;
        }
    }
    return DR_OK;
}

static int by_position(const void *a, const void *b)
{
    const dr_weight *x = &(*(entry *const *)a)->w, *y = &(*(entry *const *)b)->w;
    return ((const uint8_t *)x->data > (const uint8_t *)y->data) -
           ((const uint8_t *)x->data < (const uint8_t *)y->data);
}

/* No byte belongs to two tensors of a file: entries from `first` on. */
static dr_status check_overlap(const dr_weights *w, const shard *s, size_t first,
                               dr_err *err)
{
    dr_status st = DR_OK;
    size_t n = 0;
    const entry **sorted = dr_alloc((w->count - first) * sizeof *sorted);
    if (!sorted)
        return no_memory(s->path, err);
    for (size_t i = first; i < w->count; i++)
        if (w->entries[i].w.bytes)
            sorted[n++] = &w->entries[i];
    qsort(sorted, n, sizeof *sorted, by_position);
    for (size_t i = 1; i < n && !st; i++) {
        const dr_weight *a = &sorted[i - 1]->w, *b = &sorted[i]->w;
        size_t gap = (size_t)((const uint8_t *)b->data - (const uint8_t *)a->data);
        if (gap < a->bytes)
            st = dr_fail(err, DR_EMODEL,
                         "%s: tensor '%.200s' starts %zu bytes into '%.200s', "
                         "which has %zu",
                         s->path, b->name, gap, a->name, a->bytes);
    }
    dr_free(sorted);
    return st;
}

/* Map dir/name (or name alone when dir is NULL) and append its tensors. */
static dr_status add_shard(dr_weights *w, const char *dir, const char *name, dr_err *err)
{
    dr_json *header = NULL;
    dr_err why = { 0 };
    const char *text = NULL;
    size_t n = 0, first = w->count;
    shard *s = &w->shards[w->n_shards];
    s->path = dir ? dr_arena_printf(w->mem, "%s/%s", dir, name)
                  : dr_arena_str(w->mem, name, strlen(name));
    if (!s->path)
        return no_memory(name, err);
    s->name = dir ? s->path + strlen(dir) + 1 : s->path;
    dr_status st = dr_map_open(&s->map, s->path, err);
    if (st)
        return st;
    w->n_shards++;
    if ((st = find_header(s, &text, &n, err)))
        return st;
    if (dr_json_parse(&header, text, n, &why))
        return dr_fail(err, DR_EMODEL, "%s: header: %.200s", s->path, why.message);
    if (!(st = read_header(w, w->n_shards - 1, header, n, err)))
        st = check_overlap(w, s, first, err);
    dr_json_free(header);
    return st;
}

/* --- the table of names ------------------------------------------------------------ */

/* The slot that holds name or would take it. */
static uint32_t *find_slot(const dr_weights *w, const char *name)
{
    size_t mask = w->n_slots - 1, i = (size_t)dr_hash64(name, strlen(name)) & mask;
    while (w->slots[i] && strcmp(w->entries[w->slots[i] - 1].w.name, name) != 0)
        i = (i + 1) & mask;
    return &w->slots[i];
}

static dr_status build_table(dr_weights *w, dr_err *err)
{
    for (w->n_slots = 16; w->n_slots < 2 * w->count;)
        w->n_slots *= 2;
    if (!(w->slots = dr_alloc(w->n_slots * sizeof *w->slots)))
        return no_memory(w->shards[0].path, err);
    for (size_t i = 0; i < w->count; i++) {
        const entry *e = &w->entries[i];
        uint32_t *slot = find_slot(w, e->w.name);
        if (*slot)
            return dr_fail(err, DR_EMODEL, "%s: tensor '%.200s' is already in %s",
                           w->shards[e->shard].path, e->w.name,
                           w->shards[w->entries[*slot - 1].shard].path);
        *slot = (uint32_t)i + 1;
    }
    return DR_OK;
}

/* --- shards ------------------------------------------------------------------------ */

static int shard_number(const dr_weights *w, const char *name)
{
    for (int i = 0; i < w->n_shards; i++)
        if (strcmp(w->shards[i].name, name) == 0)
            return i;
    return -1;
}

static dr_status add_listed_shards(dr_weights *w, const char *dir, const char *index,
                                   const dr_json *map, dr_err *err)
{
    for (const dr_json *j = dr_json_first(map); j; j = dr_json_next(j)) {
        const char *file = dr_json_string(j);
        if (!file || !*file || strchr(file, '/') || strstr(file, ".."))
            return dr_fail(err, DR_EMODEL,
                           "%s: tensor '%.200s': shard '%.200s' is not a plain "
                           "file name",
                           index, dr_json_key(j), file ? file : "");
        if (shard_number(w, file) >= 0)
            continue;
        if (w->n_shards == SHARDS_MAX)
            return dr_fail(err, DR_EMODEL, "%s: more than %d shards", index, SHARDS_MAX);
        dr_status st = add_shard(w, dir, file, err);
        if (st) {
            dr_err_wrap(err, "%s", index);
            return st;
        }
    }
    return w->count ? DR_OK
                    : dr_fail(err, DR_EMODEL, "%s: weight_map lists no tensor", index);
}

static dr_status check_listed(const dr_weights *w, const char *index, const dr_json *map,
                              dr_err *err)
{
    for (const dr_json *j = dr_json_first(map); j; j = dr_json_next(j)) {
        uint32_t slot = *find_slot(w, dr_json_key(j));
        int want = shard_number(w, dr_json_string(j));
        if (!slot || w->entries[slot - 1].shard != want)
            return dr_fail(err, DR_EMODEL, "%s: tensor '%.200s' is not in its shard %s",
                           index, dr_json_key(j), w->shards[want].path);
    }
    return DR_OK;
}

static dr_status open_index(dr_weights *w, const char *dir, const char *index, dr_err *err)
{
    dr_json *j = NULL;
    dr_err why = { 0 };
    dr_status st = DR_OK;
    if (dr_json_read(&j, index, &why))
        return dr_fail(err, DR_EMODEL, "%s", why.message);
    const dr_json *map = dr_json_get(j, "weight_map");
    if (dr_json_type(map) != DR_JSON_OBJECT)
        st = dr_fail(err, DR_EMODEL, "%s: weight_map is missing or not an object", index);
    if (!st && !(st = add_listed_shards(w, dir, index, map, err)) &&
        !(st = build_table(w, err)))
        st = check_listed(w, index, map, err);
    dr_json_free(j);
    return st;
}

/* --- open and close ---------------------------------------------------------------- */

static dr_weights *weights_new(dr_err *err)
{
    dr_weights *w = dr_alloc(sizeof *w);
    if (w && !(w->mem = dr_arena_new())) {
        dr_free(w);
        w = NULL;
    }
    if (!w)
        dr_fail(err, DR_ENOMEM, "out of memory for a list of tensors");
    return w;
}

static dr_status give(dr_weights **out, dr_weights *w, dr_status st)
{
    if (st)
        dr_weights_close(w);
    else
        *out = w;
    return st;
}

dr_status dr_weights_open_file(dr_weights **out, const char *path, dr_err *err)
{
    dr_weights *w = weights_new(err);
    if (!w)
        return DR_ENOMEM;
    dr_status st = add_shard(w, NULL, path, err);
    return give(out, w, st ? st : build_table(w, err));
}

dr_status dr_weights_open(dr_weights **out, const char *dir, const char *stem, dr_err *err)
{
    static const char *const single[] = { ".safetensors", ".fp16.safetensors" };
    dr_weights *w = weights_new(err);
    if (!w)
        return DR_ENOMEM;
    dr_status st = DR_OK;
    const char *path;
    for (size_t i = 0; i < DR_COUNT(single); i++) {
        if (!(path = dr_arena_printf(w->mem, "%s/%s%s", dir, stem, single[i])))
            return give(out, w, no_memory(stem, err));
        if (!dr_file_exists(path))
            continue;
        st = add_shard(w, NULL, path, err);
        return give(out, w, st ? st : build_table(w, err));
    }
    if (!(path = dr_arena_printf(w->mem, "%s/%s.safetensors.index.json", dir, stem)))
        st = no_memory(stem, err);
    else if (dr_file_exists(path))
        st = open_index(w, dir, path, err);
    else
        st = dr_fail(err, DR_ENOTFOUND,
                     "%s: holds none of %s.safetensors, "
                     "%s.fp16.safetensors, %s.safetensors.index.json",
                     dir, stem, stem, stem);
    return give(out, w, st);
}

void dr_weights_close(dr_weights *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_shards; i++)
        dr_map_close(&w->shards[i].map);
    dr_free(w->slots);
    dr_free(w->entries);
    dr_arena_free(w->mem);
    dr_free(w);
}

void dr_weights_forget(const dr_weights *w)
{
    for (int i = 0; i < w->n_shards; i++)
        dr_map_forget(w->shards[i].map.data, w->shards[i].map.size);
}

/* --- use --------------------------------------------------------------------------- */

static entry *find_entry(const dr_weights *w, const char *name)
{
    uint32_t slot = *find_slot(w, name);
    return slot ? &w->entries[slot - 1] : NULL;
}

const dr_weight *dr_weights_find(const dr_weights *w, const char *name)
{
    const entry *e = find_entry(w, name);
    return e ? &e->w : NULL;
}

const dr_weight *dr_weights_use(dr_weights *w, const char *name)
{
    entry *e = find_entry(w, name);
    if (!e)
        return NULL;
    e->used = true;
    return &e->w;
}

size_t dr_weights_count(const dr_weights *w)
{
    return w->count;
}

const dr_weight *dr_weights_at(const dr_weights *w, size_t i)
{
    return &w->entries[i].w;
}

const char *dr_weights_note(const dr_weights *w, const char *key)
{
    for (const note *n = w->notes; n; n = n->next)
        if (!strcmp(n->key, key))
            return n->text;
    return NULL;
}

const dr_weight *dr_weights_unused(const dr_weights *w, size_t *cursor)
{
    while (*cursor < w->count) {
        const entry *e = &w->entries[(*cursor)++];
        if (!e->used)
            return &e->w;
    }
    return NULL;
}

bool dr_weight_finite(const dr_weight *t)
{
    const char *p = t->data;
    const uint16_t ones = t->type == DR_WEIGHT_F16 ? 0x7c00 : 0x7f80; /* the exponent */
    bool finite = true;
    for (size_t i = 0; t->type == DR_WEIGHT_F32 && i < t->bytes; i += 4) {
        uint32_t v;
        memcpy(&v, p + i, sizeof v);
        finite &= (v & 0x7f800000u) != 0x7f800000u;
    }
    for (size_t i = 0; t->type != DR_WEIGHT_F32 && i < t->bytes; i += 2) {
        uint16_t v;
        memcpy(&v, p + i, sizeof v);
        finite &= (v & ones) != ones;
    }
    return finite;
}

float dr_half_to_float(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    float v = exponent == 31  ? (fraction ? NAN : INFINITY)
              : exponent == 0 ? ldexpf((float)fraction, -24)
                              : ldexpf((float)(fraction + 1024), exponent - 25);
    return h & 0x8000 ? -v : v;
}

float dr_bf16_to_float(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
