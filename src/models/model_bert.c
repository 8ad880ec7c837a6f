/* BERT (Devlin et al. 2019) as Transformers stores it, with all its heads. */
#include "models/encoder.h"
#include "ops/ops.h"

static const struct encoder_names names = {
    .embeddings = "bert.embeddings",
    .layer = "bert.encoder.layer.%d",
    .q = "attention.self.query",
    .k = "attention.self.key",
    .v = "attention.self.value",
    .out = "attention.output.dense",
    .distances = "attention.self.distance_embedding",
    .attention_norm = "attention.output.LayerNorm",
    .up = "intermediate.dense",
    .down = "output.dense",
    .norm = "output.LayerNorm",
    .joins = {"attention.output", "output"},
    .pooler = "bert.pooler.dense",
    .transform = "cls.predictions.transform.dense",
    .transform_norm = "cls.predictions.transform.LayerNorm",
};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    m->n_types = 2;
    m->pad = 0;
    return encoder_parse(m, name, &names, NULL, err);
}

/* ---- whether the second sentence follows the first */
static enum cb_status next_sentence_weights(struct model *m, struct cb_err *err) {
    m->n_labels = 2;
    m->problem = MODEL_SINGLE_LABEL;
    return encoder_pooled_weights(m, err);
}

/* ---- pretraining: masked tokens and the next sentence together */
static const struct nn_linear *relation(const struct model *m, struct nn_linear *l) {
    *l = (struct nn_linear){.name = "cls.seq_relationship", .kind = NN_HEAD, .in = m->n_embd, .out = 2, .bias = true};
    return l;
}

static enum cb_status pretraining_weights(struct model *m, struct cb_err *err) {
    TRY(encoder_pooled_weights(m, err));
    TRY(encoder_masked_weights(m, err));
    TRY(model_head_masked_lm.weights(m, err));
    return model_add_linear(m, m->n_embd, 2, true, "", "cls.seq_relationship", err);
}

static void pretraining_build(const struct model *m, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    struct nn_linear vocabulary = model_head_linear(m, m->vocab), l;
    if (m->tied) vocabulary.weight = m->embedding;
    io->logits = nn_linear(nn, encoder_masked(m, nn, io, NULL, x), &vocabulary);
    struct cb_tensor *next = nn_linear(nn, encoder_pooler(m, nn, io, NULL, x), relation(m, &l));
    if (io->want_logits) graph_output(g, io->logits, "prediction_logits");
    if (io->want_logits) graph_output(g, next, "seq_relationship_logits");
    if (!io->want_loss) return;
    const int64_t n = io->batch * io->tokens;
    struct cb_tensor *labels = op_reshape(g, model_labels(nn, io, io->tokens, m->vocab), 1, &n);
    struct cb_tensor *label = model_input(nn, io, "next_sentence_label", 1, &io->batch, 0, 2, true);
    struct cb_tensor *masked = op_cross_entropy(g, op_reshape(g, io->logits, 2, (const int64_t[]){n, m->vocab}), labels, "mean");
    io->loss = op_add(g, masked, op_cross_entropy(g, next, label, "mean"));
}

static const char *const pretraining_labels[] = {"labels", "next_sentence_label", NULL};
static const struct model_head head_pretraining = {
    .name = "pretraining", .labels = pretraining_labels, .weights = pretraining_weights, .build = pretraining_build};

static const char *const model_types[] = {"bert", NULL};
static const char *const ignored[] = {".position_ids", "cls.", "bert.pooler.", NULL};
static const struct model_class pretraining = {
    .name = "ForPreTraining", .head = &head_pretraining, .linear = "cls.predictions.decoder", .bias = "cls.predictions.bias"};
static const struct model_class next_sentence = {.name = "ForNextSentencePrediction",
                                                 .head = &model_head_sequence,
                                                 .linear = "cls.seq_relationship",
                                                 .weights = next_sentence_weights,
                                                 .features = encoder_pooler};
static const struct model_class *const classes[] = {&encoder_class_masked,        &pretraining,          &next_sentence,
                                                    &encoder_class_pooled,        &encoder_class_tokens, &model_class_span,
                                                    &encoder_class_pooled_choice, &encoder_class_states, NULL};

const struct family model_bert = {
    .name = "bert",
    .doc = "BERT: reads both ways, learned positions, segments, a norm after each part; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "Bert",
    .classes = classes,
    .prefix = "bert.",
    .ignored = ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"BertForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"classifier_dropout\":null,\"dtype\":\"float32\","
        "\"hidden_act\":\"gelu\",\"hidden_dropout_prob\":0.1,\"hidden_size\":768,\"initializer_range\":0.02,\"intermediate_size\":3072,"
        "\"layer_norm_eps\":1e-12,\"max_position_embeddings\":512,\"model_type\":\"bert\",\"num_attention_heads\":12,"
        "\"num_hidden_layers\":12,\"pad_token_id\":0,\"position_embedding_type\":\"absolute\",\"type_vocab_size\":2,\"use_cache\":true,"
        "\"vocab_size\":30522}",
    .tiny = "hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=40,vocab_size=71",
    .options_bytes = sizeof(struct encoder),
    .parse = parse,
    .weights = encoder_weights,
    .body = encoder_body,
    .pooler = encoder_given_pooler,
};
