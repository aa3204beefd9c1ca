#ifndef DR_DEV_LAUNCH_H
#define DR_DEV_LAUNCH_H

#include "base/err.h"
#include "dev/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dr_dev dr_dev;

/* A device buffer. */
typedef struct _cl_mem dr_mem;

DR_MUST_USE dr_status dr_mem_new(dr_mem **out, dr_dev *d, size_t bytes, dr_err *err);
/* n bytes at p as a buffer that kernels only read: those very bytes where the device's
 * memory is the host's. They stay as they are until the device has finished. */
DR_MUST_USE dr_status dr_mem_wrap(dr_mem **out, dr_dev *d, const void *p, size_t n,
                                  dr_err *err);
void dr_mem_free(dr_dev *d, dr_mem *m); /* accepts NULL */
/* Blocking copies; at and n in bytes. */
DR_MUST_USE dr_status dr_mem_write(dr_dev *d, dr_mem *m, size_t at, const void *p, size_t n,
                                   dr_err *err);
DR_MUST_USE dr_status dr_mem_read(dr_dev *d, dr_mem *m, size_t at, void *p, size_t n,
                                  dr_err *err);

/* One kernel argument. */
typedef struct {
    enum { DR_ARG_MEM, DR_ARG_INT, DR_ARG_LONG, DR_ARG_FLOAT } kind;
    union {
        dr_mem *mem;
        int32_t i;
        int64_t l;
        float f;
    };
} dr_arg;

#define DR_MEM(m)   ((dr_arg){ .kind = DR_ARG_MEM, .mem = (m) })
#define DR_INT(v)   ((dr_arg){ .kind = DR_ARG_INT, .i = (int32_t)(v) })
#define DR_LONG(v)  ((dr_arg){ .kind = DR_ARG_LONG, .l = (int64_t)(v) })
#define DR_FLOAT(v) ((dr_arg){ .kind = DR_ARG_FLOAT, .f = (float)(v) })

/* A launch geometry: work-items per dimension. local 0: groups of a fixed size, for kernels
 * that share nothing in a group and check the bound of the first dimension, which is
 * rounded up. Fixed, because PoCL compiles a kernel anew for each group size and, left to
 * choose, takes another one for almost every shape. */
typedef struct {
    int dims;
    size_t global[3], local[3];
} dr_grid;

/* The one launch door: set the arguments and enqueue. */
DR_MUST_USE dr_status dr_launch(dr_dev *d, dr_kernel_id kernel, const dr_arg *args,
                                int n_args, const dr_grid *grid, dr_err *err);

/* Wait until everything queued so far has run. */
DR_MUST_USE dr_status dr_finish(dr_dev *d, dr_err *err);

/* Work-items that share one row in reductions (kernels' WG), a power of two: 1 on CPUs,
 * where a work-group is a thread and the inner loop is the vector, more elsewhere;
 * device.row_group overrides it. */
int dr_row_group(const dr_dev *d);

/* Whether matrices lie packed and are multiplied by our own kernels (cl/gemm.cl), as the
 * device's choice says (dev/choice.h). Otherwise they are rows of floats, for CLBlast. */
bool dr_packed(const dr_dev *d);

/* Threads, multiprocessors: what runs work-groups at the same time. */
int dr_compute_units(const dr_dev *d);

/* Largest single buffer, bytes. */
uint64_t dr_max_alloc(const dr_dev *d);

/* Kernels and GEMMs enqueued since the device was opened. */
uint64_t dr_launches(const dr_dev *d);
/* The same of one kernel: how the self-test knows that it left none out. */
uint64_t dr_kernel_launches(const dr_dev *d, dr_kernel_id kernel);
/* Whether the device has it at all: see dev/kernels.h. */
bool dr_has_kernel(const dr_dev *d, dr_kernel_id kernel);
/* A kernel's name. */
const char *dr_kernel_name(dr_kernel_id kernel);

/* --- profiling: device time by label, from queue events ------------------------------- */
typedef struct dr_profile dr_profile;

typedef struct {
    const char *label;
    uint64_t calls;
    double seconds, flops; /* flops: of products only */
} dr_profile_row;

/* One launch that has run; times as dr_now_s tells them. */
typedef struct {
    const char *kernel, *label;
    double from_s, to_s;
} dr_profile_event;

/* From now on every launch is timed and booked under the label set last. seen (may be NULL)
 * gets each of them too, in their order, some time after it has run: a few hundred at once
 * from within a launch, the last ones from dr_profile_stop or dr_profile_free. */
DR_MUST_USE dr_status dr_profile_start(dr_dev *d,
                                       void (*seen)(void *ctx, const dr_profile_event *e),
                                       void *ctx, dr_err *err);
void dr_profile_label(dr_dev *d, const char *label); /* label must outlive the profile */
/* Floating-point operations of what is launched under the current label. */
void dr_profile_work(dr_dev *d, double flops);
/* Wait, stop, and give the rows, most time first; free with dr_profile_free. */
DR_MUST_USE dr_status dr_profile_stop(dr_dev *d, const dr_profile_row **rows, int *n,
                                      dr_err *err);
void dr_profile_free(dr_dev *d);

#endif
