/* Mistral (Jiang et al. 2023): a sliding window in every layer. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    int64_t window = 4096;
    m->n_kv_head = 8;
    m->max_positions = 4096 * 32;
    TRY(decoder_parse(m, name, err));
    TRY(decoder_parse_window(m, name, "sliding_window", &window, err));
    return decoder_parse_windows(m, name, window, false, NULL, 0, err);
}

static const char *const model_types[] = {"mistral", NULL};

const struct family model_mistral = {
    .name = "mistral",
    .doc = "Mistral: Llama whose layers see a sliding window of keys.",
    .model_types = model_types,
    .title = "Mistral",
    .classes = decoder_span_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"MistralForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":null,\"dtype\":\"float32\","
        "\"eos_token_id\":null,\"head_dim\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"model_type\":\"mistral\",\"num_attention_heads\":12,"
        "\"num_hidden_layers\":12,\"num_key_value_heads\":12,\"pad_token_id\":null,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,"
        "\"rope_theta\":10000.0,\"sliding_window\":null,\"tie_word_embeddings\":false,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",sliding_window=5",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
