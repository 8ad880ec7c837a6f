/* Two-dimensional convolution with groups and its two gradients, each the derivative of the others; one-dimensional and transposed forms. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"
#include "ops/vision.h"

// @attrs conv2d: ints stride, ints padding, ints dilation, int groups
// @attrs conv2d_grad_input: ints stride, ints padding, ints dilation, int groups, int height, int width
// @attrs conv2d_grad_weight: ints stride, ints padding, ints dilation, int groups, int height, int width

static const struct op conv2d_op, grad_input_op, grad_weight_op;

/* One convolution: x (n,c,h,w), weight (o,c/groups,kh,kw), y (n,o,oh,ow); pairs are height then width. */
struct shape {
    int64_t n, c, o, groups, in[2], kernel[2], out[2], stride[2], padding[2], dilation[2];
};

/* Reads an attribute of 0, 1 or 2 integers. */
static bool pair(const struct attr_ints *list, int64_t absent, int64_t least, int64_t to[2]) {
    if (list->n < 0 || list->n > 2) return false;
    for (int i = 0; i < 2; i++) {
        to[i] = list->n ? list->v[list->n == 2 ? i : 0] : absent;
        if (to[i] < least || to[i] > 1 << 30) return false;
    }
    return true;
}

/* All three attribute structs begin with the fields of conv2d's. */
static enum cb_status options_of(const struct node *node, struct shape *s, struct cb_err *err) {
    const struct attr_conv2d *attrs = node->attrs;
    s->groups = attrs->groups ? attrs->groups : 1;
    if (!pair(&attrs->stride, 1, 1, s->stride) || !pair(&attrs->padding, 0, 0, s->padding) || !pair(&attrs->dilation, 1, 1, s->dilation) ||
        s->groups < 1)
        FAIL(err, CB_E_ARGUMENT,
             "%s: stride, padding, dilation or %lld groups out of range; wanted one or two integers, at least 1, 0, 1 and 1",
             node->op->name, (long long)s->groups);
    return CB_OK;
}

/* Output size along each axis; the kernel must fit into the padded input. */
static enum cb_status out_size(const struct node *node, struct shape *s, struct cb_err *err) {
    for (int i = 0; i < 2; i++) {
        int64_t reach = s->dilation[i] * (s->kernel[i] - 1) + 1, room = s->in[i] + 2 * s->padding[i];
        if (s->kernel[i] < 1 || s->kernel[i] > 1 << 30 || reach > room)
            FAIL(err, CB_E_SHAPE, "%s: kernel %lld (reach %lld) over %lld with its padding; wanted a kernel of 1 or more that fits",
                 node->op->name, (long long)s->kernel[i], (long long)reach, (long long)room);
        s->out[i] = (room - reach) / s->stride[i] + 1;
    }
    if (s->c % s->groups || s->o % s->groups)
        FAIL(err, CB_E_SHAPE, "%s: %lld input and %lld output channels in %lld groups; wanted multiples", node->op->name, (long long)s->c,
             (long long)s->o, (long long)s->groups);
    return CB_OK;
}

static enum cb_status forward_shape(const struct node *node, struct shape *s, struct cb_err *err) {
    const struct cb_type *x = &node->in[0]->type, *w = &node->in[1]->type;
    TRY(options_of(node, s, err));
    s->n = x->dim[0], s->c = x->dim[1], s->o = w->dim[0];
    for (int i = 0; i < 2; i++) s->in[i] = x->dim[2 + i], s->kernel[i] = w->dim[2 + i];
    TRY(out_size(node, s, err));
    return check_type(node, 1, TYPE(x->dtype, s->o, s->c / s->groups, s->kernel[0], s->kernel[1]), err);
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct shape s;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    TRY(check_rank(node, 1, 4, err));
    TRY(forward_shape(node, &s, err));
    enum cb_dtype dtype = node->in[0]->type.dtype;
    *out = TYPE(dtype, s.n, s.o, s.out[0], s.out[1]);
    return check_type(node, 2, TYPE(dtype, s.o), err);
}

