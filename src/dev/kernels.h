#ifndef DR_DEV_KERNELS_H
#define DR_DEV_KERNELS_H

/* The kernel registry: K(file, kernel). A kernel, its op, its reference and its bench row
 * share the name. */
#define DR_KERNEL_TABLE(K)                                                                 \
    K("weights.cl", unpack_weights)                                                        \
    K("elementwise.cl", fill)                                                              \
    K("elementwise.cl", prefill)                                                           \
    K("elementwise.cl", activate)                                                          \
    K("elementwise.cl", geglu)                                                             \
    K("elementwise.cl", concat)                                                            \
    K("elementwise.cl", scale)                                                             \
    K("norm.cl", group_norm_partial)                                                       \
    K("norm.cl", group_norm_combine)                                                       \
    K("norm.cl", group_norm_apply)                                                         \
    K("norm.cl", layer_norm)                                                               \
    K("softmax.cl", softmax)                                                               \
    K("conv.cl", unfold)                                                                   \
    K("embed.cl", embed_tokens)                                                            \
    K("embed.cl", embed_timestep)                                                          \
    K("sample.cl", sampler_step)                                                           \
    K("sample.cl", guide)                                                                  \
    K("sample.cl", repaint)                                                                \
    K("sample.cl", linear_rgb)                                                             \
    K("sample.cl", to_rgb8)                                                                \
    K("sample.cl", range)                                                                  \
    K("lora.cl", add_hadamard)                                                             \
    K("lora.cl", add_kronecker)                                                            \
    K("lora.cl", dora_norm)                                                                \
    K("lora.cl", add_dora)

#define DR_KERNEL_ENUM(file, name) DR_K_##name,
typedef enum { DR_KERNEL_TABLE(DR_KERNEL_ENUM) DR_KERNELS } dr_kernel_id;

#endif
