/* Products of groups of rows with a matrix each (mixtures of experts, Shazeer et al. 2017): sorting rows by group, one product a group, its gradient. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs group_rows: int groups
// @attrs grouped_linear: int first, bool weight_is_in_out
// @attrs grouped_outer: int group

enum { GROUPS_AT_ONCE = 32 }; /* weights of one node */

static const struct op grouped_linear_op, grouped_outer_op;

/* ---- group_rows */
static enum cb_status rows_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_group_rows *attrs = node->attrs;
    const struct cb_type *ids = &node->in[0]->type;
    TRY(check_dtype(node, 0, CB_DTYPE_I32, err));
    TRY(check_rank(node, 0, 2, err));
    if (attrs->groups < 1 || attrs->groups > INT32_MAX - 1 || ids->dim[0] * ids->dim[1] > INT32_MAX)
        FAIL(err, CB_E_ARGUMENT, "group_rows: %lld groups of %lld rows; wanted 1 to 2^31 - 2 of both", (long long)attrs->groups,
             (long long)(ids->dim[0] * ids->dim[1]));
    out[0] = TYPE(CB_DTYPE_I32, ids->dim[0] * ids->dim[1]);
    out[1] = *ids;
    out[2] = TYPE(CB_DTYPE_I32, attrs->groups + 1);
    return CB_OK;
}

/* Counting sort, stable: ids outside of the groups come last. */
static void rows_ref(const struct op_run *run) {
    const struct attr_group_rows *attrs = run->node->attrs;
    const struct cb_type *type = &run->node->in[0]->type;
    const int32_t *ids = run->in[0], groups = (int32_t)attrs->groups;
    int32_t *source = run->out[0], *place = run->out[1], *ends = run->out[2];
    const int64_t k = type->dim[1], n = type->dim[0] * k;
    memset(ends, 0, (size_t)(groups + 1) * sizeof *ends);
    // ends[g + 1] counts group g, then tells where it begins, then where it ends
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < groups) ends[ids[i] + 1]++;
    int32_t next = 0;
    for (int32_t g = 1; g <= groups; g++) {
        int32_t count = ends[g];
        ends[g] = next;
        next += count;
    }
    for (int64_t i = 0; i < n; i++) {
        bool inside = ids[i] >= 0 && ids[i] < groups;
        int32_t at = inside ? ends[ids[i] + 1]++ : next++;
        source[at] = (int32_t)(i / k);
        place[i] = at;
    }
}

static const char *const rows_in[] = {"ids", NULL};
static const char *const rows_out[] = {"source", "place", "ends", NULL};
static const double some_ids[] = {2, 0, 2, 1, 0, 2, 3, 2, -1, 0};
static const struct attr_group_rows three = {3}, five = {5};
#define CASE_GIVEN(values_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = (values_), .no_grad = true }
static const struct op_case rows_cases[] = {
    {.name = "some", .attrs = &three, .in = {CASE_GIVEN(some_ids, 5, 2)}, .no_grad = true},
    {.name = "many", .attrs = &five, .in = {CASE_INDEX(5, 33, 3)}, .no_grad = true},
    {.name = "none", .attrs = &three, .in = {CASE_INDEX(3, 0, 2)}, .no_grad = true},
    {0},
};
static const struct op group_rows_op = {
    .name = "group_rows",
    .doc =
        "Sorts the choices ids i32 (N,K) by group, keeping their order within one: source i32 (N K) is the row n of each sorted choice, "
        "place "
        "i32 (N,K) where each choice went, ends i32 (groups+1): group g has the sorted rows [ends[g], ends[g+1]). Ids outside [0,groups) "
        "come "
        "last and are in no group.",
    .in_names = rows_in,
    .out_names = rows_out,
    .attrs = attr_fields_group_rows,
    .attr_bytes = sizeof(struct attr_group_rows),
    .infer = rows_infer,
    .ref = rows_ref,
    .cases = rows_cases,
};

