/* Pass: a sum of two products, as of a weight and its low-rank change: the later product adds to the earlier in place, or one node makes both (op.join). */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"
#include "graph/replace.h"

/* How often each tensor is read, by nodes and as output; by id. Of nodes those that something reads. */
static int *readers(const struct cb_graph *g) {
    int *n = calloc((size_t)g->n_tensors + 1, sizeof *n);
    for (int i = 0; n && i < g->n_outputs; i++) n[g->outputs[i].tensor->id]++;
    for (int i = g->n_nodes - 1; n && i >= 0; i--) {
        const struct node *node = g->nodes[i];
        bool is_read = false;
        for (int k = 0; k < node->n_out; k++) is_read |= n[node->out[k]->id] > 0;
        for (int k = 0; is_read && k < node->n_in; k++)
            if (node->in[k]) n[node->in[k]->id]++;
    }
    return n;
}

/* Whether t is a product that only the sum reads. */
static bool is_part(const struct cb_tensor *t, const struct node *sum, const int *n_readers) {
    const struct op *op = t->node->op;
    return op->accumulate && t->index == op->accumulate_out && n_readers[t->id] == 1 && type_equal(&t->type, &sum->out[0]->type);
}

/* Whether it has room for something to add to. */
static bool is_open(const struct node *node) { return node->op->accumulate - 1 < node->n_in && !node->in[node->op->accumulate - 1]; }

/* Pairs of nodes, the second of which adds to the first, that are better as one. */
static enum cb_status join_pairs(struct cb_graph *g) {
    const int n = g->n_nodes;
    int *n_readers = readers(g);
    struct cb_tensor **by = calloc((size_t)g->n_tensors + (size_t)n + 1, sizeof *by);  // a tensor more for each pair
    bool changed = false;
    if (!n_readers || !by) graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    for (int i = 0; !g->err.code && i < n; i++) {
        const struct node *second = g->nodes[i];
        const struct op *op = second->op;
        const int acc = op->accumulate - 1;
        const struct cb_tensor *first = op->join && acc < second->n_in ? second->in[acc] : NULL;
        if (!first || first->node->op != op || first->index != op->accumulate_out || n_readers[first->id] != 1) continue;
        if (!n_readers[second->out[op->accumulate_out]->id]) continue;
        struct cb_tensor *joint = op->join(g, first->node, second);
        if (joint) by[second->out[op->accumulate_out]->id] = joint;
        changed |= joint != NULL;
    }
    if (changed && !g->err.code) graph_replace(g, by);
    free(n_readers);
    free(by);
    return changed ? graph_sort(g) : g->err.code;
}

enum cb_status pass_sum(struct cb_graph *g) {
    if (g->err.code) return g->err.code;
    int *n_readers = readers(g);
    struct cb_tensor **by = calloc((size_t)g->n_tensors + 1, sizeof *by);
    if (!n_readers || !by) graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    for (int i = 0; !g->err.code && i < g->n_nodes; i++) {
        const struct node *sum = g->nodes[i];
        if (strcmp(sum->op->name, "add") != 0 || !n_readers[sum->out[0]->id]) continue;
        struct cb_tensor *first = graph_replacement(by, sum->in[0]), *last = graph_replacement(by, sum->in[1]);
        if (first->node->id > last->node->id) {
            struct cb_tensor *t = first;
            first = last, last = t;
        }
        if (first == last || !is_part(first, sum, n_readers) || !is_part(last, sum, n_readers) || !is_open(last->node)) continue;
        last->node->in[last->node->op->accumulate - 1] = first;
        n_readers[last->id] = n_readers[sum->out[0]->id];
        by[sum->out[0]->id] = last;
    }
    if (!g->err.code) graph_replace(g, by);
    free(n_readers);
    free(by);
    return g->err.code ? g->err.code : join_pairs(g);
}
