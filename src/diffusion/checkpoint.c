#include "diffusion/batch.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A job's unfinished pictures as bytes, from which another worker goes on.
 *
 *   head                    magic, digest of all that decides the pictures, checksum of
 *                           what follows, number of pictures, pass
 *   step[n]                 int64, rows done, never growing from one picture to the next
 *   a record each, if step > 0 or pass > 0: latents; before the last step also the
 * sampler's memory (the tensors that its rows use) and the random generator (where noise is
 * PyTorch's and rows draw it). Philox counts and needs no state.
 *
 * Numbers are this machine's; another byte order shows in the magic. Checkpoints come from
 * a store that others can write to: nothing in them is believed before it was checked. */

#define MAGIC 0x333074706b637264u /* "drckpt03" where the lowest byte comes first */

typedef struct {
    uint64_t magic;
    char digest[32];
    uint64_t checksum;
    int64_t n, pass;
} head;

typedef struct {
    uint32_t state[624];
    int32_t next, has_spare;
    double spare;
} rng_record;

static size_t latent_bytes(const dr_batch *b)
{
    return (size_t)(b->h * b->w * b->c) * sizeof(float);
}

static int hist_of(const dr_batch *b, int64_t step)
{
    return step < b->steps ? b->m->steps.n_hist : 0;
}

/* Whether it draws again: in this pass, or when the next one begins. */
static bool has_rng(const dr_batch *b, const dr_batch_job *j, int64_t step)
{
    bool draws = !b->last || step == 0 || (b->m->steps.uses_noise && step < b->steps);
    return draws && j->t->job->noise == DR_NOISE_TORCH;
}

/* Bytes of a picture's record at a step; at step 0 of a second pass it holds what the first
 * one made. */
static size_t record_bytes(const dr_batch *b, const dr_batch_job *j, int64_t step)
{
    size_t rng = has_rng(b, j, step) ? sizeof(rng_record) : 0;
    if (step == 0)
        return b->pass ? b->carry->count * sizeof(float) + rng : 0;
    return latent_bytes(b) * (size_t)(1 + hist_of(b, step)) + rng;
}

size_t dr_checkpoint_bytes(const dr_batch *b, const dr_batch_job *j)
{
    size_t most = (1 + DR_HIST_MAX) * latent_bytes(b) + sizeof(rng_record);
    return sizeof(head) + (size_t)j->t->plan.n * (sizeof(int64_t) + most);
}

static void add_picture(dr_hash *h, const dr_picture_ref *p)
{
    const uint64_t n = p->n;
    dr_hash_add(h, &n, sizeof n);
    dr_hash_add(h, p->bytes, p->n);
}

/* Of all that decides the pictures; false when memory is out. */
static bool digest_of(char out[32], const dr_batch *b, const dr_batch_job *j)
{
    const dr_job *job = j->t->job;
    const dr_plan *p = &j->t->plan;
    const dr_schedule_config *c = &b->m->schedule;
    const int64_t whole[] = {
        job->task,
        job->noise,
        job->clip_skip,
        job->tiling,
        p->width,
        p->height,
        p->steps,
        p->n,
        (int64_t)p->seed,
        job->subseed_strength > 0 ? (int64_t)p->subseed : 0,
        p->sampler,
        p->schedule,
        c->prediction,
        c->spacing,
        c->final_sigma,
        c->set_alpha_to_one,
        c->lower_order_final,
        c->euler_at_final,
        c->train_steps,
        c->steps_offset,
        c->solver_order,
        c->solver_type,
        c->large_variance,
        c->pndm_alpha_to_one,
        c->original_steps,
        p->guides,
        p->pass[0].guided_from,
        p->pass[0].guided_end,
        p->pass[0].first,
        p->pass[1].steps, /* 0: there is none */
        p->pass[1].first,
        p->passes > 1 ? job->hires.upscaler : 0,
        job->init.fit,
        job->init.mean,
        job->mask.invert,
        job->mask.only_masked,
        job->mask.padding,
        job->n_sigmas,
    };
    const double real[] = { p->cfg_scale,     p->eta,         job->subseed_strength,
                            job->cfg_rescale, job->mask.blur, c->timestep_scaling };
    dr_hash *h = dr_hash_new();
    if (!h)
        return false;
    dr_hash_str(h, b->m->name);
    for (int i = 0; i < DR_PARTS; i++)
        dr_hash_str(h, b->m->digest[i].hex);
    dr_hash_str(h, job->prompt);
    dr_hash_str(h, job->negative_prompt);
    for (int g = 0; g < b->guides; g++)
        for (int i = 0; i < j->prompt[g].over.n; i++) /* embeddings may have changed */
            for (int k = 0; k < j->prompt[g].text[i].chunks; k++)
                dr_hash_str(h, j->prompt[g].text[i].keys[k].hex);
    dr_hash_add(h, whole, sizeof whole);
    dr_hash_add(h, real, sizeof real);
    for (int i = 0; i < job->n_loras; i++) {
        dr_hash_str(h, job->loras[i].name);
        dr_hash_add(h, &job->loras[i].strength, sizeof job->loras[i].strength);
        dr_hash_add(h, &job->loras[i].text_strength, sizeof job->loras[i].text_strength);
    }
    for (int i = 0; i < b->n_controls; i++)
        dr_control_hash(h, &b->control[i]);
    add_picture(h, &job->init.image);
    add_picture(h, &job->mask.image);
    dr_hash_add(h, job->sigmas, (size_t)job->n_sigmas * sizeof *job->sigmas);
    dr_hash_add(h, job->timesteps, (size_t)job->n_timesteps * sizeof *job->timesteps);
    dr_digest d = dr_hash_end(h);
    memcpy(out, d.hex, 32);
    return true;
}

