/* Some rows of a result: what comes before it row by row is computed for these rows alone, as in a last layer of which one token is wanted. */
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"
#include "nn/nn.h"
#include "ops/ops.h"

struct picking {
    struct cb_graph *g;
    int64_t batch, time;
    struct cb_tensor *rows;  // their numbers
    bool *whole, *wanted;  // by tensor: every row is read; chosen rows are
    struct cb_tensor **picked;  // by tensor: (B,1,C) of its chosen rows
};

/* Numbers that rows can be picked of; truth values and labels are not. */
static bool has_rows(const struct picking *p, const struct cb_type *t) {
    return (t->dtype == CB_DTYPE_F32 || t->dtype == CB_DTYPE_F64) && t->rank == 3 && t->dim[0] == p->batch && t->dim[1] == p->time;
}

/* The inputs, as bits, whose rows alone make the same rows of the outputs; the others are the same for all rows. 0: it is not so. */
static unsigned inputs_by_row(const struct picking *p, const struct node *node) {
    const struct op *op = node->op;
    unsigned bits = op->by_row ? op->by_row(node) : 0;
    for (int i = 0; i < node->n_in && op->traits & OP_ELEMENTWISE; i++) {
        const struct cb_type *t = node->in[i] ? &node->in[i]->type : NULL;
        const bool is_same = !t || type_elements(t) == (t->rank ? t->dim[t->rank - 1] : 1);
        if (!is_same && !has_rows(p, t)) return 0;
        if (!is_same) bits |= 1u << i;
    }
    for (int i = 0; i < node->n_out; i++)
        if (!has_rows(p, &node->out[i]->type)) return 0;
    for (int i = 0; i < node->n_in; i++)
        if (bits >> i & 1 && node->in[i] && !has_rows(p, &node->in[i]->type)) return 0;
    return bits;
}

/* Sorts tensors into those that are read whole and those of which chosen rows do. */
static void mark(struct picking *p, const struct cb_tensor *x) {
    struct cb_graph *g = p->g;
    for (int i = 0; i < g->n_outputs; i++) p->whole[g->outputs[i].tensor->id] = true;
    p->wanted[x->id] = true;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        const struct node *node = g->nodes[i];
        bool whole = false, wanted = false;
        for (int k = 0; k < node->n_out; k++) whole |= p->whole[node->out[k]->id], wanted |= p->wanted[node->out[k]->id];
        const unsigned bits = wanted && !whole ? inputs_by_row(p, node) : 0;
        if (!whole && !wanted) continue;
        for (int k = 0; k < node->n_out; k++) p->whole[node->out[k]->id] |= !bits;
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k]) (bits >> k & 1 ? p->wanted : p->whole)[node->in[k]->id] = true;
    }
}

static struct cb_tensor *picked(struct picking *p, struct cb_tensor *t) {
    if (p->picked[t->id]) return p->picked[t->id];
    const int64_t width = t->type.dim[2], flat[2] = {p->batch * p->time, width}, shape[3] = {p->batch, 1, width};
    return p->picked[t->id] = op_reshape(p->g, op_embedding(p->g, op_reshape(p->g, t, 2, flat), p->rows), 3, shape);
}

/* A node once more, for chosen rows. */
static void node_again(struct picking *p, const struct node *node, unsigned bits) {
    struct cb_tensor *in[OP_MAX_IN];
    for (int k = 0; k < node->n_in; k++) in[k] = node->in[k] && bits >> k & 1 ? picked(p, node->in[k]) : node->in[k];
    const char *old = p->g->scope;
    p->g->scope = node->name;
    struct cb_tensor *y = graph_node(p->g, node->op, node->attrs, node->n_in, in);
    p->g->scope = old;
    for (int k = 0; k < node->n_out; k++) p->picked[node->out[k]->id] = graph_is_bad(p->g, y) ? y : y->node->out[k];
}

struct cb_tensor *nn_rows(struct nn *nn, struct cb_tensor *x, struct cb_tensor *rows) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, x) || graph_is_bad(g, rows)) return x;
    const size_t n = (size_t)g->n_tensors;
    const int n_nodes = g->n_nodes;
    const int64_t shape[2] = {x->type.dim[0], x->type.dim[2]};
    struct picking p = {g, x->type.dim[0], x->type.dim[1], rows, calloc(n, 1), calloc(n, 1), calloc(n, sizeof *p.picked)};
    if (!p.whole || !p.wanted || !p.picked) {
        x = graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    } else {
        // of a single step there is nothing to leave out
        if (p.time > 1) mark(&p, x);
        for (int i = 0; i < n_nodes && p.time > 1; i++) {
            const struct node *node = g->nodes[i];
            bool wanted = false;
            for (int k = 0; k < node->n_out; k++) wanted |= p.wanted[node->out[k]->id] && !p.whole[node->out[k]->id];
            if (wanted) node_again(&p, node, inputs_by_row(&p, node));
        }
        x = op_reshape(g, picked(&p, x), 2, shape);
    }
    free(p.whole);
    free(p.wanted);
    free(p.picked);
    return x;
}
