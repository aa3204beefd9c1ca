#ifndef DR_DIFFUSION_LORA_WISH_H
#define DR_DIFFUSION_LORA_WISH_H

/* Private to src/diffusion/: which LoRA files a job asks for. */

#include "base/hash.h"
#include "nn/lora.h"

#include <darkroom/job.h>
#include <sys/stat.h>

/* One file with its strengths, by part. */
typedef struct {
    const char *name;
    double strength[DR_LORA_PARTS];
    int place; /* in the job's list, for messages */
    struct stat file;
} dr_lora_item;

/* A job's list put in order: by name, each once, none of strength 0. */
typedef struct {
    dr_lora_item item[DR_LORAS_MAX];
    int n;
} dr_lora_wish;

/* Check the list and find its files in dir ("": there are none); names are borrowed. See
 * dr_loras_apply for strengths and errors. */
DR_MUST_USE dr_status dr_lora_wish_read(dr_lora_wish *out, const char *dir,
                                        const dr_lora_ref *refs, int n, dr_err *err);

/* What tells wishes apart: names, strengths, and the files' identity, so that one that was
 * replaced under its name is another. */
DR_MUST_USE dr_status dr_lora_wish_key(dr_digest *out, const dr_lora_wish *w, dr_err *err);
/* The same of what its opened files do to the text encoder; "" when that is nothing. */
DR_MUST_USE dr_status dr_lora_wish_text_key(dr_digest *out, const dr_lora_wish *w,
                                            const dr_lora *files, dr_err *err);

/* Open its files, files[w->n]; on failure none stays open. */
DR_MUST_USE dr_status dr_lora_wish_open(const dr_lora_wish *w, const char *dir,
                                        const dr_lora_layers *l, dr_lora *files,
                                        dr_err *err);
void dr_lora_wish_close(dr_lora *files, int n);

#endif
