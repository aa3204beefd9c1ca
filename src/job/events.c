#include "job/events.h"

#include "base/err.h"
#include "base/json.h"
#include "base/utf8.h"

#include <string.h>

/* How a member of an event's struct becomes a member of its JSON object. */
typedef enum { TEXT, TEXT_IF_SET, TRUE_IF_SET, INT, NUMBER, SEED } kind;

typedef struct {
    const char *key;
    kind kind;
    size_t offset;
} member;

#define M(type, kind, name)                                                                \
    {                                                                                      \
#name, kind, offsetof(type, name)                                                  \
    }

static const member start_members[] = {
    M(dr_event_start, TEXT, model), M(dr_event_start, TEXT, device),
    M(dr_event_start, INT, width),  M(dr_event_start, INT, height),
    M(dr_event_start, INT, n),      M(dr_event_start, INT, attempt),
};

static const member step_members[] = {
    M(dr_event_step, TEXT, phase),  M(dr_event_step, INT, step),
    M(dr_event_step, INT, steps),   M(dr_event_step, NUMBER, percent),
    M(dr_event_step, NUMBER, it_s), M(dr_event_step, NUMBER, eta_s),
};

static const member peek_members[] = {
    M(dr_event_peek, INT, step),
    M(dr_event_peek, INT, width),
    M(dr_event_peek, INT, height),
    M(dr_event_peek, TEXT_IF_SET, key),
};

static const member picture_members[] = {
    M(dr_event_picture, INT, index), M(dr_event_picture, SEED, seed),
    M(dr_event_picture, INT, width), M(dr_event_picture, INT, height),
    M(dr_event_picture, INT, bytes), M(dr_event_picture, TEXT, format),
    M(dr_event_picture, TEXT, key),  M(dr_event_picture, TRUE_IF_SET, sheet),
};

static const member lora_members[] = {
    M(dr_event_lora, TEXT, name),
    M(dr_event_lora, INT, matched),
    M(dr_event_lora, INT, unmatched),
};

static const member times_members[] = {
    M(dr_event_times, INT, wait),   M(dr_event_times, INT, load),
    M(dr_event_times, INT, encode), M(dr_event_times, INT, denoise),
    M(dr_event_times, INT, decode), M(dr_event_times, INT, compress),
    M(dr_event_times, INT, total),
};

static const member settings_members[] = {
    M(dr_event_success, INT, steps), M(dr_event_success, NUMBER, cfg_scale),
    M(dr_event_success, INT, width), M(dr_event_success, INT, height),
    M(dr_event_success, SEED, seed),
};

static const member failure_members[] = {
    M(dr_event_failure, TEXT, code),
    M(dr_event_failure, TEXT_IF_SET, field),
    M(dr_event_failure, TEXT, message),
};

/* A quoted text, whatever the bytes are: a message may come from a driver and may have been
 * cut inside a character. */
static void put_text(dr_buf *out, const char *text)
{
    char clean[DR_EVENT_TEXT_MAX + 1];
    size_t n = 0, left = text ? strlen(text) : 0;
    int32_t cp;
    while (left) {
        int len = dr_utf8_decode(text, left, &cp);
        size_t take = len > 0 ? (size_t)len : 1;
        if (n + take > DR_EVENT_TEXT_MAX)
            break;
        if (len > 0)
            memcpy(clean + n, text, take);
        else
            clean[n] = '?';
        n += take;
        text += take;
        left -= take;
    }
    clean[n] = 0;
    dr_json_put_string(out, clean);
}

static void put_int(dr_buf *out, int64_t v)
{
    dr_buf_printf(out, "%lld", (long long)v);
}

/* JavaScript's numbers lose bits from 2^53 on. */
static void put_seed(dr_buf *out, uint64_t seed)
{
    dr_buf_printf(out, seed < (uint64_t)1 << 53 ? "%llu" : "\"%llu\"",
                  (unsigned long long)seed);
}

static void put_key(dr_buf *out, const char *key)
{
    char before = out->len ? out->data[out->len - 1] : '{';
    dr_buf_printf(out, "%s\"%s\":", before == '{' ? "" : ",", key);
}

/* The members of the struct at p, inside an object that is open. */
static void put_members(dr_buf *out, const member *m, size_t count, const void *p)
{
    for (; count--; m++) {
        const void *at = (const char *)p + m->offset;
        const char *text = NULL;
        if (m->kind == TEXT || m->kind == TEXT_IF_SET)
            memcpy(&text, at, sizeof text);
        if (m->kind == TEXT_IF_SET && (!text || !*text))
            continue;
        if (m->kind == TRUE_IF_SET && !*(const bool *)at)
            continue;
        put_key(out, m->key);
        switch (m->kind) {
        case TEXT:
        case TEXT_IF_SET:
            put_text(out, text);
            break;
        case TRUE_IF_SET:
            dr_buf_puts(out, "true");
            break;
        case INT:
            put_int(out, *(const int64_t *)at);
            break;
        case NUMBER:
            dr_json_put_number(out, *(const double *)at);
            break;
        case SEED:
            put_seed(out, *(const uint64_t *)at);
            break;
        }
    }
}

