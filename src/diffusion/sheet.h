#ifndef DR_DIFFUSION_SHEET_H
#define DR_DIFFUSION_SHEET_H

#include "diffusion/pipeline.h"

/* *out = a contact sheet of n pictures of w x h pixels that stand behind one another at
 * rgb. No side is longer than 4096 pixels: then the pictures are shrunk. The caller frees
 * *pixels, whom out borrows from, with dr_free. DR_ENOMEM. */
DR_MUST_USE dr_status dr_sheet_make(dr_picture *out, uint8_t **pixels, uint8_t *rgb,
                                    int64_t n, int64_t w, int64_t h, dr_err *err);

#endif
