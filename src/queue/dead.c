#include "queue/admin.h"

#include "queue/handle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The dead letters: P:dead. */

dr_status dr_queue_dead(dr_queue *q, const dr_dead_page *page, dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    const char *first = page->oldest_first ? "-" : "+";
    const char *last = page->oldest_first ? "+" : "-";
    dr_cmd_str(&c, page->oldest_first ? "XRANGE" : "XREVRANGE");
    dr_queue_put_key(q, &c, "dead");
    dr_cmd_printf(&c, "%s%s", *page->behind ? "(" : first, page->behind);
    dr_cmd_words(&c, *page->up_to ? page->up_to : last, "COUNT");
    dr_cmd_int(&c, page->n);
    return dr_redis_call(q->redis, &c, 0, out, err);
}

/* Redis' own words about a bad id do not show it. */
static dr_status check_entry(const char *entry, dr_err *err)
{
    size_t n = strspn(entry, "0123456789-");
    if (n && n <= 41 && !entry[n] && *entry != '-')
        return DR_OK;
    return dr_fail_field(err, DR_EINVAL, "ENTRY",
                         "%.80s: must be the entry of a dead letter, as 1764000000000-0 "
                         "(`darkroom dead list` shows them)",
                         entry);
}

dr_status dr_queue_dead_entry(dr_queue *q, const char *entry, dr_reply **out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_status st = check_entry(entry, err);
    if (st)
        return st;
    dr_cmd_str(&c, "XRANGE");
    dr_queue_put_key(q, &c, "dead");
    dr_cmd_words(&c, entry, entry);
    return dr_redis_call(q->redis, &c, 0, out, err);
}

const char *dr_dead_field(const dr_reply *item, const char *name, size_t *n)
{
    const dr_reply *fields = dr_reply_at(item, 1);
    for (size_t i = 0; i + 1 < dr_reply_count(fields); i += 2)
        if (!strcmp(dr_reply_text(dr_reply_at(fields, i), NULL), name))
            return dr_reply_text(dr_reply_at(fields, i + 1), n);
    return dr_reply_text(NULL, n);
}

dr_status dr_queue_dead_retry(dr_queue *q, const dr_revival *r, dr_dead_answer *answer,
                              char other[DR_JOB_ID_MAX + 1], dr_err *err)
{
    static const char *const words[] = { [DR_DEAD_OK] = "ok",
                                         [DR_DEAD_ABSENT] = "absent",
                                         [DR_DEAD_BUSY] = "busy",
                                         [DR_DEAD_DUPLICATE] = "duplicate" };
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    const char *unique = r->unique ? r->unique : "";
    dr_script_begin(&c, 6);
    dr_queue_put_stream(q, &c, r->class);
    dr_queue_put_key(q, &c, "dead");
    dr_queue_put_job_key(q, &c, "job", r->id);
    dr_queue_put_job_key(q, &c, "events", r->id);
    dr_queue_put_job_key(q, &c, "checkpoint", r->id);
    dr_queue_put_job_key(q, &c, "unique", unique);
    dr_cmd_words(&c, r->entry, r->id, unique, r->put_id ? "1" : "0");
    dr_cmd_int(&c, q->events_maxlen);
    dr_cmd_bytes(&c, r->text, r->text_n);
    dr_queue_put_channels(q, &c, r->id);
    dr_status st =
        dr_script_call(&q->scripts, q->redis, DR_SCRIPT_DEAD_RETRY, &c, &reply, err);
    const char *word = dr_reply_text(dr_reply_at(reply, 0), NULL);
    *answer = DR_DEAD_ABSENT;
    for (size_t i = 0; i < DR_COUNT(words); i++)
        if (!strcmp(word, words[i]))
            *answer = (dr_dead_answer)i;
    snprintf(other, DR_JOB_ID_MAX + 1, "%s", dr_reply_text(dr_reply_at(reply, 1), NULL));
    dr_reply_free(reply);
    return st;
}

/* --- forgetting --- */

dr_status dr_queue_dead_drop(dr_queue *q, const char *entry, int64_t *n, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_status st = check_entry(entry, err);
    if (st)
        return st;
    dr_cmd_str(&c, "XDEL");
    dr_queue_put_key(q, &c, "dead");
    dr_cmd_str(&c, entry);
    return dr_queue_call_count(q, &c, n, err);
}

/* Up to the newest of now, so that one that comes meanwhile is not lost unseen. */
dr_status dr_queue_dead_drop_all(dr_queue *q, int64_t *n, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *newest = NULL;
    *n = 0;
    const dr_dead_page page = { .behind = "", .up_to = "", .n = 1 };
    dr_status st = dr_queue_dead(q, &page, &newest, err);
    if (!st && dr_reply_count(newest)) {
        const char *entry = dr_reply_text(dr_reply_at(dr_reply_at(newest, 0), 0), NULL);
        const char *dash = strchr(entry, '-');
        dr_cmd_str(&c, "XTRIM");
        dr_queue_put_key(q, &c, "dead");
        dr_cmd_words(&c, "MINID", "=");
        dr_cmd_printf(&c, "%.*s-%llu", (int)(dash ? dash - entry : 0), entry,
                      dash ? strtoull(dash + 1, NULL, 10) + 1 : 0);
        st = dr_queue_call_count(q, &c, n, err);
    }
    dr_reply_free(newest);
    return st;
}
