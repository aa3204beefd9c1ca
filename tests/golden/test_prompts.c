#include "../lib/outcome.h"

#include "base/file.h"
#include "diffusion/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Prompts with weights, chunks, schedules and embeddings, and guidance beyond CFG, against
 * the published rules worked out on transformers and diffusers
 * (contrib/goldens/prompts.py); and what holds for them whatever they say. */

#define LIMIT_TEXT 1e-5
#define LIMIT      1e-4 /* of latents after a run */
#define EMBEDDINGS "tests/golden/prompts/embeddings"

typedef struct {
    golden *g;
    dr_model *tiny, *demo;
} fixture;

static dr_model *open_model(golden *g, const char *path, const char *embeddings)
{
    assert_int_equal(dr_conf_set(&g->conf, "embeddings.dir", embeddings, NULL), DR_OK);
    return golden_model(g, path);
}

static int setup(void **state)
{
    fixture *f = golden_begin(state, "tests/golden/prompts", sizeof *f);
    f->tiny = golden_keep(f->g, open_model(f->g, GOLDEN_TINY, EMBEDDINGS));
    f->demo = golden_keep(f->g, open_model(f->g, GOLDEN_DEMO, EMBEDDINGS));
    return 0;
}

/* --- embeddings of texts --- */

typedef struct {
    dr_model *m;
    dr_text text;
    dr_text_ask ask;
    float *out;
} text_call;

static void encode(dr_run *r, text_call *t)
{
    const dr_text *text = &t->text;
    dr_tensor x = dr_new(r, 1, t->ask.chunks * t->m->clip.length, 1, t->m->clip.width);
    dr_text_encode(r, t->m, &text, 1, &t->ask, x);
    dr_download(r, x, t->out);
}

/* Dry, then for real in the memory that this found; chunks that are known need less. */
static void run_text(golden *g, text_call *t)
{
    dr_run r;
    dr_err err = { 0 };
    dr_run_init(&r, g->dev, 1 << 20, 1 << 20);
    dr_run_reset(&r, true);
    encode(&r, t);
    size_t peak = r.peak_bytes;
    assert_int_equal(r.err.code, DR_OK);
    assert_int_equal(dr_run_reserve(&r, peak, &err), DR_OK);
    dr_run_reset(&r, false);
    encode(&r, t);
    if (r.err.code)
        fail_msg("%s", r.err.message);
    assert_true(r.peak_bytes <= peak);
    dr_run_free(&r);
}

static void encode_case(fixture *f, dr_model *m, const dr_json *item)
{
    const char *prompt = dr_json_get_string(item, "prompt", NULL);
    golden_tensor want = golden_of(f->g, item, "embedding");
    dr_err err = { 0 };
    dr_vectors vectors = { 0 };
    dr_reading r = { .mem = f->g->mem, .field = "prompt" };
    text_call t = { .m = m, .out = dr_arena_alloc(f->g->mem, golden_count(want) * 4) };
    if (dr_text_make(&t.text, &vectors, m, &r, prompt, &err))
        fail_msg("%s: %s", prompt, err.message);
    assert_int_equal(r.n, 0);
    assert_int_equal(t.text.chunks * m->clip.length, want.h);
    t.ask = (dr_text_ask){ .chunks = t.text.chunks,
                           .skip = (int64_t)dr_json_get_number(item, "clip_skip", 0),
                           .empty = &t.text,
                           .vectors = &vectors };
    run_text(f->g, &t);
    golden_near(f->g, prompt, t.out, want.data, golden_count(want), LIMIT_TEXT);
    /* And once more, from the cache. */
    float *again = dr_arena_alloc(f->g->mem, golden_count(want) * 4);
    memcpy(again, t.out, golden_count(want) * 4);
    run_text(f->g, &t);
    assert_memory_equal(again, t.out, golden_count(want) * 4);
}

