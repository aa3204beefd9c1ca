#include "job/row.h"

#include "job/read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Lists: what a job adds to its model. */

/* --- One entry of a list ------------------------------------------------------------- */

/* Fill entry from a map by a table of n rows; *given is room for n. */
static dr_status fill_entry(dr_fill *f, const char *prefix, const dr_row *rows, int n,
                            const char **given, void *entry, const dr_value *map)
{
    dr_fill one = *f;
    dr_status st = DR_OK;
    one.rows = rows;
    one.n_rows = n;
    one.given = given;
    one.base = entry;
    one.prefix = prefix;
    for (const dr_value *v = map->as.items.first; v && !st; v = v->next)
        st = dr_apply(&one, v, v->name);
    return st;
}

/* Note that the list was given under this name; under the same name once more it goes on.
 */
static dr_status claim_list(dr_fill *f, const dr_row *r, const char *as)
{
    const char *given = f->given[r - f->rows];
    return dr_note_given(f, r, as, given && !strcmp(given, as));
}

static dr_status missing(dr_fill *f, const char *prefix, const char *name)
{
    char label[DR_LABEL_BYTES];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    return dr_fail_field(f->err, DR_EINVAL, label, "%s: missing; send it", label);
}

/* --- LoRAs --------------------------------------------------------------------------- */

static dr_setter set_lora_model;

enum { L_NAME, L_STRENGTH, L_TEXT, L_MODEL, LORA_FIELDS };

#define RANGE(name, aliases, set, member, min, max)                                        \
    DR_RANGE(dr_lora_ref, name, aliases, set, member, min, max)

static const dr_row lora_rows[LORA_FIELDS] = {
    [L_NAME] = RANGE("name", "path", dr_set_name, name, 1, DR_NAME_BYTES_MAX),
    [L_STRENGTH] =
        RANGE("strength", "weight scale multiplier unet", dr_set_float, strength, -10, 10),
    [L_TEXT] = RANGE("text_strength", "clip te", dr_set_float, text_strength, -10, 10),
    [L_MODEL] = DR_ROW("model", NULL, set_lora_model),
};

/* Its name to most, its strength to the Horde: the value tells. */
static dr_status set_lora_model(dr_fill *f, const dr_row *r, const dr_value *v,
                                const char *as)
{
    bool name = v->kind == DR_VALUE_STR;
    (void)r;
    const dr_row *to = &f->rows[name ? L_NAME : L_STRENGTH];
    return to->set(f, to, v, as);
}

/* Append the LoRA that a map describes; what has no strength waits for the default. */
static dr_status add_lora(dr_fill *f, const dr_value *map)
{
    char prefix[32];
    const char *given[LORA_FIELDS] = { 0 };
    dr_job *job = f->job;
    dr_lora_ref lora = { .strength = NAN, .text_strength = NAN };
    if (job->n_loras == DR_LORAS_MAX)
        return dr_fail_field(f->err, DR_EINVAL, "loras",
                             "loras: more than %d; leave some out", DR_LORAS_MAX);
    snprintf(prefix, sizeof prefix, "loras[%d].", job->n_loras);
    dr_status st = fill_entry(f, prefix, lora_rows, LORA_FIELDS, given, &lora, map);
    if (!st && !lora.name)
        return missing(f, prefix, "name");
    if (!st)
        job->loras[job->n_loras++] = lora;
    return st;
}

/* Put a text of n bytes into map under the name. */
static dr_status put(dr_fill *f, dr_value *map, const char *name, const char *p, size_t n)
{
    dr_value *v = dr_value_new(f->mem);
    dr_status st =
        v ? dr_value_bytes(v, f->mem, DR_VALUE_STR, p, n, f->err) : dr_fill_nomem(f);
    return st ? st : dr_value_put(map, f->mem, name, strlen(name), v, f->err);
}

/* What the numbers behind a name are, apart from those that say it: "te=0.5", "unet=0.5".
 */
static const char *const list_order[] = { "name", "strength", "text_strength" };
static const char *const tag_order[] = { "name", "text_strength", "strength" };

/* A1111's order; a number in front of te= is the other part's. */
static const char *const *order_in_tag(const char *p, size_t n)
{
    const char *colon = memchr(p, ':', n);
    const char *second = colon ? memchr(colon + 1, ':', (size_t)(p + n - colon - 1)) : NULL;
    return second && !strncmp(second + 1, "te=", 3) ? list_order : tag_order;
}

