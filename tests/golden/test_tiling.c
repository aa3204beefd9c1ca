#include "../lib/golden.h"

#include "base/rng.h"

#include <string.h>

/* Seamless pictures: with convolutions that go on at the opposite edge nothing knows where
 * the edges are, so that rolled latents give the rolled picture. */

#define LIMIT 1e-4
#define SIDE  16 /* of the latents */

typedef struct {
    golden *g;
    golden_tensor in, text;
    bool wrap;
    float *out;
} call;

/* The picture moved by (down, across) places; what leaves comes back at the other side. */
static void roll(float *to, const float *from, int64_t h, int64_t w, int64_t c,
                 int64_t down, int64_t across)
{
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++)
            memcpy(to + ((y + down) % h * w + (x + across) % w) * c, from + (y * w + x) * c,
                   (size_t)c * sizeof *to);
}

static void evaluate(dr_run *r, void *ctx)
{
    call *k = ctx;
    const dr_unet *m = &k->g->unet;
    r->wrap = k->wrap;
    dr_unet_read_text(r, m, golden_put(r, k->text), k->g->kv);
    const dr_unet_call u = {
        .x = golden_put(r, k->in), .batch = 1, .in_scale = 1, .timestep = 500
    };
    dr_download(r, dr_unet_forward(r, m, &u, k->g->kv), k->out);
}

static void decode(dr_run *r, void *ctx)
{
    call *k = ctx;
    r->wrap = k->wrap;
    dr_download(r, dr_vae_decode(r, &k->g->vae, golden_put(r, k->in)), k->out);
}

static void encode(dr_run *r, void *ctx)
{
    call *k = ctx;
    r->wrap = k->wrap;
    dr_download(r, dr_vae_encode(r, &k->g->vae, golden_put(r, k->in)), k->out);
}

/* Distance between what the rolled input gives and what the input gives, rolled. The input
 * is [h, w, in_c], the output [out_h, out_w, out_c]. */
static double distance(golden *g, golden_body *body, call *k, bool wrap, golden_tensor in,
                       golden_tensor out, int64_t down, int64_t across)
{
    size_t n = golden_count(in), count = golden_count(out);
    float *moved = dr_arena_alloc(g->mem, n * sizeof(float));
    float *first = dr_arena_alloc(g->mem, count * sizeof(float));
    float *want = dr_arena_alloc(g->mem, count * sizeof(float));
    float *got = dr_arena_alloc(g->mem, count * sizeof(float));
    assert_true(moved && first && want && got);
    roll(moved, in.data, in.h, in.w, in.c, down, across);
    k->g = g;
    k->wrap = wrap;
    k->in = in;
    k->out = first;
    golden_run(g, body, k, 0, NULL);
    roll(want, first, out.h, out.w, out.c, down * out.h / in.h, across * out.w / in.w);
    k->in.data = moved;
    k->out = got;
    golden_run(g, body, k, 0, NULL);
    return golden_l2(got, want, count);
}

static golden_tensor noise(golden *g, int64_t side, int64_t c)
{
    golden_tensor t = { .n = 1, .h = side, .w = side, .c = c };
    t.data = dr_arena_alloc(g->mem, golden_count(t) * sizeof(float));
    assert_non_null(t.data);
    dr_philox_normal(t.data, golden_count(t), 7, 0, 0);
    return t;
}

static golden_tensor shape(int64_t side, int64_t c)
{
    return (golden_tensor){ .n = 1, .h = side, .w = side, .c = c };
}

static void check(golden *g, golden_body *body, call *k, golden_tensor in,
                  golden_tensor out, int64_t step)
{
    assert_true(distance(g, body, k, true, in, out, step, 0) < LIMIT);
    assert_true(distance(g, body, k, true, in, out, 0, in.w - step) < LIMIT);
    assert_true(distance(g, body, k, false, in, out, step, step) > 10 * LIMIT);
}

static void decoder_rolls(void **state)
{
    golden *g = *state;
    call k = { 0 };
    check(g, decode, &k, noise(g, SIDE, g->vae.latent_c), shape(SIDE * g->vae.factor, 3),
          3);
}

static void encoder_rolls(void **state)
{
    golden *g = *state;
    call k = { 0 };
    check(g, encode, &k, noise(g, SIDE * g->vae.factor, 3),
          shape(SIDE, 2 * g->vae.latent_c), 3 * g->vae.factor);
}

/* By places that every level of it has. */
static void unet_rolls(void **state)
{
    golden *g = *state;
    const dr_json *item = dr_json_first(dr_json_get(g->cases, "unet"));
    call k = { .text = golden_of(g, item, "context") };
    k.text.n = 1;
    check(g, evaluate, &k, noise(g, SIDE, g->vae.latent_c), shape(SIDE, g->unet.out_c),
          (int64_t)1 << (g->unet.n_levels - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoder_rolls),
        cmocka_unit_test(encoder_rolls),
        cmocka_unit_test(unet_rolls),
    };
    return cmocka_run_group_tests_name("demo", tests, golden_demo, golden_teardown) +
           cmocka_run_group_tests_name("tiny-sd1", tests, golden_tiny, golden_teardown);
}
