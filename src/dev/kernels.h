#ifndef DR_DEV_KERNELS_H
#define DR_DEV_KERNELS_H

/* The kernel registry: K(file, kernel, packed). A kernel, its op, its reference and its
 * bench row share the name. packed 1: only for devices that read packed weights
 * (dr_packed). */
#define DR_KERNEL_TABLE(K)                                                                 \
    K("weights.cl", unpack_weights, 0)                                                     \
    K("weights.cl", pack_weights, 1)                                                       \
    K("weights.cl", unpack_rows, 1)                                                        \
    K("gemm.cl", multiply_packed, 1)                                                       \
    K("attention.cl", pack_keys, 1)                                                        \
    K("attention.cl", attend, 1)                                                           \
    K("winograd.cl", winograd_input, 1)                                                    \
    K("winograd.cl", winograd_multiply, 1)                                                 \
    K("elementwise.cl", fill, 0)                                                           \
    K("elementwise.cl", prefill, 0)                                                        \
    K("elementwise.cl", activate, 0)                                                       \
    K("elementwise.cl", geglu, 0)                                                          \
    K("elementwise.cl", concat, 0)                                                         \
    K("elementwise.cl", scale, 0)                                                          \
    K("norm.cl", group_norm_partial, 0)                                                    \
    K("norm.cl", group_norm_combine, 0)                                                    \
    K("norm.cl", group_norm_apply, 0)                                                      \
    K("norm.cl", layer_norm, 0)                                                            \
    K("softmax.cl", softmax, 0)                                                            \
    K("conv.cl", unfold, 0)                                                                \
    K("embed.cl", embed_tokens, 0)                                                         \
    K("embed.cl", embed_timestep, 0)                                                       \
    K("sample.cl", sampler_step, 0)                                                        \
    K("sample.cl", guide, 0)                                                               \
    K("sample.cl", repaint, 0)                                                             \
    K("sample.cl", linear_rgb, 0)                                                          \
    K("sample.cl", to_rgb8, 0)                                                             \
    K("sample.cl", range, 0)                                                               \
    K("lora.cl", add_hadamard, 0)                                                          \
    K("lora.cl", add_kronecker, 0)                                                         \
    K("lora.cl", dora_norm, 0)                                                             \
    K("lora.cl", add_dora, 0)

#define DR_KERNEL_ENUM(file, name, packed) DR_K_##name,
typedef enum { DR_KERNEL_TABLE(DR_KERNEL_ENUM) DR_KERNELS } dr_kernel_id;

#endif
