#include "queue/admin.h"

#include "queue/handle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Append the key P:control, where workers listen. */
static void put_bell(const dr_queue *q, dr_cmd *c)
{
    dr_queue_put_key(q, c, "control");
}

/* Append what ends a job's events: ttl, maxlen, the text, its channels. */
static void put_event(const dr_queue *q, dr_cmd *c, const char *id, const char *text,
                      size_t n)
{
    dr_cmd_int(c, q->ttl_s);
    dr_cmd_int(c, q->events_maxlen);
    dr_cmd_bytes(c, text, n);
    dr_queue_put_channels(q, c, id);
}

static const char *word_at(const dr_reply *reply, size_t i)
{
    return dr_reply_text(dr_reply_at(reply, i), NULL);
}

/* --- canceling --- */

#define SEARCH_PAGE  100
#define CANCEL_TRIES 8 /* of a job that moves while it is looked at */

/* Where a job stands in the queue. */
typedef struct {
    dr_priority class;
    char entry[64];            /* "": nowhere */
    int64_t seq;               /* of its last event */
    const char *text, *unique; /* of the reader */
    size_t n;
} place;

typedef struct {
    dr_queue *q;
    const char *id;
    const dr_cancel_reader *reader;
    bool woken;
} search;

/* An entry by its id, or the SEARCH_PAGE ones behind `from`. */
static dr_status read_entries(dr_queue *q, dr_priority class, const char *from, bool one,
                              dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_str(&c, "XRANGE");
    dr_queue_put_stream(q, &c, class);
    if (one)
        dr_cmd_words(&c, from, from);
    else
        dr_cmd_printf(&c, "%s%s", *from == '-' ? "" : "(", from);
    if (!one) {
        dr_cmd_words(&c, "+", "COUNT");
        dr_cmd_int(&c, SEARCH_PAGE);
    }
    return dr_redis_call(q->redis, &c, 0, out, err);
}

/* Whether an entry is the job; then *p says so. row NULL: an entry that is gone. */
static bool is_here(const search *s, const dr_reply *row, dr_priority class, place *p)
{
    const dr_reply *fields = row ? dr_reply_at(row, 1) : NULL;
    const char *entry = row ? word_at(row, 0) : p->entry;
    char own_id[DR_ENTRY_NAME_MAX];
    dr_entry_job_id(own_id, class, entry);
    if (!s->reader->read(s->reader->ctx, s->id, own_id, fields, p->seq + 1, &p->text, &p->n,
                         &p->unique))
        return false;
    p->class = class;
    if (row)
        snprintf(p->entry, sizeof p->entry, "%s", entry);
    return true;
}

/* Look through one stream; *found: p says where. */
static dr_status search_stream(const search *s, dr_priority class, place *p, bool *found,
                               dr_err *err)
{
    char from[64] = "-";
    size_t n = SEARCH_PAGE;
    dr_status st = DR_OK;
    while (!st && !*found && n == SEARCH_PAGE) {
        dr_reply *page = NULL;
        st = read_entries(s->q, class, from, false, &page, err);
        n = dr_reply_count(page);
        for (size_t i = 0; i < n && !*found; i++)
            *found = is_here(s, dr_reply_at(page, i), class, p);
        if (n)
            snprintf(from, sizeof from, "%s", word_at(dr_reply_at(page, n - 1), 0));
        dr_reply_free(page);
    }
    return st;
}

/* Whether text is an entry's id: 17-0. */
static bool is_entry(const char *text)
{
    size_t ms = strspn(text, "0123456789");
    size_t seq = text[ms] == '-' ? strspn(text + ms + 1, "0123456789") : 0;
    return ms && ms <= 20 && seq && seq <= 20 && !text[ms + 1 + seq];
}

/* If the id was made of an entry's (dr_entry_job_id): where that is. */
static bool split_id(const char *id, dr_priority *class, const char **entry)
{
    const char *dot = strchr(id, '.');
    char name[16];
    *class = DR_PRIORITY_NORMAL;
    *entry = dot ? dot + 1 : id;
    if (!is_entry(*entry))
        return false;
    if (!dot)
        return true;
    snprintf(name, sizeof name, "%.*s", (int)(dot - id), id);
    return dr_class_parse(name, class);
}

static dr_status look_up_entry(const search *s, place *p, bool *found, dr_err *err)
{
    dr_priority class;
    const char *entry;
    dr_reply *rows = NULL;
    if (!split_id(s->id, &class, &entry))
        return DR_OK;
    dr_status st = read_entries(s->q, class, entry, true, &rows, err);
    if (dr_reply_count(rows))
        *found = is_here(s, dr_reply_at(rows, 0), class, p);
    dr_reply_free(rows);
    return st;
}

/* A job without a state: one that was sent by XADD and has not started. */
static dr_status find_unknown(const search *s, place *p, dr_err *err)
{
    bool found = false;
    dr_status st = look_up_entry(s, p, &found, err);
    for (int i = 0; i < DR_CLASSES && !st && !found && !s->woken; i++)
        st = search_stream(s, (dr_priority)i, p, &found, err);
    return st;
}

/* A job that waits, by its state. The strings of `state` outlive p. */
static dr_status find_known(const search *s, const dr_reply *state, place *p, dr_err *err)
{
    const char *stream = word_at(state, 1), *colon = strrchr(stream, ':');
    dr_reply *rows = NULL;
    if (!colon || !dr_class_parse(colon + 1, &p->class))
        return dr_fail(err, DR_EREDIS, "job %s: its state names the stream \"%s\"", s->id,
                       stream);
    snprintf(p->entry, sizeof p->entry, "%s", word_at(state, 2));
    dr_status st = read_entries(s->q, p->class, p->entry, true, &rows, err);
    if (!st && !(dr_reply_count(rows) && is_here(s, dr_reply_at(rows, 0), p->class, p)) &&
        !is_here(s, NULL, p->class, p))
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    if (!p->unique && *word_at(state, 4))
        p->unique = word_at(state, 4);
    dr_reply_free(rows);
    return st;
}

