/* Attention kernels, compiled for any processor. */
#include "backend/cpu/attention_forward_body.h"
#include "backend/cpu/attention_grad_body.h"

const struct kernel kernel_file_attention[] = {
    {"attention", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, attention_accepts, attention_workspace, attention_run},
    {"attention_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, attention_grad_accepts, attention_grad_workspace, attention_grad_run},
    {0},
};
