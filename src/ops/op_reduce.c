/* Reductions over axes: sum, mean, prod, max, min, logsumexp, norm_p, var; and sum_to, the gradient of broadcasting. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "ops/walk.h"

// sum mean prod max min logsumexp share one struct; norm_p and var begin with the same fields.
// @attrs reduce: ints axes, bool keep
// @attrs norm_p: ints axes, bool keep, float p
// @attrs var: ints axes, bool keep, float correction
// @attrs sum_to: ints shape

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};

/* Elements that one output is made of. */
static int64_t reduced_count(const struct cb_type *x, const struct attr_ints *axes) {
    int64_t n = 1;
    for (int i = 0; i < axes->n; i++) n *= x->dim[axes->v[i]];
    return n;
}

static enum cb_status infer_over(const struct node *node, const struct attr_ints *axes, bool keep, struct cb_type *out,
                                 struct cb_err *err) {
    const struct cb_type *x = &node->in[0]->type;
    TRY(ops_check_float(node, 0, err));
    TRY(ops_check_axes(node, axes, x->rank, err));
    struct cb_type t = {.dtype = x->dtype};
    for (int i = 0, k = 0; i < x->rank; i++) {
        bool gone = k < axes->n && axes->v[k] == i;
        k += gone;
        if (!gone || keep) t.dim[t.rank++] = gone ? 1 : x->dim[i];
    }
    *out = t;
    return CB_OK;
}

static enum cb_status infer_reduce(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_reduce *a = node->attrs;
    return infer_over(node, &a->axes, a->keep, out, err);
}

/* max, min: something must be there to choose from. */
static enum cb_status infer_choose(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct attr_reduce *a = node->attrs;
    char text[TYPE_TEXT];
    TRY(infer_reduce(node, out, n_out, err));
    if (type_elements(out) > 0 && reduced_count(&node->in[0]->type, &a->axes) == 0)
        FAIL(err, CB_E_SHAPE, "%s: no elements along the axes of %s; at least one wanted", node->op->name,
             type_text(&node->in[0]->type, text));
    return CB_OK;
}

/* ---- values: each reads n elements at offsets walked from the first one */
struct group {
    enum cb_dtype dtype;
    const void *x;
    int64_t first;
    struct walk walk;  // the reduced axes
};

/* Calls y = f(context, group) for each output. */
static void run_groups(const struct op_run *run, const struct attr_ints *axes, double (*f)(const void *attrs, const struct group *group)) {
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t stride[CB_MAX_RANK], kept_dim[CB_MAX_RANK], kept_stride[CB_MAX_RANK], dim[CB_MAX_RANK], step[CB_MAX_RANK];
    int n_kept = 0, n = 0;
    ops_strides(x, stride);
    for (int i = 0; i < x->rank; i++) {
        if (n < axes->n && axes->v[n] == i) {
            dim[n] = x->dim[i];
            step[n++] = stride[i];
        } else {
            kept_dim[n_kept] = x->dim[i];
            kept_stride[n_kept++] = stride[i];
        }
    }
    struct walk outer = ops_walk(n_kept, kept_dim);
    ops_walk_strided(&outer, kept_stride, 0);
    struct group group = {.dtype = x->dtype, .x = run->in[0], .walk = ops_walk(n, dim)};
    ops_walk_strided(&group.walk, step, 0);
    for (int64_t i = 0; i < outer.count; i++, ops_walk_next(&outer)) {
        group.first = outer.offset[0];
        ref_set(x->dtype, run->out[0], i, f(run->node->attrs, &group));
    }
}

#define EACH(group, value, ...)                                                                   \
    do {                                                                                          \
        struct walk each_ = (group)->walk;                                                        \
        for (int64_t k_ = 0; k_ < each_.count; k_++, ops_walk_next(&each_)) {                     \
            double value = ref_get((group)->dtype, (group)->x, (group)->first + each_.offset[0]); \
            __VA_ARGS__;                                                                          \
        }                                                                                         \
    } while (0)

