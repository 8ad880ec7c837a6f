/* Layer norm and RMS norm over the last axis, and their gradients, each one op. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// params: also dw and db (layer norm), dw (RMS norm); off where the weights are frozen.
// @attrs layer_norm: float eps
// @attrs layer_norm_grad: float eps, bool params
// @attrs rms_norm: float eps, float offset
// @attrs rms_norm_grad: float eps, float offset, bool params

static const char *const out_y[] = {"y", NULL};

enum { GRAD_ACC = 3 };  // of a gradient: what dx is added to

/* Rows and columns of a tensor seen as a matrix. */
static int64_t columns_of(const struct cb_type *x) { return x->dim[x->rank - 1]; }
static int64_t rows_of(const struct cb_type *x) {
    int64_t n = 1;
    for (int i = 0; i < x->rank - 1; i++) n *= x->dim[i];
    return n;
}

/* x has an axis to norm over; weight (input 1), where given, is a vector of its size. */
static enum cb_status check_row(const struct node *node, struct cb_err *err) {
    TRY(ops_check_float(node, 0, err));
    if (node->in[0]->type.rank < 1) FAIL(err, CB_E_SHAPE, "%s: x is a scalar; at least one axis wanted", node->op->name);
    return ops_check_vector(node, 1, columns_of(&node->in[0]->type), err);
}

static enum cb_status infer_norm(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(check_row(node, err));
    *out = node->in[0]->type;
    return ops_check_vector(node, 2, columns_of(out), err);
}

/* Of a norm: x. */
static unsigned by_row(const struct node *node) {
    (void)node;
    return 1;
}

/* dx, and with params one vector for each further output name. */
static enum cb_status infer_grad(const struct node *node, bool params, struct cb_type *out, int *n_out, struct cb_err *err) {
    TRY(check_row(node, err));
    TRY(ops_check_same(node, 0, 2, err));
    if (node->n_in > GRAD_ACC && node->in[GRAD_ACC]) TRY(ops_check_same(node, 0, GRAD_ACC, err));
    *n_out = 1;
    out[0] = node->in[0]->type;
    for (int i = 1; params && node->op->out_names[i]; i++, (*n_out)++) out[i] = type_make(out->dtype, 1, &out->dim[out->rank - 1]);
    return CB_OK;
}

/* A weight's element, 1 where there is none. */
static double weight_at(const struct op_run *run, enum cb_dtype dtype, int64_t i) { return run->in[1] ? ref_get(dtype, run->in[1], i) : 1; }

/* ---- layer norm (Ba et al. 2016) */
struct stats {
    double mean, scale;  // scale: 1 / sqrt(variance + eps)
};
static struct stats row_stats(enum cb_dtype dtype, const void *x, int64_t first, int64_t n, double eps, bool centred) {
    struct stats s = {0, 0};
    for (int64_t i = 0; centred && i < n; i++) s.mean += ref_get(dtype, x, first + i) / (double)n;
    for (int64_t i = 0; i < n; i++) s.scale += pow(ref_get(dtype, x, first + i) - s.mean, 2) / (double)n;
    s.scale = 1 / sqrt(s.scale + eps);
    return s;
}

static void ref_layer_norm(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t n = columns_of(x), rows = rows_of(x);
    for (int64_t r = 0; r < rows; r++) {
        struct stats s = row_stats(x->dtype, run->in[0], r * n, n, ((const struct attr_layer_norm *)run->node->attrs)->eps, true);
        for (int64_t i = 0; i < n; i++) {
            double y = (ref_get(x->dtype, run->in[0], r * n + i) - s.mean) * s.scale * weight_at(run, x->dtype, i);
            ref_set(x->dtype, run->out[0], r * n + i, y + (run->in[2] ? ref_get(x->dtype, run->in[2], i) : 0));
        }
    }
}

static const struct op norm_layer_norm_grad, norm_rms_norm_grad;

static void grad_layer_norm(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                            struct cb_tensor **din) {
    struct attr_layer_norm_grad a;
    memset(&a, 0, sizeof a);
    a.eps = ((const struct attr_layer_norm *)node->attrs)->eps;
    a.params = need[1] || need[2];
    din[0] = graph_node(g, &norm_layer_norm_grad, &a, 3, (struct cb_tensor *[]){node->in[0], node->in[1], dout[0]});
    if (need[1]) din[1] = graph_out(g, din[0], 1);
    if (need[2]) din[2] = graph_out(g, din[0], 2);
}

#define LAYER_NORM \
    &(const struct attr_layer_norm) { 1e-5 }
