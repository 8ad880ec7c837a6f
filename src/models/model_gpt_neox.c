/* GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): layer norms, fused qkv by head, part of a head turns, both blocks side by side. */
#include "models/model.h"
#include "nn/block.h"
#include "nn/rope.h"
#include "ops/ops.h"

struct gpt_neox_options {
    int64_t inner;
    const char *activation;
    double eps, attention_dropout, hidden_dropout;
    bool attention_bias, is_parallel;
    struct rope rope;
};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct gpt_neox_options *o = (struct gpt_neox_options *)m->options;
    const json_t *c = m->config;
    // sizes
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "hidden_size", 1, 1 << 20, true, err));
    TRY(json_get_int(&o->inner, c, name, "intermediate_size", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "num_hidden_layers", 1, 4096, true, err));
    TRY(json_get_int(&m->n_head, c, name, "num_attention_heads", 1, 1 << 16, true, err));
    m->max_positions = 2048;
    TRY(json_get_int(&m->max_positions, c, name, "max_position_embeddings", 1, INT32_MAX, false, err));
    if (m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: num_attention_heads: found %lld; wanted a divisor of hidden_size %lld", name, (long long)m->n_head,
             (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    // options
    o->activation = "gelu";
    TRY(json_get_str(&o->activation, c, name, "hidden_act", false, err));
    if (!nn_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: hidden_act: found %.60s; wanted gelu, gelu_new, relu, silu, ...", name, o->activation);
    o->eps = 1e-5;
    o->attention_bias = o->is_parallel = true;
    TRY(json_get_float(&o->eps, c, name, "layer_norm_eps", 0, 1, false, err));
    TRY(json_get_float(&o->attention_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->hidden_dropout, c, name, "hidden_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->attention_bias, c, name, "attention_bias", false, err));
    TRY(json_get_bool(&o->is_parallel, c, name, "use_parallel_residual", false, err));
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->embedding = "gpt_neox.embed_in.weight";
    // rope, under keys of its own in Transformers 4
    struct rope_source source = {.config = c, .name = name, .head_dim = m->head_dim, .max_positions = m->max_positions, .own_keys = true};
    source.theta = 10000;
    source.partial = 0.25;
    TRY(json_get_float(&source.theta, c, name, "rotary_emb_base", 1e-3, 1e15, false, err));
    TRY(json_get_float(&source.partial, c, name, "rotary_pct", 1e-6, 1, false, err));
    TRY(rope_parse(&o->rope, &source, err));
    m->exact_cache = o->rope.exact_positions;
    m->exact_again = o->rope.exact_again;
    return CB_OK;
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    const struct gpt_neox_options *o = m->options;
    const int64_t c = m->n_embd, table[2] = {m->vocab, c};
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, table, "%s", m->embedding));
    for (int64_t i = 0; i < m->n_layer; i++) {
        const char *layer = arena_printf(m->arena, "gpt_neox.layers.%lld", (long long)i);
        if (!layer) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
        TRY(model_add_norm(m, c, true, layer, "input_layernorm", err));
        TRY(model_add_norm(m, c, true, layer, "post_attention_layernorm", err));
        TRY(model_add_linear(m, c, 3 * c, o->attention_bias, layer, "attention.query_key_value", err));
        TRY(model_add_linear(m, c, c, o->attention_bias, layer, "attention.dense", err));
        TRY(model_add_linear(m, c, o->inner, true, layer, "mlp.dense_h_to_4h", err));
        TRY(model_add_linear(m, o->inner, c, true, layer, "mlp.dense_4h_to_h", err));
    }
    return model_add_norm(m, c, true, "gpt_neox", "final_layer_norm", err);
}

/* Self-attention of a layer: x (B,T,C) -> (B,T,C). */
static struct cb_tensor *attention(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                                   const char *layer, struct cb_tensor *x, struct cb_tensor *inv_freq) {
    const struct gpt_neox_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t c = m->n_embd, joined[3] = {io->batch, io->tokens, c};
    struct nn_linear fused = {.name = nn_name(nn, "%s.attention.query_key_value", layer), .in = c, .out = 3 * c, .bias = o->attention_bias};
    fused.role = "qkv";
    struct nn_linear dense = {.name = nn_name(nn, "%s.attention.dense", layer), .role = "o", .in = c, .out = c, .bias = o->attention_bias};
    struct cb_tensor *qkv[3];
    nn_split_heads(nn, nn_linear(nn, x, &fused), m->n_head, qkv);
    for (int i = 0; i < 2; i++) qkv[i] = op_rope(g, qkv[i], leaves->positions, inv_freq, false, o->rope.attention_factor);
    struct nn_attention a = {.name = nn_name(nn, "%s.attention", layer), .q_segment = leaves->q_segment, .k_segment = leaves->k_segment};
    a.input = x;
    a.cache = io->cache;
    a.start = leaves->start;
    a.dropout = o->attention_dropout;
    x = op_reshape(g, nn_attention(nn, qkv[0], qkv[1], qkv[2], &a), 3, joined);
    return nn_dropout(nn, nn_linear(nn, x, &dense), o->hidden_dropout);
}

static struct cb_tensor *body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct gpt_neox_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *inv_freq = rope_tensor(g, &o->rope, leaves->length);
    struct cb_tensor *x = nn_embedding(nn, leaves->ids, "gpt_neox.embed_in", m->vocab, m->n_embd);
    x = model_embedded(nn, io, nn_dropout(nn, x, o->hidden_dropout));
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *layer = nn_name(nn, "gpt_neox.layers.%d", nn->layer), *old = graph_push(g, "layers.%d", nn->layer);
        struct nn_feed_forward mlp = {nn_name(nn, "%s.mlp", layer), .up = "dense_h_to_4h", .down = "dense_4h_to_h", .width = m->n_embd};
        mlp.inner = o->inner;
        mlp.activation = o->activation;
        struct cb_tensor *y = nn_layer_norm(nn, x, nn_name(nn, "%s.input_layernorm", layer), o->eps);
        struct cb_tensor *seen = model_join(nn, x, attention(m, nn, io, leaves, layer, y, inv_freq), layer, "attention");
        // side by side: the MLP reads what the layer was given
        y = nn_layer_norm(nn, o->is_parallel ? x : seen, nn_name(nn, "%s.post_attention_layernorm", layer), o->eps);
        y = nn_dropout(nn, nn_feed_forward(nn, y, &mlp), o->hidden_dropout);
        x = model_hidden(nn, io, model_join(nn, seen, y, layer, "feed_forward"), nn->layer + 1, layer);
        graph_pop(g, old);
    }
    nn->layer = -1;
    return nn_layer_norm(nn, x, "gpt_neox.final_layer_norm", o->eps);
}

