#ifndef DR_JOB_READ_H
#define DR_JOB_READ_H

#include "job/value.h"

/* Reading a value as what a field needs. Text counts as what it spells in every shape of a
 * job: "20" is a whole number, "true" a bool. Each returns false when v is nothing of that
 * kind; *out is then undefined. */

/* 20, 20.0, "20" and "2e1", but not 20.5; a double only up to 2^53. */
bool dr_value_int(const dr_value *v, int64_t *out);
/* The same from 0 to 2^64 - 1. */
bool dr_value_uint(const dr_value *v, uint64_t *out);
/* Finite numbers. */
bool dr_value_float(const dr_value *v, double *out);
/* true, 1, "true", "yes", "on", "1" and their opposites. */
bool dr_value_bool(const dr_value *v, bool *out);
/* Whether v is this very text. */
bool dr_value_is(const dr_value *v, const char *word);

/* A value for a message, short and in printable ASCII. */
typedef struct {
    char text[64];
} dr_shown;
dr_shown dr_value_show(const dr_value *v);

#endif
