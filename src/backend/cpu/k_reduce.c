/* Sums and means, compiled for any processor. */
#include "backend/cpu/reduce_body.h"

const struct kernel kernel_file_reduce[] = {
    {"sum", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, reduce_accepts, reduce_workspace, sum_run},
    {"mean", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, reduce_accepts, reduce_workspace, mean_run},
    {"sum_to", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, sum_to_accepts, sum_to_workspace, sum_to_run},
    {0},
};
