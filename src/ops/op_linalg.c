/* Dense linear algebra of small matrices: inverse, solve, Cholesky factor, log-determinant and singular values (Golub and Van Loan). */
#include <math.h>
#include <string.h>

#include "ops/build.h"
#include "ops/infer.h"
#include "ops/ops.h"

static const struct op inverse_op, solve_op, cholesky_op, logdet_op, svdvals_op, svd_op;

/* a is (...,N,N) of rank 2 or more. */
static enum cb_status check_square(const struct node *node, struct cb_err *err) {
    const struct cb_type *a = &node->in[0]->type;
    char have[TYPE_TEXT];
    TRY(check_float(node, 0, err));
    if (a->rank < 2 || a->dim[a->rank - 1] != a->dim[a->rank - 2])
        FAIL(err, CB_E_SHAPE, "%s: a is %s; wanted square matrices in its last two axes", node->op->name, type_text(a, have));
    return CB_OK;
}

static enum cb_status infer_square(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(check_square(node, err));
    *out = node->in[0]->type;
    return CB_OK;
}

static enum cb_status solve_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(check_square(node, err));
    const struct cb_type *a = &node->in[0]->type, *b = &node->in[1]->type;
    struct cb_type want = *a;
    if (b->rank == a->rank) want.dim[a->rank - 1] = b->dim[a->rank - 1];
    *out = want;
    return check_type(node, 1, want, err);
}

static enum cb_status logdet_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(check_square(node, err));
    *out = node->in[0]->type;
    out->rank -= 2;
    return CB_OK;
}

static int64_t order_of(const struct node *node) { return node->in[0]->type.dim[node->in[0]->type.rank - 1]; }

static int64_t batches_of(const struct node *node) {
    const struct cb_type *a = &node->in[0]->type;
    int64_t n = 1;
    for (int i = 0; i < a->rank - 2; i++) n *= a->dim[i];
    return n;
}

static size_t square_work(const struct node *node) { return (size_t)(order_of(node) * order_of(node)) * sizeof(double); }

static size_t solve_work(const struct node *node) {
    const struct cb_type *b = &node->in[1]->type;
    return square_work(node) + (size_t)(order_of(node) * b->dim[b->rank - 1]) * sizeof(double);
}

static void read(enum cb_dtype dtype, const void *from, int64_t at, int64_t n, double *to) {
    for (int64_t i = 0; i < n; i++) to[i] = ref_get(dtype, from, at + i);
}

static void write(enum cb_dtype dtype, void *to, int64_t at, int64_t n, const double *from) {
    for (int64_t i = 0; i < n; i++) ref_set(dtype, to, at + i, from[i]);
}

/* Gaussian elimination with row pivots on a (n,n), carried along in b (n,k), nullable. Returns the sign of the permutation; a keeps the pivots. */
static double eliminate(double *a, int64_t n, double *b, int64_t k) {
    double sign = 1;
    for (int64_t c = 0; c < n; c++) {
        int64_t pivot = c;
        for (int64_t r = c + 1; r < n; r++)
            if (fabs(a[r * n + c]) > fabs(a[pivot * n + c])) pivot = r;
        if (pivot != c) {
            sign = -sign;
            for (int64_t j = 0; j < n; j++) {
                double t = a[c * n + j];
                a[c * n + j] = a[pivot * n + j], a[pivot * n + j] = t;
            }
            for (int64_t j = 0; j < k; j++) {
                double t = b[c * k + j];
                b[c * k + j] = b[pivot * k + j], b[pivot * k + j] = t;
            }
        }
        for (int64_t r = c + 1; r < n; r++) {
            double f = a[r * n + c] / a[c * n + c];
            for (int64_t j = c; j < n; j++) a[r * n + j] -= f * a[c * n + j];
            for (int64_t j = 0; j < k; j++) b[r * k + j] -= f * b[c * k + j];
        }
    }
    return sign;
}