static double f_sum(const void *attrs, const struct group *group) {
    (void)attrs;
    double s = 0;
    EACH(group, v, s += v);
    return s;
}
static double f_mean(const void *attrs, const struct group *group) { return f_sum(attrs, group) / (double)group->walk.count; }
static double f_prod(const void *attrs, const struct group *group) {
    (void)attrs;
    double p = 1;
    EACH(group, v, p *= v);
    return p;
}
static double f_max(const void *attrs, const struct group *group) {
    (void)attrs;
    double m = -INFINITY;
    EACH(group, v, if (isnan(v) || v > m) m = v; if (isnan(m)) return m);
    return m;
}
static double f_min(const void *attrs, const struct group *group) {
    (void)attrs;
    double m = INFINITY;
    EACH(group, v, if (isnan(v) || v < m) m = v; if (isnan(m)) return m);
    return m;
}
static double f_logsumexp(const void *attrs, const struct group *group) {
    double m = f_max(attrs, group), s = 0;
    if (isnan(m) || isinf(m)) return m;
    EACH(group, v, s += exp(v - m));
    return m + log(s);
}
static double f_norm_p(const void *attrs, const struct group *group) {
    double p = ((const struct attr_norm_p *)attrs)->p, s = 0;
    if (isinf(p)) {
        EACH(group, v, if (isnan(v)) return v; if (fabs(v) > s) s = fabs(v));
        return s;
    }
    if (p == 2) {
        EACH(group, v, s += v * v);
        return sqrt(s);
    }
    EACH(group, v, s += p == 1 ? fabs(v) : pow(fabs(v), p));
    return p == 1 ? s : pow(s, 1 / p);
}
static double f_var(const void *attrs, const struct group *group) {
    double mean = f_mean(attrs, group), s = 0;
    EACH(group, v, s += (v - mean) * (v - mean));
    return s / fmax((double)group->walk.count - ((const struct attr_var *)attrs)->correction, 0);
}

/* ---- gradients */
#define GRAD(name, attr)                                                                                                            \
    static struct cb_tensor *dx_##name(struct cb_graph *g, const struct attr_##attr *a, struct cb_tensor *x, struct cb_tensor *y,   \
                                       struct cb_tensor *dy);                                                                       \
    static void grad_##name(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,           \
                            struct cb_tensor **din) {                                                                               \
        const struct attr_##attr *a = node->attrs;                                                                                  \
        const struct cb_type *x = &node->in[0]->type;                                                                               \
        (void)need;                                                                                                                 \
        din[0] = dx_##name(g, a, node->in[0], ops_keep_axes(g, node->out[0], x, &a->axes), ops_keep_axes(g, dout[0], x, &a->axes)); \
    }                                                                                                                               \
    static struct cb_tensor *dx_##name(struct cb_graph *g, const struct attr_##attr *a, struct cb_tensor *x, struct cb_tensor *y,   \
                                       struct cb_tensor *dy)

static struct cb_tensor *as_like(struct cb_graph *g, struct cb_tensor *small, const struct cb_tensor *x) {
    return op_expand(g, small, x->type.rank, x->type.dim);
}
/* The gradient goes in equal parts to the elements of x whose value is y's. */
static struct cb_tensor *share_ties(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *y, struct cb_tensor *dy,
                                    const struct attr_ints *axes) {
    struct cb_tensor *chosen = op_cast(g, op_compare(g, "eq", x, y), dy->type.dtype);
    return op_mul(g, chosen, op_div(g, dy, op_sum(g, chosen, axes->n, axes->v, true)));
}
GRAD(sum, reduce) {
    (void)a, (void)y;
    return as_like(g, dy, x);
}
GRAD(mean, reduce) {
    (void)y;
    return as_like(g, op_scale(g, dy, 1 / (double)reduced_count(&x->type, &a->axes), 0), x);
}
GRAD(max, reduce) {
    if (a->axes.n == 0) return dy;
    return share_ties(g, x, y, dy, &a->axes);
}
GRAD(logsumexp, reduce) {
    (void)a;
    return op_mul(g, dy, op_unary(g, "exp", op_sub(g, x, y)));
}
GRAD(prod, reduce) {
    // the product of all others, exact with zeros: products from both sides along one flattened axis
    (void)y;
    if (a->axes.n == 0) return dy;
    if (type_elements(&x->type) == 0) return ops_zeros(g, &x->type);
    int rank = x->type.rank, n = 0;
    int64_t order[CB_MAX_RANK], back[CB_MAX_RANK];
    bool reduced[CB_MAX_RANK] = {false};
    for (int i = 0; i < a->axes.n; i++) reduced[a->axes.v[i]] = true;
    for (int i = 0; i < rank; i++)
        if (!reduced[i]) order[n++] = i;
    for (int i = 0; i < a->axes.n; i++) order[n++] = a->axes.v[i];
    for (int i = 0; i < rank; i++) back[order[i]] = i;
    struct cb_tensor *last = op_permute(g, x, rank, order);
    if (graph_is_bad(g, last)) return last;
    int64_t count = reduced_count(&x->type, &a->axes), rows = 1;
    for (int i = 0; i < rank; i++)
        if (!reduced[i]) rows *= x->type.dim[i];
    struct cb_tensor *flat = op_reshape(g, last, 2, (int64_t[]){rows, count});
    struct cb_tensor *before = op_cumprod(g, op_pad(g, flat, "constant", 1, 2, (int64_t[]){1, -1}), 1, false);
    struct cb_tensor *after = op_cumprod(g, op_pad(g, flat, "constant", 1, 2, (int64_t[]){-1, 1}), 1, true);
    struct cb_tensor *others = op_reshape(g, op_mul(g, before, after), rank, last->type.dim);
    return op_mul(g, dy, op_permute(g, others, rank, back));
}
GRAD(norm_p, norm_p) {
    enum cb_dtype dtype = x->type.dtype;
    struct cb_tensor *sign = op_unary(g, "sign", x), *zero = ops_scalar(g, dtype, 0);
    if (a->p == 1) return op_mul(g, sign, dy);
    if (isinf(a->p)) return op_mul(g, sign, share_ties(g, op_unary(g, "abs", x), y, dy, &a->axes));
    // dy / y^(p-1), and 0 where the norm is 0
    struct cb_tensor *none = op_compare(g, "eq", y, zero), *safe = op_where(g, none, ops_scalar(g, dtype, 1), y);
    struct cb_tensor *part = op_where(g, none, zero, op_mul(g, dy, op_pow_scalar(g, safe, 1 - a->p)));
    if (a->p == 2) return op_mul(g, x, part);
    return op_mul(g, op_mul(g, sign, op_pow_scalar(g, op_unary(g, "abs", x), a->p - 1)), part);
}
GRAD(var, var) {
    (void)y;
    double n = (double)reduced_count(&x->type, &a->axes);
    struct cb_tensor *centred = a->axes.n ? op_sub(g, x, op_mean(g, x, a->axes.n, a->axes.v, true)) : op_sub(g, x, x);
    return op_mul(g, centred, op_scale(g, dy, 2 / fmax(n - a->correction, 0), 0));
}

