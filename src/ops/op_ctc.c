/* Connectionist temporal classification (Graves et al., ICML 2006): the loss over all alignments, and its gradient by the two recursions. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/infer.h"
#include "ops/losses.h"
#include "ops/ops.h"

// @attrs ctc_loss: int blank, bool zero_infinity
// @attrs ctc_loss_grad: int blank, bool zero_infinity

enum { LOGP, TARGETS, INPUT_LENGTHS, TARGET_LENGTHS, DLOSS };

static const struct op ctc_loss_op, ctc_loss_grad_op;

static enum cb_status infer_common(const struct node *node, int64_t blank, struct cb_err *err) {
    const struct cb_type *logp = &node->in[LOGP]->type;
    char have[TYPE_TEXT];
    TRY(check_float(node, LOGP, err));
    TRY(check_rank(node, LOGP, 3, err));
    TRY(check_rank(node, TARGETS, 2, err));
    TRY(check_type(node, TARGETS, TYPE(CB_DTYPE_I32, logp->dim[1], node->in[TARGETS]->type.dim[1]), err));
    TRY(check_type(node, INPUT_LENGTHS, TYPE(CB_DTYPE_I32, logp->dim[1]), err));
    TRY(check_type(node, TARGET_LENGTHS, TYPE(CB_DTYPE_I32, logp->dim[1]), err));
    if (blank < 0 || blank >= logp->dim[2])
        FAIL(err, CB_E_ARGUMENT, "%s: blank %lld, logp is %s; wanted one of its classes", node->op->name, (long long)blank,
             type_text(logp, have));
    return CB_OK;
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(infer_common(node, ((const struct attr_ctc_loss *)node->attrs)->blank, err));
    *out = TYPE(node->in[LOGP]->type.dtype, node->in[LOGP]->type.dim[1]);
    return CB_OK;
}

static double log_add(double a, double b) {
    if (a < b) {
        double t = a;
        a = b, b = t;
    }
    return isinf(b) && b < 0 ? a : a + log1p(exp(b - a));
}

/* One sequence. States 0..2S: blanks at even places, labels at odd ones. */
struct line {
    const struct op_run *run;
    enum cb_dtype dtype;
    int64_t i, t_n, n, c, s_n, blank;
    bool is_valid;
    const int32_t *target;
};

static struct line line_of(const struct op_run *run, int64_t i, int64_t blank) {
    const struct cb_type *logp = &run->node->in[LOGP]->type;
    int64_t s_max = run->node->in[TARGETS]->type.dim[1];
    struct line l = {.run = run, .dtype = logp->dtype, .i = i, .n = logp->dim[1], .c = logp->dim[2], .blank = blank};
    l.t_n = ((const int32_t *)run->in[INPUT_LENGTHS])[i];
    l.s_n = ((const int32_t *)run->in[TARGET_LENGTHS])[i];
    l.target = (const int32_t *)run->in[TARGETS] + i * s_max;
    l.is_valid = l.t_n >= 0 && l.t_n <= logp->dim[0] && l.s_n >= 0 && l.s_n <= s_max;
    for (int64_t s = 0; l.is_valid && s < l.s_n; s++) l.is_valid = l.target[s] >= 0 && l.target[s] < l.c;
    return l;
}

static int64_t symbol(const struct line *l, int64_t s) { return s % 2 ? l->target[s / 2] : l->blank; }

static double emission(const struct line *l, int64_t t, int64_t s) {
    return ref_get(l->dtype, l->run->in[LOGP], (t * l->n + l->i) * l->c + symbol(l, s));
}

/* Whether state s may be reached from s-2: a label that differs from the one before. */
static bool may_skip(const struct line *l, int64_t s) { return s % 2 && s >= 2 && l->target[s / 2] != l->target[s / 2 - 1]; }

