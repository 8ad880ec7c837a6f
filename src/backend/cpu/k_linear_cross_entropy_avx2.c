/* Linear cross-entropy for AVX2. */
#include "backend/cpu/linear_cross_entropy_body.h"

const struct kernel kernel_file_linear_cross_entropy_avx2[] = {HEAD_KERNELS(SIMD_NAME)};
