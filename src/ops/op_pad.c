/* Padding and cropping of axes: constant, reflect (without the edge) and replicate. */
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "ops/walk.h"

// @attrs pad: str mode, float value, ints pads
// @attrs pad_grad: str mode, ints pads

enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_REPLICATE, PAD_UNKNOWN };
static const char *const mode_names[] = {"constant", "reflect", "replicate"};

static enum pad_mode mode_of(const char *name) {
    for (int i = 0; name && i < PAD_UNKNOWN; i++)
        if (!strcmp(name, mode_names[i])) return (enum pad_mode)i;
    return PAD_UNKNOWN;
}

/* The amount before (side 0) or after (side 1) axis i: pads holds pairs for the last axes. */
static int64_t amount(const struct attr_ints *pads, int rank, int i, int side) {
    int k = i - (rank - pads->n / 2);
    return k < 0 ? 0 : pads->v[2 * k + side];
}

/* Checks the amounts against a type and gives the padded (sign 1) or unpadded (sign -1) type. */
static enum cb_status padded(const struct node *node, const char *mode_name, const struct attr_ints *pads, int sign, struct cb_type *out,
                             struct cb_err *err) {
    const struct cb_type *x = &node->in[0]->type;
    enum pad_mode mode = mode_of(mode_name);
    TRY(ops_check_number(node, 0, err));
    if (mode == PAD_UNKNOWN)
        FAIL(err, CB_E_NAME, "%s: mode '%s'; constant, reflect or replicate wanted", node->op->name, mode_name ? mode_name : "");
    if (pads->n % 2 || pads->n > 2 * x->rank)
        FAIL(err, CB_E_SHAPE, "%s: %d amounts; pairs for at most %d axes wanted", node->op->name, pads->n, x->rank);
    *out = *x;
    for (int i = 0; i < x->rank; i++) {
        int64_t before = amount(pads, x->rank, i, 0), after = amount(pads, x->rank, i, 1), limit = INT64_C(1) << 40;
        if (before < -limit || before > limit || after < -limit || after > limit)
            FAIL(err, CB_E_SHAPE, "%s: amount %lld or %lld; at most 2^40 wanted", node->op->name, (long long)before, (long long)after);
        out->dim[i] = x->dim[i] + sign * (before + after);
        int64_t size = sign > 0 ? x->dim[i] : out->dim[i];
        if (size < 0 || size + before < 0 || size + after < 0 || out->dim[i] < 0)
            FAIL(err, CB_E_SHAPE, "%s: %lld and %lld around size %lld; nothing below 0 wanted", node->op->name, (long long)before,
                 (long long)after, (long long)size);
        if (mode == PAD_CONSTANT || (before == 0 && after == 0)) continue;
        int64_t most = mode == PAD_REFLECT ? size - 1 : size > 0 ? limit : 0;
        if (before > most || after > most)
            FAIL(err, CB_E_SHAPE, "%s: %lld and %lld around size %lld; at most %lld wanted for %s", node->op->name, (long long)before,
                 (long long)after, (long long)size, (long long)most, mode_names[mode]);
    }
    return CB_OK;
}

/* Where place i of a padded axis comes from; -1: the constant. */
static int64_t source(enum pad_mode mode, int64_t i, int64_t before, int64_t size) {
    int64_t k = i - before;
    if (k >= 0 && k < size) return k;
    if (mode == PAD_CONSTANT) return -1;
    if (mode == PAD_REPLICATE) return k < 0 ? 0 : size - 1;
    return k < 0 ? -k : 2 * (size - 1) - k;
}

/* Offset in the small tensor of the walk's present element of the padded one; -1: the constant. */
static int64_t small_offset(const struct walk *w, enum pad_mode mode, const struct attr_ints *pads, const struct cb_type *small) {
    int64_t offset = 0;
    for (int i = 0; i < small->rank; i++) {
        int64_t k = source(mode, w->at[i], amount(pads, small->rank, i, 0), small->dim[i]);
        if (k < 0) return -1;
        offset = offset * small->dim[i] + k;
    }
    return offset;
}

/* ---- pad */
static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};
static const struct op pad_pad, pad_grad;

static enum cb_status infer_pad(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_pad *a = node->attrs;
    return padded(node, a->mode, &a->pads, 1, out, err);
}

static void grad_of_pad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                        struct cb_tensor **din) {
    const struct attr_pad *a = node->attrs;
    (void)need;
    if (mode_of(a->mode) == PAD_CONSTANT) {
        int64_t back[CB_MAX_RANK * 2];
        for (int i = 0; i < a->pads.n; i++) back[i] = -a->pads.v[i];
        din[0] = op_pad(g, dout[0], "constant", 0, a->pads.n, back);
        return;
    }
    struct attr_pad_grad b;
    memset(&b, 0, sizeof b);
    b.mode = a->mode;
    b.pads = a->pads;
    din[0] = graph_node(g, &pad_grad, &b, 1, &dout[0]);
}

static void ref_pad(const struct op_run *run) {
    const struct attr_pad *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    enum pad_mode mode = mode_of(a->mode);
    size_t bytes = ops_element_bytes(x->dtype);
    struct walk w = ops_walk(y->rank, y->dim);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) {
        int64_t from = small_offset(&w, mode, &a->pads, x);
        if (from < 0)
            ref_set(y->dtype, run->out[0], i, a->value);
        else
            memcpy((char *)run->out[0] + (size_t)i * bytes, (const char *)run->in[0] + (size_t)from * bytes, bytes);
    }
}

