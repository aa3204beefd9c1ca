/* Canceling, pausing, draining, dead letters and status against a private redis-server. */
#include "base/clock.h"
#include "base/json.h"
#include "job/entry.h"
#include "job/msgpack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/server.h"

typedef struct {
    server s;
    dr_queue *client, *worker, *ear; /* ear: another client, which may subscribe */
    dr_entry_reader reader;
} fixture;

static int setup(void **state)
{
    static fixture f;
    dr_err err = { 0 };
    server_start(&f.s);
    assert_int_equal(dr_conf_set(&f.s.conf, "queue.block_ms", "300", &err), DR_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    server_stop(&f->s);
    return 0;
}

static int test_setup(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    server_ask(&f->s, "FLUSHALL");
    server_ask(&f->s, "SCRIPT FLUSH");
    assert_int_equal(dr_queue_open(&f->client, &f->s.conf, "", &err), DR_OK);
    assert_int_equal(dr_queue_open(&f->worker, &f->s.conf, "w1", &err), DR_OK);
    assert_int_equal(dr_queue_open(&f->ear, &f->s.conf, "", &err), DR_OK);
    assert_int_equal(dr_entry_open(&f->reader, "", &err), DR_OK);
    return 0;
}

static int test_teardown(void **state)
{
    fixture *f = *state;
    dr_queue_close(f->client);
    dr_queue_close(f->worker);
    dr_queue_close(f->ear);
    dr_entry_close(&f->reader);
    return 0;
}

/* --- steps --- */

#define ASK(want, ...) assert_string_equal(server_askf(&f->s, __VA_ARGS__), want)

static dr_cancel_answer cancel(fixture *f, const char *id)
{
    dr_err err = { 0 };
    dr_cancel_answer answer;
    const dr_cancel_reader reader = dr_entry_canceling(&f->reader);
    if (dr_queue_cancel(f->client, id, &reader, false, &answer, &err))
        fail_msg("%s", err.message);
    return answer;
}

/* Send through submit.lua; "" or who holds the key. */
static const char *submit(fixture *f, const char *id, const char *unique)
{
    static char holder[DR_JOB_ID_MAX + 1];
    const char *const fields[] = {
        "id", id, "prompt", "a fox", "meta", "{\"user\":7}", "unique", unique ? unique : ""
    };
    dr_err err = { 0 };
    const dr_sending s = { .id = id,
                           .unique = unique,
                           .class = DR_PRIORITY_NORMAL,
                           .fields = fields,
                           .n = unique ? 8 : 6,
                           .text = "{\"event\":\"queued\"}",
                           .text_n = 18 };
    if (dr_queue_submit(f->client, &s, holder, &err))
        fail_msg("%s", err.message);
    return holder;
}

static bool claim(fixture *f, dr_claim *c, const char *id)
{
    dr_err err = { 0 };
    if (dr_queue_claim(f->worker, DR_OWN_NONE, NULL, 0, c, &err))
        fail_msg("%s", err.message);
    c->hold.id = id ? id : c->hold.entry;
    return c->reply != NULL;
}

static dr_answer start(fixture *f, dr_claim *c)
{
    dr_err err = { 0 };
    const dr_start_ask ask = { .seed = 7 };
    dr_start got;
    if (dr_queue_start(f->worker, &c->hold, &ask, &got, &err))
        fail_msg("%s", err.message);
    return got.answer;
}

static dr_answer finish(fixture *f, dr_claim *c, const char *ending, const char *dead)
{
    dr_err err = { 0 };
    dr_answer answer;
    const dr_ending e = { .state = ending,
                          .text = "{}",
                          .n = 2,
                          .seq = 9,
                          .code = dead,
                          .message = *dead ? "it broke" : "",
                          .dead = dead,
                          .held_ms = 10 };
    if (dr_queue_finish(f->worker, &c->hold, &e, &answer, &err))
        fail_msg("%s", err.message);
    return answer;
}

/* The last event of a job; free it. */
static dr_json *last_event(fixture *f, const char *id)
{
    dr_err err = { 0 };
    dr_cursor cursor = { 0 };
    dr_reply *reply;
    const char *text;
    size_t n;
    dr_json *last = NULL;
    for (;;) {
        assert_int_equal(
            dr_queue_next_event(f->ear, id, &cursor, 1, &reply, &text, &n, &err), DR_OK);
        if (!reply)
            return last;
        dr_json_free(last);
        assert_int_equal(dr_json_parse(&last, text, n, &err), DR_OK);
        dr_reply_free(reply);
    }
}

static void assert_canceled_event(fixture *f, const char *id, double seq, double user)
{
    dr_json *e = last_event(f, id);
    assert_non_null(e);
    assert_string_equal(dr_json_get_string(e, "event", ""), "canceled");
    assert_string_equal(dr_json_get_string(e, "id", ""), id);
    assert_true(dr_json_get_number(e, "seq", -1) == seq);
    assert_true(dr_json_get_number(dr_json_get(e, "meta"), "user", -1) == user);
    dr_json_free(e);
}

/* Hear the next message of a channel within a second; it must be this one, NULL: none. */
static dr_redis *listen_to(fixture *f, const char *channel)
{
    dr_redis *r = NULL;
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    assert_int_equal(dr_redis_new(&r, &f->s.conf, &err), DR_OK);
    dr_cmd_words(&c, "SUBSCRIBE", channel);
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_OK);
    return r;
}

