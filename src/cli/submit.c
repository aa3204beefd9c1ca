#include "cli/follow.h"

#include "base/clock.h"
#include "base/file.h"
#include "cli/jobs.h"
#include "image/encode.h"
#include "job/events.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* How long a picture that did not fit the entry may wait for its worker, besides delays. */
#define INPUT_TTL_S 86400

typedef struct {
    const char *output;
    bool wait, json, quiet;
    int64_t timeout_s;
} options;

static const dr_cli_row rows[] = {
    { "wait", 'w', NULL, DR_CLI_FLAG, .offset = offsetof(options, wait),
      .help = "Wait for the end, show progress, save the pictures and print their paths." },
    { "output", 'o', "FILE", DR_CLI_TEXT, .offset = offsetof(options, output),
      .help =
          "Where the picture goes; the ending chooses the format without --format; "
          "several get their number in front of it; without this darkroom-ID.webp, .png "
          "or .jpg. Implies --wait." },
    { "timeout", 't', "SECONDS", DR_CLI_INT, .offset = offsetof(options, timeout_s),
      .min = 1, .max = 31536000,
      .help = "Stop waiting after this long (the job goes on); without it never." },
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "The id, and with --wait paths and terminal event, as one JSON object." },
    { "quiet", 0, NULL, DR_CLI_FLAG, .offset = offsetof(options, quiet),
      .help = "No progress." },
    { "preview-every", 0, "N", DR_CLI_FIELD, .key = "preview_every",
      .help = "Publish a preview every N steps; 0: none." },
    { "preview", 0, NULL, DR_CLI_FIELD, .key = "preview",
      .help = "Publish about eight previews of the first picture." },
    { "priority", 0, "CLASS", DR_CLI_FIELD, .key = "priority",
      .help = "high, normal or low (default: normal)." },
    { "delay", 0, "MS", DR_CLI_FIELD, .key = "delay_ms",
      .help = "Start it this many milliseconds from now at the earliest." },
    { "ttl", 0, "MS", DR_CLI_FIELD, .key = "ttl_ms",
      .help = "Let it expire when it has waited this many milliseconds; 0: never." },
    { "job-timeout", 0, "MS", DR_CLI_FIELD, .key = "timeout_ms",
      .help = "Let it fail when it has run this many milliseconds; 0: the worker's own "
              "limit." },
    { "unique", 0, "KEY", DR_CLI_FIELD, .key = "unique",
      .help = "Send nothing while another job with this key waits or runs." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "submit",
    .usage = "PROMPT",
    .summary =
        "Send a job to the queue and print its id. With --wait: follow it and save "
        "its pictures; the exit code says how it ended (65: the job was refused, 69: "
        "no Redis, 70: it failed, 73: nothing was sent because of --unique, 75: --timeout "
        "is over).",
    .examples = "  darkroom submit \"a red circle on a blue background\"\n"
                "  darkroom submit --wait -o circle.webp --seed 1 \"a red circle\"\n"
                "  darkroom submit -w --init sketch.png --strength 0.6 \"a red circle\"\n"
                "  darkroom submit -w --count 4 --size 512x768 --field meta='{\"user\":7}' "
                "\"a fox\"\n",
    .args_min = 1,
    .args_max = 1,
    .rows = { rows, dr_cli_job, dr_cli_redis, dr_cli_common },
};

/* One run. */
typedef struct {
    dr_cli *cli;
    const options *o;
    dr_queue *queue;
    dr_job *job;
    dr_bar bar;
    dr_json *end;                   /* the terminal event */
    dr_buf paths;                   /* lines, or the inside of a JSON array */
    char holder[DR_JOB_ID_MAX + 1]; /* of --unique's key; "": the job was sent */
} run;

/* --- sending --- */

/* 16 random bytes as text. */
static dr_status make_id(char out[33], dr_err *err)
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return dr_fail(err, DR_EIO, "getrandom gave no id");
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + i * 2, 3, "%02x", bytes[i]);
    return DR_OK;
}

/* Strings of an entry. */
typedef struct {
    const char *text[DR_SUBMIT_STRINGS_MAX];
    size_t size[DR_SUBMIT_STRINGS_MAX];
    int n;
} strings;

static void add(strings *s, const char *name, const char *value, size_t n)
{
    s->text[s->n] = name;
    s->size[s->n++] = strlen(name);
    s->text[s->n] = value;
    s->size[s->n++] = n;
}

/* The job as plain fields of a stream entry, so that an option's text means the same here
 * and in redis-cli; checked here first, so that a mistake costs no round trip. */
