#include "worker/worker.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "worker/state.h"

#include <darkroom/version.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BATCH_ELSEWHERE 4   /* than on CPUs, when batch.max is 0 */
#define READY_LEASES    1.5 /* without an answer of Redis until the worker is not ready */

/* --- signals ---
 * They are blocked in every thread and taken by one that does nothing else. A handler would
 * not do: while kernels compile, LLVM has its own handlers in place, which delete the
 * compiler's files before they pass the signal on, and the job would fail. */

static sigset_t stop_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

static void *signal_main(void *ctx)
{
    dr_worker *w = ctx;
    const sigset_t set = stop_signals();
    for (int number; !sigwait(&set, &number) && !w->signals_end;) {
        if (w->stopping)
            _exit(128 + number);
        w->stopping = true;
    }
    return NULL;
}

/* Before any other thread exists, so that all inherit the mask. */
static dr_status start_signals(dr_worker *w, dr_err *err)
{
    const struct sigaction ignore = { .sa_handler = SIG_IGN };
    const sigset_t set = stop_signals();
    sigaction(SIGPIPE, &ignore, NULL); /* a closed connection is an error, not the end */
    pthread_sigmask(SIG_BLOCK, &set, &w->old_mask);
    w->signals_started = !pthread_create(&w->signals, NULL, signal_main, w);
    return w->signals_started ? DR_OK : dr_fail(err, DR_ENOMEM, "no thread for signals");
}

static void end_signals(dr_worker *w)
{
    if (!w->signals_started)
        return;
    w->signals_end = true;
    pthread_kill(w->signals, SIGTERM);
    pthread_join(w->signals, NULL);
    pthread_sigmask(SIG_SETMASK, &w->old_mask, NULL);
}

/* worker.name, else host-pid with what keys cannot hold replaced. */
static dr_status choose_name(dr_worker *w, dr_err *err)
{
    const char *set = w->conf->worker.name;
    gethostname(w->host, sizeof w->host - 1);
    if (strlen(set) > DR_WORKER_NAME)
        return dr_fail_field(err, DR_EINVAL, "worker.name",
                             "worker.name of %zu bytes: must be at most %d", strlen(set),
                             DR_WORKER_NAME);
    if (*set) {
        snprintf(w->name, sizeof w->name, "%s", set);
        return DR_OK;
    }
    snprintf(w->name, sizeof w->name, "%.63s-%ld", *w->host ? w->host : "host",
             (long)getpid());
    for (char *p = w->name; *p; p++)
        if (*p <= ' ' || *p >= 0x7f || *p == ':')
            *p = '-';
    return DR_OK;
}

static dr_status open_queues(dr_worker *w, dr_err *err)
{
    dr_queue **const all[] = { &w->jobs, &w->leases, &w->control };
    dr_status st = DR_OK;
    for (size_t i = 0; i < DR_COUNT(all) && !st; i++)
        st = dr_queue_open(all[i], w->conf, w->name, err);
    return st;
}

/* After the mask of start_signals, which its thread inherits. */
static dr_status open_metrics(dr_worker *w, dr_err *err)
{
    w->metrics = dr_metrics_new(READY_LEASES * (double)w->conf->lease.ms / 1000);
    if (!w->metrics)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    dr_metrics_describe(w->metrics, w->name, "");
    return dr_http_start(&w->http, w->conf->metrics.listen, dr_metrics_routes, w->metrics,
                         err);
}

/* The default model is loaded before the first job, so that a worker which is ready is. */
static dr_status open_engine(dr_worker *w, dr_err *err)
{
    char device[300], quoted[600];
    double from_s = dr_now_s();
    dr_model *m;
    dr_buf names = { 0 };
    dr_status st = dr_dev_open(&w->dev, w->conf, err);
    if (!st)
        st = dr_models_open(&w->models, w->dev, w->conf, err);
    if (!st)
        st = dr_models_get(w->models, 0, NULL, NULL, &m, err);
    if (st)
        return st;
    w->device = dr_dev_describe(w->dev)->name;
    w->batch_max = w->conf->batch.max;
    if (!w->batch_max)
        w->batch_max = dr_is_cpu(dr_dev_describe(w->dev)) ? 1 : BATCH_ELSEWHERE;
    dr_metrics_describe(w->metrics, w->name, w->device);
    dr_models_names_json(w->models, false, &names);
    dr_log(DR_INFO, "worker.ready",
           "worker=%s version=%s models=%s device=%s redis=%s load_ms=%lld", w->name,
           DR_VERSION, dr_log_quote(quoted, sizeof quoted, names.data ? names.data : ""),
           dr_log_quote(device, sizeof device, w->device),
           dr_redis_endpoint(dr_queue_redis(w->jobs)),
           (long long)((dr_now_s() - from_s) * 1000));
    dr_buf_free(&names);
    return DR_OK;
}

