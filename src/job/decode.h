#ifndef DR_JOB_DECODE_H
#define DR_JOB_DECODE_H

#include "base/arena.h"
#include "base/err.h"

#include <darkroom/job.h>
#include <stddef.h>

/* One field of a stream entry; the value is bytes. */
typedef struct {
    const char *name;
    const char *value;
    size_t len;
} dr_field;

/* The worker's own defaults, from its settings. */
typedef struct {
    int64_t quality;       /* output.quality */
    int64_t preview_every; /* output.preview_every */
} dr_job_defaults;

/* Turn the fields of a stream entry into a checked job. Three shapes: a field `job` (a
 * msgpack map), a field `json` (a JSON object), or plain fields; plain fields beside `job`
 * or `json` count as fields of the same job. id is the entry's own, used unless the job has
 * one. Everything in *out lives in mem, nothing points into fields.
 *
 * On failure (DR_EINVAL: never worth a retry; DR_ENOMEM) err->field names the job's field.
 * *out is then still a job whose id, meta_json and events_msgpack hold as far as they could
 * be read, so that the failure reaches the one who waits for it; NULL when not even that
 * fitted into memory. */
DR_MUST_USE dr_status dr_job_decode(dr_job **out, dr_arena *mem, const char *id,
                                    const dr_field *fields, int n_fields,
                                    const dr_job_defaults *defaults, dr_err *err);

/* Whether text may be an id or a `unique` key: 1..DR_JOB_ID_MAX bytes of printable ASCII
 * without blanks, quotes, backslash, braces and * ? [ ] : / because it becomes part of keys
 * and channel names. */
DR_MUST_USE dr_status dr_job_id_check(const char *field, const char *text, size_t n,
                                      dr_err *err);

#endif
