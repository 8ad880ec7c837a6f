/* What products of groups of rows share: the result's beginning, and the gradient of a group's matrix. */
#ifndef BACKEND_CPU_OUTER_H
#define BACKEND_CPU_OUTER_H
#include <string.h>

#include "backend/cpu/gemm.h"
#include "graph/backend.h"

/* Takes over acc, or zeros. */
static inline void outer_start(void *out, const void *acc, const struct cb_type *type) {
    if (!acc)
        memset(out, 0, (size_t)type_bytes(type));
    else if (acc != out)
        memcpy(out, acc, (size_t)type_bytes(type));
}

/* y (M,N) += a' b over k rows of a and b, which are still to be set. */
static inline struct gemm outer_of(const struct cb_type *y, int64_t k, const struct gemm_isa *isa) {
    struct gemm g = {.m = y->dim[0], .n = y->dim[1], .k = k, .b_dtype = CB_DTYPE_F32, .isa = isa, .accumulate = true};
    g.a_row = 1;
    g.a_col = g.m;
    g.b_row = g.n;
    g.b_col = 1;
    g.c_row = g.n;
    return g;
}

/* The rows from `first` on. */
static inline void outer_add(struct gemm g, const struct op_run *run, int64_t first) {
    if (!g.k) return;
    g.a = (const float *)run->in[0] + first * g.m;
    g.b = (const float *)run->in[1] + first * g.n;
    g.c = run->out[0];
    gemm_run(&g, run->work, run->pool);
}

static inline bool outer_accepts(const struct node *node) { return node->out[0]->type.dtype == CB_DTYPE_F32; }
#endif
