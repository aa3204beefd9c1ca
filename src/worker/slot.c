#include "worker/state.h"

#include "base/mem.h"

#include <stdio.h>

dr_slot *dr_slot_find(dr_worker *w, dr_slot_state state)
{
    for (int i = 0; i < DR_SLOTS; i++)
        if (w->slots[i].state == state)
            return &w->slots[i];
    return NULL;
}

int dr_slot_count(const dr_worker *w, dr_slot_state state)
{
    int n = 0;
    for (int i = 0; i < DR_SLOTS; i++)
        n += w->slots[i].state == state;
    return n;
}

bool dr_slots_empty(const dr_worker *w)
{
    return dr_slot_count(w, DR_SLOT_FREE) == DR_SLOTS;
}

void dr_slot_lease(dr_worker *w, dr_slot *s, const dr_hold *h)
{
    pthread_mutex_lock(&w->lock);
    s->leased = h != NULL;
    s->lease_no++;
    if (h) {
        snprintf(s->lease_id, sizeof s->lease_id, "%s", h->id);
        snprintf(s->lease_entry, sizeof s->lease_entry, "%s", h->entry);
        s->lease_class = h->class;
        s->lease_fence = h->fence;
    }
    pthread_mutex_unlock(&w->lock);
}

void dr_slot_clear(dr_worker *w, dr_slot *s)
{
    dr_slot_lease(w, s, NULL);
    for (int i = 0; i < DR_PICTURES_MAX; i++) {
        dr_free(s->images[i].rgb);
        dr_buf_free(&s->images[i].webp);
        s->images[i] = (dr_slot_image){ 0 };
    }
    dr_buf_free(&s->ending);
    dr_buf_free(&s->checkpoint);
    dr_claim_free(&s->claim);
    dr_reply_free(s->resume);
    dr_inputs_free(s);
    dr_arena_reset(s->mem);
    s->job = NULL;
    s->resume = NULL;
    s->code = NULL;
    s->end = NULL;
    s->start = (dr_start){ 0 };
    s->with_bytes = s->progress_begun = s->passing = s->unwanted = s->kept = false;
    s->seq = 0;
    s->n_images = s->n_compressed = s->refusals = 0;
    s->compress_s = s->progress_at_s = s->finish_at_s = s->load_s = s->deadline_s = 0;
    s->plan = (dr_plan){ 0 };
    s->stats = (dr_run_stats){ 0 };
    s->err = s->webp_err = (dr_err){ 0 };
    s->progress_busy = s->preview_busy = s->lost = s->canceled = s->give_up = false;
    s->step = s->steps = 0;
    s->s_step = 0;
    s->state = DR_SLOT_FREE;
}
