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
    .usage = "MODEL",
    .summary = "Say what is in a model: family, components, tensors, dtypes, parameters, "
               "memory. MODEL is a folder in diffusers layout or the name of one in "
               "model.dir. Reads configs and headers only.",
    .examples = "  darkroom inspect models/stable-diffusion-v1-5\n"
                "  darkroom inspect --json models/sd-turbo | jq .family\n",
    .args_min = 1,
    .args_max = 1,
    .rows = { rows, dr_cli_common },
};

static dr_status inspect(dr_cli *cli, bool json, dr_buf *out, dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_status st = dr_conf_set(&cli->conf, "model.path", cli->args[0], err);
    if (!st)
        st = dr_model_path(path, &cli->conf, err);
    return st ? st : dr_model_inspect(out, path, json, err);
}

int dr_cmd_inspect(int argc, char **argv)
{
    options o = { 0 };
    dr_cli cli;
    dr_err err = { 0 };
    dr_buf text = { 0 };
    int code;
    if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
        return code;
    if (inspect(&cli, o.json, &text, &err)) {
        code = (int)dr_cli_fail(&err);
        dr_buf_free(&text);
    } else {
        code = (int)dr_cli_print(&text);
    }
    dr_cli_close(&cli);
    return code;
}
