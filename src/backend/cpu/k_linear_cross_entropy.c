/* Linear cross-entropy for portable vectors. */
#include "backend/cpu/linear_cross_entropy_body.h"

const struct kernel kernel_file_linear_cross_entropy[] = {HEAD_KERNELS(SIMD_NAME)};
