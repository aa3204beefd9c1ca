#include "queue/url.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_PORT    6379
#define SENTINEL_PORT 26379
#define DB_MAX        (1 << 20)

typedef struct scheme {
    const char *prefix, *form;
    bool tls, sentinel;
    dr_status (*parse)(dr_url *u, const struct scheme *s, const char *rest, dr_err *err);
} scheme;

static dr_status parse_path(dr_url *u, const scheme *s, const char *rest, dr_err *err);
static dr_status parse_hosts(dr_url *u, const scheme *s, const char *rest, dr_err *err);

#define CREDENTIALS "[user[:password]@]"
#define SENTINELS   "host[:port][,host[:port]]/master[/db]"
static const scheme schemes[] = {
    { "redis://", CREDENTIALS "host[:port][/db]", false, false, parse_hosts },
    { "rediss://", CREDENTIALS "host[:port][/db]", true, false, parse_hosts },
    { "unix://", "/path/to/socket", false, false, parse_path },
    { "redis+sentinel://", CREDENTIALS SENTINELS, false, true, parse_hosts },
    { "rediss+sentinel://", CREDENTIALS SENTINELS, true, true, parse_hosts },
};

/* --- errors --- */

static dr_status bad(const scheme *s, dr_err *err, const char *fmt, ...) DR_PRINTF(3, 4);

/* What is wrong, then how this kind of address is written. */
static dr_status bad(const scheme *s, dr_err *err, const char *fmt, ...)
{
    char what[DR_URL_PART + 128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return dr_fail_field(err, DR_EINVAL, "redis.url", "redis.url: %s; write %s%s", what,
                         s->prefix, s->form);
}

/* --- parts --- */

/* Copy n bytes of a part into out, decoding %41. */
static dr_status take_part(const scheme *s, const char *name, char out[DR_URL_PART],
                           const char *p, size_t n, dr_err *err)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == '%') {
            if (i + 2 >= n || !isxdigit((unsigned char)p[i + 1]) ||
                !isxdigit((unsigned char)p[i + 2]))
                return bad(
                    s, err,
                    "%s: behind %% must be two hexadecimal digits (%%25 for %% itself)",
                    name);
            c = (char)strtoul((char[]){ p[i + 1], p[i + 2], 0 }, NULL, 16);
            i += 2;
        }
        if (!c)
            return bad(s, err, "%s: must not contain %%00", name);
        if (len + 1 >= DR_URL_PART)
            return bad(s, err, "%s: must be at most %d bytes long", name, DR_URL_PART - 1);
        out[len++] = c;
    }
    out[len] = 0;
    return DR_OK;
}

static bool read_number(int *out, const char *p, size_t n, int min, int max)
{
    int v = 0;
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9' || (v = v * 10 + (p[i] - '0')) > max)
            return false;
    *out = v;
    return n > 0 && v >= min;
}

static dr_status take_credentials(dr_url *u, const scheme *s, const char *p, size_t n,
                                  dr_err *err)
{
    const char *colon = memchr(p, ':', n);
    size_t name = colon ? (size_t)(colon - p) : n;
    dr_status st = take_part(s, "user", u->user, p, name, err);
    if (!st && colon)
        st = take_part(s, "password", u->password, colon + 1, n - name - 1, err);
    return st;
}

/* "host", "host:port", "[::1]:port" in n bytes. */
static dr_status take_node(dr_url *u, const scheme *s, const char *p, size_t n, dr_err *err)
{
    if (u->nodes == DR_URL_HOSTS)
        return bad(s, err, "more than %d hosts", DR_URL_HOSTS);
    dr_node *node = &u->node[u->nodes++];
    const char *end = p + n, *bracket = n && *p == '[' ? memchr(p, ']', n) : NULL;
    const char *host = bracket ? p + 1 : p, *behind = bracket ? bracket + 1 : p;
    const char *colon = memrchr(behind, ':', (size_t)(end - behind));
    size_t host_n = (size_t)((bracket ? bracket : colon ? colon : end) - host);
    node->port = s->sentinel ? SENTINEL_PORT : REDIS_PORT;
    if (memchr(host, ':', host_n) && !bracket)
        return bad(s, err, "an IPv6 address belongs in brackets: [%.*s]", (int)n, p);
    dr_status st = take_part(s, "host", node->host, host, host_n, err);
    if (st)
        return st;
    if (!*node->host)
        return bad(s, err, "a host is missing");
    if (node->host[strcspn(node->host, " ?#/[]@")] ||
        (bracket && colon != bracket + 1 && end != bracket + 1))
        return bad(s, err, "\"%s\" is no host", node->host);
    if (colon && !read_number(&node->port, colon + 1, (size_t)(end - colon - 1), 1, 65535))
        return bad(s, err, "port of %s: must be a number in 1..65535", node->host);
    return DR_OK;
}

