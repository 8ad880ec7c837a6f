/* Softmax kernels, compiled for AVX-512. */
#include "backend/cpu/softmax_body.h"

const struct kernel kernel_file_softmax_avx512[] = {
    {"softmax", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, softmax_accepts, NULL, softmax_run},
    {"log_softmax", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, softmax_accepts, NULL, log_softmax_run},
    {"softmax_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, softmax_accepts, NULL, softmax_grad_run},
    {"log_softmax_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, softmax_accepts, NULL, log_softmax_grad_run},
    {0},
};
