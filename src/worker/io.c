#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/decode.h"

#include <stdio.h>
#include <string.h>

/* The I/O thread: drives each slot through claimed, running, ended. It never sleeps for
 * Redis' sake while the engine runs; after an error redis_at_s says when to try again. */

#define POLL_MS 100 /* between looks at the signal flag and at Redis' return */

bool dr_io_ready(const dr_worker *w)
{
    return !w->failure.code && dr_now_s() >= w->redis_at_s;
}

void dr_io_redis(dr_worker *w, dr_status st, const dr_err *err)
{
    char quoted[600];
    dr_redis *redis = dr_queue_redis(w->jobs);
    if (!st) {
        if (w->redis_down)
            dr_log(DR_INFO, "redis.up", "url=%s", dr_redis_endpoint(redis));
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
        w->redis_down = true;
        w->redis_at_s = dr_now_s() + (double)wait_ms / 1000;
        dr_log(DR_WARN, "redis.down", "retry_ms=%lld message=%s", (long long)wait_ms,
               quoted);
    } else {
        dr_log(DR_WARN, "redis.refused", "message=%s", quoted);
    }
}

/* --- slots --- */

static dr_slot *find_slot(dr_worker *w, dr_slot_state state)
{
    for (int i = 0; i < DR_SLOTS; i++)
        if (w->slots[i].state == state)
            return &w->slots[i];
    return NULL;
}

/* Tell the lease thread what to renew; NULL hold: nothing any more. */
static void set_lease(dr_worker *w, dr_slot *s, const dr_hold *h)
{
    pthread_mutex_lock(&w->lock);
    s->leased = h != NULL;
    s->lease_no++;
    if (h) {
        snprintf(s->lease_id, sizeof s->lease_id, "%s", h->id);
        snprintf(s->lease_entry, sizeof s->lease_entry, "%s", h->entry);
        s->lease_class = h->class;
        s->lease_fence = h->fence;
    }
    pthread_mutex_unlock(&w->lock);
}

/* Give up all that a job held; the slot is free. */
static void clear_slot(dr_worker *w, dr_slot *s)
{
    set_lease(w, s, NULL);
    for (int i = 0; i < DR_IMAGES_MAX; i++) {
        dr_free(s->images[i].rgb);
        dr_buf_free(&s->images[i].webp);
        s->images[i] = (dr_slot_image){ 0 };
    }
    dr_buf_free(&s->ending);
    dr_claim_free(&s->claim);
    dr_arena_reset(s->mem);
    s->job = NULL;
    s->with_bytes = s->progress_begun = false;
    s->attempt = s->seq = 0;
    s->n_images = s->n_compressed = s->refusals = 0;
    s->compress_s = s->progress_at_s = s->finish_at_s = 0;
    s->plan = (dr_plan){ 0 };
    s->stats = (dr_run_stats){ 0 };
    s->err = s->webp_err = (dr_err){ 0 };
    s->progress_busy = s->preview_busy = s->lost = s->give_up = false;
    s->step = s->steps = 0;
    s->state = DR_SLOT_FREE;
}

/* --- claiming --- */

/* s->job or, when memory is out, NULL; what is wrong with it is in s->err. */
static void decode(dr_worker *w, dr_slot *s)
{
    const dr_job_defaults defaults = { .quality = w->conf->output.quality,
                                       .preview_every = w->conf->output.preview_every };
    const dr_claim *c = &s->claim;
    dr_field *fields = dr_arena_alloc(s->mem, (size_t)c->n_fields * sizeof *fields + 1);
    if (!fields)
        return;
    for (int i = 0; i < c->n_fields; i++)
        dr_claim_field(c, i, &fields[i].name, &fields[i].value, &fields[i].len);
    s->err.code = dr_job_decode(&s->job, s->mem, c->hold.entry, fields, c->n_fields,
                                &defaults, &s->err);
    if (s->job)
        s->claim.hold.id = s->job->id;
}

static bool wants_job(dr_worker *w)
{
    return !w->stop_at_s && w->jobs_left && dr_now_s() >= w->claim_at_s &&
           !w->engine_busy && !find_slot(w, DR_SLOT_CLAIMED) && find_slot(w, DR_SLOT_FREE);
}

