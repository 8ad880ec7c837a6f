/* Layers with parameters: linear, embedding and norms, each a site; activations, dropout and the loss of a head. */
#include <string.h>

#include "nn/nn.h"
#include "ops/ops.h"

/* What a hook makes of a layer's input. */
static struct cb_tensor *linear_input(struct nn *nn, struct cb_tensor *x, const struct nn_linear *linear) {
    return nn->hook.input && !graph_is_bad(nn->g, x) ? nn->hook.input(nn->hook.user, nn, linear->name, x) : x;
}

/* The linear map without the hook of its output. */
static struct cb_tensor *linear_plain(struct nn *nn, struct cb_tensor *x, const struct nn_linear *linear, const struct nn_site *site,
                                      struct cb_tensor **w, struct cb_tensor **b) {
    const bool in_out = site->weight_is_in_out;
    const int64_t shape[2] = {in_out ? linear->in : linear->out, in_out ? linear->out : linear->in};
    *w = nn_site_param(nn, linear->name, "weight", site->weight, 2, shape, false);
    *b = linear->bias ? nn_site_param(nn, linear->name, "bias", site->bias, 1, &linear->out, true) : NULL;
    return op_linear(nn->g, x, *w, *b, in_out);
}

static struct nn_site linear_site(struct nn *nn, const struct nn_linear *linear) {
    struct nn_site site = {.name = nn_name(nn, "%s", linear->name), .kind = linear->kind, .in = linear->in, .out = linear->out};
    site.role = linear->role;
    site.weight = linear->weight ? nn_name(nn, "%s", linear->weight) : nn_name(nn, "%s.weight", linear->name);
    site.weight_is_in_out = linear->weight_is_in_out != (nn->param_turned && nn->param_turned(nn->dtype_user, site.weight));
    if (linear->bias) site.bias = linear->bias_name ? nn_name(nn, "%s", linear->bias_name) : nn_name(nn, "%s.bias", linear->name);
    site.n_slices = linear->n_slices;
    memcpy(site.slice, linear->slice, sizeof site.slice);
    return site;
}

struct cb_tensor *nn_linear(struct nn *nn, struct cb_tensor *x, const struct nn_linear *linear) {
    struct cb_tensor *w, *b;
    struct nn_site site = linear_site(nn, linear);
    x = linear_input(nn, x, linear);
    struct cb_tensor *y = linear_plain(nn, x, linear, &site, &w, &b);
    return nn_softcap(nn, nn_site(nn, &site, x, y), linear->softcap);
}

struct cb_tensor *nn_product(struct nn *nn, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *acc) {
    struct cb_graph *g = nn->g;
    if (nn->group_ends) return op_grouped_linear(g, x, nn->group_ends, acc, 1, &weight, nn->group, false);
    struct cb_tensor *y = op_linear(g, x, weight, NULL, false);
    return acc ? op_add(g, acc, y) : y;
}

struct cb_tensor *nn_head_loss(struct nn *nn, struct cb_tensor *x, const struct nn_linear *head, struct cb_tensor *labels) {
    struct cb_tensor *w, *b;
    struct nn_site site = linear_site(nn, head);
    x = linear_input(nn, x, head);
    // a hook that leaves the logits leaves them without a reader: no plan computes them
    struct cb_tensor *plain = linear_plain(nn, x, head, &site, &w, &b);
    struct cb_tensor *y = nn_site(nn, &site, x, plain);
    if (graph_is_bad(nn->g, y)) return y;
    if (y != plain) return op_cross_entropy(nn->g, nn_softcap(nn, y, head->softcap), labels, "mean");
    return op_linear_cross_entropy(nn->g, x, w, b, labels, site.weight_is_in_out, head->softcap, "mean");
}

struct cb_tensor *nn_embedding(struct nn *nn, struct cb_tensor *ids, const char *name, int64_t rows, int64_t channels) {
    return nn_embedding_padded(nn, ids, name, rows, channels, -1);
}

