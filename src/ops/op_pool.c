/* Pooling of images: greatest and mean value of windows, fixed or adaptive, with their gradients. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"
#include "ops/vision.h"

// @attrs max_pool2d: ints kernel, ints stride, ints padding, ints dilation, ints output, bool ceil_mode
// @attrs max_pool2d_grad: int height, int width
// @attrs avg_pool2d: ints kernel, ints stride, ints padding, ints output, bool ceil_mode, bool exclude_pad
// @attrs avg_pool2d_grad: ints kernel, ints stride, ints padding, ints output, bool ceil_mode, bool exclude_pad, int height, int width

static const struct op max_pool2d_op, max_pool2d_grad_op, avg_pool2d_op, avg_pool2d_grad_op;

/* Windows along one axis. adaptive: window o covers [o in / out, ceil((o+1) in / out)). */
struct axis {
    int64_t in, out, kernel, stride, padding, dilation;
    bool adaptive, exclude_pad;
};

struct shape {
    int64_t planes;  // N C
    struct axis y, x;
};

static int64_t entry(const struct attr_ints *list, int i, int64_t absent) { return list->n < 1 ? absent : list->v[list->n == 2 ? i : 0]; }

static enum cb_status axis_of(const struct node *node, int i, int64_t in, const struct attr_ints *kernel, const struct attr_ints *stride,
                              const struct attr_ints *padding, const struct attr_ints *dilation, const struct attr_ints *output,
                              bool ceil_mode, struct axis *a, struct cb_err *err) {
    const char *name = node->op->name;
    *a = (struct axis){.in = in, .adaptive = output->n > 0, .dilation = 1};
    if (a->adaptive) {
        a->out = entry(output, i, 0);
        if (a->out < 1 || a->out > 1 << 24 || in < 1)
            FAIL(err, CB_E_SHAPE, "%s: output %lld of input %lld; wanted 1 or more of both", name, (long long)a->out, (long long)in);
        return CB_OK;
    }
    a->kernel = entry(kernel, i, 0);
    a->stride = entry(stride, i, a->kernel);
    a->padding = entry(padding, i, 0);
    if (dilation) a->dilation = entry(dilation, i, 1);
    bool fits =
        a->kernel >= 1 && a->kernel <= 1 << 24 && a->stride >= 1 && a->stride <= 1 << 24 && a->dilation >= 1 && a->dilation <= 1 << 24;
    if (!fits || a->padding < 0 || a->padding > a->kernel / 2)
        FAIL(err, CB_E_ARGUMENT,
             "%s: kernel %lld, stride %lld, dilation %lld, padding %lld; wanted 1 or more, padding at most half the kernel", name,
             (long long)a->kernel, (long long)a->stride, (long long)a->dilation, (long long)a->padding);
    int64_t room = in + 2 * a->padding - (a->dilation * (a->kernel - 1) + 1);
    if (room < 0) FAIL(err, CB_E_SHAPE, "%s: kernel %lld over input %lld; wanted one that fits", name, (long long)a->kernel, (long long)in);
    a->out = (ceil_mode ? room + a->stride - 1 : room) / a->stride + 1;
    // the last window must begin inside the input or its left padding
    if (ceil_mode && (a->out - 1) * a->stride >= in + a->padding) a->out--;
    return CB_OK;
}

/* Positions [*begin, *end) of window o inside the input, stepping by dilation; returns the divisor of a mean. */
static int64_t window(const struct axis *a, int64_t o, int64_t *begin, int64_t *end) {
    if (a->adaptive) {
        *begin = o * a->in / a->out;
        *end = ((o + 1) * a->in + a->out - 1) / a->out;
        return *end - *begin;
    }
    int64_t first = o * a->stride - a->padding, stop = first + (a->kernel - 1) * a->dilation + 1;
    int64_t padded = (stop < a->in + a->padding ? stop : a->in + a->padding) - first;
    *begin = first;
    while (*begin < 0) *begin += a->dilation;
    *end = stop < a->in ? stop : a->in;
    return a->exclude_pad ? *end - *begin : padded;
}

