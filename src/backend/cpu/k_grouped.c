/* Kernels of grouped products: one packed multiplication a group, over the rows that it has this time. */
#include "backend/cpu/outer.h"
#include "backend/cpu/tile.h"
#include "base/cpuid.h"
#include "gen/attrs.h"

enum { X, ENDS, ACC, WEIGHTS };
enum { FEW_ROWS = 8, DEEP = 4096 }; /* sizes around which a multiplication goes another way, see gemm.c */

/* Rows [*begin, *begin + result) of a group. */
static int64_t group_rows(const int32_t *ends, int64_t group, int64_t rows, int64_t *begin) {
    *begin = tile_max(0, tile_min(rows, ends[group]));
    return tile_max(0, tile_min(rows, ends[group + 1]) - *begin);
}

/* ---- grouped_linear */
static struct gemm linear_of(const struct node *node, const struct gemm_isa *isa) {
    const bool in_out = ((const struct attr_grouped_linear *)node->attrs)->weight_is_in_out;
    const struct cb_type *x = &node->in[X]->type, *w = &node->in[WEIGHTS]->type;
    struct gemm g = {.m = x->dim[0], .n = node->out[0]->type.dim[1], .k = x->dim[1], .isa = isa, .accumulate = true};
    g.a_row = g.k;
    g.a_col = 1;
    g.b_row = in_out ? w->dim[1] : 1;
    g.b_col = in_out ? 1 : w->dim[1];
    g.b_dtype = w->dtype;
    g.c_row = g.n;
    return g;
}

static bool linear_accepts(const struct node *node) {
    const bool in_out = ((const struct attr_grouped_linear *)node->attrs)->weight_is_in_out;
    if (node->in[X]->type.dtype != CB_DTYPE_F32 || node->in[X]->type.dim[1] < 1) return false;
    for (int i = WEIGHTS; i < node->n_in; i++) {
        enum cb_dtype dtype = node->in[i]->type.dtype;
        if (!gemm_dtype_ok(dtype) || (in_out && dtype_of(dtype)->is_quantised)) return false;
    }
    return true;
}

/* Enough for any number of rows: each way of multiplying needs more for more of them. */
static size_t linear_workspace(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    size_t most = 0;
    for (int i = WEIGHTS; i < node->n_in; i++) {
        struct gemm g = linear_of(node, isa);
        const int64_t rows = g.m;
        g.b_dtype = node->in[i]->type.dtype;
        for (int k = 0; k < 2; k++) {
            g.m = k ? rows : tile_min(rows, FEW_ROWS);
            size_t bytes = gemm_workspace(&g, n_threads);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

static void linear_run(const struct op_run *run, const struct gemm_isa *isa) {
    const struct node *node = run->node;
    const int64_t first = ((const struct attr_grouped_linear *)node->attrs)->first, rows = node->in[X]->type.dim[0];
    outer_start(run->out[0], run->in[ACC], &node->out[0]->type);
    for (int i = WEIGHTS; i < node->n_in; i++) {
        struct gemm g = linear_of(node, isa);
        int64_t begin;
        g.m = group_rows(run->in[ENDS], first + i - WEIGHTS, rows, &begin);
        if (!g.m) continue;
        g.a = (const float *)run->in[X] + begin * g.a_row;
        g.b = run->in[i];
        g.b_dtype = node->in[i]->type.dtype;
        g.c = (float *)run->out[0] + begin * g.c_row;
        gemm_run(&g, run->work, run->pool);
    }
}

/* ---- grouped_outer */
/* Packing cuts long sums into pieces, so that more rows may need less: all are asked. */
static size_t outer_workspace(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    const int64_t rows = node->in[0]->type.dim[0];
    struct gemm g = outer_of(&node->out[0]->type, rows, isa);
    size_t most = gemm_workspace(&g, n_threads);
    for (g.k = 1; g.k < tile_min(rows, DEEP); g.k++) {
        size_t bytes = gemm_workspace(&g, n_threads);
        if (bytes > most) most = bytes;
    }
    return most;
}

static void outer_run(const struct op_run *run, const struct gemm_isa *isa) {
    const struct cb_type *y = &run->node->out[0]->type;
    const int64_t group = ((const struct attr_grouped_outer *)run->node->attrs)->group;
    int64_t begin;
    const int64_t rows = group_rows(run->in[2], group, run->node->in[0]->type.dim[0], &begin);
    outer_start(run->out[0], run->in[3], y);
    outer_add(outer_of(y, rows, isa), run, begin);
}

#define KERNEL(name, mask)                                                                                                          \
    static size_t linear_workspace_##name(const struct node *node, int n) { return linear_workspace(node, n, gemm_isa_for(mask)); } \
    static size_t outer_workspace_##name(const struct node *node, int n) { return outer_workspace(node, n, gemm_isa_for(mask)); }   \
    static void linear_run_##name(const struct op_run *run) { linear_run(run, gemm_isa_for(mask)); }                                \
    static void outer_run_##name(const struct op_run *run) { outer_run(run, gemm_isa_for(mask)); }
KERNEL(amx, CPU_AMX | CPU_AVX512 | CPU_AVX2)
KERNEL(avx512, CPU_AVX512 | CPU_AVX2)
KERNEL(avx2, CPU_AVX2)
KERNEL(simd, 0)

const struct kernel kernel_file_grouped[] = {
    {"grouped_linear", "amx", CPU_AMX | CPU_AVX512 | CPU_AVX2, 32, linear_accepts, linear_workspace_amx, linear_run_amx},
    {"grouped_linear", "avx512", CPU_AVX512 | CPU_AVX2, 30, linear_accepts, linear_workspace_avx512, linear_run_avx512},
    {"grouped_linear", "avx2", CPU_AVX2, 20, linear_accepts, linear_workspace_avx2, linear_run_avx2},
    {"grouped_linear", "simd", 0, 10, linear_accepts, linear_workspace_simd, linear_run_simd},
    {"grouped_outer", "amx", CPU_AMX | CPU_AVX512 | CPU_AVX2, 32, outer_accepts, outer_workspace_amx, outer_run_amx},
    {"grouped_outer", "avx512", CPU_AVX512 | CPU_AVX2, 30, outer_accepts, outer_workspace_avx512, outer_run_avx512},
    {"grouped_outer", "avx2", CPU_AVX2, 20, outer_accepts, outer_workspace_avx2, outer_run_avx2},
    {"grouped_outer", "simd", 0, 10, outer_accepts, outer_workspace_simd, outer_run_simd},
    {0},
};
