/* Cutting a kernel's work into tiles: small work runs at once on the calling thread. */
#ifndef BACKEND_CPU_TILE_H
#define BACKEND_CPU_TILE_H
#include "base/pool.h"
#include "graph/backend.h"

#define TILE_SMALL 16384 /* floats read or written below which waking threads costs more than it gives */

/* pool_run, or a plain loop where `work` (floats touched, or that equivalent) is small. */
static inline void tile_run(struct pool *pool, int64_t work, int64_t n_tiles, void (*tile)(void *context, int64_t i, int thread),
                            void *context) {
    if (work >= TILE_SMALL && n_tiles > 1 && pool) {
        pool_run(pool, n_tiles, tile, context);
        return;
    }
    for (int64_t i = 0; i < n_tiles; i++) tile(context, i, 0);
}
static inline int64_t tile_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t tile_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t tile_count(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Whether all inputs and outputs that are present are f32. */
static inline bool node_is_f32(const struct node *node) {
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] && node->in[i]->type.dtype != CB_DTYPE_F32) return false;
    for (int i = 0; i < node->n_out; i++)
        if (node->out[i]->type.dtype != CB_DTYPE_F32) return false;
    return true;
}
#endif
