#include "dev/gemm.h"

#include "base/clock.h"
#include "base/embed.h"
#include "base/ini.h"
#include "dev/cl.h"

#include <clblast_c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* CLBlast thinks in columns: our row-major C[m,n] = A·B is its column-major Cᵀ = Bᵀ·Aᵀ, so
 * that B (the weights, stored [k,n]) plays its first operand and needs no transposed copy.
 */

static dr_status fail(dr_err *err, int code, const dr_gemm_args *g)
{
    dr_status st = code == CLBlastTempBufferAllocFailure ? DR_ENOMEM : DR_EDEVICE;
    return dr_fail(err, st, "CLBlast error %d on gemm m=%lld n=%lld k=%lld batch=%lld",
                   code, (long long)g->m, (long long)g->n, (long long)g->k,
                   (long long)g->batch);
}

/* Make CLBlast's scratch at least as large as triple i needs; it only grows. */
static dr_status reserve_temp(dr_dev *d, const dr_gemm_args *g, CLBlastTranspose bt,
                              size_t i, dr_err *err)
{
    size_t need = 0;
    int rc = CLBlastSGemmTempBufferSize(
        CLBlastLayoutColMajor, bt, CLBlastTransposeNo, (size_t)g->n, (size_t)g->m,
        (size_t)g->k, g->b.at + i * (size_t)g->b.stride, (size_t)g->b.ld,
        g->a.at + i * (size_t)g->a.stride, (size_t)g->a.ld,
        g->c.at + i * (size_t)g->c.stride, (size_t)g->c.ld, &d->queue, &need);
    if (rc)
        return fail(err, rc, g);
    if (need <= d->gemm_temp_bytes)
        return DR_OK;
    dr_status st = dr_finish(d, err); /* a queued product may still use the old one */
    if (st)
        return st;
    dr_mem_free(d, d->gemm_temp);
    d->gemm_temp = NULL;
    d->gemm_temp_bytes = 0;
    if ((st = dr_mem_new(&d->gemm_temp, d, need, err)))
        return st;
    d->gemm_temp_bytes = need;
    return DR_OK;
}

/* Triple i of the batch. */
static dr_status gemm_one(dr_dev *d, const dr_gemm_args *g, CLBlastTranspose bt, size_t i,
                          dr_err *err)
{
    dr_status st = reserve_temp(d, g, bt, i, err);
    if (st)
        return st;
    int rc = CLBlastSgemmWithTempBuffer(
        CLBlastLayoutColMajor, bt, CLBlastTransposeNo, (size_t)g->n, (size_t)g->m,
        (size_t)g->k, g->alpha, g->b.mem, g->b.at + i * (size_t)g->b.stride,
        (size_t)g->b.ld, g->a.mem, g->a.at + i * (size_t)g->a.stride, (size_t)g->a.ld,
        g->beta, g->c.mem, g->c.at + i * (size_t)g->c.stride, (size_t)g->c.ld, &d->queue,
        NULL, d->gemm_temp);
    if (rc)
        return fail(err, rc, g);
    d->launches++;
    return DR_OK;
}

/* One product after the other. CLBlast has a batched call too, but where that takes its
 * packed kernel it makes scratch buffers of its own and lets go of them before the kernels
 * have run; under PoCL 3.1 a UNet then came out wrong (relative L2 0.1) without an error.
 */
dr_status dr_gemm(dr_dev *d, const dr_gemm_args *g, dr_err *err)
{
    /* One event does not cover the kernels of a product: when profiling, wait and look at
     * the clock. */
    double start = d->profile && !clFinish(d->queue) ? dr_now_s() : 0;
    CLBlastTranspose bt = g->b_transposed ? CLBlastTransposeYes : CLBlastTransposeNo;
    dr_status st = DR_OK;
    for (int64_t i = 0; !st && i < g->batch; i++)
        st = gemm_one(d, g, bt, (size_t)i, err);
    if (!st && d->profile && !clFinish(d->queue))
        dr_profile_book(d, "gemm", start);
    return st;
}

/* --- tuning file --- */

#define PARAMETERS_MAX 24

/* The parameters of one CLBlast kernel, gathered until the next section begins. */
typedef struct {
    cl_device_id id;
    char kernel[32];
    char names[PARAMETERS_MAX][32];
    size_t values[PARAMETERS_MAX];
    size_t n;
} tuning;

static dr_status apply(tuning *t, dr_err *err)
{
    const char *names[PARAMETERS_MAX];
    for (size_t i = 0; i < t->n; i++)
        names[i] = t->names[i];
    int rc = t->n ? CLBlastOverrideParameters(t->id, t->kernel, CLBlastPrecisionSingle,
                                              t->n, names, t->values)
                  : 0;
    t->n = 0;
    return rc ? dr_fail(err, DR_EINVAL, "CLBlast refuses the parameters of [%s] (error %d)",
                        t->kernel, rc)
              : DR_OK;
}

static dr_status on_tuning(void *ctx, const char *section, const char *key,
                           const char *value, dr_err *err)
{
    tuning *t = ctx;
    char *end;
    dr_status st;
    if (strcmp(t->kernel, section) != 0 && (st = apply(t, err)))
        return st;
    snprintf(t->kernel, sizeof t->kernel, "%s", section);
    unsigned long v = strtoul(value, &end, 10);
    if (t->n == PARAMETERS_MAX || *end || end == value || strlen(key) >= sizeof *t->names)
        return dr_fail(err, DR_EINVAL, "[%s] %s = %s: not a CLBlast parameter", section,
                       key, value);
    snprintf(t->names[t->n], sizeof *t->names, "%s", key);
    t->values[t->n++] = v;
    return DR_OK;
}

dr_status dr_gemm_tune(dr_dev *d, const char *tuning_file, dr_err *err)
{
    tuning t = { .id = d->id };
    const dr_embedded *e = dr_embedded_find(dr_tuning_files, tuning_file);
    dr_status st = e ? dr_ini_text(e->name, e->text, on_tuning, &t, err)
                     : dr_ini_read(tuning_file, on_tuning, &t, err);
    return st ? st : apply(&t, err);
}

#define TEXT(x)    #x
#define VERSION(x) TEXT(x)

const char *dr_clblast_version(void)
{
    return VERSION(CLBLAST_VERSION_MAJOR) "." VERSION(CLBLAST_VERSION_MINOR) "." VERSION(
        CLBLAST_VERSION_PATCH);
}
