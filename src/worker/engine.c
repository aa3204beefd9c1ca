#include "worker/state.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

/* The engine thread: from a decoded job to RGB pictures in memory. It never waits for
 * Redis: what must be told (start, pictures, end) fits into the queue of notes for both
 * slots together, and what may be dropped is put only when the last of its kind was taken.
 */

#define PROGRESS_S 0.1 /* least time between two, but for the first and the last */

typedef struct {
    dr_worker *w;
    dr_slot *s;
    dr_err *err; /* of a callback; ends the run */
} run;

static void tell(run *r, dr_note_kind kind, int index)
{
    dr_mail_put(&r->w->to_io, &(dr_note){ .kind = kind, .slot = r->s, .index = index });
}

static dr_stop is_stopped(void *ctx)
{
    const run *r = ctx;
    return r->err->code || r->s->lost || r->s->give_up ? DR_STOP : DR_GO_ON;
}

static void on_progress(void *ctx, const dr_progress *p)
{
    run *r = ctx;
    dr_slot *s = r->s;
    double now_s = dr_now_s();
    bool first = !s->progress_begun;
    bool last = p->phase == DR_PHASE_DENOISE && p->step == p->steps;
    s->step = p->step;
    s->steps = p->steps;
    if (!first && !last && (now_s - s->progress_at_s < PROGRESS_S || s->progress_busy))
        return;
    s->progress_begun = true;
    s->progress_at_s = now_s;
    s->progress_busy = true;
    dr_mail_put(&r->w->to_io, &(dr_note){ .kind = DR_NOTE_PROGRESS,
                                          .slot = s,
                                          .progress = { .phase = p->phase,
                                                        .step = p->step,
                                                        .steps = p->steps,
                                                        .percent = p->percent,
                                                        .it_s = p->it_s,
                                                        .eta_s = p->eta_s } });
}

/* Room for a preview, made before the steps, where nothing is allocated. */
static void reserve_preview(dr_slot *s)
{
    int64_t longest = s->plan.width > s->plan.height ? s->plan.width : s->plan.height;
    int64_t side = s->job->preview.size ? s->job->preview.size : (longest + 7) / 8;
    size_t bytes = (size_t)(side * side) * 3;
    if (!s->job->preview.every || bytes <= s->preview.size)
        return;
    dr_free(s->preview.rgb);
    s->preview.rgb = dr_alloc(bytes);
    s->preview.size = s->preview.rgb ? bytes : 0;
}

static void on_preview(void *ctx, int64_t step, const dr_picture *pic)
{
    run *r = ctx;
    dr_slot *s = r->s;
    size_t bytes = (size_t)(pic->width * pic->height) * 3;
    if (s->preview_busy || bytes > s->preview.size)
        return;
    memcpy(s->preview.rgb, pic->rgb, bytes);
    s->preview.step = step;
    s->preview.width = pic->width;
    s->preview.height = pic->height;
    s->preview_busy = true;
    tell(r, DR_NOTE_PREVIEW, 0);
}

/* The text that goes into the file, in the job's arena; NULL: none wanted. */
static const char *parameters_of(run *r, int64_t index)
{
    dr_buf text = { 0 };
    if (!r->s->job->output.metadata)
        return NULL;
    dr_parameters_text(&text, r->w->model, r->s->job, &r->s->plan, index);
    const char *copy =
        text.failed || !text.data ? NULL : dr_arena_str(r->s->mem, text.data, text.len);
    dr_buf_free(&text);
    return copy;
}

static void on_image(void *ctx, int64_t index, uint64_t seed, const dr_picture *pic)
{
    run *r = ctx;
    dr_slot *s = r->s;
    size_t bytes = (size_t)(pic->width * pic->height) * 3;
    if (index != s->n_images || index >= DR_IMAGES_MAX) {
        dr_fail(r->err, DR_EDEVICE, "picture %lld came out of turn", (long long)index);
        return;
    }
    uint8_t *rgb = dr_alloc(bytes);
    if (!rgb) {
        dr_fail(r->err, DR_ENOMEM, "out of memory: %zu bytes for a picture", bytes);
        return;
    }
    memcpy(rgb, pic->rgb, bytes);
    s->images[index] = (dr_slot_image){ .rgb = rgb,
                                        .width = pic->width,
                                        .height = pic->height,
                                        .seed = seed,
                                        .parameters = parameters_of(r, index) };
    s->n_images++;
    tell(r, DR_NOTE_IMAGE, (int)index);
}

static void on_warning(void *ctx, const char *text)
{
    run *r = ctx;
    dr_job *job = r->s->job;
    if (job->n_warnings == DR_WARNINGS_MAX)
        return;
    const char *copy = dr_arena_str(r->s->mem, text, strlen(text));
    if (!copy)
        return;
    job->warnings[job->n_warnings++] = copy;
    tell(r, DR_NOTE_WARNING, job->n_warnings - 1);
}

static dr_status check_model(const dr_worker *w, const dr_job *job, dr_err *err)
{
    if (!job->model || !strcmp(job->model, w->model_name))
        return DR_OK;
    return dr_fail_field(err, DR_ENOTFOUND, "model",
                         "model %s: not on this worker, which has %s", job->model,
                         w->model_name);
}

static dr_status run_slot(run *r, dr_err *err)
{
    dr_slot *s = r->s;
    const dr_observer observer = { .ctx = r,
                                   .stopped = is_stopped,
                                   .progress = on_progress,
                                   .preview = on_preview,
                                   .image = on_image,
                                   .warning = on_warning };
    dr_status st = check_model(r->w, s->job, err);
    if (!st)
        st = dr_plan_make(&s->plan, r->w->model, s->job, err);
    if (st)
        return st;
    reserve_preview(s);
    tell(r, DR_NOTE_STARTED, 0);
    for (int i = 0; i < s->job->n_warnings; i++)
        tell(r, DR_NOTE_WARNING, i);
    st = dr_pipeline_run(r->w->model, s->job, &s->plan, &observer, &s->stats, err);
    if (r->err->code) {
        *err = *r->err;
        return err->code;
    }
    if (!st && s->n_images != s->plan.n)
        st = dr_fail(err, DR_EDEVICE, "%d of %lld pictures were made", s->n_images,
                     (long long)s->plan.n);
    return st;
}

void dr_engine_loop(dr_worker *w)
{
    dr_note note;
    while (dr_mail_take(&w->to_engine, &note, -1)) {
        dr_err failure = { 0 };
        run r = { .w = w, .s = note.slot, .err = &failure };
        dr_err err = { 0 };
        err.code = run_slot(&r, &err);
        note.slot->err = err;
        tell(&r, DR_NOTE_DONE, 0);
    }
}
