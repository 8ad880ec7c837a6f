/* X-LoRA (Buehler and Buehler 2024): the model runs twice. The first pass takes every expert, a frozen LoRA module, at one fixed coefficient; of its last hidden
   states a classifier makes coefficients for each token (and each layer), at which the second pass takes the experts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/safetensors.h"
#include "modules/lora.h"
#include "modules/parts.h"
#include "ops/ops.h"

enum { EXPERTS = 64, DEPTH = 16 };

/* One expert: its description, its folder and the number of its first parameter here. */
struct expert {
    const char *folder;
    struct module *module;
    int first;
};

struct xlora_options {
    int64_t hidden, depth, size, top_k;  // top_k 0: all
    double dropout, temperature, pass_value, weight;
    bool softmax, softmax_top, by_layer;
    int n;
    struct expert expert[EXPERTS];
    int64_t n_sites;
    int layer[DEPTH];  // numbers of the classifier's weights; the bias follows
};

/* ---- configuration */
static struct xlora_options *options_of(const struct module *m) { return (struct xlora_options *)m->options; }

/* Where an expert lies: at its path, at its path seen from the folder above, or beside the configuration under its name. The last comes last: PEFT writes
   folders of these names too, but reads the experts from their paths. */
static enum cb_status expert_find(struct module *m, struct expert *e, const char *where, const char *name, const char *path,
                                  struct cb_err *err) {
    const char *slash = strrchr(where, '/');
    const int n = slash ? (int)(slash - where) : 1;
    const char *folder = arena_printf(m->arena, "%.*s", n, slash ? where : "."), *candidate[3];
    if (!folder) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", where);
    candidate[0] = path;
    candidate[1] = arena_printf(m->arena, "%s/../%s", folder, path);
    candidate[2] = arena_printf(m->arena, "%s/%s", folder, name);
    for (int i = 0; i < 3 && !e->folder; i++) {
        char *file = candidate[i] ? io_path_join(candidate[i], "adapter_config.json") : NULL;
        if (!file) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", where);
        if (io_is_file(file)) e->folder = candidate[i];
        free(file);
    }
    if (!e->folder) FAIL(err, CB_E_IO, "%s: adapters: %.60s: no module at %.200s, nor beside it", where, name, path);
    return CB_OK;
}

