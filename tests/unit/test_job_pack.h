#ifndef TESTS_UNIT_TEST_JOB_PACK_H
#define TESTS_UNIT_TEST_JOB_PACK_H

#include "test_job.h"

#include <msgpack.h>

/* Jobs as msgpack: a packer's output into a dr_buf, and texts. */

static inline int write_buf(void *buf, const char *p, size_t n)
{
    dr_buf_put(buf, p, n);
    return 0;
}

static inline void pack_text(msgpack_packer *pk, const char *text)
{
    msgpack_pack_str(pk, strlen(text));
    msgpack_pack_str_body(pk, text, strlen(text));
}

#endif
