#ifndef DR_BASE_EMBED_H
#define DR_BASE_EMBED_H

/* Text files that the build put into the program; a NULL name ends a table. */
typedef struct {
    const char *name; /* "norm.cl" */
    const char *text;
} dr_embedded;

extern const dr_embedded dr_kernel_files[]; /* cl/ */
extern const dr_embedded dr_script_files[]; /* src/queue/lua/ */
extern const dr_embedded dr_tuning_files[]; /* config/tunings/ */

/* The row called name, or NULL. */
const dr_embedded *dr_embedded_find(const dr_embedded *table, const char *name);

#endif
