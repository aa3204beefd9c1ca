#include "base/cache.h"

#include "base/hash.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define CACHE_BYTES_MAX ((size_t)256 << 20)
#define HEAD_BYTES      96

bool dr_cache_path(char path[DR_PATH_MAX], const dr_conf *conf, const char *name)
{
    char dir[DR_PATH_MAX];
    return strcmp(conf->device.cache_dir, "off") != 0 &&
           !dr_cache_dir(dir, conf->device.cache_dir, NULL) &&
           !dr_path_join(path, dir, name, NULL);
}

/* The line that a file with these contents begins with; false when memory is out. */
static bool head_of(char head[HEAD_BYTES], const char *format, const void *p, size_t n)
{
    dr_hash *h = dr_hash_new();
    if (!h)
        return false;
    dr_hash_add(h, p, n);
    snprintf(head, HEAD_BYTES, "%s %s\n", format, dr_hash_end(h).hex);
    return true;
}

bool dr_cache_read(dr_buf *out, const char *path, const char *format)
{
    char head[HEAD_BYTES];
    dr_buf file = { 0 };
    bool hit = false;
    if (dr_file_read(path, CACHE_BYTES_MAX, &file, NULL))
        goto done;
    const char *end = file.len ? memchr(file.data, '\n', file.len) : NULL;
    if (!end)
        goto done;
    size_t at = (size_t)(end + 1 - file.data);
    if (!head_of(head, format, file.data + at, file.len - at) || strlen(head) != at ||
        memcmp(head, file.data, at) != 0)
        goto done;
    dr_buf_put(out, file.data + at, file.len - at);
    hit = !out->failed;
done:
    dr_buf_free(&file);
    return hit;
}

void dr_cache_write(const char *path, const char *format, const void *p, size_t n)
{
    char head[HEAD_BYTES], quoted[600];
    dr_buf file = { 0 };
    dr_err err = { 0 };
    if (n <= CACHE_BYTES_MAX && head_of(head, format, p, n)) {
        dr_buf_puts(&file, head);
        dr_buf_put(&file, p, n);
        if (!file.failed && dr_file_write(path, file.data, file.len, &err))
            dr_log(DR_WARN, "cache.write", "message=%s",
                   dr_log_quote(quoted, sizeof quoted, err.message));
    }
    dr_buf_free(&file);
}
