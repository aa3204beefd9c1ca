#include "cli/jobs.h"

#include <string.h>

dr_status dr_cli_decode(const dr_cli *c, const char *id, dr_job **job,
                        const dr_field **fields, int *n, dr_err *err)
{
    const dr_job_defaults defaults = { .quality = c->conf.output.quality,
                                       .preview_every = c->conf.output.preview_every };
    dr_field *all = dr_arena_alloc(c->mem, ((size_t)c->n_fields + 1) * sizeof *all);
    if (!all)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    all[0] = (dr_field){ "prompt", c->args[0], strlen(c->args[0]) };
    for (int i = 0; i < c->n_fields; i++)
        all[i + 1] =
            (dr_field){ c->fields[i].name, c->fields[i].value, strlen(c->fields[i].value) };
    *fields = all;
    *n = c->n_fields + 1;
    return dr_job_decode(job, c->mem, id, all, *n, &defaults, err);
}

const char *dr_cli_image_path(dr_arena *mem, const char *output, int64_t index, int64_t n)
{
    if (n == 1)
        return output;
    const char *name = strrchr(output, '/');
    name = name ? name + 1 : output;
    const char *dot = strrchr(name, '.');
    size_t stem = dot && dot > name ? (size_t)(dot - output) : strlen(output);
    return dr_arena_printf(mem, "%.*s-%lld%s", (int)stem, output, (long long)index,
                           output + stem);
}
