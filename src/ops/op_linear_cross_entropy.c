/* Cross-entropy straight from hidden states and the head's weight, in chunks of rows: the (N,V) logits never exist. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs linear_cross_entropy: bool weight_is_in_out, int reduction, float softcap
// @attrs linear_cross_entropy_grad: bool weight_is_in_out, int reduction, float softcap, bool no_dweight

#define CHUNK 8
#define IGNORED (-100)

enum { X, WEIGHT, LABELS, BIAS, DLOSS = 3, BACK_BIAS = 4, DWEIGHT_ACC = 5 };

static const struct op linear_cross_entropy_op, linear_cross_entropy_grad_op;

/* Vocabulary of a node (either op). */
static int64_t vocabulary(const struct node *node, bool in_out) { return node->in[WEIGHT]->type.dim[in_out ? 1 : 0]; }

static enum cb_status infer_common(const struct node *node, bool in_out, int64_t reduction, double softcap, int bias, struct cb_err *err) {
    const struct cb_type *x = &node->in[X]->type, *weight = &node->in[WEIGHT]->type;
    const struct dtype *kind = dtype_of(weight->dtype);
    TRY(check_float(node, X, err));
    TRY(check_rank(node, X, 2, err));
    TRY(check_rank(node, WEIGHT, 2, err));
    if (!kind->is_float && (!kind->is_quantised || in_out))
        FAIL(err, CB_E_DTYPE, "%s: weight is %s; wanted floating point%s", node->op->name, kind->name, in_out ? "" : " or a block type");
    TRY(check_type(node, WEIGHT, in_out ? TYPE(weight->dtype, x->dim[1], weight->dim[1]) : TYPE(weight->dtype, weight->dim[0], x->dim[1]),
                   err));
    TRY(check_type(node, LABELS, TYPE(CB_DTYPE_I32, x->dim[0]), err));
    TRY(check_type(node, bias, TYPE(x->dtype, vocabulary(node, in_out)), err));
    if (reduction != 0 && reduction != 1)
        FAIL(err, CB_E_ARGUMENT, "%s: reduction %lld; wanted 0 (mean) or 1 (sum)", node->op->name, (long long)reduction);
    if (!(softcap >= 0) || isinf(softcap)) FAIL(err, CB_E_ARGUMENT, "%s: softcap %g; wanted 0 or more", node->op->name, softcap);
    return CB_OK;
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_linear_cross_entropy *attrs = node->attrs;
    TRY(infer_common(node, attrs->weight_is_in_out, attrs->reduction, attrs->softcap, BIAS, err));
    out[0] = out[1] = TYPE_SCALAR(node->in[X]->type.dtype);
    return CB_OK;
}

/* What both refs work on. */
struct job {
    const struct op_run *run;
    enum cb_dtype dtype;
    int64_t n, c, v;
    bool in_out;
    double softcap;
    const void *bias;
    double lse[CHUNK];
    double *logits;  // (CHUNK, V)
    double *row;  // (C): one row of the weight
    float *line;  // (C): the same, as read from blocks
};

static struct job job_of(const struct op_run *run, bool in_out, double softcap, const void *bias) {
    struct job j = {.run = run, .in_out = in_out, .softcap = softcap, .bias = bias};
    j.dtype = run->node->in[X]->type.dtype;
    j.n = run->node->in[X]->type.dim[0];
    j.c = run->node->in[X]->type.dim[1];
    j.v = vocabulary(run->node, in_out);
    j.logits = run->work;
    j.row = j.logits + CHUNK * j.v;
    j.line = (float *)(j.row + j.c);
    return j;
}

static size_t work_bytes(const struct node *node, bool in_out) {
    int64_t c = node->in[X]->type.dim[1];
    return (size_t)(CHUNK * vocabulary(node, in_out) + c) * sizeof(double) + (size_t)c * sizeof(float);
}

/* The weights of word v as doubles in j->row. */
static void read_row(const struct job *j, int64_t v) {
    enum cb_dtype dtype = j->run->node->in[WEIGHT]->type.dtype;
    const struct dtype *kind = dtype_of(dtype);
    const char *w = j->run->in[WEIGHT];
    if (!j->in_out && dtype != CB_DTYPE_F64) kind->to_f32(j->line, w + v * (j->c / kind->block) * kind->block_bytes, j->c);
    for (int64_t k = 0; k < j->c; k++)
        j->row[k] = !j->in_out && dtype != CB_DTYPE_F64 ? j->line[k] : ref_get(dtype, w, j->in_out ? k * j->v + v : v * j->c + k);
}

