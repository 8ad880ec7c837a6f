/* A permutation of [0, n) without memory: a Feistel network over the next power of 4, walked until it falls inside (Black and Rogaway, CT-RSA 2002). */
#ifndef DATA_PERMUTE_H
#define DATA_PERMUTE_H
#include "base/rng.h"

#define PERMUTE_ROUNDS 6

/* Where i of [0, n) goes under (seed, epoch); a bijection for each pair. 0 < n <= 2^62. */
static inline uint64_t permute(uint64_t i, uint64_t n, uint64_t seed, uint64_t epoch) {
    int half = 1;
    while (half < 31 && n > (uint64_t)1 << 2 * half) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < PERMUTE_ROUNDS; round++) {
            uint64_t mixed = left ^ (rng_philox(seed, round << 32 | right, epoch).word[0] & mask);
            left = right, right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
#endif