/* An object of paths by name, or a list of paths, which becomes one. */
static enum cb_status adapters_read(struct module *m, struct xlora_options *o, const char *where, struct cb_err *err) {
    json_t *given = json_object_get(m->config, "adapters"), *value;
    const char *name;
    char number[16], text[JSON_TEXT];
    if (json_is_array(given)) {
        json_t *object = json_object();
        size_t i;
        bool failed = !object;
        json_array_foreach(given, i, value) {
            snprintf(number, sizeof number, "%d", (int)i);
            failed |= json_object_set(object, number, value) != 0;
        }
        if (failed || json_object_set_new(m->config, "adapters", object) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
        given = json_object_get(m->config, "adapters");
    }
    if (!json_is_object(given) || !json_object_size(given) || json_object_size(given) > EXPERTS)
        FAIL(err, CB_E_FORMAT, "%s: adapters: found %s; wanted 1 to %d paths by name", where, json_text(given, text), EXPERTS);
    json_object_foreach(given, name, value) {
        const char *path = json_string_value(value);
        if (!path || !*path || strlen(path) != json_string_length(value) || !io_name_stays(name))
            FAIL(err, CB_E_FORMAT, "%s: adapters: %.60s: found %s; wanted a path", where, name, json_text(value, text));
        TRY(expert_find(m, &o->expert[o->n++], where, name, path, err));
    }
    return CB_OK;
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct xlora_options *o = options_of(m);
    const json_t *c = m->config;
    *o = (struct xlora_options){.hidden = 4096, .depth = 1, .size = 2048, .dropout = 0.2, .temperature = 1, .weight = 1, .softmax = true};
    TRY(json_get_int(&o->hidden, c, where, "hidden_size", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->depth, c, where, "xlora_depth", 1, DEPTH, false, err));
    TRY(json_get_int(&o->size, c, where, "xlora_size", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->top_k, c, where, "top_k_lora", 1, EXPERTS, false, err));
    TRY(json_get_float(&o->dropout, c, where, "xlora_dropout_p", 0, 0.999, false, err));
    TRY(json_get_float(&o->temperature, c, where, "softmax_temperature", 1e-6, 1e6, false, err));
    TRY(json_get_float(&o->pass_value, c, where, "scaling_pass_value", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->weight, c, where, "global_scaling_weight", -1e6, 1e6, false, err));
    TRY(json_get_bool(&o->softmax, c, where, "enable_softmax", false, err));
    TRY(json_get_bool(&o->softmax_top, c, where, "enable_softmax_topk", false, err));
    TRY(json_get_bool(&o->by_layer, c, where, "layerwise_scalings", false, err));
    bool trains = false;
    TRY(json_get_bool(&trains, c, where, "use_trainable_adapters", false, err));
    if (trains) FAIL(err, CB_E_UNSUPPORTED, "%s: use_trainable_adapters: found true; experts are frozen here", where);
    return adapters_read(m, o, where, err);
}

static void release(struct module *m) {
    for (int i = 0; m->options && i < options_of(m)->n; i++) module_destroy(&options_of(m)->expert[i].module);
}

/* ---- parameters */
/* An expert's own, from its folder. PEFT's files lack keys in which another expert's number is a part: such have no effect. */
static enum cb_status expert_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const struct xlora_options *o = m->options;
    const int number = (int)(p - m->params);
    struct tensors *file = NULL;
    int i = o->n - 1;
    (void)store;
    (void)seed;
    while (i > 0 && number < o->expert[i].first) i--;
    const char *key = o->expert[i].module->params[number - o->expert[i].first].public.key;
    char text[2][TYPE_TEXT];
    TRY(tensors_open_adapter(&file, o->expert[i].folder, err));
    enum cb_status status = CB_OK;
    const struct tensor *t = tensors_find(file, key);
    memset(data, 0, (size_t)type_bytes(&p->public.type));
    if (t && (type_elements(&t->type) != type_elements(&p->public.type) || !dtype_of(t->type.dtype)->is_float))
        status = err_set(err, CB_E_SHAPE, __FILE__, __LINE__, "%s: %s: found %s; wanted %s", tensors_name(file), key,
                         type_text(&t->type, text[0]), type_text(&p->public.type, text[1]));
    else if (t)
        tensor_read_f32(data, t);
    tensors_destroy(&file);
    return status;
}

static enum cb_status expert_open(struct module *m, const struct nn *nn, int i, struct cb_err *err) {
    struct expert *e = &options_of(m)->expert[i];
    char *path = io_path_join(e->folder, "adapter_config.json");
    enum cb_status status = path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a path", e->folder);
    if (status == CB_OK && !e->module) status = module_check_config(&e->module, path, m->name, nn, err);
    free(path);
    TRY(status);
    const struct module *x = e->module;
    bool is_plain = strcmp(x->tuner->name, "lora") == 0 && !x->n_swaps;
    for (int k = 0; is_plain && k < x->n_sites; k++) {
        const struct lora_site *own = x->sites[k].own;
        is_plain = parts_is_linear(&x->sites[k].site) && lora_site_is_plain(own);
    }
    if (!is_plain) FAIL(err, CB_E_UNSUPPORTED, "%s: an expert of X-LoRA: wanted plain LoRA of linear layers", e->folder);
    e->first = m->n_params;
    for (int k = 0; k < x->n_params; k++) {
        struct tuner_param p = {.role = TUNER_DERIVED, .fill = expert_fill};
        p.public.type = x->params[k].public.type;
        p.public.key = arena_printf(m->arena, "xlora_expert.%d.%s", i, x->params[k].public.key);
        TRY(tuner_add(m, NULL, p, NULL, err));
    }
    return CB_OK;
}

