#include "job/entry.h"

#include "base/clock.h"
#include "job/events.h"
#include "job/msgpack.h"

#include <string.h>

dr_status dr_entry_open(dr_entry_reader *r, const char *worker, dr_err *err)
{
    *r = (dr_entry_reader){ .mem = dr_arena_new(), .worker = worker };
    return r->mem ? DR_OK : dr_fail(err, DR_ENOMEM, "out of memory");
}

void dr_entry_close(dr_entry_reader *r)
{
    dr_buf_free(&r->text);
    dr_buf_free(&r->packed);
    dr_arena_free(r->mem);
    *r = (dr_entry_reader){ 0 };
}

const dr_job *dr_entry_decode(dr_entry_reader *r, const char *own_id,
                              const dr_reply *fields, const char *prefix)
{
    const dr_job_defaults defaults = { 0 };
    size_t n = dr_reply_count(fields) / 2, cut = strlen(prefix);
    int count = 0;
    dr_job *job = NULL;
    dr_arena_reset(r->mem);
    dr_field *list = dr_arena_alloc(r->mem, (n + 1) * sizeof *list);
    for (size_t i = 0; list && i < n; i++) {
        const char *name = dr_reply_text(dr_reply_at(fields, 2 * i), NULL);
        if (strncmp(name, prefix, cut) != 0)
            continue;
        dr_field *f = &list[count++];
        f->name = name + cut;
        f->value = dr_reply_text(dr_reply_at(fields, 2 * i + 1), &f->len);
    }
    if (!list)
        return NULL;
    dr_status wrong = dr_job_decode(&job, r->mem, own_id, list, count, &defaults, NULL);
    (void)wrong; /* a job that is wrong still has its id */
    return job;
}

const dr_buf *dr_entry_form(dr_entry_reader *r, const dr_job *job)
{
    if (!job || !job->events_msgpack)
        return &r->text;
    dr_buf_clear(&r->packed);
    return dr_msgpack_from_json(&r->packed, r->text.data, r->text.len, r->mem, NULL)
               ? &r->text
               : &r->packed;
}

/* Of dr_cancel_reader. */
static bool read(void *ctx, const char *id, const char *own_id, const dr_reply *fields,
                 int64_t seq, const char **text, size_t *n, const char **unique)
{
    dr_entry_reader *r = ctx;
    const dr_job *job = fields ? dr_entry_decode(r, own_id, fields, "") : NULL;
    if (fields && (!job || strcmp(job->id, id) != 0))
        return false;
    const dr_event_head head = { .id = id,
                                 .seq = seq,
                                 .worker = r->worker,
                                 .ts_ms = dr_wall_ms(),
                                 .meta_json = job ? job->meta_json : NULL };
    dr_event_canceled(&r->text, &head);
    if (r->text.failed)
        return false;
    const dr_buf *form = dr_entry_form(r, job);
    *text = form->data;
    *n = form->len;
    *unique = job ? job->unique : NULL;
    return true;
}

dr_cancel_reader dr_entry_canceling(dr_entry_reader *r)
{
    return (dr_cancel_reader){ .ctx = r, .read = read };
}
