/* Layers and losses of differentiable functions: parameters under PyTorch's names and shapes, and the ops over them. */
#include <math.h>
#include <stdio.h>

#include "api/function.h"
#include "ops/losses.h"
#include "ops/vision.h"

/* A parameter NAME.PART; bound: uniform within it, 0: zeros, negative: ones. */
static struct cb_tensor *part(struct cb_function *f, const char *name, const char *which, double bound, int rank, const int64_t *dim) {
    char full[512], init[64];
    int n = snprintf(full, sizeof full, "%s.%s", name, which);
    if (n < 0 || (size_t)n >= sizeof full)
        return graph_fail(f->train, CB_E_NAME, "%.40s...: a name of %d bytes; wanted fewer than 512", name, n);
    snprintf(init, sizeof init, bound < 0 ? "ones" : bound > 0 ? "uniform:%.17g" : "zeros", bound);
    return cb_parameter(f, full, init, rank, dim);
}

/* False, with the failure kept, where x cannot be the layer's input. */
static bool takes(struct cb_function *f, const char *name, struct cb_tensor *x, int min_rank, int max_rank) {
    char text[TYPE_TEXT];
    if (!x || !function_takes(f, x)) return false;
    if (x->type.rank < min_rank || x->type.rank > max_rank)
        graph_fail(f->train, CB_E_SHAPE, "%s: x is %s; wanted rank %d to %d", name, type_text(&x->type, text), min_rank, max_rank);
    return f->train->err.code == CB_OK;
}

static double inverse_root(int64_t n) { return n > 0 ? 1 / sqrt((double)n) : 0; }

struct cb_tensor *cb_linear(struct cb_function *f, const char *name, struct cb_tensor *x, int64_t out) {
    if (!takes(f, name, x, 1, CB_MAX_RANK)) return &f->train->bad_tensor;
    int64_t in = x->type.dim[x->type.rank - 1];
    struct cb_tensor *w = part(f, name, "weight", inverse_root(in), 2, (int64_t[]){out, in});
    struct cb_tensor *b = part(f, name, "bias", inverse_root(in), 1, &out);
    struct cb_graph *run = f->run;
    return function_pair(f, op_linear(f->train, x, w, b, false),
                         op_linear(run, function_twin(f, x), function_twin(f, w), function_twin(f, b), false));
}

struct cb_tensor *cb_embedding(struct cb_function *f, const char *name, struct cb_tensor *ids, int64_t rows, int64_t width) {
    if (!takes(f, name, ids, 0, CB_MAX_RANK - 1)) return &f->train->bad_tensor;
    char full[512];
    snprintf(full, sizeof full, "%s.weight", name);
    struct cb_tensor *table = cb_parameter(f, full, "normal:1", 2, (int64_t[]){rows, width});
    return function_pair(f, op_embedding(f->train, table, ids), op_embedding(f->run, function_twin(f, table), function_twin(f, ids)));
}

struct cb_tensor *cb_conv2d(struct cb_function *f, const char *name, struct cb_tensor *x, int64_t out, int64_t kernel, int64_t padding) {
    if (!takes(f, name, x, 4, 4)) return &f->train->bad_tensor;
    int64_t in = x->type.dim[1];
    if (kernel < 1 || kernel > 1 << 15)
        return graph_fail(f->train, CB_E_ARGUMENT, "%s: kernel %lld; wanted 1 or more", name, (long long)kernel);
    double bound = inverse_root(in) / (double)kernel;
    struct cb_tensor *w = part(f, name, "weight", bound, 4, (int64_t[]){out, in, kernel, kernel});
    struct cb_tensor *b = part(f, name, "bias", bound, 1, &out);
    struct conv_options options = {.padding = {padding, padding}};
    return function_pair(f, op_conv2d(f->train, x, w, b, &options),
                         op_conv2d(f->run, function_twin(f, x), function_twin(f, w), function_twin(f, b), &options));
}