/* Virtual tokens for x (B,T,C), (B,n,C). */
static struct cb_tensor *rows_of(struct nn *nn, const struct nn_site *site, struct cb_tensor *x, int64_t n) {
    struct cb_graph *g = nn->g;
    const int64_t b = x->type.dim[0], c = x->type.dim[2];
    struct cb_tensor *rows = nn->hook.rows(nn->hook.user, nn, site);
    if (graph_is_bad(g, rows)) return rows;
    if (rows->type.rank == 2) rows = op_reshape(g, rows, 3, (const int64_t[]){1, n, c});
    if (site->rows_scale != 0) rows = op_scale(g, rows, 1 / site->rows_scale, 0);
    return op_expand(g, rows, 3, (const int64_t[]){b, n, c});
}

/* y (B,n + T,C) with virtual tokens in its first n rows. */
static struct cb_tensor *rows_put(struct nn *nn, const struct nn_site *site, struct cb_tensor *y, int64_t n) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, y) || !nn->hook.rows) return y;
    return op_concat(g, 2, (struct cb_tensor *[]){rows_of(nn, site, y, n), op_slice(g, y, 1, n, y->type.dim[1], 1)}, 1);
}

struct cb_tensor *nn_embedding_padded(struct nn *nn, struct cb_tensor *ids, const char *name, int64_t rows, int64_t channels,
                                      int64_t padding_idx) {
    struct nn_site site = {.name = nn_name(nn, "%s", name), .kind = NN_EMBEDDING, .in = rows, .out = channels};
    site.weight = nn_name(nn, "%s.weight", name);
    site.reads_tokens = ids == nn->token_ids;
    site.rows_scale = nn->rows_scale;
    const int64_t shape[2] = {rows, channels};
    struct cb_tensor *table = nn_site_param(nn, site.name, "weight", site.weight, 2, shape, false);
    struct cb_tensor *y =
        padding_idx >= 0 && padding_idx < rows ? op_embedding_padded(nn->g, table, ids, padding_idx) : op_embedding(nn->g, table, ids);
    if (!graph_is_bad(nn->g, y) && y->type.dtype != CB_DTYPE_F32) y = op_cast(nn->g, y, CB_DTYPE_F32);
    y = nn_site(nn, &site, ids, y);
    const int64_t early = nn->n_rows - nn->n_late;
    return site.reads_tokens && early ? rows_put(nn, &site, y, early) : y;
}

static struct nn_site norm_site(struct nn *nn, struct cb_tensor *x, const char *name, bool bias) {
    int64_t channels = x->type.rank ? x->type.dim[x->type.rank - 1] : 1;
    struct nn_site site = {.name = nn_name(nn, "%s", name), .kind = NN_NORM, .in = channels, .out = channels};
    site.weight = nn_name(nn, "%s.weight", name);
    site.bias = bias ? nn_name(nn, "%s.bias", name) : NULL;
    return site;
}

static struct cb_tensor *layer_norm(struct nn *nn, struct cb_tensor *x, const char *name, bool bias, double eps) {
    if (graph_is_bad(nn->g, x)) return x;
    struct nn_site site = norm_site(nn, x, name, bias);
    struct cb_tensor *w = nn_site_param(nn, site.name, "weight", site.weight, 1, &site.out, true);
    struct cb_tensor *b = bias ? nn_site_param(nn, site.name, "bias", site.bias, 1, &site.out, true) : NULL;
    return nn_site(nn, &site, x, op_layer_norm(nn->g, x, w, b, eps));
}

struct cb_tensor *nn_layer_norm(struct nn *nn, struct cb_tensor *x, const char *name, double eps) {
    return layer_norm(nn, x, name, true, eps);
}

struct cb_tensor *nn_layer_norm_unbiased(struct nn *nn, struct cb_tensor *x, const char *name, double eps) {
    return layer_norm(nn, x, name, false, eps);
}

struct cb_tensor *nn_rms_norm(struct nn *nn, struct cb_tensor *x, const char *name, double eps) {
    return nn_rms_norm_offset(nn, x, name, eps, 0);
}

