/* Products with matrices in blocks: every kernel against the dequantised numbers in double, both ways round, few rows and many, bit-equal for any threads. */
#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "base/rng.h"
#include "graph/plan.h"
#include "harness.h"
#include "ops/ops.h"

struct shape {
    int64_t m, n, k;
};

static void fill(float *x, int64_t n, uint64_t key) {
    struct rng rng = rng_make(5, key);
    for (int64_t i = 0; i < n; i++) x[i] = (float)rng_below(&rng, 1 << 20) / (1 << 19) - 1;
}

/* y of one plan with a kernel and threads; owned by caller. */
static float *product(const struct shape *s, enum cb_dtype dtype, bool turned, const void *b, const float *x, const float *bias,
                      const char *kernels, int threads, bool *is_there) {
    struct cb_err err = {0};
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    const int64_t in = turned ? s->k : s->n, out = turned ? s->n : s->k;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *a = graph_input(g, "x", type_make(CB_DTYPE_F32, 3, (int64_t[]){1, s->m, in}));
    struct cb_tensor *w = graph_param(g, "w", type_make(dtype, 2, (int64_t[]){s->n, s->k}));
    struct cb_tensor *add = turned ? graph_input(g, "bias", type_make(CB_DTYPE_F32, 1, &out)) : NULL;
    graph_output(g, op_linear(g, a, w, add, !turned), "y");
    struct plan_options options = {.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = threads, .kernels = kernels};
    enum cb_status status = plan_create(&plan, g, &options, &err);
    float *y = NULL;
    *is_there = status == CB_OK;
    if (status == CB_OK) {
        memcpy(plan_data(plan, plan_find(plan, "x")), x, (size_t)(s->m * in) * sizeof *x);
        if (add) memcpy(plan_data(plan, plan_find(plan, "bias")), bias, (size_t)out * sizeof *bias);
        plan_bind(plan, plan_find(plan, "w"), (void *)(uintptr_t)b);
        CHECK_OK(pool_create(&pool, threads, &err));
        CHECK_OK(plan_run(plan, pool, &err));
        pool_destroy(&pool);
        y = malloc((size_t)(s->m * out) * sizeof *y);
        memcpy(y, plan_data(plan, plan_find(plan, "y")), (size_t)(s->m * out) * sizeof *y);
        plan_destroy(&plan);
    }
    graph_destroy(&g);
    return y;
}

static void check_shape(const struct shape *s, enum cb_dtype dtype, bool turned, const char *kernels) {
    const struct dtype *kind = dtype_of(dtype);
    const int64_t in = turned ? s->k : s->n, out = turned ? s->n : s->k, size = s->n * s->k;
    float *w = malloc((size_t)size * sizeof *w), *x = malloc((size_t)(s->m * in) * sizeof *x), *bias = malloc((size_t)out * sizeof *bias);
    char *b = malloc((size_t)(size / kind->block * kind->block_bytes));
    fill(w, size, 1);
    fill(x, s->m * in, 2);
    fill(bias, out, 3);
    kind->from_f32(b, w, size);
    kind->to_f32(w, b, size);
    bool there, again;
    float *y = product(s, dtype, turned, b, x, bias, kernels, 1, &there), *z = product(s, dtype, turned, b, x, bias, kernels, 3, &again);
    for (int64_t i = 0; there && i < s->m * out; i++) {
        double want = turned ? bias[i % out] : 0, scale = 1;
        for (int64_t p = 0; p < in; p++) {
            double term = (double)x[i / out * in + p] * w[turned ? i % out * s->k + p : p * s->k + i % out];
            want += term;
            scale += fabs(term);
        }
        CHECK(fabs(y[i] - want) < 2e-6 * scale, "%s %s (%lld,%lld,%lld): y[%lld] is %g; %g wanted", kind->name, kernels, (long long)s->m,
              (long long)s->n, (long long)s->k, (long long)i, y[i], want);
    }
    CHECK(there == again && (!there || !memcmp(y, z, (size_t)(s->m * out) * sizeof *y)), "%s %s: other bits on three threads", kind->name,
          kernels);
    free(w), free(x), free(bias), free(b), free(y), free(z);
}

TEST(blocks, every_kernel) {
    static const enum cb_dtype types[] = {CB_DTYPE_Q8_0, CB_DTYPE_Q4_0, CB_DTYPE_Q4_K, CB_DTYPE_Q6_K,
                                          CB_DTYPE_Q5_1, CB_DTYPE_Q3_K, CB_DTYPE_MXFP4};
    static const char *const kernels[] = {"matmul=blocks", "matmul=blocks_avx2", "matmul=blocks_avx512", "matmul=blocks_amx", NULL};
    static const struct shape shapes[] = {{1, 1, 256}, {1, 67, 512},  {2, 33, 1280}, {3, 70, 768},
                                          {4, 5, 256}, {7, 101, 512}, {8, 40, 2304}};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                check_shape(&shapes[s], types[t], true, kernels[k]);
                check_shape(&shapes[s], types[t], false, kernels[k]);
            }
    // runs of blocks that end within a row, over several rows and tiles
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++)
        for (int t = 0; t < 2; t++) {
            check_shape(&(struct shape){1, 70, 896}, types[t], true, kernels[k]);
            check_shape(&(struct shape){2, 35, 32}, types[t], true, kernels[k]);
            check_shape(&(struct shape){7, 34, 1056}, types[t], true, kernels[k]);
        }
    // rows that are no multiple of a long block; many rows; a matrix of several slabs
    check_shape(&(struct shape){1, 45, 896}, CB_DTYPE_Q8_0, true, NULL);
    check_shape(&(struct shape){5, 45, 96}, CB_DTYPE_Q4_0, true, NULL);
    check_shape(&(struct shape){40, 130, 512}, CB_DTYPE_Q4_K, true, NULL);
    check_shape(&(struct shape){40, 130, 512}, CB_DTYPE_Q6_K, false, NULL);
    check_shape(&(struct shape){3, 2500, 512}, CB_DTYPE_Q8_0, false, NULL);
}

/* A row of A that is not finite stays alone with it. */
TEST(blocks, rows_keep_apart) {
    static const enum cb_dtype types[] = {CB_DTYPE_Q8_0, CB_DTYPE_Q4_0, CB_DTYPE_Q4_K, CB_DTYPE_Q6_K};
    enum { M = 4, N = 3, K = 768 };
    const struct shape s = {M, N, K};
    float w[N * K], x[M * K], bias[N] = {0};
    char b[N * K * 4];
    fill(w, N * K, 1);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int odd = 0; odd < M; odd++) {
            bool there;
            fill(x, M * K, 2);
            for (int i = 0; i < K; i++) x[odd * K + i] = i % 2 ? INFINITY : NAN;
            dtype_of(types[t])->from_f32(b, w, N * K);
            float *y = product(&s, types[t], true, b, x, bias, NULL, 1, &there);
            CHECK(there);
            for (int i = 0; there && i < M * N; i++)
                CHECK(!isfinite(y[i]) == (i / N == odd), "%s: y[%d] is %g, row %d is not finite", dtype_of(types[t])->name, i, y[i], odd);
            free(y);
        }
}
