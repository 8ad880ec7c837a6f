/* What the versions of DeBERTa share: attention that scores contents and relative positions apart (He et al. 2021). */
#include "models/deberta.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "nn/block.h"
#include "ops/ops.h"

/* ---- configuration */
/* Whether word is in key's list, or in a text of words between bars. */
static bool has_word(const json_t *config, const char *key, const char *word) {
    const json_t *value = json_object_get(config, key);
    size_t i, n = strlen(word);
    json_t *one;
    json_array_foreach((json_t *)value, i, one) if (json_is_string(one) && strcmp(json_string_value(one), word) == 0) return true;
    for (const char *p = json_string_value(value); p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        p += strspn(p, " ");
        if (strncasecmp(p, word, n) == 0 && strchr("| ", p[n])) return true;
    }
    return false;
}

static enum cb_status parse_pooler(struct model *m, struct deberta *o, const char *name, struct cb_err *err) {
    const json_t *c = m->config;
    int64_t pooler = 0, head = 0;
    o->pooler_activation = "gelu";
    TRY(json_get_str(&o->pooler_activation, c, name, "pooler_hidden_act", false, err));
    TRY(json_get_float(&o->pooler_dropout, c, name, "pooler_dropout", 0, 0.999, false, err));
    TRY(json_get_int(&pooler, c, name, "pooler_hidden_size", 1, 1 << 20, false, err));
    TRY(json_get_int(&head, c, name, "attention_head_size", 1, 1 << 20, false, err));
    if ((pooler && pooler != m->n_embd) || (head && head != m->head_dim))
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %lld; wanted what hidden_size gives, %lld", name,
             pooler && pooler != m->n_embd ? "pooler_hidden_size" : "attention_head_size",
             (long long)(pooler && pooler != m->n_embd ? pooler : head),
             (long long)(pooler && pooler != m->n_embd ? m->n_embd : m->head_dim));
    if (!nn_is_activation(o->pooler_activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: pooler_hidden_act: found %.40s; wanted gelu, tanh, relu, ...", name, o->pooler_activation);
    return CB_OK;
}

enum cb_status deberta_parse(struct model *m, const struct encoder_names *names, const char *name, struct cb_err *err) {
    struct deberta *o = (struct deberta *)m->options;
    const json_t *c = m->config;
    m->pad = 0;
    o->names = *names;
    o->legacy = true;
    TRY(json_get_bool(&o->legacy, c, name, "legacy", false, err));
    if (!o->legacy) {
        o->names.transform = "lm_predictions.lm_head.dense";
        o->names.transform_norm = "lm_predictions.lm_head.LayerNorm";
    }
    TRY(encoder_parse(m, name, &o->names, NULL, err));
    if (!json_object_get(c, "layer_norm_eps")) o->encoder.eps = 1e-7;
    TRY(json_get_int(&o->encoder.embedding, c, name, "embedding_size", 1, 1 << 20, false, err));
    TRY(json_get_float(&o->encoder.classifier_dropout, c, name, "cls_dropout", 0, 0.999, false, err));
    o->absolute = true;
    o->buckets = o->distance = -1;
    TRY(json_get_bool(&o->relative, c, name, "relative_attention", false, err));
    TRY(json_get_bool(&o->absolute, c, name, "position_biased_input", false, err));
    TRY(json_get_bool(&o->shares_keys, c, name, "share_att_key", false, err));
    TRY(json_get_int(&o->buckets, c, name, "position_buckets", -1, 1 << 20, false, err));
    TRY(json_get_int(&o->distance, c, name, "max_relative_positions", -1, 1 << 20, false, err));
    if (o->distance < 1) o->distance = o->encoder.table;
    o->span = o->buckets > 0 ? o->buckets : o->distance;
    o->content_to_position = has_word(c, "pos_att_type", "c2p");
    o->position_to_content = has_word(c, "pos_att_type", "p2c");
    o->norms_positions = has_word(c, "norm_rel_ebd", "layer_norm");  // files have the norm where no position is read too
    if (o->buckets > 0 && (o->buckets < 2 || o->distance <= o->buckets / 2 + 1))
        FAIL(err, CB_E_FORMAT, "%s: position_buckets: found %lld; wanted 2 or more, their half below max_relative_positions %lld - 1", name,
             (long long)o->buckets, (long long)o->distance);
    m->learned_positions = o->absolute;
    return parse_pooler(m, o, name, err);
}

/* ---- weights */
/* The head that is not legacy has names of its own and reads the table of words, whatever tie_word_embeddings says. */
static enum cb_status head_settle(struct model *m, struct cb_err *err) {
    const struct deberta *o = m->options;
    struct model_class *own = (struct model_class *)(uintptr_t)m->class;  // the model's copy
    if (o->legacy || own->head != &model_head_masked_lm) return CB_OK;
    own->linear = "lm_predictions.lm_head.decoder";
    own->bias = "lm_predictions.lm_head.bias";
    m->tied = true;
    if (o->encoder.embedding != m->n_embd)
        FAIL(err, CB_E_UNSUPPORTED, "config.json: embedding_size: found %lld; wanted hidden_size %lld where legacy is false",
             (long long)o->encoder.embedding, (long long)m->n_embd);
    return CB_OK;
}

enum cb_status deberta_weights(struct model *m, struct cb_err *err) {
    const struct deberta *o = m->options;
    const int64_t c = m->n_embd, e = o->encoder.embedding;
    char path[64];
    TRY(head_settle(m, err));
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->vocab, e},
                         "deberta.embeddings.word_embeddings.weight"));
    if (o->absolute)
        TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){o->encoder.table, e},
                             "deberta.embeddings.position_embeddings.weight"));
    if (m->n_types)
        TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){m->n_types, e},
                             "deberta.embeddings.token_type_embeddings.weight"));
    if (e != c) TRY(model_add_linear(m, e, c, false, "", "deberta.embeddings.embed_proj", err));
    TRY(model_add_norm(m, c, true, "", "deberta.embeddings.LayerNorm", err));
    TRY(encoder_layer_weights(m, err));
    for (int64_t i = 0; i < m->n_layer && o->relative && !o->shares_keys; i++) {
        snprintf(path, sizeof path, "deberta.encoder.layer.%lld", (long long)i);
        if (o->content_to_position) TRY(model_add_linear(m, c, c, o->position_key_bias, path, o->position_key, err));
        if (o->position_to_content) TRY(model_add_linear(m, c, c, true, path, o->position_query, err));
    }
    if (o->relative)
        TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, (const int64_t[]){2 * o->span, c},
                             "deberta.encoder.rel_embeddings.weight"));
    return o->norms_positions ? model_add_norm(m, c, true, "", "deberta.encoder.LayerNorm", err) : CB_OK;
}

