#include "dev/cl.h"

#include "base/host.h"
#include "base/log.h"
#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PLATFORMS_MAX 16
#define DEVICES_MAX   64

typedef struct {
    cl_platform_id platform;
    cl_device_id id;
} place;

/* PoCL pads its names with blanks. */
static void text_info(cl_device_id id, cl_device_info what, char *out, size_t size)
{
    char text[1024] = "";
    clGetDeviceInfo(id, what, sizeof text - 1, text, NULL);
    char *p = text;
    while (isspace((unsigned char)*p))
        p++;
    for (size_t n = strlen(p); n && isspace((unsigned char)p[n - 1]);)
        p[--n] = 0;
    snprintf(out, size, "%s", p);
}

static const char *type_name(cl_device_type type)
{
    return type & CL_DEVICE_TYPE_GPU           ? "gpu"
           : type & CL_DEVICE_TYPE_CPU         ? "cpu"
           : type & CL_DEVICE_TYPE_ACCELERATOR ? "accelerator"
                                               : "other";
}

static void describe(dr_dev_info *info, const place *p, int index)
{
    char extensions[8192] = "";
    cl_device_type type = 0;
    cl_ulong memory = 0, alloc = 0, local = 0;
    cl_uint units = 0;
    cl_bool unified = CL_FALSE;
    size_t group = 0;
    *info = (dr_dev_info){ .index = index };
    clGetPlatformInfo(p->platform, CL_PLATFORM_NAME, sizeof info->platform - 1,
                      info->platform, NULL);
    text_info(p->id, CL_DEVICE_NAME, info->name, sizeof info->name);
    text_info(p->id, CL_DRIVER_VERSION, info->driver, sizeof info->driver);
    text_info(p->id, CL_DEVICE_VERSION, info->version, sizeof info->version);
    clGetDeviceInfo(p->id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof memory, &memory, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof alloc, &alloc, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_LOCAL_MEM_SIZE, sizeof local, &local, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof group, &group, NULL);
    clGetDeviceInfo(p->id, CL_DEVICE_EXTENSIONS, sizeof extensions - 1, extensions, NULL);
    snprintf(info->type, sizeof info->type, "%s", type_name(type));
    info->memory_bytes = memory;
    info->max_alloc_bytes = alloc;
    info->local_bytes = local;
    info->host_bytes = dr_host_memory();
    info->shares_host = unified || dr_is_cpu(info);
    info->compute_units = units;
    info->max_work_group = group;
    info->fp16 = strstr(extensions, "cl_khr_fp16") != NULL;
    info->fp64 = strstr(extensions, "cl_khr_fp64") != NULL;
}

static dr_status find_places(place places[DEVICES_MAX], int *count, dr_err *err)
{
    cl_platform_id platforms[PLATFORMS_MAX];
    cl_uint n_platforms = 0;
    *count = 0;
    cl_int rc = clGetPlatformIDs(PLATFORMS_MAX, platforms, &n_platforms);
    if (rc != CL_SUCCESS || !n_platforms)
        return dr_fail(err, DR_ENOTFOUND,
                       "no OpenCL platform found; install a driver (for CPUs: the Debian "
                       "package pocl-opencl-icd) and check that `clinfo` shows it");
    if (n_platforms > PLATFORMS_MAX)
        n_platforms = PLATFORMS_MAX;
    for (cl_uint i = 0; i < n_platforms; i++) {
        cl_device_id ids[DEVICES_MAX];
        cl_uint n = 0;
        if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, DEVICES_MAX, ids, &n))
            continue;
        for (cl_uint k = 0; k < n && k < DEVICES_MAX && *count < DEVICES_MAX; k++)
            places[(*count)++] = (place){ platforms[i], ids[k] };
    }
    if (!*count)
        return dr_fail(err, DR_ENOTFOUND, "%u OpenCL platforms, but none has a device",
                       n_platforms);
    return DR_OK;
}

dr_status dr_dev_list(dr_dev_info *rows, int max, int *count, dr_err *err)
{
    place places[DEVICES_MAX];
    dr_status st = find_places(places, count, err);
    for (int i = 0; !st && i < *count && i < max; i++)
        describe(&rows[i], &places[i], i);
    return st;
}

static bool matches(const dr_dev_info *info, const char *select)
{
    char *end;
    long index = strtol(select, &end, 10);
    if (!*end)
        return index == info->index;
    return !strcasecmp(select, info->type) || strcasestr(info->name, select) ||
           strcasestr(info->platform, select);
}

/* The first device that matches; with no wish, the first GPU, else the first of all. */
static dr_status choose(place *out, dr_dev_info *info, const char *select, dr_err *err)
{
    place places[DEVICES_MAX];
    int n, best = -1;
    dr_status st = find_places(places, &n, err);
    if (st)
        return st;
    for (int i = 0; i < n; i++) {
        describe(info, &places[i], i);
        if (*select ? matches(info, select) : !strcmp(info->type, "gpu")) {
            best = i;
            break;
        }
    }
    if (best < 0 && *select)
        return dr_fail_field(
            err, DR_ENOTFOUND, "device.select",
            "no OpenCL device matches \"%s\"; `darkroom devices` lists the %d "
            "there are",
            select, n);
    best = best < 0 ? 0 : best;
    *out = places[best];
    describe(info, out, best);
    return DR_OK;
}

