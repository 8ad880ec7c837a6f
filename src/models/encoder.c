/* The body and features of BERT and its kin, by the names that a family gives. */
#include "models/encoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/block.h"
#include "ops/ops.h"

/* ---- configuration */
static const struct encoder_keys bert_keys = {"hidden_size", "num_hidden_layers",   "num_attention_heads",          "intermediate_size",
                                              "hidden_act",  "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"};

/* Absolute positions are of the embeddings; relative ones (Shaw et al. 2018; Huang et al. 2020, methods 2 and 4) of the scores. */
static enum cb_status parse_positions(struct model *m, struct encoder *e, const char *name, struct cb_err *err) {
    const char *kind = "absolute";
    if (e->names->distances) TRY(json_get_str(&kind, m->config, name, "position_embedding_type", false, err));
    e->key_distances = strcmp(kind, "relative_key_query") == 0;
    e->query_distances = e->key_distances || strcmp(kind, "relative_key") == 0;
    if (!e->query_distances && strcmp(kind, "absolute") != 0)
        FAIL(err, CB_E_UNSUPPORTED, "%s: position_embedding_type: found %.60s; wanted absolute, relative_key or relative_key_query", name,
             kind);
    TRY(json_get_int(&e->table, m->config, name, "max_position_embeddings", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->pad, m->config, name, "pad_token_id", -1, m->vocab - 1, false, err));
    if (e->names->counts_positions) {
        if (m->pad < 0) FAIL(err, CB_E_FORMAT, "%s: pad_token_id: found none; wanted one, positions are counted from it", name);
        m->position_offset = m->pad + 1;
    }
    m->max_positions = e->table - m->position_offset;
    if (m->max_positions < 1)
        FAIL(err, CB_E_FORMAT, "%s: max_position_embeddings: found %lld; wanted more than %lld, where positions begin", name,
             (long long)e->table, (long long)m->position_offset);
    m->learned_positions = true;
    return CB_OK;
}

/* These bodies read both ways and one text. */
static enum cb_status refuse_decoder(const struct model *m, const char *name, struct cb_err *err) {
    static const char *const keys[] = {"is_decoder", "add_cross_attention"};
    for (int i = 0; i < 2; i++) {
        bool is_set = false;
        TRY(json_get_bool(&is_set, m->config, name, keys[i], false, err));
        if (is_set) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found true; wanted false: %s is an encoder here", name, keys[i], m->family->name);
    }
    return CB_OK;
}

enum cb_status encoder_parse(struct model *m, const char *name, const struct encoder_names *names, const struct encoder_keys *keys,
                             struct cb_err *err) {
    struct encoder *e = (struct encoder *)m->options;
    const json_t *c = m->config;
    if (!keys) keys = &bert_keys;
    e->names = names;
    // sizes
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, keys->hidden, 1, 1 << 20, true, err));
    TRY(json_get_int(&m->n_layer, c, name, keys->layers, 1, 4096, true, err));
    TRY(json_get_int(&m->n_head, c, name, keys->heads, 1, 1 << 16, true, err));
    TRY(json_get_int(&e->inner, c, name, keys->inner, 1, 1 << 24, true, err));
    if (m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %lld; wanted a divisor of %s %lld", name, keys->heads, (long long)m->n_head, keys->hidden,
             (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    e->embedding = m->n_embd;
    if (names->project) TRY(json_get_int(&e->embedding, c, name, "embedding_size", 1, 1 << 20, false, err));
    TRY(json_get_int(&m->n_types, c, name, "type_vocab_size", 0, 1 << 16, false, err));
    TRY(refuse_decoder(m, name, err));
    TRY(parse_positions(m, e, name, err));
    // options
    e->activation = "gelu";
    TRY(json_get_str(&e->activation, c, name, keys->activation, false, err));
    if (!nn_is_activation(e->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %.60s; wanted gelu, gelu_new, relu, silu, ...", name, keys->activation, e->activation);
    e->eps = 1e-12;
    e->dropout = e->attention_dropout = 0.1;
    TRY(json_get_float(&e->eps, c, name, "layer_norm_eps", 0, 1, false, err));
    TRY(json_get_float(&e->dropout, c, name, keys->dropout, 0, 0.999, false, err));
    TRY(json_get_float(&e->attention_dropout, c, name, keys->attention_dropout, 0, 0.999, false, err));
    e->classifier_dropout = e->dropout;
    TRY(json_get_float(&e->classifier_dropout, c, name, keys->classifier_dropout, 0, 0.999, false, err));
    m->tied = true;
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->embedding = arena_printf(m->arena, "%s.word_embeddings.weight", names->embeddings);
    if (!m->embedding) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", name);
    return CB_OK;
}

/* ---- weights */
/* Path of block j of layer (or group) i. */
static void layer_path(const struct encoder *e, char path[256], int64_t i, int64_t j) {
    snprintf(path, 256, e->names->layer, (int)i, (int)j);
}

static enum cb_status embedding_weights(struct model *m, struct cb_err *err) {
    const struct encoder *e = m->options;
    const char *path = e->names->embeddings;
    const int64_t c = e->embedding;
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->vocab, c}, "%s.word_embeddings.weight", path));
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){e->table, c}, "%s.position_embeddings.weight", path));
    if (m->n_types)
        TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->n_types, c}, "%s.token_type_embeddings.weight",
                             path));
    return model_add_norm(m, c, true, path, "LayerNorm", err);
}

