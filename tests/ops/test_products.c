/* Products and losses: shapes that must be refused, weights in half precision and blocks, and the loss taken from its gradient node. */
#include <math.h>

#include "graph/plan.h"
#include "harness.h"
#include "ops/ops.h"

#define F32(...)                                                                                 \
    {                                                                                            \
        CB_DTYPE_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { __VA_ARGS__ } \
    }
#define I32(...)                                                                                 \
    {                                                                                            \
        CB_DTYPE_I32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { __VA_ARGS__ } \
    }
#define SCALAR                 \
    {                          \
        CB_DTYPE_F32, 0, { 0 } \
    }
#define NO                       \
    {                            \
        CB_DTYPE_COUNT, 0, { 0 } \
    }

static const struct refusal {
    const char *op, *attrs, *word;
    int n;
    struct cb_type in[8];
} refusals[] = {
    {"matmul", "", "inner sizes 5 and 4", 2, {F32(3, 5), F32(4, 2)}},
    {"matmul", "", "leading axes", 2, {F32(2, 3, 5), F32(3, 5, 2)}},
    {"matmul", "trans_a=true", "vector cannot", 2, {F32(5), F32(5, 2)}},
    {"matmul", "", "rank 1", 2, {SCALAR, F32(5, 2)}},
    {"matmul", "", "bias", 3, {F32(3, 5), F32(5, 2), F32(3)}},
    {"matmul", "", "acc", 4, {F32(3, 5), F32(5, 2), NO, F32(2, 3)}},
    {"matmul", "", "a is i32", 2, {I32(3, 5), F32(5, 2)}},
    {"matmul", "", "b is i32", 2, {F32(3, 5), I32(5, 2)}},
    {"embedding", "", "ids", 2, {F32(5, 3), F32(2)}},
    {"embedding", "", "rank 2", 2, {F32(5), I32(2)}},
    {"embedding_grad", "rows=5", "dy", 2, {I32(4), F32(3, 2)}},
    {"embedding_grad", "rows=-1", "rows", 2, {I32(4), F32(4, 2)}},
    {"cross_entropy", "", "labels", 2, {F32(4, 3), I32(5)}},
    {"cross_entropy", "reduction=3", "reduction 3", 2, {F32(4, 3), I32(4)}},
    {"cross_entropy_grad", "", "dloss", 3, {F32(4, 3), I32(4), F32(4)}},
    {"linear_cross_entropy", "", "weight", 3, {F32(4, 3), F32(3, 7), I32(4)}},
    {"linear_cross_entropy", "reduction=2", "reduction 2", 3, {F32(4, 3), F32(7, 3), I32(4)}},
    {"rope", "", "inv_freq", 3, {F32(1, 2, 1, 4), I32(2), F32(3)}},
    {"rope", "", "position", 3, {F32(1, 2, 1, 4), I32(3), F32(2)}},
    {"attention", "", "multiple of Hkv", 3, {F32(1, 2, 3, 4), F32(1, 2, 2, 4), F32(1, 2, 2, 4)}},
    {"attention", "", "bias", 4, {F32(1, 2, 2, 4), F32(1, 3, 2, 4), F32(1, 3, 2, 4), F32(2, 2)}},
    {"attention", "", "both or none", 5, {F32(1, 2, 2, 4), F32(1, 3, 2, 4), F32(1, 3, 2, 4), NO, I32(1, 2)}},
    {"attention", "window=-1", "window -1", 3, {F32(1, 2, 2, 4), F32(1, 3, 2, 4), F32(1, 3, 2, 4)}},
    {"cache_write", "", "fits in", 3, {F32(1, 2, 3), F32(1, 3, 3), I32(1)}},
    {"conv2d", "groups=2", "groups", 2, {F32(1, 3, 4, 4), F32(2, 1, 3, 3)}},
    {"conv2d", "", "fits", 2, {F32(1, 3, 4, 4), F32(2, 3, 5, 3)}},
    {"conv2d", "stride=-1", "out of range", 2, {F32(1, 3, 4, 4), F32(2, 3, 3, 3)}},
    {"conv2d_grad_input", "height=9,width=4", "dy", 2, {F32(1, 2, 2, 2), F32(2, 3, 3, 3)}},
    {"max_pool2d", "", "kernel 0", 1, {F32(1, 1, 4, 4)}},
    {"max_pool2d", "kernel=5", "fits", 1, {F32(1, 1, 4, 4)}},
    {"avg_pool2d", "kernel=2,padding=2", "padding 2", 1, {F32(1, 1, 4, 4)}},
    {"interpolate2d", "height=0,width=3", "0 by 3", 1, {F32(1, 1, 4, 4)}},
    {"lstm", "", "length 0", 3, {F32(2, 0, 3), F32(8, 3), F32(8, 2)}},
    {"lstm", "", "w_ih", 3, {F32(2, 3, 3), F32(6, 3), F32(8, 2)}},
    {"gru", "", "h0", 6, {F32(2, 3, 3), F32(6, 3), F32(6, 2), NO, NO, F32(3, 2)}},
    {"ctc_loss", "blank=4", "blank 4", 4, {F32(5, 2, 4), I32(2, 3), I32(2), I32(2)}},
    {"ctc_loss", "", "input_lengths", 4, {F32(5, 2, 4), I32(2, 3), I32(3), I32(2)}},
    {"inverse", "", "square", 1, {F32(2, 3)}},
    {"solve", "", "b is", 2, {F32(3, 3), F32(2, 3)}},
};

