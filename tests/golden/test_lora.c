#include "../lib/outcome.h"

#include "base/file.h"
#include "base/mem.h"
#include "diffusion/loras.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

/* LoRA sets: what diffusers and LyCORIS' formulas make of tiny-sd1, sets that come and go
 * without a trace, and the demo model's own LoRA, which draws shapes as strokes. */

#define LIMIT 1e-5

typedef struct {
    golden *g;
    dr_model *model;
    const char *prompt;
    golden_tensor sample;
    double timestep;
    float *out;
    size_t count;
} fixture;

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/lora", sizeof *f);
    golden *g = f->g;
    assert_int_equal(dr_conf_set(&g->conf, "lora.dir", "tests/golden/lora", NULL), DR_OK);
    f->model = golden_keep(g, golden_model(g, dr_json_get_string(g->cases, "model", "")));
    f->prompt = dr_json_get_string(g->cases, "prompt", NULL);
    f->sample = golden_of(g, g->cases, "sample");
    f->timestep = dr_json_get_number(g->cases, "timestep", 0);
    f->count = golden_count(f->sample);
    f->out = dr_arena_alloc(g->mem, f->count * sizeof *f->out);
    return 0;
}

/* --- running --- */

static void body(dr_run *r, fixture *f)
{
    dr_model *m = f->model;
    dr_reading reading = { .mem = m->plan_mem, .field = "prompt" };
    dr_vectors none = { 0 };
    dr_text prompt, empty;
    const dr_text *const texts[] = { &prompt };
    const dr_text_ask ask = { .chunks = 1, .empty = &empty, .vectors = &none };
    if (dr_text_make(&prompt, &none, m, &reading, f->prompt, &r->err) ||
        dr_text_make(&empty, &none, m, &reading, "", &r->err))
        return;
    dr_unet_call call = {
        .x = golden_put(r, f->sample), .batch = 1, .in_scale = 1, .timestep = f->timestep
    };
    dr_tensor text = dr_new(r, 1, m->clip.length, 1, m->clip.width);
    dr_text_encode(r, m, texts, 1, &ask, text);
    dr_unet_read_text(r, &m->unet, text, m->kv);
    dr_tensor y = dr_unet_forward(r, &m->unet, &call, m->kv);
    dr_download(r, y, f->out);
}

/* The prompt and one call of the UNet, into f->out. */
static void evaluate(fixture *f)
{
    dr_run *r = &f->model->run;
    dr_err err = { 0 };
    dr_run_reset(r, true);
    body(r, f);
    assert_int_equal(dr_run_reserve(r, r->peak_bytes, &err), DR_OK);
    dr_run_reset(r, false);
    body(r, f);
    if (r->err.code)
        fail_msg("%s", r->err.message);
}

static dr_lora_report apply(fixture *f, const dr_lora_ref *loras, int n)
{
    dr_err err = { 0 };
    dr_lora_report report;
    if (dr_loras_apply(f->model, loras, n, &report, &err))
        fail_msg("%s: %s", err.field, err.message);
    return report;
}

static void assert_refused(fixture *f, const dr_lora_ref *loras, int n, dr_status code,
                           const char *field, const char *message)
{
    dr_err err = { 0 };
    assert_int_equal(dr_loras_apply(f->model, loras, n, NULL, &err), code);
    assert_string_equal(err.field, field);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" is not in \"%s\"", message, err.message);
}

/* A copy of what the last evaluation gave. */
static float *keep(fixture *f)
{
    float *x = dr_arena_alloc(f->g->mem, f->count * sizeof *x);
    assert_non_null(x);
    return memcpy(x, f->out, f->count * sizeof *x);
}

static float *result_of(fixture *f, const dr_lora_ref *loras, int n)
{
    apply(f, loras, n);
    evaluate(f);
    return keep(f);
}

static void assert_same_bits(const fixture *f, const float *a, const float *b)
{
    assert_memory_equal(a, b, f->count * sizeof *a);
}

/* --- against PyTorch --- */

static int read_loras(const dr_json *item, dr_lora_ref *out)
{
    int n = 0;
    const dr_json *list = dr_json_get(item, "loras");
    for (const dr_json *j = dr_json_first(list); j; j = dr_json_next(j))
        out[n++] =
            (dr_lora_ref){ .name = dr_json_get_string(j, "name", NULL),
                           .strength = dr_json_get_number(j, "strength", NAN),
                           .text_strength = dr_json_get_number(j, "text_strength", NAN) };
    return n;
}

