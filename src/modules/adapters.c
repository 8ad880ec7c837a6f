/* What the tuners of the adapters library share: which tuner a configuration means, keys, layers left out, activations and gates. */
#include "modules/adapters.h"

#include <string.h>
#include <strings.h>

#include "modules/private.h"
#include "ops/ops.h"

const struct tuner_option adapters_options[] = {
    {"name", "name", TUNER_STR, "the module's name within its file"},
    {"head", "head.head_type", TUNER_STR,
     "a head of its own: classification, multilabel_classification, tagging, question_answering, multiple_choice, causal_lm, masked_lm"},
    {"labels", "head.num_labels", TUNER_INT, "of that head"},
    {"choices", "head.num_choices", TUNER_INT, "of a head of multiple choice"},
    {"head_layers", "head.layers", TUNER_INT, "linear layers of that head"},
    {"head_activation", "head.activation_function", TUNER_STR, "between them"},
    {"head_pooler", "head.use_pooler", TUNER_BOOL, "that head reads what the model's own pooler gives"},
    {"head_dropout", "head.dropout_prob", TUNER_REAL, "before each of its layers, in training"},
    {0},
};

enum cb_status adapters_parse(struct module *m, const char *where, struct cb_err *err) {
    char text[JSON_TEXT];
    m->method = json_object_get(m->config, "config");
    m->tuner = tuner_find_method(m->method);
    if (!m->tuner)
        FAIL(err, CB_E_UNSUPPORTED, "%s: config: architecture: found %s; wanted a known tuner (cambium list tuners)", where,
             json_text(json_object_get(m->method, "architecture"), text));
    m->label = m->name;
    TRY(json_get_str(&m->label, m->config, where, "name", false, err));
    if (!*m->label || strlen(m->label) > 200 || strchr(m->label, '.'))
        FAIL(err, CB_E_FORMAT, "%s: name: found \"%.60s\"; wanted 1 to 200 bytes without a dot", where, m->label);
    return CB_OK;
}

const char *adapters_key(struct module *m, const char *place, const char *container, const char *suffix, struct cb_err *err) {
    const char *key = arena_printf(m->arena, "%s.%s.%s.%s", place, container, m->label, suffix);
    if (!key) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a name", m->name);
    return key;
}

enum cb_status adapters_add(struct module *m, struct tuner_site *site, const char *key, int rank, const int64_t *dim, enum tuner_init init,
                            double spread, enum tuner_role role, int *at, struct cb_err *err) {
    if (!key) return err->code;
    struct tuner_param rest = {.public = {.key = key, .type = type_make(CB_DTYPE_F32, rank, dim)}, .init = init, .spread = spread};
    rest.role = role;
    if (at) *at = site->n_params;
    return tuner_add(m, site, rest, NULL, err);
}

enum cb_status adapters_layers_parse(struct adapters_layers *layers, const json_t *method, const char *where, struct cb_err *err) {
    return json_get_ints(layers->out, &layers->n, 256, method, where, "leave_out", 0, 1 << 20, false, err);
}

bool adapters_layers_take(const struct adapters_layers *layers, const struct nn_site *site) {
    for (int i = 0; i < layers->n; i++)
        if (layers->out[i] == site->depth) return false;
    return true;
}

bool adapters_is_native(const char *model_type) {
    static const char *const types[] = {"albert", "bart",  "bert",    "deberta-v2", "distilbert", "electra", "gpt2",
                                        "llama",  "mbart", "mistral", "mt5",        "roberta",    "t5",      "xlm-roberta"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i], model_type) == 0) return true;
    return false;
}

bool adapters_is_activation(const char *name) {
    char lower[32] = "";
    for (size_t i = 0; name[i] && i + 1 < sizeof lower; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 'a' - 'A' : name[i]);
    return strcasecmp(name, "leakyrelu") == 0 || nn_is_activation(lower);
}

struct cb_tensor *adapters_activation(struct nn *nn, const char *name, struct cb_tensor *x) {
    char lower[32] = "";
    if (strcasecmp(name, "leakyrelu") == 0) return op_leaky_relu(nn->g, x, 0.01);
    for (size_t i = 0; name[i] && i + 1 < sizeof lower; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 'a' - 'A' : name[i]);
    return nn_activation(nn, lower, x);
}

struct cb_tensor *adapters_gate(struct nn *nn, struct cb_tensor *x, struct cb_tensor *w, struct cb_tensor *b) {
    if (nn->start) return graph_fail(nn->g, CB_E_UNSUPPORTED, "modules: a gate that reads whole sequences; here is a part of one");
    struct cb_tensor *open = op_unary(nn->g, "sigmoid", op_linear(nn->g, x, w, b, false));
    return op_mean(nn->g, open, 1, (const int64_t[]){1}, true);
}