static dr_status check(run *r, const char *id, dr_cli_ask *ask, strings *s, dr_err *err)
{
    dr_status st = dr_cli_decode(r->cli, id, DR_CLI_INLINE_MAX, ask, err);
    if (st)
        return st;
    r->job = ask->job;
    if (ask->n_fields + 1 > DR_SUBMIT_STRINGS_MAX / 2)
        return dr_fail(err, DR_EINVAL, "%d fields: at most %d", ask->n_fields + 1,
                       DR_SUBMIT_STRINGS_MAX / 2);
    if (!strcmp(r->job->id, id))
        add(s, "id", id, strlen(id));
    for (int i = 0; i < ask->n_fields; i++)
        add(s, ask->fields[i].name, ask->fields[i].value, ask->fields[i].len);
    return DR_OK;
}

/* Store what does not fit the entry; first, because a worker may be waiting. */
static dr_status store_inputs(run *r, const char *id, const dr_cli_ask *ask, dr_err *err)
{
    dr_status st = DR_OK;
    int64_t ttl_s = INPUT_TTL_S + (r->job->delay_ms + r->job->ttl_ms) / 1000;
    for (int i = 0; i < ask->n_inputs && !st; i++) {
        const dr_cli_input *in = &ask->inputs[i];
        st = dr_queue_input_put(r->queue, id, in->name, in->bytes, in->n, ttl_s, err);
    }
    return st;
}

static dr_exit send(run *r)
{
    strings entry = { 0 };
    dr_cli_ask ask;
    char id[33];
    dr_err err = { 0 };
    dr_buf text = { 0 };
    if (make_id(id, &err) || check(r, id, &ask, &entry, &err))
        return dr_cli_fail(&err);
    if (store_inputs(r, id, &ask, &err))
        return dr_follow_fail(&err);
    const dr_event_head head = { .id = r->job->id,
                                 .worker = "",
                                 .ts_ms = dr_wall_ms(),
                                 .meta_json = r->job->meta_json };
    dr_event_queued(&text, &head);
    const dr_sending s = { .id = r->job->id,
                           .unique = r->job->unique,
                           .class = r->job->priority,
                           .fields = entry.text,
                           .sizes = entry.size,
                           .n = entry.n,
                           .text = text.data ? text.data : "",
                           .text_n = text.len };
    dr_status st = dr_queue_submit(r->queue, &s, r->holder, &err);
    dr_buf_free(&text);
    return st ? dr_follow_fail(&err) : DR_EXIT_OK;
}

/* --- the pictures --- */

/* Where picture `index` goes; darkroom-ID and the format's ending without --output. */
static const char *image_path(run *r, int index, int n)
{
    dr_arena *mem = r->cli->mem;
    const char *output = r->o->output;
    if (!output)
        output = dr_arena_printf(mem, "darkroom-%s.%s", r->job->id,
                                 dr_image_format_of(r->job->output.format)->extension);
    return output ? dr_cli_image_path(mem, output, index, n) : NULL;
}

static void report_path(run *r, const char *path)
{
    if (!r->o->json) {
        dr_buf_printf(&r->paths, "%s\n", path);
        return;
    }
    if (r->paths.len)
        dr_buf_puts(&r->paths, ",");
    dr_json_put_string(&r->paths, path);
}

static dr_status save_image(run *r, const dr_json *image, int index, int n, dr_err *err)
{
    dr_reply *reply = NULL;
    const char *key = dr_json_get_string(image, "key", "");
    const char *path = image_path(r, index, n);
    size_t bytes;
    dr_status st = path ? dr_queue_result(r->queue, key, &reply, err)
                        : dr_fail(err, DR_ENOMEM, "out of memory");
    if (!st && dr_reply_type(reply) != DR_REPLY_TEXT)
        st = dr_fail(err, DR_EIO, "%s has expired; results live result.ttl_s", key);
    if (!st) {
        const char *data = dr_reply_text(reply, &bytes);
        st = dr_file_write(path, data, bytes, err);
    }
    dr_reply_free(reply);
    if (!st)
        report_path(r, path);
    return st;
}

static dr_exit save_all(run *r)
{
    const dr_json *images = dr_json_get(r->end, "images");
    int n = dr_json_count(images), i = 0;
    dr_err err = { 0 };
    for (const dr_json *image = dr_json_first(images); image; image = dr_json_next(image))
        if (save_image(r, image, i++, n, &err))
            return dr_cli_fail(&err) == DR_EXIT_UNAVAILABLE ? DR_EXIT_UNAVAILABLE
                                                            : DR_EXIT_IO;
    return DR_EXIT_OK;
}

