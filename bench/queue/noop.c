/* No-op jobs through darkroom's queue, with the calls and events of a worker but no engine.
 * usage: noop SOCKET enqueue|work|latency N [picture]; JSON on stdout. With `picture` a job
 * has a result of 2,508 bytes, as a small WebP has. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/conf.h"
#include "job/decode.h"
#include "job/events.h"
#include "queue/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKER     "noop"
#define FIELDS_MAX 32
#define ID         "noop-"
#define SECOND_NS  1000000000

/* When a job's work began, when it was over, when that was recorded, and how long claim and
 * start took. */
typedef struct {
    double start_s, end_s, recorded_s, taking_s;
} moments;

typedef struct {
    dr_conf conf;
    int n;
    bool picture;
    dr_queue *jobs;
    dr_arena *mem;
    dr_buf text;
    moments at;         /* of the job that was recorded last */
    atomic_int awaited; /* job whose end the subscriber is to see */
    double seen_s;
    sem_t recorded, seen;
} bench;

static void must(dr_status st, const dr_err *err)
{
    if (!st)
        return;
    fprintf(stderr, "noop: %s\n", err->message);
    exit(1);
}

static dr_queue *open_queue(const bench *b, const char *worker)
{
    dr_err err = { 0 };
    dr_queue *q = NULL;
    must(dr_queue_open(&q, &b->conf, worker, &err), &err);
    return q;
}

static void print_list(const char *name, const double *us, int n)
{
    printf(", \"%s\": [", name);
    for (int i = 0; i < n; i++)
        printf("%s%.1f", i ? ", " : "", us[i]);
    printf("]");
}

/* --- the client --- */

static void submit(dr_queue *q, int i)
{
    char id[64], holder[DR_JOB_ID_MAX + 1];
    dr_err err = { 0 };
    dr_buf text = { 0 };
    snprintf(id, sizeof id, ID "%d", i);
    const char *const fields[] = {
        "id",    id,    "prompt",    "a large red circle on a blue background",
        "width", "512", "height",    "512",
        "steps", "20",  "cfg_scale", "7.5",
        "seed",  "1",
    };
    dr_event_queued(&text,
                    &(dr_event_head){ .id = id, .worker = "", .ts_ms = dr_wall_ms() });
    const dr_sending s = { .id = id,
                           .class = DR_PRIORITY_NORMAL,
                           .fields = fields,
                           .n = sizeof fields / sizeof *fields,
                           .text = text.data,
                           .text_n = text.len };
    must(dr_queue_submit(q, &s, holder, &err), &err);
    dr_buf_free(&text);
}

/* --- the worker --- */

/* Returns when the call began that found the job. */
static double claim(bench *b, dr_claim *c)
{
    dr_err err = { 0 };
    for (;;) {
        double began_s = dr_now_s();
        must(dr_queue_claim(b->jobs, DR_OWN_NONE, NULL, 0, c, &err), &err);
        if (c->reply)
            return began_s;
        must(dr_queue_wait(b->jobs, &err), &err);
    }
}

static dr_job *decode(bench *b, const dr_claim *c)
{
    char own_id[DR_ENTRY_NAME_MAX];
    dr_field fields[FIELDS_MAX];
    dr_err err = { 0 };
    dr_job *job = NULL;
    int n = c->n_fields < FIELDS_MAX ? c->n_fields : FIELDS_MAX;
    for (int i = 0; i < n; i++)
        dr_claim_field(c, i, &fields[i].name, &fields[i].value, &fields[i].len);
    dr_entry_job_id(own_id, c->hold.class, c->hold.entry);
    must(dr_job_decode(&job, b->mem, own_id, fields, n, &(dr_job_defaults){ .quality = 90 },
                       &err),
         &err);
    return job;
}

static dr_event_head head_of(const dr_job *job, int64_t seq)
{
    return (dr_event_head){
        .id = job->id, .seq = seq, .worker = WORKER, .ts_ms = dr_wall_ms()
    };
}

static void publish(bench *b, const dr_hold *h, int64_t seq, const dr_blob *blob)
{
    dr_err err = { 0 };
    dr_answer answer;
    must(dr_queue_event(b->jobs, h, seq, b->text.data, b->text.len, blob, &answer, &err),
         &err);
}

