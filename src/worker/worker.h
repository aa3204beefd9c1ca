#ifndef DR_WORKER_WORKER_H
#define DR_WORKER_WORKER_H

#include "base/conf.h"
#include "base/err.h"

#include <stdint.h>

/* Load device and model, take jobs from Redis and make their pictures until SIGTERM or
 * SIGINT (installs handlers for both: the first lets the running job go on for up to
 * worker.drain_ms, the second exits at once with 128 + its number), or until `once` jobs
 * were taken (0: no limit). Redis may be absent or go away at any time; only credentials
 * that it refuses end the worker. DR_OK after an orderly stop. */
DR_MUST_USE dr_status dr_worker_run(const dr_conf *conf, int64_t once, dr_err *err);

#endif
