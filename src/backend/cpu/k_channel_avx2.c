/* Kernels over channels (batch norm, sums), compiled for AVX2. */
#include "backend/cpu/channel_body.h"

const struct kernel kernel_file_channel_avx2[] = {
    {"batch_norm", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, NULL, batch_norm_run},
    {"batch_norm_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, NULL, batch_norm_grad_run},
    {"sum", "channels_" SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, channel_sum_accepts, NULL, channel_sum_run},
    {0},
};
