/* Products of sequences with a matrix each, chosen by an index (batches of many modules, Chen et al. 2023 "Punica"): the product and its gradient. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs indexed_linear: int first, bool weight_is_in_out
// @attrs indexed_outer: int number

enum { WEIGHTS_AT_ONCE = 32 }; /* of one node */

static const struct op indexed_linear_op, indexed_outer_op;

/* ---- indexed_linear */
enum { X, INDEX, ACC, WEIGHTS };

static enum cb_status index_check(const struct node *node, int i, const struct cb_type *x, struct cb_err *err) {
    char have[TYPE_TEXT], want[TYPE_TEXT];
    const struct cb_type *index = &node->in[i]->type;
    TRY(check_dtype(node, i, CB_DTYPE_I32, err));
    if (index->rank != 1 || index->dim[0] != x->dim[0])
        FAIL(err, CB_E_SHAPE, "%s: index is %s beside %s; wanted one a sequence", node->op->name, type_text(index, have),
             type_text(x, want));
    return CB_OK;
}

static enum cb_status linear_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_indexed_linear *attrs = node->attrs;
    const struct cb_type *x = &node->in[X]->type, *w = NULL;
    char have[TYPE_TEXT], want[TYPE_TEXT];
    TRY(check_float(node, X, err));
    TRY(check_rank(node, X, 3, err));
    TRY(index_check(node, INDEX, x, err));
    if (node->n_in <= WEIGHTS || node->n_in > WEIGHTS + WEIGHTS_AT_ONCE)
        FAIL(err, CB_E_ARGUMENT, "indexed_linear: %d weights; wanted 1 to %d", node->n_in - WEIGHTS, WEIGHTS_AT_ONCE);
    for (int i = WEIGHTS; i < node->n_in; i++) {
        const struct cb_type *t = node->in[i] ? &node->in[i]->type : NULL;
        if (!t) continue;
        if (!w) w = t;
        if (t->dtype != x->dtype)
            FAIL(err, CB_E_DTYPE, "indexed_linear: a weight is %s beside %s; wanted the same", dtype_of(t->dtype)->name,
                 dtype_of(x->dtype)->name);
        if (t->rank != 2 || !shape_equal(t, w) || t->dim[attrs->weight_is_in_out ? 0 : 1] != x->dim[2])
            FAIL(err, CB_E_SHAPE, "indexed_linear: weight %d is %s, x is %s; wanted %s, all of one shape", i - WEIGHTS, type_text(t, have),
                 type_text(x, want), attrs->weight_is_in_out ? "(in,out)" : "(out,in)");
    }
    if (!w) FAIL(err, CB_E_ARGUMENT, "indexed_linear: no weight is present; wanted one or more");
    *out = TYPE(x->dtype, x->dim[0], x->dim[1], w->dim[attrs->weight_is_in_out ? 1 : 0]);
    return check_type(node, ACC, *out, err);
}

/* The weight of sequence b; -1: none. */
static int weight_of(const struct node *node, const int32_t *index, int64_t b) {
    const int64_t i = index[b] - ((const struct attr_indexed_linear *)node->attrs)->first;
    return i >= 0 && i < node->n_in - WEIGHTS && node->in[WEIGHTS + i] ? WEIGHTS + (int)i : -1;
}

static void linear_ref(const struct op_run *run) {
    const struct node *node = run->node;
    const bool in_out = ((const struct attr_indexed_linear *)node->attrs)->weight_is_in_out;
    const struct cb_type *x = &node->in[X]->type, *y = &node->out[0]->type;
    const int64_t t = x->dim[1], in = x->dim[2], out = y->dim[2];
    for (int64_t i = 0; i < type_elements(y); i++) {
        const int64_t row = i / out, o = i % out;
        const int w = weight_of(node, run->in[INDEX], t ? row / t : 0);
        double sum = run->in[ACC] ? ref_get(y->dtype, run->in[ACC], i) : 0;
        for (int64_t k = 0; w >= 0 && k < in; k++)
            sum += ref_get(x->dtype, run->in[X], row * in + k) * ref_get(x->dtype, run->in[w], in_out ? k * out + o : o * in + k);
        ref_set(y->dtype, run->out[0], i, sum);
    }
}

/* Every sequence has at most one weight. */
static double linear_flops(const struct node *node) {
    return 2.0 * (double)type_elements(&node->out[0]->type) * (double)node->in[X]->type.dim[2];
}

