/* Elementwise functions of one tensor, each one line of a table: value, gradient and cases. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};

static enum cb_status infer_unary(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_float(node, 0, err));
    out[0] = node->in[0]->type;
    return CB_OK;
}

static const struct op_case cases_real[] = {{.name = "odd", .in = {CASE_F32(3, 7)}},
                                            {.name = "scalar", .in = {CASE_SCALAR}},
                                            {.name = "empty", .in = {CASE_F32(0, 3)}},
                                            {.name = NULL}};
static const struct op_case cases_positive[] = {{.name = "odd", .in = {CASE_POSITIVE(3, 7)}},
                                                {.name = "one", .in = {CASE_POSITIVE(1)}},
                                                {.name = "empty", .in = {CASE_POSITIVE(0, 3)}},
                                                {.name = NULL}};
static const struct op_case cases_steps[] = {
    {.name = "odd", .in = {CASE_F32(3, 7)}, .no_grad = true}, {.name = "empty", .in = {CASE_F32(0)}}, {.name = NULL}};

/* ---- values, where C has no function of the name */
static double f_neg(double x) { return -x; }
static double f_square(double x) { return x * x; }
static double f_rsqrt(double x) { return 1 / sqrt(x); }
static double f_reciprocal(double x) { return 1 / x; }
static double f_sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }
static double f_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double f_relu(double x) { return x <= 0 ? 0 : x; }
static double f_silu(double x) { return x / (1 + exp(-x)); }
static double f_gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }
static double f_gelu_tanh(double x) { return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x))); }
static double f_quick_gelu(double x) { return x / (1 + exp(-1.702 * x)); }
static double f_log_sigmoid(double x) { return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x)); }

/* ---- gradients: dx from x, y and dy */
#define GRAD(name, ...)                                                                                                   \
    static void grad_##name(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, \
                            struct cb_tensor **din) {                                                                     \
        struct cb_tensor *x = node->in[0], *y = node->out[0], *dy = dout[0];                                              \
        (void)need, (void)x, (void)y;                                                                                     \
        din[0] = __VA_ARGS__;                                                                                             \
    }
static struct cb_tensor *by_grad_op(struct cb_graph *g, const char *name, struct cb_tensor *value, struct cb_tensor *dy) {
    return op_apply(g, name, NULL, 2, (struct cb_tensor *[]){value, dy});
}
GRAD(abs, op_mul(g, dy, op_unary(g, "sign", x)))
GRAD(neg, op_unary(g, "neg", dy))
GRAD(exp, op_mul(g, dy, y))
GRAD(expm1, op_mul(g, dy, op_scale(g, y, 1, 1)))
GRAD(log, op_div(g, dy, x))
GRAD(log1p, op_div(g, dy, op_scale(g, x, 1, 1)))
GRAD(sqrt, op_div(g, op_scale(g, dy, 0.5, 0), y))
GRAD(rsqrt, op_mul(g, op_scale(g, dy, -0.5, 0), op_mul(g, y, op_unary(g, "square", y))))
GRAD(square, op_mul(g, op_scale(g, dy, 2, 0), x))
GRAD(reciprocal, op_unary(g, "neg", op_mul(g, dy, op_unary(g, "square", y))))
GRAD(sin, op_mul(g, dy, op_unary(g, "cos", x)))
GRAD(cos, op_unary(g, "neg", op_mul(g, dy, op_unary(g, "sin", x))))
GRAD(erf, op_mul(g, op_scale(g, dy, 1.12837916709551257390, 0), op_unary(g, "exp", op_unary(g, "neg", op_unary(g, "square", x)))))
GRAD(tanh, by_grad_op(g, "tanh_grad", y, dy))
GRAD(sigmoid, by_grad_op(g, "sigmoid_grad", y, dy))
GRAD(relu, by_grad_op(g, "relu_grad", x, dy))
GRAD(silu, by_grad_op(g, "silu_grad", x, dy))
GRAD(gelu, by_grad_op(g, "gelu_grad", x, dy))
GRAD(gelu_tanh, by_grad_op(g, "gelu_tanh_grad", x, dy))
GRAD(quick_gelu, by_grad_op(g, "quick_gelu_grad", x, dy))
GRAD(log_sigmoid, op_mul(g, dy, op_unary(g, "sigmoid", op_unary(g, "neg", x))))

