/* Reading and adding by index: gather, scatter_add, index_select, index_add; and masked_fill. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "ops/walk.h"

// @attrs gather: int axis
// @attrs scatter_add: int axis, ints shape
// @attrs index_select: int axis
// @attrs index_add: int axis, ints shape
// @attrs masked_fill: float value

static const char *const out_y[] = {"y", NULL};
#define INTS(...)                                                   \
    {                                                               \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
    }

/* Element i of an index tensor; -1 where it lies outside [0, size). */
static int64_t index_at(const struct cb_tensor *index, const void *data, int64_t i, int64_t size) {
    int64_t v = index->type.dtype == CB_DTYPE_I32 ? ((const int32_t *)data)[i] : ((const int64_t *)data)[i];
    return v < 0 || v >= size ? -1 : v;
}

/* Writes what an index outside the axis reads: NaN, or 0 where the type has none. */
static void set_outside(enum cb_dtype dtype, void *p, int64_t i) { ref_set(dtype, p, i, dtype_of(dtype)->is_float ? NAN : 0); }

/* The index has x's rank and fits in it but along the axis. */
static enum cb_status check_fits(const struct node *node, const struct cb_type *x, const struct cb_type *index, int64_t axis,
                                 struct cb_err *err) {
    char tx[TYPE_TEXT], ti[TYPE_TEXT];
    TRY(ops_check_axis(node, axis, x->rank, err));
    bool fits = x->rank == index->rank;
    for (int i = 0; fits && i < x->rank; i++) fits = i == axis || index->dim[i] <= x->dim[i];
    if (!fits)
        FAIL(err, CB_E_SHAPE, "%s: x is %s and index %s; one rank, and no larger but along axis %lld wanted", node->op->name,
             type_text(x, tx), type_text(index, ti), (long long)axis);
    return CB_OK;
}

/* Walk over the index with operand 0 the offset in x at place 0 of the axis. Returns x's stride along the axis. */
static int64_t walk_index(struct walk *w, const struct cb_type *x, const struct cb_type *index, int64_t axis) {
    int64_t stride[CB_MAX_RANK], along;
    ops_strides(x, stride);
    along = stride[axis];
    stride[axis] = 0;
    *w = ops_walk(index->rank, index->dim);
    ops_walk_strided(w, stride, 0);
    return along;
}

/* ---- gather */
static enum cb_status infer_gather(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_gather *a = node->attrs;
    TRY(ops_check_number(node, 0, err));
    TRY(ops_check_index(node, 1, err));
    TRY(check_fits(node, &node->in[0]->type, &node->in[1]->type, a->axis, err));
    *out = node->in[1]->type;
    out->dtype = node->in[0]->type.dtype;
    return CB_OK;
}

static void grad_gather(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    const struct attr_gather *a = node->attrs;
    if (need[0]) din[0] = op_scatter_add(g, NULL, &node->in[0]->type, node->in[1], dout[0], (int)a->axis);
}

static void ref_gather(const struct op_run *run) {
    const struct attr_gather *a = run->node->attrs;
    const struct cb_tensor *x = run->node->in[0], *index = run->node->in[1];
    size_t bytes = ops_element_bytes(x->type.dtype);
    struct walk w;
    int64_t along = walk_index(&w, &x->type, &index->type, a->axis);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) {
        int64_t k = index_at(index, run->in[1], i, x->type.dim[a->axis]);
        if (k < 0)
            set_outside(x->type.dtype, run->out[0], i);
        else
            memcpy((char *)run->out[0] + (size_t)i * bytes, (const char *)run->in[0] + (size_t)(w.offset[0] + k * along) * bytes, bytes);
    }
}

