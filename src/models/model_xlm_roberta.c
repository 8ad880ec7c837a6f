/* XLM-RoBERTa (Conneau et al. 2020) as Transformers stores it: RoBERTa over a vocabulary of a hundred languages. */
#include "models/encoder.h"

static const struct encoder_names names = {
    .embeddings = "roberta.embeddings",
    .layer = "roberta.encoder.layer.%d",
    .q = "attention.self.query",
    .k = "attention.self.key",
    .v = "attention.self.value",
    .out = "attention.output.dense",
    .attention_norm = "attention.output.LayerNorm",
    .up = "intermediate.dense",
    .down = "output.dense",
    .norm = "output.LayerNorm",
    .pooler = "roberta.pooler.dense",
    .transform = "lm_head.dense",
    .transform_norm = "lm_head.layer_norm",
    .transform_activation = "gelu",
    .dense = "classifier.dense",
    .dense_activation = "tanh",
    .counts_positions = true,
};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    m->n_types = 2;
    m->pad = 1;
    return encoder_parse(m, name, &names, NULL, err);
}

static const char *const model_types[] = {"xlm-roberta", NULL};
static const char *const ignored[] = {".position_ids", "lm_head.", "roberta.pooler.", NULL};
static const struct model_class classes[] = {
    {.name = "XLMRobertaForMaskedLM",
     .head = &model_head_masked_lm,
     .linear = "lm_head.decoder",
     .bias = "lm_head.bias",
     .weights = encoder_masked_weights,
     .features = encoder_masked},
    {.name = "XLMRobertaForSequenceClassification",
     .head = &model_head_sequence,
     .linear = "classifier.out_proj",
     .weights = encoder_dense_weights,
     .features = encoder_dense},
    {.name = "XLMRobertaForTokenClassification", .head = &model_head_tokens, .linear = "classifier", .features = encoder_tokens},
    {.name = "XLMRobertaForQuestionAnswering", .head = &model_head_span, .linear = "qa_outputs"},
    {.name = "XLMRobertaForMultipleChoice",
     .head = &model_head_choice,
     .linear = "classifier",
     .weights = encoder_pooled_weights,
     .features = encoder_pooled},
    {.name = "XLMRobertaModel", .head = &model_head_states},
    {.name = NULL},
};

const struct family model_xlm_roberta = {
    .name = "xlm-roberta",
    .doc = "XLM-RoBERTa: RoBERTa over many languages; masked tokens, labels, spans.",
    .model_types = model_types,
    .classes = classes,
    .prefix = "roberta.",
    .ignored = ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"XLMRobertaForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"bos_token_id\":0,\"classifier_dropout\":"
        "null,"
        "\"dtype\":\"float32\",\"eos_token_id\":2,\"hidden_act\":\"gelu\",\"hidden_dropout_prob\":0.1,\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":3072,\"layer_norm_eps\":1e-05,\"max_position_embeddings\":514,"
        "\"model_type\":\"xlm-roberta\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":1,"
        "\"position_embedding_type\":\"absolute\",\"type_vocab_size\":1,\"use_cache\":true,\"vocab_size\":250002}",
    .tiny = "hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=42,vocab_size=71",
    .options_bytes = sizeof(struct encoder),
    .parse = parse,
    .weights = encoder_weights,
    .body = encoder_body,
};