static void claim_next(dr_worker *w)
{
    dr_err err = { 0 };
    dr_slot *s = find_slot(w, DR_SLOT_FREE);
    dr_status st = dr_queue_claim(w->jobs, DR_OWN_NONE, NULL, 0, &s->claim, &err);
    dr_io_redis(w, st, &err);
    w->idle = !st && !s->claim.reply;
    if (st && st != DR_EIO)
        w->claim_at_s = dr_now_s() + DR_REFUSED_S;
    if (st || !s->claim.reply)
        return;
    s->claimed_s = dr_now_s();
    decode(w, s);
    if (!s->job) {
        dr_log(DR_ERROR, "job.memory", "entry=%s: out of memory", s->claim.hold.entry);
        clear_slot(w, s);
        w->claim_at_s = dr_now_s() + DR_REFUSED_S;
        return;
    }
    s->state = DR_SLOT_CLAIMED;
}

static void start_claimed(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    const dr_start_ask ask = { .crashes = s->claim.crashes,
                               .ttl_ms = s->job->ttl_ms,
                               .delay_ms = s->job->delay_ms,
                               .seed = s->job->seed,
                               .unique = s->job->unique };
    dr_start start = { .answer = DR_ANSWER_LOST };
    dr_status st = dr_queue_start(w->jobs, &s->claim.hold, &ask, &start, &err);
    dr_answer answer = start.answer;
    s->attempt = start.attempt;
    s->seq = start.seq;
    dr_io_redis(w, st, &err);
    if (st == DR_EIO)
        return;
    if (st || answer != DR_ANSWER_OK) {
        dr_log(DR_INFO, "job.skipped", "id=%s entry=%s reason=%s", s->job->id,
               s->claim.hold.entry,
               st                            ? "refused"
               : answer == DR_ANSWER_ALREADY ? "already"
                                             : "lost");
        clear_slot(w, s);
        return;
    }
    if (w->jobs_left > 0)
        w->jobs_left--;
    set_lease(w, s, &s->claim.hold);
    if (s->err.code) {
        s->state = DR_SLOT_ENDED;
        return;
    }
    s->state = DR_SLOT_RUNNING;
    w->engine_busy = true;
    dr_mail_put(&w->to_engine, &(dr_note){ .kind = DR_NOTE_JOB, .slot = s });
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
        w->engine_busy = false;
        break;
    case DR_NOTE_JOB:
        break;
    }
}

static bool is_empty(const dr_worker *w)
{
    for (int i = 0; i < DR_SLOTS; i++)
        if (w->slots[i].state != DR_SLOT_FREE)
            return false;
    return true;
}

static dr_slot *find_ended(dr_worker *w)
{
    for (int i = 0; i < DR_SLOTS; i++)
        if (w->slots[i].state == DR_SLOT_ENDED && dr_now_s() >= w->slots[i].finish_at_s)
            return &w->slots[i];
    return NULL;
}

/* Until something is to be done. Blocks in Redis only when the engine has nothing. */
static void wait_for_more(dr_worker *w)
{
    dr_note note;
    dr_err err = { 0 };
    bool ready = dr_io_ready(w);
    if (ready && w->idle && is_empty(w) && wants_job(w)) {
        dr_status st = dr_queue_wait(w->jobs, &err);
        dr_io_redis(w, st, &err);
        if (st && st != DR_EIO)
            w->claim_at_s = dr_now_s() + DR_REFUSED_S;
        return;
    }
    bool busy = ready && (wants_job(w) || find_slot(w, DR_SLOT_CLAIMED) || find_ended(w));
    int64_t wait_ms = busy ? 0 : POLL_MS;
    while (dr_mail_take(&w->to_io, &note, wait_ms)) {
        handle(w, &note);
        wait_ms = 0;
    }
}

/* --- stopping --- */

static void look_at_signal(dr_worker *w)
{
    if (!w->stopping)
        return;
    if (!w->stop_at_s) {
        w->stop_at_s = dr_now_s() + (double)w->conf->worker.drain_ms / 1000;
        dr_log(DR_INFO, "worker.drain", "jobs=%d drain_ms=%lld", is_empty(w) ? 0 : 1,
               (long long)w->conf->worker.drain_ms);
    }
    if (dr_now_s() < w->stop_at_s)
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
    if (dr_io_ready(w) && wants_job(w))
        claim_next(w);
    if (dr_io_ready(w) && (s = find_slot(w, DR_SLOT_CLAIMED)))
        start_claimed(w, s);
    if (dr_io_ready(w) && (s = find_ended(w)) && dr_finish_slot(w, s))
        clear_slot(w, s);
}

void *dr_io_main(void *ctx)
{
    dr_worker *w = ctx;
    while (!w->failure.code) {
        look_at_signal(w);
        use_redis(w);
        if (is_empty(w) && (w->stop_at_s || !w->jobs_left))
            break;
        wait_for_more(w);
    }
    for (int i = 0; i < DR_SLOTS; i++)
        w->slots[i].give_up = true;
    dr_mail_close(&w->to_engine);
    return NULL;
}
