/* Elementwise functions of two tensors with numpy broadcasting: arithmetic, comparison, logic and choice. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"
#include "ops/walk.h"

static const char *const in_ab[] = {"a", "b", NULL};
static const char *const out_y[] = {"y", NULL};

/* ---- types */
static enum cb_status infer_arithmetic(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_number(node, 0, err));
    TRY(ops_check_same_dtype(node, 0, 1, err));
    return ops_check_broadcast(node, &node->in[0]->type, &node->in[1]->type, out, err);
}

static enum cb_status infer_real(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    TRY(ops_check_float(node, 0, err));
    return infer_arithmetic(node, out, n_out, err);
}

static enum cb_status infer_compare(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    if (node->in[0]->type.dtype == CB_DTYPE_BOOL) {
        TRY(ops_check_same_dtype(node, 0, 1, err));
        TRY(ops_check_broadcast(node, &node->in[0]->type, &node->in[1]->type, out, err));
    } else {
        TRY(infer_arithmetic(node, out, n_out, err));
    }
    out[0].dtype = CB_DTYPE_BOOL;
    return CB_OK;
}

static enum cb_status infer_logical(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_bool(node, 0, err));
    TRY(ops_check_bool(node, 1, err));
    return ops_check_broadcast(node, &node->in[0]->type, &node->in[1]->type, out, err);
}

/* ---- values; integers are exact below 2^53 */
static double f_add(double a, double b) { return a + b; }
static double f_sub(double a, double b) { return a - b; }
static double f_mul(double a, double b) { return a * b; }
static double f_pow(double a, double b) { return pow(a, b); }
static double f_div(double a, double b) { return a / b; }
static double f_maximum(double a, double b) { return isnan(a) || a > b ? a : b; }
static double f_minimum(double a, double b) { return isnan(a) || a < b ? a : b; }
static double f_lt(double a, double b) { return a < b; }
static double f_le(double a, double b) { return a <= b; }
static double f_gt(double a, double b) { return a > b; }
static double f_ge(double a, double b) { return a >= b; }
static double f_eq(double a, double b) { return a == b; }
static double f_ne(double a, double b) { return a != b; }
static double f_logical_and(double a, double b) { return a != 0 && b != 0; }
static double f_logical_or(double a, double b) { return a != 0 || b != 0; }
static double f_logical_xor(double a, double b) { return (a != 0) != (b != 0); }

static void run_pairs(const struct op_run *run, double (*f)(double a, double b)) {
    const struct cb_type *a = &run->node->in[0]->type, *b = &run->node->in[1]->type, *y = &run->node->out[0]->type;
    struct walk w = ops_walk(y->rank, y->dim);
    ops_walk_broadcast(&w, a);
    ops_walk_broadcast(&w, b);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w))
        ref_set(y->dtype, run->out[0], i, f(ref_get(a->dtype, run->in[0], w.offset[0]), ref_get(b->dtype, run->in[1], w.offset[1])));
}

/* ---- gradients: d_a and d_b from a, b, y, dy, before they are summed down to the sources' shapes */
#define GRAD(name, d_a, d_b)                                                                                              \
    static void grad_##name(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, \
                            struct cb_tensor **din) {                                                                     \
        struct cb_tensor *a = node->in[0], *b = node->in[1], *y = node->out[0], *dy = dout[0];                            \
        (void)y;                                                                                                          \
        if (need[0]) din[0] = op_sum_to(g, d_a, &a->type);                                                                \
        if (need[1]) din[1] = op_sum_to(g, d_b, &b->type);                                                                \
    }
