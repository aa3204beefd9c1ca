#ifndef DR_OP_TUNE_H
#define DR_OP_TUNE_H

/* Measuring who multiplies fastest on a device: our packed kernels, CLBlast with its own
 * parameters, CLBlast with each file of config/tunings/ that may suit. What is timed are
 * whole operations, as models run them, because the choice brings its own convolution and
 * attention along; a candidate whose results differ from the reference is out. */

#include "base/conf.h"
#include "dev/choice.h"
#include "op/run.h"

typedef enum { DR_TUNE_LINEAR, DR_TUNE_CONV3X3, DR_TUNE_ATTENTION } dr_tune_kind;

/* linear: [m, k] by [k, n]. conv3x3: m pixels, k = 9·inputs, n outputs. attention: m
 * queries, n keys, heads of k channels. */
typedef struct {
    dr_tune_kind kind;
    int64_t m, n, k, heads;
    double calls; /* in what is tuned for: a picture */
} dr_tune_shape;

#define DR_TUNE_SHAPES_MAX 256

typedef struct dr_tune_shapes {
    dr_tune_shape row[DR_TUNE_SHAPES_MAX];
    int n;
} dr_tune_shapes;

/* The main operations of a picture of Stable Diffusion 1.5, 512x512 in 20 guided steps. */
extern const dr_tune_shapes dr_tune_sd15;

/* "linear", "conv3x3", "attention". */
const char *dr_tune_kind_name(dr_tune_kind kind);
/* Floating-point operations of one call. */
double dr_tune_flops(const dr_tune_shape *s);
/* Count `calls` more of a product that a run's watch saw; those that belong to an operation
 * seen already are left out. */
void dr_tune_add(dr_tune_shapes *shapes, const char *label, const struct dr_gemm_args *g,
                 double calls);
/* Most work first; those beyond `most` rows are dropped. */
void dr_tune_cut(dr_tune_shapes *shapes, int most);

/* What came of a candidate. */
typedef struct {
    dr_choice choice;
    double seconds[DR_TUNE_SHAPES_MAX]; /* of one call of each shape; 0: not measured */
    double total_s; /* of all calls; INFINITY: out, or too slow to go on */
    dr_err err;     /* why it is out */
} dr_tune_result;

#define DR_TUNE_CANDIDATES_MAX (DR_TUNINGS_MAX + 3)

typedef struct {
    const dr_conf *conf;
    double budget_s; /* to time all shapes of all candidates; each runs once at least */
    void (*progress)(void *ctx, const char *candidate, double share); /* may be NULL */
    void *ctx;
} dr_tune_opts;

/* Measure the n candidates whose choices results hold, in order. One without a tuning of
 * its own gets CLBlast's parameters only before any that has one (see dr_dev_use). No
 * weights may lie on d. → the fastest; the device's default, where that is among them,
 * unless another takes a tenth less time; -1: all are out. */
int dr_tune_measure(dr_dev *d, const dr_tune_shapes *shapes, dr_tune_result *results, int n,
                    const dr_tune_opts *o);

/* Of all that was measured of a candidate, floating-point operations a second / 1e9. */
double dr_tune_gflops(const dr_tune_shapes *shapes, const dr_tune_result *r);

/* Lines of all results, each led by "; ", for dr_choice_save. */
void dr_tune_notes(dr_buf *out, const dr_tune_shapes *shapes, const dr_tune_result *results,
                   int n);

/* At a program's start, before weights are loaded: where the settings leave the choice to
 * measurements and none was made, compare packed with CLBlast as it comes, on a few small
 * shapes, store the winner, use it and log it. About a second, and what has to be compiled;
 * of programs that start at once one measures and the others take its result. GPUs keep
 * their default: `darkroom tune` measures what may be better. What goes wrong is logged,
 * and d keeps its default; DR_EDEVICE only when it cannot. */
DR_MUST_USE dr_status dr_tune_start(dr_dev *d, const dr_conf *conf, dr_err *err);

#endif
