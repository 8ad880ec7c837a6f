/* Order: sort, topk, max_with_index, argmax, argmin. NaN ranks above infinity; equal values keep their order. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// @attrs sort: int axis, bool descending
// @attrs topk: int axis, int k, bool smallest
// @attrs max_with_index: int axis, bool keep
// @attrs argmax: ints axes, bool keep

static const char *const in_x[] = {"x", NULL};
static const char *const out_pair[] = {"values", "indices", NULL};
static const char *const out_index[] = {"index", NULL};

/* Whether a ranks strictly above b. */
static bool above(double a, double b) { return isnan(a) ? !isnan(b) : a > b; }

/* Values, and i32 indices of one shape. */
static enum cb_status infer_pair(const struct node *node, int64_t axis, struct cb_type *out, struct cb_err *err) {
    TRY(ops_check_number(node, 0, err));
    out[0] = out[1] = node->in[0]->type;
    out[1].dtype = CB_DTYPE_I32;
    TRY(ops_check_axis(node, axis, out->rank, err));
    if (out->dim[axis] > INT32_MAX) FAIL(err, CB_E_SHAPE, "%s: size %lld; below 2^31 wanted", node->op->name, (long long)out->dim[axis]);
    return CB_OK;
}

/* One line along the axis, and scratch for n indices twice. */
struct line {
    enum cb_dtype dtype;
    const void *x;
    int64_t first, step, n;
    int32_t *order, *other;
};
static double at(const struct line *line, int64_t i) { return ref_get(line->dtype, line->x, line->first + i * line->step); }

/* Merge sort of line->order by value: stable. */
static void sort_line(struct line *line, bool descending) {
    for (int64_t i = 0; i < line->n; i++) line->order[i] = (int32_t)i;
    for (int64_t width = 1; width < line->n; width *= 2) {
        for (int64_t begin = 0; begin < line->n; begin += 2 * width) {
            int64_t middle = begin + width < line->n ? begin + width : line->n;
            int64_t end = begin + 2 * width < line->n ? begin + 2 * width : line->n;
            for (int64_t l = begin, r = middle, to = begin; to < end; to++) {
                bool right = l == middle;
                if (!right && r < end) {
                    double a = at(line, line->order[l]), b = at(line, line->order[r]);
                    right = descending ? above(b, a) : above(a, b);
                }
                line->other[to] = line->order[right ? r++ : l++];
            }
        }
        int32_t *swap = line->order;
        line->order = line->other;
        line->other = swap;
    }
}

/* Bytes of two index lists. */
static size_t work_along(const struct node *node, int64_t axis) { return 2 * (size_t)node->in[0]->type.dim[axis] * sizeof(int32_t); }

/* Sorts each line and writes the first `keep` values and indices. */
static void run_sorted(const struct op_run *run, int64_t axis, int64_t keep, bool descending) {
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = ops_split_at(x, axis);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.inner; i++) {
            int32_t *work = run->work;
            struct line line = {x->dtype, run->in[0], o * s.n * s.inner + i, s.inner, s.n, work, work + s.n};
            sort_line(&line, descending);
            for (int64_t k = 0; k < keep; k++) {
                int64_t to = (o * keep + k) * s.inner + i;
                ref_set(x->dtype, run->out[0], to, at(&line, line.order[k]));
                ((int32_t *)run->out[1])[to] = line.order[k];
            }
        }
}

/* ---- sort */
static enum cb_status infer_sort(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    return infer_pair(node, ((const struct attr_sort *)node->attrs)->axis, out, err);
}

static void grad_sort(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    (void)need;
    if (dout[0])
        din[0] = op_scatter_add(g, NULL, &node->in[0]->type, node->out[1], dout[0], (int)((const struct attr_sort *)node->attrs)->axis);
}

