#include "worker/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Two workers of one name would take each other's jobs. A worker that died a moment ago is
 * still listed; so one that is listed is watched for as long as that lasts. */

#define LOOK_S 0.25 /* between two looks */

static bool is_dead_process(const dr_registered *r, const char *host)
{
    return !strcmp(r->host, host) &&
           (r->pid == getpid() || (kill((pid_t)r->pid, 0) && errno == ESRCH));
}

static void refuse(dr_worker *w)
{
    dr_fail_field(&w->failure, DR_EINVAL, "worker.name",
                  "worker.name %s: another worker has this name and is alive; names must "
                  "differ",
                  w->name);
}

void dr_name_settle(dr_worker *w)
{
    dr_err err = { 0 };
    dr_registered r;
    if (dr_now_s() < w->namesake.look_at_s)
        return;
    dr_status st = dr_queue_registered(w->jobs, &r, &err);
    dr_io_redis(w, st, &err);
    w->namesake.look_at_s = dr_now_s() + LOOK_S;
    if (st)
        return;
    if (!r.seen_ms || is_dead_process(&r, w->host)) {
        w->named = true;
        dr_lease_ring(w, NULL);
    } else if (!w->namesake.until_s) {
        w->namesake.until_s = dr_now_s() + 4 * (double)w->conf->lease.renew_ms / 1000;
        w->namesake.seen_ms = r.seen_ms;
        dr_log(DR_WARN, "worker.namesake",
               "worker=%s host=%s pid=%lld: waiting for it to go", w->name, r.host,
               (long long)r.pid);
    } else if (r.seen_ms != w->namesake.seen_ms || dr_now_s() > w->namesake.until_s) {
        refuse(w);
    }
}