#define PUT_MEMBERS(out, table, p) put_members(out, table, DR_COUNT(table), p)

static void open_event(dr_buf *out, const char *event, const dr_event_head *head)
{
    dr_buf_clear(out);
    dr_buf_puts(out, "{");
    put_key(out, "event");
    put_text(out, event);
    put_key(out, "id");
    put_text(out, head->id);
    put_key(out, "seq");
    put_int(out, head->seq);
    put_key(out, "worker");
    put_text(out, head->worker);
    put_key(out, "ts_ms");
    put_int(out, head->ts_ms);
    put_key(out, "meta");
    dr_buf_puts(out, head->meta_json ? head->meta_json : "null");
}

static void close_event(dr_buf *out)
{
    dr_buf_puts(out, "}");
}

static void put_event(dr_buf *out, const char *event, const dr_event_head *head,
                      const member *m, size_t count, const void *p)
{
    open_event(out, event, head);
    put_members(out, m, count, p);
    close_event(out);
}

#define PUT_EVENT(out, event, head, table, p)                                              \
    put_event(out, event, head, table, DR_COUNT(table), p)

void dr_event_queued(dr_buf *out, const dr_event_head *head)
{
    put_event(out, "queued", head, NULL, 0, NULL);
}

void dr_event_started(dr_buf *out, const dr_event_head *head, const dr_event_start *e)
{
    PUT_EVENT(out, "started", head, start_members, e);
}

void dr_event_progress(dr_buf *out, const dr_event_head *head, const dr_event_step *e)
{
    PUT_EVENT(out, "progress", head, step_members, e);
}

void dr_event_preview(dr_buf *out, const dr_event_head *head, const dr_event_peek *e)
{
    PUT_EVENT(out, "preview", head, peek_members, e);
}

void dr_event_image(dr_buf *out, const dr_event_head *head, const dr_event_picture *e)
{
    PUT_EVENT(out, "image", head, picture_members, e);
}

void dr_event_warning(dr_buf *out, const dr_event_head *head, const char *message)
{
    open_event(out, "warning", head);
    put_key(out, "message");
    put_text(out, message);
    close_event(out);
}

void dr_event_succeeded(dr_buf *out, const dr_event_head *head, const dr_event_success *e)
{
    open_event(out, "succeeded", head);
    put_key(out, "model");
    put_text(out, e->model);
    put_key(out, "sampler");
    put_text(out, dr_sampler_name(e->sampler));
    put_key(out, "schedule");
    put_text(out, dr_schedule_name(e->schedule));
    PUT_MEMBERS(out, settings_members, e);
    put_key(out, "images");
    dr_buf_puts(out, "[");
    for (int i = 0; i < e->n_images; i++) {
        dr_buf_puts(out, i ? ",{" : "{");
        PUT_MEMBERS(out, picture_members, &e->images[i]);
        dr_buf_puts(out, "}");
    }
    dr_buf_puts(out, "]");
    if (e->n_loras) {
        put_key(out, "loras");
        dr_buf_puts(out, "[");
        for (int i = 0; i < e->n_loras; i++) {
            dr_buf_puts(out, i ? ",{" : "{");
            PUT_MEMBERS(out, lora_members, &e->loras[i]);
            dr_buf_puts(out, "}");
        }
        dr_buf_puts(out, "]");
    }
    put_key(out, "timings");
    dr_buf_puts(out, "{");
    PUT_MEMBERS(out, times_members, &e->times);
    dr_buf_puts(out, "}");
    put_key(out, "warnings");
    dr_buf_puts(out, "[");
    for (int i = 0; i < e->n_warnings; i++) {
        dr_buf_puts(out, i ? "," : "");
        put_text(out, e->warnings[i]);
    }
    dr_buf_puts(out, "]");
    close_event(out);
}

void dr_event_failed(dr_buf *out, const dr_event_head *head, const dr_event_failure *e)
{
    PUT_EVENT(out, "failed", head, failure_members, e);
}

void dr_event_canceled(dr_buf *out, const dr_event_head *head)
{
    put_event(out, "canceled", head, NULL, 0, NULL);
}

void dr_event_expired(dr_buf *out, const dr_event_head *head)
{
    put_event(out, "expired", head, NULL, 0, NULL);
}
