#ifndef DR_NN_LORA_H
#define DR_NN_LORA_H

#include "base/arena.h"
#include "nn/load.h"
#include "nn/unet.h"
#include "op/merge.h"

/* Low-rank additions to a model's weights: LoRA (Hu et al. 2021), also of convolutions and
 * through a core tensor (LoCon), LoHa, LoKr (Yeh et al. 2023, LyCORIS) and DoRA (Liu et al.
 * 2024), from safetensors files in the names of kohya (with diffusers' or the original
 * blocks), PEFT and diffusers. Files are untrusted. */

#define DR_LORA_NAME 136 /* bytes of a name, with its NUL */

/* --- what a file may change --- */

typedef enum { DR_LORA_UNET, DR_LORA_TEXT, DR_LORA_PARTS } dr_lora_part;

/* A linear layer or convolution of the model. */
typedef struct {
    const char *name; /* as diffusers has it */
    dr_lora_part part;
    dr_weight_mat *w;
    dr_tensor base; /* w->w as it was loaded, and its layout */
    dr_layout layout;
} dr_lora_layer;

/* A name of a layer: letters, digits and underscores. */
typedef struct {
    const char *flat;
    dr_lora_part part;
    int layer;
} dr_lora_name;

typedef struct {
    dr_lora_layer *layer;
    int n_layers;
    dr_lora_name *name; /* by part and name */
    int n_names;
    int64_t text_c; /* width of the texts that the UNet reads */
} dr_lora_layers;

/* The layers of a loaded model, in mem. */
DR_MUST_USE dr_status dr_lora_layers_make(dr_lora_layers *out, dr_arena *mem,
                                          const dr_unet *m, const dr_mats *unet,
                                          const dr_mats *text, dr_err *err);

/* The layer that a file's key means, its role (".lora_down.weight") left off: n bytes.
 * -1: none. */
int dr_lora_find(const dr_lora_layers *l, const char *key, size_t n);

/* --- files --- */

/* A matrix of a window of s positions, [s, i, 1, o]: whole, a·b, or a·b through a core t.
 */
typedef struct {
    const dr_weight *whole; /* [o, i, s] */
    const dr_weight *a, *b; /* [o, rank] ([rank, o] when a_rows), [rank, i, s] */
    const dr_weight *t;     /* [rank, rank, s], then b is [rank, i]; NULL: none */
    int64_t o, i, s, rank;  /* rank 0: whole */
    bool a_rows;
} dr_lora_factor;

typedef enum { DR_LORA_PLAIN, DR_LORA_HADAMARD, DR_LORA_KRONECKER } dr_lora_kind;

/* What a file does to one layer. */
typedef struct {
    int layer;
    dr_lora_kind kind;
    dr_lora_factor factor[2];   /* one, or the two that are joined */
    double scale;               /* alpha / rank */
    const dr_weight *magnitude; /* NULL: no DoRA */
    bool by_input;              /* its norms are the inputs' */
} dr_lora_module;

typedef struct {
    dr_lora_module *module;
    int n_modules;
    int64_t matched, unmatched;  /* tensors */
    const char *first_unmatched; /* NULL: none */
    bool has[DR_LORA_PARTS];     /* whether it changes the part */
    char name[DR_LORA_NAME];     /* the file's, for messages */
    dr_weights *files;
    dr_arena *mem;
} dr_lora;

/* Read a file's header and find every tensor's place: no values yet. DR_EMODEL: none has a
 * place, one has another shape than its layer needs, its partner is missing, or the file is
 * for another family of models. Keys without a place are counted. */
DR_MUST_USE dr_status dr_lora_open(dr_lora *out, const char *path, const dr_lora_layers *l,
                                   dr_err *err);
void dr_lora_close(dr_lora *f); /* accepts {0}; leaves {0} */

/* y += strength · (the layer's weight as module m alone makes it − base), y and base as
 * rows [k, n]. Linear in strength whatever the kind. In a dry run the tensors' values are
 * checked: DR_EMODEL when one is NaN or infinite. */
void dr_lora_add(dr_run *r, const dr_lora *f, const dr_lora_module *m,
                 const dr_lora_layers *l, dr_tensor y, dr_tensor base, double strength);

#endif
