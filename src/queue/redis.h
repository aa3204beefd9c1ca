#ifndef DR_QUEUE_REDIS_H
#define DR_QUEUE_REDIS_H

#include "base/conf.h"
#include "base/err.h"
#include "queue/tls.h"
#include "queue/url.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The one door to hiredis: a connection that comes back by itself, commands as byte
 * strings, replies walked by accessors. A handle is used by one thread at a time. */
typedef struct dr_redis dr_redis;
typedef struct dr_reply dr_reply;

/* A command being put together. Bytes are borrowed until the call, formatted arguments are
 * kept inside. {0} is empty. Too many arguments are a bug of the caller (assert). */
#define DR_CMD_ARGS  96
#define DR_CMD_BYTES 12288
typedef struct {
    const char *arg[DR_CMD_ARGS];
    size_t size[DR_CMD_ARGS];
    int n;
    char text[DR_CMD_BYTES];
    size_t used;
} dr_cmd;

void dr_cmd_bytes(dr_cmd *c, const void *p, size_t n);
void dr_cmd_str(dr_cmd *c, const char *s);
void dr_cmd_int(dr_cmd *c, int64_t v);
void dr_cmd_printf(dr_cmd *c, const char *fmt, ...) DR_PRINTF(2, 3);
/* Several words at once. */
void dr_cmd_put_words(dr_cmd *c, const char *const *words, size_t n);
#define dr_cmd_words(c, ...)                                                               \
    dr_cmd_put_words(c, (const char *const[]){ __VA_ARGS__ },                              \
                     DR_COUNT(((const char *const[]){ __VA_ARGS__ })))

/* A handle from the settings redis.*, which are copied; nothing is connected yet.
 * redis.timeout_ms bounds connecting and each silence within a reply. DR_EINVAL names the
 * setting. */
DR_MUST_USE dr_status dr_redis_new(dr_redis **out, const dr_conf *conf, dr_err *err);
/* The same for an address taken apart; tls (NULL: plain) must outlive the handle. */
DR_MUST_USE dr_status dr_redis_new_at(dr_redis **out, const dr_url *url, const dr_tls *tls,
                                      int64_t timeout_ms, dr_err *err);
void dr_redis_free(dr_redis *r); /* accepts NULL */

/* Connect, authenticate and select the database, unless that is done already: to the
 * address of redis.url, to the master that the Sentinels name now, or to the node that a
 * cluster last led to (when that one is gone, to redis.url again). Names are resolved and
 * certificates read anew each time. DR_EIO: not now; DR_EINVAL: refused, waiting cannot
 * help (a handle that was connected before calls only refused credentials so). */
DR_MUST_USE dr_status dr_redis_connect(dr_redis *r, dr_err *err);
void dr_redis_disconnect(dr_redis *r);

/* How many times a connection was made: a caller that sees it change knows that the server
 * may have been restarted or emptied in between. */
uint64_t dr_redis_connections(const dr_redis *r);

/* Where to, without credentials: "unix:///run/redis.sock", "redis://host:6379/0". With
 * Sentinels and clusters the node last talked to. Valid until the next call. */
const char *dr_redis_endpoint(const dr_redis *r);

/* Send cmd and wait for its reply (connecting first when necessary). block_ms is added to
 * the timeout for commands that block. *out (free with dr_reply_free) may be NULL when the
 * reply does not matter. DR_EREDIS: Redis refused, in its own words. DR_EIO: the
 * connection failed or Redis cannot serve now (LOADING, READONLY, …); it is closed, and the
 * command may or may not have had its effect: the caller waits dr_redis_backoff_ms and may
 * repeat what is safe to repeat. Where a cluster says that another node serves the keys,
 * the command goes there, up to five times. */
DR_MUST_USE dr_status dr_redis_call(dr_redis *r, const dr_cmd *cmd, int64_t block_ms,
                                    dr_reply **out, dr_err *err);

/* For subscribers, after SUBSCRIBE went through dr_redis_call: the next message, or *out =
 * NULL when none came within wait_ms. */
DR_MUST_USE dr_status dr_redis_receive(dr_redis *r, int64_t wait_ms, dr_reply **out,
                                       dr_err *err);

/* Milliseconds to wait before the next attempt: 50, 100, … 5000 with jitter, from 50 again
 * after a reply. */
int64_t dr_redis_backoff_ms(dr_redis *r);

/* Whether err is what Redis itself answered, in its own words. */
bool dr_redis_refused(const dr_err *err);
/* Whether waiting cannot help: refused credentials, a refused database, NOPERM. */
bool dr_redis_fatal(const dr_err *err);
/* Whether Redis' words begin with code ("NOSCRIPT", "BUSYGROUP"). */
bool dr_redis_says(const dr_err *err, const char *code);

typedef enum { DR_REPLY_NIL, DR_REPLY_INT, DR_REPLY_TEXT, DR_REPLY_ARRAY } dr_reply_kind;

void dr_reply_free(dr_reply *r);                          /* accepts NULL */
dr_reply_kind dr_reply_type(const dr_reply *r);           /* NULL reads as DR_REPLY_NIL */
size_t dr_reply_count(const dr_reply *r);                 /* items of an array, else 0 */
const dr_reply *dr_reply_at(const dr_reply *r, size_t i); /* NULL outside an array */
/* The bytes of a text (NUL-terminated behind *n), "" for anything else. n may be NULL. */
const char *dr_reply_text(const dr_reply *r, size_t *n);
/* An integer, or a text that is one, else 0. */
int64_t dr_reply_int(const dr_reply *r);

#endif