/* Fills alpha (T, 2S+1) and returns log p of the target. */
static double alphas(const struct line *l, double *alpha) {
    int64_t m = 2 * l->s_n + 1;
    if (l->t_n == 0) return l->s_n ? -INFINITY : 0;
    for (int64_t s = 0; s < m; s++) alpha[s] = s < 2 ? emission(l, 0, s) : -INFINITY;
    for (int64_t t = 1; t < l->t_n; t++)
        for (int64_t s = 0; s < m; s++) {
            const double *before = alpha + (t - 1) * m;
            double a = before[s];
            if (s >= 1) a = log_add(a, before[s - 1]);
            if (may_skip(l, s)) a = log_add(a, before[s - 2]);
            alpha[t * m + s] = a + emission(l, t, s);
        }
    const double *end = alpha + (l->t_n - 1) * m;
    return m > 1 ? log_add(end[m - 1], end[m - 2]) : end[0];
}

static size_t ref_work(const struct node *node) {
    int64_t m = 2 * node->in[TARGETS]->type.dim[1] + 1;
    return (size_t)((node->in[LOGP]->type.dim[0] + 2) * m) * sizeof(double);
}

static void ref(const struct op_run *run) {
    const struct attr_ctc_loss *attrs = run->node->attrs;
    const struct cb_type *logp = &run->node->in[LOGP]->type;
    for (int64_t i = 0; i < logp->dim[1]; i++) {
        struct line l = line_of(run, i, attrs->blank);
        double loss = l.is_valid ? -alphas(&l, run->work) : NAN;
        ref_set(logp->dtype, run->out[0], i, isinf(loss) && attrs->zero_infinity ? 0 : loss);
    }
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_ctc_loss *attrs = node->attrs;
    struct attr_ctc_loss_grad back;
    memset(&back, 0, sizeof back);
    back.blank = attrs->blank;
    back.zero_infinity = attrs->zero_infinity;
    struct cb_tensor *in[] = {node->in[LOGP], node->in[TARGETS], node->in[INPUT_LENGTHS], node->in[TARGET_LENGTHS], dout[0]};
    if (need[LOGP]) din[LOGP] = graph_node(g, &ctc_loss_grad_op, &back, 5, in);
}

static enum cb_status back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(infer_common(node, ((const struct attr_ctc_loss_grad *)node->attrs)->blank, err));
    *out = node->in[LOGP]->type;
    return check_type(node, DLOSS, TYPE(out->dtype, out->dim[1]), err);
}

/* d loss / d logp(t,c) = -p(an alignment emits c at t), summed over the states of c. beta runs backwards over two rows. */
static void line_back(const struct line *l, double *alpha, double *beta, double dloss) {
    int64_t m = 2 * l->s_n + 1;
    double log_p = alphas(l, alpha), *now = beta, *next = beta + m;
    if (isinf(log_p)) return;
    for (int64_t t = l->t_n - 1; t >= 0; t--) {
        for (int64_t s = 0; s < m; s++) {
            double b = t == l->t_n - 1 && s >= m - 2 ? 0 : -INFINITY;
            if (t < l->t_n - 1) {
                b = next[s] + emission(l, t + 1, s);
                if (s + 1 < m) b = log_add(b, next[s + 1] + emission(l, t + 1, s + 1));
                if (s + 2 < m && may_skip(l, s + 2)) b = log_add(b, next[s + 2] + emission(l, t + 1, s + 2));
            }
            now[s] = b;
            int64_t at = (t * l->n + l->i) * l->c + symbol(l, s);
            double posterior = exp(alpha[t * m + s] + b - log_p);
            ref_set(l->dtype, l->run->out[0], at, ref_get(l->dtype, l->run->out[0], at) - dloss * posterior);
        }
        double *swap = now;
        now = next, next = swap;
    }
}

static void back_ref(const struct op_run *run) {
    const struct attr_ctc_loss_grad *attrs = run->node->attrs;
    const struct cb_type *logp = &run->node->in[LOGP]->type;
    double *alpha = run->work, *beta = alpha + logp->dim[0] * (2 * run->node->in[TARGETS]->type.dim[1] + 1);
    memset(run->out[0], 0, (size_t)type_bytes(logp));
    for (int64_t i = 0; i < logp->dim[1]; i++) {
        struct line l = line_of(run, i, attrs->blank);
        if (l.is_valid) line_back(&l, alpha, beta, ref_get(logp->dtype, run->in[DLOSS], i));
    }
}

