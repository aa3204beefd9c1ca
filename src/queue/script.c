#include "queue/script.h"

#include "base/embed.h"

#include <stdio.h>
#include <string.h>

#define SHA_ARG 1 /* EVALSHA sha keys … */

static const char *const file_names[DR_SCRIPTS] = {
    [DR_SCRIPT_CLAIM] = "claim.lua",   [DR_SCRIPT_START] = "start.lua",
    [DR_SCRIPT_RENEW] = "renew.lua",   [DR_SCRIPT_EVENT] = "event.lua",
    [DR_SCRIPT_FINISH] = "finish.lua", [DR_SCRIPT_RELEASE] = "release.lua",
    [DR_SCRIPT_SUBMIT] = "submit.lua", [DR_SCRIPT_BEAT] = "beat.lua",
    [DR_SCRIPT_BYE] = "bye.lua",
};

static const char *text_of(dr_script_id id)
{
    const dr_embedded *file = dr_embedded_find(dr_script_files, file_names[id]);
    if (file)
        return file->text;
    return ""; /* Redis refuses an empty script: a build without its files says so */
}

static dr_status load(dr_scripts *s, dr_redis *r, dr_script_id id, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_reply *reply = NULL;
    dr_cmd_words(&c, "SCRIPT", "LOAD", text_of(id));
    dr_status st = dr_redis_call(r, &c, 0, &reply, err);
    if (!st)
        snprintf(s->sha[id], sizeof s->sha[id], "%s", dr_reply_text(reply, NULL));
    dr_reply_free(reply);
    return st;
}

void dr_script_begin(dr_cmd *c, int keys)
{
    dr_cmd_words(c, "EVALSHA", "");
    dr_cmd_int(c, keys);
}

dr_status dr_script_call(dr_scripts *s, dr_redis *r, dr_script_id id, dr_cmd *c,
                         dr_reply **out, dr_err *err)
{
    dr_err local = { 0 }, *e = err ? err : &local;
    dr_status st = DR_OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        if ((!*s->sha[id] || attempt) && (st = load(s, r, id, e)))
            return st;
        c->arg[SHA_ARG] = s->sha[id];
        c->size[SHA_ARG] = strlen(s->sha[id]);
        st = dr_redis_call(r, c, 0, out, e);
        if (st != DR_EREDIS || !dr_redis_says(e, "NOSCRIPT"))
            break;
    }
    return st;
}
