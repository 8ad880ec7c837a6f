/* ALBERT (Lan et al. 2020) as Transformers stores it: BERT's body with narrower embeddings, and layers of a group that share their weights. */
#include "models/encoder.h"
#include "ops/ops.h"

static const struct encoder_names names = {
    .embeddings = "albert.embeddings",
    .project = "albert.encoder.embedding_hidden_mapping_in",
    .project_always = true,
    .layer = "albert.encoder.albert_layer_groups.%d.albert_layers.%d",
    .q = "attention.query",
    .k = "attention.key",
    .v = "attention.value",
    .out = "attention.dense",
    .distances = "attention.distance_embedding",
    .distances_unscaled = true,
    .attention_norm = "attention.LayerNorm",
    .up = "ffn",
    .down = "ffn_output",
    .norm = "full_layer_layer_norm",
    .joins = {"attention.attention_adapters", "output_adapters"},
    .pooler = "albert.pooler",
    .transform = "predictions.dense",
    .transform_norm = "predictions.LayerNorm",
};
static const struct encoder_keys keys = {.hidden = "hidden_size",
                                         .layers = "num_hidden_layers",
                                         .heads = "num_attention_heads",
                                         .inner = "intermediate_size",
                                         .activation = "hidden_act",
                                         .dropout = "hidden_dropout_prob",
                                         .attention_dropout = "attention_probs_dropout_prob",
                                         .classifier_dropout = "classifier_dropout_prob"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct encoder *e = (struct encoder *)m->options;
    m->n_types = 2;
    m->pad = 0;
    TRY(encoder_parse(m, name, &names, &keys, err));
    if (!json_object_get(m->config, "embedding_size")) e->embedding = 128;
    if (!json_object_get(m->config, "classifier_dropout_prob")) e->classifier_dropout = 0.1;
    e->groups = e->group_size = 1;
    TRY(json_get_int(&e->groups, m->config, name, "num_hidden_groups", 1, m->n_layer, false, err));
    TRY(json_get_int(&e->group_size, m->config, name, "inner_group_num", 1, 256, false, err));
    if (e->groups * e->group_size > 4096)
        FAIL(err, CB_E_FORMAT, "%s: num_hidden_groups %lld of inner_group_num %lld; wanted 4096 layers of their own at most", name,
             (long long)e->groups, (long long)e->group_size);
    return CB_OK;
}

/* ---- pretraining: masked tokens and the order of two sentences together */
static enum cb_status pretraining_weights(struct model *m, struct cb_err *err) {
    TRY(encoder_pooled_weights(m, err));
    TRY(encoder_masked_weights(m, err));
    TRY(model_head_masked_lm.weights(m, err));
    return model_add_linear(m, m->n_embd, m->n_labels, true, "", "sop_classifier.classifier", err);
}

static void pretraining_build(const struct model *m, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    struct nn_linear vocabulary = model_head_linear(m, m->vocab);
    const struct nn_linear order = {
        .name = "sop_classifier.classifier", .kind = NN_HEAD, .in = m->n_embd, .out = m->n_labels, .bias = true};
    if (m->tied) vocabulary.weight = m->embedding;
    io->logits = nn_linear(nn, encoder_masked(m, nn, io, NULL, x), &vocabulary);
    struct cb_tensor *sop = nn_linear(nn, encoder_pooled(m, nn, io, NULL, x), &order);
    if (io->want_logits) graph_output(g, io->logits, "prediction_logits");
    if (io->want_logits) graph_output(g, sop, "sop_logits");
    if (!io->want_loss) return;
    const int64_t n = io->batch * io->tokens;
    struct cb_tensor *labels = op_reshape(g, model_labels(nn, io, io->tokens, m->vocab), 1, &n);
    struct cb_tensor *label = model_input(nn, io, "sentence_order_label", 1, &io->batch, 0, m->n_labels, true);
    struct cb_tensor *masked = op_cross_entropy(g, op_reshape(g, io->logits, 2, (const int64_t[]){n, m->vocab}), labels, "mean");
    io->loss = op_add(g, masked, op_cross_entropy(g, sop, label, "mean"));
}

static const char *const pretraining_labels[] = {"labels", "sentence_order_label", NULL};
static const struct model_head head_pretraining = {
    .name = "pretraining", .labels = pretraining_labels, .has_labels = true, .weights = pretraining_weights, .build = pretraining_build};

static const char *const model_types[] = {"albert", NULL};
static const char *const ignored[] = {".position_ids", "predictions.", "sop_classifier.", "albert.pooler.", NULL};
static const struct model_class masked = ENCODER_MASKED("predictions.decoder", "predictions.bias");
static const struct model_class pretraining = {
    .name = "ForPreTraining", .head = &head_pretraining, .linear = "predictions.decoder", .bias = "predictions.bias"};
static const struct model_class *const classes[] = {&masked,
                                                    &pretraining,
                                                    &encoder_class_pooled,
                                                    &encoder_class_tokens,
                                                    &model_class_span,
                                                    &encoder_class_pooled_choice,
                                                    &encoder_class_states,
                                                    NULL};

const struct family model_albert = {
    .name = "albert",
    .doc = "ALBERT: BERT's body whose layers share weights, over narrower embeddings; masked tokens, sentence order, labels, spans.",
    .model_types = model_types,
    .title = "Albert",
    .classes = classes,
    .prefix = "albert.",
    .ignored = ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"AlbertForMaskedLM\"],\"attention_probs_dropout_prob\":0,\"bos_token_id\":2,\"classifier_dropout_prob\":0.1,"
        "\"dtype\":\"float32\",\"embedding_size\":128,\"eos_token_id\":3,\"hidden_act\":\"gelu_new\",\"hidden_dropout_prob\":0,"
        "\"hidden_size\":768,\"initializer_range\":0.02,\"inner_group_num\":1,\"intermediate_size\":3072,\"layer_norm_eps\":1e-12,"
        "\"max_position_embeddings\":512,\"model_type\":\"albert\",\"num_attention_heads\":12,\"num_hidden_groups\":1,"
        "\"num_hidden_layers\":12,\"pad_token_id\":0,\"position_embedding_type\":\"absolute\",\"type_vocab_size\":2,\"vocab_size\":30000}",
    .tiny =
        "embedding_size=16,hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=40,"
        "vocab_size=71",
    .options_bytes = sizeof(struct encoder),
    .parse = parse,
    .weights = encoder_weights,
    .body = encoder_body,
    .pooler = encoder_given_pooler,
};
