#include "cli/cli.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYSTEM_CONFIG "/etc/darkroom.conf"

/* --- exit codes and messages --- */

static const struct {
    dr_exit code;
    const char *meaning;
} exit_rows[] = {
    { DR_EXIT_OK, "ok" },
    { DR_EXIT_USAGE, "the command line is wrong" },
    { DR_EXIT_DATA, "a job, a settings file or a model is wrong" },
    { DR_EXIT_NO_INPUT, "a file, model, job or worker that was named does not exist" },
    { DR_EXIT_UNAVAILABLE, "Redis or the OpenCL device is not there" },
    { DR_EXIT_FAILED, "the work itself failed" },
    { DR_EXIT_DUPLICATE, "another job has the id or the unique key" },
    { DR_EXIT_IO, "reading or writing failed" },
    { DR_EXIT_TIMEOUT, "nothing came in time" },
};

dr_exit dr_cli_exit(dr_status st)
{
    static const dr_exit codes[] = {
        [DR_OK] = DR_EXIT_OK,
        [DR_EINVAL] = DR_EXIT_DATA,
        [DR_ENOTFOUND] = DR_EXIT_NO_INPUT,
        [DR_EMODEL] = DR_EXIT_DATA,
        [DR_ESHAPE] = DR_EXIT_FAILED,
        [DR_ENOMEM] = DR_EXIT_FAILED,
        [DR_EDEVICE] = DR_EXIT_UNAVAILABLE,
        [DR_ENUMERIC] = DR_EXIT_FAILED,
        [DR_EIO] = DR_EXIT_IO,
        [DR_EREDIS] = DR_EXIT_UNAVAILABLE,
        [DR_ESTOPPED] = DR_EXIT_FAILED,
        [DR_ELOST] = DR_EXIT_FAILED,
    };
    return (size_t)st < DR_COUNT(codes) ? codes[st] : DR_EXIT_FAILED;
}

dr_exit dr_cli_fail(const dr_err *err)
{
    fprintf(stderr, "darkroom: %s\n", err->message);
    return dr_cli_exit(err->code);
}

dr_exit dr_cli_print(dr_buf *text)
{
    bool bad = text->failed;
    if (!bad && text->len)
        bad = fwrite(text->data, 1, text->len, stdout) != text->len;
    if (fflush(stdout) || bad) {
        fprintf(stderr, "darkroom: standard output: %s\n",
                text->failed ? "out of memory" : strerror(errno));
        bad = true;
    }
    dr_buf_free(text);
    return bad ? DR_EXIT_IO : DR_EXIT_OK;
}

/* --- help --- */

#define HELP_WIDTH  88
#define HELP_INDENT 26

/* Words of text in lines of HELP_WIDTH; the cursor stands in column `column`. */
static void put_wrapped(dr_buf *out, const char *text, int column, int indent)
{
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > indent && column + 1 + n > HELP_WIDTH) {
            dr_buf_printf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            dr_buf_puts(out, " ");
            column++;
        }
        dr_buf_put(out, text, (size_t)n);
        column += n;
        text += n + (text[n] == ' ');
    }
    dr_buf_puts(out, "\n");
}

static const char *fallback_of(const dr_cli_row *row)
{
    for (int i = 0; row->kind == DR_CLI_SETTING && i < dr_conf_row_count; i++)
        if (!strcmp(dr_conf_rows[i].key, row->key))
            return dr_conf_rows[i].fallback;
    return "";
}

static void put_option(dr_buf *out, const dr_cli_row *row)
{
    char head[80], letter[8] = "   ", text[512];
    if (row->letter)
        snprintf(letter, sizeof letter, "-%c,", row->letter);
    int n = snprintf(head, sizeof head, "  %s --%s%s%s", letter, row->name,
                     row->value ? " " : "", row->value ? row->value : "");
    dr_buf_printf(out, "%-*s", HELP_INDENT, head);
    if (n >= HELP_INDENT)
        dr_buf_printf(out, "\n%*s", HELP_INDENT, "");
    const char *fallback = fallback_of(row);
    if (*fallback)
        snprintf(text, sizeof text, "%s (default: %s)", row->help, fallback);
    else
        snprintf(text, sizeof text, "%s", row->help);
    put_wrapped(out, text, HELP_INDENT, HELP_INDENT);
}

