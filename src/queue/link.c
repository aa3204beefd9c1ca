#include "queue/link.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A dead peer of a silent subscriber is noticed after about a minute. */
#define KEEPALIVE_IDLE_S  30
#define KEEPALIVE_EVERY_S 10
#define KEEPALIVE_PROBES  3

struct dr_link {
    int fd;              /* non-blocking; -1: none */
    dr_session *session; /* NULL: plain */
};

static double after_ms(int64_t ms)
{
    return dr_now_s() + (double)ms / 1000;
}

/* --- steps: plain or encrypted, see DR_STEP_… --- */

static ssize_t plain_step(ssize_t ret, ssize_t again)
{
    if (ret > 0)
        return ret;
    if (!ret)
        errno = 0; /* closed */
    return errno == EAGAIN || errno == EINTR ? again : DR_STEP_FAILED;
}

static ssize_t send_step(dr_link *l, const void *p, size_t n)
{
    if (l->session)
        return dr_session_send(l->session, p, n);
    return plain_step(send(l->fd, p, n, MSG_NOSIGNAL), DR_STEP_WRITE);
}

static ssize_t receive_step(dr_link *l, void *p, size_t n)
{
    if (l->session)
        return dr_session_receive(l->session, p, n);
    return plain_step(recv(l->fd, p, n, 0), DR_STEP_READ);
}

/* Right after a step failed: why. */
static dr_status step_error(dr_link *l, dr_err *err)
{
    if (l->session)
        return dr_session_why(l->session, err);
    return dr_fail(err, DR_EIO, "%s", errno ? strerror(errno) : DR_STEP_CLOSED_TEXT);
}

/* Wait until the socket is ready for what step wants; false: end_s passed or a signal. */
static bool wait_ready(int fd, ssize_t step, double end_s)
{
    struct pollfd p = { .fd = fd, .events = step == DR_STEP_READ ? POLLIN : POLLOUT };
    double left_s = end_s - dr_now_s();
    return left_s > 0 && poll(&p, 1, (int)(left_s * 1000) + 1) > 0;
}

/* --- connecting --- */

/* connect() that gives up at end_s; 0 or an errno. */
static int connect_fd(int fd, const struct sockaddr *a, socklen_t n, double end_s)
{
    int failure = 0;
    socklen_t size = sizeof failure;
    if (!connect(fd, a, n))
        return 0;
    if (errno != EINPROGRESS && errno != EINTR)
        return errno;
    while (!wait_ready(fd, DR_STEP_WRITE, end_s))
        if (dr_now_s() >= end_s)
            return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) ? errno : failure;
}

/* Open a socket in l; 0 or an errno. */
static int open_socket(dr_link *l, int family, const struct sockaddr *a, socklen_t n,
                       double end_s)
{
    l->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int failure = l->fd < 0 ? errno : connect_fd(l->fd, a, n, end_s);
    if (failure && l->fd >= 0) {
        close(l->fd);
        l->fd = -1;
    }
    return failure;
}

/* Small messages at once, dead peers noticed; a refusal of these does no harm. */
static void tune_tcp(int fd)
{
    static const struct {
        int level, name, value;
    } rows[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
        { IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S },
        { IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES },
    };
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        setsockopt(fd, rows[i].level, rows[i].name, &rows[i].value, sizeof rows[i].value);
}

static dr_status connect_tcp(dr_link *l, const dr_node *node, int64_t timeout_ms,
                             dr_err *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    char port[16];
    int count = 0, failure = 0;
    snprintf(port, sizeof port, "%d", node->port);
    int gai = getaddrinfo(node->host, port, &hints, &list);
    if (gai)
        return dr_fail(err, DR_EIO, "host \"%s\" has no address: %s", node->host,
                       gai == EAI_SYSTEM ? strerror(errno) : gai_strerror(gai));
    for (struct addrinfo *a = list; a; a = a->ai_next)
        count++;
    double end_s = after_ms(timeout_ms);
    for (struct addrinfo *a = list; a && l->fd < 0; a = a->ai_next) {
        double now_s = dr_now_s(), share_s = (end_s - now_s) / count--;
        failure = open_socket(l, a->ai_family, a->ai_addr, a->ai_addrlen, now_s + share_s);
    }
    freeaddrinfo(list);
    if (l->fd < 0)
        return dr_fail(err, DR_EIO, "%s", strerror(failure));
    tune_tcp(l->fd);
    return DR_OK;
}

