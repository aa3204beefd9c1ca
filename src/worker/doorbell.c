#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* The control thread: a doorbell. What is said on P:control may be lost or made up; the
 * truth stands in the hashes, and the lease thread reads it there. */

#define WAIT_MS 250 /* also how long the worker may take to leave */

/* --- what can be heard: each row's verb and what follows it --- */

static void hear_cancel(dr_worker *w, const char *id)
{
    bool ours = dr_lease_holds(w, id);
    if (strlen(id) <= DR_JOB_ID_MAX)
        dr_lease_ring(w, ours ? NULL : id);
}

static void hear_drain(dr_worker *w, const char *name)
{
    if (!strcmp(name, w->name))
        dr_lease_ring(w, NULL);
}

static void hear(dr_worker *w, const char *text)
{
    static const struct {
        const char *verb;
        void (*hear)(dr_worker *w, const char *subject);
    } rows[] = {
        { "cancel ", hear_cancel },
        { "drain ", hear_drain },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        size_t n = strlen(rows[i].verb);
        if (!strncmp(text, rows[i].verb, n))
            rows[i].hear(w, text + n);
    }
}

void *dr_control_main(void *ctx)
{
    dr_worker *w = ctx;
    while (!w->leaving) {
        dr_err err = { 0 };
        dr_reply *reply = NULL;
        const char *text;
        size_t n;
        dr_status st = dr_queue_next_control(w->control, WAIT_MS, &reply, &text, &n, &err);
        if (!st && reply)
            hear(w, text);
        dr_reply_free(reply);
        if (st) /* renewals and beats look as well, only later */
            dr_sleep_ms(WAIT_MS);
    }
    return NULL;
}

/* --- jobs that wait --- */

static bool next_unwanted(dr_worker *w, char id[DR_JOB_ID_MAX + 1])
{
    pthread_mutex_lock(&w->lock);
    bool any = w->n_unwanted > 0;
    if (any)
        snprintf(id, DR_JOB_ID_MAX + 1, "%s", w->unwanted[--w->n_unwanted]);
    pthread_mutex_unlock(&w->lock);
    return any;
}

/* Of all workers that heard it the first one ends the job; the others find that it has. */
dr_status dr_cancel_unwanted(dr_worker *w, dr_err *err)
{
    char id[DR_JOB_ID_MAX + 1];
    const dr_cancel_reader reader = dr_entry_canceling(&w->reader);
    dr_cancel_answer answer;
    dr_status st = DR_OK;
    while (!st && next_unwanted(w, id)) {
        if (dr_job_id_check("id", id, strlen(id), NULL))
            continue;
        st = dr_queue_cancel(w->leases, id, &reader, true, &answer, err);
        if (!st && answer.word == DR_CANCELED)
            dr_log(DR_INFO, "job.canceled", "id=%s step=0", id);
    }
    return st;
}
