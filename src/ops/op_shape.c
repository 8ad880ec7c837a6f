/* Moving whole axes: reshape (a view), permute, expand, flip, roll, tril, and repeat made of them. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "ops/walk.h"

// @attrs reshape: ints shape
// @attrs permute: ints axes
// @attrs expand: ints shape
// @attrs flip: ints axes
// @attrs roll: ints shifts, ints axes
// @attrs tril: int diagonal, bool upper

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};
#define INTS(...)                                                   \
    {                                                               \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
    }

static void fill_ints(struct attr_ints *out, int n, const int64_t *v) {
    out->n = n;
    for (int i = 0; i < n; i++) out->v[i] = v[i];
}

static bool same_ints(int n, const int64_t *a, const int64_t *b) {
    for (int i = 0; i < n; i++)
        if (a[i] != b[i]) return false;
    return true;
}

/* ---- reshape */
static enum cb_status infer_reshape(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_reshape *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    char from[TYPE_TEXT], to[TYPE_TEXT];
    TRY(ops_check_shape(node, x->dtype, &a->shape, out, err));
    if (type_elements(out) != type_elements(x))
        FAIL(err, CB_E_SHAPE, "reshape: %s to %s; as many elements wanted", type_text(x, from), type_text(out, to));
    return CB_OK;
}

static void grad_reshape(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    (void)need;
    din[0] = op_reshape(g, dout[0], node->in[0]->type.rank, node->in[0]->type.dim);
}

static const struct op_case cases_reshape[] = {
    {.name = "merge", .attrs = &(const struct attr_reshape){INTS(3, 10)}, .in = {CASE_F32(3, 5, 2)}},
    {.name = "to_scalar", .attrs = &(const struct attr_reshape){{0, {0}}}, .in = {CASE_F32(1, 1)}},
    {.name = "empty", .attrs = &(const struct attr_reshape){INTS(7, 0)}, .in = {CASE_F32(0, 3)}},
    {.name = NULL}};
static const struct op shape_reshape = {.name = "reshape",
                                        .doc = "The same bytes under another shape of as many elements; a view.",
                                        .in_names = in_x,
                                        .out_names = out_y,
                                        .attrs = attr_fields_reshape,
                                        .attr_bytes = sizeof(struct attr_reshape),
                                        .traits = OP_VIEW | OP_CHEAP,
                                        .infer = infer_reshape,
                                        .grad = grad_reshape,
                                        .cases = cases_reshape};

struct cb_tensor *op_reshape(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim) {
    struct attr_reshape a;
    char text[TYPE_TEXT];
    if (graph_is_bad(g, x)) return x;
    if (rank < 0 || rank > CB_MAX_RANK) return graph_fail(g, CB_E_SHAPE, "reshape: rank %d; 0 to %d wanted", rank, CB_MAX_RANK);
    memset(&a, 0, sizeof a);
    fill_ints(&a.shape, rank, dim);
    // one -1 takes what the others leave
    int64_t known = 1;
    int open = -1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] == -1 && open < 0) {
            open = i;
        } else if (dim[i] < 0) {
            return graph_fail(g, CB_E_SHAPE, "reshape: dimension %lld; sizes and at most one -1 wanted", (long long)dim[i]);
        } else if (__builtin_mul_overflow(known, dim[i], &known)) {
            return graph_fail(g, CB_E_SHAPE, "reshape: too many elements");
        }
    }
    int64_t n = type_elements(&x->type);
    if (open >= 0) {
        if (known == 0 || n % known)
            return graph_fail(g, CB_E_SHAPE, "reshape: %s has no whole number for the -1", type_text(&x->type, text));
        a.shape.v[open] = n / known;
    }
    if (rank == x->type.rank && same_ints(rank, a.shape.v, x->type.dim)) return x;
    return graph_node(g, &shape_reshape, &a, 1, &x);
}

