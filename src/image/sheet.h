#ifndef DR_IMAGE_SHEET_H
#define DR_IMAGE_SHEET_H

#include "image/image.h"

/* *out = n >= 1 RGB pictures on a grid as near to a square as it gets, in order, row by
 * row, with a thin white border around each. Cells are as large as the largest picture,
 * smaller ones stand in their middle; all are shrunk when a side would be longer than
 * side_max pixels. DR_EINVAL when that leaves nothing of them; DR_ENOMEM. */
DR_MUST_USE dr_status dr_image_sheet(dr_image *out, const dr_image *pictures, int n,
                                     int64_t side_max, dr_err *err);

#endif
