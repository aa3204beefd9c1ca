#ifndef DR_TESTS_SERVER_H
#define DR_TESTS_SERVER_H

#include "queue/queue.h"

#include <sys/types.h>

/* A private redis-server on a unix socket, with settings that lead to it. Includers must
 * have cmocka's headers before this one. */
typedef struct {
    char dir[64], socket[96], url[128];
    pid_t pid;
    dr_conf conf;
    dr_redis *raw; /* looks at the keys from outside */
} server;

void server_start(server *s);
void server_stop(server *s);

/* One command of words without blanks; its reply as text, number or [count of items]. Lives
 * until the next call. */
const char *server_ask(server *s, const char *line);
/* The same, formatted. */
const char *server_askf(server *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
