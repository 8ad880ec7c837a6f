/* Kernels that move data, compiled for any processor. */
#include "backend/cpu/move_body.h"

const struct kernel kernel_file_move[] = {
    {"permute", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, move_accepts, NULL, permute_run},
    {"expand", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, move_accepts, NULL, expand_run},
    {0},
};
