#ifndef DR_JOB_MSGPACK_H
#define DR_JOB_MSGPACK_H

#include "job/value.h"

/* The one door to msgpack-c. */

/* Parse untrusted msgpack, one map. The bytes are scanned before msgpack-c sees them: depth
 * <= DR_JOB_DEPTH_MAX, <= DR_JOB_OBJECTS_MAX objects, declared counts and lengths <= the
 * bytes that follow, keys are strings, no ext, nothing behind the map. Then duplicate keys
 * are refused. */
DR_MUST_USE dr_status dr_value_from_msgpack(dr_value **out, dr_arena *mem, const void *p,
                                            size_t n, dr_err *err);

/* Append JSON text (an event of job/events.h) as msgpack. scratch holds the parsed text and
 * may be reset afterwards. */
DR_MUST_USE dr_status dr_msgpack_from_json(dr_buf *out, const char *json, size_t n,
                                           dr_arena *scratch, dr_err *err);

#endif
