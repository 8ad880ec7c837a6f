/* Kernels against ref on shapes that are larger and odder than the ops' own cases, bit-equal for 1, 2 and 3 threads; and all cases of all ops. */
#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "graph/plan.h"
#include "graph/selftest.h"
#include "harness.h"
#include "ops/ops.h"

#define MAX_OUT 8
struct input {
    int rank;
    int64_t dim[4];
    int64_t below; /* > 0: i32 in [low, below) */
    int64_t low;
};
struct shape_case {
    const char *op, *attrs;
    struct input in[10]; /* rank -1: absent; ends at rank 0 */
};
#define F(...) \
    { (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}, 0, 0 }
#define I(low, below, ...) \
    { (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}, below, low }
#define NONE \
    { -1, {0}, 0, 0 }

static const struct shape_case cases[] = {
    {"attention", "causal=1", {F(2, 130, 4, 64), F(2, 130, 4, 64), F(2, 130, 4, 64)}},
    {"attention", "causal=0", {F(1, 77, 6, 33), F(1, 201, 2, 33), F(1, 201, 2, 33)}},
    {"attention", "causal=1,window=41", {F(1, 150, 3, 20), F(1, 150, 3, 20), F(1, 150, 3, 20)}},
    {"attention", "causal=1,softcap=2", {F(1, 65, 2, 128), F(1, 65, 1, 128), F(1, 65, 1, 128)}},
    {"attention", "causal=1", {F(2, 100, 2, 16), F(2, 100, 2, 16), F(2, 100, 2, 16), F(2, 1, 100, 100)}},
    {"attention", "causal=1", {F(2, 100, 2, 16), F(2, 100, 2, 16), F(2, 100, 2, 16), F(100), I(0, 2, 2, 100), I(0, 2, 2, 100)}},
    {"attention", "causal=1", {F(3, 1, 8, 64), F(3, 300, 2, 64), F(3, 300, 2, 64), NONE, NONE, NONE, I(0, 300, 3)}},
    {"attention", "causal=1,window=70", {F(2, 5, 4, 24), F(2, 190, 4, 24), F(2, 190, 4, 24), NONE, NONE, NONE, I(-3, 190, 2)}},
    {"attention", "causal=1", {F(2, 7, 4, 24), F(2, 90, 4, 24), F(2, 90, 4, 24), F(4, 1, 1), I(0, 3, 2, 7), I(0, 3, 2, 90), I(0, 90, 2)}},
    {"attention", "causal=1", {F(2, 70, 4, 24), F(2, 190, 4, 24), F(2, 190, 4, 24), NONE, NONE, NONE, I(-9, 190, 2)}},
    {"layer_norm", "eps=1e-5", {F(301, 773), F(773), F(773)}},
    {"layer_norm_grad", "eps=1e-5,params=1", {F(301, 773), F(773), F(301, 773)}},
    {"rms_norm", "eps=1e-5,offset=1", {F(301, 773), F(773)}},
    {"rms_norm_grad", "eps=1e-5,params=1", {F(301, 773), F(773), F(301, 773)}},
    {"layer_norm", "eps=1e-5", {F(5000, 3)}},
    {"softmax", "axis=1", {F(203, 517)}},
    {"log_softmax", "axis=1", {F(203, 517)}},
    {"softmax_grad", "axis=1", {F(203, 517), F(203, 517)}},
    {"log_softmax_grad", "axis=1", {F(203, 517), F(203, 517)}},
    {"cross_entropy", "reduction=0", {F(65, 1003), I(0, 1003, 65)}},
    {"cross_entropy", "reduction=2", {F(65, 1003), I(-2, 1009, 65)}},
    {"cross_entropy_grad", "reduction=0", {F(65, 1003), I(0, 1003, 65), F(1)}},
    {"embedding", "", {F(101, 131), I(-1, 103, 5, 77)}},
    {"embedding_grad", "rows=101", {I(-1, 103, 5, 77), F(5, 77, 131)}},
    {"rope", "", {F(3, 37, 5, 66), I(0, 4000, 37), F(33)}},
    {"rope", "interleaved=1,inverse=1", {F(3, 37, 5, 67), I(0, 4000, 3, 37), F(21)}},
    {"gelu", "", {F(33, 1003)}},
    {"gelu_grad", "", {F(33, 1003), F(33, 1003)}},
    {"gelu_tanh_grad", "", {F(33, 1003), F(33, 1003)}},
    {"silu_grad", "", {F(33, 1003), F(33, 1003)}},
    {"tanh", "", {F(20001)}},
    {"log", "", {F(20001)}},
    {"add", "", {F(33, 1003), F(1003)}},
    {"mul", "", {F(7, 33, 103), F(7, 1, 103)}},
    {"sub", "", {F(7, 33, 103), F(33, 1)}},
    {"maximum", "", {F(17, 1, 33), F(1, 51, 1)}},
    {"add", "", {F(30001), F(30001)}},
    {"sum", "axes=0", {F(1001, 333)}},
    {"sum", "axes=0:1", {F(301, 333)}},
    {"mean", "axes=1", {F(2003, 33)}},
    {"sum", "axes=1", {F(7, 203, 31)}},
    {"sum_to", "shape=333", {F(7, 203, 333)}},
    {"permute", "axes=0:2:1:3", {F(3, 37, 5, 64)}},
    {"permute", "axes=1:0", {F(203, 517)}},
    {"permute", "axes=2:0:3:1", {F(7, 37, 5, 33)}},
    {"expand", "shape=31:17:77", {F(17, 1)}},
    {"matmul", "", {F(67, 129), F(129, 203)}},
    {"matmul", "trans_a=1", {F(129, 67), F(129, 203)}},
    {"conv2d", "stride=2:1,padding=1:2,groups=2", {F(3, 6, 17, 19), F(10, 3, 3, 5), F(10)}},
    {"lstm", "", {F(5, 9, 37), F(92, 37), F(92, 23), F(92), F(92)}},
};

