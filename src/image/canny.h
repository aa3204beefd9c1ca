#ifndef DR_IMAGE_CANNY_H
#define DR_IMAGE_CANNY_H

#include "image/image.h"

/* The thresholds that ControlNets for Canny edges were trained with, roughly. */
#define DR_CANNY_LOW  100
#define DR_CANNY_HIGH 200

/* *out = the edges of RGB or grey pixels, white on black, three channels: Canny (1986) as
 * OpenCV's cv2.Canny(rgb, low, high) does it: 3x3 Sobel with repeated edges, of the channel
 * with the largest |dx| + |dy|; thinned across the gradient in four directions; kept when
 * above high, or above low and connected to such a pixel. DR_ENOMEM. */
DR_MUST_USE dr_status dr_image_canny(dr_image *out, const dr_image *im, int low, int high,
                                     dr_err *err);

#endif
