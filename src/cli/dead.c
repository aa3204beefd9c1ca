#include "cli/cli.h"
#include "cli/show.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"
#include "job/entry.h"
#include "job/events.h"
#include "job/msgpack.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE      100
#define NO_ID     ":"    /* no job can be called so */
#define JOB_FIELD "job." /* in front of the fields of the job's own entry */

typedef struct {
    bool json, all;
    int64_t count;
} options;

static const dr_cli_row rows[] = {
    { "count", 'n', "N", DR_CLI_INT, .offset = offsetof(options, count), .min = 1,
      .max = 1000000, .help = "list: at most N, the newest (default: 20)." },
    { "all", 'a', NULL, DR_CLI_FLAG, .offset = offsetof(options, all),
      .help = "retry, drop: all that are there now; list: no limit." },
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "One JSON object an entry." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "dead",
    .usage = "list | show ENTRY | retry ENTRY…|--all | drop ENTRY…|--all",
    .summary =
        "Jobs that were given up although nothing was wrong with what the client sent: "
        "poison (too many workers died with it), timeout, device, … Retry puts one at the "
        "end of its class under its old id, as if it were new; drop forgets it. 66: an "
        "entry is not there (any more); 73: a job with that id or unique key is there "
        "again.",
    .examples = "  darkroom dead list --count 5\n"
                "  darkroom dead show 1764000000000-0 --json | jq .job.prompt\n"
                "  darkroom dead retry 1764000000000-0\n"
                "  darkroom dead drop --all\n",
    .args_min = 1,
    .args_max = 100000,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

/* One run. */
typedef struct {
    const dr_cli *cli;
    const options *o;
    dr_queue *queue;
    dr_entry_reader entries;
    dr_buf out;
} run;

static const char *entry_of(const dr_reply *item)
{
    return dr_reply_text(dr_reply_at(item, 0), NULL);
}

/* A field of ours; an empty text when it is absent. */
static const char *field(const dr_reply *item, const char *name)
{
    return dr_dead_field(item, name, NULL);
}

static int64_t number(const dr_reply *item, const char *name)
{
    return strtoll(field(item, name), NULL, 10);
}

static dr_exit unavailable(const dr_err *err)
{
    dr_cli_fail(err);
    return err->code == DR_EINVAL ? DR_EXIT_USAGE : DR_EXIT_UNAVAILABLE;
}

static dr_exit absent(const char *entry)
{
    fprintf(stderr,
            "darkroom: dead letter %s: not there; it was retried, dropped or pushed out\n",
            entry);
    return DR_EXIT_NO_INPUT;
}

/* --- as JSON --- */

/* A field of the job's entry: what it holds where that can be JSON, else null. */
static void put_value(run *r, const char *name, const char *value, size_t n)
{
    dr_value *v = NULL;
    dr_buf text = { 0 };
    dr_arena_reset(r->entries.mem);
    bool map = !strcmp(name, "job"), json = !strcmp(name, "json");
    dr_status st =
        map    ? dr_value_from_msgpack(&v, r->entries.mem, value, n, NULL)
        : json ? dr_value_from_json(&v, r->entries.mem, value, n, DR_JOB_OBJECTS_MAX, NULL)
               : DR_EINVAL;
    size_t at;
    if (!st && !dr_value_json(&text, v, NULL))
        dr_buf_put(&r->out, text.data, text.len);
    else if (!map && dr_utf8_valid(value, n, &at) && strlen(value) == n)
        dr_json_put_string(&r->out, value);
    else
        dr_buf_puts(&r->out, "null");
    dr_buf_free(&text);
}

static void put_json(run *r, const dr_reply *item)
{
    static const char *const texts[] = { "id", "class", "reason", "message", "worker" };
    static const char *const numbers[] = { "attempts", "crashes", "died_ms" };
    const dr_reply *fields = dr_reply_at(item, 1);
    const char *comma = "";
    dr_buf_puts(&r->out, "{\"entry\":");
    dr_json_put_string(&r->out, entry_of(item));
    for (size_t i = 0; i < DR_COUNT(texts); i++) {
        dr_buf_printf(&r->out, ",\"%s\":", texts[i]);
        dr_json_put_string(&r->out, field(item, texts[i]));
    }
    for (size_t i = 0; i < DR_COUNT(numbers); i++)
        dr_buf_printf(&r->out, ",\"%s\":%lld", numbers[i],
                      (long long)number(item, numbers[i]));
    dr_buf_puts(&r->out, ",\"job\":{");
    for (size_t i = 0; i + 1 < dr_reply_count(fields); i += 2) {
        size_t n;
        const char *name = dr_reply_text(dr_reply_at(fields, i), NULL);
        const char *value = dr_reply_text(dr_reply_at(fields, i + 1), &n);
        if (strncmp(name, JOB_FIELD, strlen(JOB_FIELD)) != 0)
            continue;
        name += strlen(JOB_FIELD);
        dr_buf_puts(&r->out, comma);
        dr_json_put_string(&r->out, name);
        dr_buf_puts(&r->out, ":");
        put_value(r, name, value, n);
        comma = ",";
    }
    dr_buf_puts(&r->out, "}}\n");
}

/* --- list --- */

static void add_row(dr_table *t, const dr_reply *item, int64_t now_ms)
{
    char age[DR_SHOWN_MAX], tries[64];
    snprintf(tries, sizeof tries, "%lld/%lld", (long long)number(item, "attempts"),
             (long long)number(item, "crashes"));
    const dr_cell cells[] = {
        { entry_of(item), DR_BOLD },
        { field(item, "id"), DR_PLAIN },
        { field(item, "class"), DR_PLAIN },
        { field(item, "reason"), DR_RED },
        { dr_show_age(age, now_ms - number(item, "died_ms")), DR_PLAIN },
        { tries, DR_PLAIN },
        { field(item, "worker"), DR_PLAIN },
        { field(item, "message"), DR_PLAIN },
    };
    dr_table_add(t, cells);
}

/* The newest ones, page by page: called for each. */
static dr_exit each_newest(run *r, int64_t most, void (*seen)(void *ctx, const dr_reply *),
                           void *ctx)
{
    char behind[64] = "";
    dr_err err = { 0 };
    for (int64_t left = most; left > 0;) {
        dr_reply *page = NULL;
        const dr_dead_page which = { .behind = behind,
                                     .up_to = "",
                                     .n = left < PAGE ? left : PAGE };
        if (dr_queue_dead(r->queue, &which, &page, &err))
            return unavailable(&err);
        size_t n = dr_reply_count(page);
        for (size_t i = 0; i < n; i++)
            seen(ctx, dr_reply_at(page, i));
        if (n)
            snprintf(behind, sizeof behind, "%s", entry_of(dr_reply_at(page, n - 1)));
        left = (int64_t)n < which.n ? 0 : left - (int64_t)n;
        dr_reply_free(page);
    }
    return DR_EXIT_OK;
}

typedef struct {
    run *r;
    dr_table table;
    int64_t now_ms;
} listing;

static void list_item(void *ctx, const dr_reply *item)
{
    listing *l = ctx;
    if (l->r->o->json)
        put_json(l->r, item);
    else
        add_row(&l->table, item, l->now_ms);
}

static dr_exit list(run *r)
{
    static const dr_column columns[] = {
        { .head = "ENTRY" },
        { .head = "JOB", .min = 8 },
        { .head = "CLASS", .rank = 4 },
        { .head = "REASON" },
        { .head = "DIED", .right = true, .rank = 1 },
        { .head = "TRIES/CRASHES", .right = true, .rank = 3 },
        { .head = "WORKER", .min = 6, .rank = 2 },
        { .head = "MESSAGE", .min = 16 },
        { 0 },
    };
    const dr_screen screen = dr_screen_look();
    listing l = { .r = r,
                  .table = { .mem = r->cli->mem, .columns = columns },
                  .now_ms = dr_wall_ms() };
    dr_exit code = each_newest(r, r->o->all ? INT64_MAX : r->o->count, list_item, &l);
    if (!code && !r->o->json && l.table.first)
        dr_table_put(&r->out, &l.table, &screen);
    else if (!code && !r->o->json)
        dr_buf_puts(&r->out, "no dead letters\n");
    return code;
}

/* --- show --- */

static void put_text(run *r, const char *name, const char *value, size_t n)
{
    dr_buf_printf(&r->out, "%-12s ", name);
    if (!strcmp(name, JOB_FIELD "job"))
        put_value(r, "job", value, n);
    else
        dr_show_text(&r->out, value, n, 0);
    dr_buf_puts(&r->out, "\n");
}

static dr_exit show(run *r, const char *entry)
{
    dr_reply *found = NULL;
    dr_err err = { 0 };
    if (dr_queue_dead_entry(r->queue, entry, &found, &err))
        return unavailable(&err);
    const dr_reply *item = dr_reply_at(found, 0), *fields = dr_reply_at(item, 1);
    dr_exit code = item ? DR_EXIT_OK : absent(entry);
    if (item && r->o->json) {
        put_json(r, item);
    } else if (item) {
        put_text(r, "entry", entry, strlen(entry));
        for (size_t i = 0; i + 1 < dr_reply_count(fields); i += 2) {
            size_t n;
            const char *value = dr_reply_text(dr_reply_at(fields, i + 1), &n);
            put_text(r, dr_reply_text(dr_reply_at(fields, i), NULL), value, n);
        }
    }
    dr_reply_free(found);
    return code;
}

/* --- retry --- */

/* Say how it went; the exit code for it. */
static dr_exit report_retry(run *r, const char *entry, const char *id,
                            dr_dead_answer answer, const char *other)
{
    static const char *const words[] = { [DR_DEAD_OK] = "ok",
                                         [DR_DEAD_ABSENT] = "absent",
                                         [DR_DEAD_BUSY] = "busy",
                                         [DR_DEAD_DUPLICATE] = "duplicate" };
    if (r->o->json) {
        dr_buf_puts(&r->out, "{\"entry\":");
        dr_json_put_string(&r->out, entry);
        dr_buf_puts(&r->out, ",\"id\":");
        dr_json_put_string(&r->out, id);
        dr_buf_printf(&r->out, ",\"result\":\"%s\"}\n", words[answer]);
    } else if (answer == DR_DEAD_OK) {
        dr_buf_printf(&r->out, "%s: job %s waits again\n", entry, id);
    } else if (answer == DR_DEAD_BUSY) {
        fprintf(stderr, "darkroom: dead letter %s: a job %s is %s already\n", entry, id,
                other);
    } else if (answer == DR_DEAD_DUPLICATE) {
        fprintf(stderr, "darkroom: dead letter %s: job %s has the unique key of job %s\n",
                entry, other, id);
    } else {
        absent(entry);
    }
    return answer == DR_DEAD_OK       ? DR_EXIT_OK
           : answer == DR_DEAD_ABSENT ? DR_EXIT_NO_INPUT
                                      : DR_EXIT_DUPLICATE;
}

/* Whether anything is left of the job's own entry. */
static bool has_job(const dr_reply *item)
{
    const dr_reply *fields = dr_reply_at(item, 1);
    for (size_t i = 0; i < dr_reply_count(fields); i += 2)
        if (!strncmp(dr_reply_text(dr_reply_at(fields, i), NULL), JOB_FIELD,
                     strlen(JOB_FIELD)))
            return true;
    return false;
}

static dr_exit retry_item(run *r, const dr_reply *item)
{
    dr_err err = { 0 };
    dr_dead_answer answer;
    char other[DR_JOB_ID_MAX + 1];
    dr_revival v = { .entry = entry_of(item),
                     .id = field(item, "id"),
                     .class = DR_PRIORITY_NORMAL };
    const dr_job *job =
        dr_entry_decode(&r->entries, NO_ID, dr_reply_at(item, 1), JOB_FIELD);
    if (!job || !has_job(item) || !*v.id || strlen(v.id) > DR_JOB_ID_MAX) {
        fprintf(stderr,
                "darkroom: dead letter %s: its job was not kept; it can only be dropped\n",
                v.entry);
        return DR_EXIT_FAILED;
    }
    dr_class_parse(field(item, "class"), &v.class);
    v.put_id = !strcmp(job->id, NO_ID);
    v.unique = job->unique;
    const dr_event_head head = {
        .id = v.id, .worker = "", .ts_ms = dr_wall_ms(), .meta_json = job->meta_json
    };
    dr_event_queued(&r->entries.text, &head);
    const dr_buf *text = dr_entry_form(&r->entries, job);
    v.text = text->data ? text->data : "";
    v.text_n = text->len;
    if (dr_queue_dead_retry(r->queue, &v, &answer, other, &err))
        return unavailable(&err);
    return report_retry(r, v.entry, v.id, answer, other);
}

static dr_exit retry(run *r, const char *entry)
{
    dr_reply *found = NULL;
    dr_err err = { 0 };
    if (dr_queue_dead_entry(r->queue, entry, &found, &err))
        return unavailable(&err);
    dr_exit code = dr_reply_count(found) ? retry_item(r, dr_reply_at(found, 0))
                                         : report_retry(r, entry, "", DR_DEAD_ABSENT, "");
    dr_reply_free(found);
    return code;
}

/* From the oldest to the one that is the newest now, so that a job which dies again at once
 * is not met again. */
static dr_exit retry_all(run *r)
{
    const dr_dead_page newest = { .behind = "", .up_to = "", .n = 1 };
    dr_exit code = DR_EXIT_OK;
    dr_reply *page = NULL;
    dr_err err = { 0 };
    char behind[64] = "", up_to[64];
    if (dr_queue_dead(r->queue, &newest, &page, &err))
        return unavailable(&err);
    snprintf(up_to, sizeof up_to, "%s", entry_of(dr_reply_at(page, 0)));
    size_t n = dr_reply_count(page);
    while (n && code != DR_EXIT_UNAVAILABLE) {
        const dr_dead_page next = {
            .oldest_first = true, .behind = behind, .up_to = up_to, .n = PAGE
        };
        dr_reply_free(page);
        page = NULL;
        if (dr_queue_dead(r->queue, &next, &page, &err))
            return unavailable(&err);
        n = dr_reply_count(page);
        for (size_t i = 0; i < n && code != DR_EXIT_UNAVAILABLE; i++) {
            dr_exit one = retry_item(r, dr_reply_at(page, i));
            code = one ? one : code;
        }
        if (n)
            snprintf(behind, sizeof behind, "%s", entry_of(dr_reply_at(page, n - 1)));
    }
    dr_reply_free(page);
    return code;
}

/* --- drop --- */

static dr_exit drop(run *r, const char *entry)
{
    dr_err err = { 0 };
    int64_t n = 0;
    if (dr_queue_dead_drop(r->queue, entry, &n, &err))
        return unavailable(&err);
    if (!n)
        return absent(entry);
    if (!r->o->json)
        dr_buf_printf(&r->out, "%s: dropped\n", entry);
    else
        dr_buf_printf(&r->out, "{\"entry\":\"%s\",\"result\":\"ok\"}\n", entry);
    return DR_EXIT_OK;
}

static dr_exit drop_all(run *r)
{
    dr_err err = { 0 };
    int64_t n = 0;
    if (dr_queue_dead_drop_all(r->queue, &n, &err))
        return unavailable(&err);
    dr_buf_printf(&r->out, r->o->json ? "{\"dropped\":%lld}\n" : "%lld dropped\n",
                  (long long)n);
    return DR_EXIT_OK;
}

/* --- the command --- */

typedef struct {
    const char *name;
    dr_exit (*all)(run *r);                    /* list, or --all */
    dr_exit (*one)(run *r, const char *entry); /* NULL: takes no entry */
    bool many;                                 /* entries; --all */
} verb;

static const verb verbs[] = {
    { "list", list, NULL, false },
    { "show", NULL, show, false },
    { "retry", retry_all, retry, true },
    { "drop", drop_all, drop, true },
};

static dr_exit wrong_usage(const char *what)
{
    fprintf(stderr, "darkroom: dead %s; usage: darkroom dead %s\n", what, spec.usage);
    return DR_EXIT_USAGE;
}

static dr_exit carry_out(run *r, const verb *v)
{
    int n = r->cli->n_args - 1;
    bool all = !v->one || (v->many && r->o->all);
    dr_exit code = DR_EXIT_OK;
    if (all ? n > 0 : n < 1 || (!v->many && n > 1))
        return wrong_usage(v->name);
    if (all)
        return v->all(r);
    for (int i = 0; i < n && code != DR_EXIT_UNAVAILABLE && code != DR_EXIT_USAGE; i++) {
        dr_exit one = v->one(r, r->cli->args[i + 1]);
        code = one ? one : code;
    }
    return code;
}

static dr_exit dispatch(run *r)
{
    for (size_t i = 0; i < DR_COUNT(verbs); i++)
        if (!strcmp(r->cli->args[0], verbs[i].name))
            return carry_out(r, &verbs[i]);
    return wrong_usage(r->cli->args[0]);
}

int dr_cmd_dead(int argc, char **argv)
{
    options o = { .count = 20 };
    dr_cli cli;
    dr_err err = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN);
    run r = { .cli = &cli, .o = &o };
    if (dr_entry_open(&r.entries, "", &err) ||
        dr_queue_open(&r.queue, &cli.conf, "", &err)) {
        code = (int)dr_cli_fail(&err);
    } else {
        code = (int)dispatch(&r);
        dr_exit printed = dr_cli_print(&r.out);
        code = code ? code : (int)printed;
    }
    dr_queue_close(r.queue);
    dr_entry_close(&r.entries);
    dr_buf_free(&r.out);
    dr_cli_close(&cli);
    return code;
}