static enum cb_status max_shape(const struct node *node, struct shape *s, struct cb_err *err) {
    const struct attr_max_pool2d *m = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    s->planes = x->dim[0] * x->dim[1];
    TRY(axis_of(node, 0, x->dim[2], &m->kernel, &m->stride, &m->padding, &m->dilation, &m->output, m->ceil_mode, &s->y, err));
    return axis_of(node, 1, x->dim[3], &m->kernel, &m->stride, &m->padding, &m->dilation, &m->output, m->ceil_mode, &s->x, err);
}

static enum cb_status max_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct shape s;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    TRY(max_shape(node, &s, err));
    const struct cb_type *x = &node->in[0]->type;
    if (x->dim[2] * x->dim[3] > INT32_MAX)
        FAIL(err, CB_E_SHAPE, "max_pool2d: image of %lld by %lld; wanted fewer than 2^31 elements", (long long)x->dim[2],
             (long long)x->dim[3]);
    out[0] = TYPE(x->dtype, x->dim[0], x->dim[1], s.y.out, s.x.out);
    out[1] = TYPE(CB_DTYPE_I32, x->dim[0], x->dim[1], s.y.out, s.x.out);
    return CB_OK;
}

static void max_ref(const struct op_run *run) {
    struct shape s;
    if (max_shape(run->node, &s, NULL)) return;
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    for (int64_t i = 0; i < s.planes * s.y.out * s.x.out; i++) {
        int64_t ox = i % s.x.out, oy = i / s.x.out % s.y.out, plane = i / (s.x.out * s.y.out), y0, y1, x0, x1;
        window(&s.y, oy, &y0, &y1);
        window(&s.x, ox, &x0, &x1);
        double best = -INFINITY;
        int64_t at = y0 * s.x.in + x0;
        // the first of equal values wins; NaN wins over all
        for (int64_t y = y0; y < y1; y += s.y.dilation)
            for (int64_t x = x0; x < x1; x += s.x.dilation) {
                double v = ref_get(dtype, run->in[0], (plane * s.y.in + y) * s.x.in + x);
                if (v > best || isnan(v)) best = v, at = y * s.x.in + x;
            }
        ref_set(dtype, run->out[0], i, best);
        ((int32_t *)run->out[1])[i] = (int32_t)at;
    }
}

static void max_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    struct attr_max_pool2d_grad attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.height = node->in[0]->type.dim[2];
    attrs.width = node->in[0]->type.dim[3];
    if (need[0] && dout[0]) din[0] = graph_node(g, &max_pool2d_grad_op, &attrs, 2, (struct cb_tensor *[]){node->out[1], dout[0]});
}

static enum cb_status max_back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_max_pool2d_grad *attrs = node->attrs;
    TRY(check_float(node, 1, err));
    TRY(check_rank(node, 1, 4, err));
    struct cb_type index = node->in[1]->type;
    index.dtype = CB_DTYPE_I32;
    TRY(check_type(node, 0, index, err));
    *out = TYPE(node->in[1]->type.dtype, index.dim[0], index.dim[1], attrs->height, attrs->width);
    return CB_OK;
}

static void max_back_ref(const struct op_run *run) {
    const struct cb_type *dy = &run->node->in[1]->type, *dx = &run->node->out[0]->type;
    const int32_t *index = run->in[0];
    int64_t small = dy->dim[2] * dy->dim[3], big = dx->dim[2] * dx->dim[3], n = type_elements(dy);
    memset(run->out[0], 0, (size_t)type_bytes(dx));
    for (int64_t i = 0; i < n; i++) {
        if (index[i] < 0 || index[i] >= big) continue;
        int64_t at = i / small * big + index[i];
        ref_set(dx->dtype, run->out[0], at, ref_get(dx->dtype, run->out[0], at) + ref_get(dy->dtype, run->in[1], i));
    }
}

/* What was scattered is gathered. */
static void max_back_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                          struct cb_tensor **din) {
    const struct cb_type *dy = &node->in[1]->type, *dx = &node->out[0]->type;
    if (!need[1]) return;
    struct cb_tensor *flat = op_reshape(g, dout[0], 3, (int64_t[]){dx->dim[0], dx->dim[1], dx->dim[2] * dx->dim[3]});
    struct cb_tensor *index = op_reshape(g, node->in[0], 3, (int64_t[]){dy->dim[0], dy->dim[1], dy->dim[2] * dy->dim[3]});
    din[1] = op_reshape(g, op_gather(g, flat, index, 2), 4, dy->dim);
}