struct cb_tensor *op_group_rows(struct cb_graph *g, struct cb_tensor *ids, int64_t groups) {
    struct attr_group_rows attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.groups = groups;
    return graph_node(g, &group_rows_op, &attrs, 1, &ids);
}

/* ---- grouped_linear */
enum { X, ENDS, ACC, WEIGHTS };

/* Rows [*begin, *end) of a group, within the R rows there are. */
static void group_range(const int32_t *ends, int64_t group, int64_t rows, int64_t *begin, int64_t *end) {
    int64_t a = ends[group], b = ends[group + 1];
    *begin = a < 0 ? 0 : a > rows ? rows : a;
    *end = b < *begin ? *begin : b > rows ? rows : b;
}

/* ends is i32 of rank 1 and holds groups [first, first + n). */
static enum cb_status ends_check(const struct node *node, int i, int64_t first, int64_t n, struct cb_err *err) {
    char have[TYPE_TEXT];
    TRY(check_dtype(node, i, CB_DTYPE_I32, err));
    TRY(check_rank(node, i, 1, err));
    if (first < 0 || n > node->in[i]->type.dim[0] - 1 - first)
        FAIL(err, CB_E_SHAPE, "%s: ends is %s, groups %lld to %lld are meant; wanted one end more than groups", node->op->name,
             type_text(&node->in[i]->type, have), (long long)first, (long long)(first + n - 1));
    return CB_OK;
}

static enum cb_status linear_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_grouped_linear *attrs = node->attrs;
    const struct cb_type *x = &node->in[X]->type;
    char have[TYPE_TEXT], want[TYPE_TEXT];
    TRY(check_float(node, X, err));
    TRY(check_rank(node, X, 2, err));
    if (node->n_in <= WEIGHTS || node->n_in > WEIGHTS + GROUPS_AT_ONCE)
        FAIL(err, CB_E_ARGUMENT, "grouped_linear: %d weights; wanted 1 to %d", node->n_in - WEIGHTS, GROUPS_AT_ONCE);
    TRY(ends_check(node, ENDS, attrs->first, node->n_in - WEIGHTS, err));
    const struct cb_type *w = node->in[WEIGHTS] ? &node->in[WEIGHTS]->type : NULL;
    for (int i = WEIGHTS; i < node->n_in; i++) {
        if (!node->in[i]) FAIL(err, CB_E_ARGUMENT, "grouped_linear: weight %d is absent; all wanted", i - WEIGHTS);
        const struct cb_type *t = &node->in[i]->type;
        const struct dtype *kind = dtype_of(t->dtype);
        bool half = t->dtype == CB_DTYPE_F16 || t->dtype == CB_DTYPE_BF16;
        if (t->dtype != x->dtype && t->dtype != CB_DTYPE_F32 && !half && !kind->is_quantised)
            FAIL(err, CB_E_DTYPE, "grouped_linear: a weight is %s beside %s; wanted the same, f32, f16, bf16 or a block type", kind->name,
                 dtype_of(x->dtype)->name);
        if (t->rank != 2 || !shape_equal(t, w) || t->dim[attrs->weight_is_in_out ? 0 : 1] != x->dim[1])
            FAIL(err, CB_E_SHAPE, "grouped_linear: weight %d is %s, x is %s; wanted %s, all of one shape", i - WEIGHTS, type_text(t, have),
                 type_text(x, want), attrs->weight_is_in_out ? "(in,out)" : "(out,in)");
    }
    *out = TYPE(x->dtype, x->dim[0], w->dim[attrs->weight_is_in_out ? 1 : 0]);
    return check_type(node, ACC, *out, err);
}

static size_t linear_ref_work(const struct node *node) { return (size_t)node->in[WEIGHTS]->type.dim[1] * sizeof(float) + 8; }

/* Element c of a row of a weight, which a block type gives through line. */
static double weight_at(const struct cb_type *w, const void *data, const float *line, int64_t row, int64_t c) {
    return dtype_of(w->dtype)->is_quantised ? line[c] : ref_get(w->dtype, data, row * w->dim[1] + c);
}

