/* Phi-3 and Phi-4 mini (Abdin et al. 2024): fused projections, LongRoPE, part of a head may turn. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window = 0;
    m->max_positions = 4096;
    d->is_fused = true;
    d->eps = 1e-5;
    d->rope_source.old_yarn = true;
    d->rope_source.original_positions = 4096;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_float(&d->residual_dropout, m->config, name, "resid_pdrop", 0, 0.999, false, err));
    TRY(decoder_parse_window(m, name, "sliding_window", &window, err));
    return decoder_parse_windows(m, name, window, false, NULL, 0, err);
}

static const char *const model_types[] = {"phi3", NULL};

const struct family model_phi3 = {
    .name = "phi3",
    .doc = "Phi-3: Llama with fused qkv and gate-up projections, LongRoPE and a sliding window.",
    .model_types = model_types,
    .title = "Phi3",
    .classes = decoder_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Phi3ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":null,\"dtype\":\"float32\","
        "\"embd_pdrop\":0.0,\"eos_token_id\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"model_type\":\"phi3\",\"num_attention_heads\":12,"
        "\"num_hidden_layers\":12,\"num_key_value_heads\":null,\"original_max_position_embeddings\":2048,\"pad_token_id\":null,"
        "\"partial_rotary_factor\":1.0,\"resid_pdrop\":0.0,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"rope_theta\":10000.0,"
        "\"sliding_window\":null,\"tie_word_embeddings\":false,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",sliding_window=7,original_max_position_embeddings=64",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
