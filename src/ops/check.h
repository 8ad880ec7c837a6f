/* Checks that the infer hooks of ops share: each fails with the op's name, what was found and what was wanted. */
#ifndef OPS_CHECK_H
#define OPS_CHECK_H
#include "graph/op.h"

/* Input i is f32 or f64. */
enum cb_status ops_check_float(const struct node *node, int i, struct cb_err *err);
/* Input i is floating point, i32 or i64. */
enum cb_status ops_check_number(const struct node *node, int i, struct cb_err *err);
/* Input i is i32 or i64. */
enum cb_status ops_check_index(const struct node *node, int i, struct cb_err *err);
enum cb_status ops_check_bool(const struct node *node, int i, struct cb_err *err);
/* Input i is not of a block type. */
enum cb_status ops_check_plain(const struct node *node, int i, struct cb_err *err);
/* Inputs i and j have one number type; or one type, shape included. */
enum cb_status ops_check_same_dtype(const struct node *node, int i, int j, struct cb_err *err);
enum cb_status ops_check_same(const struct node *node, int i, int j, struct cb_err *err);
/* Input i is absent or a vector of n of input 0's number type. */
enum cb_status ops_check_vector(const struct node *node, int i, int64_t n, struct cb_err *err);
/* 0 <= axis < rank. */
enum cb_status ops_check_axis(const struct node *node, int64_t axis, int rank, struct cb_err *err);
/* Axes in range and ascending. */
enum cb_status ops_check_axes(const struct node *node, const struct attr_ints *axes, int rank, struct cb_err *err);
/* The shape that a and b broadcast to, as numpy does, in a's number type. */
enum cb_status ops_check_broadcast(const struct node *node, const struct cb_type *a, const struct cb_type *b, struct cb_type *out,
                                   struct cb_err *err);
/* A shape attribute as a type. */
enum cb_status ops_check_shape(const struct node *node, enum cb_dtype dtype, const struct attr_ints *shape, struct cb_type *out,
                               struct cb_err *err);

/* Elements before, along and after an axis. */
struct ops_split {
    int64_t outer, n, inner;
};
struct ops_split ops_split_at(const struct cb_type *type, int64_t axis);
size_t ops_element_bytes(enum cb_dtype dtype);
#endif