static struct cb_tensor *zero_of(struct cb_graph *g, const struct cb_tensor *t) { return ops_scalar(g, t->type.dtype, 0); }
/* dy where a wins the comparison or nothing is ordered (NaN), half of it where both are equal. */
static struct cb_tensor *winner(struct cb_graph *g, const char *loses, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *dy) {
    struct cb_tensor *part = op_where(g, op_compare(g, loses, a, b), zero_of(g, dy), dy);
    return op_where(g, op_compare(g, "eq", a, b), op_scale(g, dy, 0.5, 0), part);
}
/* dy b a^(b-1), 0 where b is 0. */
static struct cb_tensor *pow_base(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *dy) {
    struct cb_tensor *slope = op_mul(g, b, op_pow(g, a, op_scale(g, b, 1, -1)));
    return op_where(g, op_compare(g, "eq", b, zero_of(g, b)), zero_of(g, dy), op_mul(g, dy, slope));
}
/* dy y log(a), 0 where a is 0 and b is not negative. */
static struct cb_tensor *pow_exponent(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *y,
                                      struct cb_tensor *dy) {
    struct cb_tensor *flat = op_logical(g, "logical_and", op_compare(g, "eq", a, zero_of(g, a)), op_compare(g, "ge", b, zero_of(g, b)));
    return op_where(g, flat, zero_of(g, dy), op_mul(g, dy, op_mul(g, y, op_unary(g, "log", a))));
}
GRAD(add, dy, dy)
GRAD(sub, dy, op_unary(g, "neg", dy))
GRAD(mul, op_mul(g, dy, b), op_mul(g, dy, a))
GRAD(div, op_div(g, dy, b), op_unary(g, "neg", op_mul(g, dy, op_div(g, y, b))))
GRAD(pow, pow_base(g, a, b, dy), pow_exponent(g, a, b, y, dy))
GRAD(maximum, winner(g, "lt", a, b, dy), winner(g, "gt", a, b, dy))
GRAD(minimum, winner(g, "gt", a, b, dy), winner(g, "lt", a, b, dy))

/* ---- cases */
static const struct op_case cases_real[] = {{.name = "same", .in = {CASE_F32(3, 5), CASE_F32(3, 5)}},
                                            {.name = "row", .in = {CASE_F32(3, 5), CASE_F32(5)}},
                                            {.name = "column", .in = {CASE_F32(3, 1), CASE_F32(3, 5)}},
                                            {.name = "both_sides", .in = {CASE_F32(2, 1, 3), CASE_F32(5, 1)}},
                                            {.name = "scalar", .in = {CASE_SCALAR, CASE_F32(7)}},
                                            {.name = "empty", .in = {CASE_F32(0, 3), CASE_F32(1, 3)}},
                                            {.name = NULL}};
static const struct op_case cases_positive[] = {{.name = "same", .in = {CASE_POSITIVE(3, 5), CASE_POSITIVE(3, 5)}},
                                                {.name = "both_sides", .in = {CASE_POSITIVE(2, 1, 3), CASE_POSITIVE(5, 1)}},
                                                {.name = "empty", .in = {CASE_POSITIVE(0, 3), CASE_POSITIVE(1, 3)}},
                                                {.name = NULL}};
#define FLAG(...) \
    { .present = true, .dtype = CB_DTYPE_BOOL, CASE_DIMS(__VA_ARGS__), .fill = FILL_INDEX, .low = 0, .high = 2, .no_grad = true }
static const struct op_case cases_flags[] = {
    {.name = "row", .in = {FLAG(3, 5), FLAG(5)}}, {.name = "empty", .in = {FLAG(0), FLAG(0)}}, {.name = NULL}};

