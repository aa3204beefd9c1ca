#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "image/encode.h"
#include "job/events.h"
#include "job/msgpack.h"

#include <string.h>

/* Events that do not end a job. An event is tried once (and again at once, because the
 * connection may have died while nothing was said); what Redis does not take is dropped,
 * except that pictures are kept, announced as soon as it is back and before any later
 * event, with the sequence number of the first try: then one that had arrived, though its
 * reply was lost, is not announced twice. */

dr_event_head dr_publish_head(const dr_worker *w, dr_slot *s)
{
    return (dr_event_head){ .id = s->job->id,
                            .seq = ++s->seq,
                            .worker = w->name,
                            .ts_ms = dr_wall_ms(),
                            .meta_json = s->job->meta_json };
}

const dr_buf *dr_publish_form(dr_worker *w, const dr_slot *s, const dr_buf *text)
{
    dr_err err = { 0 };
    if (!s->job->events_msgpack)
        return text;
    dr_buf_clear(&w->packed);
    dr_status st =
        dr_msgpack_from_json(&w->packed, text->data, text->len, w->scratch, &err);
    dr_arena_reset(w->scratch);
    return st ? text : &w->packed;
}

/* Send w->text. Statuses as of dr_queue_event; sets s->lost. */
static dr_status send(dr_worker *w, dr_slot *s, int64_t seq, const dr_blob *blob)
{
    dr_err err = { 0 };
    dr_answer answer = DR_ANSWER_OK;
    dr_status st = DR_EIO;
    if (w->text.failed)
        return DR_ENOMEM;
    const dr_buf *form = dr_publish_form(w, s, &w->text);
    for (int i = 0; i < 2 && st == DR_EIO; i++)
        st = dr_queue_event(w->jobs, &s->claim.hold, seq, form->data, form->len, blob,
                            &answer, &err);
    dr_io_redis(w, st, &err);
    if (st && st != DR_EIO)
        w->event_at_s = dr_now_s() + DR_REFUSED_S;
    if (!st)
        dr_count(w->metrics, DR_COUNT_EVENTS, 1);
    if (!st && answer == DR_ANSWER_LOST)
        s->lost = true;
    if (!st && answer == DR_ANSWER_CANCEL)
        s->canceled = true;
    return st;
}

/* Whether an event that may be dropped should be tried. */
static bool may_send(dr_worker *w, dr_slot *s)
{
    return !s->lost && dr_io_ready(w) && dr_now_s() >= w->event_at_s &&
           dr_publish_images(w, s);
}

static void send_or_drop(dr_worker *w, dr_slot *s, const dr_blob *blob)
{
    if (!send(w, s, s->seq, blob))
        return;
    dr_count(w->metrics, DR_COUNT_EVENTS_DROPPED, 1);
    dr_log(DR_DEBUG, "event.dropped", "id=%s seq=%lld", s->job->id, (long long)s->seq);
}

void dr_publish_started(dr_worker *w, dr_slot *s)
{
    const dr_event_start e = { .model = dr_models_name(w->models, s->model),
                               .device = w->device,
                               .width = s->plan.width,
                               .height = s->plan.height,
                               .n = s->plan.n,
                               .attempt = s->start.attempt };
    dr_log(DR_INFO, "job.start",
           "id=%s model=%s width=%lld height=%lld steps=%lld n=%lld seed=%llu attempt=%lld "
           "crashes=%lld wait_ms=%lld band_rows=%lld",
           s->job->id, dr_models_name(w->models, s->model), (long long)s->plan.width,
           (long long)s->plan.height, (long long)s->plan.steps, (long long)s->plan.n,
           (unsigned long long)s->plan.seed, (long long)s->start.attempt,
           (long long)s->start.crashes, (long long)s->claim.wait_ms,
           (long long)s->plan.band_rows);
    if (!may_send(w, s))
        return;
    const dr_event_head head = dr_publish_head(w, s);
    dr_event_started(&w->text, &head, &e);
    send_or_drop(w, s, NULL);
}

static void publish_step(dr_worker *w, dr_slot *s, const dr_event_step *e)
{
    if (!may_send(w, s))
        return;
    const dr_event_head head = dr_publish_head(w, s);
    dr_event_progress(&w->text, &head, e);
    send_or_drop(w, s, NULL);
}