static void every_kind_equals_pytorch(void **state)
{
    fixture *f = *state;
    int cases = 0;
    const float *base = result_of(f, NULL, 0);
    const dr_json *item = dr_json_first(dr_json_get(f->g->cases, "cases"));
    for (; item; item = dr_json_next(item), cases++) {
        dr_lora_ref loras[4];
        const char *what = dr_json_get_string(item, "output", "");
        int n = read_loras(item, loras);
        golden_tensor want = golden_of(f->g, item, "output");
        dr_lora_report report = apply(f, loras, n);
        evaluate(f);
        print_message("%-20s relative L2 %.2g, of the change %.2g\n", what,
                      golden_l2(f->out, want.data, f->count),
                      n ? golden_l2(f->out, want.data, f->count) /
                              golden_l2(f->out, base, f->count)
                        : 0);
        golden_near(f->g, what, f->out, want.data, f->count, LIMIT);
        assert_int_equal(report.n, n);
        for (int i = 0; i < n; i++) {
            assert_true(report.file[i].matched > 0);
            assert_int_equal(report.file[i].unmatched, 0);
            assert_string_equal(report.file[i].first_unmatched, "");
        }
        if (n) /* a LoRA that does nothing would pass too */
            assert_true(golden_l2(f->out, base, f->count) > 0.05);
    }
    assert_true(cases >= 14);
}

/* --- strengths and sets --- */

static void strength_0_does_nothing(void **state)
{
    fixture *f = *state;
    const dr_lora_ref none[] = { { "peft", 0, 0 }, { "loha", -0.0, 0 } };
    const float *base = result_of(f, NULL, 0);
    dr_lora_report report = apply(f, none, 2);
    assert_int_equal(report.n, 0);
    assert_int_equal(report.bytes, 0);
    assert_same_bits(f, result_of(f, none, 2), base);
    /* A UNet's part of 0 leaves the text's, and the other way round. */
    const dr_lora_ref text = { "peft", 0, 1 }, unet = { "peft", 1, 0 };
    const float *a = result_of(f, &text, 1), *b = result_of(f, &unet, 1);
    assert_true(golden_l2(a, base, f->count) > 1e-3);
    assert_true(golden_l2(b, base, f->count) > 1e-3);
    assert_true(golden_l2(a, b, f->count) > 1e-3);
}

/* Not given: 1, and for the text as for the UNet. */
static void strengths_have_defaults(void **state)
{
    fixture *f = *state;
    const dr_lora_ref plain = { "peft", NAN, NAN }, whole = { "peft", 1, 1 };
    assert_same_bits(f, result_of(f, &plain, 1), result_of(f, &whole, 1));
    const dr_lora_ref half = { "peft", 0.5, NAN }, both = { "peft", 0.5, 0.5 };
    assert_same_bits(f, result_of(f, &half, 1), result_of(f, &both, 1));
}

/* A model that finds its LoRAs in dir. */
static fixture with_folder(const fixture *f, const char *dir)
{
    fixture other = *f;
    assert_int_equal(dr_conf_set(&f->g->conf, "lora.dir", dir, NULL), DR_OK);
    other.model = golden_model(f->g, dr_json_get_string(f->g->cases, "model", ""));
    assert_int_equal(dr_conf_set(&f->g->conf, "lora.dir", "tests/golden/lora", NULL),
                     DR_OK);
    return other;
}

/* Let dir/name.safetensors be one of the fixtures. */
static void put_link(const char *dir, const char *name, const char *fixture_name)
{
    char from[DR_PATH_MAX], to[DR_PATH_MAX], whole[DR_PATH_MAX];
    snprintf(from, sizeof from, "tests/golden/lora/%s.safetensors", fixture_name);
    snprintf(to, sizeof to, "%s/%s.safetensors", dir, name);
    assert_non_null(realpath(from, whole));
    unlink(to);
    assert_int_equal(symlink(whole, to), 0);
}