static void texts_equal_the_rule(void **state)
{
    fixture *f = *state;
    const dr_json *list = dr_json_get(f->g->cases, "text"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        bool demo = strstr(dr_json_get_string(item, "model", ""), "demo") != NULL;
        encode_case(f, demo ? f->demo : f->tiny, item);
    }
    assert_true(dr_json_count(list) >= 20);
}

/* --- running jobs --- */

static dr_status try_run(fixture *f, dr_model *m, const dr_job *job, outcome *o,
                         dr_err *err)
{
    dr_plan plan;
    dr_run_stats stats;
    *o = (outcome){ .g = f->g };
    const dr_observer obs = outcome_observer(o);
    dr_status st = dr_plan_make(&plan, m, job, err);
    if (st)
        return st;
    st = dr_pipeline_run(m, job, &plan, &obs, &stats, err);
    outcome_check(o, job, &stats, st);
    return st;
}

static outcome run(fixture *f, const dr_job *job)
{
    outcome o;
    dr_err err = { 0 };
    if (try_run(f, f->tiny, job, &o, &err))
        fail_msg("%s: %s", job->prompt, err.message);
    return o;
}

static dr_job case_job(const dr_json *item)
{
    dr_job job = golden_job(item);
    job.cfg_start = dr_json_get_number(item, "cfg_start", 0);
    job.cfg_end = dr_json_get_number(item, "cfg_end", 1);
    job.cfg_rescale = dr_json_get_number(item, "cfg_rescale", 0);
    job.perp_neg = dr_json_get_bool(item, "perp_neg", false);
    return job;
}

static dr_job short_job(fixture *f, const char *prompt)
{
    dr_job job = case_job(dr_json_first(dr_json_get(f->g->cases, "pictures")));
    job.prompt = prompt;
    job.negative_prompt = "fog";
    job.noise = DR_NOISE_PHILOX;
    job.steps = 4;
    return job;
}

static void pictures_equal_diffusers(void **state)
{
    fixture *f = *state;
    const dr_json *list = dr_json_get(f->g->cases, "pictures"), *item;
    for (item = dr_json_first(list); item; item = dr_json_next(item)) {
        dr_job job = case_job(item);
        outcome o = run(f, &job);
        golden_tensor want = golden_of(f->g, item, "latents");
        assert_int_equal(o.warnings, 0);
        golden_near(f->g, job.prompt, o.latents, want.data, golden_count(want), LIMIT);
    }
    assert_int_equal(dr_json_count(list), 8);
}

static void same_bytes(const outcome *a, const outcome *b)
{
    assert_memory_equal(a->latents, b->latents, a->n_latents * sizeof(float));
    assert_memory_equal(a->rgb[0], b->rgb[0], outcome_bytes(a));
}

static bool differ(const outcome *a, const outcome *b)
{
    return memcmp(a->latents, b->latents, a->n_latents * sizeof(float)) != 0;
}

/* What means the same is the same, bit for bit. */
static void same_meaning_same_bytes(void **state)
{
    static const char *const same[][2] = {
        { "a castle in the fog", "(a castle:1) in (the:1.0) fog" },
        { "a castle in the fog", "a [castle:castle:0.5] in the fog" },
        { "a castle in the fog", "[a castle in the fog::4]" },
        { "a castle in the fog", "a castle [in|in] the fog" },
        { "a castle", "a castle [(fog:1.3):4]" },
        { "(a:1.1) castle", "(a) castle" },
        { "a house of charm", "a house of <charm>" },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(same); i++) {
        dr_job a = short_job(f, same[i][0]), b = short_job(f, same[i][1]);
        outcome x = run(f, &a), y = run(f, &b);
        same_bytes(&x, &y);
    }
    dr_job a = short_job(f, "a castle"), b = a;
    b.cfg_end = 0; /* unset */
    outcome x = run(f, &a), y = run(f, &b);
    same_bytes(&x, &y);
}