static const struct op_case cases_gather[] = {
    {.name = "last", .attrs = &(const struct attr_gather){1}, .in = {CASE_F32(3, 7), CASE_INDEX(7, 3, 4)}},
    {.name = "smaller", .attrs = &(const struct attr_gather){0}, .in = {CASE_F32(5, 4, 3), CASE_INDEX(5, 2, 4, 1)}},
    {.name = "empty", .attrs = &(const struct attr_gather){1}, .in = {CASE_F32(3, 7), CASE_INDEX(7, 3, 0)}, .no_grad = true},
    {.name = NULL}};
static const char *const in_gather[] = {"x", "index", NULL};
static const struct op index_gather = {.name = "gather",
                                       .doc = "y[i,j] = x[i, index[i,j]] for axis 1, and so for any axis; index has x's rank.",
                                       .in_names = in_gather,
                                       .out_names = out_y,
                                       .attrs = attr_fields_gather,
                                       .attr_bytes = sizeof(struct attr_gather),
                                       .traits = OP_CHEAP,
                                       .infer = infer_gather,
                                       .grad = grad_gather,
                                       .ref = ref_gather,
                                       .cases = cases_gather};

struct cb_tensor *op_gather(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, int axis) {
    struct attr_gather a;
    if (graph_is_bad(g, x)) return x;
    if (!ops_build_axis(g, "gather", x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    return graph_node(g, &index_gather, &a, 2, (struct cb_tensor *[]){x, index});
}

/* ---- scatter_add */
/* The result's type: x's where given, else the attribute's shape. */
static enum cb_status infer_sum(const struct node *node, const struct attr_ints *shape, struct cb_type *out, struct cb_err *err) {
    enum cb_dtype dtype = node->in[2]->type.dtype;
    TRY(ops_check_index(node, 1, err));
    TRY(ops_check_number(node, 2, err));
    if (!node->in[0]) return ops_check_shape(node, dtype, shape, out, err);
    TRY(ops_check_same_dtype(node, 0, 2, err));
    *out = node->in[0]->type;
    return CB_OK;
}

static enum cb_status infer_scatter_add(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_scatter_add *a = node->attrs;
    struct cb_type source = node->in[2]->type;
    char ts[TYPE_TEXT], ti[TYPE_TEXT];
    TRY(infer_sum(node, &a->shape, out, err));
    TRY(check_fits(node, out, &node->in[1]->type, a->axis, err));
    source.dtype = node->in[1]->type.dtype;
    if (!type_equal(&source, &node->in[1]->type))
        FAIL(err, CB_E_SHAPE, "scatter_add: source is %s and index %s; one shape wanted", type_text(&node->in[2]->type, ts),
             type_text(&node->in[1]->type, ti));
    return CB_OK;
}

static void grad_scatter_add(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                             struct cb_tensor **din) {
    const struct attr_scatter_add *a = node->attrs;
    if (need[0]) din[0] = dout[0];
    if (need[2]) din[2] = op_gather(g, dout[0], node->in[1], (int)a->axis);
}

/* Starts the result with x, or with zeros. */
static void start_sum(const struct op_run *run) {
    size_t bytes = (size_t)type_bytes(&run->node->out[0]->type);
    if (!run->in[0])
        memset(run->out[0], 0, bytes);
    else if (run->in[0] != run->out[0] && bytes)
        memmove(run->out[0], run->in[0], bytes);
}

static void add_at(enum cb_dtype dtype, void *y, int64_t to, const void *x, int64_t from) {
    ref_set(dtype, y, to, ref_get(dtype, y, to) + ref_get(dtype, x, from));
}

static void ref_scatter_add(const struct op_run *run) {
    const struct attr_scatter_add *a = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    const struct cb_tensor *index = run->node->in[1];
    struct walk w;
    int64_t along = walk_index(&w, y, &index->type, a->axis);
    start_sum(run);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) {
        int64_t k = index_at(index, run->in[1], i, y->dim[a->axis]);
        if (k >= 0) add_at(y->dtype, run->out[0], w.offset[0] + k * along, run->in[2], i);
    }
}

#define SCATTER(...) \
    &(const struct attr_scatter_add) { __VA_ARGS__ }
static const struct op_case cases_scatter_add[] = {
    {.name = "repeats", .attrs = SCATTER(1, INTS(0)), .in = {CASE_F32(3, 5), CASE_INDEX(5, 3, 7), CASE_F32(3, 7)}},
    {.name = "on_zeros", .attrs = SCATTER(0, INTS(4, 3)), .in = {CASE_ABSENT, CASE_INDEX(4, 6, 2), CASE_F32(6, 2)}},
    {.name = "empty", .attrs = SCATTER(0, INTS(0)), .in = {CASE_F32(4, 3), CASE_INDEX(4, 0, 3), CASE_F32(0, 3)}},
    {.name = NULL}};
static const char *const in_sum[] = {"x?", "index", "source", NULL};
static const struct op index_scatter_add = {
    .name = "scatter_add",
    .doc = "x (or zeros of `shape`) with source[i,j] added at [i, index[i,j]] for axis 1, and so for any axis.",
    .in_names = in_sum,
    .out_names = out_y,
    .attrs = attr_fields_scatter_add,
    .attr_bytes = sizeof(struct attr_scatter_add),
    .infer = infer_scatter_add,
    .grad = grad_scatter_add,
    .ref = ref_scatter_add,
    .accumulate = 1,
    .cases = cases_scatter_add};

struct cb_tensor *op_scatter_add(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape, struct cb_tensor *index,
                                 struct cb_tensor *source, int axis) {
    struct attr_scatter_add a;
    if (x && graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, "scatter_add", x ? x->type.rank : shape->rank, axis, &a.axis)) return &g->bad_tensor;
    if (!x) a.shape.n = shape->rank;
    for (int i = 0; i < a.shape.n; i++) a.shape.v[i] = shape->dim[i];
    return graph_node(g, &index_scatter_add, &a, 3, (struct cb_tensor *[]){x, index, source});
}

