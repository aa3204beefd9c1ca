/* A worker's numbers as text, whether it is well, and the server that tells both, over real
 * sockets. */
#include "worker/metrics.h"

#include "base/clock.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANY "127.0.0.1:0"

static dr_metrics *fresh(void)
{
    dr_metrics *m = dr_metrics_new(30);
    assert_non_null(m);
    return m;
}

/* The lines of one family in the text, HELP and TYPE included. */
static const char *family(dr_metrics *m, const char *name)
{
    static char found[32768];
    dr_buf text = { 0 };
    size_t n = strlen(name), used = 0;
    dr_metrics_text(m, &text);
    assert_false(text.failed);
    assert_int_equal(text.data[text.len - 1], '\n');
    found[0] = 0;
    for (const char *line = text.data, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        const char *at = strncmp(line, "# ", 2) ? line : line + 7;
        if (strncmp(at, name, n))
            continue;
        used += (size_t)snprintf(found + used, sizeof found - used, "%.*s\n",
                                 (int)(end - line), line);
        assert_true(used < sizeof found);
    }
    dr_buf_free(&text);
    return found;
}

/* --- text --- */

static void jobs_are_counted_by_outcome(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    dr_count(m, DR_COUNT_SUCCEEDED, 2);
    dr_count(m, DR_COUNT_SUCCEEDED, 5);
    dr_count(m, DR_COUNT_EXPIRED, 1);
    dr_count_failed(m, DR_EDEVICE);
    dr_count_failed(m, DR_EINVAL);
    dr_count_failed(m, DR_EINVAL);
    assert_string_equal(family(m, "darkroom_jobs_total"),
                        "# HELP darkroom_jobs_total Jobs that this worker ended, by how.\n"
                        "# TYPE darkroom_jobs_total counter\n"
                        "darkroom_jobs_total{outcome=\"succeeded\"} 7\n"
                        "darkroom_jobs_total{outcome=\"failed\"} 3\n"
                        "darkroom_jobs_total{outcome=\"canceled\"} 0\n"
                        "darkroom_jobs_total{outcome=\"expired\"} 1\n"
                        "darkroom_jobs_total{outcome=\"poison\"} 0\n");
    const char *failures = family(m, "darkroom_job_failures_total");
    assert_non_null(strstr(failures, "{code=\"invalid\"} 2\n"));
    assert_non_null(strstr(failures, "{code=\"device\"} 1\n"));
    assert_non_null(strstr(failures, "{code=\"memory\"} 0\n"));
    assert_null(strstr(failures, "unknown"));
    assert_null(strstr(failures, "\"ok\""));
    assert_int_equal(dr_counted(m, DR_COUNT_SUCCEEDED), 7);
    assert_int_equal(dr_counted(m, DR_COUNT_FAILED), 3);
    dr_metrics_free(m);
}

static void what_was_never_set_is_not_shown(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    assert_string_equal(family(m, "darkroom_queue_"), "");
    assert_string_equal(family(m, "darkroom_models_resident"), "");
    assert_string_equal(family(m, "darkroom_redis_seen_"), "");
    assert_non_null(strstr(family(m, "darkroom_jobs_held"), "\ndarkroom_jobs_held 0\n"));
    assert_non_null(strstr(family(m, "darkroom_draining"), "\ndarkroom_draining 0\n"));
    dr_metrics_free(m);
}

