/* Pass: a sum of two products, as of a weight and its low-rank change, becomes one: the later product adds to the earlier in place. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"
#include "graph/replace.h"

/* How often each tensor is read, by nodes and as output; by id. */
static int *readers(const struct cb_graph *g) {
    int *n = calloc((size_t)g->n_tensors + 1, sizeof *n);
    for (int i = 0; n && i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k]) n[g->nodes[i]->in[k]->id]++;
    for (int i = 0; n && i < g->n_outputs; i++) n[g->outputs[i].tensor->id]++;
    return n;
}

/* Whether t is a product that only the sum reads. */
static bool is_part(const struct cb_tensor *t, const struct node *sum, const int *n_readers) {
    const struct op *op = t->node->op;
    return op->accumulate && t->index == op->accumulate_out && n_readers[t->id] == 1 && type_equal(&t->type, &sum->out[0]->type);
}

/* Whether it has room for something to add to. */
static bool is_open(const struct node *node) { return node->op->accumulate - 1 < node->n_in && !node->in[node->op->accumulate - 1]; }

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
    return g->err.code;
}