static enum cb_status input_shape(const struct node *node, struct shape *s, struct cb_err *err) {
    const struct attr_conv2d_grad_input *attrs = node->attrs;
    const struct cb_type *dy = &node->in[0]->type, *w = &node->in[1]->type;
    TRY(options_of(node, s, err));
    s->n = dy->dim[0], s->o = w->dim[0], s->c = w->dim[1] * s->groups;
    s->in[0] = attrs->height, s->in[1] = attrs->width;
    for (int i = 0; i < 2; i++) s->kernel[i] = w->dim[2 + i];
    TRY(out_size(node, s, err));
    TRY(check_dtype(node, 1, dy->dtype, err));
    return check_type(node, 0, TYPE(dy->dtype, s->n, s->o, s->out[0], s->out[1]), err);
}

static enum cb_status input_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct shape s;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    TRY(check_rank(node, 1, 4, err));
    TRY(input_shape(node, &s, err));
    *out = TYPE(node->in[0]->type.dtype, s.n, s.c, s.in[0], s.in[1]);
    return CB_OK;
}

static enum cb_status weight_shape(const struct node *node, struct shape *s, struct cb_err *err) {
    const struct attr_conv2d_grad_weight *attrs = node->attrs;
    const struct cb_type *x = &node->in[0]->type, *dy = &node->in[1]->type;
    TRY(options_of(node, s, err));
    s->n = x->dim[0], s->c = x->dim[1], s->o = dy->dim[1];
    s->kernel[0] = attrs->height, s->kernel[1] = attrs->width;
    for (int i = 0; i < 2; i++) s->in[i] = x->dim[2 + i];
    TRY(out_size(node, s, err));
    return check_type(node, 1, TYPE(x->dtype, s->n, s->o, s->out[0], s->out[1]), err);
}

static enum cb_status weight_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct shape s;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    TRY(check_rank(node, 1, 4, err));
    TRY(weight_shape(node, &s, err));
    *out = TYPE(node->in[0]->type.dtype, s.o, s.c / s.groups, s.kernel[0], s.kernel[1]);
    return CB_OK;
}

/* Calls visit for each product x[xi] * w[wi] that counts towards y[yi]. */
struct visitor {
    void (*visit)(const struct visitor *v, int64_t xi, int64_t wi, int64_t yi);
    enum cb_dtype dtype;
    const void *a, *b;
    void *to;
};

static void walk(const struct shape *s, const struct visitor *v) {
    int64_t per_group = s->o / s->groups, cg = s->c / s->groups, n_y = s->n * s->o * s->out[0] * s->out[1];
    for (int64_t yi = 0; yi < n_y; yi++) {
        int64_t ox = yi % s->out[1], oy = yi / s->out[1] % s->out[0], o = yi / (s->out[0] * s->out[1]) % s->o;
        int64_t n = yi / (s->out[0] * s->out[1] * s->o), first = o / per_group * cg;
        for (int64_t ck = 0; ck < cg * s->kernel[0] * s->kernel[1]; ck++) {
            int64_t kx = ck % s->kernel[1], ky = ck / s->kernel[1] % s->kernel[0], c = ck / (s->kernel[0] * s->kernel[1]);
            int64_t y = oy * s->stride[0] - s->padding[0] + ky * s->dilation[0],
                    x = ox * s->stride[1] - s->padding[1] + kx * s->dilation[1];
            if (y < 0 || y >= s->in[0] || x < 0 || x >= s->in[1]) continue;
            v->visit(v, ((n * s->c + first + c) * s->in[0] + y) * s->in[1] + x, o * cg * s->kernel[0] * s->kernel[1] + ck, yi);
        }
    }
}

static void add(enum cb_dtype dtype, void *p, int64_t i, double v) { ref_set(dtype, p, i, ref_get(dtype, p, i) + v); }

static void visit_y(const struct visitor *v, int64_t xi, int64_t wi, int64_t yi) {
    add(v->dtype, v->to, yi, ref_get(v->dtype, v->a, xi) * ref_get(v->dtype, v->b, wi));
}

static void visit_x(const struct visitor *v, int64_t xi, int64_t wi, int64_t yi) {
    add(v->dtype, v->to, xi, ref_get(v->dtype, v->a, yi) * ref_get(v->dtype, v->b, wi));
}

static void visit_w(const struct visitor *v, int64_t xi, int64_t wi, int64_t yi) {
    add(v->dtype, v->to, wi, ref_get(v->dtype, v->a, xi) * ref_get(v->dtype, v->b, yi));
}