static dr_status take_db(dr_url *u, const scheme *s, const char *p, dr_err *err)
{
    if (*p && !read_number(&u->db, p, strlen(p), 0, DB_MAX))
        return bad(s, err, "database \"%.64s\": must be a number in 0..%d", p, DB_MAX);
    return DR_OK;
}

/* --- kinds of addresses --- */

static dr_status parse_path(dr_url *u, const scheme *s, const char *rest, dr_err *err)
{
    if (*rest != '/')
        return bad(s, err, "the path of the socket must begin with /");
    u->nodes = 1;
    u->node[0].port = 0;
    return take_part(s, "path", u->node[0].host, rest, strlen(rest), err);
}

static dr_status parse_hosts(dr_url *u, const scheme *s, const char *rest, dr_err *err)
{
    /* The last @ ends the credentials, so that / and @ in a password do no harm. */
    const char *at = strrchr(rest, '@');
    const char *p = at ? at + 1 : rest, *path = p + strcspn(p, "/");
    dr_status st = at ? take_credentials(u, s, rest, (size_t)(at - rest), err) : DR_OK;
    for (size_t n; !st; p += n + 1) {
        n = strcspn(p, ",/");
        st = take_node(u, s, p, n, err);
        if (p + n >= path)
            break;
    }
    if (st)
        return st;
    if (u->nodes > 1 && !s->sentinel)
        return bad(s, err, "%d hosts: only Sentinels may be several", u->nodes);
    path += *path == '/';
    if (s->sentinel) {
        size_t n = strcspn(path, "/");
        if ((st = take_part(s, "master", u->master, path, n, err)))
            return st;
        if (!*u->master)
            return bad(s, err, "the name of the master is missing behind the hosts");
        path += n + (path[n] == '/');
    }
    return take_db(u, s, path, err);
}

dr_status dr_url_parse(dr_url *out, const char *text, dr_err *err)
{
    for (size_t i = 0; i < DR_COUNT(schemes); i++) {
        const scheme *s = &schemes[i];
        size_t n = strlen(s->prefix);
        if (strncmp(text, s->prefix, n))
            continue;
        *out = (dr_url){ .tls = s->tls, .sentinel = s->sentinel };
        return s->parse(out, s, text + n, err);
    }
    /* The text is not shown: a password may be in it. */
    return dr_fail_field(err, DR_EINVAL, "redis.url",
                         "redis.url: must begin with redis://, rediss:// (TLS), unix://, "
                         "redis+sentinel:// or rediss+sentinel://, as in "
                         "redis://127.0.0.1:6379");
}

/* --- showing --- */

/* Append to out, as far as it fits. */
static void add(char out[DR_URL_SHOWN], const char *fmt, ...) DR_PRINTF(2, 3);
static void add(char out[DR_URL_SHOWN], const char *fmt, ...)
{
    size_t n = strlen(out);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out + n, DR_URL_SHOWN - n, fmt, ap);
    va_end(ap);
}

static void add_node(char out[DR_URL_SHOWN], const dr_node *node)
{
    bool v6 = strchr(node->host, ':');
    add(out, "%s%s%s:%d", v6 ? "[" : "", node->host, v6 ? "]" : "", node->port);
}

void dr_url_show(char out[DR_URL_SHOWN], const dr_url *url, const dr_node *node)
{
    bool sentinels = !node && url->sentinel;
    node = node ? node : &url->node[0];
    out[0] = 0;
    if (!node->port) {
        add(out, "unix://%s", node->host);
        return;
    }
    add(out, "redis%s%s://", url->tls ? "s" : "", sentinels ? "+sentinel" : "");
    add_node(out, node);
    for (int i = 1; sentinels && i < url->nodes; i++) {
        add(out, ",");
        add_node(out, &url->node[i]);
    }
    if (sentinels)
        add(out, "/%s", url->master);
    add(out, "/%d", url->db);
}

/* --- redirections --- */

bool dr_url_redirect(dr_node *to, bool *ask, const char *said, const dr_node *from)
{
    static const char *const words[] = { "MOVED ", "ASK " };
    size_t which = 0;
    while (which < DR_COUNT(words) && strncmp(said, words[which], strlen(words[which])))
        which++;
    if (which == DR_COUNT(words))
        return false;
    const char *host = strchr(said + strlen(words[which]), ' ');
    const char *colon = host ? strrchr(++host, ':') : NULL;
    size_t n = colon ? (size_t)(colon - host) : 0;
    dr_node node = { 0 };
    if (!colon || n >= sizeof node.host ||
        !read_number(&node.port, colon + 1, strlen(colon + 1), 1, 65535))
        return false;
    snprintf(node.host, sizeof node.host, "%.*s", (int)n, host);
    if (!n || !strcmp(node.host, "?"))
        snprintf(node.host, sizeof node.host, "%s", from->port ? from->host : "127.0.0.1");
    *to = node;
    *ask = which == 1;
    return true;
}