static const struct op_case cases_layer_norm[] = {
    {.name = "affine", .attrs = LAYER_NORM, .in = {CASE_F32(2, 3, 7), CASE_F32(7), CASE_F32(7)}},
    {.name = "no_bias", .attrs = LAYER_NORM, .in = {CASE_F32(5, 9), CASE_F32(9), CASE_ABSENT}},
    {.name = "plain", .attrs = LAYER_NORM, .in = {CASE_F32(5, 9)}},
    {.name = "wide", .attrs = LAYER_NORM, .in = {CASE_F32(3, 67), CASE_F32(67), CASE_F32(67)}},
    {.name = "size_one", .attrs = &(const struct attr_layer_norm){0.01}, .in = {CASE_F32(4, 1), CASE_F32(1)}},
    {.name = "empty", .attrs = LAYER_NORM, .in = {CASE_F32(0, 7), CASE_F32(7), CASE_F32(7)}, .no_grad = true},
    {.name = NULL}};
static const char *const in_layer_norm[] = {"x", "weight?", "bias?", NULL};
static double flops_norm(const struct node *node) { return 8 * (double)type_elements(&node->in[0]->type); }
static const struct op norm_layer_norm = {
    .name = "layer_norm",
    .doc = "(x - mean) / sqrt(variance + eps) over the last axis, times weight plus bias where given (Ba et al. 2016).",
    .in_names = in_layer_norm,
    .out_names = out_y,
    .attrs = attr_fields_layer_norm,
    .attr_bytes = sizeof(struct attr_layer_norm),
    .infer = infer_norm,
    .grad = grad_layer_norm,
    .ref = ref_layer_norm,
    .by_row = by_row,
    .flops = flops_norm,
    .inplace = {1},
    .cases = cases_layer_norm};

/* ---- layer_norm_grad: with h = (x - mean) s and e = w dy, dx = acc + s (e - mean(e) - h mean(e h)), dw = sum dy h, db = sum dy */
static enum cb_status infer_layer_norm_grad(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    return infer_grad(node, ((const struct attr_layer_norm_grad *)node->attrs)->params, out, n_out, err);
}

/* f64 sums of dw and db. */
static size_t work_params(const struct node *node) { return 2 * (size_t)columns_of(&node->in[0]->type) * sizeof(double); }

/* Both norms' gradients; without centring, mean and its part of dx vanish. */
static void run_grad(const struct op_run *run, double eps, double offset, bool centred) {
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t n = columns_of(x), rows = rows_of(x);
    double *dw = run->work, *db = dw + n;
    memset(dw, 0, 2 * (size_t)n * sizeof *dw);
    for (int64_t r = 0; r < rows; r++) {
        struct stats s = row_stats(x->dtype, run->in[0], r * n, n, eps, centred);
        double mean_e = 0, mean_eh = 0;
        for (int64_t i = 0; i < n; i++) {
            double h = (ref_get(x->dtype, run->in[0], r * n + i) - s.mean) * s.scale, dy = ref_get(x->dtype, run->in[2], r * n + i);
            double e = dy * (run->in[1] ? weight_at(run, x->dtype, i) + offset : 1);
            dw[i] += dy * h;
            db[i] += dy;
            mean_e += centred ? e / (double)n : 0;
            mean_eh += e * h / (double)n;
        }
        for (int64_t i = 0; i < n; i++) {
            double h = (ref_get(x->dtype, run->in[0], r * n + i) - s.mean) * s.scale, dy = ref_get(x->dtype, run->in[2], r * n + i);
            double e = dy * (run->in[1] ? weight_at(run, x->dtype, i) + offset : 1);
            double acc = run->in[GRAD_ACC] ? ref_get(x->dtype, run->in[GRAD_ACC], r * n + i) : 0;
            ref_set(x->dtype, run->out[0], r * n + i, acc + s.scale * (e - mean_e - h * mean_eh));
        }
    }
    for (int k = 1; k < run->node->n_out; k++)
        for (int64_t i = 0; i < n; i++) ref_set(x->dtype, run->out[k], i, (k == 1 ? dw : db)[i]);
}

static void ref_layer_norm_grad(const struct op_run *run) {
    run_grad(run, ((const struct attr_layer_norm_grad *)run->node->attrs)->eps, 0, true);
}

