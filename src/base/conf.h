#ifndef DR_BASE_CONF_H
#define DR_BASE_CONF_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The settings of a process. Filled by dr_conf_load in this order, later wins: defaults,
 * INI file, environment (DARKROOM_QUEUE_PREFIX for queue.prefix), command line. Strings
 * are owned by the struct (dr_conf_free). */
typedef struct {
    struct {
        char *url;
        int64_t timeout_ms;
        char *tls_ca, *tls_cert, *tls_key, *sentinel_password;
        bool tls_verify;
    } redis;
    struct {
        char *prefix, *weights;
        int64_t block_ms, events_maxlen, dead_maxlen;
    } queue;
    struct {
        int64_t ms, renew_ms;
    } lease;
    struct {
        int64_t base_ms, max_ms, crashes_max;
    } retry;
    struct {
        char *name;
        int64_t drain_ms, timeout_ms, stall_ms;
    } worker;
    struct {
        int64_t max, wait_ms;
    } batch;
    struct {
        int64_t max_mb, ttl_s;
    } checkpoint;
    struct {
        int64_t ttl_s, publish_max;
    } result;
    struct {
        char *path, *dir;
        int64_t text_cache, memory_mb, affinity_ms;
    } model;
    struct {
        char *dir;
        int64_t memory_mb;
    } lora;
    struct {
        char *dir;
    } control;
    struct {
        char *dir;
    } embeddings;
    struct {
        char *select, *cl_dir, *cache_dir, *gemm, *tune, *tuning;
        int64_t attention_tile_mb, conv_tile_mb, band_rows, row_group, lanes;
        bool self_test;
    } device;
    struct {
        int64_t quality, preview_every;
    } output;
    struct {
        char *listen;
    } metrics;
    struct {
        char *level;
    } log;
} dr_conf;

typedef enum { DR_CONF_STRING, DR_CONF_INT, DR_CONF_BOOL } dr_conf_type;

typedef struct {
    const char *key; /* "section.name" */
    dr_conf_type type;
    size_t offset; /* into dr_conf */
    int64_t min, max;
    const char *fallback; /* the default as text */
    const char *help;     /* what it does, unit and reason */
} dr_conf_row;

extern const dr_conf_row dr_conf_rows[];
extern const int dr_conf_row_count;

/* Defaults only. */
DR_MUST_USE dr_status dr_conf_init(dr_conf *c, dr_err *err);
/* An INI file; an unknown key or a bad value is an error that names file and key. */
DR_MUST_USE dr_status dr_conf_file(dr_conf *c, const char *path, dr_err *err);
/* DARKROOM_SECTION_NAME variables. */
DR_MUST_USE dr_status dr_conf_env(dr_conf *c, dr_err *err);
/* One key from text; checks type and bounds. */
DR_MUST_USE dr_status dr_conf_set(dr_conf *c, const char *key, const char *value,
                                  dr_err *err);
/* The table as a commented INI file: what config/darkroom.conf must equal. */
void dr_conf_print(dr_buf *out);
void dr_conf_free(dr_conf *c);

#endif