static void two_halves_are_a_whole(void **state)
{
    fixture *f = *state;
    static const char *const names[] = { "peft", "loha", "lokr", "dora-scales", "locon" };
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        const dr_lora_ref one = { names[i], 1, 1 };
        const dr_lora_ref halves[] = { { names[i], 0.5, 0.5 }, { names[i], 0.5, 0.5 } };
        const float *want = result_of(f, &one, 1);
        assert_same_bits(f, result_of(f, halves, 2), want);
    }
    /* Also when they are not the same file, where weights round differently in their last
     * bit, which Winograd's transforms spread. */
    char dir[] = "/tmp/darkroom-lora.XXXXXX";
    assert_non_null(mkdtemp(dir));
    put_link(dir, "dora-scales", "dora-scales");
    put_link(dir, "copy", "dora-scales");
    fixture other = with_folder(f, dir);
    const dr_lora_ref one = { "dora-scales", 1, 1 };
    const dr_lora_ref halves[] = { { "dora-scales", 0.5, 0.5 }, { "copy", 0.5, 0.5 } };
    const float *want = result_of(&other, &one, 1);
    golden_near(f->g, "two halves", result_of(&other, halves, 2), want, f->count, 5e-6);
    dr_model_close(other.model);
    golden_remove_model(dir);
}

static void order_does_not_matter(void **state)
{
    fixture *f = *state;
    const dr_lora_ref ab[] = { { "peft", 0.7, 0.3 }, { "loha", -0.5, 1 } };
    const dr_lora_ref ba[] = { { "loha", -0.5, 1 }, { "peft", 0.7, 0.3 } };
    const float *want = result_of(f, ab, 2);
    assert_false(apply(f, ba, 2).merged);
    assert_same_bits(f, result_of(f, ba, 2), want);
    assert_true(dr_loras_equal(ab, 2, ab, 2));
    assert_false(dr_loras_equal(ab, 2, ba, 2));
    assert_false(dr_loras_equal(ab, 2, ab, 1));
}

/* --- coming and going --- */

/* Bytes of every weight that LoRAs may change, as one fingerprint. */
static uint64_t fingerprint(fixture *f)
{
    const dr_model *m = f->model;
    uint64_t all = 0;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < m->mats[p].count; i++) {
            const dr_weight_mat *mat = m->mats[p].row[i].w;
            dr_tensor w = mat->w;
            size_t bytes = (size_t)op_weight_floats(mat->layout, w.w, w.c) * sizeof(float);
            float *x = dr_alloc(bytes);
            assert_int_equal(dr_mem_read(f->g->dev, w.mem, w.at * 4, x, bytes, NULL),
                             DR_OK);
            all = all * 31 + dr_hash64(x, bytes);
            dr_free(x);
        }
    return all;
}

/* A hundred sets come and go, kept and evicted; what the model was it is, to the bit. */
static void the_base_comes_back_exactly(void **state)
{
    fixture *f = *state;
    static const char *const names[] = { "peft", "kohya", "loha", "lokr", "dora-scales" };
    apply(f, NULL, 0);
    uint64_t before = fingerprint(f);
    const float *base = result_of(f, NULL, 0);
    for (int i = 0; i < 100; i++) {
        const dr_lora_ref loras[] = { { names[i % 5], 0.25 * (i % 7 + 1), 1 },
                                      { names[i / 5 % 5], -0.5, 0.5 } };
        apply(f, loras, 1 + i % 2);
        if (i % 10 == 0) {
            assert_true(fingerprint(f) != before);
            evaluate(f);
        }
        if (i % 3 == 0)
            apply(f, NULL, 0);
    }
    apply(f, NULL, 0);
    assert_true(fingerprint(f) == before);
    assert_same_bits(f, result_of(f, NULL, 0), base);
}

static void kept_sets_cost_nothing(void **state)
{
    fixture *f = *state;
    const dr_lora_ref a = { "peft", 0.9, 0.9 }, b = { "lokr", 0.9, 0.9 };
    dr_lora_report first = apply(f, &a, 1);
    assert_true(first.merged);
    assert_true(first.bytes > 0);
    const float *want = result_of(f, &a, 1);
    assert_true(apply(f, &b, 1).merged);
    apply(f, NULL, 0);
    uint64_t launches = dr_launches(f->g->dev);
    dr_lora_report again = apply(f, &a, 1);
    assert_int_equal(dr_launches(f->g->dev), launches);
    assert_false(again.merged);
    assert_int_equal(again.bytes, first.bytes);
    assert_int_equal(again.file[0].matched, first.file[0].matched);
    assert_same_bits(f, result_of(f, &a, 1), want);
}

