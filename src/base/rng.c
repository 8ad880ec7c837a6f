/* Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, SC 2011) and a sequential stream over it. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

struct rng_block rng_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct rng_block){{c0, c1, c2, c3}};
}

struct rng rng_make(uint64_t seed, uint64_t stream) {
    return (struct rng){.key = seed, .stream = stream};
}

uint32_t rng_u32(struct rng *rng) {
    if (rng->n_left <= 0) {
        rng->block = rng_philox(rng->key, rng->counter++, rng->stream);
        rng->n_left = 4;
    }
    return rng->block.word[4 - rng->n_left--];
}

static uint64_t rng_u64(struct rng *rng) {
    uint64_t low = rng_u32(rng);
    return low | (uint64_t)rng_u32(rng) << 32;
}

uint64_t rng_below(struct rng *rng, uint64_t n) {
    // values under 2^64 mod n would favour small results: draw again
    uint64_t refused = (0 - n) % n, x;
    do x = rng_u64(rng);
    while (x < refused);
    return x % n;
}

double rng_f64(struct rng *rng) { return (double)(rng_u64(rng) >> 11) * 0x1p-53; }

// Box and Muller 1958; the sine branch is dropped, so one call is a fixed number of words.
double rng_normal(struct rng *rng) {
    double u = 1.0 - rng_f64(rng), v = rng_f64(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}

uint64_t rng_hash(const char *text) { return hash_bytes(HASH_START, text, strlen(text)); }