static void start(bench *b, const dr_hold *h, const dr_job *job, dr_start *started)
{
    const dr_start_ask ask = { .seed = job->seed };
    dr_err err = { 0 };
    must(dr_queue_start(b->jobs, h, &ask, started, &err), &err);
    if (started->answer != DR_ANSWER_OK)
        must(dr_fail(&err, DR_EREDIS, "job %s does not start", job->id), &err);
}

static void tell_start(bench *b, const dr_hold *h, const dr_job *job, dr_start *started)
{
    const dr_event_head head = head_of(job, ++started->seq);
    const dr_event_start e = { .model = "demo-model",
                               .device = "none",
                               .width = job->width,
                               .height = job->height,
                               .n = 1,
                               .attempt = started->attempt };
    dr_event_started(&b->text, &head, &e);
    publish(b, h, started->seq, NULL);
}

static void finish(bench *b, const dr_hold *h, const dr_job *job, dr_start *started)
{
    static const char bytes[2508];
    char key[DR_KEY_MAX];
    const dr_blob blob = { .index = 0, .bytes = bytes, .n = sizeof bytes };
    const dr_event_picture picture = { .seed = job->seed,
                                       .width = job->width,
                                       .height = job->height,
                                       .bytes = sizeof bytes,
                                       .key =
                                           dr_queue_result_key(b->jobs, job->id, 0, key) };
    dr_err err = { 0 };
    dr_answer answer;
    if (b->picture) {
        const dr_event_head head = head_of(job, ++started->seq);
        dr_event_image(&b->text, &head, &picture);
        publish(b, h, started->seq, &blob);
    }
    const dr_event_head head = head_of(job, ++started->seq);
    const dr_event_success e = { .model = "demo-model",
                                 .sampler = DR_SAMPLER_DDIM,
                                 .schedule = DR_SCHEDULE_NORMAL,
                                 .steps = job->steps,
                                 .width = job->width,
                                 .height = job->height,
                                 .seed = job->seed,
                                 .images = &picture,
                                 .n_images = b->picture };
    dr_event_succeeded(&b->text, &head, &e);
    const dr_ending ending = { .state = "succeeded",
                               .text = b->text.data,
                               .n = b->text.len,
                               .seq = started->seq,
                               .code = "",
                               .message = "",
                               .dead = "",
                               .results = &blob,
                               .n_results = b->picture };
    must(dr_queue_finish(b->jobs, h, &ending, &answer, &err), &err);
    if (answer != DR_ANSWER_OK)
        must(dr_fail(&err, DR_EREDIS, "job %s does not end", job->id), &err);
}

static void serve(bench *b)
{
    dr_claim c;
    dr_start started;
    moments at;
    double began_s = claim(b, &c);
    dr_job *job = decode(b, &c);
    c.hold.id = job->id;
    start(b, &c.hold, job, &started);
    at.taking_s = dr_now_s() - began_s;
    tell_start(b, &c.hold, job, &started);
    at.start_s = dr_now_s();
    /* Here a picture would be made. */
    at.end_s = dr_now_s();
    finish(b, &c.hold, job, &started);
    at.recorded_s = dr_now_s();
    b->at = at;
    dr_claim_free(&c);
    dr_arena_reset(b->mem);
}

/* --- the runs --- */

static void enqueue(bench *b)
{
    dr_queue *q = open_queue(b, "");
    double begin_s = dr_now_s();
    for (int i = 0; i < b->n; i++)
        submit(q, i);
    printf("{\"seconds\": %.6f}\n", dr_now_s() - begin_s);
    dr_queue_close(q);
}

static void work(bench *b)
{
    double *end = calloc((size_t)b->n, sizeof *end), *taking = calloc((size_t)b->n, 8);
    double begin_s = 0;
    b->jobs = open_queue(b, WORKER);
    for (int i = 0; end && taking && i < b->n; i++) {
        serve(b);
        if (!i)
            begin_s = b->at.start_s;
        end[i] = (b->at.recorded_s - b->at.end_s) * 1e6;
        taking[i] = b->at.taking_s * 1e6;
    }
    printf("{\"seconds\": %.6f", b->at.recorded_s - begin_s);
    print_list("end", end, b->n);
    print_list("taking", taking, b->n);
    printf("}\n");
    free(end);
    free(taking);
}

