#include "diffusion/models.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "dev/dev.h"
#include "diffusion/model.h"
#include "op/selftest.h"
#include "op/tune.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MIB      ((int64_t)1 << 20)
#define RESCAN_S 1.0 /* least time between two looks into model.dir */

/* A model of the list. */
typedef struct {
    const char *name, *path;
    const char *alias; /* what model.dir calls it when that differs, or NULL */
    dr_model *model;   /* NULL: not loaded */
    int64_t bytes;     /* of its weights, while loaded */
    uint64_t used;     /* tick of the last get; the engine's thread only */
} entry;

/* Strings that grow one by one. */
typedef struct {
    const char **at;
    size_t count, cap;
} names;

struct dr_models {
    dr_dev *dev;
    const dr_conf *conf;
    /* The lock guards what follows up to the next comment; not held while a model loads. */
    pthread_mutex_t lock;
    dr_arena *mem;   /* entries and their strings */
    entry **entries; /* each stays where it is */
    int count, cap;
    names refused; /* folders that a log line told of */
    double scanned_s;
    /* The engine's thread only. */
    uint64_t tick;
    bool tested; /* the device passed its self-test */
};

/* --- paths --- */

static dr_status demo_path(char out[DR_PATH_MAX], dr_err *err)
{
    /* Beside the program: the build tree, then an installation. */
    static const char *const places[] = { "../contrib/demo-model/model",
                                          "../../contrib/demo-model/model",
                                          "../share/darkroom/demo-model" };
    char dir[DR_PATH_MAX];
    dr_status st = dr_program_dir(dir, err);
    if (st)
        return st;
    for (size_t i = 0; i < DR_COUNT(places); i++) {
        if ((st = dr_path_join(out, dir, places[i], err)))
            return st;
        if (dr_dir_exists(out))
            return DR_OK;
    }
    return dr_fail_field(
        err, DR_ENOTFOUND, "model.path",
        "no model given and the demo model is not beside the program (%s); "
        "set model.path",
        dir);
}

/* model.path: the name of a folder in model.dir, or a path. */
static dr_status given_path(char out[DR_PATH_MAX], const dr_conf *conf, dr_err *err)
{
    const char *path = conf->model.path;
    bool name = *conf->model.dir && *path != '.' && !strchr(path, '/');
    if (name && !dr_path_join(out, conf->model.dir, path, NULL) && dr_dir_exists(out))
        return DR_OK;
    return snprintf(out, DR_PATH_MAX, "%s", path) < DR_PATH_MAX
               ? DR_OK
               : dr_fail(err, DR_EINVAL, "model.path of %zu bytes: must be less than %d",
                         strlen(path), DR_PATH_MAX);
}

static dr_status first_path(char out[DR_PATH_MAX], const dr_conf *conf, dr_err *err)
{
    dr_models *ms = NULL;
    dr_status st = dr_models_open(&ms, NULL, conf, err);
    if (!st)
        snprintf(out, DR_PATH_MAX, "%s", ms->entries[0]->path);
    dr_models_close(ms);
    return st;
}

dr_status dr_model_path(char out[DR_PATH_MAX], const dr_conf *conf, dr_err *err)
{
    return *conf->model.path  ? given_path(out, conf, err)
           : *conf->model.dir ? first_path(out, conf, err)
                              : demo_path(out, err);
}

/* --- the list; the lock is held --- */

static entry *known(const dr_models *ms, const char *name)
{
    for (int i = 0; i < ms->count; i++) {
        entry *e = ms->entries[i];
        if (!strcmp(e->name, name) || (e->alias && !strcmp(e->alias, name)))
            return e;
    }
    return NULL;
}

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "out of memory for the list of models");
}

static const char *copy(dr_arena *mem, const char *s)
{
    return dr_arena_str(mem, s, strlen(s));
}

