#include "cli/follow.h"

#include <signal.h>
#include <stdio.h>

typedef struct {
    bool json;
    int64_t timeout_s;
    dr_buf line;
} options;

static const dr_cli_row rows[] = {
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "Events as they are, one JSON object a line." },
    { "timeout", 't', "SECONDS", DR_CLI_INT, .offset = offsetof(options, timeout_s),
      .min = 1, .max = 31536000, .help = "Give up after this long; without it never." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "watch",
    .usage = "[ID]",
    .summary = "Show the events of one job from its first to its last, also after it has "
               "ended, and "
               "leave with a code that says how it ended (65: the job was refused, 70: it "
               "failed). "
               "Without ID: the events of all jobs, as they happen.",
    .examples = "  darkroom watch 1764012345678-0\n"
                "  darkroom watch --json | jq -r 'select(.event==\"failed\") | .message'\n",
    .args_min = 0,
    .args_max = 1,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

static void print_event(void *ctx, const dr_json *event, const char *text)
{
    options *o = ctx;
    if (o->json) {
        puts(text);
    } else {
        dr_buf_clear(&o->line);
        dr_follow_line(&o->line, event);
        printf("%s %s\n", dr_json_get_string(event, "id", "?"), o->line.data);
    }
    fflush(stdout);
}

int dr_cmd_watch(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    dr_queue *q = NULL;
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN); /* a lost connection and a closed pipe are told by status */
    if (dr_queue_open(&q, &cli.conf, "", &err))
        code = (int)dr_cli_fail(&err);
    else if (cli.n_args)
        code = (int)dr_follow_job(q, cli.args[0], o.timeout_s, print_event, &o, &err);
    else
        code = (int)dr_follow_all(q, o.timeout_s, print_event, &o, &err);
    if (code == DR_EXIT_UNAVAILABLE)
        dr_follow_fail(&err);
    else if (code == DR_EXIT_TIMEOUT)
        fprintf(stderr, "darkroom: nothing more within %lld s\n", (long long)o.timeout_s);
    dr_queue_close(q);
    dr_buf_free(&o.line);
    dr_cli_close(&cli);
    return code;
}