/* What one plan gave. */
struct result {
    int n;
    float *data[MAX_OUT];
    int64_t count[MAX_OUT];
};
static void result_free(struct result *r) {
    for (int i = 0; i < r->n; i++) free(r->data[i]);
    r->n = 0;
}

/* Deterministic values: floats in (-1, 1) around a slow wave, or integers. */
static void fill(void *to, const struct input *in, int64_t n, uint32_t seed) {
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        if (in->below > 0)
            ((int32_t *)to)[i] = (int32_t)(in->low + (int64_t)((seed >> 8) % (uint32_t)(in->below - in->low)));
        else
            ((float *)to)[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

/* The case (with the gradients of its outputs' sum of squares, where wanted) under the named kernels. */
static enum cb_status run_case(const struct shape_case *c, bool grads, const char *kernels, uint32_t mask, int threads, struct result *out,
                               struct cb_err *err) {
    struct cb_graph *g = NULL;
    struct plan *plan = NULL;
    struct pool *pool = NULL;
    struct cb_tensor *in[10] = {NULL}, *dx[10] = {NULL};
    char name[16];
    int n = 0;
    TRY(graph_create(&g, ops_table(), err));
    for (; n < 10 && c->in[n].rank; n++) {
        if (c->in[n].rank < 0) continue;
        snprintf(name, sizeof name, "in%d", n);
        in[n] = graph_input(g, name, type_make(c->in[n].below > 0 ? CB_DTYPE_I32 : CB_DTYPE_F32, c->in[n].rank, c->in[n].dim));
        if (!strcmp(c->op, "cross_entropy_grad") && n == 2) in[n] = op_reshape(g, in[n], 0, NULL);
    }
    struct cb_tensor *y = op_apply(g, c->op, c->attrs, n, in), *outs[MAX_OUT];
    if (graph_is_bad(g, y)) FAIL(err, g->err.code, "%s", g->err.message);
    out->n = y->node->n_out < 4 ? y->node->n_out : 4;
    for (int i = 0; i < out->n; i++) outs[i] = graph_out(g, y, i);
    if (grads) {
        struct cb_tensor *loss = op_sum(g, op_unary(g, "square", y), 0, NULL, false);
        graph_grad(g, loss, NULL, 3, in, NULL, dx);
        for (int i = 0; i < 3; i++)
            if (dx[i]) outs[out->n++] = dx[i];
    }
    if (g->err.code) FAIL(err, g->err.code, "%s", g->err.message);
    for (int i = 0; i < out->n; i++) {
        snprintf(name, sizeof name, "out%d", i);
        graph_output(g, outs[i], name);
        out->count[i] = type_elements(&outs[i]->type);
    }
    struct plan_options o = {.backend = &backend_cpu, .cpu_mask = mask, .n_threads = threads, .kernels = kernels};
    TRY(plan_create(&plan, g, &o, err));
    TRY(pool_create(&pool, threads, err));
    for (int i = 0; i < n; i++) {
        if (!in[i]) continue;
        snprintf(name, sizeof name, "in%d", i);
        int slot = plan_find(plan, name);
        int64_t count = type_elements(&plan_slot(plan, slot)->type);
        fill(plan_data(plan, slot), &c->in[i], count, (uint32_t)i * 77u + 5u);
        if (!strcmp(c->op, "log"))
            for (int64_t k = 0; k < count; k++) ((float *)plan_data(plan, slot))[k] += 1.5f;
    }
    TRY(plan_run(plan, pool, err));
    for (int i = 0; i < out->n; i++) {
        snprintf(name, sizeof name, "out%d", i);
        size_t bytes = (size_t)out->count[i] * sizeof(float);
        out->data[i] = malloc(bytes + 1);
        if (out->data[i]) memcpy(out->data[i], plan_data(plan, plan_find(plan, name)), bytes);
    }
    pool_destroy(&pool);
    plan_destroy(&plan);
    graph_destroy(&g);
    return CB_OK;
}

/* Largest difference, relative to the largest value; infinities and NaN must match. */
static double distance(const float *have, const float *want, int64_t n) {
    double worst = 0, scale = 1e-6;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(want[i]) && fabs((double)want[i]) > scale) scale = fabs((double)want[i]);
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(want[i]) ? !isfinite(have[i]) : isnan(want[i]) ? !isnan(have[i]) : have[i] != want[i]) return INFINITY;
        if (isfinite(want[i])) worst = fmax(worst, fabs((double)have[i] - (double)want[i]));
    }
    return worst / scale;
}