/* ---- the table: X(op, infer, grad, cases, in place, doc) */
#define BINARY_LIST(X)                                                                      \
    X(add, infer_arithmetic, grad_add, cases_real, 1, "a + b.")                             \
    X(sub, infer_arithmetic, grad_sub, cases_real, 1, "a - b.")                             \
    X(mul, infer_arithmetic, grad_mul, cases_real, 1, "a b.")                               \
    X(div, infer_real, grad_div, cases_positive, 1, "a / b.")                               \
    X(pow, infer_real, grad_pow, cases_positive, 1, "a^b.")                                 \
    X(maximum, infer_arithmetic, grad_maximum, cases_real, 1,                               \
      "The larger of a and b, NaN if either is; equal ones share the gradient by halves.")  \
    X(minimum, infer_arithmetic, grad_minimum, cases_real, 1,                               \
      "The smaller of a and b, NaN if either is; equal ones share the gradient by halves.") \
    X(lt, infer_compare, ops_no_grad, cases_real, 0, "a < b, as bool.")                     \
    X(le, infer_compare, ops_no_grad, cases_real, 0, "a <= b, as bool.")                    \
    X(gt, infer_compare, ops_no_grad, cases_real, 0, "a > b, as bool.")                     \
    X(ge, infer_compare, ops_no_grad, cases_real, 0, "a >= b, as bool.")                    \
    X(eq, infer_compare, ops_no_grad, cases_real, 0, "a == b, as bool; false for NaN.")     \
    X(ne, infer_compare, ops_no_grad, cases_real, 0, "a != b, as bool; true for NaN.")      \
    X(logical_and, infer_logical, ops_no_grad, cases_flags, 0, "a and b, of bools.")        \
    X(logical_or, infer_logical, ops_no_grad, cases_flags, 0, "a or b, of bools.")          \
    X(logical_xor, infer_logical, ops_no_grad, cases_flags, 0, "a or b but not both, of bools.")

#define DEFINE_BINARY(op_name, infer_hook, grad_hook, case_list, place, text)            \
    static void ref_##op_name(const struct op_run *run) { run_pairs(run, f_##op_name); } \
    static const struct op binary_##op_name = {.name = #op_name,                         \
                                               .doc = text,                              \
                                               .in_names = in_ab,                        \
                                               .out_names = out_y,                       \
                                               .traits = OP_ELEMENTWISE | OP_CHEAP,      \
                                               .infer = infer_hook,                      \
                                               .grad = grad_hook,                        \
                                               .ref = ref_##op_name,                     \
                                               .inplace = {place},                       \
                                               .cases = case_list};
BINARY_LIST(DEFINE_BINARY)

/* ---- where */
static enum cb_status infer_where(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_bool(node, 0, err));
    TRY(ops_check_plain(node, 1, err));
    TRY(ops_check_same_dtype(node, 1, 2, err));
    struct cb_type both;
    TRY(ops_check_broadcast(node, &node->in[1]->type, &node->in[2]->type, &both, err));
    return ops_check_broadcast(node, &both, &node->in[0]->type, out, err);
}

static void grad_where(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                       struct cb_tensor **din) {
    struct cb_tensor *zero = zero_of(g, dout[0]);
    if (need[1]) din[1] = op_sum_to(g, op_where(g, node->in[0], dout[0], zero), &node->in[1]->type);
    if (need[2]) din[2] = op_sum_to(g, op_where(g, node->in[0], zero, dout[0]), &node->in[2]->type);
}

static void ref_where(const struct op_run *run) {
    const struct cb_type *y = &run->node->out[0]->type;
    const bool *condition = run->in[0];
    size_t bytes = ops_element_bytes(y->dtype);
    struct walk w = ops_walk(y->rank, y->dim);
    for (int k = 0; k < 3; k++) ops_walk_broadcast(&w, &run->node->in[k]->type);
    for (int64_t i = 0; i < w.count; i++, ops_walk_next(&w)) {
        int k = condition[w.offset[0]] ? 1 : 2;
        memmove((char *)run->out[0] + (size_t)i * bytes, (const char *)run->in[k] + (size_t)w.offset[k] * bytes, bytes);
    }
}

static const struct op_case cases_where[] = {{.name = "same", .in = {FLAG(3, 5), CASE_F32(3, 5), CASE_F32(3, 5)}},
                                             {.name = "broadcast", .in = {FLAG(3, 1), CASE_F32(3, 5), CASE_F32(5)}},
                                             {.name = "wide_condition", .in = {FLAG(2, 3), CASE_F32(3), CASE_SCALAR}},
                                             {.name = "empty", .in = {FLAG(0, 1), CASE_F32(3), CASE_F32(1)}},
                                             {.name = NULL}};
