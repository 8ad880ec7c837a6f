/* bench ops: every kernel of the ops that matter, on the shapes of training and decoding; best time of many runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/bench.h"
#include "ops/ops.h"

struct input {
    int rank;  // negative: absent; 0 ends
    enum cb_dtype dtype;
    int64_t dim[4];
    int64_t below;  // of i32
};
struct shape {
    const char *op, *attrs;
    struct input in[10];
};
#define OF(type, ...) \
    { (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), type, {__VA_ARGS__}, 0 }
#define F(...) OF(CB_DTYPE_F32, __VA_ARGS__)
#define IDS(below, ...) \
    { (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), CB_DTYPE_I32, {__VA_ARGS__}, below }
#define NONE \
    { -1, CB_DTYPE_F32, {0}, 0 }
#define QKV(b, tq, tk, h, hkv, d) F(b, tq, h, d), F(b, tk, hkv, d), F(b, tk, hkv, d)

/* Of a model as wide as GPT-2 (768, 12 heads, 3072 inside, 50257 tokens), 4 x 256 tokens in training and one in decoding; of small image nets. */
static const struct shape shapes[] = {
    {"matmul", "trans_b=1", {F(1024, 768), F(3072, 768)}},
    {"matmul", "", {F(1024, 3072), F(3072, 768)}},
    {"matmul", "trans_a=1", {F(1024, 768), F(1024, 3072)}},
    {"matmul", "trans_b=1", {F(1, 768), F(50257, 768)}},
    {"matmul", "trans_b=1", {F(1, 768), OF(CB_DTYPE_BF16, 50257, 768)}},
    {"matmul", "trans_b=1", {F(1, 768), OF(CB_DTYPE_Q8_0, 50257, 768)}},
    {"attention", "causal=1", {QKV(4, 256, 256, 12, 12, 64)}},
    {"attention", "causal=1", {QKV(1, 1024, 1024, 12, 4, 64)}},
    {"attention", "causal=0", {QKV(1, 1, 4096, 12, 12, 64)}},
    {"attention", "causal=0", {QKV(1, 1, 4096, 12, 4, 64)}},
    {"attention_grad",
     "causal=1",
     {QKV(4, 256, 256, 12, 12, 64), NONE, NONE, NONE, NONE, F(4, 256, 12, 64), F(4, 12, 256), F(4, 256, 12, 64)}},
    {"layer_norm", "eps=1e-5", {F(1024, 768), F(768), F(768)}},
    {"layer_norm_grad", "eps=1e-5,params=1", {F(1024, 768), F(768), F(1024, 768)}},
    {"rms_norm", "eps=1e-5", {F(1024, 768), F(768)}},
    {"rms_norm_grad", "eps=1e-5,params=1", {F(1024, 768), F(768), F(1024, 768)}},
    {"gelu", "", {F(1024, 3072)}},
    {"gelu_tanh", "", {F(1024, 3072)}},
    {"gelu_tanh_grad", "", {F(1024, 3072), F(1024, 3072)}},
    {"silu", "", {F(1024, 3072)}},
    {"add", "", {F(1024, 768), F(1024, 768)}},
    {"add", "", {F(1024, 768), F(768)}},
    {"softmax", "axis=1", {F(1024, 1024)}},
    {"cross_entropy", "reduction=0", {F(256, 50257), IDS(50257, 256)}},
    {"embedding", "", {F(50257, 768), IDS(50257, 1024)}},
    {"rope", "", {F(4, 256, 12, 64), IDS(1024, 256), F(32)}},
    {"sum", "axes=0", {F(1024, 3072)}},
    {"sum", "axes=0:1", {F(1024, 3072)}},
    {"permute", "axes=0:2:1:3", {F(4, 256, 12, 64)}},
    {"permute", "axes=1:0", {F(768, 3072)}},
    {"conv2d", "padding=1", {F(32, 32, 16, 16), F(64, 32, 3, 3), F(64)}},
    {"conv2d", "", {F(64, 1, 28, 28), F(16, 1, 5, 5), F(16)}},
    {"lstm", "", {F(32, 64, 128), F(1024, 128), F(1024, 256), F(1024), F(1024)}},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_IN = 10 };

/* Numbers in (-1, 1), ids below their bound; other types stay zero. */
static void fill(void *data, const struct cb_type *type, int64_t below) {
    uint32_t x = 1;
    int64_t n = type_elements(type);
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        if (type->dtype == CB_DTYPE_I32) ((int32_t *)data)[i] = (int32_t)((x >> 8) % (uint32_t)below);
        if (type->dtype == CB_DTYPE_F32) ((float *)data)[i] = (float)(x >> 8) * 0x1p-23f - 1.0f;
    }
}

