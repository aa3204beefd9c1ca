/* The queue's scripts against a private redis-server on a unix socket: claiming, leases,
 * fences, one terminal event, and what happens when data or replies are lost. */
#include "queue/queue.h"

#include "base/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/server.h"

typedef struct {
    server s;
    dr_queue *a, *b; /* two workers */
} fixture;

static int setup(void **state)
{
    static fixture f;
    dr_err err = { 0 };
    server_start(&f.s);
    assert_int_equal(dr_conf_set(&f.s.conf, "lease.ms", "1000", &err), DR_OK);
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

/* Look at it from outside. */
static const char *ask(fixture *f, const char *line)
{
    return server_ask(&f->s, line);
}

static int test_setup(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    ask(f, "FLUSHALL");
    ask(f, "SCRIPT FLUSH");
    assert_int_equal(dr_queue_open(&f->a, &f->s.conf, "a", &err), DR_OK);
    assert_int_equal(dr_queue_open(&f->b, &f->s.conf, "b", &err), DR_OK);
    return 0;
}

static int test_teardown(void **state)
{
    fixture *f = *state;
    dr_queue_close(f->a);
    dr_queue_close(f->b);
    return 0;
}

/* Claim; true when there was a job. Its id becomes the entry's own. */
static bool claim(dr_queue *q, dr_claim *c)
{
    dr_err err = { 0 };
    if (dr_queue_claim(q, DR_OWN_NONE, NULL, 0, c, &err))
        fail_msg("%s", err.message);
    c->hold.id = c->hold.entry;
    return c->reply != NULL;
}

static dr_answer start(dr_queue *q, dr_claim *c, int64_t *attempt)
{
    dr_err err = { 0 };
    const dr_start_ask ask_start = { .crashes = c->crashes, .seed = 7 };
    dr_start got;
    if (dr_queue_start(q, &c->hold, &ask_start, &got, &err))
        fail_msg("%s", err.message);
    *attempt = got.attempt;
    return got.answer;
}

static dr_answer renew(dr_queue *q, const dr_claim *c)
{
    dr_err err = { 0 };
    dr_answer answer;
    if (dr_queue_renew(q, &c->hold, &answer, &err))
        fail_msg("%s", err.message);
    return answer;
}

static dr_answer event(dr_queue *q, const dr_claim *c, int64_t seq, const dr_blob *blob)
{
    dr_err err = { 0 };
    dr_answer answer;
    if (dr_queue_event(q, &c->hold, seq, "{}", 2, blob, &answer, &err))
        fail_msg("%s", err.message);
    return answer;
}

static dr_answer finish(dr_queue *q, const dr_claim *c, const dr_blob *blobs, int n,
                        bool with_bytes)
{
    dr_err err = { 0 };
    dr_answer answer;
    dr_ending e = { .state = "succeeded",
                    .text = "{\"event\":\"succeeded\"}",
                    .n = 21,
                    .seq = 9,
                    .code = "",
                    .message = "",
                    .dead = "",
                    .held_ms = 10,
                    .results = blobs,
                    .n_results = n,
                    .with_bytes = with_bytes };
    if (dr_queue_finish(q, &c->hold, &e, &answer, &err))
        fail_msg("%s", err.message);
    return answer;
}

static const char *key_of(const char *command, const char *kind, const dr_claim *c)
{
    static char line[256];
    snprintf(line, sizeof line, "%s {darkroom}:%s:%s", command, kind, c->hold.id);
    return line;
}

/* --- claiming --- */

static void an_empty_queue_gives_nothing(void **state)
{
    fixture *f = *state;
    dr_claim c;
    assert_false(claim(f->a, &c)); /* and makes the groups */
    assert_string_equal(ask(f, "XLEN {darkroom}:q:low"), "0");
    assert_string_equal(ask(f, "EXISTS {darkroom}:q:low"), "1");
    assert_false(claim(f->a, &c));
}

static void one_claim_takes_one_job_best_class_first(void **state)
{
    fixture *f = *state;
    static const char *const order[] = { "h1", "h2", "n1", "l1" };
    const char *name, *value;
    size_t n;
    ask(f, "XADD {darkroom}:q:low * prompt l1");
    ask(f, "XADD {darkroom}:q:normal * prompt n1");
    ask(f, "XADD {darkroom}:q:high * prompt h1");
    ask(f, "XADD {darkroom}:q:high * prompt h2");
    for (int i = 0; i < 4; i++) {
        dr_claim c;
        assert_true(claim(f->a, &c));
        assert_int_equal(c.hold.fence, i + 1);
        assert_int_equal(c.n_fields, 1);
        assert_true(c.wait_ms >= 0 && c.wait_ms < 5000);
        assert_int_equal(c.crashes, 0);
        dr_claim_field(&c, 0, &name, &value, &n);
        assert_string_equal(name, "prompt");
        assert_int_equal(n, 2);
        assert_string_equal(value, order[i]);
        dr_claim_free(&c);
    }
}

static void what_is_due_is_found_behind_a_paused_class(void **state)
{
    fixture *f = *state;
    dr_claim c;
    assert_false(claim(f->a, &c)); /* makes the groups */
    ask(f, "XADD {darkroom}:q:high 5-1 prompt late");
    ask(f, "ZADD {darkroom}:delayed 2 high:5-1");
    ask(f, "SADD {darkroom}:paused low");
    for (int i = 0; i < 600; i++) {
        char line[80];
        snprintf(line, sizeof line, "ZADD {darkroom}:delayed 1 low:%d-1", i + 1);
        ask(f, line);
    }
    assert_true(claim(f->a, &c));
    assert_string_equal(c.hold.entry, "5-1");
    assert_int_equal(c.hold.class, DR_PRIORITY_HIGH);
    dr_claim_free(&c);
    assert_false(claim(f->a, &c));
    assert_string_equal(ask(f, "ZCARD {darkroom}:delayed"), "600");
}

static void waiting_ends_with_the_first_new_job(void **state)
{
    fixture *f = *state;
    dr_claim c;
    dr_err err = { 0 };
    assert_false(claim(f->a, &c));
    double from = dr_now_s();
    assert_int_equal(dr_queue_wait(f->a, &err), DR_OK);
    assert_true(dr_now_s() - from >= 0.25);
    /* Sent between the claim and the wait: seen at once, not missed. */
    assert_false(claim(f->a, &c));
    ask(f, "XADD {darkroom}:q:low * prompt x");
    from = dr_now_s();
    assert_int_equal(dr_queue_wait(f->a, &err), DR_OK);
    assert_true(dr_now_s() - from < 0.2);
    assert_true(claim(f->a, &c));
    assert_int_equal(c.hold.class, DR_PRIORITY_LOW);
    dr_claim_free(&c);
}

/* The server in these tests is younger than a lease at first; then entries age. */
static void let_a_lease_pass(void)
{
    dr_sleep_ms(1100);
}

static void an_abandoned_job_is_found_among_many(void **state)
{
    fixture *f = *state;
    dr_claim c[15], again;
    int64_t attempt;
    assert_false(claim(f->b, &again)); /* b is connected while the server is young */
    for (int i = 0; i < 15; i++) {
        ask(f, "XADD {darkroom}:q:normal * prompt x");
        assert_true(claim(f->a, &c[i]));
        assert_int_equal(start(f->a, &c[i], &attempt), DR_ANSWER_OK);
    }
    let_a_lease_pass();
    for (int i = 0; i < 14; i++)
        assert_int_equal(renew(f->a, &c[i]), DR_ANSWER_OK);
    /* The last of fifteen was not renewed. */
    assert_true(claim(f->b, &again));
    assert_string_equal(again.hold.entry, c[14].hold.entry);
    assert_int_equal(again.crashes, 1);
    assert_int_equal(start(f->b, &again, &attempt), DR_ANSWER_OK);
    assert_int_equal(attempt, 2);
    char line[256];
    snprintf(line, sizeof line, "HGET {darkroom}:job:%s worker", again.hold.id);
    assert_string_equal(ask(f, line), "b");
    dr_claim_free(&again);
    assert_false(claim(f->b, &again));
    for (int i = 0; i < 15; i++)
        dr_claim_free(&c[i]);
}

static void an_entry_deleted_while_running_is_not_claimed_again(void **state)
{
    fixture *f = *state;
    dr_claim c, again;
    assert_false(claim(f->b, &again));
    ask(f, "XADD {darkroom}:q:normal 1-1 prompt x");
    assert_true(claim(f->a, &c));
    ask(f, "XDEL {darkroom}:q:normal 1-1");
    let_a_lease_pass();
    assert_false(claim(f->b, &again));
    dr_claim_free(&c);
}

static void the_group_comes_back_after_flushall(void **state)
{
    fixture *f = *state;
    dr_claim c;
    assert_false(claim(f->a, &c));
    ask(f, "FLUSHALL");
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    dr_claim_free(&c);
}

/* --- ids --- */

static void an_id_that_ended_does_not_run_again(void **state)
{
    fixture *f = *state;
    dr_claim c, again;
    int64_t attempt;
    ask(f, "XADD {darkroom}:q:normal * id same");
    assert_true(claim(f->a, &c));
    c.hold.id = "same";
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    assert_int_equal(attempt, 1);
    /* Asked again after a lost reply: the same answer, no second attempt. */
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    assert_int_equal(attempt, 1);
    /* A second entry while the first runs is dropped. */
    ask(f, "XADD {darkroom}:q:high * id same");
    assert_true(claim(f->b, &again));
    again.hold.id = "same";
    assert_int_equal(start(f->b, &again, &attempt), DR_ANSWER_ALREADY);
    assert_string_equal(ask(f, "XLEN {darkroom}:q:high"), "0");
    dr_claim_free(&again);
    assert_int_equal(finish(f->a, &c, NULL, 0, false), DR_ANSWER_OK);
    /* And one after the end. */
    ask(f, "XADD {darkroom}:q:low * id same");
    assert_true(claim(f->b, &again));
    again.hold.id = "same";
    assert_int_equal(start(f->b, &again, &attempt), DR_ANSWER_ALREADY);
    assert_string_equal(ask(f, "XLEN {darkroom}:q:low"), "0");
    assert_string_equal(ask(f, "XLEN {darkroom}:events:same"), "1");
    dr_claim_free(&again);
    dr_claim_free(&c);
}

/* --- events and the end --- */

static void events_are_stored_once(void **state)
{
    fixture *f = *state;
    dr_claim c;
    int64_t attempt;
    dr_blob image = { .index = 0, .bytes = "we\0bp", .n = 5 };
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    assert_int_equal(event(f->a, &c, 1, NULL), DR_ANSWER_OK);
    assert_int_equal(event(f->a, &c, 1, NULL), DR_ANSWER_ALREADY);
    assert_int_equal(event(f->a, &c, 2, &image), DR_ANSWER_OK);
    assert_int_equal(event(f->a, &c, 2, &image), DR_ANSWER_ALREADY);
    assert_string_equal(ask(f, key_of("XLEN", "events", &c)), "2");
    char line[256];
    snprintf(line, sizeof line, "STRLEN {darkroom}:result:%s:0", c.hold.id);
    assert_string_equal(ask(f, line), "5");
    assert_true(atol(ask(f, key_of("TTL", "events", &c))) > 3500);
    assert_true(atol(ask(f, key_of("TTL", "job", &c))) > 30 * 86400); /* running */
    assert_int_equal(event(f->b, &c, 3, NULL), DR_ANSWER_LOST);
    dr_claim_free(&c);
}

static void there_is_one_terminal_event(void **state)
{
    fixture *f = *state;
    dr_claim c;
    int64_t attempt;
    dr_blob image = { .index = 0, .bytes = "webp", .n = 4 };
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    /* The image's event was dropped: nothing changes until the bytes come along. */
    assert_int_equal(finish(f->a, &c, &image, 1, false), DR_ANSWER_MISSING);
    assert_string_equal(ask(f, "XLEN {darkroom}:q:normal"), "1");
    assert_string_equal(ask(f, key_of("XLEN", "events", &c)), "0");
    assert_int_equal(finish(f->a, &c, &image, 1, true), DR_ANSWER_OK);
    assert_int_equal(finish(f->a, &c, &image, 1, true), DR_ANSWER_ALREADY);
    assert_int_equal(finish(f->b, &c, &image, 1, true), DR_ANSWER_LOST);
    assert_string_equal(ask(f, key_of("XLEN", "events", &c)), "1");
    assert_string_equal(ask(f, "XLEN {darkroom}:q:normal"), "0");
    assert_string_equal(ask(f, "XPENDING {darkroom}:q:normal workers - + 9"), "[0]");
    assert_true(atol(ask(f, key_of("TTL", "job", &c))) > 3500);
    assert_int_equal(renew(f->a, &c), DR_ANSWER_LOST);
    assert_int_equal(event(f->a, &c, 9, NULL), DR_ANSWER_LOST);
    dr_claim_free(&c);
}

static void a_zombie_changes_nothing(void **state)
{
    fixture *f = *state;
    dr_claim c, taken;
    int64_t attempt;
    assert_false(claim(f->b, &taken));
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    let_a_lease_pass();
    assert_true(claim(f->b, &taken));
    /* Claimed by b, not yet bound: a's fence still stands in the hash. */
    assert_int_equal(renew(f->a, &c), DR_ANSWER_LOST);
    assert_int_equal(finish(f->a, &c, NULL, 0, false), DR_ANSWER_LOST);
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_LOST);
    assert_int_equal(start(f->b, &taken, &attempt), DR_ANSWER_OK);
    assert_int_equal(event(f->a, &c, 5, NULL), DR_ANSWER_LOST);
    assert_int_equal(finish(f->a, &c, NULL, 0, false), DR_ANSWER_LOST);
    assert_int_equal(renew(f->b, &taken), DR_ANSWER_OK);
    assert_int_equal(finish(f->b, &taken, NULL, 0, false), DR_ANSWER_OK);
    assert_int_equal(finish(f->a, &c, NULL, 0, false), DR_ANSWER_LOST);
    assert_string_equal(ask(f, key_of("XLEN", "events", &c)), "1");
    dr_claim_free(&c);
    dr_claim_free(&taken);
}

