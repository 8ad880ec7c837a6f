/* Matrix product with batch broadcasting, transposed operands, bias and an accumulator; b may be stored in half precision or blocks. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs matmul: bool trans_a, bool trans_b

enum { A, B, BIAS, ACC };

/* The product as batches of (m,k) by (k,n); strides are in elements, 0 along broadcast axes. */
struct shape {
    int64_t m, n, k;
    int n_batch;
    int64_t batch[CB_MAX_RANK], a_stride[CB_MAX_RANK], b_stride[CB_MAX_RANK];
};

/* Batch axes of one operand, aligned to the right of the output's. */
static int64_t batch_dim(const struct cb_type *t, int n_batch, int axis) {
    int own = t->rank > 2 ? t->rank - 2 : 0, i = axis - (n_batch - own);
    return i < 0 ? 1 : t->dim[i];
}

static void batch_strides(const struct cb_type *t, int n_batch, int64_t *stride) {
    int64_t step = 1;
    for (int i = t->rank > 2 ? t->rank - 2 : 0; i < t->rank; i++) step *= t->dim[i];
    for (int i = n_batch - 1; i >= 0; i--) {
        int64_t d = batch_dim(t, n_batch, i);
        stride[i] = d == 1 ? 0 : step;
        step *= d;
    }
}

static enum cb_status shape_of(const struct node *node, struct shape *s, struct cb_err *err) {
    const struct attr_matmul *attrs = node->attrs;
    const struct cb_type *a = &node->in[A]->type, *b = &node->in[B]->type;
    char at[TYPE_TEXT], bt[TYPE_TEXT];
    if (!a->rank || !b->rank) FAIL(err, CB_E_SHAPE, "matmul: a is %s, b is %s; wanted rank 1 or more", type_text(a, at), type_text(b, bt));
    if ((a->rank == 1 && attrs->trans_a) || (b->rank == 1 && attrs->trans_b))
        FAIL(err, CB_E_SHAPE, "matmul: a is %s, b is %s; a vector cannot be transposed", type_text(a, at), type_text(b, bt));
    // a vector on the left is a row, on the right a column
    int64_t a_rows = a->rank > 1 ? a->dim[a->rank - 2] : 1, a_cols = a->dim[a->rank - 1];
    int64_t b_rows = b->rank > 1 ? b->dim[b->rank - 2] : b->dim[0], b_cols = b->rank > 1 ? b->dim[b->rank - 1] : 1;
    *s =
        (struct shape){.m = attrs->trans_a ? a_cols : a_rows, .n = attrs->trans_b ? b_rows : b_cols, .k = attrs->trans_a ? a_rows : a_cols};
    int64_t b_inner = attrs->trans_b ? b_cols : b_rows;
    if (s->k != b_inner)
        FAIL(err, CB_E_SHAPE, "matmul: a is %s%s, b is %s%s; inner sizes %lld and %lld differ", type_text(a, at),
             attrs->trans_a ? " transposed" : "", type_text(b, bt), attrs->trans_b ? " transposed" : "", (long long)s->k,
             (long long)b_inner);
    int rank = a->rank > b->rank ? a->rank : b->rank;
    s->n_batch = rank > 2 ? rank - 2 : 0;
    for (int i = 0; i < s->n_batch; i++) {
        int64_t x = batch_dim(a, s->n_batch, i), y = batch_dim(b, s->n_batch, i);
        if (x != y && x != 1 && y != 1)
            FAIL(err, CB_E_SHAPE, "matmul: a is %s, b is %s; leading axes do not broadcast", type_text(a, at), type_text(b, bt));
        s->batch[i] = x == 1 ? y : x;
    }
    batch_strides(a, s->n_batch, s->a_stride);
    batch_strides(b, s->n_batch, s->b_stride);
    return CB_OK;
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct shape s;
    TRY(check_float(node, A, err));
    const struct cb_type *a = &node->in[A]->type, *b = &node->in[B]->type;
    const struct dtype *kind = dtype_of(b->dtype);
    bool half = b->dtype == CB_DTYPE_F16 || b->dtype == CB_DTYPE_BF16;
    if (b->dtype != a->dtype && b->dtype != CB_DTYPE_F32 && !half && !kind->is_quantised)
        FAIL(err, CB_E_DTYPE, "matmul: b is %s beside %s; wanted the same, f32, f16, bf16 or a block type", kind->name,
             dtype_of(a->dtype)->name);
    TRY(shape_of(node, &s, err));
    if (kind->is_quantised && b->rank < 2) FAIL(err, CB_E_SHAPE, "matmul: b is a vector of %s; wanted a matrix", kind->name);
    *out = (struct cb_type){.dtype = a->dtype};
    for (int i = 0; i < s.n_batch; i++) out->dim[out->rank++] = s.batch[i];
    if (a->rank > 1) out->dim[out->rank++] = s.m;
    if (b->rank > 1) out->dim[out->rank++] = s.n;
    if (node->in[BIAS] && b->rank < 2) FAIL(err, CB_E_SHAPE, "matmul: bias given, but b is a vector; wanted a matrix");
    TRY(check_type(node, BIAS, TYPE(a->dtype, s.n), err));
    return check_type(node, ACC, *out, err);
}