static dr_status open_rest(dr_worker *w, dr_err *err)
{
    if (!(w->scratch = dr_arena_new()) || !(w->fleet_mem = dr_arena_new()))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < DR_SLOTS; i++)
        if (!(w->slots[i].mem = dr_arena_new()))
            return dr_fail(err, DR_ENOMEM, "out of memory");
    return dr_entry_open(&w->reader, w->name, err);
}

static void init(dr_worker *w, const dr_conf *conf, int64_t once)
{
    pthread_condattr_t attr;
    w->conf = conf;
    w->started_ms = dr_wall_ms();
    w->jobs_left = once ? once : -1;
    w->own = DR_OWN_LEFT;
    dr_mail_init(&w->to_engine);
    dr_mail_init(&w->to_io);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->lease_wake, &attr);
    pthread_condattr_destroy(&attr);
}

static void destroy(dr_worker *w)
{
    for (int i = 0; i < DR_SLOTS; i++) {
        dr_slot *s = &w->slots[i];
        for (int k = 0; k < DR_PICTURES_MAX; k++) {
            dr_free(s->images[k].rgb);
            dr_buf_free(&s->images[k].webp);
        }
        dr_buf_free(&s->ending);
        dr_buf_free(&s->checkpoint);
        dr_claim_free(&s->claim);
        dr_reply_free(s->resume);
        dr_free(s->preview.rgb);
        dr_arena_free(s->mem);
    }
    dr_arena_free(w->scratch);
    dr_arena_free(w->fleet_mem);
    dr_entry_close(&w->reader);
    dr_buf_free(&w->text);
    dr_buf_free(&w->packed);
    dr_buf_free(&w->webp);
    dr_models_close(w->models);
    dr_dev_close(w->dev);
    dr_queue_close(w->jobs);
    dr_queue_close(w->leases);
    dr_queue_close(w->control);
    dr_http_stop(w->http);
    dr_metrics_free(w->metrics);
    dr_mail_destroy(&w->to_engine);
    dr_mail_destroy(&w->to_io);
    pthread_cond_destroy(&w->lease_wake);
    pthread_mutex_destroy(&w->lock);
    dr_free(w);
}

/* Start the other threads, be the engine, and come back when the I/O thread leaves. */
static dr_status run_threads(dr_worker *w, dr_err *err)
{
    static void *(*const mains[])(void *) = { dr_lease_main, dr_control_main, dr_io_main };
    enum { n_threads = DR_COUNT(mains) };
    pthread_t threads[n_threads];
    int n = 0;
    while (n < n_threads && !pthread_create(&threads[n], NULL, mains[n], w))
        n++;
    if (n == n_threads) {
        dr_engine_loop(w);
        pthread_join(threads[--n], NULL);
    } else {
        dr_fail(&w->failure, DR_ENOMEM, "no thread for Redis");
    }
    w->leaving = true;
    dr_lease_ring(w, NULL);
    while (n > 0)
        pthread_join(threads[--n], NULL);
    if (!w->failure.code)
        return DR_OK;
    *err = w->failure;
    return err->code;
}

dr_status dr_worker_run(const dr_conf *conf, int64_t once, dr_err *err)
{
    dr_err ignored;
    dr_worker *w = dr_alloc(sizeof *w);
    if (!w)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    init(w, conf, once);
    dr_status st = start_signals(w, err);
    if (!st)
        st = choose_name(w, err);
    if (!st)
        st = open_metrics(w, err);
    if (!st)
        st = open_queues(w, err);
    if (!st)
        st = open_rest(w, err);
    if (!st)
        st = open_engine(w, err);
    if (!st && !w->stopping)
        st = run_threads(w, err);
    if (!st && dr_queue_bye(w->jobs, &ignored))
        dr_log(DR_DEBUG, "worker.bye", "message=%s", "refused");
    if (!st)
        dr_log(DR_INFO, "worker.stop", "worker=%s done=%lld failed=%lld", w->name,
               (long long)w->done, (long long)w->failed);
    end_signals(w);
    destroy(w);
    return st;
}
