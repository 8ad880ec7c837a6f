/* FNV-1a (Fowler, Noll, Vo), 64 bits: a stable hash of what a file or a run is, not against intent. Begin with HASH_START. */
#ifndef BASE_HASH_H
#define BASE_HASH_H
#include <stddef.h>
#include <stdint.h>

#define HASH_START 0xCBF29CE484222325u
#define HASH_PRIME 0x100000001B3u

static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t n) {
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * HASH_PRIME;
    return hash;
}

/* A number at once, its high bits folded in. */
static inline uint64_t hash_word(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * HASH_PRIME;
    return hash ^ hash >> 29;
}
#endif
