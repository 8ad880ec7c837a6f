/* Differentiable functions inside your own C program: declare parameters and a body, give examples of what the program should return, train in place. */
#ifndef CAMBIUM_GRAPH_H
#define CAMBIUM_GRAPH_H
#include <cambium/cambium.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A function under construction: nodes are added, then it is compiled once and run often. The first failure is kept: build everything, check once in
   cb_function_compile. Handles of tensors are borrowed from the function. Names are copied; those of parameters, states, inputs and outputs are one
   space, and "cambium." in front is kept for the engine. One thread at a time. */
struct cb_function;
struct cb_tensor;

/* engine: borrowed for the function's life. Owned by caller, free with cb_function_destroy. */
enum cb_status cb_function_create(struct cb_function **function, struct cb_engine *engine, struct cb_err *err);
void cb_function_destroy(struct cb_function **function);

/* ---- leaves */
/* A trainable parameter, f32. The same name twice is the same parameter. init: "zeros", "ones", "normal:0.02", "uniform:0.1" (within +-0.1), "fan_in"
   (uniform within 1/sqrt(fan in), fan in: product of dims[1:], of rank >= 2). Drawn from the engine's seed and the name. */
struct cb_tensor *cb_parameter(struct cb_function *function, const char *name, const char *init, int rank, const int64_t *dim);
/* An f32 buffer that keeps its value between calls and is not trained: memory of a recurrent controller, running statistics. */
struct cb_tensor *cb_state(struct cb_function *function, const char *name, double start, int rank, const int64_t *dim);
/* At the end of each run, and of each training step, the state becomes next (of its shape). */
void cb_state_update(struct cb_function *function, struct cb_tensor *state, struct cb_tensor *next);
/* What the caller fills before each run; it is never written. */
struct cb_tensor *cb_input(struct cb_function *function, const char *name, enum cb_dtype dtype, int rank, const int64_t *dim);
/* An f32 scalar that never changes. */
struct cb_tensor *cb_constant(struct cb_function *function, double value);

/* ---- the body */
/* Any op by name (`cambium list ops`), with attributes as "stride=2,axes=0:1"; those not named are 0. Nullable: attributes, and inputs[i] where the op
   calls it optional. Returns output 0. */
struct cb_tensor *cb_op(struct cb_function *function, const char *op, const char *attributes, int n, struct cb_tensor *const *inputs);
/* Output i of the op that made t. */
struct cb_tensor *cb_op_output(struct cb_function *function, struct cb_tensor *t, int i);
/* `training` in training steps, `running` in runs (same types): dropout, noise, statistics of the batch. */
struct cb_tensor *cb_by_mode(struct cb_function *function, struct cb_tensor *training, struct cb_tensor *running);
/* Names a result of cb_function_run. */
void cb_output(struct cb_function *function, const char *name, struct cb_tensor *t);
/* The scalar to be minimised. */
void cb_loss(struct cb_function *function, struct cb_tensor *t);

/* ---- layers: parameters NAME.weight, NAME.bias, ... under PyTorch's shapes and first values */
/* x (..., in) to (..., out): weight (out, in), bias (out). */
struct cb_tensor *cb_linear(struct cb_function *function, const char *name, struct cb_tensor *x, int64_t out);
/* Rows of weight (rows, width) for ids i32 (...): (..., width). */
struct cb_tensor *cb_embedding(struct cb_function *function, const char *name, struct cb_tensor *ids, int64_t rows, int64_t width);
/* x (N, C, H, W) to (N, out, H', W'): weight (out, C, kernel, kernel), bias (out), stride 1. */
struct cb_tensor *cb_conv2d(struct cb_function *function, const char *name, struct cb_tensor *x, int64_t out, int64_t kernel,
                            int64_t padding);
