/* Copying one graph's nodes into another, with its inputs replaced. */
#include <stdio.h>
#include <stdlib.h>

#include "graph/op.h"

/* The copy in g of one node of the body. map: body tensor id -> tensor of g. */
static void copy_node(struct cb_graph *g, const struct node *node, struct cb_tensor **map) {
    struct cb_tensor *in[64], *t;
    if (node->op == &op_param) {
        t = graph_param(g, graph_leaf_name(node->out[0]), node->out[0]->type);
    } else if (node->op == &op_const) {
        t = graph_const(g, node->out[0]->type, ((const struct attr_leaf *)node->attrs)->data);
    } else {
        if (node->n_in > 64) {
            graph_fail(g, CB_E_UNSUPPORTED, "%s: %d inputs in a called graph; at most 64", node->op->name, node->n_in);
            return;
        }
        for (int k = 0; k < node->n_in; k++) in[k] = node->in[k] ? map[node->in[k]->id] : NULL;
        t = graph_node(g, node->op, node->attrs, node->n_in, in);
    }
    if (!graph_is_bad(g, t))
        for (int k = 0; k < node->n_out; k++) map[node->out[k]->id] = t->node->out[k];
}

enum cb_status graph_inline(struct cb_graph *g, const struct cb_graph *body, int n_in, struct cb_tensor *const *in,
                            struct cb_tensor **out) {
    if (g->err.code) return g->err.code;
    struct cb_tensor **map = calloc((size_t)body->n_tensors + 1, sizeof *map);
    if (!map) return graph_fail(g, CB_E_MEMORY, "graph: out of memory"), g->err.code;
    for (int i = 0; i < body->n_nodes && !g->err.code; i++) {
        const struct node *node = body->nodes[i];
        int argument = -1;
        if (node->op == &op_input &&
            (sscanf(graph_leaf_name(node->out[0]), "arg.%d", &argument) != 1 || argument < 0 || argument >= n_in)) {
            graph_fail(g, CB_E_NAME, "call: the body's input '%s'; wanted arg.0 to arg.%d", graph_leaf_name(node->out[0]), n_in - 1);
        } else if (argument >= 0) {
            char have[TYPE_TEXT], want[TYPE_TEXT];
            if (!type_equal(&in[argument]->type, &node->out[0]->type))
                graph_fail(g, CB_E_SHAPE, "call: argument %d is %s; the body wants %s", argument, type_text(&in[argument]->type, have),
                           type_text(&node->out[0]->type, want));
            map[node->out[0]->id] = in[argument];
        } else {
            copy_node(g, node, map);
        }
    }
    for (int i = 0; i < body->n_outputs && !g->err.code; i++) out[i] = map[body->outputs[i].tensor->id];
    free(map);
    return g->err.code;
}
