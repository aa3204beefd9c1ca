#include "op/tune.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "op/launcher.h"
#include "op/merge.h"
#include "op/ref.h"
#include "op/selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

/* --- shapes --- */

const dr_tune_shapes dr_tune_sd15 = {
    .n = 16,
    .row = { { DR_TUNE_ATTENTION, 4096, 4096, 40, 8, 200 },
             { DR_TUNE_CONV3X3, 8192, 320, 2880, 1, 140 },
             { DR_TUNE_CONV3X3, 512, 1280, 11520, 1, 140 },
             { DR_TUNE_CONV3X3, 2048, 640, 5760, 1, 120 },
             { DR_TUNE_LINEAR, 8192, 320, 320, 1, 800 },
             { DR_TUNE_LINEAR, 8192, 2560, 320, 1, 100 },
             { DR_TUNE_LINEAR, 2048, 640, 640, 1, 800 },
             { DR_TUNE_LINEAR, 2048, 5120, 640, 1, 100 },
             { DR_TUNE_LINEAR, 512, 1280, 1280, 1, 800 },
             { DR_TUNE_LINEAR, 512, 10240, 1280, 1, 100 },
             { DR_TUNE_CONV3X3, 128, 1280, 11520, 1, 240 },
             { DR_TUNE_LINEAR, 2048, 640, 2560, 1, 100 },
             { DR_TUNE_CONV3X3, 16384, 512, 4608, 1, 7 },
             { DR_TUNE_ATTENTION, 1024, 1024, 80, 8, 200 },
             { DR_TUNE_CONV3X3, 262144, 128, 1152, 1, 5 },
             { DR_TUNE_ATTENTION, 4096, 77, 40, 8, 200 } },
};

/* Each kind of operation once, about half a GFLOP: milliseconds for a good candidate. */
static const dr_tune_shapes short_form = {
    .n = 3,
    .row = {
        { DR_TUNE_LINEAR, 1024, 640, 320, 1, 4 },
        { DR_TUNE_CONV3X3, 256, 320, 2880, 1, 4 },
        { DR_TUNE_ATTENTION, 512, 512, 40, 8, 4 },
    },
};

const char *dr_tune_kind_name(dr_tune_kind kind)
{
    static const char *const names[] = { "linear", "conv3x3", "attention" };
    return names[kind];
}

double dr_tune_flops(const dr_tune_shape *s)
{
    double products = s->kind == DR_TUNE_ATTENTION ? 2 : 1; /* scores and values */
    return products * 2 * (double)s->m * (double)s->n * (double)s->k * (double)s->heads;
}

void dr_tune_add(dr_tune_shapes *shapes, const char *label, const dr_gemm_args *g,
                 double calls)
{
    dr_tune_shape s = { .m = g->m, .n = g->n, .k = g->k, .heads = g->batch };
    if (!strcmp(label, "attention"))
        s.kind = DR_TUNE_ATTENTION;
    else if (!strcmp(label, "conv2d") && g->k % 9 == 0)
        s.kind = DR_TUNE_CONV3X3; /* or a window of one: as much work */
    if (s.kind == DR_TUNE_ATTENTION && !g->b_transposed)
        return; /* its second product */
    int i = 0;
    while (i < shapes->n) {
        const dr_tune_shape *t = &shapes->row[i];
        if (t->kind == s.kind && t->m == s.m && t->n == s.n && t->k == s.k &&
            t->heads == s.heads)
            break;
        i++;
    }
    if (i == DR_TUNE_SHAPES_MAX)
        return;
    if (i == shapes->n)
        shapes->row[shapes->n++] = s;
    shapes->row[i].calls += calls;
}

static int by_work(const void *a, const void *b)
{
    const dr_tune_shape *s = a, *t = b;
    double x = dr_tune_flops(s) * s->calls, y = dr_tune_flops(t) * t->calls;
    return (x < y) - (x > y);
}

void dr_tune_cut(dr_tune_shapes *shapes, int most)
{
    qsort(shapes->row, (size_t)shapes->n, sizeof *shapes->row, by_work);
    shapes->n = shapes->n < most ? shapes->n : most;
}

/* --- one operation --- */

