#ifndef DR_QUEUE_TLS_H
#define DR_QUEUE_TLS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The one door to OpenSSL. Debian 12's hiredis (0.14) has no TLS, and hiredis_ssl of the
 * later ones is tied to a context that blocks in its own socket calls. So the bytes go
 * through OpenSSL on our own socket (link.c) and hiredis only writes and reads the protocol
 * in memory: one path for plain and encrypted connections, with any hiredis, and with
 * deadlines that hold in handshakes too. */
typedef struct dr_tls dr_tls;         /* settings, shared by connections */
typedef struct dr_session dr_session; /* one encrypted connection */

typedef struct {
    const char *ca, *cert, *key; /* PEM files; "" is none: the system's authorities */
    bool verify;                 /* check the server's certificate and name */
} dr_tls_opts;

/* Copy the settings and read the files once, so that a bad one is told at the start:
 * DR_EINVAL names the setting. Each connection reads them anew, so that renewed
 * certificates are taken up without a restart. */
DR_MUST_USE dr_status dr_tls_new(dr_tls **out, const dr_tls_opts *o, dr_err *err);
void dr_tls_free(dr_tls *t); /* accepts NULL */

/* What a step answers besides a number of bytes (> 0; of a handshake 1: done). */
enum {
    DR_STEP_FAILED = -1, /* or the other side closed */
    DR_STEP_READ = -2,   /* again once the socket is readable */
    DR_STEP_WRITE = -3   /* again once the socket is writable */
};
#define DR_STEP_CLOSED_TEXT "the server closed the connection"

/* A session on a connected non-blocking socket, which stays the caller's. host is what the
 * certificate must name: a DNS name or an IP address. */
DR_MUST_USE dr_status dr_session_new(dr_session **out, const dr_tls *t, int fd,
                                     const char *host, dr_err *err);
void dr_session_free(dr_session *s); /* says goodbye; accepts NULL */

/* One step each; never blocks, never raises SIGPIPE. */
ssize_t dr_session_handshake(dr_session *s);
ssize_t dr_session_send(dr_session *s, const void *p, size_t n);
ssize_t dr_session_receive(dr_session *s, void *p, size_t n);

/* Why the last step failed. DR_EINVAL: a certificate or setting is wrong, waiting cannot
 * help; the message names the remedy. DR_EIO: anything else. */
dr_status dr_session_why(dr_session *s, dr_err *err);

#endif
