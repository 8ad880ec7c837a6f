/* How a pass puts tensors in the place of others: by[t->id], and what stands for that in turn; NULL: t stays. */
#ifndef GRAPH_REPLACE_H
#define GRAPH_REPLACE_H
#include "graph/ir.h"

static inline struct cb_tensor *graph_replacement(struct cb_tensor *const *by, struct cb_tensor *t) {
    while (t && by[t->id]) t = by[t->id];
    return t;
}

/* All that nodes read, and the outputs, become their replacements. */
static inline void graph_replace(struct cb_graph *g, struct cb_tensor *const *by) {
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++) g->nodes[i]->in[k] = graph_replacement(by, g->nodes[i]->in[k]);
    for (int i = 0; i < g->n_outputs; i++) g->outputs[i].tensor = graph_replacement(by, g->outputs[i].tensor);
}
#endif
