#include "job/msgpack.h"

#include <darkroom/job.h>
#include <limits.h>
#include <msgpack.h>

/* --- Scan: is it safe to parse? ------------------------------------------------------ */

typedef enum { BAD, ATOM, STR, BIN, ARRAY, MAP, EXT } shape;

/* Bytes 0xc0..0xdf: what follows the type byte: `length` bytes of a big-endian count, or
 * `fixed` bytes of value. https://github.com/msgpack/msgpack/blob/master/spec.md */
static const struct {
    unsigned char shape, length, fixed;
} wide[32] = {
    { ATOM, 0, 0 },  { BAD, 0, 0 },   { ATOM, 0, 0 }, { ATOM, 0, 0 }, /* nil, -, bools */
    { BIN, 1, 0 },   { BIN, 2, 0 },   { BIN, 4, 0 },  { EXT, 1, 0 },
    { EXT, 2, 0 },   { EXT, 4, 0 },   { ATOM, 0, 4 }, { ATOM, 0, 8 }, /* floats */
    { ATOM, 0, 1 },  { ATOM, 0, 2 },  { ATOM, 0, 4 }, { ATOM, 0, 8 }, /* unsigned */
    { ATOM, 0, 1 },  { ATOM, 0, 2 },  { ATOM, 0, 4 }, { ATOM, 0, 8 }, /* signed */
    { EXT, 0, 2 },   { EXT, 0, 3 },   { EXT, 0, 5 },  { EXT, 0, 9 },
    { EXT, 0, 17 },  { STR, 1, 0 },   { STR, 2, 0 },  { STR, 4, 0 },
    { ARRAY, 2, 0 }, { ARRAY, 4, 0 }, { MAP, 2, 0 },  { MAP, 4, 0 },
};

typedef struct {
    shape shape;
    uint64_t count; /* bytes of STR, BIN, ATOM; elements of ARRAY; pairs of MAP */
    size_t bytes;   /* of the head itself */
} head;

/* Read the head at p, of which `left` bytes are there (at least 1); false when it is cut.
 */
static bool read_head(head *h, const unsigned char *p, size_t left)
{
    unsigned char t = *p;
    if (t >= 0xc0 && t < 0xe0) {
        size_t length = wide[t - 0xc0].length;
        *h = (head){ (shape)wide[t - 0xc0].shape, wide[t - 0xc0].fixed, 1 + length };
        if (left < 1 + length)
            return false;
        for (size_t i = 0; i < length; i++)
            h->count = h->count << 8 | p[1 + i];
    } else if (t >= 0x80 && t < 0x90) {
        *h = (head){ MAP, t & 15, 1 };
    } else if (t >= 0x90 && t < 0xa0) {
        *h = (head){ ARRAY, t & 15, 1 };
    } else if (t >= 0xa0 && t < 0xc0) {
        *h = (head){ STR, t & 31, 1 };
    } else {
        *h = (head){ ATOM, 0, 1 };
    }
    return true;
}

/* Open containers: how many objects each still waits for; in a map an even number of them
 * means that a key is next. */
typedef struct {
    uint64_t left[DR_JOB_DEPTH_MAX];
    bool map[DR_JOB_DEPTH_MAX];
    int depth;
    uint64_t objects;
} stack;

/* Open the array or map of head h at byte `at`, with `rest` bytes behind its head. */
static dr_status open_container(stack *s, const head *h, size_t at, size_t rest,
                                dr_err *err)
{
    bool map = h->shape == MAP;
    uint64_t count = map ? h->count * 2 : h->count;
    if (count > rest)
        return dr_fail(err, DR_EINVAL,
                       "msgpack byte %zu: %s of %llu announced, but only %zu bytes follow",
                       at, map ? "a map" : "an array", (unsigned long long)h->count, rest);
    s->objects += count;
    if (s->objects > DR_JOB_OBJECTS_MAX)
        return dr_fail(err, DR_EINVAL, "msgpack byte %zu: more than %d objects", at,
                       DR_JOB_OBJECTS_MAX);
    if (s->depth == DR_JOB_DEPTH_MAX)
        return dr_fail(err, DR_EINVAL, "msgpack byte %zu: nested deeper than %d", at,
                       DR_JOB_DEPTH_MAX);
    s->left[s->depth] = count;
    s->map[s->depth++] = map;
    return DR_OK;
}

