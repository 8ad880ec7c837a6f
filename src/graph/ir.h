/* The graph: nodes of ops, the tensors between them, and how builders add to it.
   Building is sticky: the first failure is kept in the graph, builders then return the bad tensor, callers check once. */
#ifndef GRAPH_IR_H
#define GRAPH_IR_H
#include "base/arena.h"
#include "base/dtype.h"
#include "base/table.h"

struct op;
struct op_table;

/* A value in a graph. Borrowed from its graph; never freed alone. */
struct cb_tensor {
    struct cb_type type;
    struct node *node;  // the node that makes it
    int index;  // which output of that node
    int id;  // position in cb_graph.tensors
};

struct node {
    const struct op *op;
    const void *attrs;  // struct attr_<op>, NULL where the op has none
    struct cb_tensor **in;  // n_in entries; an absent optional input is NULL
    struct cb_tensor **out;  // n_out entries
    int n_in, n_out;
    int id;  // position in cb_graph.nodes: inputs always come before
    const char *name;  // for people: scope path, e.g. "h.0.attn"; may be ""
};

/* A tensor that leaves the graph under a name. The same name as a param or input leaf: they share one buffer, updated in place. */
struct graph_output {
    const char *name;
    struct cb_tensor *tensor;
    bool is_external;  // its buffer is bound from outside, the plan holds no memory for it
};

struct cb_graph {
    struct arena *arena;
    const struct op_table *ops;
    struct node **nodes;
    struct cb_tensor **tensors;
    struct graph_output *outputs;
    int n_nodes, n_tensors, n_outputs;
    int nodes_size, tensors_size, outputs_size;
    int backward_begin;  // nodes before it are the forward pass; n_nodes until graph_grad is first called
    struct table leaves;  // params and inputs by name: their tensors
    struct table output_names;
    const char *scope;  // prefix of the names of new nodes
    struct cb_err err;  // first failure
    struct cb_tensor bad_tensor;
};

/* Owned by caller, free with graph_destroy. ops: borrowed for the life of the graph. */
enum cb_status graph_create(struct cb_graph **graph, const struct op_table *ops, struct cb_err *err);
void graph_destroy(struct cb_graph **graph);

static inline bool graph_is_bad(const struct cb_graph *g, const struct cb_tensor *t) { return t == &g->bad_tensor; }
/* The bad tensor, after recording a failure (unless one is recorded). */
struct cb_tensor *graph_fail(struct cb_graph *g, enum cb_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Adds a node and infers its outputs. attrs is copied (op->attr_bytes; strings and arrays in it must live in g->arena or be static).
   in[i] may be NULL for an absent optional input; trailing absent inputs may be left out. Returns output 0, or the bad tensor. */
struct cb_tensor *graph_node(struct cb_graph *g, const struct op *op, const void *attrs, int n_in, struct cb_tensor *const *in);
/* Output i of the node that made t. */
struct cb_tensor *graph_out(struct cb_graph *g, struct cb_tensor *t, int i);

/* Leaves. Names are copied. The same param name twice returns the same tensor (shape must agree: tied weights). */
struct cb_tensor *graph_param(struct cb_graph *g, const char *name, struct cb_type type);
struct cb_tensor *graph_input(struct cb_graph *g, const char *name, struct cb_type type);
/* A constant whose bytes are copied into the graph. */
struct cb_tensor *graph_const(struct cb_graph *g, struct cb_type type, const void *data);
struct cb_tensor *graph_const_f32(struct cb_graph *g, float value);  // rank 0
/* NULL where there is none. */
struct cb_tensor *graph_find_leaf(struct cb_graph *g, const char *name);
/* Name of a param or input leaf; NULL for any other tensor. */
const char *graph_leaf_name(const struct cb_tensor *t);

void graph_output(struct cb_graph *g, struct cb_tensor *t, const char *name);
/* The same, into a buffer that the caller binds (gradients, states): the plan holds no memory for it. */
void graph_output_external(struct cb_graph *g, struct cb_tensor *t, const char *name);

/* Names of nodes made until the matching pop carry "scope." in front. Returns the old scope, to be handed to graph_pop. */
const char *graph_push(struct cb_graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
void graph_pop(struct cb_graph *g, const char *old);

/* Copies the body's nodes into g. Its inputs must be named "arg.0", "arg.1", ... and take in[0..n_in-1]; params keep their names; out[i] is its i-th
   output. The body is borrowed for the call. */
enum cb_status graph_inline(struct cb_graph *g, const struct cb_graph *body, int n_in, struct cb_tensor *const *in, struct cb_tensor **out);

/* Adds nodes that compute d loss / d wrt[i] into grad[i] (NULL where loss does not depend on it).
   seed: gradient of loss, of its shape; NULL for ones. sum: nullable; sum[i] (nullable, shape of wrt[i]) is added to grad[i], in place where the
   last op can. May be called again on its own results: higher derivatives. */
enum cb_status graph_grad(struct cb_graph *g, struct cb_tensor *loss, struct cb_tensor *seed, int n, struct cb_tensor *const *wrt,
                          struct cb_tensor *const *sum, struct cb_tensor **grad);

/* Passes, run by plan_create: each rewrites the graph in place and keeps its meaning. */
enum cb_status pass_replay(struct cb_graph *g);  // a gradient node that computes its forward node's output too replaces it
enum cb_status pass_sum(struct cb_graph *g);  // a sum of two products becomes one product that adds to the other
// cheap nodes are computed again in the backward pass, to be forgotten in between, where that spares `least` bytes in all
enum cb_status pass_recompute(struct cb_graph *g, int64_t least);
/* Puts nodes into an order where inputs come first, as near to the present one as that allows, and renumbers. */
enum cb_status graph_sort(struct cb_graph *g);

/* Checks every invariant (order, arity, types as infer gives them); run between passes in tests. */
enum cb_status graph_check(const struct cb_graph *g, struct cb_err *err);
/* Text dump, one line a node. Owned by caller, free with free(). */
enum cb_status graph_dump(const struct cb_graph *g, char **text, struct cb_err *err);
#endif