static struct cb_tensor *linear_node(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, struct cb_tensor *acc, int n,
                                     struct cb_tensor *const *w, int64_t first, bool weight_is_in_out) {
    struct attr_indexed_linear attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.first = first;
    attrs.weight_is_in_out = weight_is_in_out;
    struct cb_tensor *in[WEIGHTS + WEIGHTS_AT_ONCE] = {x, index, acc};
    for (int i = 0; i < n; i++) in[WEIGHTS + i] = w[i];
    return graph_node(g, &indexed_linear_op, &attrs, WEIGHTS + n, in);
}

static struct cb_tensor *outer_node(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *index, int64_t number) {
    struct attr_indexed_outer attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.number = number;
    return graph_node(g, &indexed_outer_op, &attrs, 3, (struct cb_tensor *[]){a, b, index});
}

static void linear_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    const struct attr_indexed_linear *attrs = node->attrs;
    struct cb_tensor *x = node->in[X], *index = node->in[INDEX], *dy = dout[0];
    if (need[X]) din[X] = linear_node(g, dy, index, NULL, node->n_in - WEIGHTS, node->in + WEIGHTS, attrs->first, !attrs->weight_is_in_out);
    if (node->in[ACC] && need[ACC]) din[ACC] = dy;
    for (int i = WEIGHTS; i < node->n_in; i++) {
        const int64_t number = attrs->first + i - WEIGHTS;
        if (node->in[i] && need[i])
            din[i] = attrs->weight_is_in_out ? outer_node(g, x, dy, index, number) : outer_node(g, dy, x, index, number);
    }
}

static const char *const linear_in[] = {"x", "index", "acc?", "...", NULL};
static const char *const linear_out[] = {"y", NULL};
#define CASE_GIVEN(values_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = (values_), .no_grad = true }
static const double four[] = {1, 0, 1, 2}, outside[] = {-1, 3, 5, 3}, runs[] = {2, 2, 0, 0, 0, 1, -1, 2};
static const struct attr_indexed_linear plain = {0}, in_out = {.weight_is_in_out = true}, from_three = {.first = 3};
static const struct op_case linear_cases[] = {
    {.name = "each",
     .attrs = &plain,
     .in = {CASE_F32(4, 3, 5), CASE_GIVEN(four, 4), CASE_ABSENT, CASE_F32(4, 5), CASE_F32(4, 5), CASE_F32(4, 5)}},
    {.name = "in_out",
     .attrs = &in_out,
     .in = {CASE_F32(4, 3, 5), CASE_GIVEN(four, 4), CASE_ABSENT, CASE_F32(5, 4), CASE_F32(5, 4), CASE_F32(5, 4)}},
    {.name = "some",
     .attrs = &from_three,
     .in = {CASE_F32(4, 2, 5), CASE_GIVEN(outside, 4), CASE_F32(4, 2, 3), CASE_F32(3, 5), CASE_F32(3, 5)}},
    {.name = "absent", .attrs = &plain, .in = {CASE_F32(4, 2, 5), CASE_GIVEN(four, 4), CASE_F32(4, 2, 3), CASE_ABSENT, CASE_F32(3, 5)}},
    {.name = "none", .attrs = &plain, .in = {CASE_F32(4, 0, 5), CASE_GIVEN(four, 4), CASE_ABSENT, CASE_F32(3, 5)}},
    {.name = "tiles",
     .attrs = &plain,
     .in = {CASE_F32(8, 33, 67), CASE_GIVEN(runs, 8), CASE_F32(8, 33, 53), CASE_F32(53, 67), CASE_F32(53, 67), CASE_F32(53, 67)},
     .no_grad = true},
    {.name = "rows",
     .attrs = &in_out,
     .in = {CASE_F32(8, 1, 300), CASE_GIVEN(runs, 8), CASE_ABSENT, CASE_F32(300, 8), CASE_F32(300, 8), CASE_F32(300, 8)},
     .no_grad = true},
    {0},
};
static const struct op indexed_linear_op = {
    .name = "indexed_linear",
    .doc =
        "y[b] = acc[b] + x[b] W' for each sequence b of x (B,T,in), W being the weight (out,in), or (in,out) where weight_is_in_out, of "
        "number "
        "index[b] - first; sequences without one keep acc (absent: 0). index i32 (B); weights may be absent.",
    .in_names = linear_in,
    .out_names = linear_out,
    .attrs = attr_fields_indexed_linear,
    .attr_bytes = sizeof(struct attr_indexed_linear),
    .infer = linear_infer,
    .grad = linear_grad,
    .ref = linear_ref,
    .flops = linear_flops,
    .accumulate = ACC + 1,
    .cases = linear_cases,
};

