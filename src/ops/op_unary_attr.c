/* Elementwise functions of one tensor with attributes: softplus, elu, leaky_relu, clamp, pow_scalar, scale. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// @attrs softplus: float beta, float threshold
// @attrs elu: float alpha
// @attrs leaky_relu: float slope
// @attrs clamp: float low, float high
// @attrs pow_scalar: float exponent
// @attrs scale: float factor, float add

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};

static enum cb_status infer_same(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_float(node, 0, err));
    out[0] = node->in[0]->type;
    return CB_OK;
}

/* ---- values */
static double f_softplus(const struct attr_softplus *a, double x) {
    double z = a->beta * x;
    return z > a->threshold ? x : (z > 0 ? z + log1p(exp(-z)) : log1p(exp(z))) / a->beta;
}
static double f_elu(const struct attr_elu *a, double x) { return x <= 0 ? a->alpha * expm1(x) : x; }
static double f_leaky_relu(const struct attr_leaky_relu *a, double x) { return x > 0 ? x : a->slope * x; }
static double f_clamp(const struct attr_clamp *a, double x) { return x < a->low ? a->low : x > a->high ? a->high : x; }
static double f_pow_scalar(const struct attr_pow_scalar *a, double x) { return pow(x, a->exponent); }
static double f_scale(const struct attr_scale *a, double x) { return a->factor * x + a->add; }

/* ---- gradients: dx from x and dy */
#define GRAD(name)                                                                                                                  \
    static struct cb_tensor *dx_##name(struct cb_graph *g, const struct attr_##name *a, struct cb_tensor *x, struct cb_tensor *dy); \
    static void grad_##name(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,           \
                            struct cb_tensor **din) {                                                                               \
        (void)need;                                                                                                                 \
        din[0] = dx_##name(g, node->attrs, node->in[0], dout[0]);                                                                   \
    }                                                                                                                               \
    static struct cb_tensor *dx_##name(struct cb_graph *g, const struct attr_##name *a, struct cb_tensor *x, struct cb_tensor *dy)
GRAD(softplus) { return op_mul(g, dy, op_unary(g, "sigmoid", op_scale(g, x, a->beta, 0))); }
GRAD(elu) {
    // e^min(x, 0) stays finite where the other branch is taken, so that second derivatives do too
    struct cb_tensor *zero = ops_scalar(g, x->type.dtype, 0);
    struct cb_tensor *slope = op_scale(g, op_unary(g, "exp", op_minimum(g, x, zero)), a->alpha, 0);
    return op_where(g, op_compare(g, "le", x, zero), op_mul(g, dy, slope), dy);
}
GRAD(leaky_relu) { return op_where(g, op_compare(g, "gt", x, ops_scalar(g, x->type.dtype, 0)), dy, op_scale(g, dy, a->slope, 0)); }
GRAD(clamp) {
    struct cb_tensor *inside = op_logical(g, "logical_and", op_compare(g, "gt", x, ops_scalar(g, x->type.dtype, a->low)),
                                          op_compare(g, "lt", x, ops_scalar(g, x->type.dtype, a->high)));
    return op_where(g, inside, dy, ops_scalar(g, dy->type.dtype, 0));
}
GRAD(pow_scalar) {
    if (a->exponent == 0) return NULL;
    return op_mul(g, dy, op_scale(g, op_pow_scalar(g, x, a->exponent - 1), a->exponent, 0));
}
GRAD(scale) {
    (void)x;
    return op_scale(g, dy, a->factor, 0);
}