static size_t work_sort(const struct node *node) { return work_along(node, ((const struct attr_sort *)node->attrs)->axis); }
static void ref_sort(const struct op_run *run) {
    const struct attr_sort *a = run->node->attrs;
    run_sorted(run, a->axis, run->node->in[0]->type.dim[a->axis], a->descending);
}

static const struct op_case cases_sort[] = {
    {.name = "last", .attrs = &(const struct attr_sort){1, false}, .in = {CASE_DISTINCT(3, 7)}},
    {.name = "descending", .attrs = &(const struct attr_sort){0, true}, .in = {CASE_DISTINCT(5, 3)}},
    {.name = "empty", .attrs = &(const struct attr_sort){1, false}, .in = {CASE_F32(0, 3)}},
    {.name = NULL}};
static const struct op sort_sort = {
    .name = "sort",
    .doc = "Elements in ascending (or descending) order along an axis, stable; NaN last (first). indices: i32 places in x.",
    .in_names = in_x,
    .out_names = out_pair,
    .attrs = attr_fields_sort,
    .attr_bytes = sizeof(struct attr_sort),
    .infer = infer_sort,
    .grad = grad_sort,
    .ref = ref_sort,
    .ref_work = work_sort,
    .cases = cases_sort};

struct cb_tensor *op_sort(struct cb_graph *g, struct cb_tensor *x, int axis, bool descending) {
    struct attr_sort a;
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, "sort", x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    a.descending = descending;
    return graph_node(g, &sort_sort, &a, 1, &x);
}

/* ---- topk */
static enum cb_status infer_topk(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_topk *a = node->attrs;
    TRY(infer_pair(node, a->axis, out, err));
    if (a->k < 0 || a->k > out->dim[a->axis])
        FAIL(err, CB_E_SHAPE, "topk: k %lld of size %lld; 0 to the size wanted", (long long)a->k, (long long)out->dim[a->axis]);
    out[0].dim[a->axis] = out[1].dim[a->axis] = a->k;
    return CB_OK;
}

static void grad_topk(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    (void)need;
    if (dout[0])
        din[0] = op_scatter_add(g, NULL, &node->in[0]->type, node->out[1], dout[0], (int)((const struct attr_topk *)node->attrs)->axis);
}

static size_t work_topk(const struct node *node) { return work_along(node, ((const struct attr_topk *)node->attrs)->axis); }
static void ref_topk(const struct op_run *run) {
    const struct attr_topk *a = run->node->attrs;
    run_sorted(run, a->axis, a->k, !a->smallest);
}

#define TOPK(...) \
    &(const struct attr_topk) { __VA_ARGS__ }
static const struct op_case cases_topk[] = {{.name = "last", .attrs = TOPK(1, 4, false), .in = {CASE_DISTINCT(3, 11)}},
                                            {.name = "smallest", .attrs = TOPK(0, 2, true), .in = {CASE_DISTINCT(7, 3)}},
                                            {.name = "empty", .attrs = TOPK(1, 2, false), .in = {CASE_F32(0, 3)}},
                                            {.name = NULL}};
static const struct op sort_topk = {.name = "topk",
                                    .doc = "The k largest (or smallest) elements along an axis, in order; indices: i32 places in x.",
                                    .in_names = in_x,
                                    .out_names = out_pair,
                                    .attrs = attr_fields_topk,
                                    .attr_bytes = sizeof(struct attr_topk),
                                    .infer = infer_topk,
                                    .grad = grad_topk,
                                    .ref = ref_topk,
                                    .ref_work = work_topk,
                                    .cases = cases_topk};

struct cb_tensor *op_topk(struct cb_graph *g, struct cb_tensor *x, int64_t k, int axis, bool largest) {
    struct attr_topk a;
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, "topk", x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    a.k = k;
    a.smallest = !largest;
    return graph_node(g, &sort_topk, &a, 1, &x);
}

