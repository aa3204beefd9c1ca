#ifndef DR_DEV_CL_H
#define DR_DEV_CL_H

/* Private to src/dev/: the only place that sees OpenCL's own types. */

#include "base/arena.h"
#include "dev/choice.h"
#include "dev/kernels.h"
#include "dev/launch.h"

#include <CL/cl.h>

struct dr_dev {
    dr_dev_info info;
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    cl_kernel kernels[DR_KERNELS];
    cl_mem gemm_temp; /* CLBlast's scratch, grown on demand */
    size_t gemm_temp_bytes;
    uint64_t allocated_bytes, peak_bytes;
    uint64_t launches, kernel_launches[DR_KERNELS];
    int row_group;       /* see dr_row_group */
    int lanes;           /* floats of a vector: 8 or 16; see cl/tile.h */
    dr_choice choice;    /* see dr_dev_choice */
    dr_profile *profile; /* NULL: not profiling */
};

/* The symbolic name of an OpenCL error code: "CL_OUT_OF_RESOURCES". */
const char *dr_cl_name(cl_int code);

/* DR_EDEVICE (DR_ENOMEM for allocation failures) naming the call and the code. */
dr_status dr_cl_fail(dr_err *err, cl_int code, const char *call);

/* Make the device's queue, with times of its commands or without; what is queued in the one
 * before is waited for. */
DR_MUST_USE dr_status dr_cl_queue(dr_dev *d, bool timed, dr_err *err);

/* Create those kernels of d that its choice wants and that are not there, their programs
 * from the disk cache where possible; release those that it does not want. */
DR_MUST_USE dr_status dr_programs_build(dr_dev *d, const dr_conf *conf, dr_err *err);

/* Hand the parameters of a tuning file to CLBlast: one of config/tunings/ by its name, or
 * any by its path. They stay for the life of the process: CLBlast has no way back. */
DR_MUST_USE dr_status dr_gemm_tune(dr_dev *d, const char *tuning_file, dr_err *err);

/* Record an enqueue under the current label; takes over ev. kernel: its name, static. */
void dr_profile_add(dr_dev *d, const char *kernel, cl_event ev);
/* The same for work that was timed by the clock: from dr_now_s() = from_s until now, with
 * nothing queued before and after. */
void dr_profile_book(dr_dev *d, const char *kernel, double from_s);

#endif
