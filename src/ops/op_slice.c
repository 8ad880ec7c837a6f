/* Parts of a tensor along one axis: slice, concat, split, stack, and pad over several axes. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "ops/walk.h"

// @attrs slice: int axis, int begin, int end, int step
// @attrs slice_grad: int axis, int begin, int step, int size
// @attrs concat: int axis
// @attrs split: int axis, ints sizes

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};

/* ---- slice */
static enum cb_status infer_slice(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_slice *a = node->attrs;
    *out = node->in[0]->type;
    TRY(ops_check_plain(node, 0, err));
    TRY(ops_check_axis(node, a->axis, out->rank, err));
    int64_t size = out->dim[a->axis];
    if (a->begin < 0 || a->begin > a->end || a->end > size || a->step < 1)
        FAIL(err, CB_E_SHAPE, "slice: %lld to %lld by %lld of size %lld; 0 <= begin <= end <= size, step >= 1 wanted", (long long)a->begin,
             (long long)a->end, (long long)a->step, (long long)size);
    out->dim[a->axis] = a->end == a->begin ? 0 : (a->end - a->begin - 1) / a->step + 1;
    return CB_OK;
}

static void grad_slice(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din);

static void ref_slice(const struct op_run *run) {
    const struct attr_slice *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = ops_split_at(x, a->axis);
    int64_t n = run->node->out[0]->type.dim[a->axis];
    size_t row = (size_t)s.inner * ops_element_bytes(x->dtype);
    char *to = run->out[0];
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < n; i++, to += row)
            memcpy(to, (const char *)run->in[0] + (size_t)(o * s.n + a->begin + i * a->step) * row, row);
}

#define SLICE(...) \
    &(const struct attr_slice) { __VA_ARGS__ }
static const struct op_case cases_slice[] = {{.name = "middle", .attrs = SLICE(1, 1, 3, 1), .in = {CASE_F32(2, 5, 3)}},
                                             {.name = "step", .attrs = SLICE(1, 1, 10, 3), .in = {CASE_F32(3, 11)}},
                                             {.name = "empty", .attrs = SLICE(0, 4, 4, 1), .in = {CASE_F32(7, 2)}, .no_grad = true},
                                             {.name = NULL}};
static const struct op slice_slice = {.name = "slice",
                                      .doc = "Elements begin, begin + step, ... before end along an axis; 0 <= begin <= end <= size.",
                                      .in_names = in_x,
                                      .out_names = out_y,
                                      .attrs = attr_fields_slice,
                                      .attr_bytes = sizeof(struct attr_slice),
                                      .traits = OP_CHEAP,
                                      .infer = infer_slice,
                                      .grad = grad_slice,
                                      .ref = ref_slice,
                                      .cases = cases_slice};

/* ---- slice_grad */
static enum cb_status infer_slice_grad(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_slice_grad *a = node->attrs;
    *out = node->in[0]->type;
    TRY(ops_check_plain(node, 0, err));
    TRY(ops_check_axis(node, a->axis, out->rank, err));
    int64_t n = out->dim[a->axis];
    if (a->begin < 0 || a->step < 1 || a->size < 0 || (n > 0 && (a->begin >= a->size || (n - 1) > (a->size - 1 - a->begin) / a->step)))
        FAIL(err, CB_E_SHAPE, "slice_grad: %lld elements from %lld by %lld into size %lld; places inside wanted", (long long)n,
             (long long)a->begin, (long long)a->step, (long long)a->size);
    out->dim[a->axis] = a->size;
    return CB_OK;
}

static void grad_slice_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                            struct cb_tensor **din) {
    const struct attr_slice_grad *a = node->attrs;
    int64_t n = node->in[0]->type.dim[a->axis];
    (void)need;
    din[0] = op_slice(g, dout[0], (int)a->axis, a->begin, n ? a->begin + (n - 1) * a->step + 1 : a->begin, a->step);
}

static void ref_slice_grad(const struct op_run *run) {
    const struct attr_slice_grad *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = ops_split_at(x, a->axis);
    size_t row = (size_t)s.inner * ops_element_bytes(x->dtype);
    const char *from = run->in[0];
    memset(run->out[0], 0, (size_t)(s.outer * a->size) * row);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < s.n; i++, from += row)
            memcpy((char *)run->out[0] + (size_t)(o * a->size + a->begin + i * a->step) * row, from, row);
}

