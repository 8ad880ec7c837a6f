/* ggml's block types: each turns rows of blocks into f32 and, where it has an encoder, back. The table of number types (dtype.c) lists them. */
#ifndef BASE_QUANT_H
#define BASE_QUANT_H
#include "base/dtype.h"

/* Types with an encoder, and types that are only read. n is a multiple of the block; `in` and `out` may be unaligned. */
#define QUANT_BOTH(X) \
    X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0) X(q1_0) X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k) X(tq1_0) X(tq2_0) X(mxfp4) X(iq4_nl)
#define QUANT_READ(X) X(q8_1) X(q8_k) X(nvfp4) X(iq1_s) X(iq1_m) X(iq2_xxs) X(iq2_xs) X(iq2_s) X(iq3_xxs) X(iq3_s) X(iq4_xs)
#define QUANT_DECODE(name) void quant_##name##_decode(float *out, const void *in, int64_t n);
#define QUANT_ENCODE(name) void quant_##name##_encode(void *out, const float *in, int64_t n);
QUANT_BOTH(QUANT_DECODE)
QUANT_READ(QUANT_DECODE)
QUANT_BOTH(QUANT_ENCODE)

/* Little-endian words inside blocks, which have no alignment. */
static inline uint16_t quant_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t quant_u32(const uint8_t *p) { return (uint32_t)quant_u16(p) | (uint32_t)quant_u16(p + 2) << 16; }
static inline float quant_half(const uint8_t *p) { return f16_to_f32(quant_u16(p)); }
static inline void quant_put_half(uint8_t *p, float d) {
    uint16_t h = f16_from_f32(d);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}
/* x cut towards zero into [low, high]; NaN gives low. */
static inline int quant_level(float x, int low, int high) { return x >= (float)low ? x < (float)high ? (int)x : high : low; }
/* The integer nearest to x, ties away from zero, in [low, high]. */
static inline int quant_round(float x, int low, int high) { return quant_level(x + (x < 0 ? -0.5f : 0.5f), low, high); }
/* 1 / d, 0 for 0. */
static inline float quant_inverse(float d) { return d != 0 ? 1.0f / d : 0.0f; }
/* The first value of largest magnitude. */
static inline float quant_extreme(const float *x, int n) {
    float extreme = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        if (a > largest) largest = a, extreme = x[i];
    }
    return extreme;
}
#endif