/* ---- cases */
#define ATTR(name, ...) \
    &(const struct attr_##name) { __VA_ARGS__ }
static const struct op_case cases_softplus[] = {{.name = "odd", .attrs = ATTR(softplus, 1, 20), .in = {CASE_F32(3, 7)}},
                                                {.name = "beta", .attrs = ATTR(softplus, 2, 20), .in = {CASE_F32(5)}},
                                                {.name = "empty", .attrs = ATTR(softplus, 1, 20), .in = {CASE_F32(0)}},
                                                {.name = NULL}};
static const struct op_case cases_elu[] = {{.name = "odd", .attrs = ATTR(elu, 0.7), .in = {CASE_F32(3, 7)}},
                                           {.name = "empty", .attrs = ATTR(elu, 1), .in = {CASE_F32(0)}},
                                           {.name = NULL}};
static const struct op_case cases_leaky_relu[] = {{.name = "odd", .attrs = ATTR(leaky_relu, 0.2), .in = {CASE_F32(3, 7)}},
                                                  {.name = "empty", .attrs = ATTR(leaky_relu, 0.2), .in = {CASE_F32(0)}},
                                                  {.name = NULL}};
static const struct op_case cases_clamp[] = {{.name = "both", .attrs = ATTR(clamp, -0.5, 0.5), .in = {CASE_F32(3, 7)}},
                                             {.name = "below", .attrs = ATTR(clamp, -0.5, INFINITY), .in = {CASE_F32(3, 7)}},
                                             {.name = "empty", .attrs = ATTR(clamp, -0.5, 0.5), .in = {CASE_F32(0)}},
                                             {.name = NULL}};
static const struct op_case cases_pow_scalar[] = {{.name = "cube", .attrs = ATTR(pow_scalar, 3), .in = {CASE_F32(3, 5)}},
                                                  {.name = "half", .attrs = ATTR(pow_scalar, 0.5), .in = {CASE_POSITIVE(3, 5)}},
                                                  {.name = "negative", .attrs = ATTR(pow_scalar, -1.5), .in = {CASE_POSITIVE(5)}},
                                                  {.name = "zero", .attrs = ATTR(pow_scalar, 0), .in = {CASE_F32(5)}},
                                                  {.name = "empty", .attrs = ATTR(pow_scalar, 2), .in = {CASE_F32(0)}},
                                                  {.name = NULL}};
static const struct op_case cases_scale[] = {{.name = "odd", .attrs = ATTR(scale, -2.5, 1), .in = {CASE_F32(3, 7)}},
                                             {.name = "scalar", .attrs = ATTR(scale, 3, 0), .in = {CASE_SCALAR}},
                                             {.name = "empty", .attrs = ATTR(scale, 2, 0), .in = {CASE_F32(0, 3)}},
                                             {.name = NULL}};

/* ---- the table: X(op, doc) */
#define ATTR_LIST(X)                                                                                   \
    X(softplus, "log(1 + e^(beta x)) / beta; x itself where beta x > threshold.")                      \
    X(elu, "x where x > 0, else alpha (e^x - 1) (Clevert et al. 2015).")                               \
    X(leaky_relu, "x where x > 0, else slope x.")                                                      \
    X(clamp, "x held within [low, high] (infinities: no bound); the gradient passes strictly inside.") \
    X(pow_scalar, "x^exponent.")                                                                       \
    X(scale, "factor x + add.")

#define DEFINE_ATTR(op_name, text)                                                                                                    \
    static void ref_##op_name(const struct op_run *run) {                                                                             \
        enum cb_dtype dtype = run->node->in[0]->type.dtype;                                                                           \
        int64_t n = type_elements(&run->node->in[0]->type);                                                                           \
        for (int64_t i = 0; i < n; i++) ref_set(dtype, run->out[0], i, f_##op_name(run->node->attrs, ref_get(dtype, run->in[0], i))); \
    }                                                                                                                                 \
    static const struct op attr_op_##op_name = {.name = #op_name,                                                                     \
                                                .doc = text,                                                                          \
                                                .in_names = in_x,                                                                     \
                                                .out_names = out_y,                                                                   \
                                                .attrs = attr_fields_##op_name,                                                       \
                                                .attr_bytes = sizeof(struct attr_##op_name),                                          \
                                                .traits = OP_ELEMENTWISE | OP_CHEAP,                                                  \
                                                .infer = infer_same,                                                                  \
                                                .grad = grad_##op_name,                                                               \
                                                .ref = ref_##op_name,                                                                 \
                                                .inplace = {1},                                                                       \
                                                .cases = cases_##op_name};
ATTR_LIST(DEFINE_ATTR)

const struct op *const op_file_unary_attr[] = {
#define ATTR_ENTRY(op_name, text) &attr_op_##op_name,
    ATTR_LIST(ATTR_ENTRY) NULL,
};

/* ---- builders (every field is a double: no padding to clear) */
struct cb_tensor *op_softplus(struct cb_graph *g, struct cb_tensor *x, double beta, double threshold) {
    return graph_node(g, &attr_op_softplus, &(struct attr_softplus){beta, threshold}, 1, &x);
}

struct cb_tensor *op_elu(struct cb_graph *g, struct cb_tensor *x, double alpha) {
    return graph_node(g, &attr_op_elu, &(struct attr_elu){alpha}, 1, &x);
}

struct cb_tensor *op_leaky_relu(struct cb_graph *g, struct cb_tensor *x, double slope) {
    return graph_node(g, &attr_op_leaky_relu, &(struct attr_leaky_relu){slope}, 1, &x);
}

struct cb_tensor *op_clamp(struct cb_graph *g, struct cb_tensor *x, double low, double high) {
    return graph_node(g, &attr_op_clamp, &(struct attr_clamp){low, high}, 1, &x);
}

struct cb_tensor *op_pow_scalar(struct cb_graph *g, struct cb_tensor *x, double exponent) {
    if (exponent == 1) return x;
    return graph_node(g, &attr_op_pow_scalar, &(struct attr_pow_scalar){exponent}, 1, &x);
}

struct cb_tensor *op_scale(struct cb_graph *g, struct cb_tensor *x, double factor, double add) {
    if (factor == 1 && add == 0) return x;
    return graph_node(g, &attr_op_scale, &(struct attr_scale){factor, add}, 1, &x);
}
