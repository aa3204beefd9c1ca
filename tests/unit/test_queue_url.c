/* Addresses of Redis: redis.url taken apart, and what clusters say about other nodes. */
#include "queue/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

/* Every part, as "user|password|host:port host:port|master|db|tls sentinel". */
static const char *summary(const dr_url *u)
{
    static char out[1024];
    int n = snprintf(out, sizeof out, "%s|%s|", u->user, u->password);
    for (int i = 0; i < u->nodes; i++)
        n += snprintf(out + n, sizeof out - (size_t)n, "%s%s:%d", i ? " " : "",
                      u->node[i].host, u->node[i].port);
    snprintf(out + n, sizeof out - (size_t)n, "|%s|%d|%s%s", u->master, u->db,
             u->tls ? "tls" : "", u->sentinel ? "sentinel" : "");
    return out;
}

static void addresses_are_taken_apart(void **state)
{
    static const struct {
        const char *url, *parts, *shown;
    } rows[] = {
        { "redis://localhost", "||localhost:6379||0|", "redis://localhost:6379/0" },
        { "redis://10.0.0.1:7000/3", "||10.0.0.1:7000||3|", "redis://10.0.0.1:7000/3" },
        { "redis://host/", "||host:6379||0|", "redis://host:6379/0" },
        { "redis://:secret@host:1/2", "|secret|host:1||2|", "redis://host:1/2" },
        { "redis://user@host", "user||host:6379||0|", "redis://host:6379/0" },
        { "redis://us%3Aer:p%40ss@host", "us:er|p@ss|host:6379||0|",
          "redis://host:6379/0" },
        /* A password that somebody forgot to escape. */
        { "redis://u:a/b@c:d@host/1", "u|a/b@c:d|host:6379||1|", "redis://host:6379/1" },
        { "redis://[::1]:7000/1", "||::1:7000||1|", "redis://[::1]:7000/1" },
        { "redis://[fe80::1%25eth0]", "||fe80::1%eth0:6379||0|",
          "redis://[fe80::1%eth0]:6379/0" },
        { "rediss://:x@host", "|x|host:6379||0|tls", "rediss://host:6379/0" },
        { "unix:///run/redis.sock", "||/run/redis.sock:0||0|", "unix:///run/redis.sock" },
        { "redis+sentinel://a/main", "||a:26379|main|0|sentinel",
          "redis+sentinel://a:26379/main/0" },
        { "redis+sentinel://u:p@a:1,b,[::1]:3/my%20master/2",
          "u|p|a:1 b:26379 ::1:3|my master|2|sentinel",
          "redis+sentinel://a:1,b:26379,[::1]:3/my master/2" },
        { "rediss+sentinel://a,b/main/", "||a:26379 b:26379|main|0|tlssentinel",
          "rediss+sentinel://a:26379,b:26379/main/0" },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_url u;
        dr_err err = { 0 };
        char shown[DR_URL_SHOWN];
        assert_int_equal(dr_url_parse(&u, rows[i].url, &err), DR_OK);
        assert_string_equal(summary(&u), rows[i].parts);
        dr_url_show(shown, &u, NULL);
        assert_string_equal(shown, rows[i].shown);
    }
}

static void bad_addresses_say_what_is_wrong(void **state)
{
    static const struct {
        const char *url, *said;
    } rows[] = {
        { "", "must begin with redis://" },
        { "localhost:6379", "must begin with redis://" },
        { "http://host", "must begin with redis://" },
        { "redis://", "a host is missing; write redis://[user[:password]@]host[:port]" },
        { "redis://u:p@", "a host is missing" },
        { "redis://host:port", "port of host: must be a number in 1..65535" },
        { "redis://host:70000", "port of host: must be a number in 1..65535" },
        { "redis://host:0", "port of host: must be a number in 1..65535" },
        { "redis://host:", "port of host: must be a number in 1..65535" },
        { "redis://host/x", "database \"x\": must be a number in 0..1048576" },
        { "redis://host/-1", "database \"-1\": must be a number" },
        { "redis://host/99999999999", "database \"99999999999\": must be a number" },
        { "redis://host?db=1", "\"host?db=1\" is no host" },
        { "redis://::1", "an IPv6 address belongs in brackets: [::1]" },
        { "redis://[::1]7:1", "\"::1\" is no host" },
        { "redis://a,b", "2 hosts: only Sentinels may be several" },
        { "redis://:p%4@host", "password: behind % must be two hexadecimal digits" },
        { "redis://:p%zz@host", "password: behind % must be two hexadecimal digits" },
        { "redis://p%00@host", "user: must not contain %00" },
        { "rediss://", "a host is missing; write rediss://" },
        { "unix://relative", "must begin with /; write unix:///path/to/socket" },
        { "unix://", "must begin with /" },
        { "redis+sentinel://host", "the name of the master is missing behind the hosts" },
        { "redis+sentinel://host//1", "the name of the master is missing" },
        { "redis+sentinel://a,,b/main", "a host is missing" },
        { "redis+sentinel://a/main/x", "database \"x\": must be a number" },
        { "redis+sentinel://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a/m", "more than 16 hosts" },
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_url u;
        dr_err err = { 0 };
        assert_int_equal(dr_url_parse(&u, rows[i].url, &err), DR_EINVAL);
        assert_string_equal(err.field, "redis.url");
        assert_ptr_equal(strstr(err.message, "redis.url: "), err.message);
        if (!strstr(err.message, rows[i].said))
            fail_msg("%s: %s", rows[i].url, err.message);
    }
}

