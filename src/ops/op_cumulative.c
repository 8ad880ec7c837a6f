/* Running results along an axis: cumsum, cumprod and the linear recurrence h_t = a_t h_(t-1) + b_t. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// The three ops share one struct.
// @attrs cumulative: int axis, bool reverse

static const char *const in_x[] = {"x", NULL};
static const char *const in_ab[] = {"a", "b", NULL};
static const char *const out_y[] = {"y", NULL};

static enum cb_status infer_cumulative(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    *out = node->in[0]->type;
    TRY(ops_check_float(node, 0, err));
    if (node->n_in > 1) TRY(ops_check_same(node, 0, 1, err));
    return ops_check_axis(node, ((const struct attr_cumulative *)node->attrs)->axis, out->rank, err);
}

/* Calls state = f(state, a, b) along each line, in order or from its end. */
static void run_lines(const struct op_run *run, double start, double (*f)(double state, double a, double b)) {
    const struct attr_cumulative *at = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    const void *b = run->node->n_in > 1 ? run->in[1] : run->in[0];
    struct ops_split s = ops_split_at(x, at->axis);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.inner; i++) {
            double state = start;
            for (int64_t k = 0; k < s.n; k++) {
                int64_t p = (o * s.n + (at->reverse ? s.n - 1 - k : k)) * s.inner + i;
                state = f(state, ref_get(x->dtype, run->in[0], p), ref_get(x->dtype, b, p));
                ref_set(x->dtype, run->out[0], p, state);
            }
        }
}

static double f_cumsum(double state, double a, double b) {
    (void)b;
    return state + a;
}
static double f_cumprod(double state, double a, double b) {
    (void)b;
    return state * a;
}
static double f_linear_scan(double state, double a, double b) { return a * state + b; }

/* x moved one place along the axis, towards later ones (by 1) or earlier ones (by -1); the free place gets a value. */
static struct cb_tensor *shift(struct cb_graph *g, struct cb_tensor *x, int64_t axis, int by, double value) {
    int64_t pads[CB_MAX_RANK * 2] = {0};
    if (graph_is_bad(g, x) || x->type.dim[axis] == 0) return x;
    int n = x->type.rank - (int)axis;
    pads[0] = by;
    pads[1] = -by;
    return op_pad(g, x, "constant", value, 2 * n, pads);
}

static void grad_cumsum(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    const struct attr_cumulative *a = node->attrs;
    (void)need;
    din[0] = op_cumsum(g, dout[0], (int)a->axis, !a->reverse);
}

/* dx_i = (product before i) S_i with S_i = dy_i + x_(i+1) S_(i+1): exact where factors are 0. */
static void grad_cumprod(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    const struct attr_cumulative *a = node->attrs;
    int later = a->reverse ? -1 : 1;
    (void)need;
    struct cb_tensor *next = shift(g, node->in[0], a->axis, -later, 0);
    struct cb_tensor *rest = op_linear_scan(g, next, dout[0], (int)a->axis, !a->reverse);
    din[0] = op_mul(g, rest, shift(g, node->out[0], a->axis, later, 1));
}

/* l_t = dy_t + a_(t+1) l_(t+1); da_t = l_t h_(t-1), db_t = l_t. */
static void grad_linear_scan(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                             struct cb_tensor **din) {
    const struct attr_cumulative *a = node->attrs;
    int later = a->reverse ? -1 : 1;
    struct cb_tensor *l = op_linear_scan(g, shift(g, node->in[0], a->axis, -later, 0), dout[0], (int)a->axis, !a->reverse);
    if (need[0]) din[0] = op_mul(g, l, shift(g, node->out[0], a->axis, later, 0));
    if (need[1]) din[1] = l;
}

#define ALONG(...) \
    &(const struct attr_cumulative) { __VA_ARGS__ }
static const struct op_case cases_one[] = {{.name = "last", .attrs = ALONG(1, false), .in = {CASE_F32(3, 7)}},
                                           {.name = "first", .attrs = ALONG(0, false), .in = {CASE_F32(5, 1, 2)}},
                                           {.name = "reverse", .attrs = ALONG(1, true), .in = {CASE_F32(2, 5, 3)}},
                                           {.name = "empty", .attrs = ALONG(1, false), .in = {CASE_F32(0, 3)}},
                                           {.name = NULL}};
static const struct op_case cases_two[] = {{.name = "last", .attrs = ALONG(1, false), .in = {CASE_F32(3, 7), CASE_F32(3, 7)}},
                                           {.name = "reverse", .attrs = ALONG(1, true), .in = {CASE_F32(2, 5, 3), CASE_F32(2, 5, 3)}},
                                           {.name = "empty", .attrs = ALONG(1, false), .in = {CASE_F32(0, 3), CASE_F32(0, 3)}},
                                           {.name = NULL}};

/* ---- the table: X(op, input names, start, cases, doc) */
#define CUMULATIVE_LIST(X)                                                                                \
    X(cumsum, in_x, 0, cases_one, "Sums of all elements up to each along an axis, or from its end.")      \
    X(cumprod, in_x, 1, cases_one, "Products of all elements up to each along an axis, or from its end.") \
    X(linear_scan, in_ab, 0, cases_two, "y_t = a_t y_(t-1) + b_t along an axis, y_(-1) = 0, or from its end.")

#define DEFINE_CUMULATIVE(op_name, ins, start, case_list, text)                                  \
    static void ref_##op_name(const struct op_run *run) { run_lines(run, start, f_##op_name); }  \
    static const struct op cumulative_##op_name = {.name = #op_name,                             \
                                                   .doc = text,                                  \
                                                   .in_names = ins,                              \
                                                   .out_names = out_y,                           \
                                                   .attrs = attr_fields_cumulative,              \
                                                   .attr_bytes = sizeof(struct attr_cumulative), \
                                                   .infer = infer_cumulative,                    \
                                                   .grad = grad_##op_name,                       \
                                                   .ref = ref_##op_name,                         \
                                                   .inplace = {1},                               \
                                                   .cases = case_list};
CUMULATIVE_LIST(DEFINE_CUMULATIVE)

const struct op *const op_file_cumulative[] = {&cumulative_cumsum, &cumulative_cumprod, &cumulative_linear_scan, NULL};

/* ---- builders */
static struct cb_tensor *along(struct cb_graph *g, const struct op *op, int n, struct cb_tensor *const *in, int axis, bool reverse) {
    struct attr_cumulative a;
    if (graph_is_bad(g, in[0])) return in[0];
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, op->name, in[0]->type.rank, axis, &a.axis)) return &g->bad_tensor;
    a.reverse = reverse;
    return graph_node(g, op, &a, n, in);
}

struct cb_tensor *op_cumsum(struct cb_graph *g, struct cb_tensor *x, int axis, bool reverse) {
    return along(g, &cumulative_cumsum, 1, &x, axis, reverse);
}

struct cb_tensor *op_cumprod(struct cb_graph *g, struct cb_tensor *x, int axis, bool reverse) {
    return along(g, &cumulative_cumprod, 1, &x, axis, reverse);
}

struct cb_tensor *op_linear_scan(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, int axis, bool reverse) {
    return along(g, &cumulative_linear_scan, 2, (struct cb_tensor *[]){a, b}, axis, reverse);
}
