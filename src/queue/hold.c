#include "queue/handle.h"

#include <stdio.h>
#include <stdlib.h>

/* What a worker says about a job that it holds. */

dr_status dr_queue_start(dr_queue *q, const dr_hold *h, const dr_start_ask *ask,
                         dr_start *out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    const char *unique = ask->unique ? ask->unique : "";
    *out = (dr_start){ .answer = DR_ANSWER_LOST };
    dr_script_begin(&c, DR_CLASSES + 3);
    dr_queue_put_streams(q, &c);
    dr_queue_put_key(q, &c, "delayed");
    dr_queue_put_job_key(q, &c, "unique", unique);
    dr_queue_put_job_key(q, &c, "job", h->id);
    dr_cmd_words(&c, DR_QUEUE_GROUP, q->worker);
    dr_cmd_int(&c, h->class + 1);
    dr_cmd_str(&c, h->entry);
    dr_cmd_int(&c, h->fence);
    dr_cmd_int(&c, ask->crashes);
    dr_cmd_str(&c, h->id);
    dr_cmd_int(&c, ask->ttl_ms);
    dr_cmd_int(&c, ask->delay_ms);
    dr_cmd_printf(&c, "%llu", (unsigned long long)ask->seed);
    dr_cmd_str(&c, unique);
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_START, &c, &reply, err);
    if (!st) {
        out->answer = dr_queue_read_answer(reply);
        out->attempt = dr_reply_int(dr_reply_at(reply, 1));
        out->seq = dr_reply_int(dr_reply_at(reply, 2));
        out->crashes = dr_reply_int(dr_reply_at(reply, 3));
        out->failures = dr_reply_int(dr_reply_at(reply, 4));
        out->seed = strtoull(dr_reply_text(dr_reply_at(reply, 5), NULL), NULL, 10);
        snprintf(out->holder, sizeof out->holder, "%s",
                 dr_reply_text(dr_reply_at(reply, 6), NULL));
        snprintf(out->last_worker, sizeof out->last_worker, "%s",
                 dr_reply_text(dr_reply_at(reply, 7), NULL));
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
    dr_queue_put_hold(q, &c, h);
    return dr_queue_call_answer(q, DR_SCRIPT_RENEW, &c, answer, err);
}

dr_status dr_queue_release(dr_queue *q, const dr_hold *h, dr_answer *answer, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, 3);
    dr_queue_put_stream(q, &c, h->class);
    dr_queue_put_job_key(q, &c, "job", h->id);
    dr_queue_put_key(q, &c, "stats");
    dr_queue_put_hold(q, &c, h);
    return dr_queue_call_answer(q, DR_SCRIPT_RELEASE, &c, answer, err);
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
    return dr_queue_call_answer(q, DR_SCRIPT_EVENT, &c, answer, err);
}

dr_status dr_queue_retry(dr_queue *q, const dr_hold *h, int64_t seq, int64_t delay_ms,
                         const char *message, const char *text, size_t n, dr_answer *answer,
                         dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, 5);
    dr_queue_put_stream(q, &c, h->class);
    dr_queue_put_job_key(q, &c, "job", h->id);
    dr_queue_put_job_key(q, &c, "events", h->id);
    dr_queue_put_key(q, &c, "delayed");
    dr_queue_put_key(q, &c, "stats");
    dr_queue_put_hold(q, &c, h);
    dr_cmd_int(&c, seq);
    dr_cmd_int(&c, delay_ms);
    dr_cmd_str(&c, message);
    dr_cmd_int(&c, q->ttl_s);
    dr_cmd_int(&c, q->events_maxlen);
    dr_cmd_bytes(&c, text, n);
    dr_queue_put_channels(q, &c, h->id);
    return dr_queue_call_answer(q, DR_SCRIPT_RETRY, &c, answer, err);
}

static void put_finish_keys(dr_queue *q, dr_cmd *c, const dr_hold *h, const dr_ending *e)
{
    dr_script_begin(c, 7 + e->n_results);
    dr_queue_put_stream(q, c, h->class);
    dr_queue_put_job_key(q, c, "job", h->id);
    dr_queue_put_job_key(q, c, "events", h->id);
    dr_queue_put_key(q, c, "stats");
    dr_queue_put_key(q, c, "dead");
    dr_queue_put_job_key(q, c, "checkpoint", h->id);
    dr_queue_put_job_key(q, c, "unique", e->unique ? e->unique : "");
    for (int i = 0; i < e->n_results; i++)
        dr_cmd_printf(c, "%s:result:%s:%d", q->prefix, h->id, e->results[i].index);
}

dr_status dr_queue_finish(dr_queue *q, const dr_hold *h, const dr_ending *e,
                          dr_answer *answer, dr_err *err)
{
    dr_cmd c = { 0 };
    put_finish_keys(q, &c, h, e);
    dr_queue_put_hold(q, &c, h);
    dr_cmd_str(&c, e->state);
    dr_cmd_int(&c, e->held_ms);
    dr_cmd_int(&c, q->ttl_s);
    dr_cmd_int(&c, q->events_maxlen);
    dr_cmd_bytes(&c, e->text, e->n);
    dr_queue_put_channels(q, &c, h->id);
    dr_cmd_int(&c, e->seq);
    dr_cmd_words(&c, h->id, e->code, e->message, e->dead);
    dr_cmd_int(&c, q->dead_maxlen);
    for (int i = 0; e->with_bytes && i < e->n_results; i++)
        dr_cmd_bytes(&c, e->results[i].bytes, e->results[i].n);
    return dr_queue_call_answer(q, DR_SCRIPT_FINISH, &c, answer, err);
}

/* --- where the next worker may go on --- */

dr_status dr_queue_checkpoint_put(dr_queue *q, const char *id, const void *p, size_t n,
                                  dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_str(&c, "SET");
    dr_queue_put_job_key(q, &c, "checkpoint", id);
    dr_cmd_bytes(&c, p, n);
    dr_cmd_str(&c, "EX");
    dr_cmd_int(&c, q->checkpoint_ttl_s);
    return dr_redis_call(q->redis, &c, 0, NULL, err);
}

dr_status dr_queue_checkpoint_get(dr_queue *q, const char *id, dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_str(&c, "GET");
    dr_queue_put_job_key(q, &c, "checkpoint", id);
    return dr_redis_call(q->redis, &c, 0, out, err);
}
