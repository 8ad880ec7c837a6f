/* The body of T5 and mT5: buckets of relative positions, blocks of self-attention, cross-attention and feed-forward layers. */
#include "models/t5.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/block.h"
#include "ops/ops.h"

/* ---- configuration */
/* "relu", "gated-gelu": the activation, and whether a second projection multiplies it. */
static enum cb_status parse_activation(struct model *m, struct t5 *o, const char *name, struct cb_err *err) {
    const char *kind = strcmp(m->family->name, "mt5") == 0 ? "gated-gelu" : "relu";
    TRY(json_get_str(&kind, m->config, name, "feed_forward_proj", false, err));
    o->is_gated = strncmp(kind, "gated-", 6) == 0;
    o->activation = o->is_gated ? kind + 6 : kind;
    // Transformers reads gated-gelu as the tanh form
    if (strcmp(kind, "gated-gelu") == 0) o->activation = "gelu_new";
    if (!nn_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: feed_forward_proj: found %.60s; wanted relu, gated-gelu, gated-silu, ...", name, kind);
    return CB_OK;
}

enum cb_status t5_parse(struct model *m, const char *name, struct cb_err *err) {
    struct t5 *o = (struct t5 *)m->options;
    const json_t *c = m->config;
    // sizes; layers and caches of the model are the decoder's
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "d_model", 1, 1 << 20, true, err));
    TRY(json_get_int(&m->head_dim, c, name, "d_kv", 1, 1 << 16, true, err));
    TRY(json_get_int(&o->inner, c, name, "d_ff", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->n_head, c, name, "num_heads", 1, 1 << 16, true, err));
    TRY(json_get_int(&o->encoder_layers, c, name, "num_layers", 1, 4096, true, err));
    m->n_layer = o->encoder_layers;
    TRY(json_get_int(&m->n_layer, c, name, "num_decoder_layers", 1, 4096, false, err));
    m->n_kv_head = m->n_head;
    m->max_positions = 512;  // no bound: positions are relative
    o->buckets = 32;
    o->max_distance = 128;
    TRY(json_get_int(&o->buckets, c, name, "relative_attention_num_buckets", 4, 1 << 16, false, err));
    TRY(json_get_int(&o->max_distance, c, name, "relative_attention_max_distance", 2, INT32_MAX, false, err));
    if (o->buckets % 2 || o->max_distance <= o->buckets / 2)
        FAIL(err, CB_E_FORMAT,
             "%s: relative_attention_num_buckets %lld; wanted an even number, its half below relative_attention_max_distance", name,
             (long long)o->buckets);
    // options
    TRY(parse_activation(m, o, name, err));
    o->eps = 1e-6;
    o->dropout = 0.1;
    o->init_factor = 1;
    TRY(json_get_float(&o->eps, c, name, "layer_norm_epsilon", 0, 1, false, err));
    TRY(json_get_float(&o->dropout, c, name, "dropout_rate", 0, 0.999, false, err));
    TRY(json_get_float(&o->init_factor, c, name, "initializer_factor", 0, 1e3, false, err));
    m->tied = strcmp(m->family->name, "mt5") != 0;
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->pad = m->decoder_start = 0;
    TRY(json_get_int(&m->pad, c, name, "pad_token_id", -1, m->vocab - 1, false, err));
    if (m->pad >= 0) m->decoder_start = m->pad;
    m->init_std = o->init_factor;
    m->embedding = "shared.weight";
    return CB_OK;
}

/* ---- weights */
static enum cb_status add(struct model *m, int64_t out, int64_t in, double std, const char *path, const char *name, struct cb_err *err) {
    const struct t5 *o = m->options;
    return model_add_weight(m, err, MODEL_NORMAL, o->init_factor * std, 2, (const int64_t[]){out, in}, "%s.%s.weight", path, name);
}

