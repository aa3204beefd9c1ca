#ifndef DR_QUEUE_QUEUE_H
#define DR_QUEUE_QUEUE_H

#include "base/buf.h"
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

/* "high", "normal", "low", as in the names of the streams. */
const char *dr_class_name(dr_priority class);
/* False when no class is called so. */
bool dr_class_parse(const char *name, dr_priority *class);

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
    const dr_reply *fields;
    int n_fields;
} dr_claim;

/* What a script answered. */
typedef enum {
    DR_ANSWER_OK,
    DR_ANSWER_ALREADY,   /* had its effect before: a reply was lost */
    DR_ANSWER_LOST,      /* another worker's now, or ended by another */
    DR_ANSWER_GONE,      /* Redis has lost its data; nobody else has the job */
    DR_ANSWER_MISSING,   /* finish: a result is not stored; call again with the bytes */
    DR_ANSWER_CANCEL,    /* ours, but its client wants it no more */
    DR_ANSWER_EXPIRED,   /* start: ours, but it waited longer than its ttl_ms */
    DR_ANSWER_DUPLICATE, /* start: ours, but another job has its unique key */
    DR_ANSWER_DELAYED,   /* start: put off, not ours any more */
} dr_answer;

/* Connects on first use. worker is the name in the group and the registry; "" for a client
 * that takes no jobs. DR_EINVAL: bad URL, prefix or name. */
DR_MUST_USE dr_status dr_queue_open(dr_queue **out, const dr_conf *conf, const char *worker,
                                    dr_err *err);
void dr_queue_close(dr_queue *q);      /* accepts NULL */
dr_redis *dr_queue_redis(dr_queue *q); /* for back-off and messages */

/* --- taking jobs --- */

/* What the group may have for this worker that it does not know of. */
typedef enum {
    DR_OWN_NONE,
    DR_OWN_UNHEARD, /* a reply was lost: take it, no crash */
    DR_OWN_LEFT,    /* an earlier process with this name died with it: take it, a crash */
} dr_own;

#define DR_LEAVE_MAX 64

/* Take one job if there is one: out->reply is NULL when not. leave: entries that are not
 * for this call ("normal:17-0", n_leave of them), because they are held already or cannot
 * be served here. Streams and groups that do not exist (first start, FLUSHALL) are made.
 * After a connection to a server that started less than a lease ago, other workers' entries
 * are left alone unless they were handed back, because their age includes the server's
 * absence. */
DR_MUST_USE dr_status dr_queue_claim(dr_queue *q, dr_own own, const char *const *leave,
                                     int n_leave, dr_claim *out, dr_err *err);
void dr_claim_free(dr_claim *c); /* accepts {0}; leaves {0} */
/* Field i of the entry. */
void dr_claim_field(const dr_claim *c, int i, const char **name, const char **value,
                    size_t *n);

/* "normal:17-0", as `leave` and P:delayed name an entry. */
#define DR_ENTRY_NAME_MAX 80
void dr_entry_name(char out[DR_ENTRY_NAME_MAX], const dr_hold *h);

/* The id of a job that brings none: the entry's, in other classes than normal led by the
 * class, because entries of two streams may have the same id. "17-0", "high.17-0". */
void dr_entry_job_id(char out[DR_ENTRY_NAME_MAX], dr_priority class, const char *entry);

/* Wait up to queue.block_ms for something new since dr_queue_claim found nothing, or until
 * the next delay is over. Takes no job. */
DR_MUST_USE dr_status dr_queue_wait(dr_queue *q, dr_err *err);

/* Entries that have waited for min_age_ms, best class first, `count` of each class and none
 * above max_bytes, to choose some for dr_queue_take. Item i as a claim without a fence
 * whose fields dr_claim_field reads; it borrows from *out (dr_reply_free). */
DR_MUST_USE dr_status dr_queue_peek(dr_queue *q, int count, size_t max_bytes,
                                    int64_t min_age_ms, dr_reply **out, dr_err *err);