static void assert_heard(dr_redis *r, const char *want)
{
    dr_reply *reply = NULL;
    dr_err err = { 0 };
    assert_int_equal(dr_redis_receive(r, want ? 1000 : 50, &reply, &err), DR_OK);
    if (want)
        assert_string_equal(dr_reply_text(dr_reply_at(reply, 2), NULL), want);
    else
        assert_null(reply);
    dr_reply_free(reply);
}

/* --- canceling --- */

static void a_sent_job_is_known_and_canceled_at_once(void **state)
{
    fixture *f = *state;
    dr_claim c;
    submit(f, "j0", NULL);
    submit(f, "j1", "key");
    submit(f, "j2", NULL);
    ASK("queued", "HGET {darkroom}:job:j1 state");
    ASK("{darkroom}:q:normal", "HGET {darkroom}:job:j1 stream");
    ASK("j1", "GET {darkroom}:unique:key");
    dr_redis *progress = listen_to(f, "{darkroom}:progress:j1");

    assert_int_equal(cancel(f, "j1").word, DR_CANCELED);
    assert_canceled_event(f, "j1", 1, 7);
    ASK("canceled", "HGET {darkroom}:job:j1 state");
    ASK("1", "HGET {darkroom}:job:j1 seq");
    ASK("0", "EXISTS {darkroom}:unique:key");
    ASK("1", "HGET {darkroom}:stats canceled");
    ASK("2", "XLEN {darkroom}:events:j1");
    dr_reply *heard = NULL;
    dr_err err = { 0 };
    assert_int_equal(dr_redis_receive(progress, 1000, &heard, &err), DR_OK);
    assert_non_null(strstr(dr_reply_text(dr_reply_at(heard, 2), NULL), "\"canceled\""));
    dr_reply_free(heard);
    dr_redis_free(progress);

    /* Again: nothing more happens. The neighbours are untouched. */
    dr_cancel_answer again = cancel(f, "j1");
    assert_int_equal(again.word, DR_CANCEL_ENDED);
    assert_string_equal(again.state, "canceled");
    ASK("2", "XLEN {darkroom}:events:j1");
    ASK("1", "HGET {darkroom}:stats canceled");
    ASK("2", "XLEN {darkroom}:q:normal");
    assert_true(claim(f, &c, "j0"));
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    dr_claim_free(&c);
    assert_true(claim(f, &c, "j2"));
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    dr_claim_free(&c);
    assert_false(claim(f, &c, NULL));
}

static void states_expire_only_when_they_may(void **state)
{
    fixture *f = *state;
    submit(f, "j1", NULL);
    assert_true(strtoll(server_ask(&f->s, "TTL {darkroom}:job:j1"), NULL, 10) > 2678000);
    cancel(f, "j1");
    long long ttl = strtoll(server_ask(&f->s, "TTL {darkroom}:job:j1"), NULL, 10);
    assert_true(ttl > 0 && ttl <= 3600);
    ttl = strtoll(server_ask(&f->s, "TTL {darkroom}:events:j1"), NULL, 10);
    assert_true(ttl > 0 && ttl <= 3600);
}