/* b = a^-1 b, destroying a. A singular a gives infinities or NaN. */
static void solve(double *a, int64_t n, double *b, int64_t k) {
    eliminate(a, n, b, k);
    for (int64_t r = n - 1; r >= 0; r--)
        for (int64_t j = 0; j < k; j++) {
            for (int64_t c = r + 1; c < n; c++) b[r * k + j] -= a[r * n + c] * b[c * k + j];
            b[r * k + j] /= a[r * n + r];
        }
}

static size_t inverse_work(const struct node *node) { return 2 * square_work(node); }

static void inverse_ref(const struct op_run *run) {
    int64_t n = order_of(run->node), size = n * n;
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    double *a = run->work, *b = a + size;
    for (int64_t i = 0; i < batches_of(run->node); i++) {
        read(dtype, run->in[0], i * size, size, a);
        for (int64_t k = 0; k < size; k++) b[k] = k / n == k % n;
        solve(a, n, b, n);
        write(dtype, run->out[0], i * size, size, b);
    }
}

static void solve_ref(const struct op_run *run) {
    int64_t n = order_of(run->node), k = run->node->in[1]->type.dim[run->node->in[1]->type.rank - 1];
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    double *a = run->work, *b = a + n * n;
    for (int64_t i = 0; i < batches_of(run->node); i++) {
        read(dtype, run->in[0], i * n * n, n * n, a);
        read(dtype, run->in[1], i * n * k, n * k, b);
        solve(a, n, b, k);
        write(dtype, run->out[0], i * n * k, n * k, b);
    }
}

/* L L^T = (a + a^T) / 2. */
static void cholesky_ref(const struct op_run *run) {
    int64_t n = order_of(run->node);
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    double *l = run->work;
    for (int64_t i = 0; i < batches_of(run->node); i++) {
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < n; c++) {
                double sum = (ref_get(dtype, run->in[0], (i * n + r) * n + c) + ref_get(dtype, run->in[0], (i * n + c) * n + r)) / 2;
                for (int64_t k = 0; k < c && c <= r; k++) sum -= l[r * n + k] * l[c * n + k];
                l[r * n + c] = c > r ? 0 : c == r ? sqrt(sum) : sum / l[c * n + c];
            }
        write(dtype, run->out[0], i * n * n, n * n, l);
    }
}

static void logdet_ref(const struct op_run *run) {
    int64_t n = order_of(run->node);
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    double *a = run->work;
    for (int64_t i = 0; i < batches_of(run->node); i++) {
        read(dtype, run->in[0], i * n * n, n * n, a);
        double sign = eliminate(a, n, NULL, 0), sum = 0;
        for (int64_t k = 0; k < n; k++) {
            sum += log(fabs(a[k * n + k]));
            if (a[k * n + k] < 0) sign = -sign;
        }
        ref_set(dtype, run->out[0], i, sign > 0 || (isinf(sum) && sum < 0) ? sum : NAN);
    }
}

static struct cb_tensor *turned(struct cb_graph *g, struct cb_tensor *x) { return op_transpose(g, x, -1, -2); }

/* da = -y^T dy y^T */
static void inverse_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    struct cb_tensor *y = node->out[0];
    if (need[0]) din[0] = op_unary(g, "neg", op_matmul(g, op_matmul(g, y, dout[0], true, false), y, false, true));
}

/* db = a^-T dy, da = -db y^T */
static void solve_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    struct cb_tensor *db = op_solve(g, turned(g, node->in[0]), dout[0]);
    if (need[0]) din[0] = op_unary(g, "neg", op_matmul(g, db, node->out[0], false, true));
    if (need[1]) din[1] = db;
}

/* da = (s + s^T) / 2, s = L^-T phi(L^T dL) L^-1, phi the lower triangle with half its diagonal (Murray, 2016). */
static void cholesky_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                          struct cb_tensor **din) {
    if (!need[0]) return;
    struct cb_tensor *l = node->out[0], *m = op_matmul(g, l, dout[0], true, false);
    struct cb_tensor *phi = op_scale(g, op_add(g, op_tril(g, m, 0, false), op_tril(g, m, -1, false)), 0.5, 0);
    struct cb_tensor *lt = turned(g, l), *s = op_solve(g, lt, turned(g, op_solve(g, lt, phi)));
    din[0] = op_scale(g, op_add(g, s, turned(g, s)), 0.5, 0);
}

