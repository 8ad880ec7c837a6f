/* DistilBERT (Sanh et al. 2019) as Transformers stores it: BERT's body without segments and pooler, under names of its own. */
#include "models/encoder.h"

struct distilbert {
    struct encoder encoder;  // first: what encoder.c reads
    double qa_dropout;
};

static const struct encoder_names names = {
    .embeddings = "distilbert.embeddings",
    .layer = "distilbert.transformer.layer.%d",
    .q = "attention.q_lin",
    .k = "attention.k_lin",
    .v = "attention.v_lin",
    .out = "attention.out_lin",
    .attention_norm = "sa_layer_norm",
    .up = "ffn.lin1",
    .down = "ffn.lin2",
    .norm = "output_layer_norm",
    .transform = "vocab_transform",
    .transform_norm = "vocab_layer_norm",
    .dense = "pre_classifier",
    .dense_activation = "relu",
};
static const struct encoder_keys keys = {.hidden = "dim",
                                         .layers = "n_layers",
                                         .heads = "n_heads",
                                         .inner = "hidden_dim",
                                         .activation = "activation",
                                         .dropout = "dropout",
                                         .attention_dropout = "attention_dropout",
                                         .classifier_dropout = "seq_classif_dropout"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct distilbert *o = (struct distilbert *)m->options;
    m->pad = 0;
    TRY(encoder_parse(m, name, &names, &keys, err));
    o->encoder.eps = 1e-12;  // never read from a file
    m->n_types = 0;
    o->qa_dropout = 0.1;
    return json_get_float(&o->qa_dropout, m->config, name, "qa_dropout", 0, 0.999, false, err);
}

/* The first row through pre_classifier: no dropout before it, and it belongs to the head of choices too. */
static struct cb_tensor *first_dense(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                     struct cb_tensor *x) {
    const struct encoder *e = m->options;
    x = model_features_first(m, nn, io, leaves, x);
    x = nn_linear(nn, x, &(struct nn_linear){.name = names.dense, .kind = NN_HEAD, .in = m->n_embd, .out = m->n_embd, .bias = true});
    return nn_dropout(nn, nn_activation(nn, names.dense_activation, x), e->classifier_dropout);
}

static struct cb_tensor *span(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                              struct cb_tensor *x) {
    (void)io;
    (void)leaves;
    return nn_dropout(nn, x, ((const struct distilbert *)m->options)->qa_dropout);
}

static const char *const model_types[] = {"distilbert", NULL};
static const char *const ignored[] = {".position_ids", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", NULL};
static const struct model_class masked = ENCODER_MASKED("vocab_projector", NULL);
static const struct model_class labelled = {.name = "ForSequenceClassification",
                                            .head = &model_head_sequence,
                                            .linear = "classifier",
                                            .weights = encoder_dense_weights,
                                            .features = first_dense};
static const struct model_class spans = {
    .name = "ForQuestionAnswering", .head = &model_head_span, .linear = "qa_outputs", .features = span};
static const struct model_class choice = {.name = "ForMultipleChoice",
                                          .head = &model_head_choice,
                                          .linear = "classifier",
                                          .weights = encoder_dense_weights,
                                          .features = first_dense};
static const struct model_class *const classes[] = {&masked, &labelled, &encoder_class_tokens_plain, &spans, &choice, &model_class_states,
                                                    NULL};

const struct family model_distilbert = {
    .name = "distilbert",
    .doc = "DistilBERT: BERT's body at half the depth, without segments; masked tokens, labels, spans.",
    .model_types = model_types,
    .title = "DistilBert",
    .classes = classes,
    .prefix = "distilbert.",
    .ignored = ignored,
    .bidirectional = true,
    .defaults =
        "{\"activation\":\"gelu\",\"architectures\":[\"DistilBertForMaskedLM\"],\"attention_dropout\":0.1,\"dim\":768,\"dropout\":0.1,"
        "\"dtype\":\"float32\",\"hidden_dim\":3072,\"initializer_range\":0.02,\"max_position_embeddings\":512,\"model_type\":"
        "\"distilbert\","
        "\"n_heads\":12,\"n_layers\":6,\"pad_token_id\":0,\"qa_dropout\":0.1,\"seq_classif_dropout\":0.2,\"sinusoidal_pos_embds\":false,"
        "\"vocab_size\":30522}",
    .tiny = "dim=24,hidden_dim=40,n_heads=3,n_layers=2,max_position_embeddings=40,vocab_size=71",
    .options_bytes = sizeof(struct distilbert),
    .parse = parse,
    .weights = encoder_weights,
    .body = encoder_body,
};