static const char *const model_types[] = {"gpt_neox", NULL};
static const struct model_class language = {"ForCausalLM", &model_head_causal_lm, .linear = "embed_out", .bias = ""};
static const struct model_class *const classes[] = {&language, &model_class_last, &model_class_tokens, &model_class_span, NULL};
static const char *const ignored[] = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq", NULL};

const struct family model_gpt_neox = {
    .name = "gpt_neox",
    .doc = "GPT-NeoX and Pythia: layer norms, attention and MLP side by side, a part of each head turns.",
    .model_types = model_types,
    .title = "GPTNeoX",
    .classes = classes,
    .prefix = "gpt_neox.",
    .ignored = ignored,
    .defaults =
        "{\"architectures\":[\"GPTNeoXForCausalLM\"],\"attention_bias\":true,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"classifier_dropout\":0.1,\"dtype\":\"float32\",\"eos_token_id\":null,\"hidden_act\":\"gelu\",\"hidden_dropout\":0.0,"
        "\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":3072,\"layer_norm_eps\":1e-05,"
        "\"max_position_embeddings\":2048,\"model_type\":\"gpt_neox\",\"num_attention_heads\":12,\"num_hidden_layers\":12,"
        "\"pad_token_id\":null,\"rope_scaling\":null,\"rotary_emb_base\":10000,\"rotary_pct\":0.25,\"tie_word_embeddings\":false,"
        "\"use_cache\":true,\"use_parallel_residual\":true,\"vocab_size\":32000}",
    .tiny = "hidden_size=32,intermediate_size=44,num_attention_heads=2,num_hidden_layers=2,max_position_embeddings=64,vocab_size=71",
    .options_bytes = sizeof(struct gpt_neox_options),
    .parse = parse,
    .weights = weights,
    .body = body,
};
