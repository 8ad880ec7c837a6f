/* Pass: a gradient node that computes its forward node's output as well (op.replays) stands in for it, and the forward node falls away. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

/* Whether node depends on the outputs of `on`. seen: one byte a node, zeroed. */
static bool depends(const struct node *node, const struct node *on, unsigned char *seen) {
    if (node == on) return true;
    if (seen[node->id] || node->id < on->id) return false;
    seen[node->id] = 1;
    for (int k = 0; k < node->n_in; k++)
        if (node->in[k] && depends(node->in[k]->node, on, seen)) return true;
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
    bool changed = false;
    for (int i = 0; i < g->n_nodes; i++) {
        struct node *back = g->nodes[i], *forward = back->op->replays ? forward_of(g, back) : NULL;
        if (!forward) continue;
        unsigned char *seen = calloc((size_t)g->n_nodes, 1);
        if (!seen) return graph_fail(g, CB_E_MEMORY, "graph: out of memory"), g->err.code;
        bool loops = depends(back, forward, seen);
        free(seen);
        if (loops) continue;
        for (int j = 0; j < g->n_nodes; j++)
            for (int k = 0; k < g->nodes[j]->n_in; k++)
                if (g->nodes[j]->in[k] == forward->out[0]) g->nodes[j]->in[k] = back->out[0];
        for (int j = 0; j < g->n_outputs; j++)
            if (g->outputs[j].tensor == forward->out[0]) g->outputs[j].tensor = back->out[0];
        changed = true;
    }
    return changed ? graph_sort(g) : CB_OK;
}