struct cb_tensor *nn_rms_norm_offset(struct nn *nn, struct cb_tensor *x, const char *name, double eps, double offset) {
    if (graph_is_bad(nn->g, x)) return x;
    struct nn_site site = norm_site(nn, x, name, false);
    struct cb_tensor *w = nn_site_param(nn, site.name, "weight", site.weight, 1, &site.out, true);
    return nn_site(nn, &site, x, op_rms_norm(nn->g, x, w, eps, offset));
}

/* A site that is a state itself. */
static struct cb_tensor *state_site(struct nn *nn, struct cb_tensor *x, const char *name, enum nn_kind kind) {
    if (graph_is_bad(nn->g, x)) return x;
    int64_t channels = x->type.dim[x->type.rank - 1];
    struct nn_site site = {.name = nn_name(nn, "%s", name), .kind = kind, .in = channels, .out = channels};
    return nn_site(nn, &site, x, x);
}

struct cb_tensor *nn_hidden(struct nn *nn, struct cb_tensor *x, const char *name) {
    return state_site(nn, x, name, NN_HIDDEN);
}

struct cb_tensor *nn_inputs(struct nn *nn, struct cb_tensor *x, const char *name) {
    struct cb_graph *g = nn->g;
    x = state_site(nn, x, name, NN_INPUTS);
    const struct nn_site *site = nn_find_site(nn, name);
    if (!nn->n_late || !site || !nn->hook.rows || graph_is_bad(g, x)) return x;
    const int64_t at = nn->hook.rows_at, t = x->type.dim[1];
    struct cb_tensor *rows = rows_of(nn, site, x, nn->n_late);
    if (!at) return op_concat(g, 2, (struct cb_tensor *[]){rows, x}, 1);
    return op_concat(g, 3, (struct cb_tensor *[]){op_slice(g, x, 1, 0, at, 1), rows, op_slice(g, x, 1, at, t, 1)}, 1);
}

struct cb_tensor *nn_embedded(struct nn *nn, struct cb_tensor *x, const char *name) {
    return state_site(nn, x, name, NN_EMBEDDED);
}

struct cb_tensor *nn_join_norm(struct nn *nn, struct cb_tensor *x, const struct nn_join *join) {
    if (!join->norm) return x;
    return join->norm_has_no_weights ? op_layer_norm(nn->g, x, NULL, NULL, join->eps) : nn_layer_norm(nn, x, join->norm, join->eps);
}

struct cb_tensor *nn_join_plain(struct nn *nn, struct cb_tensor *y, const struct nn_join *join) {
    return nn_join_norm(nn, op_add(nn->g, join->residual, y), join);
}

struct cb_tensor *nn_join(struct nn *nn, struct cb_tensor *y, const struct nn_join *join) {
    if (graph_is_bad(nn->g, y) || graph_is_bad(nn->g, join->residual)) return &nn->g->bad_tensor;
    int64_t channels = y->type.dim[y->type.rank - 1];
    struct nn_site site = {.name = nn_name(nn, "%s", join->name), .kind = NN_JOIN, .role = join->role, .in = channels, .out = channels};
    const struct nn_site *own = nn_record(nn, &site);
    if (!own) return &nn->g->bad_tensor;
    struct cb_tensor *x = nn->hook.join ? nn->hook.join(nn->hook.user, nn, own, join, y) : NULL;
    return x ? x : nn_join_plain(nn, y, join);
}

struct cb_tensor *nn_seed(struct nn *nn) {
    if (!nn->seed) nn->seed = graph_input(nn->g, "seed", type_make(CB_DTYPE_I64, 1, (const int64_t[]){1}));
    return nn->seed;
}

struct cb_tensor *nn_dropout(struct nn *nn, struct cb_tensor *x, double rate) {
    if (!nn->train || rate <= 0) return x;
    return op_dropout(nn->g, x, nn_seed(nn), rate, ++nn->n_dropouts);
}