/* Logits of rows [begin, end), then in their place log-probabilities. Returns the chunk's sum of losses. */
static double chunk_forward(struct job *j, int64_t begin, int64_t end) {
    const int32_t *labels = j->run->in[LABELS];
    for (int64_t v = 0; v < j->v; v++) {
        read_row(j, v);
        for (int64_t i = begin; i < end; i++) {
            double sum = j->bias ? ref_get(j->dtype, j->bias, v) : 0;
            for (int64_t k = 0; k < j->c; k++) sum += ref_get(j->dtype, j->run->in[X], i * j->c + k) * j->row[k];
            j->logits[(i - begin) * j->v + v] = j->softcap > 0 ? j->softcap * tanh(sum / j->softcap) : sum;
        }
    }
    double loss = 0;
    for (int64_t i = begin; i < end; i++) {
        double *p = j->logits + (i - begin) * j->v, max = -INFINITY, sum = 0;
        for (int64_t v = 0; v < j->v; v++) max = fmax(max, p[v]);
        for (int64_t v = 0; v < j->v; v++) sum += exp(p[v] - max);
        j->lse[i - begin] = max + log(sum);
        for (int64_t v = 0; v < j->v; v++) p[v] -= j->lse[i - begin];
        if (labels[i] != IGNORED) loss -= labels[i] >= 0 && labels[i] < j->v ? p[labels[i]] : NAN;
    }
    return loss;
}

static double count_labels(const struct job *j) {
    const int32_t *labels = j->run->in[LABELS];
    double count = 0;
    for (int64_t i = 0; i < j->n; i++) count += labels[i] != IGNORED;
    return count;
}

static size_t ref_work(const struct node *node) {
    return work_bytes(node, ((const struct attr_linear_cross_entropy *)node->attrs)->weight_is_in_out);
}

static void ref(const struct op_run *run) {
    const struct attr_linear_cross_entropy *attrs = run->node->attrs;
    struct job j = job_of(run, attrs->weight_is_in_out, attrs->softcap, run->in[BIAS]);
    double loss = 0, count = count_labels(&j);
    for (int64_t i = 0; i < j.n; i += CHUNK) loss += chunk_forward(&j, i, i + CHUNK < j.n ? i + CHUNK : j.n);
    ref_set(j.dtype, run->out[0], 0, attrs->reduction ? loss : loss / count);
    ref_set(j.dtype, run->out[1], 0, count);
}

static double flops(const struct node *node) {
    return 2.0 * (double)type_elements(&node->in[X]->type) * (double)type_elements(&node->in[WEIGHT]->type) /
           (double)(node->in[X]->type.dim[1] ? node->in[X]->type.dim[1] : 1);
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_linear_cross_entropy *attrs = node->attrs;
    enum cb_dtype have = node->in[WEIGHT]->type.dtype, want = node->in[X]->type.dtype;
    if (!dout[0]) return;
    if (need[WEIGHT] && have != want) {
        graph_fail(g, CB_E_DTYPE, "linear_cross_entropy: gradient wanted of a weight in %s beside %s; wanted the same type",
                   dtype_of(have)->name, dtype_of(want)->name);
        return;
    }
    struct attr_linear_cross_entropy_grad back;
    memset(&back, 0, sizeof back);
    back.weight_is_in_out = attrs->weight_is_in_out;
    back.reduction = attrs->reduction;
    back.softcap = attrs->softcap;
    back.no_dweight = !need[WEIGHT];
    struct cb_tensor *in[] = {node->in[X], node->in[WEIGHT], node->in[LABELS], dout[0], node->in[BIAS]};
    struct cb_tensor *t = graph_node(g, &linear_cross_entropy_grad_op, &back, 5, in);
    if (graph_is_bad(g, t)) return;
    if (need[X]) din[X] = graph_out(g, t, 1);
    if (need[WEIGHT]) din[WEIGHT] = graph_out(g, t, 2);
    if (node->in[BIAS] && need[BIAS]) din[BIAS] = graph_out(g, t, 3);
}

