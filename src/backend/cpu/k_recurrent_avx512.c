/* LSTM kernels, compiled for AVX-512. */
#include "backend/cpu/recurrent_body.h"

const struct kernel kernel_file_recurrent_avx512[] = {
    {"lstm", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, lstm_workspace, lstm_run},
    {"lstm_grad", SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, lstm_grad_workspace, lstm_grad_run},
    {0},
};
