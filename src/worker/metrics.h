#ifndef DR_WORKER_METRICS_H
#define DR_WORKER_METRICS_H

#include "base/buf.h"
#include "base/err.h"
#include "queue/admin.h"
#include "worker/http.h"

#include <stdint.h>

/* What a worker counts and measures, as Prometheus reads it, and whether it is well. All
 * functions may be called from any thread, wait for nobody and allocate nothing, except
 * dr_metrics_new, dr_metrics_free and what writes text. */

typedef struct dr_metrics dr_metrics;

/* Only grow. */
typedef enum {
    DR_COUNT_SUCCEEDED, /* jobs that ended, each once */
    DR_COUNT_FAILED,    /* use dr_count_failed */
    DR_COUNT_CANCELED,
    DR_COUNT_EXPIRED,
    DR_COUNT_POISON,
    DR_COUNT_CLAIMS, /* entries taken from the queue */
    DR_COUNT_RECOVERED,
    DR_COUNT_RETRIED, /* runs that ended, but not their job */
    DR_COUNT_RELEASED,
    DR_COUNT_LEASE_LOST,
    DR_COUNT_STALE_FINISH,
    DR_COUNT_CHECKPOINTS,
    DR_COUNT_RESUMED,
    DR_COUNT_STEPS,
    DR_COUNT_IMAGES,
    DR_COUNT_IMAGE_BYTES,
    DR_COUNT_BATCHES,
    DR_COUNT_BATCHED_JOBS,
    DR_COUNT_MODEL_LOADS,
    DR_COUNT_EVENTS,
    DR_COUNT_EVENTS_DROPPED,
    DR_COUNT_REDIS_DOWN, /* errors of the connection */
    DR_COUNT_REDIS_REFUSED,
    DR_COUNT_RECONNECTS,
    DR_COUNTERS
} dr_counter;

/* Durations, of which the spread is kept. */
typedef enum {
    DR_TIME_WAIT, /* from a job's creation to its claim */
    DR_TIME_RUN,  /* from the claim to its end */
    DR_TIME_LOAD, /* phases */
    DR_TIME_ENCODE,
    DR_TIME_DENOISE,
    DR_TIME_DECODE,
    DR_TIME_COMPRESS,
    DR_TIME_FINISH,
    DR_TIME_STEP,
    DR_TIMERS
} dr_timer;

/* The state of now. One that was never set is not shown, except BUSY and DRAINING, which
 * begin at 0. Those [DR_CLASSES] wide are set by adding a dr_priority. */
typedef enum {
    DR_GAUGE_BUSY,     /* jobs held, until they are stored or handed back */
    DR_GAUGE_DRAINING, /* 1: takes no more jobs */
    DR_GAUGE_RESIDENT_MODELS,
    DR_GAUGE_WAITING,                                   /* [DR_CLASSES] */
    DR_GAUGE_DELAYED = DR_GAUGE_WAITING + DR_CLASSES,   /* [DR_CLASSES] */
    DR_GAUGE_RUNNING = DR_GAUGE_DELAYED + DR_CLASSES,   /* [DR_CLASSES] */
    DR_GAUGE_OLDEST_MS = DR_GAUGE_RUNNING + DR_CLASSES, /* [DR_CLASSES] first in line */
    DR_GAUGE_PAUSED = DR_GAUGE_OLDEST_MS + DR_CLASSES,  /* [DR_CLASSES] 0 or 1 */
    DR_GAUGE_DEAD = DR_GAUGE_PAUSED + DR_CLASSES,
    DR_GAUGE_REDIS_BYTES,
    DR_GAUGE_REDIS_BYTES_MAX, /* 0: no limit */
    DR_GAUGES
} dr_gauge;

/* Moments that readiness depends on. */
typedef enum {
    DR_SEEN_REDIS, /* it answered the I/O thread without an error */
    DR_SEEN_LEASE, /* it renewed what the worker holds, or took its heartbeat */
    DR_SEENS
} dr_seen;

/* Threads whose life is watched. */
typedef enum { DR_THREAD_ENGINE, DR_THREAD_IO, DR_THREAD_LEASE, DR_THREADS } dr_thread;

/* ready_s: the worker counts as ready while Redis was seen within so many seconds. NULL
 * when memory is out. */
dr_metrics *dr_metrics_new(double ready_s);
void dr_metrics_free(dr_metrics *m); /* accepts NULL; after dr_http_stop */

/* Name worker and device (copied; cut at 255 bytes) for darkroom_build_info; may be called
 * again. */
void dr_metrics_describe(dr_metrics *m, const char *worker, const char *device);

void dr_count(dr_metrics *m, dr_counter c, int64_t n);
/* A job failed for good: DR_COUNT_FAILED and the failures by code. */
void dr_count_failed(dr_metrics *m, dr_status code);
int64_t dr_counted(const dr_metrics *m, dr_counter c);

/* What is negative or not a number, as after a step of a clock, counts as 0. */
void dr_time(dr_metrics *m, dr_timer t, double seconds);

void dr_gauge_set(dr_metrics *m, dr_gauge g, int64_t value);
/* All gauges of the queue and of Redis' memory, from dr_queue_status. */
void dr_metrics_fleet(dr_metrics *m, const dr_fleet *f);

void dr_metrics_seen(dr_metrics *m, dr_seen what);

/* Thread t lives and gives its next sign within limit_s; 0: it may sleep for as long as it
 * likes. */
void dr_metrics_alive(dr_metrics *m, dr_thread t, double limit_s);

/* Prometheus' text exposition format 0.0.4. */
void dr_metrics_text(dr_metrics *m, dr_buf *out);

/* Append one line, "ok" or what is wrong, and return 200 or 503.
 * Healthy: no watched thread is overdue. Ready: healthy, not draining, and Redis was seen
 * within ready_s, or jobs are held and the lease was (a long step says nothing to Redis).
 * Paused classes change nothing: the worker is well and waits. */
int dr_metrics_health(dr_metrics *m, dr_buf *out);
int dr_metrics_ready(dr_metrics *m, dr_buf *out);

/* /metrics, /healthz and /readyz for dr_http_start, whose ctx is the dr_metrics. */
extern const dr_http_route dr_metrics_routes[];

#endif
