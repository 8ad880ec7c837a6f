/* GPT-2 (Radford et al. 2019) as Transformers stores it: learned positions, pre-norm blocks, fused qkv, Conv1D weights (in,out). */
#include <math.h>
#include <string.h>

#include "models/model.h"
#include "ops/ops.h"

struct gpt2_options {
    int64_t inner;
    const char *activation;
    double eps, embd_dropout, resid_dropout, attn_dropout;
    bool scale_attn, scale_by_layer;
};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct gpt2_options *o = (struct gpt2_options *)m->options;
    const json_t *c = m->config;
    // sizes
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->max_positions, c, name, "n_positions", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "n_embd", 1, 1 << 20, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "n_layer", 1, 4096, true, err));
    TRY(json_get_int(&m->n_head, c, name, "n_head", 1, 1 << 16, true, err));
    if (m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: n_head: found %lld; wanted a divisor of n_embd %lld", name, (long long)m->n_head, (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    o->inner = 4 * m->n_embd;
    TRY(json_get_int(&o->inner, c, name, "n_inner", 1, 1 << 24, false, err));
    // options
    o->activation = "gelu_new";
    TRY(json_get_str(&o->activation, c, name, "activation_function", false, err));
    if (!nn_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: activation_function: found %.60s; wanted gelu_new, gelu, relu, silu, ...", name, o->activation);
    o->eps = 1e-5;
    o->embd_dropout = o->resid_dropout = o->attn_dropout = 0.1;
    o->scale_attn = m->tied = m->learned_positions = true;
    TRY(json_get_float(&o->eps, c, name, "layer_norm_epsilon", 0, 1, false, err));
    TRY(json_get_float(&o->embd_dropout, c, name, "embd_pdrop", 0, 0.999, false, err));
    TRY(json_get_float(&o->resid_dropout, c, name, "resid_pdrop", 0, 0.999, false, err));
    TRY(json_get_float(&o->attn_dropout, c, name, "attn_pdrop", 0, 0.999, false, err));
    TRY(json_get_bool(&o->scale_attn, c, name, "scale_attn_weights", false, err));
    TRY(json_get_bool(&o->scale_by_layer, c, name, "scale_attn_by_inverse_layer_idx", false, err));
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    bool cross = false;
    TRY(json_get_bool(&cross, c, name, "add_cross_attention", false, err));
    if (cross) FAIL(err, CB_E_UNSUPPORTED, "%s: add_cross_attention: found true; wanted false", name);
    m->embedding = "transformer.wte.weight";
    return CB_OK;
}

/* A Conv1D's weight (in,out) and bias. */
static enum cb_status add_linear(struct model *m, int64_t in, int64_t out, double std, int64_t layer, const char *name,
                                 struct cb_err *err) {
    TRY(model_add_weight(m, err, MODEL_NORMAL, std, 2, (const int64_t[]){in, out}, "transformer.h.%lld.%s.weight", (long long)layer, name));
    return model_add_weight(m, err, MODEL_ZEROS, 0, 1, &out, "transformer.h.%lld.%s.bias", (long long)layer, name);
}

static enum cb_status add_norm(struct model *m, int64_t layer, const char *name, struct cb_err *err) {
    TRY(model_add_weight(m, err, MODEL_ONES, 0, 1, &m->n_embd, "transformer.h.%lld.%s.weight", (long long)layer, name));
    return model_add_weight(m, err, MODEL_ZEROS, 0, 1, &m->n_embd, "transformer.h.%lld.%s.bias", (long long)layer, name);
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    const struct gpt2_options *o = m->options;
    int64_t c = m->n_embd;
    // what ends in the residual stream starts smaller, by 1 / sqrt(2 n_layer)
    double std = m->init_std, last = std / sqrt(2.0 * (double)m->n_layer);
    TRY(model_add_weight(m, err, MODEL_NORMAL, std, 2, (const int64_t[]){m->vocab, c}, "transformer.wte.weight"));
    TRY(model_add_weight(m, err, MODEL_NORMAL, std, 2, (const int64_t[]){m->max_positions, c}, "transformer.wpe.weight"));
    for (int64_t i = 0; i < m->n_layer; i++) {
        TRY(add_norm(m, i, "ln_1", err));
        TRY(add_linear(m, c, 3 * c, std, i, "attn.c_attn", err));
        TRY(add_linear(m, c, c, last, i, "attn.c_proj", err));
        TRY(add_norm(m, i, "ln_2", err));
        TRY(add_linear(m, c, o->inner, std, i, "mlp.c_fc", err));
        TRY(add_linear(m, o->inner, c, last, i, "mlp.c_proj", err));
    }
    TRY(model_add_weight(m, err, MODEL_ONES, 0, 1, &c, "transformer.ln_f.weight"));
    return model_add_weight(m, err, MODEL_ZEROS, 0, 1, &c, "transformer.ln_f.bias");
}

static struct cb_tensor *conv1d(struct nn *nn, struct cb_tensor *x, const char *block, const char *name, const char *role, int64_t in,
                                int64_t out) {
    struct nn_linear l = {.name = nn_name(nn, "%s.%s", block, name), .in = in, .out = out, .weight_is_in_out = true, .bias = true};
    l.role = role;
    return nn_linear(nn, x, &l);
}

/* Self-attention of block: x (B,T,C) -> (B,T,C). */
static struct cb_tensor *attention(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                                   const char *block, struct cb_tensor *x) {
    const struct gpt2_options *o = m->options;
    struct cb_graph *g = nn->g;
    int64_t c = m->n_embd;
    const int64_t heads[4] = {io->batch, io->tokens, m->n_head, m->head_dim}, joined[3] = {io->batch, io->tokens, c};
    struct nn_linear qkv = {.name = nn_name(nn, "%s.attn.c_attn", block), .in = c, .out = 3 * c, .weight_is_in_out = true, .bias = true};
    qkv.role = "qkv";
    qkv.n_slices = 3;
    const char *const part[3] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) qkv.slice[i] = (struct nn_slice){part[i], i * c, (i + 1) * c};
    struct cb_tensor *piece[3];
    struct cb_tensor *parts = op_split(g, nn_linear(nn, x, &qkv), -1, 3, (const int64_t[]){c, c, c});
    for (int i = 0; i < 3; i++) piece[i] = op_reshape(g, graph_out(g, parts, i), 4, heads);
    struct nn_attention a = {.name = nn_name(nn, "%s.attn", block), .q_segment = leaves->q_segment, .k_segment = leaves->k_segment};
    a.scale = (o->scale_attn ? 1 / sqrt((double)m->head_dim) : 1) / (o->scale_by_layer ? nn->layer + 1 : 1);
    a.input = x;
    a.cache = io->cache;
    a.start = leaves->start;
    a.dropout = o->attn_dropout;
    x = op_reshape(g, nn_attention(nn, piece[0], piece[1], piece[2], &a), 3, joined);
    return nn_dropout(nn, conv1d(nn, x, block, "attn.c_proj", "o", c, c), o->resid_dropout);
}