static void a_raw_job_is_found_by_its_entry(void **state)
{
    fixture *f = *state;
    char id[DR_ENTRY_NAME_MAX];
    ASK("1-1", "XADD {darkroom}:q:low 1-1 prompt x");
    dr_entry_job_id(
        id, DR_PRIORITY_LOW,
        server_ask(&f->s, "XADD {darkroom}:q:low * prompt y meta {\"user\":3}"));
    assert_int_equal(cancel(f, id).word, DR_CANCELED);
    assert_canceled_event(f, id, 1, 3);
    assert_int_equal(cancel(f, "1-1").word, DR_CANCEL_UNKNOWN); /* of normal */
    ASK("1", "XLEN {darkroom}:q:low");
    ASK("[1]", "XRANGE {darkroom}:q:low 1-1 1-1");
    /* An entry whose job has another id is not that job. */
    ASK("2-2", "XADD {darkroom}:q:high 2-2 prompt x id mine");
    assert_int_equal(cancel(f, "high.2-2").word, DR_CANCEL_UNKNOWN);
    ASK("1", "XLEN {darkroom}:q:high");
}

static void a_raw_job_is_found_among_many_pages(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 250; i++)
        server_askf(&f->s, "XADD {darkroom}:q:normal * prompt x id n%d", i);
    for (int i = 0; i < 100; i++) /* exactly one page */
        server_askf(&f->s,
                    "XADD {darkroom}:q:high * json {\"prompt\":\"x\",\"id\":\"h%d\"}", i);
    assert_int_equal(cancel(f, "n217").word, DR_CANCELED);
    assert_int_equal(cancel(f, "h99").word, DR_CANCELED);
    assert_int_equal(cancel(f, "n100").word, DR_CANCELED);
    ASK("248", "XLEN {darkroom}:q:normal");
    ASK("99", "XLEN {darkroom}:q:high");
    ASK("canceled", "HGET {darkroom}:job:n217 state");
    ASK("{darkroom}:q:high", "HGET {darkroom}:job:h99 stream");
    assert_int_equal(cancel(f, "n250").word, DR_CANCEL_UNKNOWN);
    ASK("248", "XLEN {darkroom}:q:normal");
}

static void events_are_msgpack_for_who_wants_it(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_cursor cursor = { 0 };
    dr_reply *reply;
    dr_value *value;
    const char *text;
    size_t n;
    ASK("5-5", "XADD {darkroom}:q:normal 5-5 prompt x id m1 events msgpack");
    assert_int_equal(cancel(f, "m1").word, DR_CANCELED);
    assert_int_equal(dr_queue_next_event(f->ear, "m1", &cursor, 1, &reply, &text, &n, &err),
                     DR_OK);
    dr_arena *mem = dr_arena_new();
    dr_buf json = { 0 };
    assert_int_equal(dr_value_from_msgpack(&value, mem, text, n, &err), DR_OK);
    assert_int_equal(dr_value_json(&json, value, &err), DR_OK);
    assert_non_null(strstr(json.data, "\"event\":\"canceled\""));
    dr_buf_free(&json);
    dr_arena_free(mem);
    dr_reply_free(reply);
}

static void a_running_job_is_marked_and_its_worker_rung(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_answer answer;
    dr_claim c;
    submit(f, "j1", NULL);
    dr_redis *bell = listen_to(f, "{darkroom}:control");
    /* Claimed, but not bound to its id yet. */
    assert_true(claim(f, &c, "j1"));
    dr_cancel_answer got = cancel(f, "j1");
    assert_int_equal(got.word, DR_CANCEL_ASKED);
    assert_string_equal(got.worker, "w1");
    assert_heard(bell, "cancel j1");
    ASK("1", "XLEN {darkroom}:q:normal");
    assert_int_equal(start(f, &c), DR_ANSWER_CANCEL);
    /* Running. */
    got = cancel(f, "j1");
    assert_int_equal(got.word, DR_CANCEL_ASKED);
    assert_string_equal(got.worker, "w1");
    assert_heard(bell, "cancel j1");
    assert_int_equal(dr_queue_renew(f->worker, &c.hold, &answer, &err), DR_OK);
    assert_int_equal(answer, DR_ANSWER_CANCEL);
    /* Without the bell, as a worker does it. */
    const dr_cancel_reader reader = dr_entry_canceling(&f->reader);
    assert_int_equal(dr_queue_cancel(f->client, "j1", &reader, true, &got, &err), DR_OK);
    assert_int_equal(got.word, DR_CANCEL_ASKED);
    assert_heard(bell, NULL);
    assert_int_equal(finish(f, &c, "canceled", ""), DR_ANSWER_OK);
    got = cancel(f, "j1");
    assert_int_equal(got.word, DR_CANCEL_ENDED);
    assert_string_equal(got.state, "canceled");
    assert_heard(bell, NULL);
    dr_redis_free(bell);
    dr_claim_free(&c);
}