static void other_meaning_other_bytes(void **state)
{
    static const char *const all[] = {
        "a castle",       "(a castle:1.2)", "a [castle:house:0.5]", "a [castle|house]",
        "a BREAK castle", "a castle charm", "a castle night-sky"
    };
    fixture *f = *state;
    outcome o[DR_COUNT(all)];
    for (size_t i = 0; i < DR_COUNT(all); i++) {
        dr_job job = short_job(f, all[i]);
        o[i] = run(f, &job);
        for (size_t k = 0; k < i; k++)
            assert_true(differ(&o[i], &o[k]));
    }
}

/* --- batches and checkpoints --- */

static void planned(fixture *f, dr_batch_task *t, const dr_job *jobs, int n, int fit)
{
    for (int i = 0; i < n; i++)
        t[i] = (dr_batch_task){ .job = &jobs[i] };
    assert_int_equal(dr_batch_plan(f->tiny, t, n), fit);
}

/* Jobs of one pass may have schedules of their own; another number of chunks, or other
 * steps with guidance, are another pass. */
static void batches_keep_to_their_texts(void **state)
{
    static char many_words[256];
    fixture *f = *state;
    for (int i = 0; i < 80; i++)
        memcpy(many_words + 2 * i, "a ", 3);
    dr_job jobs[4] = { short_job(f, "a [castle:house:0.5]"),
                       short_job(f, "a [house|sea|fog]"), short_job(f, "a castle"),
                       short_job(f, many_words) };
    jobs[2].cfg_end = 0.5;
    jobs[1].cfg_rescale = 0.5;
    dr_batch_task t[4];
    dr_observer obs[4];
    outcome o[4];
    planned(f, t, jobs, 4, 2);
    assert_int_equal(t[0].plan.text_chunks, 1);
    assert_int_equal(t[3].plan.text_chunks, 2);
    for (int i = 0; i < 4; i++) {
        o[i] = (outcome){ .g = f->g };
        obs[i] = outcome_observer(&o[i]);
        t[i].obs = &obs[i];
    }
    dr_batch_run(f->tiny, t, 4);
    for (int i = 0; i < 4; i++) {
        outcome_check(&o[i], &jobs[i], &t[i].stats, DR_OK);
        outcome alone = run(f, &jobs[i]);
        golden_near(f->g, jobs[i].prompt, o[i].latents, alone.latents, alone.n_latents,
                    LIMIT);
    }
}

/* Stopped after k steps and gone on with: the bytes of a run without a stop. */
static outcome stopped(fixture *f, const dr_job *job, int64_t after)
{
    dr_err err = { 0 };
    dr_plan plan;
    outcome o = { .g = f->g, .stop = DR_STOP_KEEP, .stop_after = after };
    const dr_observer obs = outcome_observer(&o);
    assert_int_equal(dr_plan_make(&plan, f->tiny, job, &err), DR_OK);
    assert_int_equal(dr_pipeline_run(f->tiny, job, &plan, &obs, NULL, &err), DR_ESTOPPED);
    assert_int_equal(o.checkpoints, 1);
    return o;
}

static outcome resumed(fixture *f, const dr_job *job, const outcome *from)
{
    outcome o = { .g = f->g };
    const dr_observer obs = outcome_observer(&o);
    dr_batch_task t = { .job = job,
                        .obs = &obs,
                        .resume = from->checkpoint.data,
                        .resume_bytes = from->checkpoint.len };
    assert_int_equal(dr_batch_plan(f->tiny, &t, 1), 1);
    dr_batch_run(f->tiny, &t, 1);
    outcome_check(&o, job, &t.stats, DR_OK);
    return o;
}