/* ---- activations that are more than one op, as Transformers defines them */
static struct cb_tensor *quick_gelu(struct cb_graph *g, struct cb_tensor *x) {
    return op_mul(g, x, op_unary(g, "sigmoid", op_scale(g, x, 1.702, 0)));
}
static struct cb_tensor *gelu_10(struct cb_graph *g, struct cb_tensor *x) { return op_clamp(g, op_unary(g, "gelu", x), -10, 10); }
static struct cb_tensor *leaky_relu(struct cb_graph *g, struct cb_tensor *x) { return op_leaky_relu(g, x, 0.01); }
static struct cb_tensor *relu2(struct cb_graph *g, struct cb_tensor *x) { return op_unary(g, "square", op_unary(g, "relu", x)); }
static struct cb_tensor *relu6(struct cb_graph *g, struct cb_tensor *x) { return op_clamp(g, x, 0, 6); }
static struct cb_tensor *linear_activation(struct cb_graph *g, struct cb_tensor *x) {
    (void)g;
    return x;
}
/* x tanh(softplus x) (Misra 2019); softplus x is -log sigmoid(-x). */
static struct cb_tensor *mish(struct cb_graph *g, struct cb_tensor *x) {
    struct cb_tensor *softplus = op_unary(g, "neg", op_unary(g, "log_sigmoid", op_unary(g, "neg", x)));
    return op_mul(g, x, op_unary(g, "tanh", softplus));
}
/* (1 + erf((x - mu) / (sigma sqrt 2))) / 2 (Ma et al. 2022). */
static struct cb_tensor *laplace(struct cb_graph *g, struct cb_tensor *x) {
    const double by = 1 / (0.282095 * 1.41421356237309504880);
    return op_scale(g, op_unary(g, "erf", op_scale(g, x, by, -0.707107 * by)), 0.5, 0.5);
}

/* Names of Transformers' ACT2FN without those that have weights; each is a unary op or a function above. */
static const struct {
    const char *name, *op;
    struct cb_tensor *(*make)(struct cb_graph *g, struct cb_tensor *x);
} activations[] = {
    {"relu", "relu", NULL},
    {"silu", "silu", NULL},
    {"swish", "silu", NULL},
    {"gelu", "gelu", NULL},
    {"gelu_python", "gelu", NULL},
    {"gelu_new", "gelu_tanh", NULL},
    {"gelu_pytorch_tanh", "gelu_tanh", NULL},
    {"gelu_python_tanh", "gelu_tanh", NULL},
    {"gelu_accurate", "gelu_tanh", NULL},
    {"gelu_fast", "gelu_tanh", NULL},
    {"tanh", "tanh", NULL},
    {"sigmoid", "sigmoid", NULL},
    {"gelu_10", NULL, gelu_10},
    {"laplace", NULL, laplace},
    {"leaky_relu", NULL, leaky_relu},
    {"linear", NULL, linear_activation},
    {"mish", NULL, mish},
    {"quick_gelu", NULL, quick_gelu},
    {"relu2", NULL, relu2},
    {"relu6", NULL, relu6},
};

static int activation_find(const char *name) {
    for (int i = 0; i < (int)(sizeof activations / sizeof *activations); i++)
        if (strcmp(activations[i].name, name) == 0) return i;
    return -1;
}

bool nn_is_activation(const char *name) { return activation_find(name) >= 0; }

struct cb_tensor *nn_activation(struct nn *nn, const char *name, struct cb_tensor *x) {
    int i = activation_find(name);
    if (i < 0) return graph_fail(nn->g, CB_E_NAME, "activation: found %s; wanted gelu, gelu_new, relu, silu, tanh, ...", name);
    return activations[i].op ? op_unary(nn->g, activations[i].op, x) : activations[i].make(nn->g, x);
}

struct cb_tensor *nn_softcap(struct nn *nn, struct cb_tensor *x, double cap) {
    return cap > 0 ? op_scale(nn->g, op_unary(nn->g, "tanh", op_scale(nn->g, x, 1 / cap, 0)), cap, 0) : x;
}