static void work_outlives_lost_data(void **state)
{
    fixture *f = *state;
    dr_claim c;
    int64_t attempt;
    dr_blob image = { .index = 0, .bytes = "webp", .n = 4 };
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    assert_int_equal(event(f->a, &c, 1, &image), DR_ANSWER_OK);
    ask(f, "FLUSHALL");
    ask(f, "SCRIPT FLUSH");
    assert_int_equal(renew(f->a, &c), DR_ANSWER_GONE);
    assert_int_equal(event(f->a, &c, 2, NULL), DR_ANSWER_GONE);
    assert_int_equal(finish(f->a, &c, &image, 1, false), DR_ANSWER_MISSING);
    assert_int_equal(finish(f->a, &c, &image, 1, true), DR_ANSWER_OK);
    assert_int_equal(finish(f->a, &c, &image, 1, true), DR_ANSWER_ALREADY);
    assert_string_equal(ask(f, key_of("XLEN", "events", &c)), "1");
    dr_claim_free(&c);
}

static void an_expired_end_is_not_repeated(void **state)
{
    fixture *f = *state;
    dr_claim c;
    dr_err err = { 0 };
    dr_answer answer;
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    ask(f, "XACK {darkroom}:q:normal workers 0"); /* no such entry: no effect */
    char line[256];
    snprintf(line, sizeof line, "XACK {darkroom}:q:normal workers %s", c.hold.entry);
    ask(f, line);
    snprintf(line, sizeof line, "XDEL {darkroom}:q:normal %s", c.hold.entry);
    ask(f, line);
    /* Held for longer than a ttl, no hash, no entry: another worker ended it long ago. */
    dr_ending e = { .state = "succeeded",
                    .text = "{}",
                    .n = 2,
                    .code = "",
                    .message = "",
                    .dead = "",
                    .held_ms = 3600 * 1000 };
    assert_int_equal(dr_queue_finish(f->a, &c.hold, &e, &answer, &err), DR_OK);
    assert_int_equal(answer, DR_ANSWER_LOST);
    assert_string_equal(ask(f, key_of("EXISTS", "events", &c)), "0");
    dr_claim_free(&c);
}