static void resumed_equals_uninterrupted(void **state)
{
    fixture *f = *state;
    dr_job job = short_job(f, "a [castle:house:0.5] [by|in] the sea [<nothing>::1]");
    job.steps = 6;
    job.cfg_start = 0.2;
    job.cfg_end = 0.7;
    job.perp_neg = true;
    outcome want = run(f, &job);
    assert_int_equal(want.warnings, 1);
    for (int64_t k = 1; k < job.steps; k++) {
        outcome half = stopped(f, &job, k), have = resumed(f, &job, &half);
        assert_int_equal(have.first.step, k + 1);
        assert_int_equal(have.warnings, 0); /* told before */
        same_bytes(&have, &want);
        dr_job others[5] = { job, job, job, job, job };
        others[0].cfg_rescale = 0.1;
        others[1].cfg_start = 0;
        others[2].cfg_end = 0.9;
        others[3].perp_neg = false;
        others[4].prompt = "a [castle:house:0.6] [by|in] the sea";
        for (int i = 0; i < 5; i++) {
            outcome anew = resumed(f, &others[i], &half);
            assert_int_equal(anew.first.step, 1);
        }
        outcome_free(&half);
    }
}

/* --- notes --- */

static void what_has_no_effect_is_told(void **state)
{
    static const struct {
        const char *prompt;
        int64_t steps;
        const char *note;
    } rows[] = {
        { "a castle", 4, NULL },
        { "a (castle:abc)", 4, "prompt: \":abc\" is no weight" },
        { "a <castle> of <3 and > fog <|x|>", 4,
          "prompt: <castle> names no embedding; it is read as text" },
        { "a [castle|house]", 1, "prompt: [castle|house] has 2 texts for 1 steps" },
        { "a castle AND a house", 4, "prompt: AND does not compose prompts here" },
        { "a [castle:house:9]", 4, "[castle:house:9] changes after the last of 4 steps" },
    };
    static char long_prompt[2048];
    fixture *f = *state;
    outcome o;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_job job = short_job(f, rows[i].prompt);
        job.steps = rows[i].steps;
        o = run(f, &job);
        assert_int_equal(o.warnings, rows[i].note != NULL);
        if (rows[i].note && !strstr(o.warning, rows[i].note))
            fail_msg("%s: %s", rows[i].prompt, o.warning);
    }
    for (int i = 0; i < 607; i++)
        memcpy(long_prompt + 2 * i, "a ", 3);
    dr_job job = short_job(f, "a castle");
    job.negative_prompt = long_prompt;
    job.steps = 1;
    o = run(f, &job);
    assert_string_equal(o.warning, "negative_prompt: 7 tokens longer than the 600 that are "
                                   "read; its end had no effect");
    job = short_job(f, "a castle");
    job.perp_neg = true;
    job.negative_prompt = "";
    outcome plain = run(f, &job);
    assert_string_equal(plain.warning, "perp_neg: has no effect without a negative prompt");
    job.perp_neg = false;
    o = run(f, &job);
    assert_int_equal(o.warnings, 0);
    same_bytes(&o, &plain);
    job.cfg_scale = 1;
    job.negative_prompt = "fog";
    o = run(f, &job);
    assert_string_equal(o.warning, "negative_prompt: has no effect without guidance");
    job.negative_prompt = "";
    job.cfg_rescale = 0.5;
    o = run(f, &job);
    assert_string_equal(o.warning, "cfg_rescale: has no effect without guidance");
    job = short_job(f, "a castle");
    job.cfg_start = 0.9;
    job.cfg_end = 0.95;
    o = run(f, &job);
    assert_string_equal(o.warning, "cfg_start: no step lies between cfg_start and cfg_end; "
                                   "guidance is off");
}

/* --- memory and work --- */

static dr_plan plan_of(fixture *f, const dr_job *job)
{
    dr_plan plan;
    dr_err err = { 0 };
    if (dr_plan_make(&plan, f->tiny, job, &err))
        fail_msg("%s", err.message);
    return plan;
}

