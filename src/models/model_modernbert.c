/* ModernBERT (Warner et al. 2024) as Transformers stores it: a norm before each part, rotary positions, gated MLP, windows in most layers. */
#include <stdio.h>
#include <string.h>

#include "models/model.h"
#include "nn/rope.h"
#include "ops/ops.h"

struct modernbert {
    int64_t inner, every, reach;  // layers that see everything: each every-th; others see this far to both sides
    const json_t *layers;  // or by name, from a list; NULL: none
    struct rope global, local;
    double eps;
    double embedding_dropout, attention_dropout, mlp_dropout, classifier_dropout;
    const char *activation, *classifier_activation;
    bool attention_bias, mlp_bias, norm_bias, classifier_bias, mean_pooling;
};

/* layer_types, which Transformers 5 writes. */
static enum cb_status parse_layers(const struct model *m, struct modernbert *o, const char *name, struct cb_err *err) {
    char text[JSON_TEXT];
    size_t i;
    json_t *type;
    TRY(json_get_array(&o->layers, m->config, name, "layer_types", false, err));
    if (o->layers && json_array_size(o->layers) != (size_t)m->n_layer)
        FAIL(err, CB_E_FORMAT, "%s: layer_types: found %zu; wanted one for each of %lld layers", name, json_array_size(o->layers),
             (long long)m->n_layer);
    json_array_foreach((json_t *)o->layers, i, type) {
        const char *word = json_string_value(type);
        if (!word || (strcmp(word, "full_attention") != 0 && strcmp(word, "sliding_attention") != 0))
            FAIL(err, CB_E_FORMAT, "%s: layer_types: found %s; wanted full_attention or sliding_attention", name, json_text(type, text));
    }
    return CB_OK;
}

static bool is_local(const struct modernbert *o, int64_t layer) {
    if (o->layers) return strcmp(json_string_value(json_array_get(o->layers, (size_t)layer)), "sliding_attention") == 0;
    return layer % o->every != 0;
}

static enum cb_status parse_options(struct model *m, struct modernbert *o, const char *name, struct cb_err *err) {
    const json_t *c = m->config;
    const char *pooling = "cls";
    bool decoder_bias = true;
    int64_t window = 128;
    o->activation = o->classifier_activation = "gelu";
    TRY(json_get_str(&o->activation, c, name, "hidden_activation", false, err));
    TRY(json_get_str(&o->classifier_activation, c, name, "classifier_activation", false, err));
    if (!nn_is_activation(o->activation) || !nn_is_activation(o->classifier_activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: hidden_activation %.40s, classifier_activation %.40s; wanted gelu, relu, silu, ...", name,
             o->activation, o->classifier_activation);
    o->eps = 1e-5;
    o->every = 3;
    TRY(json_get_float(&o->eps, c, name, "norm_eps", 0, 1, false, err));
    TRY(json_get_int(&o->every, c, name, "global_attn_every_n_layers", 1, 4096, false, err));
    TRY(json_get_int(&window, c, name, "local_attention", 1, INT32_MAX, false, err));
    TRY(json_get_float(&o->embedding_dropout, c, name, "embedding_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->attention_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->mlp_dropout, c, name, "mlp_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->classifier_dropout, c, name, "classifier_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->attention_bias, c, name, "attention_bias", false, err));
    TRY(json_get_bool(&o->mlp_bias, c, name, "mlp_bias", false, err));
    TRY(json_get_bool(&o->norm_bias, c, name, "norm_bias", false, err));
    TRY(json_get_bool(&o->classifier_bias, c, name, "classifier_bias", false, err));
    TRY(json_get_bool(&decoder_bias, c, name, "decoder_bias", false, err));
    TRY(json_get_str(&pooling, c, name, "classifier_pooling", false, err));
    o->reach = window / 2;
    o->mean_pooling = strcmp(pooling, "mean") == 0;
    if (!o->mean_pooling && strcmp(pooling, "cls") != 0)
        FAIL(err, CB_E_FORMAT, "%s: classifier_pooling: found %.60s; wanted cls or mean", name, pooling);
    m->head_has_no_bias = !decoder_bias;
    return CB_OK;
}

/* Two bases: of layers that see everything, and of those with a window (null: the same). */
static enum cb_status parse_ropes(const struct model *m, struct modernbert *o, const char *name, struct cb_err *err) {
    struct rope_source source = {.config = m->config, .name = name, .head_dim = m->head_dim, .max_positions = m->max_positions};
    source.own_keys = true;
    source.theta = 160000;
    TRY(json_get_float(&source.theta, m->config, name, "global_rope_theta", 1e-3, 1e15, false, err));
    TRY(rope_parse(&o->global, &source, err));
    source.part = "sliding_attention";
    if (!json_is_null(json_object_get(m->config, "local_rope_theta"))) source.theta = 10000;
    TRY(json_get_float(&source.theta, m->config, name, "local_rope_theta", 1e-3, 1e15, false, err));
    return rope_parse(&o->local, &source, err);
}

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct modernbert *o = (struct modernbert *)m->options;
    const json_t *c = m->config;
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "hidden_size", 1, 1 << 20, true, err));
    TRY(json_get_int(&o->inner, c, name, "intermediate_size", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "num_hidden_layers", 1, 4096, true, err));
    TRY(json_get_int(&m->n_head, c, name, "num_attention_heads", 1, 1 << 16, true, err));
    if (m->n_embd % m->n_head || m->n_embd / m->n_head % 2)
        FAIL(err, CB_E_FORMAT, "%s: num_attention_heads: found %lld; wanted hidden_size %lld to give each an even width", name,
             (long long)m->n_head, (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    m->max_positions = 8192;
    TRY(json_get_int(&m->max_positions, c, name, "max_position_embeddings", 1, INT32_MAX, false, err));
    m->tied = true;
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    TRY(json_get_int(&m->pad, c, name, "pad_token_id", -1, INT32_MAX, false, err));
    m->embedding = "model.embeddings.tok_embeddings.weight";
    TRY(parse_ropes(m, o, name, err));
    TRY(parse_layers(m, o, name, err));
    return parse_options(m, o, name, err);
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    const struct modernbert *o = m->options;
    const int64_t c = m->n_embd;
    char path[64];
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->vocab, c}, "%s", m->embedding));
    TRY(model_add_norm(m, c, o->norm_bias, "model.embeddings", "norm", err));
    for (int64_t i = 0; i < m->n_layer; i++) {
        snprintf(path, sizeof path, "model.layers.%lld", (long long)i);
        if (i) TRY(model_add_norm(m, c, o->norm_bias, path, "attn_norm", err));
        TRY(model_add_linear(m, c, 3 * c, o->attention_bias, path, "attn.Wqkv", err));
        TRY(model_add_linear(m, c, c, o->attention_bias, path, "attn.Wo", err));
        TRY(model_add_norm(m, c, o->norm_bias, path, "mlp_norm", err));
        TRY(model_add_linear(m, c, 2 * o->inner, o->mlp_bias, path, "mlp.Wi", err));
        TRY(model_add_linear(m, o->inner, c, o->mlp_bias, path, "mlp.Wo", err));
    }
    return model_add_norm(m, c, o->norm_bias, "model", "final_norm", err);
}