/* The formulas above as a graph. */
static void expand_grad(struct cb_graph *g, const struct node *node, double eps, double offset, bool centred, struct cb_tensor **out) {
    const int64_t last[] = {-1};
    struct cb_tensor *x = node->in[0], *w = node->in[1], *dy = node->in[2], *e = dy;
    struct cb_tensor *c = centred ? op_sub(g, x, op_mean(g, x, 1, last, true)) : x;
    struct cb_tensor *s = op_unary(g, "rsqrt", op_scale(g, op_mean(g, op_unary(g, "square", c), 1, last, true), 1, eps));
    struct cb_tensor *h = op_mul(g, c, s);
    if (w) e = op_mul(g, dy, op_scale(g, w, 1, offset));
    struct cb_tensor *dx = op_sub(g, e, op_mul(g, h, op_mean(g, op_mul(g, e, h), 1, last, true)));
    if (centred) dx = op_sub(g, dx, op_mean(g, e, 1, last, true));
    out[0] = op_mul(g, dx, s);
    if (node->n_in > GRAD_ACC && node->in[GRAD_ACC]) out[0] = op_add(g, node->in[GRAD_ACC], out[0]);
    struct cb_type row = type_make(x->type.dtype, 1, &x->type.dim[x->type.rank - 1]);
    if (node->n_out > 1) out[1] = op_sum_to(g, op_mul(g, dy, h), &row);
    if (node->n_out > 2) out[2] = op_sum_to(g, dy, &row);
}

static void expand_layer_norm_grad(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    expand_grad(g, node, ((const struct attr_layer_norm_grad *)node->attrs)->eps, 0, true, out);
}

#define LAYER_GRAD(params) \
    &(const struct attr_layer_norm_grad) { 1e-5, params }
static const struct op_case cases_layer_norm_grad[] = {
    {.name = "params", .attrs = LAYER_GRAD(true), .in = {CASE_F32(2, 3, 7), CASE_F32(7), CASE_F32(2, 3, 7)}},
    {.name = "frozen", .attrs = LAYER_GRAD(false), .in = {CASE_F32(3, 67), CASE_F32(67), CASE_F32(3, 67)}},
    {.name = "plain", .attrs = LAYER_GRAD(true), .in = {CASE_F32(5, 9), CASE_ABSENT, CASE_F32(5, 9)}},
    {.name = "accumulate", .attrs = LAYER_GRAD(true), .in = {CASE_F32(5, 9), CASE_F32(9), CASE_F32(5, 9), CASE_F32(5, 9)}},
    {.name = "empty", .attrs = LAYER_GRAD(true), .in = {CASE_F32(0, 7), CASE_F32(7), CASE_F32(0, 7)}, .no_grad = true},
    {.name = NULL}};
static const char *const in_grad[] = {"x", "weight?", "dy", "acc?", NULL};
static const char *const out_layer_grad[] = {"dx", "dw", "db", NULL};
static const struct op norm_layer_norm_grad = {
    .name = "layer_norm_grad",
    .doc = "Gradient of layer_norm: dx plus acc, and with params the sums dw and db over all rows.",
    .in_names = in_grad,
    .out_names = out_layer_grad,
    .attrs = attr_fields_layer_norm_grad,
    .attr_bytes = sizeof(struct attr_layer_norm_grad),
    .n_out = -1,
    .infer = infer_layer_norm_grad,
    .ref = ref_layer_norm_grad,
    .ref_work = work_params,
    .expand = expand_layer_norm_grad,
    .flops = flops_norm,
    .accumulate = GRAD_ACC + 1,
    .cases = cases_layer_norm_grad};

/* ---- RMS norm (Zhang and Sennrich 2019) */
static void ref_rms_norm(const struct op_run *run) {
    const struct attr_rms_norm *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t n = columns_of(x), rows = rows_of(x);
    for (int64_t r = 0; r < rows; r++) {
        struct stats s = row_stats(x->dtype, run->in[0], r * n, n, a->eps, false);
        for (int64_t i = 0; i < n; i++) {
            double w = run->in[1] ? weight_at(run, x->dtype, i) + a->offset : 1;
            ref_set(x->dtype, run->out[0], r * n + i, ref_get(x->dtype, run->in[0], r * n + i) * s.scale * w);
        }
    }
}

static void grad_rms_norm(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                          struct cb_tensor **din) {
    const struct attr_rms_norm *from = node->attrs;
    struct attr_rms_norm_grad a;
    memset(&a, 0, sizeof a);
    a.eps = from->eps;
    a.offset = from->offset;
    a.params = need[1];
    din[0] = graph_node(g, &norm_rms_norm_grad, &a, 3, (struct cb_tensor *[]){node->in[0], node->in[1], dout[0]});
    if (need[1]) din[1] = graph_out(g, din[0], 1);
}

#define RMS(...) \
    &(const struct attr_rms_norm) { __VA_ARGS__ }