static void a_released_job_is_taken_at_once(void **state)
{
    fixture *f = *state;
    dr_claim c, taken;
    dr_err err = { 0 };
    dr_answer answer;
    int64_t attempt;
    let_a_lease_pass(); /* so that b, connecting now, may look at others' entries */
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    assert_false(claim(f->b, &taken));
    assert_int_equal(dr_queue_release(f->a, &c.hold, &answer, &err), DR_OK);
    assert_int_equal(answer, DR_ANSWER_OK);
    assert_true(claim(f->b, &taken));
    assert_int_equal(taken.crashes, 0);
    assert_int_equal(start(f->b, &taken, &attempt), DR_ANSWER_OK);
    assert_int_equal(attempt, 2);
    assert_int_equal(dr_queue_release(f->a, &c.hold, &answer, &err), DR_OK);
    assert_int_equal(answer, DR_ANSWER_LOST);
    dr_claim_free(&c);
    dr_claim_free(&taken);
}

static void a_full_server_still_takes_the_end(void **state)
{
    fixture *f = *state;
    dr_claim c;
    dr_err err = { 0 };
    dr_answer answer;
    int64_t attempt;
    dr_blob image = { .index = 0, .bytes = "webp", .n = 4 };
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c));
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    ask(f, "CONFIG SET maxmemory 1");
    assert_int_equal(dr_queue_event(f->a, &c.hold, 1, "{}", 2, NULL, &answer, &err),
                     DR_EREDIS);
    assert_true(dr_redis_says(&err, "OOM"));
    assert_int_equal(finish(f->a, &c, &image, 1, true), DR_ANSWER_OK);
    ask(f, "CONFIG SET maxmemory 0");
    dr_claim_free(&c);
}

