#include "diffusion/lora_wish.h"

#include "base/file.h"
#include "base/known.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRENGTH_MAX 10.0
#define SUFFIX       ".safetensors"

/* --- names --- */

static dr_status fail_name(int place, const char *name, const char *why, dr_err *err)
{
    char field[32];
    snprintf(field, sizeof field, "loras[%d].name", place);
    return dr_fail_field(err, DR_EINVAL, field, "%s \"%.160s\": %s", field, name, why);
}

/* A client's name must stay inside the folder. */
static dr_status check_name(int place, const char *name, dr_err *err)
{
    size_t n = name ? strlen(name) : 0;
    if (n < 1 || n > DR_NAME_BYTES_MAX)
        return fail_name(place, name ? name : "", "must have 1..128 bytes", err);
    if (strchr(name, '/') || strchr(name, '\\') || strstr(name, "..") || *name == '.')
        return fail_name(place, name,
                         "must be a name in lora.dir: no slash, no \"..\", no dot in front",
                         err);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return fail_name(place, name, "must have no control characters", err);
    return dr_utf8_valid(name, n, NULL) ? DR_OK
                                        : fail_name(place, name, "must be UTF-8", err);
}

static dr_status fail_unknown(const char *dir, const dr_lora_item *w, dr_err *err)
{
    char field[32];
    dr_buf known = { 0 };
    snprintf(field, sizeof field, "loras[%d].name", w->place);
    dr_known_names(&known, "lora.dir", dir, SUFFIX);
    dr_status st = dr_fail_field(err, DR_ENOTFOUND, field, "%s \"%s\": no such LoRA; %s",
                                 field, w->name, known.failed ? "" : known.data);
    dr_buf_free(&known);
    return st;
}

/* The file of a checked name. */
static dr_status path_of(const char *dir, const char *name, char path[DR_PATH_MAX],
                         dr_err *err)
{
    char file[DR_NAME_BYTES_MAX + sizeof SUFFIX];
    snprintf(file, sizeof file, "%s" SUFFIX, name);
    return dr_path_join(path, dir, file, err);
}

/* --- what is asked for --- */

static dr_status check_strength(int place, const char *member, double v, dr_err *err)
{
    char field[48];
    if (v >= -STRENGTH_MAX && v <= STRENGTH_MAX)
        return DR_OK;
    snprintf(field, sizeof field, "loras[%d].%s", place, member);
    return dr_fail_field(err, DR_EINVAL, field, "%s %g: must be in -10..10", field, v);
}

static int by_name(const void *a, const void *b)
{
    const dr_lora_item *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : x->place - y->place;
}

static dr_status read_item(const char *dir, dr_lora_item *w, const dr_lora_ref *ref,
                           int place, dr_err *err)
{
    char path[DR_PATH_MAX];
    double unet = isnan(ref->strength) ? 1 : ref->strength;
    double text = isnan(ref->text_strength) ? unet : ref->text_strength;
    dr_status st;
    *w = (dr_lora_item){ .name = ref->name, .strength = { unet, text }, .place = place };
    if ((st = check_name(place, ref->name, err)) ||
        (st = check_strength(place, "strength", unet, err)) ||
        (st = check_strength(place, "text_strength", text, err)) ||
        (st = path_of(dir, ref->name, path, err)))
        return st;
    if (!*dir || stat(path, &w->file) || !S_ISREG(w->file.st_mode))
        return fail_unknown(dir, w, err);
    return DR_OK;
}

dr_status dr_lora_wish_read(dr_lora_wish *out, const char *dir, const dr_lora_ref *refs,
                            int n, dr_err *err)
{
    dr_lora_item all[DR_LORAS_MAX];
    dr_status st;
    out->n = 0;
    if (n > DR_LORAS_MAX)
        return dr_fail_field(err, DR_EINVAL, "loras", "loras: %d, at most %d at once", n,
                             DR_LORAS_MAX);
    for (int i = 0; i < n; i++)
        if ((st = read_item(dir, &all[i], &refs[i], i, err)))
            return st;
    if (n > 0)
        qsort(all, (size_t)n, sizeof *all, by_name);
    for (int i = 0; i < n;) {
        dr_lora_item sum = all[i++];
        for (; i < n && !strcmp(all[i].name, sum.name); i++)
            for (int p = 0; p < DR_LORA_PARTS; p++)
                sum.strength[p] += all[i].strength[p];
        if (sum.strength[DR_LORA_UNET] != 0 || sum.strength[DR_LORA_TEXT] != 0)
            out->item[out->n++] = sum;
    }
    return DR_OK;
}

/* Tells files apart, also one that was replaced under its name. */
static void add_file(dr_hash *h, const dr_lora_item *w)
{
    dr_hash_str(h, w->name);
    dr_hash_add(h, &w->file.st_dev, sizeof w->file.st_dev);
    dr_hash_add(h, &w->file.st_ino, sizeof w->file.st_ino);
    dr_hash_add(h, &w->file.st_size, sizeof w->file.st_size);
    dr_hash_add(h, &w->file.st_mtim.tv_sec, sizeof w->file.st_mtim.tv_sec);
    dr_hash_add(h, &w->file.st_mtim.tv_nsec, sizeof w->file.st_mtim.tv_nsec);
}

dr_status dr_lora_wish_key(dr_digest *out, const dr_lora_wish *w, dr_err *err)
{
    dr_hash *h = dr_hash_new();
    if (!h)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < w->n; i++) {
        add_file(h, &w->item[i]);
        dr_hash_add(h, w->item[i].strength, sizeof w->item[i].strength);
    }
    *out = dr_hash_end(h);
    return DR_OK;
}

dr_status dr_lora_wish_text_key(dr_digest *out, const dr_lora_wish *w, const dr_lora *files,
                                dr_err *err)
{
    bool any = false;
    dr_hash *h = dr_hash_new();
    if (!h)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    for (int i = 0; i < w->n; i++) {
        const double *strength = &w->item[i].strength[DR_LORA_TEXT];
        if (!files[i].has[DR_LORA_TEXT] || *strength == 0)
            continue;
        add_file(h, &w->item[i]);
        dr_hash_add(h, strength, sizeof *strength);
        any = true;
    }
    dr_digest all = dr_hash_end(h);
    *out = any ? all : (dr_digest){ 0 };
    return DR_OK;
}

/* --- files --- */

void dr_lora_wish_close(dr_lora *files, int n)
{
    for (int i = 0; i < n; i++)
        dr_lora_close(&files[i]);
}

dr_status dr_lora_wish_open(const dr_lora_wish *w, const char *dir, const dr_lora_layers *l,
                            dr_lora *files, dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_status st = DR_OK;
    int n = 0;
    for (; n < w->n && !st; n++) {
        files[n] = (dr_lora){ 0 };
        if (!(st = path_of(dir, w->item[n].name, path, err)))
            st = dr_lora_open(&files[n], path, l, err);
        if (st && err)
            snprintf(err->field, sizeof err->field, "loras[%d].name", w->item[n].place);
    }
    if (st)
        dr_lora_wish_close(files, n);
    return st;
}
