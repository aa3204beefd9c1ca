#include "base/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server.h"

static void launch(server *s)
{
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen("/dev/null", "w", stdout))
            _exit(126);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->socket,
               "--save", "", "--appendonly", "no", "--dir", s->dir, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 200 && access(s->socket, W_OK); i++)
        dr_sleep_ms(25);
}

void server_start(server *s)
{
    dr_err err = { 0 };
    *s = (server){ .dir = "/tmp/darkroom-test-XXXXXX" };
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->socket, sizeof s->socket, "%s/redis.sock", s->dir);
    snprintf(s->url, sizeof s->url, "unix://%s", s->socket);
    launch(s);
    assert_int_equal(dr_conf_init(&s->conf, &err), DR_OK);
    assert_int_equal(dr_conf_set(&s->conf, "redis.url", s->url, &err), DR_OK);
    assert_int_equal(dr_redis_new(&s->raw, &s->conf, &err), DR_OK);
}

void server_stop(server *s)
{
    dr_redis_free(s->raw);
    dr_conf_free(&s->conf);
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    unlink(s->socket);
    assert_int_equal(rmdir(s->dir), 0);
}

const char *server_ask(server *s, const char *line)
{
    static char buf[8192];
    char words[2048];
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_err err = { 0 };
    snprintf(words, sizeof words, "%s", line);
    for (char *p = words, *next; p; p = next) {
        if ((next = strchr(p, ' ')))
            *next++ = 0;
        dr_cmd_str(&c, p);
    }
    if (dr_redis_call(s->raw, &c, 0, &reply, &err))
        snprintf(buf, sizeof buf, "%s", err.message);
    else if (dr_reply_type(reply) == DR_REPLY_INT)
        snprintf(buf, sizeof buf, "%lld", (long long)dr_reply_int(reply));
    else if (dr_reply_type(reply) == DR_REPLY_ARRAY)
        snprintf(buf, sizeof buf, "[%zu]", dr_reply_count(reply));
    else
        snprintf(buf, sizeof buf, "%s", dr_reply_text(reply, NULL));
    dr_reply_free(reply);
    return buf;
}

const char *server_askf(server *s, const char *fmt, ...)
{
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    return server_ask(s, line);
}