static struct cb_tensor *capped(struct cb_graph *g, struct cb_tensor *logits, double softcap) {
    return softcap > 0 ? op_scale(g, op_unary(g, "tanh", op_scale(g, logits, 1 / softcap, 0)), softcap, 0) : logits;
}

static void expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_linear_cross_entropy *attrs = node->attrs;
    int32_t ignored = IGNORED;
    struct cb_tensor *logits = op_linear(g, node->in[X], node->in[WEIGHT], node->in[BIAS], attrs->weight_is_in_out);
    out[0] = op_cross_entropy(g, capped(g, logits, attrs->softcap), node->in[LABELS], attrs->reduction ? "sum" : "mean");
    struct cb_tensor *counts = op_compare(g, "ne", node->in[LABELS], graph_const(g, TYPE_SCALAR(CB_DTYPE_I32), &ignored));
    out[1] = op_sum(g, op_cast(g, counts, node->in[X]->type.dtype), 0, NULL, false);
}

static enum cb_status back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_linear_cross_entropy_grad *attrs = node->attrs;
    enum cb_dtype dtype = node->in[X]->type.dtype;
    TRY(infer_common(node, attrs->weight_is_in_out, attrs->reduction, attrs->softcap, BACK_BIAS, err));
    TRY(check_type(node, DLOSS, TYPE_SCALAR(dtype), err));
    if (!attrs->no_dweight) TRY(check_dtype(node, WEIGHT, dtype, err));
    out[0] = TYPE_SCALAR(dtype);
    out[1] = node->in[X]->type;
    out[2] = attrs->no_dweight ? TYPE(dtype, 0) : node->in[WEIGHT]->type;
    out[3] = node->in[BACK_BIAS] ? node->in[BACK_BIAS]->type : TYPE(dtype, 0);
    return check_type(node, DWEIGHT_ACC, out[2], err);
}

static size_t back_work(const struct node *node) {
    return work_bytes(node, ((const struct attr_linear_cross_entropy_grad *)node->attrs)->weight_is_in_out);
}

static void add(enum cb_dtype dtype, void *p, int64_t i, double v) { ref_set(dtype, p, i, ref_get(dtype, p, i) + v); }

/* Gradients of rows [begin, end) from the log-probabilities of chunk_forward. */
static void chunk_backward(const struct job *j, int64_t begin, int64_t end, double scale) {
    const struct op_run *run = j->run;
    const struct attr_linear_cross_entropy_grad *attrs = run->node->attrs;
    const int32_t *labels = run->in[LABELS];
    for (int64_t i = begin; i < end; i++) {
        double *p = j->logits + (i - begin) * j->v;
        for (int64_t v = 0; v < j->v; v++) {
            double t = j->softcap > 0 ? (p[v] + j->lse[i - begin]) / j->softcap : 0;
            p[v] = labels[i] == IGNORED ? 0 : (exp(p[v]) - (labels[i] == v)) * scale * (1 - t * t);
        }
    }
    for (int64_t v = 0; v < j->v; v++) {
        read_row(j, v);
        for (int64_t i = begin; i < end; i++) {
            double d = j->logits[(i - begin) * j->v + v];
            if (j->bias) add(j->dtype, run->out[3], v, d);
            for (int64_t k = 0; k < j->c; k++) {
                add(j->dtype, run->out[1], i * j->c + k, d * j->row[k]);
                if (!attrs->no_dweight)
                    add(j->dtype, run->out[2], j->in_out ? k * j->v + v : v * j->c + k, d * ref_get(j->dtype, run->in[X], i * j->c + k));
            }
        }
    }
}

