#include "queue/sentinel.h"

#include "base/buf.h"
#include "queue/redis.h"

#include <stdio.h>
#include <string.h>

/* A Sentinel that does not answer must not hold up the others. */
#define ASK_MS_MAX 1000

/* The credentials of the Sentinels: "password" or "user:password". */
static void read_secret(dr_url *at, const char *secret)
{
    const char *colon = strchr(secret, ':');
    size_t n = colon ? (size_t)(colon - secret) : 0;
    snprintf(at->user, sizeof at->user, "%.*s", (int)n, secret);
    snprintf(at->password, sizeof at->password, "%s", colon ? colon + 1 : secret);
}

static dr_status read_master(dr_node *master, const dr_reply *reply, const char *name,
                             dr_err *err)
{
    const char *host = dr_reply_text(dr_reply_at(reply, 0), NULL);
    int64_t port = dr_reply_int(dr_reply_at(reply, 1));
    if (!*host || strlen(host) >= sizeof master->host || port < 1 || port > 65535)
        return dr_fail_field(err, DR_EINVAL, "redis.url",
                             "it knows no master \"%s\"; redis.url must end in the name "
                             "that `sentinel monitor` gives",
                             name);
    snprintf(master->host, sizeof master->host, "%s", host);
    master->port = (int)port;
    return DR_OK;
}

/* Ask one Sentinel; the error names it. */
static dr_status ask(dr_node *master, const dr_url *at, const char *name, const dr_tls *tls,
                     int64_t timeout_ms, dr_err *err)
{
    dr_redis *r = NULL;
    dr_reply *reply = NULL;
    dr_cmd c = { 0 };
    dr_cmd_words(&c, "SENTINEL", "get-master-addr-by-name", name);
    dr_status st = dr_redis_new_at(&r, at, tls, timeout_ms, err);
    if (st)
        return st;
    st = dr_redis_call(r, &c, 0, &reply, err);
    if (!st && (st = read_master(master, reply, name, err))) {
        dr_err_wrap(err, "redis %s", dr_redis_endpoint(r));
    } else if (st == DR_EREDIS || (st == DR_EINVAL && dr_redis_refused(err))) {
        dr_err_wrap(err, "redis %s: check redis.sentinel_password", dr_redis_endpoint(r));
        st = DR_EINVAL;
    }
    dr_reply_free(reply);
    dr_redis_free(r);
    return st;
}

dr_status dr_sentinel_find(dr_node *master, int *first, const dr_url *url,
                           const char *secret, const dr_tls *tls, int64_t timeout_ms,
                           dr_err *err)
{
    dr_buf all = { 0 };
    dr_url at = { .tls = url->tls, .nodes = 1 };
    dr_status st = DR_OK, worst = DR_EINVAL;
    read_secret(&at, secret);
    for (int i = 0; i < url->nodes; i++) {
        dr_err one;
        int which = (*first + i) % url->nodes;
        at.node[0] = url->node[which];
        st = ask(master, &at, url->master, tls,
                 timeout_ms < ASK_MS_MAX ? timeout_ms : ASK_MS_MAX, &one);
        if (!st) {
            *first = which;
            break;
        }
        if (st != DR_EINVAL)
            worst = DR_EIO;
        dr_buf_printf(&all, "%s%s", i ? "; " : "", one.message);
    }
    if (st)
        st = dr_fail_field(err, worst, worst == DR_EINVAL ? "redis.url" : "",
                           "no Sentinel knows where master %s is: %s", url->master,
                           all.failed ? "out of memory" : all.data);
    dr_buf_free(&all);
    return st;
}
