/* Elementwise kernels of two tensors, compiled for any processor. */
#include "backend/cpu/binary_body.h"

const struct kernel kernel_file_binary[] = {
    BINARY_LIST(BINARY_KERNEL){0},
};