/* The sites are those of the experts. */
static bool implied(const struct module *m, const struct nn_site *site) {
    for (int i = 0; i < options_of(m)->n; i++) {
        const struct module *x = options_of(m)->expert[i].module;
        if (x && table_get(&x->by_site, site->name, strlen(site->name)) >= 0) return true;
    }
    return false;
}

static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    struct xlora_options *o = options_of(m);
    if (nn->width != o->hidden)
        FAIL(err, CB_E_SHAPE, "%s: hidden_size: found %lld; the model has %lld", m->name, (long long)o->hidden, (long long)nn->width);
    for (int i = 0; i < o->n; i++) TRY(expert_open(m, nn, i, err));
    for (int i = 0; i < nn->n_sites; i++) o->n_sites += implied(m, nn->sites[i]);
    // the places between two layers are an activation's and, where there is one, a dropout's
    const int step = o->dropout > 0 ? 3 : 2;
    for (int64_t i = 0; i < o->depth; i++) {
        const bool is_last = i + 1 == o->depth;
        const int64_t out = is_last ? o->n * (o->by_layer ? o->n_sites : 1) : o->size, in = i ? o->size : o->hidden;
        struct tuner_param p = {.init = TUNER_UNIFORM, .spread = 1 / sqrt((double)in)};
        p.public.key = arena_printf(m->arena, "base_model.internal_xlora_classifier.layers.%d.weight", (int)i * step);
        p.public.type = type_make(CB_DTYPE_F32, 2, (int64_t[]){out, in});
        TRY(tuner_add(m, NULL, p, &o->layer[i], err));
        p.public.key = arena_printf(m->arena, "base_model.internal_xlora_classifier.layers.%d.bias", (int)i * step);
        p.public.type = type_make(CB_DTYPE_F32, 1, &out);
        TRY(tuner_add(m, NULL, p, NULL, err));
    }
    return CB_OK;
}

/* rank: the site's number among those of the module. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    (void)err;
    site->rank = m->n_sites;
    return CB_OK;
}

/* ---- the graph */
static struct cb_tensor *param(const struct module *m, struct nn *nn, int number) {
    const struct module_param *p = &m->params[number].public;
    return graph_param(nn->g, p->name, p->type);
}

/* Coefficients (tokens, sites or 1, experts) of the last hidden states of the first pass, which gets no gradient. */
static struct cb_tensor *survey(const struct module *m, struct nn *nn, struct cb_tensor *x) {
    const struct xlora_options *o = m->options;
    struct cb_graph *g = nn->g;
    x = op_reshape(g, op_stop_gradient(g, x), 2, (int64_t[]){-1, o->hidden});
    for (int64_t i = 0; i < o->depth; i++) {
        x = op_linear(g, x, param(m, nn, o->layer[i]), param(m, nn, o->layer[i] + 1), false);
        if (i + 1 < o->depth) x = nn_dropout(nn, op_unary(g, "relu", x), o->dropout);
    }
    x = op_reshape(g, x, 3, (int64_t[]){-1, o->by_layer ? o->n_sites : 1, o->n});
    return o->softmax ? op_softmax(g, op_scale(g, x, 1 / o->temperature, 0), 2) : x;
}

/* Of a site's coefficients (tokens, experts) the largest are kept, and made to sum to 1 if asked for. */
static struct cb_tensor *kept(const struct xlora_options *o, struct cb_graph *g, struct cb_tensor *c) {
    if (graph_is_bad(g, c)) return c;
    if (!o->top_k || o->top_k >= o->n) return o->softmax_top ? op_softmax(g, c, 1) : c;
    struct cb_tensor *best = op_topk(g, c, o->top_k, 1, true);
    return op_scatter_add(g, NULL, &c->type, graph_out(g, best, 1), o->softmax_top ? op_softmax(g, best, 1) : best, 1);
}

