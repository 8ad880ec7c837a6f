/* Llama (Touvron et al. 2023; Grattafiori et al. 2024) as Transformers stores it: RMS norms, rotary positions, grouped queries, gated MLP. */
#include <string.h>

#include "models/model.h"
#include "nn/rope.h"
#include "ops/ops.h"

struct llama_options {
    int64_t inner;
    const char *activation;
    double eps, attn_dropout;
    bool attention_bias, mlp_bias;
    struct rope rope;
};

static enum cb_status parse_heads(struct model *m, const char *name, struct cb_err *err) {
    const json_t *c = m->config;
    TRY(json_get_int(&m->n_head, c, name, "num_attention_heads", 1, 1 << 16, true, err));
    m->n_kv_head = m->n_head;
    TRY(json_get_int(&m->n_kv_head, c, name, "num_key_value_heads", 1, 1 << 16, false, err));
    TRY(json_get_int(&m->head_dim, c, name, "head_dim", 1, 1 << 16, false, err));
    if (m->n_head % m->n_kv_head)
        FAIL(err, CB_E_FORMAT, "%s: num_key_value_heads: found %lld; wanted a divisor of num_attention_heads %lld", name,
             (long long)m->n_kv_head, (long long)m->n_head);
    if (!m->head_dim && m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: num_attention_heads: found %lld; wanted a divisor of hidden_size %lld, or head_dim", name,
             (long long)m->n_head, (long long)m->n_embd);
    if (!m->head_dim) m->head_dim = m->n_embd / m->n_head;
    if (m->head_dim % 2) FAIL(err, CB_E_FORMAT, "%s: head_dim: found %lld; wanted an even number", name, (long long)m->head_dim);
    return CB_OK;
}

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct llama_options *o = (struct llama_options *)m->options;
    const json_t *c = m->config;
    // sizes
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "hidden_size", 1, 1 << 20, true, err));
    TRY(json_get_int(&o->inner, c, name, "intermediate_size", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "num_hidden_layers", 1, 4096, true, err));
    m->max_positions = 2048;
    TRY(json_get_int(&m->max_positions, c, name, "max_position_embeddings", 1, INT32_MAX, false, err));
    TRY(parse_heads(m, name, err));
    // options
    o->activation = "silu";
    TRY(json_get_str(&o->activation, c, name, "hidden_act", false, err));
    if (!nn_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: hidden_act: found %.60s; wanted silu, gelu, relu, ...", name, o->activation);
    o->eps = 1e-6;
    TRY(json_get_float(&o->eps, c, name, "rms_norm_eps", 0, 1, false, err));
    TRY(json_get_float(&o->attn_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->attention_bias, c, name, "attention_bias", false, err));
    TRY(json_get_bool(&o->mlp_bias, c, name, "mlp_bias", false, err));
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->embedding = "model.embed_tokens.weight";
    TRY(rope_parse(&o->rope, c, name, m->head_dim, m->max_positions, err));
    if (o->rope.kind == ROPE_DYNAMIC) m->exact_cache = m->max_positions;
    return CB_OK;
}

static enum cb_status add_linear(struct model *m, int64_t in, int64_t out, bool bias, int64_t layer, const char *name, struct cb_err *err) {
    const int64_t shape[2] = {out, in};
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, shape, "model.layers.%lld.%s.weight", (long long)layer, name));
    if (bias) TRY(model_add_weight(m, err, MODEL_ZEROS, 0, 1, &out, "model.layers.%lld.%s.bias", (long long)layer, name));
    return CB_OK;
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    const struct llama_options *o = m->options;
    int64_t c = m->n_embd, q = m->n_head * m->head_dim, kv = m->n_kv_head * m->head_dim;
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->vocab, c}, "model.embed_tokens.weight"));
    for (int64_t i = 0; i < m->n_layer; i++) {
        TRY(add_linear(m, c, q, o->attention_bias, i, "self_attn.q_proj", err));
        TRY(add_linear(m, c, kv, o->attention_bias, i, "self_attn.k_proj", err));
        TRY(add_linear(m, c, kv, o->attention_bias, i, "self_attn.v_proj", err));
        TRY(add_linear(m, q, c, o->attention_bias, i, "self_attn.o_proj", err));
        TRY(add_linear(m, c, o->inner, o->mlp_bias, i, "mlp.gate_proj", err));
        TRY(add_linear(m, c, o->inner, o->mlp_bias, i, "mlp.up_proj", err));
        TRY(add_linear(m, o->inner, c, o->mlp_bias, i, "mlp.down_proj", err));
        TRY(model_add_weight(m, err, MODEL_ONES, 0, 1, &c, "model.layers.%lld.input_layernorm.weight", (long long)i));
        TRY(model_add_weight(m, err, MODEL_ONES, 0, 1, &c, "model.layers.%lld.post_attention_layernorm.weight", (long long)i));
    }
    return model_add_weight(m, err, MODEL_ONES, 0, 1, &c, "model.norm.weight");
}