static enum cb_status infer_norm_p(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_norm_p *a = node->attrs;
    if (!(a->p > 0)) FAIL(err, CB_E_ARGUMENT, "norm_p: p is %g; above 0 wanted", a->p);
    return infer_over(node, &a->axes, a->keep, out, err);
}

static enum cb_status infer_var(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_var *a = node->attrs;
    return infer_over(node, &a->axes, a->keep, out, err);
}

/* ---- cases */
#define AXES(...)                                                   \
    {                                                               \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
    }
#define REDUCE(keep_axes, ...) \
    &(const struct attr_reduce) { AXES(__VA_ARGS__), keep_axes }
static const struct op_case cases_reduce[] = {{.name = "axis", .attrs = REDUCE(false, 1), .in = {CASE_F32(2, 3, 5)}},
                                              {.name = "last", .attrs = REDUCE(true, 1), .in = {CASE_F32(3, 17)}},
                                              {.name = "axes_keep", .attrs = REDUCE(true, 0, 2), .in = {CASE_F32(2, 3, 5)}},
                                              {.name = "all", .attrs = REDUCE(false, 0, 1), .in = {CASE_F32(3, 7)}},
                                              {.name = "size_one", .attrs = REDUCE(false, 0, 2), .in = {CASE_F32(1, 4, 1)}},
                                              {.name = "empty_rows", .attrs = REDUCE(false, 1), .in = {CASE_F32(0, 3)}},
                                              {.name = NULL}};
static const struct op_case cases_sum[] = {{.name = "axis", .attrs = REDUCE(false, 1), .in = {CASE_F32(2, 3, 5)}},
                                           {.name = "last", .attrs = REDUCE(true, 1), .in = {CASE_F32(3, 17)}},
                                           {.name = "axes_keep", .attrs = REDUCE(true, 0, 2), .in = {CASE_F32(2, 3, 5)}},
                                           {.name = "all", .attrs = REDUCE(false, 0, 1), .in = {CASE_F32(3, 7)}},
                                           {.name = "of_nothing", .attrs = REDUCE(false, 0), .in = {CASE_F32(0, 3)}, .no_grad = true},
                                           {.name = NULL}};
#define NORM(power, keep_axes, ...) \
    &(const struct attr_norm_p) { AXES(__VA_ARGS__), keep_axes, power }
