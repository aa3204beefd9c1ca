#include "diffusion/sheet.h"

#include "image/sheet.h"

#define SIDE_MAX 4096

dr_status dr_sheet_make(dr_picture *out, uint8_t **pixels, uint8_t *rgb, int64_t n,
                        int64_t w, int64_t h, dr_err *err)
{
    dr_image views[DR_IMAGES_MAX], sheet;
    for (int64_t i = 0; i < n; i++)
        views[i] = (dr_image){ .px = rgb + i * w * h * 3, .w = w, .h = h, .channels = 3 };
    dr_status st = dr_image_sheet(&sheet, views, (int)n, SIDE_MAX, err);
    *pixels = sheet.px;
    *out = (dr_picture){ .rgb = sheet.px, .width = sheet.w, .height = sheet.h };
    return st;
}
