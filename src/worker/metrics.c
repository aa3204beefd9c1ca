#include "worker/metrics.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <darkroom/version.h>
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* --- tables: rows of one name stand together --- */

typedef struct {
    const char *name, *labels; /* labels: as printed, "" without */
    const char *help;          /* NULL: the one of the row above */
} row;

#define OUTCOME(text) "darkroom_jobs_total", "outcome=\"" text "\""

static const row counters[DR_COUNTERS] = {
    [DR_COUNT_SUCCEEDED] = { OUTCOME("succeeded"), "Jobs that this worker ended, by how." },
    [DR_COUNT_FAILED] = { OUTCOME("failed"), NULL },
    [DR_COUNT_CANCELED] = { OUTCOME("canceled"), NULL },
    [DR_COUNT_EXPIRED] = { OUTCOME("expired"), NULL },
    [DR_COUNT_POISON] = { OUTCOME("poison"), NULL },
    [DR_COUNT_CLAIMS] = { "darkroom_claims_total", "", "Entries taken from the queue." },
    [DR_COUNT_RECOVERED] = { "darkroom_jobs_recovered_total", "",
                             "Jobs taken over from workers that had died." },
    [DR_COUNT_RETRIED] = { "darkroom_jobs_retried_total", "",
                           "Runs that failed for a passing reason and come again." },
    [DR_COUNT_RELEASED] = { "darkroom_jobs_released_total", "",
                            "Jobs handed back unfinished." },
    [DR_COUNT_LEASE_LOST] = { "darkroom_leases_lost_total", "",
                              "Jobs given up because another worker had taken them." },
    [DR_COUNT_STALE_FINISH] = { "darkroom_stale_finishes_total", "",
                                "Results refused because the job was another worker's." },
    [DR_COUNT_CHECKPOINTS] = { "darkroom_checkpoints_total", "",
                               "States left in Redis for the next worker." },
    [DR_COUNT_RESUMED] = { "darkroom_jobs_resumed_total", "",
                           "Runs that went on from another's state." },
    [DR_COUNT_STEPS] = { "darkroom_steps_total", "", "Denoising steps." },
    [DR_COUNT_IMAGES] = { "darkroom_images_total", "", "Pictures made." },
    [DR_COUNT_IMAGE_BYTES] = { "darkroom_image_bytes_total", "",
                               "Bytes of pictures as WebP." },
    [DR_COUNT_BATCHES] = { "darkroom_batches_total", "", "Runs of more than one job." },
    [DR_COUNT_BATCHED_JOBS] = { "darkroom_batched_jobs_total", "",
                                "Jobs in runs of more than one job." },
    [DR_COUNT_MODEL_LOADS] = { "darkroom_model_loads_total", "",
                               "Models loaded onto the device." },
    [DR_COUNT_EVENTS] = { "darkroom_events_total", "", "Events published." },
    [DR_COUNT_EVENTS_DROPPED] = { "darkroom_events_dropped_total", "",
                                  "Events dropped because Redis did not take them." },
    [DR_COUNT_REDIS_DOWN] = { "darkroom_redis_errors_total", "kind=\"connection\"",
                              "Calls of Redis that failed." },
    [DR_COUNT_REDIS_REFUSED] = { "darkroom_redis_errors_total", "kind=\"refused\"", NULL },
    [DR_COUNT_RECONNECTS] = { "darkroom_redis_reconnects_total", "",
                              "Times that Redis came back." },
};

/* A row for each class, in the order of dr_priority. */
#define BY_CLASS(gauge, name, more, text)                                                  \
    [gauge] = { name, "class=\"high\"" more, text },                                       \
    [(gauge) + 1] = { name, "class=\"normal\"" more, NULL },                               \
    [(gauge) + 2] = { name, "class=\"low\"" more, NULL }
#define QUEUE_JOBS "darkroom_queue_jobs"

