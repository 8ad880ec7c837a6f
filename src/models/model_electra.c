/* ELECTRA (Clark et al. 2020) as Transformers stores it: BERT's body over narrower embeddings; a generator of masked tokens, a discriminator of
   replaced ones. */
#include <string.h>

#include "models/encoder.h"
#include "ops/losses.h"
#include "ops/ops.h"

/* One row (B,C) of a candidate's (B,T,C). */
struct summary {
    const char *name;  // summary_type
    struct cb_tensor *(*pick)(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                              struct cb_tensor *x);
};

struct electra {
    struct encoder encoder;  // first: what encoder.c reads
    const struct summary *summary;
    const char *summary_activation;  // NULL: none
    bool summary_projects;
    double summary_first_dropout, summary_last_dropout;
};

static const struct encoder_names names = {
    .embeddings = "electra.embeddings",
    .project = "electra.embeddings_project",
    .layer = "electra.encoder.layer.%d",
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
    .transform = "generator_predictions.dense",
    .transform_norm = "generator_predictions.LayerNorm",
    .transform_activation = "gelu",
    .dense = "classifier.dense",
    .dense_activation = "gelu",
};

static struct cb_tensor *last_row(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                  struct cb_tensor *x) {
    (void)m;
    (void)leaves;
    if (graph_is_bad(nn->g, x)) return x;
    return nn_rows(nn, x, model_counting(nn->g, io->batch, x->type.dim[1] - 1, x->type.dim[1]));
}

/* Padding too, as in Transformers. */
static struct cb_tensor *mean_row(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                  struct cb_tensor *x) {
    (void)m;
    (void)io;
    (void)leaves;
    return op_mean(nn->g, x, 1, (const int64_t[]){1}, false);
}

/* cls_index without an index of its own is the last row. */
static const struct summary summaries[] = {
    {"first", model_features_first}, {"last", last_row}, {"mean", mean_row}, {"cls_index", last_row}};

