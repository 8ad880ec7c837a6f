/* Cross-entropy of logits: one op for rows of logits with integer labels, compositions for class weights, smoothing and soft targets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs cross_entropy: int reduction, int ignore_shift
// @attrs cross_entropy_grad: int reduction, int ignore_shift

enum { MEAN, SUM, NONE };

static const struct op cross_entropy_op, cross_entropy_grad_op;

static int64_t ignored_label(int64_t shift) { return shift - 100; }

static enum cb_status infer_common(const struct node *node, int64_t reduction, struct cb_type *loss, struct cb_err *err) {
    const struct cb_type *logits = &node->in[0]->type;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 2, err));
    TRY(check_type(node, 1, TYPE(CB_DTYPE_I32, logits->dim[0]), err));
    if (reduction < MEAN || reduction > NONE)
        FAIL(err, CB_E_ARGUMENT, "%s: reduction %lld; wanted 0 (mean), 1 (sum) or 2 (none)", node->op->name, (long long)reduction);
    *loss = reduction == NONE ? TYPE(logits->dtype, logits->dim[0]) : TYPE_SCALAR(logits->dtype);
    return CB_OK;
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    return infer_common(node, ((const struct attr_cross_entropy *)node->attrs)->reduction, out, err);
}

/* log of the sum of exp of a row, its greatest value taken out first. */
static double row_lse(enum cb_dtype dtype, const void *x, int64_t at, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, ref_get(dtype, x, at + i));
    if (isinf(max) && max < 0) max = 0;
    for (int64_t i = 0; i < n; i++) sum += exp(ref_get(dtype, x, at + i) - max);
    return max + log(sum);
}

static int64_t count_labels(const int32_t *labels, int64_t n, int64_t ignored) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += labels[i] != ignored;
    return count;
}

static void ref(const struct op_run *run) {
    const struct attr_cross_entropy *attrs = run->node->attrs;
    const struct cb_type *logits = &run->node->in[0]->type;
    int64_t n = logits->dim[0], v = logits->dim[1], ignored = ignored_label(attrs->ignore_shift);
    const int32_t *labels = run->in[1];
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        double loss = 0;
        if (labels[i] != ignored) {
            bool is_inside = labels[i] >= 0 && labels[i] < v;
            loss = is_inside ? row_lse(logits->dtype, run->in[0], i * v, v) - ref_get(logits->dtype, run->in[0], i * v + labels[i]) : NAN;
        }
        if (attrs->reduction == NONE) ref_set(logits->dtype, run->out[0], i, loss);
        total += loss;
    }
    if (attrs->reduction == MEAN) total /= (double)count_labels(labels, n, ignored);
    if (attrs->reduction != NONE) ref_set(logits->dtype, run->out[0], 0, total);
}

static double flops(const struct node *node) { return 3.0 * (double)type_elements(&node->in[0]->type); }

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_cross_entropy *attrs = node->attrs;
    struct attr_cross_entropy_grad back;
    memset(&back, 0, sizeof back);
    back.reduction = attrs->reduction;
    back.ignore_shift = attrs->ignore_shift;
    if (need[0]) din[0] = graph_node(g, &cross_entropy_grad_op, &back, 3, (struct cb_tensor *[]){node->in[0], node->in[1], dout[0]});
}

static enum cb_status back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct cb_type loss;
    TRY(infer_common(node, ((const struct attr_cross_entropy_grad *)node->attrs)->reduction, &loss, err));
    *out = node->in[0]->type;
    return check_type(node, 2, loss, err);
}

static void back_ref(const struct op_run *run) {
    const struct attr_cross_entropy_grad *attrs = run->node->attrs;
    const struct cb_type *logits = &run->node->in[0]->type;
    int64_t n = logits->dim[0], v = logits->dim[1], ignored = ignored_label(attrs->ignore_shift);
    const int32_t *labels = run->in[1];
    double count = attrs->reduction == MEAN ? (double)count_labels(labels, n, ignored) : 1;
    for (int64_t i = 0; i < n; i++) {
        double scale = ref_get(logits->dtype, run->in[2], attrs->reduction == NONE ? i : 0) / count;
        double lse = labels[i] != ignored ? row_lse(logits->dtype, run->in[0], i * v, v) : 0;
        for (int64_t k = 0; k < v; k++) {
            double p = labels[i] != ignored ? exp(ref_get(logits->dtype, run->in[0], i * v + k) - lse) - (labels[i] == k) : 0;
            ref_set(logits->dtype, run->out[0], i * v + k, labels[i] != ignored ? p * scale : 0);
        }
    }
}

