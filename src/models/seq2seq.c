/* The encoder-decoder of BART and its kin, by the few switches that a family gives. */
#include "models/seq2seq.h"

#include <math.h>
#include <stdio.h>

#include "nn/block.h"
#include "ops/ops.h"

#define EPS 1e-5  // of every norm; files do not name it

static const char shared[] = "model.shared";

/* ---- configuration */
enum cb_status seq2seq_parse(struct model *m, const char *name, const struct seq2seq_kind *kind, struct cb_err *err) {
    struct seq2seq *o = (struct seq2seq *)m->options;
    const json_t *c = m->config;
    o->kind = kind;
    // sizes; layers, heads and caches of the model are the decoder's
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "d_model", 1, 1 << 20, true, err));
    TRY(json_get_int(&o->encoder_layers, c, name, "encoder_layers", 1, 4096, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "decoder_layers", 1, 4096, true, err));
    TRY(json_get_int(&o->encoder_heads, c, name, "encoder_attention_heads", 1, 1 << 16, true, err));
    TRY(json_get_int(&m->n_head, c, name, "decoder_attention_heads", 1, 1 << 16, true, err));
    TRY(json_get_int(&o->encoder_inner, c, name, "encoder_ffn_dim", 1, 1 << 24, true, err));
    TRY(json_get_int(&o->decoder_inner, c, name, "decoder_ffn_dim", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->max_positions, c, name, "max_position_embeddings", 1, INT32_MAX - 8, true, err));
    if (m->n_embd % m->n_head || m->n_embd % o->encoder_heads)
        FAIL(err, CB_E_FORMAT, "%s: decoder_attention_heads %lld, encoder_attention_heads %lld; wanted divisors of d_model %lld", name,
             (long long)m->n_head, (long long)o->encoder_heads, (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    o->table = m->max_positions + (kind->learned_offset > 0 ? kind->learned_offset : 0);
    // options
    o->activation = kind->activation;
    TRY(json_get_str(&o->activation, c, name, "activation_function", false, err));
    if (!nn_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: activation_function: found %.60s; wanted gelu, relu, swish, ...", name, o->activation);
    bool scales = false;
    o->dropout = 0.1;
    TRY(json_get_float(&o->dropout, c, name, "dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->attention_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->activation_dropout, c, name, "activation_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->classifier_dropout, c, name, "classifier_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&scales, c, name, "scale_embedding", false, err));
    TRY(json_get_float(&m->init_std, c, name, "init_std", 0, 1e3, false, err));
    TRY(json_get_int(&m->pad, c, name, "pad_token_id", -1, m->vocab - 1, false, err));
    o->scale = scales ? sqrt((double)m->n_embd) : 1;
    m->rows_scale = o->scale;
    m->tied = true;
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->embedding = "model.shared.weight";
    return CB_OK;
}

/* ---- weights */
static enum cb_status attention_weights(struct model *m, const char *path, const char *name, struct cb_err *err) {
    static const char *const part[4] = {"k_proj", "v_proj", "q_proj", "out_proj"};
    char full[128];
    snprintf(full, sizeof full, "%s.%s", path, name);
    for (int i = 0; i < 4; i++) TRY(model_add_linear(m, m->n_embd, m->n_embd, true, full, part[i], err));
    snprintf(full, sizeof full, "%s_layer_norm", name);
    return model_add_norm(m, m->n_embd, true, path, full, err);
}

static enum cb_status stack_weights(struct model *m, bool is_decoder, struct cb_err *err) {
    const struct seq2seq *o = m->options;
    const char *stack = is_decoder ? "model.decoder" : "model.encoder";
    const int64_t c = m->n_embd, inner = is_decoder ? o->decoder_inner : o->encoder_inner;
    char path[64];
    if (!o->kind->positions)
        TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){o->table, c}, "%s.embed_positions.weight", stack));
    if (o->kind->embedding_norm) TRY(model_add_norm(m, c, true, stack, "layernorm_embedding", err));
    for (int64_t i = 0; i < (is_decoder ? m->n_layer : o->encoder_layers); i++) {
        snprintf(path, sizeof path, "%s.layers.%lld", stack, (long long)i);
        TRY(attention_weights(m, path, "self_attn", err));
        if (is_decoder) TRY(attention_weights(m, path, "encoder_attn", err));
        TRY(model_add_linear(m, c, inner, true, path, "fc1", err));
        TRY(model_add_linear(m, inner, c, true, path, "fc2", err));
        TRY(model_add_norm(m, c, true, path, "final_layer_norm", err));
    }
    return o->kind->pre_norm ? model_add_norm(m, c, true, stack, "layer_norm", err) : CB_OK;
}

enum cb_status seq2seq_weights(struct model *m, struct cb_err *err) {
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->vocab, m->n_embd}, "%s", m->embedding));
    TRY(model_add_alias(m, "model.encoder.embed_tokens.weight", m->embedding, err));
    TRY(model_add_alias(m, "model.decoder.embed_tokens.weight", m->embedding, err));
    if (m->tied) TRY(model_add_alias(m, "lm_head.weight", m->embedding, err));
    TRY(stack_weights(m, false, err));
    return stack_weights(m, true, err);
}

