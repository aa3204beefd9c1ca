#ifndef DR_QUEUE_SENTINEL_H
#define DR_QUEUE_SENTINEL_H

#include "queue/tls.h"
#include "queue/url.h"

/* Who the master is now, as the first Sentinel that answers says: the Sentinels of url are
 * asked in turn, beginning with *first, which becomes the one that answered. secret is
 * their own "[user:]password" or "". DR_EIO: none knows now; DR_EINVAL: each refuses us or
 * does not know the name. */
DR_MUST_USE dr_status dr_sentinel_find(dr_node *master, int *first, const dr_url *url,
                                       const char *secret, const dr_tls *tls,
                                       int64_t timeout_ms, dr_err *err);

#endif