/* Longer ones are measured on fewer of their rows: the rate is the same. */
#define FLOPS_MAX 8e9
#define ROWS_MIN  256

/* An operation with its operands, here and on the device; for linear and conv3x3 a is the
 * input and b the weights, for attention a is q, b is k, c is v. */
typedef struct {
    dr_tune_shape s; /* m cut to what is measured; the pixels of a convolution are h × w */
    int64_t h, w;
    float *a, *b, *c;
    dr_tensor da, db, dc, y;
    dr_weight_mat weights;
    double scale; /* one call of the whole shape takes so many times as long */
} trial;

static int64_t most_rows(const dr_tune_shape *s)
{
    int64_t rows = (int64_t)(FLOPS_MAX / (dr_tune_flops(s) / (double)s->m));
    rows = rows > ROWS_MIN ? rows : ROWS_MIN;
    return rows < s->m ? rows : s->m;
}

static trial trial_of(const dr_tune_shape *shape)
{
    trial t = { .s = *shape };
    t.s.m = most_rows(shape);
    if (t.s.kind == DR_TUNE_CONV3X3) {
        t.h = (int64_t)sqrt((double)t.s.m);
        t.w = t.s.m / t.h;
        t.s.m = t.h * t.w;
    }
    t.scale = (double)shape->m / (double)t.s.m;
    return t;
}

/* Values in [-1, 1), other ones for each seed. */
static float *values(dr_run *r, int64_t count, uint32_t seed)
{
    float *x = r->dry ? NULL : dr_alloc((size_t)count * sizeof *x);
    for (int64_t i = 0; x && i < count; i++) {
        uint32_t v = ((uint32_t)i + seed) * 2654435761u;
        v = (v ^ v >> 15) * 2246822519u;
        x[i] = (float)(int32_t)(v ^ v >> 13) / 2147483648.0f;
    }
    if (!x && !r->dry && !r->err.code)
        dr_fail(&r->err, DR_ENOMEM, "out of memory");
    return x;
}

static dr_tensor operand(dr_run *r, float **x, int64_t h, int64_t w, int64_t c)
{
    dr_tensor t = dr_new(r, 1, h, w, c);
    *x = values(r, h * w * c, (uint32_t)t.at + 1);
    if (!r->err.code)
        dr_upload(r, t, *x);
    return t;
}

static void make_weights(dr_run *r, trial *t)
{
    int window = t->s.kind == DR_TUNE_CONV3X3 ? 3 : 1;
    dr_layout layout = op_layout(r->dev, 0);
    dr_tensor rows = operand(r, &t->b, 1, t->s.k, t->s.n), packed = rows;
    if (layout != DR_ROWS) {
        packed = dr_new(r, 1, 1, 1, op_weight_floats(layout, t->s.k, t->s.n));
        packed.w = t->s.k;
        packed.c = t->s.n;
        op_write_weight(r, rows, packed, layout);
    }
    t->weights = (dr_weight_mat){ .w = packed,
                                  .layout = layout,
                                  .kh = window,
                                  .kw = window,
                                  .in = t->s.k / (window * window),
                                  .out = t->s.n };
}

static void make_operands(dr_run *r, trial *t)
{
    const dr_tune_shape *s = &t->s;
    if (s->kind == DR_TUNE_ATTENTION) {
        t->da = operand(r, &t->a, s->m, 1, s->k * s->heads);
        t->db = operand(r, &t->b, s->n, 1, s->k * s->heads);
        t->dc = operand(r, &t->c, s->n, 1, s->k * s->heads);
        return;
    }
    make_weights(r, t);
    t->da = s->kind == DR_TUNE_LINEAR ? operand(r, &t->a, s->m, 1, s->k)
                                      : operand(r, &t->a, t->h, t->w, t->weights.in);
}

static void run_once(dr_run *r, trial *t)
{
    const dr_conv_opts same = {
        .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
    };
    switch (t->s.kind) {
    case DR_TUNE_LINEAR:
        t->y = op_linear(r, t->da, &t->weights, NULL);
        break;
    case DR_TUNE_CONV3X3:
        t->y = op_conv2d(r, t->da, &t->weights, &same);
        break;
    case DR_TUNE_ATTENTION:
        t->y = op_attention(r, t->da, t->db, t->dc, t->s.heads, false);
        break;
    }
}

