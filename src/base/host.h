#ifndef DR_BASE_HOST_H
#define DR_BASE_HOST_H

#include <stdint.h>

/* Bytes of memory that this program may use: the machine's, or what its control group
 * (a container's, a systemd unit's) allows when that is less. 0: unknown. */
uint64_t dr_host_memory(void);

#endif