static void logdet_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    int64_t dim[CB_MAX_RANK];
    const struct cb_type *a = &node->in[0]->type;
    memcpy(dim, a->dim, sizeof dim);
    dim[a->rank - 1] = dim[a->rank - 2] = 1;
    if (need[0]) din[0] = op_mul(g, turned(g, op_inverse(g, node->in[0])), op_reshape(g, dout[0], a->rank, dim));
}

static double cube(const struct node *node) {
    double n = (double)order_of(node);
    return (double)batches_of(node) * n * n * n;
}

/* ---- singular values by one-sided Jacobi rotations (Hestenes, 1958) */
struct svd {
    int64_t m, n;  // of the tall form: m >= n
    bool is_turned;  // the matrix given is its transpose
    double *w, *v;  // (m,n) columns that become u s; (n,n)
};

static size_t svd_work(const struct node *node) {
    const struct cb_type *a = &node->in[0]->type;
    int64_t rows = a->dim[a->rank - 2], cols = a->dim[a->rank - 1], n = rows < cols ? rows : cols;
    return (size_t)(rows * cols + n * n) * sizeof(double);
}

static struct svd svd_of(const struct op_run *run, int64_t batch) {
    const struct cb_type *a = &run->node->in[0]->type;
    int64_t rows = a->dim[a->rank - 2], cols = a->dim[a->rank - 1];
    struct svd s = {.m = rows, .n = cols, .is_turned = rows < cols, .w = run->work};
    if (s.is_turned) s.m = cols, s.n = rows;
    s.v = s.w + rows * cols;
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t r = i / cols, c = i % cols;
        s.w[s.is_turned ? c * s.n + r : i] = ref_get(a->dtype, run->in[0], batch * rows * cols + i);
    }
    for (int64_t i = 0; i < s.n * s.n; i++) s.v[i] = i / s.n == i % s.n;
    return s;
}

/* Makes columns p and q of w orthogonal; returns how far they were from it. */
static double rotate(struct svd *s, int64_t p, int64_t q) {
    double pp = 0, qq = 0, pq = 0;
    for (int64_t i = 0; i < s->m; i++) {
        double x = s->w[i * s->n + p], y = s->w[i * s->n + q];
        pp += x * x, qq += y * y, pq += x * y;
    }
    if (pq == 0 || !isfinite(pq)) return 0;
    double zeta = (qq - pp) / (2 * pq), t = copysign(1, zeta) / (fabs(zeta) + sqrt(1 + zeta * zeta)), c = 1 / sqrt(1 + t * t), d = c * t;
    for (int64_t i = 0; i < s->m + s->n; i++) {
        double *row = i < s->m ? s->w + i * s->n : s->v + (i - s->m) * s->n, x = row[p], y = row[q];
        row[p] = c * x - d * y;
        row[q] = d * x + c * y;
    }
    return fabs(pq) / sqrt(pp * qq);
}

/* Runs the rotations and sorts the columns, the longest first. */
static void svd_run(struct svd *s) {
    double off = 1;
    for (int sweep = 0; sweep < 60 && off > 1e-15; sweep++) {
        off = 0;
        for (int64_t p = 0; p < s->n; p++)
            for (int64_t q = p + 1; q < s->n; q++) off = fmax(off, rotate(s, p, q));
    }
    for (int64_t p = 0; p < s->n; p++)
        for (int64_t q = p + 1; q < s->n; q++) {
            double a = 0, b = 0;
            for (int64_t i = 0; i < s->m; i++) a += s->w[i * s->n + p] * s->w[i * s->n + p], b += s->w[i * s->n + q] * s->w[i * s->n + q];
            for (int64_t i = 0; b > a && i < s->m + s->n; i++) {
                double *row = i < s->m ? s->w + i * s->n : s->v + (i - s->m) * s->n, t = row[p];
                row[p] = row[q], row[q] = t;
            }
        }
}

static double column_length(const struct svd *s, int64_t k) {
    double sum = 0;
    for (int64_t i = 0; i < s->m; i++) sum += s->w[i * s->n + k] * s->w[i * s->n + k];
    return sqrt(sum);
}

