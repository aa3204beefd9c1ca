/* The door to hiredis, as far as it needs no real server: settings, commands, back-off,
 * how errors are told apart, and servers that are silent, slow or of the wrong kind. */
#include "queue/redis.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A handle for url, from settings with a short timeout; *err says why there is none. */
static dr_redis *open_url(const char *url, dr_err *err)
{
    dr_conf conf = { 0 };
    dr_redis *r = NULL;
    assert_int_equal(dr_conf_init(&conf, err), DR_OK);
    assert_int_equal(dr_conf_set(&conf, "redis.url", url, err), DR_OK);
    assert_int_equal(dr_conf_set(&conf, "redis.timeout_ms", "300", err), DR_OK);
    if (dr_redis_new(&r, &conf, err))
        assert_null(r);
    dr_conf_free(&conf);
    return r;
}

static void bad_settings_are_refused(void **state)
{
    static const struct {
        const char *key, *value, *field, *said;
    } rows[] = {
        { "redis.url", "http://host", "redis.url", "must begin with redis://" },
        { "redis.tls_ca", "/nonexistent/ca.pem", "redis.tls_ca",
          "redis.tls_ca = /nonexistent/ca.pem: No such file or directory; must be a PEM" },
        { "redis.tls_ca", "/dev/null", "redis.tls_ca", "redis.tls_ca = /dev/null: " },
        { "redis.tls_cert", "/nonexistent/c.pem", "redis.tls_key",
          "redis.tls_key is empty" },
        { "redis.tls_key", "/nonexistent/k.pem", "redis.tls_cert",
          "redis.tls_cert is empty" },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_conf conf = { 0 };
        dr_redis *r = NULL;
        dr_err err = { 0 };
        assert_int_equal(dr_conf_init(&conf, &err), DR_OK);
        assert_int_equal(dr_conf_set(&conf, "redis.url", "rediss://host", &err), DR_OK);
        assert_int_equal(dr_conf_set(&conf, rows[i].key, rows[i].value, &err), DR_OK);
        assert_int_equal(dr_redis_new(&r, &conf, &err), DR_EINVAL);
        assert_null(r);
        assert_string_equal(err.field, rows[i].field);
        if (!strstr(err.message, rows[i].said))
            fail_msg("%s", err.message);
        dr_conf_free(&conf);
    }
}

static void the_password_is_never_shown(void **state)
{
    dr_err err = { 0 };
    (void)state;
    dr_redis *r = open_url("redis://u:hunter2@127.0.0.1:1", &err);
    assert_string_equal(dr_redis_endpoint(r), "redis://127.0.0.1:1/0");
    assert_int_equal(dr_redis_connect(r, &err), DR_EIO);
    assert_null(strstr(err.message, "hunter2"));
    assert_string_equal(err.message, "redis redis://127.0.0.1:1/0: Connection refused");
    assert_int_equal(dr_redis_connections(r), 0);
    assert_false(dr_redis_fatal(&err));
    dr_redis_free(r);
}

static void absent_servers_are_told(void **state)
{
    static const struct {
        const char *url, *said;
    } rows[] = {
        { "unix:///nonexistent/s",
          "redis unix:///nonexistent/s: No such file or directory" },
        { "redis://nowhere.invalid",
          "redis redis://nowhere.invalid:6379/0: host \"nowhere.invalid\" has no address" },
        { "redis+sentinel://127.0.0.1:1,127.0.0.1:2/main",
          "no Sentinel knows where master main is: redis redis://127.0.0.1:1/0: Connection "
          "refused; redis redis://127.0.0.1:2/0: Connection refused" },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_err err = { 0 };
        dr_redis *r = open_url(rows[i].url, &err);
        assert_int_equal(dr_redis_connect(r, &err), DR_EIO);
        assert_int_equal(err.code, DR_EIO);
        if (strncmp(err.message, rows[i].said, strlen(rows[i].said)) != 0)
            fail_msg("%s", err.message);
        dr_redis_free(r);
    }
}

/* --- a server of our own that says what a test wants --- */

/* A listening socket on 127.0.0.1; its address in url, behind scheme. */
static int listen_at(char url[64], const char *scheme)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    snprintf(url, 64, "%s127.0.0.1:%d", scheme, ntohs(a.sin_port));
    return fd;
}

static void silence_ends_after_the_timeout(void **state)
{
    static const struct {
        const char *scheme, *said;
    } rows[] = {
        { "redis://", "/0: no reply within 300 ms" },
        { "rediss://", "/0: no TLS handshake within 300 ms; does this port speak TLS?" },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        char url[64];
        dr_err err = { 0 };
        dr_cmd c = { 0 };
        int fd = listen_at(url, rows[i].scheme);
        dr_redis *r = open_url(url, &err);
        dr_cmd_str(&c, "PING");
        double begin_s = dr_now_s();
        assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
        double took_s = dr_now_s() - begin_s;
        assert_true(took_s > 0.29 && took_s < 3);
        if (!strstr(err.message, rows[i].said))
            fail_msg("%s", err.message);
        dr_redis_free(r);
        close(fd);
    }
}