/* Append a LoRA written as "name" and up to two numbers, in n bytes. */
static dr_status add_lora_text(dr_fill *f, const char *const order[3], const char *p,
                               size_t n)
{
    dr_value map = { .kind = DR_VALUE_MAP };
    dr_status st = DR_OK;
    size_t place = 0;
    for (const char *end = p + n; p <= end && !st;) {
        const char *colon = memchr(p, ':', (size_t)(end - p)), *name = NULL;
        const char *stop = colon ? colon : end;
        if (place && stop - p > 3 && !memcmp(p, "te=", 3))
            name = "te";
        else if (place && stop - p > 5 && !memcmp(p, "unet=", 5))
            name = "unet";
        p += name ? strlen(name) + 1 : 0;
        if (!name && place < DR_COUNT(list_order))
            name = order[place++];
        st = name ? put(f, &map, name, p, (size_t)(stop - p))
                  : dr_fail_field(f->err, DR_EINVAL, "loras", "loras: must be %s:%s:%s",
                                  order[0], order[1], order[2]);
        p = stop + 1;
    }
    return st ? st : add_lora(f, &map);
}

/* { "name": strength, … } */
static dr_status add_named(dr_fill *f, const dr_value *map)
{
    dr_status st = DR_OK;
    for (const dr_value *v = map->as.items.first; v && !st; v = v->next) {
        dr_value entry = { .kind = DR_VALUE_MAP };
        dr_value *strength = dr_value_new(f->mem);
        if (!strength)
            return dr_fill_nomem(f);
        *strength = *v;
        strength->next = NULL;
        st = put(f, &entry, "name", v->name, strlen(v->name));
        if (!st)
            st = dr_value_put(&entry, f->mem, "strength", strlen("strength"), strength,
                              f->err);
        if (!st)
            st = add_lora(f, &entry);
    }
    return st;
}

/* Whether a map describes one LoRA rather than naming several. */
static bool is_lora(const dr_value *map)
{
    static const char *const words[] = { "name",   "path",       "model",        "strength",
                                         "weight", "multiplier", "text_strength" };
    for (const dr_value *v = map->as.items.first; v; v = v->next)
        for (size_t i = 0; i < DR_COUNT(words); i++)
            if (!strcmp(v->name, words[i]) && (i > 2 || v->kind == DR_VALUE_STR))
                return true;
    return false;
}

static dr_status add_any(dr_fill *f, const dr_row *r, const dr_value *v)
{
    const char *text;
    if (v->kind == DR_VALUE_STR) {
        dr_status st = dr_to_text(f, r, v, &text);
        return st ? st : add_lora_text(f, list_order, text, v->as.s.n);
    }
    if (v->kind != DR_VALUE_MAP)
        return dr_bad(f, r, " %s: must be names, or maps with name and strength",
                      dr_value_show(v).text);
    return is_lora(v) ? add_lora(f, v) : add_named(f, v);
}

dr_status dr_set_loras(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_status st = v->plain ? dr_unfold_items(f, r, &v) : DR_OK;
    if (st || dr_asks_nothing(v) || (st = claim_list(f, r, as)))
        return st;
    if (v->kind != DR_VALUE_ARRAY)
        return add_any(f, r, v);
    for (const dr_value *i = v->as.items.first; i && !st; i = i->next)
        st = add_any(f, r, i);
    return st;
}

dr_status dr_set_lora_scale(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_fill own = *f;
    own.base = f->more;
    return dr_set_float(&own, r, v, as);
}

/* Append the LoRA of a tag, with A1111's defaults: the text encoder's part is as strong as
 * any without a strength, the UNet's as the text encoder's. */
static dr_status add_lora_tag(dr_fill *f, const char *inside, size_t n)
{
    dr_status st = add_lora_text(f, order_in_tag(inside, n), inside, n);
    if (st)
        return st;
    dr_lora_ref *l = &f->job->loras[f->job->n_loras - 1];
    l->text_strength = isnan(l->text_strength) ? f->more->lora_scale : l->text_strength;
    l->strength = isnan(l->strength) ? l->text_strength : l->strength;
    return DR_OK;
}

/* Take <lora:...> out of a prompt, as A1111 does: what stood around it stays. */
static dr_status take_tags(dr_fill *f, dr_job_field field, const char **prompt)
{
    static const char head[] = "<lora:";
    const char *from = *prompt, *tag = from ? strstr(from, head) : NULL,
               *name = f->rows[field].name;
    if (!tag)
        return DR_OK;
    char *text = dr_arena_alloc(f->mem, strlen(from) + 1), *to = text;
    if (!text)
        return dr_fill_nomem(f);
    for (; tag; tag = strstr(from, head)) {
        size_t at = (size_t)(tag - *prompt);
        const char *inside = tag + strlen(head), *end = strchr(inside, '>');
        if (!end)
            return dr_bad(f, &f->rows[field],
                          ": %s at byte %zu has no \">\"; close it or take it out", head,
                          at);
        size_t n = (size_t)(end - inside);
        dr_status st = add_lora_tag(f, inside, n);
        if (st) {
            dr_err_wrap(f->err, "%s: %s...> at byte %zu", name, head, at);
            if (f->err)
                snprintf(f->err->field, sizeof f->err->field, "%s", name);
            return st;
        }
        memcpy(to, from, (size_t)(tag - from));
        to += tag - from;
        from = end + 1;
    }
    memcpy(to, from, strlen(from));
    *prompt = text;
    return DR_OK;
}

