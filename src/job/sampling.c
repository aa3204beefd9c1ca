#include "job/row.h"

#include "job/names.h"
#include "job/read.h"

#include <stdlib.h>
#include <string.h>

/* The setters for what a picture's noise is and how it is taken away. */

/* --- Seeds --------------------------------------------------------------------------- */

/* The full range of 64 bits; -1 is random. */
static dr_status read_seed(dr_fill *f, const dr_row *r, const dr_value *v, uint64_t *seed,
                           bool *is_random)
{
    int64_t i;
    if (v->risky)
        return dr_bad(f, r,
                      " %s: a JSON number above 2^53 may have lost bits on its way; send "
                      "it as a string",
                      dr_value_show(v).text);
    *is_random = (dr_value_int(v, &i) && i == -1) || (v->plain && dr_value_is(v, "null"));
    if (!*is_random && !dr_value_uint(v, seed))
        return dr_bad(f, r,
                      " %s: must be a whole number in 0..18446744073709551615 (above 2^53 "
                      "as a string), or -1 for a random one",
                      dr_value_show(v).text);
    return DR_OK;
}

dr_status dr_set_seed(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    dr_job *job = f->job;
    uint64_t seed = job->seed;
    bool is_random;
    dr_status st = read_seed(f, r, v, &seed, &is_random);
    if (!st)
        st = dr_note_given(f, r, as, job->seed_is_random == is_random && job->seed == seed);
    if (!st) {
        job->seed = seed;
        job->seed_is_random = is_random;
    }
    return st;
}

/* A random one follows from the seed. */
dr_status dr_set_subseed(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    uint64_t seed;
    bool is_random;
    dr_status st = read_seed(f, r, v, &seed, &is_random);
    if (st || is_random)
        return st;
    f->job->subseed_is_random = false;
    return dr_fill_keep(f, r, as, &seed, sizeof seed);
}

/* --- Samplers and schedules ---------------------------------------------------------- */

static dr_status unknown_name(dr_fill *f, const char *name, const dr_value *v,
                              const char *known)
{
    return dr_fail_field(f->err, DR_EINVAL, name, "unknown %s %s; known: %s", name,
                         dr_value_show(v).text, known);
}

static dr_status keep_sampler(dr_fill *f, const char *as, dr_sampler_id sampler,
                              dr_schedule_id schedule)
{
    dr_status st = dr_fill_keep(f, &f->rows[F_SAMPLER], as, &sampler, sizeof sampler);
    if (!st && schedule)
        st = dr_fill_keep(f, &f->rows[F_SCHEDULE], as, &schedule, sizeof schedule);
    return st;
}

static dr_status keep_schedule(dr_fill *f, const char *as, dr_schedule_id schedule)
{
    /* "automatic" says nothing, so nothing can contradict it. */
    return schedule ? dr_fill_keep(f, &f->rows[F_SCHEDULE], as, &schedule, sizeof schedule)
                    : DR_OK;
}

dr_status dr_set_sampler(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    char known[DR_NAMES_BYTES];
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    const char *text;
    dr_status st = dr_to_text(f, r, v, &text);
    if (st)
        return st;
    if (!dr_sampler_parse(text, &sampler, &schedule))
        return unknown_name(f, r->name, v, dr_sampler_list(known));
    return keep_sampler(f, as, sampler, schedule);
}

dr_status dr_set_schedule(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    char known[DR_NAMES_BYTES];
    dr_schedule_id schedule;
    const char *text;
    dr_status st = dr_to_text(f, r, v, &text);
    if (st)
        return st;
    if (!dr_schedule_parse(text, &schedule))
        return unknown_name(f, r->name, v, dr_schedule_list(known));
    return keep_schedule(f, as, schedule);
}

