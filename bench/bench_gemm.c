/* Matrix multiplication of the shapes that training and decoding use: GFLOP/s beside the roof of this processor and, with -DBENCH_ONEDNN -ldnnl,
   oneDNN's sgemm, measured in turn within the same run. Arguments: threads (1), kernel set (best), seconds a shape (0.5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "backend/cpu/gemm.h"
#include "base/cpuid.h"
#ifdef BENCH_ONEDNN
#include <dnnl.h>
#endif

struct shape {
    const char *what;
    int64_t m, n, k;
    bool trans_a, trans_b;  // stored (k,m), (n,k)
    enum cb_dtype b_dtype;
    bool accumulate;
};

/* gpt2-124m with 1024 rows, charlm-10m with 4096, a character model of 0.8 M with 768, LoRA of rank 8, decoding. */
static const struct shape shapes[] = {
    {"124m qkv", 1024, 2304, 768, false, false, CB_DTYPE_F32, false},
    {"124m attention out", 1024, 768, 768, false, false, CB_DTYPE_F32, false},
    {"124m mlp up", 1024, 3072, 768, false, false, CB_DTYPE_F32, false},
    {"124m mlp down", 1024, 768, 3072, false, false, CB_DTYPE_F32, false},
    {"124m dx of qkv", 1024, 768, 2304, false, true, CB_DTYPE_F32, false},
    {"124m dx of mlp up", 1024, 768, 3072, false, true, CB_DTYPE_F32, false},
    {"124m dx of mlp down", 1024, 3072, 768, false, true, CB_DTYPE_F32, false},
    {"124m dW of qkv", 768, 2304, 1024, true, false, CB_DTYPE_F32, true},
    {"124m dW of out", 768, 768, 1024, true, false, CB_DTYPE_F32, true},
    {"124m dW of mlp up", 768, 3072, 1024, true, false, CB_DTYPE_F32, true},
    {"124m dW of mlp down", 3072, 768, 1024, true, false, CB_DTYPE_F32, true},
    {"head logits", 256, 50257, 768, false, true, CB_DTYPE_F32, false},
    {"head dx", 256, 768, 50257, false, false, CB_DTYPE_F32, false},
    {"head dW", 50257, 768, 256, true, false, CB_DTYPE_F32, true},
    {"10m qkv", 4096, 1152, 384, false, false, CB_DTYPE_F32, false},
    {"10m mlp up", 4096, 1536, 384, false, false, CB_DTYPE_F32, false},
    {"10m mlp down", 4096, 384, 1536, false, false, CB_DTYPE_F32, false},
    {"10m dx of mlp up", 4096, 384, 1536, false, true, CB_DTYPE_F32, false},
    {"10m dW of mlp up", 384, 1536, 4096, true, false, CB_DTYPE_F32, true},
    {"10m head", 4096, 65, 384, false, true, CB_DTYPE_F32, false},
    {"0.8m qkv", 768, 384, 128, false, false, CB_DTYPE_F32, false},
    {"0.8m out", 768, 128, 128, false, false, CB_DTYPE_F32, false},
    {"0.8m mlp up", 768, 512, 128, false, false, CB_DTYPE_F32, false},
    {"0.8m mlp down", 768, 128, 512, false, false, CB_DTYPE_F32, false},
    {"0.8m dx of qkv", 768, 128, 384, false, true, CB_DTYPE_F32, false},
    {"0.8m dx of mlp up", 768, 128, 512, false, true, CB_DTYPE_F32, false},
    {"0.8m dx of mlp down", 768, 512, 128, false, true, CB_DTYPE_F32, false},
    {"0.8m dW of qkv", 128, 384, 768, true, false, CB_DTYPE_F32, false},
    {"0.8m dW of out", 128, 128, 768, true, false, CB_DTYPE_F32, false},
    {"0.8m dW of mlp up", 128, 512, 768, true, false, CB_DTYPE_F32, false},
    {"0.8m dW of mlp down", 512, 128, 768, true, false, CB_DTYPE_F32, false},
    {"lora x A", 1024, 8, 768, false, true, CB_DTYPE_F32, false},
    {"lora h B", 1024, 768, 8, false, true, CB_DTYPE_F32, true},
    {"lora dB", 768, 8, 1024, true, false, CB_DTYPE_F32, true},
    {"lora dA", 8, 768, 1024, true, false, CB_DTYPE_F32, true},
    {"square 1024", 1024, 1024, 1024, false, false, CB_DTYPE_F32, false},
    {"square 256", 256, 256, 256, false, false, CB_DTYPE_F32, false},
    {"square 64", 64, 64, 64, false, false, CB_DTYPE_F32, false},
    {"tiny", 4, 8, 8, false, false, CB_DTYPE_F32, false},
    {"tiny transposed", 4, 8, 8, false, true, CB_DTYPE_F32, false},
    {"decode (k,n)", 1, 3072, 768, false, false, CB_DTYPE_F32, false},
    {"decode (n,k)", 1, 3072, 768, false, true, CB_DTYPE_F32, false},
    {"decode head", 1, 50257, 768, false, true, CB_DTYPE_F32, false},
    {"decode head f16", 1, 50257, 768, false, true, CB_DTYPE_F16, false},
    {"decode head bf16", 1, 50257, 768, false, true, CB_DTYPE_BF16, false},
    {"decode head q8_0", 1, 50257, 768, false, true, CB_DTYPE_Q8_0, false},
    {"decode 8192 (k,n)", 1, 8192, 4096, false, false, CB_DTYPE_F32, false},
    {"decode 8192 (k,n) f16", 1, 8192, 4096, false, false, CB_DTYPE_F16, false},
    {"decode 8192 (k,n), 4 rows", 4, 8192, 4096, false, false, CB_DTYPE_F32, false},
    {"decode 8192 (n,k), 4 rows", 4, 8192, 4096, false, true, CB_DTYPE_F32, false},
    {"prefill qkv", 128, 2304, 768, false, false, CB_DTYPE_F32, false},
    {"prefill mlp up", 128, 3072, 768, false, false, CB_DTYPE_F32, false},
    {"prefill mlp down", 128, 768, 3072, false, false, CB_DTYPE_F32, false},
    {"prefill (n,k)", 128, 3072, 768, false, true, CB_DTYPE_F32, false},
    {"prefill f16", 256, 3072, 768, false, true, CB_DTYPE_F16, false},
    {"prefill mlp up f32", 512, 4864, 896, false, true, CB_DTYPE_F32, false},
    {"prefill mlp up q4_0", 512, 4864, 896, false, true, CB_DTYPE_Q4_0, false},
    {"prefill mlp down q4_0", 512, 896, 4864, false, true, CB_DTYPE_Q4_0, false},
    {"prefill out q4_0", 512, 896, 896, false, true, CB_DTYPE_Q4_0, false},
};