static const struct op_case cases_norm_p[] = {{.name = "one", .attrs = NORM(1, false, 0), .in = {CASE_F32(3, 7)}},
                                              {.name = "two", .attrs = NORM(2, true, 1), .in = {CASE_F32(3, 7)}},
                                              {.name = "three", .attrs = NORM(3, false, 0, 1), .in = {CASE_F32(3, 5)}},
                                              {.name = "largest", .attrs = NORM(INFINITY, false, 1), .in = {CASE_POSITIVE(3, 7)}},
                                              {.name = "empty", .attrs = NORM(2, false, 1), .in = {CASE_F32(0, 3)}},
                                              {.name = NULL}};
#define VAR(less, keep_axes, ...) \
    &(const struct attr_var) { AXES(__VA_ARGS__), keep_axes, less }
static const struct op_case cases_var[] = {{.name = "unbiased", .attrs = VAR(1, false, 1), .in = {CASE_F32(3, 7)}},
                                           {.name = "biased", .attrs = VAR(0, true, 0, 2), .in = {CASE_F32(3, 7, 2)}},
                                           {.name = "empty", .attrs = VAR(0, false, 1), .in = {CASE_F32(0, 3)}},
                                           {.name = NULL}};

/* ---- the table: X(op, attrs, infer, grad, cases, doc) */
#define REDUCE_LIST(X)                                                                                                               \
    X(sum, reduce, infer_reduce, grad_sum, cases_sum, "Sum over axes; 0 of nothing.")                                                \
    X(mean, reduce, infer_reduce, grad_mean, cases_reduce, "Mean over axes; NaN of nothing.")                                        \
    X(prod, reduce, infer_reduce, grad_prod, cases_reduce, "Product over axes; 1 of nothing; the gradient is exact with zeros.")     \
    X(max, reduce, infer_choose, grad_max, cases_reduce, "Largest over axes, NaN if any is; equal ones share the gradient evenly.")  \
    X(min, reduce, infer_choose, grad_max, cases_reduce, "Smallest over axes, NaN if any is; equal ones share the gradient evenly.") \
    X(logsumexp, reduce, infer_reduce, grad_logsumexp, cases_reduce, "log of the sum of e^x over axes, without overflow.")           \
    X(norm_p, norm_p, infer_norm_p, grad_norm_p, cases_norm_p,                                                                       \
      "(sum |x|^p)^(1/p) over axes, p > 0 or infinity (largest |x|); gradient 0 at 0.")                                              \
    X(var, var, infer_var, grad_var, cases_var, "Variance over axes: squared distances from the mean, divided by n - correction.")

#define DEFINE_REDUCE(op_name, attr, infer_hook, grad_hook, case_list, text)                                     \
    static void ref_##op_name(const struct op_run *run) {                                                        \
        run_groups(run, &((const struct attr_##attr *)run->node->attrs)->axes, f_##op_name);                     \
    }                                                                                                            \
    static double flops_##op_name(const struct node *node) { return (double)type_elements(&node->in[0]->type); } \
    static const struct op reduce_##op_name = {.name = #op_name,                                                 \
                                               .doc = text,                                                      \
                                               .in_names = in_x,                                                 \
                                               .out_names = out_y,                                               \
                                               .attrs = attr_fields_##attr,                                      \
                                               .attr_bytes = sizeof(struct attr_##attr),                         \
                                               .infer = infer_hook,                                              \
                                               .grad = grad_hook,                                                \
                                               .ref = ref_##op_name,                                             \
                                               .flops = flops_##op_name,                                         \
                                               .cases = case_list};
REDUCE_LIST(DEFINE_REDUCE)

/* ---- sum_to */
static enum cb_status infer_sum_to(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_sum_to *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    struct cb_type both;
    char from[TYPE_TEXT], to[TYPE_TEXT];
    TRY(ops_check_float(node, 0, err));
    TRY(ops_check_shape(node, x->dtype, &a->shape, out, err));
    TRY(ops_check_broadcast(node, x, out, &both, err));
    if (!type_equal(&both, x))
        FAIL(err, CB_E_SHAPE, "sum_to: from %s to %s; a shape that broadcasts to x wanted", type_text(x, from), type_text(out, to));
    return CB_OK;
}

static void grad_sum_to(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    (void)need;
    din[0] = as_like(g, dout[0], node->in[0]);
}

/* Bytes of the sums in f64. */
static size_t work_sum_to(const struct node *node) { return (size_t)type_elements(&node->out[0]->type) * sizeof(double); }

static void ref_sum_to(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    double *sum = run->work;
    int64_t n = type_elements(y);
    struct walk w = ops_walk(x->rank, x->dim);
    ops_walk_broadcast(&w, y);
    for (int64_t i = 0; i < n; i++) sum[i] = 0;
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) sum[w.offset[0]] += ref_get(x->dtype, run->in[0], i);
    for (int64_t i = 0; i < n; i++) ref_set(y->dtype, run->out[0], i, sum[i]);
}

#define SUM_TO(...) \
    &(const struct attr_sum_to) { AXES(__VA_ARGS__) }
static const struct op_case cases_sum_to[] = {{.name = "row", .attrs = SUM_TO(5), .in = {CASE_F32(3, 5)}},
                                              {.name = "column", .attrs = SUM_TO(3, 1), .in = {CASE_F32(2, 3, 5)}},
                                              {.name = "scalar", .attrs = &(const struct attr_sum_to){{0, {0}}}, .in = {CASE_F32(3, 5)}},
                                              {.name = "of_nothing", .attrs = SUM_TO(1, 3), .in = {CASE_F32(0, 3)}, .no_grad = true},
                                              {.name = NULL}};
static const struct op reduce_sum_to = {.name = "sum_to",
                                        .doc = "Sums x down to a shape that broadcasts to x's: the gradient of broadcasting.",
                                        .in_names = in_x,
                                        .out_names = out_y,
                                        .attrs = attr_fields_sum_to,
                                        .attr_bytes = sizeof(struct attr_sum_to),
                                        .infer = infer_sum_to,
                                        .grad = grad_sum_to,
                                        .ref = ref_sum_to,
                                        .ref_work = work_sum_to,
                                        .flops = flops_sum,
                                        .cases = cases_sum_to};

const struct op *const op_file_reduce[] = {
#define REDUCE_ENTRY(op_name, attr, infer_hook, grad_hook, case_list, text) &reduce_##op_name,
    REDUCE_LIST(REDUCE_ENTRY) & reduce_sum_to,
    NULL,
};

/* ---- builders */
static struct cb_tensor *build(struct cb_graph *g, const struct op *op, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep) {
    struct attr_reduce a;
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axes(g, op->name, x->type.rank, n_axes, axes, &a.axes)) return &g->bad_tensor;
    a.keep = keep;
    return graph_node(g, op, &a, 1, &x);
}

