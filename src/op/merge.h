#ifndef DR_OP_MERGE_H
#define DR_OP_MERGE_H

#include "op/op.h"

/* Operations that change copies of weights (LoRA). Same rules as op/op.h. A matrix of a
 * window of s positions is [s, in, 1, out]: with s = 1 a plain one, and in all a layer's
 * weight [s·in, out]. */

/* A new tensor [s, c, 1, o] of a weight that lies in a file as [o, c, s], as
 * op_unpack_weights (kind) reads it. */
dr_tensor op_upload_weights(dr_run *r, const void *data, size_t bytes, int64_t o, int64_t c,
                            int64_t s, int kind);

/* A weight w [1, 1, k, n] as rows of floats, and back to a layout that holds floats. */
void op_read_weight(dr_run *r, dr_tensor w, dr_layout layout, dr_tensor rows);
void op_write_weight(dr_run *r, dr_tensor rows, dr_tensor w, dr_layout layout);

/* y = factor · a·b + beta · y for each of y.n positions. a: [n, m, 1, k], b: [n, k, 1, o];
 * one of a single position serves all. y: [n, m, 1, o] */
void op_add_product(dr_run *r, dr_tensor y, dr_tensor a, dr_tensor b, float factor,
                    float beta);

/* y += factor · a ⊙ b, all of one shape. */
void op_add_hadamard(dr_run *r, dr_tensor y, dr_tensor a, dr_tensor b, float factor);

/* y += factor · a ⊗ b; a: [1, in1, 1, out1], b: [s, in2, 1, out2], y: [s, in1·in2, 1,
 * out1·out2] */
void op_add_kronecker(dr_run *r, dr_tensor y, dr_tensor a, dr_tensor b, float factor);

/* y += factor · (magnitude · w/‖w‖ - base), of y's shape [s, in, 1, out]; norms are taken
 * of what belongs to one output, or to one input (by_input). magnitude: as many values as
 * there are norms. DoRA, Liu et al. 2024. */
void op_add_dora(dr_run *r, dr_tensor y, dr_tensor base, dr_tensor w, dr_tensor magnitude,
                 bool by_input, float factor);

#endif
