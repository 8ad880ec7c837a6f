/* Norms made of simpler ops: group_norm, weight_norm, and cosine_similarity. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// @attrs group_norm: int groups, float eps
// @attrs weight_norm: int axis
// @attrs cosine_similarity: int axis, float eps

static const char *const out_y[] = {"y", NULL};

/* x (B,C,...) with vectors of C at the given inputs, where present. */
static enum cb_status check_channels(const struct node *node, int n, struct cb_err *err) {
    const struct cb_type *x = &node->in[0]->type;
    char text[TYPE_TEXT];
    TRY(ops_check_float(node, 0, err));
    if (x->rank < 2) FAIL(err, CB_E_SHAPE, "%s: x is %s; (B, C, ...) wanted", node->op->name, type_text(x, text));
    for (int i = 1; i < n; i++) TRY(ops_check_vector(node, i, x->dim[1], err));
    return CB_OK;
}

/* A vector of C as (C,1,...), to broadcast over (B,C,...). NULL stays NULL. */
static struct cb_tensor *channels(struct cb_graph *g, struct cb_tensor *v, const struct cb_type *x) {
    int64_t dim[CB_MAX_RANK] = {x->dim[1], 1, 1, 1, 1, 1};
    return v ? op_reshape(g, v, x->rank - 1, dim) : NULL;
}

static struct cb_tensor *affine(struct cb_graph *g, struct cb_tensor *y, struct cb_tensor *weight, struct cb_tensor *bias,
                                const struct cb_type *x) {
    if (weight) y = op_mul(g, y, channels(g, weight, x));
    return bias ? op_add(g, y, channels(g, bias, x)) : y;
}

/* ---- group_norm (Wu and He 2018): instance norm where groups is C */
static enum cb_status infer_group_norm(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    int64_t groups = ((const struct attr_group_norm *)node->attrs)->groups;
    TRY(check_channels(node, 3, err));
    *out = node->in[0]->type;
    if (groups < 1 || out->dim[1] % groups)
        FAIL(err, CB_E_SHAPE, "group_norm: %lld channels in %lld groups; a whole number in each wanted", (long long)out->dim[1],
             (long long)groups);
    return CB_OK;
}

static void expand_group_norm(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_group_norm *a = node->attrs;
    struct cb_tensor *x = node->in[0];
    int64_t rows = x->type.dim[0] * a->groups, n = x->type.dim[1] / a->groups;
    for (int i = 2; i < x->type.rank; i++) n *= x->type.dim[i];
    struct cb_tensor *y = op_layer_norm(g, op_reshape(g, x, 2, (int64_t[]){rows, n}), NULL, NULL, a->eps);
    out[0] = affine(g, op_reshape(g, y, x->type.rank, x->type.dim), ops_input(node, 1), ops_input(node, 2), &x->type);
}

#define GROUPS(n) \
    &(const struct attr_group_norm) { n, 1e-5 }
static const struct op_case cases_group_norm[] = {
    {.name = "two", .attrs = GROUPS(2), .in = {CASE_F32(3, 6, 5), CASE_F32(6), CASE_F32(6)}},
    {.name = "instance", .attrs = GROUPS(5), .in = {CASE_F32(2, 5, 3, 4), CASE_F32(5), CASE_F32(5)}},
    {.name = "plain", .attrs = GROUPS(1), .in = {CASE_F32(2, 3)}},
    {.name = "empty", .attrs = GROUPS(1), .in = {CASE_F32(0, 3, 2)}},
    {.name = NULL}};
static const char *const in_group_norm[] = {"x", "weight?", "bias?", NULL};
static const struct op composed_group_norm = {
    .name = "group_norm",
    .doc = "Layer norm of each row's groups of channels of x (B,C,...), with weight and bias (C) (Wu and He 2018).",
    .in_names = in_group_norm,
    .out_names = out_y,
    .attrs = attr_fields_group_norm,
    .attr_bytes = sizeof(struct attr_group_norm),
    .infer = infer_group_norm,
    .expand = expand_group_norm,
    .cases = cases_group_norm};

struct cb_tensor *op_group_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias, int64_t groups,
                                double eps) {
    return graph_node(g, &composed_group_norm, &(struct attr_group_norm){groups, eps}, 3, (struct cb_tensor *[]){x, weight, bias});
}

/* ---- weight_norm (Salimans and Kingma 2016) */
static enum cb_status infer_weight_norm(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_weight_norm *a = node->attrs;
    char have[TYPE_TEXT], wanted[TYPE_TEXT];
    struct cb_type want = *out = node->in[0]->type;
    TRY(ops_check_float(node, 0, err));
    TRY(ops_check_axis(node, a->axis, out->rank, err));
    for (int i = 0; i < want.rank; i++) want.dim[i] = i == a->axis ? want.dim[i] : 1;
    if (!type_equal(&want, &node->in[1]->type))
        FAIL(err, CB_E_SHAPE, "weight_norm: scale is %s; %s wanted", type_text(&node->in[1]->type, have), type_text(&want, wanted));
    return CB_OK;
}

