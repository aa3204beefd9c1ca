#include "worker/state.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "job/events.h"

#include <stdio.h>
#include <string.h>

/* How a slot's job ends: stored and told (exactly one terminal event, by finish.lua),
 * handed back, or forgotten because it is another worker's now. Pictures stay in memory
 * until Redis has them. */

#define REFUSALS_MAX 10 /* of one ending by an error of Redis' own, a second apart */

static int64_t to_ms(double seconds)
{
    return (int64_t)(seconds * 1000 + 0.5);
}

static void write_success(dr_worker *w, dr_slot *s)
{
    char keys[DR_PICTURES_MAX][DR_KEY_MAX];
    dr_event_picture pictures[DR_PICTURES_MAX];
    dr_event_lora loras[DR_LORAS_MAX];
    const dr_event_head head = dr_publish_head(w, s);
    for (int i = 0; i < s->stats.n_loras; i++) {
        const dr_lora_use *l = &s->stats.loras[i];
        loras[i] = (dr_event_lora){ l->name, l->matched, l->unmatched };
    }
    for (int i = 0; i < s->n_images; i++)
        pictures[i] = dr_publish_picture(w, s, i, keys[i]);
    const dr_event_success e = {
        .model = dr_models_name(w->models, s->model),
        .sampler = s->plan.sampler,
        .schedule = s->plan.schedule,
        .steps = s->plan.steps,
        .cfg_scale = s->plan.cfg_scale,
        .width = s->plan.width,
        .height = s->plan.height,
        .seed = s->plan.seed,
        .images = pictures,
        .n_images = s->n_images,
        .loras = loras,
        .n_loras = s->stats.n_loras,
        .times = { .wait = s->claim.wait_ms,
                   .load = to_ms(s->load_s),
                   .encode = to_ms(s->stats.encode),
                   .denoise = to_ms(s->stats.denoise),
                   .decode = to_ms(s->stats.decode),
                   .compress = to_ms(s->compress_s),
                   .total = to_ms(dr_now_s() - s->claimed_s) },
        .warnings = s->job->warnings,
        .n_warnings = s->job->n_warnings,
    };
    dr_event_succeeded(&s->ending, &head, &e);
}

static const char *code_of(const dr_slot *s)
{
    return s->code ? s->code : dr_status_name(s->err.code);
}

static void write_failure(dr_worker *w, dr_slot *s)
{
    const dr_event_head head = dr_publish_head(w, s);
    const dr_event_failure e = { .code = code_of(s),
                                 .field = s->err.field,
                                 .message = s->err.message };
    dr_event_failed(&s->ending, &head, &e);
}

static void write_canceled(dr_worker *w, dr_slot *s)
{
    const dr_event_head head = dr_publish_head(w, s);
    dr_event_canceled(&s->ending, &head);
}

static void write_expired(dr_worker *w, dr_slot *s)
{
    const dr_event_head head = dr_publish_head(w, s);
    dr_event_expired(&s->ending, &head);
}

/* --- after it --- */

static void note_success(dr_worker *w, dr_slot *s)
{
    size_t bytes = 0;
    for (int i = 0; i < s->n_images; i++)
        bytes += s->images[i].webp.len;
    dr_count(w->metrics, DR_COUNT_IMAGES, s->n_images);
    dr_count(w->metrics, DR_COUNT_IMAGE_BYTES, (int64_t)bytes);
    dr_time(w->metrics, DR_TIME_ENCODE, s->stats.encode);
    dr_time(w->metrics, DR_TIME_DENOISE, s->stats.denoise);
    dr_time(w->metrics, DR_TIME_DECODE, s->stats.decode);
    dr_time(w->metrics, DR_TIME_COMPRESS, s->compress_s);
    dr_log(DR_INFO, "job.done",
           "id=%s model=%s steps=%lld images=%d bytes=%zu ms=%lld encode_ms=%lld "
           "denoise_ms=%lld decode_ms=%lld compress_ms=%lld",
           s->job->id, dr_models_name(w->models, s->model), (long long)s->plan.steps,
           s->n_images, bytes, (long long)to_ms(dr_now_s() - s->claimed_s),
           (long long)to_ms(s->stats.encode), (long long)to_ms(s->stats.denoise),
           (long long)to_ms(s->stats.decode), (long long)to_ms(s->compress_s));
}

static void note_failure(dr_worker *w, dr_slot *s)
{
    char quoted[1024];
    dr_count_failed(w->metrics, s->err.code);
    dr_log(DR_WARN, "job.failed", "id=%s code=%s field=%s message=%s", s->job->id,
           code_of(s), *s->err.field ? s->err.field : "-",
           dr_log_quote(quoted, sizeof quoted, s->err.message));
}

