#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"

/* The I/O thread: drives each slot through claimed, bound, running, ended. It never sleeps
 * for Redis' sake while the engine runs; after an error redis_at_s says when to try again.
 */

#define POLL_MS   100 /* between looks at the signal flag and at Redis' return */
#define GATHER_MS 20  /* between looks for more jobs of a batch */
#define IO_ALIVE_S                                                                         \
    120 /* longer than any call of Redis, or the compressing of a picture                  \
         */

bool dr_io_ready(const dr_worker *w)
{
    return !w->failure.code && dr_now_s() >= w->redis_at_s;
}

void dr_io_redis(dr_worker *w, dr_status st, const dr_err *err)
{
    char quoted[600];
    dr_redis *redis = dr_queue_redis(w->jobs);
    if (!st) {
        dr_metrics_seen(w->metrics, DR_SEEN_REDIS);
        if (w->redis_down) {
            dr_count(w->metrics, DR_COUNT_RECONNECTS, 1);
            dr_log(DR_INFO, "redis.up", "url=%s", dr_redis_endpoint(redis));
        }
        w->redis_down = false;
        w->redis_at_s = 0;
        return;
    }
    dr_log_quote(quoted, sizeof quoted, err->message);
    if (dr_redis_fatal(err)) {
        w->failure = *err;
        w->failure.code = DR_EREDIS;
    } else if (st == DR_EIO) {
        int64_t wait_ms = dr_redis_backoff_ms(redis);
        dr_count(w->metrics, DR_COUNT_REDIS_DOWN, 1);
        w->redis_down = true;
        w->redis_at_s = dr_now_s() + (double)wait_ms / 1000;
        dr_log(DR_WARN, "redis.down", "retry_ms=%lld message=%s", (long long)wait_ms,
               quoted);
    } else {
        dr_count(w->metrics, DR_COUNT_REDIS_REFUSED, 1);
        dr_log(DR_WARN, "redis.refused", "message=%s", quoted);
    }
}

/* --- notes of the engine --- */

static void handle(dr_worker *w, const dr_note *note)
{
    dr_slot *s = note->slot;
    switch (note->kind) {
    case DR_NOTE_STARTED:
        dr_publish_started(w, s);
        break;
    case DR_NOTE_PROGRESS:
        dr_publish_progress(w, s, note);
        break;
    case DR_NOTE_PREVIEW:
        dr_publish_preview(w, s);
        break;
    case DR_NOTE_IMAGE:
        dr_publish_image(w, s, note->index);
        break;
    case DR_NOTE_WARNING:
        dr_publish_warning(w, s, note->index);
        break;
    case DR_NOTE_DONE:
        s->state = DR_SLOT_ENDED;
        break;
    case DR_NOTE_IDLE:
        w->batch.n = 0;
        w->batch.images = 0;
        w->engine_busy = false;
        break;
    case DR_NOTE_BATCH:
        break;
    }
}

static dr_slot *find_ended(dr_worker *w)
{
    for (int i = 0; i < DR_SLOTS; i++)
        if (w->slots[i].state == DR_SLOT_ENDED && dr_now_s() >= w->slots[i].finish_at_s)
            return &w->slots[i];
    return NULL;
}

/* Nothing is held and Redis has nothing: sleep there until it has. */
static void wait_in_redis(dr_worker *w)
{
    dr_err err = { 0 };
    dr_status st = dr_queue_wait(w->jobs, &err);
    dr_io_redis(w, st, &err);
    if (st && st != DR_EIO)
        w->claim_at_s = dr_now_s() + DR_REFUSED_S;
}

/* Until something is to be done. Blocks in Redis only when the engine has nothing. */
static void wait_for_more(dr_worker *w)
{
    dr_note note;
    bool ready = dr_io_ready(w);
    if (ready && w->idle && dr_slots_empty(w) && dr_claim_wanted(w)) {
        wait_in_redis(w);
        return;
    }
    bool gathering = w->batch.n && !w->engine_busy;
    bool busy = ready && !gathering && (dr_claim_busy(w) || find_ended(w));
    int64_t wait_ms = busy ? 0 : gathering ? GATHER_MS : POLL_MS;
    while (dr_mail_take(&w->to_io, &note, wait_ms)) {
        handle(w, &note);
        wait_ms = 0;
    }
}

/* --- stopping --- */

/* No more jobs are taken; those that run get worker.drain_ms. */
static void begin_drain(dr_worker *w)
{
    w->stop_at_s = dr_now_s() + (double)w->conf->worker.drain_ms / 1000;
    dr_gauge_set(w->metrics, DR_GAUGE_DRAINING, 1);
    dr_log(DR_INFO, "worker.drain", "jobs=%d drain_ms=%lld",
           DR_SLOTS - dr_slot_count(w, DR_SLOT_FREE), (long long)w->conf->worker.drain_ms);
}

static void look_at_signal(dr_worker *w)
{
    if ((w->stopping || w->device_failed) && !w->stop_at_s)
        begin_drain(w);
    if (!w->stop_at_s || dr_now_s() < w->stop_at_s)
        return;
    for (int i = 0; i < DR_SLOTS; i++) {
        dr_slot *s = &w->slots[i];
        if (s->state == DR_SLOT_RUNNING)
            s->give_up = true;
        else if (s->state != DR_SLOT_FREE && w->redis_down)
            dr_fail(
                &w->failure, DR_EIO,
                "job %s: Redis did not come back within worker.drain_ms = %lld; it runs "
                "again after its lease",
                s->job->id, (long long)w->conf->worker.drain_ms);
    }
}

static void use_redis(dr_worker *w)
{
    dr_slot *s;
    if (!w->named && dr_io_ready(w))
        dr_name_settle(w);
    dr_claim_work(w);
    if (dr_io_ready(w) && (s = find_ended(w)) && dr_finish_slot(w, s))
        dr_slot_clear(w, s);
    dr_gauge_set(w->metrics, DR_GAUGE_BUSY, DR_SLOTS - dr_slot_count(w, DR_SLOT_FREE));
}

void *dr_io_main(void *ctx)
{
    dr_worker *w = ctx;
    while (!w->failure.code) {
        look_at_signal(w);
        use_redis(w);
        dr_metrics_alive(w->metrics, DR_THREAD_IO, IO_ALIVE_S);
        if (dr_slots_empty(w) && !w->engine_busy && (w->stop_at_s || !w->jobs_left))
            break;
        wait_for_more(w);
    }
    if (w->device_failed && !w->failure.code)
        dr_fail(&w->failure, DR_EDEVICE,
                "the device failed; a fresh process may find it well again");
    for (int i = 0; i < DR_SLOTS; i++)
        w->slots[i].give_up = true;
    dr_metrics_alive(w->metrics, DR_THREAD_IO, 0);
    dr_mail_close(&w->to_engine);
    return NULL;
}
