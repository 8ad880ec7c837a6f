/* Subgraphs as nodes: call (a graph with other bindings) and scan (a graph over the steps of a sequence), differentiable like any op.
   Both run by their expansion: the body's nodes are planned with the rest, so no kernel of their own is needed. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/ops.h"

// @attrs call: ptr body, int n_args
// @attrs scan: ptr body, int n_carry, int n_args

static const char *const in_names[] = {"...", NULL};
static const char *const out_names[] = {"y", NULL};

enum { MAX_PARTS = 32 };

static enum cb_status infer_call(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct cb_graph *body = ((const struct attr_call *)node->attrs)->body;
    if (!body) FAIL(err, CB_E_ARGUMENT, "call: no body; graphs call it through op_call");
    if (body->err.code) FAIL(err, body->err.code, "call: its body: %s", body->err.message);
    if (body->n_outputs < 1 || body->n_outputs > MAX_PARTS)
        FAIL(err, CB_E_ARGUMENT, "call: a body of %d outputs; wanted 1 to %d", body->n_outputs, MAX_PARTS);
    *n_out = body->n_outputs;
    for (int i = 0; i < body->n_outputs; i++) out[i] = body->outputs[i].tensor->type;
    return CB_OK;
}

static void expand_call(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_call *a = node->attrs;
    graph_inline(g, a->body, (int)a->n_args, node->in, out);
}

static enum cb_status infer_scan(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct attr_scan *a = node->attrs;
    const struct cb_graph *body = a->body;
    if (!body) FAIL(err, CB_E_ARGUMENT, "scan: no body; graphs call it through op_scan");
    if (body->err.code) FAIL(err, body->err.code, "scan: its body: %s", body->err.message);
    if (a->n_carry < 0 || a->n_carry >= a->n_args || body->n_outputs < a->n_carry || body->n_outputs < 1 || body->n_outputs > MAX_PARTS ||
        a->n_args > MAX_PARTS)
        FAIL(err, CB_E_ARGUMENT,
             "scan: %lld carries, %d inputs, a body of %d outputs; wanted a sequence at least, and an output for each carry",
             (long long)a->n_carry, (int)a->n_args, body->n_outputs);
    const struct cb_type *first = &node->in[a->n_carry]->type;
    int64_t steps = first->rank ? first->dim[0] : 0;
    for (int i = (int)a->n_carry; i < a->n_args; i++)
        if (node->in[i]->type.rank < 1 || node->in[i]->type.dim[0] != steps || steps < 1)
            FAIL(err, CB_E_SHAPE, "scan: sequence %d; wanted (T,...) with the same T of 1 or more for all", i - (int)a->n_carry);
    *n_out = body->n_outputs;
    for (int i = 0; i < body->n_outputs; i++) {
        const struct cb_type *y = &body->outputs[i].tensor->type;
        out[i] = *y;
        if (i < a->n_carry) {
            if (!type_equal(y, &node->in[i]->type)) FAIL(err, CB_E_SHAPE, "scan: carry %d changes its type from step to step", i);
            continue;
        }
        if (y->rank == CB_MAX_RANK) FAIL(err, CB_E_SHAPE, "scan: output %d has rank %d; wanted less", i, y->rank);
        out[i].rank = y->rank + 1;
        out[i].dim[0] = steps;
        for (int k = 0; k < y->rank; k++) out[i].dim[k + 1] = y->dim[k];
    }
    return CB_OK;
}

/* Step t of a sequence (T,...): (...). */
static struct cb_tensor *step_of(struct cb_graph *g, struct cb_tensor *x, int64_t t) {
    struct cb_tensor *one = op_slice(g, x, 0, t, t + 1, 1);
    return op_reshape(g, one, x->type.rank - 1, x->type.dim + 1);
}

