/* What decoders in the manner of Llama read from config.json: the keys that all have, windows by layer, ropes, and what the Gemmas share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/decoder.h"

struct decoder *decoder_options(const struct model *model) {
    return (struct decoder *)(uintptr_t)model->options;
}

static enum cb_status parse_heads(struct model *m, const char *name, struct cb_err *err) {
    const json_t *c = m->config;
    TRY(json_get_int(&m->n_head, c, name, "num_attention_heads", 1, 1 << 16, true, err));
    // absent: what the family says; null: as many as queries
    if (!m->n_kv_head || json_is_null(json_object_get(c, "num_key_value_heads"))) m->n_kv_head = m->n_head;
    TRY(json_get_int(&m->n_kv_head, c, name, "num_key_value_heads", 1, 1 << 16, false, err));
    TRY(json_get_int(&m->head_dim, c, name, "head_dim", 1, 1 << 16, false, err));
    if (m->n_head % m->n_kv_head)
        FAIL(err, CB_E_FORMAT, "%s: num_key_value_heads: found %lld; wanted a divisor of num_attention_heads %lld", name,
             (long long)m->n_kv_head, (long long)m->n_head);
    if (!m->head_dim && m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: num_attention_heads: found %lld; wanted a divisor of hidden_size %lld, or head_dim", name,
             (long long)m->n_head, (long long)m->n_embd);
    if (!m->head_dim) m->head_dim = m->n_embd / m->n_head;
    return CB_OK;
}

/* One more table of frequencies, of layers of kind `part`. */
static enum cb_status parse_rope(struct model *m, struct decoder *d, const char *name, struct cb_err *err) {
    struct rope_source source = d->rope_source;
    source.config = m->config;
    source.name = name;
    source.head_dim = m->head_dim;
    source.max_positions = m->max_positions;
    struct rope *rope = &d->rope[d->n_ropes++];
    TRY(rope_parse(rope, &source, err));
    // two tables that change at different lengths have no second cache
    m->exact_again = rope->exact_positions == INT64_MAX ? m->exact_again
                     : m->exact_cache == INT64_MAX      ? rope->exact_again
                                                        : rope->exact_again && m->exact_again && rope->exact_positions == m->exact_cache;
    if (rope->exact_positions < m->exact_cache) m->exact_cache = rope->exact_positions;
    return CB_OK;
}

