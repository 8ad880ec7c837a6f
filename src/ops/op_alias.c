/* Another name for a tensor, and with it the derivative of a gradient op: the differentiated expansion of its forward op. */
#include "ops/build.h"
#include "ops/ops.h"

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    (void)err;
    *out = node->in[0]->type;
    return CB_OK;
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    (void)g;
    (void)node;
    if (need[0]) din[0] = dout[0];
}

static const char *const in_names[] = {"x", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct op_case cases[] = {{.name = "odd", .in = {CASE_F32(3, 5)}}, {.name = "empty", .in = {CASE_F32(0, 5)}}, {0}};
static const struct op alias_op = {
    .name = "alias",
    .doc = "y = x, as a node of its own: what is differentiated with respect to y sees nothing of how x was made.",
    .in_names = in_names,
    .out_names = out_names,
    .traits = OP_VIEW,
    .infer = infer,
    .grad = grad,
    .cases = cases,
};

struct cb_tensor *op_alias(struct cb_graph *g, struct cb_tensor *x) {
    return x ? graph_node(g, &alias_op, NULL, 1, &x) : NULL;
}

void op_expand_grad(struct cb_graph *g, int n_out, struct cb_tensor *const *out, struct cb_tensor *const *dout, int n,
                    struct cb_tensor *const *wrt, struct cb_tensor **grads) {
    struct cb_tensor *loss = NULL, *list[OP_MAX_IN], *found[OP_MAX_IN];
    int n_list = 0;
    for (int i = 0; i < n_out; i++) {
        if (!dout[i]) continue;
        struct cb_tensor *part = op_sum(g, op_mul(g, out[i], dout[i]), 0, NULL, false);
        loss = loss ? op_add(g, loss, part) : part;
    }
    for (int i = 0; i < n; i++)
        if (wrt[i]) list[n_list++] = wrt[i];
    if (g->err.code || (loss && graph_grad(g, loss, NULL, n_list, list, NULL, found))) return;
    for (int i = 0, k = 0; i < n; i++) {
        if (!wrt[i]) continue;
        grads[i] = loss && found[k] ? found[k] : ops_zeros(g, &wrt[i]->type);
        k++;
    }
}

const struct op *const op_file_alias[] = {&alias_op, NULL};