/* ---- max_with_index */
static void drop_axis(struct cb_type *t, int64_t axis, bool keep) {
    for (int i = (int)axis; !keep && i + 1 < t->rank; i++) t->dim[i] = t->dim[i + 1];
    t->dim[keep ? axis : t->rank - 1] = keep ? 1 : 0;
    t->rank -= !keep;
}

static enum cb_status infer_max_with_index(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_max_with_index *a = node->attrs;
    TRY(infer_pair(node, a->axis, out, err));
    if (out->dim[a->axis] == 0)
        FAIL(err, CB_E_SHAPE, "max_with_index: no elements along axis %lld; at least one wanted", (long long)a->axis);
    drop_axis(&out[0], a->axis, a->keep);
    drop_axis(&out[1], a->axis, a->keep);
    return CB_OK;
}

static void grad_max_with_index(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                                struct cb_tensor **din) {
    int64_t axis = ((const struct attr_max_with_index *)node->attrs)->axis;
    struct cb_type one = node->in[0]->type;
    one.dim[axis] = 1;
    (void)need;
    if (!dout[0]) return;
    struct cb_tensor *index = op_reshape(g, node->out[1], one.rank, one.dim), *dy = op_reshape(g, dout[0], one.rank, one.dim);
    din[0] = op_scatter_add(g, NULL, &node->in[0]->type, index, dy, (int)axis);
}

/* Place of the first element of a line that ranks above (or, smallest, below) all others. */
static int64_t best_of(const struct line *line, bool smallest) {
    int64_t best = 0;
    for (int64_t i = 1; i < line->n; i++) {
        double v = at(line, i), have = at(line, best);
        if (smallest ? (isnan(v) && !isnan(have)) || (!isnan(have) && v < have) : above(v, have)) best = i;
    }
    return best;
}

static void ref_max_with_index(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = ops_split_at(x, ((const struct attr_max_with_index *)run->node->attrs)->axis);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.inner; i++) {
            struct line line = {x->dtype, run->in[0], o * s.n * s.inner + i, s.inner, s.n, NULL, NULL};
            int64_t best = best_of(&line, false), to = o * s.inner + i;
            ref_set(x->dtype, run->out[0], to, at(&line, best));
            ((int32_t *)run->out[1])[to] = (int32_t)best;
        }
}

#define MAX(...) \
    &(const struct attr_max_with_index) { __VA_ARGS__ }
static const struct op_case cases_max[] = {{.name = "last", .attrs = MAX(1, false), .in = {CASE_DISTINCT(3, 7)}},
                                           {.name = "first_keep", .attrs = MAX(0, true), .in = {CASE_DISTINCT(5, 2, 3)}},
                                           {.name = "empty", .attrs = MAX(1, false), .in = {CASE_F32(0, 3)}},
                                           {.name = NULL}};
static const struct op sort_max_with_index = {
    .name = "max_with_index",
    .doc = "The largest element along an axis and its first place (i32); it alone gets the gradient.",
    .in_names = in_x,
    .out_names = out_pair,
    .attrs = attr_fields_max_with_index,
    .attr_bytes = sizeof(struct attr_max_with_index),
    .infer = infer_max_with_index,
    .grad = grad_max_with_index,
    .ref = ref_max_with_index,
    .cases = cases_max};

struct cb_tensor *op_max_with_index(struct cb_graph *g, struct cb_tensor *x, int axis, bool keep) {
    struct attr_max_with_index a;
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, "max_with_index", x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    a.keep = keep;
    return graph_node(g, &sort_max_with_index, &a, 1, &x);
}