static struct visitor visitor_of(const struct op_run *run, void (*visit)(const struct visitor *, int64_t, int64_t, int64_t)) {
    memset(run->out[0], 0, (size_t)type_bytes(&run->node->out[0]->type));
    return (struct visitor){visit, run->node->out[0]->type.dtype, run->in[0], run->in[1], run->out[0]};
}

static void ref(const struct op_run *run) {
    struct shape s;
    if (forward_shape(run->node, &s, NULL)) return;
    struct visitor v = visitor_of(run, visit_y);
    walk(&s, &v);
    int64_t n_y = s.n * s.o * s.out[0] * s.out[1];
    for (int64_t i = 0; run->in[2] && i < n_y; i++)
        add(v.dtype, run->out[0], i, ref_get(v.dtype, run->in[2], i / (s.out[0] * s.out[1]) % s.o));
}

static void input_ref(const struct op_run *run) {
    struct shape s;
    if (input_shape(run->node, &s, NULL)) return;
    struct visitor v = visitor_of(run, visit_x);
    walk(&s, &v);
}

static void weight_ref(const struct op_run *run) {
    struct shape s;
    if (weight_shape(run->node, &s, NULL)) return;
    struct visitor v = visitor_of(run, visit_w);
    walk(&s, &v);
}

static double shape_flops(const struct shape *s) {
    return 2.0 * (double)(s->n * s->o) * (double)(s->out[0] * s->out[1]) * (double)(s->c / s->groups) *
           (double)(s->kernel[0] * s->kernel[1]);
}

static double flops(const struct node *node) {
    struct shape s;
    return forward_shape(node, &s, NULL) ? 0 : shape_flops(&s);
}

static double input_flops(const struct node *node) {
    struct shape s;
    return input_shape(node, &s, NULL) ? 0 : shape_flops(&s);
}

static double weight_flops(const struct node *node) {
    struct shape s;
    return weight_shape(node, &s, NULL) ? 0 : shape_flops(&s);
}

/* The three bilinear maps between x, weight and y, with the options of a node. */
static struct cb_tensor *forward(struct cb_graph *g, const struct node *node, struct cb_tensor *x, struct cb_tensor *w) {
    return graph_node(g, &conv2d_op, node->attrs, 2, (struct cb_tensor *[]){x, w});
}

static struct cb_tensor *to_input(struct cb_graph *g, const struct node *node, struct cb_tensor *dy, struct cb_tensor *w,
                                  const struct cb_type *x) {
    struct attr_conv2d_grad_input attrs;
    memset(&attrs, 0, sizeof attrs);
    memcpy(&attrs, node->attrs, sizeof(struct attr_conv2d));
    attrs.height = x->dim[2];
    attrs.width = x->dim[3];
    return graph_node(g, &grad_input_op, &attrs, 2, (struct cb_tensor *[]){dy, w});
}

static struct cb_tensor *to_weight(struct cb_graph *g, const struct node *node, struct cb_tensor *x, struct cb_tensor *dy,
                                   const struct cb_type *w) {
    struct attr_conv2d_grad_weight attrs;
    memset(&attrs, 0, sizeof attrs);
    memcpy(&attrs, node->attrs, sizeof(struct attr_conv2d));
    attrs.height = w->dim[2];
    attrs.width = w->dim[3];
    return graph_node(g, &grad_weight_op, &attrs, 2, (struct cb_tensor *[]){x, dy});
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    struct cb_tensor *x = node->in[0], *w = node->in[1];
    if (need[0]) din[0] = to_input(g, node, dout[0], w, &x->type);
    if (need[1]) din[1] = to_weight(g, node, x, dout[0], &w->type);
    if (node->in[2] && need[2]) din[2] = op_sum(g, dout[0], 3, (int64_t[]){0, 2, 3}, false);
}

static void input_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    if (need[0]) din[0] = forward(g, node, dout[0], node->in[1]);
    if (need[1]) din[1] = to_weight(g, node, dout[0], node->in[0], &node->in[1]->type);
}

static void weight_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    if (need[0]) din[0] = to_input(g, node, node->in[1], dout[0], &node->in[0]->type);
    if (need[1]) din[1] = forward(g, node, node->in[0], dout[0]);
}

