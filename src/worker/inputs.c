#include "worker/state.h"

#include "job/picture.h"

#include <stdio.h>

/* Pictures that a job names by their key: read before it goes to the engine. */

/* A picture of the job, and the job's field that it is. */
typedef struct {
    dr_picture_ref *ref;
    char field[32];
} input;

static int list(dr_job *job, input out[DR_INPUTS_MAX])
{
    out[0] = (input){ &job->init.image, "init_image" };
    out[1] = (input){ &job->mask.image, "mask" };
    for (int i = 0; i < job->n_controls; i++) {
        out[2 + i].ref = &job->controls[i].image;
        snprintf(out[2 + i].field, sizeof out->field, "controls[%d].image", i);
    }
    return 2 + job->n_controls;
}

/* Why the job fails: what is there is its client's fault, but Redis' own errors pass. */
static void refuse(dr_slot *s, const input *in, dr_status st, const dr_err *err)
{
    s->passing = st == DR_EREDIS || st == DR_ENOMEM;
    if (st == DR_ENOTFOUND)
        s->err.code = dr_fail_field(&s->err, st, in->field,
                                    "%s: key %.80s has expired or was never set; store it "
                                    "again, to live longer than its job waits",
                                    in->field, in->ref->key);
    else
        s->err.code =
            dr_fail_field(&s->err, st, in->field, "%s: %s", in->field, err->message);
}

/* Statuses as of dr_queue_input_get. */
static dr_status fetch(dr_worker *w, dr_slot *s, input *in, dr_reply **reply)
{
    dr_err err = { 0 };
    size_t n = 0;
    dr_status st = dr_queue_input_get(w->jobs, in->ref->key, reply, &err);
    dr_io_redis(w, st == DR_EIO || st == DR_EREDIS ? st : DR_OK, &err);
    if (st) {
        if (st != DR_EIO)
            refuse(s, in, st, &err);
        return st;
    }
    const char *p = dr_reply_text(*reply, &n);
    if ((st = dr_picture_check(in->field, p, n, &s->err)))
        return s->err.code = st;
    in->ref->bytes = p;
    in->ref->n = n;
    return DR_OK;
}

bool dr_inputs_fetch(dr_worker *w, dr_slot *s)
{
    input in[DR_INPUTS_MAX];
    int n = list(s->job, in);
    dr_status st = DR_OK;
    for (int i = 0; i < n && !st; i++)
        if (in[i].ref->key && !in[i].ref->n)
            st = fetch(w, s, &in[i], &s->inputs[i]);
    return st != DR_EIO;
}

void dr_inputs_free(dr_slot *s)
{
    for (int i = 0; i < DR_INPUTS_MAX; i++) {
        dr_reply_free(s->inputs[i]);
        s->inputs[i] = NULL;
    }
}
