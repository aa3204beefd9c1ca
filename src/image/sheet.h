#ifndef DR_IMAGE_SHEET_H
#define DR_IMAGE_SHEET_H

#include "image/image.h"

/* A contact sheet: RGB pictures on a grid as near to a square as it gets, in order, row by
 * row, with a thin white border around each. It is filled picture by picture, so that none
 * of them need be kept. */
typedef struct {
    dr_image image;         /* dr_image_free; {0}: there is no sheet yet */
    int64_t columns, w, h;  /* pixels of a cell, without border */
    int64_t full_w, full_h; /* of the largest picture, which a cell shows whole */
} dr_sheet;

/* *out = a sheet, still white, for n >= 1 pictures of up to w x h pixels. All are shrunk
 * when a side would be longer than side_max pixels. DR_EINVAL when that leaves nothing of
 * them; DR_ENOMEM. */
DR_MUST_USE dr_status dr_sheet_new(dr_sheet *out, int64_t n, int64_t w, int64_t h,
                                   int64_t side_max, dr_err *err);

/* Put a picture into cell i, in its middle. DR_ENOMEM. */
DR_MUST_USE dr_status dr_sheet_place(dr_sheet *s, int64_t i, const dr_image *picture,
                                     dr_err *err);

#endif
