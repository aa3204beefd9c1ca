#include "base/conf.h"

#include "base/ini.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S(key, member, fallback, help)                                                     \
    {                                                                                      \
        key, DR_CONF_STRING, offsetof(dr_conf, member), 0, 0, fallback, help               \
    }
#define I(key, member, min, max, fallback, help)                                           \
    {                                                                                      \
        key, DR_CONF_INT, offsetof(dr_conf, member), min, max, fallback, help              \
    }
#define B(key, member, fallback, help)                                                     \
    {                                                                                      \
        key, DR_CONF_BOOL, offsetof(dr_conf, member), 0, 1, fallback, help                 \
    }

const dr_conf_row dr_conf_rows[] = {
    S("redis.url", redis.url, "redis://127.0.0.1:6379",
      "Where Redis listens: redis://[user:password@]host:port/db, unix:///path/to/socket,\n"
      "or rediss:// for TLS. Through Sentinel, which also finds the new master after a\n"
      "failover: redis+sentinel://[user:password@]host:port,host:port/master/db\n"
      "(rediss+sentinel:// with TLS). A node of a cluster leads to the right one."),
    I("redis.timeout_ms", redis.timeout_ms, 100, 60000, "5000",
      "Milliseconds to wait for a connection or a reply before the connection counts as\n"
      "lost and is made anew."),
    S("redis.tls_ca", redis.tls_ca, "",
      "PEM file of the authorities that may sign the server's certificate; empty: the\n"
      "system's."),
    S("redis.tls_cert", redis.tls_cert, "",
      "PEM file with this side's certificate, for servers that ask for one."),
    S("redis.tls_key", redis.tls_key, "", "PEM file with the key of redis.tls_cert."),
    B("redis.tls_verify", redis.tls_verify, "yes",
      "Check the server's certificate and name; no: anyone in between can read along."),
    S("redis.sentinel_password", redis.sentinel_password, "",
      "Password of the Sentinels themselves, as [user:]password; empty: none."),
    S("queue.prefix", queue.prefix, "{darkroom}",
      "Start of every key. The braces keep all keys in one hash slot of a Redis cluster."),
    I("queue.block_ms", queue.block_ms, 10, 10000, "1000",
      "Milliseconds an idle worker blocks in Redis for a new job; also how soon it sees\n"
      "that it should stop."),
    S("queue.weights", queue.weights, "8:3:1",
      "How often jobs of high, normal and low go first while all three wait, so that\n"
      "none starves; 1:0:0 serves strictly by class."),
    I("queue.events_maxlen", queue.events_maxlen, 16, 100000, "256",
      "Events kept in a job's event stream for late readers; the oldest are dropped."),
    I("queue.dead_maxlen", queue.dead_maxlen, 1, 1000000, "10000",
      "Entries kept in the dead letter stream; the oldest are dropped."),
    I("lease.ms", lease.ms, 1000, 3600000, "20000",
      "Milliseconds without renewal after which another worker may take a job: the time\n"
      "to recover from a killed worker."),
    I("lease.renew_ms", lease.renew_ms, 100, 600000, "5000",
      "Milliseconds between renewals; a quarter of lease.ms survives three lost replies."),
    I("retry.base_ms", retry.base_ms, 1, 3600000, "1000",
      "Milliseconds before the second attempt of a job that failed for a passing reason\n"
      "(device lost, memory out); doubled with each attempt, half of it random."),
    I("retry.max_ms", retry.max_ms, 1, 86400000, "60000",
      "Longest wait between two attempts."),
    I("retry.crashes_max", retry.crashes_max, 1, 100, "3",
      "Workers that may die while they hold a job before it is put away as poison."),
    S("worker.name", worker.name, "",
      "Name in the consumer group and in events; empty: host name and process id."),
    I("worker.drain_ms", worker.drain_ms, 0, 86400000, "600000",
      "Milliseconds that SIGTERM lets the running job go on before it is handed back."),
    I("worker.timeout_ms", worker.timeout_ms, 0, 2592000000, "3600000",
      "Milliseconds that one run of a job may take unless the job says otherwise;\n"
      "0: no limit."),
    I("worker.stall_ms", worker.stall_ms, 1000, 86400000, "300000",
      "Milliseconds without a finished step after which the device counts as hung: the\n"
      "worker stops renewing and ends, so that another takes the job. Must be longer\n"
      "than the slowest step, decode or load."),
    I("batch.max", batch.max, 0, 8, "0",
      "Pictures of waiting jobs with the same model, size, steps and sampler that run as\n"
      "one batch; fewer when the device's memory says so. 1: each job alone; 0: 4, but 1\n"
      "on CPUs, where a batch takes as long as its jobs one after the other."),
    I("batch.wait_ms", batch.wait_ms, 0, 10000, "0",
      "Milliseconds to wait for more jobs of a batch that is not full; 0: take what is\n"
      "there."),
    I("checkpoint.max_mb", checkpoint.max_mb, 0, 512, "32",
      "Largest state in mebibytes that a running job leaves in Redis when it is handed\n"
      "back, so that the next worker goes on from its step; 0: it begins anew."),
    I("checkpoint.ttl_s", checkpoint.ttl_s, 1, 2592000, "86400",
      "Seconds that such a state is kept."),
    I("result.ttl_s", result.ttl_s, 1, 2592000, "3600",
      "Seconds that results, events and job state stay in Redis once a job ended."),
    I("result.publish_max", result.publish_max, 0, 536870912, "1048576",
      "Largest image in bytes that is also published raw on its channel; above it only\n"
      "the key is announced, because Redis drops subscribers whose buffers overflow."),
    S("model.path", model.path, "",
      "Model folder in diffusers layout (model_index.json inside); empty: the demo model\n"
      "that comes with darkroom."),
    S("model.dir", model.dir, "",
      "Folder whose sub-folders are the models that jobs may name; empty: model.path\n"
      "only. The default model is model.path, else the first one by name."),
    I("model.memory_mb", model.memory_mb, 0, 16777216, "0",
      "Mebibytes of weights that may stay loaded; the least recently used go first.\n"
      "0: three quarters of the device's memory."),
    I("model.affinity_ms", model.affinity_ms, 0, 3600000, "10000",
      "Milliseconds that a job may be passed over by jobs whose model is loaded already."),
    I("model.text_cache", model.text_cache, 0, 100000, "64",
      "Chunks of prompts (75 tokens) whose embeddings stay in memory; the least recently\n"
      "used go first."),
    S("lora.dir", lora.dir, "",
      "Folder of the LoRA files that jobs may name, NAME.safetensors each; empty: those\n"
      "that come with the demo model, none for other models."),
    I("lora.memory_mb", lora.memory_mb, 0, 16777216, "0",
      "Mebibytes of a loaded model's weights that may be kept merged with LoRAs, for the\n"
      "next job with the same ones; the least recently used go first, those in use stay.\n"
      "0: a quarter of the device's memory."),
    S("control.dir", control.dir, "",
      "Folder of ControlNets that jobs may name, a folder NAME in diffusers layout each\n"
      "(config.json inside); empty: none."),
    S("embeddings.dir", embeddings.dir, "",
      "Folder of textual inversions, NAME.safetensors each: a prompt that holds the word\n"
      "NAME reads the vectors of that file; empty: none."),
    S("device.select", device.select, "",
      "OpenCL device: an index from `darkroom devices`, part of its name, or cpu, gpu,\n"
      "accelerator; empty: the first GPU, else the first device."),
    S("device.cl_dir", device.cl_dir, "",
      "Folder to read kernels from instead of the embedded ones, for kernel work."),
    S("device.cache_dir", device.cache_dir, "",
      "Folder for compiled kernels and preview factors; empty: ~/.cache/darkroom; off:\n"
      "no cache on disk."),
    S("device.gemm", device.gemm, "auto",
      "Who multiplies matrices: packed, kernels of our own for CPUs, whose weights take\n"
      "as much memory as in the file; clblast; auto: what device.tune says, else packed\n"
      "on CPUs, clblast elsewhere."),
    S("device.tune", device.tune, "auto",
      "auto: what `darkroom tune` found fastest on this device; where it never ran, the\n"
      "first start on a CPU measures for about a second. off: neither. Both only while\n"
      "device.gemm is auto and device.tuning empty."),
    S("device.tuning", device.tuning, "",
      "File with CLBlast parameters for this device, as in config/tunings/, or the name\n"
      "of one there; empty: the one that comes with darkroom for it, if any; none:\n"
      "CLBlast's own."),
    I("device.attention_tile_mb", device.attention_tile_mb, 1, 4096, "32",
      "Mebibytes that the scores of one attention tile may take; the full score matrix\n"
      "of a 512x512 picture would need 1 GiB."),
    I("device.conv_tile_mb", device.conv_tile_mb, 1, 4096, "32",
      "Mebibytes that the unfolded rows of one convolution tile may take."),
    I("device.band_rows", device.band_rows, 0, 4096, "0",
      "Rows of pixels that the autoencoder works on at once, what others call tiles; the\n"
      "picture is the same. 0: all, or as many as the device's memory takes."),
    I("device.row_group", device.row_group, 0, 1024, "0",
      "Work-items that share a row in norms and softmax, a power of two; 0: 1 on CPUs,\n"
      "128 elsewhere."),
    I("device.lanes", device.lanes, 0, 16, "0",
      "Floats of a vector that the kernels for CPUs are made for, 8 or 16; 0: as many as\n"
      "the device says, 16 with AVX-512."),
    B("device.self_test", device.self_test, "yes",
      "Compare each kernel with its reference at start; a device that fails takes no\n"
      "jobs."),
    I("output.quality", output.quality, 0, 100, "90",
      "WebP quality for jobs that do not say; 90 is where differences stop being seen."),
    I("output.preview_every", output.preview_every, 0, 1000, "0",
      "Steps between previews for jobs that do not say; 0: none."),
    S("metrics.listen", metrics.listen, "",
      "Address for Prometheus and probes as host:port (127.0.0.1:9464, :9464 for all\n"
      "interfaces): /metrics, /healthz, /readyz; empty: none."),
    S("log.level", log.level, "info",
      "Least level that is logged: debug, info, warn, error."),
};
const int dr_conf_row_count = (int)DR_COUNT(dr_conf_rows);

