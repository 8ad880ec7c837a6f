/* Differentiation: sums over uses, higher derivatives, what is not reached, accumulation in place. */
#include "toolbox.h"

TEST(grad, third_derivative_of_a_power) {
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    struct cb_err err = {0};
    CHECK_OK(graph_create(&g, ops_table(), &err));
    CHECK_OK(pool_create(&pool, 1, &err));
    struct cb_tensor *x = graph_input(g, "x", f32_type(0, 0, 0)), *y = op_mul(g, op_mul(g, x, x), op_mul(g, x, x)), *d = y;
    for (int order = 0; order < 3; order++) CHECK_OK(graph_grad(g, d, NULL, 1, &x, NULL, &d));
    graph_output(g, d, "d3");
    struct plan_options o = cpu_options();
    CHECK_OK(plan_create(&plan, g, &o, &err));
    *slot_floats(plan, "x") = 3;
    CHECK_OK(plan_run(plan, pool, &err));
    CHECK(fabsf(*slot_floats(plan, "d3") - 72) < 1e-3f, "d3 of x^4 at 3 is %g, not 72", (double)*slot_floats(plan, "d3"));
    plan_destroy(&plan);
    graph_destroy(&g);
    pool_destroy(&pool);
}

TEST(grad, what_does_not_reach_the_loss_has_none) {
    struct cb_graph *g;
    struct cb_err err = {0};
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *x = graph_param(g, "x", f32_type(1, 3, 0)), *z = graph_param(g, "z", f32_type(1, 3, 0));
    struct cb_tensor *loss = op_reduce(g, "sum", op_mul(g, x, x), 0, NULL, false), *wrt[2] = {x, z}, *grad[2];
    CHECK_OK(graph_grad(g, loss, NULL, 2, wrt, NULL, grad));
    CHECK(grad[0] && !grad[1]);
    CHECK_OK(graph_check(g, &err));
    graph_destroy(&g);
}

/* Two products of one weight and a sum that was there before: gradients add up in the buffer that is bound. */
TEST(grad, products_accumulate_in_place) {
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    struct cb_err err = {0};
    char *dump;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    CHECK_OK(pool_create(&pool, 2, &err));
    struct cb_tensor *w = graph_param(g, "w", f32_type(2, 4, 4)), *a = graph_input(g, "a", f32_type(2, 4, 4)),
                     *before = graph_param(g, "grad.w", w->type);
    struct cb_tensor *y = op_matmul(g, op_matmul(g, a, w, false, false), w, false, false), *grad;
    CHECK_OK(graph_grad(g, op_reduce(g, "sum", y, 0, NULL, false), NULL, 1, &w, &before, &grad));
    graph_output_external(g, grad, "grad.w");
    struct plan_options o = cpu_options();
    CHECK_OK(plan_create(&plan, g, &o, &err));
    CHECK_OK(plan_dump(plan, &dump, &err));
    CHECK(!strstr(dump, "copies its accumulator") && !strstr(dump, " add("), "the sum is not made in place:\n%s", dump);
    free(dump);
    float weight[16], sum[16], want[16];
    for (int i = 0; i < 16; i++) weight[i] = (float)(i % 5) - 2, sum[i] = 100 + (float)i, slot_floats(plan, "a")[i] = (float)(i % 3) - 1;
    const float *in = slot_floats(plan, "a");
    plan_bind(plan, plan_find(plan, "w"), weight);
    plan_bind(plan, plan_find(plan, "grad.w"), sum);
    // d sum(a w w) = a^T 1 w^T + (a w)^T 1
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            float total = 100 + (float)(4 * i + j);
            for (int r = 0; r < 4; r++) {
                float row = 0, aw = 0;
                for (int c = 0; c < 4; c++) row += weight[4 * j + c], aw += in[4 * r + c] * weight[4 * c + i];
                total += in[4 * r + i] * row + aw;
            }
            want[4 * i + j] = total;
        }
    CHECK_OK(plan_run(plan, pool, &err));
    for (int i = 0; i < 16; i++) CHECK(fabsf(sum[i] - want[i]) < 1e-3f, "element %d: %g, not %g", i, (double)sum[i], (double)want[i]);
    plan_destroy(&plan);
    graph_destroy(&g);
    pool_destroy(&pool);
}
