#ifndef DR_CLI_JOBS_H
#define DR_CLI_JOBS_H

#include "cli/cli.h"
#include "job/decode.h"

/* What the commands that make pictures share. */

/* The prompt (the first argument) and the job fields given as options, decoded like an
 * entry of the queue, so that messages and limits are the same. *fields gets what was
 * decoded, *n of them. All lives in c->mem. */
DR_MUST_USE dr_status dr_cli_decode(const dr_cli *c, const char *id, dr_job **job,
                                    const dr_field **fields, int *n, dr_err *err);

/* The file for picture `index` of n: output itself for one, its stem-INDEX.ending for
 * several; in mem, NULL when memory is out. */
const char *dr_cli_image_path(dr_arena *mem, const char *output, int64_t index, int64_t n);

#endif
