#include "../lib/golden.h"

#include <stdio.h>
#include <string.h>

/* The autoencoder against diffusers' AutoencoderKL. */

#define LIMIT 1e-4

typedef struct {
    golden *g;
    golden_tensor input;
    float *out, *room; /* room: for a stage */
    dr_run *run;
    int seen;
} vae_call;

static void decode(dr_run *r, void *ctx)
{
    vae_call *v = ctx;
    v->run = r;
    dr_download(r, dr_vae_decode(r, &v->g->vae, golden_put(r, v->input)), v->out);
}

static void encode(dr_run *r, void *ctx)
{
    vae_call *v = ctx;
    v->run = r;
    dr_download(r, dr_vae_encode(r, &v->g->vae, golden_put(r, v->input)), v->out);
}

static vae_call call_of(golden *g, const dr_json *item, const char *input)
{
    vae_call v = { .g = g, .input = golden_of(g, item, input) };
    /* No stage has more floats than 1024 channels of latents or 64 of a picture. */
    size_t room = (size_t)(v.input.n * v.input.h * v.input.w) * 64 * 64;
    v.out = dr_arena_alloc(g->mem, room * sizeof(float));
    v.room = dr_arena_alloc(g->mem, room * sizeof(float));
    return v;
}

static void check_stage(void *ctx, const char *name, dr_tensor x)
{
    char key[160];
    vae_call *v = ctx;
    snprintf(key, sizeof key, "vae.%s", name);
    golden_tensor want = golden_get(v->g, key);
    assert_int_equal(dr_count(x), golden_count(want));
    dr_download(v->run, x, v->room);
    golden_near(v->g, key, v->room, want.data, golden_count(want), LIMIT);
    v->seen++;
}

/* Every stage of a half but the norm that runs fused with SiLU, and the 1×1 convolution
 * outside it. */
static int stages_of(golden *g, const char *prefix)
{
    int n = 1;
    for (size_t i = 0; i < dr_weights_count(g->stages); i++) {
        const char *name = dr_weights_at(g->stages, i)->name;
        n += !strncmp(name, prefix, strlen(prefix)) && !strstr(name, "conv_norm_out");
    }
    return n;
}

/* The fixtures' latents are those that AutoencoderKL.decode takes; ours are scaled. */
static void scale(golden_tensor x, double factor)
{
    for (size_t i = 0; i < golden_count(x); i++)
        x.data[i] = (float)(x.data[i] * factor);
}

static void decodes_as_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *list = dr_json_get(dr_json_get(g->cases, "vae"), "decode"), *item;
    int calls = 0;
    for (item = dr_json_first(list); item; item = dr_json_next(item), calls++) {
        vae_call v = call_of(g, item, "latents");
        golden_tensor want = golden_of(g, item, "output");
        const char *stages = dr_json_get_string(item, "stages", NULL);
        scale(v.input, g->vae.scaling_factor);
        golden_run(g, decode, &v, 0, stages ? check_stage : NULL);
        golden_near(g, dr_json_get_string(item, "output", ""), v.out, want.data,
                    golden_count(want), LIMIT);
        if (stages)
            assert_int_equal(v.seen, stages_of(g, stages));
    }
    assert_int_equal(calls, 3);
}

/* Channels [first, first + c) of pixels that have `all`. */
static void take_channels(float *to, const float *from, golden_tensor shape, int64_t all,
                          int64_t first)
{
    for (int64_t p = 0; p < shape.n * shape.h * shape.w; p++)
        memcpy(to + p * shape.c, from + p * all + first, (size_t)shape.c * sizeof(float));
}

static void encodes_as_diffusers(void **state)
{
    golden *g = *state;
    const dr_json *list = dr_json_get(dr_json_get(g->cases, "vae"), "encode"), *item;
    static const char *const halves[] = { "mean", "logvar" };
    int calls = 0;
    for (item = dr_json_first(list); item; item = dr_json_next(item), calls++) {
        vae_call v = call_of(g, item, "input");
        const char *stages = dr_json_get_string(item, "stages", NULL);
        golden_run(g, encode, &v, 0, stages ? check_stage : NULL);
        for (int i = 0; i < 2; i++) {
            golden_tensor want = golden_of(g, item, halves[i]);
            take_channels(v.room, v.out, want, 2 * want.c, i * want.c);
            golden_near(g, dr_json_get_string(item, halves[i], ""), v.room, want.data,
                        golden_count(want), LIMIT);
        }
        if (stages)
            assert_int_equal(v.seen, stages_of(g, stages));
    }
    assert_int_equal(calls, 3);
}

/* Two pictures at once and in small tiles are what each is alone. */
static void neither_batch_nor_tiles_matter(void **state)
{
    golden *g = *state;
    const dr_json *item =
        dr_json_first(dr_json_get(dr_json_get(g->cases, "vae"), "decode"));
    vae_call one = call_of(g, item, "latents"), two = one;
    golden_tensor want = golden_of(g, item, "output");
    size_t in = golden_count(one.input), out = golden_count(want);
    scale(one.input, g->vae.scaling_factor);
    two.input.n = 2;
    two.input.data = dr_arena_alloc(g->mem, 2 * in * sizeof(float));
    for (size_t i = 0; i < in; i++) {
        two.input.data[i] = 0.5f * one.input.data[i];
        two.input.data[in + i] = one.input.data[i];
    }
    two.out = dr_arena_alloc(g->mem, 2 * out * sizeof(float));
    golden_run(g, decode, &two, 9000, NULL);
    golden_near(g, "the second picture of two", two.out + out, want.data, out, LIMIT);
    assert_true(golden_l2(two.out, want.data, out) > 100 * LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_diffusers),
        cmocka_unit_test(encodes_as_diffusers),
        cmocka_unit_test(neither_batch_nor_tiles_matter),
    };
    return cmocka_run_group_tests_name("demo", tests, golden_demo, golden_teardown) +
           cmocka_run_group_tests_name("tiny-sd1", tests, golden_tiny, golden_teardown);
}
