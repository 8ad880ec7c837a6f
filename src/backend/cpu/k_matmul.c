/* Kernels of matmul and matmul_sum: batches of matrices handed to the packed multiplication of one instruction set. */
#include <string.h>

#include "backend/cpu/gemm.h"
#include "backend/cpu/tile.h"
#include "base/cpuid.h"
#include "gen/attrs.h"

enum { A, B, BIAS, ACC };

/* Matrices this many or this small are shared out whole to threads; otherwise threads share each matrix. */
enum { MANY = 8, SMALL_PRODUCT = 1 << 21, SMALL_TOTAL = 1 << 18 };

/* The node as n_batch multiplications; the first is in g (no pointers yet). */
struct batch {
    struct gemm g;
    int n_axes;
    int64_t n_batch, dim[CB_MAX_RANK], a_step[CB_MAX_RANK], b_step[CB_MAX_RANK], c_step;
};

/* Steps in elements of an operand along the output's batch axes: 0 where it is broadcast. */
static void batch_steps(const struct cb_type *t, const struct batch *s, int64_t *steps) {
    const int own = t->rank > 2 ? t->rank - 2 : 0;
    int64_t step = t->rank > 1 ? t->dim[t->rank - 1] * t->dim[t->rank - 2] : 0;
    for (int i = s->n_axes - 1; i >= 0; i--) {
        const int at = i - (s->n_axes - own);
        const int64_t d = at < 0 ? 1 : t->dim[at];
        steps[i] = d == 1 ? 0 : step;
        step *= d;
    }
}

static struct batch batch_of(const struct node *node, const struct gemm_isa *isa) {
    const struct attr_matmul *attrs = node->attrs;
    const struct cb_type *a = &node->in[A]->type, *b = &node->in[B]->type, *out = &node->out[0]->type;
    // A vector on the left is a row, on the right a column.
    const int64_t a_rows = a->rank > 1 ? a->dim[a->rank - 2] : 1, a_cols = a->dim[a->rank - 1];
    const int64_t b_rows = b->rank > 1 ? b->dim[b->rank - 2] : b->dim[0], b_cols = b->rank > 1 ? b->dim[b->rank - 1] : 1;
    struct batch s = {.g = {.b_dtype = b->dtype, .isa = isa}, .n_batch = 1};
    s.g.m = attrs->trans_a ? a_cols : a_rows;
    s.g.k = attrs->trans_a ? a_rows : a_cols;
    s.g.n = attrs->trans_b ? b_rows : b_cols;
    s.g.a_row = attrs->trans_a ? 1 : a_cols;
    s.g.a_col = attrs->trans_a ? a_cols : 1;
    s.g.b_row = attrs->trans_b ? 1 : b_cols;
    s.g.b_col = b->rank == 1 ? s.g.k : attrs->trans_b ? b_cols : 1;
    s.g.c_row = s.g.n;
    s.g.accumulate = node->n_in > ACC && node->in[ACC];
    s.n_axes = (a->rank > b->rank ? a->rank : b->rank) - 2;
    if (s.n_axes < 0) s.n_axes = 0;
    for (int i = 0; i < s.n_axes; i++) s.n_batch *= s.dim[i] = out->dim[i];
    batch_steps(a, &s, s.a_step);
    batch_steps(b, &s, s.b_step);
    s.c_step = s.g.m * s.g.n;
    // One B for all batches of rows: one tall matrix.
    const bool one_b = b->rank <= 2, whole_a = a->rank - 2 == s.n_axes;
    if (s.n_axes > 0 && one_b && whole_a && !attrs->trans_a) {
        s.g.m *= s.n_batch;
        s.n_axes = 0;
        s.n_batch = 1;
    }
    return s;
}

static int64_t product(const struct gemm *g) {
    const int64_t limit = (int64_t)1 << 20;
    return tile_min(g->m, limit) * tile_min(g->n, limit) * tile_min(g->k, limit);
}
static bool is_shared_out(const struct batch *s) { return s->n_batch >= MANY || (s->n_batch > 1 && product(&s->g) <= SMALL_PRODUCT); }
static size_t work_of_one(const struct gemm *g, int n_threads) { return (gemm_workspace(g, n_threads) + 63) / 64 * 64; }

static bool accepts(const struct node *node) {
    const struct attr_matmul *attrs = node->attrs;
    const struct cb_type *b = &node->in[B]->type;
    if (node->in[A]->type.dtype != CB_DTYPE_F32 || node->out[0]->type.dtype != CB_DTYPE_F32 || !gemm_dtype_ok(b->dtype)) return false;
    for (int i = BIAS; i < node->n_in; i++)
        if (node->in[i] && node->in[i]->type.dtype != CB_DTYPE_F32) return false;
    return !dtype_of(b->dtype)->is_quantised || (attrs->trans_b && b->rank >= 2);
}

static size_t workspace(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    const struct batch s = batch_of(node, isa);
    return is_shared_out(&s) ? work_of_one(&s.g, 1) * (size_t)n_threads : work_of_one(&s.g, n_threads);
}

struct job {
    struct batch batch;
    const struct op_run *run;
    size_t work_bytes;
};

static void run_one(const struct job *job, int64_t i, void *work, struct pool *pool) {
    const struct batch *s = &job->batch;
    const struct op_run *run = job->run;
    const struct dtype *type = dtype_of(s->g.b_dtype);
    int64_t a = 0, b = 0, left = i;
    for (int axis = s->n_axes - 1; axis >= 0; axis--) {
        a += left % s->dim[axis] * s->a_step[axis];
        b += left % s->dim[axis] * s->b_step[axis];
        left /= s->dim[axis];
    }
    struct gemm g = s->g;
    g.a = (const float *)run->in[A] + a;
    g.b = (const char *)run->in[B] + b / type->block * type->block_bytes;
    g.c = (float *)run->out[0] + i * s->c_step;
    g.bias = run->node->n_in > BIAS ? run->in[BIAS] : NULL;
    gemm_run(&g, work, pool);
}

