/* Adaptors of elementwise ops, reductions, shapes, indexing, norms, softmax, running sums and order. */
#include <math.h>
#include <string.h>

#include "ops/fixtures.h"
#include "ops/ops.h"

#define BUILD(name) static void build_##name(struct fixture *f)
#define IN(name) fixture_in(f, name)
#define OUT(t) fixture_out(f, "", (t))

/* ---- elementwise: the file's op is ours */
static void build_unary(struct fixture *f) { OUT(op_unary(f->g, json_string_value(json_object_get(f->about, "op")), IN("x"))); }
static void build_binary(struct fixture *f) {
    OUT(op_apply(f->g, json_string_value(json_object_get(f->about, "op")), NULL, 2, (struct cb_tensor *[]){IN("a"), IN("b")}));
}
BUILD(gelu) { OUT(op_unary(f->g, !strcmp(fixture_str(f, "approximate", "none"), "tanh") ? "gelu_tanh" : "gelu", IN("x"))); }
BUILD(softplus) { OUT(op_softplus(f->g, IN("x"), fixture_float(f, "beta", 1), fixture_float(f, "threshold", 20))); }
BUILD(elu) { OUT(op_elu(f->g, IN("x"), fixture_float(f, "alpha", 1))); }
BUILD(leaky_relu) { OUT(op_leaky_relu(f->g, IN("x"), fixture_float(f, "negative_slope", 0.01))); }
BUILD(clamp) { OUT(op_clamp(f->g, IN("x"), fixture_float(f, "min", -INFINITY), fixture_float(f, "max", INFINITY))); }
BUILD(pow_scalar) { OUT(op_pow_scalar(f->g, IN("x"), fixture_float(f, "exponent", 1))); }
BUILD(where) { OUT(op_where(f->g, IN("condition"), IN("a"), IN("b"))); }
BUILD(masked_fill) { OUT(op_masked_fill(f->g, IN("x"), IN("mask"), fixture_float(f, "value", 0))); }
/* The file gives the mask: what dropout does once it has drawn. */
BUILD(dropout) {
    struct cb_tensor *kept = op_mul(f->g, IN("x"), op_cast(f->g, IN("mask"), CB_DTYPE_F32));
    OUT(op_scale(f->g, kept, 1 / (1 - fixture_float(f, "p", 0)), 0));
}

/* ---- reductions */
BUILD(reduce) {
    int64_t axes[FIXTURE_MAX];
    const char *kind = fixture_str(f, "kind", "");
    int n = fixture_ints(f, "dim", axes);
    bool keep = fixture_bool(f, "keepdim", false);
    if (!strcmp(kind, "norm"))
        OUT(op_norm_p(f->g, IN("x"), fixture_float(f, "p", 2), n, axes, keep));
    else
        OUT(op_reduce(f->g, kind, IN("x"), n, axes, keep));
}
BUILD(var) {
    int64_t axes[FIXTURE_MAX];
    int n = fixture_ints(f, "dim", axes);
    OUT(op_var(f->g, IN("x"), fixture_float(f, "correction", 1), n, axes, fixture_bool(f, "keepdim", false)));
}
BUILD(cumsum) { OUT(op_cumsum(f->g, IN("x"), (int)fixture_int(f, "dim", 0), false)); }
BUILD(cumprod) { OUT(op_cumprod(f->g, IN("x"), (int)fixture_int(f, "dim", 0), false)); }
BUILD(softmax) { OUT(op_softmax(f->g, IN("x"), (int)fixture_int(f, "dim", -1))); }
BUILD(log_softmax) { OUT(op_log_softmax(f->g, IN("x"), (int)fixture_int(f, "dim", -1))); }

