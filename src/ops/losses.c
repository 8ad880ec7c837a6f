/* Losses as compositions of other ops. */
#include "ops/losses.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/build.h"
#include "ops/infer.h"
#include "ops/ops.h"

static const int64_t last[] = {-1};

struct cb_tensor *loss_reduce(struct cb_graph *g, struct cb_tensor *x, const char *reduction) {
    if (strcmp(reduction, "mean") == 0) return op_mean(g, x, 0, NULL, false);
    if (strcmp(reduction, "sum") == 0) return op_sum(g, x, 0, NULL, false);
    if (strcmp(reduction, "none") == 0) return x;
    return graph_fail(g, CB_E_ARGUMENT, "loss: reduction '%s'; wanted mean, sum or none", reduction);
}

struct cb_tensor *loss_mse(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, const char *reduction) {
    return loss_reduce(g, op_unary(g, "square", op_sub(g, x, target)), reduction);
}

struct cb_tensor *loss_l1(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, const char *reduction) {
    return loss_reduce(g, op_unary(g, "abs", op_sub(g, x, target)), reduction);
}

/* |d| past the bend, d^2 / (2 bend) + bend / 2 below it, less bend / 2: with c = min(|d|, bend), (c^2 / 2 + bend (|d| - c)). */
static struct cb_tensor *bent(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double bend) {
    struct cb_tensor *d = op_unary(g, "abs", op_sub(g, x, target));
    struct cb_tensor *c = op_clamp(g, d, -INFINITY, bend);
    return op_add(g, op_scale(g, op_unary(g, "square", c), 0.5, 0), op_scale(g, op_sub(g, d, c), bend, 0));
}

struct cb_tensor *loss_smooth_l1(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double beta, const char *reduction) {
    if (!(beta >= 0)) return graph_fail(g, CB_E_ARGUMENT, "smooth_l1: beta %g; wanted 0 or more", beta);
    if (beta == 0) return loss_l1(g, x, target, reduction);
    return loss_reduce(g, op_scale(g, bent(g, x, target, beta), 1 / beta, 0), reduction);
}

struct cb_tensor *loss_huber(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double delta, const char *reduction) {
    if (!(delta > 0)) return graph_fail(g, CB_E_ARGUMENT, "huber: delta %g; wanted above 0", delta);
    return loss_reduce(g, bent(g, x, target, delta), reduction);
}

struct cb_tensor *loss_bce_with_logits(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, struct cb_tensor *weight,
                                       struct cb_tensor *pos_weight, const char *reduction) {
    // (1 - y) x - (1 + (w - 1) y) log sigmoid(x)
    struct cb_tensor *log_p = op_unary(g, "log_sigmoid", x);
    if (pos_weight) log_p = op_mul(g, log_p, op_scale(g, op_mul(g, op_scale(g, pos_weight, 1, -1), target), 1, 1));
    struct cb_tensor *loss = op_sub(g, op_mul(g, op_scale(g, target, -1, 1), x), log_p);
    return loss_reduce(g, weight ? op_mul(g, loss, weight) : loss, reduction);
}

struct cb_tensor *loss_nll(struct cb_graph *g, struct cb_tensor *logp, struct cb_tensor *target, struct cb_tensor *weight,
                           int64_t ignore_index, const char *reduction) {
    if (graph_is_bad(g, logp) || graph_is_bad(g, target)) return &g->bad_tensor;
    if (logp->type.rank != 2 || target->type.rank != 1 || target->type.dtype != CB_DTYPE_I32)
        return graph_fail(g, CB_E_SHAPE, "nll: logp of rank %d, target %s of rank %d; wanted (N,V) and i32 (N)", logp->type.rank,
                          dtype_of(target->type.dtype)->name, target->type.rank);
    int64_t n = logp->type.dim[0];
    struct cb_tensor *keep = op_compare(g, "ne", target, ops_scalar(g, CB_DTYPE_I32, (double)ignore_index));
    // ignored targets read class 0, times 0
    struct cb_tensor *safe = op_mul(g, target, op_cast(g, keep, CB_DTYPE_I32));
    struct cb_tensor *share = op_cast(g, keep, logp->type.dtype);
    if (weight) share = op_mul(g, share, op_index_select(g, weight, safe, 0));
    struct cb_tensor *picked = op_reshape(g, op_gather(g, logp, op_reshape(g, safe, 2, (int64_t[]){n, 1}), 1), 1, &n);
    struct cb_tensor *loss = op_unary(g, "neg", op_mul(g, picked, share));
    if (strcmp(reduction, "mean") != 0) return loss_reduce(g, loss, reduction);
    return op_div(g, op_sum(g, loss, 0, NULL, false), op_sum(g, share, 0, NULL, false));
}

