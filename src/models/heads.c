/* Heads and classes that families share: the next token, a label or number a sequence, a label a token, a span, a choice among candidates. */
#include <string.h>

#include "models/model.h"
#include "ops/losses.h"
#include "ops/ops.h"

static const char *const labels_only[] = {"labels", NULL};

/* ---- the linear layer */
static bool has_bias(const struct model *model) {
    const char *bias = model->class->bias;
    return !model->head_has_no_bias && (!bias || *bias);
}

static const char *linear_name(const struct model *model) { return model->class->linear ? model->class->linear : "lm_head"; }

enum cb_status model_head_weights(struct model *model, int64_t out, struct cb_err *err) {
    const struct model_class *class = model->class;
    const char *name = linear_name(model);
    TRY(model_add_weight(model, err, MODEL_NORMAL, model->init_std, 2, (const int64_t[]){out, model->n_features}, "%s.weight", name));
    if (!has_bias(model)) return CB_OK;
    return class->bias ? model_add_weight(model, err, MODEL_ZEROS, 0, 1, &out, "%s", class->bias)
                       : model_add_weight(model, err, MODEL_ZEROS, 0, 1, &out, "%s.bias", name);
}

struct nn_linear model_head_linear(const struct model *model, int64_t out) {
    const char *bias = model->class->bias;
    return (struct nn_linear){.name = linear_name(model),
                              .kind = NN_HEAD,
                              .in = model->n_features,
                              .out = out,
                              .bias = has_bias(model),
                              .bias_name = has_bias(model) ? bias : NULL};
}

/* Logits of the class's linear layer, an output where wanted. */
static struct cb_tensor *logits_make(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x, int64_t out) {
    struct nn_linear head = model_head_linear(model, out);
    io->logits = nn_linear(nn, x, &head);
    if (io->want_logits) model_head_output(nn, io, io->logits, "logits");
    return io->logits;
}

/* ---- features */
struct cb_tensor *model_features_last(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                      struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    const int64_t t = io->tokens, row[2] = {1, t};
    struct cb_tensor *last = model_counting(g, io->batch, t - 1, 0);
    if (model->pad >= 0 && model->pad <= INT32_MAX) {
        // the largest t whose id is not padding
        const int32_t pad = (int32_t)model->pad;
        struct cb_tensor *is_token = op_compare(g, "ne", leaves->ids, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &pad));
        struct cb_tensor *place = op_reshape(g, model_counting(g, t, 0, 1), 2, row);
        last = op_argmax(g, op_mul(g, op_cast(g, is_token, CB_DTYPE_I32), place), 1, 1, false);
    }
    return nn_rows(nn, x, op_add(g, last, model_counting(g, io->batch, 0, t)));
}

struct cb_tensor *model_features_first(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                       struct cb_tensor *x) {
    (void)model;
    (void)leaves;
    return graph_is_bad(nn->g, x) ? x : nn_rows(nn, x, model_counting(nn->g, io->batch, 0, x->type.dim[1]));
}

/* ---- the next token */
struct cb_tensor *model_rows_pick(struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *last = model_input(nn, io, "last", 1, &io->batch, 0, x->type.dim[1] - nn->n_rows, false);
    return nn_rows(nn, x, op_add(g, last, model_counting(g, io->batch, nn->n_rows, x->type.dim[1])));
}

/* (B,T,N) or (B,T) without its first or last step, rows joined. */
static struct cb_tensor *rows_shifted(struct cb_graph *g, struct cb_tensor *x, int64_t begin, int64_t end) {
    if (graph_is_bad(g, x)) return x;
    if (end - begin != x->type.dim[1]) x = op_slice(g, x, 1, begin, end, 1);
    if (graph_is_bad(g, x)) return x;
    const int64_t flat[2] = {x->type.dim[0] * x->type.dim[1], x->type.rank > 2 ? x->type.dim[2] : 0};
    return op_reshape(g, x, x->type.rank - 1, flat);
}