static dr_status call_cancel(const search *s, const place *p, dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_queue *q = s->q;
    dr_script_begin(&c, 7);
    dr_queue_put_stream(q, &c, p->class);
    dr_queue_put_job_key(q, &c, "job", s->id);
    dr_queue_put_job_key(q, &c, "events", s->id);
    dr_queue_put_key(q, &c, "delayed");
    dr_queue_put_key(q, &c, "stats");
    dr_queue_put_job_key(q, &c, "checkpoint", s->id);
    dr_queue_put_job_key(q, &c, "unique", p->unique ? p->unique : "");
    dr_cmd_words(&c, DR_QUEUE_GROUP, s->id, p->entry);
    dr_cmd_int(&c, p->seq);
    put_event(q, &c, s->id, p->text ? p->text : "", p->n);
    if (s->woken)
        dr_cmd_str(&c, "");
    else
        put_bell(q, &c);
    return dr_script_call(&q->scripts, q->redis, DR_SCRIPT_CANCEL, &c, out, err);
}

/* False: look again. */
static bool read_cancel(const dr_reply *reply, dr_cancel_answer *out)
{
    static const struct {
        const char *text;
        dr_cancel_word word;
    } rows[] = {
        { "canceled", DR_CANCELED },
        { "asked", DR_CANCEL_ASKED },
        { "ended", DR_CANCEL_ENDED },
        { "unknown", DR_CANCEL_UNKNOWN },
    };
    const char *text = word_at(reply, 0), *detail = word_at(reply, 1);
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(text, rows[i].text)) {
            *out = (dr_cancel_answer){ .word = rows[i].word };
            if (out->word == DR_CANCEL_ENDED)
                snprintf(out->state, sizeof out->state, "%s", detail);
            if (out->word == DR_CANCEL_ASKED)
                snprintf(out->worker, sizeof out->worker, "%s", detail);
            return true;
        }
    return false;
}

/* Find the job and cancel it there; *done false: it has moved in between. */
static dr_status cancel_once(const search *s, dr_cancel_answer *out, bool *done,
                             dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *state = NULL, *reply = NULL;
    place p = { .class = DR_PRIORITY_NORMAL };
    dr_cmd_str(&c, "HMGET");
    dr_queue_put_job_key(s->q, &c, "job", s->id);
    dr_cmd_words(&c, "state", "stream", "entry", "seq", "unique");
    dr_status st = dr_redis_call(s->q->redis, &c, 0, &state, err);
    if (st)
        return st;
    const char *is = word_at(state, 0);
    p.seq = dr_reply_int(dr_reply_at(state, 3));
    if (!*is)
        st = find_unknown(s, &p, err);
    else if (!strcmp(is, "queued") || !strcmp(is, "delayed"))
        st = find_known(s, state, &p, err);
    if (!st)
        st = call_cancel(s, &p, &reply, err);
    if (!st)
        *done = read_cancel(reply, out);
    dr_reply_free(reply);
    dr_reply_free(state);
    return st;
}

dr_status dr_queue_cancel(dr_queue *q, const char *id, const dr_cancel_reader *reader,
                          bool woken, dr_cancel_answer *out, dr_err *err)
{
    const search s = { .q = q, .id = id, .reader = reader, .woken = woken };
    dr_status st = DR_OK;
    bool done = false;
    for (int i = 0; i < CANCEL_TRIES && !st && !done; i++)
        st = cancel_once(&s, out, &done, err);
    if (!st && !done)
        st = dr_fail(err, DR_EREDIS,
                     "job %s moved %d times while it was looked at; cancel it again", id,
                     CANCEL_TRIES);
    return st;
}

/* --- pausing and draining --- */

dr_status dr_queue_pause(dr_queue *q, dr_priority class, bool paused, bool *changed,
                         dr_err *err)
{
    dr_cmd set = { 0 }, ring = { 0 };
    int64_t n;
    const char *name = dr_class_name(class);
    dr_cmd_str(&set, paused ? "SADD" : "SREM");
    dr_queue_put_key(q, &set, "paused");
    dr_cmd_str(&set, name);
    dr_status st = dr_queue_call_count(q, &set, &n, err);
    *changed = n == 1;
    if (st)
        return st;
    dr_cmd_str(&ring, "PUBLISH");
    put_bell(q, &ring);
    dr_cmd_printf(&ring, "%s %s", paused ? "pause" : "resume", name);
    return dr_redis_call(q->redis, &ring, 0, NULL, err);
}

dr_status dr_queue_drain(dr_queue *q, const char *worker, bool *known, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_script_begin(&c, 1);
    dr_queue_put_job_key(q, &c, "worker", worker);
    dr_cmd_str(&c, worker);
    put_bell(q, &c);
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_DRAIN, &c, &reply, err);
    *known = !strcmp(dr_reply_text(reply, NULL), "ok");
    dr_reply_free(reply);
    return st;
}

dr_status dr_queue_draining(dr_queue *q, const char *worker, bool *still, dr_err *err)
{
    dr_cmd c = { 0 };
    int64_t n;
    dr_cmd_str(&c, "HEXISTS");
    dr_queue_put_job_key(q, &c, "worker", worker);
    dr_cmd_str(&c, "drain");
    dr_status st = dr_queue_call_count(q, &c, &n, err);
    *still = n == 1;
    return st;
}