static const row gauges[DR_GAUGES] = {
    [DR_GAUGE_BUSY] = { "darkroom_jobs_held", "", "Jobs that this worker holds now." },
    [DR_GAUGE_DRAINING] = { "darkroom_draining", "", "1 when it takes no more jobs." },
    [DR_GAUGE_RESIDENT_MODELS] = { "darkroom_models_resident", "", "Models loaded now." },
    BY_CLASS(DR_GAUGE_WAITING, QUEUE_JOBS, ",state=\"waiting\"",
             "Jobs of all clients in the queue, as last seen by this worker."),
    BY_CLASS(DR_GAUGE_DELAYED, QUEUE_JOBS, ",state=\"delayed\"", NULL),
    BY_CLASS(DR_GAUGE_RUNNING, QUEUE_JOBS, ",state=\"running\"", NULL),
    BY_CLASS(DR_GAUGE_OLDEST_MS, "darkroom_queue_oldest_wait_seconds", "",
             "Wait of the first in line, as last seen by this worker."),
    BY_CLASS(DR_GAUGE_PAUSED, "darkroom_queue_paused", "",
             "1 while no job of this class may start."),
    [DR_GAUGE_DEAD] = { "darkroom_queue_dead_jobs", "", "Dead letters, as last seen." },
    [DR_GAUGE_REDIS_BYTES] = { "darkroom_redis_memory_bytes", "",
                               "Memory that Redis uses." },
    [DR_GAUGE_REDIS_BYTES_MAX] = { "darkroom_redis_memory_max_bytes", "",
                                   "Its maxmemory; 0: no limit." },
};

static const row seens[DR_SEENS] = {
    [DR_SEEN_REDIS] = { "darkroom_redis_seen_timestamp_seconds", "",
                        "When Redis last answered the I/O thread without an error." },
    [DR_SEEN_LEASE] = { "darkroom_lease_seen_timestamp_seconds", "",
                        "When a lease was last renewed or a heartbeat taken." },
};

static const char *const threads[DR_THREADS] = { "engine", "io", "lease" };

#define BUCKETS_MAX 15

/* Upper bounds in seconds; one bucket without a bound follows. Rows of one name have the
 * same, so that they can be added up. */
typedef struct {
    int n;
    double le[BUCKETS_MAX - 1];
} bounds;

static const bounds wide = {
    14, { 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600 }
};
static const bounds fine = {
    13, { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60 }
};

#define PHASE(text) "darkroom_phase_seconds", "phase=\"" text "\""

static const struct {
    row head;
    const bounds *bounds;
} timers[DR_TIMERS] = {
    [DR_TIME_WAIT] = { { "darkroom_job_wait_seconds", "",
                         "From a job's creation to its claim." },
                       &wide },
    [DR_TIME_RUN] = { { "darkroom_job_run_seconds", "", "From the claim to the end." },
                      &wide },
    [DR_TIME_LOAD] = { { PHASE("load"), "Parts of a run." }, &wide },
    [DR_TIME_ENCODE] = { { PHASE("encode"), NULL }, &wide },
    [DR_TIME_DENOISE] = { { PHASE("denoise"), NULL }, &wide },
    [DR_TIME_DECODE] = { { PHASE("decode"), NULL }, &wide },
    [DR_TIME_COMPRESS] = { { PHASE("compress"), NULL }, &wide },
    [DR_TIME_FINISH] = { { PHASE("finish"), NULL }, &wide },
    [DR_TIME_STEP] = { { "darkroom_step_seconds", "", "One denoising step." }, &fine },
};

/* --- the numbers --- */

#define UNSET       INT64_MIN
#define CODES_MAX   32
#define SECONDS_MAX 1e7 /* of one duration: sums stay far from their end */
#define LABEL_MAX   256

typedef struct {
    atomic_int_least64_t buckets[BUCKETS_MAX]; /* each for itself, not yet added up */
    atomic_int_least64_t sum_ns;
} histogram;

struct dr_metrics {
    double ready_s, started_s; /* started_s: since 1970 */
    atomic_int_least64_t counters[DR_COUNTERS], failures[CODES_MAX], gauges[DR_GAUGES];
    atomic_int_least64_t seen_ms[DR_SEENS];  /* monotonic */
    atomic_int_least64_t due_ms[DR_THREADS]; /* monotonic; UNSET: no limit */
    histogram timers[DR_TIMERS];
    pthread_mutex_t lock; /* of the texts */
    char worker[LABEL_MAX], device[LABEL_MAX];
};

static int64_t now_ms(void)
{
    return (int64_t)(dr_now_s() * 1000);
}