/* Fresh weights are small enough for attention without a scale. */
static enum cb_status attention_weights(struct model *m, const char *block, int64_t part, const char *name, bool has_bias,
                                        struct cb_err *err) {
    const struct t5 *o = m->options;
    const int64_t c = m->n_embd, width = m->n_head * m->head_dim;
    const double std = 1 / sqrt((double)c);
    char path[128], norm[32];
    snprintf(path, sizeof path, "%s.layer.%lld.%s", block, (long long)part, name);
    snprintf(norm, sizeof norm, "layer.%lld.layer_norm", (long long)part);
    TRY(add(m, width, c, std / sqrt((double)m->head_dim), path, "q", err));
    TRY(add(m, width, c, std, path, "k", err));
    TRY(add(m, width, c, std, path, "v", err));
    TRY(add(m, c, width, 1 / sqrt((double)width), path, "o", err));
    if (has_bias) TRY(add(m, o->buckets, m->n_head, std, path, "relative_attention_bias", err));
    return model_add_norm(m, c, false, block, norm, err);
}

static enum cb_status stack_weights(struct model *m, bool is_decoder, struct cb_err *err) {
    const struct t5 *o = m->options;
    const char *stack = is_decoder ? "decoder" : "encoder";
    const int64_t c = m->n_embd, last = is_decoder ? 2 : 1;
    const double std = 1 / sqrt((double)c);
    char block[64], path[128], norm[32];
    for (int64_t i = 0; i < (is_decoder ? m->n_layer : o->encoder_layers); i++) {
        snprintf(block, sizeof block, "%s.block.%lld", stack, (long long)i);
        snprintf(path, sizeof path, "%s.layer.%lld.DenseReluDense", block, (long long)last);
        snprintf(norm, sizeof norm, "layer.%lld.layer_norm", (long long)last);
        TRY(attention_weights(m, block, 0, "SelfAttention", i == 0, err));
        if (is_decoder) TRY(attention_weights(m, block, 1, "EncDecAttention", false, err));
        TRY(add(m, o->inner, c, std, path, o->is_gated ? "wi_0" : "wi", err));
        if (o->is_gated) TRY(add(m, o->inner, c, std, path, "wi_1", err));
        TRY(add(m, c, o->inner, 1 / sqrt((double)o->inner), path, "wo", err));
        TRY(model_add_norm(m, c, false, block, norm, err));
    }
    return model_add_norm(m, c, false, stack, "final_layer_norm", err);
}

enum cb_status t5_weights(struct model *m, struct cb_err *err) {
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->vocab, m->n_embd}, "%s", m->embedding));
    TRY(model_add_alias(m, "encoder.embed_tokens.weight", m->embedding, err));
    TRY(model_add_alias(m, "decoder.embed_tokens.weight", m->embedding, err));
    if (m->tied) TRY(model_add_alias(m, "lm_head.weight", m->embedding, err));
    TRY(stack_weights(m, false, err));
    return stack_weights(m, true, err);
}

/* ---- relative positions */
/* Bucket of key - query: one each for small distances, then by the logarithm up to the largest. Both directions share the buckets by halves. */
static int64_t bucket(const struct t5 *o, int64_t ahead, bool both_ways) {
    int64_t n = both_ways ? o->buckets / 2 : o->buckets, first = 0;
    if (both_ways && ahead > 0) first = n;
    int64_t distance = both_ways ? (ahead < 0 ? -ahead : ahead) : (ahead < 0 ? -ahead : 0), exact = n / 2;
    if (distance < exact) return first + distance;
    float at = logf((float)distance / (float)exact) / logf((float)o->max_distance / (float)exact) * (float)(n - exact);
    int64_t place = exact + (int64_t)at;
    return first + (place < n ? place : n - 1);
}

/* One stack being built. */
struct stack {
    const struct model *m;
    struct nn *nn;
    const struct model_io *io;
    const struct model_leaves *leaves;
    const char *path, *prefix;  // "decoder"; of its hidden states
    bool is_decoder;
};