/* One object at byte `at`; *next is the byte behind its head and, unless it is a
 * container, behind its value. */
static dr_status scan_object(stack *s, const unsigned char *p, size_t n, size_t at,
                             size_t *next, dr_err *err)
{
    head h;
    if (!read_head(&h, p + at, n - at))
        return dr_fail(err, DR_EINVAL, "msgpack ends inside the head of byte %zu", at);
    size_t rest = n - at - h.bytes;
    *next = at + h.bytes;
    if (h.shape == BAD)
        return dr_fail(err, DR_EINVAL, "msgpack byte %zu: 0xc1 is not a type", at);
    if (h.shape == EXT)
        return dr_fail(err, DR_EINVAL, "msgpack byte %zu: ext types are not accepted", at);
    if (s->depth) {
        uint64_t *left = &s->left[s->depth - 1];
        if (s->map[s->depth - 1] && *left % 2 == 0 && h.shape != STR)
            return dr_fail(err, DR_EINVAL, "msgpack byte %zu: a map key must be a string",
                           at);
        --*left;
    } else if (h.shape != MAP) {
        return dr_fail(err, DR_EINVAL, "msgpack: a job must be a map of its fields");
    }
    if (h.shape == ARRAY || h.shape == MAP)
        return open_container(s, &h, at, rest, err);
    if (h.count > rest)
        return dr_fail(err, DR_EINVAL,
                       "msgpack byte %zu: %llu bytes announced, but only %zu follow", at,
                       (unsigned long long)h.count, rest);
    *next += (size_t)h.count;
    return DR_OK;
}

static dr_status scan(const unsigned char *p, size_t n, dr_err *err)
{
    stack s = { .objects = 1 };
    dr_status st;
    size_t at = 0;
    do {
        if (at == n)
            return dr_fail(err, DR_EINVAL, "msgpack ends at byte %zu before its map does",
                           n);
        if ((st = scan_object(&s, p, n, at, &at, err)))
            return st;
        while (s.depth && !s.left[s.depth - 1])
            s.depth--;
    } while (s.depth);
    if (at < n)
        return dr_fail(err, DR_EINVAL, "msgpack: %zu bytes follow the end of the map",
                       n - at);
    return DR_OK;
}

/* --- Parse: msgpack-c's objects to values -------------------------------------------- */

static dr_status build(dr_value **out, dr_arena *mem, const msgpack_object *o, dr_err *err);

static dr_status build_items(dr_value *v, dr_arena *mem, const msgpack_object *o,
                             dr_err *err)
{
    dr_status st = DR_OK;
    dr_value *item;
    if (o->type == MSGPACK_OBJECT_ARRAY) {
        v->kind = DR_VALUE_ARRAY;
        for (uint32_t i = 0; i < o->via.array.size && !st; i++)
            if (!(st = build(&item, mem, &o->via.array.ptr[i], err)))
                dr_value_append(v, item);
        return st;
    }
    v->kind = DR_VALUE_MAP;
    for (uint32_t i = 0; i < o->via.map.size && !st; i++) {
        const msgpack_object_kv *kv = &o->via.map.ptr[i];
        if (!(st = build(&item, mem, &kv->val, err)))
            st = dr_value_put(v, mem, kv->key.via.str.ptr, kv->key.via.str.size, item, err);
    }
    return st;
}