static bool projects(const struct model *m) {
    const struct encoder *e = m->options;
    return e->names->project && (e->names->project_always || e->embedding != m->n_embd);
}

static enum cb_status block_weights(struct model *m, const char *path, struct cb_err *err) {
    const struct encoder *e = m->options;
    const struct encoder_names *n = e->names;
    const int64_t c = m->n_embd;
    const char *const apart[3] = {n->q, n->k, n->v};
    if (n->fused) TRY(model_add_linear(m, c, 3 * c, false, path, n->fused, err));
    for (int i = 0; i < 3 && !n->fused; i++) TRY(model_add_linear(m, c, c, true, path, apart[i], err));
    if (e->query_distances)
        TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){2 * e->table - 1, m->head_dim}, "%s.%s.weight", path,
                             n->distances));
    TRY(model_add_linear(m, c, c, true, path, n->out, err));
    TRY(model_add_norm(m, c, true, path, n->attention_norm, err));
    TRY(model_add_linear(m, c, e->inner, true, path, n->up, err));
    TRY(model_add_linear(m, e->inner, c, true, path, n->down, err));
    return model_add_norm(m, c, true, path, n->norm, err);
}

enum cb_status encoder_layer_weights(struct model *m, struct cb_err *err) {
    const struct encoder *e = m->options;
    char path[256];
    for (int64_t i = 0; i < (e->groups ? e->groups : m->n_layer); i++)
        for (int64_t j = 0; j < (e->groups ? e->group_size : 1); j++) {
            layer_path(e, path, i, j);
            TRY(block_weights(m, path, err));
        }
    return CB_OK;
}

enum cb_status encoder_weights(struct model *m, struct cb_err *err) {
    const struct encoder *e = m->options;
    TRY(embedding_weights(m, err));
    if (projects(m)) TRY(model_add_linear(m, e->embedding, m->n_embd, true, "", e->names->project, err));
    return encoder_layer_weights(m, err);
}

/* ---- graph */
/* Numbers of the rows of position_embeddings, (B,T) or (T). */
static struct cb_tensor *position_rows(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    const struct encoder *e = m->options;
    struct cb_graph *g = nn->g;
    const int32_t pad = (int32_t)m->pad, first = pad + 1, past = (int32_t)leaves->past;
    if (!e->names->counts_positions || (io->position_ids && !io->segments)) return leaves->positions;
    if (io->position_ids) return op_add(g, leaves->positions, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &first));
    // tokens count from pad + 1, padding stays at pad
    struct cb_tensor *pad_id = graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &pad);
    struct cb_tensor *is_token = op_cast(g, op_compare(g, "ne", leaves->ids, pad_id), CB_DTYPE_F32);
    struct cb_tensor *count = op_scale(g, op_cumsum(g, is_token, 1, false), 1, past);
    return op_add(g, op_cast(g, op_mul(g, count, is_token), CB_DTYPE_I32), pad_id);
}

