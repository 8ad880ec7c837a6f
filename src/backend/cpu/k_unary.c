/* Elementwise kernels of one tensor and of activations' gradients, compiled for any processor. */
#include "backend/cpu/unary_body.h"

const struct kernel kernel_file_unary[] = {
    UNARY_LIST(UNARY_KERNEL) PAIR_LIST(UNARY_KERNEL) UNARY_KERNEL(scale, 1) UNARY_KERNEL(leaky_relu, 1) UNARY_KERNEL(clamp, 1){0},
};
