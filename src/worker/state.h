#ifndef DR_WORKER_STATE_H
#define DR_WORKER_STATE_H

#include "base/arena.h"
#include "base/buf.h"
#include "diffusion/models.h"
#include "job/entry.h"
#include "job/events.h"
#include "queue/queue.h"
#include "worker/mail.h"
#include "worker/metrics.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* Inside of the worker. Its threads:
 *   engine (the program's own thread): device and models; runs one batch after the other
 *   I/O: claims, decodes, publishes, compresses, finishes; drives every slot's state
 *   lease: renews and beats on a connection of its own; watches the engine
 *   control: listens on P:control, wakes the lease thread (doorbell.c)
 * and one that waits for signals. A slot holds one job and has one owner at any instant;
 * notes hand it over. Only the atomics and what `lock` guards are touched from two sides.
 */

#define DR_BATCH_MAX           8
#define DR_SLOTS               (2 * DR_BATCH_MAX) /* one batch runs while the last is stored */
#define DR_WORKER_NAME         128
#define DR_WEBP_PREVIEW_EFFORT 0
#define DR_PICTURES_MAX        (DR_IMAGES_MAX + 1)   /* and a sheet of them */
#define DR_INPUTS_MAX          (2 + DR_CONTROLS_MAX) /* pictures that a job may bring */

typedef enum {
    DR_SLOT_FREE,
    DR_SLOT_CLAIMED, /* decoded, not yet bound to its id */
    DR_SLOT_BOUND,   /* ours to run: in the batch that is being gathered */
    DR_SLOT_RUNNING, /* with the engine */
    DR_SLOT_ENDED,   /* to be finished, put off, released or forgotten */
} dr_slot_state;

typedef struct {
    uint8_t *rgb; /* dr_free; NULL once compressed */
    int64_t width, height;
    uint64_t seed;
    const char *parameters; /* NULL: none */
    dr_buf webp;
    int64_t seq;    /* of its event, the same at every try; 0: not tried */
    bool announced; /* its event is out, or cannot be */
} dr_slot_image;

struct dr_slot {
    /* The I/O thread's. */
    dr_slot_state state;
    dr_claim claim;
    dr_start start;
    int64_t seq; /* of the last event */
    double claimed_s, compress_s;
    int n_compressed;         /* pictures taken over from the engine */
    dr_err webp_err;          /* of compressing them */
    dr_buf ending;            /* the last event's text, written once */
    const struct ending *end; /* how, once that is written */
    bool with_bytes;          /* finish must carry the pictures */
    bool kept;                /* the checkpoint is stored, or cannot be */
    int refusals;             /* of the ending, by Redis' own errors */
    double finish_at_s;       /* when it may be tried again */

    /* Its owner's: I/O, then engine, then I/O. */
    dr_arena *mem;
    dr_job *job;
    int model; /* of dr_models */
    dr_plan plan;
    dr_run_stats stats;
    double load_s;
    double deadline_s;               /* when the run takes too long; 0: never */
    dr_reply *resume;                /* the checkpoint to go on from; NULL: none */
    dr_buf checkpoint;               /* the one that this run leaves */
    dr_reply *inputs[DR_INPUTS_MAX]; /* pictures that were fetched; the job borrows them */
    dr_err err;                      /* of decode, plan or run; code DR_OK: succeeded */
    const char *code; /* of a failure that is no dr_status: "timeout"; NULL: err's name */
    bool passing;     /* the failure may pass: try again */
    bool unwanted;    /* planned, but does not fit the batch: to be handed back */
    dr_slot_image images[DR_PICTURES_MAX];
    int n_images;
    bool progress_begun;
    double progress_at_s;
    struct {
        uint8_t *rgb; /* dr_free; kept from job to job */
        size_t size;
        int64_t step, width, height;
    } preview;

    /* Anybody's. */
    atomic_bool progress_busy, preview_busy; /* a note is under way */
    atomic_bool lost;                        /* another worker's now: stop, say nothing */
    atomic_bool canceled;                    /* its client wants it no more */
    atomic_bool give_up;                     /* stop, to be handed back */
    atomic_llong step, steps;
    _Atomic double s_step; /* seconds that a step takes; 0: unknown */

    /* Guarded by dr_worker's lock: what the lease thread renews. */
    bool leased;
    uint64_t lease_no; /* changes with every job */
    char lease_id[DR_JOB_ID_MAX + 1], lease_entry[64];
    dr_priority lease_class;
    int64_t lease_fence;
};

/* Entries that cannot be served here and were handed back. */
typedef struct {
    char name[DR_ENTRY_NAME_MAX];
    double until_s;
} dr_refusal;
#define DR_REFUSALS_MAX 32

/* Cancellations heard of at a time; more are found at the jobs' turn. */
#define DR_UNWANTED_MAX 16

typedef struct {
    const dr_conf *conf;
    char name[DR_WORKER_NAME + 1];
    char host[256];
    int64_t started_ms;
    int64_t jobs_left; /* to claim; < 0: no limit */
    dr_metrics *metrics;
    dr_http *http; /* NULL: metrics.listen is empty */

    /* The engine thread's; the list of models and device may be read by all. */
    dr_dev *dev;
    dr_models *models;
    const char *device;
    int64_t batch_max;

    dr_mail to_engine, to_io;
    dr_slot slots[DR_SLOTS];
    struct {
        dr_slot *slots[DR_BATCH_MAX];
        int n;
        int64_t images;
    } batch;             /* the I/O thread's until it is sent, then the engine's */
    atomic_ullong pulse; /* moves while the engine does */
    atomic_bool engine_busy;
    atomic_bool device_failed; /* no use going on with this process */

    /* The I/O thread's. */
    dr_queue *jobs;
    struct {
        double look_at_s; /* when to look again */
        double until_s;   /* when a dead one has gone from the list; 0: none was seen */
        int64_t seen_ms;  /* its last sign of life */
    } namesake;
    bool idle;             /* the last claim found nothing */
    dr_own own;            /* what the next claim must look for */
    double gather_until_s; /* the batch that is gathered waits so long for more */
    dr_refusal refusals[DR_REFUSALS_MAX];
    int next_refusal;
    double redis_at_s; /* when Redis may be tried again */
    bool redis_down;
    double claim_at_s, event_at_s; /* when it may be asked again for what it refused */
    double stop_at_s;              /* when running jobs are given up; 0: not stopping */
    dr_buf text, packed, webp;
    dr_arena *scratch;
    dr_err failure; /* why the worker leaves; code DR_OK: it was told to */

    /* The signal thread's. */
    pthread_t signals;
    bool signals_started;
    sigset_t old_mask;
    atomic_bool signals_end;
    atomic_bool stopping; /* a signal or an operator asked to stop */

    /* The lease and the control thread's, but for the lock. */
    dr_queue *leases, *control;
    dr_arena *fleet_mem;    /* of one look at the whole queue */
    dr_entry_reader reader; /* of jobs to cancel */
    pthread_mutex_t lock;
    pthread_cond_t lease_wake;
    bool rung; /* the lease thread is to look at once */
    char unwanted[DR_UNWANTED_MAX][DR_JOB_ID_MAX + 1]; /* jobs that are not ours */
    int n_unwanted;
    atomic_bool leaving;
    atomic_bool named; /* nobody else goes by our name; set by the I/O thread */
    atomic_llong done, failed;
} dr_worker;

/* engine.c: run batches until to_engine is closed. */
void dr_engine_loop(dr_worker *w);

/* io.c, lease.c, doorbell.c: thread mains; ctx is the dr_worker. */
void *dr_io_main(void *ctx);
void *dr_lease_main(void *ctx);
void *dr_control_main(void *ctx);

/* lease.c: renew and beat now; and cancel this job, which waits (NULL: none). */
void dr_lease_ring(dr_worker *w, const char *unwanted);
/* Whether one of our jobs has this id. */
bool dr_lease_holds(dr_worker *w, const char *id);

/* doorbell.c, for the lease thread: cancel what it was rung for. */
DR_MUST_USE dr_status dr_cancel_unwanted(dr_worker *w, dr_err *err);

/* Seconds until the next try after an error of Redis' own. */
#define DR_REFUSED_S 1.0

/* io.c: Redis answered with st (DR_OK included): log; when it is not there,
 * decide when to try again; when it refuses the credentials, that the worker leaves. */
void dr_io_redis(dr_worker *w, dr_status st, const dr_err *err);
bool dr_io_ready(const dr_worker *w); /* Redis may be tried now */

/* name.c: look whether our name is free: sets w->named, or w->failure when it is not. */
void dr_name_settle(dr_worker *w);

/* slot.c */
dr_slot *dr_slot_find(dr_worker *w, dr_slot_state state);
int dr_slot_count(const dr_worker *w, dr_slot_state state);
bool dr_slots_empty(const dr_worker *w);
/* Tell the lease thread what to renew; hold NULL: nothing any more. */
void dr_slot_lease(dr_worker *w, dr_slot *s, const dr_hold *h);
/* Give up all that a job held; the slot is free. */
void dr_slot_clear(dr_worker *w, dr_slot *s);

/* claim.c: take a job when there is room; bind what is claimed; gather a batch and send it
 * to the engine. One step of it at each call. */
bool dr_claim_wanted(dr_worker *w);
void dr_claim_work(dr_worker *w);
/* Something can be done at once, without a new job or note. */
bool dr_claim_busy(dr_worker *w);

/* inputs.c: read the pictures that the job names by keys, each once. false: Redis is not
 * there. What is wrong with them is in the slot's err. */
bool dr_inputs_fetch(dr_worker *w, dr_slot *s);
void dr_inputs_free(dr_slot *s);

/* publish.c */
void dr_publish_started(dr_worker *w, dr_slot *s);
void dr_publish_progress(dr_worker *w, dr_slot *s, const dr_note *note);
void dr_publish_preview(dr_worker *w, dr_slot *s);
void dr_publish_warning(dr_worker *w, dr_slot *s, int index);
/* Compress picture `index` and announce it. */
void dr_publish_image(dr_worker *w, dr_slot *s, int index);

/* finish.c: one try to end an ended slot; true when it is through. */
bool dr_finish_slot(dr_worker *w, dr_slot *s);

/* publish.c, for finish.c: what the slot's next event begins with, whose seq is counted
 * here; announce what is not announced yet, once each; false while some
 * could not be. And text as the job wants its events (JSON, or msgpack in w->packed). */
dr_event_head dr_publish_head(const dr_worker *w, dr_slot *s);
/* What events say of a compressed picture; key is borrowed. */
dr_event_picture dr_publish_picture(const dr_worker *w, const dr_slot *s, int index,
                                    char key[DR_KEY_MAX]);
bool dr_publish_images(dr_worker *w, dr_slot *s);
const dr_buf *dr_publish_form(dr_worker *w, const dr_slot *s, const dr_buf *text);

#endif
