#ifndef DR_QUEUE_URL_H
#define DR_QUEUE_URL_H

#include "base/err.h"

#include <stdbool.h>

/* Addresses of Redis: the text of redis.url and of a cluster's redirections, taken apart
 * without connecting anywhere. */

#define DR_URL_PART  256 /* bytes of a host, path, name or password, with the NUL */
#define DR_URL_HOSTS 16
#define DR_URL_SHOWN 512 /* bytes of an address as it is shown */

typedef struct {
    char host[DR_URL_PART]; /* name or IP address; a path when port is 0: a Unix socket */
    int port;
} dr_node;

typedef struct {
    bool tls, sentinel;
    char user[DR_URL_PART], password[DR_URL_PART]; /* of the data nodes; "" is none */
    dr_node node[DR_URL_HOSTS];                    /* the server, or the Sentinels */
    int nodes;
    char master[DR_URL_PART]; /* the name that the Sentinels know */
    int db;
} dr_url;

/* redis://[user[:password]@]host[:port][/db], rediss://… (TLS), unix:///path, or
 * redis+sentinel://[user[:password]@]host[:port][,host[:port]]…/master[/db] and
 * rediss+sentinel://…; special characters of user, password, host and master as %40.
 * DR_EINVAL names redis.url, what is wrong and how it is written, never the password. */
DR_MUST_USE dr_status dr_url_parse(dr_url *out, const char *text, dr_err *err);

/* "rediss://host:6379/0": node as it would be written in redis.url, without credentials.
 * node NULL: the address that url itself is, with all Sentinels as far as they fit. */
void dr_url_show(char out[DR_URL_SHOWN], const dr_url *url, const dr_node *node);

/* Read what a cluster says, "MOVED 3999 10.0.0.2:6379" or "ASK …"; false for any other
 * text. An empty or unknown ("?") host means the one that said it: from (behind a Unix
 * socket: this machine). */
bool dr_url_redirect(dr_node *to, bool *ask, const char *said, const dr_node *from);

#endif