static const dr_conf_row *find(const char *key)
{
    for (int i = 0; i < dr_conf_row_count; i++)
        if (!strcmp(dr_conf_rows[i].key, key))
            return &dr_conf_rows[i];
    return NULL;
}

static dr_status parse_bool(bool *out, const char *value)
{
    static const char *const words[] = {
        "no", "yes", "false", "true", "0", "1", "off", "on"
    };
    for (size_t i = 0; i < DR_COUNT(words); i++)
        if (!strcmp(value, words[i])) {
            *out = i % 2;
            return DR_OK;
        }
    return DR_EINVAL;
}

dr_status dr_conf_set(dr_conf *c, const char *key, const char *value, dr_err *err)
{
    const dr_conf_row *row = find(key);
    if (!row)
        return dr_fail_field(err, DR_EINVAL, key,
                             "unknown setting %s; `darkroom config` lists all", key);
    void *at = (char *)c + row->offset;
    if (row->type == DR_CONF_STRING) {
        char *copy = dr_strdup(value), **slot = at;
        if (!copy)
            return dr_fail(err, DR_ENOMEM, "out of memory");
        dr_free(*slot);
        *slot = copy;
        return DR_OK;
    }
    if (row->type == DR_CONF_BOOL) {
        if (parse_bool(at, value))
            return dr_fail_field(err, DR_EINVAL, key, "%s = %s: must be yes or no", key,
                                 value);
        return DR_OK;
    }
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (errno || end == value || *end || v < row->min || v > row->max)
        return dr_fail_field(err, DR_EINVAL, key,
                             "%s = %s: must be a whole number in %lld..%lld", key, value,
                             (long long)row->min, (long long)row->max);
    *(int64_t *)at = v;
    return DR_OK;
}

