/* Elementwise functions of one tensor, and gradients of activations from two, in tiles of a fixed number of elements. */
#ifndef BACKEND_CPU_UNARY_BODY_H
#define BACKEND_CPU_UNARY_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

#define UNARY_TILE 8192 /* elements */

struct unary {
    const float *x, *dy; /* dy: second operand, NULL where there is none */
    float *y;
    int64_t n;
    const void *attrs;
    void (*loop)(const struct unary *p, int64_t begin, int64_t end);
};

static void unary_tile(void *context, int64_t index, int thread) {
    const struct unary *p = context;
    (void)thread;
    p->loop(p, index * UNARY_TILE, tile_min(p->n, (index + 1) * UNARY_TILE));
}
/* cost: work of an element, in floats moved. */
static void unary_each(const struct op_run *run, int cost, void (*loop)(const struct unary *p, int64_t begin, int64_t end)) {
    struct unary p = {.x = run->in[0], .y = run->out[0], .attrs = run->node->attrs, .loop = loop};
    if (run->node->n_in > 1) p.dy = run->in[1];
    p.n = type_elements(&run->node->in[0]->type);
    tile_run(run->pool, p.n * cost, tile_count(p.n, UNARY_TILE), unary_tile, &p);
}

/* ---- values */
SIMD_INLINE vf f_abs(vf x) { return vf_abs(x); }
SIMD_INLINE vf f_neg(vf x) { return -x; }
SIMD_INLINE vf f_exp(vf x) { return vf_exp(x); }
SIMD_INLINE vf f_log(vf x) { return vf_log(x); }
SIMD_INLINE vf f_sqrt(vf x) { return vf_sqrt(x); }
SIMD_INLINE vf f_rsqrt(vf x) { return vf_set(1.0f) / vf_sqrt(x); }
SIMD_INLINE vf f_square(vf x) { return x * x; }
SIMD_INLINE vf f_reciprocal(vf x) { return vf_set(1.0f) / x; }
SIMD_INLINE vf f_tanh(vf x) { return vf_tanh(x); }
SIMD_INLINE vf f_sigmoid(vf x) { return vf_sigmoid(x); }
SIMD_INLINE vf f_erf(vf x) { return vf_erf(x); }
SIMD_INLINE vf f_floor(vf x) { return vf_floor(x); }
SIMD_INLINE vf f_relu(vf x) { return vf_select(vf_le(x, vf_zero()), vf_zero(), x); }
SIMD_INLINE vf f_silu(vf x) { return x / (vf_set(1.0f) + vf_exp(-x)); }
SIMD_INLINE vf f_gelu(vf x) { return vf_set(0.5f) * x * (vf_set(1.0f) + vf_erf(x * vf_set(0.70710678f))); }
/* The tanh form through e^x: 0.5 (1 + tanh z) = 1 / (1 + e^-2z). */
SIMD_INLINE vf gelu_gate(vf x) {
    vf z = x * vf_fma(x * x, vf_set(0.0713548163f), vf_set(1.59576912f));
    return vf_sigmoid(z);
}
SIMD_INLINE vf f_gelu_tanh(vf x) { return x * gelu_gate(x); }
SIMD_INLINE vf f_quick_gelu(vf x) { return x * vf_sigmoid(vf_set(1.702f) * x); }

/* ---- gradients from x (tanh, sigmoid: from y) and dy */
SIMD_INLINE vf f_relu_grad(vf x, vf dy) { return vf_select(vf_le(x, vf_zero()), vf_zero(), dy); }
SIMD_INLINE vf f_tanh_grad(vf y, vf dy) { return dy * (vf_set(1.0f) - y * y); }
SIMD_INLINE vf f_sigmoid_grad(vf y, vf dy) { return dy * (vf_set(1.0f) - y) * y; }
SIMD_INLINE vf f_silu_grad(vf x, vf dy) {
    vf s = vf_sigmoid(x);
    return dy * s * vf_fma(x, vf_set(1.0f) - s, vf_set(1.0f));
}
SIMD_INLINE vf f_quick_gelu_grad(vf x, vf dy) { return f_silu_grad(vf_set(1.702f) * x, dy); }
SIMD_INLINE vf f_gelu_grad(vf x, vf dy) {
    vf density = vf_set(0.39894228f) * vf_exp(vf_set(-0.5f) * x * x);
    vf below = vf_fma(vf_set(0.5f), vf_erf(x * vf_set(0.70710678f)), vf_set(0.5f));
    return dy * vf_fma(x, density, below);
}
SIMD_INLINE vf f_gelu_tanh_grad(vf x, vf dy) {
    vf s = gelu_gate(x), slope = vf_fma(x * x, vf_set(0.214064449f), vf_set(1.59576912f));
    return dy * s * vf_fma(x * (vf_set(1.0f) - s), slope, vf_set(1.0f));
}

