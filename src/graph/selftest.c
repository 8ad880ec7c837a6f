/* Runs op cases: kernels against ref in f32, first and second derivatives against central differences in f64. */
#include "graph/selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

/* A case made into a graph: y = op(x...), and the checks' scalar L = sum(w * y) over the floating-point outputs. */
struct lab {
    struct selftest *test;
    const struct op *op;
    const struct op_case *c;
    enum cb_dtype dtype;  // of floating-point inputs
    bool is_inner;  // these are what other nodes give, whose buffers the op may take for its outputs
    struct cb_graph *g;
    struct plan *plan;
    struct cb_tensor *in[OP_MAX_IN];
    int n_in;
};

static void lab_close(struct lab *lab) {
    plan_destroy(&lab->plan);
    graph_destroy(&lab->g);
}

static void report(struct selftest *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void report(struct selftest *t, const char *format, ...) {
    char line[1400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    t->n_failed++;
    if (t->report) t->report(t->context, line);
}

static bool is_plain_float(enum cb_dtype d) { return d == CB_DTYPE_F32 || d == CB_DTYPE_F64; }

/* Graph with one input leaf per present input, negated twice where is_inner. */
static enum cb_status lab_graph(struct lab *lab, struct cb_tensor **y, struct cb_err *err) {
    TRY(graph_create(&lab->g, lab->test->ops, err));
    lab->n_in = 0;
    for (int i = 0; i < OP_MAX_IN; i++) {
        const struct case_input *ci = &lab->c->in[i];
        if (!ci->present) continue;
        struct cb_type type = type_make(is_plain_float(ci->dtype) ? lab->dtype : ci->dtype, ci->rank, ci->dim);
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        lab->in[i] = graph_input(lab->g, name, type);
        for (int k = 0; lab->is_inner && is_plain_float(ci->dtype) && k < 2; k++)
            lab->in[i] = graph_node(lab->g, op_find(lab->g->ops, "neg"), NULL, 1, &lab->in[i]);
        lab->n_in = i + 1;
    }
    *y = graph_node(lab->g, lab->op, lab->c->attrs, lab->n_in, lab->in);
    return CB_OK;
}

/* Values of a case's input i, the same for every number type. */
static double value_of(const struct case_input *ci, int i, int64_t k, int64_t n) {
    struct rng_block r = rng_philox((uint64_t)i + 77, (uint64_t)k, 5);
    double u = rng_uniform(r.word[0]), v = rng_uniform(r.word[1]);
    switch (ci->fill) {
        case FILL_NORMAL: return sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v);
        case FILL_POSITIVE: return 0.2 + 1.8 * u;
        case FILL_UNIFORM: return ci->low + (ci->high - ci->low) * u;
        case FILL_INDEX: return floor(ci->low + (ci->high - ci->low) * u);
        case FILL_DISTINCT: return ((double)((k * 7919 + 13) % (n | 1)) / (double)n - 0.5) * 4;
        case FILL_VALUES: return ci->values[k];
    }
    return 0;
}

/* Rounds to f32 so that both number types see the same values. */
static void fill_inputs(struct lab *lab) {
    for (int i = 0; i < lab->n_in; i++) {
        if (!lab->in[i]) continue;
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        void *p = plan_data(lab->plan, plan_find(lab->plan, name));
        const struct cb_type *type = &lab->in[i]->type;
        int64_t n = type_elements(type);
        for (int64_t k = 0; k < n && dtype_of(type->dtype)->block == 1; k++)
            ref_set(type->dtype, p, k, (float)value_of(&lab->c->in[i], i, k, n));
        if (dtype_of(type->dtype)->block == 1) continue;
        float *plain = malloc((size_t)n * sizeof *plain);
        for (int64_t k = 0; plain && k < n; k++) plain[k] = (float)value_of(&lab->c->in[i], i, k, n);
        if (plain) dtype_of(type->dtype)->from_f32(p, plain, n);
        free(plain);
    }
}

static enum cb_status lab_plan(struct lab *lab, const struct backend *backend, const char *kernels, struct cb_err *err) {
    struct plan_options o = {
        .backend = backend, .cpu_mask = lab->test->cpu_mask, .kernels = kernels, .n_threads = pool_threads(lab->test->pool)};
    TRY(plan_create(&lab->plan, lab->g, &o, err));
    fill_inputs(lab);
    return CB_OK;
}

static double *output_copy(struct lab *lab, const char *name, int64_t *n) {
    int slot = plan_find(lab->plan, name);
    const struct cb_type *type = &plan_slot(lab->plan, slot)->type;
    *n = type_elements(type);
    double *copy = malloc((size_t)*n * sizeof *copy + 1);
    for (int64_t i = 0; copy && i < *n; i++) copy[i] = ref_get(type->dtype, plan_data(lab->plan, slot), i);
    return copy;
}

/* No kernels at all: ref, and expansions where an op has no ref. */
static const struct kernel *const no_kernels[] = {NULL};
static const struct backend plain = {.name = "ref", .files = no_kernels, .runs = true};

/* Runs the case in f32 with one kernel (NULL: plainly) and returns copies of the outputs: none where the kernel does not accept the case. */
static enum cb_status run_with(struct selftest *t, const struct op *op, const struct op_case *c, const struct kernel *kernel, bool is_inner,
                               double *out[64], int64_t n[64], int *n_out, struct cb_err *err) {
    struct lab lab = {.test = t, .op = op, .c = c, .dtype = CB_DTYPE_F32, .is_inner = is_inner};
    struct cb_tensor *y = NULL;
    char force[160];
    snprintf(force, sizeof force, "%s=%s", op->name, kernel ? kernel->name : "ref");
    enum cb_status status = lab_graph(&lab, &y, err);
    *n_out = 0;
    if (status == CB_OK && !graph_is_bad(lab.g, y)) {
        for (int i = 0; i < y->node->n_out; i++) {
            char name[16];
            snprintf(name, sizeof name, "y%d", i);
            graph_output(lab.g, y->node->out[i], name);
        }
        *n_out = y->node->n_out;
    }
    if (status == CB_OK) status = lab_plan(&lab, kernel ? t->backend : &plain, force, err);
    if (status == CB_OK && kernel && !plan_uses(lab.plan, kernel)) *n_out = 0;
    if (status == CB_OK && *n_out) status = plan_run(lab.plan, t->pool, err);
    for (int i = 0; status == CB_OK && i < *n_out; i++) {
        char name[16];
        snprintf(name, sizeof name, "y%d", i);
        if (!(out[i] = output_copy(&lab, name, &n[i]))) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "selftest: out of memory");
    }
    lab_close(&lab);
    return status;
}