/* ---- index_select */
static enum cb_status infer_index_select(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_index_select *a = node->attrs;
    char text[TYPE_TEXT];
    *out = node->in[0]->type;
    TRY(ops_check_number(node, 0, err));
    TRY(ops_check_index(node, 1, err));
    TRY(ops_check_axis(node, a->axis, out->rank, err));
    if (node->in[1]->type.rank != 1)
        FAIL(err, CB_E_SHAPE, "index_select: index is %s; a vector wanted", type_text(&node->in[1]->type, text));
    out->dim[a->axis] = node->in[1]->type.dim[0];
    return CB_OK;
}

static void grad_index_select(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                              struct cb_tensor **din) {
    const struct attr_index_select *a = node->attrs;
    if (need[0]) din[0] = op_index_add(g, NULL, &node->in[0]->type, node->in[1], dout[0], (int)a->axis);
}

static void ref_index_select(const struct op_run *run) {
    const struct attr_index_select *a = run->node->attrs;
    const struct cb_tensor *x = run->node->in[0], *index = run->node->in[1];
    struct ops_split s = ops_split_at(&x->type, a->axis);
    size_t row = (size_t)s.inner * ops_element_bytes(x->type.dtype);
    int64_t n = index->type.dim[0];
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < n; i++) {
            int64_t k = index_at(index, run->in[1], i, s.n), to = (o * n + i) * s.inner;
            if (k >= 0)
                memcpy((char *)run->out[0] + (size_t)(o * n + i) * row, (const char *)run->in[0] + (size_t)(o * s.n + k) * row, row);
            for (int64_t j = 0; k < 0 && j < s.inner; j++) set_outside(x->type.dtype, run->out[0], to + j);
        }
}

static const struct op_case cases_index_select[] = {
    {.name = "rows", .attrs = &(const struct attr_index_select){0}, .in = {CASE_F32(5, 3), CASE_INDEX(5, 4)}},
    {.name = "last", .attrs = &(const struct attr_index_select){2}, .in = {CASE_F32(2, 3, 5), CASE_INDEX(5, 3)}},
    {.name = "empty", .attrs = &(const struct attr_index_select){0}, .in = {CASE_F32(5, 3), CASE_INDEX(5, 0)}, .no_grad = true},
    {.name = NULL}};
