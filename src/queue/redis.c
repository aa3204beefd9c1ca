#include "queue/redis.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 5000
#define HOST_SIZE      256
#define ENDPOINT_SIZE  320

struct dr_redis {
    redisContext *ctx; /* NULL: not connected */
    bool is_unix;
    char host[HOST_SIZE]; /* or the path of the socket */
    int port, db;
    char user[HOST_SIZE], password[HOST_SIZE];
    char endpoint[ENDPOINT_SIZE];
    int64_t timeout_ms, set_timeout_ms; /* asked for; in force on ctx */
    int64_t backoff_ms;                 /* of the next wait; 0: the first */
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

/* --- the address --- */

/* Copy n bytes of a URL part into out, decoding %41; false when it is too long or bad. */
static bool take_part(char out[HOST_SIZE], const char *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == '%') {
            if (i + 2 >= n || !isxdigit((unsigned char)p[i + 1]) ||
                !isxdigit((unsigned char)p[i + 2]))
                return false;
            c = (char)strtoul((char[]){ p[i + 1], p[i + 2], 0 }, NULL, 16);
            i += 2;
        }
        if (len + 1 >= HOST_SIZE || !c)
            return false;
        out[len++] = c;
    }
    out[len] = 0;
    return true;
}

static bool take_number(int *out, const char *p, size_t n, int max)
{
    long v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || (v = v * 10 + (p[i] - '0')) > max)
            return false;
    }
    *out = (int)v;
    return n > 0;
}

/* "[user[:password]@]host[:port][/db]" */
static bool parse_tcp(dr_redis *r, const char *s)
{
    size_t n = strcspn(s, "/");
    const char *slash = s + n, *at = memrchr(s, '@', n);
    if (at) {
        size_t len = (size_t)(at - s);
        const char *colon = memchr(s, ':', len);
        size_t name = colon ? (size_t)(colon - s) : len;
        if (!take_part(r->user, s, name) ||
            (colon && !take_part(r->password, colon + 1, len - name - 1)))
            return false;
        n -= len + 1;
        s = at + 1;
    }
    const char *end = s + n, *bracket = *s == '[' ? memchr(s, ']', n) : NULL;
    const char *colon =
        memrchr(bracket ? bracket : s, ':', (size_t)(end - (bracket ? bracket : s)));
    const char *host = bracket ? s + 1 : s;
    const char *host_end = bracket ? bracket : colon ? colon : end;
    r->port = 6379;
    if (!take_part(r->host, host, (size_t)(host_end - host)) || !*r->host)
        return false;
    if (colon && !take_number(&r->port, colon + 1, (size_t)(end - colon - 1), 65535))
        return false;
    if (slash[0] && slash[1] && !take_number(&r->db, slash + 1, strlen(slash + 1), 1 << 20))
        return false;
    snprintf(r->endpoint, sizeof r->endpoint, "redis://%s:%d/%d", r->host, r->port, r->db);
    return true;
}

static bool parse_unix(dr_redis *r, const char *path)
{
    r->is_unix = true;
    if (*path != '/' || strlen(path) >= HOST_SIZE)
        return false;
    snprintf(r->host, sizeof r->host, "%s", path);
    snprintf(r->endpoint, sizeof r->endpoint, "unix://%s", r->host);
    return true;
}

dr_status dr_redis_new(dr_redis **out, const char *url, int64_t timeout_ms, dr_err *err)
{
    static const char tcp[] = "redis://", sock[] = "unix://";
    dr_redis *r = dr_alloc(sizeof *r);
    if (!r)
        return dr_fail(err, DR_ENOMEM, "out of memory");
    r->timeout_ms = timeout_ms;
    bool ok = false;
    if (!strncmp(url, tcp, sizeof tcp - 1))
        ok = parse_tcp(r, url + sizeof tcp - 1);
    else if (!strncmp(url, sock, sizeof sock - 1))
        ok = parse_unix(r, url + sizeof sock - 1);
    if (!ok) {
        dr_redis_free(r);
        return dr_fail_field(
            err, DR_EINVAL, "redis.url",
            "redis.url: must be redis://[user[:password]@]host[:port][/db] "
            "or unix:///path/to/socket (at most %d bytes a part; special "
            "characters as %%40)",
            HOST_SIZE - 1);
    }
    *out = r;
    return DR_OK;
}