static void note_other(dr_worker *w, dr_slot *s)
{
    (void)w;
    dr_log(DR_INFO, s->canceled ? "job.canceled" : "job.expired", "id=%s step=%lld",
           s->job->id, (long long)s->step);
}

/* The ways to end a job for good. */
static const struct ending {
    const char *state;
    void (*write)(dr_worker *w, dr_slot *s);
    void (*note)(dr_worker *w, dr_slot *s);
    dr_counter counter; /* DR_COUNTERS: note counts */
} succeeded = { "succeeded", write_success, note_success, DR_COUNT_SUCCEEDED },
  failed = { "failed", write_failure, note_failure, DR_COUNTERS },
  canceled = { "canceled", write_canceled, note_other, DR_COUNT_CANCELED },
  expired = { "expired", write_expired, note_other, DR_COUNT_EXPIRED };

static const struct ending *ending_of(const dr_slot *s)
{
    if (s->canceled)
        return &canceled;
    if (s->start.answer == DR_ANSWER_EXPIRED)
        return &expired;
    return s->err.code ? &failed : &succeeded;
}

/* Why a failed job is put among the dead, "" when it is not: jobs that their client must
 * change are of no use there. */
static const char *death_of(const dr_slot *s, const struct ending *e)
{
    bool clients_fault = s->err.code == DR_EINVAL || s->err.code == DR_ENOTFOUND ||
                         (s->err.code == DR_ENOMEM && !s->passing);
    return e != &failed || clients_fault ? "" : code_of(s);
}

static bool lost(dr_worker *w, const dr_slot *s)
{
    dr_count(w->metrics, DR_COUNT_LEASE_LOST, 1);
    dr_log(DR_WARN, "job.lost", "id=%s fence=%lld: another worker has it", s->job->id,
           (long long)s->claim.hold.fence);
    return true;
}

/* After an error: true when there is no sense in trying for ever. */
static bool refused(dr_slot *s, dr_status st)
{
    if (st == DR_EIO)
        return false;
    s->finish_at_s = dr_now_s() + DR_REFUSED_S;
    if (++s->refusals < REFUSALS_MAX)
        return false;
    dr_log(DR_ERROR, "job.abandoned", "id=%s: it runs again after its lease", s->job->id);
    return true;
}

/* What a script answered that ends our hold of a job. */
typedef enum {
    HELD,     /* not now: try again */
    LET_GO,   /* as we wanted */
    ABANDONED /* another's, or Redis refuses it: nothing more can be done */
} letting;

static letting let_go(dr_worker *w, dr_slot *s, dr_status st, dr_answer answer,
                      const dr_err *err)
{
    dr_io_redis(w, st, err);
    if (st)
        return refused(s, st) ? ABANDONED : HELD;
    if (answer == DR_ANSWER_OK || answer == DR_ANSWER_ALREADY)
        return LET_GO;
    lost(w, s);
    return ABANDONED;
}

/* --- ours no more, but not over --- */

/* Store the checkpoint, if there is one. A full Redis may refuse it: then the next worker
 * begins anew. False: not now. */
static bool keep(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    if (s->kept || !s->checkpoint.len)
        return true;
    dr_status st = dr_queue_checkpoint_put(w->jobs, s->job->id, s->checkpoint.data,
                                           s->checkpoint.len, &err);
    dr_io_redis(w, st, &err);
    s->kept = st != DR_EIO;
    if (!st)
        dr_count(w->metrics, DR_COUNT_CHECKPOINTS, 1);
    return s->kept;
}

static bool release(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    dr_answer answer = DR_ANSWER_OK;
    if (!keep(w, s))
        return false;
    dr_status st = dr_queue_release(w->jobs, &s->claim.hold, &answer, &err);
    letting how = let_go(w, s, st, answer, &err);
    if (how != LET_GO)
        return how == ABANDONED;
    dr_count(w->metrics, DR_COUNT_RELEASED, 1);
    dr_log(DR_INFO, "job.released", "id=%s step=%lld checkpoint=%zu", s->job->id,
           (long long)s->step, s->checkpoint.len);
    return true;
}

/* Exponential, half of it random, so that jobs which failed together come back apart. */
static int64_t retry_delay(const dr_worker *w, const dr_slot *s)
{
    int64_t ms = w->conf->retry.base_ms, max = w->conf->retry.max_ms;
    for (int64_t i = 0; i < s->start.failures && ms < max; i++)
        ms *= 2;
    ms = ms < max ? ms : max;
    return ms / 2 + dr_jitter(ms - ms / 2 + 1);
}

static bool may_retry(const dr_slot *s)
{
    return s->err.code && s->passing && s->start.failures + 1 < s->job->max_attempts;
}

