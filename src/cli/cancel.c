#include "cli/cli.h"

#include "base/json.h"
#include "job/entry.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    bool json;
} options;

static const dr_cli_row rows[] = {
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "One JSON object a job: {\"id\", \"result\": \"canceled\", \"asked\", "
              "\"ended\" or \"unknown\", \"worker\" or \"state\"}." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "cancel",
    .usage = "ID…",
    .summary =
        "Cancel jobs for good. One that waits is out of the queue at once; one that runs "
        "is stopped by its worker at the next step, and stays canceled should that worker "
        "die. A job that has ended already is no mistake (0). An id that is not known (66) "
        "is kept for an hour, and the job is canceled if it arrives in that time.",
    .examples =
        "  darkroom cancel 1764000000000-0\n"
        "  darkroom cancel $(cat ids) --json | jq -r 'select(.result==\"unknown\")'\n",
    .args_min = 1,
    .args_max = 100000,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

/* A wrong id anywhere stops the command before it does anything. */
static dr_exit check_ids(const dr_cli *cli)
{
    dr_err err = { 0 };
    for (int i = 0; i < cli->n_args; i++)
        if (dr_job_id_check("ID", cli->args[i], strlen(cli->args[i]), &err)) {
            dr_cli_fail(&err);
            return DR_EXIT_USAGE;
        }
    return DR_EXIT_OK;
}

static void put_json(dr_buf *out, const char *id, const dr_cancel_answer *a)
{
    static const char *const words[] = { [DR_CANCELED] = "canceled",
                                         [DR_CANCEL_ASKED] = "asked",
                                         [DR_CANCEL_ENDED] = "ended",
                                         [DR_CANCEL_UNKNOWN] = "unknown" };
    dr_buf_puts(out, "{\"id\":");
    dr_json_put_string(out, id);
    dr_buf_printf(out, ",\"result\":\"%s\"", words[a->word]);
    if (a->word == DR_CANCEL_ASKED) {
        dr_buf_puts(out, ",\"worker\":");
        dr_json_put_string(out, a->worker);
    }
    if (a->word == DR_CANCEL_ENDED)
        dr_buf_printf(out, ",\"state\":\"%s\"", a->state);
    dr_buf_puts(out, "}\n");
}

static dr_exit report(const options *o, const char *id, const dr_cancel_answer *a)
{
    dr_buf out = { 0 };
    if (o->json)
        put_json(&out, id, a);
    else if (a->word == DR_CANCELED)
        dr_buf_printf(&out, "%s: canceled\n", id);
    else if (a->word == DR_CANCEL_ASKED)
        dr_buf_printf(&out, "%s: with worker %s, which was asked to stop\n", id, a->worker);
    else if (a->word == DR_CANCEL_ENDED)
        dr_buf_printf(&out, "%s: has ended before: %s\n", id, a->state);
    else
        fprintf(stderr,
                "darkroom: job %s: not found; it will be canceled if it arrives within an "
                "hour\n",
                id);
    dr_exit printed = dr_cli_print(&out);
    return printed ? printed : a->word == DR_CANCEL_UNKNOWN ? DR_EXIT_NO_INPUT : DR_EXIT_OK;
}

static dr_exit cancel_all(const dr_cli *cli, const options *o, dr_queue *q,
                          dr_entry_reader *entries)
{
    const dr_cancel_reader reader = dr_entry_canceling(entries);
    dr_exit code = DR_EXIT_OK;
    for (int i = 0; i < cli->n_args; i++) {
        dr_cancel_answer answer;
        dr_err err = { 0 };
        if (dr_queue_cancel(q, cli->args[i], &reader, false, &answer, &err)) {
            dr_cli_fail(&err);
            return DR_EXIT_UNAVAILABLE;
        }
        dr_exit one = report(o, cli->args[i], &answer);
        if (one == DR_EXIT_IO)
            return one;
        code = one ? one : code;
    }
    return code;
}

int dr_cmd_cancel(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    dr_queue *q = NULL;
    dr_entry_reader entries = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN);
    if ((code = (int)check_ids(&cli)))
        goto done;
    if (dr_entry_open(&entries, "", &err) || dr_queue_open(&q, &cli.conf, "", &err))
        code = (int)dr_cli_fail(&err);
    else
        code = (int)cancel_all(&cli, &o, q, &entries);
done:
    dr_queue_close(q);
    dr_entry_close(&entries);
    dr_cli_close(&cli);
    return code;
}
