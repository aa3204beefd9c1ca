#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"
#include "job/decode.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* From the queue into a batch: claim the head of the line, decode it, see whether this
 * worker is the one for it, bind it to its id, add waiting jobs that may share its forward
 * passes, send them to the engine. Every step may be cut short by Redis and is taken up
 * again at the next call. */

#define PEEK_COUNT    32    /* waiting jobs of each class that are looked at for a batch */
#define PEEK_BYTES    65536 /* of one of them */
#define REFUSAL_S     30.0  /* that a job which cannot be served here is left to others */
#define BATCH_AGE_MS  100   /* a job that waits so long finds no idle worker: batch it */
#define CRASH_DECODES 1     /* crashes above the limit after which it is not even decoded */

/* --- decoding --- */

/* *job or, when memory is out, NULL; what is wrong with it is in err. */
static void decode(dr_worker *w, const dr_claim *c, dr_arena *mem, dr_job **job,
                   dr_err *err)
{
    const dr_job_defaults defaults = { .quality = w->conf->output.quality,
                                       .preview_every = w->conf->output.preview_every };
    dr_field *fields = dr_arena_alloc(mem, (size_t)c->n_fields * sizeof *fields + 1);
    char own_id[DR_ENTRY_NAME_MAX];
    int n = c->n_fields;
    *job = NULL;
    if (!fields)
        return;
    /* If decoding it is what kills workers, its entry's id is all that is left of it. */
    if (c->crashes >= w->conf->retry.crashes_max + CRASH_DECODES)
        n = 0;
    for (int i = 0; i < n; i++)
        dr_claim_field(c, i, &fields[i].name, &fields[i].value, &fields[i].len);
    dr_entry_job_id(own_id, c->hold.class, c->hold.entry);
    err->code = dr_job_decode(job, mem, own_id, fields, n, &defaults, err);
}

/* Take over a claim; false: out of memory. */
static bool fill_slot(dr_worker *w, dr_slot *s, const dr_claim *c)
{
    s->claim = *c;
    s->claimed_s = dr_now_s();
    decode(w, &s->claim, s->mem, &s->job, &s->err);
    if (s->job) {
        s->claim.hold.id = s->job->id;
        s->state = DR_SLOT_CLAIMED;
        dr_count(w->metrics, DR_COUNT_CLAIMS, 1);
        if (c->crashes)
            dr_count(w->metrics, DR_COUNT_RECOVERED, 1);
        return true;
    }
    dr_log(DR_ERROR, "job.memory", "entry=%s: out of memory", s->claim.hold.entry);
    dr_slot_clear(w, s);
    w->claim_at_s = dr_now_s() + DR_REFUSED_S;
    return false;
}

/* --- claiming the head of the line --- */

bool dr_claim_wanted(dr_worker *w)
{
    return w->named && !w->stop_at_s && w->jobs_left && dr_now_s() >= w->claim_at_s &&
           !w->engine_busy && !w->batch.n && !dr_slot_find(w, DR_SLOT_CLAIMED) &&
           dr_slot_find(w, DR_SLOT_FREE);
}

/* What a claim must leave alone: what we hold, and what we handed back a moment ago. */
static int list_left(dr_worker *w, char held[DR_SLOTS][DR_ENTRY_NAME_MAX],
                     const char *names[DR_LEAVE_MAX])
{
    int n = 0;
    for (int i = 0; i < DR_SLOTS; i++) {
        if (w->slots[i].state == DR_SLOT_FREE)
            continue;
        dr_entry_name(held[i], &w->slots[i].claim.hold);
        names[n++] = held[i];
    }
    for (int i = 0; i < DR_REFUSALS_MAX; i++)
        if (w->refusals[i].until_s > dr_now_s())
            names[n++] = w->refusals[i].name;
    return n;
}

/* After a call that takes jobs: whether one may be ours without our knowing. */
static void note_taking(dr_worker *w, dr_status st, const dr_err *err)
{
    dr_io_redis(w, st, err);
    if (st == DR_EIO && w->own == DR_OWN_NONE)
        w->own = DR_OWN_UNHEARD;
    else if (st && st != DR_EIO)
        w->claim_at_s = dr_now_s() + DR_REFUSED_S;
}

