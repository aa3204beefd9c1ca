#ifndef DR_WORKER_STATE_H
#define DR_WORKER_STATE_H

#include "base/arena.h"
#include "base/buf.h"
#include "diffusion/pipeline.h"
#include "queue/queue.h"
#include "worker/mail.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* Inside of the worker. Two and a half threads:
 *   engine (the program's own thread): device and model; runs one slot after the other
 *   I/O: claims, decodes, publishes, compresses, finishes; drives every slot's state
 *   lease: renews and beats on a connection of its own
 * (and one that waits for signals.)
 * A slot has one owner at any instant; notes hand it over. Only the atomics and what
 * `lock` guards are touched from two sides. */

#define DR_SLOTS               2 /* one runs while the one before it is compressed and stored */
#define DR_WORKER_NAME         128
#define DR_WEBP_PREVIEW_EFFORT 0

typedef enum {
    DR_SLOT_FREE,
    DR_SLOT_CLAIMED, /* decoded, not yet bound to its id */
    DR_SLOT_RUNNING, /* with the engine */
    DR_SLOT_ENDED,   /* to be finished, released or forgotten */
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
    int64_t attempt, seq; /* seq: of the last event */
    double claimed_s, compress_s;
    int n_compressed;   /* pictures taken over from the engine */
    dr_err webp_err;    /* of compressing them */
    dr_buf ending;      /* the terminal event's text, written once */
    bool with_bytes;    /* finish must carry the pictures */
    int refusals;       /* of finish, by Redis' own errors */
    double finish_at_s; /* when it may be tried again */

    /* Its owner's: I/O, then engine, then I/O. */
    dr_arena *mem;
    dr_job *job;
    dr_plan plan;
    dr_run_stats stats;
    dr_err err; /* of decode, plan or run; code DR_OK: succeeded */
    dr_slot_image images[DR_IMAGES_MAX];
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
    atomic_bool give_up;                     /* stop, to be handed back */
    atomic_llong step, steps;

    /* Guarded by dr_worker's lock: what the lease thread renews. */
    bool leased;
    uint64_t lease_no; /* changes with every job */
    char lease_id[DR_JOB_ID_MAX + 1], lease_entry[64];
    dr_priority lease_class;
    int64_t lease_fence;
};

typedef struct {
    const dr_conf *conf;
    char name[DR_WORKER_NAME + 1];
    int64_t jobs_left; /* to claim; < 0: no limit */

    /* The engine thread's; model_name and device may be read by all. */
    dr_dev *dev;
    dr_model *model;
    const char *model_name, *device;

    dr_mail to_engine, to_io;
    dr_slot slots[DR_SLOTS];

    /* The I/O thread's. */
    dr_queue *jobs;
    bool engine_busy, idle; /* idle: the last claim found nothing */
    double redis_at_s;      /* when Redis may be tried again */
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
    atomic_bool stopping; /* a signal asked to stop */

    /* The lease thread's, but for the lock. */
    dr_queue *leases;
    pthread_mutex_t lock;
    pthread_cond_t leaving_changed;
    bool leaving;
    atomic_llong done, failed;
} dr_worker;

/* engine.c: run slots until to_engine is closed. */
void dr_engine_loop(dr_worker *w);

/* io.c, lease.c: thread mains; ctx is the dr_worker. */
void *dr_io_main(void *ctx);
void *dr_lease_main(void *ctx);

/* Seconds until the next try after an error of Redis' own. */
#define DR_REFUSED_S 1.0

/* io.c: Redis answered with st (DR_OK included): log; when it is not there,
 * decide when to try again; when it refuses the credentials, that the worker leaves. */
void dr_io_redis(dr_worker *w, dr_status st, const dr_err *err);
bool dr_io_ready(const dr_worker *w); /* Redis may be tried now */

/* publish.c */
void dr_publish_started(dr_worker *w, dr_slot *s);
void dr_publish_progress(dr_worker *w, dr_slot *s, const dr_note *note);
void dr_publish_preview(dr_worker *w, dr_slot *s);
void dr_publish_warning(dr_worker *w, dr_slot *s, int index);
/* Compress picture `index` and announce it. */
void dr_publish_image(dr_worker *w, dr_slot *s, int index);

/* finish.c: one try to end an ended slot; true when it is through. */
bool dr_finish_slot(dr_worker *w, dr_slot *s);

/* publish.c, for finish.c: announce what is not announced yet, once each; false while some
 * could not be. And text as the job wants its events (JSON, or msgpack in w->packed). */
bool dr_publish_images(dr_worker *w, dr_slot *s);
const dr_buf *dr_publish_form(dr_worker *w, const dr_slot *s, const dr_buf *text);

#endif