enum cb_status decoder_parse_activation(struct model *m, const char *name, const char *key, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    if (!d->activation) d->activation = "silu";
    TRY(json_get_str(&d->activation, m->config, name, key, false, err));
    if (!nn_is_activation(d->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %.60s; wanted silu, gelu, relu, ...", name, key, d->activation);
    return CB_OK;
}

enum cb_status decoder_parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    const json_t *c = m->config;
    // sizes
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "hidden_size", 1, 1 << 20, true, err));
    TRY(json_get_int(&d->inner, c, name, "intermediate_size", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "num_hidden_layers", 1, 4096, true, err));
    if (!m->max_positions) m->max_positions = 2048;
    TRY(json_get_int(&m->max_positions, c, name, "max_position_embeddings", 1, INT32_MAX, false, err));
    TRY(parse_heads(m, name, err));
    // options
    TRY(decoder_parse_activation(m, name, "hidden_act", err));
    if (d->eps == 0) d->eps = 1e-6;
    TRY(json_get_float(&d->eps, c, name, "rms_norm_eps", 0, 1, false, err));
    TRY(json_get_float(&d->attention_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->embedding = "model.embed_tokens.weight";
    if (!d->norm_after[0]) {
        d->norm_before[0] = "input_layernorm";
        d->norm_before[1] = "post_attention_layernorm";
    }
    d->layer = arena_array(m->arena, (size_t)m->n_layer, sizeof *d->layer);
    if (!d->layer) FAIL(err, CB_E_MEMORY, "%s: no memory for %lld layers", name, (long long)m->n_layer);
    return parse_rope(m, d, name, err);
}

enum cb_status decoder_parse_local_rope(struct model *m, const char *name, double theta, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    struct rope_source kept = d->rope_source;
    d->rope_source = (struct rope_source){.part = "sliding_attention", .own_keys = true, .theta = theta};
    enum cb_status status = parse_rope(m, d, name, err);
    d->rope_source = kept;
    for (int64_t i = 0; i < m->n_layer; i++)
        if (d->layer[i].window) d->layer[i].rope = d->n_ropes - 1;
    return status;
}

enum cb_status decoder_parse_window(struct model *m, const char *name, const char *key, int64_t *window, struct cb_err *err) {
    if (json_is_null(json_object_get(m->config, key))) *window = 0;
    return json_get_int(window, m->config, name, key, 0, INT32_MAX, false, err);
}

enum cb_status decoder_parse_cap(struct model *m, const char *name, const char *key, double *cap, struct cb_err *err) {
    if (json_is_null(json_object_get(m->config, key))) *cap = 0;
    return json_get_float(cap, m->config, name, key, 1e-3, 1e9, false, err);
}

void decoder_gemma(struct model *m) {
    struct decoder *d = decoder_options(m);
    m->tied = true;
    m->head_dim = 256;
    m->n_kv_head = 4;
    m->max_positions = 8192;
    d->activation = "gelu_pytorch_tanh";
    d->norm_offset = 1;
}

void decoder_gemma_norms(struct decoder *d) {
    d->norm_before[0] = "input_layernorm";
    d->norm_after[0] = "post_attention_layernorm";
    d->norm_before[1] = "pre_feedforward_layernorm";
    d->norm_after[1] = "post_feedforward_layernorm";
}

enum cb_status decoder_parse_gemma(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    double scalar = 256;
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    d->out_bias = d->qkv_bias;
    d->embedding_scale = sqrt((double)m->n_embd);
    TRY(decoder_parse_activation(m, name, "hidden_activation", err));
    TRY(json_get_float(&scalar, m->config, name, "query_pre_attn_scalar", 1e-6, 1e9, false, err));
    d->attention_scale = 1 / sqrt(scalar);
    return CB_OK;
}

enum cb_status decoder_parse_used_window(struct model *m, const char *name, int64_t *window, struct cb_err *err) {
    bool is_used = false;
    *window = 4096;
    TRY(json_get_bool(&is_used, m->config, name, "use_sliding_window", false, err));
    TRY(decoder_parse_window(m, name, "sliding_window", window, err));
    if (!is_used) *window = 0;
    return CB_OK;
}

bool decoder_is_late(const struct decoder *d, int64_t layer, int64_t first) {
    (void)d;
    return layer >= first;
}

bool decoder_is_between(const struct decoder *d, int64_t layer, int64_t every) {
    (void)d;
    return (layer + 1) % every != 0;
}

/* An entry of layer_types. */
static enum cb_status layer_type(bool *is_sliding, const json_t *value, const char *name, struct cb_err *err) {
    const char *text = json_string_value(value);
    char shown[JSON_TEXT];
    *is_sliding = text && strcmp(text, "sliding_attention") == 0;
    if (!*is_sliding && !(text && strcmp(text, "full_attention") == 0))
        FAIL(err, CB_E_UNSUPPORTED, "%s: layer_types: found %s; wanted full_attention or sliding_attention", name, json_text(value, shown));
    return CB_OK;
}

enum cb_status decoder_parse_windows(struct model *m, const char *name, int64_t window, bool has_types,
                                     bool (*is_sliding)(const struct decoder *d, int64_t layer, int64_t option), int64_t option,
                                     struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    const json_t *types = NULL;
    if (has_types) TRY(json_get_array(&types, m->config, name, "layer_types", false, err));
    if (types && (int64_t)json_array_size(types) != m->n_layer)
        FAIL(err, CB_E_FORMAT, "%s: layer_types: found %zu of them; wanted num_hidden_layers %lld", name, json_array_size(types),
             (long long)m->n_layer);
    for (int64_t i = 0; i < m->n_layer; i++) {
        bool slides = !is_sliding || is_sliding(d, i, option);
        if (types) TRY(layer_type(&slides, json_array_get(types, (size_t)i), name, err));
        if (types && slides && !window)
            FAIL(err, CB_E_FORMAT, "%s: layer_types: found sliding_attention; wanted a sliding_window that is in use", name);
        d->layer[i].window = slides ? window : 0;
    }
    return CB_OK;
}
