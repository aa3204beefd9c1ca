#ifndef DR_DIFFUSION_CONTROLS_H
#define DR_DIFFUSION_CONTROLS_H

#include "base/hash.h"
#include "diffusion/model.h"
#include "nn/controlnet.h"

/* Private to src/diffusion/: the ControlNets of control.dir that steer a loaded model. A
 * name is a folder's; the folder holds config.json and diffusion_pytorch_model.safetensors,
 * as diffusers writes them. */

/* One that a job asks for; net and kv are the store's. */
typedef struct {
    const dr_control_ref *ref;
    const dr_controlnet *net;
    dr_text_kv *kv;          /* [net->lower.n_kv] */
    const dr_digest *digest; /* of its weights */
    dr_tensor hint;          /* of its picture, a row for each of the UNet's batch */
} dr_control_use;

/* Those that are loaded, at most DR_CONTROLS_MAX; the least recently used go first. */
typedef struct dr_controls dr_controls;

dr_controls *dr_controls_new(const dr_conf *conf); /* NULL when memory is out */
void dr_controls_free(dr_controls *cs);            /* accepts NULL */
/* Free the weights of all. */
void dr_controls_forget(dr_controls *cs);
/* Device memory of their weights. */
size_t dr_controls_bytes(const dr_controls *cs);

/* Load what the job asks for and is not loaded; uses[0 … *n] are valid until the next call.
 * One of strength 0 is left out: it would change nothing. DR_ENOTFOUND: no such folder;
 * DR_EMODEL: its files are bad; DR_EINVAL: it was made for another family, the message
 * names both widths; DR_ENOMEM: with the model it would take more than model.memory_mb (0:
 * three quarters of the device's memory). */
DR_MUST_USE dr_status dr_controls_take(dr_model *m, const dr_job *job,
                                       dr_control_use uses[DR_CONTROLS_MAX], int *n,
                                       dr_err *err);

/* Read texts [texts, tokens, 1, c], of which row i of the batch reads text_rows[i], and the
 * picture, brought to w × h pixels, for a batch. The hint lives as long as what the caller
 * makes in r now. A picture that cannot be read is r's error. */
void dr_control_read(dr_run *r, dr_control_use *use, dr_tensor texts, const int *text_rows,
                     int64_t w, int64_t h, int64_t batch);

/* Whether it takes part in step i of `steps`: steps that lie wholly between its start and
 * its end, as in diffusers. */
bool dr_control_acts(const dr_control_use *use, int64_t i, int64_t steps);

/* All that tells its effect from another's, into a checkpoint's fingerprint. */
void dr_control_hash(dr_hash *h, const dr_control_use *use);

#endif