/* ---- graph */
/* x (B,T,C), zero at padding. */
struct cb_tensor *deberta_masked(struct cb_graph *g, struct cb_tensor *x, const struct model_leaves *leaves) {
    if (!leaves->mask || graph_is_bad(g, x)) return x;
    return op_mul(g, x, op_reshape(g, op_cast(g, leaves->mask, CB_DTYPE_F32), 3, (const int64_t[]){x->type.dim[0], x->type.dim[1], 1}));
}

struct cb_tensor *deberta_embed(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    (void)io;
    const struct deberta *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t e = o->encoder.embedding;
    struct cb_tensor *x = nn_embedding_padded(nn, leaves->ids, "deberta.embeddings.word_embeddings", m->vocab, e, m->pad);
    if (o->absolute) x = op_add(g, x, nn_embedding(nn, leaves->positions, "deberta.embeddings.position_embeddings", o->encoder.table, e));
    if (m->n_types) x = op_add(g, x, nn_embedding(nn, leaves->types, "deberta.embeddings.token_type_embeddings", m->n_types, e));
    if (e != m->n_embd) x = nn_linear(nn, x, &(struct nn_linear){.name = "deberta.embeddings.embed_proj", .in = e, .out = m->n_embd});
    x = deberta_masked(g, nn_layer_norm(nn, x, "deberta.embeddings.LayerNorm", o->encoder.eps), leaves);
    return nn_dropout(nn, x, o->encoder.dropout);
}

/* Bucket of a distance: itself up to half the buckets, then by its logarithm up to the largest distance. */
static int64_t bucket(const struct deberta *o, int64_t distance) {
    if (o->buckets <= 0) return distance;
    const int64_t mid = o->buckets / 2, size = distance < 0 ? -distance : distance;
    if (size <= mid) return distance;
    float at = logf((float)size / (float)mid) / logf((float)(o->distance - 1) / (float)mid) * (float)(mid - 1);
    int64_t place = (int64_t)ceilf(at) + mid;
    return distance < 0 ? -place : place;
}