static void claim_next(dr_worker *w)
{
    static_assert(DR_SLOTS + DR_REFUSALS_MAX <= DR_LEAVE_MAX, "all must fit into a claim");
    char held[DR_SLOTS][DR_ENTRY_NAME_MAX];
    const char *names[DR_LEAVE_MAX];
    dr_err err = { 0 };
    dr_claim c;
    int n = list_left(w, held, names);
    dr_status st = dr_queue_claim(w->jobs, w->own, names, n, &c, &err);
    note_taking(w, st, &err);
    w->idle = !st && !c.reply;
    if (!st && !c.reply)
        w->own = DR_OWN_NONE; /* all of them are found */
    if (!st && c.reply)
        fill_slot(w, dr_slot_find(w, DR_SLOT_FREE), &c);
}

/* --- is it for this worker? --- */

static void refuse(dr_worker *w, dr_slot *s)
{
    dr_refusal *r = &w->refusals[w->next_refusal++ % DR_REFUSALS_MAX];
    dr_entry_name(r->name, &s->claim.hold);
    r->until_s = dr_now_s() + REFUSAL_S;
}

/* Hand back a job that is not bound. False: Redis is not there. */
static bool hand_back(dr_worker *w, dr_slot *s, const char *why)
{
    dr_err err = { 0 };
    dr_answer answer;
    dr_status st = dr_queue_release(w->jobs, &s->claim.hold, &answer, &err);
    dr_io_redis(w, st, &err);
    if (st == DR_EIO)
        return false;
    dr_count(w->metrics, DR_COUNT_RELEASED, 1);
    dr_log(DR_INFO, "job.passed", "id=%s reason=%s", s->job->id, why);
    dr_slot_clear(w, s);
    return true;
}

/* A model that is not here: another worker's job, or nobody's. */
static void pass_on(dr_worker *w, dr_slot *s)
{
    dr_buf names = { 0 };
    dr_err err = { 0 };
    bool served = false;
    dr_status st = dr_queue_fleet_models(w->jobs, s->job->model, &served, &names, &err);
    dr_io_redis(w, st, &err);
    if (!st && served) {
        refuse(w, s);
        (void)!hand_back(w, s, "model");
    } else if (!st) {
        s->model = -1;
        s->err.code = dr_fail_field(&s->err, DR_ENOTFOUND, "model",
                                    "model %s: no worker has it; there are %s",
                                    s->job->model, names.data ? names.data : "none");
    }
    dr_buf_free(&names);
}

static bool any_resident(dr_worker *w)
{
    for (int i = 0; i < dr_models_count(w->models); i++)
        if (dr_models_resident(w->models, i))
            return true;
    return false;
}

/* --- waiting jobs --- */

typedef bool choose(dr_worker *w, const dr_job *job, int model);

typedef struct {
    dr_priority class;
    char entry[DR_ENTRY_NAME_MAX];
} waiting;

/* Whether a waiting entry is for this worker and `wanted` by the caller. */
static bool is_wanted(dr_worker *w, const dr_claim *item, choose *wanted)
{
    dr_err bad = { 0 };
    dr_job *job;
    decode(w, item, w->scratch, &job, &bad);
    int model = job && !bad.code ? dr_models_find(w->models, job->model) : -1;
    bool yes = model >= 0 && !job->delay_ms && wanted(w, job, model);
    dr_arena_reset(w->scratch);
    return yes;
}

/* The first waiting job, min_age_ms old, that is wanted; false: none. */
static bool find_waiting(dr_worker *w, choose *wanted, int64_t min_age_ms, waiting *out)
{
    dr_err err = { 0 };
    dr_reply *peeked = NULL;
    dr_claim item;
    bool found = false;
    dr_status st =
        dr_queue_peek(w->jobs, PEEK_COUNT, PEEK_BYTES, min_age_ms, &peeked, &err);
    dr_io_redis(w, st, &err);
    for (size_t i = 0; !found && dr_peek_at(peeked, i, &item); i++) {
        found = is_wanted(w, &item, wanted);
        out->class = item.hold.class;
        snprintf(out->entry, sizeof out->entry, "%s", item.hold.entry);
    }
    dr_reply_free(peeked);
    return found;
}

/* NULL: somebody was faster, or Redis is not there. A lost reply is asked for again at
 * once: the job would be ours, unknown and without a lease, until the engine is done. */
static dr_slot *take(dr_worker *w, const waiting *which)
{
    dr_err err = { 0 };
    dr_claim c;
    dr_slot *s = dr_slot_find(w, DR_SLOT_FREE);
    dr_status st = DR_EIO;
    for (int i = 0; i < 2 && st == DR_EIO; i++) {
        st = dr_queue_take(w->jobs, which->class, which->entry, &c, &err);
        note_taking(w, st, &err);
    }
    return !st && c.reply && fill_slot(w, s, &c) ? s : NULL;
}