struct cb_tensor *encoder_embed(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    const struct encoder *e = m->options;
    struct cb_graph *g = nn->g;
    const char *path = e->names->embeddings;
    const int64_t c = e->embedding;
    struct cb_tensor *x = nn_embedding_padded(nn, leaves->ids, nn_name(nn, "%s.word_embeddings", path), m->vocab, c, m->pad);
    if (m->n_types) x = op_add(g, x, nn_embedding(nn, leaves->types, nn_name(nn, "%s.token_type_embeddings", path), m->n_types, c));
    if (!e->query_distances) {
        struct cb_tensor *rows = position_rows(m, nn, io, leaves);
        x = op_add(g, x, nn_embedding_padded(nn, rows, nn_name(nn, "%s.position_embeddings", path), e->table, c, m->position_offset - 1));
    }
    x = nn_layer_norm(nn, x, nn_name(nn, "%s.LayerNorm", path), e->eps);
    return nn_dropout(nn, x, e->dropout);
}

/* Row t - 1 + i - j of x (B,H,T,2t - 1), i being the row of x or, turned, its column: (B,H,T,T). */
static struct cb_tensor *distances_pick(struct cb_graph *g, struct cb_tensor *x, bool is_turned) {
    if (graph_is_bad(g, x)) return x;
    const int64_t *d = x->type.dim, t = d[2], shape[4] = {d[0], d[1], t, t};
    int32_t *row = t <= 1 << 14 ? arena_array(g->arena, (size_t)(t * t), sizeof *row) : NULL;
    if (!row) return graph_fail(g, CB_E_MEMORY, "attention: no memory for %lld x %lld distances", (long long)t, (long long)t);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < t; j++) row[i * t + j] = (int32_t)(t - 1 + (is_turned ? j - i : i - j));
    struct cb_tensor *rows = graph_const(g, type_make(CB_DTYPE_I32, 4, (const int64_t[]){1, 1, t, t}), row);
    return op_gather(g, x, op_expand(g, rows, 4, shape), 3);
}

/* What distances i - j add to the scores (B,H,T,T) of q and k (B,T,H,D). */
static struct cb_tensor *distance_scores(const struct model *m, struct nn *nn, const char *path, struct cb_tensor *q, struct cb_tensor *k) {
    const struct encoder *e = m->options;
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, q) || graph_is_bad(g, k)) return &g->bad_tensor;
    const int64_t t = q->type.dim[1], all = 2 * e->table - 1;
    if (t > e->table)
        return graph_fail(g, CB_E_SHAPE, "%s: found %lld rows; wanted %lld at most (max_position_embeddings)", path, (long long)t,
                          (long long)e->table);
    struct cb_tensor *table =
        nn_embedding(nn, model_counting(g, 2 * t - 1, e->table - t, 1), nn_name(nn, "%s.%s", path, e->names->distances), all, m->head_dim);
    struct cb_tensor *score = distances_pick(g, op_matmul(g, op_transpose(g, q, 1, 2), table, false, true), false);
    if (e->key_distances) {
        struct cb_tensor *key = distances_pick(g, op_matmul(g, op_transpose(g, k, 1, 2), table, false, true), true);
        score = op_add(g, score, op_transpose(g, key, 2, 3));
    }
    return e->names->distances_unscaled ? score : op_scale(g, score, 1 / sqrt((double)m->head_dim), 0);
}

/* Attention in both directions, under padding or segments. */
static struct cb_tensor *self_attention(const struct model *m, struct nn *nn, const struct model_leaves *leaves, const char *path,
                                        struct cb_tensor *x) {
    const struct encoder *e = m->options;
    const struct encoder_names *n = e->names;
    struct nn_heads heads = {.path = path, .q = n->q, .k = n->k, .v = n->v, .out = n->out, .width = m->n_embd, .heads = m->n_head};
    heads.head_dim = m->head_dim;
    const int length = (int)(strrchr(n->q, '.') - n->q);  // what the projections lie in
    struct nn_attention attention = {.name = nn_name(nn, "%s.%.*s", path, length, n->q), .bidirectional = true};
    attention.dropout = e->attention_dropout;
    attention.bias = leaves->sight;
    attention.q_segment = leaves->sight ? NULL : leaves->q_segment;
    attention.k_segment = leaves->sight ? NULL : leaves->k_segment;
    if (!e->query_distances) return nn_heads(nn, x, NULL, NULL, &heads, &attention);
    struct cb_tensor *q = nn_heads_project(nn, x, &heads, n->q, true), *k = nn_heads_project(nn, x, &heads, n->k, true);
    struct cb_tensor *v = nn_heads_project(nn, x, &heads, n->v, true), *scores = distance_scores(m, nn, path, q, k);
    attention.bias = attention.bias ? op_add(nn->g, attention.bias, scores) : scores;
    attention.input = x;
    return nn_heads_join(nn, q, k, v, &heads, &attention);
}

