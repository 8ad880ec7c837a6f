/* The interface of an op: one descriptor says all that the engine needs to know about it. */
#ifndef GRAPH_OP_H
#define GRAPH_OP_H
#include "graph/ir.h"

#define OP_MAX_IN 16
#define OP_MAX_OUT 8
#define ATTENTION_EVERYONE INT32_MAX  // segment of attention's keys that the queries of all segments see

enum op_trait {
    OP_LEAF = 1,  // no inputs; bound or stored from outside (param, input, const)
    OP_ELEMENTWISE = 2,  // out[i] depends on element i of (broadcast) inputs only
    OP_VIEW = 4,  // out 0 is in[0]'s bytes under another shape: no kernel runs
    OP_RANDOM = 8,  // draws: never merged with an equal node
    OP_CHEAP = 16,  // little work per byte: may be recomputed to save memory
    OP_EFFECT = 32,  // writes into in[inplace]: kept, and ordered
};

/* The three leaves, defined by the graph itself. */
extern const struct op op_param, op_input, op_const;
struct attr_leaf {
    const char *name;  // of a param or input
    const void *data;  // of a constant
};

enum attr_kind { ATTR_BOOL, ATTR_INT, ATTR_FLOAT, ATTR_INTS, ATTR_STR, ATTR_PTR };

/* A short list of integers inside an attribute struct (axes, shapes). */
struct attr_ints {
    int n;
    int64_t v[CB_MAX_RANK * 2];
};

/* One field of a generated struct attr_<op>: bool, int64_t, double, struct attr_ints or const char *. */
struct attr_field {
    const char *name;
    enum attr_kind kind;
    size_t offset;
};

/* What a ref or kernel gets: pointers are in the order of the node's inputs and outputs; absent inputs are NULL. */
struct op_run {
    const struct node *node;
    const void *const *in;
    void *const *out;
    void *work;  // the kernel's workspace, 64-byte aligned; NULL where it asked for none
    struct pool *pool;
};

/* How a case fills an input. */
enum case_fill {
    FILL_NORMAL,
    FILL_POSITIVE /* in (0.2, 2) */,
    FILL_UNIFORM /* in [low, high) */,
    FILL_INDEX /* integers in [low, high) */,
    FILL_DISTINCT /* a shuffle of equally spaced values: no ties */,
    FILL_VALUES /* given */
};
struct case_input {
    bool present;
    enum cb_dtype dtype;  // floating-point inputs are also run as f64 for finite differences
    int rank;
    int64_t dim[CB_MAX_RANK];
    enum case_fill fill;
    double low, high;
    const double *values;  // FILL_VALUES
    bool no_grad;  // not differentiable, or constant by contract
};
struct op_case {
    const char *name;  // NULL ends the list
    const void *attrs;
    struct case_input in[OP_MAX_IN];
    bool no_grad;  // skip finite differences (kinks, integer output)
    bool no_second;  // skip second derivatives
    double grad_tolerance;  // of derivatives in f64, relative to 1 + |differences|; 0: 1e-6
};
#define CASE_DIMS(...) .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}
#define CASE_F32(...) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(__VA_ARGS__) }
#define CASE_POSITIVE(...) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(__VA_ARGS__), .fill = FILL_POSITIVE }
#define CASE_DISTINCT(...) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(__VA_ARGS__), .fill = FILL_DISTINCT }
#define CASE_SCALAR \
    { .present = true, .dtype = CB_DTYPE_F32, .rank = 0 }
#define CASE_INDEX(below, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_INDEX, .low = 0, .high = (below), .no_grad = true }
#define CASE_BLOCKS(type, ...) \
    { .present = true, .dtype = (type), CASE_DIMS(__VA_ARGS__), .no_grad = true }
#define CASE_ABSENT \
    { .present = false }

