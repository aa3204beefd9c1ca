#ifndef DR_CLI_PROGRESS_H
#define DR_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Progress on stderr: one line redrawn in place on a terminal, plain lines (each phase and
 * each tenth of the job) in a pipe. */

/* What a `progress` event says. */
typedef struct {
    const char *phase; /* "load", "denoise", … */
    int64_t step, steps;
    double percent;     /* 0..100 of the whole job */
    double it_s, eta_s; /* steps a second, seconds left; 0: unknown */
} dr_bar_state;

typedef struct {
    bool quiet, terminal;
    bool drawn;        /* the cursor stands behind a bar */
    char phase[64];    /* shown last */
    int64_t tenth;     /* of the job, shown last in a pipe */
    double drawn_at_s; /* dr_now_s of the last drawing */
} dr_bar;

/* quiet: show nothing. */
dr_bar dr_bar_make(bool quiet);

/* Show a state. Redraws ten times a second at most, but always a new phase and its last
 * step. */
void dr_bar_show(dr_bar *b, const dr_bar_state *s);

/* Take the line away: before another line is written and at the end. */
void dr_bar_clear(dr_bar *b);

#endif