/* ---- permute */
static enum cb_status infer_permute(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_permute *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    bool used[CB_MAX_RANK] = {false};
    TRY(ops_check_plain(node, 0, err));
    if (a->axes.n != x->rank) FAIL(err, CB_E_SHAPE, "permute: %d axes; all %d wanted", a->axes.n, x->rank);
    *out = *x;
    for (int i = 0; i < x->rank; i++) {
        TRY(ops_check_axis(node, a->axes.v[i], x->rank, err));
        if (used[a->axes.v[i]]) FAIL(err, CB_E_SHAPE, "permute: axis %lld twice; each once wanted", (long long)a->axes.v[i]);
        used[a->axes.v[i]] = true;
        out->dim[i] = x->dim[a->axes.v[i]];
    }
    return CB_OK;
}

static void grad_permute(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    const struct attr_permute *a = node->attrs;
    int64_t back[CB_MAX_RANK] = {0};
    (void)need;
    for (int i = 0; i < a->axes.n; i++) back[a->axes.v[i]] = i;
    din[0] = op_permute(g, dout[0], a->axes.n, back);
}

static void ref_permute(const struct op_run *run) {
    const struct attr_permute *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    int64_t stride[CB_MAX_RANK], moved[CB_MAX_RANK];
    ops_strides(x, stride);
    for (int i = 0; i < x->rank; i++) moved[i] = stride[a->axes.v[i]];
    struct walk w = ops_walk(y->rank, y->dim);
    ops_walk_strided(&w, moved, 0);
    ops_walk_copy(&w, run->out[0], run->in[0], ops_element_bytes(x->dtype));
}

static const struct op_case cases_permute[] = {
    {.name = "matrix", .attrs = &(const struct attr_permute){INTS(1, 0)}, .in = {CASE_F32(3, 5)}},
    {.name = "heads", .attrs = &(const struct attr_permute){INTS(0, 2, 1, 3)}, .in = {CASE_F32(2, 3, 5, 4)}},
    {.name = "turn", .attrs = &(const struct attr_permute){INTS(3, 0, 2, 1)}, .in = {CASE_F32(2, 3, 5, 4)}},
    {.name = "empty", .attrs = &(const struct attr_permute){INTS(1, 0)}, .in = {CASE_F32(0, 5)}},
    {.name = NULL}};
static const struct op shape_permute = {.name = "permute",
                                        .doc = "Axis i of y is axis axes[i] of x.",
                                        .in_names = in_x,
                                        .out_names = out_y,
                                        .attrs = attr_fields_permute,
                                        .attr_bytes = sizeof(struct attr_permute),
                                        .traits = OP_CHEAP,
                                        .infer = infer_permute,
                                        .grad = grad_permute,
                                        .ref = ref_permute,
                                        .cases = cases_permute};

struct cb_tensor *op_permute(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *axes) {
    struct attr_permute a;
    if (graph_is_bad(g, x)) return x;
    if (rank != x->type.rank) return graph_fail(g, CB_E_SHAPE, "permute: %d axes; all %d wanted", rank, x->type.rank);
    memset(&a, 0, sizeof a);
    a.axes.n = rank;
    // where only axes of size one move, the bytes stay: a reshape
    bool moves = false;
    int64_t dim[CB_MAX_RANK] = {0}, last = -1;
    for (int i = 0; i < rank; i++) {
        if (!ops_build_axis(g, "permute", rank, axes[i], &a.axes.v[i])) return &g->bad_tensor;
        dim[i] = x->type.dim[a.axes.v[i]];
        if (dim[i] == 1) continue;
        moves |= a.axes.v[i] < last;
        last = a.axes.v[i];
    }
    struct node probe = {.op = &shape_permute, .attrs = &a, .in = &x, .n_in = 1};
    struct cb_type type;
    if (!moves && infer_permute(&probe, &type, NULL, &g->err) == CB_OK) return op_reshape(g, x, rank, dim);
    return graph_node(g, &shape_permute, &a, 1, &x);
}

struct cb_tensor *op_transpose(struct cb_graph *g, struct cb_tensor *x, int axis_a, int axis_b) {
    int64_t axes[CB_MAX_RANK], a, b;
    if (graph_is_bad(g, x)) return x;
    int rank = x->type.rank;
    if (!ops_build_axis(g, "transpose", rank, axis_a, &a) || !ops_build_axis(g, "transpose", rank, axis_b, &b)) return &g->bad_tensor;
    for (int i = 0; i < rank; i++) axes[i] = i == a ? b : i == b ? a : i;
    return op_permute(g, x, rank, axes);
}