/* ---- shapes */
BUILD(reshape) {
    int64_t dim[FIXTURE_MAX];
    int n = fixture_ints(f, "shape", dim);
    OUT(op_reshape(f->g, IN("x"), n, dim));
}
BUILD(expand) {
    int64_t dim[FIXTURE_MAX];
    int n = fixture_ints(f, "shape", dim);
    OUT(op_expand(f->g, IN("x"), n, dim));
}
BUILD(permute) {
    int64_t axes[FIXTURE_MAX];
    int n = fixture_ints(f, "dims", axes);
    OUT(op_permute(f->g, IN("x"), n, axes));
}
BUILD(transpose) { OUT(op_transpose(f->g, IN("x"), (int)fixture_int(f, "dim0", 0), (int)fixture_int(f, "dim1", 1))); }
BUILD(flip) {
    int64_t axes[FIXTURE_MAX];
    int n = fixture_ints(f, "dims", axes);
    OUT(op_flip(f->g, IN("x"), n, axes));
}
BUILD(roll) {
    int64_t axes[FIXTURE_MAX], shifts[FIXTURE_MAX];
    int n = fixture_ints(f, "dims", axes);
    fixture_ints(f, "shifts", shifts);
    OUT(op_roll(f->g, IN("x"), n, shifts, axes));
}
BUILD(repeat) {
    int64_t times[FIXTURE_MAX];
    int n = fixture_ints(f, "repeats", times);
    OUT(op_repeat(f->g, IN("x"), n, times));
}
BUILD(tril) { OUT(op_tril(f->g, IN("x"), fixture_int(f, "diagonal", 0), false)); }
BUILD(slice) {
    OUT(op_slice(f->g, IN("x"), (int)fixture_int(f, "dim", 0), fixture_int(f, "start", 0), fixture_int(f, "stop", 0),
                 fixture_int(f, "step", 1)));
}
BUILD(concat) {
    struct cb_tensor *part[FIXTURE_MAX];
    for (int i = 0; i < f->n_in; i++) part[i] = f->in[i].tensor;
    OUT(op_concat(f->g, f->n_in, part, (int)fixture_int(f, "dim", 0)));
}
BUILD(stack) {
    struct cb_tensor *part[FIXTURE_MAX];
    for (int i = 0; i < f->n_in; i++) part[i] = f->in[i].tensor;
    OUT(op_stack(f->g, f->n_in, part, (int)fixture_int(f, "dim", 0)));
}
BUILD(split) {
    static const char *const names[] = {"0", "1", "2", "3"};
    int64_t sizes[FIXTURE_MAX];
    struct cb_tensor *x = IN("x");
    int axis = (int)fixture_int(f, "dim", 0), n = fixture_ints(f, "sizes", sizes);
    // one number: parts of that size, the last one what remains
    if (fixture_int(f, "sizes", 0)) {
        int64_t size = sizes[0], left = x->type.dim[axis];
        for (n = 0; left > 0; left -= size) sizes[n++] = left < size ? left : size;
    }
    struct cb_tensor *part = op_split(f->g, x, axis, n, sizes);
    for (int i = 0; i < n; i++) fixture_out(f, names[i], graph_out(f->g, part, i));
}
/* PyTorch's pairs go from the last axis backwards. */
BUILD(pad) {
    int64_t pads[FIXTURE_MAX], pairs[FIXTURE_MAX];
    int n = fixture_ints(f, "pad", pads);
    for (int i = 0; i < n; i += 2) {
        pairs[n - 2 - i] = pads[i];
        pairs[n - 1 - i] = pads[i + 1];
    }
    OUT(op_pad(f->g, IN("x"), fixture_str(f, "mode", "constant"), fixture_float(f, "value", 0), n, pairs));
}

/* ---- indexing and order */
BUILD(gather) { OUT(op_gather(f->g, IN("x"), IN("index"), (int)fixture_int(f, "dim", 0))); }
BUILD(index_select) { OUT(op_index_select(f->g, IN("x"), IN("index"), (int)fixture_int(f, "dim", 0))); }
BUILD(scatter_add) { OUT(op_scatter_add(f->g, IN("x"), NULL, IN("index"), IN("source"), (int)fixture_int(f, "dim", 0))); }
static void out_pair(struct fixture *f, struct cb_tensor *values) {
    fixture_out(f, "values", values);
    fixture_out(f, "indices", graph_out(f->g, values, 1));
}
BUILD(sort) { out_pair(f, op_sort(f->g, IN("x"), (int)fixture_int(f, "dim", -1), fixture_bool(f, "descending", false))); }
BUILD(topk) {
    out_pair(f, op_topk(f->g, IN("x"), fixture_int(f, "k", 1), (int)fixture_int(f, "dim", -1), fixture_bool(f, "largest", true)));
}
BUILD(max_with_index) { out_pair(f, op_max_with_index(f->g, IN("x"), (int)fixture_int(f, "dim", -1), fixture_bool(f, "keepdim", false))); }
BUILD(argmax) {
    int64_t axis[FIXTURE_MAX] = {0};
    int n = fixture_ints(f, "dim", axis);
    OUT(op_argmax(f->g, IN("x"), n, (int)axis[0], fixture_bool(f, "keepdim", false)));
}