/* --- clients and the registry --- */

static void a_client_reads_every_event(void **state)
{
    fixture *f = *state;
    static const char *const fields[] = { "id", "j1", "prompt", "x" };
    dr_err err = { 0 };
    dr_cursor cursor = { 0 };
    dr_reply *reply;
    dr_claim c;
    const char *text;
    int64_t attempt;
    size_t n;
    char holder[DR_JOB_ID_MAX + 1];
    const dr_sending s = { .id = "j1",
                           .class = DR_PRIORITY_HIGH,
                           .fields = fields,
                           .n = 4,
                           .text = "{\"event\":\"queued\"}",
                           .text_n = 18 };
    for (int i = 0; i < 2; i++) /* the second as after a lost reply */
        assert_int_equal(dr_queue_submit(f->b, &s, holder, &err), DR_OK);
    assert_string_equal(ask(f, "XLEN {darkroom}:q:high"), "1");
    assert_true(claim(f->a, &c));
    c.hold.id = "j1";
    assert_int_equal(start(f->a, &c, &attempt), DR_ANSWER_OK);
    assert_int_equal(finish(f->a, &c, NULL, 0, false), DR_ANSWER_OK);
    static const char *const want[] = { "{\"event\":\"queued\"}",
                                        "{\"event\":\"succeeded\"}" };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            dr_queue_next_event(f->b, "j1", &cursor, 100, &reply, &text, &n, &err), DR_OK);
        assert_non_null(reply);
        assert_string_equal(text, want[i]);
        assert_int_equal(n, strlen(want[i]));
        dr_reply_free(reply);
    }
    assert_int_equal(dr_queue_next_event(f->b, "j1", &cursor, 50, &reply, &text, &n, &err),
                     DR_OK);
    assert_null(reply);
    dr_claim_free(&c);
}