static dr_status add(dr_models *ms, const char *path, dr_err *err)
{
    char name[DR_MODEL_NAME];
    if (ms->count == ms->cap) {
        int cap = ms->cap ? 2 * ms->cap : 16;
        entry **grown = dr_resize(ms->entries, (size_t)cap * sizeof *grown);
        if (!grown)
            return no_memory(err);
        ms->entries = grown;
        ms->cap = cap;
    }
    dr_model_name_of(name, path);
    entry *e = dr_arena_alloc(ms->mem, sizeof *e);
    if (!e || !(e->name = copy(ms->mem, name)) || !(e->path = copy(ms->mem, path)))
        return no_memory(err);
    ms->entries[ms->count++] = e;
    return DR_OK;
}

static dr_status put_name(names *list, dr_arena *mem, const char *name, dr_err *err)
{
    if (list->count == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 16;
        const char **grown = dr_resize(list->at, cap * sizeof *grown);
        if (!grown)
            return no_memory(err);
        list->at = grown;
        list->cap = cap;
    }
    if (!(list->at[list->count] = copy(mem, name)))
        return no_memory(err);
    list->count++;
    return DR_OK;
}

/* Say once that a folder is left out, and why. */
static dr_status refuse(dr_models *ms, const char *name, const char *why, dr_err *err)
{
    char folder[600], message[1200];
    for (size_t i = 0; i < ms->refused.count; i++)
        if (!strcmp(ms->refused.at[i], name))
            return DR_OK;
    dr_log(DR_WARN, "model.left_out", "folder=%s message=%s",
           dr_log_quote(folder, sizeof folder, name),
           dr_log_quote(message, sizeof message, why));
    return put_name(&ms->refused, ms->mem, name, err);
}

static bool same_folder(const struct stat *here, const entry *e)
{
    struct stat other;
    return !stat(e->path, &other) && other.st_dev == here->st_dev &&
           other.st_ino == here->st_ino;
}