/* Offset in elements of batch number i of an operand. */
static int64_t batch_offset(const struct shape *s, const int64_t *stride, int64_t i) {
    int64_t offset = 0;
    for (int axis = s->n_batch - 1; axis >= 0; axis--) {
        offset += i % s->batch[axis] * stride[axis];
        i /= s->batch[axis];
    }
    return offset;
}

/* b of one batch as doubles, laid out (k,n) whatever its storage. */
static void read_b(const struct op_run *run, const struct shape *s, int64_t offset, double *to) {
    const struct attr_matmul *attrs = run->node->attrs;
    const struct cb_type *b = &run->node->in[B]->type;
    const struct dtype *kind = dtype_of(b->dtype);
    int64_t rows = attrs->trans_b ? s->n : s->k, cols = attrs->trans_b ? s->k : s->n;
    float *line = (float *)(to + s->k * s->n);
    for (int64_t r = 0; r < rows; r++) {
        if (kind->is_quantised) kind->to_f32(line, (const char *)run->in[B] + (offset + r * cols) / kind->block * kind->block_bytes, cols);
        for (int64_t c = 0; c < cols; c++) {
            double v = kind->is_quantised ? line[c] : ref_get(b->dtype, run->in[B], offset + r * cols + c);
            to[attrs->trans_b ? c * s->n + r : r * s->n + c] = v;
        }
    }
}

static size_t ref_work(const struct node *node) {
    struct shape s;
    if (shape_of(node, &s, NULL)) return 0;
    return (size_t)(s.k * s.n + s.n) * sizeof(double) + (size_t)(s.k > s.n ? s.k : s.n) * sizeof(float);
}

static void ref(const struct op_run *run) {
    struct shape s;
    if (shape_of(run->node, &s, NULL)) return;
    const struct attr_matmul *attrs = run->node->attrs;
    enum cb_dtype type = run->node->in[A]->type.dtype;
    double *row = run->work, *b = row + s.n;  // (N), (K,N)
    int64_t n_batches = 1, read = -1;
    for (int i = 0; i < s.n_batch; i++) n_batches *= s.batch[i];
    for (int64_t i = 0; i < n_batches * s.m; i++) {
        int64_t batch = i / s.m, m = i % s.m;
        int64_t a_at = batch_offset(&s, s.a_stride, batch), b_at = batch_offset(&s, s.b_stride, batch);
        if (b_at != read) read_b(run, &s, b_at, b);
        read = b_at;
        for (int64_t n = 0; n < s.n; n++) row[n] = 0;
        for (int64_t k = 0; k < s.k; k++) {
            double a = ref_get(type, run->in[A], a_at + (attrs->trans_a ? k * s.m + m : m * s.k + k));
            for (int64_t n = 0; n < s.n; n++) row[n] += a * b[k * s.n + n];
        }
        for (int64_t n = 0; n < s.n; n++) {
            double y = row[n] + (run->in[BIAS] ? ref_get(type, run->in[BIAS], n) : 0);
            if (run->in[ACC]) y += ref_get(type, run->in[ACC], i * s.n + n);
            ref_set(type, run->out[0], i * s.n + n, y);
        }
    }
}

static double flops(const struct node *node) {
    struct shape s;
    if (shape_of(node, &s, NULL)) return 0;
    return 2.0 * (double)type_elements(&node->out[0]->type) * (double)s.k;
}

/* x under another shape; the same tensor where it has that shape already. */
static struct cb_tensor *shaped(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim) {
    struct cb_type want = type_make(x->type.dtype, rank, dim);
    return graph_is_bad(g, x) || shape_equal(&x->type, &want) ? x : op_reshape(g, x, rank, dim);
}

