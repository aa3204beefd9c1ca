#include "../lib/golden.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* The UNet against diffusers' UNet2DConditionModel. */

#define LIMIT 1e-4

typedef struct {
    golden *g;
    golden_tensor sample, text;
    double timestep, in_scale;
    int64_t batch; /* rows of the evaluation, a multiple of the samples */
    float *out;    /* room for the widest stage too */
    const char *stages;
    dr_run *run;
    int seen;
} unet_call;

static void evaluate(dr_run *r, void *ctx)
{
    unet_call *u = ctx;
    const dr_unet *m = &u->g->unet;
    u->run = r;
    dr_tensor x = golden_put(r, u->sample), text = golden_put(r, u->text);
    dr_unet_read_text(r, m, text, u->g->kv);
    const dr_unet_call call = {
        .x = x, .batch = u->batch, .in_scale = u->in_scale, .timestep = u->timestep
    };
    dr_tensor y = dr_unet_forward(r, m, &call, u->g->kv);
    dr_download(r, y, u->out);
}

/* Rows of a context as the case lists them. */
static golden_tensor rows_of(golden *g, const dr_json *item)
{
    const dr_json *rows = dr_json_get(item, "context_rows");
    golden_tensor all = golden_of(g, item, "context"), some = all;
    size_t count = golden_count(all) / (size_t)all.n;
    some.n = dr_json_count(rows);
    some.data = dr_arena_alloc(g->mem, (size_t)some.n * count * sizeof(float));
    for (int i = 0; i < some.n; i++)
        memcpy(some.data + (size_t)i * count,
               all.data + (size_t)dr_json_number(dr_json_at(rows, i)) * count,
               count * sizeof(float));
    return some;
}

static unet_call call_of(golden *g, const dr_json *item)
{
    unet_call u = { .g = g,
                    .sample = golden_of(g, item, "sample"),
                    .text = rows_of(g, item),
                    .timestep = dr_json_get_number(item, "timestep", 0),
                    .in_scale = 1,
                    .stages = dr_json_get_string(item, "stages", NULL) };
    u.batch = u.sample.n;
    /* No block is wider than 4 times the last level in all channels together. */
    size_t room = golden_count(u.sample) / 4 * 1024;
    u.out = dr_arena_alloc(g->mem, room * sizeof(float));
    return u;
}

/* Two names for one tensor: the fixtures know the parts of a block, not the block. */
static bool is_whole_block(const char *name)
{
    const char *dot = strchr(name, '.');
    return !strcmp(name, "mid_block") || (dot && !strchr(dot + 1, '.'));
}

static void check_stage(void *ctx, const char *name, dr_tensor x)
{
    char key[160];
    unet_call *u = ctx;
    if (is_whole_block(name))
        return;
    snprintf(key, sizeof key, "%s%s", u->stages, name);
    golden_tensor want = golden_get(u->g, key);
    /* A timestep's embedding is one row here, one an image there; all are equal. */
    want.n = x.n < want.n ? x.n : want.n;
    assert_int_equal(dr_count(x), golden_count(want));
    dr_download(u->run, x, u->out);
    golden_near(u->g, key, u->out, want.data, golden_count(want), LIMIT);
    u->seen++;
}

/* Whether a module's output is a stage here: the borders of the blocks, not what lies
 * within a layer nor the norm that runs fused with SiLU. */
static bool is_border(const char *path)
{
    static const char *const single[] = { "conv_in", "conv_out", "time_embedding" };
    for (size_t i = 0; i < DR_COUNT(single); i++)
        if (!strcmp(path, single[i]))
            return true;
    size_t n = strlen(path);
    return n > 1 && path[n - 2] == '.' && isdigit((unsigned char)path[n - 1]) &&
           !strstr(path, ".transformer_blocks.");
}

static int border_stages(golden *g, const char *prefix)
{
    int n = 0;
    for (size_t i = 0; i < dr_weights_count(g->stages); i++) {
        const char *name = dr_weights_at(g->stages, i)->name;
        n += !strncmp(name, prefix, strlen(prefix)) && is_border(name + strlen(prefix));
    }
    return n;
}

static void every_call_equals_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *list = dr_json_get(g->cases, "unet"), *item;
    int calls = 0, staged = 0;
    for (item = dr_json_first(list); item; item = dr_json_next(item), calls++) {
        unet_call u = call_of(g, item);
        golden_tensor want = golden_of(g, item, "output");
        golden_run(g, evaluate, &u, 0, u.stages ? check_stage : NULL);
        golden_near(g, dr_json_get_string(item, "output", ""), u.out, want.data,
                    golden_count(want), LIMIT);
        if (u.stages)
            assert_int_equal(u.seen, border_stages(g, u.stages));
        staged += u.stages != NULL;
    }
    assert_true(calls >= 3);
    assert_int_equal(staged, 1);
}

/* The case named by its output's key. */
static const dr_json *case_of(golden *g, const char *output)
{
    const dr_json *item = dr_json_first(dr_json_get(g->cases, "unet"));
    while (item && strcmp(dr_json_get_string(item, "output", ""), output) != 0)
        item = dr_json_next(item);
    assert_non_null(item);
    return item;
}

