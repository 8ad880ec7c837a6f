/* Reverse-mode differentiation: adds nodes, so planning comes free and higher derivatives exist. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

/* One walk over nodes [begin, end): which tensors lead to a wanted input, and the gradients collected so far. Indexed by tensor id. */
struct walk {
    struct cb_graph *g;
    int begin, end, n_tensors;
    bool *need;
    struct cb_tensor **grad;
};

static enum cb_status walk_back(struct cb_graph *g, int begin, int end, int n_out, struct cb_tensor *const *out,
                                struct cb_tensor *const *dout, int n, struct cb_tensor *const *wrt, struct cb_tensor *const *sum,
                                struct cb_tensor **grad);

/* Whether t is the unused result of a node that can add to a given tensor in place. */
static bool can_accumulate(const struct cb_graph *g, const struct cb_tensor *t) {
    const struct op *op = t->node->op;
    if (!op->accumulate || t->index != op->accumulate_out) return false;
    if (op->accumulate - 1 >= t->node->n_in || t->node->in[op->accumulate - 1]) return false;
    for (int i = t->node->id + 1; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k] == t) return false;
    return true;
}

/* Adds a contribution to the gradient of a tensor. fresh: first node made for this contribution. */
static void contribute(struct walk *w, const struct cb_tensor *to, struct cb_tensor *d, int fresh) {
    struct cb_graph *g = w->g;
    if (!d || graph_is_bad(g, d)) return;
    struct cb_tensor **sum = &w->grad[to->id];
    if (!*sum) {
        *sum = d;
        return;
    }
    // the new contribution takes the older sum into its own accumulator where its op has one
    if (d->node->id >= fresh && (*sum)->node->id < d->node->id && type_equal(&d->type, &(*sum)->type) && can_accumulate(g, d)) {
        d->node->in[d->node->op->accumulate - 1] = *sum;
        *sum = d;
        return;
    }
    const struct op *add = op_find(g->ops, "add");
    *sum = add ? graph_node(g, add, NULL, 2, (struct cb_tensor *[]){*sum, d}) : graph_fail(g, CB_E_NAME, "grad: no op 'add'");
}

/* Gradient of one node from the gradients of its outputs. */
static void node_back(struct walk *w, struct node *node) {
    struct cb_graph *g = w->g;
    struct cb_tensor *dout[64] = {NULL}, *din[64] = {NULL};
    bool need[64] = {false}, any_out = false, any_in = false;
    for (int i = 0; i < node->n_out; i++) any_out |= (dout[i] = w->grad[node->out[i]->id]) != NULL;
    if (node->n_in > 64) {
        graph_fail(g, CB_E_UNSUPPORTED, "grad: %s has %d inputs; at most 64", node->op->name, node->n_in);
        return;
    }
    for (int i = 0; i < node->n_in; i++) any_in |= need[i] = node->in[i] && w->need[node->in[i]->id];
    if (!any_out || !any_in || node->op->traits & OP_LEAF) return;
    int fresh = g->n_nodes;
    const char *old = g->scope;
    g->scope = node->name;
    if (node->op->grad) {
        node->op->grad(g, node, dout, need, din);
    } else if (node->op->expand) {
        // differentiate the expansion, from its outputs back to this node's inputs
        struct cb_tensor *out[64] = {NULL}, *wrt[64] = {NULL}, *grad[64];
        int begin = g->n_nodes, which[64], n = 0;
        node->op->expand(g, node, out);
        for (int i = 0; i < node->n_in; i++)
            if (need[i]) which[n] = i, wrt[n++] = node->in[i];
        if (!g->err.code && walk_back(g, begin, g->n_nodes, node->n_out, out, dout, n, wrt, NULL, grad) == CB_OK)
            for (int i = 0; i < n; i++) din[which[i]] = grad[i];
    } else {
        graph_fail(g, CB_E_UNSUPPORTED, "%s: not differentiable", node->op->name);
    }
    for (int i = 0; i < node->n_in && !g->err.code; i++)
        if (need[i] && din[i]) {
            if (!graph_is_bad(g, din[i]) && !type_equal(&din[i]->type, &node->in[i]->type)) {
                char have[TYPE_TEXT], want[TYPE_TEXT];
                graph_fail(g, CB_E_SHAPE, "grad of %s: input %d got %s; it is %s", node->op->name, i, type_text(&din[i]->type, have),
                           type_text(&node->in[i]->type, want));
            }
            contribute(w, node->in[i], din[i], fresh);
        }
    g->scope = old;
}

