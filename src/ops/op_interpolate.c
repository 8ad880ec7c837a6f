/* Resizing of images: nearest, bilinear and bicubic, as a linear map of each axis, and its transpose. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"
#include "ops/vision.h"

// @attrs interpolate2d: int height, int width, float scale_y, float scale_x, int mode, bool align_corners
// @attrs interpolate2d_grad: int height, int width, float scale_y, float scale_x, int mode, bool align_corners

enum { NEAREST, BILINEAR, BICUBIC };
#define MAX_SIZE (1 << 24)

static const struct op interpolate2d_op, interpolate2d_grad_op;

/* The places that output o of an axis reads, and their weights. */
struct taps {
    int n;
    int64_t at[4];
    double weight[4];
};

/* Keys' cubic convolution kernel with a = -0.75. */
static double cubic(double x) {
    const double a = -0.75;
    x = fabs(x);
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static int64_t clamp(int64_t i, int64_t n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

/* scale: output per input where given, 0: from the sizes. */
static struct taps taps_of(int64_t o, int64_t in, int64_t out, double scale, int64_t mode, bool align_corners) {
    struct taps t = {.n = 1};
    double step = align_corners ? (out > 1 ? (double)(in - 1) / (double)(out - 1) : 0) : scale > 0 ? 1 / scale : (double)in / (double)out;
    if (mode == NEAREST) {
        t.at[0] = clamp((int64_t)floor((double)o * step), in);
        t.weight[0] = 1;
        return t;
    }
    double x = align_corners ? (double)o * step : ((double)o + 0.5) * step - 0.5;
    if (mode == BILINEAR && x < 0) x = 0;
    double base = floor(x), part = x - base;
    t.n = mode == BILINEAR ? 2 : 4;
    for (int i = 0; i < t.n; i++) {
        int shift = mode == BILINEAR ? i : i - 1;
        t.at[i] = clamp((int64_t)base + shift, in);
        t.weight[i] = mode == BILINEAR ? (i ? part : 1 - part) : cubic(part - shift);
    }
    return t;
}

static enum cb_status check_options(const struct node *node, const struct attr_interpolate2d *a, struct cb_err *err) {
    const struct cb_type *x = &node->in[0]->type;
    char have[TYPE_TEXT];
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    if (a->height < 1 || a->width < 1 || a->height > MAX_SIZE || a->width > MAX_SIZE || x->dim[2] < 1 || x->dim[3] < 1)
        FAIL(err, CB_E_SHAPE, "%s: %s to %lld by %lld; wanted sizes of 1 or more", node->op->name, type_text(x, have), (long long)a->height,
             (long long)a->width);
    if (a->mode < NEAREST || a->mode > BICUBIC || !(a->scale_y >= 0) || !(a->scale_x >= 0) || isinf(a->scale_y) || isinf(a->scale_x))
        FAIL(err, CB_E_ARGUMENT, "%s: mode %lld, scales %g and %g; wanted 0 to 2, scales 0 or more", node->op->name, (long long)a->mode,
             a->scale_y, a->scale_x);
    return CB_OK;
}

/* Both ops: the attributes name the size of the output, whose other size is the input's. */
static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_interpolate2d *a = node->attrs;
    TRY(check_options(node, a, err));
    *out = TYPE(node->in[0]->type.dtype, node->in[0]->type.dim[0], node->in[0]->type.dim[1], a->height, a->width);
    return CB_OK;
}

/* small: the images before resizing, large: after it. forward reads small; else small takes the transposed map of large. */
static void resize(const struct op_run *run, const struct cb_type *before, const struct cb_type *after, bool forward) {
    const struct attr_interpolate2d *a = run->node->attrs;
    enum cb_dtype dtype = before->dtype;
    int64_t h = before->dim[2], w = before->dim[3], oh = after->dim[2], ow = after->dim[3];
    if (!forward) memset(run->out[0], 0, (size_t)type_bytes(before));
    for (int64_t i = 0; i < after->dim[0] * after->dim[1] * oh * ow; i++) {
        struct taps ty = taps_of(i / ow % oh, h, oh, a->scale_y, a->mode, a->align_corners);
        struct taps tx = taps_of(i % ow, w, ow, a->scale_x, a->mode, a->align_corners);
        double sum = 0;
        for (int y = 0; y < ty.n; y++)
            for (int x = 0; x < tx.n; x++) {
                int64_t at = (i / (oh * ow) * h + ty.at[y]) * w + tx.at[x];
                double weight = ty.weight[y] * tx.weight[x];
                if (forward)
                    sum += weight * ref_get(dtype, run->in[0], at);
                else
                    ref_set(dtype, run->out[0], at, ref_get(dtype, run->out[0], at) + weight * ref_get(dtype, run->in[0], i));
            }
        if (forward) ref_set(dtype, run->out[0], i, sum);
    }
}

static void ref(const struct op_run *run) { resize(run, &run->node->in[0]->type, &run->node->out[0]->type, true); }
static void back_ref(const struct op_run *run) { resize(run, &run->node->out[0]->type, &run->node->in[0]->type, false); }

/* Each op is the other's derivative. */
static struct cb_tensor *other(struct cb_graph *g, const struct node *node, const struct op *op, struct cb_tensor *dy) {
    struct attr_interpolate2d attrs;
    memcpy(&attrs, node->attrs, sizeof attrs);
    attrs.height = node->in[0]->type.dim[2];
    attrs.width = node->in[0]->type.dim[3];
    return graph_node(g, op, &attrs, 1, &dy);
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    if (need[0]) din[0] = other(g, node, &interpolate2d_grad_op, dout[0]);
}

static void back_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    if (need[0]) din[0] = other(g, node, &interpolate2d_op, dout[0]);
}