/* --- writing --- */

static char *put(char *at, const void *p, size_t n)
{
    memcpy(at, p, n);
    return at + n;
}

static int row_of(const dr_batch *b, const dr_batch_image *p)
{
    for (int i = 0; i < b->n_rows; i++)
        if (b->row[i] == p)
            return i;
    return -1;
}

static char *put_rng(char *at, const dr_torch_rng *r)
{
    rng_record v = { .next = r->next, .has_spare = r->has_spare, .spare = r->spare };
    memcpy(v.state, r->state, sizeof v.state);
    return put(at, &v, sizeof v);
}

/* The record of a picture that is on the device. */
static char *put_row(char *at, dr_batch *b, const dr_batch_image *p, int row)
{
    float *host = b->m->host;
    dr_download(b->r, dr_slice(b->x, row, 1), host);
    at = put(at, host, latent_bytes(b));
    for (int k = 0; k < hist_of(b, p->step); k++) {
        dr_download(b->r, dr_slice(b->hist[k], row, 1), host);
        at = put(at, host, latent_bytes(b));
    }
    return has_rng(b, p->job, p->step) ? put_rng(at, &p->rng) : at;
}

/* One whose last step is done. */
static char *put_kept(char *at, const dr_batch *b, const dr_batch_image *p)
{
    at = put(at, p->kept, latent_bytes(b));
    return has_rng(b, p->job, p->step) ? put_rng(at, &p->rng) : at;
}

/* One that the second pass has not begun. */
static char *put_carry(char *at, const dr_batch *b, const dr_batch_image *p)
{
    const dr_carry *c = b->carry;
    at = put(at, dr_carry_at(c, p->index), c->count * sizeof(float));
    return has_rng(b, p->job, 0) ? put_rng(at, &c->rng[p->index]) : at;
}

void dr_checkpoint_save(dr_batch *b, dr_batch_job *j)
{
    int64_t n = j->t->plan.n;
    head v = { .magic = MAGIC, .n = n, .pass = b->pass };
    if (!b->note || !j->obs->checkpoint || (!b->pass && j->image[0].step == 0) ||
        !digest_of(v.digest, b, j))
        return;
    char *body = b->note + sizeof v, *at = body;
    for (int64_t i = 0; i < n; i++)
        at = put(at, &j->image[i].step, sizeof j->image[i].step);
    for (int64_t i = 0; i < n; i++) {
        const dr_batch_image *p = &j->image[i];
        int row = j->in_group ? row_of(b, p) : -1;
        if (p->is_kept)
            at = put_kept(at, b, p);
        else if (p->step == 0 && b->pass)
            at = put_carry(at, b, p);
        else if (row >= 0 && p->step > 0)
            at = put_row(at, b, p, row);
        else if (p->step > 0)
            at = put(at, p->saved, record_bytes(b, j, p->step));
    }
    v.checksum = dr_hash64(body, (size_t)(at - body));
    put(b->note, &v, sizeof v);
    if (!b->r->err.code)
        j->obs->checkpoint(j->obs->ctx, b->note, (size_t)(at - b->note));
}

/* --- reading --- */

static bool all_finite(const char *p, size_t bytes)
{
    float v;
    for (size_t i = 0; i < bytes; i += sizeof v) {
        memcpy(&v, p + i, sizeof v);
        if (!isfinite(v))
            return false;
    }
    return true;
}