static struct cb_tensor *body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct gpt2_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *x = nn_embedding(nn, leaves->ids, "transformer.wte", m->vocab, m->n_embd);
    x = op_add(g, x, nn_embedding(nn, leaves->positions, "transformer.wpe", m->max_positions, m->n_embd));
    x = model_embedded(nn, io, nn_dropout(nn, x, o->embd_dropout));
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *block = nn_name(nn, "transformer.h.%d", nn->layer), *old = graph_push(g, "h.%d", nn->layer);
        struct cb_tensor *y = nn_layer_norm(nn, x, nn_name(nn, "%s.ln_1", block), o->eps);
        x = model_join(nn, x, attention(m, nn, io, leaves, block, y), block, "attention");
        y = nn_layer_norm(nn, x, nn_name(nn, "%s.ln_2", block), o->eps);
        y = nn_activation(nn, o->activation, conv1d(nn, y, block, "mlp.c_fc", "up", m->n_embd, o->inner));
        y = nn_dropout(nn, conv1d(nn, y, block, "mlp.c_proj", "down", o->inner, m->n_embd), o->resid_dropout);
        x = model_hidden(nn, io, model_join(nn, x, y, block, "feed_forward"), nn->layer + 1, block);
        graph_pop(g, old);
    }
    nn->layer = -1;
    return nn_layer_norm(nn, x, "transformer.ln_f", o->eps);
}

static const char *const model_types[] = {"gpt2", NULL};
static const struct model_class language = {"LMHeadModel", &model_head_causal_lm, .bias = ""};
static const struct model_class *const classes[] = {&language,         &model_class_last,   &model_class_tokens,
                                                    &model_class_span, &model_class_states, NULL};
static const char *const ignored[] = {".attn.bias", ".attn.masked_bias", NULL};

const struct family model_gpt2 = {
    .name = "gpt2",
    .doc = "GPT-2: learned positions, layer norm before each block, GELU, head tied to the embedding.",
    .model_types = model_types,
    .title = "GPT2",
    .classes = classes,
    .prefix = "transformer.",
    .ignored = ignored,
    .defaults =
        "{\"activation_function\":\"gelu_new\",\"architectures\":[\"GPT2LMHeadModel\"],\"attn_pdrop\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"embd_pdrop\":0.0,\"eos_token_id\":null,\"initializer_range\":0.02,\"layer_norm_epsilon\":1e-05,"
        "\"model_type\":\"gpt2\",\"n_embd\":768,\"n_head\":12,\"n_inner\":null,\"n_layer\":12,\"n_positions\":1024,\"pad_token_id\":null,"
        "\"reorder_and_upcast_attn\":false,\"resid_pdrop\":0.0,\"scale_attn_by_inverse_layer_idx\":false,\"scale_attn_weights\":true,"
        "\"tie_word_embeddings\":true,\"use_cache\":true,\"vocab_size\":50257}",
    .tiny = "n_embd=24,n_head=3,n_layer=2,n_positions=40,vocab_size=67",
    .options_bytes = sizeof(struct gpt2_options),
    .parse = parse,
    .weights = weights,
    .body = body,
};
