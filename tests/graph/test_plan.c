/* Plans: buffers in place, outputs into slots, recomputation, the memory limit, errors that name what is wrong. */
#include "base/subnormal.h"
#include "toolbox.h"

/* Four blocks x + gelu(layer_norm(x) w1) w2 of shared weights, the sum of squares as loss, with gradients of both weights. */
static struct cb_graph *small_net(struct cb_err *err) {
    struct cb_graph *g;
    if (graph_create(&g, ops_table(), err)) return NULL;
    struct cb_tensor *x = graph_input(g, "x", f32_type(2, 256, 64)), *w[2], *grad[2];
    w[0] = graph_param(g, "w1", f32_type(2, 64, 256));
    w[1] = graph_param(g, "w2", f32_type(2, 256, 64));
    for (int i = 0; i < 4; i++) {
        struct cb_tensor *h = op_unary(g, "gelu", op_matmul(g, op_layer_norm(g, x, NULL, NULL, 1e-5), w[0], false, false));
        x = op_add(g, x, op_matmul(g, h, w[1], false, false));
    }
    struct cb_tensor *loss = op_reduce(g, "sum", op_unary(g, "square", x), 0, NULL, false);
    graph_output(g, loss, "loss");
    graph_grad(g, loss, NULL, 2, w, NULL, grad);
    graph_output(g, grad[0], "grad.w1");
    graph_output(g, grad[1], "grad.w2");
    return g;
}

static void fill(struct plan *plan, float *w1, float *w2) {
    for (int i = 0; i < 256 * 64; i++) {
        slot_floats(plan, "x")[i] = (float)((i * 37) % 101) / 50 - 1;
        w1[i] = (float)((i * 53) % 97) / 500 - 0.1f;
        w2[i] = (float)((i * 29) % 89) / 500 - 0.1f;
    }
    plan_bind(plan, plan_find(plan, "w1"), w1);
    plan_bind(plan, plan_find(plan, "w2"), w2);
}

/* Recomputation and shared buffers change the memory, not one bit of the result. */
TEST(plan, recompute_and_sharing_keep_every_bit) {
    static float w1[256 * 64], w2[256 * 64], want[2][256 * 64];
    struct pool *pool;
    struct cb_err err = {0};
    int64_t bytes[3];
    CHECK_OK(pool_create(&pool, 2, &err));
    for (int mode = 0; mode < 3; mode++) {
        struct cb_graph *g = small_net(&err);
        struct plan *plan;
        struct plan_options o = cpu_options();
        o.keep_all = mode == 0;
        o.recompute = mode == 2;
        CHECK(g, "%s", err.message);
        CHECK_OK(plan_create(&plan, g, &o, &err));
        fill(plan, w1, w2);
        CHECK_OK(plan_run(plan, pool, &err));
        CHECK_OK(plan_run(plan, pool, &err));  // a second run sees nothing of the first
        for (int k = 0; k < 2; k++) {
            const float *grad = slot_floats(plan, k ? "grad.w2" : "grad.w1");
            if (mode == 0) memcpy(want[k], grad, sizeof want[k]);
            CHECK(memcmp(want[k], grad, sizeof want[k]) == 0, "mode %d: gradient %d differs", mode, k);
        }
        bytes[mode] = plan_memory(plan).inside;
        plan_destroy(&plan);
        graph_destroy(&g);
    }
    CHECK(bytes[1] < bytes[0] && bytes[2] < bytes[1], "bytes %lld, %lld, %lld", (long long)bytes[0], (long long)bytes[1],
          (long long)bytes[2]);
    pool_destroy(&pool);
}

/* x w + (x a) b runs as three products, none of them with an addition after it, as two where b is thin; a product that is read elsewhere too stays alone. */
TEST(plan, sums_of_products_add_in_place) {
    enum { M = 5, N = 7, K = 66, WIDE = 65 };
    static const struct { int r, is_read_twice, steps; } rows[] = {{2, 0, 2}, {2, 1, 5}, {WIDE, 0, 3}};
    static float w[K * N], a[K * WIDE], b[WIDE * N];
    struct pool *pool;
    struct cb_err err = {0};
    CHECK_OK(pool_create(&pool, 2, &err));
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        const int R = rows[row].r, is_read_twice = rows[row].is_read_twice;
        struct cb_graph *g;
        struct plan *plan;
        CHECK_OK(graph_create(&g, ops_table(), &err));
        struct cb_tensor *x = graph_input(g, "x", f32_type(2, M, K)),
                         *base = op_matmul(g, x, graph_param(g, "w", f32_type(2, K, N)), false, false);
        struct cb_tensor *low = op_matmul(g, x, graph_param(g, "a", f32_type(2, K, R)), false, false);
        graph_output(g, op_add(g, base, op_matmul(g, low, graph_param(g, "b", f32_type(2, R, N)), false, false)), "y");
        if (is_read_twice) graph_output(g, op_unary(g, "square", base), "squares");
        struct plan_options o = cpu_options();
        CHECK_OK(plan_create(&plan, g, &o, &err));
        CHECK(plan_n_steps(plan) == rows[row].steps, "%d steps", plan_n_steps(plan));
        for (int i = 0; i < M * K; i++) slot_floats(plan, "x")[i] = (float)(i % 7) - 3;
        for (int i = 0; i < K * N; i++) w[i] = (float)(i % 5) - 2;
        for (int i = 0; i < K * R; i++) a[i] = (float)(i % 3) - 1;
        for (int i = 0; i < R * N; i++) b[i] = (float)(i % 4) - 1;
        plan_bind(plan, plan_find(plan, "w"), w);
        plan_bind(plan, plan_find(plan, "a"), a);
        plan_bind(plan, plan_find(plan, "b"), b);
        CHECK_OK(plan_run(plan, pool, &err));
        const float *input = slot_floats(plan, "x"), *y = slot_floats(plan, "y");
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                float want = 0, product = 0;
                for (int k = 0; k < K; k++) {
                    product += input[i * K + k] * w[k * N + j];
                    for (int r = 0; r < R; r++) want += input[i * K + k] * a[k * R + r] * b[r * N + j];
                }
                CHECK(y[i * N + j] == product + want, "(%d, %d): %g, wanted %g", i, j, (double)y[i * N + j], (double)(product + want));
                if (is_read_twice) CHECK(slot_floats(plan, "squares")[i * N + j] == product * product);
            }
        plan_destroy(&plan);
        graph_destroy(&g);
    }
    pool_destroy(&pool);
}

