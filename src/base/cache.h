#ifndef DR_BASE_CACHE_H
#define DR_BASE_CACHE_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/file.h"

#include <stdbool.h>

/* Files that can be made again: compiled kernels, preview factors. Each begins with a line
 * "FORMAT DIGEST", so that half a file or a spoilt one is a miss: OpenCL drivers abort the
 * process on a broken binary. */

/* The file for `name` in conf's cache folder, which is made; false when the cache is off
 * or the folder cannot be had. */
bool dr_cache_path(char path[DR_PATH_MAX], const dr_conf *conf, const char *name);

/* Append the contents of a file written with the same format; false is a miss, whatever
 * the trouble. */
bool dr_cache_read(dr_buf *out, const char *path, const char *format);

/* Trouble is logged, no more. */
void dr_cache_write(const char *path, const char *format, const void *p, size_t n);

#endif