enum cb_status seq2seq_logits_bias(struct model *m, struct cb_err *err) {
    m->logits_bias = "final_logits_bias";
    return model_add_buffer(m, err, 2, (const int64_t[]){1, m->vocab}, m->logits_bias);
}

/* ---- graph */
/* One stack being built. */
struct stack {
    const struct model *m;
    struct nn *nn;
    const struct model_io *io;
    const struct model_leaves *leaves;
    const char *path, *prefix;  // "model.decoder"; of its hidden states
    int64_t heads, inner;
    bool is_decoder;
};

static struct cb_tensor *norm(const struct stack *s, struct cb_tensor *x, const char *path, const char *name) {
    return nn_layer_norm(s->nn, x, nn_name(s->nn, "%s.%s", path, name), EPS);
}

static struct cb_tensor *embed(const struct stack *s, struct cb_tensor *ids, struct cb_tensor *positions, int64_t length) {
    const struct model *m = s->m;
    const struct seq2seq *o = m->options;
    struct cb_graph *g = s->nn->g;
    struct cb_tensor *x = nn_embedding_padded(s->nn, ids, shared, m->vocab, m->n_embd, m->pad), *p;
    if (o->scale != 1) x = op_scale(g, x, o->scale, 0);
    if (o->kind->positions) {
        // those that count from ids begin after what came before
        const int64_t past = s->is_decoder ? s->leaves->decoder_past : s->leaves->past, b = s->io->batch;
        struct cb_tensor *start = s->is_decoder ? s->leaves->start : NULL, *before = past ? model_counting(g, b, past, 0) : NULL;
        if (before) start = start ? op_add(g, start, before) : before;
        p = o->kind->positions(m, s->nn, ids, positions, start, length);
    } else {
        const int32_t offset = (int32_t)o->kind->learned_offset;
        positions = op_add(g, positions, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &offset));
        p = nn_embedding(s->nn, positions, nn_name(s->nn, "%s.embed_positions", s->path), o->table, m->n_embd);
    }
    x = op_add(g, x, p);
    if (o->kind->embedding_norm) x = norm(s, x, s->path, "layernorm_embedding");
    return nn_dropout(s->nn, x, o->dropout);
}

static struct nn_heads heads_of(const struct stack *s, const char *path) {
    struct nn_heads h = {.path = path, .q = "q_proj", .k = "k_proj", .v = "v_proj", .out = "out_proj", .width = s->m->n_embd};
    h.heads = s->heads;
    h.head_dim = s->m->n_embd / s->heads;
    return h;
}

/* y = part(x) in its residual: x + y under a norm before or after, as the family has it. */
struct part {
    const char *norm, *role;
    struct cb_tensor *(*build)(const struct stack *s, const char *path, struct cb_tensor *x, struct cb_tensor *memory);
};

