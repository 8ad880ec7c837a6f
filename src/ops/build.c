/* What the builders and grad hooks of ops share. */
#include "ops/build.h"

#include <string.h>

#include "ops/ops.h"

struct cb_tensor *ops_scalar(struct cb_graph *g, enum cb_dtype dtype, double value) {
    double bytes = 0;
    ref_set(dtype, &bytes, 0, value);
    return graph_const(g, type_make(dtype, 0, NULL), &bytes);
}

struct cb_tensor *ops_zeros(struct cb_graph *g, const struct cb_type *type) {
    return op_expand(g, ops_scalar(g, type->dtype, 0), type->rank, type->dim);
}

void ops_no_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    (void)g, (void)node, (void)dout, (void)need, (void)din;
}

bool ops_build_axis(struct cb_graph *g, const char *op, int rank, int64_t axis, int64_t *out) {
    if (axis < -rank || axis >= rank) {
        graph_fail(g, CB_E_SHAPE, "%s: axis %lld; %d to %d wanted for rank %d", op, (long long)axis, -rank, rank - 1, rank);
        return false;
    }
    *out = axis < 0 ? axis + rank : axis;
    return true;
}

bool ops_build_axes(struct cb_graph *g, const char *op, int rank, int n, const int64_t *axes, struct attr_ints *out) {
    bool used[CB_MAX_RANK] = {false};
    memset(out, 0, sizeof *out);
    for (int i = 0; i < n; i++) {
        int64_t axis;
        if (!ops_build_axis(g, op, rank, axes[i], &axis)) return false;
        if (used[axis]) {
            graph_fail(g, CB_E_SHAPE, "%s: axis %lld twice; each once wanted", op, (long long)axis);
            return false;
        }
        used[axis] = true;
    }
    for (int i = 0; i < rank; i++)
        if (used[i] || n == 0) out->v[out->n++] = i;
    return true;
}

struct cb_tensor *ops_keep_axes(struct cb_graph *g, struct cb_tensor *reduced, const struct cb_type *x, const struct attr_ints *axes) {
    struct cb_type t = *x;
    for (int i = 0; i < axes->n; i++) t.dim[axes->v[i]] = 1;
    return op_reshape(g, reduced, t.rank, t.dim);
}