#define CONNECTIONS 6
#define ANSWERS     4

/* What it says to each piece that comes, connection by connection, byte by byte; and what
 * it heard, one letter each: the first of the command's name. */
typedef struct {
    int fd;
    char url[64], port[8];
    const char *says[CONNECTIONS][ANSWERS];
    char heard[64];
    pthread_t thread;
} script;

static void serve_one(script *s, const char *const *says)
{
    char buf[1024];
    int fd = accept(s->fd, NULL, NULL);
    for (ssize_t n; *says && (n = recv(fd, buf, sizeof buf - 1, 0)) > 0; says++) {
        buf[n] = 0;
        const char *name = strchr(buf, '$'); /* *1 $4 PING */
        name = name ? strchr(name, '\n') : NULL;
        snprintf(s->heard + strlen(s->heard), 2, "%c", name ? name[1] : '?');
        for (const char *p = *says; *p && send(fd, p, 1, MSG_NOSIGNAL) == 1; p++)
            dr_sleep_ms(1);
    }
    close(fd);
}

static void *serve(void *arg)
{
    script *s = arg;
    for (int i = 0; i < CONNECTIONS && s->says[i][0]; i++)
        serve_one(s, s->says[i]);
    return NULL;
}

/* Listen first: answers may hold the port. */
static void begin_script(script *s, const char *scheme)
{
    *s = (script){ 0 };
    s->fd = listen_at(s->url, scheme);
    snprintf(s->port, sizeof s->port, "%s", strrchr(s->url, ':') + 1);
}

static dr_redis *run_script(script *s)
{
    dr_err err = { 0 };
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    return open_url(s->url, &err);
}

static void end_script(script *s, dr_redis *r)
{
    pthread_join(s->thread, NULL);
    dr_redis_free(r);
    close(s->fd);
}

static void replies_may_come_in_pieces(void **state)
{
    script s;
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    (void)state;
    begin_script(&s, "redis://");
    s.says[0][0] = "*2\r\n$5\r\nhello\r\n:42\r\n";
    s.says[0][1] = "-ERR no\r\n";
    s.says[0][2] = "-ERR max number of clients reached\r\n";
    dr_redis *r = run_script(&s);
    dr_cmd_str(&c, "PING");
    assert_int_equal(dr_redis_call(r, &c, 0, &reply, &err), DR_OK);
    assert_int_equal(dr_reply_count(reply), 2);
    assert_string_equal(dr_reply_text(dr_reply_at(reply, 0), NULL), "hello");
    assert_int_equal(dr_reply_int(dr_reply_at(reply, 1)), 42);
    dr_reply_free(reply);
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EREDIS);
    assert_true(dr_redis_refused(&err) && dr_redis_says(&err, "ERR"));
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO); /* it will pass */
    assert_int_equal(dr_redis_connections(r), 1);
    end_script(&s, r);
}

static void closing_before_the_first_reply_hints_at_tls(void **state)
{
    script s;
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    (void)state;
    begin_script(&s, "redis://");
    s.says[0][0] = "";
    dr_redis *r = run_script(&s);
    dr_cmd_str(&c, "PING");
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
    assert_non_null(strstr(err.message, "/0: no reply yet (a TLS port needs rediss://): "));
    end_script(&s, r);
}

static void a_plain_port_is_no_tls_port(void **state)
{
    script s;
    dr_err err = { 0 };
    (void)state;
    begin_script(&s, "rediss://");
    s.says[0][0] = "-ERR unknown command\r\n";
    dr_redis *r = run_script(&s);
    assert_int_equal(dr_redis_connect(r, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "no TLS on this port: use redis://"));
    end_script(&s, r);
}

/* Nodes that each send us to the other are no way out. */
static void redirections_end(void **state)
{
    script s;
    char moved[64];
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    (void)state;
    begin_script(&s, "redis://");
    snprintf(moved, sizeof moved, "-MOVED 1 :%s\r\n", s.port);
    for (int i = 0; i < 6; i++)
        s.says[i][0] = moved;
    dr_redis *r = run_script(&s);
    dr_cmd_words(&c, "GET", "x");
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
    assert_non_null(strstr(err.message, "led on after 5 redirections"));
    assert_int_equal(dr_redis_connections(r), 6);
    end_script(&s, r);
    assert_string_equal(s.heard, "GGGGGG");
}

/* ASK is for this command only and needs a word before it; the next goes without. */
static void ask_is_asked(void **state)
{
    script s;
    char ask[64];
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    (void)state;
    begin_script(&s, "redis://");
    snprintf(ask, sizeof ask, "-ASK 1 127.0.0.1:%s\r\n", s.port);
    s.says[0][0] = ask;
    s.says[1][0] = "+OK\r\n";
    s.says[1][1] = ":1\r\n";
    s.says[1][2] = ":2\r\n";
    dr_redis *r = run_script(&s);
    dr_cmd_words(&c, "GET", "x");
    for (int i = 1; i <= 2; i++) {
        assert_int_equal(dr_redis_call(r, &c, 0, &reply, &err), DR_OK);
        assert_int_equal(dr_reply_int(reply), i);
        dr_reply_free(reply);
    }
    end_script(&s, r);
    assert_string_equal(s.heard, "GAGG");
}