static struct cb_tensor *norm(const struct model *m, struct nn *nn, struct cb_tensor *x, const char *name) {
    const struct modernbert *o = m->options;
    return o->norm_bias ? nn_layer_norm(nn, x, name, o->eps) : nn_layer_norm_unbiased(nn, x, name, o->eps);
}

/* -1e30 where a key is further than reach or, under a mask, padding: (1 or B,1,T,T). */
static struct cb_tensor *window_bias(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    const struct modernbert *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t t = io->tokens, down[4] = {1, 1, t, 1}, across[4] = {1, 1, 1, t};
    struct cb_tensor *place = op_cast(g, model_counting(g, t, 0, 1), CB_DTYPE_F32), *low = graph_const_f32(g, -1e30f);
    struct cb_tensor *distance = op_unary(g, "abs", op_sub(g, op_reshape(g, place, 4, down), op_reshape(g, place, 4, across)));
    struct cb_tensor *near = op_compare(g, "le", distance, graph_const_f32(g, (float)o->reach)), *zero = graph_const_f32(g, 0);
    struct cb_tensor *bias = op_where(g, near, zero, low);
    if (!leaves->mask) return bias;
    const int32_t none = 0;
    struct cb_tensor *keys = op_reshape(g, leaves->mask, 4, (const int64_t[]){io->batch, 1, 1, t});
    return op_where(g, op_compare(g, "ne", keys, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &none)), bias, low);
}

struct sight {
    struct cb_tensor *local, *global, *bias;  // bias NULL: no layer has a window
};