static bool retry(dr_worker *w, dr_slot *s)
{
    char text[sizeof s->err.message + 128];
    dr_err err = { 0 };
    dr_answer answer = DR_ANSWER_OK;
    int64_t delay_ms = retry_delay(w, s);
    if (!s->ending.len) {
        const dr_event_head head = dr_publish_head(w, s);
        snprintf(text, sizeof text, "attempt %lld failed (%s: %s); it is tried again",
                 (long long)s->start.attempt, code_of(s), s->err.message);
        dr_event_warning(&s->ending, &head, text);
    }
    const dr_buf *form = dr_publish_form(w, s, &s->ending);
    dr_status st = dr_queue_retry(w->jobs, &s->claim.hold, s->seq, delay_ms, s->err.message,
                                  form->data, form->len, &answer, &err);
    letting how = let_go(w, s, st, answer, &err);
    if (how != LET_GO)
        return how == ABANDONED;
    dr_count(w->metrics, DR_COUNT_RETRIED, 1);
    dr_count(w->metrics, DR_COUNT_EVENTS, 1);
    dr_log(DR_WARN, "job.retry", "id=%s attempt=%lld delay_ms=%lld code=%s", s->job->id,
           (long long)s->start.attempt, (long long)delay_ms, code_of(s));
    return true;
}

/* --- over --- */

/* One call of finish.lua; again at once when the connection had died meanwhile, or with the
 * pictures when Redis lacks one. */
static dr_status call_finish(dr_worker *w, dr_slot *s, const struct ending *end,
                             dr_answer *answer, dr_err *err)
{
    dr_blob results[DR_PICTURES_MAX];
    bool ok = end == &succeeded, bad = end == &failed;
    const dr_buf *form = dr_publish_form(w, s, &s->ending);
    dr_status st = DR_EIO;
    for (int i = 0; ok && i < s->n_images; i++)
        results[i] = (dr_blob){ .index = i,
                                .bytes = s->images[i].webp.data,
                                .n = s->images[i].webp.len };
    for (int i = 0; i < 3; i++) {
        const dr_ending e = { .state = end->state,
                              .text = form->data,
                              .n = form->len,
                              .seq = s->seq,
                              .code = bad ? code_of(s) : "",
                              .message = bad ? s->err.message : "",
                              .dead = death_of(s, end),
                              .unique = s->job->unique,
                              .held_ms = to_ms(dr_now_s() - s->claimed_s),
                              .results = results,
                              .n_results = ok ? s->n_images : 0,
                              .with_bytes = s->with_bytes };
        st = dr_queue_finish(w->jobs, &s->claim.hold, &e, answer, err);
        if (!st && *answer != DR_ANSWER_MISSING)
            break;
        s->with_bytes = s->with_bytes || !st;
    }
    return st;
}

static void note_end(dr_worker *w, dr_slot *s, const struct ending *end)
{
    if (end == &succeeded)
        w->done++;
    else if (end == &failed)
        w->failed++;
    if (s->code && !strcmp(s->code, "poison"))
        dr_count(w->metrics, DR_COUNT_POISON, 1);
    if (end->counter != DR_COUNTERS)
        dr_count(w->metrics, end->counter, 1);
    dr_count(w->metrics, DR_COUNT_EVENTS, 1);
    dr_time(w->metrics, DR_TIME_RUN, dr_now_s() - s->claimed_s);
    end->note(w, s);
}

static bool finish(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    dr_answer answer = DR_ANSWER_LOST;
    double from_s = dr_now_s();
    if (!s->ending.len) {
        s->end = ending_of(s);
        s->end->write(w, s);
        if (s->ending.failed) {
            dr_buf_clear(&s->ending);
            return refused(s, DR_ENOMEM);
        }
    }
    dr_status st = call_finish(w, s, s->end, &answer, &err);
    if (!st && answer == DR_ANSWER_MISSING) { /* by the last try: now with the bytes */
        dr_io_redis(w, st, &err);
        return false;
    }
    if (!st && answer == DR_ANSWER_LOST)
        dr_count(w->metrics, DR_COUNT_STALE_FINISH, 1);
    letting how = let_go(w, s, st, answer, &err);
    if (how == LET_GO) {
        dr_time(w->metrics, DR_TIME_FINISH, dr_now_s() - from_s);
        note_end(w, s, s->end);
    }
    return how != HELD;
}

bool dr_finish_slot(dr_worker *w, dr_slot *s)
{
    if (s->lost)
        return lost(w, s);
    if (!s->err.code)
        s->err = s->webp_err;
    if (s->canceled || s->code)
        return finish(w, s);
    if (s->unwanted || (s->err.code == DR_ESTOPPED && s->give_up))
        return release(w, s);
    if (may_retry(s))
        return retry(w, s);
    if (!s->err.code && !dr_publish_images(w, s))
        return false;
    return s->lost ? lost(w, s) : finish(w, s);
}