static void the_dry_run_counts_texts(void **state)
{
    fixture *f = *state;
    dr_job job = short_job(f, "a castle"), many = job, twice = job, half = job, perp = job;
    job.steps = many.steps = twice.steps = half.steps = perp.steps = 10;
    many.prompt = "a [castle|house|sea|fog|moon|tower|river|snow|road|hill]";
    twice.prompt = "a castle BREAK a house";
    half.cfg_end = 0.5;
    perp.perp_neg = true;
    dr_plan one = plan_of(f, &job), ten = plan_of(f, &many), two = plan_of(f, &twice);
    dr_plan some = plan_of(f, &half), three = plan_of(f, &perp);
    int64_t kv = 0; /* of a text */
    for (int i = 0; i < f->tiny->unet.n_kv; i++)
        kv += 2 * f->tiny->clip.length * f->tiny->kv[i].k.c * (int64_t)sizeof(float);
    assert_true(ten.peak_bytes >= one.peak_bytes + 9 * kv);
    assert_true(two.peak_bytes >= one.peak_bytes + 2 * kv);
    assert_true(ten.pass[0].encode_flops > 5 * one.pass[0].encode_flops);
    assert_int_equal(one.guides, 2);
    assert_int_equal(three.guides, 3);
    assert_int_equal(two.text_chunks, 2);
    assert_int_equal(some.pass[0].guided_end, 5);
    assert_true(fabs(some.pass[0].step_flops / one.pass[0].step_flops - 0.75) < 1e-9);
    assert_true(three.pass[0].step_flops > 1.4 * one.pass[0].step_flops);
    assert_true(three.peak_bytes > one.peak_bytes);
}

/* --- files of embeddings --- */

typedef struct {
    const char *key, *dtype;
    int64_t rows, width; /* rows 0: one dimension */
    float value;
    bool twice; /* a second tensor, key + "2" */
} vector_file;

static void write_vectors(const char *dir, const char *name, const vector_file *v)
{
    char path[DR_PATH_MAX], shape[64];
    dr_buf file = { 0 }, header = { 0 };
    size_t bytes = (size_t)((v->rows ? v->rows : 1) * v->width) * 4;
    snprintf(shape, sizeof shape, v->rows ? "[%lld,%lld]" : "[%.0lld%lld]",
             (long long)v->rows, (long long)v->width);
    dr_buf_printf(&header,
                  "{\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,%zu]}",
                  v->key, v->dtype, shape, bytes);
    if (v->twice)
        dr_buf_printf(
            &header,
            ",\"%s2\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[%zu,%zu]}", v->key,
            bytes, bytes);
    dr_buf_puts(&header, "}");
    uint64_t n = header.len;
    dr_buf_put(&file, &n, sizeof n);
    dr_buf_put(&file, header.data, header.len);
    for (size_t i = 0; i < bytes / 4; i++)
        dr_buf_put(&file, &v->value, 4);
    assert_int_equal(dr_path_join(path, dir, name, NULL), DR_OK);
    assert_int_equal(dr_file_write(path, file.data, file.len, NULL), DR_OK);
    dr_buf_free(&file);
    dr_buf_free(&header);
}

static void expect_refused(fixture *f, dr_model *m, const char *prompt, dr_status code,
                           const char *field, const char *message)
{
    dr_job job = short_job(f, prompt);
    dr_plan plan;
    dr_err err = { 0 };
    assert_int_equal(dr_plan_make(&plan, m, &job, &err), code);
    assert_string_equal(err.field, field);
    if (!strstr(err.message, message))
        fail_msg("%s: %s", prompt, err.message);
}

