#include "worker/http.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What strangers may cost: memory is CONNECTIONS * CONNECTION_BYTES at most, and a
 * connection ends with its answer, so that idle ones do not shut out the probes. */
#define CONNECTIONS      32
#define CONNECTION_BYTES ((size_t)16 << 10) /* of it at most the request's head */
#define IDLE_S           5
#define HOST_MAX         256

struct dr_http {
    struct MHD_Daemon *daemon;
    const dr_http_route *routes;
    void *ctx;
    char address[HOST_MAX + 16];
};

/* --- the address --- */

typedef struct {
    char host[HOST_MAX]; /* "": all interfaces */
    char port[6];
} place;

static dr_status split(place *out, const char *listen, dr_err *err)
{
    const char *colon = strrchr(listen, ':'), *host = listen;
    size_t host_n = colon ? (size_t)(colon - listen) : 0;
    size_t port_n = colon ? strspn(colon + 1, "0123456789") : 0;
    bool v6 = *host == '[' && host_n > 2 && host[host_n - 1] == ']';
    if (v6) {
        host++;
        host_n -= 2;
    }
    if (!colon || (!v6 && memchr(host, ':', host_n)) || memchr(host, '[', host_n) ||
        host_n >= sizeof out->host || !port_n || port_n >= sizeof out->port ||
        colon[1 + port_n] || strtol(colon + 1, NULL, 10) > UINT16_MAX)
        return dr_fail_field(err, DR_EINVAL, "metrics.listen",
                             "metrics.listen %s: must be host:port, [v6]:port or :port "
                             "with a port in 0..65535, as 127.0.0.1:9464",
                             listen);
    snprintf(out->host, sizeof out->host, "%.*s", (int)host_n, host);
    snprintf(out->port, sizeof out->port, "%s", colon + 1);
    return DR_OK;
}

/* A listening socket, or -1 with errno. */
static int listen_on(const struct addrinfo *at)
{
    const int on = 1, off = 0;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (!bind(fd, at->ai_addr, at->ai_addrlen) && !listen(fd, CONNECTIONS))
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* All addresses of p in one family. A socket, or -1 with *why: an errno, or 0 and *gai when
 * there is no such address. */
static int listen_in(const place *p, int family, int *why, int *gai)
{
    const struct addrinfo hints = { .ai_family = family,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *all = NULL;
    int fd = -1;
    *gai = getaddrinfo(*p->host ? p->host : NULL, p->port, &hints, &all);
    for (const struct addrinfo *at = all; at && fd < 0; at = at->ai_next)
        if ((fd = listen_on(at)) < 0)
            *why = errno;
    if (all)
        freeaddrinfo(all);
    return fd;
}

/* One that is in use is not passed over for the other family: half of what was asked for
 * would look like success. */
static dr_status open_socket(int *out, const char *listen, dr_err *err)
{
    place p;
    int why = 0, gai = 0;
    dr_status st = split(&p, listen, err);
    if (st)
        return st;
    bool named = *p.host;
    *out = listen_in(&p, named ? AF_INET : AF_INET6, &why, &gai);
    if (*out < 0 && why != EADDRINUSE)
        *out = listen_in(&p, named ? AF_INET6 : AF_INET, &why, &gai);
    if (*out >= 0)
        return DR_OK;
    if (why)
        return dr_fail_field(err, DR_EIO, "metrics.listen",
                             "metrics.listen %s: %s; name an address of this host and a "
                             "port that is free (workers on one host need one each)",
                             listen, strerror(why));
    return dr_fail_field(err, gai == EAI_AGAIN ? DR_EIO : DR_EINVAL, "metrics.listen",
                         "metrics.listen %s: %s; name an address of this host", listen,
                         gai_strerror(gai));
}

static void describe(dr_http *h, int fd)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    char host[HOST_MAX] = "?", port[8] = "?";
    if (!getsockname(fd, (struct sockaddr *)&at, &n))
        getnameinfo((struct sockaddr *)&at, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(h->address, sizeof h->address, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
             port);
}

/* --- answers --- */

/* Takes body over. */
static enum MHD_Result reply(struct MHD_Connection *c, int status, const char *type,
                             dr_buf *body)
{
    struct MHD_Response *r = NULL;
    if (!body->failed)
        r = MHD_create_response_from_buffer_with_free_callback(body->len, body->data,
                                                               dr_free);
    if (!r) {
        dr_buf_free(body);
        return MHD_NO;
    }
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result queued = MHD_queue_response(c, (unsigned)status, r);
    MHD_destroy_response(r);
    return queued;
}

static int no_such_path(const dr_http *h, dr_buf *out)
{
    dr_buf_puts(out, "not found; there are");
    for (const dr_http_route *r = h->routes; r->path; r++)
        dr_buf_printf(out, " %s", r->path);
    dr_buf_puts(out, "\n");
    return MHD_HTTP_NOT_FOUND;
}

/* Called first when the head of a request is there; answering then leaves a body unread. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version,
                                  const char *upload, size_t *upload_n, void **state)
{
    static const char plain[] = "text/plain; charset=utf-8";
    const dr_http *h = ctx;
    const dr_http_route *r = h->routes;
    dr_buf body = { 0 };
    (void)version, (void)upload, (void)upload_n, (void)state;
    if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD)) {
        dr_buf_puts(&body, "method not allowed; use GET or HEAD\n");
        return reply(c, MHD_HTTP_METHOD_NOT_ALLOWED, plain, &body);
    }
    while (r->path && strcmp(r->path, path))
        r++;
    int status = r->path ? r->answer(h->ctx, &body) : no_such_path(h, &body);
    return reply(c, status, r->path ? r->type : plain, &body);
}

/* --- life --- */

/* On failure fd is left alone: whether the library has closed it depends on how far it
 * came. */
static struct MHD_Daemon *start_thread(dr_http *h, int fd)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, on_request, h,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_BYTES, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return daemon;
}

dr_status dr_http_start(dr_http **out, const char *listen, const dr_http_route *routes,
                        void *ctx, dr_err *err)
{
    int fd;
    *out = NULL;
    if (!*listen)
        return DR_OK;
    dr_status st = open_socket(&fd, listen, err);
    if (st)
        return st;
    dr_http *h = dr_alloc(sizeof *h);
    if (!h) {
        close(fd);
        return dr_fail(err, DR_ENOMEM, "out of memory");
    }
    h->routes = routes;
    h->ctx = ctx;
    describe(h, fd);
    if (!(h->daemon = start_thread(h, fd))) {
        dr_free(h);
        return dr_fail(err, DR_ENOMEM, "metrics.listen %s: no thread for it", listen);
    }
    dr_log(DR_INFO, "http.listen", "address=%s", h->address);
    *out = h;
    return DR_OK;
}

void dr_http_stop(dr_http *h)
{
    if (!h)
        return;
    MHD_stop_daemon(h->daemon);
    dr_free(h);
}

const char *dr_http_address(const dr_http *h)
{
    return h->address;
}
