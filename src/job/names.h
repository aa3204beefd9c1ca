#ifndef DR_JOB_NAMES_H
#define DR_JOB_NAMES_H

#include "base/buf.h"

#include <darkroom/job.h>

/* Samplers and schedules by any spelling that is in use: ours, A1111's, ComfyUI's,
 * diffusers' class names, the Horde's, stable-diffusion.cpp's. Case, blanks, dashes and
 * underscores do not matter, and "+" reads as "p". */

/* Find a sampler. "DPM++ 2M Karras" and "dpmpp_2m_k" name a schedule too; *schedule is
 * DR_SCHEDULE_DEFAULT when the name says nothing about it. False when unknown. */
bool dr_sampler_parse(const char *text, dr_sampler_id *sampler, dr_schedule_id *schedule);

/* Find a schedule; "automatic" is DR_SCHEDULE_DEFAULT. False when unknown. */
bool dr_schedule_parse(const char *text, dr_schedule_id *schedule);

/* "ddim, euler, euler_a, …" and "normal, karras, …". */
#define DR_NAMES_BYTES 256
const char *dr_sampler_list(char buf[DR_NAMES_BYTES]);
const char *dr_schedule_list(char buf[DR_NAMES_BYTES]);

#endif