struct cb_tensor *loss_kl_div(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, bool log_target, const char *reduction) {
    if (graph_is_bad(g, x) || graph_is_bad(g, target)) return &g->bad_tensor;
    enum cb_dtype dtype = x->type.dtype;
    struct cb_tensor *loss;
    if (log_target) {
        loss = op_mul(g, op_unary(g, "exp", target), op_sub(g, target, x));
    } else {
        // 0 log 0 is 0
        struct cb_tensor *some = op_compare(g, "gt", target, ops_scalar(g, dtype, 0));
        struct cb_tensor *log_t = op_unary(g, "log", op_where(g, some, target, ops_scalar(g, dtype, 1)));
        loss = op_mul(g, target, op_sub(g, log_t, x));
    }
    if (strcmp(reduction, "batchmean") != 0) return loss_reduce(g, loss, reduction);
    int64_t rows = x->type.rank ? x->type.dim[0] : 1;
    return op_scale(g, op_sum(g, loss, 0, NULL, false), 1 / (double)rows, 0);
}

/* The length of x along an axis, no smaller than eps. */
static struct cb_tensor *length(struct cb_graph *g, struct cb_tensor *x, int64_t axis, bool keep, double eps) {
    return op_unary(g, "sqrt", op_clamp(g, op_sum(g, op_unary(g, "square", x), 1, &axis, keep), eps * eps, INFINITY));
}

struct cb_tensor *loss_cosine_embedding(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *target,
                                        double margin, const char *reduction) {
    if (graph_is_bad(g, a) || graph_is_bad(g, target)) return &g->bad_tensor;
    struct cb_tensor *similarity = op_cosine_similarity(g, a, b, -1, 1e-6);
    struct cb_tensor *same = op_compare(g, "gt", target, ops_scalar(g, target->type.dtype, 0));
    struct cb_tensor *apart = op_unary(g, "relu", op_scale(g, similarity, 1, -margin));
    return loss_reduce(g, op_where(g, same, op_scale(g, similarity, -1, 1), apart), reduction);
}

/* |a - b + 1e-6| of rows. */
static struct cb_tensor *distance(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return op_unary(g, "sqrt", op_sum(g, op_unary(g, "square", op_scale(g, op_sub(g, a, b), 1, 1e-6)), 1, last, false));
}

struct cb_tensor *loss_triplet(struct cb_graph *g, struct cb_tensor *anchor, struct cb_tensor *positive, struct cb_tensor *negative,
                               double margin, bool swap, const char *reduction) {
    struct cb_tensor *far = distance(g, anchor, negative);
    if (swap) far = op_minimum(g, far, distance(g, positive, negative));
    struct cb_tensor *gap = op_scale(g, op_sub(g, distance(g, anchor, positive), far), 1, margin);
    return loss_reduce(g, op_unary(g, "relu", gap), reduction);
}

struct cb_tensor *loss_margin_ranking(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *target, double margin,
                                      const char *reduction) {
    struct cb_tensor *gap = op_scale(g, op_mul(g, target, op_sub(g, a, b)), -1, margin);
    return loss_reduce(g, op_unary(g, "relu", gap), reduction);
}

struct cb_tensor *loss_hinge_embedding(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double margin,
                                       const char *reduction) {
    if (graph_is_bad(g, target)) return target;
    struct cb_tensor *same = op_compare(g, "gt", target, ops_scalar(g, target->type.dtype, 0));
    return loss_reduce(g, op_where(g, same, x, op_unary(g, "relu", op_scale(g, x, -1, margin))), reduction);
}

struct cb_tensor *loss_info_nce(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, double temperature) {
    if (graph_is_bad(g, a) || graph_is_bad(g, b)) return &g->bad_tensor;
    if (a->type.rank != 2 || !type_equal(&a->type, &b->type) || !(temperature > 0))
        return graph_fail(g, CB_E_SHAPE, "info_nce: inputs of rank %d and %d, temperature %g; wanted two of (N,C), above 0", a->type.rank,
                          b->type.rank, temperature);
    int64_t n = a->type.dim[0];
    a = op_div(g, a, length(g, a, -1, true, 1e-12));
    b = op_div(g, b, length(g, b, -1, true, 1e-12));
    struct cb_tensor *scores = op_scale(g, op_matmul(g, a, b, false, true), 1 / temperature, 0);
    int32_t *ids = malloc(n ? (size_t)n * sizeof *ids : 1);
    if (!ids) return graph_fail(g, CB_E_MEMORY, "info_nce: out of memory");
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    struct cb_tensor *labels = graph_const(g, TYPE(CB_DTYPE_I32, n), ids);
    free(ids);
    struct cb_tensor *both =
        op_add(g, op_cross_entropy(g, scores, labels, "mean"), op_cross_entropy(g, op_transpose(g, scores, 0, 1), labels, "mean"));
    return op_scale(g, both, 0.5, 0);
}
