#include "queue/redis.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "queue/link.h"
#include "queue/sentinel.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 5000
#define REDIRECTS_MAX  5
#define READ_BYTES     16384 /* at once; also what a TLS record holds */

struct dr_redis {
    dr_url url;
    const dr_tls *tls;            /* NULL: plain */
    dr_tls *own_tls;              /* the same when this handle made it */
    char secret[2 * DR_URL_PART]; /* the Sentinels' own */
    int sentinel;                 /* the one to ask first */
    dr_node moved;                /* where a cluster led to; host "": nowhere */
    bool to_moved;                /* connect there, not to url */
    dr_node node;                 /* connected or last tried */
    char endpoint[DR_URL_SHOWN];
    dr_link *link; /* NULL: not connected */
    redisReader *reader;
    bool heard; /* a reply came on this connection */
    int64_t timeout_ms;
    int64_t backoff_ms; /* of the next wait; 0: the first */
    uint64_t connections;
};

/* --- commands --- */

void dr_cmd_bytes(dr_cmd *c, const void *p, size_t n)
{
    assert(c->n < DR_CMD_ARGS);
    c->arg[c->n] = p;
    c->size[c->n++] = n;
}

void dr_cmd_str(dr_cmd *c, const char *s)
{
    dr_cmd_bytes(c, s, strlen(s));
}

void dr_cmd_printf(dr_cmd *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(c->text + c->used, sizeof c->text - c->used, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof c->text - c->used);
    dr_cmd_bytes(c, c->text + c->used, (size_t)n);
    c->used += (size_t)n + 1;
}

void dr_cmd_int(dr_cmd *c, int64_t v)
{
    dr_cmd_printf(c, "%lld", (long long)v);
}

void dr_cmd_put_words(dr_cmd *c, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dr_cmd_str(c, words[i]);
}

/* --- what Redis says --- */

/* Redis' own words in err, NULL when they are not its. */
static const char *words_of(const dr_err *err)
{
    static const char head[] = "redis: ";
    size_t n = sizeof head - 1;
    return strncmp(err->message, head, n) ? NULL : err->message + n;
}

bool dr_redis_refused(const dr_err *err)
{
    return words_of(err) != NULL;
}

bool dr_redis_says(const dr_err *err, const char *code)
{
    size_t n = strlen(code);
    const char *said = words_of(err);
    return said && !strncmp(said, code, n) && (said[n] == ' ' || !said[n]);
}

bool dr_redis_fatal(const dr_err *err)
{
    return err->code == DR_EINVAL || dr_redis_says(err, "NOAUTH") ||
           dr_redis_says(err, "WRONGPASS") || dr_redis_says(err, "NOPERM");
}

/* --- the handle --- */

dr_status dr_redis_new_at(dr_redis **out, const dr_url *url, const dr_tls *tls,
                          int64_t timeout_ms, dr_err *err)
{
    dr_redis *r = dr_alloc(sizeof *r);
    if (!r)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    r->url = *url;
    r->tls = tls;
    r->timeout_ms = timeout_ms;
    dr_url_show(r->endpoint, url, NULL);
    *out = r;
    return DR_OK;
}

dr_status dr_redis_new(dr_redis **out, const dr_conf *conf, dr_err *err)
{
    dr_url url;
    dr_tls *tls = NULL;
    dr_redis *r = NULL;
    dr_status st = dr_url_parse(&url, conf->redis.url, err);
    if (!st && strlen(conf->redis.sentinel_password) >= sizeof r->secret)
        st = dr_fail_field(err, DR_EINVAL, "redis.sentinel_password",
                           "redis.sentinel_password: must be at most %zu bytes long",
                           sizeof r->secret - 1);
    if (!st && url.tls)
        st = dr_tls_new(&tls,
                        &(dr_tls_opts){ .ca = conf->redis.tls_ca,
                                        .cert = conf->redis.tls_cert,
                                        .key = conf->redis.tls_key,
                                        .verify = conf->redis.tls_verify },
                        err);
    if (!st)
        st = dr_redis_new_at(&r, &url, tls, conf->redis.timeout_ms, err);
    if (st) {
        dr_tls_free(tls);
        return st;
    }
    r->own_tls = tls;
    snprintf(r->secret, sizeof r->secret, "%s", conf->redis.sentinel_password);
    *out = r;
    return DR_OK;
}

