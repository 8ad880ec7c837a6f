/* Differentiable functions inside your own C program: declare parameters and a body, give examples of what the program should return, train in place. */
#ifndef CAMBIUM_GRAPH_H
#define CAMBIUM_GRAPH_H
#include <cambium/cambium.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A function under construction: nodes are added, then it is compiled once and run often. The first failure is kept: build everything, check once in
   cb_function_compile. Handles of tensors are borrowed from the function. */
struct cb_function;
struct cb_tensor;

/* engine: borrowed for the function's life. Owned by caller, free with cb_function_destroy. */
enum cb_status cb_function_create(struct cb_function **function, struct cb_engine *engine, struct cb_err *err);
void cb_function_destroy(struct cb_function **function);

/* A trainable parameter. init: "zeros", "ones", "normal:0.02", "uniform:0.1", "fan_in" (uniform within 1/sqrt(fan in): dims[1:] for rank >= 2). */
struct cb_tensor *cb_parameter(struct cb_function *function, const char *name, const char *init, int rank, const int64_t *dim);
/* A buffer that keeps its value between runs and is not trained (running statistics). `next`: see cb_state_update. */
struct cb_tensor *cb_state(struct cb_function *function, const char *name, double start, int rank, const int64_t *dim);
void cb_state_update(struct cb_function *function, struct cb_tensor *state, struct cb_tensor *next);
/* What the caller fills before each run. */
struct cb_tensor *cb_input(struct cb_function *function, const char *name, enum cb_dtype dtype, int rank, const int64_t *dim);
struct cb_tensor *cb_constant(struct cb_function *function, double value);
/* Any op by name (`cambium list ops`): attributes as "stride=2,axes=0:1". Inputs end with NULL-padded absences: n counts them. */
struct cb_tensor *cb_op(struct cb_function *function, const char *op, const char *attributes, int n, struct cb_tensor *const *inputs);
/* Output i of the op that made t. */
struct cb_tensor *cb_op_output(struct cb_function *function, struct cb_tensor *t, int i);
/* Names a result. */
void cb_output(struct cb_function *function, const char *name, struct cb_tensor *t);
/* The scalar to be minimised. */
void cb_loss(struct cb_function *function, struct cb_tensor *t);

struct cb_compile_options {
    const char *optimizer; /* "adam" (default), "adamw", "sgd:momentum=0.9", ... */
    double lr;             /* 1e-3 */
    double clip, weight_decay; /* 0: none */
};
/* Checks, differentiates and plans. Nullable: options. After it nothing can be added. */
enum cb_status cb_function_compile(struct cb_function *function, const struct cb_compile_options *options, struct cb_err *err);

/* Memory of an input, output, parameter or state, valid after compiling, for the function's life. NULL: no such name. Row-major. */
void *cb_data(struct cb_function *function, const char *name);
float *cb_floats(struct cb_function *function, const char *name); /* the same, where it is f32; else NULL */
/* Computes the outputs (not the loss) from the inputs. */
enum cb_status cb_function_run(struct cb_function *function, struct cb_err *err);
/* One training step on the present inputs: loss, gradients, update. *loss: nullable. */
enum cb_status cb_function_train(struct cb_function *function, double *loss, struct cb_err *err);
void cb_function_set_lr(struct cb_function *function, double lr);
/* Parameters and states as a safetensors file, and back (strict: names and shapes must agree). */
enum cb_status cb_function_save(const struct cb_function *function, const char *path, struct cb_err *err);
enum cb_status cb_function_load(struct cb_function *function, const char *path, struct cb_err *err);

/* ---- short forms, all by cb_op */
static inline struct cb_tensor *cb_matmul(struct cb_function *f, struct cb_tensor *a, struct cb_tensor *b) {
    struct cb_tensor *in[2];
    in[0] = a, in[1] = b;
    return cb_op(f, "matmul", "", 2, in);
}
static inline struct cb_tensor *cb_binary(struct cb_function *f, const char *op, struct cb_tensor *a, struct cb_tensor *b) {
    struct cb_tensor *in[2];
    in[0] = a, in[1] = b;
    return cb_op(f, op, "", 2, in);
}
static inline struct cb_tensor *cb_unary(struct cb_function *f, const char *op, struct cb_tensor *x) { return cb_op(f, op, "", 1, &x); }
/* x (..., in) to (..., out): parameters name.weight (out, in) and name.bias (out). */
struct cb_tensor *cb_linear(struct cb_function *function, const char *name, struct cb_tensor *x, int64_t out);
/* Mean cross-entropy of logits (N, classes) and labels i32 (N). */
struct cb_tensor *cb_cross_entropy(struct cb_function *function, struct cb_tensor *logits, struct cb_tensor *labels);

#ifdef __cplusplus
}
#endif
#endif
