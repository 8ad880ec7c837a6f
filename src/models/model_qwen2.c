/* Qwen 2 and 2.5 (Yang et al. 2024): biases in queries, keys and values; windows in the upper layers where asked. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window, max_window_layers = 28;
    m->n_kv_head = 32;
    m->max_positions = 32768;
    d->qkv_bias = true;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_int(&max_window_layers, m->config, name, "max_window_layers", 0, INT32_MAX, false, err));
    TRY(decoder_parse_used_window(m, name, &window, err));
    return decoder_parse_windows(m, name, window, true, decoder_is_late, max_window_layers, err);
}

static const char *const model_types[] = {"qwen2", NULL};

const struct family model_qwen2 = {
    .name = "qwen2",
    .doc = "Qwen 2 and 2.5: Llama with biases in queries, keys and values, and sliding windows in the upper layers where asked.",
    .model_types = model_types,
    .title = "Qwen2",
    .classes = decoder_span_old_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":null,\"dtype\":\"float32\","
        "\"eos_token_id\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":2048,"
        "\"max_position_embeddings\":2048,\"max_window_layers\":28,\"model_type\":\"qwen2\",\"num_attention_heads\":12,"
        "\"num_hidden_layers\":12,\"num_key_value_heads\":12,\"pad_token_id\":null,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,"
        "\"rope_theta\":10000.0,\"sliding_window\":4096,\"tie_word_embeddings\":false,\"use_cache\":true,"
        "\"use_sliding_window\":false,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",use_sliding_window=true,sliding_window=6,max_window_layers=1",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