/* (...) as (1,...). */
static struct cb_tensor *as_step(struct cb_graph *g, struct cb_tensor *x) {
    int64_t dim[CB_MAX_RANK] = {1};
    for (int i = 0; i < x->type.rank; i++) dim[i + 1] = x->type.dim[i];
    return op_reshape(g, x, x->type.rank + 1, dim);
}

/* The body once a step, its nodes beside each other; one concat stacks each output. */
static void expand_scan(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_scan *a = node->attrs;
    const struct cb_graph *body = a->body;
    int carries = (int)a->n_carry;
    int64_t steps = node->in[carries]->type.dim[0];
    struct cb_tensor *in[MAX_PARTS], *y[MAX_PARTS], **rows = arena_array(g->arena, (size_t)(steps * body->n_outputs), sizeof *rows);
    if (!rows) {
        graph_fail(g, CB_E_MEMORY, "scan: out of memory");
        return;
    }
    for (int i = 0; i < carries; i++) in[i] = node->in[i];
    for (int64_t t = 0; t < steps && !g->err.code; t++) {
        for (int i = carries; i < a->n_args; i++) in[i] = step_of(g, node->in[i], t);
        if (graph_inline(g, body, (int)a->n_args, in, y)) return;
        for (int i = 0; i < carries; i++) in[i] = y[i];
        for (int i = carries; i < body->n_outputs; i++) rows[i * steps + t] = as_step(g, y[i]);
    }
    for (int i = 0; i < body->n_outputs && !g->err.code; i++) out[i] = i < carries ? in[i] : op_concat(g, (int)steps, rows + i * steps, 0);
}

static const struct op call_call = {.name = "call",
                                    .doc = "The outputs of a body, a graph of its own, for these inputs; its params are shared by name.",
                                    .in_names = in_names,
                                    .out_names = out_names,
                                    .attrs = attr_fields_call,
                                    .attr_bytes = sizeof(struct attr_call),
                                    .n_out = -1,
                                    .infer = infer_call,
                                    .expand = expand_call};
static const struct op call_scan = {
    .name = "scan",
    .doc = "A body over the steps of sequences (T,...): carries go from step to step, other outputs are stacked (T,...).",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_scan,
    .attr_bytes = sizeof(struct attr_scan),
    .n_out = -1,
    .infer = infer_scan,
    .expand = expand_scan};

/* A node whose inputs are the arguments and, after them, every param of the body: so that gradients find them. */
static struct cb_tensor *node_with_params(struct cb_graph *g, const struct op *op, const void *attrs, const struct cb_graph *body, int n,
                                          struct cb_tensor *const *in) {
    struct cb_tensor *all[64];
    if (n > MAX_PARTS) return graph_fail(g, CB_E_ARGUMENT, "%s: %d inputs; at most %d", op->name, n, MAX_PARTS);
    for (int i = 0; i < n; i++) all[i] = in[i];
    for (int i = 0; i < body->n_nodes; i++) {
        if (body->nodes[i]->op != &op_param) continue;
        if (n == 64) return graph_fail(g, CB_E_LIMIT, "%s: over 64 inputs and params of the body", op->name);
        all[n++] = graph_param(g, graph_leaf_name(body->nodes[i]->out[0]), body->nodes[i]->out[0]->type);
    }
    return graph_node(g, op, attrs, n, all);
}

struct cb_tensor *op_call(struct cb_graph *g, const struct cb_graph *body, int n, struct cb_tensor *const *in) {
    struct attr_call a;
    memset(&a, 0, sizeof a);
    a.body = body;
    a.n_args = n;
    return node_with_params(g, &call_call, &a, body, n, in);
}

struct cb_tensor *op_scan(struct cb_graph *g, const struct cb_graph *body, int n_carry, int n, struct cb_tensor *const *in) {
    struct attr_scan a;
    memset(&a, 0, sizeof a);
    a.body = body;
    a.n_carry = n_carry;
    a.n_args = n;
    return node_with_params(g, &call_scan, &a, body, n, in);
}

const struct op *const op_file_call[] = {&call_call, &call_scan, NULL};