struct cb_tensor *op_sum(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep) {
    return build(g, &reduce_sum, x, n_axes, axes, keep);
}

struct cb_tensor *op_mean(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep) {
    return build(g, &reduce_mean, x, n_axes, axes, keep);
}

struct cb_tensor *op_norm_p(struct cb_graph *g, struct cb_tensor *x, double p, int n_axes, const int64_t *axes, bool keep) {
    struct attr_norm_p a;
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axes(g, "norm_p", x->type.rank, n_axes, axes, &a.axes)) return &g->bad_tensor;
    a.keep = keep;
    a.p = p;
    return graph_node(g, &reduce_norm_p, &a, 1, &x);
}

struct cb_tensor *op_var(struct cb_graph *g, struct cb_tensor *x, double correction, int n_axes, const int64_t *axes, bool keep) {
    struct attr_var a;
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axes(g, "var", x->type.rank, n_axes, axes, &a.axes)) return &g->bad_tensor;
    a.keep = keep;
    a.correction = correction;
    return graph_node(g, &reduce_var, &a, 1, &x);
}

struct cb_tensor *op_reduce(struct cb_graph *g, const char *kind, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep) {
    if (!strcmp(kind, "norm_1")) return op_norm_p(g, x, 1, n_axes, axes, keep);
    if (!strcmp(kind, "norm_2")) return op_norm_p(g, x, 2, n_axes, axes, keep);
    if (!strcmp(kind, "norm_inf")) return op_norm_p(g, x, INFINITY, n_axes, axes, keep);
    if (!strcmp(kind, "var")) return op_var(g, x, 1, n_axes, axes, keep);
    if (!strcmp(kind, "var_biased")) return op_var(g, x, 0, n_axes, axes, keep);
    for (int i = 0; op_file_reduce[i]; i++)
        if (op_file_reduce[i]->attrs == attr_fields_reduce && !strcmp(op_file_reduce[i]->name, kind))
            return build(g, op_file_reduce[i], x, n_axes, axes, keep);
    return graph_fail(g, CB_E_NAME, "reduce '%s': no such kind", kind);
}

struct cb_tensor *op_sum_to(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape) {
    if (graph_is_bad(g, x)) return x;
    struct cb_type want = *shape;
    want.dtype = x->type.dtype;
    if (type_equal(&x->type, &want)) return x;
    struct attr_sum_to a;
    memset(&a, 0, sizeof a);
    a.shape.n = shape->rank;
    for (int i = 0; i < shape->rank; i++) a.shape.v[i] = shape->dim[i];
    return graph_node(g, &reduce_sum_to, &a, 1, &x);
}
