#ifndef DR_DEV_DEV_H
#define DR_DEV_DEV_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* An OpenCL device with its context, one in-order queue and the compiled kernels. Used by
 * one thread at a time. */
typedef struct dr_dev dr_dev;

typedef struct {
    int index; /* over all platforms, as --device takes it */
    char platform[128], name[128], driver[128], version[128], type[16];
    uint64_t memory_bytes, max_alloc_bytes, local_bytes;
    uint64_t host_bytes; /* memory that the program may use beside it; 0: unknown */
    bool shares_host;    /* the device's memory is the host's */
    uint32_t compute_units;
    size_t max_work_group;
    bool fp16, fp64;
} dr_dev_info;

/* A CPU: it may read whatever the program has mapped. */
static inline bool dr_is_cpu(const dr_dev_info *info)
{
    return !strcmp(info->type, "cpu");
}

/* Fill up to max rows; *count gets how many there are. No platform at all is
 * DR_ENOTFOUND with a message that says what to install. */
DR_MUST_USE dr_status dr_dev_list(dr_dev_info *rows, int max, int *count, dr_err *err);

/* Open the device that conf's device.select names, build the kernels (from the disk cache
 * when it has them). The caller checks them by dr_selftest (op/selftest.h) when
 * device.self_test says so. */
DR_MUST_USE dr_status dr_dev_open(dr_dev **out, const dr_conf *conf, dr_err *err);
void dr_dev_close(dr_dev *d); /* accepts NULL */
const dr_dev_info *dr_dev_describe(const dr_dev *d);

/* Most device memory that was allocated at once, bytes. */
uint64_t dr_dev_peak_bytes(const dr_dev *d);

#endif
