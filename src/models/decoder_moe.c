/* The sparse blocks of decoders: options, weights, the block with its shared expert, and the loss that keeps experts evenly used. */
#include <stdlib.h>

#include "models/decoder.h"
#include "nn/block.h"
#include "ops/ops.h"

#define MOST_EXPERTS 4096
#define MOST_OF_ALL_LAYERS (1 << 18)

/* ---- options */
static enum cb_status parse_sparse_layers(struct model *m, struct decoder *d, const char *name, struct cb_err *err) {
    int64_t step = 1;
    const json_t *dense = NULL;
    char text[JSON_TEXT];
    TRY(json_get_int(&step, m->config, name, "decoder_sparse_step", 1, INT32_MAX, false, err));
    TRY(json_get_array(&dense, m->config, name, "mlp_only_layers", false, err));
    for (int64_t i = 0; i < m->n_layer; i++) d->layer[i].is_sparse = (i + 1) % step == 0;
    for (size_t i = 0; dense && i < json_array_size(dense); i++) {
        const json_t *value = json_array_get(dense, i);
        if (!json_is_integer(value))
            FAIL(err, CB_E_FORMAT, "%s: mlp_only_layers: found %s in the list; wanted numbers of layers", name, json_text(value, text));
        int64_t layer = json_integer_value(value);
        if (layer >= 0 && layer < m->n_layer) d->layer[layer].is_sparse = false;
    }
    return CB_OK;
}

enum cb_status decoder_parse_experts(struct model *m, const char *name, bool has_sparse_steps, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    struct decoder_experts *e = &d->experts;
    const json_t *c = m->config;
    // Transformers 5 has one name for what two families called otherwise
    TRY(json_get_int(&e->n, c, name, "num_local_experts", 1, MOST_EXPERTS, false, err));
    if (has_sparse_steps) TRY(json_get_int(&e->n, c, name, "num_experts", 1, MOST_EXPERTS, false, err));
    TRY(json_get_int(&e->top_k, c, name, "num_experts_per_tok", 1, MOST_EXPERTS, false, err));
    TRY(json_get_float(&e->balance, c, name, "router_aux_loss_coef", 0, 1e6, false, err));
    if (e->top_k > e->n)
        FAIL(err, CB_E_FORMAT, "%s: num_experts_per_tok: found %lld; wanted at most the %lld experts there are", name, (long long)e->top_k,
             (long long)e->n);
    if (e->n * m->n_layer > MOST_OF_ALL_LAYERS)
        FAIL(err, CB_E_LIMIT, "%s: %lld experts in %lld layers; wanted at most %d in all", name, (long long)e->n, (long long)m->n_layer,
             MOST_OF_ALL_LAYERS);
    if (has_sparse_steps) return parse_sparse_layers(m, d, name, err);
    for (int64_t i = 0; i < m->n_layer; i++) d->layer[i].is_sparse = true;
    return CB_OK;
}

/* ---- weights */
static enum cb_status gated_weights(struct model *m, const char *path, const struct decoder_experts *e, int64_t inner, struct cb_err *err) {
    TRY(model_add_linear(m, m->n_embd, inner, false, path, e->gate, err));
    TRY(model_add_linear(m, m->n_embd, inner, false, path, e->up, err));
    return model_add_linear(m, inner, m->n_embd, false, path, e->down, err);
}

enum cb_status decoder_moe_weights(struct model *m, const char *layer, struct cb_err *err) {
    const struct decoder_experts *e = &decoder_options(m)->experts;
    const char *block = arena_printf(m->arena, "%s.%s", layer, e->block);
    if (!block) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
    TRY(model_add_linear(m, m->n_embd, e->n, false, block, "gate", err));
    for (int64_t i = 0; i < e->n; i++) {
        const char *path = arena_printf(m->arena, "%s.experts.%lld", block, (long long)i);
        if (!path) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
        TRY(gated_weights(m, path, e, e->inner, err));
    }
    if (!e->shared_inner) return CB_OK;
    const char *path = arena_printf(m->arena, "%s.shared_expert", block);
    if (!path) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
    TRY(gated_weights(m, path, e, e->shared_inner, err));
    return model_add_linear(m, m->n_embd, 1, false, block, "shared_expert_gate", err);
}

