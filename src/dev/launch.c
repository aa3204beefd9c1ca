#include "dev/cl.h"

#define E(code)                                                                            \
    {                                                                                      \
        code, #code                                                                        \
    }
static const struct {
    cl_int code;
    const char *name;
} cl_names[] = {
    E(CL_DEVICE_NOT_FOUND),
    E(CL_DEVICE_NOT_AVAILABLE),
    E(CL_COMPILER_NOT_AVAILABLE),
    E(CL_MEM_OBJECT_ALLOCATION_FAILURE),
    E(CL_OUT_OF_RESOURCES),
    E(CL_OUT_OF_HOST_MEMORY),
    E(CL_BUILD_PROGRAM_FAILURE),
    E(CL_INVALID_VALUE),
    E(CL_INVALID_CONTEXT),
    E(CL_INVALID_COMMAND_QUEUE),
    E(CL_INVALID_MEM_OBJECT),
    E(CL_INVALID_BINARY),
    E(CL_INVALID_BUILD_OPTIONS),
    E(CL_INVALID_PROGRAM),
    E(CL_INVALID_PROGRAM_EXECUTABLE),
    E(CL_INVALID_KERNEL_NAME),
    E(CL_INVALID_KERNEL),
    E(CL_INVALID_ARG_INDEX),
    E(CL_INVALID_ARG_VALUE),
    E(CL_INVALID_ARG_SIZE),
    E(CL_INVALID_KERNEL_ARGS),
    E(CL_INVALID_WORK_DIMENSION),
    E(CL_INVALID_WORK_GROUP_SIZE),
    E(CL_INVALID_WORK_ITEM_SIZE),
    E(CL_INVALID_GLOBAL_OFFSET),
    E(CL_INVALID_BUFFER_SIZE),
    E(CL_INVALID_OPERATION),
};
#undef E

const char *dr_cl_name(cl_int code)
{
    for (size_t i = 0; i < DR_COUNT(cl_names); i++)
        if (cl_names[i].code == code)
            return cl_names[i].name;
    return "unknown OpenCL error";
}

dr_status dr_cl_fail(dr_err *err, cl_int code, const char *call)
{
    dr_status st = code == CL_MEM_OBJECT_ALLOCATION_FAILURE ||
                           code == CL_OUT_OF_HOST_MEMORY || code == CL_INVALID_BUFFER_SIZE
                       ? DR_ENOMEM
                       : DR_EDEVICE;
    return dr_fail(err, st, "%s: %s (%d)", call, dr_cl_name(code), code);
}

static dr_status new_buffer(dr_mem **out, dr_dev *d, cl_mem_flags flags, void *p,
                            size_t bytes, dr_err *err)
{
    cl_int rc;
    if (bytes > d->info.max_alloc_bytes)
        return dr_fail(err, DR_ENOMEM,
                       "a buffer of %zu bytes is more than %s allows at once (%llu)", bytes,
                       d->info.name, (unsigned long long)d->info.max_alloc_bytes);
    dr_mem *m = clCreateBuffer(d->context, flags, bytes ? bytes : 4, p, &rc);
    if (!m)
        return dr_cl_fail(err, rc, "clCreateBuffer");
    d->allocated_bytes += bytes ? bytes : 4;
    if (d->allocated_bytes > d->peak_bytes)
        d->peak_bytes = d->allocated_bytes;
    *out = m;
    return DR_OK;
}

dr_status dr_mem_new(dr_mem **out, dr_dev *d, size_t bytes, dr_err *err)
{
    return new_buffer(out, d, CL_MEM_READ_WRITE, NULL, bytes, err);
}

dr_status dr_mem_wrap(dr_mem **out, dr_dev *d, const void *p, size_t n, dr_err *err)
{
    return new_buffer(out, d, CL_MEM_READ_ONLY | CL_MEM_USE_HOST_PTR, (void *)p, n, err);
}

