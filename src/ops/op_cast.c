/* Change of number type, and stop_gradient. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// @attrs cast: str dtype

static const char *const in_x[] = {"x", NULL};
static const char *const out_y[] = {"y", NULL};

/* Types that ref_get and ref_set know. */
static bool is_simple(enum cb_dtype dtype) {
    return dtype == CB_DTYPE_F32 || dtype == CB_DTYPE_F64 || dtype == CB_DTYPE_F16 || dtype == CB_DTYPE_BF16 || dtype == CB_DTYPE_I32 ||
           dtype == CB_DTYPE_I64 || dtype == CB_DTYPE_BOOL || dtype == CB_DTYPE_U8;
}

/* ---- cast */
static enum cb_status infer_cast(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const char *name = ((const struct attr_cast *)node->attrs)->dtype;
    const struct cb_type *x = &node->in[0]->type;
    enum cb_dtype to = name ? dtype_by_name(name) : CB_DTYPE_COUNT;
    if (to == CB_DTYPE_COUNT) FAIL(err, CB_E_NAME, "cast: type '%s'; a name like f32 or i32 wanted", name ? name : "");
    if (!(is_simple(x->dtype) && is_simple(to)) && to != CB_DTYPE_F32)
        FAIL(err, CB_E_DTYPE, "cast: %s to %s; f32 in between wanted", dtype_of(x->dtype)->name, name);
    *out = *x;
    out->dtype = to;
    return CB_OK;
}

static void grad_cast(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    (void)need;
    din[0] = op_cast(g, dout[0], node->in[0]->type.dtype);
}

/* Integers: towards 0, held within the type, NaN to 0. bool: whether not 0. */
static double fit(enum cb_dtype to, double v) {
    double low, high;
    switch (to) {
        case CB_DTYPE_BOOL: return v != 0;
        case CB_DTYPE_U8: low = 0, high = UINT8_MAX; break;
        case CB_DTYPE_I32: low = INT32_MIN, high = INT32_MAX; break;
        case CB_DTYPE_I64: low = -0x1p63, high = 0x1.fffffffffffffp62; break;
        default: return v;
    }
    return isnan(v) ? 0 : v < low ? low : v > high ? high : trunc(v);
}

static void ref_cast(const struct op_run *run) {
    enum cb_dtype from = run->node->in[0]->type.dtype, to = run->node->out[0]->type.dtype;
    int64_t n = type_elements(&run->node->in[0]->type);
    if (!is_simple(from)) {
        dtype_of(from)->to_f32(run->out[0], run->in[0], n);
    } else if (from == to) {
        memcpy(run->out[0], run->in[0], (size_t)type_bytes(&run->node->in[0]->type));
    } else {
        for (int64_t i = 0; i < n; i++) ref_set(to, run->out[0], i, fit(to, ref_get(from, run->in[0], i)));
    }
}

#define TO(name) \
    &(const struct attr_cast) { name }
static const struct op_case cases_cast[] = {
    {.name = "f32_to_f64", .attrs = TO("f64"), .in = {CASE_F32(3, 7)}},
    {.name = "f32_to_bf16", .attrs = TO("bf16"), .in = {CASE_F32(3, 7)}, .no_grad = true},
    {.name = "f32_to_f16", .attrs = TO("f16"), .in = {CASE_F32(3, 7)}, .no_grad = true},
    {.name = "f32_to_i32",
     .attrs = TO("i32"),
     .in = {{.present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(5), .fill = FILL_UNIFORM, .low = -9, .high = 9}},
     .no_grad = true},
    {.name = "i32_to_f32", .attrs = TO("f32"), .in = {CASE_INDEX(9, 5)}, .no_grad = true},
    {.name = "i32_to_bool", .attrs = TO("bool"), .in = {CASE_INDEX(3, 9)}, .no_grad = true},
    {.name = "empty", .attrs = TO("f64"), .in = {CASE_F32(0, 3)}},
    {.name = NULL}};
static const struct op cast_cast = {
    .name = "cast",
    .doc = "x as another number type: floats round to nearest even, integers towards 0 and held within the type; block types to f32 only.",
    .in_names = in_x,
    .out_names = out_y,
    .attrs = attr_fields_cast,
    .attr_bytes = sizeof(struct attr_cast),
    .traits = OP_ELEMENTWISE | OP_CHEAP,
    .infer = infer_cast,
    .grad = grad_cast,
    .ref = ref_cast,
    .cases = cases_cast};

struct cb_tensor *op_cast(struct cb_graph *g, struct cb_tensor *x, enum cb_dtype dtype) {
    if (graph_is_bad(g, x) || x->type.dtype == dtype) return x;
    return graph_node(g, &cast_cast, &(struct attr_cast){dtype_of(dtype)->name}, 1, &x);
}

/* ---- stop_gradient */
static enum cb_status infer_stop_gradient(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out, (void)err;
    *out = node->in[0]->type;
    return CB_OK;
}

static const struct op_case cases_stop_gradient[] = {{.name = "odd", .in = {CASE_F32(3, 7)}, .no_grad = true}, {.name = NULL}};
static const struct op cast_stop_gradient = {.name = "stop_gradient",
                                             .doc = "x itself, through which no gradient flows; a view.",
                                             .in_names = in_x,
                                             .out_names = out_y,
                                             .traits = OP_VIEW | OP_CHEAP,
                                             .infer = infer_stop_gradient,
                                             .grad = ops_no_grad,
                                             .cases = cases_stop_gradient};

struct cb_tensor *op_stop_gradient(struct cb_graph *g, struct cb_tensor *x) {
    return graph_node(g, &cast_stop_gradient, NULL, 1, &x);
}

const struct op *const op_file_cast[] = {&cast_cast, &cast_stop_gradient, NULL};
