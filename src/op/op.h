#ifndef DR_OP_OP_H
#define DR_OP_OP_H

#include "op/run.h"

/* The tensor operations of the models. Each checks shapes, makes its result in the run's
 * memory and launches; none reports errors but through r->err (see op/run.h). Tensors are
 * channels-last; `[n, t, c]` below means t = h·w positions. */

/* How a matrix [k, n] of weights, k = kh·kw·inputs, n outputs, lies on the device: rows of
 * floats, or packed in panels of DR_PANEL columns, [panels][k][DR_PANEL], as floats or as
 * halves (see cl/gemm.cl). Vectors and tables are rows always. */
#define DR_PANEL 32
typedef enum { DR_ROWS, DR_PACKED, DR_PACKED_HALF } dr_layout;

static inline int64_t dr_panels(int64_t n)
{
    return (n + DR_PANEL - 1) / DR_PANEL;
}

/* A weight as the kernels read it. */
typedef struct {
    dr_tensor w; /* [1, 1, k, n]; vectors [1, 1, 1, n]; tables [1, 1, rows, n] */
    dr_layout layout;
    dr_tensor b;     /* [1, 1, 1, n]; b.c 0: no bias */
    int kh, kw;      /* convolution window; 1 for linear layers */
    int64_t in, out; /* channels */
} dr_weight_mat;

/* The two vectors of a normalisation. */
typedef struct {
    dr_tensor w, b; /* [1, 1, 1, c] */
    float eps;
    int64_t groups; /* group norm only */
} dr_weight_norm;

/* The layout in which d reads matrices that a file holds as kind: 0 float32, 1 float16,
 * 2 bfloat16. */
dr_layout op_layout(const dr_dev *d, int kind);
/* Room for a matrix, counted in floats. */
int64_t op_weight_floats(dr_layout layout, int64_t k, int64_t n);

/* A weight of a file, at its start in `file`, to the rows of a dr_weight_mat's w at
 * `to` + at (floats). The file holds [o, c, s] elements, s = kh·kw; c = s = 1 keeps their
 * order. Needs no run: weights outlive runs. */
DR_MUST_USE dr_status op_unpack_weights(dr_dev *d, dr_mem *file, dr_mem *to, size_t at,
                                        int64_t o, int64_t c, int64_t s, int kind,
                                        dr_err *err);
/* The same to the packed layout for that kind. */
DR_MUST_USE dr_status op_pack_weights(dr_dev *d, dr_mem *file, dr_mem *to, size_t at,
                                      int64_t o, int64_t c, int64_t s, int kind,
                                      dr_err *err);

/* Numbered as cl/elementwise.cl counts them. */
typedef enum {
    DR_SILU,
    DR_GELU,
    DR_QUICK_GELU,
    DR_RELU,
    DR_SOFT_CLAMP,
    DR_ACTIVATIONS
} dr_activation;

/* y = x·W + b (+ residual, of y's shape). x: [n, t, in] → [n, t, out]. The `_into` forms
 * write to a tensor that the caller made, so that a block can make its result first and
 * give back its scratch. y may be the residual. */
dr_tensor op_linear(dr_run *r, dr_tensor x, const dr_weight_mat *w,
                    const dr_tensor *residual);
void op_linear_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_mat *w,
                    const dr_tensor *residual);

/* y[i] = x·W[i] + b[i] for n matrices, such as those of queries, keys and values; in one
 * launch where they are alike and were loaded one after the other. */
void op_linear_each(dr_run *r, dr_tensor x, const dr_weight_mat *w, int n, dr_tensor *y);

/* act(x·W + b) */
dr_tensor op_linear_activate(dr_run *r, dr_tensor x, const dr_weight_mat *w,
                             dr_activation kind);

/* How a convolution reads and what is added to it. Zero means: stride 1, no padding… */
typedef struct {
    int stride;            /* 0 or 1: every pixel */
    int pad_top, pad_left; /* zeros before; the rows after follow from the output size */
    int pad_bottom, pad_right; /* zeros after */
    int64_t up_h, up_w;        /* read the input enlarged to this size, nearest neighbour */
    int64_t batch;         /* images of the output; image i reads input i % x.n; 0: x.n */
    float in_scale;        /* factor on the input; 0: 1 */
    const dr_tensor *norm; /* the input passes group norm by these coefficients, and
                              SiLU, first; without in_scale then */
    const dr_tensor *row;  /* [rows, 1, 1, out]: added to every pixel of image i from row
                              i % rows */
    const dr_tensor *residual; /* of the output's shape */
} dr_conv_opts;

/* 2-D convolution (cross-correlation) by tiles of unfolded rows and GEMM.
 * x: [n, h, w, in] → [batch, h', w', out] */
dr_tensor op_conv2d(dr_run *r, dr_tensor x, const dr_weight_mat *w, const dr_conv_opts *o);
void op_conv2d_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_mat *w,
                    const dr_conv_opts *o);

/* Group norm over channels-last, through SiLU when silu. Wu & He 2018. */
dr_tensor op_group_norm(dr_run *r, dr_tensor x, const dr_weight_norm *w, bool silu);
/* Its coefficients for x alone, for dr_conv_opts.norm: [n, 1, 3, c]. */
dr_tensor op_group_norm_coef(dr_run *r, dr_tensor x, const dr_weight_norm *w);
/* The same of a picture [1, h, w, c] that comes in bands of rows: gather the statistics of
 * a band, whose first row is row `first`, into part ([1, h, 2, c]); when all are there,
 * combine them to coef ([1, 1, 3, c]). width: w. */