static dr_status build(dr_value **out, dr_arena *mem, const msgpack_object *o, dr_err *err)
{
    dr_value *v = dr_value_new(mem);
    if (!v)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    *out = v;
    switch (o->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        v->kind = DR_VALUE_BOOL;
        v->as.b = o->via.boolean;
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        v->kind = o->via.u64 > INT64_MAX ? DR_VALUE_UINT : DR_VALUE_INT;
        v->as.u = o->via.u64;
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        v->kind = DR_VALUE_INT;
        v->as.i = o->via.i64;
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        v->kind = DR_VALUE_FLOAT;
        v->as.f = o->via.f64;
        break;
    case MSGPACK_OBJECT_STR:
        return dr_value_bytes(v, mem, DR_VALUE_STR, o->via.str.ptr, o->via.str.size, err);
    case MSGPACK_OBJECT_BIN:
        return dr_value_bytes(v, mem, DR_VALUE_BIN, o->via.bin.ptr, o->via.bin.size, err);
    case MSGPACK_OBJECT_ARRAY:
    case MSGPACK_OBJECT_MAP:
        return build_items(v, mem, o, err);
    default: /* nil; the scan has refused ext */
        break;
    }
    return DR_OK;
}

dr_status dr_value_from_msgpack(dr_value **out, dr_arena *mem, const void *p, size_t n,
                                dr_err *err)
{
    msgpack_unpacked root;
    size_t end = 0;
    dr_status st = scan(p, n, err);
    if (st)
        return st;
    msgpack_unpacked_init(&root);
    msgpack_unpack_return got = msgpack_unpack_next(&root, p, n, &end);
    if (got == MSGPACK_UNPACK_NOMEM_ERROR)
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    else if (got != MSGPACK_UNPACK_SUCCESS)
        st = dr_fail(err, DR_EINVAL, "not msgpack: error near byte %zu", end);
    else
        st = build(out, mem, &root.data, err);
    msgpack_unpacked_destroy(&root);
    return st;
}

/* --- Pack: values to msgpack --------------------------------------------------------- */

static int write_buf(void *buf, const char *p, size_t n)
{
    dr_buf_put(buf, p, n);
    return 0;
}

static void pack_text(msgpack_packer *pk, const char *p, size_t n)
{
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, p, n);
}

static void pack(msgpack_packer *pk, const dr_value *v)
{
    switch (v->kind) {
    case DR_VALUE_NIL:
        msgpack_pack_nil(pk);
        break;
    case DR_VALUE_BOOL:
        v->as.b ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
        break;
    case DR_VALUE_INT:
        msgpack_pack_int64(pk, v->as.i);
        break;
    case DR_VALUE_UINT:
        msgpack_pack_uint64(pk, v->as.u);
        break;
    case DR_VALUE_FLOAT:
        msgpack_pack_double(pk, v->as.f);
        break;
    case DR_VALUE_STR:
        pack_text(pk, v->as.s.p, v->as.s.n);
        break;
    case DR_VALUE_BIN:
        msgpack_pack_bin(pk, v->as.s.n);
        msgpack_pack_bin_body(pk, v->as.s.p, v->as.s.n);
        break;
    case DR_VALUE_ARRAY:
        msgpack_pack_array(pk, (size_t)v->as.items.n);
        for (const dr_value *i = v->as.items.first; i; i = i->next)
            pack(pk, i);
        break;
    case DR_VALUE_MAP:
        msgpack_pack_map(pk, (size_t)v->as.items.n);
        for (const dr_value *i = v->as.items.first; i; i = i->next) {
            pack_text(pk, i->name, strlen(i->name));
            pack(pk, i);
        }
        break;
    }
}

dr_status dr_msgpack_from_json(dr_buf *out, const char *json, size_t n, dr_arena *scratch,
                               dr_err *err)
{
    msgpack_packer pk;
    dr_value *root;
    dr_status st = dr_value_from_json(&root, scratch, json, n, INT_MAX, err);
    if (st)
        return st;
    msgpack_packer_init(&pk, out, write_buf);
    pack(&pk, root);
    return out->failed ? dr_fail(err, DR_ENOMEM, "out of memory") : DR_OK;
}
