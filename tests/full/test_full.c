#include "../lib/golden.h"

#include "base/clock.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

/* SD 1.5 at its real width against diffusers: one text batch, one UNet call at 64×64
 * latents, one decode to 512×512, with their stages. usage: test_full DIR, the folder that
 * contrib/goldens/fullwidth.py made. */

#define LIMIT 1e-3

typedef struct {
    golden *g;
    const dr_json *item; /* the case */
    const char *prefix;  /* of its stages' keys */
    golden_tensor input, text;
    const int32_t *ids;
    float *out, *room;
    dr_run *run;
    int seen;
} full_call;

/* Every stride-th row and column. */
static golden_tensor thin(golden *g, golden_tensor x, int64_t stride)
{
    golden_tensor y = { .n = x.n,
                        .h = (x.h + stride - 1) / stride,
                        .w = (x.w + stride - 1) / stride,
                        .c = x.c };
    float *to = y.data = dr_arena_alloc(g->mem, golden_count(y) * sizeof(float));
    assert_non_null(to);
    for (int64_t n = 0; n < y.n; n++)
        for (int64_t i = 0; i < y.h; i++)
            for (int64_t k = 0; k < y.w; k++, to += y.c)
                memcpy(to, x.data + ((n * x.h + i * stride) * x.w + k * stride) * x.c,
                       (size_t)x.c * sizeof(float));
    return y;
}

static void compare(golden *g, const char *key, golden_tensor have, int64_t stride)
{
    golden_tensor want = golden_get(g, key), some = thin(g, have, stride);
    assert_int_equal(golden_count(some), golden_count(want));
    print_message("%-24s relative L2 %.2e\n", key,
                  golden_l2(some.data, want.data, golden_count(want)));
    golden_near(g, key, some.data, want.data, golden_count(want), LIMIT);
}

/* The fixture holds whole blocks only. */
static void check_stage(void *ctx, const char *name, dr_tensor x)
{
    char key[160];
    full_call *f = ctx;
    int64_t from = (int64_t)dr_json_get_number(f->item, "stages_stride_from", 0);
    int64_t stride = (int64_t)dr_json_get_number(f->item, "stages_stride", 1);
    snprintf(key, sizeof key, "%s%s", f->prefix, name);
    if (!dr_weights_find(f->g->stages, key))
        return;
    dr_download(f->run, x, f->room);
    compare(f->g, key, (golden_tensor){ f->room, x.n, x.h, x.w, x.c },
            x.w >= from ? stride : 1);
    f->seen++;
}

/* Run the body and say how long it took with its dry run. */
static void timed(full_call *f, golden_body *body, const char *what)
{
    golden *g = f->g;
    f->out = dr_arena_alloc(g->mem, (size_t)64 << 20);
    f->room = dr_arena_alloc(g->mem, (size_t)512 * 512 * 512 * sizeof(float));
    assert_true(f->out && f->room);
    double start = dr_now_s();
    golden_run(g, body, f, 0, check_stage);
    print_message("%s: %.1f s, %llu MiB of device memory at most so far\n", what,
                  dr_now_s() - start,
                  (unsigned long long)(dr_dev_peak_bytes(g->dev) >> 20));
}

static void encode_text(dr_run *r, void *ctx)
{
    full_call *f = ctx;
    f->run = r;
    dr_download(r, dr_clip_forward(r, &f->g->clip, f->ids, f->input.n, f->input.h, NULL, 0),
                f->out);
}

static void evaluate_unet(dr_run *r, void *ctx)
{
    full_call *f = ctx;
    f->run = r;
    dr_tensor x = golden_put(r, f->input), text = golden_put(r, f->text);
    dr_unet_read_text(r, &f->g->unet, text, f->g->kv);
    const dr_unet_call call = { .x = x,
                                .batch = x.n,
                                .in_scale = 1,
                                .timestep = dr_json_get_number(f->item, "timestep", 0) };
    dr_download(r, dr_unet_forward(r, &f->g->unet, &call, f->g->kv), f->out);
}

static void decode(dr_run *r, void *ctx)
{
    full_call *f = ctx;
    f->run = r;
    dr_download(r, dr_vae_decode(r, &f->g->vae, golden_put(r, f->input)), f->out);
}

static void text_equals_transformers(void **state)
{
    golden *g = *state;
    full_call f = { .g = g, .item = dr_json_get(g->cases, "text"), .prefix = "text." };
    const char *key = dr_json_get_string(f.item, "last_hidden_state", NULL);
    const dr_weight *ids = golden_raw(g, dr_json_get_string(f.item, "ids", NULL));
    f.input = golden_get(g, key);
    f.ids = memcpy(dr_arena_alloc(g->mem, ids->bytes), ids->data, ids->bytes);
    timed(&f, encode_text, "text");
    f.input.data = f.out;
    compare(g, key, f.input, 1);
}

static void unet_equals_diffusers(void **state)
{
    golden *g = *state;
    full_call f = { .g = g, .item = dr_json_get(g->cases, "unet"), .prefix = "unet." };
    f.input = golden_of(g, f.item, "sample");
    f.text = golden_of(g, f.item, "context");
    int64_t row =
        (int64_t)dr_json_number(dr_json_at(dr_json_get(f.item, "context_rows"), 0));
    f.text.data += row * f.text.h * f.text.c;
    f.text.n = 1;
    timed(&f, evaluate_unet, "UNet");
    f.input.data = f.out;
    compare(g, dr_json_get_string(f.item, "output", NULL), f.input, 1);
    assert_int_equal(f.seen, 9); /* four blocks each way and the middle */
}

static void decode_equals_diffusers(void **state)
{
    golden *g = *state;
    full_call f = { .g = g, .item = dr_json_get(g->cases, "vae"), .prefix = "vae." };
    f.input = golden_of(g, f.item, "latents");
    for (size_t i = 0; i < golden_count(f.input); i++)
        f.input.data[i] *= (float)g->vae.scaling_factor;
    timed(&f, decode, "decode");
    golden_tensor picture = { f.out, f.input.n,
                              (int64_t)dr_json_get_number(f.item, "height", 0),
                              (int64_t)dr_json_get_number(f.item, "width", 0), 3 };
    compare(g, dr_json_get_string(f.item, "output", NULL), picture,
            (int64_t)dr_json_get_number(f.item, "output_stride", 1));
    assert_int_equal(f.seen, 6); /* conv_in, middle, four blocks */
}

static int setup(golden *g, const char *dir)
{
    char path[DR_PATH_MAX];
    dr_err err = { 0 };
    double start = dr_now_s();
    golden_device(g);
    if (dr_path_join(path, dir, dr_json_get_string(g->cases, "model", ""), &err) ||
        golden_load(g, path, &err)) {
        print_error("%s: %s\n", dir, err.message);
        return -1;
    }
    print_message("%s: loaded in %.1f s, %zu MiB of weights\n",
                  dr_dev_describe(g->dev)->name, dr_now_s() - start,
                  dr_pool_bytes(g->pool) >> 20);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIR (made by contrib/goldens/fullwidth.py)\n", argv[0]);
        return 64;
    }
    golden *g = golden_open(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(text_equals_transformers, g),
        cmocka_unit_test_prestate(unet_equals_diffusers, g),
        cmocka_unit_test_prestate(decode_equals_diffusers, g),
    };
    int failed = setup(g, argv[1]) ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
    print_message("largest relative L2: %.3g\n", g->worst);
    golden_close(g);
    return failed;
}