static struct cb_tensor *self_attention(const struct stack *s, const char *path, struct cb_tensor *x, struct cb_tensor *memory) {
    (void)memory;
    const struct seq2seq *o = s->m->options;
    const struct model_leaves *l = s->leaves;
    struct nn_heads h = heads_of(s, nn_name(s->nn, "%s.self_attn", path));
    struct nn_attention a = {.name = h.path, .bidirectional = !s->is_decoder, .dropout = o->attention_dropout};
    a.role = s->is_decoder ? "decoder" : "encoder";
    a.q_segment = s->is_decoder ? l->decoder_q_segment : l->q_segment;
    a.k_segment = s->is_decoder ? l->decoder_k_segment : l->k_segment;
    a.cache = s->is_decoder ? s->io->cache : 0;
    a.start = a.cache ? l->start : NULL;
    return nn_heads(s->nn, x, NULL, NULL, &h, &a);
}

static struct cb_tensor *cross_attention(const struct stack *s, const char *path, struct cb_tensor *x, struct cb_tensor *memory) {
    const struct seq2seq *o = s->m->options;
    struct nn_heads h = heads_of(s, nn_name(s->nn, "%s.encoder_attn", path));
    struct nn_attention a = {.name = h.path, .bidirectional = true, .dropout = o->attention_dropout};
    a.role = "cross";
    a.q_segment = s->leaves->memory_q_segment;
    a.k_segment = s->leaves->memory_k_segment;
    struct cb_tensor *k, *v;
    nn_heads_memory(s->nn, memory, &h, s->io->batch, s->io->memory, &k, &v);
    return nn_heads(s->nn, x, k, v, &h, &a);
}

static struct cb_tensor *feed_forward(const struct stack *s, const char *path, struct cb_tensor *x, struct cb_tensor *memory) {
    (void)memory;
    const struct seq2seq *o = s->m->options;
    struct nn_feed_forward f = {.path = path, .up = "fc1", .down = "fc2", .width = s->m->n_embd, .inner = s->inner};
    f.activation = o->activation;
    f.dropout = o->activation_dropout;
    return nn_feed_forward(s->nn, x, &f);
}

static struct cb_tensor *residual(const struct stack *s, const char *path, const struct part *part, struct cb_tensor *x,
                                  struct cb_tensor *memory) {
    const struct seq2seq *o = s->m->options;
    bool before = o->kind->pre_norm;
    struct cb_tensor *y = part->build(s, path, before ? norm(s, x, path, part->norm) : x, memory);
    struct nn_join join = {.name = model_join_name(s->nn, path, part->role), .role = part->role, .residual = x, .eps = EPS};
    if (!before) join.norm = nn_name(s->nn, "%s.%s", path, part->norm);
    return nn_join(s->nn, nn_dropout(s->nn, y, o->dropout), &join);
}

/* All layers; x: embedded ids. */
static struct cb_tensor *layers(const struct stack *s, struct cb_tensor *x, struct cb_tensor *memory) {
    static const struct part own = {"self_attn_layer_norm", "attention", self_attention},
                             cross = {"encoder_attn_layer_norm", "cross_attention", cross_attention},
                             mlp = {"final_layer_norm", "feed_forward", feed_forward};
    const struct seq2seq *o = s->m->options;
    struct nn *nn = s->nn;
    const int64_t n = s->is_decoder ? s->m->n_layer : o->encoder_layers;
    if (!s->is_decoder) x = nn_embedded(nn, x, "model.encoder.invertible_adapters");
    x = model_hidden_of(nn, s->io, s->prefix, x, 0, NULL);
    nn->layers_before = s->is_decoder ? (int)o->encoder_layers : 0;
    for (nn->layer = 0; nn->layer < n && !graph_is_bad(nn->g, x); nn->layer++) {
        const char *path = nn_name(nn, "%s.layers.%d", s->path, nn->layer), *old = graph_push(nn->g, "%slayers.%d", s->prefix, nn->layer);
        x = residual(s, path, &own, x, NULL);
        if (s->is_decoder) x = residual(s, path, &cross, x, memory);
        x = residual(s, path, &mlp, x, NULL);
        x = model_hidden_of(nn, s->io, s->prefix, x, nn->layer + 1, path);
        graph_pop(nn->g, old);
    }
    nn->layer = -1;
    return o->kind->pre_norm ? norm(s, x, s->path, "layer_norm") : x;
}