/* ---- the kernels: X(op, cost) */
// clang-format off
#define UNARY_LIST(X) \
    X(abs, 1) X(neg, 1) X(square, 1) X(relu, 1) X(floor, 1) X(sqrt, 2) X(rsqrt, 2) X(reciprocal, 2) X(exp, 4) X(log, 4) X(tanh, 6) \
    X(sigmoid, 4) X(erf, 6) X(silu, 4) X(gelu, 6) X(gelu_tanh, 4) X(quick_gelu, 4)
// clang-format on
#define PAIR_LIST(X) \
    X(relu_grad, 1) X(tanh_grad, 1) X(sigmoid_grad, 1) X(silu_grad, 4) X(gelu_grad, 6) X(gelu_tanh_grad, 4) X(quick_gelu_grad, 4)

#define UNARY_DEFINE(name, cost)                                                              \
    static void loop_##name(const struct unary *p, int64_t begin, int64_t end) {              \
        const float *x = p->x + begin;                                                        \
        float *y = p->y + begin;                                                              \
        ROW_EACH(i, lanes, end - begin, vf_put(y + i, f_##name(vf_at(x + i, lanes)), lanes)); \
    }                                                                                         \
    static void run_##name(const struct op_run *run) { unary_each(run, cost, loop_##name); }
#define PAIR_DEFINE(name, cost)                                                                                     \
    static void loop_##name(const struct unary *p, int64_t begin, int64_t end) {                                    \
        const float *x = p->x + begin, *dy = p->dy + begin;                                                         \
        float *y = p->y + begin;                                                                                    \
        ROW_EACH(i, lanes, end - begin, vf_put(y + i, f_##name(vf_at(x + i, lanes), vf_at(dy + i, lanes)), lanes)); \
    }                                                                                                               \
    static void run_##name(const struct op_run *run) { unary_each(run, cost, loop_##name); }
UNARY_LIST(UNARY_DEFINE)
PAIR_LIST(PAIR_DEFINE)

/* ---- with attributes */
static void loop_scale(const struct unary *p, int64_t begin, int64_t end) {
    const struct attr_scale *a = p->attrs;
    vf factor = vf_set((float)a->factor), add = vf_set((float)a->add);
    ROW_EACH(i, lanes, end - begin, vf_put(p->y + begin + i, vf_fma(vf_at(p->x + begin + i, lanes), factor, add), lanes));
}
static void loop_leaky_relu(const struct unary *p, int64_t begin, int64_t end) {
    vf slope = vf_set((float)((const struct attr_leaky_relu *)p->attrs)->slope);
    ROW_EACH(i, lanes, end - begin, {
        vf x = vf_at(p->x + begin + i, lanes);
        vf_put(p->y + begin + i, vf_select(vf_lt(vf_zero(), x), x, slope * x), lanes);
    });
}
static void loop_clamp(const struct unary *p, int64_t begin, int64_t end) {
    const struct attr_clamp *a = p->attrs;
    vf low = vf_set((float)a->low), high = vf_set((float)a->high);
    ROW_EACH(i, lanes, end - begin, {
        vf x = vf_at(p->x + begin + i, lanes);
        vf_put(p->y + begin + i, vf_select(vf_lt(x, low), low, vf_select(vf_lt(high, x), high, x)), lanes);
    });
}
static void run_scale(const struct op_run *run) { unary_each(run, 1, loop_scale); }
static void run_leaky_relu(const struct op_run *run) { unary_each(run, 1, loop_leaky_relu); }
static void run_clamp(const struct op_run *run) { unary_each(run, 1, loop_clamp); }

#define UNARY_KERNEL(name, cost) {#name, SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, NULL, run_##name},
#endif
