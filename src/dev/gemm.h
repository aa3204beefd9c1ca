#ifndef DR_DEV_GEMM_H
#define DR_DEV_GEMM_H

#include "dev/launch.h"

/* A matrix of floats inside a buffer: row-major, `ld` floats between rows. */
typedef struct {
    dr_mem *mem;
    size_t at; /* first element */
    int64_t ld;
    int64_t stride; /* floats between the matrices of a batch */
} dr_mat;

/* C[m,n] = alpha * A[m,k] · op(B) + beta * C for each of `batch` triples.
 * b_transposed: B is stored [n,k], otherwise [k,n], which CLBlast reads without a copy.
 * The one door to CLBlast. */
typedef struct dr_gemm_args {
    int64_t m, n, k, batch;
    dr_mat a, b, c;
    bool b_transposed;
    float alpha, beta;
} dr_gemm_args;

DR_MUST_USE dr_status dr_gemm(dr_dev *d, const dr_gemm_args *g, dr_err *err);

/* "1.5.3" */
const char *dr_clblast_version(void);

#endif