/* The vocabulary's layer: its weight where it is not the embedding, its bias. */
static enum cb_status vocabulary_weights(struct model *model, struct cb_err *err) {
    const char *bias = model->class->bias;
    if (!model->tied) return model_head_weights(model, model->vocab, err);
    if (!has_bias(model)) return CB_OK;
    return bias ? model_add_weight(model, err, MODEL_ZEROS, 0, 1, &model->vocab, "%s", bias)
                : model_add_weight(model, err, MODEL_ZEROS, 0, 1, &model->vocab, "%s.bias", linear_name(model));
}

/* Labels (B,T) of rows of x (B,T,...) from shift on, rows joined. */
static struct cb_tensor *vocabulary_labels(struct nn *nn, struct model_io *io, struct cb_tensor *x, int64_t vocab, int64_t shift) {
    if (graph_is_bad(nn->g, x)) return x;
    const int64_t t = x->type.dim[1];
    if (t <= shift) return graph_fail(nn->g, CB_E_SHAPE, "model: loss of 1 token; wanted 2 or more");
    return rows_shifted(nn->g, model_labels(nn, io, t, vocab), shift, t);
}

void model_vocabulary_loss(struct nn *nn, struct model_io *io, int64_t vocab, int64_t shift) {
    struct cb_tensor *labels = vocabulary_labels(nn, io, io->logits, vocab, shift);
    if (graph_is_bad(nn->g, labels)) return;
    io->loss = op_cross_entropy(nn->g, rows_shifted(nn->g, io->logits, 0, io->logits->type.dim[1] - shift), labels, "mean");
}

/* Row t of x learns label t + shift. */
static void vocabulary_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x, int64_t shift) {
    struct cb_graph *g = nn->g;
    struct nn_linear head = model_head_linear(model, model->vocab);
    if (model->tied) head.weight = model->embedding;
    head.softcap = model->logit_softcap;
    head.role = "vocabulary";
    const int64_t flat = model->vocab;
    if (io->want_logits || model->logits_bias) {
        io->logits = nn_linear(nn, io->last_only ? model_rows_pick(nn, io, x) : x, &head);
        if (model->logits_bias) {
            struct cb_tensor *bias = nn_param(nn, model->logits_bias, 2, (const int64_t[]){1, flat});
            if (bias->type.dtype != CB_DTYPE_F32) bias = op_cast(g, bias, CB_DTYPE_F32);
            io->logits = op_add(g, io->logits, op_reshape(g, bias, 1, &flat));
        }
        if (io->want_logits) model_head_output(nn, io, io->logits, "logits");
    }
    if (!io->want_loss) return;
    if (io->logits) {
        model_vocabulary_loss(nn, io, model->vocab, shift);
        return;
    }
    struct cb_tensor *labels = vocabulary_labels(nn, io, x, model->vocab, shift);
    if (!graph_is_bad(g, labels)) io->loss = nn_head_loss(nn, rows_shifted(g, x, 0, x->type.dim[1] - shift), &head, labels);
}

static void causal_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    vocabulary_build(model, nn, io, x, io->labels_shifted ? 0 : 1);
}

static void masked_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    vocabulary_build(model, nn, io, x, 0);
}

const struct model_head model_head_causal_lm = {
    .name = "causal_lm",
    .task = "CAUSAL_LM",
    .labels = labels_only,
    .generates = true,
    .learns_text = true,
    .weights = vocabulary_weights,
    .build = causal_build,
};

const struct model_head model_head_masked_lm = {
    .name = "masked_lm", .labels = labels_only, .learns_text = true, .masks = true, .weights = vocabulary_weights, .build = masked_build};

const struct model_head model_head_seq2seq = {.name = "seq2seq_lm",
                                              .task = "SEQ_2_SEQ_LM",
                                              .labels = labels_only,
                                              .generates = true,
                                              .shifts_labels = true,
                                              .weights = vocabulary_weights,
                                              .build = masked_build};

/* ---- a sequence */
static enum cb_status label_weights(struct model *model, struct cb_err *err) { return model_head_weights(model, model->n_labels, err); }