/* ---- norms */
BUILD(layer_norm) {
    // the last `axes` axes are one row
    struct cb_tensor *x = IN("x"), *weight = IN("weight"), *bias = IN("bias");
    int axes = (int)fixture_int(f, "axes", 1);
    int64_t dim[CB_MAX_RANK] = {0}, n = 1;
    int rank = x->type.rank - axes + 1;
    for (int i = 0; i < rank - 1; i++) dim[i] = x->type.dim[i];
    for (int i = rank - 1; i < x->type.rank; i++) n *= x->type.dim[i];
    dim[rank - 1] = n;
    if (weight) weight = op_reshape(f->g, weight, 1, &n);
    if (bias) bias = op_reshape(f->g, bias, 1, &n);
    struct cb_tensor *y = op_layer_norm(f->g, op_reshape(f->g, x, rank, dim), weight, bias, fixture_float(f, "eps", 1e-5));
    OUT(op_reshape(f->g, y, x->type.rank, x->type.dim));
}
BUILD(rms_norm) { OUT(op_rms_norm(f->g, IN("x"), IN("weight"), fixture_float(f, "eps", 1e-6), fixture_float(f, "offset", 0))); }
BUILD(group_norm) {
    OUT(op_group_norm(f->g, IN("x"), IN("weight"), IN("bias"), fixture_int(f, "groups", 1), fixture_float(f, "eps", 1e-5)));
}
BUILD(batch_norm) {
    bool training = fixture_bool(f, "training", false);
    struct cb_tensor *y = op_batch_norm(f->g, IN("x"), IN("weight"), IN("bias"), IN("running_mean"), IN("running_var"), training,
                                        fixture_float(f, "momentum", 0.1), fixture_float(f, "eps", 1e-5));
    fixture_out(f, training ? "y" : "", y);
    if (training) fixture_out(f, "running_mean", graph_out(f->g, y, 1));
    if (training) fixture_out(f, "running_var", graph_out(f->g, y, 2));
}
BUILD(weight_norm) { OUT(op_weight_norm(f->g, IN("v"), IN("g"), (int)fixture_int(f, "dim", 0))); }
BUILD(cosine_similarity) {
    OUT(op_cosine_similarity(f->g, IN("a"), IN("b"), (int)fixture_int(f, "dim", 1), fixture_float(f, "eps", 1e-8)));
}

#define UNARY(name) \
    { #name, build_unary }
#define BINARY(name) \
    { #name, build_binary }
#define OWN(name) \
    { #name, build_##name }
const struct fixture_adaptor fixtures_a[] = {
    UNARY(abs),    UNARY(neg),       UNARY(exp),          UNARY(expm1),      UNARY(log),
    UNARY(log1p),  UNARY(sqrt),      UNARY(rsqrt),        UNARY(square),     UNARY(reciprocal),
    UNARY(sin),    UNARY(cos),       UNARY(tanh),         UNARY(sigmoid),    UNARY(erf),
    UNARY(relu),   UNARY(silu),      BINARY(add),         BINARY(sub),       BINARY(mul),
    BINARY(div),   BINARY(pow),      BINARY(maximum),     BINARY(minimum),   OWN(gelu),
    OWN(softplus), OWN(elu),         OWN(leaky_relu),     OWN(clamp),        OWN(pow_scalar),
    OWN(where),    OWN(masked_fill), OWN(dropout),        OWN(reduce),       OWN(var),
    OWN(cumsum),   OWN(cumprod),     OWN(softmax),        OWN(log_softmax),  OWN(reshape),
    OWN(expand),   OWN(permute),     OWN(transpose),      OWN(flip),         OWN(roll),
    OWN(repeat),   OWN(tril),        OWN(slice),          OWN(concat),       OWN(stack),
    OWN(split),    OWN(pad),         OWN(gather),         OWN(index_select), OWN(scatter_add),
    OWN(sort),     OWN(topk),        OWN(max_with_index), OWN(argmax),       OWN(layer_norm),
    OWN(rms_norm), OWN(group_norm),  OWN(batch_norm),     OWN(weight_norm),  OWN(cosine_similarity),
    {NULL, NULL}};