static void back_ref(const struct op_run *run) {
    const struct attr_linear_cross_entropy_grad *attrs = run->node->attrs;
    struct job j = job_of(run, attrs->weight_is_in_out, attrs->softcap, run->in[BACK_BIAS]);
    size_t weight_bytes = (size_t)type_bytes(&run->node->out[2]->type);
    double loss = 0, count = count_labels(&j), share = attrs->reduction ? 1 : count;
    memset(run->out[1], 0, (size_t)type_bytes(&run->node->out[1]->type));
    if (!attrs->no_dweight && !run->in[DWEIGHT_ACC]) memset(run->out[2], 0, weight_bytes);
    if (run->in[DWEIGHT_ACC] && run->in[DWEIGHT_ACC] != run->out[2]) memcpy(run->out[2], run->in[DWEIGHT_ACC], weight_bytes);
    if (j.bias) memset(run->out[3], 0, (size_t)type_bytes(&run->node->out[3]->type));
    for (int64_t i = 0; i < j.n; i += CHUNK) {
        int64_t end = i + CHUNK < j.n ? i + CHUNK : j.n;
        loss += chunk_forward(&j, i, end);
        chunk_backward(&j, i, end, ref_get(j.dtype, run->in[DLOSS], 0) / share);
    }
    ref_set(j.dtype, run->out[0], 0, loss / share);
}

static double back_flops(const struct node *node) {
    return flops(node) * (((const struct attr_linear_cross_entropy_grad *)node->attrs)->no_dweight ? 2 : 3);
}

/* The logits' gradient, carried through the linear layer. */
static void back_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_linear_cross_entropy_grad *attrs = node->attrs;
    struct cb_tensor *x = op_alias(g, node->in[X]), *weight = op_alias(g, node->in[WEIGHT]), *bias = op_alias(g, node->in[BACK_BIAS]);
    struct cb_tensor *logits = op_linear(g, x, weight, bias, attrs->weight_is_in_out);
    out[0] = op_cross_entropy(g, capped(g, logits, attrs->softcap), node->in[LABELS], attrs->reduction ? "sum" : "mean");
    struct cb_tensor *wrt[] = {x, attrs->no_dweight ? NULL : weight, bias};
    op_expand_grad(g, 1, out, &node->in[DLOSS], 3, wrt, out + 1);
    if (g->err.code) return;
    struct cb_type none = TYPE(node->in[X]->type.dtype, 0);
    for (int i = 0; i < 3; i++)
        if (!wrt[i]) out[1 + i] = graph_const(g, none, "");
    if (node->in[DWEIGHT_ACC]) out[2] = op_add(g, node->in[DWEIGHT_ACC], out[2]);
}

static const char *const in_names[] = {"x", "weight", "labels", "bias?", NULL};
static const char *const out_names[] = {"loss", "count", NULL};
static const struct attr_linear_cross_entropy mean = {0}, sum = {.reduction = 1}, in_out = {.weight_is_in_out = true},
                                              soft = {.softcap = 1.5};
#define CASE_GIVEN(values_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = (values_), .no_grad = true }
static const double some_ignored[] = {2, -100, 0, 4, -100, 1, 3, 3, 0, -100, 4};
static const struct op_case cases[] = {
    {.name = "mean", .attrs = &mean, .in = {CASE_F32(11, 3), CASE_F32(5, 3), CASE_GIVEN(some_ignored, 11)}},
    {.name = "sum_bias", .attrs = &sum, .in = {CASE_F32(7, 3), CASE_F32(11, 3), CASE_INDEX(11, 7), CASE_F32(11)}},
    {.name = "in_out", .attrs = &in_out, .in = {CASE_F32(9, 5), CASE_F32(5, 13), CASE_INDEX(13, 9), CASE_F32(13)}},
    {.name = "no_rows", .attrs = &sum, .in = {CASE_F32(0, 3), CASE_F32(5, 3), CASE_INDEX(5, 0)}},
    {.name = "wide", .attrs = &mean, .in = {CASE_F32(37, 33), CASE_F32(517, 33), CASE_INDEX(517, 37), CASE_F32(517)}, .no_grad = true},
    {.name = "softcap", .attrs = &soft, .in = {CASE_F32(11, 3), CASE_F32(5, 3), CASE_GIVEN(some_ignored, 11), CASE_F32(5)}},
    {.name = "softcap_wide", .attrs = &soft, .in = {CASE_F32(37, 33), CASE_F32(517, 33), CASE_INDEX(517, 37)}, .no_grad = true},
    {0},
};
static const struct op linear_cross_entropy_op = {
    .name = "linear_cross_entropy",
    .doc =
        "Cross-entropy of logits x weight^T + bias: x (N,C), weight (V,C) or, weight_is_in_out, (C,V), labels i32 (N), bias (V). softcap c "
        "> 0: logits "
        "are c tanh(logit / c). reduction 0: mean over the rows whose label is not -100 (NaN where there is none), 1: sum. count is the "
        "number of "
        "these rows.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_linear_cross_entropy,
    .attr_bytes = sizeof(struct attr_linear_cross_entropy),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .ref_work = ref_work,
    .expand = expand,
    .flops = flops,
    .cases = cases,
};