static bool is_float(const struct cb_tensor *t) { return t->type.dtype == CB_DTYPE_F32 || t->type.dtype == CB_DTYPE_F64; }

/* Marks the tensors of [begin, end) that depend on a wanted one through floating-point values. */
static void mark(struct walk *w, int n, struct cb_tensor *const *wrt) {
    for (int i = 0; i < n; i++) w->need[wrt[i]->id] = true;
    for (int i = w->begin; i < w->end; i++) {
        const struct node *node = w->g->nodes[i];
        bool any = false;
        for (int k = 0; k < node->n_in; k++) any |= node->in[k] && w->need[node->in[k]->id];
        for (int k = 0; any && k < node->n_out; k++) w->need[node->out[k]->id] |= is_float(node->out[k]);
    }
}

static enum cb_status walk_back(struct cb_graph *g, int begin, int end, int n_out, struct cb_tensor *const *out,
                                struct cb_tensor *const *dout, int n, struct cb_tensor *const *wrt, struct cb_tensor *const *sum,
                                struct cb_tensor **grad) {
    struct walk w = {.g = g, .begin = begin, .end = end, .n_tensors = g->n_tensors};
    w.need = calloc((size_t)w.n_tensors, sizeof *w.need);
    w.grad = calloc((size_t)w.n_tensors, sizeof *w.grad);
    if (!w.need || !w.grad) {
        graph_fail(g, CB_E_MEMORY, "grad: out of memory");
    } else {
        mark(&w, n, wrt);
        for (int i = 0; sum && i < n; i++) w.grad[wrt[i]->id] = sum[i];
        for (int i = 0; i < n_out; i++)
            if (out[i] && dout[i]) contribute(&w, out[i], dout[i], g->n_nodes);
        for (int i = end - 1; i >= begin && !g->err.code; i--) {
            struct node *node = g->nodes[i];
            bool live = false;
            for (int k = 0; k < node->n_out; k++) live |= w.need[node->out[k]->id];
            if (live) node_back(&w, node);
        }
        for (int i = 0; i < n; i++) grad[i] = w.grad[wrt[i]->id];
    }
    free(w.need);
    free(w.grad);
    return g->err.code;
}

enum cb_status graph_grad(struct cb_graph *g, struct cb_tensor *loss, struct cb_tensor *seed, int n, struct cb_tensor *const *wrt,
                          struct cb_tensor *const *sum, struct cb_tensor **grad) {
    if (g->err.code) return g->err.code;
    for (int i = 0; i < n; i++) grad[i] = NULL;
    if (!is_float(loss))
        return graph_fail(g, CB_E_DTYPE, "grad: loss is %s; wanted f32 or f64", dtype_of(loss->type.dtype)->name), g->err.code;
    if (g->backward_begin > g->n_nodes) g->backward_begin = g->n_nodes;
    int end = g->n_nodes;
    if (!seed) {
        int64_t elements = type_elements(&loss->type), bytes = type_bytes(&loss->type);
        void *ones = malloc(bytes ? (size_t)bytes : 1);
        if (!ones) return graph_fail(g, CB_E_MEMORY, "grad: out of memory"), g->err.code;
        for (int64_t i = 0; i < elements; i++) ref_set(loss->type.dtype, ones, i, 1);
        seed = graph_const(g, loss->type, ones);
        free(ones);
    }
    return walk_back(g, 0, end, 1, &loss, &seed, n, wrt, sum, grad);
}