/* Keys and values of the source into the caches of every decoder layer. */
static void write_memory(const struct stack *s, struct cb_tensor *memory) {
    struct cb_tensor *k, *v;
    for (s->nn->layer = 0; s->nn->layer < s->m->n_layer && !graph_is_bad(s->nn->g, memory); s->nn->layer++) {
        struct nn_heads h = heads_of(s, nn_name(s->nn, "%s.layers.%d.encoder_attn", s->path, s->nn->layer));
        nn_heads_memory(s->nn, memory, &h, s->io->batch, s->io->memory, &k, &v);
    }
    s->nn->layer = -1;
}

struct cb_tensor *seq2seq_body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct seq2seq *o = m->options;
    struct stack encoder = {m, nn, io, leaves, "model.encoder", "encoder.", o->encoder_heads, o->encoder_inner, false};
    struct stack decoder = {m, nn, io, leaves, "model.decoder", "decoder.", m->n_head, o->decoder_inner, true};
    struct cb_tensor *memory = NULL;
    if (leaves->ids) {
        memory = layers(&encoder, embed(&encoder, leaves->ids, leaves->positions, leaves->length), NULL);
        if (!io->memory && io->want_logits) graph_output(nn->g, memory, "encoder_last_hidden_state");
    }
    if (!leaves->decoder_ids) {
        write_memory(&decoder, memory);
        return memory;
    }
    return layers(&decoder, embed(&decoder, leaves->decoder_ids, leaves->decoder_positions, leaves->decoder_length), memory);
}

/* ---- a sequence's label, at the decoder's row of the last end of text */
enum cb_status seq2seq_classifier_weights(struct model *m, struct cb_err *err) {
    return model_add_linear(m, m->n_embd, m->n_embd, true, "classification_head", "dense", err);
}

struct cb_tensor *seq2seq_classifier(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                     struct cb_tensor *x) {
    const struct seq2seq *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t t = io->tokens, row[2] = {1, t}, flat[2] = {io->batch * t, m->n_embd};
    const int32_t end = m->n_eos ? (int32_t)m->eos[0] : -1;
    const struct nn_linear dense = {.name = "classification_head.dense", .kind = NN_HEAD, .in = m->n_embd, .out = m->n_embd, .bias = true};
    if (end < 0)
        return graph_fail(g, CB_E_FORMAT, "%s: eos_token_id: found none; wanted the token that a label is read at", m->class->name);
    // the last position of the token
    struct cb_tensor *is_end = op_compare(g, "eq", leaves->ids, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &end));
    struct cb_tensor *place = op_reshape(g, model_counting(g, t, 0, 1), 2, row);
    struct cb_tensor *last = op_argmax(g, op_mul(g, op_cast(g, is_end, CB_DTYPE_I32), place), 1, 1, false);
    x = op_embedding(g, op_reshape(g, x, 2, flat), op_add(g, last, model_counting(g, io->batch, 0, t)));
    x = nn_linear(nn, nn_dropout(nn, x, o->classifier_dropout), &dense);
    return nn_dropout(nn, nn_activation(nn, "tanh", x), o->classifier_dropout);
}

/* ---- classes */
static const struct model_class generation = {"ForConditionalGeneration", &model_head_seq2seq, .bias = "", .weights = seq2seq_logits_bias};
static const struct model_class labelled = {.name = "ForSequenceClassification",
                                            .head = &model_head_sequence,
                                            .linear = "classification_head.out_proj",
                                            .weights = seq2seq_classifier_weights,
                                            .features = seq2seq_classifier};
const struct model_class *const seq2seq_classes[] = {&generation, &labelled, &model_class_span, NULL};
const char *const seq2seq_ignored[] = {"final_logits_bias", "lm_head.weight", "classification_head.", "qa_outputs.", NULL};