static void bad_files_are_refused(void **state)
{
    static const struct {
        const char *file;
        vector_file v;
        const char *prompt;
        dr_status code;
        const char *field, *message;
    } rows[] = {
        { "wide.safetensors",
          { "emb_params", "F32", 2, 64, 1, false },
          "a wide house",
          DR_EINVAL,
          "prompt",
          "wide: its vectors are 64 wide, this model's text encoder is 40" },
        { "crowd.safetensors",
          { "emb_params", "F32", 76, 40, 1, false },
          "(crowd:1.2)",
          DR_EINVAL,
          "prompt",
          "crowd: 76 vectors, at most 75 fit" },
        { "void.safetensors",
          { "x", "F32", 2, 40, NAN, false },
          "<void>",
          DR_EMODEL,
          "",
          "void: value 0 is no finite number" },
        { "pair.safetensors",
          { "clip_l", "F32", 2, 40, 1, true },
          "pair",
          DR_EMODEL,
          "",
          "pair: the file holds 2 tensors and none is called emb_params" },
        { "whole.safetensors",
          { "emb_params", "I32", 2, 40, 1, false },
          "whole",
          DR_EMODEL,
          "",
          "whole: emb_params is I32; known are F32, F16 and BF16" },
        { "old.pt",
          { "x", "F32", 2, 40, 1, false },
          "an old house",
          DR_EINVAL,
          "prompt",
          "old: there is only old.pt, a pickle, which may run anything when it is read; "
          "convert it to old.safetensors" },
    };
    fixture *f = *state;
    char dir[] = "/tmp/darkroom-embeddings.XXXXXX", path[DR_PATH_MAX];
    assert_non_null(mkdtemp(dir));
    dr_model *m = open_model(f->g, GOLDEN_TINY, dir);
    outcome o;
    dr_err err = { 0 };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_job job = short_job(f, rows[i].prompt);
        job.steps = 1;
        assert_int_equal(try_run(f, m, &job, &o, &err),
                         DR_OK); /* a word until it is there */
        write_vectors(dir, rows[i].file, &rows[i].v);
        expect_refused(f, m, rows[i].prompt, rows[i].code, rows[i].field, rows[i].message);
    }
    assert_int_equal(dr_path_join(path, dir, "cut.safetensors", NULL), DR_OK);
    assert_int_equal(dr_file_write(path, "\xff\xff\xff\xff\xff\xff\xff\x7f{", 9, NULL),
                     DR_OK);
    expect_refused(f, m, "a cut", DR_EMODEL, "", "cut.safetensors");
    /* What can be read comes before a pickle of the same name; other files do not matter.
     */
    write_vectors(dir, "old.safetensors",
                  &(vector_file){ "<old>", "F32", 0, 40, 1, false });
    write_vectors(dir, "castle.txt", &(vector_file){ "x", "F32", 2, 64, 1, false });
    write_vectors(dir, ".castle.safetensors",
                  &(vector_file){ "x", "F32", 2, 64, 1, false });
    dr_job job = short_job(f, "an old castle ../old");
    assert_int_equal(try_run(f, m, &job, &o, &err), DR_OK);
    dr_model_close(m);
    golden_remove_model(dir);
}

/* The family of the demo model is another. */
static void another_width_is_refused(void **state)
{
    fixture *f = *state;
    expect_refused(f, f->demo, "a house of charm", DR_EINVAL, "prompt",
                   "embedding charm: its vectors are 40 wide, this model's text encoder is "
                   "128 wide");
}

static void a_missing_folder_is_told(void **state)
{
    fixture *f = *state;
    dr_model *m = NULL;
    dr_err err = { 0 };
    assert_int_equal(dr_conf_set(&f->g->conf, "embeddings.dir", "/nowhere", NULL), DR_OK);
    assert_int_equal(
        dr_model_open(&m, f->g->dev, GOLDEN_TINY, &f->g->conf, NULL, NULL, &err), DR_EIO);
    assert_string_equal(err.field, "embeddings.dir");
    assert_null(m);
}

