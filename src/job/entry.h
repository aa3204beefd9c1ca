#ifndef DR_JOB_ENTRY_H
#define DR_JOB_ENTRY_H

#include "job/decode.h"
#include "queue/admin.h"

/* The jobs in the entries of a queue, for those who look at them without running them. */
typedef struct {
    dr_arena *mem; /* of the job decoded last */
    dr_buf text, packed;
    const char *worker; /* who writes the events */
} dr_entry_reader;

/* worker: "" for a client; borrowed. DR_ENOMEM. */
DR_MUST_USE dr_status dr_entry_open(dr_entry_reader *r, const char *worker, dr_err *err);
void dr_entry_close(dr_entry_reader *r); /* accepts {0} */

/* The job of these fields (an array: name, value, …) whose names begin with prefix; others
 * are left out. What is wrong with it does not matter here, as long as its id can be read;
 * NULL when memory is out. Lives until the next call. */
const dr_job *dr_entry_decode(dr_entry_reader *r, const char *own_id,
                              const dr_reply *fields, const char *prefix);

/* An event of the job as it wants its events: fill in r->text, then take this. */
const dr_buf *dr_entry_form(dr_entry_reader *r, const dr_job *job);

/* For dr_queue_cancel. */
dr_cancel_reader dr_entry_canceling(dr_entry_reader *r);

#endif
