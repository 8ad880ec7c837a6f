/* A head that a module brings in place of the model's own: its layers, then outputs and a loss by its type. */
#include <string.h>

#include "models/model.h"
#include "ops/ops.h"

/* One row a sequence: the first, or where rows see those before them alone, the last that is no padding. */
static struct cb_tensor *sequence_row(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                      struct cb_tensor *x) {
    if (nn->hook.head->use_pooler) {
        if (m->family->pooler) return m->family->pooler(m, nn, io, leaves, x);
        return graph_fail(nn->g, CB_E_UNSUPPORTED, "%s: use_pooler: found true; this family has no pooler", m->class->name);
    }
    if (m->family->bidirectional) return model_features_first(m, nn, io, leaves, x);
    return model_features_last(m, nn, io, leaves, x);
}

/* ---- what the types do with scores of their layers */
static void logits_keep(struct nn *nn, struct model_io *io, struct cb_tensor *y) {
    io->logits = y;
    if (io->want_logits) model_head_output(nn, io, y, "logits");
}

static void classification(struct nn *nn, struct model_io *io, struct cb_tensor *y) {
    const int64_t n = nn->hook.head->n_labels;
    logits_keep(nn, io, y);
    if (io->want_loss) model_sequence_loss(nn, io, n, n == 1 ? MODEL_REGRESSION : MODEL_SINGLE_LABEL);
}

static void multilabel(struct nn *nn, struct model_io *io, struct cb_tensor *y) {
    logits_keep(nn, io, y);
    if (io->want_loss) model_sequence_loss(nn, io, nn->hook.head->n_labels, MODEL_MULTI_LABEL);
}

static void tagging(struct nn *nn, struct model_io *io, struct cb_tensor *y) {
    logits_keep(nn, io, y);
    if (io->want_loss) model_tokens_loss(nn, io, nn->hook.head->n_labels, nn->mask);
}

static void choice(struct nn *nn, struct model_io *io, struct cb_tensor *y) {
    // one score a row: any number of choices will do
    const int64_t n = io->choices > 1 ? io->choices : nn->hook.head->n_labels;
    if (io->batch % n)
        graph_fail(nn->g, CB_E_SHAPE, "model: batch %lld of %lld choices each; wanted a multiple", (long long)io->batch, (long long)n);
    else
        model_choice_outputs(nn, io, y, n);
}

static void vocabulary(struct nn *nn, struct model_io *io, struct cb_tensor *y) {
    const struct nn_head *head = nn->hook.head;
    logits_keep(nn, io, y);
    if (io->want_loss) model_vocabulary_loss(nn, io, head->n_labels, head->shifts_labels && !io->labels_shifted);
}

static const struct {
    const char *type;
    bool is_of_sequence;
    void (*finish)(struct nn *nn, struct model_io *io, struct cb_tensor *y);
} types[] = {
    {"causal_lm", false, vocabulary},  {"classification", true, classification},
    {"masked_lm", false, vocabulary},  {"multilabel_classification", true, multilabel},
    {"multiple_choice", true, choice}, {"question_answering", false, model_span_outputs},
    {"seq2seq_lm", false, vocabulary}, {"tagging", false, tagging},
};

static struct cb_tensor *layer(struct nn *nn, const struct nn_head *head, int i, struct cb_tensor *x) {
    const struct nn_head_layer *l = &head->layer[i];
    if (l->eps > 0) {
        struct cb_tensor *w = nn_site_param(nn, l->name, "weight", l->weight, 1, &l->in, true);
        return op_layer_norm(nn->g, x, w, nn_site_param(nn, l->name, "bias", l->bias, 1, &l->in, true), l->eps);
    }
    struct nn_linear linear = {.name = l->name, .kind = NN_HEAD, .in = l->in, .out = l->out, .weight = l->weight};
    linear.bias = l->bias != NULL;
    linear.bias_name = l->bias;
    if (i == head->n - 1 && strstr(head->type, "_lm")) linear.role = "vocabulary";
    x = nn_linear(nn, nn_dropout(nn, x, l->dropout), &linear);
    return l->activation ? nn_activation(nn, l->activation, x) : x;
}

void model_head_given(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves, struct cb_tensor *x) {
    const struct nn_head *head = nn->hook.head;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].type, head->type) != 0) continue;
        if (types[i].is_of_sequence) x = sequence_row(m, nn, io, leaves, x);
        if (!types[i].is_of_sequence && io->last_only) x = model_rows_pick(nn, io, x);
        for (int k = 0; k < head->n && !graph_is_bad(nn->g, x); k++) x = layer(nn, head, k, x);
        if (!graph_is_bad(nn->g, x)) types[i].finish(nn, io, x);
        return;
    }
    graph_fail(nn->g, CB_E_UNSUPPORTED, "head: type: found %.60s; wanted classification, tagging, causal_lm, ...", head->type);
}
