/* Heads of the adapters library: a few linear layers with an activation, or a language model's, as head_config.json describes them. */
#include <string.h>

#include "modules/adapters.h"
#include "modules/private.h"
#include "ops/ops.h"

#define LAYERS_MAX 64

/* What a type of head is built of, and the defaults of its keys. */
struct head_type {
    const char *name;
    int64_t layers, labels;
    const char *activation, *labels_key;  // labels_key NULL: always `labels`
    bool is_language, norm, bias, shifts;
};
static const struct head_type types[] = {
    {"causal_lm", 1, 0, NULL, "vocab_size", .is_language = true, .shifts = true},
    {"classification", 2, 2, "tanh", "num_labels", .bias = true},
    {"masked_lm", 2, 0, "gelu", "vocab_size", .is_language = true, .norm = true, .bias = true},
    {"multilabel_classification", 2, 2, "tanh", "num_labels", .bias = true},
    {"multiple_choice", 2, 2, "tanh", "num_choices", .bias = true},
    {"question_answering", 1, 2, "tanh", NULL, .bias = true},
    {"seq2seq_lm", 1, 0, NULL, "vocab_size", .is_language = true},
    {"tagging", 1, 2, "tanh", "num_labels", .bias = true},
};

/* A head being made: its configuration, where its keys begin, the number of the next part. */
struct making {
    struct module *m;
    const json_t *config;
    const char *where, *label;
    struct nn_head *head;
    struct nn_head_layer *layer;
    const char *activation;
    double dropout, eps;
    int part;
};

