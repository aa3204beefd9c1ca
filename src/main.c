#include "cli/cli.h"

#include <darkroom/version.h>
#include <stdio.h>
#include <string.h>

static int run_help(int argc, char **argv);

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "worker", "take jobs from Redis and make pictures until told to stop",
      dr_cmd_worker },
    { "submit", "send a job to the queue and wait for its pictures", dr_cmd_submit },
    { "watch", "show the events of one job or of all", dr_cmd_watch },
    { "status", "show the queue and its workers, once or all the time", dr_cmd_status },
    { "cancel", "take a job out of the queue, or stop it", dr_cmd_cancel },
    { "pause", "let no job of a class start", dr_cmd_pause },
    { "resume", "let the jobs of a paused class start again", dr_cmd_resume },
    { "drain", "ask a worker to finish what it has and leave", dr_cmd_drain },
    { "dead", "list, show, retry or drop jobs that were given up", dr_cmd_dead },
    { "generate", "make pictures here, without Redis", dr_cmd_generate },
    { "inspect", "say what is in a model folder", dr_cmd_inspect },
    { "devices", "list the OpenCL devices", dr_cmd_devices },
    { "tune", "measure who multiplies fastest on a device", dr_cmd_tune },
    { "config", "print all settings with their defaults as a settings file",
      dr_cmd_config },
    { "help", "this list, or the help of a command", run_help },
};

static void put_list(dr_buf *out)
{
    dr_buf_puts(out, "darkroom " DR_VERSION
                     ": a queue worker that runs Stable Diffusion in OpenCL\n\n"
                     "usage: darkroom COMMAND [options] …\n\ncommands:\n");
    for (size_t i = 0; i < DR_COUNT(commands); i++)
        dr_buf_printf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    dr_buf_puts(out, "\n`darkroom COMMAND --help` shows options, examples and exit codes.\n"
                     "`darkroom --version` prints the version.\n");
}

static int dispatch(int argc, char **argv)
{
    for (size_t i = 0; i < DR_COUNT(commands); i++)
        if (!strcmp(argv[0], commands[i].name))
            return commands[i].run(argc, argv);
    fprintf(stderr, "darkroom: unknown command %s; `darkroom help` lists all\n", argv[0]);
    return DR_EXIT_USAGE;
}

static int run_help(int argc, char **argv)
{
    dr_buf text = { 0 };
    char flag[] = "--help";
    if (argc > 1 && strcmp(argv[1], "help") && argv[1][0] != '-')
        return dispatch(2, (char *[]){ argv[1], flag, NULL });
    put_list(&text);
    return (int)dr_cli_print(&text);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        dr_buf text = { 0 };
        put_list(&text);
        fprintf(stderr, "%s", text.data ? text.data : "");
        dr_buf_free(&text);
        return DR_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
        return puts("darkroom " DR_VERSION) < 0 ? DR_EXIT_IO : DR_EXIT_OK;
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return run_help(1, argv);
    return dispatch(argc - 1, argv + 1);
}