#define PUT(...) \
    &(const struct attr_slice_grad) { __VA_ARGS__ }
static const struct op_case cases_slice_grad[] = {{.name = "middle", .attrs = PUT(1, 1, 1, 5), .in = {CASE_F32(2, 2, 3)}},
                                                  {.name = "step", .attrs = PUT(1, 1, 3, 11), .in = {CASE_F32(3, 3)}},
                                                  {.name = "empty", .attrs = PUT(0, 4, 1, 7), .in = {CASE_F32(0, 2)}},
                                                  {.name = NULL}};
static const struct op slice_slice_grad = {.name = "slice_grad",
                                           .doc = "dy at places begin, begin + step, ... of an axis of a given size, zeros elsewhere.",
                                           .in_names = in_x,
                                           .out_names = out_y,
                                           .attrs = attr_fields_slice_grad,
                                           .attr_bytes = sizeof(struct attr_slice_grad),
                                           .traits = OP_CHEAP,
                                           .infer = infer_slice_grad,
                                           .grad = grad_slice_grad,
                                           .ref = ref_slice_grad,
                                           .cases = cases_slice_grad};

static void grad_slice(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    const struct attr_slice *a = node->attrs;
    (void)need;
    din[0] = graph_node(g, &slice_slice_grad, &(struct attr_slice_grad){a->axis, a->begin, a->step, node->in[0]->type.dim[a->axis]}, 1,
                        &dout[0]);
}

struct cb_tensor *op_slice(struct cb_graph *g, struct cb_tensor *x, int axis, int64_t begin, int64_t end, int64_t step) {
    int64_t place;
    if (graph_is_bad(g, x)) return x;
    if (!ops_build_axis(g, "slice", x->type.rank, axis, &place)) return &g->bad_tensor;
    int64_t size = x->type.dim[place];
    begin = begin < 0 ? (begin < -size ? 0 : begin + size) : begin > size ? size : begin;
    end = end < 0 ? (end < -size ? 0 : end + size) : end > size ? size : end;
    if (end < begin) end = begin;
    if (begin == 0 && end == size && step == 1) return x;
    return graph_node(g, &slice_slice, &(struct attr_slice){place, begin, end, step}, 1, &x);
}

/* ---- concat */
static enum cb_status infer_concat(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_concat *a = node->attrs;
    char first[TYPE_TEXT], other[TYPE_TEXT];
    *out = node->in[0]->type;
    TRY(ops_check_plain(node, 0, err));
    TRY(ops_check_axis(node, a->axis, out->rank, err));
    for (int i = 1; i < node->n_in; i++) {
        if (!node->in[i]) FAIL(err, CB_E_ARGUMENT, "concat: part %d of %d is absent; all wanted", i, node->n_in);
        struct cb_type t = node->in[i]->type;
        bool fits = t.rank == out->rank && t.dtype == out->dtype;
        for (int k = 0; fits && k < t.rank; k++) fits = k == a->axis || t.dim[k] == out->dim[k];
        if (!fits)
            FAIL(err, CB_E_SHAPE, "concat: part %d is %s and part 0 %s; the same but for axis %lld wanted", i, type_text(&t, other),
                 type_text(&node->in[0]->type, first), (long long)a->axis);
        if (__builtin_add_overflow(out->dim[a->axis], t.dim[a->axis], &out->dim[a->axis]))
            FAIL(err, CB_E_SHAPE, "concat: too many elements");
    }
    return CB_OK;
}

static void grad_concat(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    const struct attr_concat *a = node->attrs;
    int64_t begin = 0;
    for (int i = 0; i < node->n_in; i++) {
        int64_t end = begin + node->in[i]->type.dim[a->axis];
        if (need[i]) din[i] = op_slice(g, dout[0], (int)a->axis, begin, end, 1);
        begin = end;
    }
}

