#include "cli/follow.h"

#include "base/clock.h"
#include "job/msgpack.h"

#include <stdio.h>
#include <string.h>

#define WAIT_MS  500  /* one blocking read */
#define ABSENT_S 30.0 /* without Redis before it counts as gone */

/* --- endings --- */

/* Whether event is terminal, and the exit code then. */
static bool is_ending(const dr_json *event, dr_exit *code)
{
    static const struct {
        const char *type, *code; /* code of `failed`; NULL: any */
        dr_exit exit;
    } rows[] = {
        { "succeeded", NULL, DR_EXIT_OK },       { "failed", "invalid", DR_EXIT_DATA },
        { "failed", "not_found", DR_EXIT_DATA }, { "failed", NULL, DR_EXIT_FAILED },
        { "canceled", NULL, DR_EXIT_FAILED },    { "expired", NULL, DR_EXIT_FAILED },
    };
    const char *type = dr_json_get_string(event, "event", "");
    const char *why = dr_json_get_string(event, "code", "");
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(type, rows[i].type) && (!rows[i].code || !strcmp(why, rows[i].code))) {
            *code = rows[i].exit;
            return true;
        }
    return false;
}

/* --- one event --- */

/* The event as JSON text in out: events of jobs that asked for msgpack are turned. */
static dr_status as_json(dr_buf *out, const char *text, size_t n)
{
    dr_value *value = NULL;
    dr_status st = DR_OK;
    dr_buf_clear(out);
    if (n && *text == '{') {
        dr_buf_put(out, text, n);
        return out->failed ? DR_ENOMEM : DR_OK;
    }
    dr_arena *mem = dr_arena_new();
    if (!mem)
        return DR_ENOMEM;
    st = dr_value_from_msgpack(&value, mem, text, n, NULL);
    if (!st)
        st = dr_value_json(out, value, NULL);
    dr_arena_free(mem);
    return st;
}

/* Show one event; true at a terminal one. */
static bool take(const char *text, size_t n, dr_buf *json, dr_follow_seen *seen, void *ctx,
                 dr_exit *code)
{
    dr_json *event = NULL;
    bool end = false;
    if (!as_json(json, text, n) && !dr_json_parse(&event, json->data, json->len, NULL)) {
        seen(ctx, event, json->data);
        end = is_ending(event, code);
    }
    dr_json_free(event);
    return end;
}

/* --- waiting --- */

typedef struct {
    double until_s;  /* 0: for ever */
    double absent_s; /* since when Redis is not there; 0: it is */
} patience;

static bool is_over(const patience *p)
{
    return p->until_s > 0 && dr_now_s() >= p->until_s;
}

/* Milliseconds to block for. */
static int64_t slice_ms(const patience *p)
{
    double left_ms = p->until_s > 0 ? (p->until_s - dr_now_s()) * 1000 : WAIT_MS;
    return left_ms > WAIT_MS ? WAIT_MS : left_ms < 1 ? 1 : (int64_t)left_ms;
}

/* After a read with status st: whether to go on. */
static bool bears(patience *p, dr_queue *q, dr_status st)
{
    if (!st) {
        p->absent_s = 0;
        return true;
    }
    if (!p->absent_s)
        p->absent_s = dr_now_s();
    if (st != DR_EIO || dr_now_s() - p->absent_s > ABSENT_S)
        return false;
    dr_sleep_ms(dr_redis_backoff_ms(dr_queue_redis(q)));
    return true;
}

static patience begin(int64_t timeout_s)
{
    return (patience){ .until_s = timeout_s ? dr_now_s() + (double)timeout_s : 0 };
}

dr_exit dr_follow_job(dr_queue *q, const char *id, int64_t timeout_s, dr_follow_seen *seen,
                      void *ctx, dr_err *err)
{
    patience p = begin(timeout_s);
    dr_cursor cursor = { 0 };
    dr_buf json = { 0 };
    dr_exit code = DR_EXIT_TIMEOUT;
    bool end = false;
    while (!end && !is_over(&p)) {
        dr_reply *reply = NULL;
        const char *text = "";
        size_t n = 0;
        dr_status st =
            dr_queue_next_event(q, id, &cursor, slice_ms(&p), &reply, &text, &n, err);
        if (reply)
            end = take(text, n, &json, seen, ctx, &code);
        dr_reply_free(reply);
        if (!bears(&p, q, st)) {
            code = DR_EXIT_UNAVAILABLE;
            break;
        }
    }
    dr_buf_free(&json);
    return code;
}

