#ifndef DR_BASE_ERR_H
#define DR_BASE_ERR_H

#include <stddef.h>
#include <stdint.h>

#define DR_MUST_USE     __attribute__((warn_unused_result))
#define DR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define DR_COUNT(array) (sizeof(array) / sizeof(*(array)))

/* Every fallible function returns one of these; DR_OK is zero. The name of a code
 * (dr_status_name) is what `failed` events and --json output carry. */
typedef enum {
    DR_OK = 0,
    DR_EINVAL,    /* the caller's input is wrong: a job field, an option */
    DR_ENOTFOUND, /* a file, model or device that was named does not exist */
    DR_EMODEL,    /* a model file or config is malformed or unsupported */
    DR_ESHAPE,    /* tensor shapes do not fit together: a bug or a wrong config */
    DR_ENOMEM,    /* host or device memory is too small */
    DR_EDEVICE,   /* OpenCL reported an error */
    DR_ENUMERIC,  /* NaN, Inf or a constant picture came out */
    DR_EIO,       /* file or socket trouble */
    DR_EREDIS,    /* Redis answered with an error */
    DR_ESTOPPED,  /* the caller asked to stop */
    DR_ELOST,     /* the lease belongs to somebody else now */
} dr_status;

/* The detail of a failure. `field` names the job field or option at fault, or is "". */
typedef struct {
    dr_status code;
    char field[48];
    char message[2048];
} dr_err;

/* Format a failure into err (may be NULL) and return code. The message should hold the
 * name, the value, the limit and the remedy. */
dr_status dr_fail(dr_err *err, dr_status code, const char *fmt, ...) DR_PRINTF(3, 4);

/* The same, naming the job field or option at fault. */
dr_status dr_fail_field(dr_err *err, dr_status code, const char *field, const char *fmt,
                        ...) DR_PRINTF(4, 5);

/* Put "context: " in front of err's message (err may be NULL). */
void dr_err_wrap(dr_err *err, const char *fmt, ...) DR_PRINTF(2, 3);

/* A lower-case word for a code: "invalid", "not_found", … Never NULL. */
const char *dr_status_name(dr_status code);

/* out = a * b, or DR_ENOMEM when the product does not fit a size_t. */
DR_MUST_USE dr_status dr_mul(size_t *out, size_t a, size_t b, dr_err *err);

#endif
