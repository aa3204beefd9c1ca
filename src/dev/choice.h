#ifndef DR_DEV_CHOICE_H
#define DR_DEV_CHOICE_H

#include "base/file.h"
#include "dev/dev.h"

/* Who multiplies matrices on a device: our packed kernels or CLBlast, and with which
 * parameters. In this order: what the settings say (device.gemm, device.tuning), what was
 * measured before (a file in the cache folder), what is usual for the type of device. */

#define DR_TUNINGS_MAX 8

typedef enum { DR_BY_DEFAULT, DR_BY_MEASURE, DR_BY_SETTING } dr_choice_by;

typedef struct {
    bool packed;
    char tuning[DR_PATH_MAX]; /* CLBlast's parameters: a file's name in config/tunings/ or
                                 its path; "": CLBlast's own */
    dr_choice_by by;
    char at[32]; /* by measure: when, "2026-11-28T21:40:00Z", and on whose shapes */
    char shapes[128];
} dr_choice;

/* The choice for a device. A stored one that is broken or another device's is logged and
 * left aside; DR_EINVAL only for settings that are wrong. */
DR_MUST_USE dr_status dr_choice_find(dr_choice *out, const dr_dev_info *info,
                                     const dr_conf *conf, dr_err *err);

/* Whether the settings leave it to what was measured: device.gemm and device.tune are auto,
 * no device.tuning, no kernels of device.cl_dir. */
bool dr_choice_measures(const dr_conf *conf);

/* What is usual for the type of device. */
void dr_choice_default(dr_choice *out, const dr_dev_info *info);

/* The same choice, whoever made it. */
bool dr_choice_same(const dr_choice *a, const dr_choice *b);

/* "packed", "clblast", "clblast pocl-cpu". */
void dr_choice_name(char out[64], const dr_choice *c);

/* Names of files in config/tunings/ that may suit the device, the usual one first; → how
 * many. */
int dr_choice_tunings(const char *names[DR_TUNINGS_MAX], const dr_dev_info *info);

/* The file for what is measured on the device; false: device.cache_dir is off, or the
 * folder cannot be had. The name holds device, driver, CLBlast's version, our kernels and
 * parameters: when one of them changes, nothing has been measured yet. */
bool dr_choice_path(char path[DR_PATH_MAX], const dr_dev_info *info, const dr_conf *conf);

/* Store a choice at dr_choice_path's path, whole or not at all. notes: lines for the reader
 * of the file. c->at is set to now. */
DR_MUST_USE dr_status dr_choice_save(dr_choice *c, const dr_dev_info *info,
                                     const char *path, const char *notes, dr_err *err);

/* What an open device does, and making it do otherwise: kernels are built, parameters
 * handed to CLBlast, where those of an earlier choice stay when this one has none of its
 * own. Weights that lie on the device are not laid out anew: before any are loaded. */
const dr_choice *dr_dev_choice(const dr_dev *d);
DR_MUST_USE dr_status dr_dev_use(dr_dev *d, const dr_choice *choice, const dr_conf *conf,
                                 dr_err *err);

#endif
