/* Convolution kernels, compiled for AVX-512 with the tile unit. */
#include "backend/cpu/conv_body.h"

const struct kernel kernel_file_conv_amx[] = {
    {"conv2d", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, conv_workspace, conv_run},
    {"conv2d_grad_input", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, conv_input_workspace, conv_input_run},
    {"conv2d_grad_weight", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, conv_weight_workspace, conv_weight_run},
    {0},
};
