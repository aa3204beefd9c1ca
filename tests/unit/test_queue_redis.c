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

typedef struct {
    int fd;
    const char *const *says; /* one a read; NULL: close */
} script;

/* Accept once; answer each piece that comes with the next text, byte by byte. */
static void *serve(void *arg)
{
    const script *s = arg;
    char buf[1024];
    int fd = accept(s->fd, NULL, NULL);
    for (int i = 0; s->says[i] && recv(fd, buf, sizeof buf, 0) > 0; i++)
        for (const char *p = s->says[i]; *p && send(fd, p, 1, MSG_NOSIGNAL) == 1; p++)
            dr_sleep_ms(1);
    close(fd);
    return NULL;
}

static void *serve_six(void *arg)
{
    for (int i = 0; i < 6; i++)
        serve(arg);
    return NULL;
}

static void replies_may_come_in_pieces(void **state)
{
    static const char *const says[] = { "*2\r\n$5\r\nhello\r\n:42\r\n", "-ERR no\r\n",
                                        "-ERR max number of clients reached\r\n", NULL };
    char url[64];
    pthread_t thread;
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    (void)state;
    script s = { listen_at(url, "redis://"), says };
    assert_int_equal(pthread_create(&thread, NULL, serve, &s), 0);
    dr_redis *r = open_url(url, &err);
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
    pthread_join(thread, NULL);
    dr_redis_free(r);
    close(s.fd);
}

static void closing_before_the_first_reply_hints_at_tls(void **state)
{
    static const char *const says[] = { NULL };
    char url[64];
    pthread_t thread;
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    (void)state;
    script s = { listen_at(url, "redis://"), says };
    assert_int_equal(pthread_create(&thread, NULL, serve, &s), 0);
    dr_redis *r = open_url(url, &err);
    dr_cmd_str(&c, "PING");
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
    assert_non_null(strstr(err.message, "/0: no reply yet (a TLS port needs rediss://): "));
    pthread_join(thread, NULL);
    dr_redis_free(r);
    close(s.fd);
}

static void a_plain_port_is_no_tls_port(void **state)
{
    static const char *const says[] = { "-ERR unknown command\r\n", NULL };
    char url[64];
    pthread_t thread;
    dr_err err = { 0 };
    (void)state;
    script s = { listen_at(url, "rediss://"), says };
    assert_int_equal(pthread_create(&thread, NULL, serve, &s), 0);
    dr_redis *r = open_url(url, &err);
    assert_int_equal(dr_redis_connect(r, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "no TLS on this port: use redis://"));
    pthread_join(thread, NULL);
    dr_redis_free(r);
    close(s.fd);
}

/* Nodes that each send us to the other are no way out. */
static void redirections_end(void **state)
{
    char url[64], says[64];
    const char *texts[] = { says, NULL };
    pthread_t thread;
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    (void)state;
    script s = { listen_at(url, "redis://"), texts };
    snprintf(says, sizeof says, "-MOVED 1 :%s\r\n", strrchr(url, ':') + 1);
    dr_redis *r = open_url(url, &err);
    dr_cmd_words(&c, "GET", "x");
    assert_int_equal(pthread_create(&thread, NULL, serve_six, &s), 0);
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_EIO);
    assert_non_null(strstr(err.message, "led on after 5 redirections"));
    pthread_join(thread, NULL);
    assert_int_equal(dr_redis_connections(r), 6);
    dr_redis_free(r);
    close(s.fd);
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
        cmocka_unit_test(waiting_grows_to_five_seconds),
        cmocka_unit_test(commands_are_byte_strings),
        cmocka_unit_test(errors_are_told_apart),
        cmocka_unit_test(no_reply_reads_as_nil),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