/* Seconds: of this process's work where it has one thread (others may share the machine), else of the clock. */
static double now_of(bool one_thread) {
    struct timespec t;
    clock_gettime(one_thread ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double now(void) { return now_of(true); }

/* Fused multiply-adds of one thread with nothing else to do, GFLOP/s. */
#if defined(__x86_64__)
#include <immintrin.h>
#define ROOF(name, target_text, type, lanes, set, fma)                                              \
    __attribute__((target(target_text), noinline)) static double name(void) {                       \
        type acc[12], x = set(0.999f), y = set(1e-3f);                                              \
        enum { STEPS = 2000000 };                                                                   \
        for (int i = 0; i < 12; i++) acc[i] = set((float)i);                                        \
        const double begin = now();                                                                 \
        for (int s = 0; s < STEPS; s++) {                                                           \
            acc[0] = fma(acc[0], x, y), acc[1] = fma(acc[1], x, y), acc[2] = fma(acc[2], x, y);     \
            acc[3] = fma(acc[3], x, y), acc[4] = fma(acc[4], x, y), acc[5] = fma(acc[5], x, y);     \
            acc[6] = fma(acc[6], x, y), acc[7] = fma(acc[7], x, y), acc[8] = fma(acc[8], x, y);     \
            acc[9] = fma(acc[9], x, y), acc[10] = fma(acc[10], x, y), acc[11] = fma(acc[11], x, y); \
        }                                                                                           \
        const double seconds = now() - begin;                                                       \
        volatile float keep = 0;                                                                    \
        for (int i = 0; i < 12; i++) keep += acc[i][0];                                             \
        (void)keep;                                                                                 \
        return 12.0 * 2 * lanes * STEPS / seconds * 1e-9;                                           \
    }
ROOF(roof_avx512, "avx512f", __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps)
ROOF(roof_avx2, "avx2,fma", __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps)
static double roof(const struct gemm_isa *isa) {
    if (!isa->split) return isa->cpu & CPU_AVX512 ? roof_avx512() : isa->cpu & CPU_AVX2 ? roof_avx2() : 0;
    const double begin = now(), operations = isa->split->spin(10000);
    return operations / (now() - begin) * 1e-9;
}
#else
static double roof(const struct gemm_isa *isa) { return (void)isa, 0; }
#endif

static void *filled(size_t bytes, bool as_f32) {
    // Large pages, as the engine has.
    const size_t page = (size_t)2 << 20, whole = (bytes + page) / page * page;
    void *p = aligned_alloc(bytes < page ? 64 : page, bytes < page ? (bytes + 127) / 64 * 64 : whole);
    if (!p) exit(1);
    if (bytes >= page) madvise(p, whole, MADV_HUGEPAGE);
    uint32_t state = 1;
    if (!as_f32) memset(p, 0, bytes);
    for (size_t i = 0; as_f32 && i < bytes / 4; i++) {
        state = state * 1664525 + 1013904223;
        ((float *)p)[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return p;
}

static double best(double a, double b) { return a < b ? a : b; }

static void bench(const struct shape *s, const struct gemm_isa *isa, struct pool *pool, double seconds, double *peak) {
    const struct dtype *type = dtype_of(s->b_dtype);
    struct gemm g = {.m = s->m, .n = s->n, .k = s->k, .c_row = s->n, .b_dtype = s->b_dtype, .accumulate = s->accumulate, .isa = isa};
    const size_t b_bytes = (size_t)(s->n * s->k / type->block * type->block_bytes);
    void *a = filled((size_t)(s->m * s->k) * 4, true), *b = filled(b_bytes, s->b_dtype == CB_DTYPE_F32);
    g.a = a, g.b = b, g.c = filled((size_t)(s->m * s->n) * 4, true);
    g.a_row = s->trans_a ? 1 : s->k, g.a_col = s->trans_a ? s->m : 1;
    g.b_row = s->trans_b ? 1 : s->n, g.b_col = s->trans_b ? s->k : 1;
    void *work = filled(gemm_workspace(&g, pool_threads(pool)), false);
    // Short calls are timed many at a time.
    const double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k;
    const int repeat = flops < 1e6 ? 1000 : 1;
    double own = 1e30, peer = 1e30, stop = now_of(false) + seconds;
    const bool one = pool_threads(pool) == 1;
    for (int i = 0; i < 3 || now_of(false) < stop; i++) {
        const double t = now_of(one);
        for (int r = 0; r < repeat; r++) gemm_run(&g, work, pool);
        own = best(own, (now_of(one) - t) / repeat);
#ifdef BENCH_ONEDNN
        if (s->b_dtype == CB_DTYPE_F32) {
            const double u = now_of(one);
            for (int r = 0; r < repeat; r++)
                dnnl_sgemm(s->trans_a ? 'T' : 'N', s->trans_b ? 'T' : 'N', s->m, s->n, s->k, 1, a, s->trans_a ? s->m : s->k, b,
                           s->trans_b ? s->k : s->n, s->accumulate, g.c, s->n);
            peer = best(peer, (now_of(one) - u) / repeat);
        }
#endif
        const double now_roof = i < 3 ? roof(isa) : 0;
        if (now_roof > *peak) *peak = now_roof;
    }
    const double roof_all = *peak * pool_threads(pool);
    printf("%-26s %5ld %5ld %5ld %c%c %-5s own %7.1f GFLOP/s %3.0f%% of roof %9.2f us, B at %5.1f GB/s", s->what, (long)s->m, (long)s->n,
           (long)s->k, s->trans_a ? 'T' : 'N', s->trans_b ? 'T' : 'N', type->name, flops / own * 1e-9,
           roof_all > 0 ? flops / own * 1e-7 / roof_all : 0, own * 1e6, (double)b_bytes / own * 1e-9);
    if (peer < 1e30) printf("  oneDNN %7.1f  own/oneDNN %.2f", flops / peer * 1e-9, peer / own);
    printf("\n");
    fflush(stdout);
    free(a), free(b), free(g.c), free(work);
}

int main(int n, char **argument) {
    struct cb_err err = {0};
    struct pool *pool = NULL;
    const struct gemm_isa *isa = gemm_isa_for(n > 2 ? (uint32_t)cpu_mask_by_name(argument[2]) & cpu_features() : cpu_features());
    const double seconds = n > 3 ? atof(argument[3]) : 0.5;
    const char *only = n > 4 ? argument[4] : "";
    if (pool_create(&pool, n > 1 ? atoi(argument[1]) : 1, &err) != CB_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    double peak = roof(isa);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strstr(shapes[i].what, only)) bench(&shapes[i], isa, pool, seconds, &peak);
    printf("kernels %s, %d threads, roof of one %.1f GFLOP/s\n", isa->name, pool_threads(pool), peak);
    pool_destroy(&pool);
    return 0;
}
