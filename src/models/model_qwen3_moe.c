/* Qwen 3 MoE (Yang et al. 2025): Qwen 3 with many small experts. */
#include "models/decoder.h"

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct decoder *d = decoder_options(m);
    int64_t window;
    m->n_kv_head = 4;
    m->max_positions = 32768;
    d->qk_norm = DECODER_QK_HEADS;
    d->experts = (struct decoder_experts){.block = "mlp", .gate = "gate_proj", .up = "up_proj", .down = "down_proj", .n = 128, .top_k = 8};
    d->experts.inner = 768;
    d->experts.balance = 0.001;
    TRY(decoder_parse(m, name, err));
    TRY(json_get_bool(&d->qkv_bias, m->config, name, "attention_bias", false, err));
    d->out_bias = d->qkv_bias;
    TRY(json_get_int(&d->experts.inner, m->config, name, "moe_intermediate_size", 1, 1 << 24, false, err));
    TRY(json_get_bool(&d->experts.normalised, m->config, name, "norm_topk_prob", false, err));
    TRY(decoder_parse_experts(m, name, true, err));
    TRY(decoder_parse_used_window(m, name, &window, err));
    return decoder_parse_windows(m, name, window, false, NULL, 0, err);
}

static const char *const model_types[] = {"qwen3_moe", NULL};

const struct family model_qwen3_moe = {
    .name = "qwen3_moe",
    .doc = "Qwen 3 MoE: Qwen 3 with many small experts.",
    .model_types = model_types,
    .title = "Qwen3Moe",
    .classes = decoder_span_old_classes,
    .prefix = "model.",
    .ignored = decoder_ignored,
    .defaults =
        "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":null,"
        "\"decoder_sparse_step\":1,\"dtype\":\"float32\",\"eos_token_id\":null,\"head_dim\":64,\"hidden_act\":\"silu\","
        "\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":2048,\"max_position_embeddings\":2048,"
        "\"mlp_only_layers\":[],\"model_type\":\"qwen3_moe\",\"moe_intermediate_size\":512,\"norm_topk_prob\":true,"
        "\"num_attention_heads\":12,\"num_experts\":16,\"num_experts_per_tok\":4,\"num_hidden_layers\":12,"
        "\"num_key_value_heads\":4,\"output_router_logits\":false,\"pad_token_id\":null,\"rms_norm_eps\":1e-06,"
        "\"rope_scaling\":null,\"rope_theta\":10000.0,\"router_aux_loss_coef\":0.001,\"sliding_window\":null,"
        "\"tie_word_embeddings\":false,\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":32000}",
    .tiny = DECODER_TINY ",head_dim=6,num_experts=6,num_experts_per_tok=3,moe_intermediate_size=12,mlp_only_layers=[0]",
    .options_bytes = sizeof(struct decoder),
    .parse = parse,
    .weights = decoder_weights,
    .body = decoder_body,
};
