#include "diffusion/model.h"

#include "base/cache.h"
#include "base/mem.h"
#include "base/rng.h"
#include "diffusion/lsq.h"

#include <stdio.h>
#include <string.h>

/* Cheap previews: RGB as a linear function of the latents' channels. The factors are the
 * least squares fit between what the model's own encoder makes of a synthetic picture and
 * that picture's average colour under each latent. */

#define SIDE         128 /* pixels of the synthetic picture */
#define PATCH        16  /* pixels of one flat patch of it */
#define RIDGE        1e-3
#define FIT_SEED     1
#define CACHE_FORMAT "darkroom-preview-1"
#define LATENTS_MAX  32

/* Patches of random colours, each shaded, in −1..1; [SIDE, SIDE, 3]. */
static void draw(float *picture)
{
    enum { PATCHES = SIDE / PATCH };
    float noise[PATCHES * PATCHES * 4];
    dr_philox_normal(noise, DR_COUNT(noise), FIT_SEED, 0, 0);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const float *p = noise + (y / PATCH * PATCHES + x / PATCH) * 4;
            float shade = 0.3f * p[3] * ((float)(x % PATCH) / PATCH - 0.5f);
            for (int c = 0; c < 3; c++) {
                float v = 0.7f * p[c] + shade;
                picture[(y * SIDE + x) * 3 + c] = v < -1 ? -1 : v > 1 ? 1 : v;
            }
        }
}

/* Mean colour of each factor × factor square; [cells, cells, 3]. */
static void shrink(const float *picture, float *out, int factor)
{
    int cells = SIDE / factor;
    memset(out, 0, (size_t)(cells * cells * 3) * sizeof *out);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++)
                out[(y / factor * cells + x / factor) * 3 + c] +=
                    picture[(y * SIDE + x) * 3 + c] / (float)(factor * factor);
}

/* Scaled latent means of the picture: [cells, c]. */
static void encode(dr_run *r, dr_model *m, const float *picture, float *moments)
{
    dr_tensor x = dr_new(r, 1, SIDE, SIDE, 3);
    dr_upload(r, x, picture);
    dr_download(r, dr_vae_encode(r, &m->vae, x), moments);
}

static dr_status fit(dr_model *m, dr_err *err)
{
    dr_run *r = &m->run;
    int factor = (int)m->vae.factor, c = (int)m->vae.latent_c, cells = SIDE / factor;
    size_t rows = (size_t)(cells * cells);
    float *picture = dr_alloc((size_t)SIDE * SIDE * 3 * sizeof *picture);
    float *colors = dr_alloc(rows * 3 * sizeof *colors);
    float *moments = dr_alloc(rows * (size_t)c * 2 * sizeof *moments);
    float *latents = dr_alloc(rows * (size_t)c * sizeof *latents);
    double coef[(LATENTS_MAX + 1) * 3];
    dr_status st = DR_OK;
    if (!picture || !colors || !moments || !latents) {
        st = dr_fail(err, DR_ENOMEM, "out of memory");
        goto done;
    }
    draw(picture);
    shrink(picture, colors, factor);
    dr_run_reset(r, true);
    encode(r, m, picture, moments);
    if (!r->err.code && (st = dr_run_reserve(r, r->peak_bytes, err)))
        goto done;
    if (!r->err.code) {
        dr_run_reset(r, false);
        encode(r, m, picture, moments);
    }
    if (r->err.code) {
        *err = r->err;
        st = err->code;
        goto done;
    }
    for (size_t i = 0; i < rows; i++)
        for (int k = 0; k < c; k++)
            latents[i * (size_t)c + (size_t)k] =
                (float)((moments[i * 2 * (size_t)c + (size_t)k] - m->vae.shift_factor) *
                        m->vae.scaling_factor);
    if ((st = dr_lsq_fit(latents, colors, rows, c, 3, RIDGE, coef, err)))
        goto done;
    for (int i = 0; i < (c + 1) * 3; i++)
        m->preview[i] = (float)coef[i];
done:
    dr_free(picture);
    dr_free(colors);
    dr_free(moments);
    dr_free(latents);
    return st;
}

