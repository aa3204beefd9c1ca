#include "cli/cli.h"
#include "cli/show.h"

#include "base/clock.h"
#include "base/json.h"
#include "queue/admin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bool watch, json;
} options;

static const dr_cli_row rows[] = {
    { "watch", 'w', NULL, DR_CLI_FLAG, .offset = offsetof(options, watch),
      .help = "Show it again every SECONDS (default: 2) until Ctrl-C: in place on a "
              "terminal, one below the other in a pipe." },
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "One JSON object, one a line with --watch." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "status",
    .usage = "[SECONDS]",
    .summary =
        "Show the queue and its workers: for each class how many jobs wait, are delayed or "
        "run and how long the first has waited; what was done so far; for each worker what "
        "it is at. Columns that do not fit the terminal are left out; a pipe gets all.",
    .examples = "  darkroom status\n"
                "  darkroom status --watch 5\n"
                "  darkroom status --json | jq '.classes.normal.waiting'\n",
    .args_min = 0,
    .args_max = 1,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

/* --- as text --- */

static dr_color if_any(int64_t n, dr_color color)
{
    return n > 0 ? color : DR_PLAIN;
}

/* A number as a cell's text. */
static const char *number(dr_arena *mem, int64_t n)
{
    const char *text = dr_arena_printf(mem, "%lld", (long long)n);
    return text ? text : "";
}

static void put_head(dr_buf *out, dr_queue *q, const dr_conf *conf, const dr_fleet *f,
                     const dr_screen *screen)
{
    char used[DR_SHOWN_MAX], max[DR_SHOWN_MAX];
    dr_buf line = { 0 };
    dr_buf_printf(&line, "%s on %s", conf->queue.prefix,
                  dr_redis_endpoint(dr_queue_redis(q)));
    if (f->memory >= 0)
        dr_buf_printf(&line, ", memory %s", dr_show_bytes(used, f->memory));
    if (f->memory >= 0 && f->memory_max > 0)
        dr_buf_printf(&line, " of %s", dr_show_bytes(max, f->memory_max));
    dr_show_text(out, line.data ? line.data : "", line.len, screen->width);
    dr_buf_puts(out, "\n\n");
    out->failed = out->failed || line.failed;
    dr_buf_free(&line);
}

static void put_classes(dr_buf *out, dr_arena *mem, const dr_fleet *f,
                        const dr_screen *screen)
{
    static const dr_column columns[] = {
        { .head = "CLASS" },
        { .head = "WAITING", .right = true },
        { .head = "DELAYED", .right = true },
        { .head = "RUNNING", .right = true },
        { .head = "OLDEST WAIT", .right = true },
        { .head = "STATE" },
        { 0 },
    };
    dr_table t = { .mem = mem, .columns = columns };
    for (int i = 0; i < DR_CLASSES; i++) {
        const dr_class_status *c = &f->classes[i];
        char age[DR_SHOWN_MAX];
        const dr_cell cells[] = {
            { dr_class_name((dr_priority)i), DR_BOLD },
            { number(mem, c->waiting), DR_PLAIN },
            { number(mem, c->delayed), DR_PLAIN },
            { number(mem, c->running), if_any(c->running, DR_GREEN) },
            { dr_show_age(age, c->oldest_ms), DR_PLAIN },
            { c->paused ? "paused" : "open", c->paused ? DR_YELLOW : DR_PLAIN },
        };
        dr_table_add(&t, cells);
    }
    dr_table_put(out, &t, screen);
}

/* Counters, wrapped like words. The endings always, the rest when there is something. */
static void put_totals(dr_buf *out, const dr_fleet *f, const dr_screen *screen)
{
    int column = 0;
    dr_buf_puts(out, "\n");
    for (int i = 0; i <= DR_STATS; i++) {
        char item[64];
        int64_t n = i < DR_STATS ? f->stats[i] : f->dead;
        if (!n && i > DR_STAT_EXPIRED)
            continue;
        int len = snprintf(item, sizeof item, "%s%s %lld", i ? ", " : "",
                           i < DR_STATS ? dr_stat_names[i] : "dead letters", (long long)n);
        if (screen->width && column && column + len + 1 > screen->width) {
            dr_buf_puts(out, ",\n");
            dr_buf_puts(out, item + 2);
            column = len - 2;
        } else {
            dr_buf_puts(out, item);
            column += len;
        }
    }
    dr_buf_puts(out, "\n\n");
}

/* A JSON array of texts as one: "a, b"; most > 0: "a +1" when it holds more. */
static const char *joined(dr_arena *mem, const char *json, int most)
{
    dr_json *array = NULL;
    const char *text = "";
    int i = 0;
    if (dr_json_parse(&array, json, strlen(json), NULL))
        return "-";
    for (const dr_json *item = dr_json_first(array); text && item;
         item = dr_json_next(item), i++)
        if (dr_json_string(item) && (!most || i < most))
            text =
                dr_arena_printf(mem, "%s%s%s", text, i ? ", " : "", dr_json_string(item));
    if (text && most && i > most)
        text = dr_arena_printf(mem, "%s +%d", text, i - most);
    dr_json_free(array);
    return text && *text ? text : "-";
}

static const char *or_dash(const char *text)
{
    return *text ? text : "-";
}

static void add_worker(dr_table *t, const dr_fleet *f, const dr_worker_status *w)
{
    dr_arena *mem = t->mem;
    bool busy = !strcmp(w->state, "busy");
    const char *state = w->drain ? "draining" : or_dash(w->state);
    char age[DR_SHOWN_MAX];
    const dr_cell cells[] = {
        { w->name, DR_BOLD },
        { state, !strcmp(state, "draining") ? DR_YELLOW
                 : busy                     ? DR_GREEN
                                            : DR_PLAIN },
        { joined(mem, w->resident, 0), DR_PLAIN },
        { joined(mem, w->jobs, 1), DR_PLAIN },
        { or_dash(w->step), DR_PLAIN },
        { or_dash(w->s_step), DR_PLAIN },
        { number(mem, w->done), DR_PLAIN },
        { number(mem, w->failed), if_any(w->failed, DR_RED) },
        { dr_show_age(age, f->now_ms > w->seen_ms ? f->now_ms - w->seen_ms : 0), DR_PLAIN },
        { or_dash(w->version), DR_DIM },
        { or_dash(w->device), DR_DIM },
    };
    dr_table_add(t, cells);
}

static void put_workers(dr_buf *out, dr_arena *mem, const dr_fleet *f,
                        const dr_screen *screen)
{
    static const dr_column columns[] = {
        { .head = "WORKER", .min = 12 },
        { .head = "STATE" },
        { .head = "MODELS", .min = 6, .rank = 1 },
        { .head = "JOB", .min = 8 },
        { .head = "STEP", .right = true },
        { .head = "S/STEP", .right = true, .rank = 2 },
        { .head = "DONE", .right = true },
        { .head = "FAILED", .right = true },
        { .head = "SEEN", .right = true },
        { .head = "VERSION", .rank = 4 },
        { .head = "DEVICE", .min = 14, .rank = 3 },
        { 0 },
    };
    dr_table t = { .mem = mem, .columns = columns };
    if (!f->n_workers) {
        dr_buf_puts(out, "no workers\n");
        return;
    }
    for (int i = 0; i < f->n_workers; i++)
        add_worker(&t, f, &f->workers[i]);
    dr_table_put(out, &t, screen);
}

/* --- as JSON --- */

static void put_member(dr_buf *out, const char *name, const char *text)
{
    dr_buf_printf(out, ",\"%s\":", name);
    dr_json_put_string(out, text);
}

static void put_count(dr_buf *out, const char *name, int64_t n)
{
    dr_buf_printf(out, ",\"%s\":%lld", name, (long long)n);
}

/* What a worker says is an array; an empty one when it is not. */
static void put_array(dr_buf *out, const char *name, const char *json)
{
    dr_json *array = NULL;
    dr_buf_printf(out, ",\"%s\":", name);
    if (!dr_json_parse(&array, json, strlen(json), NULL) &&
        dr_json_type(array) == DR_JSON_ARRAY)
        dr_json_put(out, array);
    else
        dr_buf_puts(out, "[]");
    dr_json_free(array);
}

static void put_json_worker(dr_buf *out, const dr_worker_status *w)
{
    dr_buf_puts(out, "{\"name\":");
    dr_json_put_string(out, w->name);
    put_member(out, "state", w->drain ? "draining" : w->state);
    put_array(out, "models", w->models);
    put_array(out, "resident", w->resident);
    put_array(out, "jobs", w->jobs);
    put_member(out, "step", w->step);
    dr_buf_puts(out, ",\"s_step\":");
    dr_json_put_number(out, strtod(w->s_step, NULL));
    put_count(out, "done", w->done);
    put_count(out, "failed", w->failed);
    put_member(out, "host", w->host);
    put_count(out, "pid", w->pid);
    put_member(out, "device", w->device);
    put_member(out, "version", w->version);
    put_count(out, "started_ms", w->started_ms);
    put_count(out, "seen_ms", w->seen_ms);
    dr_buf_puts(out, "}");
}

static void put_json(dr_buf *out, const dr_fleet *f)
{
    dr_buf_printf(out, "{\"ts_ms\":%lld,\"classes\":{", (long long)f->now_ms);
    for (int i = 0; i < DR_CLASSES; i++) {
        const dr_class_status *c = &f->classes[i];
        dr_buf_printf(out, "%s\"%s\":{\"paused\":%s", i ? "," : "",
                      dr_class_name((dr_priority)i), c->paused ? "true" : "false");
        put_count(out, "waiting", c->waiting);
        put_count(out, "delayed", c->delayed);
        put_count(out, "running", c->running);
        put_count(out, "oldest_ms", c->oldest_ms);
        dr_buf_puts(out, "}");
    }
    dr_buf_puts(out, "},\"stats\":{");
    for (int i = 0; i < DR_STATS; i++)
        dr_buf_printf(out, "%s\"%s\":%lld", i ? "," : "", dr_stat_names[i],
                      (long long)f->stats[i]);
    dr_buf_puts(out, "}");
    put_count(out, "dead", f->dead);
    put_count(out, "memory", f->memory);
    put_count(out, "memory_max", f->memory_max);
    dr_buf_puts(out, ",\"workers\":[");
    for (int i = 0; i < f->n_workers; i++) {
        dr_buf_puts(out, i ? "," : "");
        put_json_worker(out, &f->workers[i]);
    }
    dr_buf_puts(out, "]}\n");
}

/* --- once and again --- */

typedef struct {
    const options *o;
    const dr_conf *conf;
    dr_queue *queue;
    dr_arena *mem;
    double every_s;
} run;

static dr_status look(run *r, dr_buf *out, const dr_screen *screen, dr_err *err)
{
    dr_fleet f;
    dr_arena_reset(r->mem);
    dr_status st = dr_queue_status(r->queue, r->mem, &f, err);
    if (st)
        return st;
    if (r->o->json) {
        put_json(out, &f);
        return DR_OK;
    }
    put_head(out, r->queue, r->conf, &f, screen);
    put_classes(out, r->mem, &f, screen);
    put_totals(out, &f, screen);
    put_workers(out, r->mem, &f, screen);
    return DR_OK;
}

/* The lines of text from the top of the screen on, over what is there: written in one go,
 * so that nothing flickers. What does not fit is counted. */
static void put_frame(dr_buf *out, const dr_buf *text, const dr_screen *screen)
{
    int lines = 0, room = screen->height - 1;
    for (size_t i = 0; i < text->len; i++)
        lines += text->data[i] == '\n';
    int shown = lines > room ? room - 1 : lines;
    const char *p = text->len ? text->data : "";
    dr_buf_puts(out, "\033[H");
    for (int i = 0; i < shown; i++) {
        size_t n = strcspn(p, "\n");
        dr_buf_put(out, p, n);
        dr_buf_puts(out, "\033[K\r\n");
        p += n + 1;
    }
    if (lines > shown)
        dr_buf_printf(out, "… %d more lines\033[K\r\n", lines - shown);
    dr_buf_puts(out, "\033[J");
    out->failed = out->failed || text->failed;
}

/* Redis is away for a while: the screen says so, a pipe gets it on stderr. */
static void put_trouble(dr_buf *text, const dr_err *err, const dr_screen *screen)
{
    if (!screen->terminal) {
        fprintf(stderr, "darkroom: %s; trying again\n", err->message);
        return;
    }
    dr_show_text(text, err->message, strlen(err->message), screen->width);
    dr_buf_puts(text, "\ntrying again\n");
}

static dr_exit watch(run *r)
{
    dr_buf text = { 0 };
    dr_exit code = DR_EXIT_OK;
    for (bool first = true; !code; first = false) {
        const dr_screen screen = dr_screen_look();
        bool in_place = screen.terminal && !r->o->json;
        dr_buf out = { 0 };
        dr_err err = { 0 };
        dr_buf_clear(&text);
        dr_status st = look(r, &text, &screen, &err);
        if (st && (first || st != DR_EIO)) {
            dr_cli_fail(&err);
            code = DR_EXIT_UNAVAILABLE;
            break;
        }
        if (st)
            put_trouble(&text, &err, &screen);
        /* What is on the screen goes up, out of sight, instead of being overwritten. */
        for (int i = 0; in_place && first && i < screen.height; i++)
            dr_buf_puts(&out, "\n");
        if (in_place)
            put_frame(&out, &text, &screen);
        else if (text.len)
            dr_buf_printf(&out, "%s%s", first || r->o->json ? "" : "\n", text.data);
        code = dr_cli_print(&out);
        if (!code)
            dr_sleep_ms((int64_t)(r->every_s * 1000));
    }
    dr_buf_free(&text);
    return code;
}

static dr_exit once(run *r)
{
    const dr_screen screen = dr_screen_look();
    dr_buf text = { 0 };
    dr_err err = { 0 };
    if (look(r, &text, &screen, &err)) {
        dr_buf_free(&text);
        dr_cli_fail(&err);
        return DR_EXIT_UNAVAILABLE;
    }
    return dr_cli_print(&text);
}

/* SECONDS of --watch. */
static bool take_seconds(const dr_cli *cli, const options *o, double *out)
{
    const char *text = cli->n_args ? cli->args[0] : "2";
    char *end;
    *out = strtod(text, &end);
    if (cli->n_args && !o->watch) {
        fprintf(stderr, "darkroom: %s: only --watch takes SECONDS\n", text);
        return false;
    }
    if (end == text || *end || !(*out >= 0.1 && *out <= 86400)) {
        fprintf(stderr, "darkroom: --watch %s: must be 0.1..86400 seconds\n", text);
        return false;
    }
    return true;
}

static dr_status open_queue(run *r, dr_err *err)
{
    r->mem = dr_arena_new();
    return r->mem ? dr_queue_open(&r->queue, r->conf, "", err)
                  : dr_fail(err, DR_ENOMEM, "out of memory");
}

int dr_cmd_status(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN); /* a lost connection and a closed pipe are told by status */
    run r = { .o = &o, .conf = &cli.conf };
    if (!take_seconds(&cli, &o, &r.every_s))
        code = DR_EXIT_USAGE;
    else if (open_queue(&r, &err))
        code = (int)dr_cli_fail(&err);
    else
        code = (int)(o.watch ? watch(&r) : once(&r));
    dr_queue_close(r.queue);
    dr_arena_free(r.mem);
    dr_cli_close(&cli);
    return code;
}
