#include "worker/state.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

/* The engine thread: from a decoded job to RGB pictures in memory. It never waits for
 * Redis: what must be told (start, pictures, end) fits into the queue of notes for all
 * slots together, and what may be dropped is put only when the last of its kind was taken.
 */

#define PROGRESS_S 0.1 /* least time between two, but for the first and the last */

typedef struct {
    dr_worker *w;
    dr_slot *s;
    dr_batch_task *task;
    dr_err err; /* of a callback; ends the run */
    double from_s;
    bool refused; /* by the plan: the job's own fault, also where it is too large */
    bool timed_out;
    dr_model *model;
    int64_t step; /* of the last progress; when it was */
    double step_at_s;
} run;

static void tell(run *r, dr_note_kind kind, int index)
{
    dr_mail_put(&r->w->to_io, &(dr_note){ .kind = kind, .slot = r->s, .index = index });
}

static dr_stop on_stopped(void *ctx)
{
    run *r = ctx;
    const dr_slot *s = r->s;
    r->w->pulse++;
    if (!r->timed_out && s->deadline_s && dr_now_s() > s->deadline_s)
        r->timed_out = true;
    if (r->err.code || s->lost || s->canceled || r->timed_out)
        return DR_STOP;
    if (s->give_up)
        return r->w->conf->checkpoint.max_mb ? DR_STOP_KEEP : DR_STOP;
    return DR_GO_ON;
}

/* How long steps take, for the registry and the metrics. */
static void measure_step(run *r, const dr_progress *p)
{
    double now_s = dr_now_s();
    if (p->phase == DR_PHASE_DENOISE && p->step == r->step + 1 && r->step_at_s) {
        r->s->s_step = now_s - r->step_at_s;
        dr_time(r->w->metrics, DR_TIME_STEP, now_s - r->step_at_s);
        dr_count(r->w->metrics, DR_COUNT_STEPS, 1);
    }
    r->step = p->step;
    r->step_at_s = now_s;
}