#define ONE(a)              \
    {                       \
        .n = 1, .v = {(a) } \
    }
#define TWO(a, b)                \
    {                            \
        .n = 2, .v = {(a), (b) } \
    }
static const char *const in_names[] = {"x", "weight", "bias?", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_conv2d plain = {0}, grouped = {.stride = ONE(2), .padding = ONE(1), .groups = 3},
                                uneven = {.stride = TWO(1, 2), .padding = TWO(0, 3), .dilation = TWO(2, 1)};
static const struct op_case cases[] = {
    {.name = "plain", .attrs = &plain, .in = {CASE_F32(2, 3, 7, 5), CASE_F32(4, 3, 3, 2), CASE_F32(4)}},
    {.name = "grouped", .attrs = &grouped, .in = {CASE_F32(2, 6, 5, 7), CASE_F32(9, 2, 3, 3), CASE_F32(9)}},
    {.name = "uneven", .attrs = &uneven, .in = {CASE_F32(1, 2, 7, 6), CASE_F32(3, 2, 3, 4)}},
    {.name = "no_images", .attrs = &plain, .in = {CASE_F32(0, 3, 4, 4), CASE_F32(2, 3, 3, 3)}},
    {0},
};
static const struct op conv2d_op = {
    .name = "conv2d",
    .doc =
        "Cross-correlation of x (N,C,H,W) with weight (O,C/groups,KH,KW), bias (O): output (H + 2 padding - dilation (KH-1) - 1) / stride "
        "+ 1. "
        "stride, padding, dilation: one integer or two, height first; absent 1, 0, 1.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_conv2d,
    .attr_bytes = sizeof(struct attr_conv2d),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .flops = flops,
    .tolerance = 2e-5,
    .cases = cases,
};

static const char *const input_in[] = {"dy", "weight", NULL};
static const char *const input_out[] = {"dx", NULL};
static const struct attr_conv2d_grad_input input_plain = {.height = 7, .width = 5},
                                           input_grouped = {.stride = ONE(2), .padding = ONE(1), .groups = 3, .height = 5, .width = 7};
static const struct op_case input_cases[] = {
    {.name = "plain", .attrs = &input_plain, .in = {CASE_F32(2, 4, 5, 4), CASE_F32(4, 3, 3, 2)}},
    {.name = "grouped", .attrs = &input_grouped, .in = {CASE_F32(2, 9, 3, 4), CASE_F32(9, 2, 3, 3)}},
    {0},
};
static const struct op grad_input_op = {
    .name = "conv2d_grad_input",
    .doc = "dx (N,C,height,width) of conv2d from dy (N,O,OH,OW) and weight (O,C/groups,KH,KW): the transposed convolution.",
    .in_names = input_in,
    .out_names = input_out,
    .attrs = attr_fields_conv2d_grad_input,
    .attr_bytes = sizeof(struct attr_conv2d_grad_input),
    .infer = input_infer,
    .grad = input_grad,
    .ref = input_ref,
    .flops = input_flops,
    .tolerance = 2e-5,
    .cases = input_cases,
};

static const char *const weight_in[] = {"x", "dy", NULL};
static const char *const weight_out[] = {"dweight", NULL};
static const struct attr_conv2d_grad_weight weight_plain = {.height = 3, .width = 2},
                                            weight_grouped = {.stride = ONE(2), .padding = ONE(1), .groups = 3, .height = 3, .width = 3};
static const struct op_case weight_cases[] = {
    {.name = "plain", .attrs = &weight_plain, .in = {CASE_F32(2, 3, 7, 5), CASE_F32(2, 4, 5, 4)}},
    {.name = "grouped", .attrs = &weight_grouped, .in = {CASE_F32(2, 6, 5, 7), CASE_F32(2, 9, 3, 4)}},
    {0},
};
static const struct op grad_weight_op = {
    .name = "conv2d_grad_weight",
    .doc = "dweight (O,C/groups,height,width) of conv2d from x (N,C,H,W) and dy (N,O,OH,OW).",
    .in_names = weight_in,
    .out_names = weight_out,
    .attrs = attr_fields_conv2d_grad_weight,
    .attr_bytes = sizeof(struct attr_conv2d_grad_weight),
    .infer = weight_infer,
    .grad = weight_grad,
    .ref = weight_ref,
    .flops = weight_flops,
    .tolerance = 2e-5,
    .cases = weight_cases,
};

/* Both entries as they are; zeros count as absent. */
static struct attr_ints both(const int64_t v[2], int64_t absent) {
    struct attr_ints list;
    memset(&list, 0, sizeof list);
    list.n = 2;
    for (int i = 0; i < 2; i++) list.v[i] = v[i] ? v[i] : absent;
    return list;
}

static struct attr_conv2d attrs_of(const struct conv_options *o) {
    struct attr_conv2d attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.stride = both(o->stride, 1);
    attrs.padding = both(o->padding, 0);
    attrs.dilation = both(o->dilation, 1);
    attrs.groups = o->groups;
    return attrs;
}

struct cb_tensor *op_conv2d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                            const struct conv_options *o) {
    struct attr_conv2d attrs = attrs_of(o);
    return graph_node(g, &conv2d_op, &attrs, 3, (struct cb_tensor *[]){x, weight, bias});
}

