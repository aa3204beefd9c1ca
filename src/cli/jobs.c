#include "cli/jobs.h"

#include "base/file.h"
#include "base/json.h"
#include "image/encode.h"
#include "job/base64.h"
#include "job/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A command line that is being read. */
typedef struct {
    const dr_cli *cli;
    const char *id;
    size_t inline_max;
    dr_cli_ask *out;
    dr_buf controls; /* as JSON, without the closing bracket */
    dr_err *err;
} reading;

/* --- pictures in files --- */

/* The picture in a file, as a field's value: its bytes, or the key of the input called
 * `name`. */
static dr_status read_picture(reading *r, const char *option, const char *path,
                              const char *name, dr_field *value)
{
    dr_buf file = { 0 };
    dr_arena *mem = r->cli->mem;
    dr_status st = dr_file_read(path, DR_IMAGE_BYTES_MAX, &file, r->err);
    if (st)
        goto done;
    if ((st = dr_picture_check(option, file.data, file.len, r->err)))
        goto done;
    value->value = dr_arena_str(mem, file.data, file.len);
    value->len = file.len;
    if (value->value && file.len > r->inline_max) {
        dr_cli_input *in = &r->out->inputs[r->out->n_inputs++];
        *in = (dr_cli_input){ .bytes = value->value, .n = file.len };
        snprintf(in->name, sizeof in->name, "%s", name);
        value->value = dr_arena_printf(mem, "input:%s:%s", r->id, name);
        value->len = value->value ? strlen(value->value) : 0;
    }
    if (!value->value)
        st = dr_fail(r->err, DR_ENOMEM, "out of memory");
done:
    dr_buf_free(&file);
    return st;
}

/* Where FILE[:STRENGTH] has its strength; its end when there is none. */
static const char *find_strength(const char *file)
{
    const char *colon = strrchr(file, ':');
    char *end = NULL;
    if (colon)
        strtod(colon + 1, &end);
    return colon && end > colon + 1 && !*end ? colon : file + strlen(file);
}

/* NAME:FILE[:STRENGTH] as one more item of r->controls. */
static dr_status add_control(reading *r, const char *text)
{
    dr_buf *json = &r->controls;
    dr_arena *mem = r->cli->mem;
    const char *colon = strchr(text, ':'), *file = colon ? colon + 1 : text;
    const char *strength = find_strength(file);
    dr_field picture;
    char input[16];
    int count = r->out->n_inputs;
    if (!colon || colon == text || strength == file)
        return dr_fail_field(r->err, DR_EINVAL, "control",
                             "--control %s: must be NAME:FILE or NAME:FILE:STRENGTH", text);
    if (count == DR_CLI_INPUTS_MAX)
        return dr_fail_field(r->err, DR_EINVAL, "control", "--control: at most %d",
                             DR_CONTROLS_MAX);
    const char *name = dr_arena_str(mem, text, (size_t)(colon - text));
    const char *path = dr_arena_str(mem, file, (size_t)(strength - file));
    if (!name || !path)
        return dr_fail(r->err, DR_ENOMEM, "out of memory");
    snprintf(input, sizeof input, "control%d", count);
    dr_status st = read_picture(r, "control", path, input, &picture);
    if (st)
        return st;
    dr_buf_puts(json, json->len ? ",{\"name\":" : "[{\"name\":");
    dr_json_put_string(json, name);
    dr_buf_puts(json, ",\"image\":\"");
    if (r->out->n_inputs > count)
        dr_buf_puts(json, picture.value);
    else
        dr_base64_put(json, picture.value, picture.len);
    dr_buf_puts(json, "\"");
    if (*strength)
        dr_buf_printf(json, ",\"strength\":\"%s\"", strength + 1);
    dr_buf_puts(json, "}");
    return DR_OK;
}

/* --- a job --- */

