#ifndef DR_OP_SELFTEST_H
#define DR_OP_SELFTEST_H

#include "base/err.h"

typedef struct dr_dev dr_dev; /* dev/dev.h */

/* Run every kernel and the GEMM door once on small fixed inputs and compare with the
 * references of op/ref.h. A difference is DR_EDEVICE and names the operation, the device
 * and the largest difference: such a device must take no jobs. Well under a second once
 * the drivers hold their compiled kernels. */
DR_MUST_USE dr_status dr_selftest(dr_dev *d, dr_err *err);

#endif
