#ifndef DR_DIFFUSION_LSQ_H
#define DR_DIFFUSION_LSQ_H

#include "base/err.h"

#include <stddef.h>

#define DR_LSQ_COLS_MAX 32

/* Ridge regression with an intercept, by normal equations and Cholesky in double: the coef
 * that minimise |x coef + intercept - y|² + ridge |coef|² (the intercept is not shrunk).
 * Fits the factors that turn latents into preview colours.
 *
 * x: [rows, x_cols] and y: [rows, y_cols], row-major; coef: [x_cols + 1, y_cols], the last
 * row is the intercept. 1 <= x_cols, y_cols <= DR_LSQ_COLS_MAX. DR_EINVAL when the sizes
 * are wrong, DR_ENUMERIC when the columns of x depend on each other (a ridge > 0 helps) or
 * hold NaN or Inf; coef is undefined then. Allocates nothing. */
DR_MUST_USE dr_status dr_lsq_fit(const float *x, const float *y, size_t rows, int x_cols,
                                 int y_cols, double ridge, double *coef, dr_err *err);

#endif
