/* Random numbers and dropout. Element i of node `key` under seed s draws from Philox block (s, i / 4, key), word i % 4:
   any step can be repeated alone, on any number of threads. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/check.h"
#include "ops/ops.h"

// uniform and normal share one struct.
// @attrs random: ints shape, str dtype, int key
// @attrs dropout: float rate, int key

static const char *const out_y[] = {"y", NULL};

static enum cb_status check_seed(const struct node *node, int i, struct cb_err *err) {
    const struct cb_type *seed = &node->in[i]->type;
    char text[TYPE_TEXT];
    if (seed->dtype != CB_DTYPE_I64 || type_elements(seed) != 1)
        FAIL(err, CB_E_DTYPE, "%s: seed is %s; one i64 wanted", node->op->name, type_text(seed, text));
    return CB_OK;
}

static uint64_t seed_of(const void *data) { return (uint64_t) * (const int64_t *)data; }

/* ---- uniform, normal */
static enum cb_status infer_random(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_random *a = node->attrs;
    enum cb_dtype dtype = a->dtype ? dtype_by_name(a->dtype) : CB_DTYPE_F32;
    TRY(check_seed(node, 0, err));
    if (dtype != CB_DTYPE_F32 && dtype != CB_DTYPE_F64) FAIL(err, CB_E_DTYPE, "%s: type '%s'; f32 or f64 wanted", node->op->name, a->dtype);
    return ops_check_shape(node, dtype, &a->shape, out, err);
}

/* Four uniforms in [0,1). */
static void uniform_block(struct rng_block block, double value[4]) {
    for (int k = 0; k < 4; k++) value[k] = (double)rng_uniform(block.word[k]);
}

/* Four normals from two pairs (Box and Muller 1958); 1 - u is in (0,1]. */
static void normal_block(struct rng_block block, double value[4]) {
    for (int k = 0; k < 4; k += 2) {
        double radius = sqrt(-2 * log(1 - (double)rng_uniform(block.word[k]))),
               angle = 6.28318530717958647693 * (double)rng_uniform(block.word[k + 1]);
        value[k] = radius * cos(angle);
        value[k + 1] = radius * sin(angle);
    }
}

static void run_random(const struct op_run *run, void (*draw)(struct rng_block block, double value[4])) {
    const struct attr_random *a = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    int64_t n = type_elements(y);
    double value[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) draw(rng_philox(seed_of(run->in[0]), (uint64_t)i / 4, (uint64_t)a->key), value);
        ref_set(y->dtype, run->out[0], i, value[i % 4]);
    }
}

static void ref_uniform(const struct op_run *run) { run_random(run, uniform_block); }
static void ref_normal(const struct op_run *run) { run_random(run, normal_block); }

#define SEED(v) \
    { .present = true, .dtype = CB_DTYPE_I64, CASE_DIMS(1), .fill = FILL_VALUES, .values = (const double[]){v}, .no_grad = true }
#define SHAPE(...)                                                  \
    {                                                               \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { __VA_ARGS__ } \
    }
static const struct op_case cases_random[] = {
    {.name = "odd", .attrs = &(const struct attr_random){SHAPE(3, 7), "f32", 5}, .in = {SEED(17)}, .no_grad = true},
    {.name = "empty", .attrs = &(const struct attr_random){SHAPE(0, 7), "f32", 5}, .in = {SEED(17)}, .no_grad = true},
    {.name = NULL}};
static const char *const in_seed[] = {"seed", NULL};

#define DEFINE_RANDOM(op_name, text)                                                     \
    static const struct op random_##op_name = {.name = #op_name,                         \
                                               .doc = text,                              \
                                               .in_names = in_seed,                      \
                                               .out_names = out_y,                       \
                                               .attrs = attr_fields_random,              \
                                               .attr_bytes = sizeof(struct attr_random), \
                                               .traits = OP_RANDOM,                      \
                                               .infer = infer_random,                    \
                                               .grad = ops_no_grad,                      \
                                               .ref = ref_##op_name,                     \
                                               .cases = cases_random};
