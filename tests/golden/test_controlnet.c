#include "../lib/control.h"
#include "../lib/golden.h"

#include "nn/controlnet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ControlNets against diffusers' ControlNetModel: what they add to the UNet's tensors, and
 * what the UNet makes of it. Weights and inputs are those of contrib/goldens/control.py. */

#define LIMIT    1e-5
#define NETS     2
#define ROOT_12  3.4641016151377544 /* makes uniform numbers of variance 1 */
#define FOLDER_N 64

/* --- numbers that a formula gives --- */

/* A tensor [n, c, h, w] as channels-last. */
static golden_tensor made(golden *g, const char *name, int64_t c, int64_t h, int64_t w,
                          double factor, double shift)
{
    golden_tensor x = { .n = 1, .h = h, .w = w, .c = c };
    x.data = dr_arena_alloc(g->mem, golden_count(x) * sizeof(float));
    assert_non_null(x.data);
    for (int64_t k = 0; k < c; k++)
        for (int64_t p = 0; p < h * w; p++)
            x.data[p * c + k] =
                (float)(control_uniform(name, (uint64_t)(k * h * w + p)) * factor + shift);
    return x;
}

/* --- fixtures --- */

static const char *const names[NETS] = { "first", "second" };

typedef struct {
    golden *g;
    char dir[FOLDER_N]; /* of the ControlNets' folders */
    dr_controlnet net[NETS];
    dr_text_kv *kv[NETS];
} fixture;

static const char *folder_of(fixture *f, const char *name)
{
    return dr_arena_printf(f->g->mem, "%s/%s", f->dir, name);
}

static void load_net(fixture *f, int i)
{
    golden *g = f->g;
    dr_err err = { 0 };
    dr_loader l;
    const char *dir = folder_of(f, names[i]);
    control_write(dir, names[i], dr_json_get(g->cases, "config"));
    if (dr_loader_open(&l, g->dev, g->pool, names[i], dir, "diffusion_pytorch_model", &err))
        fail_msg("%s", err.message);
    dr_controlnet_load(&f->net[i], &l, dr_json_get(g->cases, "config"), g->mem);
    if (dr_loader_close(&l, &err))
        fail_msg("%s", err.message);
    f->kv[i] = dr_arena_alloc(g->mem, (size_t)f->net[i].lower.n_kv * sizeof(dr_text_kv));
    assert_non_null(f->kv[i]);
}

