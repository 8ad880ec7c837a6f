/* Gemma 3 text models (Kamath et al. 2025): norms on heads of queries and keys, windows with a rope base of their own in five layers of six. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window = 4096, pattern = 6;
    double local_theta = 10000;
    bool both_ways = false;
    decoder_gemma(m);
    decoder_gemma_norms(d);
    m->max_positions = 131072;
    d->qk_norm = DECODER_QK_HEADS;
    d->rope_source.theta = 1e6;
    TRY(decoder_parse(m, name, err));
    TRY(decoder_parse_gemma(m, name, err));
    m->rows_scale = d->embedding_scale;
    TRY(decoder_parse_cap(m, name, "final_logit_softcapping", &m->logit_softcap, err));
    TRY(json_get_bool(&both_ways, m->config, name, "use_bidirectional_attention", false, err));
    if (both_ways) FAIL(err, CB_E_UNSUPPORTED, "%s: use_bidirectional_attention: found true; wanted false", name);
    TRY(json_get_int(&pattern, m->config, name, "sliding_window_pattern", 1, INT32_MAX, false, err));
    TRY(decoder_parse_window(m, name, "sliding_window", &window, err));
    TRY(decoder_parse_windows(m, name, window, true, decoder_is_between, pattern, err));
    TRY(json_get_float(&local_theta, m->config, name, "rope_local_base_freq", 1e-3, 1e15, false, err));
    return decoder_parse_local_rope(m, name, local_theta, err);
}

static const char *const model_types[] = {"gemma3_text", NULL};
static const struct model_class last = {"TextForSequenceClassification", &model_head_sequence, .linear = "score", .bias = "",
                                        .features = model_features_last};
static const struct model_class states = {"TextModel", &model_head_states, .prefix = ""};
static const struct model_class *const classes[] = {&model_class_causal_lm, &last, &states, NULL};

const struct family model_gemma3_text = {
    .name = "gemma3_text",
    .doc =
        "Gemma 3 (text): Gemma 2 without soft caps, with norms on heads of queries and keys; five layers of six have a window and a rope "
        "base of their own.",
    .model_types = model_types,
    .title = "Gemma3",
    .classes = classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Gemma3ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
        "\"attn_logit_softcapping\":null,\"bos_token_id\":null,\"dtype\":\"float32\",\"eos_token_id\":null,"
        "\"final_logit_softcapping\":null,\"head_dim\":64,\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"model_type\":\"gemma3_text\","
        "\"num_attention_heads\":12,\"num_hidden_layers\":12,\"num_key_value_heads\":4,\"pad_token_id\":null,"
        "\"query_pre_attn_scalar\":64,\"rms_norm_eps\":1e-06,\"rope_local_base_freq\":10000.0,\"rope_scaling\":null,"
        "\"rope_theta\":1000000.0,\"sliding_window\":512,\"sliding_window_pattern\":6,\"tie_word_embeddings\":true,"
        "\"use_bidirectional_attention\":false,\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",num_hidden_layers=3,head_dim=8,query_pre_attn_scalar=12,sliding_window=5,sliding_window_pattern=3",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
