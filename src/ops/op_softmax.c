/* softmax and log_softmax along an axis, and their gradients from the result, each one op. */
#include <math.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// The four ops share one struct.
// @attrs softmax: int axis

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};
static const char *const in_grad[] = {"y", "dy", NULL};
static const char *const out_dx[] = {"dx", NULL};

static enum cb_status infer_softmax(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    *out = node->in[0]->type;
    TRY(ops_check_float(node, 0, err));
    if (node->n_in > 1) TRY(ops_check_same(node, 0, 1, err));
    return ops_check_axis(node, ((const struct attr_softmax *)node->attrs)->axis, out->rank, err);
}

/* One line of elements along the axis: offset of the first, distance of neighbours. */
struct line {
    enum cb_dtype dtype;
    int64_t first, step, n;
};

static void each_line(const struct op_run *run, void (*f)(const struct op_run *run, const struct line *line)) {
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = ops_split_at(x, ((const struct attr_softmax *)run->node->attrs)->axis);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.inner; i++) f(run, &(struct line){x->dtype, o * s.n * s.inner + i, s.inner, s.n});
}

static double at(const struct line *line, const void *p, int64_t i) { return ref_get(line->dtype, p, line->first + i * line->step); }
static void put(const struct line *line, void *p, int64_t i, double v) { ref_set(line->dtype, p, line->first + i * line->step, v); }

/* Largest element and the sum of e^(x - largest). */
static void peak_and_sum(const struct line *line, const void *x, double *peak, double *sum) {
    *peak = -INFINITY;
    for (int64_t i = 0; i < line->n; i++) *peak = fmax(*peak, at(line, x, i));
    *sum = 0;
    for (int64_t i = 0; i < line->n; i++) *sum += exp(at(line, x, i) - *peak);
}

static void softmax_line(const struct op_run *run, const struct line *line) {
    double peak, sum;
    peak_and_sum(line, run->in[0], &peak, &sum);
    for (int64_t i = 0; i < line->n; i++) put(line, run->out[0], i, exp(at(line, run->in[0], i) - peak) / sum);
}

static void log_softmax_line(const struct op_run *run, const struct line *line) {
    double peak, sum;
    peak_and_sum(line, run->in[0], &peak, &sum);
    for (int64_t i = 0; i < line->n; i++) put(line, run->out[0], i, at(line, run->in[0], i) - peak - log(sum));
}

static void softmax_grad_line(const struct op_run *run, const struct line *line) {
    double sum = 0;
    for (int64_t i = 0; i < line->n; i++) sum += at(line, run->in[0], i) * at(line, run->in[1], i);
    for (int64_t i = 0; i < line->n; i++) put(line, run->out[0], i, at(line, run->in[0], i) * (at(line, run->in[1], i) - sum));
}

static void log_softmax_grad_line(const struct op_run *run, const struct line *line) {
    double sum = 0;
    for (int64_t i = 0; i < line->n; i++) sum += at(line, run->in[1], i);
    for (int64_t i = 0; i < line->n; i++) put(line, run->out[0], i, at(line, run->in[1], i) - exp(at(line, run->in[0], i)) * sum);
}

/* ---- gradients */
static struct cb_tensor *sum_along(struct cb_graph *g, const struct node *node, struct cb_tensor *x) {
    return op_sum(g, x, 1, &((const struct attr_softmax *)node->attrs)->axis, true);
}

static void expand_softmax_grad(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    struct cb_tensor *y = node->in[0], *dy = node->in[1];
    out[0] = op_mul(g, y, op_sub(g, dy, sum_along(g, node, op_mul(g, dy, y))));
}

static void expand_log_softmax_grad(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    struct cb_tensor *y = node->in[0], *dy = node->in[1];
    out[0] = op_sub(g, dy, op_mul(g, op_unary(g, "exp", y), sum_along(g, node, dy)));
}

static const struct op softmax_softmax_grad, softmax_log_softmax_grad;

static void grad_softmax(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    (void)need;
    din[0] = graph_node(g, &softmax_softmax_grad, node->attrs, 2, (struct cb_tensor *[]){node->out[0], dout[0]});
}