static void linear_ref(const struct op_run *run) {
    const struct node *node = run->node;
    const struct attr_grouped_linear *attrs = node->attrs;
    const struct cb_type *x = &node->in[X]->type, *y = &node->out[0]->type;
    const int64_t in = x->dim[1], out = y->dim[1];
    float *line = run->work;
    if (!run->in[ACC])
        memset(run->out[0], 0, (size_t)type_bytes(y));
    else if (run->in[ACC] != run->out[0])
        memcpy(run->out[0], run->in[ACC], (size_t)type_bytes(y));
    for (int i = WEIGHTS; i < node->n_in; i++) {
        const struct cb_type *w = &node->in[i]->type;
        const struct dtype *kind = dtype_of(w->dtype);
        int64_t begin, end;
        group_range(run->in[ENDS], attrs->first + i - WEIGHTS, x->dim[0], &begin, &end);
        // row by row of the weight: one output, or what one input adds to all outputs
        for (int64_t row = 0; row < w->dim[0]; row++) {
            if (kind->is_quantised)
                kind->to_f32(line, (const char *)run->in[i] + row * w->dim[1] / kind->block * kind->block_bytes, w->dim[1]);
            for (int64_t r = begin; r < end; r++) {
                double sum = 0, a = attrs->weight_is_in_out ? ref_get(x->dtype, run->in[X], r * in + row) : 0;
                for (int64_t c = 0; c < w->dim[1]; c++) {
                    double v = weight_at(w, run->in[i], line, row, c);
                    if (attrs->weight_is_in_out)
                        ref_set(y->dtype, run->out[0], r * out + c, ref_get(y->dtype, run->out[0], r * out + c) + a * v);
                    else
                        sum += ref_get(x->dtype, run->in[X], r * in + c) * v;
                }
                if (!attrs->weight_is_in_out)
                    ref_set(y->dtype, run->out[0], r * out + row, ref_get(y->dtype, run->out[0], r * out + row) + sum);
            }
        }
    }
}

/* Every row is in at most one group. */
static double linear_flops(const struct node *node) {
    return 2.0 * (double)type_elements(&node->out[0]->type) * (double)node->in[X]->type.dim[1];
}

static struct cb_tensor *linear_node(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *ends, struct cb_tensor *acc, int n,
                                     struct cb_tensor *const *w, int64_t first, bool weight_is_in_out) {
    struct attr_grouped_linear attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.first = first;
    attrs.weight_is_in_out = weight_is_in_out;
    struct cb_tensor *in[WEIGHTS + GROUPS_AT_ONCE] = {x, ends, acc};
    for (int i = 0; i < n; i++) in[WEIGHTS + i] = w[i];
    return graph_node(g, &grouped_linear_op, &attrs, WEIGHTS + n, in);
}

static struct cb_tensor *outer_node(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *ends, int64_t group) {
    struct attr_grouped_outer attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.group = group;
    return graph_node(g, &grouped_outer_op, &attrs, 3, (struct cb_tensor *[]){a, b, ends});
}

static void linear_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    const struct attr_grouped_linear *attrs = node->attrs;
    struct cb_tensor *x = node->in[X], *ends = node->in[ENDS], *dy = dout[0];
    if (need[X]) din[X] = linear_node(g, dy, ends, NULL, node->n_in - WEIGHTS, node->in + WEIGHTS, attrs->first, !attrs->weight_is_in_out);
    if (node->in[ACC] && need[ACC]) din[ACC] = dy;
    for (int i = WEIGHTS; i < node->n_in; i++) {
        if (!need[i]) continue;
        const int64_t group = attrs->first + i - WEIGHTS;
        if (node->in[i]->type.dtype != x->type.dtype)
            graph_fail(g, CB_E_DTYPE,
                       "grouped_linear: gradient wanted of a weight, which is %s beside %s; only one of the same type has one",
                       dtype_of(node->in[i]->type.dtype)->name, dtype_of(x->type.dtype)->name);
        else
            din[i] = attrs->weight_is_in_out ? outer_node(g, x, dy, ends, group) : outer_node(g, dy, x, ends, group);
    }
}

