/* Pass: cheap forward nodes whose results are only kept for the backward pass are computed again there.
   A node qualifies when it is OP_CHEAP and each of its inputs is a leaf, is kept for the backward pass anyway, or is itself computed again. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

/* Sets of tensors by id. */
struct sets {
    bool *backward;  // read by a backward node
    bool *forward;  // read by a forward node
    struct cb_tensor **again;  // the recomputed copy
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

enum cb_status pass_recompute(struct cb_graph *g) {
    if (g->err.code || g->backward_begin >= g->n_nodes) return g->err.code;
    int end = g->backward_begin, n_nodes = g->n_nodes;
    size_t n = (size_t)g->n_tensors;
    struct sets s = {calloc(n, 1), calloc(n, 1), calloc(n, sizeof *s.again)};
    bool changed = false;
    if (!s.backward || !s.forward || !s.again) {
        graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    } else {
        collect(g, &s);
        for (int i = 0; i < end && !g->err.code; i++) {
            struct node *node = g->nodes[i];
            if (!is_worth(node, &s)) continue;
            struct node *copy = node_again(g, node, &s);
            if (!copy) break;
            s.again[node->out[0]->id] = copy->out[0];
            s.backward[node->out[0]->id] = false;  // the copy is made from what is kept; the first result may be forgotten
            changed = true;
        }
        for (int i = end; i < n_nodes; i++)
            for (int k = 0; k < g->nodes[i]->n_in; k++) g->nodes[i]->in[k] = read_again(&s, g->nodes[i]->in[k]);
    }
    free(s.backward);
    free(s.forward);
    free(s.again);
    return changed ? graph_sort(g) : g->err.code;
}
