#ifndef DR_WORKER_MAIL_H
#define DR_WORKER_MAIL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A bounded queue of notes between two threads. Handing over a note hands over what it
 * points to. */

typedef struct dr_slot dr_slot;

typedef enum {
    DR_NOTE_BATCH,    /* to the engine: run the worker's batch */
    DR_NOTE_STARTED,  /* the plan is made */
    DR_NOTE_PROGRESS, /* slot->progress, while slot->progress_busy */
    DR_NOTE_PREVIEW,  /* slot->preview, while slot->preview_busy */
    DR_NOTE_IMAGE,    /* slot->images[index] */
    DR_NOTE_WARNING,  /* slot->job->warnings[index] */
    DR_NOTE_DONE,     /* slot->err, stats; the slot is the receiver's again */
    DR_NOTE_IDLE,     /* the whole batch is through */
} dr_note_kind;

typedef struct {
    dr_note_kind kind;
    dr_slot *slot;
    int index;
    struct {
        int phase;
        int64_t step, steps;
        double percent, it_s, eta_s;
    } progress;
} dr_note;

#define DR_MAIL_NOTES 1024 /* more than a full worker's slots can have under way */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    dr_note ring[DR_MAIL_NOTES];
    unsigned head, count;
    bool closed;
} dr_mail;

void dr_mail_init(dr_mail *m);
void dr_mail_destroy(dr_mail *m);

/* Append a note; waits while the queue is full. */
void dr_mail_put(dr_mail *m, const dr_note *note);

/* Take the oldest note. False when none came within wait_ms (< 0: no limit) or the queue is
 * closed and empty. */
bool dr_mail_take(dr_mail *m, dr_note *out, int64_t wait_ms);

/* No more notes will be put: takers that wait return. */
void dr_mail_close(dr_mail *m);

#endif