/* A graph of one node, its inputs and outputs named; bytes: of both, once each. */
static enum cb_status build(struct cb_graph *g, const struct shape *s, char *text, size_t size, int64_t *bytes, struct cb_err *err) {
    struct cb_tensor *in[MAX_IN] = {NULL};
    char name[16], one[TYPE_TEXT];
    int n = 0;
    size_t used = (size_t)snprintf(text, size, "%s", s->attrs);
    *bytes = 0;
    for (; n < MAX_IN && s->in[n].rank; n++) {
        if (s->in[n].rank < 0) continue;
        snprintf(name, sizeof name, "in%d", n);
        in[n] = graph_input(g, name, type_make(s->in[n].dtype, s->in[n].rank, s->in[n].dim));
        *bytes += type_bytes(&in[n]->type);
        if (n < 2 && used < size) used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", type_text(&in[n]->type, one));
    }
    struct cb_tensor *y = op_apply(g, s->op, s->attrs, n, in);
    for (int i = 0; !g->err.code && i < y->node->n_out; i++) {
        snprintf(name, sizeof name, "out%d", i);
        graph_output(g, graph_out(g, y, i), name);
        *bytes += type_bytes(&graph_out(g, y, i)->type);
    }
    if (!g->err.code && strcmp(s->op, "embedding") == 0) *bytes += type_bytes(&y->type) - type_bytes(&in[0]->type);  // the rows it reads
    if (g->err.code) FAIL(err, g->err.code, "%s", g->err.message);
    return CB_OK;
}

/* Best of runs for a tenth of a second, three at least. */
static enum cb_status measure(struct cb_engine *engine, const struct shape *s, const struct kernel *kernel, struct cb_bench_row *row,
                              bool *used, struct cb_err *err) {
    struct cb_graph *g = NULL;
    struct plan *plan = NULL;
    char force[80], name[16];
    int64_t bytes = 0;
    snprintf(force, sizeof force, "%s=%s", s->op, kernel->name);
    struct plan_options o = engine_plan_options(engine, 0);
    o.kernels = force;
    enum cb_status status = graph_create(&g, ops_table(), err);
    if (status == CB_OK) status = build(g, s, row->shape, sizeof row->shape, &bytes, err);
    if (status == CB_OK) status = plan_create(&plan, g, &o, err);
    *used = status == CB_OK && plan_uses(plan, kernel);
    for (int i = 0; *used && i < MAX_IN; i++) {
        snprintf(name, sizeof name, "in%d", i);
        int slot = plan_find(plan, name);
        if (slot >= 0) fill(plan_data(plan, slot), &plan_slot(plan, slot)->type, s->in[i].below);
    }
    double best = HUGE_VAL, end = engine_now() + 0.1;
    for (int i = 0; *used && status == CB_OK && (i < 3 || engine_now() < end); i++) {
        double begin = engine_now();
        status = plan_run(plan, engine->pool, err);
        best = fmin(best, engine_now() - begin);
    }
    if (*used) {
        snprintf(row->op, sizeof row->op, "%s", s->op);
        snprintf(row->kernel, sizeof row->kernel, "%s", kernel->name);
        row->us = best * 1e6;
        row->gb_per_s = (double)bytes / best / 1e9;
        row->gflops = op_find(ops_table(), s->op)->flops ? plan_flops(plan) / best / 1e9 : 0;
    }
    plan_destroy(&plan);
    graph_destroy(&g);
    return status;
}

static enum cb_status add_row(struct cb_bench_result *r, const struct cb_bench_row *row, struct cb_err *err) {
    struct cb_bench_row *rows = realloc(r->rows, ((size_t)r->n_rows + 1) * sizeof *rows);
    if (!rows) FAIL(err, CB_E_MEMORY, "bench: out of memory");
    r->rows = rows;
    rows[r->n_rows++] = *row;
    return CB_OK;
}

enum cb_status bench_ops(struct cb_engine *engine, const char *op, struct cb_bench_result *r, struct cb_err *err) {
    double begin = engine_now();
    TRY(engine_check_runs(engine, err));
    for (int i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        if (op && strcmp(op, s->op) != 0) continue;
        for (int f = 0; engine->backend.files[f]; f++)
            for (const struct kernel *k = engine->backend.files[f]; k->op; k++) {
                struct cb_bench_row row = {.us = 0};
                bool used = false;
                if (strcmp(k->op, s->op) != 0 || (k->cpu & engine->cpu_mask) != k->cpu) continue;
                TRY(measure(engine, s, k, &row, &used, err));
                if (!used) continue;
                row.fraction_of_roof = fmax(row.gflops / r->gflops, row.gb_per_s / r->read_gb_per_s);
                TRY(add_row(r, &row, err));
            }
        struct cb_progress p = {.verb = "bench",
                                .done = i + 1,
                                .total = N_SHAPES,
                                .seconds = engine_now() - begin,
                                .seconds_left = -1,
                                .loss = -1,
                                .valid_loss = -1,
                                .unit = "shapes"};
        if (!engine_progress(engine, &p)) FAIL(err, CB_E_STOPPED, "bench: stopped after %s", s->op);
    }
    if (!r->n_rows) FAIL(err, CB_E_NAME, "bench ops: no kernel of '%s' to time", op ? op : "any op");
    return CB_OK;
}
