#ifndef DR_JOB_PICTURE_H
#define DR_JOB_PICTURE_H

#include "job/value.h"

#include <darkroom/job.h>

/* Pictures that come with a job. They are not decoded here; whether they can be is seen
 * when they are used. */

/* Whether these bytes begin as a PNG, JPEG or WebP file does and are at most
 * DR_IMAGE_BYTES_MAX; DR_EINVAL says what they are instead. Also for what a key led to. */
DR_MUST_USE dr_status dr_picture_check(const char *field, const void *p, size_t n,
                                       dr_err *err);

/* Read v as a picture: bytes (as msgpack's bin or as a plain field), base64 or data: text,
 * or a key, "input:<id>:<name>" with or without the queue's prefix in front. *out points
 * into v or mem. */
DR_MUST_USE dr_status dr_picture_read(dr_picture_ref *out, dr_arena *mem, const char *field,
                                      const dr_value *v, dr_err *err);

#endif
