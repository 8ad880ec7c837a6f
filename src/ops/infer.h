/* Checks that infer functions share; each message names the op, the input, what was found and what was wanted. Absent inputs pass. */
#ifndef OPS_INFER_H
#define OPS_INFER_H
#include "graph/op.h"

/* Input i is f32 or f64. */
static inline enum cb_status check_float(const struct node *node, int i, struct cb_err *err) {
    const struct cb_tensor *t = node->in[i];
    if (t && t->type.dtype != CB_DTYPE_F32 && t->type.dtype != CB_DTYPE_F64)
        FAIL(err, CB_E_DTYPE, "%s: %s is %s; wanted f32 or f64", node->op->name, node->op->in_names[i], dtype_of(t->type.dtype)->name);
    return CB_OK;
}

static inline enum cb_status check_dtype(const struct node *node, int i, enum cb_dtype dtype, struct cb_err *err) {
    const struct cb_tensor *t = node->in[i];
    if (t && t->type.dtype != dtype)
        FAIL(err, CB_E_DTYPE, "%s: %s is %s; wanted %s", node->op->name, node->op->in_names[i], dtype_of(t->type.dtype)->name,
             dtype_of(dtype)->name);
    return CB_OK;
}

static inline enum cb_status check_rank(const struct node *node, int i, int rank, struct cb_err *err) {
    const struct cb_tensor *t = node->in[i];
    char have[TYPE_TEXT];
    if (t && t->type.rank != rank)
        FAIL(err, CB_E_SHAPE, "%s: %s is %s; wanted rank %d", node->op->name, node->op->in_names[i], type_text(&t->type, have), rank);
    return CB_OK;
}

/* Input i is exactly of this type. */
static inline enum cb_status check_type(const struct node *node, int i, struct cb_type want, struct cb_err *err) {
    const struct cb_tensor *t = node->in[i];
    char have[TYPE_TEXT], text[TYPE_TEXT];
    if (t && !type_equal(&t->type, &want))
        FAIL(err, t->type.dtype == want.dtype ? CB_E_SHAPE : CB_E_DTYPE, "%s: %s is %s; wanted %s", node->op->name, node->op->in_names[i],
             type_text(&t->type, have), type_text(&want, text));
    return CB_OK;
}

/* type_make with the dimensions as arguments. */
#define TYPE(dtype, ...) type_make((dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
#define TYPE_SCALAR(dtype) type_make((dtype), 0, NULL)

static inline bool shape_equal(const struct cb_type *a, const struct cb_type *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
    return same;
}
#endif