struct cb_tensor *cb_batch_norm(struct cb_function *f, const char *name, struct cb_tensor *x) {
    if (!takes(f, name, x, 2, CB_MAX_RANK)) return &f->train->bad_tensor;
    const double momentum = 0.1, eps = 1e-5;
    const int64_t *c = &x->type.dim[1];
    char mean_name[512], var_name[512];
    snprintf(mean_name, sizeof mean_name, "%s.running_mean", name);
    snprintf(var_name, sizeof var_name, "%s.running_var", name);
    struct cb_tensor *w = part(f, name, "weight", -1, 1, c), *b = part(f, name, "bias", 0, 1, c);
    struct cb_tensor *mean = cb_state(f, mean_name, 0, 1, c), *var = cb_state(f, var_name, 1, 1, c);
    struct cb_tensor *y = op_batch_norm(f->train, x, w, b, mean, var, true, momentum, eps);
    if (f->train->err.code) return &f->train->bad_tensor;
    // only training moves the running statistics
    graph_output(f->train, graph_out(f->train, y, 1), mean_name);
    graph_output(f->train, graph_out(f->train, y, 2), var_name);
    struct cb_tensor *r = op_batch_norm(f->run, function_twin(f, x), function_twin(f, w), function_twin(f, b), function_twin(f, mean),
                                        function_twin(f, var), false, momentum, eps);
    return function_pair(f, y, r);
}

struct cb_tensor *cb_max_pool2d(struct cb_function *f, struct cb_tensor *x, int64_t kernel) {
    if (!takes(f, "max_pool2d", x, 4, 4)) return &f->train->bad_tensor;
    struct pool_options options = {.kernel = {kernel, kernel}};
    return function_pair(f, op_max_pool2d(f->train, x, &options), op_max_pool2d(f->run, function_twin(f, x), &options));
}

struct cb_tensor *cb_lstm(struct cb_function *f, const char *name, struct cb_tensor *x, int64_t hidden) {
    if (!takes(f, name, x, 3, 3)) return &f->train->bad_tensor;
    if (hidden < 1 || hidden > 1 << 24)
        return graph_fail(f->train, CB_E_ARGUMENT, "%s: %lld hidden; wanted 1 or more", name, (long long)hidden);
    int64_t gates = 4 * hidden;
    double bound = inverse_root(hidden);
    struct cb_tensor *in[5] = {x, part(f, name, "weight_ih", bound, 2, (int64_t[]){gates, x->type.dim[2]}),
                               part(f, name, "weight_hh", bound, 2, (int64_t[]){gates, hidden}), part(f, name, "bias_ih", bound, 1, &gates),
                               part(f, name, "bias_hh", bound, 1, &gates)};
    return cb_op(f, "lstm", NULL, 5, in);
}

struct cb_tensor *cb_dropout(struct cb_function *f, struct cb_tensor *x, double rate) {
    if (!takes(f, "dropout", x, 0, CB_MAX_RANK)) return &f->train->bad_tensor;
    struct cb_tensor *seed = graph_input(f->train, FUNCTION_SEED, type_make(CB_DTYPE_I64, 1, (int64_t[]){1}));
    struct cb_tensor *y = op_dropout(f->train, x, seed, rate, (uint64_t)f->n_random++);
    return function_pair(f, y, op_alias(f->run, function_twin(f, x)));
}

struct cb_tensor *cb_reshape(struct cb_function *f, struct cb_tensor *x, int rank, const int64_t *dim) {
    if (!takes(f, "reshape", x, 0, CB_MAX_RANK)) return &f->train->bad_tensor;
    return function_pair(f, op_reshape(f->train, x, rank, dim), op_reshape(f->run, function_twin(f, x), rank, dim));
}

struct cb_tensor *cb_cross_entropy(struct cb_function *f, struct cb_tensor *logits, struct cb_tensor *labels) {
    if (!takes(f, "cross_entropy", logits, 2, 2) || !takes(f, "cross_entropy", labels, 1, 1)) return &f->train->bad_tensor;
    return function_pair(f, op_cross_entropy(f->train, logits, labels, "mean"),
                         op_cross_entropy(f->run, function_twin(f, logits), function_twin(f, labels), "mean"));
}

struct cb_tensor *cb_squared_error(struct cb_function *f, struct cb_tensor *x, struct cb_tensor *target) {
    if (!takes(f, "squared_error", x, 0, CB_MAX_RANK) || !takes(f, "squared_error", target, 0, CB_MAX_RANK)) return &f->train->bad_tensor;
    return function_pair(f, loss_mse(f->train, x, target, "mean"), loss_mse(f->run, function_twin(f, x), function_twin(f, target), "mean"));
}