static void a_raw_job_that_is_claimed_is_marked(void **state)
{
    fixture *f = *state;
    dr_claim c;
    ASK("1-0", "XADD {darkroom}:q:normal 1-0 prompt x id mine");
    assert_true(claim(f, &c, "mine"));
    assert_int_equal(cancel(f, "mine").word, DR_CANCEL_ASKED);
    assert_int_equal(start(f, &c), DR_ANSWER_CANCEL);
    dr_claim_free(&c);
}

static void a_job_that_was_handed_back_is_canceled_at_once(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_answer answer;
    dr_claim c, none;
    submit(f, "j1", NULL);
    assert_true(claim(f, &c, "j1"));
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    server_ask(&f->s, "SET {darkroom}:checkpoint:j1 state");
    assert_int_equal(dr_queue_release(f->worker, &c.hold, &answer, &err), DR_OK);
    assert_int_equal(cancel(f, "j1").word, DR_CANCELED);
    ASK("0", "EXISTS {darkroom}:checkpoint:j1");
    ASK("0", "XLEN {darkroom}:q:normal");
    ASK("[0]", "XPENDING {darkroom}:q:normal workers - + 9");
    assert_false(claim(f, &none, NULL));
    dr_claim_free(&c);
}

static void a_delayed_job_is_canceled_with_the_right_seq(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_answer answer;
    dr_claim c;
    submit(f, "j1", NULL);
    assert_true(claim(f, &c, "j1"));
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    assert_int_equal(
        dr_queue_retry(f->worker, &c.hold, 4, 60000, "lost", "{}", 2, &answer, &err),
        DR_OK);
    assert_int_equal(answer, DR_ANSWER_OK);
    ASK("1", "ZCARD {darkroom}:delayed");
    assert_int_equal(cancel(f, "j1").word, DR_CANCELED);
    ASK("0", "ZCARD {darkroom}:delayed");
    ASK("0", "XLEN {darkroom}:q:normal");
    assert_canceled_event(f, "j1", 5, 7);
    dr_claim_free(&c);
}

/* A reader during whose first look the job moves: a worker puts its start off. */
typedef struct {
    fixture *f;
    int looks;
} mover;

static bool move_and_read(void *ctx, const char *id, const char *entry,
                          const dr_reply *fields, int64_t seq, const char **text, size_t *n,
                          const char **unique)
{
    mover *m = ctx;
    const dr_cancel_reader reader = dr_entry_canceling(&m->f->reader);
    if (!m->looks++)
        server_askf(&m->f->s, "HSET {darkroom}:job:%s seq 3", id);
    return reader.read(reader.ctx, id, entry, fields, seq, text, n, unique);
}

static void a_job_that_moves_is_looked_at_again(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_cancel_answer answer;
    mover m = { .f = f };
    const dr_cancel_reader reader = { .ctx = &m, .read = move_and_read };
    submit(f, "j1", NULL);
    assert_int_equal(dr_queue_cancel(f->client, "j1", &reader, false, &answer, &err),
                     DR_OK);
    assert_int_equal(answer.word, DR_CANCELED);
    assert_int_equal(m.looks, 2);
    assert_canceled_event(f, "j1", 4, 7);
    ASK("2", "XLEN {darkroom}:events:j1");
}

static void an_unknown_job_is_canceled_when_it_comes(void **state)
{
    fixture *f = *state;
    dr_claim c;
    assert_int_equal(cancel(f, "later").word, DR_CANCEL_UNKNOWN);
    ASK("1", "HGET {darkroom}:job:later cancel");
    long long ttl = strtoll(server_ask(&f->s, "TTL {darkroom}:job:later"), NULL, 10);
    assert_true(ttl > 3500 && ttl <= 3600);
    submit(f, "later", NULL);
    ASK("1", "XLEN {darkroom}:q:normal");
    assert_true(claim(f, &c, "later"));
    assert_int_equal(start(f, &c), DR_ANSWER_CANCEL);
    dr_claim_free(&c);
}

