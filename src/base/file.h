#ifndef DR_BASE_FILE_H
#define DR_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#define DR_PATH_MAX 4096

/* A read-only mapping of a whole file; {0} is none. */
typedef struct {
    const uint8_t *data;
    size_t size;
} dr_map;

/* Append a file's bytes to out; DR_ENOTFOUND when it cannot be opened, DR_EINVAL when it
 * is larger than max bytes. */
DR_MUST_USE dr_status dr_file_read(const char *path, size_t max, dr_buf *out, dr_err *err);

/* Write beside path and rename over it, so that a reader never sees half a file. */
DR_MUST_USE dr_status dr_file_write(const char *path, const void *p, size_t n, dr_err *err);

DR_MUST_USE dr_status dr_map_open(dr_map *out, const char *path, dr_err *err);
void dr_map_close(dr_map *m); /* accepts {0} */
/* n bytes at p, inside a map, were read for now: they no longer count as memory of the
 * process. They may be read again, from the system's file cache as long as it has them. */
void dr_map_forget(const void *p, size_t n);

/* Join dir and name into out; DR_EINVAL when it does not fit. name is trusted here. */
DR_MUST_USE dr_status dr_path_join(char out[DR_PATH_MAX], const char *dir, const char *name,
                                   dr_err *err);

/* Keep a file, made when it is not there, from other holders, in this process or others,
 * for up to wait_ms; → what dr_file_unlock takes, -1 when it could not be had. The end of
 * the process lets go of it too. */
DR_MUST_USE int dr_file_lock(const char *path, int64_t wait_ms);
void dr_file_unlock(int lock); /* accepts -1 */

int dr_file_exists(const char *path);
int dr_dir_exists(const char *path);

/* mkdir -p. */
DR_MUST_USE dr_status dr_mkdirs(const char *path, dr_err *err);

/* The folder for darkroom's caches: conf value when not empty, else
 * $XDG_CACHE_HOME/darkroom, else ~/.cache/darkroom; created. */
DR_MUST_USE dr_status dr_cache_dir(char out[DR_PATH_MAX], const char *conf, dr_err *err);

/* The folder of the running program, for data found relative to it. */
DR_MUST_USE dr_status dr_program_dir(char out[DR_PATH_MAX], dr_err *err);

#endif