static double flops(const struct node *node) {
    const struct cb_type *logp = &node->in[LOGP]->type;
    return 20.0 * (double)(logp->dim[0] * logp->dim[1]) * (double)(2 * node->in[TARGETS]->type.dim[1] + 1);
}

static const char *const in_names[] = {"logp", "targets", "input_lengths", "target_lengths", NULL};
static const char *const out_names[] = {"loss", NULL};
static const struct attr_ctc_loss plain = {0}, zeroed = {.blank = 3, .zero_infinity = true};
#define CASE_GIVEN(values_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = (values_), .no_grad = true }
static const double targets[] = {1, 2, 2, 3, 1, 1}, low_targets[] = {0, 2, 2, 1, 1, 1}, inputs_5_4[] = {5, 4}, inputs_5_3[] = {5, 3},
                    three_two[] = {3, 2}, three_three[] = {3, 3};
static const struct op_case cases[] = {
    {.name = "repeats",
     .attrs = &plain,
     .in = {CASE_F32(5, 2, 4), CASE_GIVEN(targets, 2, 3), CASE_GIVEN(inputs_5_4, 2), CASE_GIVEN(three_two, 2)},
     .no_second = true},
    {.name = "does_not_fit",
     .attrs = &zeroed,
     .in = {CASE_F32(5, 2, 4), CASE_GIVEN(low_targets, 2, 3), CASE_GIVEN(inputs_5_3, 2), CASE_GIVEN(three_three, 2)},
     .no_second = true},
    {0},
};
static const struct op ctc_loss_op = {
    .name = "ctc_loss",
    .doc =
        "loss (N) = -log of the probability of targets i32 (N,S) under logp (T,N,C), summed over alignments with blanks; lengths i32 (N). "
        "A target "
        "that does not fit gives infinity, or 0 with zero_infinity, and gradient 0; a length or label out of range gives NaN.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_ctc_loss,
    .attr_bytes = sizeof(struct attr_ctc_loss),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .ref_work = ref_work,
    .flops = flops,
    .cases = cases,
};

static const char *const back_in[] = {"logp", "targets", "input_lengths", "target_lengths", "dloss", NULL};
static const char *const back_out[] = {"dlogp", NULL};
static const struct attr_ctc_loss_grad back_plain = {0};
static const struct op_case back_cases[] = {
    {.name = "repeats",
     .attrs = &back_plain,
     .in = {CASE_F32(5, 2, 4), CASE_GIVEN(targets, 2, 3), CASE_GIVEN(inputs_5_4, 2), CASE_GIVEN(three_two, 2), CASE_F32(2)},
     .no_grad = true},
    {0},
};
static const struct op ctc_loss_grad_op = {
    .name = "ctc_loss_grad",
    .doc = "dlogp (T,N,C) of ctc_loss: minus dloss times the probability that the class is emitted at the time. Not differentiable again.",
    .in_names = back_in,
    .out_names = back_out,
    .attrs = attr_fields_ctc_loss_grad,
    .attr_bytes = sizeof(struct attr_ctc_loss_grad),
    .infer = back_infer,
    .ref = back_ref,
    .ref_work = ref_work,
    .flops = flops,
    .cases = back_cases,
};

struct cb_tensor *loss_ctc(struct cb_graph *g, struct cb_tensor *logp, struct cb_tensor *target, struct cb_tensor *input_lengths,
                           struct cb_tensor *target_lengths, int64_t blank, bool zero_infinity, const char *reduction) {
    struct attr_ctc_loss attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.blank = blank;
    attrs.zero_infinity = zero_infinity;
    struct cb_tensor *loss = graph_node(g, &ctc_loss_op, &attrs, 4, (struct cb_tensor *[]){logp, target, input_lengths, target_lengths});
    if (graph_is_bad(g, loss) || strcmp(reduction, "mean") != 0) return loss_reduce(g, loss, reduction);
    struct cb_tensor *length = op_clamp(g, op_cast(g, target_lengths, loss->type.dtype), 1, INFINITY);
    return op_mean(g, op_div(g, loss, length), 0, NULL, false);
}

const struct op *const op_file_ctc[] = {&ctc_loss_op, &ctc_loss_grad_op, NULL};