static void bytes_of_a_field_arrive_whole(void **state)
{
    fixture *f = *state;
    static const char *const fields[] = { "id", "j1", "image", "a\0b" };
    static const size_t sizes[] = { 2, 2, 5, 3 };
    dr_err err = { 0 };
    dr_claim c;
    const char *name, *value;
    char holder[DR_JOB_ID_MAX + 1];
    size_t n;
    const dr_sending s = { .id = "j1",
                           .class = DR_PRIORITY_NORMAL,
                           .fields = fields,
                           .sizes = sizes,
                           .n = 4,
                           .text = "{}",
                           .text_n = 2 };
    assert_int_equal(dr_queue_submit(f->b, &s, holder, &err), DR_OK);
    assert_true(claim(f->a, &c));
    dr_claim_field(&c, 1, &name, &value, &n);
    assert_string_equal(name, "image");
    assert_int_equal(n, 3);
    assert_memory_equal(value, "a\0b", 3);
    dr_claim_free(&c);
}

static void pictures_beside_the_queue(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_reply *reply;
    size_t n;
    assert_int_equal(dr_queue_input_put(f->b, "j1", "init", "p\0ng", 4, 60, &err), DR_OK);
    assert_string_equal(ask(f, "TTL {darkroom}:input:j1:init"), "60");
    static const char *const good[] = { "input:j1:init", "{darkroom}:input:j1:init" };
    for (size_t i = 0; i < DR_COUNT(good); i++) {
        assert_int_equal(dr_queue_input_get(f->a, good[i], &reply, &err), DR_OK);
        assert_memory_equal(dr_reply_text(reply, &n), "p\0ng", 4);
        assert_int_equal(n, 4);
        dr_reply_free(reply);
    }
    static const struct {
        const char *key, *message;
        dr_status st;
    } bad[] = {
        { "input:j1:mask", "key input:j1:mask: nothing there; store the picture again",
          DR_ENOTFOUND },
        { "{other}:input:j1:init",
          "of another queue; this one's begin with {darkroom}:input:", DR_EINVAL },
        { "{darkroom}:job:j1", "of another queue", DR_EINVAL },
        { "job:j1", "of another queue", DR_EINVAL },
        { "", "of another queue", DR_EINVAL },
        { "input:j1:list", "holds no string", DR_EINVAL },
        { "input:j1:large", "more than 33554432 bytes", DR_EINVAL },
    };
    ask(f, "RPUSH {darkroom}:input:j1:list x");
    ask(f, "SETRANGE {darkroom}:input:j1:large 33554432 x");
    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        assert_int_equal(dr_queue_input_get(f->a, bad[i].key, &reply, &err), bad[i].st);
        assert_non_null(strstr(err.message, bad[i].message));
        assert_null(reply);
    }
    ask(f, "SETRANGE {darkroom}:input:j1:most 33554431 x");
    assert_int_equal(dr_queue_input_get(f->a, "input:j1:most", &reply, &err), DR_OK);
    dr_reply_text(reply, &n);
    assert_int_equal(n, DR_IMAGE_BYTES_MAX);
    dr_reply_free(reply);
}

