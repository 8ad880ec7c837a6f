/* One vector of floats of the widest kind that the file is compiled for (16, 8 or 4 lanes) and the functions that kernels need of it. */
#ifndef BACKEND_CPU_SIMD_H
#define BACKEND_CPU_SIMD_H
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/cpuid.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define SIMD_LANES 16
#if defined(COMPILED_FOR_AMX)  // for what multiplies matrices
#define SIMD_NAME "amx"
#define SIMD_CPU (CPU_AMX | CPU_AVX512 | CPU_AVX2)
#define SIMD_PRIORITY 32
#else
#define SIMD_NAME "avx512"
#define SIMD_CPU (CPU_AVX512 | CPU_AVX2)
#define SIMD_PRIORITY 30
#endif
typedef __mmask16 vm;
#elif defined(__AVX2__)
#include <immintrin.h>
#define SIMD_LANES 8
#define SIMD_NAME "avx2"
#define SIMD_CPU CPU_AVX2
#define SIMD_PRIORITY 20
#else
#define SIMD_LANES 4
#define SIMD_NAME "simd"
#define SIMD_CPU 0
#define SIMD_PRIORITY 10
#endif

/* vf: floats, vi: 32-bit integers, vm: a yes or no per lane. */
typedef float vf __attribute__((vector_size(SIMD_LANES * 4)));
typedef int32_t vi __attribute__((vector_size(SIMD_LANES * 4)));
#if SIMD_LANES != 16
typedef vi vm;
#endif

#if defined(__clang__)
#define SIMD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SIMD_UNROLL _Pragma("GCC unroll 16")
#endif
#define SIMD_INLINE static inline __attribute__((always_inline, unused))

/* ---- lanes in and out of memory; _n: the first n lanes only (0 <= n <= SIMD_LANES), the others read as zero and are not written */
SIMD_INLINE vf vf_set(float x) { return x - (vf){0}; }
SIMD_INLINE vi vi_set(int32_t x) { return x - (vi){0}; }
SIMD_INLINE vf vf_zero(void) { return (vf){0}; }
SIMD_INLINE vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
SIMD_INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
SIMD_INLINE vi vi_load(const int32_t *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}
SIMD_INLINE void vi_store(int32_t *p, vi v) { memcpy(p, &v, sizeof v); }
SIMD_INLINE vi vi_iota(void) {
    vi v;
    for (int i = 0; i < SIMD_LANES; i++) v[i] = i;
    return v;
}
#if SIMD_LANES == 16
SIMD_INLINE vf vf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
SIMD_INLINE void vf_store_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
#elif SIMD_LANES == 8
SIMD_INLINE __m256i vf_mask_n(int n) { return (__m256i)(vi_iota() < vi_set(n)); }
SIMD_INLINE vf vf_load_n(const float *p, int n) { return _mm256_maskload_ps(p, vf_mask_n(n)); }
SIMD_INLINE void vf_store_n(float *p, vf v, int n) { _mm256_maskstore_ps(p, vf_mask_n(n), v); }
#else
SIMD_INLINE vf vf_load_n(const float *p, int n) {
    vf v = {0};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
SIMD_INLINE void vf_store_n(float *p, vf v, int n) {
    for (int i = 0; i < n; i++) p[i] = v[i];
}
#endif

/* ---- arithmetic; min and max give b where either is NaN, as the machine does */
#if SIMD_LANES == 16
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
SIMD_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
SIMD_INLINE vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
SIMD_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
SIMD_INLINE vm vi_lt(vi a, vi b) { return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b); }
SIMD_INLINE vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b); }
SIMD_INLINE vm vm_and(vm a, vm b) { return (vm)(a & b); }
SIMD_INLINE vf vf_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
SIMD_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
SIMD_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
SIMD_INLINE vf vf_scale2(vf p, vf n) { return _mm512_scalef_ps(p, n); }
SIMD_INLINE vf vf_floor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
#else
SIMD_INLINE vm vf_lt(vf a, vf b) { return (vm)(a < b); }
SIMD_INLINE vm vf_le(vf a, vf b) { return (vm)(a <= b); }
SIMD_INLINE vm vf_eq(vf a, vf b) { return (vm)(a == b); }
SIMD_INLINE vm vi_lt(vi a, vi b) { return (vm)(a < b); }
SIMD_INLINE vm vi_eq(vi a, vi b) { return (vm)(a == b); }
SIMD_INLINE vm vm_and(vm a, vm b) { return a & b; }
/* p * 2^n in two steps, so that results may be subnormal; n whole, -252 <= n <= 254. */
SIMD_INLINE vf vf_scale2(vf p, vf n) {
    vi whole = __builtin_convertvector(n, vi), half = whole >> 1;
    return p * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
}
#if SIMD_LANES == 8
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_INLINE vf vf_select(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, (__m256)m); }
SIMD_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
SIMD_INLINE vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
SIMD_INLINE vf vf_floor(vf a) { return _mm256_floor_ps(a); }
#else
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
SIMD_INLINE vf vf_select(vm m, vf yes, vf no) { return (vf)(((vi)yes & m) | ((vi)no & ~m)); }
SIMD_INLINE vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
SIMD_INLINE vf vf_sqrt(vf a) {
    for (int i = 0; i < SIMD_LANES; i++) a[i] = sqrtf(a[i]);
    return a;
}
SIMD_INLINE vf vf_floor(vf a) {
    for (int i = 0; i < SIMD_LANES; i++) a[i] = floorf(a[i]);
    return a;
}
#endif
#endif
SIMD_INLINE vf vf_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
/* |a| with the sign of s. */
SIMD_INLINE vf vf_copysign(vf a, vf s) { return (vf)(((vi)a & 0x7fffffff) | ((vi)s & (vi_set(INT32_MIN)))); }

