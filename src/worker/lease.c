#include "worker/state.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "queue/admin.h"

#include <darkroom/version.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STALLED_EXIT 70 /* EX_SOFTWARE */
#define LATE_S       60 /* that a round of this thread may take beside its pauses */

/* The lease thread: on a connection of its own, so that a large result on the other one
 * does not delay it. Renews every lease, then says in the registry that the worker is
 * alive. After lost contact it comes back with back-off, and renewing is the first thing it
 * does.
 * Beside that it watches the engine and tidies the queue now and then. */

typedef struct {
    dr_hold hold;
    uint64_t no;
    char id[DR_JOB_ID_MAX + 1], entry[64];
} copy;

/* What slot s wants renewed, copied because the slot may end meanwhile. */
static bool copy_lease(dr_worker *w, const dr_slot *s, copy *c)
{
    pthread_mutex_lock(&w->lock);
    bool leased = s->leased;
    if (leased) {
        snprintf(c->id, sizeof c->id, "%s", s->lease_id);
        snprintf(c->entry, sizeof c->entry, "%s", s->lease_entry);
        c->hold = (dr_hold){
            .id = c->id, .entry = c->entry, .class = s->lease_class, .fence = s->lease_fence
        };
        c->no = s->lease_no;
    }
    pthread_mutex_unlock(&w->lock);
    return leased;
}

bool dr_lease_holds(dr_worker *w, const char *id)
{
    bool held = false;
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < DR_SLOTS; i++)
        held = held || (w->slots[i].leased && !strcmp(w->slots[i].lease_id, id));
    pthread_mutex_unlock(&w->lock);
    return held;
}

/* Tell slot s what Redis said, unless it has another job by now. */
static void take_answer(dr_worker *w, dr_slot *s, const copy *c, dr_answer answer)
{
    pthread_mutex_lock(&w->lock);
    if (s->leased && s->lease_no == c->no) {
        if (answer == DR_ANSWER_LOST)
            s->lost = true;
        if (answer == DR_ANSWER_CANCEL)
            s->canceled = true;
    }
    pthread_mutex_unlock(&w->lock);
}

static dr_status renew_all(dr_worker *w, dr_err *err)
{
    for (int i = 0; i < DR_SLOTS; i++) {
        dr_slot *s = &w->slots[i];
        dr_answer answer = DR_ANSWER_OK;
        copy c;
        if (!copy_lease(w, s, &c))
            continue;
        dr_status st = dr_queue_renew(w->leases, &c.hold, &answer, err);
        if (st)
            return st;
        take_answer(w, s, &c, answer);
    }
    return DR_OK;
}

/* --- the registry --- */

/* What the worker is doing, as status.c shows it. */
typedef struct {
    char pid[24], started[24], step[48], s_step[24], done[24], failed[24];
    dr_buf jobs, models, resident;
} report;

static void put_number(char out[24], int64_t v)
{
    snprintf(out, 24, "%lld", (long long)v);
}

static void describe(dr_worker *w, report *r)
{
    put_number(r->pid, getpid());
    put_number(r->started, w->started_ms);
    put_number(r->done, w->done);
    put_number(r->failed, w->failed);
    dr_models_names_json(w->models, false, &r->models);
    dr_models_names_json(w->models, true, &r->resident);
    dr_buf_puts(&r->jobs, "[");
    for (int i = 0; i < DR_SLOTS; i++) {
        dr_slot *s = &w->slots[i];
        copy c;
        if (!copy_lease(w, s, &c))
            continue;
        if (r->jobs.len > 1)
            dr_buf_puts(&r->jobs, ",");
        dr_json_put_string(&r->jobs, c.id);
        snprintf(r->step, sizeof r->step, "%lld/%lld", (long long)s->step,
                 (long long)s->steps);
        if (s->s_step > 0)
            snprintf(r->s_step, sizeof r->s_step, "%.3g", s->s_step);
    }
    dr_buf_puts(&r->jobs, "]");
}

static const char *text_of(const dr_buf *b)
{
    return b->data && !b->failed ? b->data : "[]";
}

static dr_status beat(dr_worker *w, dr_err *err)
{
    report r = { .step = "" };
    bool drain = false;
    describe(w, &r);
    const char *state = w->stopping ? "draining" : w->engine_busy ? "busy" : "idle";
    const char *const pairs[] = {
        "host",       w->host,
        "pid",        r.pid,
        "device",     w->device,
        "version",    DR_VERSION,
        "started_ms", r.started,
        "state",      state,
        "models",     text_of(&r.models),
        "resident",   text_of(&r.resident),
        "jobs",       text_of(&r.jobs),
        "step",       r.step,
        "s_step",     r.s_step,
        "done",       r.done,
        "failed",     r.failed,
    };
    dr_status st = dr_queue_beat(w->leases, 3 * w->conf->lease.renew_ms, pairs,
                                 (int)DR_COUNT(pairs), &drain, err);
    if (!st && drain)
        w->stopping = true;
    dr_buf_free(&r.jobs);
    dr_buf_free(&r.models);
    dr_buf_free(&r.resident);
    return st;
}

/* --- the watchdog --- */

typedef struct {
    unsigned long long pulse;
    double at_s;
} watch;