static void *work_main(void *ctx)
{
    bench *b = ctx;
    for (;;) {
        serve(b);
        sem_post(&b->recorded);
    }
    return NULL;
}

/* Which job's success an event tells, -1: none's. */
static int success_of(const char *text)
{
    const char *id = strstr(text, "\"id\":\"" ID);
    if (!id || !strstr(text, "\"event\":\"succeeded\""))
        return -1;
    return (int)strtol(strstr(id, ID) + strlen(ID), NULL, 10);
}

static void *subscriber_main(void *ctx)
{
    bench *b = ctx;
    dr_queue *q = open_queue(b, "");
    for (;;) {
        dr_err err = { 0 };
        dr_reply *reply = NULL;
        const char *text = NULL;
        size_t n = 0;
        must(dr_queue_next_published(q, 1000, &reply, &text, &n, &err), &err);
        double now_s = dr_now_s();
        if (reply && success_of(text) == b->awaited) {
            b->seen_s = now_s;
            sem_post(&b->seen);
        }
        dr_reply_free(reply);
    }
    return NULL;
}

/* Send job i; it was recorded, and was seen unless this returns false after half a second.
 */
static bool follow(bench *b, dr_queue *q, int i)
{
    struct timespec end;
    b->awaited = i;
    submit(q, i);
    sem_wait(&b->recorded);
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_nsec += SECOND_NS / 2;
    end.tv_sec += end.tv_nsec / SECOND_NS;
    end.tv_nsec %= SECOND_NS;
    return !sem_timedwait(&b->seen, &end) || errno != ETIMEDOUT;
}

/* Ends the process, and with it the threads. The first jobs make the connections. */
static void latency(bench *b)
{
    enum { START, END, SEEN, TAKING, LISTS };
    static const char *const names[] = { "start", "end", "seen", "taking" };
    double *lists = calloc((size_t)b->n * LISTS, sizeof *lists);
    pthread_t worker, subscriber;
    dr_queue *q = open_queue(b, "");
    int sent = 0;
    dr_err err = { 0 };
    b->jobs = open_queue(b, WORKER);
    pthread_create(&subscriber, NULL, subscriber_main, b);
    pthread_create(&worker, NULL, work_main, b);
    while (!follow(b, q, sent++))
        continue;
    for (int i = 0; lists && i < b->n; i++) {
        usleep((useconds_t)(2000 + random() % 4000));
        double sent_s = dr_now_s();
        if (!follow(b, q, sent++))
            must(dr_fail(&err, DR_EIO, "job %d: its end was not published", i), &err);
        lists[START * b->n + i] = (b->at.start_s - sent_s) * 1e6;
        lists[END * b->n + i] = (b->at.recorded_s - b->at.end_s) * 1e6;
        lists[SEEN * b->n + i] = (b->seen_s - b->at.end_s) * 1e6;
        lists[TAKING * b->n + i] = b->at.taking_s * 1e6;
    }
    printf("{\"jobs\": %d", b->n);
    for (int i = 0; lists && i < LISTS; i++)
        print_list(names[i], lists + i * b->n, b->n);
    printf("}\n");
    exit(0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(bench *b);
    } modes[] = { { "enqueue", enqueue }, { "work", work }, { "latency", latency } };
    char url[256];
    dr_err err = { 0 };
    bench b = { .n = argc >= 4 ? (int)strtol(argv[3], NULL, 10) : 0 };
    if (b.n < 1) {
        fprintf(stderr, "usage: noop SOCKET enqueue|work|latency N [picture]\n");
        return 64;
    }
    snprintf(url, sizeof url, "unix://%s", argv[1]);
    must(dr_conf_init(&b.conf, &err), &err);
    must(dr_conf_set(&b.conf, "redis.url", url, &err), &err);
    b.mem = dr_arena_new();
    b.picture = argc > 4 && !strcmp(argv[4], "picture");
    sem_init(&b.recorded, 0, 0);
    sem_init(&b.seen, 0, 0);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[2], modes[i].name))
            modes[i].run(&b);
    dr_queue_close(b.jobs);
    dr_buf_free(&b.text);
    dr_arena_free(b.mem);
    dr_conf_free(&b.conf);
    return 0;
}