static void on_progress(void *ctx, const dr_progress *p)
{
    run *r = ctx;
    dr_slot *s = r->s;
    double now_s = dr_now_s();
    r->w->pulse++;
    measure_step(r, p);
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
    size_t bytes = (size_t)(s->plan.preview_side * s->plan.preview_side) * 3;
    if (bytes <= s->preview.size)
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
    dr_parameters_text(&text, r->model, r->s->job, &r->s->plan, index);
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
    if (index != s->n_images || index >= DR_PICTURES_MAX) {
        dr_fail(&r->err, DR_EDEVICE, "picture %lld came out of turn", (long long)index);
        return;
    }
    uint8_t *rgb = dr_alloc(bytes);
    if (!rgb) {
        dr_fail(&r->err, DR_ENOMEM, "out of memory: %zu bytes for a picture", bytes);
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

/* Kept for the next worker; one that is too large, or for which there is no memory, is not.
 */
static void on_checkpoint(void *ctx, const void *bytes, size_t n)
{
    run *r = ctx;
    if (n > (size_t)r->w->conf->checkpoint.max_mb << 20)
        return;
    dr_buf_put(&r->s->checkpoint, bytes, n);
    if (r->s->checkpoint.failed)
        dr_buf_free(&r->s->checkpoint);
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

/* --- a batch --- */

static void end_slot(run *r, const dr_err *err)
{
    dr_slot *s = r->s;
    s->err = r->err.code ? r->err : *err;
    s->stats = r->task->stats;
    if (!s->err.code && s->n_images != s->plan.pictures)
        s->err.code = dr_fail(&s->err, DR_EDEVICE, "%d of %lld pictures were made",
                              s->n_images, (long long)s->plan.pictures);
    s->passing = !r->refused && (s->err.code == DR_ENOMEM || s->err.code == DR_EDEVICE ||
                                 s->err.code == DR_EIO);
    if (s->err.code == DR_EDEVICE)
        r->w->device_failed = true;
    if (r->timed_out) {
        s->code = "timeout";
        dr_fail(&s->err, DR_ESTOPPED,
                "the run took longer than %lld ms (timeout_ms of the job or "
                "worker.timeout_ms)",
                (long long)((s->deadline_s - r->from_s) * 1000 + 0.5));
    }
    tell(r, DR_NOTE_DONE, 0);
}

static void on_done(void *ctx, const dr_err *err)
{
    end_slot(ctx, err);
}

static const dr_observer observer = { .stopped = on_stopped,
                                      .progress = on_progress,
                                      .preview = on_preview,
                                      .image = on_image,
                                      .warning = on_warning,
                                      .checkpoint = on_checkpoint,
                                      .done = on_done };

/* One batch of the worker. */
typedef struct {
    dr_worker *w;
    run runs[DR_BATCH_MAX];
    dr_observer observers[DR_BATCH_MAX];
    dr_batch_task tasks[DR_BATCH_MAX];
    int n;
} batch;

static void begin(batch *b, dr_worker *w)
{
    *b = (batch){ .w = w, .n = w->batch.n };
    for (int i = 0; i < b->n; i++) {
        dr_slot *s = w->batch.slots[i];
        b->runs[i] = (run){ .w = w, .s = s, .task = &b->tasks[i], .from_s = dr_now_s() };
        b->observers[i] = observer;
        b->observers[i].ctx = &b->runs[i];
        size_t bytes = 0;
        const char *resume = s->resume ? dr_reply_text(s->resume, &bytes) : NULL;
        b->tasks[i] = (dr_batch_task){
            .job = s->job, .obs = &b->observers[i], .resume = resume, .resume_bytes = bytes
        };
    }
}

/* Every job of the batch waits for the model. */
static void on_load(void *ctx, double share)
{
    batch *b = ctx;
    b->w->pulse++;
    for (int i = 0; i < b->n; i++) {
        const dr_progress p = { .phase = DR_PHASE_LOAD, .percent = 0 };
        if (share < 1)
            on_progress(&b->runs[i], &p);
    }
}

static dr_status load(batch *b, dr_model **m, dr_err *err)
{
    dr_worker *w = b->w;
    int index = b->runs[0].s->model;
    bool resident = dr_models_resident(w->models, index);
    double from_s = dr_now_s();
    dr_status st = dr_models_get(w->models, index, on_load, b, m, err);
    if (resident || st)
        return st;
    dr_count(w->metrics, DR_COUNT_MODEL_LOADS, 1);
    dr_time(w->metrics, DR_TIME_LOAD, dr_now_s() - from_s);
    for (int i = 0; i < b->n; i++)
        b->runs[i].s->load_s = dr_now_s() - from_s;
    return DR_OK;
}

static void plan(batch *b, dr_model *m)
{
    int fit = dr_batch_plan(m, b->tasks, b->n), good = 0;
    for (int i = 0; i < b->n; i++) {
        run *r = &b->runs[i];
        dr_err *err = &b->tasks[i].err;
        r->model = m;
        r->s->plan = b->tasks[i].plan;
        r->s->unwanted = !err->code && good++ >= fit;
        if (r->s->unwanted)
            dr_fail(err, DR_ESTOPPED, "does not fit the batch");
        r->refused = err->code != DR_OK;
        if (r->refused)
            continue;
        reserve_preview(r->s);
        tell(r, DR_NOTE_STARTED, 0);
        for (int k = 0; k < r->s->job->n_warnings; k++)
            tell(r, DR_NOTE_WARNING, k);
    }
}

static bool ran_out_of_memory(const batch *b)
{
    for (int i = 0; i < b->n; i++)
        if (!b->runs[i].refused && b->tasks[i].err.code == DR_ENOMEM)
            return true;
    return false;
}

static void run_batch(batch *b)
{
    dr_err err = { 0 };
    dr_model *m;
    if (load(b, &m, &err)) {
        for (int i = 0; i < b->n; i++)
            end_slot(&b->runs[i], &err);
        return;
    }
    plan(b, m);
    dr_batch_run(m, b->tasks, b->n);
    if (ran_out_of_memory(b))
        (void)!dr_models_make_room(b->w->models, b->runs[0].s->model);
}

void dr_engine_loop(dr_worker *w)
{
    dr_note note;
    batch b;
    while (dr_mail_take(&w->to_engine, &note, -1)) {
        begin(&b, w);
        run_batch(&b);
        w->pulse++;
        dr_mail_put(&w->to_io, &(dr_note){ .kind = DR_NOTE_IDLE });
    }
}
