/* What becomes of results too small for a normal number. A processor may take a hundred times as long over each of them, and training makes them by the
   million: the share of a far key in a sharp softmax, its gradient, the moments of a rare token. */
#ifndef BASE_SUBNORMAL_H
#define BASE_SUBNORMAL_H
#include <stdint.h>

/* MXCSR: flush to zero. Subnormal numbers that are read keep their values. ARM computes with them at full speed. */
enum { SUBNORMAL_FLUSH = 0x8000 };

/* The mode of the calling thread: SUBNORMAL_FLUSH or 0. */
static inline uint32_t subnormal_mode(void) {
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & SUBNORMAL_FLUSH;
#else
    return 0;
#endif
}

/* Only the mode changes: rounding and the flags that were raised stay. No arithmetic moves across. */
static inline void subnormal_set(uint32_t mode) {
#if defined(__x86_64__)
    uint32_t word = (__builtin_ia32_stmxcsr() & ~(uint32_t)SUBNORMAL_FLUSH) | mode;
    __asm__ volatile("ldmxcsr %0" : : "m"(word) : "memory");
#else
    (void)mode;
#endif
}

/* From here on results that would be subnormal are zeros. Returns the mode before, to be handed to subnormal_set. */
static inline uint32_t subnormal_flush(void) {
    const uint32_t before = subnormal_mode();
    subnormal_set(SUBNORMAL_FLUSH);
    return before;
}
#endif
