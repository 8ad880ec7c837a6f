/* Rows of a table by number, and their gradient: a deterministic sum of rows. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs embedding: bool has_padding, int padding_idx
// @attrs embedding_grad: int rows, bool has_padding, int padding_idx

static const struct op embedding_op, embedding_grad_op;

static bool is_compute(enum cb_dtype dtype) { return dtype == CB_DTYPE_F32 || dtype == CB_DTYPE_F64; }

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct cb_type *table = &node->in[0]->type, *ids = &node->in[1]->type;
    const struct dtype *kind = dtype_of(table->dtype);
    char have[TYPE_TEXT];
    TRY(check_rank(node, 0, 2, err));
    if (!kind->is_float && !kind->is_quantised) FAIL(err, CB_E_DTYPE, "embedding: table is %s; wanted numbers", type_text(table, have));
    TRY(check_dtype(node, 1, CB_DTYPE_I32, err));
    if (ids->rank >= CB_MAX_RANK)
        FAIL(err, CB_E_SHAPE, "embedding: ids is %s; wanted rank %d or less", type_text(ids, have), CB_MAX_RANK - 1);
    *out = *ids;
    out->dtype = is_compute(table->dtype) ? table->dtype : CB_DTYPE_F32;
    out->dim[out->rank++] = table->dim[1];
    return CB_OK;
}

static size_t ref_work(const struct node *node) { return (size_t)node->in[0]->type.dim[1] * sizeof(float); }

static void ref(const struct op_run *run) {
    const struct cb_type *table = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    const struct dtype *kind = dtype_of(table->dtype);
    int64_t v = table->dim[0], c = table->dim[1], n = type_elements(&run->node->in[1]->type);
    const int32_t *ids = run->in[1];
    float *row = run->work;
    for (int64_t i = 0; i < n; i++) {
        bool is_inside = ids[i] >= 0 && ids[i] < v;
        if (is_inside && !is_compute(table->dtype))
            kind->to_f32(row, (const char *)run->in[0] + ids[i] * (c / kind->block) * kind->block_bytes, c);
        for (int64_t k = 0; k < c; k++) {
            double x = !is_inside ? NAN : is_compute(table->dtype) ? ref_get(table->dtype, run->in[0], ids[i] * c + k) : row[k];
            ref_set(y->dtype, run->out[0], i * c + k, x);
        }
    }
}

static struct cb_tensor *table_grad(struct cb_graph *g, struct cb_tensor *ids, struct cb_tensor *dy, int64_t rows, bool has_padding,
                                    int64_t padding_idx) {
    struct attr_embedding_grad attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.rows = rows;
    attrs.has_padding = has_padding;
    attrs.padding_idx = padding_idx;
    return graph_node(g, &embedding_grad_op, &attrs, 2, (struct cb_tensor *[]){ids, dy});
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_embedding *attrs = node->attrs;
    const struct cb_type *table = &node->in[0]->type;
    if (!need[0]) return;
    if (!is_compute(table->dtype))
        graph_fail(g, CB_E_DTYPE, "embedding: gradient wanted of a table in %s; wanted f32 or f64", dtype_of(table->dtype)->name);
    else
        din[0] = table_grad(g, node->in[1], dout[0], table->dim[0], attrs->has_padding, attrs->padding_idx);
}

static enum cb_status back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_embedding_grad *attrs = node->attrs;
    const struct cb_type *ids = &node->in[0]->type, *dy = &node->in[1]->type;
    TRY(check_dtype(node, 0, CB_DTYPE_I32, err));
    TRY(check_float(node, 1, err));
    if (dy->rank < 1 || attrs->rows < 0)
        FAIL(err, CB_E_SHAPE, "embedding_grad: dy of rank %d, %lld rows; wanted rank 1 or more, rows 0 or more", dy->rank,
             (long long)attrs->rows);
    struct cb_type want = *ids;
    want.dtype = dy->dtype;
    want.dim[want.rank < CB_MAX_RANK ? want.rank : CB_MAX_RANK - 1] = dy->dim[dy->rank - 1];
    want.rank = want.rank < CB_MAX_RANK ? want.rank + 1 : CB_MAX_RANK;
    TRY(check_type(node, 1, want, err));
    *out = TYPE(dy->dtype, attrs->rows, dy->dim[dy->rank - 1]);
    return check_type(node, 2, *out, err);
}

static void back_ref(const struct op_run *run) {
    const struct attr_embedding_grad *attrs = run->node->attrs;
    const struct cb_type *table = &run->node->out[0]->type;
    int64_t v = table->dim[0], c = table->dim[1], n = type_elements(&run->node->in[0]->type);
    const int32_t *ids = run->in[0];
    if (!run->in[2])
        memset(run->out[0], 0, (size_t)type_bytes(table));
    else if (run->in[2] != run->out[0])
        memcpy(run->out[0], run->in[2], (size_t)type_bytes(table));
    // rows are added in the order of the ids
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= v || (attrs->has_padding && ids[i] == attrs->padding_idx)) continue;
        for (int64_t k = 0; k < c; k++)
            ref_set(table->dtype, run->out[0], ids[i] * c + k,
                    ref_get(table->dtype, run->out[0], ids[i] * c + k) + ref_get(table->dtype, run->in[1], i * c + k));
    }
}

static void back_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    const struct attr_embedding_grad *attrs = node->attrs;
    struct cb_tensor *ids = node->in[0];
    if (node->in[2] && need[2]) din[2] = dout[0];
    if (!need[1]) return;
    din[1] = op_embedding(g, dout[0], ids);
    if (!attrs->has_padding) return;
    // rows read for the padding got no gradient
    int32_t padding = (int32_t)attrs->padding_idx;
    struct cb_tensor *keep = op_compare(g, "ne", ids, graph_const(g, TYPE_SCALAR(CB_DTYPE_I32), &padding));
    keep = op_cast(g, keep, dout[0]->type.dtype);
    int64_t dim[CB_MAX_RANK];
    memcpy(dim, ids->type.dim, sizeof dim);
    dim[ids->type.rank] = 1;
    din[1] = op_mul(g, din[1], op_reshape(g, keep, ids->type.rank + 1, dim));
}

static double back_flops(const struct node *node) { return (double)type_elements(&node->in[1]->type); }

static const char *const in_names[] = {"table", "ids", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_embedding no_padding = {0}, padding = {.has_padding = true, .padding_idx = 1};
static const struct op_case cases[] = {
    {.name = "repeats", .attrs = &no_padding, .in = {CASE_F32(5, 7), CASE_INDEX(5, 2, 9)}},
    {.name = "padding", .attrs = &padding, .in = {CASE_F32(5, 3), CASE_INDEX(5, 4)}, .no_grad = true},
    {.name = "no_ids", .attrs = &no_padding, .in = {CASE_F32(5, 3), CASE_INDEX(5, 2, 0)}},
    {.name = "wide", .attrs = &no_padding, .in = {CASE_F32(11, 133), CASE_INDEX(11, 3, 5)}, .no_grad = true},
    {0},
};
static const struct op embedding_op = {
    .name = "embedding",
    .doc =
        "y[...] = table[ids[...]]: table (V,C), ids i32 (...) -> (...,C); a table in another type is read as f32. An id outside [0,V) "
        "gives NaN. "
        "The row of padding_idx gets no gradient.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_embedding,
    .attr_bytes = sizeof(struct attr_embedding),
    .traits = OP_CHEAP,
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .ref_work = ref_work,
    .cases = cases,
};

static const char *const back_in[] = {"ids", "dy", "acc?", NULL};
static const char *const back_out[] = {"dtable", NULL};
static const struct attr_embedding_grad back_plain = {.rows = 5}, back_padding = {.rows = 5, .has_padding = true, .padding_idx = 1};
static const struct op_case back_cases[] = {
    {.name = "repeats", .attrs = &back_plain, .in = {CASE_INDEX(5, 2, 9), CASE_F32(2, 9, 7)}},
    {.name = "padding", .attrs = &back_padding, .in = {CASE_INDEX(5, 11), CASE_F32(11, 3)}},
    {.name = "accumulate", .attrs = &back_plain, .in = {CASE_INDEX(5, 6), CASE_F32(6, 3), CASE_F32(5, 3)}},
    {.name = "no_ids", .attrs = &back_plain, .in = {CASE_INDEX(5, 0), CASE_F32(0, 3)}},
    {0},
};
static const struct op embedding_grad_op = {
    .name = "embedding_grad",
    .doc =
        "dtable[v] = acc[v] + the sum of dy (...,C) over the places where ids (...) is v, in their order; ids outside [0,rows) are left "
        "out.",
    .in_names = back_in,
    .out_names = back_out,
    .attrs = attr_fields_embedding_grad,
    .attr_bytes = sizeof(struct attr_embedding_grad),
    .infer = back_infer,
    .grad = back_grad,
    .ref = back_ref,
    .flops = back_flops,
    .accumulate = 3,
    .cases = back_cases,
};

struct cb_tensor *op_embedding(struct cb_graph *g, struct cb_tensor *table, struct cb_tensor *ids) {
    struct attr_embedding attrs;
    memset(&attrs, 0, sizeof attrs);
    return graph_node(g, &embedding_op, &attrs, 2, (struct cb_tensor *[]){table, ids});
}

struct cb_tensor *op_embedding_padded(struct cb_graph *g, struct cb_tensor *table, struct cb_tensor *ids, int64_t padding_idx) {
    struct attr_embedding attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.has_padding = true;
    attrs.padding_idx = padding_idx;
    return graph_node(g, &embedding_op, &attrs, 2, (struct cb_tensor *[]){table, ids});
}

const struct op *const op_file_embedding[] = {&embedding_op, &embedding_grad_op, NULL};