/* avg_pool2d_grad's attributes begin with avg_pool2d's. */
static enum cb_status avg_shape(const struct node *node, int64_t height, int64_t width, struct shape *s, struct cb_err *err) {
    const struct attr_avg_pool2d *m = node->attrs;
    const struct cb_type *t = &node->in[0]->type;
    s->planes = t->dim[0] * t->dim[1];
    TRY(axis_of(node, 0, height, &m->kernel, &m->stride, &m->padding, NULL, &m->output, m->ceil_mode, &s->y, err));
    TRY(axis_of(node, 1, width, &m->kernel, &m->stride, &m->padding, NULL, &m->output, m->ceil_mode, &s->x, err));
    s->y.exclude_pad = s->x.exclude_pad = m->exclude_pad;
    return CB_OK;
}

static enum cb_status avg_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct shape s;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    const struct cb_type *x = &node->in[0]->type;
    TRY(avg_shape(node, x->dim[2], x->dim[3], &s, err));
    *out = TYPE(x->dtype, x->dim[0], x->dim[1], s.y.out, s.x.out);
    return CB_OK;
}

static enum cb_status avg_back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_avg_pool2d_grad *attrs = node->attrs;
    struct shape s;
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    const struct cb_type *dy = &node->in[0]->type;
    TRY(avg_shape(node, attrs->height, attrs->width, &s, err));
    *out = TYPE(dy->dtype, dy->dim[0], dy->dim[1], attrs->height, attrs->width);
    return check_type(node, 0, TYPE(dy->dtype, dy->dim[0], dy->dim[1], s.y.out, s.x.out), err);
}

/* forward: means of windows of in; else shares of in, spread over their windows. */
static void avg_walk(const struct op_run *run, const struct shape *s, bool forward) {
    enum cb_dtype dtype = run->node->in[0]->type.dtype;
    for (int64_t i = 0; i < s->planes * s->y.out * s->x.out; i++) {
        int64_t ox = i % s->x.out, oy = i / s->x.out % s->y.out, plane = i / (s->x.out * s->y.out), y0, y1, x0, x1;
        double share = (double)window(&s->y, oy, &y0, &y1), sum = 0;
        share = 1 / (share * (double)window(&s->x, ox, &x0, &x1));
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = x0; x < x1; x++) {
                int64_t at = (plane * s->y.in + y) * s->x.in + x;
                if (forward)
                    sum += ref_get(dtype, run->in[0], at);
                else
                    ref_set(dtype, run->out[0], at, ref_get(dtype, run->out[0], at) + share * ref_get(dtype, run->in[0], i));
            }
        if (forward) ref_set(dtype, run->out[0], i, sum * share);
    }
}

static void avg_ref(const struct op_run *run) {
    struct shape s;
    const struct cb_type *x = &run->node->in[0]->type;
    if (avg_shape(run->node, x->dim[2], x->dim[3], &s, NULL) == CB_OK) avg_walk(run, &s, true);
}

static void avg_back_ref(const struct op_run *run) {
    struct shape s;
    const struct cb_type *dx = &run->node->out[0]->type;
    memset(run->out[0], 0, (size_t)type_bytes(dx));
    if (avg_shape(run->node, dx->dim[2], dx->dim[3], &s, NULL) == CB_OK) avg_walk(run, &s, false);
}

static void avg_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    struct attr_avg_pool2d_grad attrs;
    memset(&attrs, 0, sizeof attrs);
    memcpy(&attrs, node->attrs, sizeof(struct attr_avg_pool2d));
    attrs.height = node->in[0]->type.dim[2];
    attrs.width = node->in[0]->type.dim[3];
    if (need[0]) din[0] = graph_node(g, &avg_pool2d_grad_op, &attrs, 1, dout);
}

static void avg_back_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                          struct cb_tensor **din) {
    if (need[0]) din[0] = graph_node(g, &avg_pool2d_op, node->attrs, 1, dout);
}

static double avg_flops(const struct node *node) {
    return (double)type_elements(&node->in[0]->type) + (double)type_elements(&node->out[0]->type);
}

