#ifndef DR_BASE_KNOWN_H
#define DR_BASE_KNOWN_H

#include "base/buf.h"

/* What an error about an unknown name ends with, for those who cannot look into the folder:
 * "there are: a, b, c and 4 more" (20 at most, sorted), "lora.dir holds none" or "lora.dir
 * is not set". setting is the name of dir's; suffix is what the files end in, and is left
 * out; NULL: the names are those of sub-folders. Without memory it tells of fewer. */
void dr_known_names(dr_buf *out, const char *setting, const char *dir, const char *suffix);

#endif