/* Guidance: both texts read the same latents; each row is what it is alone. */
static void guidance_rows_share_the_latents(void **state)
{
    golden *g = *state;
    const dr_json *item = case_of(g, "unet.single.output");
    golden_tensor want = golden_of(g, item, "output");
    size_t count = golden_count(want);
    unet_call u = call_of(g, item), swapped = call_of(g, item);
    u.text = golden_of(g, item, "context"); /* all rows; the case wants the second */
    assert_int_equal(u.text.n, 2);
    u.batch = 2;
    golden_run(g, evaluate, &u, 0, NULL);
    golden_near(g, "the second of two rows", u.out + count, want.data, count, LIMIT);
    assert_true(golden_l2(u.out, want.data, count) > 100 * LIMIT);
    swapped.batch = 2; /* one text for both rows */
    golden_run(g, evaluate, &swapped, 0, NULL);
    golden_near(g, "row 0 of one text", swapped.out, want.data, count, LIMIT);
    golden_near(g, "row 1 of one text", swapped.out + count, want.data, count, LIMIT);
}

/* A sampler's input scale is folded into the first convolution. */
static void in_scale_scales_the_input(void **state)
{
    golden *g = *state;
    const dr_json *item = case_of(g, "unet.single.output");
    golden_tensor want = golden_of(g, item, "output");
    unet_call u = call_of(g, item);
    for (size_t i = 0; i < golden_count(u.sample); i++)
        u.sample.data[i] *= 8;
    u.in_scale = 0.125;
    golden_run(g, evaluate, &u, 0, NULL);
    golden_near(g, "in_scale 1/8", u.out, want.data, golden_count(want), LIMIT);
}

/* Attention and convolutions in many small tiles, the last ones not full. */
static void tiles_do_not_matter(void **state)
{
    golden *g = *state;
    const dr_json *item = case_of(g, "unet.wide.output");
    golden_tensor want = golden_of(g, item, "output");
    static const size_t tiles[] = { 3000, 50000 };
    for (size_t i = 0; i < DR_COUNT(tiles); i++) {
        unet_call u = call_of(g, item);
        golden_run(g, evaluate, &u, tiles[i], NULL);
        golden_near(g, "small tiles", u.out, want.data, golden_count(want), LIMIT);
    }
}

/* Two images in a batch are what each is alone. */
static void batch_neighbours_do_not_matter(void **state)
{
    golden *g = *state;
    unet_call u = call_of(g, case_of(g, "unet.output"));
    golden_tensor want = golden_of(g, case_of(g, "unet.output"), "output");
    size_t count = golden_count(want) / 2, room = golden_count(u.text) / 2;
    u.sample.n = u.text.n = u.batch = 1;
    for (size_t i = 0; i < 2; i++) {
        golden_run(g, evaluate, &u, 0, NULL);
        golden_near(g, "an image of the batch alone", u.out, want.data + i * count, count,
                    LIMIT);
        u.sample.data += golden_count(u.sample);
        u.text.data += room;
    }
}

typedef struct {
    golden *g;
    double timestep;
    float *proj, *embedding;
} time_call;

static void embed_time(dr_run *r, void *ctx)
{
    time_call *t = ctx;
    const dr_unet *m = &t->g->unet;
    dr_download(
        r, op_embed_timestep(r, t->timestep, m->width, m->flip_sin_to_cos, m->freq_shift),
        t->proj);
    dr_download(r, dr_unet_time(r, m, t->timestep), t->embedding);
}

static void timesteps_embed_as_in_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *time = dr_json_get(g->cases, "time");
    const dr_json *steps = dr_json_get(time, "timesteps");
    golden_tensor proj = golden_of(g, time, "proj");
    golden_tensor embedding = golden_of(g, time, "embedding");
    assert_int_equal(proj.n, dr_json_count(steps));
    assert_int_equal(proj.c, g->unet.width);
    assert_int_equal(embedding.c, g->unet.time_c);
    time_call t = { .g = g,
                    .proj = dr_arena_alloc(g->mem, (size_t)proj.c * sizeof(float)),
                    .embedding = dr_arena_alloc(g->mem, (size_t)embedding.c * 4) };
    for (int i = 0; i < proj.n; i++) {
        t.timestep = dr_json_number(dr_json_at(steps, i));
        golden_run(g, embed_time, &t, 0, NULL);
        golden_near(g, "time.proj", t.proj, proj.data + i * proj.c, (size_t)proj.c, LIMIT);
        golden_near(g, "time.embedding", t.embedding, embedding.data + i * embedding.c,
                    (size_t)embedding.c, LIMIT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timesteps_embed_as_in_diffusers),
        cmocka_unit_test(every_call_equals_diffusers),
        cmocka_unit_test(guidance_rows_share_the_latents),
        cmocka_unit_test(in_scale_scales_the_input),
        cmocka_unit_test(tiles_do_not_matter),
        cmocka_unit_test(batch_neighbours_do_not_matter),
    };
    return cmocka_run_group_tests_name("demo", tests, golden_demo, golden_teardown) +
           cmocka_run_group_tests_name("tiny-sd1", tests, golden_tiny, golden_teardown);
}
