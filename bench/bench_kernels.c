/* Every kernel of some ops on the shapes of training and decoding: best time of many, GFLOP/s and GB/s (inputs and outputs, once each).
   Arguments: threads (1), words that an op's name must contain (all). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "graph/plan.h"
#include "ops/ops.h"

struct input {
    int rank; /* -1: absent; 0 ends */
    int64_t dim[4];
    int64_t below; /* > 0: i32 in [0, below) */
};
struct bench {
    const char *op, *attrs;
    double flops; /* 0: only bytes are reported */
    struct input in[10];
};
#define F(...) \
    { (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}, 0 }
#define I(below, ...) \
    { (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}, below }
#define NONE \
    { -1, {0}, 0 }
#define QKV(b, tq, tk, h, hkv, d) F(b, tq, h, d), F(b, tk, hkv, d), F(b, tk, hkv, d)

static const struct bench benches[] = {
    {"attention", "causal=1", 4.0 * 4 * 12 * 64 * (256 * 257 / 2), {QKV(4, 256, 256, 12, 12, 64)}},
    {"attention", "causal=0", 4.0 * 4 * 12 * 64 * 256 * 256, {QKV(4, 256, 256, 12, 12, 64)}},
    {"attention", "causal=1", 4.0 * 12 * 64 * (1024 * 1025 / 2.0), {QKV(1, 1024, 1024, 12, 4, 64)}},
    {"attention", "causal=0", 4.0 * 12 * 64 * 4096, {QKV(1, 1, 4096, 12, 12, 64)}},
    {"attention", "causal=0", 4.0 * 12 * 64 * 4096, {QKV(1, 1, 4096, 12, 4, 64)}},
    {"attention_grad",
     "causal=1",
     10.0 * 4 * 12 * 64 * (256 * 257 / 2),
     {QKV(4, 256, 256, 12, 12, 64), NONE, NONE, NONE, NONE, F(4, 256, 12, 64), F(4, 12, 256), F(4, 256, 12, 64)}},
    {"layer_norm", "eps=1e-5", 0, {F(1024, 768), F(768), F(768)}},
    {"layer_norm_grad", "eps=1e-5,params=1", 0, {F(1024, 768), F(768), F(1024, 768)}},
    {"rms_norm", "eps=1e-5", 0, {F(1024, 768), F(768)}},
    {"rms_norm_grad", "eps=1e-5,params=1", 0, {F(1024, 768), F(768), F(1024, 768)}},
    {"gelu", "", 0, {F(1024, 3072)}},
    {"gelu_grad", "", 0, {F(1024, 3072), F(1024, 3072)}},
    {"gelu_tanh", "", 0, {F(1024, 3072)}},
    {"gelu_tanh_grad", "", 0, {F(1024, 3072), F(1024, 3072)}},
    {"silu", "", 0, {F(1024, 3072)}},
    {"add", "", 0, {F(1024, 768), F(1024, 768)}},
    {"add", "", 0, {F(1024, 768), F(768)}},
    {"mul", "", 0, {F(16, 16), F(16, 16)}},
    {"softmax", "axis=1", 0, {F(1024, 1024)}},
    {"cross_entropy", "reduction=0", 0, {F(256, 50257), I(50257, 256)}},
    {"embedding", "", 0, {F(50257, 768), I(50257, 1024)}},
    {"rope", "", 0, {F(4, 256, 12, 64), I(1024, 256), F(32)}},
    {"sum", "axes=0", 0, {F(1024, 3072)}},
    {"sum", "axes=0:1", 0, {F(1024, 3072)}},
    {"permute", "axes=0:2:1:3", 0, {F(4, 256, 12, 64)}},
    {"permute", "axes=1:0", 0, {F(768, 3072)}},
    {"conv2d", "padding=1", 2.0 * 32 * 64 * 32 * 9 * 16 * 16, {F(32, 32, 16, 16), F(64, 32, 3, 3), F(64)}},
    {"conv2d", "", 2.0 * 64 * 16 * 25 * 24 * 24, {F(64, 1, 28, 28), F(16, 1, 5, 5), F(16)}},
    {"lstm", "", 2.0 * 32 * 64 * 4 * 256 * (128 + 256), {F(32, 64, 128), F(1024, 128), F(1024, 256), F(1024), F(1024)}},
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(struct plan *plan, const char *name, const struct input *in) {
    int slot = plan_find(plan, name);
    int64_t n = type_elements(&plan_slot(plan, slot)->type);
    uint32_t seed = 1;
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        if (in->below > 0)
            ((int32_t *)plan_data(plan, slot))[i] = (int32_t)((seed >> 8) % (uint32_t)in->below);
        else
            ((float *)plan_data(plan, slot))[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

/* One line for one kernel. */
static enum cb_status measure(const struct bench *b, const struct kernel *kernel, int threads, struct cb_err *err) {
    struct cb_graph *g = NULL;
    struct plan *plan = NULL;
    struct pool *pool = NULL;
    struct cb_tensor *in[10] = {NULL};
    char name[16], force[64], shape[TYPE_TEXT];
    int64_t bytes = 0;
    int n = 0;
    TRY(graph_create(&g, ops_table(), err));
    for (; n < 10 && b->in[n].rank; n++) {
        if (b->in[n].rank < 0) continue;
        snprintf(name, sizeof name, "in%d", n);
        in[n] = graph_input(g, name, type_make(b->in[n].below > 0 ? CB_DTYPE_I32 : CB_DTYPE_F32, b->in[n].rank, b->in[n].dim));
        bytes += type_bytes(&in[n]->type);
    }
    struct cb_tensor *y = op_apply(g, b->op, b->attrs, n, in);
    if (g->err.code) FAIL(err, g->err.code, "%s", g->err.message);
    for (int i = 0; i < y->node->n_out; i++) {
        snprintf(name, sizeof name, "out%d", i);
        graph_output(g, graph_out(g, y, i), name);
        bytes += type_bytes(&graph_out(g, y, i)->type);
    }
    snprintf(force, sizeof force, "%s=%s", b->op, kernel->name);
    struct plan_options o = {.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = threads, .kernels = force};
    TRY(plan_create(&plan, g, &o, err));
    TRY(pool_create(&pool, threads, err));
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "in%d", i);
        if (in[i]) fill(plan, name, &b->in[i]);
    }
    double best = 1e30, end = now() + 0.3;
    for (int i = 0; i < 3 || now() < end; i++) {
        double t = now();
        TRY(plan_run(plan, pool, err));
        t = now() - t;
        if (t < best) best = t;
    }
    printf("%-16s %-8s %-26s %-20s %10.1f us %8.1f GB/s", b->op, kernel->name, type_text(&in[0]->type, shape), b->attrs, best * 1e6,
           (double)bytes / best / 1e9);
    if (b->flops > 0) printf(" %8.1f GFLOP/s", b->flops / best / 1e9);
    printf("\n");
    pool_destroy(&pool);
    plan_destroy(&plan);
    graph_destroy(&g);
    return CB_OK;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (argc > 2 && !strstr(benches[i].op, argv[2])) continue;
        for (int f = 0; backend_cpu.files[f]; f++)
            for (const struct kernel *k = backend_cpu.files[f]; k->op; k++) {
                struct cb_err err = {0};
                if (strcmp(k->op, benches[i].op) || (k->cpu & ~cpu_features())) continue;
                if (measure(&benches[i], k, threads < 1 ? 1 : threads, &err)) fprintf(stderr, "%s: %s\n", benches[i].op, err.message);
            }
    }
    return 0;
}