static struct cb_tensor *linear(struct nn *nn, struct cb_tensor *x, const char *block, const char *name, int64_t in, int64_t out,
                                bool bias) {
    struct nn_linear l = {.name = nn_name(nn, "%s.%s", block, name), .in = in, .out = out, .bias = bias};
    return nn_linear(nn, x, &l);
}

/* Self-attention of block: x (B,T,C) -> (B,T,C). */
static struct cb_tensor *attention(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                                   const char *block, struct cb_tensor *x, struct cb_tensor *inv_freq) {
    const struct llama_options *o = m->options;
    struct cb_graph *g = nn->g;
    int64_t c = m->n_embd, q_width = m->n_head * m->head_dim, kv_width = m->n_kv_head * m->head_dim;
    const int64_t q_shape[4] = {io->batch, io->tokens, m->n_head, m->head_dim},
                  kv_shape[4] = {io->batch, io->tokens, m->n_kv_head, m->head_dim};
    const int64_t joined[3] = {io->batch, io->tokens, q_width};
    struct cb_tensor *q = op_reshape(g, linear(nn, x, block, "self_attn.q_proj", c, q_width, o->attention_bias), 4, q_shape);
    struct cb_tensor *k = op_reshape(g, linear(nn, x, block, "self_attn.k_proj", c, kv_width, o->attention_bias), 4, kv_shape);
    struct cb_tensor *v = op_reshape(g, linear(nn, x, block, "self_attn.v_proj", c, kv_width, o->attention_bias), 4, kv_shape);
    q = op_rope(g, q, leaves->positions, inv_freq, false, o->rope.attention_factor);
    k = op_rope(g, k, leaves->positions, inv_freq, false, o->rope.attention_factor);
    struct nn_attention a = {.name = nn_name(nn, "%s.self_attn", block), .q_segment = leaves->q_segment, .k_segment = leaves->k_segment};
    a.cache = io->cache;
    a.start = leaves->start;
    a.dropout = o->attn_dropout;
    x = op_reshape(g, nn_attention(nn, q, k, v, &a), 3, joined);
    return linear(nn, x, block, "self_attn.o_proj", q_width, c, o->attention_bias);
}

static struct cb_tensor *body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct llama_options *o = m->options;
    struct cb_graph *g = nn->g;
    int64_t c = m->n_embd;
    struct cb_tensor *x = model_hidden(nn, io, nn_embedding(nn, leaves->ids, "model.embed_tokens", m->vocab, c), 0, NULL);
    struct cb_tensor *inv_freq = rope_tensor(g, &o->rope, leaves->length);
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *block = nn_name(nn, "model.layers.%d", nn->layer), *old = graph_push(g, "layers.%d", nn->layer);
        struct cb_tensor *y = nn_rms_norm(nn, x, nn_name(nn, "%s.input_layernorm", block), o->eps);
        x = op_add(g, x, attention(m, nn, io, leaves, block, y, inv_freq));
        // gated MLP (Shazeer 2020): down(act(gate x) * up x)
        y = nn_rms_norm(nn, x, nn_name(nn, "%s.post_attention_layernorm", block), o->eps);
        struct cb_tensor *gate = nn_activation(nn, o->activation, linear(nn, y, block, "mlp.gate_proj", c, o->inner, o->mlp_bias));
        y = op_mul(g, gate, linear(nn, y, block, "mlp.up_proj", c, o->inner, o->mlp_bias));
        y = linear(nn, y, block, "mlp.down_proj", o->inner, c, o->mlp_bias);
        x = model_hidden(nn, io, op_add(g, x, y), nn->layer + 1, block);
        graph_pop(g, old);
    }
    nn->layer = -1;
    return nn_rms_norm(nn, x, "model.norm", o->eps);
}

static const char *const model_types[] = {"llama", NULL};
static const struct model_class classes[] = {
    {"LlamaForCausalLM", &model_head_causal_lm, .bias = ""},
    {"LlamaForSequenceClassification", &model_head_sequence, .linear = "score", .bias = "", .features = model_features_last},
    {"LlamaForTokenClassification", &model_head_tokens, .linear = "score"},
    {.name = NULL},
};
static const char *const ignored[] = {".rotary_emb.inv_freq", NULL};

const struct family model_llama = {
    .name = "llama",
    .doc = "Llama: RMS norm before each block, rotary positions with all common scalings, grouped queries, gated MLP.",
    .model_types = model_types,
    .classes = classes,
    .prefix = "model.",
    .ignored = ignored,
    .defaults =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"head_dim\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"mlp_bias\":false,"
        "\"model_type\":\"llama\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"num_key_value_heads\":null,"
        "\"pad_token_id\":null,\"pretraining_tp\":1,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":10000.0,"
        "\"tie_word_embeddings\":false,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny =
        "hidden_size=24,intermediate_size=44,num_attention_heads=4,num_key_value_heads=2,num_hidden_layers=2,max_position_embeddings=64,"
        "vocab_size=71",
    .options_bytes = sizeof(struct llama_options),
    .parse = parse,
    .weights = weights,
    .body = body,
};