static void trial_free(trial *t)
{
    dr_free(t->a);
    dr_free(t->b);
    dr_free(t->c);
    t->a = t->b = t->c = NULL;
}

/* --- right? --- */

#define LIMIT  1e-4 /* relative difference that passes, as in the self-test */
#define SAMPLE 24   /* rows that are looked at, and columns of each */

static int64_t sample_of(int64_t i, int64_t count)
{
    return count > 1 ? i * (count - 1) / (SAMPLE - 1) : 0;
}

/* The 3x3 window around pixel `row`, zeros outside. */
static void window_of(const trial *t, int64_t row, float *out)
{
    int64_t in = t->weights.in, y0 = row / t->w - 1, x0 = row % t->w - 1;
    for (int i = 0; i < 9; i++, out += in) {
        int64_t y = y0 + i / 3, x = x0 + i % 3;
        bool inside = y >= 0 && y < t->h && x >= 0 && x < t->w;
        for (int64_t c = 0; c < in; c++)
            out[c] = inside ? t->a[(y * t->w + x) * in + c] : 0.0f;
    }
}

/* The sampled columns of a row by the reference; scratch: a row of inputs or of results. */
static void expect(const trial *t, int64_t row, float *scratch, float *want)
{
    const dr_tune_shape *s = &t->s;
    int64_t c = t->y.c;
    const float *x = scratch;
    if (s->kind == DR_TUNE_ATTENTION)
        ref_attention(scratch, t->a + row * c, t->b, t->c,
                      &(ref_attention_args){
                          .n = 1, .m = 1, .tq = 1, .tk = s->n, .c = c, .heads = s->heads });
    else if (s->kind == DR_TUNE_CONV3X3)
        window_of(t, row, scratch);
    else
        x = t->a + row * s->k;
    for (int64_t i = 0; i < SAMPLE; i++) {
        int64_t col = sample_of(i, c);
        if (s->kind == DR_TUNE_ATTENTION)
            want[i] = scratch[col];
        else
            ref_gemm(&want[i], x, t->b + col,
                     &(ref_gemm_args){ .m = 1,
                                       .n = 1,
                                       .k = s->k,
                                       .lda = s->k,
                                       .ldb = s->n,
                                       .ldc = 1,
                                       .alpha = 1 });
    }
}

/* Of the result in t->y; wrong: DR_ENUMERIC in r->err. */
static void check(dr_run *r, const trial *t)
{
    float have[SAMPLE * SAMPLE], want[SAMPLE * SAMPLE] = { 0 };
    int64_t most = t->s.k > t->y.c ? t->s.k : t->y.c;
    float *row = dr_alloc((size_t)most * sizeof *row);
    if (!row && !r->err.code)
        dr_fail(&r->err, DR_ENOMEM, "out of memory");
    for (int64_t i = 0; i < SAMPLE && !r->err.code; i++) {
        int64_t at = sample_of(i, t->s.m);
        dr_tensor y = t->y;
        y.at += (size_t)(at * y.c);
        y.n = y.h = y.w = 1;
        dr_download(r, y, row);
        for (int64_t k = 0; k < SAMPLE; k++)
            have[i * SAMPLE + k] = row[sample_of(k, y.c)];
        expect(t, at, row, want + i * SAMPLE);
    }
    dr_free(row);
    if (r->err.code)
        return;
    double distance = ref_distance(have, want, SAMPLE * SAMPLE);
    if (!(distance <= LIMIT))
        dr_fail(&r->err, DR_ENUMERIC,
                "wrong results for %s m=%lld n=%lld k=%lld: relative difference %.2g",
                dr_tune_kind_name(t->s.kind), (ll)t->s.m, (ll)t->s.n, (ll)t->s.k, distance);
}

/* --- fast? --- */

#define RUNS_MAX 10

/* Best of several runs within budget_s, after one that compiles and is checked. → seconds
 * of one call of the whole shape; 0: see r->err */