/* Other vectors under the same name are another picture, and another job's checkpoint. */
static void changed_vectors_count(void **state)
{
    fixture *f = *state, own = *f;
    char dir[] = "/tmp/darkroom-embeddings.XXXXXX";
    assert_non_null(mkdtemp(dir));
    vector_file v = { "emb_params", "F32", 2, 40, 0.5f, false };
    write_vectors(dir, "mood.safetensors", &v);
    own.tiny = open_model(f->g, GOLDEN_TINY, dir);
    dr_job job = short_job(f, "a castle, mood");
    outcome before = run(&own, &job), half = stopped(&own, &job, 2);
    v.value = -0.5f;
    write_vectors(dir, "mood.safetensors", &v);
    outcome after = run(&own, &job), anew = resumed(&own, &job, &half);
    assert_true(differ(&before, &after));
    assert_int_equal(anew.first.step, 1);
    assert_non_null(strstr(anew.warning, "another job"));
    same_bytes(&anew, &after);
    outcome_free(&half);
    dr_model_close(own.tiny);
    golden_remove_model(dir);
}

/* --- any prompt --- */

static uint32_t next_random(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    return *x ^= *x << 5;
}

/* Every prompt can be planned, and its rows are rows of the encoder. */
static void any_prompt_makes_rows(void **state)
{
    static const char *const parts[] = { "(",
                                         ")",
                                         "[",
                                         "]",
                                         ":",
                                         "|",
                                         "\\",
                                         "1.2",
                                         "0.5",
                                         " ",
                                         "BREAK",
                                         "a castle",
                                         ",",
                                         "<charm>",
                                         "night-sky",
                                         "<",
                                         ">",
                                         "[a|",
                                         "fog fog fog fog fog fog fog fog fog ",
                                         "charm charm charm charm ",
                                         "\xe6\xbc\xa2" };
    fixture *f = *state;
    dr_model *m = f->tiny;
    uint32_t x = 20240607;
    for (int round = 0; round < 3000; round++) {
        char text[2048] = "";
        size_t len = 0, want = next_random(&x) % (round % 4 ? 100 : 1900);
        dr_arena *mem = dr_arena_new();
        dr_reading r = { .mem = mem, .field = "prompt" };
        dr_vectors v = { 0 };
        dr_text t;
        dr_err err = { 0 };
        while (len < want)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s",
                                    parts[next_random(&x) % DR_COUNT(parts)]);
        if (dr_text_make(&t, &v, m, &r, text, &err))
            fail_msg("%s: %s", text, err.message);
        assert_true(t.chunks >= 1 && t.chunks <= DR_TEXT_CHUNKS_MAX);
        assert_true(v.n <= 4);
        for (int i = 0; i < t.chunks * 77; i++) {
            bool end = i % 77 == 0;
            assert_true(t.ids[i] >= 0 && t.ids[i] < m->clip.vocabulary + v.n);
            assert_int_equal(t.ids[i] == dr_bpe_bos(m->bpe), end);
            assert_true(isfinite(t.weights[i]) && (!end || t.weights[i] == 1));
            /* The three vectors of one name stay together, in one row. */
            int32_t k = t.ids[i] - (int32_t)m->clip.vocabulary;
            if (k >= 0 && v.n >= 3 && i % 77 < 75 && t.ids[i + 1] == t.ids[i] + 1)
                assert_true(i % 77 >= 1);
        }
        dr_arena_free(mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_equal_the_rule),
        cmocka_unit_test(pictures_equal_diffusers),
        cmocka_unit_test(same_meaning_same_bytes),
        cmocka_unit_test(other_meaning_other_bytes),
        cmocka_unit_test(batches_keep_to_their_texts),
        cmocka_unit_test(resumed_equals_uninterrupted),
        cmocka_unit_test(what_has_no_effect_is_told),
        cmocka_unit_test(the_dry_run_counts_texts),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(another_width_is_refused),
        cmocka_unit_test(a_missing_folder_is_told),
        cmocka_unit_test(changed_vectors_count),
        cmocka_unit_test(any_prompt_makes_rows),
    };
    return cmocka_run_group_tests(tests, setup, golden_end);
}
