/* Matrix multiplication kernels in portable C over the compiler's own 16-byte vectors: register tiles of 4 rows by 8 columns. */
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

enum { VL = 4, MR = 4, XR_MAX = 4, YR_WIDE = 2 };
#define MICRO_LIST(X) X(1) X(2) X(3) X(4)
typedef float vf __attribute__((vector_size(16)));
typedef int vm;  // how many of the first lanes

static inline vf vf_zero(void) { return (vf){0}; }
static inline vf vf_set1(float x) { return (vf){x, x, x, x}; }
static inline vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline float vf_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline vm vm_first(int64_t n) { return (vm)n; }
static inline vf vf_load_mask(vm m, const float *p) {
    if (m == 4) return vf_load(p);
    return (vf){m > 0 ? p[0] : 0, m > 1 ? p[1] : 0, m > 2 ? p[2] : 0, 0};
}
static inline void vf_store_mask(vm m, float *p, vf x) {
    for (int i = 0; i < m; i++) p[i] = x[i];
}
static inline vf vf_load_f16(const uint16_t *p) { return (vf){f16_to_f32(p[0]), f16_to_f32(p[1]), f16_to_f32(p[2]), f16_to_f32(p[3])}; }
static inline vf vf_load_bf16(const uint16_t *p) {
    return (vf){bf16_to_f32(p[0]), bf16_to_f32(p[1]), bf16_to_f32(p[2]), bf16_to_f32(p[3])};
}

static inline float value_of(enum cb_dtype dtype, const void *p, int64_t i) {
    if (dtype == CB_DTYPE_F16) return f16_to_f32(((const uint16_t *)p)[i]);
    if (dtype == CB_DTYPE_BF16) return bf16_to_f32(((const uint16_t *)p)[i]);
    return ((const float *)p)[i];
}
/* out[q * width + w] = src[at + w * step + q] for w < 4, q < 8. */
static inline void transpose4(enum cb_dtype dtype, float *out, int64_t width, const void *src, int64_t at, int64_t step) {
    for (int q = 0; q < 8; q++)
        for (int w = 0; w < 4; w++) out[q * width + w] = value_of(dtype, src, at + w * step + q);
}
/* out[q][w] = byte q of row w. */
static inline void turn_bytes(int8_t out[16][16], const unsigned char *rows, int64_t row_bytes) {
    for (int q = 0; q < 16; q++)
        for (int w = 0; w < 16; w++) out[q][w] = (int8_t)rows[w * row_bytes + q];
}
static inline vf vf_load_i8(const int8_t *p) { return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }

#include "backend/cpu/gemm_body.h"

const struct gemm_isa gemm_plain = {"plain", 0, MR, NR, pack, tile, direct, stream, dot, NULL};
