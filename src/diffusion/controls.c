#include "diffusion/controls.h"

#include "base/clock.h"
#include "base/known.h"
#include "base/log.h"
#include "base/mem.h"
#include "dev/dev.h"
#include "image/canny.h"
#include "image/decode.h"
#include "image/resample.h"

#include <stdio.h>
#include <string.h>

#define MIB   ((int64_t)1 << 20)
#define FIELD "controls"
#define STEM  "diffusion_pytorch_model"

typedef struct {
    char name[DR_NAME_BYTES_MAX + 1]; /* "": free */
    dr_arena *mem;
    dr_pool *pool;
    dr_controlnet net;
    dr_text_kv *kv;
    dr_digest digest;
    int64_t bytes; /* of its weights on the device */
    uint64_t used; /* tick of the last job */
} entry;

struct dr_controls {
    char dir[DR_PATH_MAX];
    int64_t memory_mb;
    uint64_t tick;
    entry at[DR_CONTROLS_MAX];
};

/* --- the store --- */

dr_controls *dr_controls_new(const dr_conf *conf)
{
    dr_controls *cs = dr_alloc(sizeof *cs);
    if (!cs)
        return NULL;
    snprintf(cs->dir, sizeof cs->dir, "%s", conf->control.dir);
    cs->memory_mb = conf->model.memory_mb;
    return cs;
}

static void drop(entry *e)
{
    dr_pool_free(e->pool);
    dr_arena_free(e->mem);
    *e = (entry){ 0 };
}

void dr_controls_forget(dr_controls *cs)
{
    for (int i = 0; i < DR_CONTROLS_MAX; i++)
        drop(&cs->at[i]);
}

void dr_controls_free(dr_controls *cs)
{
    if (!cs)
        return;
    dr_controls_forget(cs);
    dr_free(cs);
}

size_t dr_controls_bytes(const dr_controls *cs)
{
    size_t bytes = 0;
    for (int i = 0; i < DR_CONTROLS_MAX; i++)
        bytes += cs->at[i].pool ? dr_pool_bytes(cs->at[i].pool) : 0;
    return bytes;
}

static entry *find(dr_controls *cs, const char *name)
{
    for (int i = 0; i < DR_CONTROLS_MAX; i++)
        if (*name && !strcmp(cs->at[i].name, name))
            return &cs->at[i];
    return NULL;
}

/* A free place, made free if need be by what this job does not use; so that all but it take
 * at most `limit` bytes. NULL: there is none. */
static entry *make_room(dr_controls *cs, int64_t limit)
{
    for (;;) {
        int64_t bytes = 0;
        entry *empty = NULL, *oldest = NULL;
        for (int i = 0; i < DR_CONTROLS_MAX; i++) {
            entry *e = &cs->at[i];
            bytes += e->bytes;
            if (!*e->name)
                empty = e;
            else if (e->used < cs->tick && (!oldest || e->used < oldest->used))
                oldest = e;
        }
        if (empty && bytes <= limit)
            return empty;
        if (!oldest)
            return NULL;
        dr_log(DR_INFO, "control.evict", "name=%s weights_mb=%lld", oldest->name,
               (long long)(oldest->bytes / MIB));
        drop(oldest);
    }
}

/* --- loading --- */

static dr_status fail_unknown(const dr_controls *cs, const char *name, dr_err *err)
{
    dr_buf known = { 0 };
    dr_known_names(&known, "control.dir", cs->dir, NULL);
    dr_status st =
        dr_fail_field(err, DR_ENOTFOUND, FIELD, "ControlNet \"%s\": no such ControlNet; %s",
                      name, known.failed ? "" : known.data);
    dr_buf_free(&known);
    return st;
}

/* The folder of a name, which is never used as a path. */
static dr_status folder_of(char out[DR_PATH_MAX], const dr_controls *cs, const char *name,
                           dr_err *err)
{
    char file[DR_PATH_MAX];
    dr_status st;
    if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > DR_NAME_BYTES_MAX)
        return dr_fail_field(err, DR_EINVAL, FIELD,
                             "ControlNet %s: must be the name of a folder in control.dir",
                             name);
    if (!*cs->dir)
        return fail_unknown(cs, name, err);
    if ((st = dr_path_join(out, cs->dir, name, err)) || dr_dir_exists(out))
        return st;
    if (snprintf(file, sizeof file, "%s.safetensors", out) < DR_PATH_MAX &&
        dr_file_exists(file))
        return dr_fail_field(
            err, DR_EMODEL, FIELD,
            "ControlNet %s: %s.safetensors is a single file; only folders in diffusers "
            "layout can be read: convert it with diffusers' "
            "convert_original_controlnet_to_diffusers.py",
            name, name);
    return fail_unknown(cs, name, err);
}