static bool values_agree(double a, double b, double scale, double tolerance) {
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b)) return a == b;
    return fabs(a - b) <= tolerance * (scale + fabs(b));
}

static void compare(struct selftest *t, const struct op *op, const struct op_case *c, const char *kernel, double *const *want,
                    double *const *have, const int64_t *n, int n_out) {
    double tolerance = op->tolerance > 0 ? op->tolerance : 1e-5;
    for (int o = 0; o < n_out; o++) {
        double scale = 0, worst = 0;
        int64_t at = -1;
        for (int64_t i = 0; i < n[o]; i++)
            if (isfinite(want[o][i]) && fabs(want[o][i]) > scale) scale = fabs(want[o][i]);
        for (int64_t i = 0; i < n[o]; i++)
            if (!values_agree(have[o][i], want[o][i], scale, tolerance) && (at < 0 || fabs(have[o][i] - want[o][i]) > worst))
                worst = fabs(have[o][i] - want[o][i]), at = i;
        if (at >= 0) {
            report(t, "%s/%s: kernel %s, output %d element %lld: %.9g; ref gives %.9g", op->name, c->name, kernel, o, (long long)at,
                   have[o][at], want[o][at]);
            return;
        }
    }
    t->n_passed++;
}

/* The next kernel of this op that this machine can run; *file and *index say where to go on. NULL: no more. */
static const struct kernel *next_kernel(const struct selftest *t, const struct op *op, int *file, int *index) {
    for (; t->backend->files[*file]; ++*file, *index = 0)
        while (t->backend->files[*file][*index].op) {
            const struct kernel *k = &t->backend->files[*file][(*index)++];
            if (strcmp(k->op, op->name) == 0 && (k->cpu & t->cpu_mask) == k->cpu) return k;
        }
    return NULL;
}

