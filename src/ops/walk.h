/* Walks an index space in row-major order and keeps the element offset of several operands in it: the loop of most refs. */
#ifndef OPS_WALK_H
#define OPS_WALK_H
#include <string.h>

#include "graph/op.h"

#define WALK_MAX 4
struct walk {
    int rank, n;  // n operands
    int64_t count;  // elements of the space
    int64_t dim[CB_MAX_RANK], at[CB_MAX_RANK];
    int64_t stride[WALK_MAX][CB_MAX_RANK], offset[WALK_MAX];
};

/* Starts at the first element of a shape, with no operand. */
static inline struct walk ops_walk(int rank, const int64_t *dim) {
    struct walk w = {.rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        w.dim[i] = dim[i];
        w.count *= dim[i];
    }
    return w;
}

/* Element strides of a contiguous tensor. */
static inline void ops_strides(const struct cb_type *type, int64_t *stride) {
    int64_t s = 1;
    for (int i = type->rank - 1; i >= 0; i--) {
        stride[i] = s;
        s *= type->dim[i];
    }
}

/* Adds an operand whose shape broadcasts to the space. */
static inline void ops_walk_broadcast(struct walk *w, const struct cb_type *type) {
    int64_t stride[CB_MAX_RANK];
    ops_strides(type, stride);
    for (int i = 0; i < type->rank; i++)
        if (type->dim[i] != 1) w->stride[w->n][w->rank - type->rank + i] = stride[i];
    w->n++;
}

/* Adds an operand with given strides, one an axis, and the offset of the first element. */
static inline void ops_walk_strided(struct walk *w, const int64_t *stride, int64_t first) {
    if (w->rank > 0) memcpy(w->stride[w->n], stride, (size_t)w->rank * sizeof *stride);
    w->offset[w->n++] = first;
}

/* Moves to the next element. */
static inline void ops_walk_next(struct walk *w) {
    for (int i = w->rank - 1; i >= 0; i--) {
        for (int k = 0; k < w->n; k++) w->offset[k] += w->stride[k][i];
        if (++w->at[i] < w->dim[i]) return;
        for (int k = 0; k < w->n; k++) w->offset[k] -= w->stride[k][i] * w->dim[i];
        w->at[i] = 0;
    }
}

/* Copies the walk's operand 0 of `in`, in order, to a contiguous out. */
static inline void ops_walk_copy(struct walk *w, void *out, const void *in, size_t bytes) {
    char *o = out;
    for (int64_t i = 0; i < w->count; i++, ops_walk_next(w))
        memcpy(o + (size_t)i * bytes, (const char *)in + (size_t)w->offset[0] * bytes, bytes);
}
#endif