static void a_job_whose_entry_was_deleted_is_ended(void **state)
{
    fixture *f = *state;
    submit(f, "j1", "key");
    ASK("1", "DEL {darkroom}:q:normal");
    assert_int_equal(cancel(f, "j1").word, DR_CANCELED);
    assert_canceled_event(f, "j1", 1, -1);
    ASK("0", "EXISTS {darkroom}:unique:key");
}

/* --- unique --- */

static void a_unique_key_admits_one_job(void **state)
{
    fixture *f = *state;
    assert_string_equal(submit(f, "j1", "key"), "");
    assert_string_equal(submit(f, "j1", "key"), ""); /* as after a lost reply */
    assert_string_equal(submit(f, "j2", "key"), "j1");
    ASK("1", "XLEN {darkroom}:q:normal");
    ASK("0", "EXISTS {darkroom}:job:j2");
    ASK("0", "EXISTS {darkroom}:events:j2");
    cancel(f, "j1");
    assert_string_equal(submit(f, "j2", "key"), "");
    ASK("j2", "GET {darkroom}:unique:key");
}

/* --- pausing and draining --- */

static void a_paused_class_starts_nothing(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_claim c;
    bool changed;
    dr_redis *bell = listen_to(f, "{darkroom}:control");
    submit(f, "j1", NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            dr_queue_pause(f->client, DR_PRIORITY_NORMAL, true, &changed, &err), DR_OK);
        assert_int_equal(changed, i == 0);
        assert_heard(bell, "pause normal");
    }
    assert_false(claim(f, &c, NULL));
    assert_int_equal(dr_queue_pause(f->client, DR_PRIORITY_NORMAL, false, &changed, &err),
                     DR_OK);
    assert_true(changed);
    assert_heard(bell, "resume normal");
    assert_true(claim(f, &c, NULL));
    dr_claim_free(&c);
    dr_redis_free(bell);
}

static void a_worker_is_asked_to_leave(void **state)
{
    fixture *f = *state;
    static const char *const pairs[] = { "host", "h" };
    dr_err err = { 0 };
    bool known, still, drain;
    dr_redis *bell = listen_to(f, "{darkroom}:control");
    assert_int_equal(dr_queue_drain(f->client, "w1", &known, &err), DR_OK);
    assert_false(known);
    ASK("0", "EXISTS {darkroom}:worker:w1"); /* it would never expire */
    assert_int_equal(dr_queue_beat(f->worker, 3000, pairs, 2, &drain, &err), DR_OK);
    assert_false(drain);
    assert_int_equal(dr_queue_drain(f->client, "w1", &known, &err), DR_OK);
    assert_true(known);
    assert_heard(bell, "drain w1");
    assert_int_equal(dr_queue_beat(f->worker, 3000, pairs, 2, &drain, &err), DR_OK);
    assert_true(drain);
    assert_int_equal(dr_queue_draining(f->client, "w1", &still, &err), DR_OK);
    assert_true(still);
    assert_int_equal(dr_queue_bye(f->worker, &err), DR_OK);
    assert_int_equal(dr_queue_draining(f->client, "w1", &still, &err), DR_OK);
    assert_false(still);
    dr_redis_free(bell);
}

/* --- the dead letters --- */

/* Let a job die; the entry of its dead letter. */
static const char *kill_job(fixture *f, const char *id)
{
    static char entry[64];
    dr_reply *reply;
    dr_err err = { 0 };
    dr_claim c;
    assert_true(claim(f, &c, id));
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    assert_int_equal(finish(f, &c, "failed", "device"), DR_ANSWER_OK);
    dr_claim_free(&c);
    const dr_dead_page newest = { .behind = "", .up_to = "", .n = 1 };
    assert_int_equal(dr_queue_dead(f->client, &newest, &reply, &err), DR_OK);
    assert_int_equal(dr_reply_count(reply), 1);
    snprintf(entry, sizeof entry, "%s",
             dr_reply_text(dr_reply_at(dr_reply_at(reply, 0), 0), NULL));
    dr_reply_free(reply);
    return entry;
}

static dr_dead_answer retry(fixture *f, const char *entry, const char *id, bool put_id,
                            const char *unique, char other[DR_JOB_ID_MAX + 1])
{
    dr_err err = { 0 };
    dr_dead_answer answer;
    const dr_revival r = { .entry = entry,
                           .id = id,
                           .unique = unique,
                           .class = DR_PRIORITY_LOW,
                           .put_id = put_id,
                           .text = "{\"event\":\"queued\"}",
                           .text_n = 18 };
    if (dr_queue_dead_retry(f->client, &r, &answer, other, &err))
        fail_msg("%s", err.message);
    return answer;
}