/* Only touched tensors are copied. */
static void copies_are_private(void **state)
{
    fixture *f = *state;
    dr_model *m = f->model;
    const dr_lora_ref a = { "processors", 1, 1 };
    apply(f, NULL, 0);
    size_t n = (size_t)(m->mats[0].count + m->mats[1].count), at = 0, changed = 0;
    dr_tensor *base = dr_arena_alloc(f->g->mem, n * sizeof *base);
    int64_t bytes = 0;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < m->mats[p].count; i++)
            base[at++] = m->mats[p].row[i].w->w;
    dr_lora_report report = apply(f, &a, 1);
    at = 0;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < m->mats[p].count; i++, at++) {
            const dr_weight_mat *mat = m->mats[p].row[i].w;
            dr_tensor w = mat->w;
            bool same = w.mem == base[at].mem && w.at == base[at].at;
            changed += !same;
            bytes += same ? 0 : op_weight_floats(mat->layout, w.w, w.c) * 4;
        }
    assert_int_equal(changed, 6); /* four layers of the UNet, two of the text encoder */
    assert_int_equal(report.bytes, bytes);
}

/* A file that another one took the place of is merged anew. */
static void a_replaced_file_is_another(void **state)
{
    fixture *f = *state;
    char dir[] = "/tmp/darkroom-lora.XXXXXX";
    assert_non_null(mkdtemp(dir));
    put_link(dir, "style", "peft");
    fixture other = with_folder(f, dir);
    const dr_lora_ref style = { "style", 1, 1 }, kohya = { "kohya", 1, 1 };
    const float *before = result_of(&other, &style, 1);
    put_link(dir, "style", "kohya");
    assert_true(apply(&other, &style, 1).merged);
    const float *after = result_of(&other, &style, 1);
    assert_true(golden_l2(before, after, f->count) > 0.05);
    assert_same_bits(f, after, result_of(f, &kohya, 1));
    dr_model_close(other.model);
    golden_remove_model(dir);
}

/* Merged copies stay within lora.memory_mb, but for the set in use. */
static void memory_has_a_limit(void **state)
{
    fixture *f = *state;
    const char *model = dr_json_get_string(f->g->cases, "model", "");
    fixture other = *f;
    assert_int_equal(dr_conf_set(&f->g->conf, "lora.memory_mb", "1", NULL), DR_OK);
    other.model = golden_model(f->g, model);
    int64_t most = 0, bytes = 0;
    dr_lora_ref a = { "locon", 1, 1 };
    for (int i = 1; i <= 20; i++) {
        a.strength = i / 10.0;
        bytes = apply(&other, &a, 1).bytes;
        int64_t kept = dr_loras_bytes(other.model);
        assert_true(kept <= (1 << 20));
        most = kept > most ? kept : most;
    }
    assert_true(most >= 2 * bytes); /* some were kept */
    assert_false(apply(&other, &a, 1).merged);
    a.strength = 0.1; /* the first one is gone */
    assert_true(apply(&other, &a, 1).merged);
    assert_true(dr_loras_make_room(other.model));
    assert_false(dr_loras_make_room(other.model));
    assert_int_equal(dr_loras_bytes(other.model), bytes);
    apply(&other, NULL, 0);
    assert_true(dr_loras_make_room(other.model));
    assert_int_equal(dr_loras_bytes(other.model), 0);
    dr_model_close(other.model);
    assert_int_equal(dr_conf_set(&f->g->conf, "lora.memory_mb", "0", NULL), DR_OK);
}

/* A prompt's embedding is that of the set's text encoder, and shared where it is the
 * model's own. */
static void texts_follow_the_set(void **state)
{
    fixture *f = *state;
    const dr_lora_ref text = { "peft", 0, 1 }, unet = { "lokr", 1, 1 };
    apply(f, NULL, 0);
    assert_string_equal(f->model->text_weights.hex, "");
    apply(f, &unet, 1);
    assert_string_equal(f->model->text_weights.hex, "");
    apply(f, &text, 1);
    assert_int_equal(strlen(f->model->text_weights.hex), 32);
    const float *want = result_of(f, &text, 1), *base = result_of(f, NULL, 0);
    for (int i = 0; i < 3; i++) {
        assert_same_bits(f, result_of(f, &text, 1), want);
        assert_same_bits(f, result_of(f, NULL, 0), base);
    }
}

