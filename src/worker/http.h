#ifndef DR_WORKER_HTTP_H
#define DR_WORKER_HTTP_H

#include "base/buf.h"
#include "base/err.h"

/* A small HTTP/1.1 server for probes and scrapes: GET and HEAD, one thread, one answer a
 * connection. The one door to libmicrohttpd. */

/* One path. answer runs in the server's thread: it appends the body, which must not be
 * empty, to out and returns the status (200, 503). A row without a path ends a table. */
typedef struct {
    const char *path, *type; /* type: of the content */
    int (*answer)(void *ctx, dr_buf *out);
} dr_http_route;

typedef struct dr_http dr_http;

/* Serve routes on listen = "host:port", "[v6]:port" or ":port" (all interfaces, IPv6 and
 * IPv4); port 0 takes a free one. A name stands for its first address, IPv4 before IPv6.
 * "" serves nothing: *out is NULL and the answer DR_OK. routes, and what ctx points to,
 * must live until dr_http_stop. The server's thread takes no signals, whatever the
 * caller's mask. DR_EINVAL: listen is malformed or names no host. DR_EIO: it cannot be
 * listened on. */
DR_MUST_USE dr_status dr_http_start(dr_http **out, const char *listen,
                                    const dr_http_route *routes, void *ctx, dr_err *err);

/* Close all connections and end the thread. Accepts NULL. */
void dr_http_stop(dr_http *h);

/* Where it listens, in numbers: "127.0.0.1:9464", "[::]:9464". */
const char *dr_http_address(const dr_http *h);

#endif