TEST(op_products, bad_shapes_are_refused) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *r = &refusals[i];
        struct cb_graph *g = NULL;
        struct cb_err err = {0};
        struct cb_tensor *in[8] = {NULL};
        CHECK_OK(graph_create(&g, ops_table(), &err));
        for (int k = 0; k < r->n; k++) {
            char name[16];
            snprintf(name, sizeof name, "x%d", k);
            if (r->in[k].dtype != CB_DTYPE_COUNT) in[k] = graph_input(g, name, r->in[k]);
        }
        op_apply(g, r->op, r->attrs, r->n, in);
        CHECK(g->err.code != CB_OK, "%s %s: case %zu was accepted", r->op, r->attrs, i);
        CHECK(strstr(g->err.message, r->op) && strstr(g->err.message, r->word), "%s: '%s' lacks '%s'", r->op, g->err.message, r->word);
        graph_destroy(&g);
    }
}

/* Runs a graph whose inputs were filled through `fill`; the plan is left to be read. */
static enum cb_status run(struct cb_graph *g, struct plan **plan, void (*fill)(struct plan *), struct cb_err *err) {
    struct plan_options options = {.n_threads = 1};
    struct pool *pool = NULL;
    TRY(plan_create(plan, g, &options, err));
    fill(*plan);
    TRY(pool_create(&pool, 1, err));
    enum cb_status status = plan_run(*plan, pool, err);
    pool_destroy(&pool);
    return status;
}

static float *data_of(struct plan *plan, const char *name) { return plan_data(plan, plan_find(plan, name)); }

/* Each input's elements follow a wave of their own; labels count up. */
static void fill_waves(struct plan *plan) {
    for (int s = 0; s < plan_n_slots(plan); s++) {
        const struct plan_slot *slot = plan_slot(plan, s);
        for (int64_t i = 0; slot->is_input && i < type_elements(&slot->type); i++) {
            double v = sin(0.7 * (double)i + (double)slot->name[0]);
            if (slot->type.dtype == CB_DTYPE_I32)
                ((int32_t *)plan_data(plan, s))[i] = (int32_t)(i % 5);
            else if (!dtype_of(slot->type.dtype)->is_quantised)
                ref_set(slot->type.dtype, plan_data(plan, s), i, v);
        }
        if (slot->is_input && dtype_of(slot->type.dtype)->is_quantised) {
            float wave[256];
            for (int i = 0; i < 256; i++) wave[i] = (float)sin(0.3 * i);
            dtype_of(slot->type.dtype)->from_f32(plan_data(plan, s), wave, type_elements(&slot->type));
        }
    }
}

/* b stored as `dtype` (4,64) against the same numbers in f32, both ways round. */
static void check_stored(enum cb_dtype dtype) {
    struct cb_err err = {0};
    struct cb_graph *g = NULL;
    struct plan *plan = NULL;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *a = graph_input(g, "a", (struct cb_type)F32(3, 64)), *d = graph_input(g, "d", (struct cb_type)F32(3, 4));
    struct cb_tensor *b = graph_input(g, "b", (struct cb_type){dtype, 2, {4, 64}});
    graph_output(g, op_matmul(g, a, b, false, true), "y");
    graph_output(g, op_matmul(g, d, b, false, false), "z");
    graph_output(g, a, "a out");
    graph_output(g, d, "d out");
    CHECK_OK(run(g, &plan, fill_waves, &err));
    float w[256], *y = data_of(plan, "y"), *z = data_of(plan, "z");
    const float *x = data_of(plan, "a out"), *v = data_of(plan, "d out");
    dtype_of(dtype)->to_f32(w, plan_data(plan, plan_find(plan, "b")), 256);
    for (int i = 0; i < 12; i++) {
        double want = 0;
        for (int k = 0; k < 64; k++) want += (double)x[i / 4 * 64 + k] * w[i % 4 * 64 + k];
        CHECK(fabs(y[i] - want) < 1e-5, "%s: y[%d] is %g; %g wanted", dtype_of(dtype)->name, i, y[i], want);
    }
    for (int i = 0; i < 192; i++) {
        double want = 0;
        for (int k = 0; k < 4; k++) want += (double)v[i / 64 * 4 + k] * w[k * 64 + i % 64];
        CHECK(fabs(z[i] - want) < 1e-5, "%s: z[%d] is %g; %g wanted", dtype_of(dtype)->name, i, z[i], want);
    }
    plan_destroy(&plan);
    graph_destroy(&g);
}

TEST(op_products, stored_weights) {
    check_stored(CB_DTYPE_F16);
    check_stored(CB_DTYPE_BF16);
    check_stored(CB_DTYPE_Q8_0);
}