static int64_t weights_bytes(const dr_weights *w)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < dr_weights_count(w); i++)
        bytes += dr_weight_count(dr_weights_at(w, i)) * (int64_t)sizeof(float);
    return bytes;
}

/* A place for so many bytes beside the model. */
static dr_status place_for(entry **out, dr_model *m, const char *name, int64_t bytes,
                           dr_err *err)
{
    dr_controls *cs = m->controls;
    int64_t room = INT64_MAX / 2, model = dr_parts_bytes(m->parts);
    if (m->dev)
        room = dr_model_memory(m->dev, cs->memory_mb) - model;
    *out = make_room(cs, room - bytes);
    if (*out)
        return DR_OK;
    return dr_fail_field(err, DR_ENOMEM, FIELD,
                         "ControlNet %s: its weights take %lld MiB on the device, beside "
                         "model %s and the job's other ControlNets; %lld MiB are left for "
                         "all of them: raise model.memory_mb",
                         name, (long long)((bytes + MIB - 1) / MIB), m->name,
                         (long long)(room < 0 ? 0 : room / MIB));
}

/* What the config says before any weights are read. */
static dr_status check_family(const dr_model *m, const char *name, const dr_json *config,
                              dr_err *err)
{
    double text_c = dr_json_get_number(config, "cross_attention_dim", 1280);
    if (text_c == (double)m->unet.text_c)
        return DR_OK;
    return dr_fail_field(err, DR_EINVAL, FIELD,
                         "ControlNet %s was made for another family: its "
                         "cross_attention_dim is %g, that of model %s is %lld",
                         name, text_c, m->name, (long long)m->unet.text_c);
}

static dr_status check_fit(const dr_model *m, const char *name, const dr_controlnet *c,
                           dr_err *err)
{
    const dr_unet *u = &m->unet, *v = &c->lower;
    bool same = u->has_mid && u->n_levels == v->n_levels && u->n_skips == v->n_skips &&
                u->out_c == v->in_c;
    for (int i = 0; same && i < u->n_levels; i++)
        same = u->down[i].n_layers == v->down[i].n_layers &&
               u->down[i].resnets[0].conv2.out == v->down[i].resnets[0].conv2.out;
    if (!same)
        return dr_fail_field(err, DR_EINVAL, FIELD,
                             "ControlNet %s has other blocks than the UNet of model %s",
                             name, m->name);
    if (dr_controlnet_factor(c) == m->vae.factor)
        return DR_OK;
    return dr_fail_field(err, DR_EINVAL, FIELD,
                         "ControlNet %s makes its picture %lld times smaller, the "
                         "autoencoder of model %s %lld times",
                         name, (long long)dr_controlnet_factor(c), m->name,
                         (long long)m->vae.factor);
}

/* Fill a place; l is open. */
static dr_status fill(entry *e, dr_model *m, dr_loader *l, const dr_json *config,
                      dr_err *err)
{
    e->mem = dr_arena_new();
    e->pool = l->pool = m->dev ? dr_pool_new(m->dev) : NULL;
    if (!e->mem || (m->dev && !e->pool))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    if (m->dev)
        e->digest = dr_loader_digest(l);
    dr_controlnet_load(&e->net, l, config, e->mem);
    if (l->err.code)
        return DR_OK; /* closing tells */
    e->kv = dr_arena_alloc(e->mem, (size_t)e->net.lower.n_kv * sizeof *e->kv);
    return e->kv ? DR_OK : dr_fail(err, DR_ENOMEM, "out of memory");
}

static dr_status load(entry **out, dr_model *m, const char *name, dr_err *err)
{
    char dir[DR_PATH_MAX], path[DR_PATH_MAX];
    double from_s = dr_now_s();
    dr_json *config = NULL;
    dr_loader l = { 0 };
    dr_status st, closed;
    *out = NULL;
    if ((st = folder_of(dir, m->controls, name, err)) ||
        (st = dr_path_join(path, dir, "config.json", err)) ||
        (st = dr_json_read(&config, path, err)) ||
        (st = check_family(m, name, config, err)) ||
        (st = dr_loader_open(&l, m->dev, NULL, name, dir, STEM, err)))
        goto done;
    int64_t bytes = weights_bytes(l.files);
    if (!(st = place_for(out, m, name, bytes, err)))
        st = fill(*out, m, &l, config, err);
    closed = dr_loader_close(&l, st ? NULL : err);
    if (!st && !(st = closed))
        st = check_fit(m, name, &(*out)->net, err);
    if (!st) {
        snprintf((*out)->name, sizeof(*out)->name, "%s", name);
        (*out)->bytes = bytes;
        dr_log(DR_INFO, "control.ready", "name=%s ms=%.0f weights_mb=%lld", name,
               (dr_now_s() - from_s) * 1000, (long long)(bytes / MIB));
    }
done:
    if (st && *out)
        drop(*out);
    dr_json_free(config);
    return st;
}