static int setup(void **state)
{
    dr_err err = { 0 };
    fixture *f = golden_begin(state, "tests/golden/control", sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/darkroom-control.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    if (golden_load(f->g, dr_json_get_string(f->g->cases, "model", ""), &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < NETS; i++)
        load_net(f, i);
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    golden_remove_model(f->dir);
    return golden_end(state);
}

/* --- one call of the fixtures --- */

typedef struct {
    fixture *f;
    const dr_json *item;
    const char *label;
    dr_run *run;
    golden_tensor sample, text, picture[NETS];
    dr_tensor hint[NETS];
    int net[NETS]; /* which, in the order of `uses` */
    double strength[NETS];
    int n_uses;
    float *out;    /* of the UNet */
    float **added; /* [skips + 1]; NULL: the UNet's output instead */
} control_call;

static const char *key_of(control_call *k, const char *what)
{
    return dr_arena_printf(k->f->g->mem, "%s.%s", k->label, what);
}

static void add_all(void *ctx, dr_run *r, const dr_unet_call *call, const dr_unet_way *way)
{
    control_call *k = ctx;
    for (int i = 0; i < k->n_uses; i++)
        dr_controlnet_add(r, &k->f->net[k->net[i]], call, k->f->kv[k->net[i]], k->hint[i],
                          k->strength[i], way);
}

/* What is added, by adding it to nothing. */
static void add_to_zeros(void *ctx, dr_run *r, const dr_unet_call *call,
                         const dr_unet_way *way)
{
    control_call *k = ctx;
    for (int i = 0; i < way->n; i++)
        op_fill(r, way->skip[i], 0);
    op_fill(r, way->mid, 0);
    add_all(ctx, r, call, way);
    for (int i = 0; i <= way->n; i++)
        dr_download(r, i < way->n ? way->skip[i] : way->mid, k->added[i]);
}

static void evaluate(dr_run *r, void *ctx)
{
    control_call *k = ctx;
    golden *g = k->f->g;
    dr_tensor text = golden_put(r, k->text);
    dr_unet_read_text(r, &g->unet, text, g->kv);
    for (int i = 0; i < k->n_uses; i++) {
        const dr_controlnet *c = &k->f->net[k->net[i]];
        dr_unet_read_text(r, &c->lower, text, k->f->kv[k->net[i]]);
        k->hint[i] = dr_new(r, 2, k->sample.h, k->sample.w, c->lower.width);
        dr_controlnet_read_picture(r, c, golden_put(r, k->picture[i]), k->hint[i]);
    }
    const dr_unet_call call = { .x = golden_put(r, k->sample),
                                .batch = 2,
                                .in_scale = 1,
                                .timestep = dr_json_get_number(k->item, "timestep", 0),
                                .guide = k->added ? add_to_zeros : add_all,
                                .guide_ctx = k };
    dr_download(r, dr_unet_forward(r, &g->unet, &call, g->kv), k->out);
}

static control_call call_of(fixture *f, const dr_json *item)
{
    golden *g = f->g;
    control_call k = { .f = f,
                       .item = item,
                       .label = dr_json_get_string(item, "label", "") };
    int64_t h = (int64_t)dr_json_get_number(item, "height", 0);
    int64_t w = (int64_t)dr_json_get_number(item, "width", 0), tokens = 77;
    k.sample = made(g, key_of(&k, "sample"), 4, h, w, ROOT_12, 0);
    /* [2, tokens, c], rows of c: as two pictures of one channel */
    k.text = made(g, key_of(&k, "context"), 1, 2 * tokens, g->unet.text_c, ROOT_12, 0);
    k.text.n = 2;
    k.text.h = tokens;
    k.text.w = 1;
    k.text.c = g->unet.text_c;
    const dr_json *use = dr_json_first(dr_json_get(item, "uses"));
    for (; use; use = dr_json_next(use), k.n_uses++) {
        const char *name = dr_json_get_string(use, "name", "");
        int i = k.n_uses;
        k.net[i] = !strcmp(name, names[1]);
        k.strength[i] = dr_json_get_number(use, "strength", 1);
        k.picture[i] = made(g, dr_arena_printf(g->mem, "%s.%s.picture", k.label, name), 3,
                            8 * h, 8 * w, 1, 0.5);
    }
    k.out = dr_arena_alloc(g->mem, 2 * golden_count(k.sample) * sizeof(float));
    assert_non_null(k.out);
    return k;
}

/* --- tests --- */

static void output_equals_diffusers(void **state)
{
    fixture *f = *state;
    golden *g = f->g;
    const dr_json *item = dr_json_first(dr_json_get(g->cases, "calls"));
    int calls = 0, of_two = 0;
    for (; item; item = dr_json_next(item), calls++) {
        control_call k = call_of(f, item);
        golden_tensor want = golden_of(g, item, "output");
        golden_run(g, evaluate, &k, 0, NULL);
        golden_near(g, k.label, k.out, want.data, golden_count(want), LIMIT);
        of_two += k.n_uses == 2;
        k.n_uses = 0; /* and it is not what the UNet says alone */
        golden_run(g, evaluate, &k, 0, NULL);
        assert_true(golden_l2(k.out, want.data, golden_count(want)) > 1000 * LIMIT);
    }
    assert_int_equal(calls, 3);
    assert_int_equal(of_two, 1);
}

static void each_residual_equals_diffusers(void **state)
{
    fixture *f = *state;
    golden *g = f->g;
    const dr_json *item = dr_json_first(dr_json_get(g->cases, "calls"));
    int staged = 0;
    for (; item; item = dr_json_next(item)) {
        float *added[DR_UNET_SKIPS_MAX + 1];
        golden_tensor want[DR_UNET_SKIPS_MAX + 1];
        int n = (int)dr_json_get_number(item, "skips", 0);
        control_call k = call_of(f, item);
        if (!n)
            continue;
        assert_int_equal(n, g->unet.n_skips);
        for (int i = 0; i <= n; i++) {
            want[i] =
                golden_get(g, i < n ? dr_arena_printf(g->mem, "%s.skip.%d", k.label, i)
                                    : key_of(&k, "mid"));
            added[i] = dr_arena_alloc(g->mem, golden_count(want[i]) * sizeof(float));
            assert_non_null(added[i]);
        }
        k.added = added;
        golden_run(g, evaluate, &k, 0, NULL);
        for (int i = 0; i <= n; i++)
            golden_near(g, dr_arena_printf(g->mem, "%s, tensor %d", k.label, i), added[i],
                        want[i].data, golden_count(want[i]), LIMIT);
        staged++;
    }
    assert_int_equal(staged, 2);
}

/* A config of another network is an error that says so. */
static void config_and_weights_must_agree(void **state)
{
    static const struct {
        const char *key, *value, *says;
    } bad[] = {
        { "cross_attention_dim", "48", "attn2.to_k" },
        { "conditioning_embedding_out_channels", "[4, 6, 8]", "controlnet_cond_embedding" },
        { "controlnet_conditioning_channel_order", "\"bgr\"", "only \"rgb\"" },
        { "global_pool_conditions", "true", "only false" },
        { "mid_block_type", "null", "mid_block_type" },
    };
    fixture *f = *state;
    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        dr_buf text = { 0 }, changed = { 0 };
        dr_err err = { 0 };
        dr_json *config = NULL;
        dr_loader l;
        dr_controlnet c = { 0 };
        dr_json_put(&text, dr_json_get(f->g->cases, "config"));
        dr_buf_printf(&changed, "{\"%s\":%s,%s", bad[i].key, bad[i].value, text.data + 1);
        assert_int_equal(dr_json_parse(&config, changed.data, changed.len, &err), DR_OK);
        assert_int_equal(dr_loader_open(&l, NULL, NULL, "first", folder_of(f, "first"),
                                        "diffusion_pytorch_model", &err),
                         DR_OK);
        dr_controlnet_load(&c, &l, config, f->g->mem);
        assert_int_equal(dr_loader_close(&l, &err), DR_EMODEL);
        if (!strstr(err.message, bad[i].says))
            fail_msg("%s: %s", bad[i].key, err.message);
        dr_json_free(config);
        dr_buf_free(&text);
        dr_buf_free(&changed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_residual_equals_diffusers),
        cmocka_unit_test(output_equals_diffusers),
        cmocka_unit_test(config_and_weights_must_agree),
    };
    return cmocka_run_group_tests_name("controlnet", tests, setup, teardown);
}
