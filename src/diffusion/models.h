#ifndef DR_DIFFUSION_MODELS_H
#define DR_DIFFUSION_MODELS_H

#include "diffusion/pipeline.h"

/* The models that a worker may serve, and which of them are loaded. One thread, the
 * engine's, calls get and make_room; find, name, count, resident and names_json may be
 * called by another one at the same time. */
typedef struct dr_models dr_models;

/* List the models, load none: model.path (the demo model when neither it nor model.dir is
 * set), then every sub-folder of model.dir that holds a model_index.json, by name. The
 * first is the default. model.path being a folder of model.dir is one model. Sub-folders
 * that cannot be read or are of an unknown family are left out, with one log line each; a
 * bad model.path is an error. DR_ENOTFOUND when there is no model at all. dev NULL: for
 * names only. conf and dev must outlive the set. */
DR_MUST_USE dr_status dr_models_open(dr_models **out, dr_dev *dev, const dr_conf *conf,
                                     dr_err *err);
void dr_models_close(dr_models *ms); /* accepts NULL */

/* The index of a job's model (NULL: the default), or -1. A name is a folder's last
 * component, compared exactly; it is never used as a path. An unknown one lets model.dir be
 * read again, at most once a second: models may have been added since. */
int dr_models_find(dr_models *ms, const char *name);
/* Models never go from the list, nor change their index, before close. */
int dr_models_count(dr_models *ms);
const char *dr_models_name(dr_models *ms, int i); /* valid until close */
bool dr_models_resident(dr_models *ms, int i);
/* Append a JSON array of the names: of the loaded ones, or of all. */
void dr_models_names_json(dr_models *ms, bool resident_only, dr_buf *out);

/* Model i, loaded; valid until the next get of another model. The weights of the least
 * recently used ones are freed before it is loaded when all together would take more than
 * model.memory_mb (0: three quarters of the device's memory; counted as `darkroom inspect`
 * does), and all others' when memory runs out nevertheless. Of the models that stay, only
 * the one that was asked last keeps device memory for activations. progress (may be NULL)
 * gets 0..1 while it loads. After an error the set can be used on; DR_ENOMEM when the model
 * alone is larger than the limit. */
DR_MUST_USE dr_status dr_models_get(dr_models *ms, int i,
                                    void (*progress)(void *ctx, double share), void *ctx,
                                    dr_model **out, dr_err *err);

/* Free the weights of all models but `keep` (-1: of all). For a run of `keep` that ended
 * with DR_ENOMEM: false says that there was nothing to free, so that trying again is in
 * vain. */
bool dr_models_make_room(dr_models *ms, int keep);

#endif
