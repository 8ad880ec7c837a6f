/* Pooling kernels, compiled for any processor. */
#include "backend/cpu/pool_body.h"

const struct kernel kernel_file_pool[] = {
    {"max_pool2d", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, max_pool_accepts, NULL, max_pool_run},
    {"max_pool2d_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, max_pool_back_accepts, NULL, max_pool_back_run},
    {0},
};
