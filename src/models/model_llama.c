/* Llama (Touvron et al. 2023; Grattafiori et al. 2024) as Transformers stores it: the plain decoder. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    TRY(json_get_bool(&d->mlp_bias, m->config, name, "mlp_bias", false, err));
    d->out_bias = d->qkv_bias;
    return CB_OK;
}

static const char *const model_types[] = {"llama", NULL};

const struct family model_llama = {
    .name = "llama",
    .doc = "Llama: RMS norm before each block, rotary positions with all common scalings, grouped queries, gated MLP.",
    .model_types = model_types,
    .title = "Llama",
    .classes = decoder_span_old_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"head_dim\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"mlp_bias\":false,"
        "\"model_type\":\"llama\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"num_key_value_heads\":null,"
        "\"pad_token_id\":null,\"pretraining_tp\":1,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":10000.0,"
        "\"tie_word_embeddings\":false,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY,
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