static const char *const linear_in[] = {"x", "ends", "acc?", "...", NULL};
static const char *const linear_out[] = {"y", NULL};
static const double whole[] = {0, 3, 3, 7}, inner[] = {1, 2, 6}, late[] = {0, 1, 2, 5, 9}, blocks[] = {0, 1, 70, 90};
static const struct attr_grouped_linear plain = {0}, in_out = {.weight_is_in_out = true}, from_two = {.first = 2};
static const struct op_case linear_cases[] = {
    {.name = "whole",
     .attrs = &plain,
     .in = {CASE_F32(7, 5), CASE_GIVEN(whole, 4), CASE_ABSENT, CASE_F32(4, 5), CASE_F32(4, 5), CASE_F32(4, 5)}},
    {.name = "in_out", .attrs = &in_out, .in = {CASE_F32(7, 5), CASE_GIVEN(inner, 3), CASE_ABSENT, CASE_F32(5, 3), CASE_F32(5, 3)}},
    {.name = "accumulate", .attrs = &plain, .in = {CASE_F32(7, 5), CASE_GIVEN(inner, 3), CASE_F32(7, 4), CASE_F32(4, 5), CASE_F32(4, 5)}},
    {.name = "one_of_four", .attrs = &from_two, .in = {CASE_F32(8, 3), CASE_GIVEN(late, 5), CASE_ABSENT, CASE_F32(2, 3)}},
    {.name = "no_rows", .attrs = &plain, .in = {CASE_F32(0, 3), CASE_GIVEN(whole, 4), CASE_ABSENT, CASE_F32(2, 3)}},
    {.name = "tiles",
     .attrs = &plain,
     .in = {CASE_F32(95, 67), CASE_GIVEN(blocks, 4), CASE_ABSENT, CASE_F32(53, 67), CASE_F32(53, 67), CASE_F32(53, 67)},
     .no_grad = true},
    {.name = "tiles_in_out",
     .attrs = &in_out,
     .in = {CASE_F32(95, 67), CASE_GIVEN(blocks, 4), CASE_F32(95, 70), CASE_F32(67, 70), CASE_F32(67, 70), CASE_F32(67, 70)},
     .no_grad = true},
    {0},
};
static const struct op grouped_linear_op = {
    .name = "grouped_linear",
    .doc =
        "y = acc + x W_g' for the rows [ends[g], ends[g+1]) of x (R,in) of each group g = first, first + 1, ..., with a weight (out,in) "
        "each, or "
        "(in,out) where weight_is_in_out; other rows keep acc (absent: 0). ends i32 (groups+1); weights may be in f16, bf16 or a block "
        "type.",
    .in_names = linear_in,
    .out_names = linear_out,
    .attrs = attr_fields_grouped_linear,
    .attr_bytes = sizeof(struct attr_grouped_linear),
    .infer = linear_infer,
    .grad = linear_grad,
    .ref = linear_ref,
    .ref_work = linear_ref_work,
    .flops = linear_flops,
    .accumulate = ACC + 1,
    .cases = linear_cases,
};

struct cb_tensor *op_grouped_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *ends, struct cb_tensor *acc, int n,
                                    struct cb_tensor *const *weights, int64_t first, bool weight_is_in_out) {
    if (n < 1) return graph_fail(g, CB_E_ARGUMENT, "grouped_linear: %d weights; wanted one or more", n);
    for (int i = 0; i < n; i += GROUPS_AT_ONCE)
        acc = linear_node(g, x, ends, acc, n - i < GROUPS_AT_ONCE ? n - i : GROUPS_AT_ONCE, weights + i, first + i, weight_is_in_out);
    return acc;
}

