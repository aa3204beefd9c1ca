#include "op/op.h"

#include "op/launcher.h"

#include <assert.h>
#include <math.h>

void op_activate_into(dr_run *r, dr_tensor y, dr_tensor x, dr_activation kind)
{
    if (stop(r, "activate"))
        return;
    assert(dr_count(x) == dr_count(y));
    LAUNCH(r, DR_K_activate, grid1(blocks(dr_count(x))), T(x), T(y), DR_LONG(dr_count(x)),
           DR_INT(kind));
}

dr_tensor op_activate(dr_run *r, dr_tensor x, dr_activation kind)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c);
    op_activate_into(r, y, x, kind);
    return y;
}

void op_geglu_into(dr_run *r, dr_tensor y, dr_tensor x)
{
    if (stop(r, "geglu"))
        return;
    if (x.c != 2 * y.c)
        fail_shape(r, "geglu", x, "c", x.c, 2 * y.c);
    LAUNCH(r, DR_K_geglu, grid2(blocks(y.c), x.n * positions(x)), T(x), T(y), DR_LONG(y.c));
}

dr_tensor op_geglu(dr_run *r, dr_tensor x)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, x.c / 2);
    op_geglu_into(r, y, x);
    return y;
}

dr_tensor op_concat(dr_run *r, dr_tensor a, dr_tensor b)
{
    dr_tensor y = dr_new(r, a.n, a.h, a.w, a.c + b.c);
    if (stop(r, "concat"))
        return y;
    if (a.n != b.n || a.h != b.h || a.w != b.w) {
        fail_shape(r, "concat", a, "positions of b", (ll)positions(b), (ll)positions(a));
        return y;
    }
    LAUNCH(r, DR_K_concat, grid2(blocks(a.c) + blocks(b.c), y.n * positions(y)), T(a),
           DR_LONG(a.c), T(b), DR_LONG(b.c), T(y));
    return y;
}

void op_scale(dr_run *r, dr_tensor x, dr_tensor y, float factor, float offset)
{
    if (stop(r, "scale"))
        return;
    assert(dr_count(x) == dr_count(y));
    LAUNCH(r, DR_K_scale, grid1(blocks(dr_count(x))), T(x), T(y), DR_LONG(dr_count(x)),
           DR_FLOAT(factor), DR_FLOAT(offset));
}

dr_tensor op_repeat(dr_run *r, dr_tensor x, int64_t n)
{
    if (x.n == n)
        return x;
    dr_tensor y = dr_new(r, n, x.h, x.w, x.c);
    if (n % x.n)
        fail_shape(r, "repeat", x, "n", x.n, n);
    for (int64_t i = 0; i < n && !r->err.code; i += x.n)
        op_scale(r, x, dr_slice(y, i, x.n), 1, 0);
    return y;
}

void op_fill(dr_run *r, dr_tensor x, float value)
{
    if (stop(r, "fill"))
        return;
    LAUNCH(r, DR_K_fill, grid1(blocks(dr_count(x))), T(x), DR_LONG(dr_count(x)),
           DR_FLOAT(value));
}

dr_tensor op_embed_tokens(dr_run *r, const int32_t *ids, int64_t n, int64_t length,
                          const dr_weight_mat *table, const dr_weight_mat *position,
                          const dr_tensor *extra)
{
    dr_tensor y = dr_new(r, n, length, 1, table->w.c);
    dr_tensor on_device = dr_new(r, 1, 1, 1, n * length);
    if (stop(r, "embed_tokens"))
        return y;
    if (extra && extra->c != y.c) {
        fail_shape(r, "embed_tokens", *extra, "c", extra->c, y.c);
        return y;
    }
    for (int64_t i = 0; i < n * length; i++)
        if (ids[i] < 0 || ids[i] >= table->w.w + (extra ? positions(*extra) : 0)) {
            dr_fail(&r->err, DR_EMODEL,
                    "token %d is not in the text encoder's table of %lld: tokenizer and "
                    "weights do not belong together",
                    ids[i], (ll)table->w.w);
            return y;
        }
    if (length > position->w.w) {
        fail_shape(r, "embed_tokens", y, "length", length, position->w.w);
        return y;
    }
    if (!r->dry)
        (void)!dr_mem_write(r->dev, on_device.mem, on_device.at * sizeof(float), ids,
                            (size_t)(n * length) * sizeof *ids, &r->err);
    LAUNCH(r, DR_K_embed_tokens, grid2(y.c, n * length), T(on_device), T(table->w),
           T(extra ? *extra : table->w), T(position->w), T(y), DR_LONG(table->w.w),
           DR_LONG(length), DR_LONG(y.c));
    return y;
}

dr_tensor op_embed_timestep(dr_run *r, double timestep, int64_t c, bool flip, double shift)
{
    dr_tensor y = dr_new(r, 1, 1, 1, c);
    if (stop(r, "embed_timestep"))
        return y;
    if (c % 2)
        fail_shape(r, "embed_timestep", y, "c", c, c + 1);
    LAUNCH(r, DR_K_embed_timestep, grid1(c / 2), T(y), DR_FLOAT(timestep), DR_INT(c / 2),
           DR_FLOAT(shift), DR_INT(flip));
    return y;
}