struct op {
    const char *name;
    const char *doc;  // one sentence; inputs with shapes, the formula, its source
    const char *const *in_names;  // NULL-ended; a name that ends in '?' is optional
    const char *const *out_names;  // NULL-ended
    const struct attr_field *attrs;  // NULL-ended by name; generated: attr_fields_<op>
    size_t attr_bytes;
    unsigned traits;
    int n_out;  // 0: one for each out_names entry; -1: infer sets *n_out (split)
    /* Types of the outputs from inputs and attributes; every shape that a ref cannot run is refused here, with the op's name in the message. */
    enum cb_status (*infer)(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err);
    /* Sets din[i] for the inputs that need one (need[i]); dout[i] is NULL where output i does not reach the loss; din[i] may stay NULL: zero. */
    void (*grad)(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din);
    /* Plain scalar loops, exact meaning: reads and writes by ref_get/ref_set so that f32 and f64 both work. NULL only with expand or OP_LEAF/OP_VIEW. */
    void (*ref)(const struct op_run *run);
    size_t (*ref_work)(const struct node *node);  // bytes of run->work for ref; NULL: none
    /* The same function as a graph of simpler ops: sets out[0..n_out-1]. Where grad is NULL the derivative is that of the expansion. */
    void (*expand)(struct cb_graph *g, const struct node *node, struct cb_tensor **out);
    /* Inputs, as bits, whose rows (all axes but the last) alone make the same rows of the outputs, the other inputs being the same for all rows.
       0: it is not so, NULL: nor for any node, but for OP_ELEMENTWISE. No self-test tries what it says. */
    unsigned (*by_row)(const struct node *node);
    double (*flops)(const struct node *node);  // NULL: elements of output 0
    int inplace[OP_MAX_OUT];  // output i may reuse the buffer of input inplace[i]-1; 0: none. With OP_EFFECT it must.
    int accumulate;  // input k-1 is an optional "acc?" that is added to output accumulate_out and shares its buffer; 0: none
    int accumulate_out;
    /* Of an op that accumulates: one node in the place of two, the second of which adds to the first in place; NULL where that is no better. Nullable. */
    struct cb_tensor *(*join)(struct cb_graph *g, const struct node *first, const struct node *second);
    const char
        *replays;  // a grad op that also computes output 0 of this op's node as its own output 0: inputs by name, attributes a prefix
    double tolerance;  // kernel against ref in f32, relative to max |value|; 0: 1e-5
    const struct op_case *cases;
};

/* One op_*.c file exports `const struct op *const op_file_<name>[]`, NULL-ended; the registry is generated from the file names. */
struct op_table {
    const struct op *const *const *files;  // NULL-ended
};
/* NULL where unknown. */
const struct op *op_find(const struct op_table *table, const char *name);

/* Reads element i of a buffer of a plain type as double; writes one. */
static inline double ref_get(enum cb_dtype dtype, const void *p, int64_t i) {
    switch (dtype) {
        case CB_DTYPE_F32: return ((const float *)p)[i];
        case CB_DTYPE_F64: return ((const double *)p)[i];
        case CB_DTYPE_I32: return ((const int32_t *)p)[i];
        case CB_DTYPE_I64: return (double)((const int64_t *)p)[i];
        case CB_DTYPE_BOOL:
        case CB_DTYPE_U8: return ((const uint8_t *)p)[i];
        case CB_DTYPE_F16: return (double)f16_to_f32(((const uint16_t *)p)[i]);
        case CB_DTYPE_BF16: return (double)bf16_to_f32(((const uint16_t *)p)[i]);
        default: return 0;
    }
}
static inline void ref_set(enum cb_dtype dtype, void *p, int64_t i, double v) {
    switch (dtype) {
        case CB_DTYPE_F32: ((float *)p)[i] = (float)v; break;
        case CB_DTYPE_F64: ((double *)p)[i] = v; break;
        case CB_DTYPE_I32: ((int32_t *)p)[i] = (int32_t)v; break;
        case CB_DTYPE_I64: ((int64_t *)p)[i] = (int64_t)v; break;
        case CB_DTYPE_BOOL:
        case CB_DTYPE_U8: ((uint8_t *)p)[i] = (uint8_t)v; break;
        case CB_DTYPE_F16: ((uint16_t *)p)[i] = f16_from_f32((float)v); break;
        case CB_DTYPE_BF16: ((uint16_t *)p)[i] = bf16_from_f32((float)v); break;
        default: break;
    }
}
#endif
