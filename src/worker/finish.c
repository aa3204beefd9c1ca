#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"
#include "job/events.h"

/* How a slot's job ends: stored and told (exactly one terminal event, by finish.lua),
 * handed back, or forgotten because it is another worker's now. Pictures stay in memory
 * until Redis has them. */

#define REFUSALS_MAX 10 /* of one ending by an error of Redis' own, a second apart */

static int64_t to_ms(double seconds)
{
    return (int64_t)(seconds * 1000 + 0.5);
}

static dr_event_head ending_head(const dr_worker *w, dr_slot *s)
{
    return (dr_event_head){ .id = s->job->id,
                            .seq = ++s->seq,
                            .worker = w->name,
                            .ts_ms = dr_wall_ms(),
                            .meta_json = s->job->meta_json };
}

static void write_success(dr_worker *w, dr_slot *s)
{
    char keys[DR_IMAGES_MAX][DR_KEY_MAX];
    dr_event_picture pictures[DR_IMAGES_MAX];
    const dr_event_head head = ending_head(w, s);
    for (int i = 0; i < s->n_images; i++)
        pictures[i] = (dr_event_picture){
            .index = i,
            .seed = s->images[i].seed,
            .width = s->images[i].width,
            .height = s->images[i].height,
            .bytes = (int64_t)s->images[i].webp.len,
            .key = dr_queue_result_key(w->jobs, s->job->id, i, keys[i]),
        };
    const dr_event_success e = {
        .model = w->model_name,
        .sampler = s->plan.sampler,
        .schedule = s->plan.schedule,
        .steps = s->plan.steps,
        .cfg_scale = s->plan.cfg_scale,
        .width = s->plan.width,
        .height = s->plan.height,
        .seed = s->plan.seed,
        .images = pictures,
        .n_images = s->n_images,
        .times = { .wait = s->claim.wait_ms,
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

static void write_failure(dr_worker *w, dr_slot *s)
{
    const dr_event_head head = ending_head(w, s);
    const dr_event_failure e = { .code = dr_status_name(s->err.code),
                                 .field = s->err.field,
                                 .message = s->err.message };
    dr_event_failed(&s->ending, &head, &e);
}

static void log_ending(dr_worker *w, dr_slot *s)
{
    char quoted[1024];
    size_t bytes = 0;
    if (s->err.code) {
        w->failed++;
        dr_log(DR_WARN, "job.failed", "id=%s code=%s field=%s message=%s", s->job->id,
               dr_status_name(s->err.code), *s->err.field ? s->err.field : "-",
               dr_log_quote(quoted, sizeof quoted, s->err.message));
        return;
    }
    w->done++;
    for (int i = 0; i < s->n_images; i++)
        bytes += s->images[i].webp.len;
    dr_log(DR_INFO, "job.done",
           "id=%s model=%s steps=%lld images=%d bytes=%zu ms=%lld encode_ms=%lld "
           "denoise_ms=%lld decode_ms=%lld compress_ms=%lld",
           s->job->id, w->model_name, (long long)s->plan.steps, s->n_images, bytes,
           (long long)to_ms(dr_now_s() - s->claimed_s), (long long)to_ms(s->stats.encode),
           (long long)to_ms(s->stats.denoise), (long long)to_ms(s->stats.decode),
           (long long)to_ms(s->compress_s));
}

static bool lost(const dr_slot *s)
{
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

static bool release(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    dr_answer answer = DR_ANSWER_OK;
    dr_status st = dr_queue_release(w->jobs, &s->claim.hold, &answer, &err);
    dr_io_redis(w, st, &err);
    if (st)
        return refused(s, st);
    if (answer != DR_ANSWER_OK)
        return lost(s);
    dr_log(DR_INFO, "job.released", "id=%s step=%lld", s->job->id, (long long)s->step);
    return true;
}

/* One call of finish.lua; again at once when the connection had died meanwhile, or with the
 * pictures when Redis lacks one. */
static dr_status call_finish(dr_worker *w, dr_slot *s, dr_answer *answer, dr_err *err)
{
    dr_blob results[DR_IMAGES_MAX];
    bool ok = !s->err.code;
    const dr_buf *form = dr_publish_form(w, s, &s->ending);
    dr_status st = DR_EIO;
    for (int i = 0; ok && i < s->n_images; i++)
        results[i] = (dr_blob){ .index = i,
                                .bytes = s->images[i].webp.data,
                                .n = s->images[i].webp.len };
    for (int i = 0; i < 3; i++) {
        const dr_ending e = { .state = ok ? "succeeded" : "failed",
                              .text = form->data,
                              .n = form->len,
                              .seq = s->seq,
                              .code = ok ? "" : dr_status_name(s->err.code),
                              .message = s->err.message,
                              .dead = "",
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

bool dr_finish_slot(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    dr_answer answer = DR_ANSWER_LOST;
    if (s->lost)
        return lost(s);
    if (s->err.code == DR_ESTOPPED && s->give_up)
        return release(w, s);
    if (!s->err.code)
        s->err = s->webp_err;
    if (!s->err.code && !dr_publish_images(w, s))
        return false;
    if (s->lost)
        return lost(s);
    if (!s->ending.len) {
        if (s->err.code)
            write_failure(w, s);
        else
            write_success(w, s);
        if (s->ending.failed) {
            dr_buf_clear(&s->ending);
            return refused(s, DR_ENOMEM);
        }
    }
    dr_status st = call_finish(w, s, &answer, &err);
    dr_io_redis(w, st, &err);
    if (st)
        return refused(s, st);
    if (answer == DR_ANSWER_MISSING) /* found out by the last try: now with the bytes */
        return false;
    if (answer != DR_ANSWER_OK && answer != DR_ANSWER_ALREADY)
        return lost(s);
    log_ending(w, s);
    return true;
}