void op_group_norm_gather(dr_run *r, dr_tensor x, dr_tensor part, int64_t first);
void op_group_norm_combine(dr_run *r, dr_tensor part, int64_t width,
                           const dr_weight_norm *w, dr_tensor coef);
/* x normalised by coefficients, and through SiLU when silu. */
dr_tensor op_group_norm_apply(dr_run *r, dr_tensor x, dr_tensor coef, bool silu);
/* Layer norm over c. Ba et al. 2016. */
dr_tensor op_layer_norm(dr_run *r, dr_tensor x, const dr_weight_norm *w);
void op_layer_norm_into(dr_run *r, dr_tensor y, dr_tensor x, const dr_weight_norm *w);

/* softmax(q·kᵀ/√d)·v for each of `heads` heads of d = c/heads channels, in tiles of query
 * rows so that the scores never take more than the run's attention tile.
 * q: [n, tq, c]; k, v: [m, tk, c], m divides n: image i reads row i·m/n (the guidance
 * halves read their own text). causal: a query sees keys up to its own position. → [n, tq,
 * c] */
dr_tensor op_attention(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v, int64_t heads,
                       bool causal);

/* The same where image i reads row rows[i] of k and v ([m, tk, c], any m); rows: [n] on the
 * host. Images that share a text share its row. */
dr_tensor op_cross_attention(dr_run *r, dr_tensor q, dr_tensor k, dr_tensor v,
                             int64_t heads, const int *rows);

dr_tensor op_activate(dr_run *r, dr_tensor x, dr_activation kind);
/* The same into y, which may be x. */
void op_activate_into(dr_run *r, dr_tensor y, dr_tensor x, dr_activation kind);
/* x[…, :c] · gelu(x[…, c:]); x: [n, t, 2c] → [n, t, c] */
dr_tensor op_geglu(dr_run *r, dr_tensor x);
void op_geglu_into(dr_run *r, dr_tensor y, dr_tensor x);
/* The same of x·W + b, without its wide result in memory where the device can.
 * [n, t, in] → [n, t, out / 2] */
dr_tensor op_linear_geglu(dr_run *r, dr_tensor x, const dr_weight_mat *w);
/* Image i of n is x's i % x.n; n a multiple of x.n. x itself when it has n. */
dr_tensor op_repeat(dr_run *r, dr_tensor x, int64_t n);
/* Channels of a, then of b. */
dr_tensor op_concat(dr_run *r, dr_tensor a, dr_tensor b);
/* y = factor·x + offset, into y (which may be x). */
void op_scale(dr_run *r, dr_tensor x, dr_tensor y, float factor, float offset);
void op_fill(dr_run *r, dr_tensor x, float value);

/* Token plus position embedding; ids: n·length on the host, each < table rows (checked);
 * where extra ([1, 1, rows, c]; NULL: none) goes on with the table, its rows count too.
 * → [n, length, 1, c] */
dr_tensor op_embed_tokens(dr_run *r, const int32_t *ids, int64_t n, int64_t length,
                          const dr_weight_mat *table, const dr_weight_mat *positions,
                          const dr_tensor *extra);
/* Sinusoidal embedding of a timestep → [1, 1, 1, c] */
dr_tensor op_embed_timestep(dr_run *r, double timestep, int64_t c, bool flip, double shift);

/* Guidance that needs sums over an image, before a sampler's step: scaled back to the
 * spread of `text` by the share `rescale` (0: not at all); with `empty` (NULL: none), the
 * model's output for the empty text, only what `plain` asks for across `text` is avoided.
 * See cl/sample.cl. → text's shape */
dr_tensor op_guide(dr_run *r, dr_tensor text, dr_tensor plain, const dr_tensor *empty,
                   double cfg, double rescale);

/* Coefficients of one denoising step; see cl/sample.cl. */
#define DR_STEP_HISTORY 3 /* tensors of a sampler's memory */
typedef struct {
    float cfg;
    float x, out, noise, hist[DR_STEP_HISTORY];
    int slot; /* of the memory, to write; -1: none */
    float hist_x, hist_out, hist_noise;
    float denoised_x, denoised_out;
} dr_step_coef;

/* Guidance and update in place; all of x's shape. out: the model's output; plain: its
 * output without the text, NULL: no guidance. hist: the first n_hist of the memory, those
 * that coef reads and writes among them. noise may be x when coef has none. */
void op_sampler_step(dr_run *r, dr_tensor x, dr_tensor out, const dr_tensor *plain,
                     const dr_tensor *hist, int n_hist, dr_tensor noise, dr_tensor denoised,
                     const dr_step_coef *coef);

/* Set x, in place, back to signal·picture + level·noise where mask ([n, h, w, 1], 0..1) is
 * 0, leave it where it is 1, mix in between. picture and noise: of x's shape. */
void op_repaint(dr_run *r, dr_tensor x, dr_tensor mask, dr_tensor picture, dr_tensor noise,
                double signal, double level);

/* Latents → small RGB in −1..1 by a [c + 1, 3] matrix. */
dr_tensor op_linear_rgb(dr_run *r, dr_tensor x, dr_tensor matrix);
/* −1..1 → bytes at rgb (host, dr_count(x) bytes), rounded, RGB interleaved. Blocking. */
void op_to_rgb8(dr_run *r, dr_tensor x, uint8_t *rgb);

/* Smallest and largest value and how many are NaN or infinite. Blocking. */
typedef struct {
    float min, max;
    int64_t not_finite;
} dr_range;
dr_range op_range(dr_run *r, dr_tensor x);

#endif