struct cb_tensor *op_conv_transpose2d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                      const struct conv_options *o) {
    if (graph_is_bad(g, x) || graph_is_bad(g, weight)) return &g->bad_tensor;
    if (x->type.rank != 4 || weight->type.rank != 4)
        return graph_fail(g, CB_E_SHAPE, "conv_transpose2d: x and weight of rank %d and %d; wanted 4", x->type.rank, weight->type.rank);
    struct attr_conv2d options = attrs_of(o);
    struct attr_conv2d_grad_input attrs;
    memset(&attrs, 0, sizeof attrs);
    memcpy(&attrs, &options, sizeof options);
    int64_t size[2];
    for (int i = 0; i < 2; i++) {
        int64_t stride = options.stride.v[i], dilation = options.dilation.v[i];
        if (o->output_padding[i] < 0 || o->output_padding[i] >= (stride > dilation ? stride : dilation))
            return graph_fail(g, CB_E_ARGUMENT, "conv_transpose2d: output_padding %lld; wanted 0 or more, below the stride or dilation",
                              (long long)o->output_padding[i]);
        size[i] = (x->type.dim[2 + i] - 1) * stride - 2 * options.padding.v[i] + dilation * (weight->type.dim[2 + i] - 1) +
                  o->output_padding[i] + 1;
    }
    attrs.height = size[0];
    attrs.width = size[1];
    struct cb_tensor *y = graph_node(g, &grad_input_op, &attrs, 2, (struct cb_tensor *[]){x, weight});
    return bias ? op_add(g, y, op_reshape(g, bias, 3, (int64_t[]){-1, 1, 1})) : y;
}

/* A sequence as an image of height 1, and options without the height's. */
static struct cb_tensor *image(struct cb_graph *g, struct cb_tensor *x, const char *what) {
    if (graph_is_bad(g, x)) return x;
    if (x->type.rank != 3) return graph_fail(g, CB_E_SHAPE, "%s: rank %d; wanted 3", what, x->type.rank);
    return op_reshape(g, x, 4, (int64_t[]){x->type.dim[0], x->type.dim[1], 1, x->type.dim[2]});
}

static struct cb_tensor *sequence(struct cb_graph *g, struct cb_tensor *y) {
    return graph_is_bad(g, y) ? y : op_reshape(g, y, 3, (int64_t[]){y->type.dim[0], y->type.dim[1], y->type.dim[3]});
}

static struct conv_options flat(const struct conv_options *o) {
    struct conv_options f = *o;
    f.stride[0] = f.dilation[0] = 1;
    f.padding[0] = f.output_padding[0] = 0;
    return f;
}

struct cb_tensor *op_conv1d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                            const struct conv_options *o) {
    struct conv_options f = flat(o);
    return sequence(g, op_conv2d(g, image(g, x, "conv1d"), image(g, weight, "conv1d: weight"), bias, &f));
}

struct cb_tensor *op_conv_transpose1d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                      const struct conv_options *o) {
    struct conv_options f = flat(o);
    return sequence(g, op_conv_transpose2d(g, image(g, x, "conv_transpose1d"), image(g, weight, "conv_transpose1d: weight"), bias, &f));
}

const struct op *const op_file_conv[] = {&conv2d_op, &grad_input_op, &grad_weight_op, NULL};