void dr_cli_help(dr_buf *out, const dr_cli_spec *spec)
{
    dr_buf_printf(out, "usage: darkroom %s [options]%s%s\n\n", spec->name,
                  *spec->usage ? " " : "", spec->usage);
    put_wrapped(out, spec->summary, 0, 0);
    dr_buf_puts(out, "\noptions:\n");
    for (int t = 0; spec->rows[t]; t++)
        for (const dr_cli_row *row = spec->rows[t]; row->name; row++)
            put_option(out, row);
    dr_buf_puts(out, "  -h, --help              this text\n");
    dr_buf_printf(out, "\nexamples:\n%s\nexit codes:\n", spec->examples);
    for (size_t i = 0; i < DR_COUNT(exit_rows); i++)
        dr_buf_printf(out, "  %-3d %s\n", exit_rows[i].code, exit_rows[i].meaning);
}

/* --- parsing --- */

typedef struct {
    dr_cli *cli;
    const dr_cli_spec *spec;
    char *own;
    bool help;
} parser;

static dr_status bad_value(const dr_cli_row *row, const char *value, dr_err *err)
{
    return dr_fail_field(err, DR_EINVAL, row->name,
                         "--%s %s: must be a whole number in %lld..%lld", row->name, value,
                         (long long)row->min, (long long)row->max);
}

static dr_status take_int(const dr_cli_row *row, const char *value, int64_t *out,
                          dr_err *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (errno || end == value || *end || v < row->min || v > row->max)
        return bad_value(row, value, err);
    *out = v;
    return DR_OK;
}

/* "KEY=VALUE" as a pair. */
static dr_status take_pair(parser *p, const dr_cli_row *row, const char *text,
                           dr_cli_pair *out, dr_err *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return dr_fail_field(err, DR_EINVAL, row->name, "--%s %s: must be %s", row->name,
                             text, row->value);
    out->name = dr_arena_str(p->cli->mem, text, (size_t)(equals - text));
    out->value = equals + 1;
    return out->name ? DR_OK : dr_fail(err, DR_ENOMEM, "out of memory");
}

static dr_status take(parser *p, const dr_cli_row *row, const char *value, dr_err *err)
{
    dr_cli *c = p->cli;
    switch (row->kind) {
    case DR_CLI_FLAG:
        *(bool *)(p->own + row->offset) = true;
        return DR_OK;
    case DR_CLI_TEXT:
        *(const char **)(p->own + row->offset) = value;
        return DR_OK;
    case DR_CLI_INT:
        return take_int(row, value, (int64_t *)(p->own + row->offset), err);
    case DR_CLI_CONFIG:
        c->config_file = value;
        return DR_OK;
    case DR_CLI_SETTING:
        c->settings[c->n_settings++] = (dr_cli_pair){ row->key, value };
        return DR_OK;
    case DR_CLI_SET:
        return take_pair(p, row, value, &c->settings[c->n_settings++], err);
    case DR_CLI_FIELD:
        c->fields[c->n_fields++] = (dr_cli_pair){ row->key, value ? value : "true" };
        return DR_OK;
    case DR_CLI_FIELD_SET:
        return take_pair(p, row, value, &c->fields[c->n_fields++], err);
    }
    return DR_OK;
}

/* The row of "--name" (n bytes after the dashes) or, when letter is not 0, of "-x". */
static const dr_cli_row *find(const dr_cli_spec *spec, const char *name, size_t n,
                              char letter)
{
    for (int t = 0; spec->rows[t]; t++)
        for (const dr_cli_row *row = spec->rows[t]; row->name; row++)
            if (letter ? row->letter == letter
                       : strlen(row->name) == n && !strncmp(row->name, name, n))
                return row;
    return NULL;
}

/* One option; *i is moved on when its value is the next word. */
static dr_status parse_option(parser *p, int argc, char **argv, int *i, dr_err *err)
{
    const char *word = argv[*i], *name = word + 1, *value = NULL;
    bool is_long = word[1] == '-';
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
        p->help = true;
        return DR_OK;
    }
    size_t n = 1;
    if (is_long) {
        name = word + 2;
        n = strcspn(name, "=");
        if (name[n])
            value = name + n + 1;
    } else if (name[1]) {
        value = name + 1;
    }
    const dr_cli_row *row = find(p->spec, name, n, is_long ? 0 : *name);
    if (!row)
        return dr_fail(err, DR_EINVAL, "unknown option %s; `darkroom %s --help` lists all",
                       word, p->spec->name);
    if (!row->value && value)
        return dr_fail(err, DR_EINVAL, "--%s takes no value", row->name);
    if (row->value && !value) {
        if (*i + 1 >= argc)
            return dr_fail(err, DR_EINVAL, "--%s needs a value: --%s %s", row->name,
                           row->name, row->value);
        value = argv[++*i];
    }
    return take(p, row, value, err);
}