/* Loss and gradients of a head; the dump of the plan goes to text. */
static void check_head(enum cb_dtype dtype, bool trains, float *loss, float *dx, char **text) {
    struct cb_err err = {0};
    struct cb_graph *g = NULL;
    struct plan *plan = NULL;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *x = graph_input(g, "x", (struct cb_type)F32(9, 32)), *w = graph_input(g, "w", (struct cb_type){dtype, 2, {8, 32}});
    struct cb_tensor *y = op_linear_cross_entropy(g, x, w, NULL, graph_input(g, "labels", (struct cb_type)I32(9)), false, 0, "mean");
    struct cb_tensor *wrt[] = {x, w}, *grad[2];
    CHECK_OK(graph_grad(g, y, NULL, trains ? 2 : 1, wrt, NULL, grad));
    graph_output(g, y, "loss");
    graph_output(g, grad[0], "dx");
    if (trains) graph_output(g, grad[1], "dw");
    CHECK_OK(run(g, &plan, fill_waves, &err));
    *loss = *data_of(plan, "loss");
    memcpy(dx, data_of(plan, "dx"), 9 * 32 * sizeof *dx);
    CHECK_OK(plan_dump(plan, text, &err));
    plan_destroy(&plan);
    graph_destroy(&g);
}

TEST(op_products, loss_comes_from_the_gradient_node) {
    float loss[3], dx[3][9 * 32];
    char *text = NULL;
    const struct {
        enum cb_dtype dtype;
        bool trains;
    } heads[] = {{CB_DTYPE_F32, true}, {CB_DTYPE_F32, false}, {CB_DTYPE_F16, false}};
    for (int i = 0; i < 3; i++) {
        check_head(heads[i].dtype, heads[i].trains, &loss[i], dx[i], &text);
        CHECK(text && strstr(text, "linear_cross_entropy_grad") && !strstr(text, "= linear_cross_entropy("),
              "the plan runs the loss twice:\n%s", text);
        free(text);
        CHECK(fabsf(loss[i] - loss[0]) < 1e-3f && loss[i] > 0.5f, "loss %g; %g wanted", (double)loss[i], (double)loss[0]);
        for (int k = 0; k < 9 * 32; k++) CHECK(fabsf(dx[i][k] - dx[0][k]) < 1e-3f, "dx[%d] is %g", k, (double)dx[i][k]);
    }
}

/* Each loss is the other's seed: at most one of them can come from its gradient's node. */
TEST(op_products, losses_multiplied) {
    float loss[2], dx[9 * 32], both[9 * 32];
    char *text = NULL;
    struct cb_err err = {0};
    struct cb_graph *g = NULL;
    struct plan *plan = NULL;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *x = graph_input(g, "x", (struct cb_type)F32(9, 32)), *w = graph_input(g, "w", (struct cb_type)F32(8, 32));
    struct cb_tensor *labels = graph_input(g, "labels", (struct cb_type)I32(9)), *grad = NULL;
    struct cb_tensor *first = op_linear_cross_entropy(g, x, w, NULL, labels, false, 0, "mean"), *doubled = op_scale(g, first, 2, 0);
    struct cb_tensor *y = op_mul(g, doubled, op_linear_cross_entropy(g, x, w, NULL, labels, false, 0, "sum"));
    CHECK_OK(graph_grad(g, y, NULL, 1, &x, NULL, &grad));
    graph_output(g, y, "loss");
    graph_output(g, grad, "dx");
    CHECK_OK(run(g, &plan, fill_waves, &err));
    loss[1] = *data_of(plan, "loss");
    memcpy(both, data_of(plan, "dx"), sizeof both);
    plan_destroy(&plan);
    graph_destroy(&g);
    check_head(CB_DTYPE_F32, false, &loss[0], dx, &text);
    free(text);
    // 2 m (9 m), with m the mean of the 9 rows' losses
    CHECK(fabsf(loss[1] - 18 * loss[0] * loss[0]) < 1e-3f * loss[1], "loss %g; %g wanted", (double)loss[1],
          (double)(18 * loss[0] * loss[0]));
    for (int k = 0; k < 9 * 32; k++)
        CHECK(fabsf(both[k] - 36 * loss[0] * dx[k]) < 1e-3f, "dx[%d] is %g; %g wanted", k, (double)both[k], (double)(36 * loss[0] * dx[k]));
}

TEST(op_products, einsum_refuses) {
    static const char *const bad[] = {"ij,jk", "ij->ik", "ijk->i", "ij->ii", "i->i", "1j->j", "ij->", "......->", "ij->j,"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cb_graph *g = NULL;
        struct cb_err err = {0};
        CHECK_OK(graph_create(&g, ops_table(), &err));
        struct cb_tensor *x = graph_input(g, "x", (struct cb_type)F32(2, 3)), *y = op_einsum(g, bad[i], 1, &x);
        bool fine = strcmp(bad[i], "ij->") == 0;
        CHECK(graph_is_bad(g, y) != fine, "'%s': %s", bad[i], g->err.message);
        graph_destroy(&g);
    }
}
