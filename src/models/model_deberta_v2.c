/* DeBERTa v2 and v3 (He et al. 2021, 2023) as Transformers stores them: distances in logarithmic buckets; in v2 a convolution beside the first layer. */
#include "models/deberta.h"
#include "ops/ops.h"
#include "ops/vision.h"

static const struct encoder_names names;

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct deberta *o = (struct deberta *)m->options;
    const json_t *c = m->config;
    o->position_key = "attention.self.pos_key_proj";
    o->position_query = "attention.self.pos_query_proj";
    o->position_key_bias = true;
    TRY(deberta_parse(m, &names, name, err));
    o->groups = 1;
    o->conv_activation = "tanh";
    TRY(json_get_int(&o->kernel, c, name, "conv_kernel_size", 0, 1 << 10, false, err));
    TRY(json_get_int(&o->groups, c, name, "conv_groups", 1, 1 << 20, false, err));
    TRY(json_get_str(&o->conv_activation, c, name, "conv_act", false, err));
    if (o->kernel && (o->kernel % 2 == 0 || m->n_embd % o->groups))
        FAIL(err, CB_E_FORMAT, "%s: conv_kernel_size %lld, conv_groups %lld; wanted an odd one, and a divisor of hidden_size", name,
             (long long)o->kernel, (long long)o->groups);
    if (!nn_is_activation(o->conv_activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: conv_act: found %.40s; wanted gelu, tanh, relu, ...", name, o->conv_activation);
    return CB_OK;
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    const struct deberta *o = m->options;
    const int64_t c = m->n_embd;
    TRY(deberta_weights(m, err));
    if (!o->kernel) return CB_OK;
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 3, (const int64_t[]){c, c / o->groups, o->kernel},
                         "deberta.encoder.conv.conv.weight"));
    TRY(model_add_weight(m, err, MODEL_ZEROS, 0, 1, &c, "deberta.encoder.conv.conv.bias"));
    return model_add_norm(m, c, true, "", "deberta.encoder.conv.LayerNorm", err);
}

/* The convolution over the embeddings beside the first layer: norm(x + act(conv(embedded))). */
static struct cb_tensor *convolved(const struct model *m, struct nn *nn, const struct model_leaves *leaves, struct cb_tensor *embedded,
                                   struct cb_tensor *x) {
    const struct deberta *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t c = m->n_embd, shape[3] = {c, c / o->groups, o->kernel ? o->kernel : 1};
    if (!o->kernel || nn->layer != 0) return x;
    struct cb_tensor *w = nn_site_param(nn, "deberta.encoder.conv.conv", "weight", "deberta.encoder.conv.conv.weight", 3, shape, true);
    struct cb_tensor *b = nn_site_param(nn, "deberta.encoder.conv.conv", "bias", "deberta.encoder.conv.conv.bias", 1, &c, true);
    const struct conv_options options = {.padding = {0, (o->kernel - 1) / 2}, .groups = o->groups};
    struct cb_tensor *y = op_transpose(g, op_conv1d(g, op_transpose(g, embedded, 1, 2), w, b, &options), 1, 2);
    y = nn_activation(nn, o->conv_activation, nn_dropout(nn, deberta_masked(g, y, leaves), o->encoder.dropout));
    return deberta_masked(g, nn_layer_norm(nn, op_add(g, x, y), "deberta.encoder.conv.LayerNorm", o->encoder.eps), leaves);
}

static const struct encoder_names names = {
    DEBERTA_NAMES, .q = "attention.self.query_proj", .k = "attention.self.key_proj", .v = "attention.self.value_proj", .after = convolved,
};

static const char *const model_types[] = {"deberta-v2", NULL};

const struct family model_deberta_v2 = {
    .name = "deberta-v2",
    .doc = "DeBERTa v2 and v3: contents and relative positions scored apart, in logarithmic buckets; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "DebertaV2",
    .classes = deberta_classes,
    .prefix = "deberta.",
    .ignored = deberta_ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"DebertaV2ForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"dtype\":\"float32\",\"hidden_act\":\"gelu\","
        "\"hidden_dropout_prob\":0.1,\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":3072,\"layer_norm_eps\":1e-07,"
        "\"legacy\":true,\"max_position_embeddings\":512,\"max_relative_positions\":-1,\"model_type\":\"deberta-v2\","
        "\"norm_rel_ebd\":\"layer_norm\",\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":0,\"pooler_dropout\":0,"
        "\"pooler_hidden_act\":\"gelu\",\"pos_att_type\":[\"p2c\",\"c2p\"],\"position_biased_input\":false,\"position_buckets\":256,"
        "\"relative_attention\":true,\"share_att_key\":true,\"type_vocab_size\":0,\"vocab_size\":128100}",
    .tiny =
        "hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=40,position_buckets=6,"
        "vocab_size=71",
    .options_bytes = sizeof(struct deberta),
    .parse = parse,
    .weights = weights,
    .body = encoder_body,
};