DEFINE_RANDOM(uniform, "Uniform numbers in [0,1) with 24 bits, from Philox by seed (one i64), key and place.")
DEFINE_RANDOM(normal, "Standard normal numbers by Box and Muller, from Philox by seed (one i64), key and place.")

struct cb_tensor *op_random(struct cb_graph *g, const char *kind, struct cb_tensor *seed, struct cb_type type, uint64_t key) {
    const struct op *op = !strcmp(kind, "uniform") ? &random_uniform : !strcmp(kind, "normal") ? &random_normal : NULL;
    struct attr_random a;
    if (!op) return graph_fail(g, CB_E_NAME, "random '%s': uniform or normal wanted", kind);
    memset(&a, 0, sizeof a);
    a.shape.n = type.rank;
    for (int i = 0; i < type.rank && i < CB_MAX_RANK; i++) a.shape.v[i] = type.dim[i];
    a.dtype = dtype_of(type.dtype)->name;
    a.key = (int64_t)key;
    return graph_node(g, op, &a, 1, &seed);
}

/* ---- dropout (Srivastava et al. 2014) */
static enum cb_status infer_dropout(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_dropout *a = node->attrs;
    TRY(ops_check_float(node, 0, err));
    TRY(check_seed(node, 1, err));
    if (!(a->rate >= 0 && a->rate <= 1)) FAIL(err, CB_E_ARGUMENT, "dropout: rate %g; 0 to 1 wanted", a->rate);
    *out = node->in[0]->type;
    return CB_OK;
}

/* The same draw again: the same elements stay. */
static void grad_dropout(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                         struct cb_tensor **din) {
    if (need[0]) din[0] = graph_node(g, node->op, node->attrs, 2, (struct cb_tensor *[]){dout[0], node->in[1]});
}

static void ref_dropout(const struct op_run *run) {
    const struct attr_dropout *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t n = type_elements(x);
    double scale = a->rate < 1 ? 1 / (1 - a->rate) : 0, value[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) uniform_block(rng_philox(seed_of(run->in[1]), (uint64_t)i / 4, (uint64_t)a->key), value);
        ref_set(x->dtype, run->out[0], i, value[i % 4] >= a->rate ? ref_get(x->dtype, run->in[0], i) * scale : 0);
    }
}

#define DROPOUT(...) \
    &(const struct attr_dropout) { __VA_ARGS__ }
static const struct op_case cases_dropout[] = {{.name = "odd", .attrs = DROPOUT(0.3, 5), .in = {CASE_F32(3, 7), SEED(17)}},
                                               {.name = "none", .attrs = DROPOUT(0, 5), .in = {CASE_F32(9), SEED(17)}},
                                               {.name = "all", .attrs = DROPOUT(1, 5), .in = {CASE_F32(9), SEED(17)}},
                                               {.name = "empty", .attrs = DROPOUT(0.3, 5), .in = {CASE_F32(0, 7), SEED(17)}},
                                               {.name = NULL}};
static const char *const in_dropout[] = {"x", "seed", NULL};
static const struct op random_dropout = {
    .name = "dropout",
    .doc = "x / (1 - rate) where a uniform draw by seed (one i64), key and place is at least rate, else 0 (Srivastava et al. 2014).",
    .in_names = in_dropout,
    .out_names = out_y,
    .attrs = attr_fields_dropout,
    .attr_bytes = sizeof(struct attr_dropout),
    .traits = OP_RANDOM | OP_CHEAP,
    .infer = infer_dropout,
    .grad = grad_dropout,
    .ref = ref_dropout,
    .inplace = {1},
    .cases = cases_dropout};

struct cb_tensor *op_dropout(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *seed, double rate, uint64_t key) {
    if (rate == 0) return x;
    return graph_node(g, &random_dropout, &(struct attr_dropout){rate, (int64_t)key}, 2, (struct cb_tensor *[]){x, seed});
}

const struct op *const op_file_random[] = {&random_uniform, &random_normal, &random_dropout, NULL};