static enum cb_status parse_summary(struct model *m, struct electra *o, const char *name, struct cb_err *err) {
    const json_t *c = m->config;
    const char *type = "first";
    o->summary_activation = json_is_null(json_object_get(c, "summary_activation")) ? NULL : "gelu";
    o->summary_projects = true;
    o->summary_last_dropout = 0.1;
    TRY(json_get_str(&type, c, name, "summary_type", false, err));
    TRY(json_get_str(&o->summary_activation, c, name, "summary_activation", false, err));
    TRY(json_get_bool(&o->summary_projects, c, name, "summary_use_proj", false, err));
    TRY(json_get_float(&o->summary_first_dropout, c, name, "summary_first_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->summary_last_dropout, c, name, "summary_last_dropout", 0, 0.999, false, err));
    for (size_t i = 0; i < sizeof summaries / sizeof *summaries; i++)
        if (strcmp(summaries[i].name, type) == 0) o->summary = &summaries[i];
    if (!o->summary) FAIL(err, CB_E_UNSUPPORTED, "%s: summary_type: found %.40s; wanted first, last, mean or cls_index", name, type);
    if (o->summary_activation && *o->summary_activation && !nn_is_activation(o->summary_activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: summary_activation: found %.40s; wanted gelu, tanh, ... or null", name, o->summary_activation);
    return CB_OK;
}

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    m->n_types = 2;
    m->pad = 0;
    TRY(encoder_parse(m, name, &names, NULL, err));
    struct encoder *e = (struct encoder *)m->options;
    if (!json_object_get(m->config, "embedding_size")) e->embedding = 128;
    return parse_summary(m, (struct electra *)m->options, name, err);
}

/* ---- the discriminator: whether each token was replaced */
static enum cb_status replaced_weights(struct model *m, struct cb_err *err) {
    TRY(model_add_linear(m, m->n_embd, m->n_embd, true, "", "discriminator_predictions.dense", err));
    return model_head_weights(m, 1, err);
}

/* Binary cross-entropy of every token that is not padding, mean. */
static void replaced_build(const struct model *m, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    const struct encoder *e = m->options;
    struct cb_graph *g = nn->g;
    const struct nn_linear dense = {
        .name = "discriminator_predictions.dense", .kind = NN_HEAD, .in = m->n_embd, .out = m->n_embd, .bias = true};
    const struct nn_linear last = model_head_linear(m, 1);
    const int64_t rows[2] = {io->batch, io->tokens}, known[2] = {io->batch, io->tokens - nn->n_rows};
    x = nn_activation(nn, e->activation, nn_linear(nn, x, &dense));
    io->logits = op_reshape(g, nn_linear(nn, x, &last), 2, rows);
    if (io->want_logits) graph_output(g, io->logits, "logits");
    if (!io->want_loss) return;
    struct cb_tensor *labels = op_cast(g, model_input(nn, io, "labels", 2, known, 0, 2, false), CB_DTYPE_F32);
    struct cb_tensor *miss = loss_bce_with_logits(g, model_token_rows(nn, io->logits), labels, NULL, NULL, "none");
    struct cb_tensor *mask = io->attention_mask ? graph_find_leaf(g, "attention_mask") : NULL;
    if (!mask) {
        io->loss = op_mean(g, miss, 0, NULL, false);
        return;
    }
    mask = op_cast(g, mask, CB_DTYPE_F32);
    io->loss = op_div(g, op_sum(g, op_mul(g, miss, mask), 0, NULL, false), op_sum(g, mask, 0, NULL, false));
}

static const char *const replaced_labels[] = {"labels", NULL};
static const struct model_head head_replaced = {
    .name = "replaced_tokens", .labels = replaced_labels, .weights = replaced_weights, .build = replaced_build};

/* ---- candidates: a row through sequence_summary */
static enum cb_status summary_weights(struct model *m, struct cb_err *err) {
    const struct electra *o = m->options;
    return o->summary_projects ? model_add_linear(m, m->n_embd, m->n_embd, true, "", "sequence_summary.summary", err) : CB_OK;
}

static struct cb_tensor *summary(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x) {
    const struct electra *o = m->options;
    const struct nn_linear l = {.name = "sequence_summary.summary", .kind = NN_HEAD, .in = m->n_embd, .out = m->n_embd, .bias = true};
    x = nn_dropout(nn, o->summary->pick(m, nn, io, leaves, x), o->summary_first_dropout);
    if (o->summary_projects) x = nn_linear(nn, x, &l);
    if (o->summary_activation && *o->summary_activation) x = nn_activation(nn, o->summary_activation, x);
    return nn_dropout(nn, x, o->summary_last_dropout);
}

static const char *const model_types[] = {"electra", NULL};
static const char *const ignored[] = {".position_ids", "generator_predictions.", "generator_lm_head.", "discriminator_predictions.", NULL};
static const struct model_class masked = ENCODER_MASKED("generator_lm_head", NULL);
static const struct model_class pretraining = {
    .name = "ForPreTraining", .head = &head_replaced, .linear = "discriminator_predictions.dense_prediction"};
static const struct model_class choice = {
    .name = "ForMultipleChoice", .head = &model_head_choice, .linear = "classifier", .weights = summary_weights, .features = summary};
static const struct model_class *const classes[] = {&masked,           &pretraining, &encoder_class_dense, &encoder_class_tokens,
                                                    &model_class_span, &choice,      &model_class_states,  NULL};

const struct family model_electra = {
    .name = "electra",
    .doc = "ELECTRA: BERT's body over narrower embeddings; generator of masked tokens, discriminator of replaced ones, labels, spans.",
    .model_types = model_types,
    .title = "Electra",
    .classes = classes,
    .prefix = "electra.",
    .ignored = ignored,
    .bidirectional = true,
    .defaults =
        "{\"architectures\":[\"ElectraForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,\"classifier_dropout\":null,"
        "\"dtype\":\"float32\",\"embedding_size\":128,\"hidden_act\":\"gelu\",\"hidden_dropout_prob\":0.1,\"hidden_size\":256,"
        "\"initializer_range\":0.02,\"intermediate_size\":1024,\"layer_norm_eps\":1e-12,\"max_position_embeddings\":512,"
        "\"model_type\":\"electra\",\"num_attention_heads\":4,\"num_hidden_layers\":12,\"pad_token_id\":0,"
        "\"position_embedding_type\":\"absolute\",\"summary_activation\":\"gelu\",\"summary_last_dropout\":0.1,\"summary_type\":\"first\","
        "\"summary_use_proj\":true,\"type_vocab_size\":2,\"use_cache\":true,\"vocab_size\":30522}",
    .tiny =
        "embedding_size=16,hidden_size=24,intermediate_size=40,num_attention_heads=3,num_hidden_layers=2,max_position_embeddings=40,"
        "vocab_size=71",
    .options_bytes = sizeof(struct electra),
    .parse = parse,
    .weights = encoder_weights,
    .body = encoder_body,
};
