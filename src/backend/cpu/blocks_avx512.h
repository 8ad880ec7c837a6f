/* Products with block types for AVX-512, ISA deciding who multiplies slabs. Halves of bytes are looked up: a permutation of floats reads the low 4
   bits of its indices alone. */
#ifndef BACKEND_CPU_BLOCKS_AVX512_H
#define BACKEND_CPU_BLOCKS_AVX512_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "base/cpuid.h"

#if defined(COMPILED_FOR_AMX)
enum { VL = 16, ISA = CPU_AMX | CPU_AVX512 | CPU_AVX2 };
#else
enum { VL = 16, ISA = CPU_AVX512 | CPU_AVX2 };
#endif
typedef __m512 vf;
typedef __m512i vi;

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
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
static inline vi vi_set1(int x) { return _mm512_set1_epi32(x); }
static inline vi vi_words(const void *p) { return _mm512_loadu_si512(p); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_left(vi x, unsigned n) { return _mm512_slli_epi32(x, n); }
static inline vi vi_right(vi x, unsigned n) { return _mm512_srli_epi32(x, n); }
static inline vi vi_pick(vi mask, vi a, vi b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xca); }
/* The vector's halves are two rows of 32 levels. */
static inline vi vi_upper(const void *p, int v) {
    (void)v;
    const vi both = _mm512_broadcast_i64x4(_mm256_loadu_si256(p));
    return _mm512_srlv_epi32(both, _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2));
}
static inline vf vf_byte(vi x, int b) {
    const vi at = b ? _mm512_srli_epi32(x, (unsigned)(8 * b)) : x;
    return _mm512_cvtepi32_ps(b < 3 ? _mm512_and_si512(at, _mm512_set1_epi32(255)) : at);
}
static inline vf vf_spread(const float *p) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                 _mm512_broadcast_f32x4(_mm_loadu_ps(p)));
}
static inline void vf_pairs(float out[16], const void *two_halves, const uint64_t bytes[2]) {
    int bits;
    memcpy(&bits, two_halves, sizeof bits);
    const vf both = _mm512_cvtph_ps(_mm256_set1_epi32(bits));
    const vf factor = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), both);
    // two loads, as the bytes were written by two stores
    const __m256i low = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)bytes)),
                  high = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(bytes + 1)));
    vf_store(out, vf_mul(factor, _mm512_cvtepi32_ps(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1))));
}
#endif
