/* OLMo 2 (Walsh et al. 2025): norms after the blocks, and over all queries and keys of a token. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    d->eps = 1e-5;
    d->qk_norm = DECODER_QK_WHOLE;
    d->norm_after[0] = "post_attention_layernorm";
    d->norm_after[1] = "post_feedforward_layernorm";
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    d->out_bias = d->qkv_bias;
    return CB_OK;
}

static const char *const model_types[] = {"olmo2", NULL};
static const struct model_class *const classes[] = {&model_class_causal_lm, NULL};

const struct family model_olmo2 = {
    .name = "olmo2",
    .doc = "OLMo 2: Llama with norms after each block in place of before, and over all heads of queries and keys.",
    .model_types = model_types,
    .title = "Olmo2",
    .classes = classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Olmo2ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"model_type\":\"olmo2\",\"num_attention_heads\":12,"
        "\"num_hidden_layers\":12,\"num_key_value_heads\":null,\"pad_token_id\":null,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,"
        "\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY,
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
