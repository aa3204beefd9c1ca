#include "base/file.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static dr_status fail_open(const char *path, dr_err *err)
{
    return dr_fail(err, errno == ENOENT || errno == ENOTDIR ? DR_ENOTFOUND : DR_EIO,
                   "%s: %s", path, strerror(errno));
}

dr_status dr_file_read(const char *path, size_t max, dr_buf *out, dr_err *err)
{
    dr_status st = DR_OK;
    char block[16384];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f)
        return fail_open(path, err);
    while ((n = fread(block, 1, sizeof block, f)) > 0) {
        if (out->len + n > max) {
            st = dr_fail(err, DR_EINVAL, "%s: larger than %zu bytes", path, max);
            goto done;
        }
        dr_buf_put(out, block, n);
    }
    if (ferror(f))
        st = dr_fail(err, DR_EIO, "%s: %s", path, strerror(errno));
    else if (out->failed)
        st = dr_fail(err, DR_ENOMEM, "%s: out of memory", path);
done:
    fclose(f);
    return st;
}

dr_status dr_file_write(const char *path, const void *p, size_t n, dr_err *err)
{
    char tmp[DR_PATH_MAX];
    int len = snprintf(tmp, sizeof tmp, "%s.%ld.tmp", path, (long)getpid());
    if (len < 0 || (size_t)len >= sizeof tmp)
        return dr_fail(err, DR_EINVAL, "path too long: %.80s…", path);
    FILE *f = fopen(tmp, "wb");
    if (!f)
        return dr_fail(err, DR_EIO, "%s: %s", tmp, strerror(errno));
    int bad = fwrite(p, 1, n, f) != n;
    bad |= fclose(f) != 0;
    bad = bad || rename(tmp, path) != 0;
    if (!bad)
        return DR_OK;
    dr_fail(err, DR_EIO, "%s: %s", path, strerror(errno));
    unlink(tmp);
    return DR_EIO;
}

dr_status dr_map_open(dr_map *out, const char *path, dr_err *err)
{
    struct stat s;
    dr_status st = DR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_open(path, err);
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode) || s.st_size <= 0) {
        st = dr_fail(err, DR_EIO, "%s: empty or not a regular file", path);
        goto done;
    }
    void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        st = dr_fail(err, DR_EIO, "%s: mmap: %s", path, strerror(errno));
        goto done;
    }
    *out = (dr_map){ .data = p, .size = (size_t)s.st_size };
done:
    close(fd);
    return st;
}

void dr_map_close(dr_map *m)
{
    if (m->data)
        munmap((void *)m->data, m->size);
    *m = (dr_map){ 0 };
}

void dr_map_forget(const void *p, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE),
           before = (page - (uintptr_t)p % page) % page;
    if (n > before + page)
        (void)!madvise((uint8_t *)p + before, (n - before) / page * page, MADV_DONTNEED);
}

dr_status dr_path_join(char out[DR_PATH_MAX], const char *dir, const char *name,
                       dr_err *err)
{
    int n = snprintf(out, DR_PATH_MAX, "%s/%s", dir, name);
    if (n < 0 || n >= DR_PATH_MAX)
        return dr_fail(err, DR_EINVAL, "path too long: %.80s…/%.80s…", dir, name);
    return DR_OK;
}

#define LOCK_POLL_MS 50

int dr_file_lock(const char *path, int64_t wait_ms)
{
    double end_s = dr_now_s() + (double)wait_ms / 1000;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || dr_now_s() >= end_s) {
            close(fd);
            return -1;
        }
        dr_sleep_ms(LOCK_POLL_MS);
    }
    return fd;
}

void dr_file_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}

int dr_file_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

int dr_dir_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

dr_status dr_mkdirs(const char *path, dr_err *err)
{
    char p[DR_PATH_MAX];
    int n = snprintf(p, sizeof p, "%s/", path);
    if (n < 0 || (size_t)n >= sizeof p)
        return dr_fail(err, DR_EINVAL, "path too long: %.80s…", path);
    for (char *s = p + 1; *s; s++) {
        if (*s != '/')
            continue;
        *s = 0;
        if (mkdir(p, 0777) != 0 && errno != EEXIST)
            return dr_fail(err, DR_EIO, "mkdir %s: %s", p, strerror(errno));
        *s = '/';
    }
    return DR_OK;
}

dr_status dr_cache_dir(char out[DR_PATH_MAX], const char *conf, dr_err *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    dr_status st = DR_OK;
    if (conf && *conf)
        snprintf(out, DR_PATH_MAX, "%s", conf);
    else if (xdg && *xdg)
        st = dr_path_join(out, xdg, "darkroom", err);
    else
        st = dr_path_join(out, home && *home ? home : "/tmp", ".cache/darkroom", err);
    return st ? st : dr_mkdirs(out, err);
}

dr_status dr_program_dir(char out[DR_PATH_MAX], dr_err *err)
{
    ssize_t n = readlink("/proc/self/exe", out, DR_PATH_MAX - 1);
    if (n <= 0)
        return dr_fail(err, DR_EIO, "/proc/self/exe: %s", strerror(errno));
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = 0;
    return DR_OK;
}