/* ---- across lanes, in a fixed order: halves are folded until one lane is left */
SIMD_INLINE float vf_sum(vf v) {
    float t[SIMD_LANES];
    vf_store(t, v);
#if SIMD_LANES == 16
    for (int i = 0; i < 8; i++) t[i] += t[i + 8];
#endif
#if SIMD_LANES >= 8
    for (int i = 0; i < 4; i++) t[i] += t[i + 4];
#endif
    return (t[0] + t[2]) + (t[1] + t[3]);
}
SIMD_INLINE float vf_hmax(vf v) {
    float t[SIMD_LANES];
    vf_store(t, v);
    for (int n = SIMD_LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++) t[i] = t[i] > t[i + n] ? t[i] : t[i + n];
    return t[0];
}

/* ---- elementary functions, errors of 1 to 2 units in the last place; minimax polynomials fitted for f32 */

/* e^x by x = n ln 2 + r (Cody and Waite 1980). Overflows to infinity, fades into subnormals and zero, NaN stays NaN. */
SIMD_INLINE vf vf_exp(vf x) {
    x = vf_min(vf_set(89.0f), vf_max(vf_set(-104.0f), x));
    vf n = vf_fma(x, vf_set(0x1.715476p+0f), vf_set(0x1.8p23f)) - vf_set(0x1.8p23f);
    vf r = vf_fma(n, vf_set(-0.693359375f), x);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_fma(r, vf_set(0.0013814219273626804f), vf_set(0.00836889911442995f));
    p = vf_fma(p, r, vf_set(0.04166840761899948f));
    p = vf_fma(p, r, vf_set(0.1666651964187622f));
    p = vf_fma(p, r, vf_set(0.4999999403953552f));
    p = vf_fma(p, r * r, r) + vf_set(1.0f);
    return vf_scale2(p, n);
}

