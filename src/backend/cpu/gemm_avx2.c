/* Matrix multiplication kernels for AVX2 with FMA: register tiles of 6 rows by 16 columns. */
#if defined(__AVX2__)
#include <immintrin.h>

#include "backend/cpu/gemm_x86.h"
#include "base/cpuid.h"

enum { VL = 8, MR = 6, XR_MAX = 4, YR_WIDE = 2 };
#define MICRO_LIST(X) X(1) X(2) X(3) X(4) X(5) X(6)
typedef __m256 vf;
typedef __m256i vm;

static const int32_t mask_words[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline float vf_sum(vf x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline vm vm_first(int64_t n) { return _mm256_loadu_si256((const __m256i *)(mask_words + 8 - n)); }
static inline vf vf_load_mask(vm m, const float *p) { return _mm256_maskload_ps(p, m); }
static inline void vf_store_mask(vm m, float *p, vf x) { _mm256_maskstore_ps(p, m, x); }
static inline vf vf_load_f16(const uint16_t *p) { return load8_f16(p); }
static inline vf vf_load_bf16(const uint16_t *p) { return load8_bf16(p); }
static inline vf vf_load_i8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }

#include "backend/cpu/gemm_body.h"

const struct gemm_isa gemm_avx2 = {"avx2", CPU_AVX2, MR, NR, pack, tile, direct, stream, dot, NULL};
#else
typedef int gemm_avx2_is_empty;  // another processor
#endif