void dr_mem_free(dr_dev *d, dr_mem *m)
{
    size_t bytes = 0;
    if (!m)
        return;
    clGetMemObjectInfo(m, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    d->allocated_bytes -= bytes;
    clReleaseMemObject(m);
}

dr_status dr_mem_write(dr_dev *d, dr_mem *m, size_t at, const void *p, size_t n,
                       dr_err *err)
{
    cl_int rc = clEnqueueWriteBuffer(d->queue, m, CL_TRUE, at, n, p, 0, NULL, NULL);
    return rc ? dr_cl_fail(err, rc, "clEnqueueWriteBuffer") : DR_OK;
}

dr_status dr_mem_read(dr_dev *d, dr_mem *m, size_t at, void *p, size_t n, dr_err *err)
{
    cl_int rc = clEnqueueReadBuffer(d->queue, m, CL_TRUE, at, n, p, 0, NULL, NULL);
    return rc ? dr_cl_fail(err, rc, "clEnqueueReadBuffer") : DR_OK;
}

static cl_int set_arg(cl_kernel k, cl_uint i, const dr_arg *a)
{
    switch (a->kind) {
    case DR_ARG_MEM:
        return clSetKernelArg(k, i, sizeof a->mem, &a->mem);
    case DR_ARG_INT:
        return clSetKernelArg(k, i, sizeof a->i, &a->i);
    case DR_ARG_LONG:
        return clSetKernelArg(k, i, sizeof a->l, &a->l);
    case DR_ARG_FLOAT:
        return clSetKernelArg(k, i, sizeof a->f, &a->f);
    }
    return CL_INVALID_ARG_VALUE;
}

#define NAME(file, name, packed) #name,
static const char *const kernel_names[] = { DR_KERNEL_TABLE(NAME) };
#undef NAME

#define GROUP 64 /* work-items of a group in grids without one */

dr_status dr_launch(dr_dev *d, dr_kernel_id kernel, const dr_arg *args, int n_args,
                    const dr_grid *grid, dr_err *err)
{
    cl_event ev = NULL;
    cl_kernel k = d->kernels[kernel];
    for (int i = 0; i < n_args; i++) {
        cl_int rc = set_arg(k, (cl_uint)i, &args[i]);
        if (rc) {
            dr_status st = dr_cl_fail(err, rc, "clSetKernelArg");
            dr_err_wrap(err, "kernel %s, argument %d", kernel_names[kernel], i);
            return st;
        }
    }
    dr_grid g = *grid;
    if (!g.local[0]) {
        g.local[0] = d->info.max_work_group < GROUP ? 1 : GROUP;
        g.local[1] = g.local[2] = 1;
        g.global[0] = (g.global[0] + g.local[0] - 1) / g.local[0] * g.local[0];
    }
    cl_int rc = clEnqueueNDRangeKernel(d->queue, k, (cl_uint)g.dims, NULL, g.global,
                                       g.local, 0, NULL, d->profile ? &ev : NULL);
    if (rc) {
        dr_status st = dr_cl_fail(err, rc, "clEnqueueNDRangeKernel");
        dr_err_wrap(err, "kernel %s, global %zu x %zu x %zu", kernel_names[kernel],
                    grid->global[0], grid->global[1], grid->global[2]);
        return st;
    }
    d->launches++;
    d->kernel_launches[kernel]++;
    if (ev)
        dr_profile_add(d, kernel_names[kernel], ev);
    return DR_OK;
}

const char *dr_kernel_name(dr_kernel_id kernel)
{
    return kernel_names[kernel];
}

dr_status dr_cl_queue(dr_dev *d, bool timed, dr_err *err)
{
    cl_int rc;
    cl_command_queue queue =
        clCreateCommandQueue(d->context, d->id, timed ? CL_QUEUE_PROFILING_ENABLE : 0, &rc);
    if (!queue)
        return dr_cl_fail(err, rc, "clCreateCommandQueue");
    if (d->queue) {
        clFinish(d->queue);
        clReleaseCommandQueue(d->queue);
    }
    d->queue = queue;
    return DR_OK;
}

dr_status dr_finish(dr_dev *d, dr_err *err)
{
    cl_int rc = clFinish(d->queue);
    return rc ? dr_cl_fail(err, rc, "clFinish") : DR_OK;
}