/* A plan makes zeros of subnormal results and leaves its caller's arithmetic as it was. */
TEST(plan, subnormal_numbers_are_zeros_inside) {
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    struct cb_err err = {0};
    CHECK_OK(pool_create(&pool, 2, &err));
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *x = graph_input(g, "x", f32_type(1, 4, 0));
    graph_output(g, op_mul(g, x, x), "y");
    struct plan_options o = cpu_options();
    CHECK_OK(plan_create(&plan, g, &o, &err));
    const uint32_t before = subnormal_mode();
    for (int i = 0; i < 4; i++) slot_floats(plan, "x")[i] = 0x1p-65f;
    CHECK_OK(plan_run(plan, pool, &err));
    CHECK(subnormal_mode() == before);
    if (subnormal_flush() != subnormal_mode()) CHECK(slot_floats(plan, "y")[0] == 0);
    subnormal_set(before);
    plan_destroy(&plan);
    graph_destroy(&g);
    pool_destroy(&pool);
}

TEST(plan, one_plan_serves_many_bindings) {
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    struct cb_err err = {0};
    CHECK_OK(pool_create(&pool, 1, &err));
    CHECK_OK(graph_create(&g, ops_table(), &err));
    graph_output(g, op_mul(g, graph_param(g, "w", f32_type(1, 4, 0)), graph_input(g, "x", f32_type(1, 4, 0))), "y");
    struct plan_options o = cpu_options();
    CHECK_OK(plan_create(&plan, g, &o, &err));
    CHECK_FAILS(plan_run(plan, pool, &err), CB_E_ARGUMENT, "w: not bound");
    for (int i = 0; i < 4; i++) slot_floats(plan, "x")[i] = (float)i;
    for (int expert = 1; expert < 4; expert++) {
        float w[4] = {(float)expert, (float)expert, (float)expert, (float)expert};
        plan_bind(plan, plan_find(plan, "w"), w);
        CHECK_OK(plan_run(plan, pool, &err));
        for (int i = 0; i < 4; i++) CHECK(slot_floats(plan, "y")[i] == (float)(i * expert));
    }
    plan_destroy(&plan);
    graph_destroy(&g);
    pool_destroy(&pool);
}

/* An output named as its leaf is updated in place; the same tensor may be an output under two names. */
TEST(plan, state_is_updated_in_place) {
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    struct cb_err err = {0};
    CHECK_OK(pool_create(&pool, 1, &err));
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *next = op_add(g, graph_param(g, "state", f32_type(1, 3, 0)), graph_const_f32(g, 1));
    graph_output(g, next, "state");
    graph_output(g, next, "copy");
    struct plan_options o = cpu_options();
    CHECK_OK(plan_create(&plan, g, &o, &err));
    float state[3] = {0, 10, 20};
    plan_bind(plan, plan_find(plan, "state"), state);
    for (int i = 0; i < 5; i++) CHECK_OK(plan_run(plan, pool, &err));
    CHECK(state[0] == 5 && state[2] == 25 && slot_floats(plan, "copy")[1] == 15);
    plan_destroy(&plan);
    graph_destroy(&g);
    pool_destroy(&pool);
}

TEST(plan, limits_and_names_are_checked) {
    struct cb_err err = {0};
    struct cb_graph *g = small_net(&err);
    struct plan *plan;
    struct plan_options o = cpu_options();
    CHECK(g, "%s", err.message);
    o.memory_limit = 1000;
    CHECK_FAILS(plan_create(&plan, g, &o, &err), CB_E_LIMIT, "the limit is 1000");
    o = cpu_options();
    o.kernels = "matmul=nosuch";
    CHECK_FAILS(plan_create(&plan, g, &o, &err), CB_E_NAME, "no such kernel");
    graph_destroy(&g);
    CHECK_OK(graph_create(&g, ops_table(), &err));
    op_matmul(g, graph_input(g, "a", f32_type(2, 2, 3)), graph_input(g, "b", f32_type(2, 4, 5)), false, false);
    CHECK(g->err.code == CB_E_SHAPE && strstr(g->err.message, "matmul"), "%s", g->err.message);
    graph_destroy(&g);
}
