#include "cli/cli.h"

#include "base/log.h"
#include "worker/worker.h"

typedef struct {
    int64_t once;
} options;

static const dr_cli_row rows[] = {
    { "name", 0, "TEXT", DR_CLI_SETTING, .key = "worker.name",
      .help = "Name in the registry and in events; without it host name and process id." },
    { "once", 0, "N", DR_CLI_INT, .offset = offsetof(options, once), .min = 1,
      .max = 1000000000,
      .help = "Leave after N jobs; without it go on until told to stop." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "worker",
    .usage = "",
    .summary =
        "Take jobs from Redis and make pictures until SIGTERM or SIGINT. The first signal "
        "lets the running job go on for up to worker.drain_ms, the second ends at once. "
        "Redis may be absent at start or go away later: the worker keeps trying.",
    .examples = "  darkroom worker\n"
                "  darkroom worker --redis unix:///run/redis.sock --model models/sd15 "
                "--device gpu\n"
                "  darkroom worker --set lease.ms=60000 --once 10\n",
    .rows = { rows, dr_cli_redis, dr_cli_engine, dr_cli_common },
};

int dr_cmd_worker(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    char quoted[2200];
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    if (dr_worker_run(&cli.conf, o.once, &err)) {
        dr_log(DR_ERROR, "worker.error", "code=%s message=%s", dr_status_name(err.code),
               dr_log_quote(quoted, sizeof quoted, err.message));
        code = (int)dr_cli_exit(err.code);
    }
    dr_cli_close(&cli);
    return code;
}