bool dr_peek_at(const dr_reply *peeked, size_t i, dr_claim *item);

/* Take this waiting entry, ahead of its turn; out->reply is NULL when somebody was faster.
 */
DR_MUST_USE dr_status dr_queue_take(dr_queue *q, dr_priority class, const char *entry,
                                    dr_claim *out, dr_err *err);

/* --- holding a job: hold->id is known --- */

/* What the decoded job says about its start. */
typedef struct {
    int64_t crashes; /* of the claim */
    int64_t ttl_ms, delay_ms;
    uint64_t seed;
    const char *unique; /* NULL: none */
} dr_start_ask;

typedef struct {
    dr_answer answer;
    int64_t attempt;                     /* from 1 */
    int64_t seq;                         /* of the last event */
    int64_t crashes;                     /* in the job's whole life */
    int64_t failures;                    /* after which it was tried again */
    uint64_t seed;                       /* of its first start */
    char holder[DR_JOB_ID_MAX + 1];      /* of the unique key */
    char last_worker[DR_JOB_ID_MAX + 1]; /* that had it before us; "": none */
} dr_start;

/* OK: run it. CANCEL, EXPIRED, DUPLICATE: it is ours, to be ended so. ALREADY: this id has
 * ended or another entry with it is there; the entry is gone. DELAYED. LOST. */
DR_MUST_USE dr_status dr_queue_start(dr_queue *q, const dr_hold *h, const dr_start_ask *ask,
                                     dr_start *out, dr_err *err);

/* OK, CANCEL, LOST or GONE. */
DR_MUST_USE dr_status dr_queue_renew(dr_queue *q, const dr_hold *h, dr_answer *answer,
                                     dr_err *err);

/* The bytes of image `index` (>= 0: stored under P:result:<id>:<index>, published up to
 * result.publish_max) or of a preview (index < 0: published only). */
typedef struct {
    int index;
    const void *bytes;
    size_t n;
} dr_blob;

/* Publish an event that does not end the job. blob may be NULL. OK, CANCEL, ALREADY, LOST
 * or GONE. */
DR_MUST_USE dr_status dr_queue_event(dr_queue *q, const dr_hold *h, int64_t seq,
                                     const char *text, size_t n, const dr_blob *blob,
                                     dr_answer *answer, dr_err *err);

typedef struct {
    const char *state; /* "succeeded", "failed", "canceled" or "expired" */
    const char *text;  /* the event */
    size_t n;
    int64_t seq;                /* of the event */
    const char *code, *message; /* of a failure, else "" */
    const char *dead;           /* reason to put the job among the dead; "": not */
    const char *unique;         /* the key it holds; NULL: none */
    int64_t held_ms;            /* since the claim */
    const dr_blob *results;
    int n_results;
    bool with_bytes; /* after MISSING */
} dr_ending;

/* The terminal event. OK, ALREADY, LOST or MISSING. */
DR_MUST_USE dr_status dr_queue_finish(dr_queue *q, const dr_hold *h, const dr_ending *e,
                                      dr_answer *answer, dr_err *err);

/* A failure that may pass: the job runs again after delay_ms; text is the event that says
 * so. OK, ALREADY or LOST. */
DR_MUST_USE dr_status dr_queue_retry(dr_queue *q, const dr_hold *h, int64_t seq,
                                     int64_t delay_ms, const char *message,
                                     const char *text, size_t n, dr_answer *answer,
                                     dr_err *err);

/* Give a job back, started or not, so that any worker may take it at once. OK, ALREADY or
 * LOST. */
DR_MUST_USE dr_status dr_queue_release(dr_queue *q, const dr_hold *h, dr_answer *answer,
                                       dr_err *err);

/* P:checkpoint:<id>: the state from which the next worker may go on. get: dr_reply_text of
 * *out, a DR_REPLY_NIL when there is none. */