static void svdvals_ref(const struct op_run *run) {
    for (int64_t b = 0; b < batches_of(run->node); b++) {
        struct svd s = svd_of(run, b);
        svd_run(&s);
        for (int64_t k = 0; k < s.n; k++) ref_set(run->node->in[0]->type.dtype, run->out[0], b * s.n + k, column_length(&s, k));
    }
}

static void svd_ref(const struct op_run *run) {
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    for (int64_t b = 0; b < batches_of(run->node); b++) {
        struct svd s = svd_of(run, b);
        svd_run(&s);
        void *tall = run->out[s.is_turned ? 1 : 0], *small = run->out[s.is_turned ? 0 : 1];
        for (int64_t k = 0; k < s.n; k++) {
            double length = column_length(&s, k);
            for (int64_t i = 0; i < s.m; i++) ref_set(dtype, tall, (b * s.m + i) * s.n + k, length > 0 ? s.w[i * s.n + k] / length : 0);
            for (int64_t i = 0; i < s.n; i++) ref_set(dtype, small, (b * s.n + i) * s.n + k, s.v[i * s.n + k]);
        }
    }
}

static enum cb_status svdvals_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct cb_type *a = &node->in[0]->type;
    TRY(check_float(node, 0, err));
    if (a->rank < 2) FAIL(err, CB_E_SHAPE, "%s: a of rank %d; wanted 2 or more", node->op->name, a->rank);
    *out = *a;
    out->rank--;
    if (a->dim[a->rank - 1] < a->dim[a->rank - 2]) out->dim[out->rank - 1] = a->dim[a->rank - 1];
    return CB_OK;
}

static enum cb_status svd_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    struct cb_type s = {0};
    TRY(svdvals_infer(node, &s, n_out, err));
    const struct cb_type *a = &node->in[0]->type;
    out[0] = out[1] = *a;
    out[0].dim[a->rank - 1] = out[1].dim[a->rank - 1] = s.dim[s.rank - 1];
    out[1].dim[a->rank - 2] = a->dim[a->rank - 1];
    return CB_OK;
}

/* da = u diag(ds) v^T */
static void svdvals_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    if (!need[0]) return;
    struct cb_tensor *u = graph_node(g, &svd_op, NULL, 1, node->in);
    const struct cb_type *s = &node->out[0]->type;
    int64_t dim[CB_MAX_RANK];
    memcpy(dim, s->dim, sizeof dim);
    dim[s->rank] = dim[s->rank - 1];
    dim[s->rank - 1] = 1;
    din[0] = op_matmul(g, op_mul(g, u, op_reshape(g, dout[0], s->rank + 1, dim)), graph_out(g, u, 1), false, true);
}

static const char *const in_a[] = {"a", NULL};
static const char *const in_a_b[] = {"a", "b", NULL};
static const char *const out_y[] = {"y", NULL};
static const char *const out_u_v[] = {"u", "v", NULL};
static const double given[] = {4, 1, 0.5, 1, 5, -1, 0.5, -1, 3, 3, 0.2, 0.1, 0.3, 2, 0.4, -0.2, 0.1, 4};
#define CASE_MATRIX(...) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = given }
static const struct op_case square_cases[] = {{.name = "one", .in = {CASE_MATRIX(3, 3)}},
                                              {.name = "batched", .in = {CASE_MATRIX(2, 3, 3)}},
                                              {.name = "none", .in = {CASE_F32(0, 3, 3)}},
                                              {0}};
static const struct op_case solve_cases[] = {
    {.name = "one", .in = {CASE_MATRIX(3, 3), CASE_F32(3, 2)}}, {.name = "batched", .in = {CASE_MATRIX(2, 3, 3), CASE_F32(2, 3, 1)}}, {0}};
static const struct op_case svdvals_cases[] = {
    {.name = "tall", .in = {CASE_F32(5, 3)}, .no_second = true}, {.name = "wide", .in = {CASE_F32(2, 2, 4)}, .no_second = true}, {0}};
