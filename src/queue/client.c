#include "queue/handle.h"

#include <stdio.h>
#include <string.h>

/* What programs need that send jobs and watch them. */

dr_status dr_queue_submit(dr_queue *q, const dr_sending *s, char holder[DR_JOB_ID_MAX + 1],
                          dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    const char *unique = s->unique ? s->unique : "";
    *holder = 0;
    if (s->n > DR_SUBMIT_STRINGS_MAX)
        return dr_fail(err, DR_EINVAL, "%d fields: a job may have %d", s->n / 2,
                       DR_SUBMIT_STRINGS_MAX / 2);
    dr_script_begin(&c, 4);
    dr_queue_put_stream(q, &c, s->class);
    dr_queue_put_job_key(q, &c, "job", s->id);
    dr_queue_put_job_key(q, &c, "events", s->id);
    dr_queue_put_job_key(q, &c, "unique", unique);
    dr_cmd_words(&c, s->id, unique);
    dr_cmd_int(&c, q->events_maxlen);
    dr_cmd_bytes(&c, s->text, s->text_n);
    dr_queue_put_channels(q, &c, s->id);
    for (int i = 0; i < s->n; i++)
        dr_cmd_bytes(&c, s->fields[i], s->sizes ? s->sizes[i] : strlen(s->fields[i]));
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_SUBMIT, &c, &reply, err);
    if (!st && dr_queue_read_answer(reply) == DR_ANSWER_DUPLICATE)
        snprintf(holder, DR_JOB_ID_MAX + 1, "%s",
                 dr_reply_text(dr_reply_at(reply, 1), NULL));
    dr_reply_free(reply);
    return st;
}

dr_status dr_queue_next_event(dr_queue *q, const char *id, dr_cursor *cursor,
                              int64_t wait_ms, dr_reply **out, const char **text, size_t *n,
                              dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_words(&c, "XREAD", "COUNT", "1", "BLOCK");
    dr_cmd_int(&c, wait_ms > 0 ? wait_ms : 1); /* 0 would be for ever */
    dr_cmd_str(&c, "STREAMS");
    dr_queue_put_job_key(q, &c, "events", id);
    dr_cmd_str(&c, *cursor->last ? cursor->last : "0");
    *out = NULL;
    dr_status st = dr_redis_call(q->redis, &c, wait_ms, out, err);
    /* [[key, [[entry, [field, value]]]]], or nil when nothing came. */
    const dr_reply *entry =
        dr_reply_at(dr_reply_at(dr_reply_at(st ? NULL : *out, 0), 1), 0);
    if (!entry) {
        dr_reply_free(*out);
        *out = NULL;
        return st;
    }
    snprintf(cursor->last, sizeof cursor->last, "%s",
             dr_reply_text(dr_reply_at(entry, 0), NULL));
    *text = dr_reply_text(dr_reply_at(dr_reply_at(entry, 1), 1), n);
    return DR_OK;
}

/* Messages on P:<channel>; a handle listens to one channel in its life. */
static dr_status subscribe(dr_queue *q, const char *channel, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_status st = dr_redis_connect(q->redis, err);
    if (st || q->subscribed == dr_redis_connections(q->redis))
        return st;
    dr_cmd_str(&c, "SUBSCRIBE");
    dr_queue_put_key(q, &c, channel);
    if (!(st = dr_redis_call(q->redis, &c, 0, NULL, err)))
        q->subscribed = dr_redis_connections(q->redis);
    return st;
}

static dr_status next_message(dr_queue *q, const char *channel, int64_t wait_ms,
                              dr_reply **out, const char **text, size_t *n, dr_err *err)
{
    *out = NULL;
    dr_status st = subscribe(q, channel, err);
    if (!st)
        st = dr_redis_receive(q->redis, wait_ms, out, err);
    if (!st && *out)
        *text = dr_reply_text(dr_reply_at(*out, 2), n); /* "message", channel, text */
    return st;
}

dr_status dr_queue_next_published(dr_queue *q, int64_t wait_ms, dr_reply **out,
                                  const char **text, size_t *n, dr_err *err)
{
    return next_message(q, "progress", wait_ms, out, text, n, err);
}

dr_status dr_queue_next_control(dr_queue *q, int64_t wait_ms, dr_reply **out,
                                const char **text, size_t *n, dr_err *err)
{
    return next_message(q, "control", wait_ms, out, text, n, err);
}

dr_status dr_queue_result(dr_queue *q, const char *key, dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_words(&c, "GET", key);
    return dr_redis_call(q->redis, &c, 0, out, err);
}

/* --- pictures of jobs --- */

dr_status dr_queue_input_put(dr_queue *q, const char *id, const char *name, const void *p,
                             size_t n, int64_t ttl_s, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_str(&c, "SET");
    dr_cmd_printf(&c, "%s:input:%s:%s", q->prefix, id, name);
    dr_cmd_bytes(&c, p, n);
    dr_cmd_str(&c, "EX");
    dr_cmd_int(&c, ttl_s);
    return dr_redis_call(q->redis, &c, 0, NULL, err);
}

dr_status dr_queue_input_get(dr_queue *q, const char *key, dr_reply **out, dr_err *err)
{
    static const char word[] = "input:";
    dr_cmd c = { 0 };
    size_t prefix = strlen(q->prefix), n;
    const char *name = key;
    *out = NULL;
    if (!strncmp(key, q->prefix, prefix) && key[prefix] == ':')
        name = key + prefix + 1;
    if (strncmp(name, word, strlen(word)) != 0)
        return dr_fail(err, DR_EINVAL,
                       "key %.80s: of another queue; this one's begin with %s:%s", key,
                       q->prefix, word);
    dr_cmd_str(&c, "GETRANGE"); /* one byte more than allowed tells that it is too large */
    dr_queue_put_key(q, &c, name);
    dr_cmd_words(&c, "0");
    dr_cmd_int(&c, DR_IMAGE_BYTES_MAX);
    dr_status st = dr_redis_call(q->redis, &c, 0, out, err);
    if (st == DR_EREDIS && dr_redis_says(err, "WRONGTYPE"))
        return dr_fail(err, DR_EINVAL, "key %.80s: holds no string", key);
    if (st)
        return st;
    dr_reply_text(*out, &n);
    if (n > 0 && n <= DR_IMAGE_BYTES_MAX)
        return DR_OK;
    dr_reply_free(*out);
    *out = NULL;
    if (n)
        return dr_fail(err, DR_EINVAL,
                       "key %.80s: more than %zu bytes; store a smaller picture", key,
                       DR_IMAGE_BYTES_MAX);
    return dr_fail(err, DR_ENOTFOUND,
                   "key %.80s: nothing there; store the picture again, to live longer than "
                   "its job waits",
                   key);
}
