/* Products with block types for AVX-512. Halves of bytes are looked up: a permutation of floats reads the low 4 bits of its indices alone. */
#include <immintrin.h>
#include <stdint.h>

#include "base/cpuid.h"

enum { VL = 16, ISA = CPU_AVX512 | CPU_AVX2 };
typedef __m512 vf;
typedef __m512i vi;

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_halved(float low, float high) { return _mm512_insertf32x8(_mm512_set1_ps(low), _mm256_set1_ps(high), 1); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline float vf_sum(vf x) { return _mm512_reduce_add_ps(x); }
static inline float vf_half(uint16_t bits) { return _cvtsh_ss(bits); }
static inline void vf_halves(float out[16], const uint16_t bits[16]) {
    _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)bits)));
}
static inline vi vi_u8(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
static inline vf vf_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
static inline vf sixteen(void) { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
static inline vf vf_low(vi x) { return _mm512_permutexvar_ps(x, sixteen()); }
static inline vf vf_high(vi x) { return _mm512_permutexvar_ps(_mm512_srli_epi32(x, 4), sixteen()); }
/* 4 bits of low from bit `at`, 2 of high from bit `top` above them. */
static inline vf vf_six(vi low, int at, vi high, int top) {
    const vi h = top < 4 ? _mm512_slli_epi32(high, (unsigned)(4 - top)) : _mm512_srli_epi32(high, (unsigned)(top - 4));
    // bits of low where the mask is set, else of high; then the six lowest
    const vi six = _mm512_ternarylogic_epi32(_mm512_set1_epi32(15), at ? _mm512_srli_epi32(low, 4) : low, h, 0xca);
    return _mm512_cvtepi32_ps(_mm512_and_si512(six, _mm512_set1_epi32(63)));
}

#include "backend/cpu/blocks_body.h"

const struct kernel kernel_file_blocks_avx512[] = {{"matmul", "blocks_avx512", CPU_AVX512 | CPU_AVX2, 35, accepts, workspace, run}, {0}};
