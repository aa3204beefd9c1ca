#ifndef DR_OP_PRODUCT_H
#define DR_OP_PRODUCT_H

/* Private to src/op/: what the ways to multiply by weights share. */

#include "op/launcher.h"

/* What is added to a product beside the bias; as in dr_conv_opts. */
typedef struct {
    const dr_tensor *row, *residual;
} addends;

/* The same and the bias as kernels take them: what is missing is stood in for by y. has:
 * bit 0 bias, bit 1 row, bit 2 residual. */
typedef struct {
    dr_tensor bias, row, residual;
    int64_t rows;
    int has;
} addends_args;

static inline addends_args addends_of(dr_tensor y, const dr_weight_mat *w,
                                      const addends *add)
{
    return (addends_args){
        .bias = w->b.c ? w->b : y,
        .row = add->row ? *add->row : y,
        .rows = add->row ? add->row->n : 1,
        .residual = add->residual ? *add->residual : y,
        .has = (w->b.c ? 1 : 0) | (add->row ? 2 : 0) | (add->residual ? 4 : 0),
    };
}

#define ADDENDS(a)                                                                         \
    T((a).bias), T((a).row), DR_INT((a).rows), T((a).residual), DR_INT((a).has)

/* A convolution with its defaults filled in. */
typedef struct {
    int stride, pad_top, pad_left;
    int64_t in_h, in_w; /* of the enlarged input */
    int64_t n, h, w;    /* of the result */
    float in_scale;
    const dr_tensor *norm; /* as in dr_conv_opts */
    bool plain;            /* 1×1 over the input as it lies: a matrix product */
} conv_shape;

/* Winograd's way (cl/winograd.cl), and whether it is there for this convolution and pays.
 */
bool winograd_fits(const dr_weight_mat *w, const conv_shape *s);
void winograd(dr_run *r, dr_tensor x, dr_tensor y, const dr_weight_mat *w,
              const conv_shape *s, const addends *add);

#endif