dr_tensor op_guide(dr_run *r, dr_tensor text, dr_tensor plain, const dr_tensor *empty,
                   double cfg, double rescale)
{
    dr_tensor y = dr_new(r, text.n, text.h, text.w, text.c), e = empty ? *empty : plain;
    if (stop(r, "guide"))
        return y;
    if (!same_shape(text, plain) || !same_shape(text, e)) {
        fail_shape(r, "guide", text, "size of the other output",
                   dr_count(same_shape(text, plain) ? e : plain), dr_count(text));
        return y;
    }
    LAUNCH(r, DR_K_guide, grid_rows(r, text.n), T(text), T(plain), T(e), T(y),
           DR_LONG(dr_count(text) / text.n), DR_INT(empty != NULL), DR_FLOAT(cfg),
           DR_FLOAT(rescale));
    return y;
}

void op_sampler_step(dr_run *r, dr_tensor x, dr_tensor out, const dr_tensor *plain,
                     const dr_tensor *hist, int n_hist, dr_tensor noise, dr_tensor denoised,
                     const dr_step_coef *k)
{
    dr_tensor u = plain ? *plain : out, h[DR_STEP_HISTORY];
    if (stop(r, "sampler_step"))
        return;
    if (!same_shape(x, out) || !same_shape(x, u)) {
        fail_shape(r, "sampler_step", x, "size of the model's output",
                   dr_count(same_shape(x, out) ? u : out), dr_count(x));
        return;
    }
    assert(n_hist >= 0 && n_hist <= DR_STEP_HISTORY && k->slot < n_hist);
    for (int i = 0; i < DR_STEP_HISTORY; i++) {
        assert(i < n_hist || k->hist[i] == 0);
        h[i] = i < n_hist ? hist[i] : x;
    }
    LAUNCH(r, DR_K_sampler_step, grid1(blocks(dr_count(x))), T(x), T(out), T(u), T(h[0]),
           T(h[1]), T(h[2]), T(noise), T(denoised), DR_LONG(dr_count(x)),
           DR_INT(plain != NULL), DR_FLOAT(k->cfg), DR_FLOAT(k->x), DR_FLOAT(k->out),
           DR_FLOAT(k->noise), DR_FLOAT(k->hist[0]), DR_FLOAT(k->hist[1]),
           DR_FLOAT(k->hist[2]), DR_INT(k->slot), DR_FLOAT(k->hist_x),
           DR_FLOAT(k->hist_out), DR_FLOAT(k->hist_noise), DR_FLOAT(k->denoised_x),
           DR_FLOAT(k->denoised_out));
}

void op_repaint(dr_run *r, dr_tensor x, dr_tensor mask, dr_tensor picture, dr_tensor noise,
                double signal, double level)
{
    int64_t all = x.n * positions(x);
    if (stop(r, "repaint"))
        return;
    if (!same_shape(x, picture) || !same_shape(x, noise))
        fail_shape(r, "repaint", x, "size of the picture or its noise",
                   dr_count(same_shape(x, picture) ? noise : picture), dr_count(x));
    else if (mask.c != 1 || mask.n * positions(mask) != all)
        fail_shape(r, "repaint", mask, "values", dr_count(mask), all);
    LAUNCH(r, DR_K_repaint, grid1(all), T(x), T(mask), T(picture), T(noise), DR_LONG(all),
           DR_INT(x.c), DR_FLOAT(signal), DR_FLOAT(level));
}

dr_tensor op_linear_rgb(dr_run *r, dr_tensor x, dr_tensor matrix)
{
    dr_tensor y = dr_new(r, x.n, x.h, x.w, 3);
    if (stop(r, "linear_rgb"))
        return y;
    if (dr_count(matrix) != (x.c + 1) * 3)
        fail_shape(r, "linear_rgb", x, "matrix", dr_count(matrix), (x.c + 1) * 3);
    LAUNCH(r, DR_K_linear_rgb, grid1(x.n * positions(x)), T(x), T(matrix), T(y),
           DR_LONG(x.n * positions(x)), DR_INT(x.c));
    return y;
}

void op_to_rgb8(dr_run *r, dr_tensor x, uint8_t *rgb)
{
    dr_mark mark = dr_push(r);
    dr_tensor bytes = dr_new(r, 1, 1, 1, (dr_count(x) + 3) / 4);
    if (!stop(r, "to_rgb8") && !r->dry) {
        LAUNCH(r, DR_K_to_rgb8, grid1(dr_count(x)), T(x), DR_MEM(bytes.mem),
               DR_LONG(bytes.at * sizeof(float)), DR_LONG(dr_count(x)));
        if (!r->err.code)
            (void)!dr_mem_read(r->dev, bytes.mem, bytes.at * sizeof(float), rgb,
                               (size_t)dr_count(x), &r->err);
    }
    dr_pop(r, mark);
}

#define RANGE_CHUNKS 64

dr_range op_range(dr_run *r, dr_tensor x)
{
    dr_range all = { .min = INFINITY, .max = -INFINITY };
    float rows[RANGE_CHUNKS][3];
    dr_mark mark = dr_push(r);
    dr_tensor y = dr_new(r, 1, 1, RANGE_CHUNKS, 3);
    if (!stop(r, "range") && !r->dry) {
        int64_t chunk = (dr_count(x) + RANGE_CHUNKS - 1) / RANGE_CHUNKS;
        LAUNCH(r, DR_K_range, grid1(RANGE_CHUNKS), T(x), T(y), DR_LONG(dr_count(x)),
               DR_LONG(chunk));
        dr_download(r, y, &rows[0][0]);
        for (int i = 0; i < RANGE_CHUNKS && !r->err.code; i++) {
            all.min = fminf(all.min, rows[i][0]);
            all.max = fmaxf(all.max, rows[i][1]);
            all.not_finite += (int64_t)rows[i][2];
        }
    }
    dr_pop(r, mark);
    return all;
}