dr_exit dr_follow_all(dr_queue *q, int64_t timeout_s, dr_follow_seen *seen, void *ctx,
                      dr_err *err)
{
    patience p = begin(timeout_s);
    dr_buf json = { 0 };
    dr_exit code = DR_EXIT_TIMEOUT, ignored;
    while (!is_over(&p) && !ferror(stdout)) {
        dr_reply *reply = NULL;
        const char *text = "";
        size_t n = 0;
        dr_status st = dr_queue_next_published(q, slice_ms(&p), &reply, &text, &n, err);
        if (reply)
            take(text, n, &json, seen, ctx, &ignored);
        dr_reply_free(reply);
        if (!bears(&p, q, st)) {
            code = DR_EXIT_UNAVAILABLE;
            break;
        }
    }
    dr_buf_free(&json);
    return ferror(stdout) ? DR_EXIT_IO : code;
}

dr_exit dr_follow_fail(const dr_err *err)
{
    dr_cli_fail(err);
    return DR_EXIT_UNAVAILABLE;
}

/* --- as text --- */

dr_bar_state dr_follow_state(const dr_json *e)
{
    return (dr_bar_state){ .phase = dr_json_get_string(e, "phase", ""),
                           .step = (int64_t)dr_json_get_number(e, "step", 0),
                           .steps = (int64_t)dr_json_get_number(e, "steps", 0),
                           .percent = dr_json_get_number(e, "percent", 0),
                           .it_s = dr_json_get_number(e, "it_s", 0),
                           .eta_s = dr_json_get_number(e, "eta_s", 0) };
}

static void line_started(dr_buf *out, const dr_json *e)
{
    dr_buf_printf(out, " by %s: %s on %s, %.0fx%.0f", dr_json_get_string(e, "worker", "?"),
                  dr_json_get_string(e, "model", "?"), dr_json_get_string(e, "device", "?"),
                  dr_json_get_number(e, "width", 0), dr_json_get_number(e, "height", 0));
}

static void line_progress(dr_buf *out, const dr_json *e)
{
    const dr_bar_state s = dr_follow_state(e);
    dr_buf_printf(out, " %s %lld/%lld %.0f%%", s.phase, (long long)s.step,
                  (long long)s.steps, s.percent);
}

static void line_image(dr_buf *out, const dr_json *e)
{
    dr_buf_printf(out, " %.0f: %.0f bytes in %s", dr_json_get_number(e, "index", 0),
                  dr_json_get_number(e, "bytes", 0), dr_json_get_string(e, "key", "?"));
}

static void line_preview(dr_buf *out, const dr_json *e)
{
    dr_buf_printf(out, " of step %.0f", dr_json_get_number(e, "step", 0));
}

static void line_message(dr_buf *out, const dr_json *e)
{
    const char *code = dr_json_get_string(e, "code", NULL);
    const char *field = dr_json_get_string(e, "field", NULL);
    if (code)
        dr_buf_printf(out, " %s", code);
    if (field)
        dr_buf_printf(out, " (%s)", field);
    dr_buf_printf(out, ": %s", dr_json_get_string(e, "message", ""));
}

static void line_succeeded(dr_buf *out, const dr_json *e)
{
    const dr_json *times = dr_json_get(e, "timings");
    dr_buf_printf(out, " %d pictures in %.0f ms", dr_json_count(dr_json_get(e, "images")),
                  dr_json_get_number(times, "total", 0));
}

void dr_follow_line(dr_buf *out, const dr_json *e)
{
    static const struct {
        const char *type;
        void (*line)(dr_buf *out, const dr_json *e);
    } rows[] = {
        { "started", line_started },     { "progress", line_progress },
        { "preview", line_preview },     { "image", line_image },
        { "warning", line_message },     { "failed", line_message },
        { "succeeded", line_succeeded },
    };
    const char *type = dr_json_get_string(e, "event", "?");
    dr_buf_puts(out, type);
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (!strcmp(type, rows[i].type))
            rows[i].line(out, e);
}