/* ---- the table: X(op, function, grad, cases, doc) */
#define UNARY_LIST(X)                                                                                                                \
    X(abs, fabs, grad_abs, cases_real, "|x|; the gradient at 0 is 0.")                                                               \
    X(neg, f_neg, grad_neg, cases_real, "-x.")                                                                                       \
    X(exp, exp, grad_exp, cases_real, "e^x.")                                                                                        \
    X(expm1, expm1, grad_expm1, cases_real, "e^x - 1, exact near 0.")                                                                \
    X(log, log, grad_log, cases_positive, "Natural logarithm.")                                                                      \
    X(log1p, log1p, grad_log1p, cases_positive, "log(1 + x), exact near 0.")                                                         \
    X(sqrt, sqrt, grad_sqrt, cases_positive, "Square root.")                                                                         \
    X(rsqrt, f_rsqrt, grad_rsqrt, cases_positive, "1 / sqrt(x).")                                                                    \
    X(square, f_square, grad_square, cases_real, "x * x.")                                                                           \
    X(reciprocal, f_reciprocal, grad_reciprocal, cases_positive, "1 / x.")                                                           \
    X(sin, sin, grad_sin, cases_real, "Sine of radians.")                                                                            \
    X(cos, cos, grad_cos, cases_real, "Cosine of radians.")                                                                          \
    X(tanh, tanh, grad_tanh, cases_real, "Hyperbolic tangent.")                                                                      \
    X(sigmoid, f_sigmoid, grad_sigmoid, cases_real, "1 / (1 + e^-x).")                                                               \
    X(log_sigmoid, f_log_sigmoid, grad_log_sigmoid, cases_real, "log(sigmoid(x)), without overflow.")                                \
    X(erf, erf, grad_erf, cases_real, "The error function.")                                                                         \
    X(relu, f_relu, grad_relu, cases_real, "max(x, 0); the gradient at 0 is 0.")                                                     \
    X(silu, f_silu, grad_silu, cases_real, "x sigmoid(x) (Elfwing et al. 2017; also called swish).")                                 \
    X(gelu, f_gelu, grad_gelu, cases_real, "x Phi(x), Phi the normal distribution by erf (Hendrycks and Gimpel 2016).")              \
    X(gelu_tanh, f_gelu_tanh, grad_gelu_tanh, cases_real, "The tanh form of gelu: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).") \
    X(quick_gelu, f_quick_gelu, grad_quick_gelu, cases_real, "x sigmoid(1.702 x), as in CLIP.")                                      \
    X(sign, f_sign, ops_no_grad, cases_steps, "1, 0 or -1; 0 for NaN; no gradient.")                                                 \
    X(floor, floor, ops_no_grad, cases_steps, "Largest integer not above x; no gradient.")                                           \
    X(ceil, ceil, ops_no_grad, cases_steps, "Smallest integer not below x; no gradient.")                                            \
    X(round, rint, ops_no_grad, cases_steps, "Nearest integer, halves to even; no gradient.")

#define DEFINE_UNARY(op_name, function, grad_hook, case_list, text)                                              \
    static void ref_##op_name(const struct op_run *run) {                                                        \
        enum cb_dtype dtype = run->node->in[0]->type.dtype;                                                      \
        int64_t n = type_elements(&run->node->in[0]->type);                                                      \
        for (int64_t i = 0; i < n; i++) ref_set(dtype, run->out[0], i, function(ref_get(dtype, run->in[0], i))); \
    }                                                                                                            \
    static const struct op unary_##op_name = {.name = #op_name,                                                  \
                                              .doc = text,                                                       \
                                              .in_names = in_x,                                                  \
                                              .out_names = out_y,                                                \
                                              .traits = OP_ELEMENTWISE | OP_CHEAP,                               \
                                              .infer = infer_unary,                                              \
                                              .grad = grad_hook,                                                 \
                                              .ref = ref_##op_name,                                              \
                                              .inplace = {1},                                                    \
                                              .cases = case_list};
UNARY_LIST(DEFINE_UNARY)

const struct op *const op_file_unary[] = {
#define UNARY_ENTRY(op_name, function, grad_hook, case_list, text) &unary_##op_name,
    UNARY_LIST(UNARY_ENTRY) NULL,
};

struct cb_tensor *op_unary(struct cb_graph *g, const char *name, struct cb_tensor *x) {
    if (graph_is_bad(g, x)) return x;
    const struct op *op = op_find(g->ops, name);
    if (!op || op->in_names != in_x) return graph_fail(g, CB_E_NAME, "unary op '%s': no such op", name);
    return graph_node(g, op, NULL, 1, &x);
}
