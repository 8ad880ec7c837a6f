/* Gemma (Mesnard et al. 2024): norms by 1 + weight, embeddings times sqrt(C), GELU gates, wide heads. */
#include <math.h>

#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    decoder_gemma(m);
    m->n_kv_head = 16;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    d->out_bias = d->qkv_bias;
    d->embedding_scale = sqrt((double)m->n_embd);
    return CB_OK;
}

static const char *const model_types[] = {"gemma", NULL};

const struct family model_gemma = {
    .name = "gemma",
    .doc = "Gemma: Llama with norms by 1 + weight, embeddings times sqrt(C), GELU gates and a tied head.",
    .model_types = model_types,
    .title = "Gemma",
    .classes = decoder_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"GemmaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"head_dim\":64,\"hidden_act\":\"gelu_pytorch_tanh\","
        "\"hidden_activation\":null,\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":2048,"
        "\"max_position_embeddings\":2048,\"model_type\":\"gemma\",\"num_attention_heads\":12,\"num_hidden_layers\":12,"
        "\"num_key_value_heads\":12,\"pad_token_id\":null,\"rms_norm_eps\":1e-06,\"rope_theta\":10000.0,"
        "\"tie_word_embeddings\":true,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",head_dim=8,num_key_value_heads=1",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
