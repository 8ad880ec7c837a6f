/* Linear cross-entropy for AVX-512 with the tile unit. */
#include "backend/cpu/linear_cross_entropy_body.h"

const struct kernel kernel_file_linear_cross_entropy_amx[] = {HEAD_KERNELS(SIMD_NAME)};