/* ---- graph */
/* Adds a layer's routes to what the balance loss wants; rows of padding do not count. */
static void balance_add(struct nn *nn, const struct model_io *io, const struct model_leaves *leaves, const struct nn_moe_routes *r,
                        struct decoder_balance *b) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, r->chosen) || graph_is_bad(g, r->weights)) return;
    const int64_t n = r->weights->type.dim[0], experts = r->weights->type.dim[1], k = r->chosen->type.dim[1], choices = n * k;
    const int64_t column[2] = {n, 1}, table[2] = {n, k}, one[2] = {1, 1};
    struct cb_tensor *counted = op_reshape(g, graph_const_f32(g, 1), 2, one), *weights = r->weights;
    if (io->attention_mask && !io->cache) {
        counted = op_reshape(g, op_cast(g, leaves->k_segment, CB_DTYPE_F32), 2, column);
        weights = op_mul(g, weights, counted);
        b->rows = op_sum(g, counted, 0, NULL, false);
    } else {
        b->rows = graph_const_f32(g, (float)n);
    }
    struct cb_type shape = type_make(CB_DTYPE_F32, 1, &experts);
    counted = op_reshape(g, op_expand(g, counted, 2, table), 1, &choices);
    struct cb_tensor *counts = op_index_add(g, NULL, &shape, op_reshape(g, r->chosen, 1, &choices), counted, 0);
    weights = op_sum(g, weights, 1, (const int64_t[]){0}, false);
    b->counts = b->counts ? op_add(g, b->counts, counts) : counts;
    b->weights = b->weights ? op_add(g, b->weights, weights) : weights;
}

struct cb_tensor *decoder_moe(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                              const char *layer, struct cb_tensor *x, struct decoder_balance *balance) {
    const struct decoder *d = m->options;
    const struct decoder_experts *e = &d->experts;
    struct cb_graph *g = nn->g;
    const char *block = nn_name(nn, "%s.%s", layer, e->block);
    struct nn_moe moe = {.name = block, .gate = e->gate, .up = e->up, .down = e->down, .channels = m->n_embd, .inner = e->inner};
    moe.n_experts = e->n;
    moe.top_k = e->top_k;
    moe.normalised = e->normalised;
    moe.activation = d->activation;
    moe.jitter = e->jitter;
    struct nn_moe_routes routes = {&g->bad_tensor, &g->bad_tensor, &g->bad_tensor};
    struct cb_tensor *y = nn_moe(nn, x, &moe, &routes);
    if (io->want_hidden) graph_output(g, routes.logits, nn_name(nn, "router_logits.%d", balance->n_layers));
    if (io->want_loss && !io->head_loss_only && m->class->head->generates && e->balance > 0) balance_add(nn, io, leaves, &routes, balance);
    balance->n_layers++;
    if (!e->shared_inner) return y;
    // an expert for all tokens, behind a gate of its own
    struct nn_feed_forward shared = {nn_name(nn, "%s.shared_expert", block), .gate = e->gate, .up = e->up, .down = e->down};
    shared.width = m->n_embd;
    shared.inner = e->shared_inner;
    shared.activation = d->activation;
    shared.no_bias = true;
    struct nn_linear gate = {.name = nn_name(nn, "%s.shared_expert_gate", block), .in = m->n_embd, .out = 1};
    struct cb_tensor *open = op_unary(g, "sigmoid", nn_linear(nn, x, &gate));
    return op_add(g, y, op_mul(g, open, nn_feed_forward(nn, x, &shared)));
}

struct cb_tensor *decoder_balance_loss(const struct model *m, struct nn *nn, const struct model_io *io, const struct decoder_balance *b) {
    const struct decoder_experts *e = &decoder_options(m)->experts;
    struct cb_graph *g = nn->g;
    if (!b->counts || !io->want_loss) return NULL;
    // experts times the sum over them of (share of choices) times (mean weight), rows of all layers together
    const double layers = b->n_layers;
    struct cb_tensor *loss = op_sum(g, op_mul(g, b->counts, b->weights), 0, NULL, false);
    loss = op_scale(g, op_div(g, loss, op_mul(g, b->rows, b->rows)), (double)e->n / (layers * layers), 0);
    if (io->want_hidden) graph_output(g, loss, "aux_loss");
    return op_scale(g, loss, e->balance, 0);
}
