/* Cross-entropy kernels, compiled for AVX2. */
#include "backend/cpu/cross_entropy_body.h"

const struct kernel kernel_file_cross_entropy_avx2[] = {
    {"cross_entropy", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, cross_entropy_accepts, cross_entropy_workspace, cross_entropy_run},
    {"cross_entropy_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, cross_entropy_accepts, NULL, cross_entropy_grad_run},
    {0},
};