static bool is_resident(dr_worker *w, const dr_job *job, int model)
{
    (void)job;
    return dr_models_resident(w->models, model);
}

/* A model that must be loaded first: a waiting job whose model is loaded goes before it,
 * for a while. True: s was handed back, or cannot be just now. */
static bool prefer_resident(dr_worker *w, dr_slot *s)
{
    waiting other;
    if (w->batch.n || s->claim.crashes || dr_models_resident(w->models, s->model) ||
        s->claim.wait_ms >= w->conf->model.affinity_ms || !any_resident(w) ||
        !find_waiting(w, is_resident, 0, &other))
        return false;
    if (hand_back(w, s, "affinity"))
        (void)!take(w, &other);
    return true;
}

/* --- binding --- */

static bool is_poison(const dr_worker *w, const dr_slot *s)
{
    return s->start.answer == DR_ANSWER_OK &&
           s->start.crashes >= w->conf->retry.crashes_max;
}

/* The ending of a job that start.lua or its crashes do not let run. */
static void refuse_start(dr_worker *w, dr_slot *s)
{
    const dr_start *start = &s->start;
    s->state = DR_SLOT_ENDED;
    s->canceled = start->answer == DR_ANSWER_CANCEL;
    if (start->answer == DR_ANSWER_DUPLICATE) {
        s->code = "duplicate";
        s->err.code = dr_fail_field(&s->err, DR_EINVAL, "unique",
                                    "unique %s: job %s has this key and has not ended",
                                    s->job->unique, start->holder);
    } else if (is_poison(w, s)) {
        s->code = "poison";
        s->err.code = dr_fail(&s->err, DR_EDEVICE,
                              "%lld workers died while they held it, the last was %s; "
                              "`darkroom dead retry` lets it run again",
                              (long long)start->crashes,
                              *start->last_worker ? start->last_worker : "not known");
    }
}

static void set_deadline(dr_worker *w, dr_slot *s)
{
    int64_t ms = s->job->timeout_ms ? s->job->timeout_ms : w->conf->worker.timeout_ms;
    s->deadline_s = ms ? dr_now_s() + (double)ms / 1000 : 0;
}

static void add_to_batch(dr_worker *w, dr_slot *s)
{
    if (!w->batch.n)
        w->gather_until_s = dr_now_s() + (double)w->conf->batch.wait_ms / 1000;
    w->batch.slots[w->batch.n++] = s;
    w->batch.images += s->job->n;
    s->state = DR_SLOT_BOUND;
    set_deadline(w, s);
}

static void bound(dr_worker *w, dr_slot *s)
{
    const dr_start *start = &s->start;
    if (w->jobs_left > 0)
        w->jobs_left--;
    dr_slot_lease(w, s, &s->claim.hold);
    dr_time(w->metrics, DR_TIME_WAIT, (double)s->claim.wait_ms / 1000);
    if (s->job->seed_is_random)
        s->job->seed = start->seed; /* the same picture at every attempt */
    if (start->answer != DR_ANSWER_OK || is_poison(w, s))
        refuse_start(w, s);
    else if (s->err.code)
        s->state = DR_SLOT_ENDED;
    else
        add_to_batch(w, s);
}

static void log_skipped(const dr_slot *s, dr_status st)
{
    const char *why = st                                     ? "refused"
                      : s->start.answer == DR_ANSWER_ALREADY ? "already"
                      : s->start.answer == DR_ANSWER_DELAYED ? "delayed"
                                                             : "lost";
    dr_log(DR_INFO, "job.skipped", "id=%s entry=%s reason=%s", s->job->id,
           s->claim.hold.entry, why);
}

static void start_claimed(dr_worker *w, dr_slot *s)
{
    const dr_start_ask ask = { .crashes = s->claim.crashes,
                               .ttl_ms = s->job->ttl_ms,
                               .delay_ms = s->job->delay_ms,
                               .seed = s->job->seed,
                               .unique = s->job->unique };
    dr_err err = { 0 };
    if (!s->err.code) {
        s->model = dr_models_find(w->models, s->job->model);
        if (s->model < 0) {
            pass_on(w, s);
            if (s->state == DR_SLOT_FREE || !s->err.code)
                return;
        } else if (prefer_resident(w, s)) {
            return;
        }
    }
    dr_status st = dr_queue_start(w->jobs, &s->claim.hold, &ask, &s->start, &err);
    dr_io_redis(w, st, &err);
    if (st == DR_EIO)
        return;
    s->seq = s->start.seq;
    switch (st ? DR_ANSWER_LOST : s->start.answer) {
    case DR_ANSWER_OK:
    case DR_ANSWER_CANCEL:
    case DR_ANSWER_EXPIRED:
    case DR_ANSWER_DUPLICATE:
        bound(w, s);
        break;
    default:
        log_skipped(s, st);
        dr_slot_clear(w, s);
    }
}