/* Natural logarithm: x = m 2^e with m in [sqrt(1/2), sqrt 2). log(0) = -infinity, negative: NaN. */
SIMD_INLINE vf vf_log(vf x) {
    vm tiny = vf_lt(x, vf_set(0x1p-126f));
    vf y = vf_select(tiny, x * vf_set(0x1p23f), x);
    vi bits = (vi)y - 0x3f3504f3, e = bits >> 23;
    vf n = __builtin_convertvector(e, vf) - vf_select(tiny, vf_set(23.0f), vf_zero());
    vf f = (vf)((bits & 0x7fffff) + 0x3f3504f3) - vf_set(1.0f);
    vf p = vf_fma(f, vf_set(0.06757530570030212f), vf_set(-0.11694324761629105f));
    p = vf_fma(p, f, vf_set(0.1189352497458458f));
    p = vf_fma(p, f, vf_set(-0.12403086572885513f));
    p = vf_fma(p, f, vf_set(0.1421855241060257f));
    p = vf_fma(p, f, vf_set(-0.16668090224266052f));
    p = vf_fma(p, f, vf_set(0.2000216692686081f));
    p = vf_fma(p, f, vf_set(-0.25000008940696716f));
    p = vf_fma(p, f, vf_set(0.3333331048488617f));
    vf f2 = f * f;
    p = vf_fma(p, f2 * f, n * vf_set(-2.12194440e-4f));
    p = vf_fma(f2, vf_set(-0.5f), p) + f;
    vf r = vf_fma(n, vf_set(0.693359375f), p);
    r = vf_select(vf_eq(x, vf_set(INFINITY)), x, r);
    r = vf_select(vf_eq(x, vf_zero()), vf_set(-INFINITY), r);
    return vf_select(vf_le(vf_zero(), x), r, vf_set(NAN));
}

SIMD_INLINE vf vf_tanh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = vf_fma(z, vf_set(-0.005648307502269745f), vf_set(0.020589817315340042f));
    p = vf_fma(p, z, vf_set(-0.05372512340545654f));
    p = vf_fma(p, z, vf_set(0.13331274688243866f));
    p = vf_fma(p, z, vf_set(-0.33333274722099304f));
    vf small = vf_fma(p * z, x, x);
    vf large = vf_set(1.0f) - vf_set(2.0f) / (vf_exp(a + a) + vf_set(1.0f));
    return vf_select(vf_lt(a, vf_set(0.625f)), small, vf_copysign(large, x));
}

/* The error function: x (1 + P(x^2)) below 0.92, 1 - exp(-Q(|x|)) above. */
SIMD_INLINE vf vf_erf(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = vf_fma(z, vf_set(-0.0005988752818666399f), vf_set(0.004993274807929993f));
    p = vf_fma(p, z, vf_set(-0.026767101138830185f));
    p = vf_fma(p, z, vf_set(0.11281844228506088f));
    p = vf_fma(p, z, vf_set(-0.3761249780654907f));
    p = vf_fma(p, z, vf_set(0.12837915122509003f));
    vf small = vf_fma(p, x, x);
    vf b = vf_min(vf_set(4.0f), a);
    vf q = vf_fma(b, vf_set(7.374565598183835e-07f), vf_set(1.1311347407172434e-05f));
    q = vf_fma(q, b, vf_set(-0.00037884965422563255f));
    q = vf_fma(q, b, vf_set(0.003994101192802191f));
    q = vf_fma(q, b, vf_set(-0.02477451227605343f));
    q = vf_fma(q, b, vf_set(0.10785821080207825f));
    q = vf_fma(q, b, vf_set(0.6336632966995239f));
    q = vf_fma(q, b, vf_set(1.129381775856018f));
    q = vf_fma(q, b, vf_set(-0.0001506137050455436f));
    vf large = vf_set(1.0f) - vf_exp(-q);
    return vf_select(vf_lt(a, vf_set(0.92f)), small, vf_copysign(large, x));
}

/* 1 / (1 + e^-x), without overflow on either side. */
SIMD_INLINE vf vf_sigmoid(vf x) { return vf_set(1.0f) / (vf_set(1.0f) + vf_exp(-x)); }

