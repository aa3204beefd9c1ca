#include "worker/state.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

/* The control thread: a doorbell. What is said on P:control may be lost or made up; the
 * truth stands in the hashes, and the lease thread reads it there. */

#define WAIT_MS 250 /* also how long the worker may take to leave */

typedef struct {
    dr_worker *w;
    const char *subject;
} ring;

static bool is_own_job(const ring *r)
{
    return dr_lease_holds(r->w, r->subject);
}

static bool is_us(const ring *r)
{
    return !strcmp(r->subject, r->w->name);
}

static void hear(dr_worker *w, const char *text)
{
    static const struct {
        const char *verb;
        bool (*concerns)(const ring *r);
    } rows[] = {
        { "cancel ", is_own_job },
        { "drain ", is_us },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        size_t n = strlen(rows[i].verb);
        const ring r = { .w = w, .subject = text + n };
        if (!strncmp(text, rows[i].verb, n) && rows[i].concerns(&r))
            dr_lease_ring(w);
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
