/* CamemBERT (Martin et al. 2020) as Transformers stores it: RoBERTa over French. */
#include "models/roberta.h"

static const char *const model_types[] = {"camembert", NULL};

const struct family model_camembert = {
    .name = "camembert",
    .doc = "CamemBERT: RoBERTa over French; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "Camembert",
    .classes = roberta_classes,
    .prefix = "roberta.",
    .ignored = roberta_ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"CamembertForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"bos_token_id\":5,\"classifier_dropout\":"
        "null,"
        "\"dtype\":\"float32\",\"eos_token_id\":6,\"hidden_act\":\"gelu\",\"hidden_dropout_prob\":0.1,\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":3072,\"layer_norm_eps\":1e-05,\"max_position_embeddings\":514,"
        "\"model_type\":\"camembert\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":1,"
        "\"position_embedding_type\":\"absolute\",\"type_vocab_size\":1,\"use_cache\":true,\"vocab_size\":32005}",
    .tiny = "hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=42,vocab_size=71",
    .options_bytes = sizeof(struct encoder),
    .parse = roberta_parse,
    .weights = encoder_weights,
    .body = encoder_body,
    .pooler = encoder_given_pooler,
};