/* ---- rows: n floats at p */
/* Runs the body for i = 0, SIMD_LANES, ... below n with `lanes`: how many floats there are from i on, at most SIMD_LANES. */
#define ROW_EACH(i, lanes, n, ...)                            \
    do {                                                      \
        int64_t i = 0, row_end_ = (n);                        \
        for (; i + SIMD_LANES <= row_end_; i += SIMD_LANES) { \
            const int lanes = SIMD_LANES;                     \
            __VA_ARGS__;                                      \
        }                                                     \
        if (i < row_end_) {                                   \
            const int lanes = (int)(row_end_ - i);            \
            __VA_ARGS__;                                      \
        }                                                     \
    } while (0)
SIMD_INLINE vf vf_at(const float *p, int lanes) { return lanes == SIMD_LANES ? vf_load(p) : vf_load_n(p, lanes); }
SIMD_INLINE void vf_put(float *p, vf v, int lanes) {
    if (lanes == SIMD_LANES)
        vf_store(p, v);
    else
        vf_store_n(p, v, lanes);
}
SIMD_INLINE float row_sum(const float *p, int64_t n) {
    vf s[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * SIMD_LANES <= n; i += 4 * SIMD_LANES) {
        SIMD_UNROLL
        for (int k = 0; k < 4; k++) s[k] += vf_load(p + i + k * SIMD_LANES);
    }
    for (; i + SIMD_LANES <= n; i += SIMD_LANES) s[0] += vf_load(p + i);
    if (i < n) s[1] += vf_load_n(p + i, (int)(n - i));
    return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}
SIMD_INLINE float row_dot(const float *a, const float *b, int64_t n) {
    vf s[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * SIMD_LANES <= n; i += 4 * SIMD_LANES) {
        SIMD_UNROLL
        for (int k = 0; k < 4; k++) s[k] = vf_fma(vf_load(a + i + k * SIMD_LANES), vf_load(b + i + k * SIMD_LANES), s[k]);
    }
    for (; i + SIMD_LANES <= n; i += SIMD_LANES) s[0] = vf_fma(vf_load(a + i), vf_load(b + i), s[0]);
    if (i < n) s[1] = vf_fma(vf_load_n(a + i, (int)(n - i)), vf_load_n(b + i, (int)(n - i)), s[1]);
    return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}
/* Largest value, -infinity for n = 0; NaN may be passed over. */
SIMD_INLINE float row_max(const float *p, int64_t n) {
    vf m = vf_set(-INFINITY);
    int64_t i = 0;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES) m = vf_max(vf_load(p + i), m);
    float r = vf_hmax(m);
    for (; i < n; i++) r = p[i] > r ? p[i] : r;
    return r;
}

/* y = e^(x - peak); returns the sum. y may be x. */
SIMD_INLINE float row_exp_into(const float *x, float peak, float *y, int64_t n) {
    vf sum = vf_zero(), from = vf_set(peak);
    int64_t i = 0;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES) {
        vf e = vf_exp(vf_load(x + i) - from);
        vf_store(y + i, e);
        sum += e;
    }
    float rest = 0;
    if (i < n) {
        int lanes = (int)(n - i);
        vf_store_n(y + i, vf_exp(vf_load_n(x + i, lanes) - from), lanes);
        for (; i < n; i++) rest += y[i];
    }
    return vf_sum(sum) + rest;
}
/* Sum of e^(x - peak). */
SIMD_INLINE float row_exp_sum(const float *x, float peak, int64_t n) {
    vf sum = vf_zero(), from = vf_set(peak);
    int64_t i = 0;
    for (; i + SIMD_LANES <= n; i += SIMD_LANES) sum += vf_exp(vf_load(x + i) - from);
    if (i < n)
        sum +=
            vf_exp(vf_load_n(x + i, (int)(n - i)) - from) * vf_load_n((const float[SIMD_LANES]){[0 ... SIMD_LANES - 1] = 1}, (int)(n - i));
    return vf_sum(sum);
}
SIMD_INLINE void row_scale(float *y, float by, int64_t n) { ROW_EACH(i, lanes, n, vf_put(y + i, vf_at(y + i, lanes) * vf_set(by), lanes)); }