/* A device that hangs cannot be interrupted: what it holds is left to the other workers,
 * who count a crash, and the process goes. */
static void watch_engine(dr_worker *w, watch *seen)
{
    double now_s = dr_now_s(), limit_s = (double)w->conf->worker.stall_ms / 1000;
    if (!w->engine_busy || w->pulse != seen->pulse)
        *seen = (watch){ .pulse = w->pulse, .at_s = now_s };
    double left_s = seen->at_s + limit_s - now_s;
    dr_metrics_alive(w->metrics, DR_THREAD_ENGINE, w->engine_busy ? left_s : 0);
    if (left_s > 0)
        return;
    dr_log(DR_ERROR, "worker.stalled",
           "worker=%s: no step for %.0f s (worker.stall_ms); the device hangs", w->name,
           now_s - seen->at_s);
    _exit(STALLED_EXIT);
}

/* --- the janitor --- */

typedef struct {
    double at_s;
} chore;

static double chore_period_s(const dr_worker *w)
{
    double period_s = 3 * (double)w->conf->lease.ms / 1000;
    return period_s * (0.75 + (double)dr_jitter(512) / 1024);
}

static dr_status tidy(dr_worker *w, chore *next, dr_err *err)
{
    dr_tidied t;
    if (dr_now_s() < next->at_s)
        return DR_OK;
    dr_status st = dr_queue_janitor(
        w->leases, 3 * w->conf->lease.renew_ms + w->conf->lease.ms, &t, err);
    if (st)
        return st;
    next->at_s = dr_now_s() + chore_period_s(w);
    if (t.removed || t.put_back)
        dr_log(DR_INFO, "queue.tidied", "consumers=%lld entries=%lld", (long long)t.removed,
               (long long)t.put_back);
    return DR_OK;
}

/* --- the queue, for the metrics --- */

/* Only where somebody may ask: it costs Redis a look at each class. */
static dr_status look_at_queue(dr_worker *w, dr_err *err)
{
    dr_fleet fleet;
    if (!w->http)
        return DR_OK;
    dr_status st = dr_queue_status(w->leases, w->fleet_mem, &fleet, err);
    if (!st)
        dr_metrics_fleet(w->metrics, &fleet);
    dr_arena_reset(w->fleet_mem);
    return st;
}

static void count_resident(dr_worker *w)
{
    int n = 0;
    for (int i = 0; i < dr_models_count(w->models); i++)
        n += dr_models_resident(w->models, i);
    dr_gauge_set(w->metrics, DR_GAUGE_RESIDENT_MODELS, n);
}

/* --- the thread --- */

void dr_lease_ring(dr_worker *w, const char *unwanted)
{
    pthread_mutex_lock(&w->lock);
    if (unwanted && w->n_unwanted < DR_UNWANTED_MAX)
        snprintf(w->unwanted[w->n_unwanted++], sizeof w->unwanted[0], "%s", unwanted);
    w->rung = true;
    pthread_cond_broadcast(&w->lease_wake);
    pthread_mutex_unlock(&w->lock);
}

/* Wait, or until rung; true when the worker leaves. */
static bool wait_ms(dr_worker *w, int64_t ms)
{
    const struct timespec end = dr_deadline(ms);
    pthread_mutex_lock(&w->lock);
    while (!w->leaving && !w->rung &&
           pthread_cond_timedwait(&w->lease_wake, &w->lock, &end) != ETIMEDOUT)
        continue;
    w->rung = false;
    pthread_mutex_unlock(&w->lock);
    return w->leaving;
}

static int64_t next_pause(dr_worker *w, dr_status st, const dr_err *err)
{
    char quoted[600];
    int64_t pause_ms = w->conf->lease.renew_ms;
    if (!st)
        return pause_ms;
    dr_log(DR_DEBUG, "lease.late", "message=%s",
           dr_log_quote(quoted, sizeof quoted, err->message));
    if (st != DR_EIO)
        return pause_ms;
    int64_t retry_ms = dr_redis_backoff_ms(dr_queue_redis(w->leases));
    return retry_ms < pause_ms ? retry_ms : pause_ms;
}

void *dr_lease_main(void *ctx)
{
    dr_worker *w = ctx;
    watch seen = { .pulse = w->pulse, .at_s = dr_now_s() };
    chore next = { .at_s = dr_now_s() + chore_period_s(w) };
    int64_t pause_ms;
    do {
        dr_err err = { 0 };
        watch_engine(w, &seen);
        dr_status st = renew_all(w, &err);
        if (!st && w->named)
            st = beat(w, &err);
        if (!st)
            dr_metrics_seen(w->metrics, DR_SEEN_LEASE);
        if (!st)
            st = dr_cancel_unwanted(w, &err);
        if (!st)
            st = tidy(w, &next, &err);
        if (!st)
            st = look_at_queue(w, &err);
        count_resident(w);
        dr_metrics_alive(w->metrics, DR_THREAD_LEASE,
                         3 * (double)w->conf->lease.renew_ms / 1000 + LATE_S);
        pause_ms = next_pause(w, st, &err);
    } while (!wait_ms(w, pause_ms));
    dr_metrics_alive(w->metrics, DR_THREAD_LEASE, 0);
    return NULL;
}