DR_MUST_USE dr_status dr_queue_checkpoint_put(dr_queue *q, const char *id, const void *p,
                                              size_t n, dr_err *err);
DR_MUST_USE dr_status dr_queue_checkpoint_get(dr_queue *q, const char *id, dr_reply **out,
                                              dr_err *err);

/* P:result:<id>:<index>, as events name it; returns buf. */
#define DR_KEY_MAX 384
const char *dr_queue_result_key(const dr_queue *q, const char *id, int index,
                                char buf[DR_KEY_MAX]);

/* --- the registry --- */

/* Refresh P:worker:<name>, which lives ttl_ms; pairs: field, value, …; at most 40. *drain:
 * somebody wants this worker to stop. */
DR_MUST_USE dr_status dr_queue_beat(dr_queue *q, int64_t ttl_ms, const char *const *pairs,
                                    int n, bool *drain, dr_err *err);
/* Who is listed under this handle's name; seen_ms 0: nobody. */
typedef struct {
    char host[256];
    int64_t pid, seen_ms;
} dr_registered;
DR_MUST_USE dr_status dr_queue_registered(dr_queue *q, dr_registered *out, dr_err *err);
/* Leave the registry, and the group where nothing is held. */
DR_MUST_USE dr_status dr_queue_bye(dr_queue *q, dr_err *err);

/* Remove dead consumers that hold nothing (no sign of life for dead_ms), and put back
 * entries that nobody holds; looks at a part of the streams at each call. */
typedef struct {
    int64_t removed, put_back;
} dr_tidied;
DR_MUST_USE dr_status dr_queue_janitor(dr_queue *q, int64_t dead_ms, dr_tidied *out,
                                       dr_err *err);

/* The models that workers which are alive can serve: appends their names to *out as one
 * JSON array, and says whether `model` is among them. */
DR_MUST_USE dr_status dr_queue_fleet_models(dr_queue *q, const char *model, bool *served,
                                            dr_buf *out, dr_err *err);

/* The next text on P:control ("cancel 17-0", "drain gpu1"), or *out = NULL when none came
 * within wait_ms. Statuses as of dr_queue_next_published. */
DR_MUST_USE dr_status dr_queue_next_control(dr_queue *q, int64_t wait_ms, dr_reply **out,
                                            const char **text, size_t *n, dr_err *err);

/* --- clients --- */

#define DR_SUBMIT_STRINGS_MAX 80

typedef struct {
    const char *id;
    const char *unique; /* one job with this key at a time; NULL: none */
    dr_priority class;
    const char *const *fields; /* of the entry: name, value, … */
    const size_t *sizes;       /* of each, in bytes; NULL: each is a C string */
    int n;                     /* strings, at most DR_SUBMIT_STRINGS_MAX */
    const char *text;          /* the `queued` event */
    size_t text_n;
} dr_sending;

/* Send a job and make it known, so that it can be seen and canceled before it starts. A
 * second call with the same id does nothing. holder gets "", or the id of the job that has
 * the unique key: then nothing was sent. */
DR_MUST_USE dr_status dr_queue_submit(dr_queue *q, const dr_sending *s,
                                      char holder[DR_JOB_ID_MAX + 1], dr_err *err);

/* P:input:<id>:<name>: a picture that is too large for its job's entry, which then holds
 * "input:<id>:<name>" in its place. put: lives ttl_s. get: key with P in front or without;
 * *out (dr_reply_text) has 1..DR_IMAGE_BYTES_MAX bytes. DR_EINVAL: a key of another queue,
 * too large, or no string; DR_ENOTFOUND: not there. */
DR_MUST_USE dr_status dr_queue_input_put(dr_queue *q, const char *id, const char *name,
                                         const void *p, size_t n, int64_t ttl_s,
                                         dr_err *err);
DR_MUST_USE dr_status dr_queue_input_get(dr_queue *q, const char *key, dr_reply **out,
                                         dr_err *err);

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