/* ---- argmax, argmin: over one axis, or over all elements in order */
static enum cb_status infer_argmax(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_argmax *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    char text[TYPE_TEXT];
    TRY(ops_check_number(node, 0, err));
    TRY(ops_check_axes(node, &a->axes, x->rank, err));
    if (a->axes.n != 1 && a->axes.n != x->rank)
        FAIL(err, CB_E_SHAPE, "%s: %d axes of rank %d; one or all wanted", node->op->name, a->axes.n, x->rank);
    int64_t n = 1;
    for (int i = 0; i < a->axes.n; i++) n *= x->dim[a->axes.v[i]];
    *out = *x;
    out->dtype = CB_DTYPE_I32;
    for (int i = a->axes.n - 1; i >= 0; i--) drop_axis(out, a->axes.v[i], a->keep);
    if (n > INT32_MAX || (n == 0 && type_elements(out) > 0))
        FAIL(err, CB_E_SHAPE, "%s: %lld elements to choose from in %s; 1 to 2^31 - 1 wanted", node->op->name, (long long)n,
             type_text(x, text));
    return CB_OK;
}

static void run_arg(const struct op_run *run, bool smallest) {
    const struct attr_argmax *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = {1, type_elements(x), 1};
    if (a->axes.n == 1) s = ops_split_at(x, a->axes.v[0]);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.inner; i++) {
            struct line line = {x->dtype, run->in[0], o * s.n * s.inner + i, s.inner, s.n, NULL, NULL};
            ((int32_t *)run->out[0])[o * s.inner + i] = (int32_t)best_of(&line, smallest);
        }
}

static void ref_argmax(const struct op_run *run) { run_arg(run, false); }
static void ref_argmin(const struct op_run *run) { run_arg(run, true); }

#define AXES(...)                                                   \
    {                                                               \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
    }
static const struct op_case cases_arg[] = {
    {.name = "last", .attrs = &(const struct attr_argmax){AXES(1), false}, .in = {CASE_DISTINCT(3, 7)}, .no_grad = true},
    {.name = "keep", .attrs = &(const struct attr_argmax){AXES(1), true}, .in = {CASE_DISTINCT(3, 7, 2)}, .no_grad = true},
    {.name = "all", .attrs = &(const struct attr_argmax){AXES(0, 1), false}, .in = {CASE_DISTINCT(3, 7)}, .no_grad = true},
    {.name = "empty", .attrs = &(const struct attr_argmax){AXES(1), false}, .in = {CASE_F32(0, 7)}, .no_grad = true},
    {.name = NULL}};
#define DEFINE_ARG(op_name, text)                                                      \
    static const struct op sort_##op_name = {.name = #op_name,                         \
                                             .doc = text,                              \
                                             .in_names = in_x,                         \
                                             .out_names = out_index,                   \
                                             .attrs = attr_fields_argmax,              \
                                             .attr_bytes = sizeof(struct attr_argmax), \
                                             .infer = infer_argmax,                    \
                                             .grad = ops_no_grad,                      \
                                             .ref = ref_##op_name,                     \
                                             .cases = cases_arg};
DEFINE_ARG(argmax, "First place (i32) of the largest element along one axis, or among all elements; NaN is the largest.")
DEFINE_ARG(argmin, "First place (i32) of the smallest element along one axis, or among all elements; NaN is the smallest.")

static struct cb_tensor *build_arg(struct cb_graph *g, const struct op *op, struct cb_tensor *x, int n_axes, int axis, bool keep) {
    struct attr_argmax a;
    int64_t axes[1] = {axis};
    if (graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axes(g, op->name, x->type.rank, n_axes != 0, axes, &a.axes)) return &g->bad_tensor;
    a.keep = keep;
    return graph_node(g, op, &a, 1, &x);
}

struct cb_tensor *op_argmax(struct cb_graph *g, struct cb_tensor *x, int n_axes, int axis, bool keep) {
    return build_arg(g, &sort_argmax, x, n_axes, axis, keep);
}

struct cb_tensor *op_argmin(struct cb_graph *g, struct cb_tensor *x, int n_axes, int axis, bool keep) {
    return build_arg(g, &sort_argmin, x, n_axes, axis, keep);
}

const struct op *const op_file_sort[] = {&sort_sort, &sort_topk, &sort_max_with_index, &sort_argmax, &sort_argmin, NULL};
