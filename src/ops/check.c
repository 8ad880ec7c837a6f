/* Checks that the infer hooks of ops share. */
#include "ops/check.h"

static bool is_math(enum cb_dtype dtype) { return dtype == CB_DTYPE_F32 || dtype == CB_DTYPE_F64; }
static bool is_index(enum cb_dtype dtype) { return dtype == CB_DTYPE_I32 || dtype == CB_DTYPE_I64; }

/* Records "OP: INPUT is TYPE; WANTED wanted". */
static enum cb_status fail_input(const struct node *node, int i, enum cb_status code, const char *wanted, struct cb_err *err) {
    char text[TYPE_TEXT];
    FAIL(err, code, "%s: %s is %s; %s wanted", node->op->name, node->op->in_names[i], type_text(&node->in[i]->type, text), wanted);
}

enum cb_status ops_check_float(const struct node *node, int i, struct cb_err *err) {
    if (!is_math(node->in[i]->type.dtype)) return fail_input(node, i, CB_E_DTYPE, "f32 or f64", err);
    return CB_OK;
}

enum cb_status ops_check_number(const struct node *node, int i, struct cb_err *err) {
    enum cb_dtype dtype = node->in[i]->type.dtype;
    if (!is_math(dtype) && !is_index(dtype) && dtype != CB_DTYPE_F16 && dtype != CB_DTYPE_BF16)
        return fail_input(node, i, CB_E_DTYPE, "a floating-point type, i32 or i64", err);
    return CB_OK;
}

enum cb_status ops_check_index(const struct node *node, int i, struct cb_err *err) {
    if (!is_index(node->in[i]->type.dtype)) return fail_input(node, i, CB_E_DTYPE, "i32 or i64", err);
    return CB_OK;
}

enum cb_status ops_check_bool(const struct node *node, int i, struct cb_err *err) {
    if (node->in[i]->type.dtype != CB_DTYPE_BOOL) return fail_input(node, i, CB_E_DTYPE, "bool", err);
    return CB_OK;
}

enum cb_status ops_check_plain(const struct node *node, int i, struct cb_err *err) {
    if (dtype_of(node->in[i]->type.dtype)->block != 1) return fail_input(node, i, CB_E_DTYPE, "a type without blocks", err);
    return CB_OK;
}

enum cb_status ops_check_same_dtype(const struct node *node, int i, int j, struct cb_err *err) {
    const struct cb_type *a = &node->in[i]->type, *b = &node->in[j]->type;
    if (a->dtype == b->dtype) return CB_OK;
    FAIL(err, CB_E_DTYPE, "%s: %s is %s and %s is %s; one type wanted", node->op->name, node->op->in_names[i], dtype_of(a->dtype)->name,
         node->op->in_names[j], dtype_of(b->dtype)->name);
}

enum cb_status ops_check_same(const struct node *node, int i, int j, struct cb_err *err) {
    char a[TYPE_TEXT], b[TYPE_TEXT];
    if (type_equal(&node->in[i]->type, &node->in[j]->type)) return CB_OK;
    FAIL(err, CB_E_SHAPE, "%s: %s is %s and %s is %s; the same wanted", node->op->name, node->op->in_names[i],
         type_text(&node->in[i]->type, a), node->op->in_names[j], type_text(&node->in[j]->type, b));
}

enum cb_status ops_check_vector(const struct node *node, int i, int64_t n, struct cb_err *err) {
    if (i >= node->n_in || !node->in[i]) return CB_OK;
    char text[TYPE_TEXT];
    const struct cb_type *t = &node->in[i]->type;
    TRY(ops_check_same_dtype(node, i, 0, err));
    if (t->rank != 1 || t->dim[0] != n)
        FAIL(err, CB_E_SHAPE, "%s: %s is %s; a vector of %lld wanted", node->op->name, node->op->in_names[i], type_text(t, text),
             (long long)n);
    return CB_OK;
}

enum cb_status ops_check_axis(const struct node *node, int64_t axis, int rank, struct cb_err *err) {
    if (axis < 0 || axis >= rank)
        FAIL(err, CB_E_SHAPE, "%s: axis %lld; 0 to %d wanted for rank %d", node->op->name, (long long)axis, rank - 1, rank);
    return CB_OK;
}

enum cb_status ops_check_axes(const struct node *node, const struct attr_ints *axes, int rank, struct cb_err *err) {
    if (axes->n < 0 || axes->n > rank) FAIL(err, CB_E_SHAPE, "%s: %d axes; at most the rank %d wanted", node->op->name, axes->n, rank);
    for (int i = 0; i < axes->n; i++) {
        TRY(ops_check_axis(node, axes->v[i], rank, err));
        if (i > 0 && axes->v[i] <= axes->v[i - 1])
            FAIL(err, CB_E_SHAPE, "%s: axis %lld after %lld; each once and ascending wanted", node->op->name, (long long)axes->v[i],
                 (long long)axes->v[i - 1]);
    }
    return CB_OK;
}

enum cb_status ops_check_broadcast(const struct node *node, const struct cb_type *a, const struct cb_type *b, struct cb_type *out,
                                   struct cb_err *err) {
    char ta[TYPE_TEXT], tb[TYPE_TEXT];
    struct cb_type t = {.dtype = a->dtype, .rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 0; i < t.rank; i++) {
        int ia = i - (t.rank - a->rank), ib = i - (t.rank - b->rank);
        int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];
        if (da != db && da != 1 && db != 1)
            FAIL(err, CB_E_SHAPE, "%s: %s and %s; shapes that broadcast wanted", node->op->name, type_text(a, ta), type_text(b, tb));
        t.dim[i] = da == 1 ? db : da;
    }
    *out = t;
    return type_check(out, node->op->name, err);
}

enum cb_status ops_check_shape(const struct node *node, enum cb_dtype dtype, const struct attr_ints *shape, struct cb_type *out,
                               struct cb_err *err) {
    if (shape->n < 0 || shape->n > CB_MAX_RANK)
        FAIL(err, CB_E_SHAPE, "%s: a shape of rank %d; at most %d wanted", node->op->name, shape->n, CB_MAX_RANK);
    *out = type_make(dtype, shape->n, shape->v);
    return type_check(out, node->op->name, err);
}

struct ops_split ops_split_at(const struct cb_type *type, int64_t axis) {
    struct ops_split s = {1, type->dim[axis], 1};
    for (int i = 0; i < axis; i++) s.outer *= type->dim[i];
    for (int i = (int)axis + 1; i < type->rank; i++) s.inner *= type->dim[i];
    return s;
}

size_t ops_element_bytes(enum cb_dtype dtype) { return (size_t)dtype_of(dtype)->block_bytes; }