#define ONE(a)              \
    {                       \
        .n = 1, .v = {(a) } \
    }
#define TWO(a, b)                \
    {                            \
        .n = 2, .v = {(a), (b) } \
    }
static const char *const in_names[] = {"x", NULL};
static const char *const max_out[] = {"y", "index", NULL};
static const struct attr_max_pool2d max_plain = {.kernel = ONE(2)}, max_overlap = {.kernel = ONE(3), .stride = ONE(2), .padding = ONE(1)},
                                    max_dilated = {.kernel = TWO(2, 3), .stride = ONE(1), .dilation = ONE(2), .ceil_mode = true},
                                    max_adaptive = {.output = TWO(3, 2)};
static const struct op_case max_cases[] = {
    {.name = "plain", .attrs = &max_plain, .in = {CASE_DISTINCT(2, 3, 7, 6)}},
    {.name = "overlap", .attrs = &max_overlap, .in = {CASE_DISTINCT(2, 1, 7, 9)}},
    {.name = "dilated", .attrs = &max_dilated, .in = {CASE_DISTINCT(1, 2, 8, 7)}},
    {.name = "adaptive", .attrs = &max_adaptive, .in = {CASE_DISTINCT(1, 2, 7, 5)}},
    {.name = "no_images", .attrs = &max_plain, .in = {CASE_F32(0, 2, 4, 4)}},
    {0},
};
static const struct op max_pool2d_op = {
    .name = "max_pool2d",
    .doc =
        "Greatest value of each window of x (N,C,H,W), and its place y W + x in the image (i32); windows as PyTorch has them, or, with "
        "output, adaptive. "
        "Lists hold one integer or two, height first; stride absent: the kernel.",
    .in_names = in_names,
    .out_names = max_out,
    .attrs = attr_fields_max_pool2d,
    .attr_bytes = sizeof(struct attr_max_pool2d),
    .infer = max_infer,
    .grad = max_grad,
    .ref = max_ref,
    .cases = max_cases,
};

static const char *const max_back_in[] = {"index", "dy", NULL};
static const char *const back_out[] = {"dx", NULL};
static const struct attr_max_pool2d_grad max_back_plain = {.height = 3, .width = 5};
static const struct op_case max_back_cases[] = {
    {.name = "plain", .attrs = &max_back_plain, .in = {CASE_INDEX(15, 2, 3, 2, 2), CASE_F32(2, 3, 2, 2)}},
    {0},
};
static const struct op max_pool2d_grad_op = {
    .name = "max_pool2d_grad",
    .doc = "dx (N,C,height,width): each dy (N,C,OH,OW) added at its index.",
    .in_names = max_back_in,
    .out_names = back_out,
    .attrs = attr_fields_max_pool2d_grad,
    .attr_bytes = sizeof(struct attr_max_pool2d_grad),
    .infer = max_back_infer,
    .grad = max_back_grad,
    .ref = max_back_ref,
    .cases = max_back_cases,
};

static const char *const avg_out[] = {"y", NULL};
static const struct attr_avg_pool2d avg_plain = {.kernel = ONE(2)},
                                    avg_padded = {.kernel = ONE(3), .stride = ONE(2), .padding = ONE(1), .ceil_mode = true},
                                    avg_uncounted = {.kernel = TWO(3, 2), .stride = ONE(2), .padding = ONE(1), .exclude_pad = true},
                                    avg_adaptive = {.output = TWO(3, 4)};
static const struct op_case avg_cases[] = {
    {.name = "plain", .attrs = &avg_plain, .in = {CASE_F32(2, 3, 7, 6)}},
    {.name = "padded", .attrs = &avg_padded, .in = {CASE_F32(1, 2, 8, 6)}},
    {.name = "uncounted", .attrs = &avg_uncounted, .in = {CASE_F32(1, 2, 7, 5)}},
    {.name = "adaptive", .attrs = &avg_adaptive, .in = {CASE_F32(1, 2, 7, 5)}},
    {.name = "no_images", .attrs = &avg_plain, .in = {CASE_F32(0, 2, 4, 4)}},
    {0},
};
static const struct op avg_pool2d_op = {
    .name = "avg_pool2d",
    .doc = "Mean of each window of x (N,C,H,W); padding counts as zeros unless exclude_pad; with output, adaptive windows.",
    .in_names = in_names,
    .out_names = avg_out,
    .attrs = attr_fields_avg_pool2d,
    .attr_bytes = sizeof(struct attr_avg_pool2d),
    .infer = avg_infer,
    .grad = avg_grad,
    .ref = avg_ref,
    .flops = avg_flops,
    .cases = avg_cases,
};