void dr_redis_free(dr_redis *r)
{
    if (!r)
        return;
    dr_redis_disconnect(r);
    dr_tls_free(r->own_tls);
    dr_free(r);
}

const char *dr_redis_endpoint(const dr_redis *r)
{
    return r->endpoint;
}

uint64_t dr_redis_connections(const dr_redis *r)
{
    return r->connections;
}

void dr_redis_disconnect(dr_redis *r)
{
    dr_link_close(r->link);
    r->link = NULL;
    if (r->reader)
        redisReaderFree(r->reader);
    r->reader = NULL;
}

/* --- one exchange on an open connection --- */

/* What was right once is worth waiting for: certificates are renewed, names come back. */
static dr_status soften(const dr_redis *r, dr_status st, dr_err *err)
{
    if (st == DR_EINVAL && r->connections)
        st = DR_EIO;
    if (err)
        err->code = st;
    return st;
}

/* Close; err, from below, gets to know where it was. */
static dr_status broken(dr_redis *r, dr_status st, dr_err *err)
{
    if (!r->heard && r->link && !r->url.tls && r->node.port)
        dr_err_wrap(err, "no reply yet (a TLS port needs rediss://)");
    dr_err_wrap(err, "redis %s", r->endpoint);
    dr_redis_disconnect(r);
    return soften(r, st, err);
}

/* The next reply. patient: as long as something comes every wait_ms; else at most wait_ms
 * in all or up to a signal. *out = NULL: that time is over. */
static dr_status next_reply(dr_redis *r, int64_t wait_ms, bool patient, redisReply **out,
                            dr_err *err)
{
    char bytes[READ_BYTES];
    void *reply = NULL;
    double end_s = dr_now_s() + (double)wait_ms / 1000;
    *out = NULL;
    for (;;) {
        size_t n = 0;
        if (redisReaderGetReply(r->reader, &reply) != REDIS_OK)
            return dr_fail(err, DR_EIO, "%s", r->reader->errstr);
        if (reply)
            break;
        dr_status st = dr_link_receive(r->link, bytes, sizeof bytes, &n, end_s, err);
        if (st)
            return st;
        if (!n && (!patient || dr_now_s() >= end_s))
            return DR_OK;
        if (n && redisReaderFeed(r->reader, bytes, n) != REDIS_OK)
            return dr_fail(err, DR_EIO, "%s", r->reader->errstr);
        if (n && patient)
            end_s = dr_now_s() + (double)wait_ms / 1000;
    }
    r->heard = true;
    *out = reply;
    return DR_OK;
}

/* Redis cannot serve now but will: treated like a lost connection. */
static bool is_passing(const dr_err *err)
{
    static const char *const codes[] = {
        "LOADING",     "MASTERDOWN", "READONLY",
        "CLUSTERDOWN", "TRYAGAIN",   "BUSY",
        "UNBLOCKED",   "NOREPLICAS", "ERR max number of clients reached"
    };
    for (size_t i = 0; i < DR_COUNT(codes); i++)
        if (dr_redis_says(err, codes[i]))
            return true;
    return false;
}

static dr_status check_reply(dr_redis *r, const redisReply *reply, dr_err *err)
{
    dr_err said = { 0 };
    if (reply->type != REDIS_REPLY_ERROR)
        return DR_OK;
    dr_fail(&said, DR_EREDIS, "redis: %s", reply->str);
    if (is_passing(&said)) {
        said.code = DR_EIO;
        dr_redis_disconnect(r);
    }
    if (err)
        *err = said;
    return said.code;
}

