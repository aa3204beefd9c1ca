#ifndef DR_DIFFUSION_LORAS_H
#define DR_DIFFUSION_LORAS_H

#include "diffusion/pipeline.h"

/* LoRA sets of a loaded model. A weight that no LoRA of the set touches is the model's own
 * buffer; a touched one gets a private copy, merged on the device once a set and kept for
 * the next job within lora.memory_mb. The model's own weights never change. */

/* What one file of a set was to the model. */
typedef struct {
    char name[DR_NAME_BYTES_MAX + 1];
    int64_t matched,
        unmatched;             /* keys that have a place in the model, and that have none */
    char first_unmatched[160]; /* one of those; "" when there is none */
} dr_lora_count;

typedef struct {
    dr_lora_count file[DR_LORAS_MAX]; /* by name; those of strength 0 are left out */
    int n;
    int64_t bytes; /* device memory of the copies */
    bool merged;   /* now; false: they were kept from an earlier job */
} dr_lora_report;

/* Make the model's weights those of this set (n 0: its own) for the runs that follow; with
 * its text encoder's, the text cache changes too. Cheap for the set of the last run or one
 * that is kept. A strength is in -10..10; NaN: 1, or for the text's part as the UNet's.
 * Strength 0 does nothing, a LoRA named twice has the sum of both. Between runs only.
 *
 * DR_EINVAL: a name or strength that cannot be, DR_ENOTFOUND: no such file in lora.dir
 * (lists those there are), DR_EMODEL: a file that does not fit the model (see nn/lora.h),
 * DR_ENOMEM. err->field is "loras[i]…". After an error the model has its own weights.
 * report may be NULL. */
DR_MUST_USE dr_status dr_loras_apply(dr_model *m, const dr_lora_ref *loras, int n,
                                     dr_lora_report *report, dr_err *err);

/* The same checks without device work, for a plan: all but the files' values. *bytes gets
 * what the copies will take beside the model's weights. */
DR_MUST_USE dr_status dr_loras_check(dr_model *m, const dr_lora_ref *loras, int n,
                                     int64_t *bytes, dr_err *err);

/* Device memory of all copies that are kept, in use or not. */
int64_t dr_loras_bytes(const dr_model *m);

/* Free the copies that are not in use: for a run that ended with DR_ENOMEM. → whether there
 * were any. */
bool dr_loras_make_room(dr_model *m);

/* Whether two lists ask for the same; jobs may share a forward pass only then. */
bool dr_loras_equal(const dr_lora_ref *a, int n_a, const dr_lora_ref *b, int n_b);

/* Part of a model's loading and closing; close accepts a model that has none. */
DR_MUST_USE dr_status dr_loras_open(dr_model *m, const dr_conf *conf, dr_err *err);
void dr_loras_close(dr_model *m);

#endif
