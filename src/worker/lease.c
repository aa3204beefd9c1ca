#include "worker/state.h"

#include "base/log.h"

#include <darkroom/version.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* The lease thread: on a connection of its own, so that a large result on the other one
 * does not delay it. Renews every lease, then says in the registry that the worker is
 * alive. After lost contact it comes back with back-off, and renewing is the first thing it
 * does. */

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
        if (answer != DR_ANSWER_LOST)
            continue;
        pthread_mutex_lock(&w->lock);
        if (s->leased && s->lease_no == c.no)
            s->lost = true;
        pthread_mutex_unlock(&w->lock);
    }
    return DR_OK;
}

static dr_status beat(dr_worker *w, dr_err *err)
{
    char host[256] = "", pid[24], step[48] = "", done[24], failed[24];
    char job[DR_JOB_ID_MAX + 1] = "";
    gethostname(host, sizeof host - 1);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    snprintf(done, sizeof done, "%lld", (long long)w->done);
    snprintf(failed, sizeof failed, "%lld", (long long)w->failed);
    for (int i = 0; i < DR_SLOTS; i++) {
        const dr_slot *s = &w->slots[i];
        copy c;
        if (!copy_lease(w, s, &c))
            continue;
        snprintf(job, sizeof job, "%s", c.id);
        snprintf(step, sizeof step, "%lld/%lld", (long long)s->step, (long long)s->steps);
    }
    const char *const pairs[] = {
        "host",  host,          "pid",    pid,    "device",  w->device,
        "model", w->model_name, "job",    job,    "step",    step,
        "done",  done,          "failed", failed, "version", DR_VERSION,
    };
    bool drain;
    return dr_queue_beat(w->leases, 3 * w->conf->lease.renew_ms, pairs,
                         (int)DR_COUNT(pairs), &drain, err);
}

/* Wait; true when the worker leaves. */
static bool wait_ms(dr_worker *w, int64_t ms)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ms / 1000;
    end.tv_nsec += ms % 1000 * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&w->lock);
    while (!w->leaving &&
           pthread_cond_timedwait(&w->leaving_changed, &w->lock, &end) != ETIMEDOUT)
        continue;
    bool leaving = w->leaving;
    pthread_mutex_unlock(&w->lock);
    return leaving;
}

void *dr_lease_main(void *ctx)
{
    dr_worker *w = ctx;
    int64_t pause_ms;
    do {
        dr_err err = { 0 };
        dr_status st = renew_all(w, &err);
        if (!st)
            st = beat(w, &err);
        pause_ms = w->conf->lease.renew_ms;
        if (st == DR_EIO) {
            int64_t retry_ms = dr_redis_backoff_ms(dr_queue_redis(w->leases));
            pause_ms = retry_ms < pause_ms ? retry_ms : pause_ms;
        }
        if (st) {
            char quoted[600];
            dr_log(DR_DEBUG, "lease.late", "message=%s",
                   dr_log_quote(quoted, sizeof quoted, err.message));
        }
    } while (!wait_ms(w, pause_ms));
    return NULL;
}
