#include "cli/cli.h"

static const dr_cli_row no_rows[] = { { 0 } };

static const dr_cli_spec spec = {
    .name = "config",
    .usage = "",
    .summary =
        "Print every setting with its default, bounds and meaning, as a settings file "
        "that can be saved, edited and given with --config.",
    .examples = "  darkroom config > darkroom.conf\n",
    .rows = { no_rows },
};

int dr_cmd_config(int argc, char **argv)
{
    dr_cli cli;
    dr_buf text = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, NULL, argc, argv, &code))
        return code;
    dr_conf_print(&text);
    dr_cli_close(&cli);
    return (int)dr_cli_print(&text);
}