/* A gradient summed over broadcast batch axes, in the shape of the operand as it was given. */
static struct cb_tensor *like(struct cb_graph *g, struct cb_tensor *d, const struct cb_type *matrix, const struct cb_type *given) {
    if (graph_is_bad(g, d)) return d;
    if (!shape_equal(&d->type, matrix)) d = op_sum_to(g, d, matrix);
    return shaped(g, d, given->rank, given->dim);
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_matmul *attrs = node->attrs;
    bool ta = attrs->trans_a, tb = attrs->trans_b;
    struct cb_tensor *a = node->in[A], *b = node->in[B], *dy = dout[0];
    struct shape s;
    if (shape_of(node, &s, &g->err)) return;
    // vectors become matrices of one row or column
    int64_t dim[CB_MAX_RANK];
    memcpy(dim, s.batch, sizeof dim);
    dim[s.n_batch] = s.m;
    dim[s.n_batch + 1] = s.n;
    if (a->type.rank == 1) a = shaped(g, a, 2, (int64_t[]){1, s.k});
    if (b->type.rank == 1) b = shaped(g, b, 2, (int64_t[]){s.k, 1});
    dy = shaped(g, dy, s.n_batch + 2, dim);
    if (need[A]) {
        struct cb_tensor *da;
        if (!ta)
            da = op_matmul(g, dy, b, false, !tb);
        else if (b->type.dtype == dy->type.dtype)
            da = op_matmul(g, b, dy, tb, true);
        else
            da = op_transpose(g, op_matmul(g, dy, b, false, !tb), -1, -2);
        din[A] = like(g, da, &a->type, &node->in[A]->type);
    }
    if (need[B] && b->type.dtype != a->type.dtype)
        graph_fail(g, CB_E_DTYPE, "matmul: gradient wanted of b, which is %s beside %s; only b of the same type has one",
                   dtype_of(b->type.dtype)->name, dtype_of(a->type.dtype)->name);
    else if (need[B]) {
        // a plain matrix b: all leading axes of a are rows of one product
        if (b->type.rank == 2 && a->type.rank > 2 && !ta) {
            int64_t rows = s.m;
            for (int i = 0; i < s.n_batch; i++) rows *= s.batch[i];
            a = shaped(g, a, 2, (int64_t[]){rows, s.k});
            dy = shaped(g, dy, 2, (int64_t[]){rows, s.n});
        }
        struct cb_tensor *db = tb ? op_matmul(g, dy, a, true, ta) : op_matmul(g, a, dy, !ta, false);
        din[B] = like(g, db, &b->type, &node->in[B]->type);
    }
    if (node->in[BIAS] && need[BIAS]) din[BIAS] = like(g, dout[0], &node->in[BIAS]->type, &node->in[BIAS]->type);
    if (node->in[ACC] && need[ACC]) din[ACC] = dout[0];
}

