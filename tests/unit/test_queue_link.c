/* The stream of bytes below the Redis door, plain and encrypted alike: large values, bursts
 * for subscribers, servers that die or freeze. Certificates are made by `openssl`. */
#include "queue/redis.h"

#include "base/clock.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIG (8u << 20)

typedef struct {
    char dir[64];
    char ports[2][16]; /* plain, TLS */
    pid_t pid;
    dr_redis *redis[2];
} fixture;

static void free_port(char out[16])
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    snprintf(out, 16, "%d", ntohs(a.sin_port));
    close(fd);
}

static void start_server(fixture *f)
{
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (chdir(f->dir) || !freopen("/dev/null", "w", stdout))
        _exit(126);
    execlp("redis-server", "redis-server", "--port", f->ports[0], "--tls-port", f->ports[1],
           "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file",
           "cert.pem", "--tls-auth-clients", "no", "--save", "", (char *)NULL);
    _exit(127);
}

static void wait_for_server(dr_redis *r)
{
    dr_err err = { 0 };
    dr_cmd c = { 0 };
    dr_cmd_str(&c, "PING");
    for (int i = 0; i < 200 && dr_redis_call(r, &c, 0, NULL, &err); i++)
        dr_sleep_ms(25);
    assert_int_equal(dr_redis_call(r, &c, 0, NULL, &err), DR_OK);
}

static void stop_server(fixture *f, int number)
{
    kill(f->pid, number);
    waitpid(f->pid, NULL, 0);
}

static int setup(void **state)
{
    static fixture f;
    char line[512];
    f = (fixture){ .dir = "/tmp/darkroom-test-XXXXXX" };
    assert_non_null(mkdtemp(f.dir));
    snprintf(line, sizeof line,
             "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
             "-nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test "
             "-addext subjectAltName=IP:127.0.0.1 2>/dev/null",
             f.dir);
    assert_int_equal(system(line), 0);
    for (int i = 0; i < 2; i++) {
        dr_conf conf = { 0 };
        dr_err err = { 0 };
        free_port(f.ports[i]);
        assert_int_equal(dr_conf_init(&conf, &err), DR_OK);
        snprintf(line, sizeof line, "redis%s://127.0.0.1:%s", i ? "s" : "", f.ports[i]);
        assert_int_equal(dr_conf_set(&conf, "redis.url", line, &err), DR_OK);
        snprintf(line, sizeof line, "%s/cert.pem", f.dir);
        assert_int_equal(dr_conf_set(&conf, "redis.tls_ca", line, &err), DR_OK);
        assert_int_equal(dr_conf_set(&conf, "redis.timeout_ms", "400", &err), DR_OK);
        assert_int_equal(dr_redis_new(&f.redis[i], &conf, &err), DR_OK);
        dr_conf_free(&conf);
    }
    start_server(&f);
    wait_for_server(f.redis[0]);
    wait_for_server(f.redis[1]);
    signal(SIGPIPE, SIG_DFL); /* it would end this program */
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    char line[128];
    dr_redis_free(f->redis[0]);
    dr_redis_free(f->redis[1]);
    stop_server(f, SIGKILL);
    snprintf(line, sizeof line, "rm -r %s", f->dir);
    return system(line);
}

static void large_values_go_both_ways(void **state)
{
    fixture *f = *state;
    char *bytes = dr_alloc(BIG);
    assert_non_null(bytes);
    for (size_t i = 0; i < BIG; i++)
        bytes[i] = (char)(i * 2654435761u >> 11);
    for (int i = 0; i < 2; i++) {
        dr_err err = { 0 };
        dr_cmd set = { 0 }, get = { 0 };
        dr_reply *reply = NULL;
        size_t n = 0;
        dr_cmd_words(&set, "SET", "big");
        dr_cmd_bytes(&set, bytes, BIG);
        dr_cmd_words(&get, "GET", "big");
        assert_int_equal(dr_redis_call(f->redis[i], &set, 0, NULL, &err), DR_OK);
        assert_int_equal(dr_redis_call(f->redis[i], &get, 0, &reply, &err), DR_OK);
        const char *back = dr_reply_text(reply, &n);
        assert_int_equal(n, BIG);
        assert_memory_equal(back, bytes, BIG);
        dr_reply_free(reply);
    }
    dr_free(bytes);
}

