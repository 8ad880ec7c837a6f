/* Matrix multiplication kernels for AVX-512: register tiles of 12 rows by 32 columns. */
#if defined(__AVX512F__)
#include <immintrin.h>

#include "backend/cpu/gemm_x86.h"
#include "base/cpuid.h"

enum { VL = 16, MR = 12, XR_MAX = 8, YR_WIDE = 3 };
#define MICRO_LIST(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
typedef __m512 vf;
typedef __mmask16 vm;

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline float vf_sum(vf x) { return _mm512_reduce_add_ps(x); }
static inline vm vm_first(int64_t n) { return (vm)((1u << n) - 1); }
static inline vf vf_load_mask(vm m, const float *p) { return _mm512_maskz_loadu_ps(m, p); }
static inline void vf_store_mask(vm m, float *p, vf x) { _mm512_mask_storeu_ps(p, m, x); }
static inline vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline vf vf_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline vf vf_load_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }

#include "backend/cpu/gemm_body.h"

const struct gemm_isa gemm_avx512 = {"avx512", CPU_AVX512 | CPU_AVX2, MR, NR, pack, tile, direct, stream, dot, NULL};
#else
typedef int gemm_avx512_is_empty;  // another processor
#endif