dr_status dr_controls_take(dr_model *m, const dr_job *job,
                           dr_control_use uses[DR_CONTROLS_MAX], int *n, dr_err *err)
{
    dr_controls *cs = m->controls;
    *n = 0;
    cs->tick++;
    for (int i = 0; i < job->n_controls; i++) {
        const dr_control_ref *ref = &job->controls[i];
        entry *e = find(cs, ref->name);
        dr_status st = ref->strength != 0 && !e ? load(&e, m, ref->name, err) : DR_OK;
        if (st)
            return st;
        if (ref->strength == 0)
            continue;
        e->used = cs->tick;
        uses[(*n)++] = (dr_control_use){
            .ref = ref, .net = &e->net, .kv = e->kv, .digest = &e->digest
        };
    }
    return DR_OK;
}

/* --- in a run --- */

/* The picture as w × h × 3 floats in 0..1. */
static dr_status read_picture(float *out, const dr_control_ref *ref, int64_t w, int64_t h,
                              dr_err *err)
{
    dr_image im = { 0 }, edges = { 0 };
    dr_status st;
    if (!ref->image.n)
        return dr_fail_field(err, DR_EINVAL, FIELD, "ControlNet %s: its picture is missing",
                             ref->name);
    if ((st = dr_image_decode(&im, ref->image.bytes, ref->image.n, DR_PIXELS_RGB, NULL,
                              err)) ||
        (st = dr_image_resize(&im, w, h, DR_FIT_STRETCH, err)) ||
        (st = ref->canny ? dr_image_canny(&edges, &im, DR_CANNY_LOW, DR_CANNY_HIGH, err)
                         : DR_OK) ||
        (st = dr_image_to_floats(ref->canny ? &edges : &im, w, h, DR_FIT_STRETCH, 0, 1, out,
                                 err)))
        dr_err_wrap(err, "ControlNet %s", ref->name);
    dr_image_free(&edges);
    dr_image_free(&im);
    return st;
}

static void upload_picture(dr_run *r, dr_tensor picture, const dr_control_ref *ref)
{
    if (r->dry || r->err.code)
        return;
    float *host = dr_alloc((size_t)dr_count(picture) * sizeof *host);
    if (!host)
        dr_fail(&r->err, DR_ENOMEM, "out of memory for the picture of ControlNet %s",
                ref->name);
    else if (!read_picture(host, ref, picture.w, picture.h, &r->err))
        dr_upload(r, picture, host);
    dr_free(host);
}

void dr_control_read(dr_run *r, dr_control_use *use, dr_tensor texts, const int *text_rows,
                     int64_t w, int64_t h, int64_t batch)
{
    int64_t f = dr_controlnet_factor(use->net);
    dr_unet_read_text(r, &use->net->lower, texts, use->kv);
    dr_unet_choose_text(&use->net->lower, use->kv, text_rows);
    use->hint = dr_new(r, batch, h / f, w / f, use->net->lower.width);
    dr_mark mark = dr_push(r);
    dr_tensor picture = dr_new(r, 1, h, w, 3);
    upload_picture(r, picture, use->ref);
    dr_controlnet_read_picture(r, use->net, picture, use->hint);
    dr_pop(r, mark);
}

bool dr_control_acts(const dr_control_use *use, int64_t i, int64_t steps)
{
    double from = (double)i / (double)steps, to = (double)(i + 1) / (double)steps;
    return from >= use->ref->start && to <= use->ref->end;
}

void dr_control_hash(dr_hash *h, const dr_control_use *use)
{
    const dr_control_ref *ref = use->ref;
    const double numbers[] = { ref->strength, ref->start, ref->end, ref->canny,
                               (double)ref->image.n };
    dr_hash_str(h, ref->name);
    dr_hash_str(h, use->digest->hex);
    dr_hash_add(h, numbers, sizeof numbers);
    dr_hash_add(h, ref->image.bytes, ref->image.n);
}