static void gauges_go_up_and_down(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    dr_gauge_set(m, DR_GAUGE_WAITING + DR_PRIORITY_NORMAL, 9);
    dr_gauge_set(m, DR_GAUGE_WAITING + DR_PRIORITY_NORMAL, 4);
    dr_gauge_set(m, DR_GAUGE_RUNNING + DR_PRIORITY_HIGH, 1);
    dr_gauge_set(m, DR_GAUGE_DELAYED + DR_PRIORITY_LOW, 0);
    assert_string_equal(
        family(m, "darkroom_queue_jobs"),
        "# HELP darkroom_queue_jobs Jobs of all clients in the queue, as last seen by this "
        "worker.\n"
        "# TYPE darkroom_queue_jobs gauge\n"
        "darkroom_queue_jobs{class=\"normal\",state=\"waiting\"} 4\n"
        "darkroom_queue_jobs{class=\"low\",state=\"delayed\"} 0\n"
        "darkroom_queue_jobs{class=\"high\",state=\"running\"} 1\n");
    dr_gauge_set(m, DR_GAUGE_OLDEST_MS + DR_PRIORITY_LOW, 61250);
    assert_string_equal(family(m, "darkroom_queue_oldest"),
                        "# HELP darkroom_queue_oldest_wait_seconds Wait of the first in "
                        "line, as last seen by this worker.\n"
                        "# TYPE darkroom_queue_oldest_wait_seconds gauge\n"
                        "darkroom_queue_oldest_wait_seconds{class=\"low\"} 61.250\n");
    dr_metrics_free(m);
}

static void the_queue_is_shown_by_class(void **state)
{
    const dr_fleet fleet = {
        .classes = { { .oldest_ms = -1 },
                     { .waiting = 1, .delayed = 2, .running = 3, .oldest_ms = 1500 },
                     { .waiting = 4, .oldest_ms = 250, .paused = true } },
        .dead = 5,
        .memory = 1048576,
    };
    static const char *const lines[] = {
        "\ndarkroom_queue_jobs{class=\"high\",state=\"waiting\"} 0\n",
        "\ndarkroom_queue_jobs{class=\"normal\",state=\"waiting\"} 1\n",
        "\ndarkroom_queue_jobs{class=\"normal\",state=\"delayed\"} 2\n",
        "\ndarkroom_queue_jobs{class=\"normal\",state=\"running\"} 3\n",
        "\ndarkroom_queue_jobs{class=\"low\",state=\"waiting\"} 4\n",
        "\ndarkroom_queue_oldest_wait_seconds{class=\"high\"} 0.000\n",
        "\ndarkroom_queue_oldest_wait_seconds{class=\"normal\"} 1.500\n",
        "\ndarkroom_queue_oldest_wait_seconds{class=\"low\"} 0.250\n",
        "\ndarkroom_queue_paused{class=\"normal\"} 0\n",
        "\ndarkroom_queue_paused{class=\"low\"} 1\n",
        "\ndarkroom_queue_dead_jobs 5\n",
        "\ndarkroom_redis_memory_bytes 1048576\n",
        "\ndarkroom_redis_memory_max_bytes 0\n",
    };
    dr_metrics *m = fresh();
    (void)state;
    dr_metrics_fleet(m, &fleet);
    const char *text = family(m, "darkroom_");
    for (size_t i = 0; i < DR_COUNT(lines); i++)
        assert_non_null(strstr(text, lines[i]));
    dr_metrics_fleet(m, &(dr_fleet){ .memory = -1, .memory_max = -1 });
    assert_string_equal(family(m, "darkroom_redis_memory"), "");
    dr_metrics_free(m);
}

