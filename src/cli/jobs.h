#ifndef DR_CLI_JOBS_H
#define DR_CLI_JOBS_H

#include "cli/cli.h"
#include "job/decode.h"

/* What the commands that make pictures share. */

/* A picture to be stored under input:<id>:<name> before the job is sent. */
typedef struct {
    char name[16];
    const char *bytes;
    size_t n;
} dr_cli_input;

#define DR_CLI_INPUTS_MAX (2 + DR_CONTROLS_MAX)
/* The most bytes of a picture that goes into the job's entry itself. */
#define DR_CLI_INLINE_MAX ((size_t)4 << 20)

/* A job as it was asked for. All lives in the dr_cli's memory. */
typedef struct {
    dr_job *job;
    dr_field *fields; /* what was decoded, as the fields of an entry */
    int n_fields;
    dr_cli_input inputs[DR_CLI_INPUTS_MAX];
    int n_inputs;
} dr_cli_ask;

/* The prompt (the first argument) and the job fields given as options, decoded like an
 * entry of the queue, so that messages and limits are the same. A field "@name" is the
 * field `name` of what is in the file that its value names; "@controls" has
 * NAME:FILE[:STRENGTH]. Pictures of more than inline_max bytes become inputs under id. */
DR_MUST_USE dr_status dr_cli_decode(const dr_cli *c, const char *id, size_t inline_max,
                                    dr_cli_ask *out, dr_err *err);

/* Let the ending of --output choose the format where the command line gives none: adds the
 * field. NULL, "-" and a name without an ending leave it as it is. DR_EXIT_OK or, said on
 * stderr, DR_EXIT_USAGE for an unknown ending and for one that contradicts --format. */
dr_exit dr_cli_format(dr_cli *c, const char *output);

/* The file for picture `index` of n: output itself for one, its stem-INDEX.ending for
 * several; in mem, NULL when memory is out. */
const char *dr_cli_image_path(dr_arena *mem, const char *output, int64_t index, int64_t n);

#endif