/* 0, 1, ... n-1 as i32. */
static struct cb_tensor *arange(struct cb_graph *g, int64_t n) {
    int32_t *values = malloc(n ? (size_t)n * sizeof *values : 1);
    if (!values) return graph_fail(g, CB_E_MEMORY, "cross_entropy: out of memory");
    for (int64_t i = 0; i < n; i++) values[i] = (int32_t)i;
    struct cb_tensor *t = graph_const(g, TYPE(CB_DTYPE_I32, n), values);
    free(values);
    return t;
}

/* 1 where the label counts, 0 where it is ignored, in the logits' type. */
static struct cb_tensor *label_mask(struct cb_graph *g, struct cb_tensor *labels, int64_t ignored, enum cb_dtype dtype) {
    int32_t value = (int32_t)ignored;
    return op_cast(g, op_compare(g, "ne", labels, graph_const(g, TYPE_SCALAR(CB_DTYPE_I32), &value)), dtype);
}

/* (softmax(logits) - onehot(labels)) times each row's share of dloss. */
static void back_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_cross_entropy_grad *attrs = node->attrs;
    struct cb_tensor *logits = node->in[0], *labels = node->in[1], *share = node->in[2];
    int64_t n = logits->type.dim[0], v = logits->type.dim[1];
    enum cb_dtype dtype = logits->type.dtype;
    struct cb_tensor *mask = label_mask(g, labels, ignored_label(attrs->ignore_shift), dtype);
    if (attrs->reduction == MEAN) share = op_div(g, share, op_sum(g, mask, 0, NULL, false));
    share = op_reshape(g, op_mul(g, mask, share), 2, (int64_t[]){n, 1});
    struct cb_tensor *hot = op_cast(g, op_compare(g, "eq", op_reshape(g, labels, 2, (int64_t[]){n, 1}), arange(g, v)), dtype);
    out[0] = op_mul(g, op_sub(g, op_softmax(g, logits, -1), hot), share);
}

static const char *const in_names[] = {"logits", "labels", NULL};
static const char *const out_names[] = {"loss", NULL};
static const struct attr_cross_entropy mean = {.reduction = MEAN}, sum = {.reduction = SUM}, none = {.reduction = NONE},
                                       ignore_one = {.ignore_shift = 101};
#define CASE_LABELS(low_, high_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_INDEX, .low = (low_), .high = (high_), .no_grad = true }
#define CASE_GIVEN(values_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = (values_), .no_grad = true }
static const double some_ignored[] = {2, -100, 0, 4, -100, 1, 3};
static const struct op_case cases[] = {
    {.name = "mean", .attrs = &mean, .in = {CASE_F32(7, 5), CASE_INDEX(5, 7)}},
    {.name = "sum", .attrs = &sum, .in = {CASE_F32(3, 11), CASE_INDEX(11, 3)}},
    {.name = "none", .attrs = &none, .in = {CASE_F32(3, 5), CASE_INDEX(5, 3)}},
    {.name = "ignored", .attrs = &mean, .in = {CASE_F32(7, 5), CASE_GIVEN(some_ignored, 7)}},
    {.name = "ignored_one", .attrs = &ignore_one, .in = {CASE_F32(9, 3), CASE_LABELS(0, 3, 9)}},
    {.name = "no_rows", .attrs = &none, .in = {CASE_F32(0, 5), CASE_INDEX(5, 0)}},
    {.name = "wide", .attrs = &mean, .in = {CASE_F32(9, 1003), CASE_INDEX(1003, 9)}, .no_grad = true},
    {0},
};
static const struct op cross_entropy_op = {
    .name = "cross_entropy",
    .doc =
        "-log softmax(logits)[label] of logits (N,V), labels i32 (N): reduction 0 mean over the rows that count, 1 sum, 2 none (N). Rows "
        "whose "
        "label is ignore_shift - 100 do not count; mean over no row is NaN; a label outside [0,V) gives NaN.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_cross_entropy,
    .attr_bytes = sizeof(struct attr_cross_entropy),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .flops = flops,
    .cases = cases,
};

