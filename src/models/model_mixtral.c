/* Mixtral (Jiang et al. 2024): Mistral with a mixture of experts in every layer. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window = 0;
    m->n_kv_head = 8;
    m->max_positions = 4096 * 32;
    d->eps = 1e-5;
    d->rope_source.theta = 1e6;
    d->experts = (struct decoder_experts){.block = "block_sparse_moe", .gate = "w1", .up = "w3", .down = "w2", .n = 8, .top_k = 2};
    d->experts.balance = 0.001;
    d->experts.normalised = true;
    TRY(decoder_parse(m, name, err));
    TRY(decoder_parse_experts(m, name, false, err));
    d->experts.inner = d->inner;
    TRY(json_get_float(&d->experts.jitter, m->config, name, "router_jitter_noise", 0, 1, false, err));
    TRY(decoder_parse_window(m, name, "sliding_window", &window, err));
    return decoder_parse_windows(m, name, window, false, NULL, 0, err);
}

static const char *const model_types[] = {"mixtral", NULL};

const struct family model_mixtral = {
    .name = "mixtral",
    .doc = "Mixtral: Mistral whose MLPs are mixtures of experts, two of eight for each token.",
    .model_types = model_types,
    .title = "Mixtral",
    .classes = decoder_span_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"MixtralForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":null,\"dtype\":\"float32\","
        "\"eos_token_id\":null,\"head_dim\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"model_type\":\"mixtral\",\"num_attention_heads\":12,"
        "\"num_experts_per_tok\":2,\"num_hidden_layers\":12,\"num_key_value_heads\":12,\"num_local_experts\":8,"
        "\"output_router_logits\":false,\"pad_token_id\":null,\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,"
        "\"router_aux_loss_coef\":0.001,\"router_jitter_noise\":0.0,\"sliding_window\":null,\"tie_word_embeddings\":false,"
        "\"use_cache\":true,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",num_local_experts=5",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