static void ref_concat(const struct op_run *run) {
    const struct attr_concat *a = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    struct ops_split s = ops_split_at(y, a->axis);
    size_t unit = (size_t)s.inner * ops_element_bytes(y->dtype), total = (size_t)s.n * unit, at = 0;
    for (int i = 0; i < run->node->n_in; i++) {
        size_t row = (size_t)run->node->in[i]->type.dim[a->axis] * unit;
        for (int64_t o = 0; o < s.outer && row > 0; o++)
            memcpy((char *)run->out[0] + (size_t)o * total + at, (const char *)run->in[i] + (size_t)o * row, row);
        at += row;
    }
}

static const struct op_case cases_concat[] = {
    {.name = "middle", .attrs = &(const struct attr_concat){1}, .in = {CASE_F32(2, 3, 5), CASE_F32(2, 1, 5), CASE_F32(2, 4, 5)}},
    {.name = "with_empty", .attrs = &(const struct attr_concat){0}, .in = {CASE_F32(2, 3), CASE_F32(0, 3), CASE_F32(1, 3)}},
    {.name = "last", .attrs = &(const struct attr_concat){1}, .in = {CASE_F32(3, 2), CASE_F32(3, 1)}},
    {.name = NULL}};
static const char *const in_parts[] = {"x", "...", NULL};
static const struct op slice_concat = {.name = "concat",
                                       .doc = "Any number of tensors one after another along an axis; other dimensions agree.",
                                       .in_names = in_parts,
                                       .out_names = out_y,
                                       .attrs = attr_fields_concat,
                                       .attr_bytes = sizeof(struct attr_concat),
                                       .traits = OP_CHEAP,
                                       .infer = infer_concat,
                                       .grad = grad_concat,
                                       .ref = ref_concat,
                                       .cases = cases_concat};

#define CONCAT_MAX 32
struct cb_tensor *op_concat(struct cb_graph *g, int n, struct cb_tensor *const *x, int axis) {
    int64_t place;
    if (n < 1) return graph_fail(g, CB_E_ARGUMENT, "concat: %d parts; one or more wanted", n);
    for (int i = 0; i < n; i++)
        if (graph_is_bad(g, x[i])) return x[i];
    if (!ops_build_axis(g, "concat", x[0]->type.rank, axis, &place)) return &g->bad_tensor;
    if (n == 1) return x[0];
    if (n <= CONCAT_MAX) return graph_node(g, &slice_concat, &(struct attr_concat){place}, n, x);
    // a node takes so many inputs: halves of a longer list are joined first
    struct cb_tensor *halves[2] = {op_concat(g, n / 2, x, axis), op_concat(g, n - n / 2, x + n / 2, axis)};
    return op_concat(g, 2, halves, axis);
}

struct cb_tensor *op_stack(struct cb_graph *g, int n, struct cb_tensor *const *x, int axis) {
    int64_t place, dim[CB_MAX_RANK];
    if (n < 1) return graph_fail(g, CB_E_ARGUMENT, "stack: %d parts; one or more wanted", n);
    for (int i = 0; i < n; i++)
        if (graph_is_bad(g, x[i])) return x[i];
    int rank = x[0]->type.rank + 1;
    if (rank > CB_MAX_RANK) return graph_fail(g, CB_E_SHAPE, "stack: parts of rank %d; below %d wanted", rank - 1, CB_MAX_RANK);
    if (!ops_build_axis(g, "stack", rank, axis, &place)) return &g->bad_tensor;
    struct cb_tensor **wide = arena_array(g->arena, (size_t)n, sizeof *wide);
    if (!wide) return graph_fail(g, CB_E_MEMORY, "stack: out of memory");
    for (int i = 0; i < n; i++) {
        if (x[i]->type.rank != rank - 1)
            return graph_fail(g, CB_E_SHAPE, "stack: part %d of rank %d; %d wanted", i, x[i]->type.rank, rank - 1);
        for (int k = 0; k < rank; k++) dim[k] = k == place ? 1 : x[i]->type.dim[k - (k > place)];
        wide[i] = op_reshape(g, x[i], rank, dim);
    }
    return op_concat(g, n, wide, (int)place);
}