/* The Sentinels are asked at each connection; what they name must be a master, and a master
 * that became a replica is left. The script plays Sentinel and node in turn. */
static void sentinels_lead_to_masters_only(void **state)
{
    script s;
    char here[64];
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    (void)state;
    begin_script(&s, "redis+sentinel://");
    snprintf(s.url + strlen(s.url), 16, "/main");
    snprintf(here, sizeof here, "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n", strlen(s.port),
             s.port);
    for (int i = 0; i < 6; i += 2)
        s.says[i][0] = here;
    s.says[1][0] = "*1\r\n$5\r\nslave\r\n";
    s.says[3][0] = "*1\r\n$6\r\nmaster\r\n";
    s.says[3][1] = "-READONLY You can't write against a read only replica.\r\n";
    s.says[5][0] = "*1\r\n$6\r\nmaster\r\n";
    s.says[5][1] = "+OK\r\n";
    dr_redis *r = run_script(&s);
    assert_string_equal(dr_redis_endpoint(r) + strlen(dr_redis_endpoint(r)) - 7, "/main/0");
    dr_cmd_words(&c, "INCR", "x");
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
    assert_non_null(strstr(err.message, "the master of main, but it is a slave"));
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
    assert_true(dr_redis_says(&err, "READONLY"));
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_OK);
    assert_int_equal(dr_redis_connections(r), 2);
    end_script(&s, r);
    assert_string_equal(s.heard, "SRSRISRI");
}

static void waiting_grows_to_five_seconds(void **state)
{
    dr_err err = { 0 };
    (void)state;
    dr_redis *r = open_url("unix:///nonexistent", &err);
    int64_t most = 50;
    for (int i = 0; i < 12; i++) {
        int64_t ms = dr_redis_backoff_ms(r);
        assert_true(ms >= most / 2 && ms <= most);
        most = most * 2 > 5000 ? 5000 : most * 2;
    }
    dr_redis_free(r);
}

static void commands_are_byte_strings(void **state)
{
    dr_cmd c = { 0 };
    (void)state;
    dr_cmd_words(&c, "SET", "key");
    dr_cmd_bytes(&c, "a\0b", 3);
    dr_cmd_int(&c, -5);
    dr_cmd_printf(&c, "%s:%d", "x", 7);
    assert_int_equal(c.n, 5);
    assert_int_equal(c.size[2], 3);
    assert_memory_equal(c.arg[2], "a\0b", 3);
    assert_string_equal(c.arg[3], "-5");
    assert_string_equal(c.arg[4], "x:7");
    assert_int_equal(c.size[4], 3);
}

static void errors_are_told_apart(void **state)
{
    dr_err err = { 0 };
    (void)state;
    dr_fail(&err, DR_EREDIS, "redis: NOAUTH Authentication required.");
    assert_true(dr_redis_says(&err, "NOAUTH"));
    assert_false(dr_redis_says(&err, "NOAUT"));
    assert_true(dr_redis_fatal(&err));
    dr_fail(&err, DR_EREDIS, "redis: NOPERM this user has no permissions");
    assert_true(dr_redis_fatal(&err));
    dr_fail(&err, DR_EREDIS, "redis: OOM command not allowed");
    assert_false(dr_redis_fatal(&err));
    dr_fail(&err, DR_EIO, "redis unix:///x: No such file or directory");
    assert_false(dr_redis_fatal(&err));
    assert_false(dr_redis_says(&err, "No"));
}

static void no_reply_reads_as_nil(void **state)
{
    size_t n = 7;
    (void)state;
    assert_int_equal(dr_reply_type(NULL), DR_REPLY_NIL);
    assert_int_equal(dr_reply_count(NULL), 0);
    assert_null(dr_reply_at(NULL, 0));
    assert_string_equal(dr_reply_text(NULL, &n), "");
    assert_int_equal(n, 0);
    assert_int_equal(dr_reply_int(NULL), 0);
    dr_reply_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_settings_are_refused),
        cmocka_unit_test(the_password_is_never_shown),
        cmocka_unit_test(absent_servers_are_told),
        cmocka_unit_test(silence_ends_after_the_timeout),
        cmocka_unit_test(replies_may_come_in_pieces),
        cmocka_unit_test(closing_before_the_first_reply_hints_at_tls),
        cmocka_unit_test(a_plain_port_is_no_tls_port),
        cmocka_unit_test(redirections_end),
        cmocka_unit_test(ask_is_asked),
        cmocka_unit_test(sentinels_lead_to_masters_only),
        cmocka_unit_test(waiting_grows_to_five_seconds),
        cmocka_unit_test(commands_are_byte_strings),
        cmocka_unit_test(errors_are_told_apart),
        cmocka_unit_test(no_reply_reads_as_nil),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
