#ifndef DR_BASE_LOG_H
#define DR_BASE_LOG_H

/* One line, one event, in logfmt on stderr:
 *   ts=2026-11-24T21:40:00.123Z level=info ev=job.done id=17-0 ms=8412
 * dr_log(DR_INFO, "job.done", "id=%s ms=%lld", …): the caller writes key=value pairs;
 * values that may hold spaces or quotes go through dr_log_quote. Any thread. */
typedef enum { DR_DEBUG, DR_INFO, DR_WARN, DR_ERROR } dr_level;

void dr_log(dr_level level, const char *ev, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Lines below this level are dropped. Set once, before threads start. */
void dr_log_level(dr_level level);

/* "debug" | "info" | "warn" | "error" → *out; 0 when known, -1 otherwise. */
int dr_log_level_parse(const char *name, dr_level *out);

/* text in double quotes, with quotes, backslashes and control bytes escaped, cut to fit
 * buf; returns buf. */
const char *dr_log_quote(char *buf, unsigned long size, const char *text);

#endif
