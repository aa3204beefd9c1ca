#ifndef DR_QUEUE_QUEUE_H
#define DR_QUEUE_QUEUE_H

#include "base/conf.h"
#include "queue/redis.h"

#include <darkroom/job.h>

/* The queue as darkroom speaks it: keys, scripts, one connection. A handle is used by one
 * thread at a time; a worker has one for its jobs and one for its leases.
 *
 * A job's life: dr_queue_claim takes an entry and a fence (a number no two claims share);
 * its bytes are decoded, which gives the job's id; dr_queue_start binds entry, fence and id
 * in P:job:<id>. Nothing is written under the entry's own id in between: the pending list
 * of the stream already says whose it is, and counts the crashes. Then dr_queue_event while
 * it runs, dr_queue_renew from the other thread, and dr_queue_finish, once.
 *
 * Statuses: DR_EIO wait dr_redis_backoff_ms and try again; DR_EREDIS Redis refused;
 * DR_EINVAL Redis refused the credentials. See also dr_redis_fatal. */

#define DR_CLASSES 3 /* dr_priority: high, normal, low */

typedef struct dr_queue dr_queue;

/* What a worker holds of a job; borrows from a dr_claim and the decoded job. */
typedef struct {
    const char *id;    /* NULL until decoded */
    const char *entry; /* of the stream */
    dr_priority class;
    int64_t fence;
} dr_hold;

/* One taken entry. Its memory is the reply's: free it when the job is through. */
typedef struct {
    dr_reply *reply;
    dr_hold hold;
    int64_t wait_ms, crashes;
    int n_fields;
} dr_claim;

/* What a script answered. */
typedef enum {
    DR_ANSWER_OK,
    DR_ANSWER_ALREADY, /* had its effect before: a reply was lost */
    DR_ANSWER_LOST,    /* another worker's now, or ended by another */
    DR_ANSWER_GONE,    /* Redis has lost its data; nobody else has the job */
    DR_ANSWER_MISSING, /* finish: a result is not stored; call again with the bytes */
} dr_answer;

/* Connects on first use. worker is the name in the group and the registry; "" for a client
 * that takes no jobs. DR_EINVAL: bad URL, prefix or name. */
DR_MUST_USE dr_status dr_queue_open(dr_queue **out, const dr_conf *conf, const char *worker,
                                    dr_err *err);
void dr_queue_close(dr_queue *q);      /* accepts NULL */
dr_redis *dr_queue_redis(dr_queue *q); /* for back-off and messages */

/* --- taking jobs --- */

/* Take one job if there is one: out->reply is NULL when not. Streams and groups that do not
 * exist (first start, FLUSHALL) are made. After a connection to a server that started less
 * than a lease ago, other workers' entries are left alone, because their age includes the
 * server's absence. */
DR_MUST_USE dr_status dr_queue_claim(dr_queue *q, dr_claim *out, dr_err *err);
void dr_claim_free(dr_claim *c); /* accepts {0}; leaves {0} */
/* Field i of the entry. */
void dr_claim_field(const dr_claim *c, int i, const char **name, const char **value,
                    size_t *n);

/* Wait up to queue.block_ms for something new since dr_queue_claim found nothing. Takes no
 * job. */
DR_MUST_USE dr_status dr_queue_wait(dr_queue *q, dr_err *err);

/* --- holding a job: hold->id is known --- */

/* OK: run it; *attempt (from 1) and *seq (of the last event) are set. ALREADY: this id has
 * ended or runs under another entry, and the entry is gone. LOST. */
DR_MUST_USE dr_status dr_queue_start(dr_queue *q, const dr_hold *h, int64_t crashes,
                                     dr_answer *answer, int64_t *attempt, int64_t *seq,
                                     dr_err *err);

/* OK, LOST or GONE. */
DR_MUST_USE dr_status dr_queue_renew(dr_queue *q, const dr_hold *h, dr_answer *answer,
                                     dr_err *err);

/* The bytes of image `index` (>= 0: stored under P:result:<id>:<index>, published up to
 * result.publish_max) or of a preview (index < 0: published only). */
typedef struct {
    int index;
    const void *bytes;
    size_t n;
} dr_blob;

/* Publish an event that does not end the job. blob may be NULL. OK, ALREADY, LOST or GONE.
 */
DR_MUST_USE dr_status dr_queue_event(dr_queue *q, const dr_hold *h, int64_t seq,
                                     const char *text, size_t n, const dr_blob *blob,
                                     dr_answer *answer, dr_err *err);

typedef struct {
    const char *state; /* "succeeded" or "failed" */
    const char *text;  /* the event */
    size_t n;
    const char *message; /* of a failure, else "" */
    int64_t held_ms;     /* since the claim */
    const dr_blob *results;
    int n_results;
    bool with_bytes; /* after MISSING */
} dr_ending;

/* The terminal event. OK, ALREADY, LOST or MISSING. */
DR_MUST_USE dr_status dr_queue_finish(dr_queue *q, const dr_hold *h, const dr_ending *e,
                                      dr_answer *answer, dr_err *err);

/* Give a started job back so that any worker may take it at once. OK or LOST. */
DR_MUST_USE dr_status dr_queue_release(dr_queue *q, const dr_hold *h, dr_answer *answer,
                                       dr_err *err);

/* P:result:<id>:<index>, as events name it; returns buf. */
#define DR_KEY_MAX 384
const char *dr_queue_result_key(const dr_queue *q, const char *id, int index,
                                char buf[DR_KEY_MAX]);

/* --- the registry --- */

/* Refresh P:worker:<name>, which lives ttl_ms; pairs: field, value, …; at most 32. */
DR_MUST_USE dr_status dr_queue_beat(dr_queue *q, int64_t ttl_ms, const char *const *pairs,
                                    int n, dr_err *err);
/* Leave the registry, and the group where nothing is held. */
DR_MUST_USE dr_status dr_queue_bye(dr_queue *q, dr_err *err);

/* --- clients --- */

/* Send a job given as entry fields (name, value, …; n strings) with its `queued` event. A
 * second call with the same id does nothing. */
#define DR_SUBMIT_STRINGS_MAX 80
DR_MUST_USE dr_status dr_queue_submit(dr_queue *q, const char *id, dr_priority class,
                                      const char *const *fields, int n, const char *text,
                                      size_t text_n, dr_err *err);

/* A reader of P:events:<id>. */
typedef struct {
    char last[64]; /* entry read last; "" reads from the beginning */
} dr_cursor;

/* The next event of a job, or *out = NULL when none came within wait_ms. *text is borrowed
 * from *out (dr_reply_free). */
DR_MUST_USE dr_status dr_queue_next_event(dr_queue *q, const char *id, dr_cursor *cursor,
                                          int64_t wait_ms, dr_reply **out,
                                          const char **text, size_t *n, dr_err *err);

/* The next event of all jobs (P:progress), as it is published; subscribes by itself, again
 * after a lost connection. *out = NULL when none came within wait_ms. */
DR_MUST_USE dr_status dr_queue_next_published(dr_queue *q, int64_t wait_ms, dr_reply **out,
                                              const char **text, size_t *n, dr_err *err);

/* The bytes under a key (dr_reply_text); a DR_REPLY_NIL when they have expired. */
DR_MUST_USE dr_status dr_queue_result(dr_queue *q, const char *key, dr_reply **out,
                                      dr_err *err);

#endif