/* --- waiting --- */

static void on_event(void *ctx, const dr_json *event, const char *text)
{
    run *r = ctx;
    const char *type = dr_json_get_string(event, "event", "");
    if (!strcmp(type, "progress")) {
        const dr_bar_state state = dr_follow_state(event);
        dr_bar_show(&r->bar, &state);
    } else if (!strcmp(type, "warning")) {
        dr_bar_clear(&r->bar);
        fprintf(stderr, "darkroom: warning: %s\n",
                dr_json_get_string(event, "message", ""));
    } else if (strcmp(type, "queued") && strcmp(type, "started") && strcmp(type, "image") &&
               strcmp(type, "preview")) {
        dr_json_free(r->end);
        r->end = NULL;
        if (dr_json_parse(&r->end, text, strlen(text), NULL))
            r->end = NULL;
    }
}

/* Why the job did not succeed, on stderr. */
static void say_ending(run *r, dr_exit code, const dr_err *err)
{
    dr_buf line = { 0 };
    if (code == DR_EXIT_UNAVAILABLE) {
        dr_follow_fail(err);
    } else if (code == DR_EXIT_TIMEOUT) {
        fprintf(stderr,
                "darkroom: job %s has not ended within %lld s; `darkroom watch %s` follows "
                "it\n",
                r->job->id, (long long)r->o->timeout_s, r->job->id);
    } else if (r->end) {
        dr_follow_line(&line, r->end);
        fprintf(stderr, "darkroom: job %s %s\n", r->job->id, line.data ? line.data : "");
    }
    dr_buf_free(&line);
}

static dr_exit wait_for_end(run *r)
{
    dr_err err = { 0 };
    if (!r->o->json && !r->o->quiet)
        fprintf(stderr, "job %s\n", r->job->id);
    dr_exit code = dr_follow_job(r->queue, r->job->id, r->o->timeout_s, on_event, r, &err);
    dr_bar_clear(&r->bar);
    if (code)
        say_ending(r, code, &err);
    else
        code = save_all(r);
    return code;
}

/* --- the command --- */

static dr_exit report_duplicate(run *r)
{
    dr_buf out = { 0 };
    fprintf(stderr, "darkroom: duplicate of job %s, which has the unique key %s\n",
            r->holder, r->job->unique);
    if (r->o->json) {
        dr_buf_puts(&out, "{\"duplicate_of\":");
        dr_json_put_string(&out, r->holder);
        dr_buf_puts(&out, "}\n");
    }
    dr_exit printed = dr_cli_print(&out);
    return printed ? printed : DR_EXIT_DUPLICATE;
}

static dr_exit report(run *r, bool waited)
{
    dr_buf out = { 0 };
    if (!r->o->json) {
        if (!waited)
            dr_buf_printf(&out, "%s\n", r->job->id);
        else if (r->paths.len)
            dr_buf_put(&out, r->paths.data, r->paths.len);
        return dr_cli_print(&out);
    }
    dr_buf_puts(&out, "{\"id\":");
    dr_json_put_string(&out, r->job->id);
    if (waited) {
        dr_buf_printf(&out, ",\"paths\":[%s],\"end\":", r->paths.len ? r->paths.data : "");
        if (r->end)
            dr_json_put(&out, r->end);
        else
            dr_buf_puts(&out, "null");
    }
    dr_buf_puts(&out, "}\n");
    return dr_cli_print(&out);
}

int dr_cmd_submit(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN); /* a lost connection is told by status */
    run r = { .cli = &cli, .o = &o, .bar = dr_bar_make(o.quiet) };
    bool wait = o.wait || o.output;
    if ((code = (int)dr_cli_format(&cli, o.output)))
        goto done;
    if (dr_queue_open(&r.queue, &cli.conf, "", &err)) {
        code = (int)dr_cli_fail(&err);
        goto done;
    }
    if ((code = (int)send(&r)))
        goto done;
    if (*r.holder) {
        code = (int)report_duplicate(&r);
        goto done;
    }
    if (wait)
        code = (int)wait_for_end(&r);
    dr_exit printed = report(&r, wait);
    code = code ? code : (int)printed;
done:
    dr_queue_close(r.queue);
    dr_json_free(r.end);
    dr_buf_free(&r.paths);
    dr_cli_close(&cli);
    return code;
}