static dr_status parse(parser *p, int argc, char **argv, dr_err *err)
{
    dr_cli *c = p->cli;
    size_t room = (size_t)argc;
    c->args = dr_arena_alloc(c->mem, room * sizeof *c->args);
    c->fields = dr_arena_alloc(c->mem, room * sizeof *c->fields);
    c->settings = dr_arena_alloc(c->mem, room * sizeof *c->settings);
    if (!c->args || !c->fields || !c->settings)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    bool options = true;
    for (int i = 1; i < argc && !p->help; i++) {
        dr_status st = DR_OK;
        if (options && !strcmp(argv[i], "--"))
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1])
            st = parse_option(p, argc, argv, &i, err);
        else
            c->args[c->n_args++] = argv[i];
        if (st)
            return st;
    }
    if (p->help || (c->n_args >= p->spec->args_min && c->n_args <= p->spec->args_max))
        return DR_OK;
    if (c->n_args > p->spec->args_max)
        return dr_fail(err, DR_EINVAL, "\"%s\" is one word too many; usage: darkroom %s %s",
                       c->args[p->spec->args_max], p->spec->name, p->spec->usage);
    return dr_fail(err, DR_EINVAL, "%s is missing; see `darkroom %s --help`",
                   p->spec->usage, p->spec->name);
}

/* --- settings --- */

static dr_status load_file_and_environment(dr_cli *c, dr_err *err)
{
    dr_status st = DR_OK;
    if (c->config_file)
        st = dr_conf_file(&c->conf, c->config_file, err);
    else if (dr_file_exists(SYSTEM_CONFIG))
        st = dr_conf_file(&c->conf, SYSTEM_CONFIG, err);
    return st ? st : dr_conf_env(&c->conf, err);
}

static dr_status apply_command_line(dr_cli *c, dr_err *err)
{
    for (int i = 0; i < c->n_settings; i++) {
        dr_status st =
            dr_conf_set(&c->conf, c->settings[i].name, c->settings[i].value, err);
        if (st)
            return st;
    }
    return DR_OK;
}

static dr_status apply_log_level(const dr_conf *conf, dr_err *err)
{
    dr_level level;
    if (dr_log_level_parse(conf->log.level, &level))
        return dr_fail_field(err, DR_EINVAL, "log.level",
                             "log.level = %s: must be debug, info, warn or error",
                             conf->log.level);
    dr_log_level(level);
    return DR_OK;
}

bool dr_cli_open(dr_cli *c, const dr_cli_spec *spec, void *own, int argc, char **argv,
                 int *code)
{
    dr_err err = { 0 };
    dr_buf help = { 0 };
    parser p = { .cli = c, .spec = spec, .own = own };
    dr_status st;
    *c = (dr_cli){ .mem = dr_arena_new() };
    *code = DR_EXIT_USAGE;
    st = c->mem ? parse(&p, argc, argv, &err) : dr_fail(&err, DR_ENOMEM, "out of memory");
    if (st)
        goto done;
    if (p.help) {
        dr_cli_help(&help, spec);
        *code = (int)dr_cli_print(&help);
        dr_cli_close(c);
        return false;
    }
    if ((st = dr_conf_init(&c->conf, &err)))
        goto done;
    if ((st = load_file_and_environment(c, &err))) {
        *code = (int)dr_cli_exit(st);
        goto done;
    }
    if (!(st = apply_command_line(c, &err)) && !(st = apply_log_level(&c->conf, &err)))
        *code = DR_EXIT_OK;
done:
    if (st) {
        dr_cli_fail(&err);
        dr_cli_close(c);
    }
    return !st;
}

void dr_cli_close(dr_cli *c)
{
    dr_conf_free(&c->conf);
    dr_arena_free(c->mem);
    *c = (dr_cli){ 0 };
}
