/* Batch normalisation (Ioffe and Szegedy 2015) and its gradient in training. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// @attrs batch_norm: bool training, float momentum, float eps
// @attrs batch_norm_grad: float eps

static const struct op batch_norm_grad_op;

/* x (B,C,...) with vectors of C at inputs 1 to n - 1, where present. */
static enum cb_status check_channels(const struct node *node, int n, struct cb_err *err) {
    const struct cb_type *x = &node->in[0]->type;
    char text[TYPE_TEXT];
    TRY(ops_check_float(node, 0, err));
    if (x->rank < 2) FAIL(err, CB_E_SHAPE, "%s: x is %s; (B, C, ...) wanted", node->op->name, type_text(x, text));
    for (int i = 1; i < n; i++) TRY(ops_check_vector(node, i, x->dim[1], err));
    return CB_OK;
}

/* A vector of C as (C,1,...), to broadcast over (B,C,...). */
static struct cb_tensor *channels(struct cb_graph *g, struct cb_tensor *v, const struct cb_type *x) {
    int64_t dim[CB_MAX_RANK] = {x->dim[1], 1, 1, 1, 1, 1};
    return op_reshape(g, v, x->rank - 1, dim);
}

/* Every axis but the channels'. */
static int other_axes(const struct cb_type *x, int64_t axes[CB_MAX_RANK]) {
    axes[0] = 0;
    for (int i = 2; i < x->rank; i++) axes[i - 1] = i;
    return x->rank - 1;
}

static double flops(const struct node *node) { return 8 * (double)type_elements(&node->in[0]->type); }

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct attr_batch_norm *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    TRY(check_channels(node, 5, err));
    out[0] = *x;
    out[1] = out[2] = type_make(x->dtype, 1, &x->dim[1]);
    *n_out = a->training ? 3 : 1;
    if (a->training && x->dim[1] > 0 && type_elements(x) / x->dim[1] < 2)
        FAIL(err, CB_E_SHAPE, "batch_norm: %lld values a channel; at least 2 wanted in training",
             (long long)(type_elements(x) / x->dim[1]));
    return CB_OK;
}

/* momentum * fresh + (1 - momentum) * old */
static struct cb_tensor *running(struct cb_graph *g, struct cb_tensor *old, struct cb_tensor *fresh, double momentum) {
    return op_add(g, op_scale(g, fresh, momentum, 0), op_scale(g, old, 1 - momentum, 0));
}

static void expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_batch_norm *a = node->attrs;
    struct cb_tensor *x = node->in[0], *mean = node->in[3], *var = node->in[4];
    int64_t axes[CB_MAX_RANK];
    int n = other_axes(&x->type, axes);
    if (a->training) {
        mean = op_mean(g, x, n, axes, false);
        var = op_var(g, x, 0, n, axes, false);
        out[1] = running(g, node->in[3], mean, a->momentum);
        out[2] = running(g, node->in[4], op_var(g, x, 1, n, axes, false), a->momentum);
    }
    struct cb_tensor *scale = op_unary(g, "rsqrt", op_scale(g, var, 1, a->eps));
    struct cb_tensor *y = op_mul(g, op_sub(g, x, channels(g, mean, &x->type)), channels(g, scale, &x->type));
    if (node->in[1]) y = op_mul(g, y, channels(g, node->in[1], &x->type));
    if (node->in[2]) y = op_add(g, y, channels(g, node->in[2], &x->type));
    out[0] = y;
}

/* In training, where only y reaches the loss, one op; else the derivative of the expansion. */
static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_batch_norm *a = node->attrs;
    if (a->training && !dout[1] && !dout[2]) {
        struct attr_batch_norm_grad attrs = {a->eps};
        din[0] = graph_node(g, &batch_norm_grad_op, &attrs, 3, (struct cb_tensor *[]){node->in[0], node->in[1], dout[0]});
        if (need[1]) din[1] = graph_out(g, din[0], 1);
        if (need[2]) din[2] = graph_out(g, din[0], 2);
        return;
    }
    struct cb_tensor *in[5], *wrt[5], *out[3] = {NULL};
    for (int i = 0; i < 5; i++) wrt[i] = need[i] ? op_alias(g, node->in[i]) : NULL, in[i] = need[i] ? wrt[i] : node->in[i];
    struct node copy = *node;
    copy.in = in;
    if (g->err.code) return;
    expand(g, &copy, out);
    op_expand_grad(g, node->n_out, out, dout, 5, wrt, din);
}

#define BATCH(training) \
    &(const struct attr_batch_norm) { training, 0.1, 1e-5 }
#define STATISTIC(...) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(__VA_ARGS__), .fill = FILL_POSITIVE, .no_grad = true }
static const struct op_case cases[] = {
    {.name = "train", .attrs = BATCH(true), .in = {CASE_F32(3, 5, 4, 3), CASE_F32(5), CASE_F32(5), STATISTIC(5), STATISTIC(5)}},
    {.name = "train_rows", .attrs = BATCH(true), .in = {CASE_F32(7, 5), CASE_ABSENT, CASE_ABSENT, STATISTIC(5), STATISTIC(5)}},
    {.name = "eval", .attrs = BATCH(false), .in = {CASE_F32(3, 5, 4), CASE_F32(5), CASE_F32(5), STATISTIC(5), STATISTIC(5)}},
    {.name = "empty", .attrs = BATCH(false), .in = {CASE_F32(0, 5), CASE_F32(5), CASE_F32(5), STATISTIC(5), STATISTIC(5)}},
    {.name = NULL}};