#define INTS(...)                                                   \
    {                                                               \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
    }
#define PAD(...) \
    &(const struct attr_pad) { __VA_ARGS__ }
static const struct op_case cases_pad[] = {{.name = "constant", .attrs = PAD("constant", 0.5, INTS(0, 3, 1, 2)), .in = {CASE_F32(2, 3, 5)}},
                                           {.name = "crop", .attrs = PAD("constant", 0, INTS(-1, 2)), .in = {CASE_F32(2, 5)}},
                                           {.name = "reflect", .attrs = PAD("reflect", 0, INTS(2, 1)), .in = {CASE_F32(2, 3, 5)}},
                                           {.name = "replicate", .attrs = PAD("replicate", 0, INTS(1, 0, 2, 1)), .in = {CASE_F32(2, 4, 5)}},
                                           {.name = "empty", .attrs = PAD("constant", 1, INTS(0, 0, 1, 1)), .in = {CASE_F32(0, 3)}},
                                           {.name = NULL}};
static const struct op pad_pad = {
    .name = "pad",
    .doc = "x with pairs (before, after) added around its last axes: a constant, the mirror without the edge, or the edge.",
    .in_names = in_x,
    .out_names = out_y,
    .attrs = attr_fields_pad,
    .attr_bytes = sizeof(struct attr_pad),
    .traits = OP_CHEAP,
    .infer = infer_pad,
    .grad = grad_of_pad,
    .ref = ref_pad,
    .cases = cases_pad};

/* ---- pad_grad: the transpose of reflect and replicate */
static enum cb_status infer_pad_grad(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_pad_grad *a = node->attrs;
    return padded(node, a->mode, &a->pads, -1, out, err);
}

static void grad_of_pad_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                             struct cb_tensor **din) {
    const struct attr_pad_grad *a = node->attrs;
    (void)need;
    din[0] = op_pad(g, dout[0], a->mode, 0, a->pads.n, a->pads.v);
}

static void ref_pad_grad(const struct op_run *run) {
    const struct attr_pad_grad *a = run->node->attrs;
    const struct cb_type *dy = &run->node->in[0]->type, *dx = &run->node->out[0]->type;
    enum pad_mode mode = mode_of(a->mode);
    int64_t n = type_elements(dx);
    struct walk w = ops_walk(dy->rank, dy->dim);
    for (int64_t i = 0; i < n; i++) ref_set(dx->dtype, run->out[0], i, 0);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) {
        int64_t to = small_offset(&w, mode, &a->pads, dx);
        if (to >= 0) ref_set(dx->dtype, run->out[0], to, ref_get(dx->dtype, run->out[0], to) + ref_get(dy->dtype, run->in[0], i));
    }
}

#define BACK(...) \
    &(const struct attr_pad_grad) { __VA_ARGS__ }
static const struct op_case cases_pad_grad[] = {
    {.name = "reflect", .attrs = BACK("reflect", INTS(2, 1)), .in = {CASE_F32(2, 3, 8)}},
    {.name = "replicate", .attrs = BACK("replicate", INTS(1, 0, 2, 1)), .in = {CASE_F32(2, 5, 8)}},
    {.name = "empty", .attrs = BACK("replicate", INTS(1, 1)), .in = {CASE_F32(0, 5)}},
    {.name = NULL}};
static const char *const in_dy[] = {"dy", NULL};
static const char *const out_dx[] = {"dx", NULL};
static const struct op pad_grad = {.name = "pad_grad",
                                   .doc = "Gradient of pad in mode reflect or replicate: each part of dy is added where it came from.",
                                   .in_names = in_dy,
                                   .out_names = out_dx,
                                   .attrs = attr_fields_pad_grad,
                                   .attr_bytes = sizeof(struct attr_pad_grad),
                                   .infer = infer_pad_grad,
                                   .grad = grad_of_pad_grad,
                                   .ref = ref_pad_grad,
                                   .cases = cases_pad_grad};

const struct op *const op_file_pad[] = {&pad_pad, &pad_grad, NULL};

struct cb_tensor *op_pad(struct cb_graph *g, struct cb_tensor *x, const char *mode, double value, int n, const int64_t *before_after) {
    struct attr_pad a;
    enum pad_mode kind = mode_of(mode);
    if (graph_is_bad(g, x)) return x;
    if (kind == PAD_UNKNOWN) return graph_fail(g, CB_E_NAME, "pad: mode '%s'; constant, reflect or replicate wanted", mode);
    if (n < 0 || n > CB_MAX_RANK * 2) return graph_fail(g, CB_E_SHAPE, "pad: %d amounts; 0 to %d wanted", n, CB_MAX_RANK * 2);
    memset(&a, 0, sizeof a);
    a.mode = mode_names[kind];  // static: outlives the graph
    a.value = value;
    a.pads.n = n;
    for (int i = 0; i < n; i++) a.pads.v[i] = before_after[i];
    return graph_node(g, &pad_pad, &a, 1, &x);
}
