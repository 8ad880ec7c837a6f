/* Gemma 2 (Riviere et al. 2024): norms around both blocks, soft caps on scores and logits, every other layer with a window. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window = 4096;
    decoder_gemma(m);
    decoder_gemma_norms(d);
    TRY(decoder_parse(m, name, err));
    TRY(decoder_parse_gemma(m, name, err));
    d->softcap = 50;
    m->logit_softcap = 30;
    TRY(decoder_parse_cap(m, name, "attn_logit_softcapping", &d->softcap, err));
    TRY(decoder_parse_cap(m, name, "final_logit_softcapping", &m->logit_softcap, err));
    TRY(decoder_parse_window(m, name, "sliding_window", &window, err));
    return decoder_parse_windows(m, name, window, true, decoder_is_between, 2, err);
}

static const char *const model_types[] = {"gemma2", NULL};

const struct family model_gemma2 = {
    .name = "gemma2",
    .doc = "Gemma 2: Gemma with norms before and after each block, soft caps on scores and logits, and a window in every other layer.",
    .model_types = model_types,
    .title = "Gemma2",
    .classes = decoder_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Gemma2ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
        "\"attn_logit_softcapping\":50.0,\"bos_token_id\":null,\"dtype\":\"float32\",\"eos_token_id\":null,"
        "\"final_logit_softcapping\":30.0,\"head_dim\":64,\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"model_type\":\"gemma2\","
        "\"num_attention_heads\":12,\"num_hidden_layers\":12,\"num_key_value_heads\":4,\"pad_token_id\":null,"
        "\"query_pre_attn_scalar\":64,\"rms_norm_eps\":1e-06,\"rope_theta\":10000.0,\"sliding_window\":4096,"
        "\"tie_word_embeddings\":true,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",head_dim=8,query_pre_attn_scalar=12,sliding_window=5,attn_logit_softcapping=2.0,final_logit_softcapping=1.5",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
