/* Elementwise kernels of two tensors, compiled for AVX-512. */
#include "backend/cpu/binary_body.h"

const struct kernel kernel_file_binary_avx512[] = {
    BINARY_LIST(BINARY_KERNEL){0},
};
