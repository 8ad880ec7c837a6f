/* Qwen 1.5 and 2 MoE (Yang et al. 2024): many small experts beside a gated one that all tokens use. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window;
    m->n_kv_head = 16;
    m->max_positions = 32768;
    d->qkv_bias = true;
    d->experts = (struct decoder_experts){.block = "mlp", .gate = "gate_proj", .up = "up_proj", .down = "down_proj", .n = 60, .top_k = 4};
    d->experts.inner = 1408;
    d->experts.shared_inner = 5632;
    d->experts.balance = 0.001;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "qkv_bias", false, err));
    TRY(json_get_int(&d->experts.inner, m->config, name, "moe_intermediate_size", 1, 1 << 24, false, err));
    TRY(json_get_int(&d->experts.shared_inner, m->config, name, "shared_expert_intermediate_size", 1, 1 << 24, false, err));
    TRY(json_get_bool(&d->experts.normalised, m->config, name, "norm_topk_prob", false, err));
    TRY(decoder_parse_experts(m, name, true, err));
    // its window is for all layers; max_window_layers is read by another attention of Transformers only
    TRY(decoder_parse_used_window(m, name, &window, err));
    return decoder_parse_windows(m, name, window, true, NULL, 0, err);
}

static const char *const model_types[] = {"qwen2_moe", NULL};

const struct family model_qwen2_moe = {
    .name = "qwen2_moe",
    .doc = "Qwen 2 MoE: Qwen 2 with many small experts and a gated one that all tokens use.",
    .model_types = model_types,
    .title = "Qwen2Moe",
    .classes = decoder_span_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":null,\"decoder_sparse_step\":1,"
        "\"dtype\":\"float32\",\"eos_token_id\":null,\"hidden_act\":\"silu\",\"hidden_size\":768,\"initializer_range\":0.02,"
        "\"intermediate_size\":2048,\"max_position_embeddings\":2048,\"max_window_layers\":28,\"mlp_only_layers\":[],"
        "\"model_type\":\"qwen2_moe\",\"moe_intermediate_size\":512,\"norm_topk_prob\":false,\"num_attention_heads\":12,"
        "\"num_experts\":16,\"num_experts_per_tok\":4,\"num_hidden_layers\":12,\"num_key_value_heads\":12,"
        "\"output_router_logits\":false,\"pad_token_id\":null,\"qkv_bias\":true,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,"
        "\"rope_theta\":10000.0,\"router_aux_loss_coef\":0.001,\"shared_expert_intermediate_size\":2048,\"sliding_window\":null,"
        "\"tie_word_embeddings\":false,\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":32000}",
    .tiny = DECODER_TINY
    ",num_experts=5,num_experts_per_tok=2,moe_intermediate_size=12,shared_expert_intermediate_size=20,sliding_window=6,use_sliding_window="
    "true",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