static struct cb_tensor *attention(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                                   const struct sight *sight, const char *path, struct cb_tensor *x) {
    const struct modernbert *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t c = m->n_embd, heads[4] = {io->batch, io->tokens, m->n_head, m->head_dim}, joined[3] = {io->batch, io->tokens, c};
    const bool local = is_local(o, nn->layer);
    const struct rope *rope = local ? &o->local : &o->global;
    struct nn_linear qkv = {.name = nn_name(nn, "%s.attn.Wqkv", path), .in = c, .out = 3 * c, .bias = o->attention_bias, .n_slices = 3};
    qkv.role = "qkv";
    const char *const part[3] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) qkv.slice[i] = (struct nn_slice){part[i], i * c, (i + 1) * c};
    struct cb_tensor *parts = op_split(g, nn_linear(nn, x, &qkv), -1, 3, (const int64_t[]){c, c, c}), *piece[3];
    for (int i = 0; i < 3; i++) {
        piece[i] = op_reshape(g, graph_out(g, parts, i), 4, heads);
        if (i < 2) piece[i] = op_rope(g, piece[i], leaves->positions, local ? sight->local : sight->global, false, rope->attention_factor);
    }
    struct nn_attention a = {.name = nn_name(nn, "%s.attn", path), .bidirectional = true, .dropout = o->attention_dropout};
    // the bias of windows holds padding too; segments keep packed documents apart
    bool by_bias = local && sight->bias;
    a.input = x;
    if (by_bias) a.bias = sight->bias;
    if (!by_bias || !leaves->mask) a.q_segment = leaves->q_segment, a.k_segment = leaves->k_segment;
    x = op_reshape(g, nn_attention(nn, piece[0], piece[1], piece[2], &a), 3, joined);
    const struct nn_linear out = {.name = nn_name(nn, "%s.attn.Wo", path), .role = "o", .in = c, .out = c, .bias = o->attention_bias};
    return nn_dropout(nn, nn_linear(nn, x, &out), o->attention_dropout);
}

/* The first half of Wi's outputs is activated, the second multiplies it. */
static struct cb_tensor *mlp(const struct model *m, struct nn *nn, const char *path, struct cb_tensor *x) {
    const struct modernbert *o = m->options;
    struct nn_linear in = {
        .name = nn_name(nn, "%s.mlp.Wi", path), .role = "gate_up", .in = m->n_embd, .out = 2 * o->inner, .bias = o->mlp_bias};
    const struct nn_linear out = {
        .name = nn_name(nn, "%s.mlp.Wo", path), .role = "down", .in = o->inner, .out = m->n_embd, .bias = o->mlp_bias};
    struct cb_tensor *parts = op_split(nn->g, nn_linear(nn, x, &in), -1, 2, (const int64_t[]){o->inner, o->inner});
    x = op_mul(nn->g, nn_activation(nn, o->activation, graph_out(nn->g, parts, 0)), graph_out(nn->g, parts, 1));
    return nn_linear(nn, nn_dropout(nn, x, o->mlp_dropout), &out);
}

static struct cb_tensor *body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct modernbert *o = m->options;
    struct cb_graph *g = nn->g;
    struct sight sight = {rope_tensor(g, &o->local, io->tokens), rope_tensor(g, &o->global, io->tokens), NULL};
    if (io->tokens > o->reach + 1) sight.bias = window_bias(m, nn, io, leaves);
    struct cb_tensor *x = nn_embedding_padded(nn, leaves->ids, "model.embeddings.tok_embeddings", m->vocab, m->n_embd, m->pad);
    x = nn_dropout(nn, norm(m, nn, x, "model.embeddings.norm"), o->embedding_dropout);
    x = model_embedded(nn, io, x);
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *path = nn_name(nn, "model.layers.%d", nn->layer), *old = graph_push(g, "layers.%d", nn->layer);
        struct cb_tensor *y = nn->layer ? norm(m, nn, x, nn_name(nn, "%s.attn_norm", path)) : x;
        x = model_join(nn, x, attention(m, nn, io, leaves, &sight, path, y), path, "attention");
        y = mlp(m, nn, path, norm(m, nn, x, nn_name(nn, "%s.mlp_norm", path)));
        x = model_join(nn, x, y, path, "feed_forward");
        x = model_hidden(nn, io, x, nn->layer + 1, path);
        graph_pop(g, old);
    }
    nn->layer = -1;
    return norm(m, nn, x, "model.final_norm");
}

/* ---- features: norm(act(dense x)) of every row, or of a pooled one */
static enum cb_status head_weights(struct model *m, struct cb_err *err) {
    const struct modernbert *o = m->options;
    TRY(model_add_linear(m, m->n_embd, m->n_embd, o->classifier_bias, "", "head.dense", err));
    TRY(model_add_norm(m, m->n_embd, o->norm_bias, "", "head.norm", err));
    if (m->class->head != &model_head_masked_lm) {
        m->head_has_no_bias = false;  // decoder_bias is of the vocabulary alone
        return CB_OK;
    }
    return m->tied ? model_add_alias(m, "decoder.weight", m->embedding, err) : CB_OK;
}

