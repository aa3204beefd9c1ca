#include "dev/cl.h"

#include "base/cache.h"
#include "base/embed.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CACHE_FORMAT  "darkroom-cl-1"
#define SOURCE_MAX    ((size_t)1 << 20)
#define BUILD_LOG_MAX 1500

#define ROW(file, name, packed) { file, #name, packed },
static const struct {
    const char *file, *name;
    bool packed;
} registry[] = { DR_KERNEL_TABLE(ROW) };
#undef ROW

/* What stands in front of each kernel file. */
static const char *const headers[] = { "prelude.h", "tile.h" };

/* Everything that one program is built from. */
typedef struct {
    const char *file;
    dr_buf source;
    char options[256];
    char cache_path[DR_PATH_MAX]; /* "" : no cache */
} recipe;

/* Append a kernel file, from the override folder when there is one. */
static dr_status add_file(dr_buf *out, const char *dir, const char *name, dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_status st = DR_OK;
    dr_buf_printf(out, "#line 1 \"%s\"\n", name);
    if (*dir) {
        if (!(st = dr_path_join(path, dir, name, err)))
            st = dr_file_read(path, SOURCE_MAX, out, err);
        return st;
    }
    const dr_embedded *e = dr_embedded_find(dr_kernel_files, name);
    if (!e)
        return dr_fail(err, DR_EDEVICE, "kernel file %s is not in this program", name);
    dr_buf_puts(out, e->text);
    return DR_OK;
}

static dr_status prepare(recipe *r, dr_dev *d, const dr_conf *conf, dr_err *err)
{
    char platform[256] = "";
    dr_status st;
    snprintf(r->options, sizeof r->options,
             "-cl-std=CL1.2 -cl-mad-enable -DWG=%d -DLANES=%d", dr_row_group(d), d->lanes);
    for (size_t i = 0; i < DR_COUNT(headers); i++)
        if ((st = add_file(&r->source, conf->device.cl_dir, headers[i], err)))
            return st;
    if ((st = add_file(&r->source, conf->device.cl_dir, r->file, err)))
        return st;
    if (r->source.failed)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    clGetPlatformInfo(d->platform, CL_PLATFORM_VERSION, sizeof platform - 1, platform,
                      NULL);
    dr_hash *h = dr_hash_new();
    if (!h)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    dr_hash_add(h, r->source.data, r->source.len);
    dr_hash_str(h, r->options);
    dr_hash_str(h, d->info.name);
    dr_hash_str(h, d->info.driver);
    dr_hash_str(h, platform);
    dr_hash_str(h, CACHE_FORMAT);
    char name[64];
    snprintf(name, sizeof name, "%s.clbin", dr_hash_end(h).hex);
    if (!dr_cache_path(r->cache_path, conf, name))
        *r->cache_path = 0;
    return DR_OK;
}

/* A program from the disk cache, or NULL: any trouble is a miss. */
static cl_program from_cache(dr_dev *d, const recipe *r)
{
    dr_buf bin = { 0 };
    cl_program p = NULL;
    cl_int rc, status;
    if (!*r->cache_path || !dr_cache_read(&bin, r->cache_path, CACHE_FORMAT))
        goto done;
    const unsigned char *data = (const unsigned char *)bin.data;
    p = clCreateProgramWithBinary(d->context, 1, &d->id, &bin.len, &data, &status, &rc);
    if (p && (rc || status || clBuildProgram(p, 1, &d->id, r->options, NULL, NULL))) {
        clReleaseProgram(p);
        p = NULL;
    }
done:
    dr_buf_free(&bin);
    return p;
}

static void to_cache(cl_program p, const recipe *r)
{
    size_t len = 0;
    if (!*r->cache_path ||
        clGetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof len, &len, NULL) || !len)
        return;
    unsigned char *bin = dr_alloc(len);
    if (bin && !clGetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof bin, &bin, NULL))
        dr_cache_write(r->cache_path, CACHE_FORMAT, bin, len);
    dr_free(bin);
}

static dr_status fail_build(dr_dev *d, cl_program p, const recipe *r, cl_int rc,
                            dr_err *err)
{
    size_t len = 0;
    clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &len);
    char *log = dr_alloc(len + 1);
    if (log)
        clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, len, log, NULL);
    dr_status st = dr_fail(err, DR_EDEVICE, "%s does not build on %s (%s):\n%.*s", r->file,
                           d->info.name, dr_cl_name(rc), BUILD_LOG_MAX, log ? log : "");
    dr_free(log);
    return st;
}

static dr_status build(cl_program *out, dr_dev *d, const char *file, const dr_conf *conf,
                       dr_err *err)
{
    recipe r = { .file = file };
    cl_int rc;
    dr_status st = prepare(&r, d, conf, err);
    if (st)
        goto done;
    if ((*out = from_cache(d, &r)))
        goto done;
    const char *text = r.source.data;
    cl_program p = clCreateProgramWithSource(d->context, 1, &text, &r.source.len, &rc);
    if (!p) {
        st = dr_cl_fail(err, rc, "clCreateProgramWithSource");
        goto done;
    }
    if ((rc = clBuildProgram(p, 1, &d->id, r.options, NULL, NULL))) {
        st = fail_build(d, p, &r, rc, err);
        clReleaseProgram(p);
        goto done;
    }
    to_cache(p, &r);
    *out = p;
done:
    dr_buf_free(&r.source);
    return st;
}

/* Whether kernel i is wanted and missing. */
static bool missing(const dr_dev *d, int i)
{
    return !d->kernels[i] && (d->choice.packed || !registry[i].packed);
}

/* The missing kernels among those of one file, which stand together: [first, end). */
static dr_status create(dr_dev *d, int first, int end, const dr_conf *conf, dr_err *err)
{
    cl_program p = NULL;
    cl_int rc;
    dr_status st = DR_OK;
    for (int i = first; i < end && !st; i++) {
        if (!missing(d, i))
            continue;
        if (!p && (st = build(&p, d, registry[i].file, conf, err)))
            break;
        if (!(d->kernels[i] = clCreateKernel(p, registry[i].name, &rc))) {
            st = dr_cl_fail(err, rc, "clCreateKernel");
            dr_err_wrap(err, "%s in %s", registry[i].name, registry[i].file);
        }
    }
    if (p)
        clReleaseProgram(p); /* its kernels hold it */
    return st;
}

dr_status dr_programs_build(dr_dev *d, const dr_conf *conf, dr_err *err)
{
    dr_status st = DR_OK;
    for (int i = 0; i < DR_KERNELS; i++)
        if (registry[i].packed && !d->choice.packed && d->kernels[i]) {
            clReleaseKernel(d->kernels[i]);
            d->kernels[i] = NULL;
        }
    for (int first = 0, end; first < DR_KERNELS && !st; first = end) {
        for (end = first; end < DR_KERNELS; end++)
            if (strcmp(registry[end].file, registry[first].file) != 0)
                break;
        st = create(d, first, end, conf, err);
    }
    return st;
}