/* ---- grouped_outer */
static enum cb_status outer_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_grouped_outer *attrs = node->attrs;
    const struct cb_type *a = &node->in[0]->type, *b = &node->in[1]->type;
    char at[TYPE_TEXT], bt[TYPE_TEXT];
    TRY(check_float(node, 0, err));
    TRY(check_dtype(node, 1, a->dtype, err));
    TRY(check_rank(node, 0, 2, err));
    TRY(check_rank(node, 1, 2, err));
    if (a->dim[0] != b->dim[0])
        FAIL(err, CB_E_SHAPE, "grouped_outer: a is %s, b is %s; wanted as many rows", type_text(a, at), type_text(b, bt));
    TRY(ends_check(node, 2, attrs->group, 1, err));
    *out = TYPE(a->dtype, a->dim[1], b->dim[1]);
    return check_type(node, 3, *out, err);
}

static void outer_ref(const struct op_run *run) {
    const struct attr_grouped_outer *attrs = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    const int64_t m = y->dim[0], n = y->dim[1];
    int64_t begin, end;
    group_range(run->in[2], attrs->group, run->node->in[0]->type.dim[0], &begin, &end);
    for (int64_t i = 0; i < m * n; i++) {
        double sum = run->in[3] ? ref_get(y->dtype, run->in[3], i) : 0;
        for (int64_t r = begin; r < end; r++)
            sum += ref_get(y->dtype, run->in[0], r * m + i / n) * ref_get(y->dtype, run->in[1], r * n + i % n);
        ref_set(y->dtype, run->out[0], i, sum);
    }
}

static void outer_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    const struct attr_grouped_outer *attrs = node->attrs;
    struct cb_tensor *ends = node->in[2];
    if (need[0]) din[0] = linear_node(g, node->in[1], ends, NULL, 1, dout, attrs->group, false);
    if (need[1]) din[1] = linear_node(g, node->in[0], ends, NULL, 1, dout, attrs->group, true);
    if (node->in[3] && need[3]) din[3] = dout[0];
}

/* As if the rows were shared evenly. */
static double outer_flops(const struct node *node) {
    return 2.0 * (double)type_elements(&node->out[0]->type) * (double)node->in[0]->type.dim[0] / (double)(node->in[2]->type.dim[0] - 1);
}

static const char *const outer_in[] = {"a", "b", "ends", "acc?", NULL};
static const char *const outer_out[] = {"y", NULL};
static const struct attr_grouped_outer group_zero = {0}, group_one = {1}, group_two = {2};
static const struct op_case outer_cases[] = {
    {.name = "first", .attrs = &group_zero, .in = {CASE_F32(7, 3), CASE_F32(7, 4), CASE_GIVEN(whole, 4)}},
    {.name = "empty", .attrs = &group_one, .in = {CASE_F32(7, 3), CASE_F32(7, 4), CASE_GIVEN(whole, 4)}},
    {.name = "accumulate", .attrs = &group_two, .in = {CASE_F32(7, 3), CASE_F32(7, 4), CASE_GIVEN(whole, 4), CASE_F32(3, 4)}},
    {.name = "tiles", .attrs = &group_one, .in = {CASE_F32(95, 70), CASE_F32(95, 67), CASE_GIVEN(blocks, 4)}, .no_grad = true},
    {0},
};
static const struct op grouped_outer_op = {
    .name = "grouped_outer",
    .doc =
        "y (M,N) = acc + a' b over the rows [ends[group], ends[group+1]) of a (R,M) and b (R,N): the gradient of a weight of "
        "grouped_linear.",
    .in_names = outer_in,
    .out_names = outer_out,
    .attrs = attr_fields_grouped_outer,
    .attr_bytes = sizeof(struct attr_grouped_outer),
    .infer = outer_infer,
    .grad = outer_grad,
    .ref = outer_ref,
    .flops = outer_flops,
    .accumulate = 4,
    .cases = outer_cases,
};

const struct op *const op_file_grouped[] = {&group_rows_op, &grouped_linear_op, &grouped_outer_op, NULL};