static double flops(const struct node *node) {
    int64_t mode = ((const struct attr_interpolate2d *)node->attrs)->mode;
    return (mode == NEAREST ? 1.0 : mode == BILINEAR ? 8.0 : 32.0) * (double)type_elements(&node->out[0]->type);
}

static const char *const in_names[] = {"x", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_interpolate2d nearest = {.height = 7, .width = 5}, bilinear = {.height = 7, .width = 5, .mode = BILINEAR},
                                       corners = {.height = 7, .width = 2, .mode = BILINEAR, .align_corners = true},
                                       bicubic = {.height = 8, .width = 3, .mode = BICUBIC},
                                       scaled = {.height = 7, .width = 10, .scale_y = 2.5, .scale_x = 2.5, .mode = BILINEAR};
static const struct op_case cases[] = {
    {.name = "nearest", .attrs = &nearest, .in = {CASE_F32(2, 2, 3, 4)}},
    {.name = "bilinear", .attrs = &bilinear, .in = {CASE_F32(2, 2, 3, 4)}},
    {.name = "corners", .attrs = &corners, .in = {CASE_F32(1, 2, 3, 4)}},
    {.name = "bicubic", .attrs = &bicubic, .in = {CASE_F32(1, 2, 5, 4)}},
    {.name = "scaled", .attrs = &scaled, .in = {CASE_F32(1, 2, 3, 4)}},
    {.name = "no_images", .attrs = &nearest, .in = {CASE_F32(0, 2, 3, 4)}},
    {0},
};
static const struct op interpolate2d_op = {
    .name = "interpolate2d",
    .doc =
        "x (N,C,H,W) resized to (N,C,height,width): mode 0 nearest, 1 bilinear, 2 bicubic (Keys, a = -0.75). Pixel centres map by in / "
        "out, by 1 / "
        "scale where one is given, or corners onto corners.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_interpolate2d,
    .attr_bytes = sizeof(struct attr_interpolate2d),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .flops = flops,
    .cases = cases,
};

static const char *const back_in[] = {"dy", NULL};
static const char *const back_out[] = {"dx", NULL};
static const struct attr_interpolate2d_grad back_bicubic = {.height = 5, .width = 4, .mode = BICUBIC};
static const struct op_case back_cases[] = {
    {.name = "bicubic", .attrs = &back_bicubic, .in = {CASE_F32(1, 2, 8, 3)}},
    {0},
};
static const struct op interpolate2d_grad_op = {
    .name = "interpolate2d_grad",
    .doc = "dx (N,C,height,width) of interpolate2d from dy: the transposed map, with the same options.",
    .in_names = back_in,
    .out_names = back_out,
    .attrs = attr_fields_interpolate2d_grad,
    .attr_bytes = sizeof(struct attr_interpolate2d_grad),
    .infer = infer,
    .grad = back_grad,
    .ref = back_ref,
    .flops = flops,
    .cases = back_cases,
};

struct cb_tensor *op_interpolate2d(struct cb_graph *g, struct cb_tensor *x, const int64_t size[2], const double scale[2], const char *mode,
                                   bool align_corners) {
    static const char *const modes[] = {"nearest", "bilinear", "bicubic"};
    struct attr_interpolate2d attrs;
    memset(&attrs, 0, sizeof attrs);
    if (graph_is_bad(g, x)) return x;
    if (x->type.rank != 4) return graph_fail(g, CB_E_SHAPE, "interpolate: x of rank %d; wanted 4", x->type.rank);
    attrs.mode = -1;
    for (int i = 0; i < 3; i++)
        if (strcmp(mode, modes[i]) == 0) attrs.mode = i;
    if (attrs.mode < 0) return graph_fail(g, CB_E_ARGUMENT, "interpolate: mode '%s'; wanted nearest, bilinear or bicubic", mode);
    attrs.align_corners = align_corners;
    attrs.height = size[0];
    attrs.width = size[1];
    if (!size[0]) {
        double h = (double)x->type.dim[2] * scale[0], w = (double)x->type.dim[3] * scale[1];
        if (!(h >= 1 && h <= MAX_SIZE && w >= 1 && w <= MAX_SIZE))
            return graph_fail(g, CB_E_ARGUMENT, "interpolate: scales %g and %g; wanted to give 1 to %d pixels", scale[0], scale[1],
                              MAX_SIZE);
        attrs.height = (int64_t)h;
        attrs.width = (int64_t)w;
        attrs.scale_y = scale[0];
        attrs.scale_x = scale[1];
    }
    return graph_node(g, &interpolate2d_op, &attrs, 1, &x);
}

const struct op *const op_file_interpolate[] = {&interpolate2d_op, &interpolate2d_grad_op, NULL};