static bool good_rng(const char *p)
{
    rng_record v;
    memcpy(&v, p, sizeof v);
    return v.next >= 0 && v.next <= (int32_t)DR_COUNT(v.state) &&
           (v.has_spare == 0 || v.has_spare == 1) && isfinite(v.spare);
}

/* What is wrong with a checkpoint; NULL: nothing, and the pictures know their records. */
static const char *read_checkpoint(const dr_batch *b, dr_batch_job *j)
{
    size_t left = j->t->resume_bytes, n = (size_t)j->t->plan.n;
    const char *at = j->t->resume;
    char digest[32];
    head v;
    int64_t before = b->steps;
    if (left < sizeof v + n * sizeof before)
        return "it is too short";
    memcpy(&v, at, sizeof v);
    at += sizeof v;
    left -= sizeof v;
    if (v.magic != MAGIC)
        return "it is of another format";
    if (!digest_of(digest, b, j) || memcmp(v.digest, digest, sizeof digest) != 0 ||
        v.n != j->t->plan.n || v.pass != b->pass)
        return "it is of another job or model";
    if (v.checksum != dr_hash64(at, left))
        return "it is damaged";
    const char *record = at + n * sizeof before;
    left -= n * sizeof before;
    for (size_t i = 0; i < n; i++) {
        int64_t step;
        memcpy(&step, at + i * sizeof step, sizeof step);
        size_t bytes = record_bytes(b, j, step);
        if (step < 0 || step > before || bytes > left)
            return "its steps are wrong";
        size_t floats = bytes - (bytes && has_rng(b, j, step) ? sizeof(rng_record) : 0);
        if (!all_finite(record, floats) || (floats < bytes && !good_rng(record + floats)))
            return "its numbers are wrong";
        j->image[i].step = before = step;
        j->image[i].saved = bytes ? record : NULL;
        record += bytes;
        left -= bytes;
    }
    return left ? "it is too long" : NULL;
}

static const char *get_rng(dr_torch_rng *r, const char *at)
{
    rng_record v;
    memcpy(&v, at, sizeof v);
    memcpy(r->state, v.state, sizeof v.state);
    r->next = v.next;
    r->has_spare = v.has_spare;
    r->spare = v.spare;
    return at + sizeof v;
}

/* What a second pass begins with; pictures that have begun it need none. */
static void get_carry(dr_batch *b, dr_batch_job *j)
{
    dr_carry *c = b->carry;
    for (int64_t i = 0; i < j->t->plan.n && b->pass; i++) {
        const dr_batch_image *p = &j->image[i];
        size_t bytes = c->count * sizeof(float);
        if (p->step > 0 || !p->saved)
            continue;
        memcpy(dr_carry_at(c, i), p->saved, bytes);
        if (has_rng(b, j, 0))
            get_rng(&c->rng[i], p->saved + bytes);
    }
}

int dr_checkpoint_pass(const dr_batch_task *t)
{
    head v = { 0 };
    if (t->resume && t->resume_bytes >= sizeof v)
        memcpy(&v, t->resume, sizeof v);
    return v.magic == MAGIC && v.pass > 0 && v.pass < t->plan.passes ? (int)v.pass : 0;
}

bool dr_checkpoint_find(dr_batch *b, dr_batch_job *j)
{
    char text[128];
    const char *why = j->t->resume ? read_checkpoint(b, j) : NULL;
    bool resumed = j->t->resume && !why;
    j->encoded |= resumed; /* and its prompt's length was told before */
    if (resumed)
        get_carry(b, j);
    j->t->resume = NULL; /* its records are known, and of this pass only */
    if (!why)
        return true;
    for (int64_t i = 0; i < j->t->plan.n; i++) {
        j->image[i].step = 0;
        j->image[i].saved = NULL;
    }
    snprintf(text, sizeof text, "the checkpoint does not fit (%s); begun anew", why);
    if (j->obs->warning)
        j->obs->warning(j->obs->ctx, text);
    return !b->pass;
}

void dr_checkpoint_load(dr_batch *b, int i)
{
    dr_batch_image *p = b->row[i];
    const char *at = p->saved;
    float *host = b->m->host;
    if (b->r->dry)
        return;
    memcpy(host, at, latent_bytes(b));
    dr_upload(b->r, dr_slice(b->x, i, 1), host);
    at += latent_bytes(b);
    for (int k = 0; k < hist_of(b, p->step); k++) {
        memcpy(host, at, latent_bytes(b));
        dr_upload(b->r, dr_slice(b->hist[k], i, 1), host);
        at += latent_bytes(b);
    }
    if (has_rng(b, p->job, p->step))
        get_rng(&p->rng, at);
}
