#ifndef DR_JOB_FIELDS_H
#define DR_JOB_FIELDS_H

#include "job/value.h"

#include <darkroom/job.h>

/* Fill job from values (linked by next), by the table of fields. job holds its defaults
 * already. id, events and meta are read first, so that they hold when another field fails.
 * Unknown fields become one warning. Does not look for what is missing. */
DR_MUST_USE dr_status dr_job_fill(dr_job *job, dr_arena *mem, const dr_value *values,
                                  dr_err *err);

/* Bytes of the values and their names, but for what stands where pictures may. */
size_t dr_job_own_bytes(const dr_value *values);

#endif
