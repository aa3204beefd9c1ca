#include "queue/handle.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const class_names[DR_CLASSES] = {
    [DR_PRIORITY_HIGH] = "high",
    [DR_PRIORITY_NORMAL] = "normal",
    [DR_PRIORITY_LOW] = "low",
};

const char *dr_class_name(dr_priority class)
{
    return class_names[class];
}

bool dr_class_parse(const char *name, dr_priority *class)
{
    for (int i = 0; i < DR_CLASSES; i++)
        if (!strcmp(name, class_names[i])) {
            *class = (dr_priority)i;
            return true;
        }
    return false;
}

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

/* "8:3:1" */
static dr_status read_weights(int64_t out[DR_CLASSES], const char *text, dr_err *err)
{
    const char *p = text;
    int64_t total = 0;
    for (int i = 0; i < DR_CLASSES; i++) {
        char *end;
        out[i] = *p >= '0' && *p <= '9' ? strtoll(p, &end, 10) : -1;
        if (out[i] < 0 || out[i] > 1000 || *end != (i < DR_CLASSES - 1 ? ':' : 0))
            goto bad;
        total += out[i];
        p = end + 1;
    }
    if (total)
        return DR_OK;
bad:
    return dr_fail_field(
        err, DR_EINVAL, "queue.weights",
        "queue.weights = %s: must be three numbers 0..1000, not all 0, for "
        "high, normal and low, as 8:3:1",
        text);
}

dr_status dr_queue_open(dr_queue **out, const dr_conf *conf, const char *worker,
                        dr_err *err)
{
    int64_t weights[DR_CLASSES];
    dr_status st = check_name("queue.prefix", conf->queue.prefix, err);
    if (!st)
        st = check_name("worker.name", worker, err);
    if (!st)
        st = read_weights(weights, conf->queue.weights, err);
    if (st)
        return st;
    dr_queue *q = dr_alloc(sizeof *q);
    if (!q)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    st = dr_redis_new(&q->redis, conf, err);
    if (st) {
        dr_free(q);
        return st;
    }
    snprintf(q->prefix, sizeof q->prefix, "%s", conf->queue.prefix);
    snprintf(q->worker, sizeof q->worker, "%s", worker);
    memcpy(q->weights, weights, sizeof weights);
    q->lease_ms = conf->lease.ms;
    q->block_ms = conf->queue.block_ms;
    q->ttl_s = conf->result.ttl_s;
    q->events_maxlen = conf->queue.events_maxlen;
    q->publish_max = conf->result.publish_max;
    q->dead_maxlen = conf->queue.dead_maxlen;
    q->checkpoint_ttl_s = conf->checkpoint.ttl_s;
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

void dr_queue_put_key(const dr_queue *q, dr_cmd *c, const char *name)
{
    dr_cmd_printf(c, "%s:%s", q->prefix, name);
}

void dr_queue_put_job_key(const dr_queue *q, dr_cmd *c, const char *kind, const char *id)
{
    dr_cmd_printf(c, "%s:%s:%s", q->prefix, kind, id);
}

void dr_queue_put_channels(const dr_queue *q, dr_cmd *c, const char *id)
{
    dr_queue_put_job_key(q, c, "progress", id);
    dr_queue_put_key(q, c, "progress");
}

const char *dr_queue_result_key(const dr_queue *q, const char *id, int index,
                                char buf[DR_KEY_MAX])
{
    snprintf(buf, DR_KEY_MAX, "%s:result:%s:%d", q->prefix, id, index);
    return buf;
}

void dr_queue_put_hold(const dr_queue *q, dr_cmd *c, const dr_hold *h)
{
    dr_cmd_words(c, DR_QUEUE_GROUP, q->worker, h->entry);
    dr_cmd_int(c, h->fence);
}

void dr_entry_name(char out[DR_ENTRY_NAME_MAX], const dr_hold *h)
{
    snprintf(out, DR_ENTRY_NAME_MAX, "%s:%s", class_names[h->class], h->entry);
}

void dr_entry_job_id(char out[DR_ENTRY_NAME_MAX], dr_priority class, const char *entry)
{
    bool normal = class == DR_PRIORITY_NORMAL;
    snprintf(out, DR_ENTRY_NAME_MAX, "%s%s%s", normal ? "" : class_names[class],
             normal ? "" : ".", entry);
}

/* --- answers --- */

dr_answer dr_queue_read_answer(const dr_reply *reply)
{
    static const struct {
        const char *text;
        dr_answer answer;
    } rows[] = {
        { "ok", DR_ANSWER_OK },
        { "run", DR_ANSWER_OK },
        { "already", DR_ANSWER_ALREADY },
        { "lost", DR_ANSWER_LOST },
        { "stale", DR_ANSWER_LOST },
        { "gone", DR_ANSWER_GONE },
        { "missing", DR_ANSWER_MISSING },
        { "cancel", DR_ANSWER_CANCEL },
        { "canceled", DR_ANSWER_CANCEL },
        { "expired", DR_ANSWER_EXPIRED },
        { "duplicate", DR_ANSWER_DUPLICATE },
        { "delayed", DR_ANSWER_DELAYED },
    };
    const dr_reply *word =
        dr_reply_type(reply) == DR_REPLY_ARRAY ? dr_reply_at(reply, 0) : reply;
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(dr_reply_text(word, NULL), rows[i].text))
            return rows[i].answer;
    return DR_ANSWER_LOST;
}

dr_status dr_queue_call_answer(dr_queue *q, dr_script_id id, dr_cmd *c, dr_answer *answer,
                               dr_err *err)
{
    dr_reply *reply = NULL;
    dr_status st = dr_script_call(&q->scripts, q->redis, id, c, &reply, err);
    if (!st)
        *answer = dr_queue_read_answer(reply);
    dr_reply_free(reply);
    return st;
}

dr_status dr_queue_call_count(dr_queue *q, const dr_cmd *c, int64_t *n, dr_err *err)
{
    dr_reply *reply = NULL;
    dr_status st = dr_redis_call(q->redis, c, 0, &reply, err);
    *n = dr_reply_int(reply);
    dr_reply_free(reply);
    return st;
}