static const struct op index_index_select = {.name = "index_select",
                                             .doc = "Slices of x along an axis, in the order of a vector of indices.",
                                             .in_names = in_gather,
                                             .out_names = out_y,
                                             .attrs = attr_fields_index_select,
                                             .attr_bytes = sizeof(struct attr_index_select),
                                             .traits = OP_CHEAP,
                                             .infer = infer_index_select,
                                             .grad = grad_index_select,
                                             .ref = ref_index_select,
                                             .cases = cases_index_select};

struct cb_tensor *op_index_select(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, int axis) {
    struct attr_index_select a;
    if (graph_is_bad(g, x)) return x;
    if (!ops_build_axis(g, "index_select", x->type.rank, axis, &a.axis)) return &g->bad_tensor;
    return graph_node(g, &index_index_select, &a, 2, (struct cb_tensor *[]){x, index});
}

/* ---- index_add */
static enum cb_status infer_index_add(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_index_add *a = node->attrs;
    const struct cb_type *index = &node->in[1]->type, *source = &node->in[2]->type;
    char ti[TYPE_TEXT], ts[TYPE_TEXT], ty[TYPE_TEXT];
    TRY(infer_sum(node, &a->shape, out, err));
    TRY(ops_check_axis(node, a->axis, out->rank, err));
    struct cb_type want = *out;
    want.dim[a->axis] = index->rank == 1 ? index->dim[0] : -1;
    if (!type_equal(&want, source))
        FAIL(err, CB_E_SHAPE, "index_add: index is %s and source %s for %s; a vector, and its length along axis %lld wanted",
             type_text(index, ti), type_text(source, ts), type_text(out, ty), (long long)a->axis);
    return CB_OK;
}

static void grad_index_add(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                           struct cb_tensor **din) {
    const struct attr_index_add *a = node->attrs;
    if (need[0]) din[0] = dout[0];
    if (need[2]) din[2] = op_index_select(g, dout[0], node->in[1], (int)a->axis);
}

static void ref_index_add(const struct op_run *run) {
    const struct attr_index_add *a = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    struct ops_split s = ops_split_at(y, a->axis);
    int64_t n = run->node->in[1]->type.dim[0];
    start_sum(run);
    for (int64_t o = 0; o < s.outer; o++)
        for (int64_t i = 0; i < n; i++) {
            int64_t k = index_at(run->node->in[1], run->in[1], i, s.n);
            for (int64_t j = 0; k >= 0 && j < s.inner; j++)
                add_at(y->dtype, run->out[0], (o * s.n + k) * s.inner + j, run->in[2], (o * n + i) * s.inner + j);
        }
}

#define INDEX_ADD(...) \
    &(const struct attr_index_add) { __VA_ARGS__ }
static const struct op_case cases_index_add[] = {
    {.name = "repeats", .attrs = INDEX_ADD(1, INTS(0)), .in = {CASE_F32(2, 5, 3), CASE_INDEX(5, 7), CASE_F32(2, 7, 3)}},
    {.name = "on_zeros", .attrs = INDEX_ADD(0, INTS(4, 3)), .in = {CASE_ABSENT, CASE_INDEX(4, 6), CASE_F32(6, 3)}},
    {.name = "empty", .attrs = INDEX_ADD(0, INTS(0)), .in = {CASE_F32(4, 3), CASE_INDEX(4, 0), CASE_F32(0, 3)}},
    {.name = NULL}};
static const struct op index_index_add = {.name = "index_add",
                                          .doc = "x (or zeros of `shape`) with slice i of source added to slice index[i] along an axis.",
                                          .in_names = in_sum,
                                          .out_names = out_y,
                                          .attrs = attr_fields_index_add,
                                          .attr_bytes = sizeof(struct attr_index_add),
                                          .infer = infer_index_add,
                                          .grad = grad_index_add,
                                          .ref = ref_index_add,
                                          .accumulate = 1,
                                          .cases = cases_index_add};