/* The first pass: the same of equal coefficients, of which the first are kept. A 0 is kept by no softmax. */
static double first_coefficient(const struct xlora_options *o, int i) {
    const int64_t n = o->top_k && o->top_k < o->n ? o->top_k : o->n;
    return i >= n || o->pass_value == 0 ? 0 : o->softmax_top ? 1.0 / (double)n : o->pass_value;
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct xlora_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *c = NULL;
    const struct cb_type type = y->type;
    if (nn->survey) {
        const int64_t at = o->by_layer ? site->rank : 0;
        c = kept(o, g, op_reshape(g, op_slice(g, nn->survey, 1, at, at + 1, 1), 2, (int64_t[]){-1, o->n}));
    }
    x = op_reshape(g, x, 2, (int64_t[]){-1, site->site.in});
    y = op_reshape(g, y, 2, (int64_t[]){-1, site->site.out});
    for (int i = 0; i < o->n; i++) {
        const struct expert *e = &o->expert[i];
        const int64_t number = table_get(&e->module->by_site, site->site.name, strlen(site->site.name));
        if (number < 0 || (!c && first_coefficient(o, i) == 0)) continue;
        const struct tuner_site *s = &e->module->sites[number];
        const double factor = s->scale * o->weight * (c ? 1 : first_coefficient(o, i));
        const struct lora_options *lora = e->module->options;
        struct cb_tensor *low = op_linear(g, nn_dropout(nn, x, lora->dropout), param(m, nn, e->first + s->param[0]), NULL, false);
        low = op_mul(g, op_scale(g, low, factor, 0), scale);
        if (c) low = op_mul(g, low, op_slice(g, c, 1, i, i + 1, 1));
        y = op_add(g, y, op_linear(g, low, param(m, nn, e->first + s->param[1]), NULL, false));
    }
    return op_reshape(g, y, type.rank, type.dim);
}

static const struct tuner_option options[] = {
    {"experts", "adapters", TUNER_STRS, "folders of LoRA modules, joined by +"},
    {"hidden", "hidden_size", TUNER_INT, "width of the model"},
    {"depth", "xlora_depth", TUNER_INT, "layers of the classifier"},
    {"size", "xlora_size", TUNER_INT, "width of its inner layers"},
    {"dropout", "xlora_dropout_p", TUNER_FLOAT, "between them, in training"},
    {"layerwise", "layerwise_scalings", TUNER_BOOL, "each layer has coefficients of its own"},
    {"softmax", "enable_softmax", TUNER_BOOL, "coefficients sum to 1"},
    {"temperature", "softmax_temperature", TUNER_FLOAT, "of that softmax"},
    {"top_k", "top_k_lora", TUNER_INT, "experts that a token takes; else all"},
    {"softmax_top", "enable_softmax_topk", TUNER_BOOL, "a softmax over those taken"},
    {"pass_value", "scaling_pass_value", TUNER_FLOAT, "coefficient of the first pass"},
    {"weight", "global_scaling_weight", TUNER_FLOAT, "factor of all"},
    {0},
};
static const char *const cases[] = {NULL};

const struct tuner tuner_xlora = {
    .name = "xlora",
    .doc = "X-LoRA: a first pass of the model gives each token its mixture of LoRA modules for the second.",
    .peft_type = "XLORA",
    .options = options,
    .defaults =
        "{\"adapters\":{},\"auto_mapping\":null,\"base_model_name_or_path\":null,\"enable_softmax\":true,\"enable_softmax_topk\":false,"
        "\"global_scaling_weight\":1.0,\"hidden_size\":4096,\"inference_mode\":true,\"layerwise_scalings\":false,\"peft_type\":"
        "\"XLORA\",\"peft_version\":\"0.21.2\",\"revision\":null,\"scaling_pass_value\":0.0,\"softmax_temperature\":1.0,"
        "\"task_type\":null,\"top_k_lora\":null,\"use_trainable_adapters\":false,\"xlora_depth\":1,\"xlora_dropout_p\":0.2,"
        "\"xlora_size\":2048}",
    .options_bytes = sizeof(struct xlora_options),
    .fresh = TUNER_NOT_BASE,
    .scaling = "all experts",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .implied = implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .delta = delta,
    .survey = survey,
    .release = release,
};