static void expand_weight_norm(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_weight_norm *a = node->attrs;
    struct cb_tensor *v = node->in[0], *norm = op_unary(g, "abs", v);
    int64_t axes[CB_MAX_RANK];
    int n = 0;
    for (int i = 0; i < v->type.rank; i++)
        if (i != a->axis) axes[n++] = i;
    if (n > 0) norm = op_norm_p(g, v, 2, n, axes, true);
    out[0] = op_mul(g, v, op_div(g, node->in[1], norm));
}

#define AXIS(i) \
    &(const struct attr_weight_norm) { i }
static const struct op_case cases_weight_norm[] = {{.name = "rows", .attrs = AXIS(0), .in = {CASE_F32(5, 7), CASE_F32(5, 1)}},
                                                   {.name = "last", .attrs = AXIS(2), .in = {CASE_F32(4, 3, 5), CASE_F32(1, 1, 5)}},
                                                   {.name = "empty", .attrs = AXIS(0), .in = {CASE_F32(0, 7), CASE_F32(0, 1)}},
                                                   {.name = NULL}};
static const char *const in_weight_norm[] = {"v", "scale", NULL};
static const struct op composed_weight_norm = {.name = "weight_norm",
                                               .doc = "scale v / |v|, the norm over every axis but one (Salimans and Kingma 2016).",
                                               .in_names = in_weight_norm,
                                               .out_names = out_y,
                                               .attrs = attr_fields_weight_norm,
                                               .attr_bytes = sizeof(struct attr_weight_norm),
                                               .infer = infer_weight_norm,
                                               .expand = expand_weight_norm,
                                               .cases = cases_weight_norm};

struct cb_tensor *op_weight_norm(struct cb_graph *g, struct cb_tensor *v, struct cb_tensor *scale, int axis) {
    struct attr_weight_norm a;
    if (graph_is_bad(g, v)) return v;
    if (!ops_build_axis(g, "weight_norm", v->type.rank, axis, &a.axis)) return &g->bad_tensor;
    return graph_node(g, &composed_weight_norm, &a, 2, (struct cb_tensor *[]){v, scale});
}

/* ---- cosine_similarity */
static enum cb_status infer_cosine(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_cosine_similarity *a = node->attrs;
    struct cb_type both;
    TRY(ops_check_float(node, 0, err));
    TRY(ops_check_same_dtype(node, 0, 1, err));
    TRY(ops_check_broadcast(node, &node->in[0]->type, &node->in[1]->type, &both, err));
    TRY(ops_check_axis(node, a->axis, both.rank, err));
    struct cb_type t = {.dtype = both.dtype};
    for (int i = 0; i < both.rank; i++)
        if (i != a->axis) t.dim[t.rank++] = both.dim[i];
    *out = t;
    return CB_OK;
}

static void expand_cosine(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_cosine_similarity *a = node->attrs;
    struct cb_tensor *x[2];
    struct cb_type both;
    if (ops_check_broadcast(node, &node->in[0]->type, &node->in[1]->type, &both, &g->err)) return;
    for (int k = 0; k < 2; k++) {
        // each norm is held at eps or above, without passing a gradient there
        struct cb_tensor *v = op_expand(g, node->in[k], both.rank, both.dim);
        x[k] = op_div(g, v, op_clamp(g, op_norm_p(g, v, 2, 1, &a->axis, true), a->eps, INFINITY));
    }
    out[0] = op_sum(g, op_mul(g, x[0], x[1]), 1, &a->axis, false);
}

#define COSINE(i) \
    &(const struct attr_cosine_similarity) { i, 1e-8 }
static const struct op_case cases_cosine[] = {{.name = "rows", .attrs = COSINE(1), .in = {CASE_F32(5, 7), CASE_F32(5, 7)}},
                                              {.name = "broadcast", .attrs = COSINE(2), .in = {CASE_F32(5, 1, 7), CASE_F32(1, 3, 7)}},
                                              {.name = "empty", .attrs = COSINE(1), .in = {CASE_F32(0, 7), CASE_F32(1, 7)}},
                                              {.name = NULL}};
static const char *const in_cosine[] = {"a", "b", NULL};
static const struct op composed_cosine = {.name = "cosine_similarity",
                                          .doc = "Sum of a b along an axis over both norms, each at least eps; a and b broadcast.",
                                          .in_names = in_cosine,
                                          .out_names = out_y,
                                          .attrs = attr_fields_cosine_similarity,
                                          .attr_bytes = sizeof(struct attr_cosine_similarity),
                                          .infer = infer_cosine,
                                          .expand = expand_cosine,
                                          .cases = cases_cosine};

struct cb_tensor *op_cosine_similarity(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, int axis, double eps) {
    struct attr_cosine_similarity v = {0, eps};
    if (graph_is_bad(g, a) || graph_is_bad(g, b)) return &g->bad_tensor;
    if (!ops_build_axis(g, "cosine_similarity", a->type.rank > b->type.rank ? a->type.rank : b->type.rank, axis, &v.axis))
        return &g->bad_tensor;
    return graph_node(g, &composed_cosine, &v, 2, (struct cb_tensor *[]){a, b});
}

const struct op *const op_file_norm_composed[] = {&composed_group_norm, &composed_weight_norm, &composed_cosine, NULL};