struct cb_tensor *op_index_add(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape, struct cb_tensor *index,
                               struct cb_tensor *source, int axis) {
    struct attr_index_add a;
    if (x && graph_is_bad(g, x)) return x;
    memset(&a, 0, sizeof a);
    if (!ops_build_axis(g, "index_add", x ? x->type.rank : shape->rank, axis, &a.axis)) return &g->bad_tensor;
    if (!x) a.shape.n = shape->rank;
    for (int i = 0; i < a.shape.n; i++) a.shape.v[i] = shape->dim[i];
    return graph_node(g, &index_index_add, &a, 3, (struct cb_tensor *[]){x, index, source});
}

/* ---- masked_fill */
static enum cb_status infer_masked_fill(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct cb_type *x = &node->in[0]->type, *mask = &node->in[1]->type;
    char tx[TYPE_TEXT], tm[TYPE_TEXT];
    TRY(ops_check_number(node, 0, err));
    TRY(ops_check_bool(node, 1, err));
    TRY(ops_check_broadcast(node, x, mask, out, err));
    if (!type_equal(out, x))
        FAIL(err, CB_E_SHAPE, "masked_fill: mask is %s; one that broadcasts to %s wanted", type_text(mask, tm), type_text(x, tx));
    return CB_OK;
}

static void grad_masked_fill(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                             struct cb_tensor **din) {
    if (need[0]) din[0] = op_masked_fill(g, dout[0], node->in[1], 0);
}

static void ref_masked_fill(const struct op_run *run) {
    const struct attr_masked_fill *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    const bool *mask = run->in[1];
    struct walk w = ops_walk(x->rank, x->dim);
    ops_walk_broadcast(&w, &run->node->in[1]->type);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w))
        ref_set(x->dtype, run->out[0], i, mask[w.offset[0]] ? a->value : ref_get(x->dtype, run->in[0], i));
}

#define FLAG(...) \
    { .present = true, .dtype = CB_DTYPE_BOOL, CASE_DIMS(__VA_ARGS__), .fill = FILL_INDEX, .low = 0, .high = 2, .no_grad = true }
static const struct op_case cases_masked_fill[] = {
    {.name = "broadcast", .attrs = &(const struct attr_masked_fill){-3}, .in = {CASE_F32(2, 3, 5), FLAG(3, 5)}},
    {.name = "same", .attrs = &(const struct attr_masked_fill){0.5}, .in = {CASE_F32(3, 5), FLAG(3, 5)}},
    {.name = "empty", .attrs = &(const struct attr_masked_fill){1}, .in = {CASE_F32(0, 5), FLAG(5)}},
    {.name = NULL}};
static const char *const in_masked[] = {"x", "mask", NULL};
static const struct op index_masked_fill = {.name = "masked_fill",
                                            .doc = "x with a value wherever mask (bool, broadcast to x) holds.",
                                            .in_names = in_masked,
                                            .out_names = out_y,
                                            .attrs = attr_fields_masked_fill,
                                            .attr_bytes = sizeof(struct attr_masked_fill),
                                            .traits = OP_ELEMENTWISE | OP_CHEAP,
                                            .infer = infer_masked_fill,
                                            .grad = grad_masked_fill,
                                            .ref = ref_masked_fill,
                                            .inplace = {1},
                                            .cases = cases_masked_fill};

struct cb_tensor *op_masked_fill(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *mask, double value) {
    return graph_node(g, &index_masked_fill, &(struct attr_masked_fill){value}, 2, (struct cb_tensor *[]){x, mask});
}

const struct op *const op_file_index[] = {&index_gather,    &index_scatter_add, &index_index_select,
                                          &index_index_add, &index_masked_fill, NULL};
