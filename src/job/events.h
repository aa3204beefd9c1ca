#ifndef DR_JOB_EVENTS_H
#define DR_JOB_EVENTS_H

#include "base/buf.h"

#include <darkroom/job.h>
#include <stdint.h>

/* The events of a job as JSON text, one object each, fields in a fixed order:
 *   {"event":"image","id":"17-0","seq":5,"worker":"gpu1","ts_ms":1764,"meta":null,…}
 * Every function clears out and writes the whole text; once out has grown to the size of an
 * event nothing is allocated any more. out->failed says that memory ran out. Seeds are
 * numbers below 2^53 and decimal strings from there on. The msgpack form of an event is
 * dr_msgpack_from_json (job/msgpack.h). All pointers are borrowed for the call; texts are
 * made valid UTF-8 and cut to DR_EVENT_TEXT_MAX bytes. */

#define DR_EVENT_TEXT_MAX 2048

/* What all events carry. */
typedef struct {
    const char *id;
    int64_t seq; /* of this job's events, rising */
    const char *worker;
    int64_t ts_ms;         /* milliseconds since 1970 */
    const char *meta_json; /* dr_job's; NULL: null */
} dr_event_head;

typedef struct {
    const char *model, *device;
    int64_t width, height, n;
    int64_t attempt; /* from 1 */
} dr_event_start;

typedef struct {
    const char *phase; /* load, encode, denoise, decode, compress */
    int64_t step, steps;
    double percent;     /* 0..100 of the whole job */
    double it_s, eta_s; /* 0: unknown */
} dr_event_step;

typedef struct {
    int64_t step, width, height;
    const char *key; /* NULL: published only */
} dr_event_peek;

typedef struct {
    int64_t index;
    uint64_t seed;
    int64_t width, height;
    int64_t bytes;      /* of the encoded picture */
    const char *format; /* "webp" */
    const char *key;
    bool sheet; /* of all pictures of the job */
} dr_event_picture;

typedef struct {
    const char *name;
    int64_t matched, unmatched; /* keys of the file */
} dr_event_lora;

/* Milliseconds. */
typedef struct {
    int64_t wait, load, encode, denoise, decode, compress, total;
} dr_event_times;

typedef struct {
    const char *model;
    dr_sampler_id sampler; /* as planned, never the default's id */
    dr_schedule_id schedule;
    int64_t steps;
    double cfg_scale;
    int64_t width, height;
    uint64_t seed; /* of image 0 */
    const dr_event_picture *images;
    int n_images;
    const dr_event_lora *loras;
    int n_loras; /* 0: nothing is said of them */
    dr_event_times times;
    const char *const *warnings;
    int n_warnings;
} dr_event_success;

typedef struct {
    const char *code;  /* dr_status_name, or timeout, poison, … */
    const char *field; /* NULL or "": none */
    const char *message;
} dr_event_failure;

void dr_event_queued(dr_buf *out, const dr_event_head *head);
void dr_event_started(dr_buf *out, const dr_event_head *head, const dr_event_start *e);
void dr_event_progress(dr_buf *out, const dr_event_head *head, const dr_event_step *e);
void dr_event_preview(dr_buf *out, const dr_event_head *head, const dr_event_peek *e);
void dr_event_image(dr_buf *out, const dr_event_head *head, const dr_event_picture *e);
void dr_event_warning(dr_buf *out, const dr_event_head *head, const char *message);

/* The terminal ones; a job has exactly one. */
void dr_event_succeeded(dr_buf *out, const dr_event_head *head, const dr_event_success *e);
void dr_event_failed(dr_buf *out, const dr_event_head *head, const dr_event_failure *e);
void dr_event_canceled(dr_buf *out, const dr_event_head *head);
void dr_event_expired(dr_buf *out, const dr_event_head *head);

#endif
