/* Topological order that stays as near to the present one as the edges allow. */
#include <stdlib.h>

#include "graph/op.h"

/* Depth-first from node, inputs first, with an explicit stack. */
static void visit(struct node **order, int *n, unsigned char *state, struct node **stack, int *next, struct node *root) {
    int depth = 0;
    stack[0] = root;
    next[0] = 0;
    state[root->id] = 1;
    while (depth >= 0) {
        struct node *node = stack[depth];
        if (next[depth] < node->n_in) {
            struct cb_tensor *t = node->in[next[depth]++];
            if (t && !state[t->node->id]) {
                state[t->node->id] = 1;
                stack[++depth] = t->node;
                next[depth] = 0;
            }
        } else {
            order[(*n)++] = node;
            depth--;
        }
    }
}

enum cb_status graph_sort(struct cb_graph *g) {
    if (g->err.code) return g->err.code;
    size_t count = (size_t)g->n_nodes + 1;
    struct node **order = malloc(count * sizeof *order), **stack = malloc(count * sizeof *stack);
    unsigned char *state = calloc(count, 1);
    int *next = malloc(count * sizeof *next), n = 0;
    if (!order || !stack || !state || !next) {
        graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    } else {
        int backward = g->backward_begin < g->n_nodes ? g->nodes[g->backward_begin]->id : -1, begin = INT32_MAX;
        for (int i = 0; i < g->n_nodes; i++)
            if (!state[g->nodes[i]->id]) {
                if (g->nodes[i]->id == backward) begin = n;
                visit(order, &n, state, stack, next, g->nodes[i]);
            }
        for (int i = 0; i < n; i++) {
            if (order[i]->id == backward && i < begin) begin = i;
            g->nodes[i] = order[i];
        }
        for (int i = 0; i < n; i++) g->nodes[i]->id = i;
        if (backward >= 0) g->backward_begin = begin;
    }
    free(order);
    free(stack);
    free(state);
    free(next);
    return g->err.code;
}