static dr_status connect_unix(dr_link *l, const char *path, int64_t timeout_ms, dr_err *err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a.sun_path)
        return dr_fail_field(err, DR_EINVAL, "redis.url",
                             "redis.url: a socket's path may be %zu bytes long, this one "
                             "is %zu",
                             sizeof a.sun_path - 1, strlen(path));
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int failure = open_socket(l, AF_UNIX, (const struct sockaddr *)&a, sizeof a,
                              after_ms(timeout_ms));
    return failure ? dr_fail(err, DR_EIO, "%s", strerror(failure)) : DR_OK;
}

static dr_status encrypt(dr_link *l, const dr_node *node, const dr_tls *tls,
                         int64_t timeout_ms, dr_err *err)
{
    double end_s = after_ms(timeout_ms);
    ssize_t step = 0;
    dr_status st = dr_session_new(&l->session, tls, l->fd, node->host, err);
    while (!st && (step = dr_session_handshake(l->session)) <= 0) {
        if (step == DR_STEP_FAILED)
            st = step_error(l, err);
        else if (!wait_ready(l->fd, step, end_s) && dr_now_s() >= end_s)
            st = dr_fail(err, DR_EIO,
                         "no TLS handshake within %lld ms; does this port speak TLS?",
                         (long long)timeout_ms);
    }
    return st;
}

dr_status dr_link_open(dr_link **out, const dr_node *node, const dr_tls *tls,
                       int64_t timeout_ms, dr_err *err)
{
    dr_link *l = dr_alloc(sizeof *l);
    if (!l)
        return dr_fail(err, DR_EIO, "out of memory");
    l->fd = -1;
    dr_status st = node->port ? connect_tcp(l, node, timeout_ms, err)
                              : connect_unix(l, node->host, timeout_ms, err);
    if (!st && tls)
        st = encrypt(l, node, tls, timeout_ms, err);
    if (st)
        dr_link_close(l);
    else
        *out = l;
    return st;
}

void dr_link_close(dr_link *l)
{
    if (!l)
        return;
    dr_session_free(l->session);
    if (l->fd >= 0)
        close(l->fd);
    dr_free(l);
}

/* --- bytes --- */

dr_status dr_link_send(dr_link *l, const void *p, size_t n, int64_t timeout_ms, dr_err *err)
{
    double end_s = after_ms(timeout_ms);
    for (size_t sent = 0; sent < n;) {
        ssize_t step = send_step(l, (const char *)p + sent, n - sent);
        if (step > 0) {
            sent += (size_t)step;
            end_s = after_ms(timeout_ms);
        } else if (step == DR_STEP_FAILED) {
            return step_error(l, err);
        } else if (!wait_ready(l->fd, step, end_s) && dr_now_s() >= end_s) {
            return dr_fail(err, DR_EIO, "%zu of %zu bytes not taken within %lld ms",
                           n - sent, n, (long long)timeout_ms);
        }
    }
    return DR_OK;
}

dr_status dr_link_receive(dr_link *l, void *p, size_t room, size_t *n, double end_s,
                          dr_err *err)
{
    *n = 0;
    for (;;) {
        ssize_t step = receive_step(l, p, room);
        if (step > 0) {
            *n = (size_t)step;
            return DR_OK;
        }
        if (step == DR_STEP_FAILED)
            return step_error(l, err);
        if (!wait_ready(l->fd, step, end_s))
            return DR_OK;
    }
}