/* norm(x + y), y being part k of the block. */
static struct cb_tensor *joined(const struct encoder *e, struct nn *nn, const char *path, int k, struct cb_tensor *x, struct cb_tensor *y) {
    const struct encoder_names *n = e->names;
    struct nn_join join = {.role = k ? "feed_forward" : "attention", .residual = x, .eps = e->eps};
    join.norm = nn_name(nn, "%s.%s", path, k ? n->norm : n->attention_norm);
    join.name = n->joins[k] ? nn_name(nn, "%s.%s", path, n->joins[k]) : model_join_name(nn, path, join.role);
    return nn_join(nn, y, &join);
}

/* One block: x = norm(x + attention(x)), x = norm(x + mlp(x)). */
static struct cb_tensor *block(const struct model *m, struct nn *nn, const struct model_leaves *leaves, const char *path,
                               struct cb_tensor *x) {
    const struct encoder *e = m->options;
    const struct encoder_names *n = e->names;
    struct cb_tensor *y = (n->attention ? n->attention : self_attention)(m, nn, leaves, path, x);
    x = joined(e, nn, path, 0, x, nn_dropout(nn, y, e->dropout));
    struct nn_feed_forward mlp = {.path = path, .up = n->up, .down = n->down, .width = m->n_embd, .inner = e->inner};
    mlp.activation = e->activation;
    return joined(e, nn, path, 1, x, nn_dropout(nn, nn_feed_forward(nn, x, &mlp), e->dropout));
}

struct cb_tensor *encoder_body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct encoder *e = m->options;
    struct cb_graph *g = nn->g;
    char path[256];
    struct cb_tensor *x = (e->names->embed ? e->names->embed : encoder_embed)(m, nn, io, leaves), *embedded = x;
    if (!e->names->embed) x = nn_inputs(nn, x, nn_name(nn, "%sprompt_tuning", nn->prefix));
    x = nn_embedded(nn, x, nn_name(nn, "%sinvertible_adapters", nn->prefix));
    if (projects(m))
        x = nn_linear(nn, x, &(struct nn_linear){.name = e->names->project, .in = e->embedding, .out = m->n_embd, .bias = true});
    x = model_hidden(nn, io, x, 0, NULL);
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *old = graph_push(g, "layer.%d", nn->layer);
        // layers of a group share their blocks
        int64_t shared = e->groups ? nn->layer * e->groups / m->n_layer : nn->layer;
        for (int64_t j = 0; j < (e->groups ? e->group_size : 1); j++) {
            layer_path(e, path, shared, j);
            x = block(m, nn, leaves, path, x);
        }
        x = model_hidden(nn, io, x, nn->layer + 1, nn_name(nn, "%s", path));
        if (e->names->after) x = e->names->after(m, nn, leaves, embedded, x);
        graph_pop(g, old);
    }
    nn->layer = -1;
    return x;
}

/* ---- features */
enum cb_status encoder_masked_weights(struct model *m, struct cb_err *err) {
    const struct encoder *e = m->options;
    char alias[256];
    m->n_features = e->embedding;
    TRY(model_add_linear(m, m->n_embd, e->embedding, true, "", e->names->transform, err));
    TRY(model_add_norm(m, e->embedding, true, "", e->names->transform_norm, err));
    // other names of the shared table and of the bias
    snprintf(alias, sizeof alias, "%s.weight", m->class->linear);
    if (m->tied) TRY(model_add_alias(m, alias, m->embedding, err));
    snprintf(alias, sizeof alias, "%s.bias", m->class->linear);
    return m->class->bias ? model_add_alias(m, alias, m->class->bias, err) : CB_OK;
}

struct cb_tensor *encoder_masked(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    const struct encoder *e = m->options;
    const struct encoder_names *n = e->names;
    x = nn_linear(nn, x, &(struct nn_linear){.name = n->transform, .in = m->n_embd, .out = e->embedding, .bias = true});
    x = nn_activation(nn, n->transform_activation ? n->transform_activation : e->activation, x);
    return nn_layer_norm(nn, x, n->transform_norm, e->eps);
}