static dr_status send_command(dr_redis *r, const dr_cmd *cmd, dr_err *err)
{
    char *text = NULL;
    /* hiredis 0.14 takes the pointers without const. */
    long long n = redisFormatCommandArgv(&text, cmd->n, (const char **)(uintptr_t)cmd->arg,
                                         cmd->size);
    if (n < 0)
        return dr_fail(err, DR_EIO, "out of memory");
    dr_status st = dr_link_send(r->link, text, (size_t)n, r->timeout_ms, err);
    redisFreeCommand(text);
    return st;
}

static dr_status exchange(dr_redis *r, const dr_cmd *cmd, int64_t block_ms, dr_reply **out,
                          dr_err *err)
{
    int64_t wait_ms = r->timeout_ms + block_ms;
    redisReply *reply = NULL;
    dr_status st = send_command(r, cmd, err);
    if (!st)
        st = next_reply(r, wait_ms, true, &reply, err);
    if (st)
        return broken(r, st, err);
    if (!reply) {
        r->heard = true; /* it is slow, not of the wrong kind */
        return broken(
            r, dr_fail(err, DR_EIO, "no reply within %lld ms", (long long)wait_ms), err);
    }
    st = check_reply(r, reply, err);
    if (st || !out)
        freeReplyObject(reply);
    else
        *out = (dr_reply *)reply;
    return st;
}

/* --- connecting --- */

/* The node to connect to now. */
static dr_status locate(dr_redis *r, dr_err *err)
{
    if (r->url.sentinel)
        return dr_sentinel_find(&r->node, &r->sentinel, &r->url, r->secret, r->tls,
                                r->timeout_ms, err);
    r->node = r->to_moved ? r->moved : r->url.node[0];
    return DR_OK;
}

/* The Sentinels may name a node that is no master yet or no longer. */
static dr_status check_role(dr_redis *r, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_cmd_str(&c, "ROLE");
    dr_status st = exchange(r, &c, 0, &reply, err);
    const char *role = dr_reply_text(dr_reply_at(reply, 0), NULL);
    if (!st && strcmp(role, "master") != 0)
        st = dr_fail(err, DR_EIO,
                     "redis %s: the Sentinels name this node the master of %s, but it is "
                     "a %s: a failover is under way",
                     r->endpoint, r->url.master, *role ? role : "stranger");
    dr_reply_free(reply);
    return st;
}

static dr_status tell(dr_redis *r, const char *const *words, size_t n, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_cmd_put_words(&c, words, n);
    return exchange(r, &c, 0, NULL, err);
}

static dr_status authenticate(dr_redis *r, dr_err *err)
{
    const char *words[] = { "AUTH", r->url.user, r->url.password };
    if (*r->url.user)
        return tell(r, words, 3, err);
    words[1] = words[2];
    return tell(r, words, 2, err);
}

static dr_status greet(dr_redis *r, dr_err *err)
{
    char db[16];
    dr_status st = DR_OK;
    if (*r->url.user || *r->url.password) {
        st = authenticate(r, err);
    } else if (r->tls) {
        /* TLS 1.3 tells only with the first reply whether our certificate will do; what
         * that reply says is for the first real command to find out. */
        st = tell(r, &(const char *){ "PING" }, 1, err);
        st = st == DR_EREDIS ? DR_OK : st;
    }
    if (!st && r->url.db) {
        snprintf(db, sizeof db, "%d", r->url.db);
        st = tell(r, (const char *[]){ "SELECT", db }, 2, err);
    }
    if (!st && r->url.sentinel)
        st = check_role(r, err);
    return st;
}

static dr_status open_node(dr_redis *r, dr_err *err)
{
    dr_url_show(r->endpoint, &r->url, &r->node);
    r->heard = false;
    r->reader = redisReaderCreate();
    dr_status st = r->reader ? dr_link_open(&r->link, &r->node, r->tls, r->timeout_ms, err)
                             : dr_fail(err, DR_EIO, "out of memory");
    if (st)
        return broken(r, st, err);
    return greet(r, err);
}

dr_status dr_redis_connect(dr_redis *r, dr_err *err)
{
    if (r->link)
        return DR_OK;
    dr_status st = locate(r, err);
    if (!st)
        st = open_node(r, err);
    if (!st) {
        r->connections++;
        return DR_OK;
    }
    dr_redis_disconnect(r);
    r->to_moved = !r->to_moved && *r->moved.host;
    if (st != DR_EREDIS)
        return soften(r, st, err);
    /* A refused password or database: trying again cannot help. */
    if (err)
        err->code = DR_EINVAL;
    return DR_EINVAL;
}

