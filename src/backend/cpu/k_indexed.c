/* Kernels of indexed products: neighbouring sequences of one index are one multiplication; many small ones share the threads. */
#include "backend/cpu/outer.h"
#include "backend/cpu/tile.h"
#include "base/cpuid.h"
#include "gen/attrs.h"

enum { X, INDEX, ACC, WEIGHTS };
enum { FEW_ROWS = 8 }; /* rows around which a multiplication goes another way, see gemm.c */

/* ---- indexed_linear */
static struct gemm linear_of(const struct node *node, const struct gemm_isa *isa) {
    const bool in_out = ((const struct attr_indexed_linear *)node->attrs)->weight_is_in_out;
    const struct cb_type *x = &node->in[X]->type, *y = &node->out[0]->type;
    struct gemm g = {.m = x->dim[0] * x->dim[1], .n = y->dim[2], .k = x->dim[2], .b_dtype = CB_DTYPE_F32, .isa = isa, .accumulate = true};
    g.a_row = g.k;
    g.a_col = 1;
    g.b_row = in_out ? g.n : 1;
    g.b_col = in_out ? 1 : g.k;
    g.c_row = g.n;
    return g;
}

static bool linear_accepts(const struct node *node) { return node->in[X]->type.dtype == CB_DTYPE_F32 && node->in[X]->type.dim[2] >= 1; }

/* Bytes for any number of rows of one multiplication: each way of multiplying needs more for more of them. */
static size_t work_bytes(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    struct gemm g = linear_of(node, isa);
    const int64_t rows = g.m;
    size_t most = 0;
    for (int k = 0; k < 2; k++) {
        g.m = k ? rows : tile_min(rows, FEW_ROWS);
        const size_t bytes = gemm_workspace(&g, n_threads);
        if (bytes > most) most = bytes;
    }
    return (most + 63) / 64 * 64;
}

static size_t linear_workspace(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    const size_t alone = work_bytes(node, n_threads, isa), each = work_bytes(node, 1, isa) * (size_t)n_threads;
    return alone > each ? alone : each;
}

/* The weight of sequence b; 0: none. */
static int weight_of(const struct node *node, const int32_t *index, int64_t b) {
    const int64_t i = index[b] - ((const struct attr_indexed_linear *)node->attrs)->first;
    return i >= 0 && i < node->n_in - WEIGHTS && node->in[WEIGHTS + i] ? WEIGHTS + (int)i : 0;
}

struct linear {
    const struct op_run *run;
    const struct gemm_isa *isa;
    size_t bytes;  // of a thread's work
};

/* Sequences [b, end) with one weight. */
static void linear_part(const struct linear *l, int64_t b, int64_t end, int weight, void *work, struct pool *pool) {
    const struct op_run *run = l->run;
    struct gemm g = linear_of(run->node, l->isa);
    const int64_t t = run->node->in[X]->type.dim[1];
    g.m = (end - b) * t;
    g.a = (const float *)run->in[X] + b * t * g.a_row;
    g.b = run->in[weight];
    g.c = (float *)run->out[0] + b * t * g.c_row;
    if (g.m) gemm_run(&g, work, pool);
}

/* One sequence a tile. */
static void linear_tile(void *context, int64_t b, int thread) {
    const struct linear *l = context;
    const int weight = weight_of(l->run->node, l->run->in[INDEX], b);
    if (weight) linear_part(l, b, b + 1, weight, (char *)l->run->work + (size_t)thread * l->bytes, NULL);
}

static void linear_run(const struct op_run *run, const struct gemm_isa *isa) {
    const struct node *node = run->node;
    const int64_t n = node->in[X]->type.dim[0];
    struct linear l = {run, isa, work_bytes(node, 1, isa)};
    outer_start(run->out[0], run->in[ACC], &node->out[0]->type);
    int64_t n_parts = 0;
    for (int64_t b = 0, end; b < n; b = end) {
        const int weight = weight_of(node, run->in[INDEX], b);
        for (end = b + 1; end < n && weight_of(node, run->in[INDEX], end) == weight;) end++;
        n_parts += weight > 0;
    }
    // few long runs share the threads inside of each; many sequences are shared out
    if (n_parts >= FEW_ROWS) {
        pool_run(run->pool, n, linear_tile, &l);
        return;
    }
    for (int64_t b = 0, end; b < n; b = end) {
        const int weight = weight_of(node, run->in[INDEX], b);
        for (end = b + 1; end < n && weight_of(node, run->in[INDEX], end) == weight;) end++;
        if (weight) linear_part(&l, b, end, weight, run->work, run->pool);
    }
}

/* ---- indexed_outer */
/* For runs of any number of sequences. */
static size_t outer_workspace(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    const struct cb_type *x = &node->in[0]->type;
    size_t most = 0;
    for (int64_t b = 1; b <= x->dim[0]; b++) {
        const struct gemm g = outer_of(&node->out[0]->type, b * x->dim[1], isa);
        const size_t bytes = gemm_workspace(&g, n_threads);
        if (bytes > most) most = bytes;
    }
    return most;
}

static void outer_run(const struct op_run *run, const struct gemm_isa *isa) {
    const struct cb_type *x = &run->node->in[0]->type;
    const int64_t number = ((const struct attr_indexed_outer *)run->node->attrs)->number, n = x->dim[0], t = x->dim[1];
    const int32_t *index = run->in[2];
    outer_start(run->out[0], run->in[3], &run->node->out[0]->type);
    for (int64_t b = 0, end; b < n; b = end) {
        for (end = b + 1; end < n && (index[end] == number) == (index[b] == number);) end++;
        if (index[b] == number) outer_add(outer_of(&run->node->out[0]->type, (end - b) * t, isa), run, b * t);
    }
}

#define KERNEL(name, mask)                                                                                                          \
    static size_t linear_workspace_##name(const struct node *node, int n) { return linear_workspace(node, n, gemm_isa_for(mask)); } \
    static size_t outer_workspace_##name(const struct node *node, int n) { return outer_workspace(node, n, gemm_isa_for(mask)); }   \
    static void linear_run_##name(const struct op_run *run) { linear_run(run, gemm_isa_for(mask)); }                                \
    static void outer_run_##name(const struct op_run *run) { outer_run(run, gemm_isa_for(mask)); }
KERNEL(avx512, CPU_AVX512 | CPU_AVX2)
KERNEL(avx2, CPU_AVX2)
KERNEL(simd, 0)

const struct kernel kernel_file_indexed[] = {
    {"indexed_linear", "avx512", CPU_AVX512 | CPU_AVX2, 30, linear_accepts, linear_workspace_avx512, linear_run_avx512},
    {"indexed_linear", "avx2", CPU_AVX2, 20, linear_accepts, linear_workspace_avx2, linear_run_avx2},
    {"indexed_linear", "simd", 0, 10, linear_accepts, linear_workspace_simd, linear_run_simd},
    {"indexed_outer", "avx512", CPU_AVX512 | CPU_AVX2, 30, outer_accepts, outer_workspace_avx512, outer_run_avx512},
    {"indexed_outer", "avx2", CPU_AVX2, 20, outer_accepts, outer_workspace_avx2, outer_run_avx2},
    {"indexed_outer", "simd", 0, 10, outer_accepts, outer_workspace_simd, outer_run_simd},
    {0},
};