static const struct op_case cases_rms_norm[] = {
    {.name = "weight", .attrs = RMS(1e-6, 0), .in = {CASE_F32(2, 3, 7), CASE_F32(7)}},
    {.name = "one_plus_weight", .attrs = RMS(1e-6, 1), .in = {CASE_F32(5, 9), CASE_F32(9)}},
    {.name = "plain", .attrs = RMS(1e-5, 0), .in = {CASE_F32(5, 9)}},
    {.name = "wide", .attrs = RMS(1e-5, 0), .in = {CASE_F32(3, 67), CASE_F32(67)}},
    {.name = "empty", .attrs = RMS(1e-5, 0), .in = {CASE_F32(0, 7), CASE_F32(7)}, .no_grad = true},
    {.name = NULL}};
static const char *const in_rms_norm[] = {"x", "weight?", NULL};
static const struct op norm_rms_norm = {
    .name = "rms_norm",
    .doc = "x / sqrt(mean(x^2) + eps) over the last axis, times (weight + offset) where given (Zhang and Sennrich 2019).",
    .in_names = in_rms_norm,
    .out_names = out_y,
    .attrs = attr_fields_rms_norm,
    .attr_bytes = sizeof(struct attr_rms_norm),
    .infer = infer_norm,
    .grad = grad_rms_norm,
    .ref = ref_rms_norm,
    .by_row = by_row,
    .flops = flops_norm,
    .inplace = {1},
    .cases = cases_rms_norm};

/* ---- rms_norm_grad: with h = x s and e = (w + offset) dy, dx = acc + s (e - h mean(e h)), dw = sum dy h */
static enum cb_status infer_rms_norm_grad(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    return infer_grad(node, ((const struct attr_rms_norm_grad *)node->attrs)->params, out, n_out, err);
}

static void ref_rms_norm_grad(const struct op_run *run) {
    const struct attr_rms_norm_grad *a = run->node->attrs;
    run_grad(run, a->eps, a->offset, false);
}

static void expand_rms_norm_grad(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_rms_norm_grad *a = node->attrs;
    expand_grad(g, node, a->eps, a->offset, false, out);
}

#define RMS_GRAD(...) \
    &(const struct attr_rms_norm_grad) { __VA_ARGS__ }
static const struct op_case cases_rms_norm_grad[] = {
    {.name = "params", .attrs = RMS_GRAD(1e-6, 0, true), .in = {CASE_F32(2, 3, 7), CASE_F32(7), CASE_F32(2, 3, 7)}},
    {.name = "one_plus_weight", .attrs = RMS_GRAD(1e-6, 1, true), .in = {CASE_F32(5, 9), CASE_F32(9), CASE_F32(5, 9)}},
    {.name = "frozen", .attrs = RMS_GRAD(1e-6, 0, false), .in = {CASE_F32(3, 67), CASE_F32(67), CASE_F32(3, 67)}},
    {.name = "plain", .attrs = RMS_GRAD(1e-6, 0, true), .in = {CASE_F32(5, 9), CASE_ABSENT, CASE_F32(5, 9)}},
    {.name = "accumulate", .attrs = RMS_GRAD(1e-6, 0, true), .in = {CASE_F32(5, 9), CASE_F32(9), CASE_F32(5, 9), CASE_F32(5, 9)}},
    {.name = "empty", .attrs = RMS_GRAD(1e-6, 0, true), .in = {CASE_F32(0, 7), CASE_F32(7), CASE_F32(0, 7)}, .no_grad = true},
    {.name = NULL}};
static const char *const out_rms_grad[] = {"dx", "dw", NULL};
static const struct op norm_rms_norm_grad = {.name = "rms_norm_grad",
                                             .doc = "Gradient of rms_norm: dx plus acc, and with params the sum dw over all rows.",
                                             .in_names = in_grad,
                                             .out_names = out_rms_grad,
                                             .attrs = attr_fields_rms_norm_grad,
                                             .attr_bytes = sizeof(struct attr_rms_norm_grad),
                                             .n_out = -1,
                                             .infer = infer_rms_norm_grad,
                                             .ref = ref_rms_norm_grad,
                                             .ref_work = work_params,
                                             .expand = expand_rms_norm_grad,
                                             .flops = flops_norm,
                                             .accumulate = GRAD_ACC + 1,
                                             .cases = cases_rms_norm_grad};

const struct op *const op_file_norm[] = {&norm_layer_norm, &norm_layer_norm_grad, &norm_rms_norm, &norm_rms_norm_grad, NULL};

/* ---- builders (two doubles or one: no padding to clear) */
struct cb_tensor *op_layer_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias, double eps) {
    return graph_node(g, &norm_layer_norm, &(struct attr_layer_norm){eps}, 3, (struct cb_tensor *[]){x, weight, bias});
}

struct cb_tensor *op_rms_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, double eps, double weight_offset) {
    return graph_node(g, &norm_rms_norm, &(struct attr_rms_norm){eps, weight_offset}, 2, (struct cb_tensor *[]){x, weight});
}
