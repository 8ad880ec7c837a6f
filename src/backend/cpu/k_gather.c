/* Embedding, rope and cache kernels, compiled for any processor. */
#include "backend/cpu/gather_body.h"

const struct kernel kernel_file_gather[] = {
    {"embedding", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, embedding_accepts, NULL, embedding_run},
    {"embedding_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, embedding_accepts, NULL, embedding_grad_run},
    {"rope", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, rope_accepts, rope_workspace, rope_run},
    {"cache_write", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, cache_accepts, NULL, cache_run},
    {0},
};
