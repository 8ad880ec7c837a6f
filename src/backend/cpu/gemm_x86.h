/* What the AVX2 and AVX-512 kernels share: transposing blocks while packing. */
#ifndef BACKEND_CPU_GEMM_X86_H
#define BACKEND_CPU_GEMM_X86_H
#include <immintrin.h>

#include "base/dtype.h"

static inline __m256 load8_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline __m256 load8_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline __m256 load8_as(enum cb_dtype dtype, const void *p, int64_t i) {
    if (dtype == CB_DTYPE_F16) return load8_f16((const uint16_t *)p + i);
    if (dtype == CB_DTYPE_BF16) return load8_bf16((const uint16_t *)p + i);
    return _mm256_loadu_ps((const float *)p + i);
}

/* out[q * width + w] = src[at + w * step + q] for w < 4, q < 8. */
static inline __attribute__((always_inline)) void transpose4(const enum cb_dtype dtype, float *out, int64_t width, const void *src,
                                                             int64_t at, int64_t step) {
    __m256 a = load8_as(dtype, src, at), b = load8_as(dtype, src, at + step), c = load8_as(dtype, src, at + 2 * step),
           d = load8_as(dtype, src, at + 3 * step);
    __m256 ab_low = _mm256_unpacklo_ps(a, b), ab_high = _mm256_unpackhi_ps(a, b), cd_low = _mm256_unpacklo_ps(c, d),
           cd_high = _mm256_unpackhi_ps(c, d);
    __m256 column[4] = {_mm256_shuffle_ps(ab_low, cd_low, 0x44), _mm256_shuffle_ps(ab_low, cd_low, 0xee),
                        _mm256_shuffle_ps(ab_high, cd_high, 0x44), _mm256_shuffle_ps(ab_high, cd_high, 0xee)};
    for (int q = 0; q < 4; q++) {
        _mm_storeu_ps(out + q * width, _mm256_castps256_ps128(column[q]));
        _mm_storeu_ps(out + (q + 4) * width, _mm256_extractf128_ps(column[q], 1));
    }
}

/* out[q][w] = byte q of row w. Four rounds, each of which interleaves register i with register i + 8. */
static inline __attribute__((always_inline)) void turn_bytes(int8_t out[16][16], const unsigned char *rows, int64_t row_bytes) {
    __m128i x[16], y[16];
    for (int w = 0; w < 16; w++) x[w] = _mm_loadu_si128((const __m128i *)(rows + w * row_bytes));
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            y[2 * i] = _mm_unpacklo_epi8(x[i], x[i + 8]);
            y[2 * i + 1] = _mm_unpackhi_epi8(x[i], x[i + 8]);
        }
        for (int i = 0; i < 16; i++) x[i] = y[i];
    }
    for (int q = 0; q < 16; q++) _mm_store_si128((__m128i *)out[q], x[q]);
}
#endif
