/* P-tuning (Liu et al. 2021): prompt tuning whose rows an encoder makes of trained embeddings E: an MLP, or a bidirectional LSTM and an MLP.
   Files hold what the encoder gives; the encoder lives in a run and its checkpoints. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "modules/prompt.h"
#include "ops/ops.h"
#include "ops/recurrent.h"

struct ptuning_options {
    struct prompt prompt;  // first
    int64_t hidden, layers;
    double dropout;
    bool is_lstm;
};

enum { MADE, EMBEDDING, ENCODER };  // numbers of a fresh site's parameters: the table, E, then the encoder's
#define LSTM_LAYERS ((TUNER_MAX_PARAMS - ENCODER - 4) / 8)

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct ptuning_options *o = (struct ptuning_options *)m->options;
    const json_t *c = m->config;
    const char *kind = "MLP";
    o->layers = 2;
    TRY(prompt_parse(m, where, err));
    TRY(json_get_int(&o->hidden, c, where, "encoder_hidden_size", 1, 1 << 20, false, err));
    TRY(json_get_int(&o->layers, c, where, "encoder_num_layers", 1, 1 << 10, false, err));
    TRY(json_get_float(&o->dropout, c, where, "encoder_dropout", 0, 0.999, false, err));
    TRY(json_get_str(&kind, c, where, "encoder_reparameterization_type", false, err));
    o->is_lstm = strcmp(kind, "LSTM") == 0;
    if (!o->is_lstm && strcmp(kind, "MLP") != 0)
        FAIL(err, CB_E_FORMAT, "%s: encoder_reparameterization_type: found %.60s; wanted MLP or LSTM", where, kind);
    m->n_rows = o->prompt.n;
    return CB_OK;
}

static enum cb_status declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    TRY(prompt_declare_shared(m, sites, err));
    return prompt_settle_hidden(m, &((struct ptuning_options *)m->options)->hidden, err);
}

/* Weights of one direction of an LSTM's layer, uniform in 1 / sqrt(hidden). */
static enum cb_status direction_add(struct module *m, struct tuner_site *site, int64_t layer, bool back, int64_t in, struct cb_err *err) {
    const struct ptuning_options *o = m->options;
    static const char *const parts[4] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
    const int64_t h = o->hidden, dim[4][2] = {{4 * h, in}, {4 * h, h}, {4 * h, 0}, {4 * h, 0}};
    char name[64];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "lstm_head.%s_l%lld%s", parts[i], (long long)layer, back ? "_reverse" : "");
        TRY(prompt_add_inner(m, site, name, i < 2 ? 2 : 1, dim[i], TUNER_UNIFORM, 1 / sqrt((double)h), err));
    }
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct ptuning_options *o = m->options;
    const int64_t rows = o->prompt.n * o->prompt.stacks, c = o->prompt.channels, h = o->hidden, table[2] = {rows, c};
    const struct tuner_param rest = {.init = TUNER_NORMAL, .spread = 1};
    TRY(prompt_add_table(m, site, rows, c, m->is_fresh, rest, err));
    if (!m->is_fresh) return CB_OK;
    TRY(prompt_add_inner(m, site, "embedding.weight", 2, table, TUNER_NORMAL, 1, err));
    if (!o->is_lstm) {
        TRY(prompt_add_linear(m, site, "mlp_head.0", c, h, TUNER_UNIFORM, err));
        TRY(prompt_add_linear(m, site, "mlp_head.2", h, h, TUNER_UNIFORM, err));
        return prompt_add_linear(m, site, "mlp_head.4", h, c, TUNER_UNIFORM, err);
    }
    if (o->layers > LSTM_LAYERS)
        FAIL(err, CB_E_LIMIT, "%s: encoder_num_layers: found %lld; at most %d are taken", m->name, (long long)o->layers, LSTM_LAYERS);
    for (int64_t i = 0; i < o->layers; i++)
        for (int back = 0; back < 2; back++) TRY(direction_add(m, site, i, back, i ? 2 * h : c, err));
    TRY(prompt_add_linear(m, site, "mlp_head.0", 2 * h, 2 * h, TUNER_UNIFORM, err));
    return prompt_add_linear(m, site, "mlp_head.2", 2 * h, c, TUNER_UNIFORM, err);
}

/* The table that the encoder gives. */
static struct cb_tensor *make(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct ptuning_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *x = tuner_leaf(m, site, EMBEDDING, nn);
    int at = ENCODER;
    const int64_t rows = o->prompt.n * o->prompt.stacks;
    if (o->is_lstm) {
        x = op_reshape(g, x, 3, (const int64_t[]){1, rows, o->prompt.channels});
        for (int64_t i = 0; i < o->layers; i++, at += 8) {
            struct recurrent_weights w[2];
            for (int d = 0; d < 2; d++)
                w[d] = (struct recurrent_weights){tuner_leaf(m, site, at + 4 * d, nn), tuner_leaf(m, site, at + 4 * d + 1, nn),
                                                  tuner_leaf(m, site, at + 4 * d + 2, nn), tuner_leaf(m, site, at + 4 * d + 3, nn)};
            if (i) x = nn_dropout(nn, x, o->dropout);
            x = op_recurrent(g, "lstm", x, 1, true, false, w, NULL, NULL).y;
        }
        x = op_reshape(g, x, 2, (const int64_t[]){rows, 2 * o->hidden});
    }
    for (; at + 2 < site->n_params; at += 2) x = op_unary(g, "relu", prompt_linear(m, site, at, nn, x));
    return prompt_linear(m, site, at, nn, x);
}

static const struct tuner_option options[] = {
    {"n", "num_virtual_tokens", TUNER_INT, "virtual tokens"},
    {"encoder", "encoder_reparameterization_type", TUNER_STR, "MLP or LSTM"},
    {"hidden", "encoder_hidden_size", TUNER_INT, "width of the encoder; else the embedding's"},
    {"layers", "encoder_num_layers", TUNER_INT, "of the LSTM; the MLP has two hidden ones"},
    {"dropout", "encoder_dropout", TUNER_FLOAT, "between the LSTM's layers, in training"},
    PROMPT_SAVE,
    {0},
};
static const char *const cases[] = {"ptuning:n=3,hidden=16", "ptuning:n=4,hidden=6,encoder=LSTM", NULL};

const struct tuner tuner_ptuning = {
    .name = "ptuning",
    .doc = "P-tuning: virtual tokens that an encoder makes; the file holds what it gives.",
    .peft_type = "P_TUNING",
    .options = options,
    .defaults = "{" PROMPT_JSON
                ",\"encoder_dropout\":0.0,\"encoder_hidden_size\":null,\"encoder_num_layers\":2,\"encoder_reparameterization_type\":"
                "\"MLP\",\"peft_type\":\"P_TUNING\"}",
    .options_bytes = sizeof(struct ptuning_options),
    .fresh = TUNER_NOT_BASE,
    .prefix = "base_model.",
    .cases = cases,
    .parse = parse,
    .match = prompt_match,
    .implied = prompt_implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .make = make,
    .rows = prompt_rows,
    .refuses_fold = prompt_refuses_fold,
};
