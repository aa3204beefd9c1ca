#ifndef DR_CLI_FOLLOW_H
#define DR_CLI_FOLLOW_H

#include "base/json.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "queue/queue.h"

/* What submit --wait and watch share: reading a job's events to the end. */

/* Called with each event, as parsed and as text; the strings live for the call. */
typedef void dr_follow_seen(void *ctx, const dr_json *event, const char *text);

/* Follow job id from its first event on until its terminal one, through lost connections.
 * timeout_s: 0 waits for ever. Returns DR_EXIT_OK (succeeded), DR_EXIT_DATA (the job was
 * refused), DR_EXIT_FAILED (failed, canceled, expired), DR_EXIT_TIMEOUT, or
 * DR_EXIT_UNAVAILABLE with the reason in err. */
dr_exit dr_follow_job(dr_queue *q, const char *id, int64_t timeout_s, dr_follow_seen *seen,
                      void *ctx, dr_err *err);

/* Follow the live events of all jobs until the timeout or until stdout is closed. */
dr_exit dr_follow_all(dr_queue *q, int64_t timeout_s, dr_follow_seen *seen, void *ctx,
                      dr_err *err);

/* One line about an event: "progress denoise 5/20 31%", "failed invalid (steps): …". */
void dr_follow_line(dr_buf *out, const dr_json *event);

/* A `progress` event for the progress bar. */
dr_bar_state dr_follow_state(const dr_json *event);

/* Say on stderr that Redis is not there; DR_EXIT_UNAVAILABLE. */
dr_exit dr_follow_fail(const dr_err *err);

#endif
