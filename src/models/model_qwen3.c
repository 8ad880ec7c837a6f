/* Qwen 3 (Yang et al. 2025): an RMS norm on each head of queries and keys. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window, max_window_layers = 28;
    m->n_kv_head = 32;
    m->head_dim = 128;
    m->max_positions = 32768;
    d->qk_norm = DECODER_QK_HEADS;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    d->out_bias = d->qkv_bias;
    TRY(json_get_int(&max_window_layers, m->config, name, "max_window_layers", 0, INT32_MAX, false, err));
    TRY(decoder_parse_used_window(m, name, &window, err));
    return decoder_parse_windows(m, name, window, true, decoder_is_late, max_window_layers, err);
}

static const char *const model_types[] = {"qwen3", NULL};

const struct family model_qwen3 = {
    .name = "qwen3",
    .doc = "Qwen 3: Llama with an RMS norm on each head of queries and keys, and sliding windows in the upper layers where asked.",
    .model_types = model_types,
    .title = "Qwen3",
    .classes = decoder_span_old_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"head_dim\":64,\"hidden_act\":\"silu\",\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"max_window_layers\":28,"
        "\"model_type\":\"qwen3\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"num_key_value_heads\":12,"
        "\"pad_token_id\":null,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":10000.0,\"sliding_window\":4096,"
        "\"tie_word_embeddings\":false,\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",head_dim=8,use_sliding_window=true,sliding_window=6,max_window_layers=1",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
