/* How a thread's arithmetic treats subnormal numbers. A processor may take a hundred times as long over each of them, and training makes them by the
   million: the share of a far key in a sharp softmax, its gradient, the moments of a rare token. */
#ifndef BASE_SUBNORMAL_H
#define BASE_SUBNORMAL_H
#include <stdint.h>

enum {
    SUBNORMAL_X86 = 0x8040,  // MXCSR: flush to zero (bit 15), denormals are zeros (bit 6)
    SUBNORMAL_ARM = 1 << 24,  // FPCR: flush to zero
};

/* The mode of the calling thread: the bits above. */
static inline uint64_t subnormal_mode(void) {
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & SUBNORMAL_X86;
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode & SUBNORMAL_ARM;
#else
    return 0;
#endif
}

/* Only the mode changes: rounding and the flags that were raised stay. No arithmetic moves across. */
static inline void subnormal_set(uint64_t mode) {
#if defined(__x86_64__)
    uint32_t word = (__builtin_ia32_stmxcsr() & ~(uint32_t)SUBNORMAL_X86) | (uint32_t)mode;
    __asm__ volatile("ldmxcsr %0" : : "m"(word) : "memory");
#elif defined(__aarch64__)
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    word = (word & ~(uint64_t)SUBNORMAL_ARM) | mode;
    __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory");
#else
    (void)mode;
#endif
}

/* From here on subnormal numbers are zeros. Returns the mode before, to be handed to subnormal_set. */
static inline uint64_t subnormal_flush(void) {
    const uint64_t before = subnormal_mode();
#if defined(__x86_64__)
    subnormal_set(SUBNORMAL_X86);
#elif defined(__aarch64__)
    subnormal_set(SUBNORMAL_ARM);
#endif
    return before;
}
#endif