static void long_parts_are_refused(void **state)
{
    char url[600];
    dr_url u;
    dr_err err = { 0 };
    (void)state;
    snprintf(url, sizeof url, "redis://:%0255d@host", 7);
    assert_int_equal(dr_url_parse(&u, url, &err), DR_OK);
    snprintf(url, sizeof url, "redis://:%0256d@host", 7);
    assert_int_equal(dr_url_parse(&u, url, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "password: must be at most 255 bytes long"));
    assert_null(strstr(err.message, "00007"));
    snprintf(url, sizeof url, "unix:///%0255d", 7);
    assert_int_equal(dr_url_parse(&u, url, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "path: must be at most 255 bytes long"));
}

static void no_error_shows_a_password(void **state)
{
    static const char *const urls[] = {
        "redis://u:hunter2@host:x",     "redis://u:hunter2@host/x", "http://u:hunter2@host",
        "redis://u:hunter2%zz@host",    "redis://u:hunter2@",       "redis://u:hunter2@::1",
        "redis+sentinel://u:hunter2@h",
    };
    (void)state;
    for (size_t i = 0; i < DR_COUNT(urls); i++) {
        dr_url u;
        dr_err err = { 0 };
        assert_int_equal(dr_url_parse(&u, urls[i], &err), DR_EINVAL);
        assert_null(strstr(err.message, "hunter2"));
    }
}

static void redirections_are_read(void **state)
{
    static const struct {
        const char *said, *host;
        int port;
        bool ask;
    } rows[] = {
        { "MOVED 3999 10.0.0.2:6381", "10.0.0.2", 6381, false },
        { "ASK 3999 node-2.example:7001", "node-2.example", 7001, true },
        { "MOVED 1 ::1:7002", "::1", 7002, false },
        { "MOVED 1 :7003", "here", 7003, false },
        { "MOVED 1 ?:7004", "here", 7004, false },
    };
    static const char *const others[] = {
        "",
        "MOVED",
        "MOVED 1",
        "MOVED 1 host",
        "MOVED 1 host:x",
        "MOVED 1 h:0",
        "MOVEDX 1 h:1",
        "ERR MOVED 1 h:1",
        "ASKING 1 h:1",
    };
    dr_node from = { .host = "here", .port = 1 }, to = { 0 };
    dr_node local = { .host = "/run/redis.sock" };
    bool ask = false;
    (void)state;
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        assert_true(dr_url_redirect(&to, &ask, rows[i].said, &from));
        assert_string_equal(to.host, rows[i].host);
        assert_int_equal(to.port, rows[i].port);
        assert_int_equal(ask, rows[i].ask);
    }
    to = (dr_node){ .port = 5 };
    for (size_t i = 0; i < DR_COUNT(others); i++)
        assert_false(dr_url_redirect(&to, &ask, others[i], &from));
    assert_int_equal(to.port, 5);
    assert_true(dr_url_redirect(&to, &ask, "MOVED 1 :7003", &local));
    assert_string_equal(to.host, "127.0.0.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_taken_apart),
        cmocka_unit_test(bad_addresses_say_what_is_wrong),
        cmocka_unit_test(long_parts_are_refused),
        cmocka_unit_test(no_error_shows_a_password),
        cmocka_unit_test(redirections_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