static const char *const avg_back_in[] = {"dy", NULL};
static const struct attr_avg_pool2d_grad avg_back_padded = {
    .kernel = ONE(3), .stride = ONE(2), .padding = ONE(1), .ceil_mode = true, .height = 8, .width = 6};
static const struct op_case avg_back_cases[] = {
    {.name = "padded", .attrs = &avg_back_padded, .in = {CASE_F32(1, 2, 5, 4)}},
    {0},
};
static const struct op avg_pool2d_grad_op = {
    .name = "avg_pool2d_grad",
    .doc = "dx (N,C,height,width) of avg_pool2d: each dy spread evenly over its window.",
    .in_names = avg_back_in,
    .out_names = back_out,
    .attrs = attr_fields_avg_pool2d_grad,
    .attr_bytes = sizeof(struct attr_avg_pool2d_grad),
    .infer = avg_back_infer,
    .grad = avg_back_grad,
    .ref = avg_back_ref,
    .flops = avg_flops,
    .cases = avg_back_cases,
};

/* A pair as a list; a first entry of 0 counts as absent. */
static struct attr_ints list_of(const int64_t v[2]) {
    struct attr_ints list;
    memset(&list, 0, sizeof list);
    if (v[0] || v[1]) list = (struct attr_ints)TWO(v[0], v[1]);
    return list;
}

struct cb_tensor *op_max_pool2d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *o) {
    struct attr_max_pool2d attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.kernel = list_of(o->kernel);
    attrs.stride = list_of(o->stride);
    attrs.padding = list_of(o->padding);
    attrs.dilation = list_of(o->dilation);
    attrs.output = list_of(o->output);
    attrs.ceil_mode = o->ceil_mode;
    return graph_node(g, &max_pool2d_op, &attrs, 1, &x);
}

struct cb_tensor *op_avg_pool2d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *o) {
    struct attr_avg_pool2d attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.kernel = list_of(o->kernel);
    attrs.stride = list_of(o->stride);
    attrs.padding = list_of(o->padding);
    attrs.output = list_of(o->output);
    attrs.ceil_mode = o->ceil_mode;
    attrs.exclude_pad = o->exclude_pad;
    return graph_node(g, &avg_pool2d_op, &attrs, 1, &x);
}

/* Pools a sequence (N,C,W) as an image of height 1. */
static struct cb_tensor *pool1d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *o,
                                struct cb_tensor *(*pool)(struct cb_graph *, struct cb_tensor *, const struct pool_options *)) {
    if (graph_is_bad(g, x)) return x;
    if (x->type.rank != 3) return graph_fail(g, CB_E_SHAPE, "pool1d: x of rank %d; wanted 3", x->type.rank);
    struct pool_options f = *o;
    f.kernel[0] = f.stride[0] = f.dilation[0] = 1;
    f.padding[0] = 0;
    if (!f.stride[1]) f.stride[1] = f.kernel[1];
    if (!f.dilation[1]) f.dilation[1] = 1;
    if (f.output[1]) f.output[0] = 1;
    struct cb_tensor *y = pool(g, op_reshape(g, x, 4, (int64_t[]){x->type.dim[0], x->type.dim[1], 1, x->type.dim[2]}), &f);
    return graph_is_bad(g, y) ? y : op_reshape(g, y, 3, (int64_t[]){y->type.dim[0], y->type.dim[1], y->type.dim[3]});
}

struct cb_tensor *op_max_pool1d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *o) {
    return pool1d(g, x, o, op_max_pool2d);
}
struct cb_tensor *op_avg_pool1d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *o) {
    return pool1d(g, x, o, op_avg_pool2d);
}

const struct op *const op_file_pool[] = {&max_pool2d_op, &max_pool2d_grad_op, &avg_pool2d_op, &avg_pool2d_grad_op, NULL};