/* ---- turning: pairs of rows exchange lanes at distance 8, 4, 2, 1; ODD and EVEN of a and b are the two results of one exchange */
#define SHUFFLE(a, b, ...) ((vf)__builtin_shufflevector(a, b, __VA_ARGS__))
#if SIMD_LANES == 16
#define EVEN_8(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define ODD_8(a, b) SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define EVEN_4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define ODD_4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define EVEN_2(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define ODD_2(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define EVEN_1(a, b) SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define ODD_1(a, b) SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#elif SIMD_LANES == 8
#define EVEN_4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define ODD_4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define EVEN_2(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define ODD_2(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define EVEN_1(a, b) SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define ODD_1(a, b) SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#else
#define EVEN_2(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define ODD_2(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#define EVEN_1(a, b) SHUFFLE(a, b, 0, 4, 2, 6)
#define ODD_1(a, b) SHUFFLE(a, b, 1, 5, 3, 7)
#endif
#define TURN_STAGE(v, S)                                                           \
    SIMD_UNROLL                                                                    \
    for (int r = 0; r < SIMD_LANES; r++) {                                         \
        if (r & S) continue;                                                       \
        vf even = EVEN_##S((v)[r], (v)[r + S]), odd = ODD_##S((v)[r], (v)[r + S]); \
        (v)[r] = even, (v)[r + S] = odd;                                           \
    }
#define SUM_STAGE(v, S) \
    SIMD_UNROLL         \
    for (int r = 0; r < S; r++) (v)[r] = EVEN_##S((v)[r], (v)[r + S]) + ODD_##S((v)[r], (v)[r + S]);

/* Lane l of the result: the sum of v[l]. Overwrites v. */
SIMD_INLINE vf vf_sum_each(vf v[SIMD_LANES]) {
#if SIMD_LANES == 16
    SUM_STAGE(v, 8)
#endif
#if SIMD_LANES >= 8
    SUM_STAGE(v, 4)
#endif
    SUM_STAGE(v, 2)
    SUM_STAGE(v, 1)
    return v[0];
}

/* out[c * out_stride + r] = scale * in[r * in_stride + c] for r < rows, c < cols. pad: each row of out is filled with zeros up to whole vectors. */
static __attribute__((unused)) void simd_turn(float *out, int64_t out_stride, const float *in, int64_t in_stride, int64_t rows,
                                              int64_t cols, float scale, bool pad) {
    vf by = vf_set(scale);
    for (int64_t r0 = 0; r0 < rows; r0 += SIMD_LANES) {
        int nr = rows - r0 < SIMD_LANES ? (int)(rows - r0) : SIMD_LANES;
        for (int64_t c0 = 0; c0 < cols; c0 += SIMD_LANES) {
            int nc = cols - c0 < SIMD_LANES ? (int)(cols - c0) : SIMD_LANES;
            vf v[SIMD_LANES];
            if (nr == SIMD_LANES && nc == SIMD_LANES) {
                SIMD_UNROLL
                for (int r = 0; r < SIMD_LANES; r++) v[r] = by * vf_load(in + (r0 + r) * in_stride + c0);
            } else {
                SIMD_UNROLL
                for (int r = 0; r < SIMD_LANES; r++) v[r] = r < nr ? by * vf_load_n(in + (r0 + r) * in_stride + c0, nc) : vf_zero();
            }
#if SIMD_LANES == 16
            TURN_STAGE(v, 8)
#endif
#if SIMD_LANES >= 8
            TURN_STAGE(v, 4)
#endif
            TURN_STAGE(v, 2)
            TURN_STAGE(v, 1)
            float *to = out + c0 * out_stride + r0;
            if (nc == SIMD_LANES && (nr == SIMD_LANES || pad)) {
                SIMD_UNROLL
                for (int c = 0; c < SIMD_LANES; c++) vf_store(to + c * out_stride, v[c]);
            } else {
                SIMD_UNROLL
                for (int c = 0; c < SIMD_LANES; c++)
                    if (c < nc) vf_store_n(to + c * out_stride, v[c], pad ? SIMD_LANES : nr);
            }
        }
    }
}
#endif
