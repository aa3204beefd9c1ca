#include "queue/script.h"

#include "base/buf.h"
#include "base/embed.h"

#include <stdio.h>
#include <string.h>

#define SHA_ARG 1 /* EVALSHA sha keys … */

static const char *const file_names[DR_SCRIPTS] = {
    [DR_SCRIPT_CLAIM] = "claim.lua",
    [DR_SCRIPT_TAKE] = "take.lua",
    [DR_SCRIPT_PEEK] = "peek.lua",
    [DR_SCRIPT_START] = "start.lua",
    [DR_SCRIPT_RENEW] = "renew.lua",
    [DR_SCRIPT_EVENT] = "event.lua",
    [DR_SCRIPT_RETRY] = "retry.lua",
    [DR_SCRIPT_FINISH] = "finish.lua",
    [DR_SCRIPT_RELEASE] = "release.lua",
    [DR_SCRIPT_SUBMIT] = "submit.lua",
    [DR_SCRIPT_BEAT] = "beat.lua",
    [DR_SCRIPT_BYE] = "bye.lua",
    [DR_SCRIPT_JANITOR] = "janitor.lua",
    [DR_SCRIPT_CANCEL] = "cancel.lua",
    [DR_SCRIPT_DEAD_RETRY] = "dead_retry.lua",
    [DR_SCRIPT_DRAIN] = "drain.lua",
    [DR_SCRIPT_STATUS] = "status.lua",
};

static const char *text_of(const char *file_name)
{
    const dr_embedded *file = dr_embedded_find(dr_script_files, file_name);
    return file ? file->text : ""; /* Redis refuses an empty script, which says so */
}

/* The script's first line (its flags), what all scripts share, the rest. */
static void put_script(dr_buf *out, dr_script_id id)
{
    const char *own = text_of(file_names[id]);
    size_t head = strcspn(own, "\n");
    dr_buf_put(out, own, head);
    dr_buf_puts(out, "\n");
    dr_buf_puts(out, text_of("prelude.lua"));
    dr_buf_puts(out, own + head);
}

static dr_status load(dr_scripts *s, dr_redis *r, dr_script_id id, dr_err *err)
{
    dr_cmd c = { 0 };
    dr_buf text = { 0 };
    dr_reply *reply = NULL;
    put_script(&text, id);
    if (text.failed) {
        dr_buf_free(&text);
        return dr_fail(err, DR_ENOMEM, "out of memory");
    }
    dr_cmd_words(&c, "SCRIPT", "LOAD");
    dr_cmd_bytes(&c, text.data, text.len);
    dr_status st = dr_redis_call(r, &c, 0, &reply, err);
    if (!st)
        snprintf(s->sha[id], sizeof s->sha[id], "%s", dr_reply_text(reply, NULL));
    dr_reply_free(reply);
    dr_buf_free(&text);
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
