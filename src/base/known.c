#include "base/known.h"

#include "base/arena.h"
#include "base/file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define LISTED_MAX 20

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The bytes of a name to show; 0: it is none of those that are looked for. */
static size_t shown(const char *dir, const char *name, const char *suffix)
{
    char path[DR_PATH_MAX];
    size_t n = strlen(name), tail = suffix ? strlen(suffix) : 0;
    if (*name == '.' || n <= tail)
        return 0;
    if (suffix)
        return strcmp(name + n - tail, suffix) ? 0 : n - tail;
    return !dr_path_join(path, dir, name, NULL) && dr_dir_exists(path) ? n : 0;
}

/* The names in the folder, sorted, in mem; their number. */
static size_t list_names(const char *dir, const char *suffix, dr_arena *mem,
                         const char ***names)
{
    size_t n = 0, cap = 0;
    const struct dirent *e;
    DIR *d = opendir(dir);
    *names = NULL;
    while (d && (e = readdir(d))) {
        size_t length = shown(dir, e->d_name, suffix);
        if (!length)
            continue;
        if (n == cap) {
            const char **grown = dr_arena_alloc(mem, 2 * (cap + 8) * sizeof *grown);
            if (!grown)
                break;
            if (n)
                memcpy(grown, *names, n * sizeof *grown);
            *names = grown;
            cap = 2 * (cap + 8);
        }
        if (((*names)[n] = dr_arena_str(mem, e->d_name, length)))
            n++;
    }
    if (d)
        closedir(d);
    if (n)
        qsort(*names, n, sizeof **names, by_text);
    return n;
}

void dr_known_names(dr_buf *out, const char *setting, const char *dir, const char *suffix)
{
    const char **names;
    dr_arena *mem = dr_arena_new();
    size_t n = mem && *dir ? list_names(dir, suffix, mem, &names) : 0;
    if (!n)
        dr_buf_printf(out, "%s %s", setting, *dir ? "holds none" : "is not set");
    for (size_t i = 0; i < n && i < LISTED_MAX; i++)
        dr_buf_printf(out, "%s%s", i ? ", " : "there are: ", names[i]);
    if (n > LISTED_MAX)
        dr_buf_printf(out, " and %zu more", n - LISTED_MAX);
    dr_arena_free(mem);
}