/* One number: mean squared error; one label: cross-entropy; several: binary cross-entropy. */
void model_sequence_loss(struct nn *nn, struct model_io *io, int64_t n_labels, enum model_problem problem) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *logits = io->logits;
    if (problem == MODEL_PROBLEM_BY_LABELS)
        problem = n_labels == 1 ? MODEL_REGRESSION : io->float_labels ? MODEL_MULTI_LABEL : MODEL_SINGLE_LABEL;
    if (problem == MODEL_SINGLE_LABEL) {
        io->loss = op_cross_entropy(g, logits, model_input(nn, io, "labels", 1, &io->batch, 0, n_labels, true), "mean");
        return;
    }
    const int64_t shape[2] = {io->batch, n_labels};
    struct cb_tensor *labels = model_rows_input(nn, io, "labels", type_make(CB_DTYPE_F32, n_labels == 1 ? 1 : 2, shape));
    labels = op_reshape(g, labels, 2, shape);
    io->loss =
        problem == MODEL_REGRESSION ? loss_mse(g, logits, labels, "mean") : loss_bce_with_logits(g, logits, labels, NULL, NULL, "mean");
}

static void sequence_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    logits_make(model, nn, io, x, model->n_labels);
    if (io->want_loss) model_sequence_loss(nn, io, model->n_labels, model->problem);
}

const struct model_head model_head_sequence = {.name = "sequence_classification",
                                               .task = "SEQ_CLS",
                                               .labels = labels_only,
                                               .has_labels = true,
                                               .weights = label_weights,
                                               .build = sequence_build};

/* ---- a label a token */
void model_tokens_loss(struct nn *nn, struct model_io *io, int64_t n_labels, struct cb_tensor *mask) {
    struct cb_graph *g = nn->g;
    const int64_t n = io->batch * io->tokens;
    const int32_t zero = 0, none = -100;
    struct cb_tensor *labels = model_labels(nn, io, io->tokens, n_labels);
    if (mask) {
        struct cb_tensor *is_token = op_compare(g, "ne", mask, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &zero));
        labels = op_where(g, is_token, labels, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &none));
    }
    labels = op_reshape(g, labels, 1, &n);
    io->loss = op_cross_entropy(g, op_reshape(g, io->logits, 2, (const int64_t[]){n, n_labels}), labels, "mean");
}

static void tokens_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    logits_make(model, nn, io, x, model->n_labels);
    if (io->want_loss) model_tokens_loss(nn, io, model->n_labels, NULL);
}

const struct model_head model_head_tokens = {.name = "token_classification",
                                             .task = "TOKEN_CLS",
                                             .labels = labels_only,
                                             .has_labels = true,
                                             .weights = label_weights,
                                             .build = tokens_build};

/* ---- a span: where it starts and where it ends; positions outside the sequence are ignored */
static enum cb_status span_weights(struct model *model, struct cb_err *err) { return model_head_weights(model, 2, err); }

/* Cross-entropy of scores (B,T) over T, positions of T and more being no answer. */
static struct cb_tensor *span_loss(struct nn *nn, struct model_io *io, const char *name, struct cb_tensor *scores) {
    struct cb_graph *g = nn->g;
    const int32_t end = (int32_t)io->tokens, none = -100;
    struct cb_tensor *at = model_input(nn, io, name, 1, &io->batch, 0, (int32_t)(INT32_MAX - nn->n_rows), false);
    at = model_token_places(nn, at);
    struct cb_tensor *inside = op_compare(g, "lt", at, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &end));
    at = op_where(g, inside, at, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &none));
    return op_cross_entropy(g, scores, at, "mean");
}

void model_span_outputs(struct nn *nn, struct model_io *io, struct cb_tensor *scores) {
    struct cb_graph *g = nn->g;
    const int64_t rows[2] = {io->batch, io->tokens};
    struct cb_tensor *score[2];
    static const char *const output[2] = {"start_logits", "end_logits"}, *const input[2] = {"start_positions", "end_positions"};
    struct cb_tensor *both = op_split(g, scores, -1, 2, (const int64_t[]){1, 1});
    for (int i = 0; i < 2; i++) {
        score[i] = op_reshape(g, graph_out(g, both, i), 2, rows);
        if (io->want_logits) model_head_output(nn, io, score[i], output[i]);
    }
    if (io->want_loss)
        io->loss = op_scale(g, op_add(g, span_loss(nn, io, input[0], score[0]), span_loss(nn, io, input[1], score[1])), 0.5, 0);
}

static void span_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct nn_linear head = model_head_linear(model, 2);
    model_span_outputs(nn, io, nn_linear(nn, x, &head));
}

