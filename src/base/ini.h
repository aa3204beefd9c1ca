#ifndef DR_BASE_INI_H
#define DR_BASE_INI_H

#include "base/err.h"

/* The one door to inih: call row(ctx, section, key, value, err) for each line of an INI
 * file until it fails. Errors name the file and, when it is not INI, the line. */
typedef dr_status dr_ini_row(void *ctx, const char *section, const char *key,
                             const char *value, dr_err *err);
DR_MUST_USE dr_status dr_ini_read(const char *path, dr_ini_row *row, void *ctx,
                                  dr_err *err);
/* The same of text in memory, called `name` in errors. */
DR_MUST_USE dr_status dr_ini_text(const char *name, const char *text, dr_ini_row *row,
                                  void *ctx, dr_err *err);

#endif