static const char *const back_in[] = {"logits", "labels", "dloss", NULL};
static const char *const back_out[] = {"dlogits", NULL};
static const struct attr_cross_entropy_grad back_mean = {.reduction = MEAN}, back_none = {.reduction = NONE};
static const struct op_case back_cases[] = {
    {.name = "mean", .attrs = &back_mean, .in = {CASE_F32(7, 5), CASE_GIVEN(some_ignored, 7), CASE_SCALAR}},
    {.name = "none", .attrs = &back_none, .in = {CASE_F32(3, 11), CASE_INDEX(11, 3), CASE_F32(3)}},
    {.name = "no_rows", .attrs = &back_none, .in = {CASE_F32(0, 5), CASE_INDEX(5, 0), CASE_F32(0)}},
    {.name = "wide", .attrs = &back_mean, .in = {CASE_F32(9, 1003), CASE_INDEX(1003, 9), CASE_SCALAR}, .no_grad = true},
    {0},
};
static const struct op cross_entropy_grad_op = {
    .name = "cross_entropy_grad",
    .doc =
        "dlogits = dloss (softmax(logits) - onehot(labels)) / count, zero in rows that do not count; dloss is a scalar, or (N) where "
        "reduction is none.",
    .in_names = back_in,
    .out_names = back_out,
    .attrs = attr_fields_cross_entropy_grad,
    .attr_bytes = sizeof(struct attr_cross_entropy_grad),
    .infer = back_infer,
    .ref = back_ref,
    .expand = back_expand,
    .flops = flops,
    .inplace = {1},
    .cases = back_cases,
};

/* -1 after a failure in g. */
static int reduction_of(struct cb_graph *g, const char *reduction) {
    static const char *const names[] = {"mean", "sum", "none"};
    for (int i = 0; i < 3; i++)
        if (strcmp(reduction, names[i]) == 0) return i;
    graph_fail(g, CB_E_ARGUMENT, "cross_entropy: reduction '%s'; wanted mean, sum or none", reduction);
    return -1;
}

static struct cb_tensor *fused(struct cb_graph *g, struct cb_tensor *logits, struct cb_tensor *labels, int reduction,
                               int64_t ignore_index) {
    struct attr_cross_entropy attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.reduction = reduction;
    attrs.ignore_shift = ignore_index + 100;
    return reduction < 0 ? &g->bad_tensor : graph_node(g, &cross_entropy_op, &attrs, 2, (struct cb_tensor *[]){logits, labels});
}

struct cb_tensor *op_cross_entropy(struct cb_graph *g, struct cb_tensor *logits, struct cb_tensor *labels, const char *reduction) {
    return fused(g, logits, labels, reduction_of(g, reduction), -100);
}

/* Logits with classes on axis 1 (or the only one) as rows (N,V). */
static struct cb_tensor *class_rows(struct cb_graph *g, struct cb_tensor *x) {
    int rank = x->type.rank;
    int64_t axes[CB_MAX_RANK] = {0}, v = rank > 1 ? x->type.dim[1] : x->type.dim[0], n = 1;
    for (int i = 0; i < rank; i++) axes[i] = i < 1 ? i : i + 1 < rank ? i + 1 : 1;
    for (int i = 0; i < rank; i++) n *= i == (rank > 1) ? 1 : x->type.dim[i];
    if (rank > 2) x = op_permute(g, x, rank, axes);
    return op_reshape(g, x, 2, (int64_t[]){n, v});
}

