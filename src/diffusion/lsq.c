#include "diffusion/lsq.h"

#include <math.h>

#define COLS    DR_LSQ_COLS_MAX
#define TINIEST 1e-12 /* a pivot this small beside its column's squares: dependent */

/* Centred by the means, the intercept drops out of the equations and the sums keep their
 * digits when a column's mean is far from 0. */
typedef struct {
    double x_mean[COLS], y_mean[COLS];
    double xx[COLS][COLS]; /* X'X, lower triangle; becomes its Cholesky factor */
    double xy[COLS][COLS]; /* X'Y; becomes the coefficients */
} equations;

static void means(double *mean, const float *v, size_t rows, int cols)
{
    for (size_t r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            mean[c] += v[r * (size_t)cols + (size_t)c];
    for (int c = 0; c < cols; c++)
        mean[c] /= (double)rows;
}

static void accumulate(equations *e, const float *x, const float *y, size_t rows,
                       int x_cols, int y_cols)
{
    means(e->x_mean, x, rows, x_cols);
    means(e->y_mean, y, rows, y_cols);
    for (size_t r = 0; r < rows; r++, x += x_cols, y += y_cols)
        for (int i = 0; i < x_cols; i++) {
            double v = x[i] - e->x_mean[i];
            for (int j = 0; j <= i; j++)
                e->xx[i][j] += v * (x[j] - e->x_mean[j]);
            for (int j = 0; j < y_cols; j++)
                e->xy[i][j] += v * (y[j] - e->y_mean[j]);
        }
}

/* xx = L L' in place; -1, or the first column that depends on those before it or on the
 * intercept's ones, which its mean stands for. */
static int factorise(equations *e, size_t rows, int n)
{
    for (int i = 0; i < n; i++) {
        double whole = e->xx[i][i] + (double)rows * e->x_mean[i] * e->x_mean[i];
        for (int j = 0; j <= i; j++) {
            double sum = e->xx[i][j];
            for (int k = 0; k < j; k++)
                sum -= e->xx[i][k] * e->xx[j][k];
            if (j < i)
                e->xx[i][j] = sum / e->xx[j][j];
            else if (sum > TINIEST * whole && isfinite(sum))
                e->xx[i][i] = sqrt(sum);
            else
                return i;
        }
    }
    return -1;
}

/* L L' b = xy for column c of xy, in place. */
static void solve(equations *e, int n, int c)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            e->xy[i][c] -= e->xx[i][k] * e->xy[k][c];
        e->xy[i][c] /= e->xx[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++)
            e->xy[i][c] -= e->xx[k][i] * e->xy[k][c];
        e->xy[i][c] /= e->xx[i][i];
    }
}

dr_status dr_lsq_fit(const float *x, const float *y, size_t rows, int x_cols, int y_cols,
                     double ridge, double *coef, dr_err *err)
{
    equations e = { 0 };
    if (rows < 1 || x_cols < 1 || x_cols > COLS || y_cols < 1 || y_cols > COLS ||
        !(ridge >= 0))
        return dr_fail(err, DR_EINVAL,
                       "least squares: %zu rows, %d and %d columns, ridge %g: needs 1 row, "
                       "1..%d columns, ridge >= 0",
                       rows, x_cols, y_cols, ridge, COLS);
    accumulate(&e, x, y, rows, x_cols, y_cols);
    for (int i = 0; i < x_cols; i++)
        e.xx[i][i] += ridge;
    int bad = factorise(&e, rows, x_cols);
    if (bad >= 0)
        return dr_fail(
            err, DR_ENUMERIC,
            "least squares: column %d of %d depends on the others or is not finite", bad,
            x_cols);
    for (int c = 0; c < y_cols; c++) {
        double intercept = e.y_mean[c];
        solve(&e, x_cols, c);
        for (int i = 0; i < x_cols; i++) {
            coef[i * y_cols + c] = e.xy[i][c];
            intercept -= e.xy[i][c] * e.x_mean[i];
        }
        coef[x_cols * y_cols + c] = intercept;
        if (!isfinite(intercept))
            return dr_fail(err, DR_ENUMERIC, "least squares: target %d is not finite", c);
    }
    return DR_OK;
}