/* Bias of the scores, (1 or B,H,Tq,Tk): the row of each distance's bucket, looked up by position. */
static struct cb_tensor *position_bias(const struct stack *s, int64_t tq, int64_t tk, struct cb_tensor *start) {
    const struct t5 *o = s->m->options;
    struct cb_graph *g = s->nn->g;
    const int64_t span = 2 * tk - 1, b = start ? s->io->batch : 1;
    int32_t *row = arena_array(g->arena, (size_t)span, sizeof *row);
    if (!row) return graph_fail(g, CB_E_MEMORY, "attention: no memory for %lld distances", (long long)span);
    for (int64_t i = 0; i < span; i++) row[i] = (int32_t)bucket(o, i - (tk - 1), !s->is_decoder);
    const char *name = nn_name(s->nn, "%s.block.0.layer.0.SelfAttention.relative_attention_bias", s->path);
    struct cb_tensor *buckets = graph_const(g, type_make(CB_DTYPE_I32, 1, &span), row);
    struct cb_tensor *by_distance = nn_embedding(s->nn, buckets, name, o->buckets, s->m->n_head);
    // key - query + tk - 1; queries stand at start and after
    const int64_t past = s->is_decoder ? s->leaves->decoder_past : s->leaves->past;
    struct cb_tensor *q = op_reshape(g, model_counting(g, tq, past, 1), 3, (const int64_t[]){1, tq, 1});
    if (start) q = op_add(g, q, op_reshape(g, start, 3, (const int64_t[]){b, 1, 1}));
    struct cb_tensor *at = op_sub(g, op_reshape(g, model_counting(g, tk, tk - 1, 1), 3, (const int64_t[]){1, 1, tk}), q);
    return op_permute(g, op_embedding(g, by_distance, at), 4, (const int64_t[]){0, 3, 1, 2});
}

/* ---- blocks */
static struct cb_tensor *norm(const struct stack *s, struct cb_tensor *x, const char *path, const char *name) {
    return nn_rms_norm(s->nn, x, nn_name(s->nn, "%s.%s", path, name), ((const struct t5 *)s->m->options)->eps);
}

static struct nn_heads heads_of(const struct stack *s, const char *path) {
    return (struct nn_heads){.path = path,
                             .q = "q",
                             .k = "k",
                             .v = "v",
                             .out = "o",
                             .width = s->m->n_embd,
                             .heads = s->m->n_head,
                             .head_dim = s->m->head_dim,
                             .no_bias = true};
}

/* x + drop(y), y being layer k of the block. */
static struct cb_tensor *joined(const struct stack *s, const char *block, int k, const char *role, struct cb_tensor *x,
                                struct cb_tensor *y) {
    const struct nn_join join = {.name = nn_name(s->nn, "%s.layer.%d", block, k), .role = role, .residual = x};
    return nn_join(s->nn, nn_dropout(s->nn, y, ((const struct t5 *)s->m->options)->dropout), &join);
}

static struct cb_tensor *self_attention(const struct stack *s, const char *block, struct cb_tensor *x, struct cb_tensor *bias) {
    const struct t5 *o = s->m->options;
    const struct model_leaves *l = s->leaves;
    const struct nn_heads h = heads_of(s, nn_name(s->nn, "%s.layer.0.SelfAttention", block));
    struct nn_attention a = {.name = h.path, .bidirectional = !s->is_decoder, .dropout = o->dropout, .scale = 1, .bias = bias};
    a.role = s->is_decoder ? "decoder" : "encoder";
    a.q_segment = s->is_decoder ? l->decoder_q_segment : l->q_segment;
    a.k_segment = s->is_decoder ? l->decoder_k_segment : l->k_segment;
    a.cache = s->is_decoder ? s->io->cache : 0;
    a.start = a.cache ? l->start : NULL;
    struct cb_tensor *y = nn_heads(s->nn, norm(s, x, block, "layer.0.layer_norm"), NULL, NULL, &h, &a);
    return joined(s, block, 0, "attention", x, y);
}

static struct cb_tensor *cross_attention(const struct stack *s, const char *block, struct cb_tensor *x, struct cb_tensor *memory) {
    const struct t5 *o = s->m->options;
    const struct nn_heads h = heads_of(s, nn_name(s->nn, "%s.layer.1.EncDecAttention", block));
    struct nn_attention a = {.name = h.path, .bidirectional = true, .dropout = o->dropout, .scale = 1};
    a.role = "cross";
    a.q_segment = s->leaves->memory_q_segment;
    a.k_segment = s->leaves->memory_k_segment;
    struct cb_tensor *k, *v, *q = norm(s, x, block, "layer.1.layer_norm");
    nn_heads_memory(s->nn, memory, &h, s->io->batch, s->io->memory, &k, &v);
    return joined(s, block, 1, "cross_attention", x, nn_heads(s->nn, q, k, v, &h, &a));
}