static void batch_tile(void *context, int64_t i, int thread) {
    const struct job *job = context;
    run_one(job, i, (char *)job->run->work + (size_t)thread * job->work_bytes, NULL);
}

static void run_with(const struct op_run *run, const struct gemm_isa *isa) {
    struct job job = {.batch = batch_of(run->node, isa), .run = run};
    const struct batch *s = &job.batch;
    if (s->g.accumulate && run->in[ACC] != run->out[0]) memcpy(run->out[0], run->in[ACC], (size_t)type_bytes(&run->node->out[0]->type));
    if (!is_shared_out(s)) {
        for (int64_t i = 0; i < s->n_batch; i++) run_one(&job, i, run->work, run->pool);
        return;
    }
    job.work_bytes = work_of_one(&s->g, 1);
    const bool tiny = product(&s->g) <= SMALL_TOTAL / s->n_batch;
    tile_run(run->pool, tiny ? 0 : TILE_SMALL, s->n_batch, batch_tile, &job);
}

/* ---- matmul_sum */
enum { SUM_A2 = 2, SUM_B2, SUM_BIAS, SUM_ACC };

static struct gemm sum_of(const struct node *node, const struct gemm_isa *isa) {
    const struct attr_matmul_sum *attrs = node->attrs;
    const struct cb_type *a = &node->in[A]->type, *b = &node->in[B]->type, *b2 = &node->in[SUM_B2]->type;
    struct gemm g = {.k = a->dim[a->rank - 1], .b_dtype = b->dtype, .isa = isa};
    g.m = g.k ? type_elements(a) / g.k : type_elements(&node->out[0]->type) / tile_max(1, b->dim[attrs->trans_b ? 0 : 1]);
    g.n = g.c_row = b->dim[attrs->trans_b ? 0 : 1];
    g.a_row = g.k, g.a_col = 1;
    g.b_row = attrs->trans_b ? 1 : g.n, g.b_col = attrs->trans_b ? g.k : 1;
    g.accumulate = node->n_in > SUM_ACC && node->in[SUM_ACC];
    g.r = g.a2_row = b2->dim[attrs->trans_b2 ? 1 : 0];
    g.b2_row = attrs->trans_b2 ? 1 : g.n, g.b2_col = attrs->trans_b2 ? g.r : 1;
    return g;
}

static bool sum_accepts(const struct node *node) {
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] && node->in[i]->type.dtype != CB_DTYPE_F32 && !(i == B && gemm_dtype_ok(node->in[B]->type.dtype))) return false;
    return true;
}

static size_t sum_workspace(const struct node *node, int n_threads, const struct gemm_isa *isa) {
    const struct gemm g = sum_of(node, isa);
    return gemm_workspace(&g, n_threads);
}

static void sum_run(const struct op_run *run, const struct gemm_isa *isa) {
    struct gemm g = sum_of(run->node, isa);
    g.a = run->in[A], g.b = run->in[B], g.c = run->out[0];
    g.a2 = run->in[SUM_A2], g.b2 = run->in[SUM_B2];
    if (g.accumulate && run->in[SUM_ACC] != run->out[0])
        memcpy(run->out[0], run->in[SUM_ACC], (size_t)type_bytes(&run->node->out[0]->type));
    g.bias = run->node->n_in > SUM_BIAS ? run->in[SUM_BIAS] : NULL;
    gemm_run(&g, run->work, run->pool);
}

#define KERNEL(name, mask)                                                                                                    \
    static size_t workspace_##name(const struct node *node, int n) { return workspace(node, n, gemm_isa_for(mask)); }         \
    static void run_##name(const struct op_run *run) { run_with(run, gemm_isa_for(mask)); }                                   \
    static size_t sum_workspace_##name(const struct node *node, int n) { return sum_workspace(node, n, gemm_isa_for(mask)); } \
    static void sum_run_##name(const struct op_run *run) { sum_run(run, gemm_isa_for(mask)); }
KERNEL(amx, CPU_AMX | CPU_AVX512 | CPU_AVX2)
KERNEL(avx512, CPU_AVX512 | CPU_AVX2)
KERNEL(avx2, CPU_AVX2)
KERNEL(simd, 0)

const struct kernel kernel_file_matmul[] = {
    {"matmul", "amx", CPU_AMX | CPU_AVX512 | CPU_AVX2, 32, accepts, workspace_amx, run_amx},
    {"matmul", "avx512", CPU_AVX512 | CPU_AVX2, 30, accepts, workspace_avx512, run_avx512},
    {"matmul", "avx2", CPU_AVX2, 20, accepts, workspace_avx2, run_avx2},
    {"matmul", "simd", 0, 10, accepts, workspace_simd, run_simd},
    {"matmul_sum", "amx", CPU_AMX | CPU_AVX512 | CPU_AVX2, 32, sum_accepts, sum_workspace_amx, sum_run_amx},
    {"matmul_sum", "avx512", CPU_AVX512 | CPU_AVX2, 30, sum_accepts, sum_workspace_avx512, sum_run_avx512},
    {"matmul_sum", "avx2", CPU_AVX2, 20, sum_accepts, sum_workspace_avx2, sum_run_avx2},
    {"matmul_sum", "simd", 0, 10, sum_accepts, sum_workspace_simd, sum_run_simd},
    {0},
};