dr_status dr_conf_init(dr_conf *c, dr_err *err)
{
    dr_status st = DR_OK;
    *c = (dr_conf){ 0 };
    for (int i = 0; i < dr_conf_row_count && !st; i++)
        st = dr_conf_set(c, dr_conf_rows[i].key, dr_conf_rows[i].fallback, err);
    return st;
}

static dr_status on_ini(void *ctx, const char *section, const char *name, const char *value,
                        dr_err *err)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", section, name);
    return dr_conf_set(ctx, key, value, err);
}

dr_status dr_conf_file(dr_conf *c, const char *path, dr_err *err)
{
    return dr_ini_read(path, on_ini, c, err);
}

dr_status dr_conf_env(dr_conf *c, dr_err *err)
{
    for (int i = 0; i < dr_conf_row_count; i++) {
        char name[128];
        snprintf(name, sizeof name, "DARKROOM_%s", dr_conf_rows[i].key);
        for (char *p = name; *p; p++)
            *p = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
        const char *value = getenv(name);
        dr_status st = value ? dr_conf_set(c, dr_conf_rows[i].key, value, err) : DR_OK;
        if (st) {
            dr_err_wrap(err, "environment %s", name);
            return st;
        }
    }
    return DR_OK;
}

static void print_comment(dr_buf *out, const char *text)
{
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        dr_buf_printf(out, "# %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

void dr_conf_print(dr_buf *out)
{
    char section[64] = "";
    dr_buf_puts(
        out,
        "# darkroom's settings, each with its default. Later wins: this file, then the\n"
        "# environment (DARKROOM_QUEUE_PREFIX for queue.prefix), then the command line\n"
        "# (--set queue.prefix=…).\n");
    for (int i = 0; i < dr_conf_row_count; i++) {
        const dr_conf_row *row = &dr_conf_rows[i];
        size_t n = strcspn(row->key, ".");
        if (strlen(section) != n || strncmp(section, row->key, n)) {
            snprintf(section, sizeof section, "%.*s", (int)n, row->key);
            dr_buf_printf(out, "\n[%s]\n", section);
        }
        print_comment(out, row->help);
        if (row->type == DR_CONF_INT)
            dr_buf_printf(out, "# %lld..%lld\n", (long long)row->min, (long long)row->max);
        dr_buf_printf(out, "%s =%s%s\n", row->key + n + 1, *row->fallback ? " " : "",
                      row->fallback);
    }
}

void dr_conf_free(dr_conf *c)
{
    for (int i = 0; i < dr_conf_row_count; i++)
        if (dr_conf_rows[i].type == DR_CONF_STRING)
            dr_free(*(char **)((char *)c + dr_conf_rows[i].offset));
    *c = (dr_conf){ 0 };
}
