#include "job/decode.h"

#include "job/fields.h"
#include "job/msgpack.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>

dr_status dr_job_id_check(const char *field, const char *text, size_t n, dr_err *err)
{
    if (!n || n > DR_JOB_ID_MAX)
        return dr_fail_field(err, DR_EINVAL, field, "%s of %zu bytes: must be 1..%d", field,
                             n, DR_JOB_ID_MAX);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~' || strchr("\"'`\\{}*?[]:/", text[i]))
            return dr_fail_field(
                err, DR_EINVAL, field,
                "%s: byte %zu (0x%02x): must be printable ASCII without blanks, quotes, "
                "backslashes, braces and * ? [ ] : /, because it becomes part of keys",
                field, i, (unsigned char)text[i]);
    return DR_OK;
}

/* 32 random bits: what PyTorch's generator and a JavaScript number keep whole.
 */
static dr_status random_seed(dr_job *job, dr_err *err)
{
    uint32_t bits;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        return dr_fail(err, DR_EIO, "getrandom gave no seed");
    job->seed = bits;
    return DR_OK;
}

/* A job that holds the defaults and the entry's id. */
static dr_status new_job(dr_job **out, dr_arena *mem, const char *id,
                         const dr_job_defaults *d, dr_err *err)
{
    dr_job *job = dr_arena_alloc(mem, sizeof *job);
    char *own_id = dr_arena_str(mem, id ? id : "", id ? strlen(id) : 0);
    if (!job || !own_id)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    *job = (dr_job){
        .id = own_id,
        .negative_prompt = "",
        .cfg_scale = NAN,
        .seed_is_random = true,
        .subseed_is_random = true,
        .n = 1,
        .eta = NAN,
        .cfg_end = 1,
        .init = { .strength = 0.8 },
        .mask = { .blur = 4, .padding = 32 },
        .hires = { .strength = 0.7 },
        .output = { .quality = d->quality, .near_lossless = 100, .metadata = true },
        .preview = { .every = d->preview_every },
        .priority = DR_PRIORITY_NORMAL,
        .max_attempts = 3,
    };
    *out = job;
    return random_seed(job, err);
}

/* The values of one field of the entry, appended to list: those of the map inside `job` and
 * `json`, else the field itself. */
static dr_status add_field(dr_value *list, dr_arena *mem, const dr_field *field,
                           dr_err *err)
{
    bool json = !strcmp(field->name, "json"), msgpack = !strcmp(field->name, "job");
    dr_value *v = NULL, *next;
    dr_status st;
    if (!json && !msgpack) {
        if (!(v = dr_value_new(mem)))
            return dr_fail(err, DR_ENOMEM, "out of memory");
        if ((st = dr_value_bytes(v, mem, DR_VALUE_STR, field->value, field->len, err)) ||
            (st = dr_value_name(v, mem, field->name, strlen(field->name), err)))
            return st;
        v->plain = true;
        dr_value_append(list, v);
        return DR_OK;
    }
    st = json ? dr_value_from_json(&v, mem, field->value, field->len, DR_JOB_OBJECTS_MAX,
                                   err)
              : dr_value_from_msgpack(&v, mem, field->value, field->len, err);
    if (!st && v->kind != DR_VALUE_MAP)
        st = dr_fail(err, DR_EINVAL, "JSON: a job must be an object of its fields");
    if (st) {
        if (err && !err->field[0])
            memcpy(err->field, field->name, strlen(field->name) + 1);
        return st;
    }
    for (dr_value *item = v->as.items.first; item; item = next) {
        next = item->next;
        item->next = NULL;
        dr_value_append(list, item);
    }
    return DR_OK;
}

static dr_status check_entry(const dr_field *fields, int n_fields, dr_err *err)
{
    size_t bytes = 0;
    int maps = 0;
    if (n_fields > DR_JOB_OBJECTS_MAX)
        return dr_fail(err, DR_EINVAL, "job of %d fields: must be at most %d", n_fields,
                       DR_JOB_OBJECTS_MAX);
    for (int i = 0; i < n_fields; i++) {
        bytes += strlen(fields[i].name) + fields[i].len;
        maps += !strcmp(fields[i].name, "job") || !strcmp(fields[i].name, "json");
        if (bytes > DR_ENTRY_BYTES_MAX)
            return dr_fail(err, DR_EINVAL,
                           "job of more than %zu bytes with its pictures: must be at most "
                           "that; store large ones under input: keys",
                           DR_ENTRY_BYTES_MAX);
    }
    if (maps > 1)
        return dr_fail_field(err, DR_EINVAL, "job",
                             "job: given %d times as `job` or `json`; send one", maps);
    return DR_OK;
}

dr_status dr_job_decode(dr_job **out, dr_arena *mem, const char *id, const dr_field *fields,
                        int n_fields, const dr_job_defaults *defaults, dr_err *err)
{
    dr_value list = { .kind = DR_VALUE_ARRAY };
    *out = NULL;
    dr_status st = new_job(out, mem, id, defaults, err);
    if (!st)
        st = check_entry(fields, n_fields, err);
    if (st)
        return st;
    for (int i = 0; i < n_fields; i++) {
        /* After a bad field the rest is read all the same: it may hold the id. */
        dr_status got = add_field(&list, mem, &fields[i], st ? NULL : err);
        st = st ? st : got;
    }
    if (!st && dr_job_own_bytes(list.as.items.first) > DR_JOB_BYTES_MAX)
        st =
            dr_fail(err, DR_EINVAL,
                    "job of more than %zu bytes without its pictures: must be at most that",
                    DR_JOB_BYTES_MAX);
    dr_job *job = *out;
    dr_status filled = dr_job_fill(job, mem, list.as.items.first, st ? NULL : err);
    if (st || (st = filled))
        return st;
    if ((st = dr_job_id_check("id", job->id, strlen(job->id), err)))
        return st;
    if (!job->prompt)
        return dr_fail_field(
            err, DR_EINVAL, "prompt",
            "prompt: missing; say what the picture shows (\"\" is allowed)");
    return DR_OK;
}