/* Many messages in one piece: those behind the first are already in our own buffers, where
 * waiting for the socket would not find them. */
static void bursts_reach_a_subscriber(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        dr_err err = { 0 };
        dr_cmd c = { 0 }, burst = { 0 };
        dr_reply *reply = NULL;
        dr_cmd_words(&c, "SUBSCRIBE", "news");
        dr_cmd_words(&burst, "EVAL",
                     "for i = 1, 500 do redis.call('PUBLISH', 'news', i) end", "0");
        assert_int_equal(dr_redis_call(f->redis[i], &c, 0, NULL, &err), DR_OK);
        assert_int_equal(dr_redis_call(f->redis[!i], &burst, 0, NULL, &err), DR_OK);
        for (int m = 1; m <= 500; m++) {
            assert_int_equal(dr_redis_receive(f->redis[i], 1000, &reply, &err), DR_OK);
            assert_int_equal(dr_reply_int(dr_reply_at(reply, 2)), m);
            dr_reply_free(reply);
        }
        double begin_s = dr_now_s();
        assert_int_equal(dr_redis_receive(f->redis[i], 100, &reply, &err), DR_OK);
        assert_null(reply);
        assert_true(dr_now_s() - begin_s > 0.09);
        dr_redis_disconnect(f->redis[i]);
    }
}

/* Blocking longer than the timeout is no silence. */
static void blocking_commands_may_take_longer(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        dr_err err = { 0 };
        dr_cmd c = { 0 };
        dr_reply *reply = NULL;
        dr_cmd_words(&c, "BLPOP", "nothing", "0.6");
        assert_int_equal(dr_redis_call(f->redis[i], &c, 600, &reply, &err), DR_OK);
        assert_int_equal(dr_reply_type(reply), DR_REPLY_NIL);
        dr_reply_free(reply);
        assert_int_equal(dr_redis_call(f->redis[i], &c, 0, &reply, &err), DR_EIO);
        assert_non_null(strstr(err.message, "no reply within 400 ms"));
    }
}

/* Neither a small command, whose reply does not come, nor one that the socket cannot take
 * whole, nor the next handshake waits longer than the timeout. */
static void a_frozen_server_is_given_up(void **state)
{
    fixture *f = *state;
    char *bytes = dr_alloc(BIG);
    kill(f->pid, SIGSTOP);
    for (int i = 0; i < 2; i++) {
        dr_err err = { 0 };
        dr_cmd set = { 0 };
        dr_cmd_words(&set, "SET", "big");
        dr_cmd_bytes(&set, bytes, BIG);
        double begin_s = dr_now_s();
        assert_int_equal(dr_redis_call(f->redis[i], &set, 0, NULL, &err), DR_EIO);
        assert_int_equal(dr_redis_call(f->redis[i], &set, 0, NULL, &err), DR_EIO);
        double took_s = dr_now_s() - begin_s;
        assert_true(took_s > 0.79 && took_s < 4);
    }
    kill(f->pid, SIGCONT);
    wait_for_server(f->redis[0]);
    wait_for_server(f->redis[1]);
    dr_free(bytes);
}

static void a_killed_server_is_an_error_and_no_signal(void **state)
{
    fixture *f = *state;
    uint64_t before[2];
    for (int i = 0; i < 2; i++) {
        wait_for_server(f->redis[i]);
        before[i] = dr_redis_connections(f->redis[i]);
    }
    stop_server(f, SIGKILL);
    for (int i = 0; i < 2; i++) {
        dr_err err = { 0 };
        dr_cmd c = { 0 };
        dr_cmd_str(&c, "PING");
        for (int n = 0; n < 3; n++)
            assert_int_equal(dr_redis_call(f->redis[i], &c, 0, NULL, &err), DR_EIO);
        assert_non_null(strstr(err.message, "Connection refused"));
    }
    start_server(f);
    for (int i = 0; i < 2; i++) {
        wait_for_server(f->redis[i]);
        assert_int_equal(dr_redis_connections(f->redis[i]), before[i] + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_values_go_both_ways),
        cmocka_unit_test(bursts_reach_a_subscriber),
        cmocka_unit_test(blocking_commands_may_take_longer),
        cmocka_unit_test(a_frozen_server_is_given_up),
        cmocka_unit_test(a_killed_server_is_an_error_and_no_signal),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
