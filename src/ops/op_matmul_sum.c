/* Two products over the same rows in one, as of a weight and its low-rank change: the sum is read and written once. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs matmul_sum: bool trans_b, bool trans_b2

enum { A, B, A2, B2, BIAS, ACC };

/* Rows, columns, and the inner size of each product; b and b2 are matrices. */
struct shape {
    int64_t m, n, k, k2;
};

static struct shape shape_of(const struct node *node) {
    const struct attr_matmul_sum *attrs = node->attrs;
    const struct cb_type *a = &node->in[A]->type, *b = &node->in[B]->type, *a2 = &node->in[A2]->type;
    struct shape s = {.m = 1, .n = b->dim[attrs->trans_b ? 0 : 1], .k = a->dim[a->rank - 1], .k2 = a2->dim[a2->rank - 1]};
    for (int i = 0; i < a->rank - 1; i++) s.m *= a->dim[i];
    return s;
}

/* Checks that input b is a matrix of k by n, stored turned where it is said so. */
static enum cb_status check_matrix(const struct node *node, int b, bool turned, int64_t k, int64_t n, struct cb_err *err) {
    const enum cb_dtype dtype = node->in[b]->type.dtype;
    return check_type(node, b, turned ? TYPE(dtype, n, k) : TYPE(dtype, k, n), err);
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_matmul_sum *attrs = node->attrs;
    const struct cb_type *a = &node->in[A]->type;
    TRY(check_float(node, A, err));
    TRY(check_rank(node, B, 2, err));
    if (dtype_of(node->in[B]->type.dtype)->is_quantised)
        FAIL(err, CB_E_DTYPE, "matmul_sum: b is %s; wanted a plain type", dtype_of(node->in[B]->type.dtype)->name);
    TRY(check_rank(node, B2, 2, err));
    if (!a->rank) FAIL(err, CB_E_SHAPE, "matmul_sum: a has rank 0; wanted 1 or more");
    struct cb_type a2 = *a;
    a2.dim[a2.rank - 1] = node->in[B2]->type.dim[attrs->trans_b2 ? 1 : 0];
    TRY(check_type(node, A2, a2, err));
    TRY(check_dtype(node, B2, a->dtype, err));
    const struct shape s = shape_of(node);
    TRY(check_matrix(node, B, attrs->trans_b, s.k, s.n, err));
    TRY(check_matrix(node, B2, attrs->trans_b2, s.k2, s.n, err));
    *out = *a;
    out->dim[out->rank - 1] = s.n;
    TRY(check_type(node, BIAS, TYPE(a->dtype, s.n), err));
    return check_type(node, ACC, *out, err);
}

static struct cb_tensor *product(struct cb_graph *g, const struct node *node, int a, int b, bool turned, struct cb_tensor *bias) {
    return op_linear(g, node->in[a], node->in[b], bias, !turned);
}

static void expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_matmul_sum *attrs = node->attrs;
    out[0] = op_add(g, product(g, node, A, B, attrs->trans_b, node->in[BIAS]), product(g, node, A2, B2, attrs->trans_b2, NULL));
    if (node->in[ACC]) out[0] = op_add(g, node->in[ACC], out[0]);
}

/* One product's share of a row as doubles. */
static void add_row(const struct op_run *run, int a, int b, bool turned, int64_t row, int64_t k, int64_t n, double *out) {
    const enum cb_dtype at = run->node->in[a]->type.dtype, bt = run->node->in[b]->type.dtype;
    for (int64_t j = 0; j < n; j++)
        for (int64_t p = 0; p < k; p++)
            out[j] += ref_get(at, run->in[a], row * k + p) * ref_get(bt, run->in[b], turned ? j * k + p : p * n + j);
}