static const struct op_case svd_cases[] = {{.name = "tall", .in = {CASE_F32(5, 3)}, .no_grad = true}, {0}};

static const struct op inverse_op = {.name = "inverse",
                                     .doc = "Inverse of the matrices a (...,N,N); infinities or NaN where one is singular.",
                                     .in_names = in_a,
                                     .out_names = out_y,
                                     .infer = infer_square,
                                     .grad = inverse_grad,
                                     .ref = inverse_ref,
                                     .ref_work = inverse_work,
                                     .flops = cube,
                                     .cases = square_cases};
static const struct op solve_op = {.name = "solve",
                                   .doc = "a^-1 b of a (...,N,N) and b (...,N,K); infinities or NaN where a is singular.",
                                   .in_names = in_a_b,
                                   .out_names = out_y,
                                   .infer = solve_infer,
                                   .grad = solve_grad,
                                   .ref = solve_ref,
                                   .ref_work = solve_work,
                                   .flops = cube,
                                   .cases = solve_cases};
static const struct op cholesky_op = {.name = "cholesky",
                                      .doc = "Lower L with L L^T = (a + a^T) / 2 for a (...,N,N); NaN where that is not positive definite.",
                                      .in_names = in_a,
                                      .out_names = out_y,
                                      .infer = infer_square,
                                      .grad = cholesky_grad,
                                      .ref = cholesky_ref,
                                      .ref_work = square_work,
                                      .flops = cube,
                                      .cases = square_cases};
static const struct op logdet_op = {.name = "logdet",
                                    .doc = "log of the determinants of a (...,N,N); -infinity for 0, NaN for a negative one.",
                                    .in_names = in_a,
                                    .out_names = out_y,
                                    .infer = logdet_infer,
                                    .grad = logdet_grad,
                                    .ref = logdet_ref,
                                    .ref_work = square_work,
                                    .flops = cube,
                                    .cases = square_cases};
static const struct op svdvals_op = {
    .name = "svdvals",
    .doc = "Singular values (...,min(M,N)) of a (...,M,N), falling. Differentiable once, where they differ.",
    .in_names = in_a,
    .out_names = out_y,
    .infer = svdvals_infer,
    .grad = svdvals_grad,
    .ref = svdvals_ref,
    .ref_work = svd_work,
    .cases = svdvals_cases};
static const struct op svd_op = {
    .name = "svd",
    .doc =
        "Singular vectors of a (...,M,N) as columns: u (...,M,K), v (...,N,K), K = min(M,N), by falling singular value. "
        "Not differentiable.",
    .in_names = in_a,
    .out_names = out_u_v,
    .infer = svd_infer,
    .ref = svd_ref,
    .ref_work = svd_work,
    .cases = svd_cases};

struct cb_tensor *op_inverse(struct cb_graph *g, struct cb_tensor *a) {
    return graph_node(g, &inverse_op, NULL, 1, &a);
}
struct cb_tensor *op_cholesky(struct cb_graph *g, struct cb_tensor *a) {
    return graph_node(g, &cholesky_op, NULL, 1, &a);
}
struct cb_tensor *op_logdet(struct cb_graph *g, struct cb_tensor *a) {
    return graph_node(g, &logdet_op, NULL, 1, &a);
}
struct cb_tensor *op_svdvals(struct cb_graph *g, struct cb_tensor *a) {
    return graph_node(g, &svdvals_op, NULL, 1, &a);
}

struct cb_tensor *op_solve(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    if (graph_is_bad(g, a) || graph_is_bad(g, b)) return &g->bad_tensor;
    if (a->type.rank != 2 || b->type.rank != 1) return graph_node(g, &solve_op, NULL, 2, (struct cb_tensor *[]){a, b});
    int64_t n = b->type.dim[0];
    struct cb_tensor *column = op_reshape(g, b, 2, (int64_t[]){n, 1});
    return op_reshape(g, graph_node(g, &solve_op, NULL, 2, (struct cb_tensor *[]){a, column}), 1, &n);
}

const struct op *const op_file_linalg[] = {&inverse_op, &solve_op, &cholesky_op, &logdet_op, &svdvals_op, &svd_op, NULL};
