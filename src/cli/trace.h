#ifndef DR_CLI_TRACE_H
#define DR_CLI_TRACE_H

#include "base/err.h"

#include <stdint.h>

typedef struct dr_dev dr_dev; /* dev/dev.h */

/* Where the time of a run went, for chrome://tracing and Perfetto: a file of Chrome's trace
 * events (JSON array format) with a lane for the host and one for the device. Events go to
 * the file as they come; what an interrupted run leaves can be read too. */
typedef struct dr_trace dr_trace;

/* Make the file, or empty it; time 0 is where dr_now_s() is origin_s. DR_EIO or
 * DR_ENOTFOUND when it cannot be written. */
DR_MUST_USE dr_status dr_trace_open(dr_trace **out, const char *path, double origin_s,
                                    dr_err *err);

/* From now on every kernel of dev is in its lane, until dr_trace_close, which comes before
 * dr_dev_close. */
DR_MUST_USE dr_status dr_trace_device(dr_trace *t, dr_dev *dev, dr_err *err);

/* A span of the host's lane: `name`, or with a step above 0 "step N", which begins and ends
 * at these times of dr_now_s(). Nothing when t is NULL. */
void dr_trace_span(dr_trace *t, const char *name, int64_t step, double from_s, double to_s);

/* End the file and free t (may be NULL). DR_EIO when any of it could not be written. */
DR_MUST_USE dr_status dr_trace_close(dr_trace *t, dr_err *err);

#endif
