/* What the builders and grad hooks of ops share. */
#ifndef OPS_BUILD_H
#define OPS_BUILD_H
#include "graph/op.h"

/* A rank-0 constant of a number type. */
struct cb_tensor *ops_scalar(struct cb_graph *g, enum cb_dtype dtype, double value);
/* Zeros of a shape. */
struct cb_tensor *ops_zeros(struct cb_graph *g, const struct cb_type *type);
/* The grad of ops through which nothing flows. */
void ops_no_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din);
/* Counts a negative axis from the end. False, with the failure in g, where it is out of range. */
bool ops_build_axis(struct cb_graph *g, const char *op, int rank, int64_t axis, int64_t *out);
/* Axes counted from the front and sorted; n 0: all of them. False, with the failure in g, where one is out of range or twice. */
bool ops_build_axes(struct cb_graph *g, const char *op, int rank, int n, const int64_t *axes, struct attr_ints *out);
/* A reduced tensor under the shape that keeps the reduced axes of x as ones. */
struct cb_tensor *ops_keep_axes(struct cb_graph *g, struct cb_tensor *reduced, const struct cb_type *x, const struct attr_ints *axes);
/* An absent trailing input reads as NULL. */
static inline struct cb_tensor *ops_input(const struct node *node, int i) { return i < node->n_in ? node->in[i] : NULL; }
#endif
