#include "queue/handle.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const class_names[DR_CLASSES] = {
    [DR_PRIORITY_HIGH] = "high",
    [DR_PRIORITY_NORMAL] = "normal",
    [DR_PRIORITY_LOW] = "low",
};

/* --- the handle --- */

/* Text that becomes part of keys: printable ASCII without blanks. */
static dr_status check_name(const char *field, const char *text, dr_err *err)
{
    size_t n = strlen(text);
    bool ok = n <= DR_NAME_MAX;
    for (size_t i = 0; ok && i < n; i++)
        ok = text[i] > ' ' && text[i] < 0x7f;
    if (ok)
        return DR_OK;
    return dr_fail_field(err, DR_EINVAL, field,
                         "%s: must be at most %d printable ASCII characters without blanks",
                         field, DR_NAME_MAX);
}

dr_status dr_queue_open(dr_queue **out, const dr_conf *conf, const char *worker,
                        dr_err *err)
{
    dr_status st = check_name("queue.prefix", conf->queue.prefix, err);
    if (!st)
        st = check_name("worker.name", worker, err);
    if (st)
        return st;
    dr_queue *q = dr_alloc(sizeof *q);
    if (!q)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    st = dr_redis_new(&q->redis, conf->redis.url, conf->redis.timeout_ms, err);
    if (st) {
        dr_free(q);
        return st;
    }
    snprintf(q->prefix, sizeof q->prefix, "%s", conf->queue.prefix);
    snprintf(q->worker, sizeof q->worker, "%s", worker);
    q->lease_ms = conf->lease.ms;
    q->block_ms = conf->queue.block_ms;
    q->ttl_s = conf->result.ttl_s;
    q->events_maxlen = conf->queue.events_maxlen;
    q->publish_max = conf->result.publish_max;
    *out = q;
    return DR_OK;
}

void dr_queue_close(dr_queue *q)
{
    if (q)
        dr_redis_free(q->redis);
    dr_free(q);
}

dr_redis *dr_queue_redis(dr_queue *q)
{
    return q->redis;
}

/* --- keys --- */

void dr_queue_put_stream(const dr_queue *q, dr_cmd *c, dr_priority class)
{
    dr_cmd_printf(c, "%s:q:%s", q->prefix, class_names[class]);
}

void dr_queue_put_streams(const dr_queue *q, dr_cmd *c)
{
    for (int i = 0; i < DR_CLASSES; i++)
        dr_queue_put_stream(q, c, (dr_priority)i);
}

void dr_queue_put_job_key(const dr_queue *q, dr_cmd *c, const char *kind, const char *id)
{
    dr_cmd_printf(c, "%s:%s:%s", q->prefix, kind, id);
}

void dr_queue_put_channels(const dr_queue *q, dr_cmd *c, const char *id)
{
    dr_queue_put_job_key(q, c, "progress", id);
    dr_cmd_printf(c, "%s:progress", q->prefix);
}

const char *dr_queue_result_key(const dr_queue *q, const char *id, int index,
                                char buf[DR_KEY_MAX])
{
    snprintf(buf, DR_KEY_MAX, "%s:result:%s:%d", q->prefix, id, index);
    return buf;
}

/* --- taking jobs --- */

static dr_status make_groups(dr_queue *q, dr_err *err)
{
    dr_err local = { 0 }, *e = err ? err : &local;
    for (int i = 0; i < DR_CLASSES; i++) {
        dr_cmd c = { 0 };
        dr_cmd_words(&c, "XGROUP", "CREATE");
        dr_queue_put_stream(q, &c, (dr_priority)i);
        dr_cmd_words(&c, DR_QUEUE_GROUP, "0", "MKSTREAM");
        dr_status st = dr_redis_call(q->redis, &c, 0, NULL, e);
        if (st && !(st == DR_EREDIS && dr_redis_says(e, "BUSYGROUP")))
            return st;
    }
    return DR_OK;
}

/* Seconds since the server started; 0 when it does not say (INFO may be forbidden). */
static dr_status ask_uptime(dr_queue *q, int64_t *seconds, dr_err *err)
{
    static const char label[] = "uptime_in_seconds:";
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_cmd_words(&c, "INFO", "server");
    dr_status st = dr_redis_call(q->redis, &c, 0, &reply, err);
    const char *at = strstr(dr_reply_text(reply, NULL), label);
    *seconds = at ? strtoll(at + sizeof label - 1, NULL, 10) : 0;
    dr_reply_free(reply);
    return st == DR_EREDIS ? DR_OK : st;
}

/* The age of an entry includes the time a server was down: after a restart, every running
 * job looks abandoned. So other workers get one lease to renew theirs. */
static dr_status note_connection(dr_queue *q, dr_err *err)
{
    int64_t uptime_s = 0;
    dr_status st = dr_redis_connect(q->redis, err);
    if (st || q->connection == dr_redis_connections(q->redis))
        return st;
    if ((st = ask_uptime(q, &uptime_s, err)))
        return st;
    q->connection = dr_redis_connections(q->redis);
    q->sweep_at_s = dr_now_s() + (double)q->lease_ms / 1000 - (double)uptime_s;
    return DR_OK;
}

