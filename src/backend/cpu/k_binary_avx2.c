/* Elementwise kernels of two tensors, compiled for AVX2. */
#include "backend/cpu/binary_body.h"

const struct kernel kernel_file_binary_avx2[] = {
    BINARY_LIST(BINARY_KERNEL){0},
};