/* ---- expand */
static enum cb_status infer_expand(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_expand *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    struct cb_type both;
    char from[TYPE_TEXT], to[TYPE_TEXT];
    TRY(ops_check_plain(node, 0, err));
    TRY(ops_check_shape(node, x->dtype, &a->shape, out, err));
    TRY(ops_check_broadcast(node, x, out, &both, err));
    if (!type_equal(&both, out))
        FAIL(err, CB_E_SHAPE, "expand: %s to %s; a shape that x broadcasts to wanted", type_text(x, from), type_text(out, to));
    return CB_OK;
}

static void grad_expand(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    (void)need;
    din[0] = op_sum_to(g, dout[0], &node->in[0]->type);
}

static void ref_expand(const struct op_run *run) {
    const struct cb_type *y = &run->node->out[0]->type;
    struct walk w = ops_walk(y->rank, y->dim);
    ops_walk_broadcast(&w, &run->node->in[0]->type);
    ops_walk_copy(&w, run->out[0], run->in[0], ops_element_bytes(y->dtype));
}

static const struct op_case cases_expand[] = {
    {.name = "front_and_ones", .attrs = &(const struct attr_expand){INTS(2, 3, 5)}, .in = {CASE_F32(3, 1)}},
    {.name = "scalar", .attrs = &(const struct attr_expand){INTS(2, 3)}, .in = {CASE_SCALAR}},
    {.name = "empty", .attrs = &(const struct attr_expand){INTS(0, 3)}, .in = {CASE_F32(1, 3)}},
    {.name = NULL}};
static const struct op shape_expand = {.name = "expand",
                                       .doc = "x repeated along axes of size one and along new axes in front, to a shape it broadcasts to.",
                                       .in_names = in_x,
                                       .out_names = out_y,
                                       .attrs = attr_fields_expand,
                                       .attr_bytes = sizeof(struct attr_expand),
                                       .traits = OP_CHEAP,
                                       .infer = infer_expand,
                                       .grad = grad_expand,
                                       .ref = ref_expand,
                                       .cases = cases_expand};

struct cb_tensor *op_expand(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim) {
    struct attr_expand a;
    if (graph_is_bad(g, x)) return x;
    if (rank < 0 || rank > CB_MAX_RANK) return graph_fail(g, CB_E_SHAPE, "expand: rank %d; 0 to %d wanted", rank, CB_MAX_RANK);
    if (rank == x->type.rank && same_ints(rank, dim, x->type.dim)) return x;
    memset(&a, 0, sizeof a);
    fill_ints(&a.shape, rank, dim);
    return graph_node(g, &shape_expand, &a, 1, &x);
}

struct cb_tensor *op_repeat(struct cb_graph *g, struct cb_tensor *x, int n, const int64_t *times) {
    if (graph_is_bad(g, x)) return x;
    if (n < x->type.rank || n > CB_MAX_RANK)
        return graph_fail(g, CB_E_SHAPE, "repeat: %d counts; one for each axis, %d to %d, wanted", n, x->type.rank, CB_MAX_RANK);
    // axis by axis: (before, 1, rest) -> (before, times, rest)
    int64_t dim[CB_MAX_RANK], before = 1;
    for (int i = 0; i < n; i++) dim[i] = i < n - x->type.rank ? 1 : x->type.dim[i - (n - x->type.rank)];
    for (int i = 0; i < n; i++) {
        if (times[i] < 0) return graph_fail(g, CB_E_SHAPE, "repeat: count %lld; 0 or more wanted", (long long)times[i]);
        int64_t rest = 1;
        for (int k = i; k < n; k++) rest *= dim[k];
        if (times[i] != 1) {
            x = op_reshape(g, x, 3, (int64_t[]){before, 1, rest});
            x = op_expand(g, x, 3, (int64_t[]){before, times[i], rest});
        }
        if (graph_is_bad(g, x)) return x;
        dim[i] *= times[i];
        before *= dim[i];
    }
    return op_reshape(g, x, n, dim);
}

/* ---- flip */
static enum cb_status infer_flip(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    *out = node->in[0]->type;
    TRY(ops_check_plain(node, 0, err));
    return ops_check_axes(node, &((const struct attr_flip *)node->attrs)->axes, out->rank, err);
}

