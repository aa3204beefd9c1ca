#include "queue/admin.h"

#include "queue/handle.h"

#include <stdlib.h>
#include <string.h>

/* How the queue and its workers are. */

const char *const dr_stat_names[DR_STATS] = {
    [DR_STAT_SUCCEEDED] = "succeeded", [DR_STAT_FAILED] = "failed",
    [DR_STAT_CANCELED] = "canceled",   [DR_STAT_EXPIRED] = "expired",
    [DR_STAT_RETRIED] = "retried",     [DR_STAT_RECOVERED] = "recovered",
    [DR_STAT_POISON] = "poison",       [DR_STAT_RELEASED] = "released",
    [DR_STAT_LOST] = "lost",
};

/* --- one worker --- */

static const struct {
    const char *field;
    bool number;
    size_t offset;
} worker_rows[] = {
#define TEXT(name)                                                                         \
    {                                                                                      \
#name, false, offsetof(dr_worker_status, name)                                     \
    }
#define NUMBER(name)                                                                       \
    {                                                                                      \
#name, true, offsetof(dr_worker_status, name)                                      \
    }
    TEXT(host),         TEXT(device),    TEXT(version), TEXT(state),    TEXT(models),
    TEXT(resident),     TEXT(jobs),      TEXT(step),    TEXT(s_step),   NUMBER(pid),
    NUMBER(started_ms), NUMBER(seen_ms), NUMBER(done),  NUMBER(failed),
};

/* The fields of P:worker:<name>, copied into mem. */
static bool read_worker(const dr_reply *values, dr_arena *mem, dr_worker_status *out)
{
    for (size_t i = 0; i < DR_COUNT(worker_rows); i++) {
        size_t n;
        const dr_reply *value = dr_reply_at(values, i);
        char *at = (char *)out + worker_rows[i].offset;
        if (worker_rows[i].number) {
            *(int64_t *)(void *)at = dr_reply_int(value);
            continue;
        }
        const char *text = dr_reply_text(value, &n);
        if (!(text = dr_arena_str(mem, text, n)))
            return false;
        *(const char **)(void *)at = text;
    }
    out->drain = dr_reply_int(dr_reply_at(values, DR_COUNT(worker_rows))) == 1;
    return true;
}

/* *alive false: its hash is gone, and the list will follow. */
static dr_status ask_worker(dr_queue *q, const char *name, dr_arena *mem,
                            dr_worker_status *out, bool *alive, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *values = NULL;
    dr_cmd_str(&c, "HMGET");
    dr_queue_put_job_key(q, &c, "worker", name);
    for (size_t i = 0; i < DR_COUNT(worker_rows); i++)
        dr_cmd_str(&c, worker_rows[i].field);
    dr_cmd_str(&c, "drain");
    dr_status st = dr_redis_call(q->redis, &c, 0, &values, err);
    *out = (dr_worker_status){ .name = dr_arena_str(mem, name, strlen(name)) };
    if (!st && (!out->name || !read_worker(values, mem, out)))
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    *alive = out->seen_ms != 0;
    dr_reply_free(values);
    return st;
}

static int by_name(const void *a, const void *b)
{
    const dr_worker_status *x = a, *y = b;
    return strverscmp(x->name, y->name); /* gpu2 before gpu10 */
}

static dr_status ask_workers(dr_queue *q, const dr_reply *names, dr_arena *mem,
                             dr_fleet *out, dr_err *err)
{
    size_t n = dr_reply_count(names);
    dr_status st = DR_OK;
    out->workers = dr_arena_alloc(mem, (n + 1) * sizeof *out->workers);
    if (!out->workers)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (size_t i = 0; i < n && !st; i++) {
        bool alive = false;
        st = ask_worker(q, dr_reply_text(dr_reply_at(names, i), NULL), mem,
                        &out->workers[out->n_workers], &alive, err);
        out->n_workers += !st && alive;
    }
    qsort(out->workers, (size_t)out->n_workers, sizeof *out->workers, by_name);
    return st;
}

/* --- Redis --- */

/* A number behind "label:" in the text of INFO; -1 when it is not there. */
static int64_t number_in(const char *info, const char *label)
{
    const char *at = strstr(info, label);
    return at ? strtoll(at + strlen(label), NULL, 10) : -1;
}

static dr_status ask_memory(dr_queue *q, dr_fleet *out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_cmd_words(&c, "INFO", "memory");
    dr_status st = dr_redis_call(q->redis, &c, 0, &reply, err);
    const char *info = dr_reply_text(reply, NULL);
    out->memory = number_in(info, "\nused_memory:");
    out->memory_max = number_in(info, "\nmaxmemory:");
    dr_reply_free(reply);
    return st == DR_EREDIS ? DR_OK : st; /* forbidden: unknown */
}

/* --- the queue --- */

static void read_status(const dr_reply *reply, dr_fleet *out)
{
    const dr_reply *classes = dr_reply_at(reply, 1), *stats = dr_reply_at(reply, 4);
    out->now_ms = dr_reply_int(dr_reply_at(reply, 0));
    for (size_t i = 0; i < DR_CLASSES; i++) {
        const dr_reply *row = dr_reply_at(classes, i);
        out->classes[i] =
            (dr_class_status){ .waiting = dr_reply_int(dr_reply_at(row, 0)),
                               .delayed = dr_reply_int(dr_reply_at(row, 1)),
                               .running = dr_reply_int(dr_reply_at(row, 2)),
                               .oldest_ms = dr_reply_int(dr_reply_at(row, 3)),
                               .paused = dr_reply_int(dr_reply_at(row, 4)) == 1 };
    }
    out->dead = dr_reply_int(dr_reply_at(reply, 2));
    for (size_t i = 0; i < DR_STATS; i++)
        out->stats[i] = dr_reply_int(dr_reply_at(stats, i));
}

dr_status dr_queue_status(dr_queue *q, dr_arena *mem, dr_fleet *out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    *out = (dr_fleet){ 0 };
    dr_script_begin(&c, DR_CLASSES + 5);
    dr_queue_put_streams(q, &c);
    static const char *const keys[] = { "delayed", "paused", "dead", "workers", "stats" };
    for (size_t i = 0; i < DR_COUNT(keys); i++)
        dr_queue_put_key(q, &c, keys[i]);
    dr_cmd_str(&c, DR_QUEUE_GROUP);
    dr_cmd_int(&c, DR_WORKERS_MAX);
    dr_cmd_put_words(&c, dr_stat_names, DR_STATS);
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_STATUS, &c, &reply, err);
    if (!st)
        read_status(reply, out);
    if (!st)
        st = ask_workers(q, dr_reply_at(reply, 3), mem, out, err);
    if (!st)
        st = ask_memory(q, out, err);
    dr_reply_free(reply);
    return st;
}
