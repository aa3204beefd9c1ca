#include "dev/choice.h"

#include "base/cache.h"
#include "base/embed.h"
#include "base/hash.h"
#include "base/ini.h"
#include "base/log.h"
#include "dev/gemm.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define FILE_BYTES_MAX ((size_t)16 << 10)

/* --- what is usual --- */

/* Files of config/tunings/ for a type of device; platform: where it is what is used unless
 * something else was measured. */
static const struct {
    const char *file, *type, *platform;
} tunings[] = {
    { "pocl-cpu.ini", "cpu", "Portable Computing Language" },
    { "cpu-64x64.ini", "cpu", "" },
    { "gpu-64x64.ini", "gpu", "" },
    { "gpu-128x64.ini", "gpu", "" },
    { "gpu-128x128.ini", "gpu", "" },
};

int dr_choice_tunings(const char *names[DR_TUNINGS_MAX], const dr_dev_info *info)
{
    int n = 0;
    for (size_t i = 0; i < DR_COUNT(tunings) && n < DR_TUNINGS_MAX; i++)
        if (!strcmp(info->type, tunings[i].type))
            names[n++] = tunings[i].file;
    return n;
}

void dr_choice_default(dr_choice *out, const dr_dev_info *info)
{
    *out = (dr_choice){ .packed = dr_is_cpu(info) };
    for (size_t i = 0; i < DR_COUNT(tunings); i++)
        if (!strcmp(info->type, tunings[i].type) &&
            !strcmp(info->platform, tunings[i].platform))
            snprintf(out->tuning, sizeof out->tuning, "%s", tunings[i].file);
}

bool dr_choice_same(const dr_choice *a, const dr_choice *b)
{
    return a->packed == b->packed && (a->packed || !strcmp(a->tuning, b->tuning));
}

void dr_choice_name(char out[64], const dr_choice *c)
{
    const char *slash = strrchr(c->tuning, '/'), *file = slash ? slash + 1 : c->tuning;
    size_t n = strlen(file);
    if (n > 4 && !strcmp(file + n - 4, ".ini"))
        n -= 4;
    if (c->packed || !n)
        snprintf(out, 64, c->packed ? "packed" : "clblast");
    else
        snprintf(out, 64, "clblast %.*s", (int)(n < 48 ? n : 48), file);
}

/* --- the file --- */

/* All that a measurement depends on. */
static bool key_of(dr_digest *out, const dr_dev_info *info)
{
    const dr_embedded *const tables[] = { dr_kernel_files, dr_tuning_files };
    const char *const names[] = { info->platform, info->name, info->driver, info->version,
                                  dr_clblast_version() };
    dr_hash *h = dr_hash_new();
    if (!h)
        return false;
    for (size_t i = 0; i < DR_COUNT(names); i++)
        dr_hash_str(h, names[i]);
    dr_hash_add(h, &info->compute_units, sizeof info->compute_units);
    for (size_t i = 0; i < DR_COUNT(tables); i++)
        for (const dr_embedded *e = tables[i]; e->name; e++)
            dr_hash_str(h, e->text);
    *out = dr_hash_end(h);
    return true;
}

static bool path_of(char path[DR_PATH_MAX], const dr_digest *key, const dr_conf *conf)
{
    char name[64];
    snprintf(name, sizeof name, "tune-%s.ini", key->hex);
    return dr_cache_path(path, conf, name);
}

bool dr_choice_path(char path[DR_PATH_MAX], const dr_dev_info *info, const dr_conf *conf)
{
    dr_digest key;
    return key_of(&key, info) && path_of(path, &key, conf);
}

typedef struct {
    dr_choice choice;
    char device[40], gemm[16];
} stored;

static dr_status on_row(void *ctx, const char *section, const char *key, const char *value,
                        dr_err *err)
{
    stored *s = ctx;
    const struct {
        const char *key;
        char *to;
        size_t size;
    } rows[] = {
        { "device", s->device, sizeof s->device },
        { "gemm", s->gemm, sizeof s->gemm },
        { "tuning", s->choice.tuning, sizeof s->choice.tuning },
        { "at", s->choice.at, sizeof s->choice.at },
        { "shapes", s->choice.shapes, sizeof s->choice.shapes },
    };
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            return dr_fail(err, DR_EINVAL, "a value with the byte 0x%02x in it", *p);
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        if (strcmp(section, "choice") != 0 || strcmp(key, rows[i].key) != 0)
            continue;
        if (strlen(value) >= rows[i].size)
            return dr_fail(err, DR_EINVAL, "%s is longer than %zu bytes", key,
                           rows[i].size - 1);
        snprintf(rows[i].to, rows[i].size, "%s", value);
        return DR_OK;
    }
    char quoted[160];
    dr_log(DR_WARN, "tune.file", "unknown=%s", dr_log_quote(quoted, sizeof quoted, key));
    return DR_OK;
}