void dr_redis_free(dr_redis *r)
{
    if (r)
        dr_redis_disconnect(r);
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

/* --- the connection --- */

void dr_redis_disconnect(dr_redis *r)
{
    if (r->ctx)
        redisFree(r->ctx);
    r->ctx = NULL;
}

/* Close and report what hiredis says; errno is looked at because hiredis calls a timeout
 * "Resource temporarily unavailable". */
static dr_status broken(dr_redis *r, int64_t waited_ms, dr_err *err)
{
    bool late = r->ctx && r->ctx->err == REDIS_ERR_IO && errno == EAGAIN;
    dr_status st;
    if (late)
        st = dr_fail(err, DR_EIO, "redis %s: no reply within %lld ms", r->endpoint,
                     (long long)waited_ms);
    else
        st = dr_fail(err, DR_EIO, "redis %s: %s", r->endpoint,
                     r->ctx ? r->ctx->errstr : "out of memory");
    dr_redis_disconnect(r);
    return st;
}

static struct timeval to_timeval(int64_t ms)
{
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

static dr_status set_timeout(dr_redis *r, int64_t ms, dr_err *err)
{
    if (r->set_timeout_ms == ms)
        return DR_OK;
    if (redisSetTimeout(r->ctx, to_timeval(ms)) != REDIS_OK)
        return broken(r, ms, err);
    r->set_timeout_ms = ms;
    return DR_OK;
}

/* Redis cannot serve now but will: treated like a lost connection. */
static bool is_passing(const dr_err *err)
{
    static const char *const codes[] = { "LOADING",     "MASTERDOWN", "READONLY",
                                         "CLUSTERDOWN", "TRYAGAIN",   "BUSY",
                                         "UNBLOCKED",   "NOREPLICAS" };
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

/* Send and receive on an open connection. */
static dr_status exchange(dr_redis *r, const dr_cmd *cmd, int64_t block_ms, dr_reply **out,
                          dr_err *err)
{
    int64_t wait_ms = r->timeout_ms + block_ms;
    dr_status st = set_timeout(r, wait_ms, err);
    if (st)
        return st;
    /* hiredis 0.14 takes the pointers without const. */
    redisReply *reply =
        redisCommandArgv(r->ctx, cmd->n, (const char **)(uintptr_t)cmd->arg, cmd->size);
    if (!reply)
        return broken(r, wait_ms, err);
    st = check_reply(r, reply, err);
    if (st || !out)
        freeReplyObject(reply);
    else
        *out = (dr_reply *)reply;
    return st;
}

static dr_status greet(dr_redis *r, dr_err *err)
{
    dr_cmd auth = { 0 }, select = { 0 };
    dr_status st = DR_OK;
    if (*r->password) {
        dr_cmd_str(&auth, "AUTH");
        if (*r->user)
            dr_cmd_str(&auth, r->user);
        dr_cmd_str(&auth, r->password);
        st = exchange(r, &auth, 0, NULL, err);
    }
    if (!st && r->db) {
        dr_cmd_str(&select, "SELECT");
        dr_cmd_int(&select, r->db);
        st = exchange(r, &select, 0, NULL, err);
    }
    return st;
}

dr_status dr_redis_connect(dr_redis *r, dr_err *err)
{
    struct timeval t = to_timeval(r->timeout_ms);
    dr_status st;
    if (r->ctx)
        return DR_OK;
    r->ctx = r->is_unix ? redisConnectUnixWithTimeout(r->host, t)
                        : redisConnectWithTimeout(r->host, r->port, t);
    if (!r->ctx || r->ctx->err)
        return broken(r, r->timeout_ms, err);
    r->set_timeout_ms = 0;
    if (!(st = greet(r, err))) {
        r->connections++;
        return DR_OK;
    }
    dr_redis_disconnect(r);
    if (st != DR_EREDIS)
        return st;
    /* A refused password or database: trying again cannot help. */
    if (err)
        err->code = DR_EINVAL;
    return DR_EINVAL;
}

dr_status dr_redis_call(dr_redis *r, const dr_cmd *cmd, int64_t block_ms, dr_reply **out,
                        dr_err *err)
{
    dr_status st = dr_redis_connect(r, err);
    if (!st)
        st = exchange(r, cmd, block_ms, out, err);
    if (st != DR_EIO)
        r->backoff_ms = 0;
    return st;
}

dr_status dr_redis_receive(dr_redis *r, int64_t wait_ms, dr_reply **out, dr_err *err)
{
    void *reply = NULL;
    double end_s = dr_now_s() + (double)wait_ms / 1000;
    *out = NULL;
    if (!r->ctx)
        return dr_fail(err, DR_EIO, "redis %s: not connected", r->endpoint);
    for (;;) {
        if (redisGetReplyFromReader(r->ctx, &reply) != REDIS_OK)
            return broken(r, wait_ms, err);
        if (reply)
            break;
        double left_s = end_s - dr_now_s();
        struct pollfd fd = { .fd = r->ctx->fd, .events = POLLIN };
        int ready = left_s > 0 ? poll(&fd, 1, (int)(left_s * 1000) + 1) : 0;
        if (ready == 0 || (ready < 0 && errno == EINTR))
            return DR_OK;
        if (redisBufferRead(r->ctx) != REDIS_OK)
            return broken(r, wait_ms, err);
    }
    r->backoff_ms = 0;
    dr_status st = check_reply(r, reply, err);
    if (st)
        freeReplyObject(reply);
    else
        *out = reply;
    return st;
}

int64_t dr_redis_backoff_ms(dr_redis *r)
{
    struct timespec t;
    int64_t ms = r->backoff_ms ? r->backoff_ms : BACKOFF_MIN_MS;
    r->backoff_ms = ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms * 2;
    clock_gettime(CLOCK_MONOTONIC, &t);
    /* Between half and all of it, so that workers do not come back in one crowd. */
    return ms / 2 + (int64_t)(dr_hash64(&t, sizeof t) % (uint64_t)(ms / 2 + 1));
}

bool dr_redis_says(const dr_err *err, const char *code)
{
    static const char head[] = "redis: ";
    size_t n = strlen(code);
    const char *said = err->message + sizeof head - 1;
    return !strncmp(err->message, head, sizeof head - 1) && !strncmp(said, code, n) &&
           (said[n] == ' ' || !said[n]);
}

bool dr_redis_fatal(const dr_err *err)
{
    return err->code == DR_EINVAL || dr_redis_says(err, "NOAUTH") ||
           dr_redis_says(err, "WRONGPASS") || dr_redis_says(err, "NOPERM");
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
