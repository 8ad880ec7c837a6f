/* What the processor can do, as a mask; read once when the engine is created. */
#ifndef BASE_CPUID_H
#define BASE_CPUID_H
#include <stdint.h>

enum {
    CPU_AVX2 = 1,  // with FMA and F16C
    CPU_AVX512 = 2,  // F, BW, DQ, VL
    CPU_AVX512_VNNI = 4,
    CPU_AVX512_BF16 = 8,
    CPU_AVX512_FP16 = 16,
    CPU_NEON = 32,
    CPU_AMX = 64,  // tiles of bf16, which the operating system lets this process use
};
/* Whether this file is compiled for tiles of bf16; clang up to 14 has the second name. */
#if defined(__AMX_BF16__) || defined(__AMXBF16__)
#define COMPILED_FOR_AMX 1
#endif
/* All features of this processor (and operating system). Asks Linux for CPU_AMX's state: this process's signal frames grow by 8 KiB. */
uint32_t cpu_features(void);
/* Mask for a name: "scalar" 0, "neon", "avx2", "avx512", "amx" (each with all below it), "all"; -1 where unknown. */
int64_t cpu_mask_by_name(const char *name);

/* A plain loop compiled for several instruction sets, chosen when the program loads. For memory-bound loops outside the kernels; without
   contraction every version gives the same bits. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define CPU_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#define CPU_CLONES_FMA __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CPU_CLONES
#define CPU_CLONES_FMA
#endif
#endif