static void published_events_arrive(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_reply *reply;
    const char *text;
    size_t n;
    assert_int_equal(dr_queue_next_published(f->b, 10, &reply, &text, &n, &err), DR_OK);
    assert_null(reply);
    assert_string_equal(ask(f, "PUBLISH {darkroom}:progress hello"), "1");
    assert_int_equal(dr_queue_next_published(f->b, 1000, &reply, &text, &n, &err), DR_OK);
    assert_non_null(reply);
    assert_string_equal(text, "hello");
    dr_reply_free(reply);
    /* The connection is cut: said once, then subscribed again. */
    ask(f, "CLIENT KILL TYPE pubsub");
    assert_int_equal(dr_queue_next_published(f->b, 500, &reply, &text, &n, &err), DR_EIO);
    assert_int_equal(dr_queue_next_published(f->b, 10, &reply, &text, &n, &err), DR_OK);
    assert_string_equal(ask(f, "PUBLISH {darkroom}:progress again"), "1");
    assert_int_equal(dr_queue_next_published(f->b, 1000, &reply, &text, &n, &err), DR_OK);
    assert_string_equal(text, "again");
    dr_reply_free(reply);
}

static void workers_are_listed_while_they_live(void **state)
{
    fixture *f = *state;
    static const char *const pairs[] = { "host", "h", "pid", "1" };
    bool drain;
    dr_claim c;
    dr_err err = { 0 };
    ask(f, "XADD {darkroom}:q:normal * prompt x");
    assert_true(claim(f->a, &c)); /* a holds a job, b does not */
    dr_claim none;
    assert_false(claim(f->b, &none));
    assert_int_equal(dr_queue_beat(f->a, 3000, pairs, 4, &drain, &err), DR_OK);
    assert_int_equal(dr_queue_beat(f->b, 3000, pairs, 4, &drain, &err), DR_OK);
    assert_string_equal(ask(f, "ZCARD {darkroom}:workers"), "2");
    assert_string_equal(ask(f, "HGET {darkroom}:worker:a host"), "h");
    assert_true(atol(ask(f, "PTTL {darkroom}:worker:a")) > 2000);
    assert_int_equal(dr_queue_bye(f->a, &err), DR_OK);
    assert_int_equal(dr_queue_bye(f->b, &err), DR_OK);
    assert_string_equal(ask(f, "ZCARD {darkroom}:workers"), "0");
    assert_string_equal(ask(f, "EXISTS {darkroom}:worker:a"), "0");
    /* Only b left the group: deleting a consumer deletes what it holds. */
    assert_string_equal(ask(f, "XINFO CONSUMERS {darkroom}:q:normal workers"), "[1]");
    assert_string_equal(ask(f, "XPENDING {darkroom}:q:normal workers - + 9"), "[1]");
    dr_claim_free(&c);
    /* What a left behind may be taken at once, and is no crash. */
    assert_true(claim(f->b, &c));
    assert_int_equal(c.crashes, 0);
    dr_claim_free(&c);
}