dr_status dr_preview_fit(dr_model *m, const dr_conf *conf, dr_err *err)
{
    char path[DR_PATH_MAX], name[96];
    dr_buf file = { 0 };
    dr_status st = DR_OK;
    size_t bytes = (size_t)(m->vae.latent_c + 1) * 3 * sizeof *m->preview;
    if (m->vae.latent_c > LATENTS_MAX || SIDE % m->vae.factor)
        return DR_OK;
    if (!(m->preview = dr_arena_alloc(m->mem, bytes)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    snprintf(name, sizeof name, "%s.preview", m->digest[DR_PARTS - 1].hex);
    bool cached = dr_cache_path(path, conf, name);
    if (cached && dr_cache_read(&file, path, CACHE_FORMAT) && file.len == bytes) {
        memcpy(m->preview, file.data, bytes);
        goto done;
    }
    st = fit(m, err);
    if (!st && cached)
        dr_cache_write(path, CACHE_FORMAT, m->preview, bytes);
done:
    dr_buf_free(&file);
    return st;
}

int64_t dr_preview_every(const dr_job *job, const dr_plan *plan)
{
    int64_t steps = 0;
    for (int i = 0; i < plan->passes; i++)
        steps += plan->pass[i].steps - plan->pass[i].first;
    return job->preview.every == DR_PREVIEW_AUTO ? (steps + 7) / 8 : job->preview.every;
}

dr_picture dr_preview_make(dr_run *r, dr_model *m, dr_tensor denoised, bool coarse)
{
    int64_t f = m->vae.factor, pixels = denoised.h * denoised.w * f * f;
    if (m->tiny.conv_in.out && !coarse) {
        op_to_rgb8(r, dr_taesd_decode(r, &m->tiny, denoised), m->rgb);
        return (
            dr_picture){ .rgb = m->rgb, .width = denoised.w * f, .height = denoised.h * f };
    }
    uint8_t *rgb = m->rgb + pixels * 3;
    if (!m->preview)
        return (dr_picture){ 0 };
    dr_tensor matrix = dr_new(r, 1, 1, 1, (denoised.c + 1) * 3);
    dr_upload(r, matrix, m->preview);
    op_to_rgb8(r, op_linear_rgb(r, denoised, matrix), rgb);
    return (dr_picture){ .rgb = rgb, .width = denoised.w, .height = denoised.h };
}

/* Larger, bilinear between pixel centres. */
static void enlarge(const dr_picture *pic, uint8_t *rgb, int64_t w, int64_t h)
{
    for (int64_t y = 0; y < h; y++) {
        double fy = ((double)y + 0.5) * (double)pic->height / (double)h - 0.5;
        int64_t y0 = fy < 0 ? 0 : (int64_t)fy, y1 = y0 + 1 < pic->height ? y0 + 1 : y0;
        double by = fy < 0 ? 0 : fy - (double)y0;
        for (int64_t x = 0; x < w; x++) {
            double fx = ((double)x + 0.5) * (double)pic->width / (double)w - 0.5;
            int64_t x0 = fx < 0 ? 0 : (int64_t)fx, x1 = x0 + 1 < pic->width ? x0 + 1 : x0;
            double bx = fx < 0 ? 0 : fx - (double)x0;
            for (int c = 0; c < 3; c++) {
                const uint8_t *a = pic->rgb + y0 * pic->width * 3 + c;
                const uint8_t *b = pic->rgb + y1 * pic->width * 3 + c;
                double top = a[x0 * 3] * (1 - bx) + a[x1 * 3] * bx;
                double low = b[x0 * 3] * (1 - bx) + b[x1 * 3] * bx;
                rgb[(y * w + x) * 3 + c] = (uint8_t)(top * (1 - by) + low * by + 0.5);
            }
        }
    }
}

/* Smaller, the mean of the pixels that become one. rgb may be pic's own: a pixel is read
 * before the place where it lay is written. */
static void average(const dr_picture *pic, uint8_t *rgb, int64_t w, int64_t h)
{
    for (int64_t i = 0; i < w * h; i++) {
        int64_t y0 = i / w * pic->height / h, y1 = (i / w + 1) * pic->height / h;
        int64_t x0 = i % w * pic->width / w, x1 = (i % w + 1) * pic->width / w;
        int64_t n = (y1 - y0) * (x1 - x0), sum[3] = { 0 };
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = x0; x < x1; x++)
                for (int c = 0; c < 3; c++)
                    sum[c] += pic->rgb[(y * pic->width + x) * 3 + c];
        for (int c = 0; c < 3; c++)
            rgb[i * 3 + c] = (uint8_t)((sum[c] + n / 2) / n);
    }
}

dr_picture dr_preview_fit_size(const dr_picture *pic, uint8_t *rgb, int64_t size,
                               int64_t max_w, int64_t max_h)
{
    int64_t longest = max_w > max_h ? max_w : max_h;
    size = size < longest ? size : longest;
    int64_t w = max_w * size / longest, h = max_h * size / longest;
    if (w < 1 || h < 1 || (w == pic->width && h == pic->height))
        return *pic;
    (w > pic->width && h > pic->height ? enlarge : average)(pic, rgb, w, h);
    return (dr_picture){ .rgb = rgb, .width = w, .height = h };
}