static void a_dead_job_lives_again_under_its_id(void **state)
{
    fixture *f = *state;
    char other[DR_JOB_ID_MAX + 1];
    dr_claim c;
    ASK("1-0", "XADD {darkroom}:q:low 1-0 prompt x steps 3");
    const char *entry = kill_job(f, "1-0");
    ASK("failed", "HGET {darkroom}:job:1-0 state");
    ASK("OK", "SET {darkroom}:checkpoint:1-0 old");
    assert_int_equal(retry(f, entry, "1-0", true, NULL, other), DR_DEAD_OK);
    ASK("0", "XLEN {darkroom}:dead");
    ASK("queued", "HGET {darkroom}:job:1-0 state");
    ASK("", "HGET {darkroom}:job:1-0 attempt");
    ASK("", "HGET {darkroom}:job:1-0 error");
    ASK("0", "EXISTS {darkroom}:checkpoint:1-0");
    ASK("1", "XLEN {darkroom}:events:1-0");
    assert_int_equal(retry(f, entry, "1-0", true, NULL, other), DR_DEAD_ABSENT);
    ASK("1", "XLEN {darkroom}:q:low");
    assert_true(claim(f, &c, "1-0"));
    static const char *const want[] = { "prompt", "x", "steps", "3", "id", "1-0" };
    assert_int_equal(c.n_fields, 3);
    for (int i = 0; i < c.n_fields; i++) {
        const char *name, *value;
        size_t n;
        dr_claim_field(&c, i, &name, &value, &n);
        assert_string_equal(name, want[2 * i]);
        assert_string_equal(value, want[2 * i + 1]);
    }
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    ASK("1", "HGET {darkroom}:job:1-0 attempt");
    dr_claim_free(&c);
}

static void a_dead_job_does_not_replace_a_live_one(void **state)
{
    fixture *f = *state;
    char other[DR_JOB_ID_MAX + 1];
    submit(f, "j1", NULL);
    const char *entry = kill_job(f, "j1");
    server_ask(&f->s, "DEL {darkroom}:job:j1 {darkroom}:events:j1");
    submit(f, "j1", NULL);
    assert_int_equal(retry(f, entry, "j1", false, NULL, other), DR_DEAD_BUSY);
    assert_string_equal(other, "queued");
    ASK("1", "XLEN {darkroom}:dead");
    ASK("1", "XLEN {darkroom}:q:normal");
    cancel(f, "j1");
    submit(f, "j2", "key");
    assert_int_equal(retry(f, entry, "j1", false, "key", other), DR_DEAD_DUPLICATE);
    assert_string_equal(other, "j2");
    cancel(f, "j2");
    assert_int_equal(retry(f, entry, "j1", false, "key", other), DR_DEAD_OK);
    ASK("j1", "GET {darkroom}:unique:key");
}

