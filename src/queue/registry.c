#include "queue/handle.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

/* The workers that are alive, and the order of the group that they share. */

dr_status dr_queue_beat(dr_queue *q, int64_t ttl_ms, const char *const *pairs, int n,
                        bool *drain, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_script_begin(&c, 2);
    dr_queue_put_key(q, &c, "workers");
    dr_queue_put_job_key(q, &c, "worker", q->worker);
    dr_cmd_str(&c, q->worker);
    dr_cmd_int(&c, ttl_ms);
    dr_cmd_put_words(&c, pairs, (size_t)n);
    dr_status st = dr_script_call(&q->scripts, q->redis, DR_SCRIPT_BEAT, &c, &reply, err);
    *drain = !strcmp(dr_reply_text(reply, NULL), "drain");
    dr_reply_free(reply);
    return st;
}

dr_status dr_queue_registered(dr_queue *q, dr_registered *out, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_cmd_str(&c, "HMGET");
    dr_queue_put_job_key(q, &c, "worker", q->worker);
    dr_cmd_words(&c, "host", "pid", "seen_ms");
    dr_status st = dr_redis_call(q->redis, &c, 0, &reply, err);
    *out = (dr_registered){ .pid = dr_reply_int(dr_reply_at(reply, 1)),
                            .seen_ms = dr_reply_int(dr_reply_at(reply, 2)) };
    snprintf(out->host, sizeof out->host, "%s", dr_reply_text(dr_reply_at(reply, 0), NULL));
    dr_reply_free(reply);
    return st;
}

dr_status dr_queue_bye(dr_queue *q, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_script_begin(&c, DR_CLASSES + 2);
    dr_queue_put_streams(q, &c);
    dr_queue_put_key(q, &c, "workers");
    dr_queue_put_job_key(q, &c, "worker", q->worker);
    dr_cmd_words(&c, DR_QUEUE_GROUP, q->worker);
    return dr_script_call(&q->scripts, q->redis, DR_SCRIPT_BYE, &c, NULL, err);
}

dr_status dr_queue_janitor(dr_queue *q, int64_t dead_ms, dr_tidied *out, dr_err *err)
{
    enum { entries_at_once = 256 };
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_script_begin(&c, DR_CLASSES + 2);
    dr_queue_put_streams(q, &c);
    dr_queue_put_key(q, &c, "workers");
    dr_queue_put_key(q, &c, "delayed");
    dr_cmd_str(&c, DR_QUEUE_GROUP);
    dr_cmd_int(&c, dead_ms);
    dr_cmd_int(&c, entries_at_once);
    for (int i = 0; i < DR_CLASSES; i++)
        dr_cmd_str(&c, *q->tidy_from[i] ? q->tidy_from[i] : "-");
    dr_status st =
        dr_script_call(&q->scripts, q->redis, DR_SCRIPT_JANITOR, &c, &reply, err);
    *out = (dr_tidied){ .removed = dr_reply_int(dr_reply_at(reply, 0)),
                        .put_back = dr_reply_int(dr_reply_at(reply, 1)) };
    for (int i = 0; i < DR_CLASSES; i++)
        snprintf(q->tidy_from[i], sizeof q->tidy_from[i], "%s",
                 dr_reply_text(dr_reply_at(reply, (size_t)i + 2), NULL));
    dr_reply_free(reply);
    return st;
}

/* --- what the fleet can serve --- */

typedef struct {
    const char *model;
    bool served;
    dr_buf *out;
    int n;
} model_list;

/* Append one worker's names that are not there yet. */
static void add_names(model_list *l, const char *json_text)
{
    dr_json *names = NULL;
    if (dr_json_parse(&names, json_text, strlen(json_text), NULL))
        return;
    for (const dr_json *item = dr_json_first(names); item; item = dr_json_next(item)) {
        const char *name = dr_json_string(item);
        dr_buf quoted = { 0 };
        if (!name)
            continue;
        l->served = l->served || !strcmp(name, l->model);
        dr_json_put_string(&quoted, name);
        if (!quoted.failed && !strstr(l->out->data, quoted.data)) {
            dr_buf_printf(l->out, "%s%s", l->n++ ? "," : "", quoted.data);
        }
        dr_buf_free(&quoted);
    }
    dr_json_free(names);
}

dr_status dr_queue_fleet_models(dr_queue *q, const char *model, bool *served, dr_buf *out,
                                dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *workers = NULL;
    model_list list = { .model = model, .out = out };
    dr_cmd_str(&c, "ZRANGE");
    dr_queue_put_key(q, &c, "workers");
    dr_cmd_words(&c, "0", "999");
    dr_status st = dr_redis_call(q->redis, &c, 0, &workers, err);
    dr_buf_puts(out, "[");
    for (size_t i = 0; !st && i < dr_reply_count(workers); i++) {
        dr_cmd get = { 0 };
        dr_reply *names = NULL;
        dr_cmd_str(&get, "HGET");
        dr_queue_put_job_key(q, &get, "worker",
                             dr_reply_text(dr_reply_at(workers, i), NULL));
        dr_cmd_str(&get, "models");
        st = dr_redis_call(q->redis, &get, 0, &names, err);
        add_names(&list, dr_reply_text(names, NULL));
        dr_reply_free(names);
    }
    dr_buf_puts(out, "]");
    *served = list.served;
    dr_reply_free(workers);
    return st;
}
