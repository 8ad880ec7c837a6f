/* Products with block types for AVX2. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "base/cpuid.h"

enum { VL = 8, ISA = CPU_AVX2 };
typedef __m256 vf;
typedef __m256i vi;

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline float vf_sum(vf x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_half(uint16_t bits) { return _cvtsh_ss(bits); }
static inline void vf_halves(float out[16], const uint16_t bits[16]) {
    for (int i = 0; i < 16; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(bits + i))));
}
static inline vi vi_u8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
static inline vf vf_i8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }
static inline vf vf_low(vi x) { return _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(15))); }
static inline vf vf_high(vi x) { return _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 4)); }
static inline vi vi_set1(int x) { return _mm256_set1_epi32(x); }
static inline vi vi_words(const void *p) { return _mm256_loadu_si256(p); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_left(vi x, int n) { return _mm256_slli_epi32(x, n); }
static inline vi vi_right(vi x, int n) { return _mm256_srli_epi32(x, n); }
static inline vi vi_pick(vi mask, vi a, vi b) { return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b)); }
static inline vi vi_upper(const void *p, int v) { return _mm256_srli_epi32(_mm256_loadu_si256(p), 2 * v); }
static inline vf vf_byte(vi x, int b) {
    const vi at = _mm256_srli_epi32(x, 8 * b);
    return _mm256_cvtepi32_ps(b < 3 ? _mm256_and_si256(at, _mm256_set1_epi32(255)) : at);
}
static inline vf vf_spread(const float *p) { return _mm256_insertf128_ps(_mm256_set1_ps(p[0]), _mm_set1_ps(p[1]), 1); }
static inline void vf_pairs(float out[16], const void *two_halves, const uint64_t bytes[2]) {
    uint16_t half[2];
    memcpy(half, two_halves, sizeof half);
    for (int i = 0; i < 2; i++) vf_store(out + 8 * i, vf_mul(vf_set1(vf_half(half[i])), vf_i8(bytes + i)));
}

#include "backend/cpu/blocks_body.h"

const struct kernel kernel_file_blocks_avx2[] = {{"matmul", "blocks_avx2", CPU_AVX2, 25, accepts, workspace, run}, {0}};
