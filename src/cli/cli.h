#ifndef DR_CLI_CLI_H
#define DR_CLI_CLI_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the commands share: options by table, --help from the same table, settings in
 * their order of precedence, exit codes, messages. A command reads:
 *
 *     typedef struct { bool json; const char *output; } options;
 *     static const dr_cli_row rows[] = {
 *         { "json", 0, NULL, DR_CLI_FLAG, .offset = offsetof(options, json), .help = "…" },
 *         { "output", 'o', "FILE", DR_CLI_TEXT, .offset = offsetof(options, output), … },
 *         { 0 },
 *     };
 *     static const dr_cli_spec spec = { .name = "thing", .rows = { rows, dr_cli_common }, …
 * };
 *
 *     int dr_cmd_thing(int argc, char **argv)
 *     {
 *         options o = { .output = "default" };
 *         dr_cli cli;
 *         int code;
 *         if (!dr_cli_open(&cli, &spec, &o, argc, argv, &code))
 *             return code;
 *         … cli.conf, cli.args, cli.fields …
 *         dr_cli_close(&cli);
 *         return code;
 *     } */

/* As in sysexits.h, so that scripts and service managers can tell cases apart. */
typedef enum {
    DR_EXIT_OK = 0,
    DR_EXIT_USAGE = 64,    /* the command line is wrong */
    DR_EXIT_DATA = 65,     /* a job, a settings file or a model is wrong */
    DR_EXIT_NO_INPUT = 66, /* what was named does not exist: a file, model, job, worker */
    DR_EXIT_UNAVAILABLE = 69, /* no Redis or no device */
    DR_EXIT_FAILED = 70,      /* the work itself failed */
    DR_EXIT_DUPLICATE = 73,   /* another job has the id or the unique key */
    DR_EXIT_IO = 74,          /* reading or writing failed */
    DR_EXIT_TIMEOUT = 75,     /* nothing came in time; trying again may help */
} dr_exit;

typedef enum {
    DR_CLI_FLAG,      /* offset: a bool, set to true */
    DR_CLI_TEXT,      /* offset: a const char *, borrowed from argv */
    DR_CLI_INT,       /* offset: an int64_t within min..max */
    DR_CLI_SETTING,   /* key: the setting (base/conf.h) that the value is for */
    DR_CLI_SET,       /* value KEY=VALUE: any setting */
    DR_CLI_CONFIG,    /* value: the settings file */
    DR_CLI_FIELD,     /* key: the job field that the value is for; a flag gives "true" */
    DR_CLI_FIELD_SET, /* value NAME=VALUE: any job field */
} dr_cli_kind;

typedef struct {
    const char *name;  /* without the dashes; NULL ends a table */
    char letter;       /* 0: none */
    const char *value; /* what --help calls the value, "FILE"; NULL: takes none */
    dr_cli_kind kind;
    const char *key;
    size_t offset; /* into the command's own options */
    int64_t min, max;
    const char *help; /* one sentence, with unit; a setting's default is added */
} dr_cli_row;

/* Ready tables. */
extern const dr_cli_row dr_cli_common[]; /* --config --set --log-level */
extern const dr_cli_row dr_cli_redis[];  /* --redis --prefix */
extern const dr_cli_row dr_cli_engine[]; /* --model --device, as settings */
extern const dr_cli_row dr_cli_job[];    /* --negative --width … : fields of a job */

#define DR_CLI_TABLES_MAX 5

typedef struct {
    const char *name;     /* the command */
    const char *usage;    /* what follows the options: "PATH" or "" */
    const char *summary;  /* a sentence or two */
    const char *examples; /* whole lines, each indented by two */
    int args_min, args_max;
    const dr_cli_row *rows[DR_CLI_TABLES_MAX + 1]; /* NULL ends */
} dr_cli_spec;

typedef struct {
    const char *name, *value;
} dr_cli_pair;

/* A parsed command line. Everything lives until dr_cli_close. */
typedef struct {
    dr_arena *mem;
    dr_conf conf;            /* defaults < file < environment < command line */
    const char *config_file; /* as given, or NULL */
    const char **args;       /* what is not an option */
    int n_args;
    dr_cli_pair *fields; /* job fields in the order given */
    int n_fields;
    dr_cli_pair *settings;
    int n_settings;
} dr_cli;

/* Parse, load the settings, set the log level. True: go on, *code is DR_EXIT_OK, close with
 * dr_cli_close. False: all is said (help printed, or the mistake on stderr) and nothing is
 * held; the command returns *code. own is the struct that the rows' offsets are into. */
bool dr_cli_open(dr_cli *c, const dr_cli_spec *spec, void *own, int argc, char **argv,
                 int *code);
void dr_cli_close(dr_cli *c); /* accepts {0} */

/* The text of --help. */
void dr_cli_help(dr_buf *out, const dr_cli_spec *spec);

/* The exit code for a status. */
dr_exit dr_cli_exit(dr_status st);

/* Say "darkroom: message" on stderr; returns dr_cli_exit(err->code). */
dr_exit dr_cli_fail(const dr_err *err);

/* Write text to stdout and free it. DR_EXIT_OK, or, said on stderr, DR_EXIT_IO (also when
 * the buffer had run out of memory). */
dr_exit dr_cli_print(dr_buf *text);

/* The commands: argv[0] is the command's name; the exit code is returned. */
int dr_cmd_worker(int argc, char **argv);
int dr_cmd_submit(int argc, char **argv);
int dr_cmd_watch(int argc, char **argv);
int dr_cmd_status(int argc, char **argv);
int dr_cmd_cancel(int argc, char **argv);
int dr_cmd_pause(int argc, char **argv);
int dr_cmd_resume(int argc, char **argv);
int dr_cmd_drain(int argc, char **argv);
int dr_cmd_dead(int argc, char **argv);
int dr_cmd_generate(int argc, char **argv);
int dr_cmd_inspect(int argc, char **argv);
int dr_cmd_devices(int argc, char **argv);
int dr_cmd_tune(int argc, char **argv);
int dr_cmd_config(int argc, char **argv);

#endif
