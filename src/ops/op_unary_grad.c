/* Gradients of activations as single ops (one kernel, one pass over memory); their own derivatives come from primitives. */
#include <math.h>

#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

static const char *const in_x[] = {"x", "dy", NULL};
static const char *const in_y[] = {"y", "dy", NULL};
static const char *const out_dx[] = {"dx", NULL};

#define SQRT_HALF 0.70710678118654752440
#define INV_SQRT_2PI 0.39894228040143267794
#define SQRT_2_OVER_PI 0.79788456080286535588

static enum cb_status infer_pair(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_float(node, 0, err));
    TRY(ops_check_same(node, 0, 1, err));
    out[0] = node->in[0]->type;
    return CB_OK;
}

static const struct op_case cases_pair[] = {{.name = "odd", .in = {CASE_F32(3, 7), CASE_F32(3, 7)}},
                                            {.name = "scalar", .in = {CASE_SCALAR, CASE_SCALAR}},
                                            {.name = "empty", .in = {CASE_F32(0, 3), CASE_F32(0, 3)}},
                                            {.name = NULL}};

/* ---- values */
static double f_relu_grad(double x, double dy) { return x <= 0 ? 0 : dy; }
static double f_tanh_grad(double y, double dy) { return dy * (1 - y * y); }
static double f_sigmoid_grad(double y, double dy) { return dy * (1 - y) * y; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double f_silu_grad(double x, double dy) { return dy * sigmoid(x) * (1 + x * sigmoid(-x)); }
static double f_quick_gelu_grad(double x, double dy) { return f_silu_grad(1.702 * x, dy); }
static double f_gelu_grad(double x, double dy) { return dy * (0.5 * erfc(-x * SQRT_HALF) + x * INV_SQRT_2PI * exp(-0.5 * x * x)); }
static double f_gelu_tanh_grad(double x, double dy) {
    double s = sigmoid(2 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x));
    return dy * s * (1 + 2 * x * (1 - s) * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x * x));
}

/* ---- the same as graphs, from which second derivatives come */
static struct cb_tensor *one_minus(struct cb_graph *g, struct cb_tensor *x) { return op_scale(g, x, -1, 1); }
#define EXPAND(name)                                                                                      \
    static struct cb_tensor *graph_##name(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *dy); \
    static void expand_##name(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {      \
        out[0] = graph_##name(g, node->in[0], node->in[1]);                                               \
    }                                                                                                     \
    static struct cb_tensor *graph_##name(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *dy)
EXPAND(relu_grad) {
    struct cb_tensor *zero = ops_scalar(g, dy->type.dtype, 0);
    return op_where(g, op_compare(g, "le", x, zero), zero, dy);
}
EXPAND(tanh_grad) { return op_mul(g, dy, one_minus(g, op_unary(g, "square", x))); }
EXPAND(sigmoid_grad) { return op_mul(g, op_mul(g, dy, one_minus(g, x)), x); }
EXPAND(silu_grad) {
    struct cb_tensor *s = op_unary(g, "sigmoid", x);
    return op_mul(g, op_mul(g, dy, s), op_scale(g, op_mul(g, x, one_minus(g, s)), 1, 1));
}
EXPAND(quick_gelu_grad) { return graph_silu_grad(g, op_scale(g, x, 1.702, 0), dy); }
EXPAND(gelu_grad) {
    struct cb_tensor *phi = op_scale(g, op_unary(g, "exp", op_scale(g, op_unary(g, "square", x), -0.5, 0)), INV_SQRT_2PI, 0);
    struct cb_tensor *cdf = op_scale(g, op_unary(g, "erf", op_scale(g, x, SQRT_HALF, 0)), 0.5, 0.5);
    return op_mul(g, dy, op_add(g, cdf, op_mul(g, x, phi)));
}
EXPAND(gelu_tanh_grad) {
    struct cb_tensor *x2 = op_unary(g, "square", x);
    struct cb_tensor *s = op_unary(g, "sigmoid", op_scale(g, op_mul(g, x, op_scale(g, x2, 0.044715, 1)), 2 * SQRT_2_OVER_PI, 0));
    struct cb_tensor *slope = op_scale(g, x2, 3 * 0.044715 * 2 * SQRT_2_OVER_PI, 2 * SQRT_2_OVER_PI);
    return op_mul(g, op_mul(g, dy, s), op_scale(g, op_mul(g, op_mul(g, x, one_minus(g, s)), slope), 1, 1));
}

/* ---- the table: X(op, input names, doc) */
#define PAIR_LIST(X)                                                              \
    X(relu_grad, in_x, "Gradient of relu: dy where x is not <= 0, else 0.")       \
    X(tanh_grad, in_y, "Gradient of tanh from its result: dy (1 - y^2).")         \
    X(sigmoid_grad, in_y, "Gradient of sigmoid from its result: dy y (1 - y).")   \
    X(silu_grad, in_x, "Gradient of silu: dy s (1 + x (1 - s)), s = sigmoid(x).") \
    X(gelu_grad, in_x, "Gradient of gelu: dy (Phi(x) + x phi(x)).")               \
    X(gelu_tanh_grad, in_x, "Gradient of gelu_tanh.")                             \
    X(quick_gelu_grad, in_x, "Gradient of quick_gelu.")

#define DEFINE_PAIR(op_name, names, text)                                                                                              \
    static void ref_##op_name(const struct op_run *run) {                                                                              \
        enum cb_dtype t = run->node->in[0]->type.dtype;                                                                                \
        int64_t n = type_elements(&run->node->in[0]->type);                                                                            \
        for (int64_t i = 0; i < n; i++) ref_set(t, run->out[0], i, f_##op_name(ref_get(t, run->in[0], i), ref_get(t, run->in[1], i))); \
    }                                                                                                                                  \
    static const struct op pair_##op_name = {.name = #op_name,                                                                         \
                                             .doc = text,                                                                              \
                                             .in_names = names,                                                                        \
                                             .out_names = out_dx,                                                                      \
                                             .traits = OP_ELEMENTWISE | OP_CHEAP,                                                      \
                                             .infer = infer_pair,                                                                      \
                                             .ref = ref_##op_name,                                                                     \
                                             .expand = expand_##op_name,                                                               \
                                             .inplace = {2},                                                                           \
                                             .cases = cases_pair};
PAIR_LIST(DEFINE_PAIR)

const struct op *const op_file_unary_grad[] = {
#define PAIR_ENTRY(op_name, names, text) &pair_##op_name,
    PAIR_LIST(PAIR_ENTRY) NULL,
};