static struct cb_tensor *feed_forward(const struct stack *s, const char *block, struct cb_tensor *x) {
    const struct t5 *o = s->m->options;
    const int last = s->is_decoder ? 2 : 1;
    struct nn_feed_forward f = {.path = nn_name(s->nn, "%s.layer.%d.DenseReluDense", block, last), .down = "wo", .no_bias = true};
    f.up = o->is_gated ? "wi_1" : "wi";
    f.gate = o->is_gated ? "wi_0" : NULL;
    f.width = s->m->n_embd;
    f.inner = o->inner;
    f.activation = o->activation;
    f.dropout = o->dropout;
    struct cb_tensor *y = nn_feed_forward(s->nn, norm(s, x, block, nn_name(s->nn, "layer.%d.layer_norm", last)), &f);
    return joined(s, block, last, "feed_forward", x, y);
}

static struct cb_tensor *layers(const struct stack *s, struct cb_tensor *ids, int64_t keys, struct cb_tensor *memory) {
    const struct t5 *o = s->m->options;
    struct nn *nn = s->nn;
    const int64_t n = s->is_decoder ? s->m->n_layer : o->encoder_layers;
    struct cb_tensor *x = nn_dropout(nn, nn_embedding(nn, ids, "shared", s->m->vocab, s->m->n_embd), o->dropout);
    if (graph_is_bad(nn->g, x)) return x;
    struct cb_tensor *bias = position_bias(s, x->type.dim[1], keys, s->is_decoder && s->io->cache ? s->leaves->start : NULL);
    if (!s->is_decoder) x = nn_embedded(nn, x, "encoder.invertible_adapters");
    x = model_hidden_of(nn, s->io, s->prefix, x, 0, NULL);
    nn->layers_before = s->is_decoder ? (int)o->encoder_layers : 0;
    for (nn->layer = 0; nn->layer < n && !graph_is_bad(nn->g, x); nn->layer++) {
        const char *block = nn_name(nn, "%s.block.%d", s->path, nn->layer), *old = graph_push(nn->g, "%sblock.%d", s->prefix, nn->layer);
        x = self_attention(s, block, x, bias);
        if (s->is_decoder) x = cross_attention(s, block, x, memory);
        x = model_hidden_of(nn, s->io, s->prefix, feed_forward(s, block, x), nn->layer + 1, block);
        graph_pop(nn->g, old);
    }
    nn->layer = -1;
    return nn_dropout(nn, norm(s, x, s->path, "final_layer_norm"), o->dropout);
}

/* Keys and values of the source into the caches of every decoder layer. */
static void write_memory(const struct stack *s, struct cb_tensor *memory) {
    struct cb_tensor *k, *v;
    for (s->nn->layer = 0; s->nn->layer < s->m->n_layer && !graph_is_bad(s->nn->g, memory); s->nn->layer++) {
        struct nn_heads h = heads_of(s, nn_name(s->nn, "decoder.block.%d.layer.1.EncDecAttention", s->nn->layer));
        nn_heads_memory(s->nn, memory, &h, s->io->batch, s->io->memory, &k, &v);
    }
    s->nn->layer = -1;
}

struct cb_tensor *t5_body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    struct stack encoder = {m, nn, io, leaves, "encoder", "encoder.", false}, decoder = {m, nn, io, leaves, "decoder", "decoder.", true};
    struct cb_tensor *memory = NULL;
    if (leaves->ids) {
        memory = layers(&encoder, leaves->ids, leaves->length, NULL);
        if (!io->memory && io->want_logits) graph_output(nn->g, memory, "encoder_last_hidden_state");
    }
    if (leaves->decoder_ids) return layers(&decoder, leaves->decoder_ids, leaves->decoder_length, memory);
    write_memory(&decoder, memory);
    return memory;
}

struct cb_tensor *t5_head_rows(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                               struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    return m->tied ? op_scale(nn->g, x, 1 / sqrt((double)m->n_embd), 0) : x;
}

const char *const t5_ignored[] = {"lm_head.weight", ".EncDecAttention.relative_attention_bias.weight", NULL};

static const struct model_class generation = {"ForConditionalGeneration", &model_head_seq2seq, .bias = "", .features = t5_head_rows};
const struct model_class *const t5_classes[] = {&generation, NULL};
