/* DeBERTa (He et al. 2021), the first version: queries, keys and values of one projection; distances up to a bound, each with a row of its own. */
#include "models/deberta.h"

static const struct encoder_names names = {DEBERTA_NAMES, .fused = "attention.self.in_proj"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct deberta *o = (struct deberta *)m->options;
    bool talks = false;
    o->position_key = "attention.self.pos_proj";
    o->position_query = "attention.self.pos_q_proj";
    TRY(deberta_parse(m, &names, name, err));
    TRY(json_get_bool(&talks, m->config, name, "talking_head", false, err));
    if (talks) FAIL(err, CB_E_UNSUPPORTED, "%s: talking_head: found true; wanted false", name);
    o->shares_keys = o->norms_positions = false;  // what the later versions' keys say does not count
    o->buckets = -1;
    o->span = o->distance;
    return CB_OK;
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    TRY(deberta_weights(m, err));
    for (int64_t i = 0; i < m->n_layer; i++) {
        TRY(model_add_weight(m, err, MODEL_ZEROS, 0, 1, &m->n_embd, "deberta.encoder.layer.%lld." DEBERTA_QUERY_BIAS, (long long)i));
        TRY(model_add_weight(m, err, MODEL_ZEROS, 0, 1, &m->n_embd, "deberta.encoder.layer.%lld." DEBERTA_VALUE_BIAS, (long long)i));
    }
    return CB_OK;
}

static const char *const model_types[] = {"deberta", NULL};

const struct family model_deberta = {
    .name = "deberta",
    .doc = "DeBERTa: contents and relative positions scored apart; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "Deberta",
    .classes = deberta_classes,
    .prefix = "deberta.",
    .ignored = deberta_ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"DebertaForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"dtype\":\"float32\",\"hidden_act\":\"gelu\","
        "\"hidden_dropout_prob\":0.1,\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":3072,\"layer_norm_eps\":1e-07,"
        "\"legacy\":true,\"max_position_embeddings\":512,\"max_relative_positions\":-1,\"model_type\":\"deberta\","
        "\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":0,\"pooler_dropout\":0,\"pooler_hidden_act\":\"gelu\","
        "\"pos_att_type\":[\"c2p\",\"p2c\"],\"position_biased_input\":false,\"relative_attention\":true,\"type_vocab_size\":0,"
        "\"vocab_size\":50265}",
    .tiny =
        "hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=40,max_relative_positions=7,"
        "vocab_size=71",
    .options_bytes = sizeof(struct deberta),
    .parse = parse,
    .weights = weights,
    .body = encoder_body,
};