/* Take up model.dir/folder if it is a model that is not in the list. */
static dr_status consider(dr_models *ms, const char *folder, dr_err *err)
{
    char path[DR_PATH_MAX], name[DR_MODEL_NAME];
    struct stat here;
    dr_err why = { 0 };
    if (dr_path_join(path, ms->conf->model.dir, folder, &why))
        return refuse(ms, folder, why.message, err);
    dr_model_name_of(name, path);
    /* Only model.path's model can be in the list for another folder, or as another name. */
    entry *own = *ms->conf->model.path ? ms->entries[0] : NULL, *e = known(ms, name);
    if (e && e != own)
        return DR_OK;
    if (stat(path, &here))
        return refuse(ms, folder, strerror(errno), err);
    dr_status st = S_ISDIR(here.st_mode) ? dr_model_check(path, &why) : DR_ENOTFOUND;
    if (st)
        return st == DR_ENOTFOUND ? DR_OK : refuse(ms, folder, why.message, err);
    if (strlen(folder) >= DR_MODEL_NAME || !dr_utf8_valid(name, strlen(name), NULL))
        return refuse(ms, folder, "a model's name must be UTF-8 of at most 127 bytes", err);
    bool same = own && same_folder(&here, own);
    if (e)
        return same ? DR_OK : refuse(ms, folder, "model.path has a model so named", err);
    if (same && !own->alias)
        return (own->alias = copy(ms->mem, name)) ? DR_OK : no_memory(err);
    return add(ms, path, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Read model.dir and take up what is new. */
static dr_status scan(dr_models *ms, dr_err *err)
{
    const char *dir = ms->conf->model.dir;
    const struct dirent *item;
    names found = { 0 };
    dr_status st = DR_OK;
    ms->scanned_s = dr_now_s();
    DIR *d = opendir(dir);
    dr_arena *mem = dr_arena_new();
    if (!d)
        st = dr_fail_field(err, DR_ENOTFOUND, "model.dir", "model.dir %s: %s", dir,
                           strerror(errno));
    else if (!mem)
        st = no_memory(err);
    while (!st && (item = readdir(d)))
        if (*item->d_name != '.')
            st = put_name(&found, mem, item->d_name, err);
    if (found.count)
        qsort(found.at, found.count, sizeof *found.at, by_name);
    for (size_t i = 0; i < found.count && !st; i++)
        st = consider(ms, found.at[i], err);
    dr_free(found.at);
    dr_arena_free(mem);
    if (d)
        closedir(d);
    return st;
}

/* --- open and close --- */

static dr_status list(dr_models *ms, dr_err *err)
{
    char path[DR_PATH_MAX];
    const dr_conf *conf = ms->conf;
    dr_status st = DR_OK;
    if (*conf->model.path || !*conf->model.dir) {
        if ((st = dr_model_path(path, conf, err)) || (st = dr_model_check(path, err)) ||
            (st = add(ms, path, err)))
            return st;
    }
    if (*conf->model.dir && (st = scan(ms, err)))
        return st;
    return ms->count ? DR_OK
                     : dr_fail_field(err, DR_ENOTFOUND, "model.dir",
                                     "model.dir %s: holds no model; a model is a "
                                     "sub-folder with a model_index.json",
                                     conf->model.dir);
}

dr_status dr_models_open(dr_models **out, dr_dev *dev, const dr_conf *conf, dr_err *err)
{
    dr_models *ms = dr_alloc(sizeof *ms);
    if (!ms)
        return no_memory(err);
    ms->dev = dev;
    ms->conf = conf;
    pthread_mutex_init(&ms->lock, NULL);
    dr_status st = (ms->mem = dr_arena_new()) ? list(ms, err) : no_memory(err);
    if (st)
        dr_models_close(ms);
    else
        *out = ms;
    return st;
}

void dr_models_close(dr_models *ms)
{
    if (!ms)
        return;
    for (int i = 0; i < ms->count; i++)
        dr_model_close(ms->entries[i]->model);
    pthread_mutex_destroy(&ms->lock);
    dr_free(ms->entries);
    dr_free(ms->refused.at);
    dr_arena_free(ms->mem);
    dr_free(ms);
}

/* --- questions --- */

static int index_of(const dr_models *ms, const char *name)
{
    const entry *e = known(ms, name);
    for (int i = 0; e && i < ms->count; i++)
        if (ms->entries[i] == e)
            return i;
    return -1;
}

int dr_models_find(dr_models *ms, const char *name)
{
    char message[600];
    dr_err err = { 0 };
    if (!name)
        return 0;
    pthread_mutex_lock(&ms->lock);
    int i = index_of(ms, name);
    if (i < 0 && *ms->conf->model.dir && dr_now_s() - ms->scanned_s >= RESCAN_S) {
        if (scan(ms, &err))
            dr_log(DR_WARN, "models.scan", "message=%s",
                   dr_log_quote(message, sizeof message, err.message));
        i = index_of(ms, name);
    }
    pthread_mutex_unlock(&ms->lock);
    return i;
}

int dr_models_count(dr_models *ms)
{
    pthread_mutex_lock(&ms->lock);
    int n = ms->count;
    pthread_mutex_unlock(&ms->lock);
    return n;
}

static entry *at(dr_models *ms, int i)
{
    pthread_mutex_lock(&ms->lock);
    assert(i >= 0 && i < ms->count);
    entry *e = ms->entries[i];
    pthread_mutex_unlock(&ms->lock);
    return e;
}

const char *dr_models_name(dr_models *ms, int i)
{
    return at(ms, i)->name;
}

bool dr_models_resident(dr_models *ms, int i)
{
    entry *e = at(ms, i);
    pthread_mutex_lock(&ms->lock);
    bool loaded = e->model != NULL;
    pthread_mutex_unlock(&ms->lock);
    return loaded;
}

void dr_models_names_json(dr_models *ms, bool resident_only, dr_buf *out)
{
    const char *before = "[";
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; i < ms->count; i++) {
        if (resident_only && !ms->entries[i]->model)
            continue;
        dr_buf_puts(out, before);
        dr_json_put_string(out, ms->entries[i]->name);
        before = ",";
    }
    pthread_mutex_unlock(&ms->lock);
    dr_buf_puts(out, *before == '[' ? "[]" : "]");
}

/* --- loading; the engine's thread, the only one that changes an entry's model --- */

static void set_model(dr_models *ms, entry *e, dr_model *m, int64_t bytes)
{
    pthread_mutex_lock(&ms->lock);
    e->model = m;
    e->bytes = bytes;
    pthread_mutex_unlock(&ms->lock);
}

static void evict(dr_models *ms, entry *e)
{
    char name[300];
    dr_model *m = e->model;
    dr_log(DR_INFO, "model.evict", "model=%s weights_mb=%lld",
           dr_log_quote(name, sizeof name, e->name), (long long)(e->bytes / MIB));
    set_model(ms, e, NULL, 0);
    dr_model_close(m);
}

/* The loaded model that was not used for longest, but for keep; NULL: none. *bytes gets
 * what all loaded ones take. */
static entry *oldest(dr_models *ms, const entry *keep, int64_t *bytes)
{
    entry *found = NULL;
    *bytes = 0;
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; i < ms->count; i++) {
        entry *e = ms->entries[i];
        *bytes += e->bytes;
        if (e->model && e != keep && (!found || e->used < found->used))
            found = e;
    }
    pthread_mutex_unlock(&ms->lock);
    return found;
}