static double time_shape(dr_run *r, const dr_tune_shape *shape, double budget_s)
{
    trial t = trial_of(shape);
    double best = INFINITY, spent = 0;
    dr_run_reset(r, true);
    make_operands(r, &t);
    run_once(r, &t);
    (void)!dr_run_reserve(r, r->peak_bytes, &r->err);
    if (r->err.code)
        return 0;
    dr_run_reset(r, false);
    make_operands(r, &t);
    dr_mark mark = dr_push(r);
    run_once(r, &t);
    check(r, &t);
    for (int i = 0; i < RUNS_MAX && !r->err.code && (i == 0 || spent < budget_s); i++) {
        dr_pop(r, mark);
        double start = dr_now_s();
        run_once(r, &t);
        (void)!dr_finish(r->dev, &r->err);
        best = fmin(best, dr_now_s() - start);
        spent += dr_now_s() - start;
    }
    trial_free(&t);
    return r->err.code ? 0 : best * t.scale;
}

/* Where a candidate takes so many times as long as the best one so far, on a few of the
 * shapes with most work, it is given up. */
#define HOPELESS     3.0
#define HOPELESS_ROW 3

static double seconds_of(const dr_tune_shapes *shapes, const dr_tune_result *res, int n)
{
    double s = 0;
    for (int i = 0; i < n; i++)
        s += res->seconds[i] * shapes->row[i].calls;
    return s;
}

/* Candidate i of n; best: the best one so far, NULL: none. */
static void measure_one(dr_dev *d, const dr_tune_shapes *shapes, dr_tune_result *res,
                        const dr_tune_result *best, int i, int n, const dr_tune_opts *o)
{
    char name[64];
    dr_run r;
    dr_choice_name(name, &res->choice);
    res->total_s = INFINITY;
    if (dr_dev_use(d, &res->choice, o->conf, &res->err))
        return;
    dr_run_init(&r, d, (size_t)o->conf->device.attention_tile_mb * MIB,
                (size_t)o->conf->device.conv_tile_mb * MIB);
    bool hopeless = false;
    for (int k = 1; k <= shapes->n && !hopeless && !r.err.code; k++) {
        if (o->progress)
            o->progress(o->ctx, name, (i + (k - 1.0) / shapes->n) / n);
        res->seconds[k - 1] =
            time_shape(&r, &shapes->row[k - 1], o->budget_s / n / shapes->n);
        hopeless = best && k >= HOPELESS_ROW && k < shapes->n &&
                   seconds_of(shapes, res, k) > HOPELESS * seconds_of(shapes, best, k);
    }
    res->err = r.err;
    dr_run_free(&r);
    /* The shapes of other models too: a winner that fails its self-test at the next start
     * would keep the device from working. */
    if (!res->err.code && !hopeless && !dr_selftest(d, &res->err))
        res->total_s = seconds_of(shapes, res, shapes->n);
}

#define GAIN 0.9 /* of the default's time; less may be noise */

int dr_tune_measure(dr_dev *d, const dr_tune_shapes *shapes, dr_tune_result *results, int n,
                    const dr_tune_opts *o)
{
    dr_choice usual;
    int best = -1, fallback = -1;
    dr_choice_default(&usual, dr_dev_describe(d));
    for (int i = 0; i < n; i++) {
        measure_one(d, shapes, &results[i], best < 0 ? NULL : &results[best], i, n, o);
        if (isinf(results[i].total_s))
            continue;
        if (best < 0 || results[i].total_s < results[best].total_s)
            best = i;
        if (dr_choice_same(&results[i].choice, &usual))
            fallback = i;
    }
    if (fallback >= 0 && results[best].total_s > GAIN * results[fallback].total_s)
        best = fallback;
    return best;
}

double dr_tune_gflops(const dr_tune_shapes *shapes, const dr_tune_result *r)
{
    double flops = 0, seconds = seconds_of(shapes, r, shapes->n);
    for (int i = 0; i < shapes->n; i++)
        flops +=
            r->seconds[i] > 0 ? dr_tune_flops(&shapes->row[i]) * shapes->row[i].calls : 0;
    return seconds > 0 ? flops / seconds / 1e9 : 0;
}