/* The kernels' reductions halve the group, so it must be a power of two. */
static dr_status choose_row_group(dr_dev *d, const dr_conf *conf, dr_err *err)
{
    size_t wish = (size_t)conf->device.row_group;
    size_t limit = d->info.max_work_group ? d->info.max_work_group : 1;
    if (wish & (wish - 1) || wish > limit)
        return dr_fail_field(err, DR_EINVAL, "device.row_group",
                             "device.row_group %zu: must be a power of two up to %zu, "
                             "what %s allows, or 0",
                             wish, limit, d->info.name);
    if (!wish)
        wish = dr_is_cpu(&d->info) ? 1 : 128;
    while (wish > limit)
        wish /= 2;
    d->row_group = (int)wish;
    return DR_OK;
}

/* Kernels for CPUs come in two shapes; see cl/tile.h. */
static dr_status choose_lanes(dr_dev *d, const dr_conf *conf, dr_err *err)
{
    int64_t wish = conf->device.lanes;
    cl_uint width = 0;
    if (wish && wish != 8 && wish != 16)
        return dr_fail_field(err, DR_EINVAL, "device.lanes",
                             "device.lanes is %lld; must be 8, 16 or 0", (long long)wish);
    clGetDeviceInfo(d->id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, sizeof width, &width, NULL);
    d->lanes = wish ? (int)wish : width >= 16 ? 16 : 8;
    return DR_OK;
}

dr_status dr_dev_use(dr_dev *d, const dr_choice *choice, const dr_conf *conf, dr_err *err)
{
    d->choice = *choice;
    dr_status st = dr_programs_build(d, conf, err);
    return st || !*choice->tuning ? st : dr_gemm_tune(d, choice->tuning, err);
}

/* What was measured must not keep a device from starting. */
static dr_status use_first(dr_dev *d, dr_choice *choice, const dr_conf *conf, dr_err *err)
{
    char quoted[2200];
    dr_status st = dr_dev_use(d, choice, conf, err);
    if (!st || choice->by != DR_BY_MEASURE)
        return st;
    dr_log(DR_WARN, "tune.file", "ignored=%s",
           dr_log_quote(quoted, sizeof quoted, err->message));
    dr_choice_default(choice, &d->info);
    return dr_dev_use(d, choice, conf, err);
}

dr_status dr_dev_open(dr_dev **out, const dr_conf *conf, dr_err *err)
{
    place p;
    cl_int rc;
    dr_status st;
    dr_choice choice;
    dr_dev *d = dr_alloc(sizeof *d);
    if (!d)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if ((st = choose(&p, &d->info, conf->device.select, err)) ||
        (st = choose_row_group(d, conf, err)) ||
        (st = dr_choice_find(&choice, &d->info, conf, err)))
        goto fail;
    d->platform = p.platform;
    d->id = p.id;
    if ((st = choose_lanes(d, conf, err)))
        goto fail;
    d->context = clCreateContext(NULL, 1, &d->id, NULL, NULL, &rc);
    if (!d->context) {
        st = dr_cl_fail(err, rc, "clCreateContext");
        goto fail;
    }
    if ((st = dr_cl_queue(d, false, err)) || (st = use_first(d, &choice, conf, err)))
        goto fail;
    *out = d;
    return DR_OK;
fail:
    dr_dev_close(d);
    return st;
}

void dr_dev_close(dr_dev *d)
{
    if (!d)
        return;
    if (d->queue)
        clFinish(d->queue);
    dr_profile_free(d);
    for (int i = 0; i < DR_KERNELS; i++)
        if (d->kernels[i])
            clReleaseKernel(d->kernels[i]);
    dr_mem_free(d, d->gemm_temp);
    if (d->queue)
        clReleaseCommandQueue(d->queue);
    if (d->context)
        clReleaseContext(d->context);
    dr_free(d);
}

const dr_dev_info *dr_dev_describe(const dr_dev *d)
{
    return &d->info;
}

uint64_t dr_dev_peak_bytes(const dr_dev *d)
{
    return d->peak_bytes;
}

int dr_row_group(const dr_dev *d)
{
    return d->row_group;
}

const dr_choice *dr_dev_choice(const dr_dev *d)
{
    return &d->choice;
}

bool dr_packed(const dr_dev *d)
{
    return d->choice.packed;
}

int dr_compute_units(const dr_dev *d)
{
    return d->info.compute_units ? (int)d->info.compute_units : 1;
}

uint64_t dr_max_alloc(const dr_dev *d)
{
    return d->info.max_alloc_bytes;
}

uint64_t dr_launches(const dr_dev *d)
{
    return d->launches;
}

uint64_t dr_kernel_launches(const dr_dev *d, dr_kernel_id kernel)
{
    return d->kernel_launches[kernel];
}

bool dr_has_kernel(const dr_dev *d, dr_kernel_id kernel)
{
    return d->kernels[kernel] != NULL;
}