static void durations_fill_their_buckets(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    dr_time(m, DR_TIME_STEP, 0.005); /* a bound belongs to its bucket */
    dr_time(m, DR_TIME_STEP, 0.0051);
    dr_time(m, DR_TIME_STEP, 0.75);
    dr_time(m, DR_TIME_STEP, 61.5);
    assert_string_equal(family(m, "darkroom_step_seconds"),
                        "# HELP darkroom_step_seconds One denoising step.\n"
                        "# TYPE darkroom_step_seconds histogram\n"
                        "darkroom_step_seconds_bucket{le=\"0.005\"} 1\n"
                        "darkroom_step_seconds_bucket{le=\"0.01\"} 2\n"
                        "darkroom_step_seconds_bucket{le=\"0.025\"} 2\n"
                        "darkroom_step_seconds_bucket{le=\"0.05\"} 2\n"
                        "darkroom_step_seconds_bucket{le=\"0.1\"} 2\n"
                        "darkroom_step_seconds_bucket{le=\"0.25\"} 2\n"
                        "darkroom_step_seconds_bucket{le=\"0.5\"} 2\n"
                        "darkroom_step_seconds_bucket{le=\"1\"} 3\n"
                        "darkroom_step_seconds_bucket{le=\"2.5\"} 3\n"
                        "darkroom_step_seconds_bucket{le=\"5\"} 3\n"
                        "darkroom_step_seconds_bucket{le=\"10\"} 3\n"
                        "darkroom_step_seconds_bucket{le=\"30\"} 3\n"
                        "darkroom_step_seconds_bucket{le=\"60\"} 3\n"
                        "darkroom_step_seconds_bucket{le=\"+Inf\"} 4\n"
                        "darkroom_step_seconds_sum 62.260100000\n"
                        "darkroom_step_seconds_count 4\n");
    dr_metrics_free(m);
}

static void phases_are_one_histogram(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    dr_time(m, DR_TIME_LOAD, 700);
    dr_time(m, DR_TIME_DECODE, 2);
    const char *text = family(m, "darkroom_phase_seconds");
    const char *help = strstr(text, "# HELP");
    assert_ptr_equal(help, text);
    assert_null(strstr(help + 1, "# HELP"));
    assert_non_null(strstr(text, "_bucket{phase=\"load\",le=\"600\"} 0\n"));
    assert_non_null(strstr(text, "_bucket{phase=\"load\",le=\"+Inf\"} 1\n"));
    assert_non_null(strstr(text, "_sum{phase=\"load\"} 700.000000000\n"));
    assert_non_null(strstr(text, "_bucket{phase=\"decode\",le=\"1\"} 0\n"));
    assert_non_null(strstr(text, "_bucket{phase=\"decode\",le=\"2.5\"} 1\n"));
    assert_non_null(strstr(text, "_count{phase=\"decode\"} 1\n"));
    assert_non_null(strstr(text, "_count{phase=\"finish\"} 0\n"));
    dr_metrics_free(m);
}

static void odd_durations_do_no_harm(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    dr_time(m, DR_TIME_WAIT, -3);
    dr_time(m, DR_TIME_WAIT, 0.0 / 0.0);
    dr_time(m, DR_TIME_WAIT, 1e300);
    const char *text = family(m, "darkroom_job_wait_seconds");
    assert_non_null(strstr(text, "le=\"0.005\"} 2\n"));
    assert_non_null(strstr(text, "le=\"600\"} 2\n"));
    assert_non_null(strstr(text, "_count 3\n"));
    assert_non_null(strstr(text, "_sum 10000000.000000000\n"));
    dr_metrics_free(m);
}

static void labels_are_escaped(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    assert_non_null(
        strstr(family(m, "darkroom_build_info"), ",worker=\"\",device=\"\"} 1\n"));
    dr_metrics_describe(m, "a\"b\\c\nd", "gr\xc3\xbcn \xff\xc3");
    assert_non_null(strstr(family(m, "darkroom_build_info"),
                           ",worker=\"a\\\"b\\\\c\\nd\","
                           "device=\"gr\xc3\xbcn \xef\xbf\xbd\xef\xbf\xbd\"} 1\n"));
    dr_metrics_free(m);
}

static double number(dr_metrics *m, const char *name)
{
    char line[80];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(family(m, name), line);
    assert_non_null(at);
    return strtod(at + strlen(line), NULL);
}