/* ---- split */
static enum cb_status infer_split(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct attr_split *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    int64_t sum = 0;
    TRY(ops_check_plain(node, 0, err));
    TRY(ops_check_axis(node, a->axis, x->rank, err));
    if (a->sizes.n < 1 || a->sizes.n > CB_MAX_RANK * 2)
        FAIL(err, CB_E_ARGUMENT, "split: %d parts; 1 to %d wanted", a->sizes.n, CB_MAX_RANK * 2);
    for (int i = 0; i < a->sizes.n; i++) {
        if (a->sizes.v[i] < 0 || __builtin_add_overflow(sum, a->sizes.v[i], &sum))
            FAIL(err, CB_E_SHAPE, "split: part of %lld; 0 or more wanted", (long long)a->sizes.v[i]);
        out[i] = *x;
        out[i].dim[a->axis] = a->sizes.v[i];
    }
    if (sum != x->dim[a->axis])
        FAIL(err, CB_E_SHAPE, "split: parts of %lld in all; %lld wanted", (long long)sum, (long long)x->dim[a->axis]);
    *n_out = a->sizes.n;
    return CB_OK;
}

static void grad_split(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    const struct attr_split *a = node->attrs;
    struct cb_tensor *part[CB_MAX_RANK * 2];
    (void)need;
    for (int i = 0; i < node->n_out; i++) part[i] = dout[i] ? dout[i] : ops_zeros(g, &node->out[i]->type);
    din[0] = op_concat(g, node->n_out, part, (int)a->axis);
}

static void ref_split(const struct op_run *run) {
    const struct attr_split *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    struct ops_split s = ops_split_at(x, a->axis);
    size_t unit = (size_t)s.inner * ops_element_bytes(x->dtype), total = (size_t)s.n * unit, at = 0;
    for (int i = 0; i < run->node->n_out; i++) {
        size_t row = (size_t)a->sizes.v[i] * unit;
        for (int64_t o = 0; o < s.outer && row > 0; o++)
            memcpy((char *)run->out[i] + (size_t)o * row, (const char *)run->in[0] + (size_t)o * total + at, row);
        at += row;
    }
}

#define PARTS(axis, ...)                                                \
    &(const struct attr_split) {                                        \
        axis, {                                                         \
            sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
        }                                                               \
    }
static const struct op_case cases_split[] = {{.name = "three", .attrs = PARTS(1, 3, 1, 3), .in = {CASE_F32(2, 7)}},
                                             {.name = "first", .attrs = PARTS(0, 2, 0, 1), .in = {CASE_F32(3, 2)}, .no_grad = true},
                                             {.name = "empty", .attrs = PARTS(1, 1, 2), .in = {CASE_F32(0, 3)}},
                                             {.name = NULL}};
static const char *const out_parts[] = {"part", NULL};
static unsigned split_by_row(const struct node *node) {
    const struct attr_split *attrs = node->attrs;
    return attrs->axis == node->in[0]->type.rank - 1;
}

static const struct op slice_split = {.name = "split",
                                      .doc = "x cut along an axis into parts of given sizes; one output each.",
                                      .in_names = in_x,
                                      .out_names = out_parts,
                                      .attrs = attr_fields_split,
                                      .attr_bytes = sizeof(struct attr_split),
                                      .traits = OP_CHEAP,
                                      .n_out = -1,
                                      .infer = infer_split,
                                      .grad = grad_split,
                                      .ref = ref_split,
                                      .by_row = split_by_row,
                                      .cases = cases_split};

struct cb_tensor *op_split(struct cb_graph *g, struct cb_tensor *x, int axis, int n, const int64_t *sizes) {
    struct attr_split a;
    if (graph_is_bad(g, x)) return x;
    if (n < 1 || n > CB_MAX_RANK * 2) return graph_fail(g, CB_E_ARGUMENT, "split: %d parts; 1 to %d wanted", n, CB_MAX_RANK * 2);
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, "split", x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    a.sizes.n = n;
    for (int i = 0; i < n; i++) a.sizes.v[i] = sizes[i];
    return graph_node(g, &slice_split, &a, 1, &x);
}

const struct op *const op_file_slice[] = {&slice_slice, &slice_slice_grad, &slice_concat, &slice_split, NULL};