void dr_publish_progress(dr_worker *w, dr_slot *s, const dr_note *note)
{
    const dr_event_step e = { .phase = dr_phase_name((dr_phase)note->progress.phase),
                              .step = note->progress.step,
                              .steps = note->progress.steps,
                              .percent = note->progress.percent,
                              .it_s = note->progress.it_s,
                              .eta_s = note->progress.eta_s };
    s->progress_busy = false;
    publish_step(w, s, &e);
}

void dr_publish_warning(dr_worker *w, dr_slot *s, int index)
{
    if (!may_send(w, s))
        return;
    const dr_event_head head = dr_publish_head(w, s);
    dr_event_warning(&w->text, &head, s->job->warnings[index]);
    send_or_drop(w, s, NULL);
}

void dr_publish_preview(dr_worker *w, dr_slot *s)
{
    const dr_image_opts o = { .format = DR_FORMAT_WEBP,
                              .quality = s->job->output.quality,
                              .effort = DR_WEBP_PREVIEW_EFFORT };
    const dr_event_peek e = { .step = s->preview.step,
                              .width = s->preview.width,
                              .height = s->preview.height };
    dr_err err = { 0 };
    if (may_send(w, s) && !dr_image_encode(s->preview.rgb, s->preview.width,
                                           s->preview.height, &o, &w->webp, &err)) {
        const dr_event_head head = dr_publish_head(w, s);
        const dr_blob blob = { .index = -1, .bytes = w->webp.data, .n = w->webp.len };
        dr_event_preview(&w->text, &head, &e);
        send_or_drop(w, s, &blob);
    }
    s->preview_busy = false;
}

/* --- pictures --- */

dr_event_picture dr_publish_picture(const dr_worker *w, const dr_slot *s, int index,
                                    char key[DR_KEY_MAX])
{
    const dr_slot_image *im = &s->images[index];
    return (dr_event_picture){
        .index = index,
        .seed = im->seed,
        .width = im->width,
        .height = im->height,
        .bytes = (int64_t)im->webp.len,
        .format = dr_image_format_of(s->job->output.format)->name,
        .key = dr_queue_result_key(w->jobs, s->job->id, index, key),
        .sheet = index == s->plan.n,
    };
}

static void announce(dr_worker *w, dr_slot *s, int index)
{
    char key[DR_KEY_MAX];
    dr_slot_image *im = &s->images[index];
    dr_event_head head = dr_publish_head(w, s);
    if (im->seq)
        head.seq = s->seq = im->seq;
    im->seq = head.seq;
    const dr_blob blob = { .index = index, .bytes = im->webp.data, .n = im->webp.len };
    const dr_event_picture e = dr_publish_picture(w, s, index, key);
    dr_event_image(&w->text, &head, &e);
    /* Refused (its memory is full): finish carries the bytes. */
    im->announced = send(w, s, im->seq, &blob) != DR_EIO;
}

bool dr_publish_images(dr_worker *w, dr_slot *s)
{
    for (int i = 0; i < s->n_compressed; i++) {
        dr_slot_image *im = &s->images[i];
        if (im->announced || s->lost || s->webp_err.code)
            continue;
        if (!dr_io_ready(w))
            return false;
        announce(w, s, i);
        if (!im->announced)
            return false;
    }
    return true;
}

void dr_publish_image(dr_worker *w, dr_slot *s, int index)
{
    dr_slot_image *im = &s->images[index];
    const dr_image_opts o = dr_image_output(s->job, im->parameters);
    double from_s = dr_now_s();
    if (index == s->plan.pictures - 1) {
        const dr_event_step e = { .phase = dr_phase_name(DR_PHASE_COMPRESS),
                                  .step = s->steps,
                                  .steps = s->steps,
                                  .percent = 100 };
        publish_step(w, s, &e);
    }
    if (!s->lost && !s->webp_err.code)
        s->webp_err.code =
            dr_image_encode(im->rgb, im->width, im->height, &o, &im->webp, &s->webp_err);
    dr_free(im->rgb);
    im->rgb = NULL;
    s->compress_s += dr_now_s() - from_s;
    s->n_compressed = index + 1;
    dr_publish_images(w, s);
}