/* Nothing in the file is trusted. */
static dr_status check(const stored *s, const char *device, dr_err *err)
{
    const char *tuning = s->choice.tuning;
    if (strcmp(s->device, device) != 0)
        return dr_fail(err, DR_EINVAL, "measured on another device");
    if (strcmp(s->gemm, "packed") != 0 && strcmp(s->gemm, "clblast") != 0)
        return dr_fail(err, DR_EINVAL, "gemm is \"%s\"; must be packed or clblast",
                       s->gemm);
    if (strcmp(tuning, "none") != 0 && !dr_embedded_find(dr_tuning_files, tuning))
        return dr_fail(err, DR_EINVAL, "tuning \"%.80s\" does not come with this program",
                       tuning);
    return DR_OK;
}

static dr_status read_file(stored *s, const char *path, const char *device, dr_err *err)
{
    dr_buf text = { 0 };
    dr_status st = dr_file_read(path, FILE_BYTES_MAX, &text, err);
    if (!st)
        st = dr_ini_text(path, text.data ? text.data : "", on_row, s, err);
    if (!st && (st = check(s, device, err)))
        dr_err_wrap(err, "%s", path);
    dr_buf_free(&text);
    return st;
}

/* Leaves *out alone when there is nothing, or nothing good. */
static void find_stored(dr_choice *out, const dr_dev_info *info, const dr_conf *conf)
{
    char path[DR_PATH_MAX], quoted[2200];
    stored s = { .choice.by = DR_BY_MEASURE };
    dr_digest key;
    dr_err err = { 0 };
    if (!key_of(&key, info) || !path_of(path, &key, conf))
        return;
    dr_status st = read_file(&s, path, key.hex, &err);
    if (st && st != DR_ENOTFOUND)
        dr_log(DR_WARN, "tune.file", "ignored=%s",
               dr_log_quote(quoted, sizeof quoted, err.message));
    if (st)
        return;
    s.choice.packed = !strcmp(s.gemm, "packed");
    if (!strcmp(s.choice.tuning, "none"))
        *s.choice.tuning = 0;
    *out = s.choice;
}

dr_status dr_choice_save(dr_choice *c, const dr_dev_info *info, const char *path,
                         const char *notes, dr_err *err)
{
    char name[300];
    time_t now = time(NULL);
    struct tm tm;
    dr_buf text = { 0 };
    dr_digest key;
    if (!key_of(&key, info))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    gmtime_r(&now, &tm);
    strftime(c->at, sizeof c->at, "%Y-%m-%dT%H:%M:%SZ", &tm);
    for (char *p = c->shapes; *p; p++) /* a model's name may hold anything */
        if (*p < 0x20 || *p > 0x7e || *p == ';')
            *p = '_';
    dr_buf_printf(&text, "; What `darkroom tune` or a first start measured on\n; %s\n%s",
                  dr_log_quote(name, sizeof name, info->name), notes);
    dr_buf_printf(&text,
                  "[choice]\ndevice = %s\ngemm = %s\ntuning = %s\nat = %s\nshapes = %s\n",
                  key.hex, c->packed ? "packed" : "clblast",
                  *c->tuning ? c->tuning : "none", c->at, c->shapes);
    dr_status st = text.failed ? dr_fail(err, DR_ENOMEM, "out of memory")
                               : dr_file_write(path, text.data, text.len, err);
    dr_buf_free(&text);
    return st;
}

/* --- the choice --- */

static dr_status check_word(const char *key, const char *value, const char *const words[],
                            const char *list, dr_err *err)
{
    for (int i = 0; words[i]; i++)
        if (!strcmp(value, words[i]))
            return DR_OK;
    return dr_fail_field(err, DR_EINVAL, key, "%s is %s; must be %s", key, value, list);
}

bool dr_choice_measures(const dr_conf *conf)
{
    return !strcmp(conf->device.gemm, "auto") && !strcmp(conf->device.tune, "auto") &&
           !*conf->device.tuning && !*conf->device.cl_dir;
}

dr_status dr_choice_find(dr_choice *out, const dr_dev_info *info, const dr_conf *conf,
                         dr_err *err)
{
    static const char *const gemms[] = { "auto", "packed", "clblast", NULL };
    static const char *const tunes[] = { "auto", "off", NULL };
    const char *gemm = conf->device.gemm, *tuning = conf->device.tuning;
    dr_status st;
    if ((st = check_word("device.gemm", gemm, gemms, "auto, packed or clblast", err)) ||
        (st = check_word("device.tune", conf->device.tune, tunes, "auto or off", err)))
        return st;
    dr_choice_default(out, info);
    if (strcmp(gemm, "auto") != 0) {
        out->packed = !strcmp(gemm, "packed");
        out->by = DR_BY_SETTING;
    }
    if (*tuning) {
        snprintf(out->tuning, sizeof out->tuning, "%s",
                 strcmp(tuning, "none") ? tuning : "");
        out->by = DR_BY_SETTING;
    }
    if (dr_choice_measures(conf))
        find_stored(out, info, conf);
    return DR_OK;
}
