/* SmolLM3 (Bakouch et al. 2025): every fourth layer without rotary positions (NoPE). */
#include "models/decoder.h"

/* no_rope_layers holds 1 where positions turn; absent, each no_rope_layer_interval-th layer has none. */
static enum cb_status parse_positions(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    const json_t *turns = NULL;
    int64_t interval = 4;
    char text[JSON_TEXT];
    TRY(json_get_int(&interval, m->config, name, "no_rope_layer_interval", 1, INT32_MAX, false, err));
    TRY(json_get_array(&turns, m->config, name, "no_rope_layers", false, err));
    if (turns && (int64_t)json_array_size(turns) != m->n_layer)
        FAIL(err, CB_E_FORMAT, "%s: no_rope_layers: found %zu of them; wanted num_hidden_layers %lld", name, json_array_size(turns),
             (long long)m->n_layer);
    for (int64_t i = 0; i < m->n_layer; i++) {
        const json_t *value = turns ? json_array_get(turns, (size_t)i) : NULL;
        if (turns && !json_is_integer(value))
            FAIL(err, CB_E_FORMAT, "%s: no_rope_layers: found %s in the list; wanted 1 or 0", name, json_text(value, text));
        bool has_rope = turns ? json_integer_value(value) != 0 : (i + 1) % interval != 0;
        d->layer[i].rope = has_rope ? 0 : -1;
    }
    return CB_OK;
}

static bool is_without_rope(const struct decoder *d, int64_t layer, int64_t use_window) { return use_window && d->layer[layer].rope < 0; }

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    bool use_window = false;
    int64_t window = 0;
    m->tied = true;
    m->n_kv_head = 4;
    m->max_positions = 32768;
    d->rope_source.theta = 2e6;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    TRY(json_get_bool(&d->mlp_bias, m->config, name, "mlp_bias", false, err));
    d->out_bias = d->qkv_bias;
    TRY(parse_positions(m, name, err));
    TRY(json_get_bool(&use_window, m->config, name, "use_sliding_window", false, err));
    TRY(decoder_parse_window(m, name, "sliding_window", &window, err));
    return decoder_parse_windows(m, name, window, true, is_without_rope, use_window, err);
}

static const char *const model_types[] = {"smollm3", NULL};

const struct family model_smollm3 = {
    .name = "smollm3",
    .doc = "SmolLM3: Llama with a tied head, where every fourth layer has no rotary positions.",
    .model_types = model_types,
    .title = "SmolLM3",
    .classes = decoder_span_old_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"SmolLM3ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"mlp_bias\":false,\"model_type\":\"smollm3\","
        "\"no_rope_layer_interval\":4,\"num_attention_heads\":12,\"num_hidden_layers\":12,\"num_key_value_heads\":4,"
        "\"pad_token_id\":null,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":2000000.0,\"sliding_window\":null,"
        "\"tie_word_embeddings\":true,\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",num_hidden_layers=3,no_rope_layer_interval=2",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