static const char *const in_names[] = {"x", "weight?", "bias?", "running_mean", "running_var", NULL};
static const char *const out_names[] = {"y", "running_mean", "running_var", NULL};
static const struct op batch_norm_op = {
    .name = "batch_norm",
    .doc =
        "x (B,C,...) less the mean, over sqrt(variance + eps) of each channel: of the batch in training (outputs 1 and 2 are then the new "
        "running statistics), else the running ones (Ioffe and Szegedy 2015).",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_batch_norm,
    .attr_bytes = sizeof(struct attr_batch_norm),
    .n_out = -1,
    .infer = infer,
    .grad = grad,
    .expand = expand,
    .flops = flops,
    .cases = cases};

struct cb_tensor *op_batch_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                struct cb_tensor *running_mean, struct cb_tensor *running_var, bool training, double momentum, double eps) {
    struct attr_batch_norm a;
    memset(&a, 0, sizeof a);
    a.training = training;
    a.momentum = momentum;
    a.eps = eps;
    return graph_node(g, &batch_norm_op, &a, 5, (struct cb_tensor *[]){x, weight, bias, running_mean, running_var});
}

/* ---- batch_norm_grad, over the n values of a channel: with h = (x - mean) s, dx = w s (dy - mean(dy) - h mean(dy h)), dw = sum dy h, db = sum dy */
static enum cb_status infer_grad(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(check_channels(node, 2, err));
    TRY(ops_check_same(node, 0, 2, err));
    out[0] = node->in[0]->type;
    out[1] = out[2] = type_make(out->dtype, 1, &out->dim[1]);
    return CB_OK;
}

static void ref_grad(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type;
    const double eps = ((const struct attr_batch_norm_grad *)run->node->attrs)->eps;
    int64_t c = x->dim[1], inner = 1, rows = x->dim[0];
    for (int i = 2; i < x->rank; i++) inner *= x->dim[i];
    for (int64_t k = 0; k < c; k++) {
        double n = (double)(rows * inner), mean = 0, var = 0, dw = 0, db = 0;
#define EACH_VALUE(...)                                                                       \
    for (int64_t i_ = 0; i_ < rows * inner; i_++) {                                           \
        int64_t at = (i_ / inner * c + k) * inner + i_ % inner;                               \
        double v = ref_get(x->dtype, run->in[0], at), dy = ref_get(x->dtype, run->in[2], at); \
        (void)dy;                                                                             \
        __VA_ARGS__;                                                                          \
    }
        EACH_VALUE(mean += v / n)
        EACH_VALUE(var += (v - mean) * (v - mean) / n)
        double s = 1 / sqrt(var + eps), w = run->in[1] ? ref_get(x->dtype, run->in[1], k) : 1;
        EACH_VALUE(db += dy; dw += dy * (v - mean) * s)
        EACH_VALUE(ref_set(x->dtype, run->out[0], at, w * s * (dy - db / n - (v - mean) * s * dw / n)))
#undef EACH_VALUE
        ref_set(x->dtype, run->out[1], k, dw);
        ref_set(x->dtype, run->out[2], k, db);
    }
}

static void expand_grad(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    struct cb_tensor *x = node->in[0], *dy = node->in[2];
    int64_t axes[CB_MAX_RANK];
    int n = other_axes(&x->type, axes);
    struct cb_tensor *c = op_sub(g, x, op_mean(g, x, n, axes, true)), *var = op_mean(g, op_unary(g, "square", c), n, axes, true);
    struct cb_tensor *s = op_unary(g, "rsqrt", op_scale(g, var, 1, ((const struct attr_batch_norm_grad *)node->attrs)->eps));
    struct cb_tensor *h = op_mul(g, c, s), *dyh = op_mul(g, dy, h);
    struct cb_tensor *dx = op_sub(g, op_sub(g, dy, op_mean(g, dy, n, axes, true)), op_mul(g, h, op_mean(g, dyh, n, axes, true)));
    if (node->in[1]) s = op_mul(g, s, channels(g, node->in[1], &x->type));
    out[0] = op_mul(g, dx, s);
    out[1] = op_sum(g, dyh, n, axes, false);
    out[2] = op_sum(g, dy, n, axes, false);
}

#define BATCH_GRAD \
    &(const struct attr_batch_norm_grad) { 1e-5 }
static const struct op_case grad_cases[] = {
    {.name = "images", .attrs = BATCH_GRAD, .in = {CASE_F32(3, 5, 4, 3), CASE_F32(5), CASE_F32(3, 5, 4, 3)}},
    {.name = "wide", .attrs = BATCH_GRAD, .in = {CASE_F32(2, 3, 67), CASE_F32(3), CASE_F32(2, 3, 67)}},
    {.name = "rows", .attrs = BATCH_GRAD, .in = {CASE_F32(7, 5), CASE_ABSENT, CASE_F32(7, 5)}},
    {.name = "empty", .attrs = BATCH_GRAD, .in = {CASE_F32(2, 0), CASE_F32(0), CASE_F32(2, 0)}, .no_grad = true},
    {.name = NULL}};
static const char *const grad_in[] = {"x", "weight?", "dy", NULL};
static const char *const grad_out[] = {"dx", "dw", "db", NULL};
static const struct op batch_norm_grad_op = {.name = "batch_norm_grad",
                                             .doc = "Gradient of batch_norm in training: dx, and the sums dw and db of each channel.",
                                             .in_names = grad_in,
                                             .out_names = grad_out,
                                             .attrs = attr_fields_batch_norm_grad,
                                             .attr_bytes = sizeof(struct attr_batch_norm_grad),
                                             .infer = infer_grad,
                                             .ref = ref_grad,
                                             .expand = expand_grad,
                                             .flops = flops,
                                             .tolerance = 1e-4,
                                             .cases = grad_cases};

const struct op *const op_file_batch_norm[] = {&batch_norm_op, &batch_norm_grad_op, NULL};
