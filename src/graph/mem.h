/* The memory planner: byte offsets for buffers with known lifetimes. A pure function of sizes and steps. */
#ifndef GRAPH_MEM_H
#define GRAPH_MEM_H
#include <stdint.h>

#include "base/err.h"

/* A buffer is live from step `first` to step `last`, both included. */
struct mem_buffer {
    int64_t bytes;
    int first, last;
    int64_t offset;  // result: a multiple of 64
};

/* Places n buffers so that no two that are live together overlap (greedy by size, best gap: Pisarchyk and Lee, 2020). *total: bytes needed. */
enum cb_status mem_place(struct mem_buffer *buffers, int n, int64_t *total, struct cb_err *err);
#endif