static void the_process_is_described(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    double before = number(m, "process_open_fds");
    int fd = dup(2);
    assert_true(number(m, "process_open_fds") == before + 1);
    close(fd);
    assert_true(before >= 3 && before <= number(m, "process_max_fds"));
    double bytes = number(m, "process_resident_memory_bytes");
    assert_true(bytes > 1e5 && bytes < 1e11);
    assert_true(number(m, "process_cpu_seconds_total") < 60);
    double age_s = (double)dr_wall_ms() / 1000 - number(m, "process_start_time_seconds");
    assert_true(age_s >= 0 && age_s < 60);
    dr_metrics_seen(m, DR_SEEN_REDIS);
    age_s =
        (double)dr_wall_ms() / 1000 - number(m, "darkroom_redis_seen_timestamp_seconds");
    assert_true(age_s > -1 && age_s < 60);
    dr_metrics_free(m);
}

/* --- threads --- */

#define ROUNDS 20000

static void *add(void *ctx)
{
    dr_metrics *m = ctx;
    uint64_t before = dr_alloc_count();
    for (int i = 0; i < ROUNDS; i++) {
        dr_count(m, DR_COUNT_STEPS, 3);
        dr_time(m, DR_TIME_STEP, 0.001);
        dr_gauge_set(m, DR_GAUGE_BUSY, i % 2);
        dr_metrics_seen(m, DR_SEEN_LEASE);
        dr_metrics_alive(m, DR_THREAD_ENGINE, 60);
    }
    return (void *)(uintptr_t)(dr_alloc_count() - before);
}

static void nothing_is_lost_between_threads(void **state)
{
    dr_metrics *m = fresh();
    pthread_t threads[2];
    void *allocations;
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add, m), 0);
    for (int i = 0; i < 20; i++) {
        char want[80];
        const char *text = family(m, "darkroom_step_seconds");
        const char *count = strstr(text, "_count ");
        assert_non_null(count);
        snprintf(want, sizeof want, "le=\"+Inf\"} %lld\n", strtoll(count + 7, NULL, 10));
        assert_non_null(strstr(text, want));
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], &allocations), 0);
        assert_null(allocations);
    }
    assert_int_equal(dr_counted(m, DR_COUNT_STEPS), 2 * 3 * ROUNDS);
    const char *text = family(m, "darkroom_step_seconds");
    assert_non_null(strstr(text, "{le=\"0.005\"} 40000\n"));
    assert_non_null(strstr(text, "_sum 40.000000000\n"));
    dr_metrics_free(m);
}

/* --- health --- */

static void assert_says(int (*ask)(dr_metrics *m, dr_buf *out), dr_metrics *m, int status,
                        const char *text)
{
    dr_buf out = { 0 };
    assert_int_equal(ask(m, &out), status);
    assert_string_equal(out.data, text);
    dr_buf_free(&out);
}

static void a_silent_thread_is_ill(void **state)
{
    dr_metrics *m = fresh();
    (void)state;
    assert_says(dr_metrics_health, m, 200, "ok\n");
    dr_metrics_seen(m, DR_SEEN_REDIS);
    dr_metrics_alive(m, DR_THREAD_ENGINE, 60);
    dr_metrics_alive(m, DR_THREAD_IO, 0.02);
    assert_says(dr_metrics_health, m, 200, "ok\n");
    dr_sleep_ms(60);
    const char *ill = "stalled: the io thread's sign of life is 1 s overdue\n";
    assert_says(dr_metrics_health, m, 503, ill);
    assert_says(dr_metrics_ready, m, 503, ill);
    dr_metrics_alive(m, DR_THREAD_IO, 60);
    assert_says(dr_metrics_health, m, 200, "ok\n");
    dr_metrics_alive(m, DR_THREAD_ENGINE, 0.001);
    dr_metrics_alive(m, DR_THREAD_ENGINE, 0); /* idle */
    dr_sleep_ms(10);
    assert_says(dr_metrics_health, m, 200, "ok\n");
    dr_metrics_free(m);
}

