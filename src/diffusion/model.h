#ifndef DR_DIFFUSION_MODEL_H
#define DR_DIFFUSION_MODEL_H

/* Private to src/diffusion/: what a loaded model consists of. */

#include "base/arena.h"
#include "base/file.h"
#include "base/rng.h"
#include "diffusion/embeddings.h"
#include "diffusion/pipeline.h"
#include "diffusion/sampler.h"
#include "diffusion/text.h"
#include "nn/bpe.h"
#include "nn/clip.h"
#include "nn/taesd.h"
#include "nn/unet.h"
#include "nn/vae.h"

#define DR_MODEL_NAME 128 /* bytes of a name, with its NUL */
#define DR_PARTS      3   /* text encoder, UNet, autoencoder */

/* What the files of one component hold, by their headers. */
typedef struct {
    const char *folder; /* "unet" */
    size_t tensors, file_bytes;
    int64_t parameters;
    size_t f32, f16, bf16; /* tensors */
} dr_part;

/* A chunk's embedding that was computed before. */
typedef struct {
    dr_digest key;
    float *data;   /* [length, width]; NULL: free */
    uint64_t used; /* tick of the last use */
} dr_text_entry;

struct dr_model {
    char name[DR_MODEL_NAME], path[DR_PATH_MAX];
    dr_part parts[DR_PARTS];
    dr_arena *mem;     /* the model's own structures */
    dr_dev *dev;       /* borrowed; NULL: names and shapes only */
    dr_pool *pool;     /* weights */
    dr_run run;        /* activations */
    int64_t band_rows; /* rows of pixels in the autoencoder at once; 0: all that fit */
    dr_bpe *bpe;
    dr_clip clip;
    dr_unet unet;
    dr_vae vae;
    dr_schedule_config schedule;
    dr_text_kv *kv;             /* [unet.n_kv] */
    dr_digest digest[DR_PARTS]; /* of the weights; empty without a device */
    dr_mats mats[DR_PARTS];     /* the weights that LoRAs may change */
    struct dr_loras *loras;     /* and those that do; see diffusion/loras.h */
    dr_digest text_weights;     /* what the text encoder's weights are; "": the base */
    struct {
        int64_t steps;
        double cfg_scale;
    } defaults;
    dr_embeddings *embeddings; /* that prompts may name */
    dr_text_entry *texts;      /* least recently used goes first */
    int64_t n_texts;
    uint64_t tick;
    struct dr_controls *controls; /* ControlNets; see controls.h */
    dr_taesd tiny;                /* decodes previews; conv_in.out 0: there is none */
    float *preview;               /* [latent_c + 1, 3]; NULL: previews are off */
    float *host;                  /* staging for noise and latents, grown at plan time */
    size_t host_count;
    uint8_t *rgb; /* one picture, grown at plan time */
    size_t rgb_bytes;
    dr_arena *plan_mem; /* what the last plan or run was made of */
    dr_steps steps;     /* its sampler's rows */
};

/* What a model folder is called: its last component, cut to fit. */
void dr_model_name_of(char out[DR_MODEL_NAME], const char *path);

/* Whether path is a model folder of a family that this program runs. DR_ENOTFOUND: no such
 * folder, or no model_index.json in it. */
DR_MUST_USE dr_status dr_model_check(const char *path, dr_err *err);

/* Whether the UNet reads a mask and a masked picture beside the latents; and the class of
 * pipelines that run such models. */
bool dr_model_inpaints(const dr_model *m);
const char *dr_model_family(const dr_model *m);

/* Bytes that weights may take on a device: model.memory_mb, or its default when that is 0.
 */
int64_t dr_model_memory(const dr_dev *dev, int64_t memory_mb);
/* Device memory that these parts' weights take, bytes. */
int64_t dr_parts_bytes(const dr_part parts[DR_PARTS]);
/* The same of a folder that is not loaded; reads the files' headers. */
DR_MUST_USE dr_status dr_model_need(int64_t *bytes, const char *path, dr_err *err);

/* dr_model_open without the device's self-test. */
DR_MUST_USE dr_status dr_model_load(dr_model **out, dr_dev *dev, const char *path,
                                    const dr_conf *conf,
                                    void (*progress)(void *ctx, double share), void *ctx,
                                    dr_err *err);
/* Give back the device memory of activations and ControlNets; the next run takes it again.
 * Between runs. */
void dr_model_idle(dr_model *m);

/* Grow the host buffers for n latents of `latent_count` floats and a picture. */
DR_MUST_USE dr_status dr_model_reserve(dr_model *m, size_t floats, size_t rgb_bytes,
                                       dr_err *err);

/* preview.c: fit latents → RGB to the model's own encoder, or read the factors of an
 * earlier fit from the cache folder. Leaves m->preview NULL when the model has none. */
DR_MUST_USE dr_status dr_preview_fit(dr_model *m, const dr_conf *conf, dr_err *err);

/* Steps between the previews of a job, in both of its passes; 0: none. */
int64_t dr_preview_every(const dr_job *job, const dr_plan *plan);

/* What denoised latents [1, h, w, c] show, in m->rgb (which a preview needs beside the
 * picture, see dr_model_reserve): by m's tiny decoder at full size, else a pixel each.
 * coarse: the latter in any case. rgb NULL: m can show nothing so. */
dr_picture dr_preview_make(dr_run *r, dr_model *m, dr_tensor denoised, bool coarse);

/* pic so that its longest side is `size` (0: as it is), of the shape of a picture of max_w
 * x max_h pixels and no larger, in rgb, where pic may lie when it is larger. */
dr_picture dr_preview_fit_size(const dr_picture *pic, uint8_t *rgb, int64_t size,
                               int64_t max_w, int64_t max_h);

#endif
