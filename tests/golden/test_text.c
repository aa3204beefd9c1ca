#include "../lib/golden.h"

#include "base/file.h"
#include "base/mem.h"
#include "nn/bpe.h"

#include <stdio.h>
#include <string.h>

/* The text encoder against transformers' CLIPTextModel. */

#define LIMIT 1e-4

typedef struct {
    golden *g;
    const int32_t *ids;
    int64_t n, length, skip;
    float *out;
    dr_run *run;
    int seen;
} text_call;

static void encode(dr_run *r, void *ctx)
{
    text_call *t = ctx;
    t->run = r;
    dr_tensor x = dr_clip_forward(r, &t->g->clip, t->ids, t->n, t->length, NULL, t->skip);
    dr_download(r, x, t->out);
}

/* What the fixtures call the output of a module. */
static const char *fixture_of(const char *name, char *room, size_t size)
{
    static const char layers[] = "text_model.encoder.layers.";
    if (!strcmp(name, "text_model.embeddings"))
        return "text.embeddings";
    if (strncmp(name, layers, sizeof layers - 1) != 0)
        fail_msg("the encoder shows %s, which is in no fixture", name);
    snprintf(room, size, "text.layers.%s", name + sizeof layers - 1);
    return room;
}

static void check_stage(void *ctx, const char *name, dr_tensor x)
{
    char room[64];
    text_call *t = ctx;
    golden_tensor want = golden_get(t->g, fixture_of(name, room, sizeof room));
    assert_int_equal(dr_count(x), golden_count(want));
    dr_download(t->run, x, t->out);
    golden_near(t->g, name, t->out, want.data, golden_count(want), LIMIT);
    t->seen++;
}

static void expect(golden *g, int64_t skip, const char *key, int stages)
{
    const dr_json *text = dr_json_get(g->cases, "text");
    const dr_weight *ids = golden_raw(g, dr_json_get_string(text, "ids", NULL));
    golden_tensor want = golden_of(g, text, key);
    text_call t = { .g = g, .n = ids->dim[0], .length = ids->dim[1], .skip = skip };
    t.ids = memcpy(dr_arena_alloc(g->mem, ids->bytes), ids->data, ids->bytes);
    t.out = dr_arena_alloc(g->mem, golden_count(want) * sizeof(float));
    golden_run(g, encode, &t, 0, check_stage);
    golden_near(g, key, t.out, want.data, golden_count(want), LIMIT);
    assert_int_equal(t.seen, stages);
}

static void every_layer_equals_transformers(void **state)
{
    golden *g = *state;
    expect(g, 0, "last_hidden_state", (int)g->clip.layers + 1);
}

static void clip_skip_leaves_out_the_last_layer(void **state)
{
    golden *g = *state;
    expect(g, 1, "clip_skip_1", (int)g->clip.layers);
}

/* A text alone gives what it gives in a batch, and small tiles what large ones give. */
static void neither_batch_nor_tiles_matter(void **state)
{
    golden *g = *state;
    const dr_json *text = dr_json_get(g->cases, "text");
    const dr_weight *ids = golden_raw(g, dr_json_get_string(text, "ids", NULL));
    golden_tensor want = golden_of(g, text, "last_hidden_state");
    size_t count = golden_count(want) / (size_t)want.n;
    text_call t = { .g = g, .n = 1, .length = ids->dim[1] };
    t.out = dr_arena_alloc(g->mem, count * sizeof(float));
    int32_t *row = dr_arena_alloc(g->mem, ids->bytes);
    memcpy(row, ids->data, ids->bytes);
    for (int64_t i = 0; i < want.n; i++) {
        t.ids = row + i * t.length;
        golden_run(g, encode, &t, 4096, NULL);
        golden_near(g, "one text alone", t.out, want.data + (size_t)i * count, count,
                    LIMIT);
    }
}

static void prompts_become_the_fixtures_ids(void **state)
{
    golden *g = *state;
    const dr_json *text = dr_json_get(g->cases, "text");
    const dr_weight *ids = golden_raw(g, dr_json_get_string(text, "ids", NULL));
    const dr_json *prompts = dr_json_get(text, "prompts");
    char dir[DR_PATH_MAX];
    dr_err err = { 0 };
    dr_bpe *b = NULL;
    snprintf(dir, sizeof dir, "%s/tokenizer", dr_json_get_string(g->cases, "model", ""));
    if (dr_bpe_open(&b, dir, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < dr_json_count(prompts); i++) {
        int32_t row[256];
        int cut, length = (int)ids->dim[1];
        assert_int_equal(
            dr_bpe_row(b, dr_json_string(dr_json_at(prompts, i)), row, length, &cut, &err),
            DR_OK);
        assert_int_equal(cut, 0);
        assert_memory_equal(row, (const char *)ids->data + (size_t)(i * length) * 4,
                            (size_t)length * 4);
    }
    dr_bpe_close(b);
}

static void a_foreign_token_is_refused(void **state)
{
    golden *g = *state;
    int32_t ids[2] = { 0, (int32_t)g->clip.vocabulary };
    float out[2 * 1024];
    dr_run r;
    dr_run_init(&r, g->dev, 4096, 4096);
    dr_run_reset(&r, true);
    assert_true(g->clip.width <= 1024);
    encode(&r, &(text_call){ .g = g, .ids = ids, .n = 1, .length = 2, .out = out });
    assert_int_equal(r.err.code, DR_EMODEL);
    assert_non_null(strstr(r.err.message, "is not in the text encoder's table of"));
    dr_run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_become_the_fixtures_ids),
        cmocka_unit_test(every_layer_equals_transformers),
        cmocka_unit_test(clip_skip_leaves_out_the_last_layer),
        cmocka_unit_test(neither_batch_nor_tiles_matter),
        cmocka_unit_test(a_foreign_token_is_refused),
    };
    return cmocka_run_group_tests_name("demo", tests, golden_demo, golden_teardown) +
           cmocka_run_group_tests_name("tiny-sd1", tests, golden_tiny, golden_teardown);
}