static const char *const back_in[] = {"x", "weight", "labels", "dloss", "bias?", "dweight_acc?", NULL};
static const char *const back_out[] = {"loss", "dx", "dweight", "dbias", NULL};
static const struct attr_linear_cross_entropy_grad back_mean = {0}, back_sum = {.reduction = 1}, back_in_out = {.weight_is_in_out = true},
                                                   back_frozen = {.no_dweight = true}, back_soft = {.softcap = 1.5};
static const struct op_case back_cases[] = {
    {.name = "mean", .attrs = &back_mean, .in = {CASE_F32(11, 3), CASE_F32(5, 3), CASE_GIVEN(some_ignored, 11), CASE_SCALAR}},
    {.name = "sum_bias", .attrs = &back_sum, .in = {CASE_F32(7, 3), CASE_F32(11, 3), CASE_INDEX(11, 7), CASE_SCALAR, CASE_F32(11)}},
    {.name = "in_out_accumulate",
     .attrs = &back_in_out,
     .in = {CASE_F32(9, 5), CASE_F32(5, 13), CASE_INDEX(13, 9), CASE_SCALAR, CASE_F32(13), CASE_F32(5, 13)}},
    {.name = "frozen", .attrs = &back_frozen, .in = {CASE_F32(9, 5), CASE_F32(7, 5), CASE_INDEX(7, 9), CASE_SCALAR}},
    {.name = "wide",
     .attrs = &back_mean,
     .in = {CASE_F32(37, 33), CASE_F32(517, 33), CASE_INDEX(517, 37), CASE_SCALAR, CASE_F32(517)},
     .no_grad = true},
    {.name = "softcap",
     .attrs = &back_soft,
     .in = {CASE_F32(11, 3), CASE_F32(5, 3), CASE_GIVEN(some_ignored, 11), CASE_SCALAR, CASE_F32(5)}},
    {.name = "softcap_wide",
     .attrs = &back_soft,
     .in = {CASE_F32(37, 33), CASE_F32(517, 33), CASE_INDEX(517, 37), CASE_SCALAR, CASE_F32(517)},
     .no_grad = true},
    {0},
};
static const struct op linear_cross_entropy_grad_op = {
    .name = "linear_cross_entropy_grad",
    .doc =
        "Loss and gradients of linear_cross_entropy in one pass over chunks of rows: dx (N,C), dweight (added to dweight_acc; empty with "
        "no_dweight), dbias (V) (empty without bias), each times dloss.",
    .in_names = back_in,
    .out_names = back_out,
    .attrs = attr_fields_linear_cross_entropy_grad,
    .attr_bytes = sizeof(struct attr_linear_cross_entropy_grad),
    .infer = back_infer,
    .ref = back_ref,
    .ref_work = back_work,
    .expand = back_expand,
    .flops = back_flops,
    .accumulate = DWEIGHT_ACC + 1,
    .accumulate_out = 2,
    .replays = "linear_cross_entropy",
    .tolerance = 2e-5,
    .cases = back_cases,
};

struct cb_tensor *op_linear_cross_entropy(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                          struct cb_tensor *labels, bool weight_is_in_out, double softcap, const char *reduction) {
    struct attr_linear_cross_entropy attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.weight_is_in_out = weight_is_in_out;
    attrs.softcap = softcap;
    attrs.reduction = strcmp(reduction, "sum") == 0;
    if (!attrs.reduction && strcmp(reduction, "mean") != 0)
        return graph_fail(g, CB_E_ARGUMENT, "linear_cross_entropy: reduction '%s'; wanted mean or sum", reduction);
    return graph_node(g, &linear_cross_entropy_op, &attrs, 4, (struct cb_tensor *[]){x, weight, labels, bias});
}

const struct op *const op_file_linear_cross_entropy[] = {&linear_cross_entropy_op, &linear_cross_entropy_grad_op, NULL};