static void readiness_needs_redis(void **state)
{
    dr_metrics *m = dr_metrics_new(0.05);
    (void)state;
    assert_non_null(m);
    assert_says(dr_metrics_ready, m, 503, "starting: no answer from Redis yet\n");
    dr_metrics_seen(m, DR_SEEN_LEASE);
    assert_says(dr_metrics_ready, m, 503, "starting: no answer from Redis yet\n");
    dr_metrics_seen(m, DR_SEEN_REDIS);
    assert_says(dr_metrics_ready, m, 200, "ok\n");
    dr_sleep_ms(100);
    assert_says(dr_metrics_ready, m, 503, "no Redis since 0 s\n");
    dr_metrics_seen(m, DR_SEEN_LEASE); /* means nothing while no job is held */
    assert_says(dr_metrics_ready, m, 503, "no Redis since 0 s\n");
    dr_gauge_set(m, DR_GAUGE_BUSY, 1);
    dr_metrics_seen(m, DR_SEEN_LEASE);
    assert_says(dr_metrics_ready, m, 200, "ok\n");
    dr_gauge_set(m, DR_GAUGE_DRAINING, 1);
    assert_says(dr_metrics_ready, m, 503, "draining: takes no more jobs\n");
    assert_says(dr_metrics_health, m, 200, "ok\n");
    dr_metrics_free(m);
}

/* --- the server --- */

static dr_http *serve(dr_metrics *m, const char *listen)
{
    dr_http *h = NULL;
    dr_err err = { 0 };
    assert_int_equal(dr_http_start(&h, listen, dr_metrics_routes, m, &err), DR_OK);
    assert_non_null(h);
    return h;
}

static int port_of(const dr_http *h)
{
    return (int)strtol(strrchr(dr_http_address(h), ':') + 1, NULL, 10);
}