static void ref(const struct op_run *run) {
    const struct attr_matmul_sum *attrs = run->node->attrs;
    const struct shape s = shape_of(run->node);
    const enum cb_dtype type = run->node->in[A]->type.dtype;
    double *row = run->work;
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            row[j] = run->in[BIAS] ? ref_get(type, run->in[BIAS], j) : 0;
            if (run->in[ACC]) row[j] += ref_get(type, run->in[ACC], i * s.n + j);
        }
        add_row(run, A, B, attrs->trans_b, i, s.k, s.n, row);
        add_row(run, A2, B2, attrs->trans_b2, i, s.k2, s.n, row);
        for (int64_t j = 0; j < s.n; j++) ref_set(type, run->out[0], i * s.n + j, row[j]);
    }
}
static size_t ref_work(const struct node *node) { return (size_t)shape_of(node).n * sizeof(double); }

static double flops(const struct node *node) {
    const struct shape s = shape_of(node);
    return 2.0 * (double)s.m * (double)s.n * (double)(s.k + s.k2);
}

static unsigned by_row(const struct node *node) {
    (void)node;
    return 1u << A | 1u << A2 | 1u << ACC;
}

static const char *const in_names[] = {"a", "b", "a2", "b2", "bias?", "acc?", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_matmul_sum plain = {0}, turned = {true, false}, both = {true, true};
static const struct op_case cases[] = {
    {.name = "plain", .attrs = &plain, .in = {CASE_F32(2, 3, 7), CASE_F32(7, 5), CASE_F32(2, 3, 2), CASE_F32(2, 5), CASE_F32(5)}},
    {.name = "turned",
     .attrs = &turned,
     .in = {CASE_F32(4, 7), CASE_F32(5, 7), CASE_F32(4, 3), CASE_F32(3, 5), CASE_ABSENT, CASE_F32(4, 5)}},
    {.name = "row", .attrs = &both, .in = {CASE_F32(1, 7), CASE_F32(5, 7), CASE_F32(1, 3), CASE_F32(5, 3), CASE_F32(5)}},
    {.name = "no_rows", .attrs = &plain, .in = {CASE_F32(0, 7), CASE_F32(7, 5), CASE_F32(0, 2), CASE_F32(2, 5)}},
    {.name = "no_inner", .attrs = &plain, .in = {CASE_F32(3, 7), CASE_F32(7, 5), CASE_F32(3, 0), CASE_F32(0, 5)}},
    {.name = "tiles",
     .attrs = &both,
     .in = {CASE_F32(137, 867), CASE_F32(353, 867), CASE_F32(137, 8), CASE_F32(353, 8), CASE_F32(353)},
     .no_grad = true},
    {.name = "tiles_in_out",
     .attrs = &plain,
     .in = {CASE_F32(3, 65, 130), CASE_F32(130, 299), CASE_F32(3, 65, 17), CASE_F32(17, 299), CASE_ABSENT, CASE_F32(3, 65, 299)},
     .no_grad = true},
    {.name = "narrow", .attrs = &turned, .in = {CASE_F32(300, 130), CASE_F32(5, 130), CASE_F32(300, 17), CASE_F32(17, 5)}, .no_grad = true},
    {0},
};

static const struct op matmul_sum_op = {
    .name = "matmul_sum",
    .doc =
        "y = a b + a2 b2 + bias + acc: a (...,K) by b (K,N), a2 (...,R) by b2 (R,N), b and b2 each transposed on request. b may be f16 or "
        "bf16.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_matmul_sum,
    .attr_bytes = sizeof(struct attr_matmul_sum),
    .infer = infer,
    .expand = expand,
    .ref = ref,
    .ref_work = ref_work,
    .by_row = by_row,
    .flops = flops,
    .accumulate = ACC + 1,
    .tolerance = 2e-5,
    .cases = cases,
};

struct cb_tensor *op_matmul_sum(struct cb_graph *g, struct cb_tensor *const in[6], bool trans_b, bool trans_b2) {
    struct attr_matmul_sum attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.trans_b = trans_b;
    attrs.trans_b2 = trans_b2;
    return graph_node(g, &matmul_sum_op, &attrs, 6, in);
}

const struct op *const op_file_matmul_sum[] = {&matmul_sum_op, NULL};