static dr_status add_field(reading *r, const char *name, const char *value)
{
    dr_field *f = &r->out->fields[r->out->n_fields];
    *f = (dr_field){ name, value, strlen(value) };
    if (!strcmp(name, "@controls"))
        return add_control(r, value);
    r->out->n_fields++;
    if (*name != '@')
        return DR_OK;
    f->name = name + 1;
    if (r->out->n_inputs == DR_CLI_INPUTS_MAX)
        return dr_fail(r->err, DR_EINVAL, "too many pictures: at most %d",
                       DR_CLI_INPUTS_MAX);
    return read_picture(r, f->name, value, f->name, f);
}

static dr_status add_controls(reading *r)
{
    dr_buf *json = &r->controls;
    if (!json->len)
        return DR_OK;
    dr_buf_puts(json, "]");
    const char *text =
        json->failed ? NULL : dr_arena_str(r->cli->mem, json->data, json->len);
    if (!text)
        return dr_fail(r->err, DR_ENOMEM, "out of memory");
    r->out->fields[r->out->n_fields++] = (dr_field){ "controls", text, json->len };
    return DR_OK;
}

dr_status dr_cli_decode(const dr_cli *c, const char *id, size_t inline_max, dr_cli_ask *out,
                        dr_err *err)
{
    const dr_job_defaults defaults = { .quality = c->conf.output.quality,
                                       .preview_every = c->conf.output.preview_every };
    reading r = { .cli = c, .id = id, .inline_max = inline_max, .out = out, .err = err };
    *out = (dr_cli_ask){ 0 };
    out->fields = dr_arena_alloc(c->mem, ((size_t)c->n_fields + 2) * sizeof *out->fields);
    if (!out->fields)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    dr_status st = add_field(&r, "prompt", c->args[0]);
    for (int i = 0; i < c->n_fields && !st; i++)
        st = add_field(&r, c->fields[i].name, c->fields[i].value);
    if (!st)
        st = add_controls(&r);
    dr_buf_free(&r.controls);
    return st ? st
              : dr_job_decode(&out->job, c->mem, id, out->fields, out->n_fields, &defaults,
                              err);
}

/* --- files --- */

/* Where a file's ending begins, at its dot; the text's end when it has none. */
static const char *find_ending(const char *path)
{
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    const char *dot = strrchr(name, '.');
    return dot && dot > name ? dot : path + strlen(path);
}

/* The last value for a job's format among the fields given; NULL: none. */
static const char *format_given(const dr_cli *c)
{
    static const char *const names[] = { "format", "output_format", "output.format" };
    for (int i = c->n_fields - 1; i >= 0; i--)
        for (size_t k = 0; k < DR_COUNT(names); k++)
            if (!strcmp(c->fields[i].name, names[k]))
                return c->fields[i].value;
    return NULL;
}

dr_exit dr_cli_format(dr_cli *c, const char *output)
{
    const char *ending = output ? find_ending(output) : "", *given = format_given(c);
    if (!*ending)
        return DR_EXIT_OK;
    const dr_image_format *f = dr_image_format_named(ending + 1);
    if (given && (!f || f == dr_image_format_named(given)))
        return DR_EXIT_OK;
    if (f && !given) {
        c->fields[c->n_fields++] = (dr_cli_pair){ "format", f->name };
        return DR_EXIT_OK;
    }
    if (given)
        fprintf(stderr, "darkroom: --output %s contradicts --format %s; change one\n",
                output, given);
    else
        fprintf(stderr,
                "darkroom: --output %s: the ending must be .webp, .png, .jpg or .jpeg, or "
                "give --format too\n",
                output);
    return DR_EXIT_USAGE;
}

const char *dr_cli_image_path(dr_arena *mem, const char *output, int64_t index, int64_t n)
{
    if (n == 1)
        return output;
    const char *ending = find_ending(output);
    return dr_arena_printf(mem, "%.*s-%lld%s", (int)(ending - output), output,
                           (long long)index, ending);
}