/* --- ControlNets --------------------------------------------------------------------- */

#undef RANGE
#define RANGE(name, aliases, set, member, min, max)                                        \
    DR_RANGE(dr_control_ref, name, aliases, set, member, min, max)

static const char *const preprocessor_words[] = { "none", "canny", NULL };

static const dr_row control_rows[CONTROL_FIELDS] = {
    [C_NAME] = RANGE("name", "model", dr_set_name, name, 1, DR_NAME_BYTES_MAX),
    [C_IMAGE] = DR_FIELD(dr_control_ref, "image", "input_image control_image",
                         dr_set_picture, image),
    [C_STRENGTH] =
        RANGE("strength", "weight scale conditioning_scale controlnet_conditioning_scale",
              dr_set_float, strength, 0, 10),
    [C_START] =
        RANGE("start", "guidance_start control_guidance_start", dr_set_float, start, 0, 1),
    [C_END] = RANGE("end", "guidance_end control_guidance_end", dr_set_float, end, 0, 1),
    [C_PREPROCESSOR] = DR_WORDS(dr_control_ref, "preprocessor", "module", dr_set_enum_bool,
                                canny, preprocessor_words),
};

static const dr_control_ref no_control = { .strength = 1, .end = 1 };

/* Append a control that is filled; its fields are called prefix + name. */
static dr_status add_control(dr_fill *f, const dr_control_ref *c, const char *prefix)
{
    dr_job *job = f->job;
    if (!c->name)
        return missing(f, prefix, "name");
    if (!c->image.n && !c->image.key)
        return missing(f, prefix, "image");
    if (c->start >= c->end)
        return dr_fail_field(f->err, DR_EINVAL, "controls",
                             "controls: %sstart %g must be below %send, which is %g",
                             prefix, c->start, prefix, c->end);
    if (job->n_controls == DR_CONTROLS_MAX)
        return dr_fail_field(f->err, DR_EINVAL, "controls",
                             "controls: more than %d; leave some out", DR_CONTROLS_MAX);
    job->controls[job->n_controls++] = *c;
    return DR_OK;
}

static dr_status add_control_map(dr_fill *f, const dr_row *r, const dr_value *map)
{
    char prefix[32];
    const char *given[CONTROL_FIELDS] = { 0 };
    dr_control_ref c = no_control;
    if (map->kind != DR_VALUE_MAP)
        return dr_bad(f, r, " %s: must be maps with name and image",
                      dr_value_show(map).text);
    snprintf(prefix, sizeof prefix, "controls[%d].", f->job->n_controls);
    dr_status st = fill_entry(f, prefix, control_rows, CONTROL_FIELDS, given, &c, map);
    return st ? st : add_control(f, &c, prefix);
}

dr_status dr_set_controls(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    const dr_row *name = &f->rows[F_CONTROL_NAME];
    dr_status st = v->plain ? dr_unfold_items(f, r, &v) : DR_OK;
    if (st || dr_asks_nothing(v))
        return st;
    if (v->kind == DR_VALUE_STR) /* its picture stands in control_image */
        return dr_set_control(f, name, v, as);
    if ((st = claim_list(f, r, as)))
        return st;
    if (v->kind != DR_VALUE_ARRAY)
        return add_control_map(f, r, v);
    for (const dr_value *i = v->as.items.first; i && !st; i = i->next)
        st = add_control_map(f, r, i);
    return st;
}

dr_status dr_set_control(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_gathered *g = f->more;
    dr_fill one = *f;
    const dr_row *to = &control_rows[r - &f->rows[F_CONTROL_NAME]];
    one.rows = control_rows;
    one.n_rows = CONTROL_FIELDS;
    one.given = g->control_given;
    one.base = &g->control;
    one.prefix = "control_";
    return to->set(&one, to, v, as);
}

/* --- All ----------------------------------------------------------------------------- */

dr_status dr_finish_addons(dr_fill *f)
{
    dr_gathered *g = f->more;
    dr_job *job = f->job;
    dr_status st = take_tags(f, F_PROMPT, &job->prompt);
    if (!st)
        st = take_tags(f, F_NEGATIVE, &job->negative_prompt);
    for (int i = 0; i < job->n_loras; i++) {
        dr_lora_ref *l = &job->loras[i];
        l->strength = isnan(l->strength) ? g->lora_scale : l->strength;
        l->text_strength = isnan(l->text_strength) ? l->strength : l->text_strength;
    }
    bool any = false;
    for (int i = 0; i < CONTROL_FIELDS; i++)
        any |= g->control_given[i] != NULL;
    return !st && any ? add_control(f, &g->control, "control_") : st;
}