static void a_check_tells_the_memory(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    int64_t bytes = -1;
    const dr_lora_ref a = { "peft", 0.123, 0 }, bad = { "nothing", 1, 1 };
    assert_int_equal(dr_loras_check(f->model, &a, 1, &bytes, &err), DR_OK);
    assert_int_equal(bytes, apply(f, &a, 1).bytes);
    assert_int_equal(dr_loras_check(f->model, NULL, 0, &bytes, &err), DR_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(dr_loras_check(f->model, &bad, 1, &bytes, &err), DR_ENOTFOUND);
}

/* --- refusals --- */

static void names_stay_in_the_folder(void **state)
{
    fixture *f = *state;
    static const char *const bad[] = { "",         "../lora/peft", "a/b",  "..",
                                       ".hidden",  "/etc/passwd",  "a\\b", "a\nb",
                                       "\xff\xfe", "x..y" };
    for (size_t i = 0; i < DR_COUNT(bad); i++)
        assert_refused(f, &(dr_lora_ref){ bad[i], 1, 1 }, 1, DR_EINVAL, "loras[0].name",
                       "loras[0].name");
    char name[200];
    memset(name, 'a', sizeof name);
    name[129] = 0;
    assert_refused(f, &(dr_lora_ref){ name, 1, 1 }, 1, DR_EINVAL, "loras[0].name", "128");
    assert_refused(f, &(dr_lora_ref){ NULL, 1, 1 }, 1, DR_EINVAL, "loras[0].name", "128");
}

static void unknown_names_get_the_list(void **state)
{
    fixture *f = *state;
    const dr_lora_ref loras[] = { { "peft", 1, 1 }, { "Peft", 1, 1 } };
    assert_refused(f, loras, 2, DR_ENOTFOUND, "loras[1].name",
                   "loras[1].name \"Peft\": no such LoRA; there are: dora-peft, "
                   "dora-scales, kohya, locon, "
                   "loha, lokr, peft, processors, stages");
}

static void strengths_have_bounds(void **state)
{
    fixture *f = *state;
    assert_refused(f, &(dr_lora_ref){ "peft", 10.5, 1 }, 1, DR_EINVAL, "loras[0].strength",
                   "10.5: must be in -10..10");
    assert_refused(f, &(dr_lora_ref){ "peft", 1, -11 }, 1, DR_EINVAL,
                   "loras[0].text_strength", "-11");
    assert_refused(f, &(dr_lora_ref){ "peft", INFINITY, 1 }, 1, DR_EINVAL,
                   "loras[0].strength", "inf");
    dr_lora_ref many[DR_LORAS_MAX + 1] = { { 0 } };
    assert_refused(f, many, DR_LORAS_MAX + 1, DR_EINVAL, "loras", "at most 16");
}

/* A file that is no LoRA at all; the model is its own afterwards. */
static void a_failure_leaves_the_base(void **state)
{
    fixture *f = *state;
    const float *base = result_of(f, NULL, 0);
    const dr_lora_ref good = { "peft", 1, 1 };
    const dr_lora_ref bad[] = { { "peft", 0.77, 1 }, { "stages", 1, 1 } };
    apply(f, &good, 1);
    assert_refused(f, bad, 2, DR_EMODEL, "loras[1].name",
                   "LoRA stages: none of its 15 keys has a place in this model; the first "
                   "is base.output");
    evaluate(f);
    assert_same_bits(f, f->out, base);
}

/* The demo model is narrower: the same names, other shapes. */
static void other_shapes_are_refused(void **state)
{
    fixture *f = *state;
    fixture other = *f;
    other.model = golden_model(f->g, GOLDEN_DEMO);
    assert_refused(
        &other, &(dr_lora_ref){ "peft", 1, 1 }, 1, DR_EMODEL, "loras[0].name",
        "LoRA peft: unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1."
        "to_q.lora_B.weight is [16, 2], must be [64, 2]: this model's layer "
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q is [64, 64]");
    dr_model_close(other.model);
}

/* --- jobs --- */

static dr_job small_job(const dr_lora_ref *lora)
{
    dr_job job = { .prompt = "a castle",
                   .negative_prompt = "",
                   .n = 1,
                   .seed = 5,
                   .steps = 2,
                   .cfg_scale = 4,
                   .eta = NAN };
    if (lora)
        job.loras[job.n_loras++] = *lora;
    return job;
}

/* Jobs of other sets, and of none, given in one call: each comes out as alone. */
static void sets_do_not_mix_in_a_batch(void **state)
{
    fixture *f = *state;
    const dr_lora_ref peft = { "peft", 1, 1 }, loha = { "loha", 0.5, 1 };
    const dr_lora_ref *const sets[] = { NULL, &peft, &peft, &loha, NULL };
    enum { N = DR_COUNT(sets) };
    dr_job job[N];
    outcome together[N] = { 0 };
    dr_observer obs[N];
    dr_batch_task tasks[N] = { 0 };
    for (int i = 0; i < N; i++) {
        job[i] = small_job(sets[i]);
        together[i].g = f->g;
        obs[i] = outcome_observer(&together[i]);
        tasks[i] = (dr_batch_task){ .job = &job[i], .obs = &obs[i] };
        assert_int_equal(dr_jobs_batch(&job[0], &job[i]), !sets[i]);
    }
    assert_true(dr_jobs_batch(&job[1], &job[2]));
    assert_true(dr_batch_plan(f->model, tasks, N) > 0);
    dr_batch_run(f->model, tasks, N);
    for (int i = 0; i < N; i++) {
        outcome alone = { .g = f->g };
        const dr_observer own = outcome_observer(&alone);
        dr_batch_task t = { .job = &job[i], .obs = &own };
        assert_int_equal(tasks[i].err.code, DR_OK);
        assert_int_equal(dr_batch_plan(f->model, &t, 1), 1);
        dr_batch_run(f->model, &t, 1);
        assert_int_equal(t.err.code, DR_OK);
        assert_true(golden_l2(together[i].latents, alone.latents, alone.n_latents) < 1e-5);
    }
    assert_true(golden_l2(together[0].latents, together[1].latents, together[0].n_latents) >
                0.01);
}

/* A file with a key that means nothing here: the picture is made, the client is told. */
static void keys_without_a_place_are_told(void **state)
{
    fixture *f = *state;
    char dir[] = "/tmp/darkroom-lora.XXXXXX", path[DR_PATH_MAX];
    dr_buf file = { 0 };
    uint64_t length;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(
        dr_file_read("tests/golden/lora/loha.safetensors", 1 << 20, &file, NULL), DR_OK);
    memcpy(&length, file.data, sizeof length); /* the header's; names keep their length */
    char *key = memmem(file.data, (size_t)length, "_attn1_to_q.alpha", 17);
    assert_non_null(key);
    memcpy(key, "_attn7", 6);
    assert_int_equal(dr_path_join(path, dir, "odd.safetensors", NULL), DR_OK);
    assert_int_equal(dr_file_write(path, file.data, file.len, NULL), DR_OK);
    fixture other = with_folder(f, dir);
    const dr_lora_ref odd = { "odd", 1, 1 };
    dr_job job = small_job(&odd);
    outcome o = { .g = f->g };
    const dr_observer obs = outcome_observer(&o);
    dr_batch_task t = { .job = &job, .obs = &obs };
    assert_int_equal(dr_batch_plan(other.model, &t, 1), 1);
    dr_batch_run(other.model, &t, 1);
    assert_int_equal(t.err.code, DR_OK);
    assert_int_equal(o.warnings, 1);
    if (!strstr(o.warning, "loras: 1 of the ") || !strstr(o.warning, "_attn7_to_q.alpha"))
        fail_msg("%s", o.warning);
    dr_model_close(other.model);
    dr_buf_free(&file);
    golden_remove_model(dir);
}

/* --- the demo's LoRA --- */

/* Share of the shape's box that is unlike the background, without the outer quarters: 1
 * for a filled square, near 0 for its outline. */
static double filled(const outcome *o)
{
    const uint8_t *p = o->rgb[0];
    int64_t w = o->width, h = o->height, box[4] = { w, h, 0, 0 }, n = 0, inside = 0;
    bool *shape = dr_arena_alloc(o->g->mem, (size_t)(w * h));
    for (int64_t i = 0; i < w * h; i++) {
        int distance = 0;
        for (int c = 0; c < 3; c++)
            distance += abs(p[3 * i + c] - p[c]);
        if (!(shape[i] = distance > 90))
            continue;
        box[0] = i % w < box[0] ? i % w : box[0];
        box[1] = i / w < box[1] ? i / w : box[1];
        box[2] = i % w > box[2] ? i % w : box[2];
        box[3] = i / w > box[3] ? i / w : box[3];
    }
    int64_t dx = (box[2] - box[0]) / 4, dy = (box[3] - box[1]) / 4;
    assert_true(dx > 8 && dy > 8);
    for (int64_t y = box[1] + dy; y <= box[3] - dy; y++)
        for (int64_t x = box[0] + dx; x <= box[2] - dx; x++, n++)
            inside += shape[y * w + x];
    return (double)inside / (double)n;
}

static double draw(golden *g, dr_model *m, const char *prompt, const dr_lora_ref *lora,
                   uint64_t seed)
{
    dr_plan plan;
    dr_run_stats stats;
    dr_err err = { 0 };
    outcome o = { .g = g };
    const dr_observer obs = outcome_observer(&o);
    const dr_job job = { .prompt = prompt,
                         .negative_prompt = "",
                         .n = 1,
                         .seed = seed,
                         .steps = 15,
                         .cfg_scale = 5,
                         .eta = NAN,
                         .loras = { *lora },
                         .n_loras = 1 };
    if (dr_plan_make(&plan, m, &job, &err) ||
        dr_pipeline_run(m, &job, &plan, &obs, &stats, &err))
        fail_msg("%s", err.message);
    outcome_check(&o, &job, &stats, DR_OK);
    return filled(&o);
}

/* Found without a setting; each spelling of its file makes strokes of filled shapes. */
static void the_demo_draws_outlines(void **state)
{
    fixture *f = *state;
    golden *g = f->g;
    static const char *const prompts[] = { "a large red square on a yellow background",
                                           "a large blue circle on a white background" };
    static const char *const names[] = { "outline", "outline-kohya" };
    static const double strengths[] = { 0, 0.8, 1.2 };
    assert_int_equal(dr_conf_set(&g->conf, "lora.dir", "", NULL), DR_OK);
    fixture demo = { .g = g, .model = golden_model(g, GOLDEN_DEMO) };
    for (size_t i = 0; i < DR_COUNT(prompts); i++)
        for (size_t s = 0; s < DR_COUNT(strengths); s++) {
            const dr_lora_ref lora = { names[i], strengths[s], NAN };
            double share = draw(g, demo.model, prompts[i], &lora, 3 + i);
            print_message("%s at %g: %.2f filled\n", names[i], strengths[s], share);
            assert_true(strengths[s] == 0 ? share > 0.8 : share < 0.3);
            dr_lora_report report = apply(&demo, &lora, 1);
            assert_false(report.merged);
            assert_int_equal(report.n, strengths[s] != 0);
            if (report.n) {
                assert_int_equal(report.file[0].matched, i ? 252 : 168);
                assert_int_equal(report.file[0].unmatched, 0);
            }
        }
    dr_model_close(demo.model);
    assert_int_equal(dr_conf_set(&g->conf, "lora.dir", "tests/golden/lora", NULL), DR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_equals_pytorch),
        cmocka_unit_test(strength_0_does_nothing),
        cmocka_unit_test(strengths_have_defaults),
        cmocka_unit_test(two_halves_are_a_whole),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(the_base_comes_back_exactly),
        cmocka_unit_test(kept_sets_cost_nothing),
        cmocka_unit_test(copies_are_private),
        cmocka_unit_test(a_replaced_file_is_another),
        cmocka_unit_test(memory_has_a_limit),
        cmocka_unit_test(texts_follow_the_set),
        cmocka_unit_test(a_check_tells_the_memory),
        cmocka_unit_test(names_stay_in_the_folder),
        cmocka_unit_test(unknown_names_get_the_list),
        cmocka_unit_test(strengths_have_bounds),
        cmocka_unit_test(a_failure_leaves_the_base),
        cmocka_unit_test(other_shapes_are_refused),
        cmocka_unit_test(sets_do_not_mix_in_a_batch),
        cmocka_unit_test(keys_without_a_place_are_told),
        cmocka_unit_test(the_demo_draws_outlines),
    };
    return cmocka_run_group_tests_name("lora", tests, setup, golden_end);
}
