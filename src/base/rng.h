/* Counter-based randomness: Philox 4x32-10 (Salmon et al., SC 2011), so that any step can be repeated alone. */
#ifndef BASE_RNG_H
#define BASE_RNG_H
#include <stdint.h>

/* Four random words for (key, counter). */
struct rng_block {
    uint32_t word[4];
};
struct rng_block rng_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

/* Uniform in [0,1) with 24 bits, from one word. */
static inline float rng_uniform(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }

/* A sequential stream for code that is not a kernel (initialisation, shuffling). Initialise {seed, stream, 0}. */
struct rng {
    uint64_t key, stream, counter;
    int n_left;
    struct rng_block block;
};
struct rng rng_make(uint64_t seed, uint64_t stream);
uint32_t rng_u32(struct rng *rng);
/* Uniform integer in [0, n), n > 0, without bias. */
uint64_t rng_below(struct rng *rng, uint64_t n);
double rng_f64(struct rng *rng);  // uniform [0,1), 53 bits
double rng_normal(struct rng *rng);  // Box-Muller
/* A stable 64-bit hash of text (FNV-1a), to key nodes and parameters by name. */
uint64_t rng_hash(const char *text);
#endif
