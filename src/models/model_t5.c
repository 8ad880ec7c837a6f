/* T5 (Raffel et al. 2020) as Transformers stores it, 1.0 and 1.1. */
#include "models/t5.h"

static const char *const model_types[] = {"t5", NULL};

const struct family model_t5 = {
    .name = "t5",
    .doc = "T5: an encoder and a decoder with relative positions in shared buckets, RMS norms and no biases; text to text.",
    .model_types = model_types,
    .title = "T5",
    .classes = t5_classes,
    .prefix = "",
    .ignored = t5_ignored,
    .bidirectional = true,
    .encoder_decoder = true,
    .defaults =
        "{\"architectures\":[\"T5ForConditionalGeneration\"],\"classifier_dropout\":0.0,\"d_ff\":2048,\"d_kv\":64,\"d_model\":512,"
        "\"decoder_start_token_id\":0,\"dropout_rate\":0.1,\"dtype\":\"float32\",\"eos_token_id\":1,\"feed_forward_proj\":\"relu\","
        "\"initializer_factor\":1.0,\"is_encoder_decoder\":true,\"layer_norm_epsilon\":1e-06,\"model_type\":\"t5\","
        "\"num_decoder_layers\":6,\"num_heads\":8,\"num_layers\":6,\"pad_token_id\":0,\"relative_attention_max_distance\":128,"
        "\"relative_attention_num_buckets\":32,\"tie_word_embeddings\":true,\"use_cache\":true,\"vocab_size\":32128}",
    .tiny =
        "d_model=24,d_kv=6,d_ff=40,num_heads=3,num_layers=2,num_decoder_layers=2,relative_attention_num_buckets=8,"
        "relative_attention_max_distance=12,vocab_size=71",
    .options_bytes = sizeof(struct t5),
    .parse = t5_parse,
    .weights = t5_weights,
    .body = t5_body,
};