void dr_tune_notes(dr_buf *out, const dr_tune_shapes *shapes, const dr_tune_result *results,
                   int n)
{
    char name[64], quoted[160];
    for (int i = 0; i < n; i++) {
        dr_choice_name(name, &results[i].choice);
        if (results[i].err.code)
            dr_buf_printf(out, "; %s: out: %s\n", name,
                          dr_log_quote(quoted, sizeof quoted, results[i].err.message));
        else
            dr_buf_printf(out, "; %s: %.1f GFLOPS\n", name,
                          dr_tune_gflops(shapes, &results[i]));
    }
}

/* --- the first start --- */

#define START_BUDGET_S 0.3
#define START_WAIT_MS  120000 /* for another that measures, and compiles, at the moment */

static void say_start(const dr_tune_result results[2], const dr_choice *c, double seconds)
{
    char line[512] = "", name[64], quoted[600];
    int n = 0;
    for (int i = 0; i < 2; i++) {
        const char *who = results[i].choice.packed ? "packed" : "clblast";
        n += snprintf(line + n, sizeof line - (size_t)n, "%s_gflops=%.0f ", who,
                      dr_tune_gflops(&short_form, &results[i]));
        if (results[i].err.code)
            dr_log(DR_WARN, "tune.out", "candidate=%s message=%s", who,
                   dr_log_quote(quoted, sizeof quoted, results[i].err.message));
    }
    dr_choice_name(name, c);
    dr_log(DR_INFO, "tune.start",
           "message=\"no tuning for this device yet; `darkroom tune` measures the model's "
           "own shapes\" seconds=%.1f %schoice=\"%s\"",
           seconds, line, name);
}

/* For the next start; that it cannot be kept is only said. */
static void keep_start(dr_choice *c, const dr_tune_result results[2],
                       const dr_dev_info *info, const char *path)
{
    char quoted[600];
    dr_buf notes = { 0 };
    dr_err err = { 0 };
    c->by = DR_BY_MEASURE;
    snprintf(c->shapes, sizeof c->shapes, "a few shapes at the first start");
    dr_tune_notes(&notes, &short_form, results, 2);
    if (dr_choice_save(c, info, path, notes.failed ? "" : notes.data, &err))
        dr_log(DR_WARN, "tune.file", "message=%s",
               dr_log_quote(quoted, sizeof quoted, err.message));
    dr_buf_free(&notes);
}

/* Measure, store, use. */
static dr_status measure_at_start(dr_dev *d, const dr_conf *conf, const char *path,
                                  dr_err *err)
{
    const dr_tune_opts o = { .conf = conf, .budget_s = START_BUDGET_S };
    double from_s = dr_now_s();
    dr_choice c = *dr_dev_choice(d);
    dr_tune_result results[2] = { { .choice = c }, { .choice = c } };
    results[1].choice.packed = !c.packed;
    int best = dr_tune_measure(d, &short_form, results, 2, &o);
    if (best >= 0)
        c = results[best].choice;
    say_start(results, &c, dr_now_s() - from_s);
    if (best >= 0)
        keep_start(&c, results, dr_dev_describe(d), path);
    return dr_dev_use(d, &c, conf, err);
}

dr_status dr_tune_start(dr_dev *d, const dr_conf *conf, dr_err *err)
{
    const dr_dev_info *info = dr_dev_describe(d);
    char path[DR_PATH_MAX], lock_path[DR_PATH_MAX + 8];
    dr_choice found;
    if (!dr_choice_measures(conf) || dr_dev_choice(d)->by != DR_BY_DEFAULT ||
        dr_dev_peak_bytes(d) || !dr_choice_path(path, info, conf))
        return DR_OK;
    if (!strcmp(info->type, "gpu")) {
        dr_log(DR_INFO, "tune.start",
               "message=\"no tuning for this device yet, CLBlast's parameters as they "
               "come; `darkroom tune` measures others\"");
        return DR_OK;
    }
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int lock = dr_file_lock(lock_path, START_WAIT_MS);
    if (lock < 0)
        return DR_OK;
    dr_status st = dr_choice_find(&found, info, conf, err); /* by whom we waited for */
    if (!st)
        st = found.by == DR_BY_MEASURE ? dr_dev_use(d, &found, conf, err)
                                       : measure_at_start(d, conf, path, err);
    dr_file_unlock(lock);
    return st;
}
