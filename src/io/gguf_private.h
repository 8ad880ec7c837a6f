/* Shared between the files that read GGUF. */
#ifndef IO_GGUF_PRIVATE_H
#define IO_GGUF_PRIVATE_H
#include "base/arena.h"
#include "base/table.h"
#include "io/gguf.h"

struct gguf {
    struct arena *arena;  // names and texts
    struct map *map;  // of the file that has the keys
    struct tensors *tensors;
    struct gguf_key *keys;
    int n_keys;
    struct table by_name;  // to the key's number
};

int gguf_type_bytes(enum gguf_type type);

/* A little-endian word of n bytes. */
static inline uint64_t gguf_word(const unsigned char *p, int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)p[i] << 8 * i;
    return x;
}
#endif
