#include "cli/cli.h"

#include "diffusion/pipeline.h"

typedef struct {
    bool json;
} options;

static const dr_cli_row rows[] = {
    { "json", 'j', NULL, DR_CLI_FLAG, .offset = offsetof(options, json),
      .help = "One JSON object." },
    { 0 },
};

static const dr_cli_spec spec = {
    .name = "inspect",
    .usage = "PATH",
    .summary = "Say what is in a model folder: family, components, tensors, dtypes, "
               "parameters, memory. Reads configs and headers only.",
    .examples = "  darkroom inspect models/stable-diffusion-v1-5\n"
                "  darkroom inspect --json models/sd-turbo | jq .family\n",
    .args_min = 1,
    .args_max = 1,
    .rows = { rows, dr_cli_common },
};

int dr_cmd_inspect(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    dr_buf text = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    if (dr_model_inspect(&text, cli.args[0], o.json, &err)) {
        code = (int)dr_cli_fail(&err);
        dr_buf_free(&text);
    } else {
        code = (int)dr_cli_print(&text);
    }
    dr_cli_close(&cli);
    return code;
}
