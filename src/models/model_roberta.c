/* RoBERTa (Liu et al. 2019) as Transformers stores it: BERT's body, positions counted from the padding id, no next sentence. */
#include "models/roberta.h"

static const struct encoder_names names = {
    .embeddings = "roberta.embeddings",
    .layer = "roberta.encoder.layer.%d",
    .q = "attention.self.query",
    .k = "attention.self.key",
    .v = "attention.self.value",
    .out = "attention.output.dense",
    .distances = "attention.self.distance_embedding",
    .attention_norm = "attention.output.LayerNorm",
    .up = "intermediate.dense",
    .down = "output.dense",
    .norm = "output.LayerNorm",
    .joins = {"attention.output", "output"},
    .pooler = "roberta.pooler.dense",
    .transform = "lm_head.dense",
    .transform_norm = "lm_head.layer_norm",
    .transform_activation = "gelu",
    .dense = "classifier.dense",
    .dense_activation = "tanh",
    .counts_positions = true,
};

enum cb_status roberta_parse(struct model *m, const char *name, struct cb_err *err) {
    m->n_types = 2;
    m->pad = 1;
    return encoder_parse(m, name, &names, NULL, err);
}

const char *const roberta_ignored[] = {".position_ids", "lm_head.", "roberta.pooler.", NULL};
static const char *const model_types[] = {"roberta", NULL};
static const struct model_class masked = ENCODER_MASKED("lm_head.decoder", "lm_head.bias");
const struct model_class *const roberta_classes[] = {
    &masked, &encoder_class_dense, &encoder_class_tokens, &model_class_span, &encoder_class_pooled_choice, &encoder_class_states, NULL};

const struct family model_roberta = {
    .name = "roberta",
    .doc = "RoBERTa: BERT's body, positions counted from the padding id; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "Roberta",
    .classes = roberta_classes,
    .prefix = "roberta.",
    .ignored = roberta_ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"RobertaForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"bos_token_id\":0,\"classifier_dropout\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":2,\"hidden_act\":\"gelu\",\"hidden_dropout_prob\":0.1,\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":3072,\"layer_norm_eps\":1e-05,\"max_position_embeddings\":514,"
        "\"model_type\":\"roberta\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":1,"
        "\"position_embedding_type\":\"absolute\",\"type_vocab_size\":1,\"use_cache\":true,\"vocab_size\":50265}",
    .tiny = "hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=42,vocab_size=71",
    .options_bytes = sizeof(struct encoder),
    .parse = roberta_parse,
    .weights = encoder_weights,
    .body = encoder_body,
    .pooler = encoder_given_pooler,
};
