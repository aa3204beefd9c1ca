#include "queue/tls.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct dr_tls {
    char *ca, *cert, *key;
    bool verify;
};

struct dr_session {
    SSL *ssl;
    BIO_METHOD *method;
    int fd;
    char host[256];
    bool asked, heard;     /* for our certificate; some bytes from the server */
    unsigned long failure; /* OpenSSL's code of the last failed step; 0: see errnum */
    int errnum;            /* 0: closed */
};

/* --- settings --- */

/* A key with a passphrase: nobody is there to be asked. */
static int no_passphrase(char *buf, int size, int writing, void *ctx)
{
    (void)buf, (void)size, (void)writing, (void)ctx;
    return 0;
}

/* The setting at fault, the file and OpenSSL's reason. */
static dr_status bad_file(const char *setting, const char *path, const char *remedy,
                          dr_err *err)
{
    unsigned long code = ERR_peek_error();
    const char *why = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(code))
                                                       : ERR_reason_error_string(code);
    ERR_clear_error();
    return dr_fail_field(err, DR_EINVAL, setting, "%s = %s: %s; %s", setting, path,
                         why ? why : "cannot be read", remedy);
}

static dr_status load_authorities(const dr_tls *t, SSL_CTX *ctx, dr_err *err)
{
    if (!*t->ca) {
        SSL_CTX_set_default_verify_paths(ctx);
        return DR_OK;
    }
    if (SSL_CTX_load_verify_locations(ctx, t->ca, NULL) == 1)
        return DR_OK;
    return bad_file("redis.tls_ca", t->ca,
                    "must be a PEM file with the certificates of the authorities", err);
}

static dr_status load_own(const dr_tls *t, SSL_CTX *ctx, dr_err *err)
{
    if (!*t->cert && !*t->key)
        return DR_OK;
    if (!*t->cert || !*t->key)
        return dr_fail_field(err, DR_EINVAL, *t->cert ? "redis.tls_key" : "redis.tls_cert",
                             "%s is empty: a certificate and its key are needed both; they "
                             "may be in one file",
                             *t->cert ? "redis.tls_key" : "redis.tls_cert");
    if (SSL_CTX_use_certificate_chain_file(ctx, t->cert) != 1)
        return bad_file("redis.tls_cert", t->cert,
                        "must be a PEM file with this side's certificate", err);
    if (SSL_CTX_use_PrivateKey_file(ctx, t->key, SSL_FILETYPE_PEM) != 1)
        return bad_file("redis.tls_key", t->key,
                        "must be a PEM file with the key of redis.tls_cert, without a "
                        "passphrase",
                        err);
    return DR_OK;
}

static dr_status make_context(const dr_tls *t, SSL_CTX **out, dr_err *err)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx)
        return dr_fail(err, DR_EIO, "out of memory");
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Replies carry their lengths, so a cut connection is seen without a goodbye. */
    SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    SSL_CTX_set_verify(ctx, t->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    dr_status st = load_authorities(t, ctx, err);
    if (!st)
        st = load_own(t, ctx, err);
    if (!st)
        *out = ctx;
    else
        SSL_CTX_free(ctx);
    return st;
}

dr_status dr_tls_new(dr_tls **out, const dr_tls_opts *o, dr_err *err)
{
    SSL_CTX *ctx = NULL;
    dr_status st;
    dr_tls *t = dr_alloc(sizeof *t);
    if (t)
        *t = (dr_tls){ .ca = dr_strdup(o->ca),
                       .cert = dr_strdup(o->cert),
                       .key = dr_strdup(o->key),
                       .verify = o->verify };
    if (!t || !t->ca || !t->cert || !t->key)
        st = dr_fail(err, DR_ENOMEM, "out of memory");
    else
        st = make_context(t, &ctx, err);
    SSL_CTX_free(ctx);
    if (st)
        dr_tls_free(t);
    else
        *out = t;
    return st;
}

void dr_tls_free(dr_tls *t)
{
    if (!t)
        return;
    dr_free(t->ca);
    dr_free(t->cert);
    dr_free(t->key);
    dr_free(t);
}

/* --- the socket below: OpenSSL's own would raise SIGPIPE --- */

static int fd_of(BIO *b)
{
    return *(const int *)BIO_get_data(b);
}