/* x (N, C, ...): statistics of the batch in training, running ones (momentum 0.1) in runs. */
struct cb_tensor *cb_batch_norm(struct cb_function *function, const char *name, struct cb_tensor *x);
/* Greatest value of each window of kernel x kernel, without overlap. */
struct cb_tensor *cb_max_pool2d(struct cb_function *function, struct cb_tensor *x, int64_t kernel);
/* x (N, T, in) to hidden states (N, T, hidden), from zeros; weights weight_ih, weight_hh, bias_ih, bias_hh. */
struct cb_tensor *cb_lstm(struct cb_function *function, const char *name, struct cb_tensor *x, int64_t hidden);
/* Zeroes a share of the elements in training and scales the rest by 1 / (1 - rate). */
struct cb_tensor *cb_dropout(struct cb_function *function, struct cb_tensor *x, double rate);
/* The same elements under another shape; one -1 is inferred. */
struct cb_tensor *cb_reshape(struct cb_function *function, struct cb_tensor *x, int rank, const int64_t *dim);

/* ---- losses */
/* Mean cross-entropy of logits (N, classes) and labels i32 (N); rows of label -100 do not count. */
struct cb_tensor *cb_cross_entropy(struct cb_function *function, struct cb_tensor *logits, struct cb_tensor *labels);
/* Mean of (x - target)^2. */
struct cb_tensor *cb_squared_error(struct cb_function *function, struct cb_tensor *x, struct cb_tensor *target);

/* ---- short forms */
/* a (..., M, K), b (..., K, N). */
static inline struct cb_tensor *cb_matmul(struct cb_function *f, struct cb_tensor *a, struct cb_tensor *b) {
    struct cb_tensor *in[2];
    in[0] = a, in[1] = b;
    return cb_op(f, "matmul", NULL, 2, in);
}
/* "add", "sub", "mul", "div", "pow", "maximum", "minimum", with numpy's broadcasting. */
static inline struct cb_tensor *cb_binary(struct cb_function *f, const char *op, struct cb_tensor *a, struct cb_tensor *b) {
    struct cb_tensor *in[2];
    in[0] = a, in[1] = b;
    return cb_op(f, op, NULL, 2, in);
}
/* "exp", "log", "tanh", "sigmoid", "relu", "square", "neg", ... ; "sum" and "mean" reduce to a scalar. */
static inline struct cb_tensor *cb_unary(struct cb_function *f, const char *op, struct cb_tensor *x) { return cb_op(f, op, NULL, 1, &x); }

/* ---- use */
struct cb_compile_options {
    const char *optimizer; /* "adam" (default), "adamw", "sgd:momentum=0.9", ... (`cambium list optimizers`) */
    double lr; /* 0: 1e-3 */
    double clip; /* largest norm of the gradient; 0: none */
    double weight_decay; /* 0: none */
};
/* Checks, differentiates and plans: shapes and memory are settled here, and nothing is allocated later. Nullable: options. After it nothing can be
   added. A failure leaves the function good for cb_function_destroy alone. */
enum cb_status cb_function_compile(struct cb_function *function, const struct cb_compile_options *options, struct cb_err *err);

/* Memory of an input, output, parameter or state, valid after compiling, for the function's life; row-major. NULL: no such name, or not compiled. */
void *cb_data(struct cb_function *function, const char *name);
float *cb_floats(struct cb_function *function, const char *name); /* the same, where it is f32; else NULL */
/* Nullable: type. The bytes of cb_data; negative: no such name. */
int64_t cb_data_bytes(const struct cb_function *function, const char *name, struct cb_type *type);
/* Computes the outputs (not the loss) from the inputs. */
enum cb_status cb_function_run(struct cb_function *function, struct cb_err *err);
/* One training step on the present inputs: loss, gradients, update. *loss: before the update; nullable. A loss or gradient that is not finite updates no
   parameter: CB_E_NUMERIC; states already hold what the step made of them. Outputs keep the values of the last run. */
enum cb_status cb_function_train(struct cb_function *function, double *loss, struct cb_err *err);
void cb_function_set_lr(struct cb_function *function, double lr);
/* Parameters and states as a safetensors file, and back (strict: names and shapes must agree, else nothing changes). */
enum cb_status cb_function_save(const struct cb_function *function, const char *path, struct cb_err *err);
enum cb_status cb_function_load(struct cb_function *function, const char *path, struct cb_err *err);
/* Counts the time of each op from now on; the table of runs and training steps so far. *text: owned by caller, free with cb_free. */
void cb_function_profile(struct cb_function *function, bool on);
enum cb_status cb_function_profile_report(const struct cb_function *function, char **text, struct cb_err *err);

#ifdef __cplusplus
}
#endif
#endif