/* Evict until the loaded ones but keep take at most `limit` bytes. */
static bool evict_to(dr_models *ms, const entry *keep, int64_t limit)
{
    int64_t bytes;
    bool any = false;
    for (entry *e; (e = oldest(ms, keep, &bytes)) && bytes > limit; any = true)
        evict(ms, e);
    return any;
}

bool dr_models_make_room(dr_models *ms, int keep)
{
    return evict_to(ms, keep < 0 ? NULL : at(ms, keep), -1);
}

static dr_status load(dr_models *ms, entry *e, void (*progress)(void *ctx, double share),
                      void *ctx, dr_err *err)
{
    int64_t need, limit = dr_model_memory(ms->dev, ms->conf->model.memory_mb);
    dr_model *m = NULL;
    dr_status st;
    if (!ms->tested && (st = dr_tune_start(ms->dev, ms->conf, err)))
        return st;
    if (!ms->tested && ms->conf->device.self_test && (st = dr_selftest(ms->dev, err)))
        return st;
    ms->tested = true;
    if ((st = dr_model_need(&need, e->path, err)))
        return st;
    if (need > limit)
        return dr_fail_field(err, DR_ENOMEM, "model",
                             "model %s: its weights take %lld MiB on the device, the limit "
                             "is %lld MiB; raise model.memory_mb",
                             e->name, (long long)((need + MIB - 1) / MIB),
                             (long long)(limit / MIB));
    evict_to(ms, NULL, limit - need);
    st = dr_model_load(&m, ms->dev, e->path, ms->conf, progress, ctx, err);
    if (st == DR_ENOMEM && evict_to(ms, NULL, -1))
        st = dr_model_load(&m, ms->dev, e->path, ms->conf, progress, ctx, err);
    if (!st)
        set_model(ms, e, m, need);
    return st;
}

/* Give back what the others hold for activations. */
static void idle_others(dr_models *ms, const entry *e)
{
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; i < ms->count; i++)
        if (ms->entries[i] != e && ms->entries[i]->model)
            dr_model_idle(ms->entries[i]->model);
    pthread_mutex_unlock(&ms->lock);
}

dr_status dr_models_get(dr_models *ms, int i, void (*progress)(void *ctx, double share),
                        void *ctx, dr_model **out, dr_err *err)
{
    entry *e = at(ms, i);
    idle_others(ms, e);
    dr_status st = e->model ? DR_OK : load(ms, e, progress, ctx, err);
    if (st)
        return st;
    e->used = ++ms->tick;
    *out = e->model;
    return DR_OK;
}
