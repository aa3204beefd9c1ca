#ifndef DR_OP_REF_H
#define DR_OP_REF_H

#include <stdbool.h>
#include <stdint.h>

#include "op/op.h"

/* The operations once more, as plain loops over host arrays with sums in double: what the
 * self-test and the tests hold every device against. Same layouts as op/op.h: activations
 * [n, t, c] channels-last, weights [k, n] with k = (ky·kw + kx)·in + ci. Optional arrays
 * may be NULL. Shapes are trusted. */

/* c[m,n] = alpha · a[m,k]·b + beta · c; b: [k, n], or [n, k] when b_transposed. ld*: floats
 * between rows. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc;
    bool b_transposed;
    double alpha, beta;
} ref_gemm_args;
void ref_gemm(float *c, const float *a, const float *b, const ref_gemm_args *g);

/* y = x·W + b + residual; x: [m, in], W: [in, out] */
void ref_linear(float *y, const float *x, const float *w, const float *b,
                const float *residual, int64_t m, int64_t in, int64_t out);

/* x: [sources, h, w, in] read as if enlarged to in_h × in_w (nearest); image i reads source
 * i % sources and adds row i % rows. y: [n, out_h, out_w, out] */
typedef struct {
    int64_t sources, h, w, in, in_h, in_w;
    int64_t n, out_h, out_w, out, rows;
    int64_t kh, kw, stride, pad_top, pad_left;
    bool wrap; /* padding is the opposite edge */
    double in_scale;
} ref_conv_args;
void ref_conv2d(float *y, const float *x, const float *w, const float *b, const float *row,
                const float *residual, const ref_conv_args *a);

/* y = b[c] + row[image % rows, c] + residual */
void ref_prefill(float *y, const float *b, const float *row, int64_t rows,
                 const float *residual, int64_t n, int64_t t, int64_t c);

void ref_group_norm(float *y, const float *x, const float *w, const float *b, int64_t n,
                    int64_t t, int64_t c, int64_t groups, double eps, bool silu);
void ref_layer_norm(float *y, const float *x, const float *w, const float *b, int64_t rows,
                    int64_t c, double eps);
/* In place; row r is query first + r % queries, see cl/softmax.cl. */
void ref_softmax(float *x, int64_t rows, int64_t cols, int64_t queries, int64_t first,
                 bool causal);

/* q: [n, tq, c]; k, v: [m, tk, c]; image i reads text i·m/n, or rows[i]. */
typedef struct {
    int64_t n, m, tq, tk, c, heads;
    bool causal;
    const int *rows;
} ref_attention_args;
void ref_attention(float *y, const float *q, const float *k, const float *v,
                   const ref_attention_args *a);

void ref_activate(float *y, const float *x, int64_t count, dr_activation kind);
void ref_geglu(float *y, const float *x, int64_t rows, int64_t c); /* x: [rows, 2c] */
void ref_concat(float *y, const float *a, int64_t ca, const float *b, int64_t cb,
                int64_t rows);
void ref_scale(float *y, const float *x, int64_t count, double factor, double offset);
void ref_fill(float *y, int64_t count, double value);

/* ids from `rows` on read extra. */
void ref_embed_tokens(float *y, const int32_t *ids, const float *table, int64_t rows,
                      const float *extra, const float *positions, int64_t n, int64_t length,
                      int64_t c);
void ref_embed_timestep(float *y, double timestep, int64_t c, bool flip, double shift);

/* n images of `count` values; empty NULL: plain stands for it and is avoided whole. */
void ref_guide(float *y, const float *text, const float *plain, const float *empty,
               int64_t n, int64_t count, double cfg, double rescale);
/* plain NULL: no guidance; x, hist and denoised are written. */
/* hist: DR_STEP_HISTORY of them. */
void ref_sampler_step(float *x, const float *out, const float *plain, float *const *hist,
                      const float *noise, float *denoised, int64_t count,
                      const dr_step_coef *k);
/* mask: one value for each of the positions. */
void ref_repaint(float *x, const float *mask, const float *picture, const float *noise,
                 int64_t positions, int64_t c, double signal, double level);
/* matrix: [c + 1, 3], the bias last. */
void ref_linear_rgb(float *y, const float *x, const float *matrix, int64_t pixels,
                    int64_t c);
void ref_to_rgb8(uint8_t *y, const float *x, int64_t count);
dr_range ref_range(const float *x, int64_t count);

/* A weight of a file ([o, c, s] floats, halves or bfloat16: kind 0, 1, 2) as GEMM reads it:
 * [s·c, o]. */
void ref_unpack_weights(float *y, const void *x, int64_t o, int64_t c, int64_t s, int kind);

/* What LoRAs add to weights, see cl/lora.cl; y: [s, in, n]. */
void ref_add_hadamard(float *y, const float *a, const float *b, int64_t count,
                      double factor);
typedef struct {
    int64_t in1, out1, in2, out2, s;
} ref_kronecker_args;
void ref_add_kronecker(float *y, const float *a, const float *b,
                       const ref_kronecker_args *k, double factor);
void ref_add_dora(float *y, const float *base, const float *w, const float *magnitude,
                  int64_t s, int64_t in, int64_t n, bool by_input, double factor);

/* ‖a − b‖ / ‖b‖, for checks; infinite when a holds a value that is not finite. */
double ref_distance(const float *a, const float *b, int64_t count);

#endif