static struct cb_tensor *head_dense(const struct model *m, struct nn *nn, struct cb_tensor *x) {
    const struct modernbert *o = m->options;
    const struct nn_linear dense = {.name = "head.dense", .in = m->n_embd, .out = m->n_embd, .bias = o->classifier_bias};
    return norm(m, nn, nn_activation(nn, o->classifier_activation, nn_linear(nn, x, &dense)), "head.norm");
}

static struct cb_tensor *vocabulary_rows(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                         struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    return head_dense(m, nn, x);
}

static struct cb_tensor *rows(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                              struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    return nn_dropout(nn, head_dense(m, nn, x), ((const struct modernbert *)m->options)->classifier_dropout);
}

/* Where padding stands before the tokens, the first that is one: (B,C). */
static struct cb_tensor *first_token(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                     struct cb_tensor *x) {
    if (!leaves->mask || graph_is_bad(nn->g, x)) return model_features_first(m, nn, io, leaves, x);
    struct cb_tensor *at = op_argmax(nn->g, leaves->mask, 1, 1, false);
    return nn_rows(nn, x, op_add(nn->g, at, model_counting(nn->g, io->batch, 0, x->type.dim[1])));
}

/* The first row (of candidates: the first token), or the mean of those that are not padding: (B,C). */
static struct cb_tensor *pooled(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                struct cb_tensor *x) {
    const struct modernbert *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t time = 1;
    if (!o->mean_pooling) {
        x = (m->class->head == &model_head_choice ? first_token : model_features_first)(m, nn, io, leaves, x);
    } else if (leaves->mask) {
        struct cb_tensor *mask = op_reshape(g, op_cast(g, leaves->mask, CB_DTYPE_F32), 3, (const int64_t[]){io->batch, io->tokens, 1});
        x = op_div(g, op_sum(g, op_mul(g, x, mask), 1, &time, false), op_sum(g, mask, 1, &time, false));
    } else {
        x = op_mean(g, x, 1, &time, false);
    }
    return nn_dropout(nn, head_dense(m, nn, x), o->classifier_dropout);
}

static const char *const model_types[] = {"modernbert", NULL};
static const char *const ignored[] = {".inv_freq", "decoder.", NULL};
static const struct model_class masked = {
    .name = "ForMaskedLM", .head = &model_head_masked_lm, .linear = "decoder", .weights = head_weights, .features = vocabulary_rows};
static const struct model_class labelled = {
    .name = "ForSequenceClassification", .head = &model_head_sequence, .linear = "classifier", .weights = head_weights, .features = pooled};
static const struct model_class token_labels = {
    .name = "ForTokenClassification", .head = &model_head_tokens, .linear = "classifier", .weights = head_weights, .features = rows};
static const struct model_class spans = {
    .name = "ForQuestionAnswering", .head = &model_head_span, .linear = "classifier", .weights = head_weights, .features = rows};
static const struct model_class choice = {
    .name = "ForMultipleChoice", .head = &model_head_choice, .linear = "classifier", .weights = head_weights, .features = pooled};
static const struct model_class *const classes[] = {&masked, &labelled, &token_labels, &spans, &choice, &model_class_states, NULL};

const struct family model_modernbert = {
    .name = "modernbert",
    .doc = "ModernBERT: rotary positions, gated MLP, windows in most layers, a norm before each part; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "ModernBert",
    .classes = classes,
    .prefix = "model.",
    .ignored = ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"ModernBertForMaskedLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"classifier_activation\":\"gelu\",\"classifier_bias\":false,\"classifier_dropout\":0.0,\"classifier_pooling\":\"mean\","
        "\"decoder_bias\":true,\"dtype\":\"float32\",\"embedding_dropout\":0.0,\"eos_token_id\":null,\"global_attn_every_n_layers\":3,"
        "\"global_rope_theta\":160000.0,\"hidden_activation\":\"gelu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":1152,\"local_attention\":128,\"local_rope_theta\":10000.0,\"max_position_embeddings\":8192,"
        "\"mlp_bias\":false,\"mlp_dropout\":0.0,\"model_type\":\"modernbert\",\"norm_bias\":false,\"norm_eps\":1e-05,"
        "\"num_attention_heads\":12,\"num_hidden_layers\":22,\"pad_token_id\":0,\"vocab_size\":50368}",
    .tiny =
        "hidden_size=24,intermediate_size=28,num_attention_heads=3,num_hidden_layers=3,local_attention=6,max_position_embeddings=64,"
        "vocab_size=71",
    .options_bytes = sizeof(struct modernbert),
    .parse = parse,
    .weights = weights,
    .body = body,
};