/* One case under one set of processor features, for three numbers of threads. */
static void check_case(const struct shape_case *c, bool grads, uint32_t mask, const struct result *want) {
    struct cb_err err = {0};
    struct result first = {0}, next = {0};
    CHECK_OK(run_case(c, grads, NULL, mask, 1, &first, &err));
    for (int i = 0; i < first.n; i++) {
        double d = distance(first.data[i], want->data[i], want->count[i]);
        CHECK(d < 2e-5, "%s %s, features %u, output %d: differs from ref by %g", c->op, c->attrs, mask, i, d);
    }
    for (int threads = 2; threads <= 3; threads++) {
        CHECK_OK(run_case(c, grads, NULL, mask, threads, &next, &err));
        for (int i = 0; i < first.n; i++)
            CHECK(!memcmp(first.data[i], next.data[i], (size_t)first.count[i] * sizeof(float)),
                  "%s %s, features %u, output %d: %d threads give other bits than one", c->op, c->attrs, mask, i, threads);
        result_free(&next);
    }
    result_free(&first);
}

TEST(kernels, agree_with_ref_on_odd_shapes) {
    struct cb_err err = {0};
    const uint32_t masks[] = {0, CPU_AVX2, CPU_AVX2 | CPU_AVX512};
    char ref[128];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct result want = {0};
        bool grads = !strcmp(cases[i].op, "attention") || !strcmp(cases[i].op, "conv2d") || !strcmp(cases[i].op, "lstm");
        snprintf(ref, sizeof ref, grads ? "%s=ref,%s_grad=ref,%s_grad_input=ref,%s_grad_weight=ref" : "%s=ref", cases[i].op, cases[i].op,
                 cases[i].op, cases[i].op);
        CHECK_OK(run_case(&cases[i], grads, ref, 0, 1, &want, &err));
        for (int m = 0; m < 3; m++)
            if ((masks[m] & ~cpu_features()) == 0) check_case(&cases[i], grads, masks[m], &want);
        result_free(&want);
    }
}

/* A row for an op that is not there would never run, and nothing else would tell. */
TEST(kernels, are_of_known_ops) {
    for (int f = 0; backend_cpu.files[f]; f++)
        for (const struct kernel *k = backend_cpu.files[f]; k->op; k++) {
            CHECK(op_find(ops_table(), k->op), "kernel %s: no op '%s'", k->name ? k->name : "", k->op);
            CHECK(k->name && k->run, "kernel of %s: wanted a name and run", k->op);
        }
}

static void print_line(void *context, const char *line) {
    (void)context;
    fprintf(stderr, "%s\n", line);
}

TEST(kernels, all_cases_of_all_ops) {
    struct cb_err err = {0};
    const uint32_t masks[] = {0, CPU_AVX2, CPU_AVX2 | CPU_AVX512};
    const struct op_table *table = ops_table();
    struct selftest test = {.ops = table, .backend = &backend_cpu, .report = print_line};
    CHECK_OK(pool_create(&test.pool, 2, &err));
    for (int m = 0; m < 3; m++) {
        test.cpu_mask = masks[m];
        if (masks[m] & ~cpu_features()) continue;
        for (int f = 0; table->files[f]; f++)
            for (int i = 0; table->files[f][i]; i++) CHECK_OK(selftest_op(&test, table->files[f][i], &err));
    }
    pool_destroy(&test.pool);
    CHECK(test.n_passed > 0, "nothing was checked");
    CHECK(test.n_failed == 0, "%d of %d checks failed", test.n_failed, test.n_passed + test.n_failed);
}