static int socket_write(BIO *b, const char *p, int n)
{
    ssize_t sent = send(fd_of(b), p, (size_t)n, MSG_NOSIGNAL);
    BIO_clear_retry_flags(b);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(b);
    return (int)sent;
}

static int socket_read(BIO *b, char *p, int n)
{
    ssize_t got = recv(fd_of(b), p, (size_t)n, 0);
    BIO_clear_retry_flags(b);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(b);
    return (int)got;
}

static long socket_ctrl(BIO *b, int what, long n, void *p)
{
    (void)b, (void)n, (void)p;
    return what == BIO_CTRL_FLUSH;
}

static BIO *new_bio(dr_session *s)
{
    s->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
    if (!s->method)
        return NULL;
    BIO_meth_set_write(s->method, socket_write);
    BIO_meth_set_read(s->method, socket_read);
    BIO_meth_set_ctrl(s->method, socket_ctrl);
    BIO *bio = BIO_new(s->method);
    if (!bio)
        return NULL;
    BIO_set_data(bio, &s->fd);
    BIO_set_init(bio, 1);
    return bio;
}

/* --- sessions --- */

/* The server asks for our certificate. Whether it likes it is told after the handshake, by
 * an alert or, when our first bytes cross it, just by a reset. */
static int on_asked(SSL *ssl, void *ctx)
{
    (void)ssl;
    ((dr_session *)ctx)->asked = true;
    return 1;
}

/* The name to check and to ask for (SNI has no addresses). */
static bool set_host(dr_session *s, bool verify)
{
    unsigned char address[sizeof(struct in6_addr)];
    bool is_address = inet_pton(AF_INET, s->host, address) == 1 ||
                      inet_pton(AF_INET6, s->host, address) == 1;
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (!is_address && SSL_set_tlsext_host_name(s->ssl, s->host) != 1)
        return false;
    if (!verify)
        return true;
    return is_address ? X509_VERIFY_PARAM_set1_ip_asc(param, s->host) == 1
                      : SSL_set1_host(s->ssl, s->host) == 1;
}

dr_status dr_session_new(dr_session **out, const dr_tls *t, int fd, const char *host,
                         dr_err *err)
{
    SSL_CTX *ctx = NULL;
    BIO *bio = NULL;
    dr_session *s = dr_alloc(sizeof *s);
    dr_status st = s ? make_context(t, &ctx, err) : dr_fail(err, DR_EIO, "out of memory");
    if (st)
        goto done;
    s->fd = fd;
    snprintf(s->host, sizeof s->host, "%s", host);
    if (!(s->ssl = SSL_new(ctx)) || !(bio = new_bio(s)) || !set_host(s, t->verify)) {
        BIO_free(bio);
        st = dr_fail(err, DR_EIO, "TLS for host \"%s\" cannot be prepared", s->host);
        goto done;
    }
    SSL_set_bio(s->ssl, bio, bio);
    SSL_set_connect_state(s->ssl);
    SSL_set_cert_cb(s->ssl, on_asked, s);
    *out = s;
done:
    SSL_CTX_free(ctx);
    if (st)
        dr_session_free(s);
    return st;
}

void dr_session_free(dr_session *s)
{
    if (!s)
        return;
    ERR_clear_error();
    if (s->ssl && SSL_is_init_finished(s->ssl))
        SSL_shutdown(s->ssl);
    SSL_free(s->ssl);
    BIO_meth_free(s->method);
    ERR_clear_error();
    dr_free(s);
}

static void before_step(void)
{
    ERR_clear_error();
    errno = 0;
}

/* What OpenSSL's return value of a step means. */
static ssize_t after_step(dr_session *s, int ret)
{
    int errnum = errno;
    switch (SSL_get_error(s->ssl, ret)) {
    case SSL_ERROR_NONE:
        return ret;
    case SSL_ERROR_WANT_READ:
        return DR_STEP_READ;
    case SSL_ERROR_WANT_WRITE:
        return DR_STEP_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return DR_STEP_FAILED;
    }
    s->failure = ERR_peek_error();
    s->errnum = errnum;
    return DR_STEP_FAILED;
}

static int at_most(size_t n)
{
    return n < INT_MAX ? (int)n : INT_MAX;
}

