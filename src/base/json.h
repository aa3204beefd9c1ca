#ifndef DR_BASE_JSON_H
#define DR_BASE_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

/* The one door to cJSON for reading, and small writers for JSON text in a dr_buf. */
typedef struct cJSON dr_json;

typedef enum {
    DR_JSON_NULL,
    DR_JSON_BOOL,
    DR_JSON_NUMBER,
    DR_JSON_STRING,
    DR_JSON_ARRAY,
    DR_JSON_OBJECT
} dr_json_kind;

/* Parse n bytes; the whole text must be one value. Free the root with dr_json_free. */
DR_MUST_USE dr_status dr_json_parse(dr_json **out, const char *text, size_t n, dr_err *err);
/* Read and parse a file of at most 64 MiB. */
DR_MUST_USE dr_status dr_json_read(dr_json **out, const char *path, dr_err *err);
void dr_json_free(dr_json *j); /* accepts NULL */

dr_json_kind dr_json_type(const dr_json *j); /* NULL reads as DR_JSON_NULL */
double dr_json_number(const dr_json *j);
bool dr_json_bool(const dr_json *j);
const char *dr_json_string(const dr_json *j); /* NULL unless a string */

/* Walk the items of an array or object: for (i = first(j); i; i = next(i)). */
const dr_json *dr_json_first(const dr_json *j);
const dr_json *dr_json_next(const dr_json *item);
const char *dr_json_key(const dr_json *item); /* "" outside an object */
int dr_json_count(const dr_json *j);

const dr_json *dr_json_get(const dr_json *obj, const char *key); /* NULL when absent */
const dr_json *dr_json_at(const dr_json *array, int i);

/* A member of an object, or fallback when it is absent, null or of another type. */
double dr_json_get_number(const dr_json *obj, const char *key, double fallback);
bool dr_json_get_bool(const dr_json *obj, const char *key, bool fallback);
const char *dr_json_get_string(const dr_json *obj, const char *key, const char *fallback);

/* Writers: a quoted, escaped string; a number ("null" for NaN and Inf); a whole parsed
 * value again as compact text. */
void dr_json_put_string(dr_buf *b, const char *s);
void dr_json_put_number(dr_buf *b, double v);
void dr_json_put(dr_buf *b, const dr_json *j);

#endif
