#include "queue/handle.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How jobs are taken: the head of the line (claim.lua), or a chosen one (peek, take). */

dr_status dr_queue_make_groups(dr_queue *q, dr_err *err)
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

/* {'job', class, entry, fence, ms waited, crashes, fields} */
static void read_job(dr_reply *reply, dr_claim *out)
{
    out->reply = reply;
    out->hold.class = (dr_priority)(dr_reply_int(dr_reply_at(reply, 1)) - 1);
    out->hold.entry = dr_reply_text(dr_reply_at(reply, 2), NULL);
    out->hold.fence = dr_reply_int(dr_reply_at(reply, 3));
    out->wait_ms = dr_reply_int(dr_reply_at(reply, 4));
    out->crashes = dr_reply_int(dr_reply_at(reply, 5));
    out->fields = dr_reply_at(reply, 6);
    out->n_fields = (int)(dr_reply_count(out->fields) / 2);
}

static bool is_job(const dr_reply *reply)
{
    return !strcmp(dr_reply_text(dr_reply_at(reply, 0), NULL), "job");
}

/* {'none', last ids, ms until the next delay is over} */
static void read_none(dr_queue *q, const dr_reply *reply)
{
    for (int i = 0; i < DR_CLASSES; i++)
        snprintf(q->last[i], sizeof q->last[i], "%s",
                 dr_reply_text(dr_reply_at(reply, (size_t)i + 1), NULL));
    q->due_ms = dr_reply_int(dr_reply_at(reply, DR_CLASSES + 1));
}

static void put_claim(dr_queue *q, dr_cmd *c, dr_own own, const char *const *leave, int n)
{
    static const char *const words[] = { "none", "unheard", "left" };
    static const char *const keys[] = { "fence", "delayed", "paused", "stats" };
    dr_script_begin(c, DR_CLASSES + (int)DR_COUNT(keys));
    dr_queue_put_streams(q, c);
    for (size_t i = 0; i < DR_COUNT(keys); i++)
        dr_queue_put_key(q, c, keys[i]);
    dr_cmd_words(c, DR_QUEUE_GROUP, q->worker);
    dr_cmd_int(c, dr_now_s() < q->sweep_at_s ? 0 : q->lease_ms);
    dr_cmd_str(c, words[own]);
    for (int i = 0; i < DR_CLASSES; i++)
        dr_cmd_int(c, q->weights[i]);
    dr_cmd_put_words(c, leave, (size_t)n);
}

dr_status dr_queue_claim(dr_queue *q, dr_own own, const char *const *leave, int n_leave,
                         dr_claim *out, dr_err *err)
{
    dr_err local = { 0 }, *e = err ? err : &local;
    dr_reply *reply = NULL;
    dr_status st = DR_OK;
    *out = (dr_claim){ 0 };
    for (int attempt = 0; attempt < 2; attempt++) {
        dr_cmd c = { 0 };
        if ((st = note_connection(q, e)))
            return st;
        put_claim(q, &c, own, leave, n_leave);
        st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_CLAIM, &c, &reply, e);
        if (st != DR_EREDIS || !dr_redis_says(e, "NOGROUP"))
            break;
        if ((st = dr_queue_make_groups(q, e)))
            return st;
    }
    if (!st && is_job(reply)) {
        read_job(reply, out);
        return DR_OK;
    }
    if (!st)
        read_none(q, reply);
    dr_reply_free(reply);
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
    *name = dr_reply_text(dr_reply_at(c->fields, (size_t)i * 2), NULL);
    *value = dr_reply_text(dr_reply_at(c->fields, (size_t)i * 2 + 1), n);
}

dr_status dr_queue_wait(dr_queue *q, dr_err *err)
{
    dr_cmd c = { 0 };
    int64_t wait_ms = q->block_ms;
    if (q->due_ms >= 0 && q->due_ms < wait_ms)
        wait_ms = q->due_ms + 1; /* 0 would be for ever */
    dr_cmd_words(&c, "XREAD", "COUNT", "1", "BLOCK");
    dr_cmd_int(&c, wait_ms);
    dr_cmd_str(&c, "STREAMS");
    dr_queue_put_streams(q, &c);
    for (int i = 0; i < DR_CLASSES; i++)
        dr_cmd_str(&c, *q->last[i] ? q->last[i] : "$");
    return dr_redis_call(q->redis, &c, wait_ms, NULL, err);
}

/* --- out of turn --- */

dr_status dr_queue_peek(dr_queue *q, int count, size_t max_bytes, int64_t min_age_ms,
                        dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, DR_CLASSES + 2);
    dr_queue_put_streams(q, &c);
    dr_queue_put_key(q, &c, "delayed");
    dr_queue_put_key(q, &c, "paused");
    dr_cmd_str(&c, DR_QUEUE_GROUP);
    dr_cmd_int(&c, count);
    dr_cmd_int(&c, (int64_t)max_bytes);
    dr_cmd_int(&c, min_age_ms);
    return dr_script_call(&q->scripts, q->redis, DR_SCRIPT_PEEK, &c, out, err);
}

bool dr_peek_at(const dr_reply *peeked, size_t i, dr_claim *item)
{
    const dr_reply *row = dr_reply_at(peeked, i);
    *item = (dr_claim){ 0 };
    if (!row)
        return false;
    item->hold.class = (dr_priority)(dr_reply_int(dr_reply_at(row, 0)) - 1);
    item->hold.entry = dr_reply_text(dr_reply_at(row, 1), NULL);
    item->fields = dr_reply_at(row, 2);
    item->n_fields = (int)(dr_reply_count(item->fields) / 2);
    return true;
}

dr_status dr_queue_take(dr_queue *q, dr_priority class, const char *entry, dr_claim *out,
                        dr_err *err)
{
    static const char *const keys[] = { "fence", "delayed", "paused" };
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    *out = (dr_claim){ 0 };
    dr_script_begin(&c, 1 + (int)DR_COUNT(keys));
    dr_queue_put_stream(q, &c, class);
    for (size_t i = 0; i < DR_COUNT(keys); i++)
        dr_queue_put_key(q, &c, keys[i]);
    dr_cmd_words(&c, DR_QUEUE_GROUP, q->worker);
    dr_cmd_int(&c, class + 1);
    dr_cmd_str(&c, entry);
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_TAKE, &c, &reply, err);
    if (!st && is_job(reply))
        read_job(reply, out);
    else
        dr_reply_free(reply);
    return st;
}