ssize_t dr_session_handshake(dr_session *s)
{
    before_step();
    return after_step(s, SSL_do_handshake(s->ssl));
}

ssize_t dr_session_send(dr_session *s, const void *p, size_t n)
{
    before_step();
    return after_step(s, SSL_write(s->ssl, p, at_most(n)));
}

ssize_t dr_session_receive(dr_session *s, void *p, size_t n)
{
    before_step();
    ssize_t step = after_step(s, SSL_read(s->ssl, p, at_most(n)));
    s->heard = s->heard || step > 0;
    return step;
}

/* --- what went wrong --- */

#define OTHER_AUTHORITY "set redis.tls_ca to the PEM file of the authority that signed it"
#define OTHER_NAME      "use a name or address in redis.url that the certificate lists"
#define RENEW           "renew it, or set this machine's clock"
#define OWN_CERTIFICATE "set redis.tls_cert and redis.tls_key to a pair that it trusts"

typedef struct {
    int code;
    const char *remedy;
} advice;

/* Of X509_V_ERR_…: what we refuse. */
static const advice refusals[] = {
    { X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, OTHER_AUTHORITY },
    { X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, OTHER_AUTHORITY },
    { X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, OTHER_AUTHORITY },
    { X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, OTHER_AUTHORITY },
    { X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, OTHER_AUTHORITY },
    { X509_V_ERR_CERT_SIGNATURE_FAILURE, OTHER_AUTHORITY },
    { X509_V_ERR_HOSTNAME_MISMATCH, OTHER_NAME },
    { X509_V_ERR_IP_ADDRESS_MISMATCH, OTHER_NAME },
    { X509_V_ERR_CERT_HAS_EXPIRED, RENEW },
    { X509_V_ERR_CERT_NOT_YET_VALID, RENEW },
};

/* Of SSL_R_…: what the other side refuses or cannot. */
static const advice troubles[] = {
    { SSL_R_WRONG_VERSION_NUMBER, "no TLS on this port: use redis:// or the TLS port" },
    { SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, "TLS 1.2 or later is needed (tls-protocols)" },
    { SSL_R_UNSUPPORTED_PROTOCOL, "TLS 1.2 or later is needed (tls-protocols)" },
    { SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED,
      "the server asks for a certificate: " OWN_CERTIFICATE },
    { SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE,
      "if the server asks for a certificate: " OWN_CERTIFICATE },
    { SSL_R_TLSV1_ALERT_UNKNOWN_CA, "the server refuses ours: " OWN_CERTIFICATE },
    { SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "the server refuses ours: " OWN_CERTIFICATE },
    { SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE,
      "the server refuses ours: " OWN_CERTIFICATE },
    { SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, "ours is too old: renew redis.tls_cert" },
};

static const char *find_advice(const advice *rows, size_t n, int code)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].code == code)
            return rows[i].remedy;
    return NULL;
}

dr_status dr_session_why(dr_session *s, dr_err *err)
{
    long refusal = SSL_get_verify_result(s->ssl);
    const char *end = s->errnum ? strerror(s->errnum) : DR_STEP_CLOSED_TEXT;
    if (!s->failure && s->asked && !s->heard)
        return dr_fail_field(err, DR_EINVAL, "redis.tls_cert",
                             "%s; the server asks for a certificate: " OWN_CERTIFICATE,
                             end);
    if (!s->failure)
        return dr_fail(err, DR_EIO, "%s", end);
    int reason = ERR_GET_REASON(s->failure);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && refusal != X509_V_OK) {
        const char *remedy = find_advice(refusals, DR_COUNT(refusals), (int)refusal);
        return dr_fail_field(err, DR_EINVAL, "redis.tls_ca",
                             "the certificate of \"%s\" is refused: %s; %s", s->host,
                             X509_verify_cert_error_string(refusal),
                             remedy ? remedy : "give the server another one");
    }
    const char *text = ERR_reason_error_string(s->failure);
    const char *remedy = find_advice(troubles, DR_COUNT(troubles), reason);
    text = text ? text : "unknown error";
    if (!remedy)
        return dr_fail(err, DR_EIO, "TLS: %s", text);
    return dr_fail_field(err, DR_EINVAL, "redis.url", "TLS: %s; %s", text, remedy);
}
