/* Reads the features of the processor, and whether the operating system saves the wide registers. */
#include "base/cpuid.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

// XCR0: which register files the operating system saves.
static uint64_t saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux gives the state of tiles, 8 KiB a thread, to processes that ask (Documentation/arch/x86/xstate.rst). */
static bool tiles_permitted(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

// Intel SDM volume 2, CPUID leaves 1 and 7.
uint32_t cpu_features(void) {
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    uint32_t leaf1 = c;
    if (!(leaf1 >> 27 & 1)) return 0;  // OSXSAVE
    uint64_t state = saved_state();
    if ((state & 0x6) != 0x6) return 0;  // xmm, ymm
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    uint32_t leaf7_b = b, leaf7_c = c, leaf7_d = d;
    uint32_t fma_avx_f16c = 1u << 12 | 1u << 28 | 1u << 29;
    if ((leaf1 & fma_avx_f16c) != fma_avx_f16c || !(leaf7_b >> 5 & 1)) return 0;
    features |= CPU_AVX2;
    uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F DQ BW VL
    if ((leaf7_b & avx512) != avx512 || (state & 0xe6) != 0xe6) return features;  // opmask, zmm
    features |= CPU_AVX512;
    if (leaf7_c >> 11 & 1) features |= CPU_AVX512_VNNI;
    if (leaf7_d >> 23 & 1) features |= CPU_AVX512_FP16;
    const uint32_t tiles = 1u << 22 | 1u << 24;  // AMX-BF16, AMX-TILE
    if ((leaf7_d & tiles) == tiles && (state >> 17 & 3) == 3 && tiles_permitted()) features |= CPU_AMX;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1)) features |= CPU_AVX512_BF16;
    return features;
}
#elif defined(__aarch64__)
uint32_t cpu_features(void) { return CPU_NEON; }  // part of the base architecture
#else
uint32_t cpu_features(void) { return 0; }
#endif

int64_t cpu_mask_by_name(const char *name) {
    if (!strcmp(name, "scalar")) return 0;
    if (!strcmp(name, "neon")) return CPU_NEON;
    if (!strcmp(name, "avx2")) return CPU_AVX2;
    const uint32_t avx512 = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_BF16 | CPU_AVX512_FP16;
    if (!strcmp(name, "avx512")) return avx512;
    if (!strcmp(name, "amx")) return avx512 | CPU_AMX;
    if (!strcmp(name, "all")) return UINT32_MAX;
    return -1;
}