static int dial(const dr_http *h)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port_of(h)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const struct timeval patience = { .tv_sec = 20 };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* What comes back until the server closes. */
static const char *ask(const dr_http *h, const char *request)
{
    static char answer[65536];
    size_t n = 0;
    ssize_t got;
    int fd = dial(h);
    assert_true(send(fd, request, strlen(request), MSG_NOSIGNAL) > 0);
    while ((got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0)
        n += (size_t)got;
    assert_int_equal(got, 0);
    answer[n] = 0;
    close(fd);
    return answer;
}

static const char *body_of(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n");
    assert_non_null(end);
    return end + 4;
}

static void assert_status(const char *answer, const char *status)
{
    char line[64];
    snprintf(line, sizeof line, "HTTP/1.1 %s ", status);
    assert_memory_equal(answer, line, strlen(line));
}

static void paths_are_answered(void **state)
{
    dr_metrics *m = fresh();
    dr_http *h = serve(m, ANY);
    (void)state;
    dr_count(m, DR_COUNT_IMAGES, 12);
    const char *a = ask(h, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_status(a, "200");
    assert_non_null(strstr(a, "\r\nContent-Type: text/plain; version=0.0.4; "
                              "charset=utf-8\r\n"));
    assert_non_null(strstr(a, "\r\nConnection: close\r\n"));
    assert_memory_equal(body_of(a), "# HELP ", 7);
    assert_non_null(strstr(body_of(a), "\ndarkroom_images_total 12\n"));
    a = ask(h, "GET /healthz HTTP/1.0\r\n\r\n");
    assert_non_null(strstr(a, " 200 "));
    assert_string_equal(body_of(a), "ok\n");
    a = ask(h, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_status(a, "503");
    assert_string_equal(body_of(a), "starting: no answer from Redis yet\n");
    dr_metrics_seen(m, DR_SEEN_REDIS);
    a = ask(h, "GET /readyz?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_status(a, "200");
    assert_string_equal(body_of(a), "ok\n");
    a = ask(h, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_status(a, "200");
    assert_non_null(strstr(a, "\r\nContent-Length: 3\r\n"));
    assert_string_equal(body_of(a), "");
    a = ask(h, "GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_status(a, "404");
    assert_string_equal(body_of(a), "not found; there are /metrics /healthz /readyz\n");
    dr_http_stop(h);
    dr_metrics_free(m);
}

static void other_methods_and_junk_are_refused(void **state)
{
    static const char *const methods[] = { "POST", "PUT", "DELETE", "OPTIONS", "BREW" };
    dr_metrics *m = fresh();
    dr_http *h = serve(m, ANY);
    char request[128];
    (void)state;
    for (size_t i = 0; i < DR_COUNT(methods); i++) {
        snprintf(request, sizeof request, "%s /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                 methods[i]);
        const char *a = ask(h, request);
        assert_status(a, "405");
        assert_non_null(strstr(a, "\r\nAllow: GET, HEAD\r\n"));
    }
    /* A body is announced, and neither awaited nor read. */
    assert_status(ask(h, "POST /metrics HTTP/1.1\r\nHost: x\r\n"
                         "Content-Length: 99999999999\r\n\r\nxyz"),
                  "405");
    assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n"
                         "Content-Length: 99999999999\r\n\r\n"),
                  "200");
    assert_null(strstr(ask(h, "\x16\x03\x01 what is this\r\n\r\n"), " 200 "));
    assert_null(strstr(ask(h, "GET\r\n\r\n"), " 200 "));
    assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    dr_http_stop(h);
    dr_metrics_free(m);
}

static void a_head_without_end_is_cut_off(void **state)
{
    dr_metrics *m = fresh();
    dr_http *h = serve(m, ANY);
    char line[1024];
    int fd = dial(h), sent = 0;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    memset(line, 'a', sizeof line);
    assert_int_equal(send(fd, "GET /healthz HTTP/1.1\r\nx: ", 26, MSG_NOSIGNAL), 26);
    /* 16 KiB are kept of it and what the kernel buffers; then it says so or hangs up. */
    while (sent < 100000 && send(fd, line, sizeof line, MSG_NOSIGNAL) > 0)
        sent++;
    assert_true(sent < 100000);
    close(fd);
    assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    dr_http_stop(h);
    dr_metrics_free(m);
}

static void idle_connections_leave_room(void **state)
{
    dr_metrics *m = fresh();
    dr_http *h = serve(m, ANY);
    int fds[24];
    (void)state;
    for (size_t i = 0; i < DR_COUNT(fds); i++)
        fds[i] = dial(h);
    assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    double from_s = dr_now_s();
    dr_http_stop(h); /* does not wait for them */
    assert_true(dr_now_s() - from_s < 5);
    for (size_t i = 0; i < DR_COUNT(fds); i++)
        close(fds[i]);
    dr_metrics_free(m);
}

static void addresses_of_all_forms(void **state)
{
    static const struct {
        const char *listen, *shown;
    } rows[] = {
        { "127.0.0.1:0", "127.0.0.1:" },
        { "localhost:0", "127.0.0.1:" },
        { "0.0.0.0:0", "0.0.0.0:" },
    };
    dr_metrics *m = fresh();
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_http *h = serve(m, rows[i].listen);
        assert_memory_equal(dr_http_address(h), rows[i].shown, strlen(rows[i].shown));
        assert_true(port_of(h) > 0);
        assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
        dr_http_stop(h);
    }
    /* All interfaces: where there is IPv6 it serves IPv4 too. */
    dr_http *h = serve(m, ":0");
    assert_true(!strncmp(dr_http_address(h), "[::]:", 5) ||
                !strncmp(dr_http_address(h), "0.0.0.0:", 8));
    assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    dr_http_stop(h);
    dr_metrics_free(m);
}

static void no_address_means_no_server(void **state)
{
    dr_http *h = (dr_http *)state; /* anything but NULL */
    dr_err err = { 0 };
    assert_int_equal(dr_http_start(&h, "", dr_metrics_routes, NULL, &err), DR_OK);
    assert_null(h);
    dr_http_stop(h);
}

static void bad_addresses_are_refused(void **state)
{
    static const char *const malformed[] = { "127.0.0.1",       "9464",
                                             "127.0.0.1:",      "127.0.0.1:http",
                                             "127.0.0.1:65536", "::1:9464",
                                             "127.0.0.1:-1",    "[::1]9464",
                                             "[::1:9464",       "host:99999999999",
                                             "[]:9464",         ":",
                                             "[[::1]]:9464" };
    dr_http *h = NULL;
    dr_err err = { 0 };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(malformed); i++) {
        assert_int_equal(dr_http_start(&h, malformed[i], dr_metrics_routes, NULL, &err),
                         DR_EINVAL);
        assert_null(h);
        assert_string_equal(err.field, "metrics.listen");
        assert_non_null(strstr(err.message, malformed[i]));
        assert_non_null(strstr(err.message, "must be host:port"));
    }
    /* No name at all, so that nobody is asked for it. */
    assert_int_equal(dr_http_start(&h, "a..b:1", dr_metrics_routes, NULL, &err), DR_EINVAL);
    assert_non_null(
        strstr(err.message, "metrics.listen a..b:1: Name or service not known"));
    /* TEST-NET-1 is nobody's. */
    assert_int_equal(dr_http_start(&h, "192.0.2.1:0", dr_metrics_routes, NULL, &err),
                     DR_EIO);
    assert_non_null(strstr(err.message, "192.0.2.1:0: Cannot assign requested address"));
    assert_null(h);
}

static void a_port_in_use_is_named(void **state)
{
    dr_metrics *m = fresh();
    dr_http *first = serve(m, ANY), *second = NULL;
    char all[16];
    dr_err err = { 0 };
    (void)state;
    snprintf(all, sizeof all, ":%d", port_of(first));
    const char *taken[] = { dr_http_address(first), all };
    for (size_t i = 0; i < DR_COUNT(taken); i++) {
        assert_int_equal(dr_http_start(&second, taken[i], dr_metrics_routes, m, &err),
                         DR_EIO);
        assert_null(second);
        assert_non_null(strstr(err.message, taken[i]));
        assert_non_null(strstr(err.message, "Address already in use"));
        assert_non_null(strstr(err.message, "a port that is free"));
    }
    dr_http_stop(first);
    dr_metrics_free(m);
}

/* A signal is the signal thread's: none may reach the server's, whatever the mask was. */
static void the_thread_takes_no_signals(void **state)
{
    dr_metrics *m = fresh();
    dr_http *h = serve(m, ANY);
    sigset_t term, old;
    int number;
    (void)state;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, &old);
    assert_false(sigismember(&old, SIGTERM));
    kill(getpid(), SIGTERM); /* would end us if any thread let it in */
    assert_int_equal(sigwait(&term, &number), 0);
    assert_int_equal(number, SIGTERM);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_status(ask(h, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    dr_http_stop(h);
    dr_metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_counted_by_outcome),
        cmocka_unit_test(what_was_never_set_is_not_shown),
        cmocka_unit_test(gauges_go_up_and_down),
        cmocka_unit_test(the_queue_is_shown_by_class),
        cmocka_unit_test(durations_fill_their_buckets),
        cmocka_unit_test(phases_are_one_histogram),
        cmocka_unit_test(odd_durations_do_no_harm),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(the_process_is_described),
        cmocka_unit_test(nothing_is_lost_between_threads),
        cmocka_unit_test(a_silent_thread_is_ill),
        cmocka_unit_test(readiness_needs_redis),
        cmocka_unit_test(paths_are_answered),
        cmocka_unit_test(other_methods_and_junk_are_refused),
        cmocka_unit_test(a_head_without_end_is_cut_off),
        cmocka_unit_test(idle_connections_leave_room),
        cmocka_unit_test(addresses_of_all_forms),
        cmocka_unit_test(no_address_means_no_server),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(the_thread_takes_no_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