static void grad_flip(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    (void)need;
    din[0] = graph_node(g, node->op, node->attrs, 1, &dout[0]);
}

static void ref_flip(const struct op_run *run) {
    const struct attr_flip *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t stride[CB_MAX_RANK], first = 0;
    ops_strides(x, stride);
    for (int i = 0; i < a->axes.n; i++) {
        first += stride[a->axes.v[i]] * (x->dim[a->axes.v[i]] - 1);
        stride[a->axes.v[i]] = -stride[a->axes.v[i]];
    }
    struct walk w = ops_walk(x->rank, x->dim);
    ops_walk_strided(&w, stride, first);
    ops_walk_copy(&w, run->out[0], run->in[0], ops_element_bytes(x->dtype));
}

static const struct op_case cases_flip[] = {{.name = "two_axes", .attrs = &(const struct attr_flip){INTS(0, 2)}, .in = {CASE_F32(2, 3, 5)}},
                                            {.name = "empty", .attrs = &(const struct attr_flip){INTS(0)}, .in = {CASE_F32(0, 5)}},
                                            {.name = NULL}};
static const struct op shape_flip = {.name = "flip",
                                     .doc = "x with the order along some axes reversed.",
                                     .in_names = in_x,
                                     .out_names = out_y,
                                     .attrs = attr_fields_flip,
                                     .attr_bytes = sizeof(struct attr_flip),
                                     .traits = OP_CHEAP,
                                     .infer = infer_flip,
                                     .grad = grad_flip,
                                     .ref = ref_flip,
                                     .cases = cases_flip};

struct cb_tensor *op_flip(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes) {
    struct attr_flip a;
    if (graph_is_bad(g, x)) return x;
    if (!ops_build_axes(g, "flip", x->type.rank, n_axes, axes, &a.axes)) return &g->bad_tensor;
    return graph_node(g, &shape_flip, &a, 1, &x);
}

/* ---- roll */
static enum cb_status infer_roll(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_roll *a = node->attrs;
    *out = node->in[0]->type;
    TRY(ops_check_plain(node, 0, err));
    TRY(ops_check_axes(node, &a->axes, out->rank, err));
    if (a->shifts.n != a->axes.n) FAIL(err, CB_E_SHAPE, "roll: %d shifts for %d axes; one an axis wanted", a->shifts.n, a->axes.n);
    for (int i = 0; i < a->axes.n; i++)
        if (a->shifts.v[i] < 0 || (a->shifts.v[i] >= out->dim[a->axes.v[i]] && a->shifts.v[i] > 0))
            FAIL(err, CB_E_SHAPE, "roll: shift %lld; 0 to size - 1 wanted", (long long)a->shifts.v[i]);
    return CB_OK;
}

static void grad_roll(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    const struct attr_roll *a = node->attrs;
    int64_t back[CB_MAX_RANK] = {0};
    (void)need;
    for (int i = 0; i < a->shifts.n; i++) back[i] = -a->shifts.v[i];
    din[0] = op_roll(g, dout[0], a->shifts.n, back, a->axes.v);
}

static void ref_roll(const struct op_run *run) {
    const struct attr_roll *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    size_t bytes = ops_element_bytes(x->dtype);
    int64_t stride[CB_MAX_RANK], shift[CB_MAX_RANK] = {0};
    ops_strides(x, stride);
    for (int i = 0; i < a->axes.n; i++) shift[a->axes.v[i]] = a->shifts.v[i];
    struct walk w = ops_walk(x->rank, x->dim);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) {
        int64_t to = 0;
        for (int k = 0; k < x->rank; k++) to += (w.at[k] + shift[k]) % x->dim[k] * stride[k];
        memcpy((char *)run->out[0] + (size_t)to * bytes, (const char *)run->in[0] + (size_t)i * bytes, bytes);
    }
}

static const struct op_case cases_roll[] = {
    {.name = "two_axes", .attrs = &(const struct attr_roll){INTS(1, 3), INTS(0, 1)}, .in = {CASE_F32(3, 5)}},
    {.name = "empty", .attrs = &(const struct attr_roll){INTS(2), INTS(1)}, .in = {CASE_F32(0, 5)}},
    {.name = NULL}};