dr_metrics *dr_metrics_new(double ready_s)
{
    dr_metrics *m = dr_alloc(sizeof *m);
    if (!m)
        return NULL;
    m->ready_s = ready_s;
    m->started_s = (double)dr_wall_ms() / 1000;
    for (int i = 0; i < DR_GAUGES; i++)
        m->gauges[i] = UNSET;
    for (int i = 0; i < DR_SEENS; i++)
        m->seen_ms[i] = UNSET;
    for (int i = 0; i < DR_THREADS; i++)
        m->due_ms[i] = UNSET;
    m->gauges[DR_GAUGE_BUSY] = m->gauges[DR_GAUGE_DRAINING] = 0;
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void dr_metrics_free(dr_metrics *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    dr_free(m);
}

void dr_metrics_describe(dr_metrics *m, const char *worker, const char *device)
{
    pthread_mutex_lock(&m->lock);
    snprintf(m->worker, sizeof m->worker, "%s", worker);
    snprintf(m->device, sizeof m->device, "%s", device);
    pthread_mutex_unlock(&m->lock);
}

void dr_count(dr_metrics *m, dr_counter c, int64_t n)
{
    m->counters[c] += n;
}

void dr_count_failed(dr_metrics *m, dr_status code)
{
    dr_count(m, DR_COUNT_FAILED, 1);
    if ((size_t)code < CODES_MAX)
        m->failures[code]++;
}

int64_t dr_counted(const dr_metrics *m, dr_counter c)
{
    return m->counters[c];
}

void dr_time(dr_metrics *m, dr_timer t, double seconds)
{
    const bounds *b = timers[t].bounds;
    int i = 0;
    seconds = seconds > 0 ? fmin(seconds, SECONDS_MAX) : 0;
    while (i < b->n && seconds > b->le[i])
        i++;
    m->timers[t].buckets[i]++;
    m->timers[t].sum_ns += llround(seconds * 1e9);
}

void dr_gauge_set(dr_metrics *m, dr_gauge g, int64_t value)
{
    m->gauges[g] = value;
}

void dr_metrics_fleet(dr_metrics *m, const dr_fleet *f)
{
    for (int i = 0; i < DR_CLASSES; i++) {
        const dr_class_status *c = &f->classes[i];
        dr_gauge_set(m, DR_GAUGE_WAITING + i, c->waiting);
        dr_gauge_set(m, DR_GAUGE_DELAYED + i, c->delayed);
        dr_gauge_set(m, DR_GAUGE_RUNNING + i, c->running);
        dr_gauge_set(m, DR_GAUGE_OLDEST_MS + i, c->oldest_ms < 0 ? 0 : c->oldest_ms);
        dr_gauge_set(m, DR_GAUGE_PAUSED + i, c->paused);
    }
    dr_gauge_set(m, DR_GAUGE_DEAD, f->dead);
    dr_gauge_set(m, DR_GAUGE_REDIS_BYTES, f->memory < 0 ? UNSET : f->memory);
    dr_gauge_set(m, DR_GAUGE_REDIS_BYTES_MAX, f->memory_max < 0 ? UNSET : f->memory_max);
}

void dr_metrics_seen(dr_metrics *m, dr_seen what)
{
    m->seen_ms[what] = now_ms();
}

void dr_metrics_alive(dr_metrics *m, dr_thread t, double limit_s)
{
    m->due_ms[t] = limit_s > 0 ? now_ms() + (int64_t)(limit_s * 1000) : UNSET;
}

/* --- the process --- */

static double cpu_s(const dr_metrics *m)
{
    struct rusage u;
    (void)m;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static double resident_bytes(const dr_metrics *m)
{
    dr_buf text = { 0 };
    int64_t all, resident = -1;
    (void)m;
    if (!dr_file_read("/proc/self/statm", 4096, &text, NULL) && text.len)
        if (sscanf(text.data, "%" SCNd64 " %" SCNd64, &all, &resident) != 2)
            resident = -1;
    dr_buf_free(&text);
    return resident < 0 ? NAN : (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double open_fds(const dr_metrics *m)
{
    int n = -1; /* the folder's own */
    DIR *dir = opendir("/proc/self/fd");
    (void)m;
    if (!dir)
        return NAN;
    for (const struct dirent *e; (e = readdir(dir));)
        n += *e->d_name != '.';
    closedir(dir);
    return n;
}

static double max_fds(const dr_metrics *m)
{
    struct rlimit limit;
    (void)m;
    return getrlimit(RLIMIT_NOFILE, &limit) ? NAN : (double)limit.rlim_cur;
}

static double started_s(const dr_metrics *m)
{
    return m->started_s;
}

/* Names as all of Prometheus' clients have them. */
static const struct {
    const char *name, *type, *help;
    double (*read)(const dr_metrics *m); /* NaN: unknown */
} process[] = {
    { "process_cpu_seconds_total", "counter", "User and system time.", cpu_s },
    { "process_resident_memory_bytes", "gauge", "Host memory in use.", resident_bytes },
    { "process_open_fds", "gauge", "Open file descriptors.", open_fds },
    { "process_max_fds", "gauge", "Limit of open file descriptors.", max_fds },
    { "process_start_time_seconds", "gauge", "When it started, since 1970.", started_s },
};

/* --- text --- */

static void put_head(dr_buf *out, const char *name, const char *type, const char *help)
{
    dr_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A sample's name and labels. */
static void put_name(dr_buf *out, const row *r)
{
    dr_buf_printf(out, *r->labels ? "%s{%s} " : "%s%s ", r->name, r->labels);
}

/* Rows of one kind; unset ones are left out, and a name without any row with them. Values
 * of names in seconds are milliseconds. */
static void put_rows(dr_buf *out, const char *type, const row *rows, int n,
                     const atomic_int_least64_t *values)
{
    const row *family = NULL, *shown = NULL;
    for (int i = 0; i < n; i++) {
        const row *r = &rows[i];
        int64_t value = values[i];
        if (r->help)
            family = r;
        if (value == UNSET)
            continue;
        if (shown != family)
            put_head(out, r->name, type, family->help);
        shown = family;
        put_name(out, r);
        if (strstr(r->name, "_seconds"))
            dr_buf_printf(out, "%.3f\n", (double)value / 1000);
        else
            dr_buf_printf(out, "%" PRId64 "\n", value);
    }
}

static void put_failures(dr_buf *out, const dr_metrics *m)
{
    static const char name[] = "darkroom_job_failures_total";
    put_head(out, name, "counter", "Jobs that failed for good, by the code of the error.");
    for (int i = 1; i < CODES_MAX; i++) {
        const char *code = dr_status_name((dr_status)i);
        if (strcmp(code, "unknown"))
            dr_buf_printf(out, "%s{code=\"%s\"} %" PRId64 "\n", name, code,
                          (int64_t)m->failures[i]);
    }
}

/* The clock of the numbers is monotonic, the one of the text is the wall's. */
static void put_seens(dr_buf *out, const dr_metrics *m)
{
    for (int i = 0; i < DR_SEENS; i++) {
        int64_t seen_ms = m->seen_ms[i];
        if (seen_ms == UNSET)
            continue;
        put_head(out, seens[i].name, "gauge", seens[i].help);
        put_name(out, &seens[i]);
        dr_buf_printf(out, "%.3f\n", (double)(dr_wall_ms() - now_ms() + seen_ms) / 1000);
    }
}

/* count is the sum of the buckets that were read, so that a scrape agrees with itself
 * while others add. */
static void put_histogram(dr_buf *out, const row *r, const bounds *b, const histogram *h)
{
    const char *comma = *r->labels ? "," : "";
    int64_t count = 0, sum_ns = h->sum_ns;
    for (int i = 0; i <= b->n; i++) {
        char le[24] = "+Inf";
        count += h->buckets[i];
        if (i < b->n)
            snprintf(le, sizeof le, "%g", b->le[i]);
        dr_buf_printf(out, "%s_bucket{%s%sle=\"%s\"} %" PRId64 "\n", r->name, r->labels,
                      comma, le, count);
    }
    dr_buf_printf(out, *r->labels ? "%s_sum{%s}" : "%s_sum%s", r->name, r->labels);
    dr_buf_printf(out, " %" PRId64 ".%09" PRId64 "\n", sum_ns / 1000000000,
                  sum_ns % 1000000000);
    dr_buf_printf(out, *r->labels ? "%s_count{%s}" : "%s_count%s", r->name, r->labels);
    dr_buf_printf(out, " %" PRId64 "\n", count);
}

static void put_timers(dr_buf *out, const dr_metrics *m)
{
    for (int i = 0; i < DR_TIMERS; i++) {
        const row *r = &timers[i].head;
        if (r->help)
            put_head(out, r->name, "histogram", r->help);
        put_histogram(out, r, timers[i].bounds, &m->timers[i]);
    }
}

/* name="text": backslashes, quotes and line feeds escaped, what is not UTF-8 replaced. */
static void put_label(dr_buf *out, const char *name, const char *text)
{
    size_t left = strlen(text);
    int32_t cp;
    dr_buf_printf(out, "%s=\"", name);
    while (left) {
        int n = dr_utf8_decode(text, left, &cp);
        if (n < 1)
            dr_buf_puts(out, "\xef\xbf\xbd");
        else if (*text == '\n')
            dr_buf_puts(out, "\\n");
        else if (*text == '\\' || *text == '"')
            dr_buf_printf(out, "\\%c", *text);
        else
            dr_buf_put(out, text, (size_t)n);
        n = n < 1 ? 1 : n;
        text += n;
        left -= (size_t)n;
    }
    dr_buf_puts(out, "\"");
}

static void put_build(dr_buf *out, dr_metrics *m)
{
    put_head(out, "darkroom_build_info", "gauge", "1; what runs here.");
    pthread_mutex_lock(&m->lock);
    dr_buf_puts(out, "darkroom_build_info{");
    put_label(out, "version", DR_VERSION);
    put_label(out, ",worker", m->worker);
    put_label(out, ",device", m->device);
    dr_buf_puts(out, "} 1\n");
    pthread_mutex_unlock(&m->lock);
}

static void put_process(dr_buf *out, const dr_metrics *m)
{
    for (size_t i = 0; i < DR_COUNT(process); i++) {
        double value = process[i].read(m);
        if (isnan(value))
            continue;
        put_head(out, process[i].name, process[i].type, process[i].help);
        dr_buf_printf(out, "%s %.15g\n", process[i].name, value);
    }
}

void dr_metrics_text(dr_metrics *m, dr_buf *out)
{
    put_build(out, m);
    put_rows(out, "counter", counters, DR_COUNTERS, m->counters);
    put_failures(out, m);
    put_rows(out, "gauge", gauges, DR_GAUGES, m->gauges);
    put_seens(out, m);
    put_timers(out, m);
    put_process(out, m);
}

/* --- health --- */

/* Seconds since; infinite when never. */
static double age_s(const dr_metrics *m, dr_seen what)
{
    int64_t seen_ms = m->seen_ms[what];
    return seen_ms == UNSET ? INFINITY : (double)(now_ms() - seen_ms) / 1000;
}

int dr_metrics_health(dr_metrics *m, dr_buf *out)
{
    for (int i = 0; i < DR_THREADS; i++) {
        int64_t due_ms = m->due_ms[i], late_ms = now_ms() - due_ms;
        if (due_ms == UNSET || late_ms <= 0)
            continue;
        dr_buf_printf(out, "stalled: the %s thread's sign of life is %.0f s overdue\n",
                      threads[i], ceil((double)late_ms / 1000));
        return 503;
    }
    dr_buf_puts(out, "ok\n");
    return 200;
}

int dr_metrics_ready(dr_metrics *m, dr_buf *out)
{
    double redis_s = age_s(m, DR_SEEN_REDIS);
    bool busy = m->gauges[DR_GAUGE_BUSY] > 0;
    if (m->gauges[DR_GAUGE_DRAINING]) {
        dr_buf_puts(out, "draining: takes no more jobs\n");
        return 503;
    }
    if (redis_s <= m->ready_s || (busy && age_s(m, DR_SEEN_LEASE) <= m->ready_s))
        return dr_metrics_health(m, out);
    if (isinf(redis_s))
        dr_buf_puts(out, "starting: no answer from Redis yet\n");
    else
        dr_buf_printf(out, "no Redis since %.0f s\n", floor(redis_s));
    return 503;
}

static int answer_metrics(void *ctx, dr_buf *out)
{
    dr_metrics_text(ctx, out);
    return 200;
}

static int answer_health(void *ctx, dr_buf *out)
{
    return dr_metrics_health(ctx, out);
}

static int answer_ready(void *ctx, dr_buf *out)
{
    return dr_metrics_ready(ctx, out);
}

const dr_http_route dr_metrics_routes[] = {
    { "/metrics", "text/plain; version=0.0.4; charset=utf-8", answer_metrics },
    { "/healthz", "text/plain; charset=utf-8", answer_health },
    { "/readyz", "text/plain; charset=utf-8", answer_ready },
    { 0 },
};