static void read_claim(dr_queue *q, dr_reply *reply, dr_claim *out)
{
    const char *kind = dr_reply_text(dr_reply_at(reply, 0), NULL);
    if (strcmp(kind, "job")) {
        for (int i = 0; i < DR_CLASSES; i++)
            snprintf(q->last[i], sizeof q->last[i], "%s",
                     dr_reply_text(dr_reply_at(reply, (size_t)i + 1), NULL));
        dr_reply_free(reply);
        return;
    }
    out->reply = reply;
    out->hold.class = (dr_priority)(dr_reply_int(dr_reply_at(reply, 1)) - 1);
    out->hold.entry = dr_reply_text(dr_reply_at(reply, 2), NULL);
    out->hold.fence = dr_reply_int(dr_reply_at(reply, 3));
    out->wait_ms = dr_reply_int(dr_reply_at(reply, 4));
    out->crashes = dr_reply_int(dr_reply_at(reply, 5));
    out->n_fields = (int)(dr_reply_count(dr_reply_at(reply, 6)) / 2);
}

dr_status dr_queue_claim(dr_queue *q, dr_claim *out, dr_err *err)
{
    dr_err local = { 0 }, *e = err ? err : &local;
    dr_status st = DR_OK;
    *out = (dr_claim){ 0 };
    for (int attempt = 0; attempt < 2; attempt++) {
        dr_cmd c = { 0 };
        dr_reply *reply = NULL;
        if ((st = note_connection(q, e)))
            return st;
        dr_script_begin(&c, DR_CLASSES + 1);
        dr_queue_put_streams(q, &c);
        dr_cmd_printf(&c, "%s:fence", q->prefix);
        dr_cmd_words(&c, DR_QUEUE_GROUP, q->worker);
        dr_cmd_int(&c, dr_now_s() < q->sweep_at_s ? 0 : q->lease_ms);
        st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_CLAIM, &c, &reply, e);
        if (!st)
            read_claim(q, reply, out);
        if (st != DR_EREDIS || !dr_redis_says(e, "NOGROUP"))
            break;
        if ((st = make_groups(q, e)))
            return st;
    }
    return st;
}

void dr_claim_free(dr_claim *c)
{
    dr_reply_free(c->reply);
    *c = (dr_claim){ 0 };
}

void dr_claim_field(const dr_claim *c, int i, const char **name, const char **value,
                    size_t *n)
{
    const dr_reply *fields = dr_reply_at(c->reply, 6);
    *name = dr_reply_text(dr_reply_at(fields, (size_t)i * 2), NULL);
    *value = dr_reply_text(dr_reply_at(fields, (size_t)i * 2 + 1), n);
}

dr_status dr_queue_wait(dr_queue *q, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_words(&c, "XREAD", "COUNT", "1", "BLOCK");
    dr_cmd_int(&c, q->block_ms);
    dr_cmd_str(&c, "STREAMS");
    dr_queue_put_streams(q, &c);
    for (int i = 0; i < DR_CLASSES; i++)
        dr_cmd_str(&c, *q->last[i] ? q->last[i] : "$");
    return dr_redis_call(q->redis, &c, q->block_ms, NULL, err);
}

/* --- holding a job --- */

static dr_answer read_answer(const dr_reply *reply)
{
    static const struct {
        const char *text;
        dr_answer answer;
    } rows[] = {
        { "ok", DR_ANSWER_OK },           { "run", DR_ANSWER_OK },
        { "already", DR_ANSWER_ALREADY }, { "lost", DR_ANSWER_LOST },
        { "stale", DR_ANSWER_LOST },      { "gone", DR_ANSWER_GONE },
        { "missing", DR_ANSWER_MISSING },
    };
    const dr_reply *word =
        dr_reply_type(reply) == DR_REPLY_ARRAY ? dr_reply_at(reply, 0) : reply;
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(dr_reply_text(word, NULL), rows[i].text))
            return rows[i].answer;
    return DR_ANSWER_LOST;
}

/* Run a script that answers with a word. */
static dr_status call_answer(dr_queue *q, dr_script_id id, dr_cmd *c, dr_answer *answer,
                             dr_err *err)
{
    dr_reply *reply = NULL;
    dr_status st = dr_script_call(&q->scripts, q->redis, id, c, &reply, err);
    if (!st)
        *answer = read_answer(reply);
    dr_reply_free(reply);
    return st;
}

/* group, worker, entry, fence: how scripts are told who calls about what. */
static void put_hold(const dr_queue *q, dr_cmd *c, const dr_hold *h)
{
    dr_cmd_words(c, DR_QUEUE_GROUP, q->worker, h->entry);
    dr_cmd_int(c, h->fence);
}

