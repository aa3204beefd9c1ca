#include "base/host.h"

#include "base/buf.h"
#include "base/file.h"

#include <stdlib.h>
#include <unistd.h>

/* What a file of one number says; "max" and whatever else is none is no limit. */
static uint64_t limit_in(const char *path)
{
    dr_buf text = { 0 };
    dr_err err = { 0 };
    uint64_t bytes = 0;
    if (!dr_file_read(path, 64, &text, &err) && text.len)
        bytes = strtoull(text.data, NULL, 10);
    dr_buf_free(&text);
    return bytes ? bytes : UINT64_MAX;
}

uint64_t dr_host_memory(void)
{
    static const char *const limits[] = { "/sys/fs/cgroup/memory.max",
                                          "/sys/fs/cgroup/memory/memory.limit_in_bytes" };
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes =
        pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    for (size_t i = 0; i < DR_COUNT(limits); i++) {
        uint64_t limit = limit_in(limits[i]);
        bytes = limit < bytes ? limit : bytes;
    }
    return bytes;
}