static const char *const in_where[] = {"condition", "a", "b", NULL};
static const struct op binary_where = {.name = "where",
                                       .doc = "a where condition (bool) holds, else b; values not chosen leave no trace in the gradient.",
                                       .in_names = in_where,
                                       .out_names = out_y,
                                       .traits = OP_ELEMENTWISE | OP_CHEAP,
                                       .infer = infer_where,
                                       .grad = grad_where,
                                       .ref = ref_where,
                                       .inplace = {2},
                                       .cases = cases_where};

/* ---- logical_not */
static enum cb_status infer_not(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    TRY(ops_check_bool(node, 0, err));
    out[0] = node->in[0]->type;
    return CB_OK;
}

static void ref_not(const struct op_run *run) {
    int64_t n = type_elements(&run->node->in[0]->type);
    for (int64_t i = 0; i < n; i++) ref_set(CB_DTYPE_BOOL, run->out[0], i, ref_get(CB_DTYPE_BOOL, run->in[0], i) == 0);
}

static const struct op_case cases_not[] = {{.name = "odd", .in = {FLAG(3, 5)}}, {.name = "empty", .in = {FLAG(0)}}, {.name = NULL}};
static const char *const in_not[] = {"a", NULL};
static const struct op binary_not = {.name = "logical_not",
                                     .doc = "not a, of bools.",
                                     .in_names = in_not,
                                     .out_names = out_y,
                                     .traits = OP_ELEMENTWISE | OP_CHEAP,
                                     .infer = infer_not,
                                     .grad = ops_no_grad,
                                     .ref = ref_not,
                                     .inplace = {1},
                                     .cases = cases_not};

const struct op *const op_file_binary[] = {
#define BINARY_ENTRY(op_name, infer_hook, grad_hook, case_list, place, text) &binary_##op_name,
    BINARY_LIST(BINARY_ENTRY) & binary_where,
    &binary_not,
    NULL,
};

/* ---- builders */
static struct cb_tensor *pair(struct cb_graph *g, const struct op *op, struct cb_tensor *a, struct cb_tensor *b) {
    return graph_node(g, op, NULL, 2, (struct cb_tensor *[]){a, b});
}

struct cb_tensor *op_add(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_add, a, b);
}
struct cb_tensor *op_sub(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_sub, a, b);
}
struct cb_tensor *op_mul(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_mul, a, b);
}
struct cb_tensor *op_div(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_div, a, b);
}
struct cb_tensor *op_pow(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_pow, a, b);
}
struct cb_tensor *op_maximum(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_maximum, a, b);
}
struct cb_tensor *op_minimum(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b) {
    return pair(g, &binary_minimum, a, b);
}

/* An op of this file by name, with a given infer hook. */
static struct cb_tensor *by_name(struct cb_graph *g, const char *what, const char *name,
                                 enum cb_status (*infer)(const struct node *, struct cb_type *, int *, struct cb_err *),
                                 struct cb_tensor *a, struct cb_tensor *b) {
    for (int i = 0; op_file_binary[i]; i++)
        if (op_file_binary[i]->infer == infer && !strcmp(op_file_binary[i]->name, name)) return pair(g, op_file_binary[i], a, b);
    return graph_fail(g, CB_E_NAME, "%s '%s': no such op", what, name);
}

struct cb_tensor *op_compare(struct cb_graph *g, const char *kind, struct cb_tensor *a, struct cb_tensor *b) {
    return by_name(g, "compare", kind, infer_compare, a, b);
}

struct cb_tensor *op_logical(struct cb_graph *g, const char *kind, struct cb_tensor *a, struct cb_tensor *b) {
    return by_name(g, "logical", kind, infer_logical, a, b);
}

struct cb_tensor *op_logical_not(struct cb_graph *g, struct cb_tensor *a) {
    return graph_node(g, &binary_not, NULL, 1, &a);
}

struct cb_tensor *op_where(struct cb_graph *g, struct cb_tensor *condition, struct cb_tensor *a, struct cb_tensor *b) {
    return graph_node(g, &binary_where, NULL, 3, (struct cb_tensor *[]){condition, a, b});
}
