#include "cli/cli.h"

#include "base/clock.h"
#include "queue/admin.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define POLL_MS  200
#define ABSENT_S 30.0 /* without Redis before it counts as gone */

typedef struct {
    bool wait;
    int64_t timeout_s;
} options;

static const dr_cli_row rows[] = {
    { "wait", 'w', NULL, DR_CLI_FLAG, .offset = offsetof(options, wait),
      .help = "Wait until they have left." },
    { "timeout", 't', "SECONDS", DR_CLI_INT, .offset = offsetof(options, timeout_s),
      .min = 1, .max = 31536000,
      .help = "Stop waiting after this long (they go on draining); implies --wait; without "
              "it wait for ever." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "drain",
    .usage = "NAME…",
    .summary =
        "Ask workers to take no more jobs, finish what they have (up to worker.drain_ms) "
        "and leave, as SIGTERM on their machine would. `darkroom status` shows the names; "
        "one that is not there gives 66. There is no way back: start the worker again.",
    .examples = "  darkroom drain gpu1-4711\n"
                "  darkroom drain --wait --timeout 900 gpu1-4711 gpu2-17\n",
    .args_min = 1,
    .args_max = 1000,
    .rows = { rows, dr_cli_redis, dr_cli_common },
};

/* The names that are there, moved to the front of asked; *n of them. */
static dr_exit ask_all(const dr_cli *cli, dr_queue *q, const char **asked, int *n)
{
    dr_exit code = DR_EXIT_OK;
    for (int i = 0; i < cli->n_args; i++) {
        const char *name = cli->args[i];
        bool known = false;
        dr_err err = { 0 };
        if (strlen(name) <= DR_JOB_ID_MAX && dr_queue_drain(q, name, &known, &err)) {
            dr_cli_fail(&err);
            return DR_EXIT_UNAVAILABLE;
        }
        if (known) {
            printf("%s: draining\n", name);
            asked[(*n)++] = name;
        } else {
            fprintf(stderr,
                    "darkroom: worker %.128s: not there; `darkroom status` lists "
                    "the workers\n",
                    name);
            code = DR_EXIT_NO_INPUT;
        }
    }
    return fflush(stdout) ? DR_EXIT_IO : code;
}

/* Whether the worker is still there, through a Redis that is away for a while. */
static dr_status is_there(dr_queue *q, const char *name, bool *still, dr_err *err)
{
    double from_s = dr_now_s();
    dr_status st;
    while ((st = dr_queue_draining(q, name, still, err)) == DR_EIO &&
           dr_now_s() - from_s < ABSENT_S)
        dr_sleep_ms(dr_redis_backoff_ms(dr_queue_redis(q)));
    return st;
}

static dr_exit wait_for(dr_queue *q, const char **asked, int n, int64_t timeout_s)
{
    double until_s = timeout_s ? dr_now_s() + (double)timeout_s : 0;
    for (int i = 0; i < n;) {
        bool still = false;
        dr_err err = { 0 };
        if (is_there(q, asked[i], &still, &err)) {
            dr_cli_fail(&err);
            return DR_EXIT_UNAVAILABLE;
        }
        if (!still) {
            printf("%s: has left\n", asked[i++]);
            fflush(stdout);
            continue;
        }
        if (until_s > 0 && dr_now_s() >= until_s) {
            fprintf(stderr, "darkroom: worker %s has not left within %lld s\n", asked[i],
                    (long long)timeout_s);
            return DR_EXIT_TIMEOUT;
        }
        dr_sleep_ms(POLL_MS);
    }
    return DR_EXIT_OK;
}

int dr_cmd_drain(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    dr_queue *q = NULL;
    int code, n = 0;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    signal(SIGPIPE, SIG_IGN);
    const char **asked = dr_arena_alloc(cli.mem, (size_t)cli.n_args * sizeof *asked);
    dr_status st = asked ? dr_queue_open(&q, &cli.conf, "", &err)
                         : dr_fail(&err, DR_ENOMEM, "out of memory");
    if (st) {
        code = (int)dr_cli_fail(&err);
        goto done;
    }
    code = (int)ask_all(&cli, q, asked, &n);
    if ((o.wait || o.timeout_s) && (!code || code == DR_EXIT_NO_INPUT)) {
        dr_exit waited = wait_for(q, asked, n, o.timeout_s);
        code = waited ? (int)waited : code;
    }
done:
    dr_queue_close(q);
    dr_cli_close(&cli);
    return code;
}