static enum cb_status param_add(const struct making *k, const char **name, const char *field, int rank, const int64_t *dim,
                                enum tuner_init init, double spread, struct cb_err *err) {
    int number;
    struct tuner_param rest = {.init = init, .spread = spread, .site = -1, .of_head = true};
    rest.public.key = arena_printf(k->m->arena, "heads.%s.%d.%s", k->label, k->part, field);
    rest.public.type = type_make(CB_DTYPE_F32, rank, dim);
    if (!rest.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a head", k->where);
    TRY(tuner_add(k->m, NULL, rest, &number, err));
    *name = k->m->params[number].public.name;
    return CB_OK;
}

/* The next linear layer. acts: an activation follows. */
static enum cb_status linear_add(struct making *k, int64_t in, int64_t out, bool bias, bool acts, struct cb_err *err) {
    struct nn_head_layer *l = &k->layer[k->head->n++];
    const int64_t shape[2] = {out, in};
    *l = (struct nn_head_layer){.in = in, .out = out, .dropout = k->dropout, .activation = acts ? k->activation : NULL};
    l->name = arena_printf(k->m->arena, "heads.%s.%d", k->label, k->part);
    if (!l->name) FAIL(err, CB_E_MEMORY, "%s: no memory for a head", k->where);
    TRY(param_add(k, &l->weight, "weight", 2, shape, TUNER_NORMAL, 0.02, err));
    if (bias) TRY(param_add(k, &l->bias, "bias", 1, &out, TUNER_ZEROS, 0, err));
    k->part += l->activation ? 2 : 1;
    return CB_OK;
}

static enum cb_status norm_add(struct making *k, int64_t width, struct cb_err *err) {
    struct nn_head_layer *l = &k->layer[k->head->n++];
    *l = (struct nn_head_layer){.in = width, .out = width, .eps = k->eps};
    l->name = arena_printf(k->m->arena, "heads.%s.%d", k->label, k->part);
    if (!l->name) FAIL(err, CB_E_MEMORY, "%s: no memory for a head", k->where);
    TRY(param_add(k, &l->weight, "weight", 1, &width, TUNER_CONSTANT, 1, err));
    TRY(param_add(k, &l->bias, "bias", 1, &width, TUNER_ZEROS, 0, err));
    k->part++;
    return CB_OK;
}

/* Dropout, linear, activation, ..., dropout, linear. */
static enum cb_status layers_plain(struct making *k, const struct head_type *type, int64_t n, int64_t width, bool bias,
                                   struct cb_err *err) {
    const int64_t out = strcmp(type->name, "multiple_choice") == 0 ? 1 : k->head->n_labels;
    for (int64_t i = 0; i < n; i++) {
        k->part++;  // the dropout
        TRY(linear_add(k, width, i == n - 1 ? out : width, i < n - 1 || bias, i < n - 1, err));
    }
    return CB_OK;
}

/* Linear, activation, norm, ..., then the vocabulary. */
static enum cb_status layers_language(struct making *k, const struct head_type *type, int64_t n, int64_t width, bool bias,
                                      struct cb_err *err) {
    bool norm = type->norm;
    int64_t inner = width;
    TRY(json_get_bool(&norm, k->config, k->where, "layer_norm", false, err));
    TRY(json_get_int(&inner, k->config, k->where, "embedding_size", 1, 1 << 24, false, err));
    for (int64_t i = 0; i < n - 1; i++) {
        TRY(linear_add(k, i ? inner : width, inner, true, true, err));
        if (norm) TRY(norm_add(k, inner, err));
    }
    if (n == 1 && inner != width)
        FAIL(err, CB_E_SHAPE, "%s: embedding_size: found %lld; wanted %lld, as one layer has it", k->where, (long long)inner,
             (long long)width);
    return linear_add(k, inner, k->head->n_labels, bias, false, err);
}

static enum cb_status head_make(struct making *k, const struct nn *sites, struct cb_err *err) {
    const char *name = NULL;
    const struct head_type *type = NULL;
    struct nn_head *head = k->head;
    TRY(json_get_str(&name, k->config, k->where, "head_type", true, err));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) type = &types[i];
    if (!type)
        FAIL(err, CB_E_UNSUPPORTED, "%s: head_type: found %.60s; wanted classification, tagging, question_answering, causal_lm, ...",
             k->where, name);
    int64_t n = type->layers;
    bool bias = type->bias;
    k->activation = json_object_get(k->config, "activation_function") ? NULL : type->activation;
    k->dropout = sites->head_dropout;
    k->eps = sites->norm_eps;
    head->type = type->name;
    head->n_labels = type->labels;
    head->shifts_labels = type->shifts;
    TRY(json_get_int(&n, k->config, k->where, "layers", 1, LAYERS_MAX, false, err));
    TRY(json_get_bool(&bias, k->config, k->where, "bias", false, err));
    TRY(json_get_bool(&head->use_pooler, k->config, k->where, "use_pooler", false, err));
    TRY(json_get_bool(&head->shifts_labels, k->config, k->where, "shift_labels", false, err));
    TRY(json_get_float(&k->dropout, k->config, k->where, "dropout_prob", 0, 0.999, false, err));
    TRY(json_get_str(&k->activation, k->config, k->where, "activation_function", false, err));
    if (k->activation && !adapters_is_activation(k->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: activation_function: found %.60s; wanted tanh, gelu, relu, ...", k->where, k->activation);
    if (type->labels_key) TRY(json_get_int(&head->n_labels, k->config, k->where, type->labels_key, 1, INT32_MAX, type->is_language, err));
    return type->is_language ? layers_language(k, type, n, sites->width, bias, err) : layers_plain(k, type, n, sites->width, bias, err);
}

enum cb_status adapters_resolve(struct module *m, const struct nn *sites, const char *where, struct cb_err *err) {
    int64_t width = sites->width;
    TRY(json_get_int(&width, m->config, where, "hidden_size", 1, 1 << 24, false, err));
    if (width != sites->width)
        FAIL(err, CB_E_SHAPE, "%s: hidden_size: found %lld; the model has %lld", where, (long long)width, (long long)sites->width);
    const char *left_out = json_string_value(json_object_get(m->config, "head_left_out"));
    if (left_out) {
        m->warning = arena_printf(m->arena, "%s: the head of another class is left out: %s, ...", where, left_out);
        if (!m->warning) FAIL(err, CB_E_MEMORY, "%s: no memory for a warning", where);
    }
    const json_t *file = json_object_get(m->config, "head"), *config = json_object_get(file, "config");
    if (!json_is_object(config)) return CB_OK;
    struct making k = {.m = m, .config = config, .where = arena_printf(m->arena, "%s: head", where), .label = m->label};
    k.head = arena_alloc(m->arena, sizeof *k.head);
    k.layer = arena_array(m->arena, 2 * LAYERS_MAX, sizeof *k.layer);
    if (!k.where || !k.head || !k.layer) FAIL(err, CB_E_MEMORY, "%s: no memory for a head", where);
    k.head->layer = k.layer;
    TRY(json_get_str(&k.label, file, k.where, "name", false, err));
    TRY(head_make(&k, sites, err));
    m->head = k.head;
    return CB_OK;
}