enum cb_status encoder_pooled_weights(struct model *m, struct cb_err *err) {
    const struct encoder *e = m->options;
    return model_add_linear(m, m->n_embd, m->n_embd, true, "", e->names->pooler, err);
}

struct cb_tensor *encoder_pooler(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x) {
    const struct encoder *e = m->options;
    x = model_features_first(m, nn, io, leaves, x);
    x = nn_linear(nn, x, &(struct nn_linear){.name = e->names->pooler, .in = m->n_embd, .out = m->n_embd, .bias = true});
    return nn_activation(nn, "tanh", x);
}

struct cb_tensor *encoder_given_pooler(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                       struct cb_tensor *x) {
    const struct encoder *e = m->options;
    if (!e->names->pooler || !model_find_weight(m, nn_name(nn, "%s.weight", e->names->pooler)))
        return graph_fail(nn->g, CB_E_UNSUPPORTED, "%s: no pooler, which the head reads", m->class->name);
    return encoder_pooler(m, nn, io, leaves, x);
}

struct cb_tensor *encoder_pooled(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x) {
    const struct encoder *e = m->options;
    return nn_dropout(nn, encoder_pooler(m, nn, io, leaves, x), e->classifier_dropout);
}

/* A body alone: bodies are written with a pooler or without. */
static enum cb_status states_weights(struct model *m, struct cb_err *err) {
    TRY(encoder_pooled_weights(m, err));
    model_make_optional(m, 2);
    return CB_OK;
}

static struct cb_tensor *states(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                struct cb_tensor *x) {
    const struct encoder *e = m->options;
    const bool has_pooler = model_find_weight(m, nn_name(nn, "%s.weight", e->names->pooler)) != NULL;
    if (has_pooler && io->want_logits) graph_output(nn->g, encoder_pooler(m, nn, io, leaves, x), "pooler_output");
    return x;
}

enum cb_status encoder_dense_weights(struct model *m, struct cb_err *err) {
    const struct encoder *e = m->options;
    return model_add_linear(m, m->n_embd, m->n_embd, true, "", e->names->dense, err);
}

struct cb_tensor *encoder_dense(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                struct cb_tensor *x) {
    const struct encoder *e = m->options;
    const struct nn_linear dense = {.name = e->names->dense, .kind = NN_HEAD, .in = m->n_embd, .out = m->n_embd, .bias = true};
    x = nn_dropout(nn, model_features_first(m, nn, io, leaves, x), e->classifier_dropout);
    x = nn_activation(nn, e->names->dense_activation, nn_linear(nn, x, &dense));
    return nn_dropout(nn, x, e->classifier_dropout);
}

struct cb_tensor *encoder_tokens(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    const struct encoder *e = m->options;
    return nn_dropout(nn, x, e->classifier_dropout);
}

static struct cb_tensor *tokens_plain(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                      struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    return nn_dropout(nn, x, ((const struct encoder *)m->options)->dropout);
}

/* ---- classes */
const struct model_class encoder_class_masked = ENCODER_MASKED("cls.predictions.decoder", "cls.predictions.bias");
const struct model_class encoder_class_pooled = {.name = "ForSequenceClassification",
                                                 .head = &model_head_sequence,
                                                 .linear = "classifier",
                                                 .weights = encoder_pooled_weights,
                                                 .features = encoder_pooled};
const struct model_class encoder_class_pooled_choice = {.name = "ForMultipleChoice",
                                                        .head = &model_head_choice,
                                                        .linear = "classifier",
                                                        .weights = encoder_pooled_weights,
                                                        .features = encoder_pooled};
const struct model_class encoder_class_dense = {.name = "ForSequenceClassification",
                                                .head = &model_head_sequence,
                                                .linear = "classifier.out_proj",
                                                .weights = encoder_dense_weights,
                                                .features = encoder_dense};
const struct model_class encoder_class_tokens = {
    .name = "ForTokenClassification", .head = &model_head_tokens, .linear = "classifier", .features = encoder_tokens};
const struct model_class encoder_class_tokens_plain = {
    .name = "ForTokenClassification", .head = &model_head_tokens, .linear = "classifier", .features = tokens_plain};
const struct model_class encoder_class_states = {
    .name = "Model", .prefix = "", .head = &model_head_states, .weights = states_weights, .features = states};