enum { MAX_KERNELS = 64 };  // of one op

/* Every kernel of this op that this machine can run and that accepts the case, against ref or the expansion. used[i]: cases of kernel i. */
static enum cb_status check_kernels(struct selftest *t, const struct op *op, const struct op_case *c, int used[MAX_KERNELS],
                                    struct cb_err *err) {
    double *want[64] = {NULL}, *have[64] = {NULL};
    char name[80];
    int64_t n[64];
    int n_want = 0, n_have = 0, file = 0, index = 0, number = 0;
    enum cb_status status = CB_OK;
    if (!op->ref && !op->expand) return CB_OK;
    struct cb_err e = {0};
    if (run_with(t, op, c, NULL, false, want, n, &n_want, &e))
        report(t, "%s/%s: %s", op->name, c->name, e.message), n_want = 0;
    else
        t->n_passed++;
    // ref itself where its outputs may take the buffers of its inputs; then every kernel, with leaves for inputs and where it may take theirs
    if (n_want && (status = run_with(t, op, c, NULL, true, have, n, &n_have, err)) == CB_OK)
        compare(t, op, c, "ref, in place", want, have, n, n_want);
    for (int i = 0; i < n_have; i++) free(have[i]), have[i] = NULL;
    for (const struct kernel *k; n_want && status == CB_OK && (k = next_kernel(t, op, &file, &index)); number++)
        for (int inner = 0; inner < 2 && status == CB_OK; inner++) {
            status = run_with(t, op, c, k, inner, have, n, &n_have, err);
            if (status == CB_OK && n_have) {
                snprintf(name, sizeof name, "%s%s", k->name, inner ? ", in place" : "");
                compare(t, op, c, name, want, have, n, n_want);
                if (number < MAX_KERNELS) used[number]++;
            }
            for (int i = 0; i < n_have; i++) free(have[i]), have[i] = NULL;
        }
    for (int i = 0; i < n_want; i++) free(want[i]);
    return status;
}

/* L = sum over floating-point outputs of sum(w * y), w fixed pseudo-random constants. NULL: no such output. */
static struct cb_tensor *weighted_sum(struct cb_graph *g, struct cb_tensor *const *y, int n, int salt) {
    const struct op *mul = op_find(g->ops, "mul"), *add = op_find(g->ops, "add"), *sum = op_find(g->ops, "sum_to");  // to rank 0
    struct cb_tensor *total = NULL;
    for (int o = 0; o < n && mul && add && sum; o++) {
        if (!y[o] || y[o]->type.dtype != CB_DTYPE_F64) continue;
        int64_t count = type_elements(&y[o]->type);
        double *w = malloc((size_t)count * sizeof *w + 1);
        if (!w) return graph_fail(g, CB_E_MEMORY, "selftest: out of memory");
        for (int64_t i = 0; i < count; i++) w[i] = 0.3 + rng_uniform(rng_philox((uint64_t)salt, (uint64_t)i, (uint64_t)o).word[0]);
        struct cb_tensor *c = graph_const(g, y[o]->type, w);
        free(w);
        struct cb_tensor *part = graph_node(g, mul, NULL, 2, (struct cb_tensor *[]){y[o], c});
        part = graph_node(g, sum, NULL, 1, &part);
        total = total ? graph_node(g, add, NULL, 2, (struct cb_tensor *[]){total, part}) : part;
    }
    return total;
}