struct cb_tensor *op_indexed_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, struct cb_tensor *acc, int n,
                                    struct cb_tensor *const *weights, bool weight_is_in_out) {
    if (n < 1) return graph_fail(g, CB_E_ARGUMENT, "indexed_linear: %d weights; wanted one or more", n);
    for (int i = 0; i < n; i += WEIGHTS_AT_ONCE) {
        const int some = n - i < WEIGHTS_AT_ONCE ? n - i : WEIGHTS_AT_ONCE;
        bool is_any = false;
        for (int k = i; k < i + some; k++) is_any |= weights[k] != NULL;
        if (is_any) acc = linear_node(g, x, index, acc, some, weights + i, i, weight_is_in_out);
    }
    return acc ? acc : graph_fail(g, CB_E_ARGUMENT, "indexed_linear: no weight is present; wanted one or more");
}

/* ---- indexed_outer */
static enum cb_status outer_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct cb_type *a = &node->in[0]->type, *b = &node->in[1]->type;
    char at[TYPE_TEXT], bt[TYPE_TEXT];
    TRY(check_float(node, 0, err));
    TRY(check_dtype(node, 1, a->dtype, err));
    TRY(check_rank(node, 0, 3, err));
    TRY(check_rank(node, 1, 3, err));
    if (a->dim[0] != b->dim[0] || a->dim[1] != b->dim[1])
        FAIL(err, CB_E_SHAPE, "indexed_outer: a is %s, b is %s; wanted as many rows", type_text(a, at), type_text(b, bt));
    TRY(index_check(node, 2, a, err));
    *out = TYPE(a->dtype, a->dim[2], b->dim[2]);
    return check_type(node, 3, *out, err);
}

static void outer_ref(const struct op_run *run) {
    const struct attr_indexed_outer *attrs = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    const int64_t m = y->dim[0], n = y->dim[1], t = x->dim[1];
    const int32_t *index = run->in[2];
    for (int64_t i = 0; i < m * n; i++) {
        double sum = run->in[3] ? ref_get(y->dtype, run->in[3], i) : 0;
        for (int64_t r = 0; r < x->dim[0] * t; r++)
            if (index[r / t] == attrs->number)
                sum += ref_get(y->dtype, run->in[0], r * m + i / n) * ref_get(y->dtype, run->in[1], r * n + i % n);
        ref_set(y->dtype, run->out[0], i, sum);
    }
}

static void outer_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    const struct attr_indexed_outer *attrs = node->attrs;
    struct cb_tensor *index = node->in[2];
    if (need[0]) din[0] = linear_node(g, node->in[1], index, NULL, 1, dout, attrs->number, false);
    if (need[1]) din[1] = linear_node(g, node->in[0], index, NULL, 1, dout, attrs->number, true);
    if (node->in[3] && need[3]) din[3] = dout[0];
}

/* As if the sequences were shared evenly by two. */
static double outer_flops(const struct node *node) {
    const struct cb_type *x = &node->in[0]->type;
    return (double)type_elements(&node->out[0]->type) * (double)x->dim[0] * (double)x->dim[1];
}

static const char *const outer_in[] = {"a", "b", "index", "acc?", NULL};
static const char *const outer_out[] = {"y", NULL};
static const struct attr_indexed_outer number_one = {1}, number_two = {2};
static const struct op_case outer_cases[] = {
    {.name = "some", .attrs = &number_one, .in = {CASE_F32(4, 2, 3), CASE_F32(4, 2, 5), CASE_GIVEN(four, 4)}},
    {.name = "none", .attrs = &number_two, .in = {CASE_F32(4, 2, 3), CASE_F32(4, 2, 5), CASE_GIVEN(outside, 4)}},
    {.name = "accumulate", .attrs = &number_one, .in = {CASE_F32(4, 2, 3), CASE_F32(4, 2, 5), CASE_GIVEN(four, 4), CASE_F32(3, 5)}},
    {.name = "tiles", .attrs = &number_two, .in = {CASE_F32(8, 33, 8), CASE_F32(8, 33, 67), CASE_GIVEN(runs, 8)}, .no_grad = true},
    {0},
};
static const struct op indexed_outer_op = {
    .name = "indexed_outer",
    .doc =
        "y (M,N) = acc + the sum of a[b]' b[b] over the sequences b of a (B,T,M) and b (B,T,N) whose index is number: the gradient of a "
        "weight of "
        "indexed_linear.",
    .in_names = outer_in,
    .out_names = outer_out,
    .attrs = attr_fields_indexed_outer,
    .attr_bytes = sizeof(struct attr_indexed_outer),
    .infer = outer_infer,
    .grad = outer_grad,
    .ref = outer_ref,
    .flops = outer_flops,
    .accumulate = 4,
    .cases = outer_cases,
};

const struct op *const op_file_indexed[] = {&indexed_linear_op, &indexed_outer_op, NULL};
