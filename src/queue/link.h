#ifndef DR_QUEUE_LINK_H
#define DR_QUEUE_LINK_H

#include "queue/tls.h"
#include "queue/url.h"

/* A stream of bytes to a server over TCP or a Unix socket, plain or encrypted. Nothing here
 * waits longer than it is told to for a silent other side. Used by one thread at a time;
 * after an error only dr_link_close is left. */
typedef struct dr_link dr_link;

/* Connect, with tls (NULL: plain) up to the end of its handshake, within timeout_ms for
 * each of the two; a name is resolved each time, by the resolver's own time limits, and its
 * addresses are tried in turn. DR_EIO: not now; DR_EINVAL: see dr_session_why. */
DR_MUST_USE dr_status dr_link_open(dr_link **out, const dr_node *node, const dr_tls *tls,
                                   int64_t timeout_ms, dr_err *err);
void dr_link_close(dr_link *l); /* accepts NULL */

/* Send all of p; timeout_ms bounds each time in which nothing moves. */
DR_MUST_USE dr_status dr_link_send(dr_link *l, const void *p, size_t n, int64_t timeout_ms,
                                   dr_err *err);

/* The bytes that came, *n of them: 0 when none came before end_s (of dr_now_s) or a signal
 * interrupted waiting. */
DR_MUST_USE dr_status dr_link_receive(dr_link *l, void *p, size_t room, size_t *n,
                                      double end_s, dr_err *err);

#endif