/* Compares the analytic gradient outputs d<i> of L with central differences of L. */
static enum cb_status differences(struct lab *lab, const char *order, const bool *wanted, struct cb_err *err) {
    struct selftest *t = lab->test;
    double tolerance = lab->c->grad_tolerance > 0 ? lab->c->grad_tolerance : 1e-6, h = 1e-5;
    TRY(plan_run(lab->plan, t->pool, err));
    double *grad[OP_MAX_IN] = {NULL};
    bool failed = false;
    const double *loss = plan_data(lab->plan, plan_find(lab->plan, "L"));
    for (int i = 0; i < lab->n_in; i++) {
        char name[16];
        int64_t n;
        snprintf(name, sizeof name, "d%d", i);
        if (wanted[i] && plan_find(lab->plan, name) >= 0) grad[i] = output_copy(lab, name, &n);
    }
    for (int i = 0; i < lab->n_in && !failed; i++) {
        if (!wanted[i] || !lab->in[i]) continue;
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        double *x = plan_data(lab->plan, plan_find(lab->plan, name));
        int64_t n = type_elements(&lab->in[i]->type), stride = n > 40 ? n / 40 : 1;
        for (int64_t k = 0; k < n && !failed; k += stride) {
            double x0 = x[k];
            x[k] = x0 + h;
            TRY(plan_run(lab->plan, t->pool, err));
            double up = *loss;
            x[k] = x0 - h;
            TRY(plan_run(lab->plan, t->pool, err));
            double want = (up - *loss) / (2 * h), have = grad[i] ? grad[i][k] : 0;
            x[k] = x0;
            if (!(fabs(want - have) <= tolerance * (1 + fabs(want)))) {
                report(t, "%s/%s: %s derivative by input %d element %lld: %.9g; differences give %.9g", lab->op->name, lab->c->name, order,
                       i, (long long)k, have, want);
                failed = true;
            }
        }
    }
    t->n_passed += !failed;
    for (int i = 0; i < lab->n_in; i++) free(grad[i]);
    return CB_OK;
}

/* First derivatives of L, or of the weighted sum of its first derivatives. */
static enum cb_status check_gradient(struct selftest *t, const struct op *op, const struct op_case *c, bool second, struct cb_err *err) {
    struct lab lab = {.test = t, .op = op, .c = c, .dtype = CB_DTYPE_F64};
    struct cb_tensor *y = NULL, *wrt[OP_MAX_IN], *grad[OP_MAX_IN];
    int which[OP_MAX_IN], n = 0;
    bool wanted[OP_MAX_IN] = {false};
    enum cb_status status = lab_graph(&lab, &y, err);
    if (status != CB_OK) return status;
    struct cb_tensor *loss = graph_is_bad(lab.g, y) ? NULL : weighted_sum(lab.g, y->node->out, y->node->n_out, 3);
    for (int i = 0; i < lab.n_in; i++)
        if (lab.in[i] && lab.in[i]->type.dtype == CB_DTYPE_F64 && !c->in[i].no_grad) which[n] = i, wrt[n++] = lab.in[i], wanted[i] = true;
    if (loss && n && !lab.g->err.code) {
        graph_grad(lab.g, loss, NULL, n, wrt, NULL, grad);
        if (second && !lab.g->err.code) {
            loss = weighted_sum(lab.g, grad, n, 4);
            if (loss) graph_grad(lab.g, loss, NULL, n, wrt, NULL, grad);
        }
        for (int i = 0; loss && i < n && !lab.g->err.code; i++) {
            char name[16];
            snprintf(name, sizeof name, "d%d", which[i]);
            if (grad[i]) graph_output(lab.g, grad[i], name);
        }
        if (loss) graph_output(lab.g, loss, "L");
        if (lab.g->err.code) {
            report(t, "%s/%s: %s derivative: %s", op->name, c->name, second ? "second" : "first", lab.g->err.message);
        } else if (loss) {
            status = lab_plan(&lab, t->backend, NULL, err);
            if (status == CB_OK) status = differences(&lab, second ? "second" : "first", wanted, err);
        }
    }
    lab_close(&lab);
    return status;
}

enum cb_status selftest_op(struct selftest *test, const struct op *op, struct cb_err *err) {
    int used[MAX_KERNELS] = {0}, file = 0, index = 0, number = 0;
    for (const struct op_case *c = op->cases; c && c->name; c++) {
        TRY(check_kernels(test, op, c, used, err));
        if (c->no_grad || (!op->grad && !op->expand)) continue;
        TRY(check_gradient(test, op, c, false, err));
        if (!c->no_second) TRY(check_gradient(test, op, c, true, err));
    }
    // a kernel that no case reaches would be wrong unseen
    for (const struct kernel *k; number < MAX_KERNELS && (k = next_kernel(test, op, &file, &index)); number++)
        if (!used[number]) report(test, "%s: kernel %s accepts none of the op's cases; wanted one that it runs", op->name, k->name);
    return CB_OK;
}
