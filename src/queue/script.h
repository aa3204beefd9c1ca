#ifndef DR_QUEUE_SCRIPT_H
#define DR_QUEUE_SCRIPT_H

#include "queue/redis.h"

/* The Lua scripts of lua/, one for each change of more than one key. Each says in its head
 * what it takes, answers and promises; all may be called again after a lost reply. */
typedef enum {
    DR_SCRIPT_CLAIM,
    DR_SCRIPT_TAKE,
    DR_SCRIPT_PEEK,
    DR_SCRIPT_START,
    DR_SCRIPT_RENEW,
    DR_SCRIPT_EVENT,
    DR_SCRIPT_RETRY,
    DR_SCRIPT_FINISH,
    DR_SCRIPT_RELEASE,
    DR_SCRIPT_SUBMIT,
    DR_SCRIPT_BEAT,
    DR_SCRIPT_BYE,
    DR_SCRIPT_JANITOR,
    DR_SCRIPT_CANCEL,
    DR_SCRIPT_DEAD_RETRY,
    DR_SCRIPT_DRAIN,
    DR_SCRIPT_STATUS,
    DR_SCRIPTS
} dr_script_id;

/* What a server calls the scripts (SHA-1), learnt by SCRIPT LOAD. {0}: nothing yet. */
typedef struct {
    char sha[DR_SCRIPTS][41];
} dr_scripts;

/* Begin a call: its `keys` keys are appended next, then its arguments. */
void dr_script_begin(dr_cmd *c, int keys);

/* Run it by EVALSHA, loading the script when the server does not know it. Statuses as of
 * dr_redis_call. */
DR_MUST_USE dr_status dr_script_call(dr_scripts *s, dr_redis *r, dr_script_id id, dr_cmd *c,
                                     dr_reply **out, dr_err *err);

#endif