dr_status dr_queue_start(dr_queue *q, const dr_hold *h, int64_t crashes, dr_answer *answer,
                         int64_t *attempt, int64_t *seq, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_script_begin(&c, DR_CLASSES + 1);
    dr_queue_put_streams(q, &c);
    dr_queue_put_job_key(q, &c, "job", h->id);
    dr_cmd_words(&c, DR_QUEUE_GROUP, q->worker);
    dr_cmd_int(&c, h->class + 1);
    dr_cmd_str(&c, h->entry);
    dr_cmd_int(&c, h->fence);
    dr_cmd_int(&c, crashes);
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_START, &c, &reply, err);
    if (!st) {
        *answer = read_answer(reply);
        *attempt = dr_reply_int(dr_reply_at(reply, 1));
        *seq = dr_reply_int(dr_reply_at(reply, 2));
    }
    dr_reply_free(reply);
    return st;
}

dr_status dr_queue_renew(dr_queue *q, const dr_hold *h, dr_answer *answer, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, 2);
    dr_queue_put_stream(q, &c, h->class);
    dr_queue_put_job_key(q, &c, "job", h->id);
    put_hold(q, &c, h);
    return call_answer(q, DR_SCRIPT_RENEW, &c, answer, err);
}

dr_status dr_queue_release(dr_queue *q, const dr_hold *h, dr_answer *answer, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, 2);
    dr_queue_put_stream(q, &c, h->class);
    dr_queue_put_job_key(q, &c, "job", h->id);
    put_hold(q, &c, h);
    return call_answer(q, DR_SCRIPT_RELEASE, &c, answer, err);
}

dr_status dr_queue_event(dr_queue *q, const dr_hold *h, int64_t seq, const char *text,
                         size_t n, const dr_blob *blob, dr_answer *answer, dr_err *err)
{
    char key[DR_KEY_MAX];
    bool stored = blob && blob->index >= 0;
    dr_cmd c = { 0 };
    dr_script_begin(&c, stored ? 3 : 2);
    dr_queue_put_job_key(q, &c, "job", h->id);
    dr_queue_put_job_key(q, &c, "events", h->id);
    if (stored)
        dr_cmd_str(&c, dr_queue_result_key(q, h->id, blob->index, key));
    dr_cmd_str(&c, q->worker);
    dr_cmd_int(&c, h->fence);
    dr_cmd_int(&c, seq);
    dr_cmd_int(&c, q->ttl_s);
    dr_cmd_int(&c, q->events_maxlen);
    dr_cmd_bytes(&c, text, n);
    dr_queue_put_channels(q, &c, h->id);
    if (blob && blob->n <= (size_t)q->publish_max)
        dr_queue_put_job_key(q, &c, stored ? "image" : "preview", h->id);
    else
        dr_cmd_str(&c, "");
    if (blob)
        dr_cmd_bytes(&c, blob->bytes, blob->n);
    return call_answer(q, DR_SCRIPT_EVENT, &c, answer, err);
}

dr_status dr_queue_finish(dr_queue *q, const dr_hold *h, const dr_ending *e,
                          dr_answer *answer, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, 3 + e->n_results);
    dr_queue_put_stream(q, &c, h->class);
    dr_queue_put_job_key(q, &c, "job", h->id);
    dr_queue_put_job_key(q, &c, "events", h->id);
    for (int i = 0; i < e->n_results; i++)
        dr_cmd_printf(&c, "%s:result:%s:%d", q->prefix, h->id, e->results[i].index);
    put_hold(q, &c, h);
    dr_cmd_str(&c, e->state);
    dr_cmd_int(&c, e->held_ms);
    dr_cmd_int(&c, q->ttl_s);
    dr_cmd_int(&c, q->events_maxlen);
    dr_cmd_bytes(&c, e->text, e->n);
    dr_queue_put_channels(q, &c, h->id);
    dr_cmd_str(&c, e->message);
    for (int i = 0; e->with_bytes && i < e->n_results; i++)
        dr_cmd_bytes(&c, e->results[i].bytes, e->results[i].n);
    return call_answer(q, DR_SCRIPT_FINISH, &c, answer, err);
}

/* --- the registry --- */

dr_status dr_queue_beat(dr_queue *q, int64_t ttl_ms, const char *const *pairs, int n,
                        dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, 2);
    dr_cmd_printf(&c, "%s:workers", q->prefix);
    dr_queue_put_job_key(q, &c, "worker", q->worker);
    dr_cmd_str(&c, q->worker);
    dr_cmd_int(&c, ttl_ms);
    for (int i = 0; i < n; i++)
        dr_cmd_str(&c, pairs[i]);
    return dr_script_call(&q->scripts, q->redis, DR_SCRIPT_BEAT, &c, NULL, err);
}

dr_status dr_queue_bye(dr_queue *q, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, DR_CLASSES + 2);
    dr_queue_put_streams(q, &c);
    dr_cmd_printf(&c, "%s:workers", q->prefix);
    dr_queue_put_job_key(q, &c, "worker", q->worker);
    dr_cmd_words(&c, DR_QUEUE_GROUP, q->worker);
    return dr_script_call(&q->scripts, q->redis, DR_SCRIPT_BYE, &c, NULL, err);
}
