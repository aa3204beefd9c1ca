#include "cli/cli.h"

#include "queue/admin.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* pause and resume: the same but for the direction. */

typedef struct {
    bool json;
} options;

static const dr_cli_row rows[] = {
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "The classes that are paused now as one JSON object: {\"paused\":[…]}." },
    { 0 },
};

static const dr_cli_spec pause_spec = {
    .name = "pause",
    .usage = "CLASS…|all",
    .summary =
        "Let no job of these classes (high, normal, low) start, on any worker, until "
        "`darkroom resume`. Jobs that run go on; new ones wait.",
    .examples = "  darkroom pause low\n"
                "  darkroom pause all\n",
    .args_min = 1,
    .args_max = 16,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

static const dr_cli_spec resume_spec = {
    .name = "resume",
    .usage = "CLASS…|all",
    .summary = "Let the jobs of these classes (high, normal, low) start again.",
    .examples = "  darkroom resume low\n"
                "  darkroom resume all\n",
    .args_min = 1,
    .args_max = 16,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

/* The classes that are named. */
static dr_exit read_classes(const dr_cli *cli, bool chosen[DR_CLASSES])
{
    for (int i = 0; i < cli->n_args; i++) {
        bool all = !strcmp(cli->args[i], "all");
        dr_priority class = DR_PRIORITY_HIGH;
        if (!all && !dr_class_parse(cli->args[i], &class)) {
            fprintf(stderr, "darkroom: %s: must be high, normal, low or all\n",
                    cli->args[i]);
            return DR_EXIT_USAGE;
        }
        for (int c = 0; c < DR_CLASSES; c++)
            chosen[c] = chosen[c] || all || c == (int)class;
    }
    return DR_EXIT_OK;
}

static dr_status put_paused(dr_buf *out, dr_queue *q, dr_arena *mem, dr_err *err)
{
    dr_fleet f;
    const char *comma = "";
    dr_status st = dr_queue_status(q, mem, &f, err);
    if (st)
        return st;
    dr_buf_puts(out, "{\"paused\":[");
    for (int i = 0; i < DR_CLASSES; i++)
        if (f.classes[i].paused) {
            dr_buf_printf(out, "%s\"%s\"", comma, dr_class_name((dr_priority)i));
            comma = ",";
        }
    dr_buf_puts(out, "]}\n");
    return DR_OK;
}

static dr_status steer(const dr_cli *cli, const options *o, dr_queue *q, bool paused,
                       const bool chosen[DR_CLASSES], dr_buf *out, dr_err *err)
{
    dr_status st = DR_OK;
    for (int i = 0; i < DR_CLASSES && !st; i++) {
        bool changed = false;
        if (!chosen[i])
            continue;
        st = dr_queue_pause(q, (dr_priority)i, paused, &changed, err);
        if (!o->json)
            dr_buf_printf(out, "%s: %s%s\n", dr_class_name((dr_priority)i),
                          paused ? "paused" : "open", changed ? "" : ", as before");
    }
    return !st && o->json ? put_paused(out, q, cli->mem, err) : st;
}

static int run(const dr_cli_spec *spec, bool paused, int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    dr_queue *q = NULL;
    dr_buf out = { 0 };
    bool chosen[DR_CLASSES] = { false };
    int code;
    if (!dr_cli_open(&cli, spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN);
    if ((code = (int)read_classes(&cli, chosen)))
        goto done;
    if (dr_queue_open(&q, &cli.conf, "", &err)) {
        code = (int)dr_cli_fail(&err);
    } else if (steer(&cli, &o, q, paused, chosen, &out, &err)) {
        dr_cli_fail(&err);
        code = DR_EXIT_UNAVAILABLE;
    } else {
        code = (int)dr_cli_print(&out);
    }
done:
    dr_queue_close(q);
    dr_buf_free(&out);
    dr_cli_close(&cli);
    return code;
}

int dr_cmd_pause(int argc, char **argv)
{
    return run(&pause_spec, true, argc, argv);
}

int dr_cmd_resume(int argc, char **argv)
{
    return run(&resume_spec, false, argc, argv);
}