/* Rows of rel_embeddings, i32 (B,H,T,T): clamp(sign * bucket(i - j) + span). */
static struct cb_tensor *position_index(struct cb_graph *g, const struct deberta *o, const int64_t shape[4], int sign) {
    const int64_t t = shape[2];
    int32_t *row = t <= 1 << 14 ? arena_array(g->arena, (size_t)(t * t), sizeof *row) : NULL;
    if (!row) return graph_fail(g, CB_E_MEMORY, "attention: no memory for %lld x %lld distances", (long long)t, (long long)t);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < t; j++) {
            int64_t at = sign * bucket(o, i - j) + o->span;
            row[i * t + j] = (int32_t)(at < 0 ? 0 : at >= 2 * o->span ? 2 * o->span - 1 : at);
        }
    return op_expand(g, graph_const(g, type_make(CB_DTYPE_I32, 4, (const int64_t[]){1, 1, t, t}), row), 4, shape);
}

/* Scores of x (B,H,T,D) with positions: p (1,H,2 span,D) at the rows of position_index. */
static struct cb_tensor *position_scores(struct cb_graph *g, const struct deberta *o, struct cb_tensor *x, struct cb_tensor *p, int sign) {
    if (graph_is_bad(g, x)) return x;
    const int64_t *d = x->type.dim, shape[4] = {d[0], d[1], d[2], d[2]};
    return op_gather(g, op_matmul(g, x, p, false, true), position_index(g, o, shape, sign), 3);
}

/* The table of relative positions, normed: (1, 2 span, C). */
static struct cb_tensor *positions(const struct model *m, struct nn *nn) {
    const struct deberta *o = m->options;
    struct cb_tensor *rows = op_reshape(nn->g, model_counting(nn->g, 2 * o->span, 0, 1), 2, (const int64_t[]){1, 2 * o->span});
    struct cb_tensor *x = nn_embedding(nn, rows, "deberta.encoder.rel_embeddings", 2 * o->span, m->n_embd);
    return o->norms_positions ? nn_layer_norm(nn, x, "deberta.encoder.LayerNorm", o->encoder.eps) : x;
}

static struct cb_tensor *heads_first(struct nn *nn, struct cb_tensor *x, const struct nn_heads *h, const char *name, bool bias) {
    return op_transpose(nn->g, nn_heads_project(nn, x, h, name, bias), 1, 2);
}

/* A bias (C) of its own name, as (1,1,H,D). */
static struct cb_tensor *heads_bias(const struct model *m, struct nn *nn, const char *path, const char *name) {
    const int64_t shape[4] = {1, 1, m->n_head, m->head_dim};
    return op_reshape(nn->g, nn_param(nn, nn_name(nn, "%s.%s", path, name), 1, &m->n_embd), 4, shape);
}

/* Queries, keys and values (B,T,H,D), each of a projection of its own or all of one, head by head, whose queries and values have biases apart. */
static void project(const struct model *m, struct nn *nn, const struct nn_heads *h, struct cb_tensor *x, struct cb_tensor *qkv[3]) {
    const struct encoder_names *n = ((const struct encoder *)m->options)->names;
    const char *const apart[3] = {h->q, h->k, h->v};
    if (!n->fused) {
        for (int i = 0; i < 3; i++) qkv[i] = nn_heads_project(nn, x, h, apart[i], true);
        return;
    }
    const struct nn_linear all = {.name = nn_name(nn, "%s.%s", h->path, n->fused), .role = "qkv", .in = m->n_embd, .out = 3 * m->n_embd};
    nn_split_heads(nn, nn_linear(nn, x, &all), m->n_head, qkv);
    qkv[0] = op_add(nn->g, qkv[0], heads_bias(m, nn, h->path, DEBERTA_QUERY_BIAS));
    qkv[2] = op_add(nn->g, qkv[2], heads_bias(m, nn, h->path, DEBERTA_VALUE_BIAS));
}

/* Content to position and position to content: (B,H,T,T), not yet scaled. */
static struct cb_tensor *disentangled(const struct model *m, struct nn *nn, const struct nn_heads *h, struct cb_tensor *q,
                                      struct cb_tensor *k) {
    const struct deberta *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *score = NULL, *p = nn_dropout(nn, positions(m, nn), o->encoder.dropout);
    if (o->content_to_position)
        score = position_scores(g, o, q,
                                heads_first(nn, p, h, o->shares_keys ? h->k : o->position_key, o->shares_keys || o->position_key_bias), 1);
    if (o->position_to_content) {
        struct cb_tensor *pq = heads_first(nn, p, h, o->shares_keys ? h->q : o->position_query, true);
        struct cb_tensor *back = op_transpose(g, position_scores(g, o, k, pq, -1), 2, 3);
        score = score ? op_add(g, score, back) : back;
    }
    return score;
}