static const char *const span_labels[] = {"start_positions", "end_positions", NULL};
const struct model_head model_head_span = {.name = "question_answering",
                                           .task = "QUESTION_ANS",
                                           .labels = span_labels,
                                           .reads_padding = true,
                                           .weights = span_weights,
                                           .build = span_build};

/* ---- one of several candidates */
static enum cb_status choice_weights(struct model *model, struct cb_err *err) { return model_head_weights(model, 1, err); }

void model_choice_outputs(struct nn *nn, struct model_io *io, struct cb_tensor *scores, int64_t n) {
    struct cb_graph *g = nn->g;
    const int64_t rows = io->batch / n;
    io->logits = op_reshape(g, scores, 2, (const int64_t[]){rows, n});
    if (io->choice_mask) {
        const int32_t none = 0;
        struct cb_tensor *mask = model_input(nn, io, "choice_mask", 2, (const int64_t[]){rows, n}, 0, 2, false);
        mask = op_compare(g, "ne", mask, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &none));
        io->logits = op_where(g, mask, io->logits, graph_const_f32(g, -1e30f));
    }
    if (io->want_logits) model_head_output(nn, io, io->logits, "logits");
    if (io->want_loss) io->loss = op_cross_entropy(g, io->logits, model_input(nn, io, "labels", 1, &rows, 0, n, true), "mean");
}

static void choice_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct nn_linear head = model_head_linear(model, 1);
    model_choice_outputs(nn, io, nn_linear(nn, x, &head), io->choices ? io->choices : 1);
}

const struct model_head model_head_choice = {
    .name = "multiple_choice", .task = "SEQ_CLS", .labels = labels_only, .weights = choice_weights, .build = choice_build};

/* ---- none */
static void states_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    io->logits = x;
    if (io->want_logits) model_head_output(nn, io, x, "last_hidden_state");
    if (io->want_loss) graph_fail(nn->g, CB_E_UNSUPPORTED, "%s: a body without a head has no loss", model->class->name);
}

static const char *const no_labels[] = {NULL};
const struct model_head model_head_states = {
    .name = "hidden_states", .task = "FEATURE_EXTRACTION", .labels = no_labels, .build = states_build};

/* ---- classes */
const struct model_class model_class_causal_lm = {"ForCausalLM", &model_head_causal_lm, .bias = ""};
const struct model_class model_class_last = {"ForSequenceClassification", &model_head_sequence, .linear = "score", .bias = "",
                                             .features = model_features_last};
const struct model_class model_class_tokens = {"ForTokenClassification", &model_head_tokens, .linear = "classifier"};
const struct model_class model_class_scores = {"ForTokenClassification", &model_head_tokens, .linear = "score"};
const struct model_class model_class_span = {"ForQuestionAnswering", &model_head_span, .linear = "qa_outputs"};
const struct model_class model_class_span_old = {"ForQuestionAnswering", &model_head_span, .linear = "qa_outputs",
                                                 .prefix = "transformer."};
/* Transformers has none of decoders; this one is a score of the last row, as theirs of sequences. */
static const struct model_class model_class_choice = {"ForMultipleChoice", &model_head_choice, .linear = "score", .bias = "",
                                                      .features = model_features_last};
const struct model_class model_class_states = {.name = "Model", .head = &model_head_states, .prefix = ""};

const struct model_class *model_class_at(const struct family *family, int i) {
    static const struct model_class *const any[] = {&model_class_last, &model_class_scores, &model_class_span, &model_class_choice,
                                                    &model_class_states};
    int n = 0;
    for (; family->classes[n]; n++)
        if (n == i) return family->classes[n];
    for (size_t k = 0; k < sizeof any / sizeof *any && !family->bidirectional; k++) {
        bool is_own = false;
        for (int c = 0; family->classes[c]; c++) is_own |= model_class_is(family->classes[c], any[k]->name);
        if (!is_own && n++ == i) return any[k];
    }
    return NULL;
}

/* "ForSequenceClassification" is "TextForSequenceClassification" too. */
bool model_class_is(const struct model_class *class, const char *name) {
    const size_t n = strlen(class->name), end = strlen(name);
    return n >= end && strcmp(class->name + n - end, name) == 0;
}