static const char *const in_names[] = {"a", "b", "bias?", "acc?", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_matmul plain = {0}, a_turned = {.trans_a = true}, b_turned = {.trans_b = true}, both = {true, true};
static const struct op_case cases[] = {
    {.name = "odd", .attrs = &plain, .in = {CASE_F32(5, 7), CASE_F32(7, 3)}},
    {.name = "linear", .attrs = &b_turned, .in = {CASE_F32(2, 3, 7), CASE_F32(5, 7), CASE_F32(5)}},
    {.name = "linear_in_out", .attrs = &plain, .in = {CASE_F32(2, 3, 7), CASE_F32(7, 5), CASE_F32(5)}},
    {.name = "accumulate", .attrs = &a_turned, .in = {CASE_F32(9, 5), CASE_F32(9, 3), CASE_ABSENT, CASE_F32(5, 3)}},
    {.name = "batched", .attrs = &both, .in = {CASE_F32(2, 3, 7, 5), CASE_F32(2, 3, 2, 7)}},
    {.name = "broadcast", .attrs = &plain, .in = {CASE_F32(2, 1, 5, 4), CASE_F32(3, 4, 3)}},
    {.name = "batched_turned", .attrs = &a_turned, .in = {CASE_F32(3, 4, 5), CASE_F32(4, 2)}},
    {.name = "vectors", .attrs = &plain, .in = {CASE_F32(5), CASE_F32(5)}},
    {.name = "vector_matrix", .attrs = &plain, .in = {CASE_F32(5), CASE_F32(2, 5, 3)}},
    {.name = "matrix_vector", .attrs = &plain, .in = {CASE_F32(3, 5), CASE_F32(5)}},
    {.name = "no_inner", .attrs = &plain, .in = {CASE_F32(2, 0), CASE_F32(0, 3)}},
    {.name = "no_rows", .attrs = &b_turned, .in = {CASE_F32(0, 4), CASE_F32(3, 4), CASE_F32(3)}},
    {.name = "tiles", .attrs = &b_turned, .in = {CASE_F32(37, 67), CASE_F32(53, 67), CASE_F32(53)}, .no_grad = true},
    {.name = "tiles_in_out", .attrs = &plain, .in = {CASE_F32(65, 130), CASE_F32(130, 99)}, .no_grad = true},
    {.name = "tiles_turned", .attrs = &a_turned, .in = {CASE_F32(70, 33), CASE_F32(70, 65)}, .no_grad = true},
    {.name = "blocks_row", .attrs = &b_turned, .in = {CASE_F32(1, 64), CASE_BLOCKS(CB_DTYPE_Q8_0, 35, 64), CASE_F32(35)}, .no_grad = true},
    {.name = "blocks_rows", .attrs = &b_turned, .in = {CASE_F32(3, 96), CASE_BLOCKS(CB_DTYPE_Q4_0, 37, 96)}, .no_grad = true},
    {.name = "blocks_tiles", .attrs = &b_turned, .in = {CASE_F32(29, 512), CASE_BLOCKS(CB_DTYPE_Q6_K, 41, 512)}, .no_grad = true},
    {.name = "blocks_turned", .attrs = &b_turned, .in = {CASE_F32(29, 96), CASE_BLOCKS(CB_DTYPE_Q4_0, 53, 96)}, .no_grad = true},
    {.name = "blocks_turned_q8", .attrs = &b_turned, .in = {CASE_F32(29, 448), CASE_BLOCKS(CB_DTYPE_Q8_0, 71, 448)}, .no_grad = true},
    {.name = "blocks_in_out", .attrs = &plain, .in = {CASE_F32(5, 37), CASE_BLOCKS(CB_DTYPE_Q8_0, 37, 64)}, .no_grad = true},
    {0},
};

/* A weight's product: each row of a gives its own. */
static unsigned by_row(const struct node *node) {
    const struct attr_matmul *attrs = node->attrs;
    return attrs->trans_a || node->in[B]->type.rank > 2 ? 0 : 1u << A | 1u << ACC;
}

/* Whether it is rows of a by one matrix; *k: the inner size. */
static bool is_linear(const struct node *node, int64_t *k) {
    const struct cb_type *a = &node->in[A]->type;
    *k = a->rank ? a->dim[a->rank - 1] : 0;
    return a->rank >= 2 && node->in[B]->type.rank == 2 && !((const struct attr_matmul *)node->attrs)->trans_a;
}

/* A weight's product and the thin one of its low-rank change. */
static struct cb_tensor *join(struct cb_graph *g, const struct node *first, const struct node *second) {
    enum { THIN = 64 };
    int64_t k[2];
    if (!is_linear(first, &k[0]) || !is_linear(second, &k[1]) || (first->in[BIAS] && second->in[BIAS])) return NULL;
    const struct node *wide = k[0] > k[1] ? first : second, *thin = wide == first ? second : first;
    const int64_t rank = wide == first ? k[1] : k[0];
    const enum cb_dtype dtype = wide->in[A]->type.dtype, of_b = wide->in[B]->type.dtype;
    if (rank > THIN || k[0] == k[1] || dtype_of(of_b)->is_quantised) return NULL;
    if (thin->in[B]->type.dtype != dtype || thin->in[A]->type.rank != wide->in[A]->type.rank) return NULL;
    struct cb_tensor *bias = first->in[BIAS] ? first->in[BIAS] : second->in[BIAS];
    struct cb_tensor *const in[] = {wide->in[A], wide->in[B], thin->in[A], thin->in[B], bias, first->in[ACC]};
    return op_matmul_sum(g, in, ((const struct attr_matmul *)wide->attrs)->trans_b, ((const struct attr_matmul *)thin->attrs)->trans_b);
}

static const struct op matmul_op = {
    .name = "matmul",
    .doc =
        "y = a b + bias + acc: a (...,M,K) by b (...,K,N), each transposed in its last two axes on request, leading axes broadcast as "
        "numpy "
        "does; vectors are a row on the left, a column on the right. b may be f16, bf16 or a block type, rows stored along its last axis.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_matmul,
    .attr_bytes = sizeof(struct attr_matmul),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .ref_work = ref_work,
    .by_row = by_row,
    .flops = flops,
    .accumulate = ACC + 1,
    .join = join,
    .tolerance = 2e-5,
    .cases = cases,
};

struct cb_tensor *op_matmul(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, bool trans_a, bool trans_b) {
    struct attr_matmul attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.trans_a = trans_a;
    attrs.trans_b = trans_b;
    return graph_node(g, &matmul_op, &attrs, 2, (struct cb_tensor *[]){a, b});
}

struct cb_tensor *op_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                            bool weight_is_in_out) {
    struct attr_matmul attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.trans_b = !weight_is_in_out;
    return graph_node(g, &matmul_op, &attrs, 3, (struct cb_tensor *[]){x, weight, bias});
}

const struct op *const op_file_matmul[] = {&matmul_op, NULL};