static void dead_letters_are_paged_and_dropped(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_reply *page;
    int64_t n;
    for (int i = 1; i <= 5; i++)
        server_askf(&f->s, "XADD {darkroom}:dead %d-0 id j%d class low reason poison", i,
                    i);
    const dr_dead_page older = { .behind = "4-0", .up_to = "", .n = 2 };
    assert_int_equal(dr_queue_dead(f->client, &older, &page, &err), DR_OK);
    assert_int_equal(dr_reply_count(page), 2);
    assert_string_equal(dr_dead_field(dr_reply_at(page, 0), "id", NULL), "j3");
    assert_string_equal(dr_dead_field(dr_reply_at(page, 1), "reason", NULL), "poison");
    assert_string_equal(dr_dead_field(dr_reply_at(page, 1), "message", NULL), "");
    dr_reply_free(page);
    const dr_dead_page later = {
        .oldest_first = true, .behind = "1-0", .up_to = "3-0", .n = 9
    };
    assert_int_equal(dr_queue_dead(f->client, &later, &page, &err), DR_OK);
    assert_int_equal(dr_reply_count(page), 2);
    assert_string_equal(dr_dead_field(dr_reply_at(page, 0), "id", NULL), "j2");
    dr_reply_free(page);
    assert_int_equal(dr_queue_dead_entry(f->client, "2-0", &page, &err), DR_OK);
    assert_int_equal(dr_reply_count(page), 1);
    dr_reply_free(page);
    assert_int_equal(dr_queue_dead_entry(f->client, "no entry", &page, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "no entry"));
    assert_int_equal(dr_queue_dead_drop(f->client, "2-0", &n, &err), DR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(dr_queue_dead_drop(f->client, "2-0", &n, &err), DR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(dr_queue_dead_drop_all(f->client, &n, &err), DR_OK);
    assert_int_equal(n, 4);
    assert_int_equal(dr_queue_dead_drop_all(f->client, &n, &err), DR_OK);
    assert_int_equal(n, 0);
}

/* --- status --- */

static dr_fleet look(fixture *f, dr_arena *mem)
{
    dr_fleet fleet;
    dr_err err = { 0 };
    if (dr_queue_status(f->client, mem, &fleet, &err))
        fail_msg("%s", err.message);
    return fleet;
}

static void an_empty_redis_has_a_status(void **state)
{
    fixture *f = *state;
    dr_arena *mem = dr_arena_new();
    dr_fleet fleet = look(f, mem);
    for (int i = 0; i < DR_CLASSES; i++) {
        assert_int_equal(fleet.classes[i].waiting, 0);
        assert_int_equal(fleet.classes[i].running, 0);
        assert_int_equal(fleet.classes[i].oldest_ms, -1);
        assert_false(fleet.classes[i].paused);
    }
    assert_int_equal(fleet.n_workers, 0);
    assert_int_equal(fleet.dead, 0);
    assert_int_equal(fleet.stats[DR_STAT_SUCCEEDED], 0);
    assert_true(fleet.memory > 100000);
    assert_int_equal(fleet.memory_max, 0);
    ASK("0", "EXISTS {darkroom}:q:normal"); /* looking makes nothing */
    dr_arena_free(mem);
}

static void status_counts_what_there_is(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_answer answer;
    dr_claim running, put_off;
    bool changed;
    dr_arena *mem = dr_arena_new();
    submit(f, "j1", NULL);
    submit(f, "j2", NULL);
    assert_true(claim(f, &running, "j1"));
    assert_int_equal(start(f, &running), DR_ANSWER_OK);
    assert_true(claim(f, &put_off, "j2"));
    assert_int_equal(start(f, &put_off), DR_ANSWER_OK);
    assert_int_equal(
        dr_queue_retry(f->worker, &put_off.hold, 1, 60000, "", "{}", 2, &answer, &err),
        DR_OK);
    /* The oldest of `high` is taken ahead of its turn. */
    int64_t now = dr_wall_ms();
    server_askf(&f->s, "XADD {darkroom}:q:high %lld-0 prompt x", (long long)now - 9000);
    server_askf(&f->s, "XADD {darkroom}:q:high %lld-0 prompt x", (long long)now - 8000);
    server_askf(&f->s, "XCLAIM {darkroom}:q:high workers other 0 %lld-0 FORCE",
                (long long)now - 9000);
    server_ask(&f->s, "XADD {darkroom}:dead * id x");
    assert_int_equal(dr_queue_pause(f->client, DR_PRIORITY_LOW, true, &changed, &err),
                     DR_OK);
    dr_fleet s = look(f, mem);
    assert_int_equal(s.classes[DR_PRIORITY_NORMAL].waiting, 0);
    assert_int_equal(s.classes[DR_PRIORITY_NORMAL].running, 1);
    assert_int_equal(s.classes[DR_PRIORITY_NORMAL].delayed, 1);
    assert_int_equal(s.classes[DR_PRIORITY_NORMAL].oldest_ms, -1);
    assert_int_equal(s.classes[DR_PRIORITY_HIGH].waiting, 1);
    assert_int_equal(s.classes[DR_PRIORITY_HIGH].running, 1);
    assert_in_range(s.classes[DR_PRIORITY_HIGH].oldest_ms, 7900, 10000);
    assert_true(s.classes[DR_PRIORITY_LOW].paused);
    assert_false(s.classes[DR_PRIORITY_HIGH].paused);
    assert_int_equal(s.dead, 1);
    assert_int_equal(s.stats[DR_STAT_RETRIED], 1);
    dr_claim_free(&running);
    dr_claim_free(&put_off);
    dr_arena_free(mem);
}

static void a_job_that_was_handed_back_waits(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_answer answer;
    dr_claim c;
    dr_arena *mem = dr_arena_new();
    long long then = (long long)dr_wall_ms() - 7000;
    server_askf(&f->s, "XADD {darkroom}:q:low %lld-0 prompt x", then);
    server_askf(&f->s, "XADD {darkroom}:q:low %lld-0 prompt x", then + 4000);
    assert_true(claim(f, &c, NULL));
    assert_int_equal(start(f, &c), DR_ANSWER_OK);
    assert_int_equal(dr_queue_release(f->worker, &c.hold, &answer, &err), DR_OK);
    dr_fleet s = look(f, mem);
    assert_int_equal(s.classes[DR_PRIORITY_LOW].waiting, 2);
    assert_int_equal(s.classes[DR_PRIORITY_LOW].running, 0);
    assert_in_range(s.classes[DR_PRIORITY_LOW].oldest_ms, 6900, 9000);
    dr_claim_free(&c);
    dr_arena_free(mem);
}

static void many_delayed_jobs_are_shared_out(void **state)
{
    fixture *f = *state;
    dr_arena *mem = dr_arena_new();
    for (int page = 0; page < 600; page++) {
        char line[2000];
        int n = snprintf(line, sizeof line, "ZADD {darkroom}:delayed");
        for (int i = 0; i < 20; i++)
            n += snprintf(line + n, sizeof line - (size_t)n, " %d %s:%d-%d", page,
                          i % 4 ? "low" : "high", page + 1, i);
        server_ask(&f->s, line);
    }
    ASK("12000", "ZCARD {darkroom}:delayed");
    dr_fleet s = look(f, mem);
    assert_int_equal(s.classes[DR_PRIORITY_LOW].delayed, 9000);
    assert_int_equal(s.classes[DR_PRIORITY_HIGH].delayed, 3000);
    dr_arena_free(mem);
}

static void workers_say_what_they_do(void **state)
{
    fixture *f = *state;
    static const char *const pairs[] = {
        "host",  "h1",   "pid",    "42",       "device",   "GPU",        "version", "1.2",
        "state", "busy", "jobs",   "[\"j1\"]", "step",     "3/20",       "s_step",  "0.81",
        "done",  "7",    "failed", "1",        "resident", "[\"sd15\"]",
    };
    dr_err err = { 0 };
    bool drain;
    dr_arena *mem = dr_arena_new();
    assert_int_equal(
        dr_queue_beat(f->worker, 3000, pairs, (int)DR_COUNT(pairs), &drain, &err), DR_OK);
    server_askf(&f->s, "ZADD {darkroom}:workers %lld gone", (long long)dr_wall_ms());
    dr_fleet s = look(f, mem);
    assert_int_equal(s.n_workers, 1); /* the other has not been seen for its whole ttl */
    assert_string_equal(s.workers[0].name, "w1");
    assert_string_equal(s.workers[0].host, "h1");
    assert_string_equal(s.workers[0].jobs, "[\"j1\"]");
    assert_string_equal(s.workers[0].s_step, "0.81");
    assert_string_equal(s.workers[0].models, "");
    assert_int_equal(s.workers[0].pid, 42);
    assert_int_equal(s.workers[0].done, 7);
    assert_in_range(s.now_ms - s.workers[0].seen_ms, 0, 2000);
    assert_false(s.workers[0].drain);
    dr_arena_free(mem);
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_sent_job_is_known_and_canceled_at_once),
        T(states_expire_only_when_they_may),
        T(a_raw_job_is_found_by_its_entry),
        T(a_raw_job_is_found_among_many_pages),
        T(events_are_msgpack_for_who_wants_it),
        T(a_running_job_is_marked_and_its_worker_rung),
        T(a_raw_job_that_is_claimed_is_marked),
        T(a_job_that_was_handed_back_is_canceled_at_once),
        T(a_delayed_job_is_canceled_with_the_right_seq),
        T(a_job_that_moves_is_looked_at_again),
        T(an_unknown_job_is_canceled_when_it_comes),
        T(a_job_whose_entry_was_deleted_is_ended),
        T(a_unique_key_admits_one_job),
        T(a_paused_class_starts_nothing),
        T(a_worker_is_asked_to_leave),
        T(a_dead_job_lives_again_under_its_id),
        T(a_dead_job_does_not_replace_a_live_one),
        T(dead_letters_are_paged_and_dropped),
        T(an_empty_redis_has_a_status),
        T(status_counts_what_there_is),
        T(a_job_that_was_handed_back_waits),
        T(many_delayed_jobs_are_shared_out),
        T(workers_say_what_they_do),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
