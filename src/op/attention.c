#include "op/launcher.h"

#include <assert.h>
#include <math.h>

/* Attention: on CPUs by a kernel that keeps the scores in the cache, elsewhere by products
 * in tiles. */

/* The row of keys that image i of q reads; see op_cross_attention. */
static int64_t text_of(dr_tensor q, dr_tensor k, const int *texts, int64_t i)
{
    int64_t text = texts ? texts[i] : i * k.n / q.n;
    assert(text >= 0 && text < k.n);
    return text;
}

/* --- fused --- */

#define HEAD_CHANNELS 512 /* as in cl/attention.cl */
#define TASK_QUERIES  64
#define QUERY_BLOCK   32
#define KEY_BLOCK     48
#define STEP_FLOATS   (96 * 1024) /* of keys and values that a task works on at once */
#define STEP_MOST     96
#define LOG2_E        1.4426950408889634

static void fused(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v, dr_tensor y,
                  int64_t heads, bool causal, const int *texts)
{
    int64_t d = q.c / heads, keys = positions(k), queries = positions(q);
    int64_t all = round_up(keys, KEY_BLOCK), columns = round_up(d, 4);
    int64_t blocks = div_up(queries, TASK_QUERIES);
    int64_t rows = round_up(div_up(queries, blocks), QUERY_BLOCK);
    int64_t step = at_least(STEP_FLOATS / (d + columns) / TILE_ROWS, 1) * TILE_ROWS;
    step = at_most(step, STEP_MOST);
    dr_mark mark = dr_push(r);
    dr_tensor kt = dr_new(r, k.n, heads, all, d);
    dr_tensor vt = dr_new(r, k.n, heads, all, columns);
    stop(r, "pack_keys");
    LAUNCH(r, DR_K_pack_keys, grid_tasks(all / KEY_BLOCK, heads, k.n), T(k), T(v), T(kt),
           T(vt), DR_INT(keys), DR_INT(heads), DR_INT(d),
           DR_FLOAT(LOG2_E / sqrt((double)d)));
    stop(r, "attention");
    int64_t together = texts ? 1 : q.n; /* images a launch; chosen texts: one by one */
    for (int64_t i = 0; i < q.n; i += together) {
        dr_tensor own_kt = kt, own_vt = vt;
        if (texts) {
            own_kt = dr_slice(kt, text_of(q, k, texts, i), 1);
            own_vt = dr_slice(vt, text_of(q, k, texts, i), 1);
        }
        work(r, 4.0 * (double)(together * queries) * (double)keys * (double)q.c);
        LAUNCH(r, DR_K_attend, grid_tasks(div_up(queries, rows), heads, together),
               T(dr_slice(q, i, together)), T(own_kt), T(own_vt),
               T(dr_slice(y, i, together)), DR_INT(queries), DR_INT(keys), DR_LONG(all),
               DR_INT(own_kt.n), DR_INT(heads), DR_INT(d), DR_INT(causal), DR_INT(rows),
               DR_INT(step));
    }
    dr_pop(r, mark);
}

/* --- by products --- */

/* Queries [first, first + rows) of one image against all keys of one text. */
static void attend(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v, dr_tensor y,
                   dr_tensor scores, int64_t heads, int64_t first, int64_t rows,
                   bool causal)
{
    int64_t d = q.c / heads, keys = positions(k);
    size_t at = (size_t)(first * q.c);
    stop(r, "attention");
    gemm(r,
         &(dr_gemm_args){
             .m = rows,
             .n = keys,
             .k = d,
             .batch = heads,
             .a = { .mem = q.mem, .at = q.at + at, .ld = q.c, .stride = d },
             .b = { .mem = k.mem, .at = k.at, .ld = k.c, .stride = d },
             .c = { .mem = scores.mem, .at = scores.at, .ld = keys, .stride = rows * keys },
             .b_transposed = true,
             .alpha = 1.0f / sqrtf((float)d),
         });
    stop(r, "softmax");
    LAUNCH(r, DR_K_softmax, grid_rows(r, heads * rows), T(scores), DR_LONG(keys),
           DR_LONG(rows), DR_LONG(first), DR_INT(causal));
    stop(r, "attention");
    gemm(r,
         &(dr_gemm_args){
             .m = rows,
             .n = d,
             .k = keys,
             .batch = heads,
             .a = { .mem = scores.mem, .at = scores.at, .ld = keys, .stride = rows * keys },
             .b = { .mem = v.mem, .at = v.at, .ld = v.c, .stride = d },
             .c = { .mem = y.mem, .at = y.at + at, .ld = y.c, .stride = d },
             .alpha = 1.0f,
         });
}

static void by_products(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v, dr_tensor y,
                        int64_t heads, bool causal, const int *texts)
{
    int64_t keys = positions(k), queries = positions(q);
    int64_t rows = (int64_t)(r->attention_tile_bytes / sizeof(float)) / (heads * keys);
    rows = rows < 1 ? 1 : rows > queries ? queries : rows;
    dr_mark mark = dr_push(r);
    dr_tensor scores = dr_new(r, 1, heads * rows, 1, keys);
    for (int64_t i = 0; i < q.n; i++) {
        int64_t j = text_of(q, k, texts, i);
        for (int64_t first = 0; first < queries && !r->err.code; first += rows) {
            int64_t m = queries - first < rows ? queries - first : rows;
            attend(r, dr_slice(q, i, 1), dr_slice(k, j, 1), dr_slice(v, j, 1),
                   dr_slice(y, i, 1), scores, heads, first, m, causal);
        }
    }
    dr_pop(r, mark);
}

/* texts NULL: image i reads row i·m/n. */
static dr_tensor attention(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v, int64_t heads,
                           bool causal, const int *texts)
{
    dr_tensor y = dr_new(r, q.n, q.h, q.w, q.c);
    if (stop(r, "attention"))
        return y;
    if (heads <= 0 || q.c % heads || k.c != q.c || !same_shape(k, v) ||
        (!texts && q.n % k.n)) {
        dr_fail(
            &r->err, DR_ESHAPE,
            "attention: q [%lld, %lld, %lld], k [%lld, %lld, %lld], v [%lld, %lld, %lld], "
            "%lld heads",
            (ll)q.n, (ll)positions(q), (ll)q.c, (ll)k.n, (ll)positions(k), (ll)k.c, (ll)v.n,
            (ll)positions(v), (ll)v.c, (ll)heads);
        return y;
    }
    bool fits = r->dev && dr_packed(r->dev) && !r->unfused && q.c / heads <= HEAD_CHANNELS;
    (fits ? fused : by_products)(r, q, k, v, y, heads, causal, texts);
    return y;
}

dr_tensor op_attention(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v, int64_t heads,
                       bool causal)
{
    return attention(r, q, k, v, heads, causal, NULL);
}

dr_tensor op_cross_attention(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v,
                             int64_t heads, const int *rows)
{
    return attention(r, q, k, v, heads, false, rows);
}