static const struct op shape_roll = {.name = "roll",
                                     .doc = "x moved along axes by shifts (0 <= shift < size); what leaves at the end enters at the front.",
                                     .in_names = in_x,
                                     .out_names = out_y,
                                     .attrs = attr_fields_roll,
                                     .attr_bytes = sizeof(struct attr_roll),
                                     .traits = OP_CHEAP,
                                     .infer = infer_roll,
                                     .grad = grad_roll,
                                     .ref = ref_roll,
                                     .cases = cases_roll};

struct cb_tensor *op_roll(struct cb_graph *g, struct cb_tensor *x, int n, const int64_t *shifts, const int64_t *axes) {
    struct attr_roll a;
    if (graph_is_bad(g, x)) return x;
    int64_t shift[CB_MAX_RANK] = {0}, axis;
    memset(&a, 0, sizeof a);
    for (int i = 0; i < n; i++) {
        if (!ops_build_axis(g, "roll", x->type.rank, axes[i], &axis)) return &g->bad_tensor;
        int64_t size = x->type.dim[axis];
        shift[axis] = size ? (shifts[i] % size + size) % size : 0;
    }
    if (n == 0) return x;
    if (!ops_build_axes(g, "roll", x->type.rank, n, axes, &a.axes)) return &g->bad_tensor;
    a.shifts.n = n;
    for (int i = 0; i < n; i++) a.shifts.v[i] = shift[a.axes.v[i]];
    return graph_node(g, &shape_roll, &a, 1, &x);
}

/* ---- tril */
static enum cb_status infer_tril(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    char text[TYPE_TEXT];
    *out = node->in[0]->type;
    TRY(ops_check_plain(node, 0, err));
    if (out->rank < 2) FAIL(err, CB_E_SHAPE, "tril: x is %s; matrices in the last two axes wanted", type_text(out, text));
    return CB_OK;
}

static void grad_tril(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    (void)need;
    din[0] = graph_node(g, node->op, node->attrs, 1, &dout[0]);
}

static void ref_tril(const struct op_run *run) {
    const struct attr_tril *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    size_t bytes = ops_element_bytes(x->dtype);
    int64_t rows = x->dim[x->rank - 2], columns = x->dim[x->rank - 1], n = type_elements(x);
    for (int64_t i = 0; i < n; i++) {
        int64_t off = i % columns - i / columns % rows;
        char *to = (char *)run->out[0] + (size_t)i * bytes;
        if (a->upper ? off >= a->diagonal : off <= a->diagonal)
            memmove(to, (const char *)run->in[0] + (size_t)i * bytes, bytes);
        else
            memset(to, 0, bytes);
    }
}

static const struct op_case cases_tril[] = {{.name = "below", .attrs = &(const struct attr_tril){-1, false}, .in = {CASE_F32(2, 5, 4)}},
                                            {.name = "upper", .attrs = &(const struct attr_tril){0, true}, .in = {CASE_F32(3, 5)}},
                                            {.name = "empty", .attrs = &(const struct attr_tril){0, false}, .in = {CASE_F32(0, 5)}},
                                            {.name = NULL}};
static const struct op shape_tril = {.name = "tril",
                                     .doc = "Matrices with zeros where column - row > diagonal (upper: < diagonal).",
                                     .in_names = in_x,
                                     .out_names = out_y,
                                     .attrs = attr_fields_tril,
                                     .attr_bytes = sizeof(struct attr_tril),
                                     .traits = OP_CHEAP,
                                     .infer = infer_tril,
                                     .grad = grad_tril,
                                     .ref = ref_tril,
                                     .inplace = {1},
                                     .cases = cases_tril};

struct cb_tensor *op_tril(struct cb_graph *g, struct cb_tensor *x, int64_t diagonal, bool upper) {
    struct attr_tril a;
    memset(&a, 0, sizeof a);
    a.diagonal = diagonal;
    a.upper = upper;
    return graph_node(g, &shape_tril, &a, 1, &x);
}

const struct op *const op_file_shape[] = {&shape_reshape, &shape_permute, &shape_expand, &shape_flip, &shape_roll, &shape_tril, NULL};