/* A sampler to diffusers' users, a schedule to A1111's and ComfyUI's: the value tells. */
dr_status dr_set_scheduler(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    char samplers[DR_NAMES_BYTES], schedules[DR_NAMES_BYTES];
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    const char *text;
    dr_status st = dr_to_text(f, r, v, &text);
    if (st)
        return st;
    if (dr_sampler_parse(text, &sampler, &schedule))
        return keep_sampler(f, as, sampler, schedule);
    if (dr_schedule_parse(text, &schedule))
        return keep_schedule(f, as, schedule);
    return dr_fail_field(f->err, DR_EINVAL, r->name,
                         "unknown scheduler %s; known samplers: %s; known schedules: %s",
                         dr_value_show(v).text, dr_sampler_list(samplers),
                         dr_schedule_list(schedules));
}

dr_status dr_set_karras(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    bool b;
    if (!dr_value_bool(v, &b))
        return dr_bad(f, r, " %s: must be true or false", dr_value_show(v).text);
    return keep_schedule(f, as, b ? DR_SCHEDULE_KARRAS : DR_SCHEDULE_NORMAL);
}

/* A1111 counts 1, 2, … from the last layer, ComfyUI -1, -2, …; 0 is the model's own. */
dr_status dr_set_clip_skip(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (!dr_value_int(v, &i) || i < r->min || i > r->max)
        return dr_bad(f, r, " %s: must be a whole number in 1..%lld or -1..%lld",
                      dr_value_show(v).text, (long long)r->max, (long long)r->min);
    i = i ? llabs(i) - 1 : 0;
    return dr_fill_keep(f, r, as, &i, sizeof i);
}

/* --- Explicit levels ----------------------------------------------------------------- */

/* The list, from a plain field also as "14.6, 7, 0". */
static dr_status read_list(dr_fill *f, const dr_row *r, const dr_value **v)
{
    dr_value bare = **v;
    const dr_value *list = &bare;
    dr_status st = dr_unfold_items(f, r, v);
    if (!st && (*v)->kind == DR_VALUE_STR && (*v)->plain) {
        bare.as.s.p = dr_arena_printf(f->mem, "[%s]", bare.as.s.p);
        if (!bare.as.s.p)
            return dr_fill_nomem(f);
        bare.as.s.n = strlen(bare.as.s.p);
        if (!(st = dr_unfold_items(f, r, &list)))
            *v = list;
    }
    if (!st && (*v)->kind != DR_VALUE_ARRAY)
        st = dr_bad(f, r, " %s: must be a list of numbers", dr_value_show(*v).text);
    return st;
}

dr_status dr_set_levels(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    const double **to = (const double **)((char *)f->base + r->offset);
    int64_t *count = to == &f->job->sigmas ? &f->job->n_sigmas : &f->job->n_timesteps;
    dr_status st = read_list(f, r, &v);
    if (st || !v->as.items.n)
        return st;
    if (v->as.items.n > DR_STEPS_MAX)
        return dr_bad(f, r, " of %d numbers: must be at most %d", v->as.items.n,
                      DR_STEPS_MAX);
    size_t n = 0, bytes = (size_t)v->as.items.n * sizeof(double);
    double *list = dr_arena_alloc(f->mem, bytes);
    if (!list)
        return dr_fill_nomem(f);
    for (const dr_value *i = v->as.items.first; i; i = i->next, n++) {
        if (!dr_value_float(i, &list[n]) || list[n] < (double)r->min ||
            list[n] > (double)r->max)
            return dr_bad(f, r, ": number %zu is %s: must be a number in %lld..%lld", n + 1,
                          dr_value_show(i).text, (long long)r->min, (long long)r->max);
        if (n && list[n] >= list[n - 1])
            return dr_bad(f, r,
                          ": number %zu (%.15g) is not below the one before it; they "
                          "must fall",
                          n + 1, list[n]);
    }
    st = dr_note_given(f, r, as, *count == (int64_t)n && !memcmp(*to, list, bytes));
    if (!st) {
        *to = list;
        *count = (int64_t)n;
    }
    return st;
}