static void refused_credentials_are_fatal(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_queue *q = NULL;
    dr_claim c;
    ask(f, "CONFIG SET requirepass secret");
    assert_int_equal(dr_queue_open(&q, &f->s.conf, "c", &err), DR_OK);
    assert_int_not_equal(dr_queue_claim(q, DR_OWN_NONE, NULL, 0, &c, &err), DR_OK);
    assert_true(dr_redis_fatal(&err));
    assert_non_null(strstr(err.message, "NOAUTH"));
    dr_queue_close(q);
    ask(f, "CONFIG SET requirepass ");
}

static void bad_names_are_refused(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_queue *q = NULL;
    assert_int_equal(dr_queue_open(&q, &f->s.conf, "two words", &err), DR_EINVAL);
    assert_string_equal(err.field, "worker.name");
    assert_null(q);
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_empty_queue_gives_nothing),
        T(one_claim_takes_one_job_best_class_first),
        T(what_is_due_is_found_behind_a_paused_class),
        T(waiting_ends_with_the_first_new_job),
        T(an_abandoned_job_is_found_among_many),
        T(an_entry_deleted_while_running_is_not_claimed_again),
        T(the_group_comes_back_after_flushall),
        T(an_id_that_ended_does_not_run_again),
        T(events_are_stored_once),
        T(there_is_one_terminal_event),
        T(a_zombie_changes_nothing),
        T(work_outlives_lost_data),
        T(an_expired_end_is_not_repeated),
        T(a_released_job_is_taken_at_once),
        T(a_full_server_still_takes_the_end),
        T(a_client_reads_every_event),
        T(bytes_of_a_field_arrive_whole),
        T(pictures_beside_the_queue),
        T(published_events_arrive),
        T(workers_are_listed_while_they_live),
        T(refused_credentials_are_fatal),
        T(bad_names_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