/* Rows of -sum target * logp * weight for targets that are probabilities. */
static struct cb_tensor *soft_rows(struct cb_graph *g, struct cb_tensor *logp, struct cb_tensor *target,
                                   const struct cross_entropy_options *o) {
    int64_t v = logp->type.dim[1];
    target = class_rows(g, target);
    if (o->label_smoothing > 0) target = op_scale(g, target, 1 - o->label_smoothing, o->label_smoothing / (double)v);
    struct cb_tensor *x = op_mul(g, logp, target);
    if (o->weight) x = op_mul(g, x, o->weight);
    return op_unary(g, "neg", op_sum(g, x, 1, (int64_t[]){1}, false));
}

/* Rows of the smoothed loss for labels, and the weight of each row in a mean. */
static struct cb_tensor *hard_rows(struct cb_graph *g, struct cb_tensor *logp, struct cb_tensor *labels,
                                   const struct cross_entropy_options *o, struct cb_tensor **share) {
    int64_t n = logp->type.dim[0], v = logp->type.dim[1];
    labels = op_reshape(g, labels, 1, &n);
    struct cb_tensor *mask = label_mask(g, labels, o->ignore_index, logp->type.dtype);
    // ignored labels read class 0, times 0
    struct cb_tensor *safe = op_mul(g, labels, op_cast(g, mask, CB_DTYPE_I32));
    *share = o->weight ? op_mul(g, mask, op_index_select(g, o->weight, safe, 0)) : mask;
    struct cb_tensor *nll = op_reshape(g, op_gather(g, logp, op_reshape(g, safe, 2, (int64_t[]){n, 1}), 1), 1, &n);
    nll = op_mul(g, nll, *share);
    struct cb_tensor *smooth = op_mul(g, op_sum(g, o->weight ? op_mul(g, logp, o->weight) : logp, 1, (int64_t[]){1}, false), mask);
    double e = o->label_smoothing;
    return e > 0 ? op_add(g, op_scale(g, nll, e - 1, 0), op_scale(g, smooth, -e / (double)v, 0)) : op_unary(g, "neg", nll);
}

struct cb_tensor *op_cross_entropy_full(struct cb_graph *g, struct cb_tensor *logits, struct cb_tensor *target,
                                        const struct cross_entropy_options *o) {
    int reduction = reduction_of(g, o->reduction);
    if (reduction < 0 || graph_is_bad(g, logits) || graph_is_bad(g, target)) return &g->bad_tensor;
    if (logits->type.rank < 1) return graph_fail(g, CB_E_SHAPE, "cross_entropy: logits of rank 0; wanted 1 or more");
    bool is_soft = dtype_of(target->type.dtype)->is_float;
    struct cb_type rows = logits->type;  // the logits' shape without the classes
    int at = rows.rank > 1;
    for (int i = at; i + 1 < rows.rank; i++) rows.dim[i] = rows.dim[i + 1];
    rows.rank--;
    const struct cb_type *want = is_soft ? &logits->type : &rows;
    char have[TYPE_TEXT], text[TYPE_TEXT];
    if (!shape_equal(&target->type, want))
        return graph_fail(g, CB_E_SHAPE, "cross_entropy: target is %s; wanted the shape of %s", type_text(&target->type, have),
                          type_text(want, text));
    struct cb_tensor *x = class_rows(g, logits), *y, *share = NULL;
    if (graph_is_bad(g, x)) return x;
    int64_t n = x->type.dim[0];
    if (!is_soft && !o->weight && o->label_smoothing <= 0) {
        y = fused(g, x, op_reshape(g, target, 1, &n), reduction, o->ignore_index);
        return reduction == NONE ? op_reshape(g, y, rows.rank, rows.dim) : y;
    }
    struct cb_tensor *logp = op_log_softmax(g, x, -1);
    if (graph_is_bad(g, logp)) return logp;
    y = is_soft ? soft_rows(g, logp, target, o) : hard_rows(g, logp, target, o, &share);
    if (reduction == NONE) return op_reshape(g, y, rows.rank, rows.dim);
    y = op_sum(g, y, 0, NULL, false);
    if (reduction == SUM) return y;
    return is_soft ? op_scale(g, y, 1 / (double)n, 0) : op_div(g, y, op_sum(g, share, 0, NULL, false));
}

const struct op *const op_file_cross_entropy[] = {&cross_entropy_op, &cross_entropy_grad_op, NULL};
