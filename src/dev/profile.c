#include "dev/cl.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>

#define EVENTS_MAX   512 /* events held before their times are booked */
#define LABELS_MAX   64
#define MOMENT_TRIES 3

/* One moment on both clocks. */
typedef struct {
    double host_s;
    cl_ulong device_ns;
} moment;

typedef struct {
    cl_event ev;
    const char *kernel;
    int row;
} launched;

struct dr_profile {
    dr_profile_row rows[LABELS_MAX];
    int n_rows, current;
    launched held[EVENTS_MAX];
    int n_held;
    moment last;   /* before all that is held */
    double last_s; /* when what was booked last ended */
    void (*seen)(void *ctx, const dr_profile_event *e);
    void *ctx;
};

/* A marker's CL_PROFILING_COMMAND_QUEUED is taken while it is enqueued, so the host's clock
 * before and after has it in between; the narrowest of a few counts. Where a driver leaves
 * it 0 (Intel's), the next time it notes stands in, which on an idle queue is microseconds
 * later. */
static cl_int find_moment(dr_dev *d, moment *out)
{
    double narrowest = 0;
    cl_int rc = CL_SUCCESS;
    for (int i = 0; i < MOMENT_TRIES && !rc; i++) {
        cl_event ev;
        cl_ulong queued = 0;
        double before = dr_now_s();
        if ((rc = clEnqueueMarkerWithWaitList(d->queue, 0, NULL, &ev)))
            break;
        double width = dr_now_s() - before;
        if (!(rc = clWaitForEvents(1, &ev)))
            rc = clGetEventProfilingInfo(ev, CL_PROFILING_COMMAND_QUEUED, sizeof queued,
                                         &queued, NULL);
        if (!rc && !queued)
            rc = clGetEventProfilingInfo(ev, CL_PROFILING_COMMAND_SUBMIT, sizeof queued,
                                         &queued, NULL);
        clReleaseEvent(ev);
        if (!rc && (i == 0 || width < narrowest)) {
            narrowest = width;
            *out = (moment){ before + width / 2, queued };
        }
    }
    return rc;
}

/* A queue in order knows no two at once: what overlaps is the clocks' inaccuracy. */
static void book(dr_profile *p, int row, const char *kernel, double seconds, double from_s,
                 double to_s)
{
    from_s = from_s < p->last_s ? p->last_s : from_s;
    p->last_s = to_s < from_s ? from_s : to_s;
    p->rows[row].seconds += seconds;
    p->rows[row].calls++;
    if (p->seen)
        p->seen(p->ctx,
                &(dr_profile_event){ kernel, p->rows[row].label, from_s, p->last_s });
}

/* Book all that is held. It lies between two moments that both clocks know, and so are its
 * times brought from one to the other, whatever the rate at which the clocks drift apart.
 */
static void settle(dr_dev *d)
{
    dr_profile *p = d->profile;
    moment from = p->last;
    if (!p->n_held)
        return;
    clFinish(d->queue);
    double scale = 1e-9;
    if (!find_moment(d, &p->last) && p->last.device_ns > from.device_ns)
        scale =
            (p->last.host_s - from.host_s) / (double)(p->last.device_ns - from.device_ns);
    for (int i = 0; i < p->n_held; i++) {
        const launched *l = &p->held[i];
        cl_ulong start = 0, end = 0;
        clGetEventProfilingInfo(l->ev, CL_PROFILING_COMMAND_START, sizeof start, &start,
                                NULL);
        clGetEventProfilingInfo(l->ev, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
        clReleaseEvent(l->ev);
        book(p, l->row, l->kernel, (double)(end - start) * 1e-9,
             from.host_s + (double)(int64_t)(start - from.device_ns) * scale,
             from.host_s + (double)(int64_t)(end - from.device_ns) * scale);
    }
    p->n_held = 0;
}

void dr_profile_add(dr_dev *d, const char *kernel, cl_event ev)
{
    dr_profile *p = d->profile;
    if (p->n_held == EVENTS_MAX)
        settle(d);
    p->held[p->n_held++] = (launched){ ev, kernel, p->current };
}

void dr_profile_book(dr_dev *d, const char *kernel, double from_s)
{
    double now = dr_now_s();
    settle(d);
    book(d->profile, d->profile->current, kernel, now - from_s, from_s, now);
}

void dr_profile_work(dr_dev *d, double flops)
{
    if (d->profile)
        d->profile->rows[d->profile->current].flops += flops;
}

dr_status dr_profile_start(dr_dev *d, void (*seen)(void *ctx, const dr_profile_event *e),
                           void *ctx, dr_err *err)
{
    dr_profile_free(d);
    dr_status st = dr_cl_queue(d, true, err);
    if (st)
        return st;
    if (!(d->profile = dr_alloc(sizeof *d->profile)))
        return dr_fail(err, DR_ENOMEM, "out of memory");
    d->profile->seen = seen;
    d->profile->ctx = ctx;
    dr_profile_label(d, "other");
    cl_int rc = find_moment(d, &d->profile->last);
    return rc ? dr_cl_fail(err, rc, "profiling") : DR_OK;
}

void dr_profile_label(dr_dev *d, const char *label)
{
    dr_profile *p = d->profile;
    if (!p)
        return;
    for (p->current = 0; p->current < p->n_rows; p->current++)
        if (p->rows[p->current].label == label)
            return;
    if (p->n_rows < LABELS_MAX)
        p->rows[p->n_rows++].label = label;
    else
        p->current = 0;
}

static int by_time(const void *a, const void *b)
{
    double x = ((const dr_profile_row *)a)->seconds,
           y = ((const dr_profile_row *)b)->seconds;
    return (x < y) - (x > y);
}

dr_status dr_profile_stop(dr_dev *d, const dr_profile_row **rows, int *n, dr_err *err)
{
    dr_profile *p = d->profile;
    if (!p)
        return dr_fail(err, DR_EDEVICE, "profiling was not started");
    settle(d);
    qsort(p->rows, (size_t)p->n_rows, sizeof *p->rows, by_time);
    *rows = p->rows;
    *n = p->n_rows;
    return DR_OK;
}

void dr_profile_free(dr_dev *d)
{
    dr_err ignored; /* then the timed queue stays */
    if (!d->profile)
        return;
    settle(d);
    dr_free(d->profile);
    d->profile = NULL;
    (void)!dr_cl_queue(d, false, &ignored);
}
