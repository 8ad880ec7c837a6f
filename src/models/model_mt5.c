/* mT5 (Xue et al. 2021) as Transformers stores it: T5 1.1 over many languages, its head untied. */
#include "models/t5.h"

static const char *const model_types[] = {"mt5", NULL};

const struct family model_mt5 = {
    .name = "mt5",
    .doc = "mT5: T5 with gated layers and a head of its own, over many languages; text to text.",
    .model_types = model_types,
    .title = "MT5",
    .classes = t5_classes,
    .prefix = "",
    .ignored = t5_ignored,
    .bidirectional = true,
    .encoder_decoder = true,
    .defaults =
        "{\"architectures\":[\"MT5ForConditionalGeneration\"],\"classifier_dropout\":0.0,\"d_ff\":1024,\"d_kv\":64,\"d_model\":512,"
        "\"decoder_start_token_id\":0,\"dropout_rate\":0.1,\"dtype\":\"float32\",\"eos_token_id\":1,\"feed_forward_proj\":\"gated-gelu\","
        "\"initializer_factor\":1.0,\"is_encoder_decoder\":true,\"layer_norm_epsilon\":1e-06,\"model_type\":\"mt5\","
        "\"num_decoder_layers\":8,\"num_heads\":6,\"num_layers\":8,\"pad_token_id\":0,\"relative_attention_max_distance\":128,"
        "\"relative_attention_num_buckets\":32,\"tie_word_embeddings\":false,\"use_cache\":true,\"vocab_size\":250112}",
    .tiny =
        "d_model=24,d_kv=6,d_ff=40,num_heads=3,num_layers=2,num_decoder_layers=2,relative_attention_num_buckets=8,"
        "relative_attention_max_distance=12,vocab_size=71",
    .options_bytes = sizeof(struct t5),
    .parse = t5_parse,
    .weights = t5_weights,
    .body = t5_body,
};
