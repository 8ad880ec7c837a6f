/* Pass: a gradient node that computes its forward node's output as well (op.replays) stands in for it, and the forward node falls away. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"
#include "graph/replace.h"

/* Whether node depends on `on` once the replacements are made. begin: nodes before it read neither them nor `on`. seen: one byte a node, zeroed. */
static bool depends(const struct node *node, const struct node *on, struct cb_tensor *const *by, int begin, unsigned char *seen) {
    if (node == on) return true;
    if (seen[node->id] || node->id < begin) return false;
    seen[node->id] = 1;
    for (int k = 0; k < node->n_in; k++)
        if (node->in[k] && depends(graph_replacement(by, node->in[k])->node, on, by, begin, seen)) return true;
    return false;
}

/* The forward node that a gradient node replays: its attributes begin with the same, same leading inputs by name order. */
static struct node *forward_of(const struct cb_graph *g, const struct node *back) {
    for (int i = 0; i < back->id; i++) {
        struct node *node = g->nodes[i];
        if (strcmp(node->op->name, back->op->replays) != 0 || node->op->attr_bytes > back->op->attr_bytes) continue;
        bool same = !node->op->attr_bytes || memcmp(node->attrs, back->attrs, node->op->attr_bytes) == 0;
        // inputs are matched by name: the gradient node has further ones of its own
        for (int k = 0; same && k < node->n_in; k++)
            for (int j = 0; j < back->n_in; j++)
                if (strcmp(node->op->in_names[k], back->op->in_names[j]) == 0) same &= node->in[k] == back->in[j];
        if (same) return node;
    }
    return NULL;
}

enum cb_status pass_replay(struct cb_graph *g) {
    if (g->err.code) return g->err.code;
    struct cb_tensor **by = calloc((size_t)g->n_tensors + 1, sizeof *by);
    unsigned char *seen = malloc((size_t)g->n_nodes + 1);
    int first = g->n_nodes;  // of the nodes that were replaced
    if (!by || !seen) graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    for (int i = 0; !g->err.code && i < g->n_nodes; i++) {
        struct node *back = g->nodes[i], *forward = back->op->replays ? forward_of(g, back) : NULL;
        if (!forward) continue;
        memset(seen, 0, (size_t)g->n_nodes);
        const int begin = forward->id < first ? forward->id : first;
        if (depends(back, forward, by, begin, seen)) continue;
        by[forward->out[0]->id] = back->out[0];
        first = begin;
    }
    const bool changed = first < g->n_nodes;
    if (changed) graph_replace(g, by);
    free(by);
    free(seen);
    return changed ? graph_sort(g) : g->err.code;
}