/* --- the batch --- */

/* Where the job may go on from, if an earlier worker left that. */
static bool read_checkpoint(dr_worker *w, dr_slot *s)
{
    dr_err err = { 0 };
    dr_status st = dr_queue_checkpoint_get(w->jobs, s->job->id, &s->resume, &err);
    dr_io_redis(w, st, &err);
    if (!st && dr_reply_type(s->resume) != DR_REPLY_TEXT) {
        dr_reply_free(s->resume);
        s->resume = NULL;
    }
    if (s->resume)
        dr_count(w->metrics, DR_COUNT_RESUMED, 1);
    return st != DR_EIO;
}

static bool fits_batch(dr_worker *w, const dr_job *job, int model)
{
    const dr_slot *first = w->batch.slots[0];
    return model == first->model && w->batch.images + job->n <= w->batch_max &&
           dr_jobs_batch(first->job, job);
}

static bool is_full(const dr_worker *w)
{
    return w->batch.images >= w->batch_max || w->batch.n == DR_BATCH_MAX || w->stop_at_s ||
           !w->jobs_left;
}

/* Waiting jobs that fit, one after the other. A job that has only just come is left to
 * idle workers, unless the batch is meant to wait for more. */
static void gather(dr_worker *w)
{
    int64_t age_ms = w->conf->batch.wait_ms ? 0 : BATCH_AGE_MS;
    waiting next;
    while (!is_full(w) && !dr_slot_find(w, DR_SLOT_CLAIMED) && dr_io_ready(w) &&
           find_waiting(w, fits_batch, age_ms, &next)) {
        dr_slot *s = take(w, &next);
        if (s)
            start_claimed(w, s);
    }
}

static void send_batch(dr_worker *w)
{
    for (int i = 0; i < w->batch.n; i++)
        w->batch.slots[i]->state = DR_SLOT_RUNNING;
    if (w->batch.n > 1) {
        dr_count(w->metrics, DR_COUNT_BATCHES, 1);
        dr_count(w->metrics, DR_COUNT_BATCHED_JOBS, w->batch.n);
    }
    w->engine_busy = true;
    dr_mail_put(&w->to_engine, &(dr_note){ .kind = DR_NOTE_BATCH });
}

/* Read what the batch's jobs name by keys; those with bad pictures leave it. False: Redis
 * is not there, or nothing is left. */
static bool fetch_pictures(dr_worker *w)
{
    int to = 0;
    bool there = true;
    for (int i = 0; i < w->batch.n; i++) {
        dr_slot *s = w->batch.slots[i];
        there = there && dr_inputs_fetch(w, s);
        if (!s->err.code) {
            w->batch.slots[to++] = s;
            continue;
        }
        w->batch.images -= s->job->n;
        s->state = DR_SLOT_ENDED;
    }
    w->batch.n = to;
    return there && to;
}

static void fill_batch(dr_worker *w)
{
    if (!fetch_pictures(w))
        return;
    dr_slot *first = w->batch.slots[0];
    if (first->start.attempt > 1 && !first->resume && w->conf->checkpoint.max_mb &&
        !read_checkpoint(w, first))
        return;
    if (!first->resume)
        gather(w);
    if (dr_slot_find(w, DR_SLOT_CLAIMED))
        return; /* Redis went away: it joins this batch, or nobody would ever run it */
    if (!fetch_pictures(w))
        return;
    if (is_full(w) || first->resume || dr_now_s() >= w->gather_until_s)
        send_batch(w);
}

bool dr_claim_busy(dr_worker *w)
{
    return dr_claim_wanted(w) || dr_slot_find(w, DR_SLOT_CLAIMED) ||
           (w->batch.n && !w->engine_busy);
}

void dr_claim_work(dr_worker *w)
{
    dr_slot *s;
    if (dr_io_ready(w) && dr_claim_wanted(w))
        claim_next(w);
    if (dr_io_ready(w) && (s = dr_slot_find(w, DR_SLOT_CLAIMED)))
        start_claimed(w, s);
    if (dr_io_ready(w) && w->batch.n && !w->engine_busy &&
        !dr_slot_find(w, DR_SLOT_CLAIMED))
        fill_batch(w);
}
