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
    int64_t lease_ms, block_ms, ttl_s, events_maxlen, publish_max;
    uint64_t connection;       /* the one that the next two lines are about */
    double sweep_at_s;         /* when other workers' entries may be looked at */
    uint64_t subscribed;       /* the connection that is subscribed; 0: none */
    char last[DR_CLASSES][64]; /* last entry of each stream when claim found none */
};

/* Append keys. */
void dr_queue_put_streams(const dr_queue *q, dr_cmd *c);
void dr_queue_put_stream(const dr_queue *q, dr_cmd *c, dr_priority class);
void dr_queue_put_job_key(const dr_queue *q, dr_cmd *c, const char *kind, const char *id);

/* Append what every event needs behind its text: the two channels. */
void dr_queue_put_channels(const dr_queue *q, dr_cmd *c, const char *id);

#endif