/* Attention in simple ops, as its scores have three parts: padding sees nothing, so that its rows are uniform, as in Transformers. */
struct cb_tensor *deberta_attention(const struct model *m, struct nn *nn, const struct model_leaves *leaves, const char *path,
                                    struct cb_tensor *x) {
    const struct deberta *o = m->options;
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, x)) return x;
    const int64_t b = x->type.dim[0], t = x->type.dim[1], joined[3] = {b, t, m->n_embd};
    const struct encoder_names *names = o->encoder.names;
    struct nn_heads h = {.path = path, .q = names->q, .k = names->k, .v = names->v, .width = m->n_embd, .heads = m->n_head};
    h.head_dim = m->head_dim;
    const struct nn_attention a = {.name = nn_name(nn, "%s.attention.self", path), .input = x, .bidirectional = true};
    struct nn_prefix prefix;
    struct cb_tensor *qkv[3];
    project(m, nn, &h, x, qkv);
    struct cb_tensor *q = op_transpose(g, qkv[0], 1, 2), *k = qkv[1], *v = qkv[2];
    if (!nn_prefix(nn, &k, &v, &a, &prefix)) return &g->bad_tensor;
    k = op_transpose(g, k, 1, 2);
    v = op_transpose(g, v, 1, 2);
    struct cb_tensor *score = op_matmul(g, q, k, false, true);
    struct cb_tensor *more = o->relative ? disentangled(m, nn, &h, q, k) : NULL;
    if (more) score = op_add(g, score, more);
    const double scale = 1 / sqrt((double)m->head_dim * (1 + o->content_to_position + o->position_to_content));
    score = op_scale(g, score, scale, 0);
    // tokens see tokens; in packed rows those of their own document
    if (leaves->mask) {
        struct cb_tensor *down = op_reshape(g, leaves->mask, 4, (const int64_t[]){b, 1, t, 1});
        struct cb_tensor *across = op_reshape(g, leaves->mask, 4, (const int64_t[]){b, 1, 1, t});
        const int32_t zero = 0;
        struct cb_tensor *seen = op_compare(g, "gt", op_mul(g, down, across), graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &zero));
        score = op_where(g, seen, score, graph_const_f32(g, -1e30f));
    } else if (leaves->q_segment) {
        score = nn_hide(nn, score, leaves->q_segment, leaves->k_segment);
    }
    // rows before keys and values have no place, and all rows see them
    if (prefix.n) {
        struct cb_tensor *more_scores = op_scale(g, op_matmul(g, q, op_transpose(g, prefix.k, 1, 2), false, true), scale, 0);
        if (prefix.hidden) more_scores = op_add(g, more_scores, prefix.hidden);
        score = op_concat(g, 2, (struct cb_tensor *[]){more_scores, score}, 3);
        v = op_concat(g, 2, (struct cb_tensor *[]){op_transpose(g, prefix.v, 1, 2), v}, 2);
    }
    struct cb_tensor *weight = nn_dropout(nn, op_softmax(g, score, -1), o->encoder.attention_dropout);
    x = op_reshape(g, op_transpose(g, op_matmul(g, weight, v, false, false), 1, 2), 3, joined);
    const struct nn_linear out = {
        .name = nn_name(nn, "%s.%s", path, names->out), .role = "o", .in = m->n_embd, .out = m->n_embd, .bias = true};
    return nn_linear(nn, x, &out);
}

/* ---- classes */
/* The first row through the pooler, its own dropout before and the classifier's after. */
static struct cb_tensor *pooled(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                struct cb_tensor *x) {
    const struct deberta *o = m->options;
    x = nn_dropout(nn, model_features_first(m, nn, io, leaves, x), o->pooler_dropout);
    x = nn_linear(nn, x, &(struct nn_linear){.name = o->encoder.names->pooler, .in = m->n_embd, .out = m->n_embd, .bias = true});
    return nn_dropout(nn, nn_activation(nn, o->pooler_activation, x), o->encoder.classifier_dropout);
}

const char *const deberta_ignored[] = {
    ".position_ids", ".position_embeddings.weight", "cls.", "lm_predictions.", "mask_predictions.", "pooler.", NULL};
static const struct model_class labelled = {.name = "ForSequenceClassification",
                                            .head = &model_head_sequence,
                                            .linear = "classifier",
                                            .weights = encoder_pooled_weights,
                                            .features = pooled};
static const struct model_class choice = {
    .name = "ForMultipleChoice", .head = &model_head_choice, .linear = "classifier", .weights = encoder_pooled_weights, .features = pooled};
const struct model_class *const deberta_classes[] = {
    &encoder_class_masked, &labelled, &encoder_class_tokens_plain, &model_class_span, &choice, &model_class_states, NULL};
