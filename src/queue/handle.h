#ifndef DR_QUEUE_HANDLE_H
#define DR_QUEUE_HANDLE_H

#include "queue/queue.h"
#include "queue/script.h"

/* Inside of a dr_queue, for the files of this folder. */

#define DR_QUEUE_GROUP "workers"
#define DR_NAME_MAX    128 /* bytes of queue.prefix and of a worker's name */

struct dr_queue {
    dr_redis *redis;
    dr_scripts scripts;
    char prefix[DR_NAME_MAX + 1], worker[DR_NAME_MAX + 1];
    int64_t lease_ms, block_ms, ttl_s, events_maxlen, publish_max, dead_maxlen;
    int64_t checkpoint_ttl_s;
    int64_t weights[DR_CLASSES];    /* turns of each class */
    uint64_t connection;            /* the one that the next two lines are about */
    double sweep_at_s;              /* when other workers' entries may be looked at */
    uint64_t subscribed;            /* the connection that is subscribed; 0: none */
    char last[DR_CLASSES][64];      /* last entry of each stream when claim found none */
    int64_t due_ms;                 /* from then until the next delay is over; -1: none */
    char tidy_from[DR_CLASSES][64]; /* where the janitor goes on */
};

/* Append keys. */
void dr_queue_put_streams(const dr_queue *q, dr_cmd *c);
void dr_queue_put_stream(const dr_queue *q, dr_cmd *c, dr_priority class);
void dr_queue_put_key(const dr_queue *q, dr_cmd *c, const char *name); /* P:<name> */
void dr_queue_put_job_key(const dr_queue *q, dr_cmd *c, const char *kind, const char *id);
/* group, worker, entry, fence: how scripts are told who calls about what. */
void dr_queue_put_hold(const dr_queue *q, dr_cmd *c, const dr_hold *h);

/* The word that a script answered, alone or at the head of an array. */
dr_answer dr_queue_read_answer(const dr_reply *reply);
/* Run a script that answers with a word. */
DR_MUST_USE dr_status dr_queue_call_answer(dr_queue *q, dr_script_id id, dr_cmd *c,
                                           dr_answer *answer, dr_err *err);
/* Run a command that answers with a number. */
DR_MUST_USE dr_status dr_queue_call_count(dr_queue *q, const dr_cmd *c, int64_t *n,
                                          dr_err *err);
/* The groups of all streams, made where they are missing. */
DR_MUST_USE dr_status dr_queue_make_groups(dr_queue *q, dr_err *err);

/* Append what every event needs behind its text: the two channels. */
void dr_queue_put_channels(const dr_queue *q, dr_cmd *c, const char *id);

#endif
