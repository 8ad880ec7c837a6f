/* call and scan: the same values and gradients as the graph written out by hand. */
#include "toolbox.h"

/* h' = tanh(h w + x); y = h' h'. */
static struct cb_graph *cell(struct cb_err *err) {
    struct cb_graph *g;
    if (graph_create(&g, ops_table(), err)) return NULL;
    struct cb_tensor *h = graph_input(g, "arg.0", f32_type(2, 2, 3)), *x = graph_input(g, "arg.1", f32_type(2, 2, 3));
    struct cb_tensor *w = graph_param(g, "w", f32_type(2, 3, 3));
    struct cb_tensor *next = op_unary(g, "tanh", op_add(g, op_matmul(g, h, w, false, false), x));
    graph_output(g, next, "next");
    graph_output(g, op_mul(g, next, next), "y");
    return g;
}

enum { STEPS = 5 };

/* The same recurrence by scan, by calls, and written out; loss = sum of all y and of the last h. */
static struct cb_tensor *recurrence(struct cb_graph *g, const struct cb_graph *body, int form) {
    struct cb_tensor *h = graph_input(g, "h", f32_type(2, 2, 3)),
                     *x = graph_input(g, "x", type_make(CB_DTYPE_F32, 3, (int64_t[]){STEPS, 2, 3}));
    struct cb_tensor *w = graph_param(g, "w", f32_type(2, 3, 3)), *total = NULL;
    if (form == 0) {
        struct cb_tensor *last = op_scan(g, body, 1, 2, (struct cb_tensor *[]){h, x});
        return op_add(g, op_reduce(g, "sum", last, 0, NULL, false), op_reduce(g, "sum", graph_out(g, last, 1), 0, NULL, false));
    }
    for (int t = 0; t < STEPS; t++) {
        struct cb_tensor *step = op_reshape(g, op_slice(g, x, 0, t, t + 1, 1), 2, (int64_t[]){2, 3}), *y;
        if (form == 1) {
            h = op_call(g, body, 2, (struct cb_tensor *[]){h, step});
            y = graph_out(g, h, 1);
        } else {
            h = op_unary(g, "tanh", op_add(g, op_matmul(g, h, w, false, false), step));
            y = op_mul(g, h, h);
        }
        struct cb_tensor *sum = op_reduce(g, "sum", y, 0, NULL, false);
        total = total ? op_add(g, total, sum) : sum;
    }
    return op_add(g, total, op_reduce(g, "sum", h, 0, NULL, false));
}

TEST(call, scan_and_call_equal_the_loop) {
    struct cb_err err = {0};
    struct pool *pool;
    float w[9], loss[3], grad[3][9];
    struct cb_graph *body = cell(&err);
    CHECK(body, "%s", err.message);
    CHECK_OK(pool_create(&pool, 1, &err));
    for (int i = 0; i < 9; i++) w[i] = (float)(i % 4) * 0.3f - 0.4f;
    for (int form = 0; form < 3; form++) {
        struct cb_graph *g;
        struct plan *plan;
        CHECK_OK(graph_create(&g, ops_table(), &err));
        struct cb_tensor *l = recurrence(g, body, form), *leaf = graph_find_leaf(g, "w"), *d;
        if (!leaf) leaf = graph_param(g, "w", f32_type(2, 3, 3));
        graph_output(g, l, "loss");
        graph_grad(g, l, NULL, 1, &leaf, NULL, &d);
        CHECK(!g->err.code, "%s", g->err.message);
        CHECK(d, "no gradient by form %d", form);
        graph_output(g, d, "d");
        struct plan_options o = cpu_options();
        CHECK_OK(plan_create(&plan, g, &o, &err));
        plan_bind(plan, plan_find(plan, "w"), w);
        for (int i = 0; i < 6; i++) slot_floats(plan, "h")[i] = 0.1f * (float)i;
        for (int i = 0; i < STEPS * 6; i++) slot_floats(plan, "x")[i] = (float)(i % 7) * 0.2f - 0.5f;
        CHECK_OK(plan_run(plan, pool, &err));
        loss[form] = *slot_floats(plan, "loss");
        memcpy(grad[form], slot_floats(plan, "d"), sizeof grad[form]);
        plan_destroy(&plan);
        graph_destroy(&g);
    }
    for (int form = 0; form < 2; form++) {
        CHECK(fabsf(loss[form] - loss[2]) < 1e-5f, "loss %g, not %g", (double)loss[form], (double)loss[2]);
        for (int i = 0; i < 9; i++)
            CHECK(fabsf(grad[form][i] - grad[2][i]) < 1e-4f, "form %d: gradient %d is %g, not %g", form, i, (double)grad[form][i],
                  (double)grad[2][i]);
    }
    graph_destroy(&body);
    pool_destroy(&pool);
}

TEST(call, a_wrong_argument_is_named) {
    struct cb_err err = {0};
    struct cb_graph *g, *body = cell(&err);
    CHECK(body, "%s", err.message);
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *h = graph_input(g, "h", f32_type(2, 4, 3)), *y = op_call(g, body, 2, (struct cb_tensor *[]){h, h});
    graph_output(g, y, "y");
    struct plan *plan;
    struct plan_options o = cpu_options();
    CHECK_FAILS(plan_create(&plan, g, &o, &err), CB_E_SHAPE, "argument 0 is f32[4,3]");
    graph_destroy(&g);
    graph_destroy(&body);
}
