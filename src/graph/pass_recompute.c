/* Pass: cheap forward nodes whose results are only kept for the backward pass are computed again there, where that saves enough memory in all.
   A node qualifies when it is OP_CHEAP and each of its inputs is a leaf, is kept for the backward pass anyway, or is itself computed again. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

/* Sets of tensors by id. */
struct sets {
    bool *backward;  // read by a backward node
    bool *forward;  // read by a forward node
    struct cb_tensor **again;  // the recomputed copy; itself while only chosen
};

/* What the backward pass reads in place of t. */
static struct cb_tensor *read_again(const struct sets *s, struct cb_tensor *t) { return t && s->again[t->id] ? s->again[t->id] : t; }

/* A copy of a node at the end of the node list (graph_sort moves it before its first reader). */
static struct node *node_again(struct cb_graph *g, struct node *node, struct sets *s) {
    struct cb_tensor *in[OP_MAX_IN];
    for (int k = 0; k < node->n_in; k++) in[k] = read_again(s, node->in[k]);
    const char *old = g->scope;
    g->scope = node->name;
    struct cb_tensor *t = graph_node(g, node->op, node->attrs, node->n_in, in);
    g->scope = old;
    return graph_is_bad(g, t) ? NULL : t->node;
}

static bool is_kept(const struct cb_tensor *t, const struct sets *s) {
    return t->node->op->traits & OP_LEAF || s->backward[t->id] || s->again[t->id];
}

/* Whether recomputing node saves a buffer: some output crosses into the backward pass, and all that it reads is kept. */
static bool is_worth(const struct node *node, const struct sets *s) {
    if (!(node->op->traits & OP_CHEAP) || node->op->traits & (OP_LEAF | OP_VIEW | OP_RANDOM | OP_EFFECT) || node->n_in > OP_MAX_IN)
        return false;
    if (!s->backward[node->out[0]->id] || !s->forward[node->out[0]->id] || type_bytes(&node->out[0]->type) < 1 << 16) return false;
    for (int k = 0; k < node->n_in; k++)
        if (node->in[k] && !is_kept(node->in[k], s)) return false;
    return true;
}

static void collect(const struct cb_graph *g, struct sets *s) {
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) {
            const struct cb_tensor *t = g->nodes[i]->in[k];
            if (t) (i >= g->backward_begin ? s->backward : s->forward)[t->id] = true;
        }
    // a view that crosses keeps what it views
    for (int i = g->backward_begin - 1; i >= 0; i--) {
        const struct node *node = g->nodes[i];
        if (node->op->traits & OP_VIEW && s->backward[node->out[0]->id]) s->backward[node->in[0]->id] = true;
    }
}

/* Chooses the nodes to compute again; returns the bytes of what need not be kept then. */
static int64_t choose(const struct cb_graph *g, struct sets *s) {
    int64_t bytes = 0;
    for (int i = 0; i < g->backward_begin; i++) {
        struct cb_tensor *out = g->nodes[i]->out[0];
        if (!is_worth(g->nodes[i], s)) continue;
        s->again[out->id] = out;
        bytes += type_bytes(&out->type);
    }
    return bytes;
}

static void compute_again(struct cb_graph *g, struct sets *s) {
    const int end = g->backward_begin, n_nodes = g->n_nodes;
    for (int i = 0; i < end; i++) {
        struct node *node = g->nodes[i];
        if (!s->again[node->out[0]->id]) continue;
        struct node *copy = node_again(g, node, s);
        if (!copy) return;
        s->again[node->out[0]->id] = copy->out[0];
    }
    for (int i = end; i < n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) g->nodes[i]->in[k] = read_again(s, g->nodes[i]->in[k]);
}

enum cb_status pass_recompute(struct cb_graph *g, int64_t least) {
    if (g->err.code || g->backward_begin >= g->n_nodes) return g->err.code;
    const size_t n = (size_t)g->n_tensors;
    struct sets s = {calloc(n, 1), calloc(n, 1), calloc(n, sizeof *s.again)};
    bool changed = false;
    if (!s.backward || !s.forward || !s.again) {
        graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    } else {
        collect(g, &s);
        const int64_t saved = choose(g, &s);
        changed = saved > 0 && saved >= least;
        if (changed) compute_again(g, &s);
    }
    free(s.backward);
    free(s.forward);
    free(s.again);
    return changed ? graph_sort(g) : g->err.code;
}
