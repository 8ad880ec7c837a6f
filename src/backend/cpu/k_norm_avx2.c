/* Norm kernels, compiled for AVX2. */
#include "backend/cpu/norm_body.h"

const struct kernel kernel_file_norm_avx2[] = {
    {"layer_norm", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, NULL, layer_norm_run},
    {"rms_norm", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, NULL, rms_norm_run},
    {"layer_norm_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, norm_grad_workspace, layer_norm_grad_run},
    {"rms_norm_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, norm_grad_workspace, rms_norm_grad_run},
    {0},
};