static void grad_log_softmax(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                             struct cb_tensor **din) {
    (void)need;
    din[0] = graph_node(g, &softmax_log_softmax_grad, node->attrs, 2, (struct cb_tensor *[]){node->out[0], dout[0]});
}

/* ---- cases */
#define AXIS(i) \
    &(const struct attr_softmax) { i }
static const struct op_case cases_softmax[] = {
    {.name = "last", .attrs = AXIS(1), .in = {CASE_F32(3, 7)}},  {.name = "middle", .attrs = AXIS(1), .in = {CASE_F32(2, 5, 3)}},
    {.name = "wide", .attrs = AXIS(1), .in = {CASE_F32(2, 67)}}, {.name = "size_one", .attrs = AXIS(1), .in = {CASE_F32(4, 1)}},
    {.name = "empty", .attrs = AXIS(1), .in = {CASE_F32(0, 5)}}, {.name = NULL}};
static const struct op_case cases_grad[] = {{.name = "last", .attrs = AXIS(1), .in = {CASE_POSITIVE(3, 7), CASE_F32(3, 7)}},
                                            {.name = "middle", .attrs = AXIS(1), .in = {CASE_POSITIVE(2, 5, 3), CASE_F32(2, 5, 3)}},
                                            {.name = "wide", .attrs = AXIS(1), .in = {CASE_POSITIVE(2, 67), CASE_F32(2, 67)}},
                                            {.name = "empty", .attrs = AXIS(1), .in = {CASE_POSITIVE(0, 5), CASE_F32(0, 5)}},
                                            {.name = NULL}};

static double flops_softmax(const struct node *node) { return 4 * (double)type_elements(&node->in[0]->type); }

/* ---- the table: X(op, input names, output names, grad, expand, place, cases, doc) */
#define SOFTMAX_LIST(X)                                                                                                                    \
    X(softmax, in_x, out_y, grad_softmax, NULL, 1, cases_softmax, "e^x over its sum along an axis.")                                       \
    X(log_softmax, in_x, out_y, grad_log_softmax, NULL, 1, cases_softmax, "x less the log of the sum of e^x along an axis.")               \
    X(softmax_grad, in_grad, out_dx, NULL, expand_softmax_grad, 2, cases_grad, "Gradient of softmax from its result: y (dy - sum(y dy)).") \
    X(log_softmax_grad, in_grad, out_dx, NULL, expand_log_softmax_grad, 2, cases_grad,                                                     \
      "Gradient of log_softmax from its result: dy - e^y sum(dy).")

#define DEFINE_SOFTMAX(op_name, ins, outs, grad_hook, expand_hook, place, case_list, text)  \
    static void ref_##op_name(const struct op_run *run) { each_line(run, op_name##_line); } \
    static const struct op softmax_##op_name = {.name = #op_name,                           \
                                                .doc = text,                                \
                                                .in_names = ins,                            \
                                                .out_names = outs,                          \
                                                .attrs = attr_fields_softmax,               \
                                                .attr_bytes = sizeof(struct attr_softmax),  \
                                                .infer = infer_softmax,                     \
                                                .grad = grad_hook,                          \
                                                .ref = ref_##op_name,                       \
                                                .expand = expand_hook,                      \
                                                .flops = flops_softmax,                     \
                                                .inplace = {place},                         \
                                                .cases = case_list};
SOFTMAX_LIST(DEFINE_SOFTMAX)

const struct op *const op_file_softmax[] = {
#define SOFTMAX_ENTRY(op_name, ins, outs, grad_hook, expand_hook, place, case_list, text) &softmax_##op_name,
    SOFTMAX_LIST(SOFTMAX_ENTRY) NULL,
};

/* ---- builders */
static struct cb_tensor *along(struct cb_graph *g, const struct op *op, struct cb_tensor *x, int axis) {
    struct attr_softmax a;
    if (graph_is_bad(g, x)) return x;
    if (!ops_build_axis(g, op->name, x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    return graph_node(g, op, &a, 1, &x);
}

struct cb_tensor *op_softmax(struct cb_graph *g, struct cb_tensor *x, int axis) {
    return along(g, &softmax_softmax, x, axis);
}
struct cb_tensor *op_log_softmax(struct cb_graph *g, struct cb_tensor *x, int axis) {
    return along(g, &softmax_log_softmax, x, axis);
}
