#ifndef DR_QUEUE_ADMIN_H
#define DR_QUEUE_ADMIN_H

#include "base/arena.h"
#include "queue/queue.h"

/* Seeing and steering: what commands and operators do to a queue. Nothing here takes a job.
 * Statuses as in queue.h. */

/* --- canceling --- */

/* The queue does not know what the bytes of a job mean; job/entry.h does. */
typedef struct {
    void *ctx;
    /* Whether these fields of an entry (an array: name, value, …) are the job `id`; then
     * *text is its `canceled` event with this seq and *unique its key or NULL. fields NULL:
     * nothing is left of the job but its id, which is enough for the event. What is set
     * lives until the next call. */
    bool (*read)(void *ctx, const char *id, const char *own_id, const dr_reply *fields,
                 int64_t seq, const char **text, size_t *n, const char **unique);
} dr_cancel_reader;

typedef enum {
    DR_CANCELED,       /* it waited, and is out of the queue */
    DR_CANCEL_ASKED,   /* a worker has it and will stop at its next step */
    DR_CANCEL_ENDED,   /* too late, or canceled before: see state */
    DR_CANCEL_UNKNOWN, /* no such job; kept in mind for an hour, in case it arrives */
} dr_cancel_word;

typedef struct {
    dr_cancel_word word;
    char state[16];          /* ENDED: "succeeded", "failed", "canceled", "expired" */
    char worker[DR_KEY_MAX]; /* ASKED */
} dr_cancel_answer;

/* Cancel a job for good, wherever it is, and no other. A job sent by XADD with an id of its
 * own has no state before it starts: then the waiting entries are searched. woken: for a
 * worker that heard of it by P:control, which neither rings again nor searches. */
DR_MUST_USE dr_status dr_queue_cancel(dr_queue *q, const char *id,
                                      const dr_cancel_reader *reader, bool woken,
                                      dr_cancel_answer *out, dr_err *err);

/* --- pausing and draining --- */

/* Let no job of this class start (those that run go on), or let them again. *changed: it
 * was not so before. */
DR_MUST_USE dr_status dr_queue_pause(dr_queue *q, dr_priority class, bool paused,
                                     bool *changed, dr_err *err);

/* Ask a worker to finish what it has and leave. *known: there is a worker of that name. */
DR_MUST_USE dr_status dr_queue_drain(dr_queue *q, const char *worker, bool *known,
                                     dr_err *err);
/* Whether a worker that was asked is still there. */
DR_MUST_USE dr_status dr_queue_draining(dr_queue *q, const char *worker, bool *still,
                                        dr_err *err);

/* --- the dead letters --- */

/* Which of them. */
typedef struct {
    bool oldest_first;
    const char *behind; /* go on behind this entry; "": from the beginning */
    const char *up_to;  /* this entry is the last; "": all */
    int64_t n;
} dr_dead_page;

/* An array of {entry, {field, value, …}}; fields: id class reason message attempts crashes
 * worker died_ms, then job.<name> for each field of the job's entry. */
DR_MUST_USE dr_status dr_queue_dead(dr_queue *q, const dr_dead_page *page, dr_reply **out,
                                    dr_err *err);
/* One of them: an array of one, or of none. DR_EINVAL when entry is not an entry's id. */
DR_MUST_USE dr_status dr_queue_dead_entry(dr_queue *q, const char *entry, dr_reply **out,
                                          dr_err *err);
/* The value of a field of an item of dr_queue_dead, "" when it has none. n may be NULL. */
const char *dr_dead_field(const dr_reply *item, const char *name, size_t *n);

typedef enum {
    DR_DEAD_OK,
    DR_DEAD_ABSENT,    /* no such entry: retried or dropped before */
    DR_DEAD_BUSY,      /* a job with this id is there again */
    DR_DEAD_DUPLICATE, /* another job has its unique key */
} dr_dead_answer;

typedef struct {
    const char *entry;  /* of the dead letters */
    const char *id;     /* of the job */
    const char *unique; /* NULL: none */
    dr_priority class;
    bool put_id;      /* the job's fields do not say its id: add it */
    const char *text; /* the `queued` event of the new life */
    size_t text_n;
} dr_revival;

/* Put a dead job at the end of its class as if it were new, under its old id. other: BUSY:
 * that job's state; DUPLICATE: its id. */
DR_MUST_USE dr_status dr_queue_dead_retry(dr_queue *q, const dr_revival *r,
                                          dr_dead_answer *answer,
                                          char other[DR_JOB_ID_MAX + 1], dr_err *err);
/* Forget one; all that are there now. *n: how many that were. */
DR_MUST_USE dr_status dr_queue_dead_drop(dr_queue *q, const char *entry, int64_t *n,
                                         dr_err *err);
DR_MUST_USE dr_status dr_queue_dead_drop_all(dr_queue *q, int64_t *n, dr_err *err);

/* --- seeing --- */

typedef struct {
    int64_t waiting, delayed, running;
    int64_t oldest_ms; /* how long the first waiting one has waited; -1: none waits */
    bool paused;
} dr_class_status;

typedef enum {
    DR_STAT_SUCCEEDED,
    DR_STAT_FAILED,
    DR_STAT_CANCELED,
    DR_STAT_EXPIRED,
    DR_STAT_RETRIED,
    DR_STAT_RECOVERED,
    DR_STAT_POISON,
    DR_STAT_RELEASED,
    DR_STAT_LOST,
    DR_STATS
} dr_stat;
extern const char *const dr_stat_names[DR_STATS]; /* as fields of P:stats */

/* As the worker says it; "" and 0 what it does not say. models, resident and jobs are JSON
 * arrays of texts. */
typedef struct {
    const char *name, *host, *device, *version, *state;
    const char *models, *resident, *jobs;
    const char *step, *s_step; /* "12/20", seconds a step */
    int64_t pid, started_ms, seen_ms, done, failed;
    bool drain; /* asked to leave */
} dr_worker_status;

#define DR_WORKERS_MAX 1000 /* listed; there may be more */

typedef struct {
    int64_t now_ms; /* Redis' clock */
    dr_class_status classes[DR_CLASSES];
    int64_t stats[DR_STATS];
    int64_t dead;
    int64_t memory, memory_max; /* bytes in Redis; -1: it does not say; max 0: no limit */
    dr_worker_status *workers;  /* by name */
    int n_workers;
} dr_fleet;

/* How queue and workers are, in mem. The work is bounded, however long the queue; above
 * 10000 delayed jobs their split over the classes is an estimate. */
DR_MUST_USE dr_status dr_queue_status(dr_queue *q, dr_arena *mem, dr_fleet *out,
                                      dr_err *err);

#endif