/* --- commands --- */

/* After a refusal: whether it led to another node, where the handle now points. */
static bool follow(dr_redis *r, const dr_err *err, bool *ask)
{
    const char *said = words_of(err);
    if (r->url.sentinel || !said || !dr_url_redirect(&r->moved, ask, said, &r->node))
        return false;
    dr_redis_disconnect(r);
    r->to_moved = true;
    return true;
}

dr_status dr_redis_call(dr_redis *r, const dr_cmd *cmd, int64_t block_ms, dr_reply **out,
                        dr_err *err)
{
    dr_err own = { 0 }, *e = err ? err : &own;
    dr_status st;
    bool ask = false;
    for (int hops = 0;; hops++) {
        st = dr_redis_connect(r, e);
        if (!st && ask)
            st = tell(r, &(const char *){ "ASKING" }, 1, e);
        if (!st)
            st = exchange(r, cmd, block_ms, out, e);
        if (st != DR_EREDIS || !follow(r, e, &ask))
            break;
        if (hops == REDIRECTS_MAX) {
            st = dr_fail(e, DR_EIO, "redis %s: led on after %d redirections", r->endpoint,
                         REDIRECTS_MAX);
            break;
        }
    }
    if (st != DR_EIO)
        r->backoff_ms = 0;
    return st;
}

dr_status dr_redis_receive(dr_redis *r, int64_t wait_ms, dr_reply **out, dr_err *err)
{
    redisReply *reply = NULL;
    *out = NULL;
    if (!r->link)
        return dr_fail(err, DR_EIO, "redis %s: not connected", r->endpoint);
    dr_status st = next_reply(r, wait_ms, false, &reply, err);
    if (st)
        return broken(r, st, err);
    if (!reply)
        return DR_OK;
    r->backoff_ms = 0;
    st = check_reply(r, reply, err);
    if (st)
        freeReplyObject(reply);
    else
        *out = (dr_reply *)reply;
    return st;
}

int64_t dr_redis_backoff_ms(dr_redis *r)
{
    int64_t ms = r->backoff_ms ? r->backoff_ms : BACKOFF_MIN_MS;
    r->backoff_ms = ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms * 2;
    /* Between half and all of it, so that workers do not come back in one crowd. */
    return ms / 2 + dr_jitter(ms / 2 + 1);
}

/* --- replies --- */

static const redisReply *inside(const dr_reply *r)
{
    return (const redisReply *)r;
}

void dr_reply_free(dr_reply *r)
{
    if (r)
        freeReplyObject(r);
}

dr_reply_kind dr_reply_type(const dr_reply *r)
{
    switch (r ? inside(r)->type : REDIS_REPLY_NIL) {
    case REDIS_REPLY_INTEGER:
        return DR_REPLY_INT;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return DR_REPLY_TEXT;
    case REDIS_REPLY_ARRAY:
        return DR_REPLY_ARRAY;
    default:
        return DR_REPLY_NIL;
    }
}

size_t dr_reply_count(const dr_reply *r)
{
    return dr_reply_type(r) == DR_REPLY_ARRAY ? inside(r)->elements : 0;
}

const dr_reply *dr_reply_at(const dr_reply *r, size_t i)
{
    return i < dr_reply_count(r) ? (const dr_reply *)inside(r)->element[i] : NULL;
}

const char *dr_reply_text(const dr_reply *r, size_t *n)
{
    bool text = dr_reply_type(r) == DR_REPLY_TEXT;
    if (n)
        *n = text ? (size_t)inside(r)->len : 0;
    return text ? inside(r)->str : "";
}

int64_t dr_reply_int(const dr_reply *r)
{
    if (dr_reply_type(r) == DR_REPLY_INT)
        return inside(r)->integer;
    return strtoll(dr_reply_text(r, NULL), NULL, 10);
}
